//! Compiled kernels.
//!
//! They are not kept on disk: drivers do that themselves, where a cache of ours would gain nothing. Opening lavapipe and compiling
//! all kernels takes 0.4 s with Mesa's cache and 1.0 s without; wgpu's pipeline cache would have to replace the difference.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use cryptodl_core::backend::Result;
use cryptodl_shaders::{self as shaders, Binding, ENTRY, Variant};
use rayon::prelude::*;

use super::device::Device;

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

/// Kernels of one variant for one ring dimension, by name and value of the override.
#[derive(Debug)]
pub(super) struct Pipelines(HashMap<(&'static str, u32), Kernel>);

impl Pipelines {
    /// Compiles `kernels` in parallel.
    pub fn compile(device: &Device, variant: Variant, n: usize, kernels: &[&'static shaders::Kernel]) -> Result<Self> {
        let specialise = |&kernel: &&'static shaders::Kernel| overrides(kernel, n).map(move |value| (kernel, value));
        let specialised: Vec<_> = kernels.iter().flat_map(specialise).collect();
        let compile = |(kernel, value): (&'static shaders::Kernel, u32)| {
            let compiled = device.watched(0, || Compiled::new(device, variant, kernel, value))?;
            Ok(((kernel.name, value), Kernel(Arc::new(compiled))))
        };
        specialised.into_par_iter().map(compile).collect::<Result<_>>().map(Pipelines)
    }

    /// A compiled kernel; `value` is that of its override, 0 without one.
    pub fn get(&self, kernel: &'static shaders::Kernel, value: u32) -> &Kernel {
        &self.0[&(kernel.name, value)]
    }
}

/// The values of a kernel's override that are used, or 0.
fn overrides(kernel: &shaders::Kernel, n: usize) -> impl Iterator<Item = u32> + use<> {
    let [log_n, row_groups] = ["LOG_N", "ROW_GROUPS"].map(|name| kernel.overrides.contains(&name));
    let values = match (log_n, row_groups) {
        (true, _) => vec![n.trailing_zeros()],
        (_, true) => vec![1, 2, 4],
        _ => vec![0],
    };
    values.into_iter()
}

impl Compiled {
    fn new(device: &Device, variant: Variant, kernel: &'static shaders::Kernel, value: u32) -> Self {
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
    // divides by its parameters' counts, which are not zero.
    unsafe { device.device.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked()) }
}
