//! Time on the device, kernel by kernel, from timestamps around every dispatch.

use std::collections::BTreeMap;

use cryptodl_core::backend::Result;

use super::device::Device;
use super::recorder::MAX_COMMANDS;

const QUERIES: u32 = 2 * MAX_COMMANDS as u32;
const BYTES: u64 = 8 * QUERIES as u64;

/// Time that one kernel took.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct KernelTime {
    /// Its name.
    pub kernel: &'static str,
    /// How often it ran.
    pub dispatches: u64,
    /// Seconds in all.
    pub seconds: f64,
}

pub(super) struct Timer {
    queries: wgpu::QuerySet,
    resolved: wgpu::Buffer,
    /// Kernels of the submission that is recorded, two queries each.
    recorded: Vec<&'static str>,
    /// Submissions that were not waited for.
    pending: Vec<(Vec<&'static str>, wgpu::Buffer)>,
    times: BTreeMap<&'static str, (u64, f64)>,
}

/// Kernels of submissions, and where their timestamps arrive.
pub(super) struct Pending(Vec<(Vec<&'static str>, wgpu::Buffer)>);

impl Timer {
    pub fn new(device: &Device) -> Result<Self> {
        use wgpu::BufferUsages;
        let descriptor =
            wgpu::QuerySetDescriptor { label: Some("cryptodl timer"), ty: wgpu::QueryType::Timestamp, count: QUERIES };
        let queries = device.watched(BYTES, || device.device.create_query_set(&descriptor))?;
        let usage = BufferUsages::QUERY_RESOLVE | BufferUsages::COPY_SRC;
        let resolved = device.buffer("cryptodl timestamps", BYTES, usage)?;
        Ok(Timer { queries, resolved, recorded: Vec::new(), pending: Vec::new(), times: BTreeMap::new() })
    }

    /// The timestamps of a pass that runs `kernel` once.
    pub fn pass(&mut self, kernel: &'static str) -> wgpu::ComputePassTimestampWrites<'_> {
        let first = 2 * self.recorded.len() as u32;
        self.recorded.push(kernel);
        wgpu::ComputePassTimestampWrites {
            query_set: &self.queries,
            beginning_of_pass_write_index: Some(first),
            end_of_pass_write_index: Some(first + 1),
        }
    }

    /// Ends a submission: its timestamps go to a buffer that [`Self::collect`] reads.
    pub fn resolve(&mut self, device: &Device, encoder: &mut wgpu::CommandEncoder) -> Result<()> {
        use wgpu::BufferUsages;
        if !self.recorded.is_empty() {
            let used = 2 * self.recorded.len() as u32;
            encoder.resolve_query_set(&self.queries, 0..used, &self.resolved, 0);
            let bytes = 8 * u64::from(used);
            let arrived =
                device.buffer("cryptodl timestamps", bytes, BufferUsages::COPY_DST | BufferUsages::MAP_READ)?;
            encoder.copy_buffer_to_buffer(&self.resolved, 0, &arrived, 0, bytes);
            self.pending.push((std::mem::take(&mut self.recorded), arrived));
        }
        Ok(())
    }

    /// The timestamps of all submissions so far, to be read when they are done.
    pub fn take_pending(&mut self) -> Pending {
        Pending(std::mem::take(&mut self.pending))
    }

    /// Adds times of kernels.
    pub fn add(&mut self, stamps: Vec<(&'static str, f64)>) {
        for (kernel, time) in stamps {
            let (dispatches, seconds) = self.times.entry(kernel).or_default();
            *dispatches += 1;
            *seconds += time;
        }
    }

    pub fn times(&self) -> Vec<KernelTime> {
        let time = |(&kernel, &(dispatches, seconds))| KernelTime { kernel, dispatches, seconds };
        self.times.iter().map(time).collect()
    }
}

impl Pending {
    /// Kernels and their times in seconds, from submissions that are done.
    pub fn read(self, device: &Device) -> Result<Vec<(&'static str, f64)>> {
        let tick = 1e-9 * f64::from(device.queue.get_timestamp_period());
        let mut times = Vec::new();
        for (kernels, buffer) in self.0 {
            let stamps: Vec<u64> = device.read(&buffer, None, bytemuck::pod_collect_to_vec)?;
            // Some drivers let time stand still or step back between two passes.
            let time = |stamps: &[u64]| tick * stamps[1].saturating_sub(stamps[0]) as f64;
            times.extend(kernels.into_iter().zip(stamps.chunks_exact(2).map(time)));
        }
        Ok(times)
    }
}
