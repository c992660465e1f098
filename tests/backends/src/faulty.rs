//! A backend that is wrong in one operation and right in all others.

use std::ops::Range;
use std::sync::Arc;

use cryptodl_core::backend::{Backend, BackendError, Channels, LinearMap, Result, Shape, SlotwiseOp, Window};
use cryptodl_core::ckks::UniformSource;
use cryptodl_core::ring::RnsBasis;
use cryptodl_cpu::{Cpu, CpuTensor, Place};

/// What is wrong. A wrong result has the lowest bit flipped of limb 1, value 0, component 1, lane 0, where that exists.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    Linear,
    ForwardNtt,
    Slotwise,
    Accumulate,
    /// All values take what the first channel has.
    FirstChannel,
    /// Everything is accepted.
    Unpack,
    /// Multiplications find no memory.
    OutOfMemory,
}

pub struct Faulty {
    pub inner: Cpu,
    pub fault: Fault,
}

impl Faulty {
    fn spoil(&self, fault: Fault, x: &mut CpuTensor) {
        let at = Place { limb: 1, value: 0, component: 1 };
        if self.fault == fault {
            x.rows_mut().filter(|(place, _)| *place == at).for_each(|(_, row)| row[0] ^= 1);
        }
    }
}

impl Backend for Faulty {
    type Tensor = CpuTensor;

    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn kernels(&self) -> &'static str {
        "faulty"
    }

    fn device(&self) -> String {
        self.inner.device()
    }

    fn basis(&self) -> &Arc<RnsBasis> {
        self.inner.basis()
    }

    fn shape<'a>(&self, x: &'a CpuTensor) -> &'a Shape {
        self.inner.shape(x)
    }

    fn zeros(&self, shape: Shape) -> Result<CpuTensor> {
        self.inner.zeros(shape)
    }

    fn upload(&self, shape: Shape, residues: &[u32]) -> Result<CpuTensor> {
        self.inner.upload(shape, residues)
    }

    fn download(&self, x: &CpuTensor) -> Result<Vec<u32>> {
        self.inner.download(x)
    }

    fn copy(&self, x: &CpuTensor, from: &Window, out: &mut CpuTensor, to: &Window) -> Result<()> {
        self.inner.copy(x, from, out, to)
    }

    fn unpack(&self, packed: &[u8], out: &mut CpuTensor, component: usize) -> Result<bool> {
        Ok(self.inner.unpack(packed, out, component)? || self.fault == Fault::Unpack)
    }

    fn pack(&self, x: &CpuTensor, component: usize) -> Result<Vec<u8>> {
        self.inner.pack(x, component)
    }

    fn expand(&self, source: &UniformSource, first_object: u32, out: &mut CpuTensor, component: usize) -> Result<()> {
        self.inner.expand(source, first_object, out, component)
    }

    fn linear(&self, map: &LinearMap, x: &CpuTensor) -> Result<CpuTensor> {
        let mut out = self.inner.linear(map, x)?;
        self.spoil(Fault::Linear, &mut out);
        Ok(out)
    }

    fn multiply(&self, a: &CpuTensor, b: &CpuTensor) -> Result<CpuTensor> {
        if self.fault == Fault::OutOfMemory {
            return Err(BackendError::OutOfMemory { device: "test".into(), bytes: 8 });
        }
        self.inner.multiply(a, b)
    }

    fn add_constant(&self, x: &mut CpuTensor, constants: &[u32]) -> Result<()> {
        if self.fault == Fault::FirstChannel {
            let channels = Channels::of(constants, x.shape()).count();
            let first: Vec<u32> = constants.iter().step_by(channels).copied().collect();
            return self.inner.add_constant(x, &first);
        }
        self.inner.add_constant(x, constants)
    }

    fn scale(&self, x: &mut CpuTensor, factors: &[u32]) -> Result<()> {
        self.inner.scale(x, factors)
    }

    fn add(&self, x: &mut CpuTensor, y: &CpuTensor) -> Result<()> {
        self.inner.add(x, y)
    }

    fn accumulate(&self, acc: &mut CpuTensor, x: &CpuTensor, factors: &[u32]) -> Result<()> {
        self.inner.accumulate(acc, x, factors)?;
        self.spoil(Fault::Accumulate, acc);
        Ok(())
    }

    fn subtract_scale(&self, x: &mut CpuTensor, y: &CpuTensor, factors: &[u32]) -> Result<()> {
        self.inner.subtract_scale(x, y, factors)
    }

    fn accumulate_key(&self, acc: &mut CpuTensor, digit: &CpuTensor, key: &CpuTensor, row: usize) -> Result<()> {
        self.inner.accumulate_key(acc, digit, key, row)
    }

    fn forward_ntt(&self, x: &mut CpuTensor) -> Result<()> {
        self.inner.forward_ntt(x)?;
        self.spoil(Fault::ForwardNtt, x);
        Ok(())
    }

    fn inverse_ntt(&self, x: &mut CpuTensor) -> Result<()> {
        self.inner.inverse_ntt(x)
    }

    fn convert_centred(&self, x: &CpuTensor, limbs: &[usize]) -> Result<CpuTensor> {
        self.inner.convert_centred(x, limbs)
    }

    fn synchronise(&self) -> Result<()> {
        self.inner.synchronise()
    }

    fn slotwise(&self, ops: &[SlotwiseOp<'_>], x: &CpuTensor, lanes: Range<usize>, out: &mut CpuTensor) -> Result<()> {
        self.inner.slotwise(ops, x, lanes, out)?;
        self.spoil(Fault::Slotwise, out);
        Ok(())
    }
}
