//! What crosses the border between host and device: residues, packed rows and seeds.

use std::time::Instant;

use cryptodl_core::backend::{Result, Shape, packed_len, packed_row};
use cryptodl_core::ring::UniformSource;
use cryptodl_shaders::params::{self, Limb};
use cryptodl_shaders::{self as shaders, groups};

use super::Gpu;
use super::recorder::{Argument, Slice};
use super::tensor::{GpuTensor, runs};

/// Bytes that travel at once, so that copying on the host, the bus and kernels overlap, and staging stays small.
const CHUNK: usize = 32 << 20;

/// One launch of `unpack` or `pack`: some values of a run of limbs, and where their rows lie in the packed component.
struct PackedPart {
    /// Residues: the page, and the kernel's parameters and table.
    page: Slice,
    params: params::Packing,
    limbs: Vec<Limb>,
    /// Per limb, the first byte and the number of bytes in the packed component.
    rows: Vec<(usize, usize)>,
}

impl PackedPart {
    fn bytes(&self) -> usize {
        self.rows.iter().map(|(_, len)| len).sum()
    }

    fn groups(&self) -> [u32; 3] {
        groups::packing(&self.params, self.limbs.len() as u32)
    }
}

impl Gpu {
    pub(super) fn write_residues(&self, to: &GpuTensor, residues: &[u32]) -> Result<()> {
        let mut rest: &[u8] = bytemuck::must_cast_slice(residues);
        for (_, page) in to.pages() {
            let contents = rest.split_off(..page.size as usize).expect("as many residues as the tensor has");
            for (i, chunk) in contents.chunks(CHUNK).enumerate() {
                self.recorder.write(&Slice { offset: (i * CHUNK) as u64, ..page.clone() }, &[chunk])?;
            }
        }
        Ok(())
    }

    pub(super) fn read_residues(&self, from: &GpuTensor) -> Result<Vec<u32>> {
        let mut residues = Vec::with_capacity(from.shape.len());
        for (_, page) in from.pages() {
            for offset in (0..page.size).step_by(CHUNK) {
                let size = (page.size - offset).min(CHUNK as u64);
                let chunk = Slice { offset, size, ..page.clone() };
                self.fetch(&chunk, |bytes| residues.extend_from_slice(bytemuck::cast_slice(bytes)))?;
            }
        }
        Ok(residues)
    }

    /// The words of `from`.
    pub(super) fn words(&self, from: &Slice) -> Result<Vec<u32>> {
        let mut words = Vec::new();
        self.read(from, |bytes| words = bytemuck::pod_collect_to_vec(bytes))?;
        Ok(words)
    }

    /// As [`Self::read`], counted as a transfer.
    fn fetch(&self, from: &Slice, f: impl FnOnce(&[u8])) -> Result<()> {
        self.recorder.wait()?;
        let started = Instant::now();
        self.read(from, f)?;
        self.recorder.fetched(from.size, started.elapsed().as_secs_f64());
        Ok(())
    }

    /// Gives `f` the bytes of `from`, once all that was recorded is done.
    fn read(&self, from: &Slice, f: impl FnOnce(&[u8])) -> Result<()> {
        let usage = wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ;
        let buffer = self.device.buffer("cryptodl readback", from.size, usage)?;
        self.recorder.copy(from.clone(), &buffer, 0)?;
        let submission = self.recorder.flush()?;
        self.device.read(&buffer, submission, f)
    }

    pub(super) fn unpack_component(&self, packed: &[u8], out: &GpuTensor, component: usize) -> Result<bool> {
        assert_eq!(
            (packed.len(), out.shape.lanes),
            (packed_len(&self.basis, &out.shape), self.basis.n()),
            "packed rows"
        );
        // Set by the kernel if a residue is not below its prime.
        let refused = self.pool.take(4)?;
        let refused = Slice { size: 4, ..Slice::whole(&refused.buffer) };
        self.recorder.clear(refused.clone())?;
        for part in self.packed_parts(out, component) {
            let staged = self.pool.take(part.bytes() as u64)?;
            let rows: Vec<&[u8]> = part.rows.iter().map(|&(first, len)| &packed[first..first + len]).collect();
            self.recorder.write(&Slice::whole(&staged.buffer), &rows)?;
            let operands = [Slice::whole(&staged.buffer), part.page.clone(), refused.clone()].map(Argument::Buffer);
            self.launch((&shaders::UNPACK, 0), &part.params, &part.limbs, operands, part.groups())?;
        }
        let mut answer = 0;
        self.read(&refused, |bytes| answer = bytemuck::pod_read_unaligned::<u32>(bytes))?;
        Ok(answer == 0)
    }

    pub(super) fn pack_component(&self, x: &GpuTensor, component: usize) -> Result<Vec<u8>> {
        assert_eq!(x.shape.lanes, self.basis.n(), "whole polynomials");
        let mut packed = vec![0; packed_len(&self.basis, &x.shape)];
        for part in self.packed_parts(x, component) {
            let staged = self.pool.take(part.bytes() as u64)?;
            let operands = [part.page.clone(), Slice::whole(&staged.buffer)].map(Argument::Buffer);
            self.launch((&shaders::PACK, 0), &part.params, &part.limbs, operands, part.groups())?;
            self.fetch(&Slice { size: part.bytes() as u64, ..Slice::whole(&staged.buffer) }, |mut bytes| {
                for &(first, len) in &part.rows {
                    let row = bytes.split_off(..len).expect("as many bytes as the part has");
                    packed[first..first + len].copy_from_slice(row);
                }
            })?;
        }
        Ok(packed)
    }

    /// Cuts one component into parts of at most [`CHUNK`] packed bytes, or one value.
    fn packed_parts(&self, x: &GpuTensor, component: usize) -> Vec<PackedPart> {
        let Shape { values, lanes, .. } = x.shape;
        let row = |limb: usize| packed_row(&self.basis, x.shape.limbs[limb]);
        let limb_starts: Vec<usize> = (0..x.shape.limbs.len())
            .scan(0, |next, limb| Some(std::mem::replace(next, *next + values * row(limb))))
            .collect();
        let mut parts = Vec::new();
        for run in runs(x.shape.limbs.len(), &[(x, 0)]) {
            let value_bytes: usize = run.clone().map(row).sum();
            let step = (CHUNK / value_bytes).max(1);
            for first in (0..values).step_by(step) {
                let count = step.min(values - first);
                let mut source = 0;
                let limb = |limb| {
                    let at = source;
                    source += (count * row(limb) / 4) as u32;
                    self.limb(x, limb).with_source(at)
                };
                let limbs = run.clone().map(limb).collect();
                parts.push(PackedPart {
                    page: x.page(run.start),
                    params: params::Packing {
                        x: x.view(run.start, [first, component, 0]),
                        values: count as u32,
                        lanes: lanes as u32,
                        ..Default::default()
                    },
                    limbs,
                    rows: run.clone().map(|limb| (limb_starts[limb] + first * row(limb), count * row(limb))).collect(),
                });
            }
        }
        parts
    }

    pub(super) fn expand_component(
        &self,
        source: &UniformSource,
        first_object: u32,
        out: &GpuTensor,
        component: usize,
    ) -> Result<()> {
        assert_eq!(out.shape.lanes, self.basis.n(), "whole polynomials");
        for (run, page) in out.pages() {
            let params = params::Expand {
                out: out.view(run.start, [0, component, 0]),
                key: bytemuck::pod_read_unaligned(source.key()),
                values: out.shape.values as u32,
                lanes: out.shape.lanes as u32,
                first_object,
                ..Default::default()
            };
            let limbs: Vec<Limb> = run.map(|limb| self.limb(out, limb)).collect();
            let groups = groups::expand(&params, limbs.len() as u32);
            self.launch((&shaders::EXPAND, 0), &params, &limbs, [Argument::Buffer(page)], groups)?;
        }
        Ok(())
    }
}
