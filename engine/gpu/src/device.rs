//! An open device that reports every failure as a typed error.

use std::sync::{Arc, Mutex};

use cryptodl_core::backend::{BackendError, BackendRemedy, Result};

use super::{Adapter, AdapterInfo, GpuError};

/// Device and queue of one adapter.
///
/// Allocations are watched by an error scope each, so a refused one fails alone. Whatever else goes wrong (the device is lost, a
/// command is refused) may have touched any tensor: such a [`Fault`] is kept and returned by every later call.
#[derive(Debug)]
pub(super) struct Device {
    pub device: wgpu::Device,
    pub queue: wgpu::Queue,
    pub info: AdapterInfo,
    fault: Arc<Fault>,
}

/// The first thing that went wrong, unless it was only a consequence of the device's loss.
#[derive(Debug, Default)]
struct Fault(Mutex<Option<BackendError>>);

impl Fault {
    fn get(&self) -> Option<BackendError> {
        self.0.lock().expect("no code panics while it holds the fault").clone()
    }

    fn keep(&self, error: BackendError) {
        let lost = |error: &BackendError| matches!(error, BackendError::DeviceLost { .. });
        let mut kept = self.0.lock().expect("no code panics while it holds the fault");
        if kept.as_ref().is_none_or(|kept| lost(&error) && !lost(kept)) {
            *kept = Some(error);
        }
    }
}

impl Device {
    pub fn open(adapter: &Adapter) -> std::result::Result<Self, GpuError> {
        let (device, queue) = adapter.open()?;
        let (fault, info) = (Arc::new(Fault::default()), adapter.info().clone());
        let (kept, name) = (Arc::clone(&fault), info.name.clone());
        device.set_device_lost_callback(move |_, words| {
            kept.keep(BackendError::DeviceLost { device: name.clone(), reason: words });
        });
        let (kept, name) = (Arc::clone(&fault), info.name.clone());
        device.on_uncaptured_error(Arc::new(move |error| {
            kept.keep(typed(&name, error, 0));
        }));
        Ok(Device { device, queue, info, fault })
    }

    /// The fault, if there was one.
    pub fn check(&self) -> Result<()> {
        self.fault.get().map_or(Ok(()), Err)
    }

    /// Makes `error` the fault, if it is the first.
    pub fn fail(&self, error: BackendError) {
        self.fault.keep(error);
    }

    /// Allocates `size` bytes. The contents read as zeros.
    pub fn buffer(&self, label: &str, size: u64, usage: wgpu::BufferUsages) -> Result<wgpu::Buffer> {
        self.check()?;
        let descriptor = wgpu::BufferDescriptor { label: Some(label), size, usage, mapped_at_creation: false };
        self.watched(size, || self.device.create_buffer(&descriptor))
    }

    /// Runs `f`; an error that it causes is returned and nowhere else. `bytes` is what it allocates.
    pub fn watched<T>(&self, bytes: u64, f: impl FnOnce() -> T) -> Result<T> {
        use wgpu::ErrorFilter::{Internal, OutOfMemory, Validation};
        let scopes = [Internal, Validation, OutOfMemory].map(|filter| self.device.push_error_scope(filter));
        let made = f();
        // Scopes end in the reverse of the order in which they began.
        let errors = scopes.into_iter().rev().filter_map(|scope| pollster::block_on(scope.pop()));
        match errors.last() {
            Some(error) => Err(typed(&self.info.name, error, bytes)),
            None => Ok(made),
        }
    }

    /// Gives `f` the contents of a mappable buffer, once `submission` is done.
    pub fn read<T>(
        &self,
        buffer: &wgpu::Buffer,
        submission: Option<wgpu::SubmissionIndex>,
        f: impl FnOnce(&[u8]) -> T,
    ) -> Result<T> {
        let slice = buffer.slice(..);
        // An error reaches the fault as well, or leaves the range unmapped.
        slice.map_async(wgpu::MapMode::Read, |_| ());
        self.wait(submission)?;
        let refused = |error: wgpu::MapRangeError| BackendError::DeviceLost {
            device: self.info.name.clone(),
            reason: error.to_string(),
        };
        let result = f(&slice.get_mapped_range().map_err(refused)?);
        buffer.unmap();
        Ok(result)
    }

    /// Waits until `submission` is done, or everything submitted so far.
    pub fn wait(&self, submission: Option<wgpu::SubmissionIndex>) -> Result<()> {
        if let Err(error) = self.device.poll(wgpu::PollType::Wait { submission_index: submission, timeout: None }) {
            let reason = error.to_string();
            self.fail(BackendError::DeviceLost { device: self.info.name.clone(), reason });
        }
        self.check()
    }
}

fn typed(device: &str, error: wgpu::Error, bytes: u64) -> BackendError {
    let device = device.to_owned();
    match error {
        wgpu::Error::OutOfMemory { .. } => BackendError::OutOfMemory { device, bytes },
        other => BackendError::Unsupported { device, reason: other.to_string(), remedies: &[BackendRemedy::Cpu] },
    }
}
