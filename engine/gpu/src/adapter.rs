//! Which adapters this machine has, and the choice of one.

use cryptodl_shaders::groups::MAX_GROUPS;
use cryptodl_shaders::{KERNELS, Kernel};
use serde::Serialize;

use super::GpuError;

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
    /// Memory of the device, in bytes, where it can be asked (Vulkan).
    pub memory_bytes: Option<u64>,
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
    /// Position in the list, by which [`AdapterRequest::Index`] names it.
    pub index: usize,
    /// The driver's name for the device.
    pub name: String,
    /// Hardware or software.
    pub kind: AdapterKind,
    /// Graphics interface: `vulkan`, `metal` or `dx12`.
    pub backend: &'static str,
    /// Driver and its version.
    pub driver: String,
    /// Where it is on the PCI bus, as `0000:17:00.0`, if the driver says so: what tells equal cards apart.
    pub pci_bus: Option<String>,
    /// Limits.
    pub limits: AdapterLimits,
    /// Features.
    pub features: AdapterFeatures,
    /// Whether the kernels can run, or what is missing.
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
    found.swap_remove(0).if_usable()
}

/// Largest page that kernels can index: 2^31 words. An index has 32 bits, and sums of indices must not overflow either.
const MAX_PAGE_BYTES: u64 = 4 << 31;

/// The largest page of a device. Metal binds as much as the machine has memory, which can be more than kernels can index.
fn page_bytes(limits: &wgpu::Limits) -> u64 {
    limits.max_storage_buffer_binding_size.min(limits.max_buffer_size).min(MAX_PAGE_BYTES)
}

impl AdapterInfo {
    fn new(index: usize, adapter: &wgpu::Adapter) -> Self {
        let (info, limits, features) = (adapter.get_info(), adapter.limits(), adapter.features());
        let kind = match info.device_type {
            wgpu::DeviceType::Cpu => AdapterKind::Software,
            _ => AdapterKind::Hardware,
        };
        let limits = AdapterLimits {
            page_bytes: page_bytes(&limits),
            workgroup_bytes: limits.max_compute_workgroup_storage_size,
            workgroup_size: limits.max_compute_invocations_per_workgroup.min(limits.max_compute_workgroup_size_x),
            groups: limits.max_compute_workgroups_per_dimension,
            storage_buffers: limits.max_storage_buffers_per_shader_stage,
            memory_bytes: memory(adapter),
        };
        AdapterInfo {
            index,
            name: info.name,
            kind,
            backend: info.backend.to_str(),
            driver: format!("{} {}", info.driver, info.driver_info).trim().to_owned(),
            pci_bus: Some(info.device_pci_bus_id).filter(|bus| !bus.is_empty()),
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
            Some((what, actual, needed)) => Err(format!("it offers {actual} {what}, and the kernels need {needed}")),
            None => Ok(()),
        }
    }
}

impl Adapter {
    /// The adapter with this index or a part of this name, else a hardware GPU.
    ///
    /// # Errors
    /// As [`choose`].
    pub fn named(text: Option<&str>) -> Result<Adapter, GpuError> {
        let Some(text) = text else {
            return choose(&AdapterRequest::HardwareOnly);
        };
        // A number beyond the list may be part of a name, such as 4090.
        match text.parse().ok().map(|index| choose(&AdapterRequest::Index(index))) {
            None | Some(Err(GpuError::UnknownAdapter { .. })) => choose(&AdapterRequest::Name(text.to_owned())),
            Some(chosen) => chosen,
        }
    }

    /// What it is.
    pub fn info(&self) -> &AdapterInfo {
        &self.info
    }

    /// Bytes of device memory to use unless told otherwise: three quarters of a card's own, a quarter of what other GPUs share
    /// with the host. `None` for software, which has main memory only, and where the driver does not tell.
    pub fn default_budget(&self) -> Option<u64> {
        let memory = self.info.limits.memory_bytes?;
        match self.adapter.get_info().device_type {
            wgpu::DeviceType::Cpu => None,
            wgpu::DeviceType::DiscreteGpu => Some(memory / 4 * 3),
            _ => Some(memory / 4),
        }
    }

    fn if_usable(self) -> Result<Self, GpuError> {
        match &self.info.usable {
            Ok(()) => Ok(self),
            Err(reason) => Err(GpuError::Unusable { adapter: self.info.title(), reason: reason.clone() }),
        }
    }

    /// The adapter with fewer features or smaller limits, chosen as if it had no more.
    ///
    /// # Errors
    /// As [`choose`].
    #[doc(hidden)]
    pub fn reduced_for_tests(
        mut self,
        reduce: impl FnOnce(&mut AdapterLimits, &mut AdapterFeatures),
    ) -> Result<Self, GpuError> {
        reduce(&mut self.info.limits, &mut self.info.features);
        self.info.usable = self.info.limits.suffice();
        self.if_usable()
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
        let AdapterFeatures { int64, timestamps } = self.info.features;
        let mut required_features = wgpu::Features::empty();
        required_features.set(wgpu::Features::SHADER_INT64, int64);
        required_features.set(wgpu::Features::TIMESTAMP_QUERY, timestamps);
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("cryptodl"),
            required_features,
            required_limits: self.adapter.limits(),
            // The pool allocates in large pieces already.
            memory_hints: wgpu::MemoryHints::MemoryUsage,
            ..Default::default()
        };
        pollster::block_on(self.adapter.request_device(&descriptor))
            .map_err(|error| GpuError::Open { adapter: self.info.title(), reason: error.to_string() })
    }
}

/// Bytes of the device's largest memory of its own. Only Vulkan can be asked.
#[allow(unsafe_code)]
fn memory(adapter: &wgpu::Adapter) -> Option<u64> {
    use wgpu::hal::api::Vulkan;
    // SAFETY: the handles that are reached through wgpu's adapter live as long as it does, which outlives this function; they
    // are only used to read properties, and nothing is destroyed.
    let properties = unsafe {
        let adapter = adapter.as_hal::<Vulkan>()?;
        let instance = adapter.shared_instance().raw_instance();
        instance.get_physical_device_memory_properties(adapter.raw_physical_device())
    };
    // Bit 0 of a heap's flags: it is the device's own.
    let own = properties.memory_heaps_as_slice().iter().filter(|heap| heap.flags.as_raw() & 1 == 1);
    own.map(|heap| heap.size).max()
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

#[cfg(test)]
mod tests {
    use cryptodl_core::backend::BackendRemedy;

    use super::*;

    /// A 32-bit index of a word reaches 16 GiB, and was truncated beyond.
    #[test]
    fn pages_are_no_larger_than_kernels_can_index() {
        let bytes = |most: u64| {
            let limits = wgpu::Limits::default();
            page_bytes(&wgpu::Limits { max_storage_buffer_binding_size: most, max_buffer_size: most, ..limits })
        };
        assert_eq!(bytes(1 << 27), 1 << 27);
        for most in [17 << 30, 96 << 30, u64::MAX] {
            assert!(bytes(most) / 4 <= 1 << 31, "{most}");
        }
    }

    #[test]
    fn every_limit_that_is_too_small_is_named() {
        let enough = AdapterLimits {
            page_bytes: 1 << 27,
            workgroup_bytes: 1 << 14,
            workgroup_size: 256,
            groups: 65535,
            storage_buffers: 8,
            memory_bytes: None,
        };
        assert_eq!(enough.suffice(), Ok(()));
        for (small, what) in [
            (AdapterLimits { workgroup_bytes: 4096, ..enough }, "4096 bytes of workgroup memory"),
            (AdapterLimits { workgroup_size: 128, ..enough }, "128 invocations per workgroup"),
            (AdapterLimits { groups: 1024, ..enough }, "1024 workgroups per dimension"),
            (AdapterLimits { storage_buffers: 4, ..enough }, "4 storage buffers per kernel"),
        ] {
            let reason = small.suffice().unwrap_err();
            assert!(reason.contains(what), "{reason}");
            let refused = GpuError::Unusable { adapter: "an adapter".into(), reason };
            assert!(refused.to_string().contains(what), "{refused}");
            assert!(refused.remedies().contains(&BackendRemedy::Cpu), "{refused}");
        }
    }
}
