//! Compiled kernels.
//!
//! They are not kept on disk: drivers do that themselves, where a cache of ours would gain nothing. Opening lavapipe and compiling
//! all kernels takes 0.4 s with Mesa's cache and 1.0 s without; wgpu's pipeline cache would have to replace the difference.

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::fmt::{self, Display, Formatter};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use cryptodl_core::backend::{BackendError, BackendRemedy, Result};
use cryptodl_shaders::{self as shaders, Binding, ENTRY, Variant};

use super::device::Device;

/// Stack of a thread that compiles: compilers recurse, and a driver may do all its work in the caller's thread.
const STACK_BYTES: usize = 16 << 20;

/// How long a driver may take to compile one kernel, and who is told what it is at.
///
/// A compilation cannot be interrupted. When one takes too long, whoever waits for it gets an error that names the kernel, and its
/// thread is left behind.
#[derive(Clone)]
pub struct CompileWatch {
    /// Time for one kernel.
    pub limit: Duration,
    /// Called whenever a compilation begins or ends.
    pub progress: Arc<dyn Fn(&Compiling) + Send + Sync>,
}

/// What is being compiled.
#[derive(Clone, Debug)]
pub struct Compiling {
    /// The kernel that has been compiled for the longest time.
    pub kernel: Option<&'static str>,
    /// Kernels that are ready.
    pub done: usize,
    /// Kernels in all.
    pub total: usize,
}

impl CompileWatch {
    /// Long enough for any compiler that ends, short enough for whoever waits.
    pub const DEFAULT_LIMIT: Duration = Duration::from_secs(120);
}

impl Default for CompileWatch {
    fn default() -> Self {
        CompileWatch { limit: Self::DEFAULT_LIMIT, progress: Arc::new(|_| ()) }
    }
}

/// A compiled kernel. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Kernel(Arc<Compiled>);

#[derive(Debug)]
struct Compiled {
    name: &'static str,
    pipeline: wgpu::ComputePipeline,
    layout: wgpu::BindGroupLayout,
}

impl Kernel {
    pub fn name(&self) -> &'static str {
        self.0.name
    }

    pub fn pipeline(&self) -> &wgpu::ComputePipeline {
        &self.0.pipeline
    }

    pub fn layout(&self) -> &wgpu::BindGroupLayout {
        &self.0.layout
    }
}

/// What a driver compiles at a time: a kernel in one variant, with one value of its override (0 where it has none).
#[derive(Clone, Copy, Debug)]
pub(super) struct Unit {
    pub kernel: &'static shaders::Kernel,
    pub variant: Variant,
    pub value: u32,
}

impl Unit {
    /// What is needed of `kernel` for dimension `n`.
    pub fn all(kernel: &'static shaders::Kernel, variant: Variant, n: usize) -> impl Iterator<Item = Unit> {
        let [log_n, row_groups] = ["LOG_N", "ROW_GROUPS"].map(|name| kernel.overrides.contains(&name));
        let values = match (log_n, row_groups) {
            (true, _) => vec![n.trailing_zeros()],
            (_, true) => vec![1, 2, 4],
            _ => vec![0],
        };
        values.into_iter().map(move |value| Unit { kernel, variant, value })
    }

    pub fn compile(&self, device: &Device) -> Result<Kernel> {
        device.watched(0, || Kernel(Arc::new(Compiled::new(device, self))))
    }
}

impl Display for Unit {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Unit { kernel, variant, value } = self;
        write!(f, "{}", kernel.name)?;
        match kernel.variants().count() {
            1 => {}
            2 => write!(f, " ({})", variant.multiply.name())?,
            _ => write!(f, " ({}, {})", variant.multiply.name(), variant.dot.name())?,
        }
        let overridden = ["LOG_N", "ROW_GROUPS"].into_iter().find(|name| kernel.overrides.contains(name));
        overridden.map_or(Ok(()), |name| write!(f, " with {name} = {value}"))
    }
}

/// Kernels for one ring dimension, by name and value of the override.
#[derive(Debug)]
pub(super) struct Pipelines(HashMap<(&'static str, u32), Kernel>);

impl Pipelines {
    /// Compiles `units` in parallel.
    ///
    /// # Errors
    /// What the driver refused, or a kernel that took longer than the watch allows.
    pub fn compile(device: &Arc<Device>, units: Vec<Unit>, watch: &CompileWatch) -> Result<Self> {
        let workers = rayon::current_num_threads();
        let compiled = watched(device, &device.info.name, units, workers, watch, |unit, device| unit.compile(device))?;
        Ok(Pipelines(compiled.into_iter().map(|(unit, kernel)| ((unit.kernel.name, unit.value), kernel)).collect()))
    }

    /// A compiled kernel; `value` is that of its override, 0 without one.
    pub fn get(&self, kernel: &'static shaders::Kernel, value: u32) -> &Kernel {
        &self.0[&(kernel.name, value)]
    }
}

/// Does `work` for all `units` on a device called `name`, so many at a time, in threads of their own. After an error no further work
/// begins; what has begun is waited for, because a driver must not be left while it compiles, unless that takes too long.
pub(super) fn watched<D: Send + Sync + 'static, T: Send + 'static>(
    device: &Arc<D>,
    name: &str,
    units: Vec<Unit>,
    workers: usize,
    watch: &CompileWatch,
    work: fn(&Unit, &Arc<D>) -> Result<T>,
) -> Result<Vec<(Unit, T)>> {
    enum Event<T> {
        Begins(usize, Unit),
        Ends(usize, Result<T>),
    }
    let total = units.len();
    let queue: Arc<Mutex<VecDeque<_>>> = Arc::new(Mutex::new(units.into_iter().enumerate().collect()));
    let next = |queue: &Mutex<VecDeque<_>>| queue.lock().expect("no code panics while it takes a kernel").pop_front();
    let (sender, events) = mpsc::channel();
    let start = |_| {
        let (device, queue, sender) = (Arc::clone(device), Arc::clone(&queue), sender.clone());
        // Nobody listens any more once a kernel took too long.
        let compile = move || {
            while let Some((index, unit)) = next(&queue) {
                if sender.send(Event::Begins(index, unit)).is_err() {
                    return;
                }
                if sender.send(Event::Ends(index, work(&unit, &device))).is_err() {
                    return;
                }
            }
        };
        thread::Builder::new().stack_size(STACK_BYTES).spawn(compile).expect("a thread for the driver's compiler")
    };
    let threads: Vec<_> = (0..workers.min(total)).map(start).collect();
    drop(sender);

    let mut running: Vec<(usize, Unit, Instant)> = Vec::new();
    let mut done = Vec::new();
    let mut failed = None;
    loop {
        let left = running.first().map_or(watch.limit, |(_, _, since)| watch.limit.saturating_sub(since.elapsed()));
        match events.recv_timeout(left) {
            Ok(Event::Begins(index, unit)) => running.push((index, unit, Instant::now())),
            Ok(Event::Ends(index, result)) => {
                let place = running.iter().position(|&(of, ..)| of == index).expect("what ends has begun");
                let (_, unit, _) = running.remove(place);
                match result {
                    Ok(made) => done.push((unit, made)),
                    Err(error) => {
                        queue.lock().expect("no code panics while it takes a kernel").clear();
                        failed.get_or_insert(error);
                    }
                }
            }
            Err(RecvTimeoutError::Timeout) => {
                if let Some((_, unit, _)) = running.first() {
                    queue.lock().expect("no code panics while it takes a kernel").clear();
                    return Err(too_slow(name, unit, watch.limit));
                }
            }
            Err(RecvTimeoutError::Disconnected) => break,
        }
        let kernel = running.first().map(|(_, unit, _)| unit.kernel.name);
        (watch.progress)(&Compiling { kernel, done: done.len(), total });
    }
    // The threads hold the device: it must not be theirs to close while this process ends.
    for thread in threads {
        thread.join().expect("compiling does not panic");
    }
    failed.map_or(Ok(done), Err)
}

fn too_slow(device: &str, unit: &Unit, limit: Duration) -> BackendError {
    use BackendRemedy::{AnotherAdapter, Cpu, LongerCompileLimit, UpdateDriver};
    BackendError::Unsupported {
        device: device.into(),
        reason: format!("the driver did not compile the kernel {unit} within {} s", limit.as_secs_f64()),
        remedies: &[UpdateDriver, LongerCompileLimit, AnotherAdapter, Cpu],
    }
}

impl Compiled {
    fn new(device: &Device, unit: &Unit) -> Self {
        let &Unit { kernel, variant, value } = unit;
        let label = Some(kernel.name);
        let entries: Vec<_> = (0..).zip(kernel.bindings).map(|(binding, &kind)| entry(binding, kind)).collect();
        let layout =
            device.device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label, entries: &entries });
        let pipeline_layout = device.device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label,
            bind_group_layouts: &[Some(&layout)],
            ..Default::default()
        });
        let specialised = ["LOG_N", "ROW_GROUPS"].into_iter().filter(|name| kernel.overrides.contains(name));
        let constants: Vec<_> = specialised.map(|name| (name, f64::from(value))).collect();
        let pipeline = device.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label,
            layout: Some(&pipeline_layout),
            module: &module(device, kernel, variant),
            entry_point: Some(ENTRY),
            compilation_options: wgpu::PipelineCompilationOptions {
                constants: &constants,
                zero_initialize_workgroup_memory: false,
            },
            cache: None,
        });
        Compiled { name: kernel.name, pipeline, layout }
    }
}

fn entry(binding: u32, kind: Binding) -> wgpu::BindGroupLayoutEntry {
    let ty = match kind {
        Binding::Uniform => wgpu::BufferBindingType::Uniform,
        Binding::ReadOnly => wgpu::BufferBindingType::Storage { read_only: true },
        Binding::ReadWrite => wgpu::BufferBindingType::Storage { read_only: false },
    };
    wgpu::BindGroupLayoutEntry {
        binding,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None },
        count: None,
    }
}

/// The shader without run-time checks of indices, loops and divisions.
#[allow(unsafe_code)]
fn module(device: &Device, kernel: &shaders::Kernel, variant: Variant) -> wgpu::ShaderModule {
    let source = wgpu::ShaderSource::Wgsl(Cow::Borrowed(kernel.wgsl(variant)));
    let descriptor = wgpu::ShaderModuleDescriptor { label: Some(kernel.name), source };
    // SAFETY: the source is part of this program and was validated by naga when it was built. Its loops count to numbers in
    // its parameters, or draw words until one is below a prime. Its indices follow from shapes and views, which `launch.rs`
    // derives from the bound tensors, and from gather indices, which `LinearMap` checked; none follows from a residue. It
    // divides by its parameters' counts, which are not zero. What `compile.rs` launches keeps to this as it says there.
    unsafe { device.device.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VARIANT: Variant = Variant { multiply: shaders::Multiply::Portable, dot: shaders::Dot::Integer };

    fn units() -> Vec<Unit> {
        shaders::KERNELS.iter().flat_map(|kernel| Unit::all(kernel, VARIANT, 4096)).collect()
    }

    #[test]
    fn every_kernel_is_compiled_once_and_reported() {
        let heard: Arc<Mutex<Vec<Compiling>>> = Arc::default();
        let hear = Arc::clone(&heard);
        let progress = Arc::new(move |compiling: &Compiling| hear.lock().unwrap().push(compiling.clone()));
        let watch = CompileWatch { progress, ..CompileWatch::default() };
        let done = watched(&Arc::new(()), "a device", units(), 3, &watch, |unit, _| Ok(unit.to_string())).unwrap();
        let mut titles: Vec<String> = done.into_iter().map(|(_, title)| title).collect();
        let mut expected: Vec<String> = units().iter().map(Unit::to_string).collect();
        titles.sort();
        expected.sort();
        assert_eq!(titles, expected);
        assert!(
            expected.iter().any(|title| title == "linear (16-bit halves, integer multiply-adds) with ROW_GROUPS = 4")
        );
        let heard = heard.lock().unwrap();
        assert!(heard.iter().is_sorted_by_key(|compiling| compiling.done));
        assert!(heard.last().is_some_and(|last| last.done == expected.len() && last.total == expected.len()));
        assert!(heard.iter().any(|compiling| compiling.kernel.is_some()));
    }

    #[test]
    fn a_compiler_that_does_not_end_is_an_error_that_names_the_kernel() {
        let endless = |unit: &Unit, _: &Arc<()>| {
            if unit.kernel.name == "horner" {
                thread::sleep(Duration::from_secs(3600));
            }
            Ok(())
        };
        let watch = CompileWatch { limit: Duration::from_millis(50), ..CompileWatch::default() };
        let error = watched(&Arc::new(()), "a device", units(), 2, &watch, endless).unwrap_err();
        for remedy in [BackendRemedy::LongerCompileLimit, BackendRemedy::Cpu] {
            assert!(error.remedies().contains(&remedy), "{error} lacks {remedy}");
        }
        let error = error.to_string();
        for part in ["a device", "the kernel horner (16-bit halves)", "0.05 s"] {
            assert!(error.contains(part), "{error} lacks {part}");
        }
    }

    #[test]
    fn what_the_driver_refuses_is_returned() {
        let refusing = |unit: &Unit, device: &Arc<String>| match unit.kernel.name {
            "linear" => Err(BackendError::OutOfMemory { device: device.to_string(), bytes: 7 }),
            _ => Ok(()),
        };
        let refused = watched(&Arc::new("a device".to_owned()), "", units(), 1, &CompileWatch::default(), refusing);
        assert!(matches!(refused, Err(BackendError::OutOfMemory { bytes: 7, .. })), "{refused:?}");
    }
}
