//! Which adapters this machine has, and the choice of one.

use cryptodl_shaders::groups::MAX_GROUPS;
use cryptodl_shaders::{KERNELS, Kernel};
use serde::Serialize;

use super::GpuError;

/// Features that kernels or reports use where they exist.
const WANTED: wgpu::Features = wgpu::Features::SHADER_INT64.union(wgpu::Features::TIMESTAMP_QUERY);

/// What stands behind an adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AdapterKind {
    /// A graphics processor.
    Hardware,
    /// A driver that computes on the CPU: for tests.
    Software,
}

/// Limits that tensors and dispatches are planned from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct AdapterLimits {
    /// Largest buffer that a kernel can be given, in bytes: the largest limb of a tensor.
    pub page_bytes: u64,
    /// Memory that a workgroup shares, in bytes.
    pub workgroup_bytes: u32,
    /// Invocations of a workgroup.
    pub workgroup_size: u32,
    /// Workgroups per dimension of a dispatch.
    pub groups: u32,
    /// Storage buffers of one kernel.
    pub storage_buffers: u32,
}

/// Optional features.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct AdapterFeatures {
    /// 64-bit integers in kernels.
    pub int64: bool,
    /// Timestamps around kernels.
    pub timestamps: bool,
}

/// One adapter, for people and reports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AdapterInfo {
    /// Position in the list, as `--adapter` takes it.
    pub index: usize,
    /// The driver's name for the device.
    pub name: String,
    /// Hardware or software.
    pub kind: AdapterKind,
    /// Graphics interface: `vulkan`, `metal` or `dx12`.
    pub backend: &'static str,
    /// Driver and its version.
    pub driver: String,
    /// Limits.
    pub limits: AdapterLimits,
    /// Features.
    pub features: AdapterFeatures,
    /// Whether the kernels can run, or what is missing and what to do.
    pub usable: Result<(), String>,
}

/// Which adapter is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdapterRequest {
    /// The first usable hardware adapter, discrete before integrated. Never a software adapter.
    HardwareOnly,
    /// The adapter at this index.
    Index(usize),
    /// The only adapter whose name contains this text, in any case.
    Name(String),
}

/// An adapter that can run the kernels.
#[derive(Clone, Debug)]
pub struct Adapter {
    adapter: wgpu::Adapter,
    info: AdapterInfo,
}

/// All adapters of this machine, also those that cannot be used.
pub fn adapters() -> Vec<AdapterInfo> {
    enumerate().into_iter().map(|adapter| adapter.info).collect()
}

/// The adapter that `request` names.
///
/// # Errors
/// No such adapter, several, only software where hardware is wanted, or one that lacks what the kernels need.
pub fn choose(request: &AdapterRequest) -> Result<Adapter, GpuError> {
    let mut found = enumerate();
    let named = |adapters: &[Adapter]| adapters.iter().map(|adapter| adapter.info.title()).collect::<Vec<_>>();
    let all = named(&found);
    let unknown = |request| Err(GpuError::UnknownAdapter { request, adapters: all.clone() });
    match request {
        _ if found.is_empty() => return Err(GpuError::NoAdapter),
        AdapterRequest::HardwareOnly => {
            found.retain(|adapter| adapter.info.kind == AdapterKind::Hardware);
            if found.is_empty() {
                return Err(GpuError::NoHardware { software: all });
            }
            found.sort_by_key(|adapter| (adapter.info.usable.is_err(), adapter.rank()));
        }
        &AdapterRequest::Index(index) => {
            if index >= found.len() {
                return unknown(index.to_string());
            }
            found.swap(0, index);
        }
        AdapterRequest::Name(name) => {
            found.retain(|adapter| adapter.info.name.to_lowercase().contains(&name.to_lowercase()));
            match found.len() {
                0 => return unknown(format!("\"{name}\"")),
                1 => {}
                _ => {
                    let matches = named(&found);
                    return Err(GpuError::AmbiguousAdapter { request: format!("\"{name}\""), matches });
                }
            }
        }
    }
    let adapter = found.swap_remove(0);
    match &adapter.info.usable {
        Ok(()) => Ok(adapter),
        Err(reason) => Err(GpuError::Unusable { adapter: adapter.info.title(), reason: reason.clone() }),
    }
}

impl AdapterInfo {
    fn new(index: usize, adapter: &wgpu::Adapter) -> Self {
        let (info, limits, features) = (adapter.get_info(), adapter.limits(), adapter.features());
        let kind = match info.device_type {
            wgpu::DeviceType::Cpu => AdapterKind::Software,
            _ => AdapterKind::Hardware,
        };
        let limits = AdapterLimits {
            page_bytes: limits.max_storage_buffer_binding_size.min(limits.max_buffer_size),
            workgroup_bytes: limits.max_compute_workgroup_storage_size,
            workgroup_size: limits.max_compute_invocations_per_workgroup.min(limits.max_compute_workgroup_size_x),
            groups: limits.max_compute_workgroups_per_dimension,
            storage_buffers: limits.max_storage_buffers_per_shader_stage,
        };
        AdapterInfo {
            index,
            name: info.name,
            kind,
            backend: info.backend.to_str(),
            driver: format!("{} {}", info.driver, info.driver_info).trim().to_owned(),
            usable: limits.suffice(),
            limits,
            features: AdapterFeatures {
                int64: features.contains(wgpu::Features::SHADER_INT64),
                timestamps: features.contains(wgpu::Features::TIMESTAMP_QUERY),
            },
        }
    }

    /// Index, name and interface in one line.
    pub fn title(&self) -> String {
        format!("{}: {} ({})", self.index, self.name, self.backend)
    }
}

impl AdapterLimits {
    /// Whether every kernel fits.
    fn suffice(&self) -> Result<(), String> {
        let most = |f: fn(&Kernel) -> u32| KERNELS.iter().map(|kernel| f(kernel)).max().unwrap_or(0);
        let checks = [
            ("bytes of workgroup memory", self.workgroup_bytes, most(|kernel| kernel.workgroup_memory)),
            ("invocations per workgroup", self.workgroup_size, most(|kernel| kernel.workgroup.iter().product())),
            ("storage buffers per kernel", self.storage_buffers, most(|kernel| kernel.bindings.len() as u32 - 1)),
            ("workgroups per dimension", self.groups, MAX_GROUPS),
        ];
        match checks.into_iter().find(|(_, actual, needed)| actual < needed) {
            Some((what, actual, needed)) => Err(format!(
                "it offers {actual} {what}, the kernels need {needed}: update the driver, or use another adapter or --backend cpu"
            )),
            None => Ok(()),
        }
    }
}

impl Adapter {
    /// What it is.
    pub fn info(&self) -> &AdapterInfo {
        &self.info
    }

    /// Lower is preferred.
    fn rank(&self) -> u32 {
        match self.adapter.get_info().device_type {
            wgpu::DeviceType::DiscreteGpu => 0,
            wgpu::DeviceType::IntegratedGpu => 1,
            _ => 2,
        }
    }

    /// Opens the device with all limits of the adapter and those features that are used.
    pub(super) fn open(&self) -> Result<(wgpu::Device, wgpu::Queue), GpuError> {
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("cryptodl"),
            required_features: self.adapter.features() & WANTED,
            required_limits: self.adapter.limits(),
            // The pool allocates in large pieces already.
            memory_hints: wgpu::MemoryHints::MemoryUsage,
            ..Default::default()
        };
        pollster::block_on(self.adapter.request_device(&descriptor))
            .map_err(|error| GpuError::Open { adapter: self.info.title(), reason: error.to_string() })
    }
}

fn enumerate() -> Vec<Adapter> {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
        backends: wgpu::Backends::VULKAN | wgpu::Backends::METAL | wgpu::Backends::DX12,
        flags: wgpu::InstanceFlags::empty(),
        // The driver is never driven to its last byte, where it would lose the device.
        memory_budget_thresholds: wgpu::MemoryBudgetThresholds {
            for_resource_creation: Some(95),
            for_device_loss: None,
        },
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    });
    let found = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::all()));
    let described = |(index, adapter)| Adapter { info: AdapterInfo::new(index, &adapter), adapter };
    found.into_iter().enumerate().map(described).collect()
}
