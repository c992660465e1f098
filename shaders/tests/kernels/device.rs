//! The least that runs a kernel.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use bytemuck::Pod;
use cryptodl_shaders::params::Limb;
use cryptodl_shaders::{Binding, ENTRY, Kernel, Variant};
use wgpu::BufferUsages;

/// The first adapter, opened.
pub struct Device {
    device: wgpu::Device,
    queue: wgpu::Queue,
    /// Whether shaders may use 64-bit integers.
    pub int64: bool,
    /// Compiled kernels by source and overrides.
    pipelines: Mutex<HashMap<(&'static str, String), Arc<wgpu::ComputePipeline>>>,
}

/// One dispatch.
pub struct Launch<'a, P> {
    pub kernel: &'static Kernel,
    pub variant: Variant,
    pub overrides: &'a [(&'a str, f64)],
    pub params: P,
    pub limbs: &'a [Limb],
    pub groups: [u32; 3],
}

impl Device {
    pub fn open() -> Option<Self> {
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
        let adapter = pollster::block_on(instance.request_adapter(&wgpu::RequestAdapterOptions::default())).ok()?;
        let required_features = adapter.features() & wgpu::Features::SHADER_INT64;
        let required_limits = adapter.limits();
        let descriptor = wgpu::DeviceDescriptor { required_features, required_limits, ..Default::default() };
        let (device, queue) = pollster::block_on(adapter.request_device(&descriptor)).expect("the adapter opens");
        Some(Device { device, queue, int64: !required_features.is_empty(), pipelines: Mutex::default() })
    }

    /// Runs a kernel on the operands of the bindings behind the limbs and returns them as they are afterwards.
    pub fn run<P: Pod>(&self, launch: &Launch<'_, P>, operands: &[&[u32]]) -> Vec<Vec<u32>> {
        let &Launch { kernel, variant, overrides, params, limbs, groups } = launch;
        let pipeline = {
            let mut pipelines = self.pipelines.lock().expect("no test panics here");
            let key = (kernel.wgsl(variant), format!("{overrides:?}"));
            pipelines.entry(key).or_insert_with(|| Arc::new(self.pipeline(kernel, variant, overrides))).clone()
        };
        assert_eq!(size_of::<P>() as u64, kernel.params_size, "parameters of {}", kernel.name);
        let mut buffers = vec![self.buffer(bytemuck::bytes_of(&params), BufferUsages::UNIFORM)];
        // The ceilings' kernels have no limbs.
        buffers.extend((!limbs.is_empty()).then(|| self.buffer(bytemuck::cast_slice(limbs), BufferUsages::STORAGE)));
        let fixed = buffers.len();
        buffers.extend(operands.iter().map(|data| self.buffer(bytemuck::cast_slice(data), BufferUsages::STORAGE)));
        let entries: Vec<_> = (0..)
            .zip(&buffers)
            .map(|(binding, buffer)| wgpu::BindGroupEntry { binding, resource: buffer.as_entire_binding() })
            .collect();
        let bind_group = self.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout: &pipeline.get_bind_group_layout(0),
            entries: &entries,
        });
        let mut encoder = self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            pass.set_pipeline(&pipeline);
            pass.set_bind_group(0, &bind_group, &[]);
            pass.dispatch_workgroups(groups[0], groups[1], groups[2]);
        }
        self.queue.submit([encoder.finish()]);
        buffers[fixed..].iter().map(|buffer| self.read(buffer)).collect()
    }

    fn pipeline(&self, kernel: &Kernel, variant: Variant, constants: &[(&str, f64)]) -> wgpu::ComputePipeline {
        let source = wgpu::ShaderSource::Wgsl(planted(kernel.wgsl(variant)).into());
        let module =
            self.device.create_shader_module(wgpu::ShaderModuleDescriptor { label: Some(kernel.name), source });
        let layout = self.device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            bind_group_layouts: &[Some(&self.layout(kernel))],
            ..Default::default()
        });
        self.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(kernel.name),
            layout: Some(&layout),
            module: &module,
            entry_point: Some(ENTRY),
            compilation_options: wgpu::PipelineCompilationOptions { constants, ..Default::default() },
            cache: None,
        })
    }

    fn layout(&self, kernel: &Kernel) -> wgpu::BindGroupLayout {
        let entry = |(binding, kind): (u32, &Binding)| wgpu::BindGroupLayoutEntry {
            binding,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer {
                ty: match kind {
                    Binding::Uniform => wgpu::BufferBindingType::Uniform,
                    Binding::ReadOnly => wgpu::BufferBindingType::Storage { read_only: true },
                    Binding::ReadWrite => wgpu::BufferBindingType::Storage { read_only: false },
                },
                has_dynamic_offset: false,
                min_binding_size: None,
            },
            count: None,
        };
        let entries: Vec<_> = (0..).zip(kernel.bindings).map(entry).collect();
        self.device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: None, entries: &entries })
    }

    fn buffer(&self, contents: &[u8], usage: BufferUsages) -> wgpu::Buffer {
        let usage = usage | BufferUsages::COPY_SRC | BufferUsages::COPY_DST;
        let size = contents.len() as u64;
        let buffer =
            self.device.create_buffer(&wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false });
        self.queue.write_buffer(&buffer, 0, contents);
        buffer
    }

    fn read(&self, buffer: &wgpu::Buffer) -> Vec<u32> {
        let usage = BufferUsages::MAP_READ | BufferUsages::COPY_DST;
        let size = buffer.size();
        let staging =
            self.device.create_buffer(&wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false });
        let mut encoder = self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        encoder.copy_buffer_to_buffer(buffer, 0, &staging, 0, size);
        self.queue.submit([encoder.finish()]);
        staging.map_async(wgpu::MapMode::Read, .., |result| result.expect("mapping works"));
        self.device.poll(wgpu::PollType::wait_indefinitely()).expect("the device answers");
        let bytes = staging.get_mapped_range(..).expect("mapped");
        bytemuck::pod_collect_to_vec(&bytes)
    }
}

/// `source`, with the fault that the environment names (`tests/mutants.sh`) if it has its place.
fn planted(source: &str) -> String {
    match (std::env::var("CRYPTODL_FAULT_FROM"), std::env::var("CRYPTODL_FAULT_TO")) {
        (Ok(from), Ok(to)) => source.replacen(&from, &to, 1),
        _ => source.to_owned(),
    }
}
