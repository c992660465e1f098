//! A backend that is wrong in one operation and right in all others.

use std::ops::Range;

use cryptodl_core::backend::{Backend, BackendError, Channels, LinearMap, Result, Shape, SlotwiseOp};
use cryptodl_cpu::{Cpu, CpuTensor, Place};

/// What is wrong. A wrong result has the lowest bit flipped of limb 1, value 0, component 1, lane 0, where that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Linear maps.
    Linear,
    /// Forward transforms.
    ForwardNtt,
    /// Slot-wise runs.
    Slotwise,
    /// Multiples added to another ciphertext.
    Accumulate,
    /// All values take what the first channel has.
    FirstChannel,
    /// Everything is accepted.
    Unpack,
    /// Multiplications find no memory.
    OutOfMemory,
}

/// The CPU backend with one fault.
pub struct Faulty {
    /// What is right.
    pub inner: Cpu,
    /// What is wrong.
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

    forward! {
        name device basis is_host shape zeros uninitialised upload download copy pack expand scale add subtract_scale
        accumulate_key inverse_ntt convert_basis prime_digit automorphism synchronise
    }

    fn kernels(&self) -> &'static str {
        "faulty"
    }

    fn unpack(&self, packed: &[u8], out: &mut CpuTensor, component: usize) -> Result<bool> {
        Ok(self.inner.unpack(packed, out, component)? || self.fault == Fault::Unpack)
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

    fn accumulate(&self, acc: &mut CpuTensor, x: &CpuTensor, factors: &[u32]) -> Result<()> {
        self.inner.accumulate(acc, x, factors)?;
        self.spoil(Fault::Accumulate, acc);
        Ok(())
    }

    fn forward_ntt(&self, x: &mut CpuTensor) -> Result<()> {
        self.inner.forward_ntt(x)?;
        self.spoil(Fault::ForwardNtt, x);
        Ok(())
    }

    fn slotwise(&self, ops: &[SlotwiseOp<'_>], x: &CpuTensor, lanes: Range<usize>, out: &mut CpuTensor) -> Result<()> {
        self.inner.slotwise(ops, x, lanes, out)?;
        self.spoil(Fault::Slotwise, out);
        Ok(())
    }
}
