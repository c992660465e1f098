//! Device memory under a budget: freed buffers are used again before new ones are made.

use std::sync::{Arc, Mutex};

use cryptodl_core::backend::{BackendError, Result};

use super::device::Device;

/// Usage of every pooled buffer.
const USAGE: wgpu::BufferUsages =
    wgpu::BufferUsages::STORAGE.union(wgpu::BufferUsages::COPY_SRC).union(wgpu::BufferUsages::COPY_DST);

/// Sizes are multiples of this; a binding may start at any multiple.
pub(super) const GRAIN: u64 = 256;

/// All device memory of one backend.
#[derive(Debug)]
pub(super) struct Pool {
    device: Arc<Device>,
    budget: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Buffers that nobody holds. Commands that use them may still be queued: the queue keeps their order.
    free: Vec<wgpu::Buffer>,
    /// Bytes of all buffers, free ones included.
    allocated: u64,
    /// Bytes of the buffers that are held.
    held: u64,
    /// The most that was ever held.
    peak: u64,
}

/// Bytes of device memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct MemoryUse {
    /// In tensors and buffers of running operations.
    pub held: u64,
    /// The most that was ever held at once.
    pub peak: u64,
    /// Held, or kept for use again.
    pub allocated: u64,
    /// What may be allocated at most.
    pub budget: u64,
}

impl Pool {
    pub fn new(device: Arc<Device>, budget: u64) -> Arc<Self> {
        Arc::new(Pool { device, budget, state: Mutex::default() })
    }

    /// A buffer of at least `bytes` bytes with any contents.
    pub fn take(self: &Arc<Self>, bytes: u64) -> Result<Pooled> {
        self.device.check()?;
        let size = bytes.max(1).next_multiple_of(GRAIN);
        let mut state = self.state.lock().expect("no code panics while it holds the pool");
        let buffer = match state.reuse(size) {
            Some(buffer) => buffer,
            None => {
                state.make_room(size, self.budget);
                if state.allocated.saturating_add(size) > self.budget {
                    return Err(BackendError::OutOfMemory { device: self.device.info.name.clone(), bytes });
                }
                let buffer = match self.device.buffer("cryptodl tensor", size, USAGE) {
                    // The driver may have less than the budget: what is kept for later goes first.
                    Err(BackendError::OutOfMemory { .. }) if !state.free.is_empty() => {
                        state.make_room(self.budget, self.budget);
                        drop(state);
                        self.device.wait(None)?;
                        let buffer = self.device.buffer("cryptodl tensor", size, USAGE)?;
                        state = self.state.lock().expect("no code panics while it holds the pool");
                        buffer
                    }
                    other => other?,
                };
                state.allocated += size;
                buffer
            }
        };
        state.held += buffer.size();
        state.peak = state.peak.max(state.held);
        Ok(Pooled { pool: Arc::clone(self), buffer })
    }

    pub fn device_name(&self) -> &str {
        &self.device.info.name
    }

    pub fn usage(&self) -> MemoryUse {
        let State { held, peak, allocated, .. } = *self.state.lock().expect("no code panics while it holds the pool");
        MemoryUse { held, peak, allocated, budget: self.budget }
    }
}

impl State {
    /// The smallest free buffer that is large enough and wastes at most an eighth.
    fn reuse(&mut self, size: u64) -> Option<wgpu::Buffer> {
        let fits = |buffer: &wgpu::Buffer| (size..=size + size / 8).contains(&buffer.size());
        let free = self.free.iter().enumerate().filter(|(_, buffer)| fits(buffer));
        let (index, _) = free.min_by_key(|(_, buffer)| buffer.size())?;
        Some(self.free.remove(index))
    }

    /// Gives free buffers back to the driver, longest unused first, until `size` bytes fit the budget or none is left.
    fn make_room(&mut self, size: u64, budget: u64) {
        while self.allocated.saturating_add(size) > budget && !self.free.is_empty() {
            self.allocated -= self.free.remove(0).size();
        }
    }
}

/// A buffer that returns to its pool when dropped.
#[derive(Debug)]
pub(super) struct Pooled {
    pool: Arc<Pool>,
    pub buffer: wgpu::Buffer,
}

impl Drop for Pooled {
    fn drop(&mut self) {
        let mut state = self.pool.state.lock().expect("no code panics while it holds the pool");
        state.held -= self.buffer.size();
        state.free.push(self.buffer.clone());
    }
}
