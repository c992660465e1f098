//! Commands are collected and submitted together: a whole layer, with nothing read back in between.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use cryptodl_core::backend::{Result, Transfers};

use super::device::Device;
use super::pipelines::Kernel;
use super::pool::GRAIN;
use super::timing::{KernelTime, Timer};

/// Commands after which a submission is due, so that the device does not wait for the host.
pub(super) const MAX_COMMANDS: usize = 512;

/// Bytes of the small arguments of one submission.
const ARENA_BYTES: u64 = 1 << 20;

/// Collects commands of one device in the order in which they must happen.
pub(super) struct Recorder {
    device: Arc<Device>,
    state: Mutex<State>,
}

struct State {
    commands: Vec<Command>,
    /// Small arguments of the commands.
    arena: Vec<u8>,
    arena_buffer: wgpu::Buffer,
    /// The latest submission.
    last: Option<wgpu::SubmissionIndex>,
    transfers: Transfers,
    timer: Option<Timer>,
}

/// A part of a buffer.
#[derive(Clone, Debug)]
pub(super) struct Slice {
    pub buffer: wgpu::Buffer,
    pub offset: u64,
    pub size: u64,
}

enum Command {
    Dispatch { kernel: Kernel, bindings: Vec<Binding>, groups: [u32; 3] },
    Copy { from: Slice, to: wgpu::Buffer, offset: u64 },
    Clear(Slice),
}

/// What a kernel's binding is bound to.
enum Binding {
    Tensor(Slice),
    /// Offset and length in the arena.
    Argument(u64, u64),
}

/// One argument of a dispatch, in binding order.
pub(super) enum Argument<'a> {
    /// A part of a tensor or table.
    Buffer(Slice),
    /// A few bytes that travel with the command.
    Bytes(&'a [u8]),
}

impl Slice {
    /// All of `buffer`.
    pub fn whole(buffer: &wgpu::Buffer) -> Self {
        Slice { buffer: buffer.clone(), offset: 0, size: buffer.size() }
    }

    fn binding(&self) -> wgpu::BindingResource<'_> {
        let size = wgpu::BufferSize::new(self.size);
        wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer: &self.buffer, offset: self.offset, size })
    }
}

impl Recorder {
    pub fn new(device: Arc<Device>, timed: bool) -> Result<Self> {
        use wgpu::BufferUsages;
        let usage = BufferUsages::STORAGE | BufferUsages::UNIFORM | BufferUsages::COPY_DST;
        let arena_buffer = device.buffer("cryptodl arguments", ARENA_BYTES, usage)?;
        let timer = if timed { Some(Timer::new(&device)?) } else { None };
        let state = State {
            commands: Vec::new(),
            arena: Vec::new(),
            arena_buffer,
            last: None,
            transfers: Transfers::default(),
            timer,
        };
        Ok(Recorder { device, state: Mutex::new(state) })
    }

    /// Runs `kernel` on `groups` workgroups.
    pub fn dispatch(&self, kernel: &Kernel, arguments: Vec<Argument<'_>>, groups: [u32; 3]) -> Result<()> {
        let bytes: u64 = (arguments.iter())
            .map(|argument| match argument {
                Argument::Buffer(_) => 0,
                Argument::Bytes(bytes) => (bytes.len() as u64).next_multiple_of(GRAIN),
            })
            .sum();
        assert!(bytes <= ARENA_BYTES, "{bytes} bytes of arguments");
        let mut state = self.room(bytes)?;
        let bindings = arguments.into_iter().map(|argument| state.bind(argument)).collect();
        state.commands.push(Command::Dispatch { kernel: kernel.clone(), bindings, groups });
        Ok(())
    }

    /// Copies `from` to `offset` in `to`, another buffer.
    pub fn copy(&self, from: Slice, to: &wgpu::Buffer, offset: u64) -> Result<()> {
        self.room(0)?.commands.push(Command::Copy { from, to: to.clone(), offset });
        Ok(())
    }

    /// Fills with zeros.
    pub fn clear(&self, slice: Slice) -> Result<()> {
        self.room(0)?.commands.push(Command::Clear(slice));
        Ok(())
    }

    /// Submits what was recorded. Returns what to wait for.
    pub fn flush(&self) -> Result<Option<wgpu::SubmissionIndex>> {
        let mut state = self.lock();
        state.submit(&self.device)?;
        Ok(state.last.clone())
    }

    /// Writes `parts`, one after the other and whole words in all, to the start of `to`, after everything recorded so far. The
    /// bytes are copied beside what the device computes and other threads record.
    pub fn write(&self, to: &Slice, parts: &[&[u8]]) -> Result<()> {
        let started = Instant::now();
        let Some(size) = wgpu::BufferSize::new(parts.iter().map(|part| part.len() as u64).sum()) else {
            return Ok(());
        };
        let queue = &self.device.queue;
        let view = self.device.watched(size.get(), || queue.write_buffer_with(&to.buffer, to.offset, size))?;
        // What was refused without an error is one in the fault.
        if let Some(mut view) = view {
            let mut start = 0;
            for part in parts {
                view.slice(start..start + part.len()).copy_from_slice(part);
                start += part.len();
            }
            let copying = started.elapsed();
            let mut state = self.lock();
            // Writes overtake recorded commands, but not submitted ones. Some drivers compute while they accept those.
            state.submit(&self.device)?;
            let started = Instant::now();
            drop(view);
            state.last = Some(queue.submit([]));
            state.transfers.uploaded_bytes += size.get();
            state.transfers.upload_seconds += (copying + started.elapsed()).as_secs_f64();
        }
        self.device.check()
    }

    /// Counts bytes that were read back.
    pub fn fetched(&self, bytes: u64, seconds: f64) {
        let mut state = self.lock();
        state.transfers.downloaded_bytes += bytes;
        state.transfers.download_seconds += seconds;
    }

    /// What crossed so far, apart from the small arguments of commands.
    pub fn transfers(&self) -> Transfers {
        self.lock().transfers
    }

    /// Submits what was recorded and waits until it is done. Other threads may record and submit meanwhile.
    pub fn wait(&self) -> Result<()> {
        let (last, stamps) = {
            let mut state = self.lock();
            state.submit(&self.device)?;
            (state.last.clone(), state.timer.as_mut().map(Timer::take_pending))
        };
        self.device.wait(last)?;
        let Some(stamps) = stamps else { return Ok(()) };
        let stamps = stamps.read(&self.device)?;
        if let Some(timer) = &mut self.lock().timer {
            timer.add(stamps);
        }
        Ok(())
    }

    /// Time per kernel of everything that was waited for.
    pub fn timings(&self) -> Vec<KernelTime> {
        self.lock().timer.as_ref().map_or_else(Vec::new, Timer::times)
    }

    /// Whether kernels are timed.
    pub fn is_timed(&self) -> bool {
        self.lock().timer.is_some()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code panics while it records")
    }

    /// Room for one more command with `bytes` bytes of arguments.
    fn room(&self, bytes: u64) -> Result<MutexGuard<'_, State>> {
        let mut state = self.lock();
        if state.commands.len() == MAX_COMMANDS || state.arena.len() as u64 + bytes > ARENA_BYTES {
            state.submit(&self.device)?;
        }
        Ok(state)
    }
}

impl State {
    fn bind(&mut self, argument: Argument<'_>) -> Binding {
        match argument {
            Argument::Buffer(slice) => Binding::Tensor(slice),
            Argument::Bytes(bytes) => {
                let offset = self.arena.len() as u64;
                self.arena.extend_from_slice(bytes);
                self.arena.resize(self.arena.len().next_multiple_of(GRAIN as usize), 0);
                Binding::Argument(offset, bytes.len() as u64)
            }
        }
    }

    fn submit(&mut self, device: &Device) -> Result<()> {
        if !self.commands.is_empty() {
            if !self.arena.is_empty() {
                device.queue.write_buffer(&self.arena_buffer, 0, &self.arena);
                self.arena.clear();
            }
            let mut encoder = device.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            let commands = std::mem::take(&mut self.commands);
            let timed = self.timer.is_some();
            let same_pass = |a: &Command, b: &Command| {
                !timed && matches!((a, b), (Command::Dispatch { .. }, Command::Dispatch { .. }))
            };
            for run in commands.chunk_by(same_pass) {
                match run {
                    [Command::Copy { from, to, offset }] => {
                        encoder.copy_buffer_to_buffer(&from.buffer, from.offset, to, *offset, from.size);
                    }
                    [Command::Clear(slice)] => encoder.clear_buffer(&slice.buffer, slice.offset, Some(slice.size)),
                    dispatches => self.encode(device, &mut encoder, dispatches),
                }
            }
            // Where timestamps find no room, nothing is timed any more.
            self.timer.take_if(|timer| timer.resolve(device, &mut encoder).is_err());
            self.last = Some(device.queue.submit([encoder.finish()]));
        }
        device.check()
    }

    /// One pass of dispatches: a single one where each is timed.
    fn encode(&mut self, device: &Device, encoder: &mut wgpu::CommandEncoder, dispatches: &[Command]) {
        let label = match dispatches {
            [Command::Dispatch { kernel, .. }, ..] => kernel.name(),
            _ => unreachable!("passes consist of dispatches"),
        };
        let timestamp_writes = self.timer.as_mut().map(|timer| timer.pass(label));
        let mut pass =
            encoder.begin_compute_pass(&wgpu::ComputePassDescriptor { label: Some(label), timestamp_writes });
        for command in dispatches {
            let Command::Dispatch { kernel, bindings, groups: [x, y, z] } = command else { unreachable!() };
            let resource = |binding: &'_ Binding| match *binding {
                Binding::Tensor(ref slice) => slice.clone(),
                Binding::Argument(offset, size) => Slice { buffer: self.arena_buffer.clone(), offset, size },
            };
            let slices: Vec<Slice> = bindings.iter().map(resource).collect();
            let entries: Vec<_> = (0..)
                .zip(&slices)
                .map(|(binding, slice)| wgpu::BindGroupEntry { binding, resource: slice.binding() })
                .collect();
            let group = device.device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some(kernel.name()),
                layout: kernel.layout(),
                entries: &entries,
            });
            pass.set_pipeline(kernel.pipeline());
            pass.set_bind_group(0, &group, &[]);
            pass.dispatch_workgroups(*x, *y, *z);
        }
    }
}
