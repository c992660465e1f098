//! A backend that counts what is asked of another.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cryptodl_core::backend::{Backend, LinearMap, Result, Shape, Transfers, Window};
use cryptodl_core::ckks::UniformSource;
use cryptodl_core::ring::RnsBasis;

/// Operations seen.
#[derive(Debug, Default)]
pub struct Counts {
    /// Multiply-adds of a weight with a residue.
    pub multiply_adds: AtomicU64,
    /// Transforms of one polynomial modulo one prime.
    pub ntts: AtomicU64,
}

/// Passes every primitive on and counts it. Steps are composed from primitives, so nothing is hidden in a fused kernel.
pub struct Metered<B> {
    inner: B,
    counts: Arc<Counts>,
}

impl<B: Backend> Metered<B> {
    /// Counts into `counts`.
    pub fn new(inner: B, counts: Arc<Counts>) -> Self {
        Metered { inner, counts }
    }

    fn count_ntts(&self, x: &B::Tensor) {
        let shape = self.inner.shape(x);
        let polynomials = shape.limbs.len() * shape.values * shape.components;
        self.counts.ntts.fetch_add(polynomials as u64, Ordering::Relaxed);
    }
}

impl<B: Backend> Backend for Metered<B> {
    type Tensor = B::Tensor;

    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn kernels(&self) -> &'static str {
        self.inner.kernels()
    }

    fn device(&self) -> String {
        self.inner.device()
    }

    fn basis(&self) -> &Arc<RnsBasis> {
        self.inner.basis()
    }

    fn transfers(&self) -> Option<Transfers> {
        self.inner.transfers()
    }

    fn shape<'a>(&self, x: &'a Self::Tensor) -> &'a Shape {
        self.inner.shape(x)
    }

    fn zeros(&self, shape: Shape) -> Result<Self::Tensor> {
        self.inner.zeros(shape)
    }

    fn upload(&self, shape: Shape, residues: &[u32]) -> Result<Self::Tensor> {
        self.inner.upload(shape, residues)
    }

    fn download(&self, x: &Self::Tensor) -> Result<Vec<u32>> {
        self.inner.download(x)
    }

    fn copy(&self, x: &Self::Tensor, from: &Window, out: &mut Self::Tensor, to: &Window) -> Result<()> {
        self.inner.copy(x, from, out, to)
    }

    fn unpack(&self, packed: &[u8], out: &mut Self::Tensor, component: usize) -> Result<bool> {
        self.inner.unpack(packed, out, component)
    }

    fn pack(&self, x: &Self::Tensor, component: usize) -> Result<Vec<u8>> {
        self.inner.pack(x, component)
    }

    fn expand(&self, source: &UniformSource, first: u32, out: &mut Self::Tensor, component: usize) -> Result<()> {
        self.inner.expand(source, first, out, component)
    }

    fn linear(&self, map: &LinearMap, x: &Self::Tensor) -> Result<Self::Tensor> {
        let shape = self.inner.shape(x);
        let lanes = (shape.limbs.len() * shape.components * shape.lanes) as u64;
        self.counts.multiply_adds.fetch_add(map.multiply_adds() * lanes, Ordering::Relaxed);
        self.inner.linear(map, x)
    }

    fn multiply(&self, a: &Self::Tensor, b: &Self::Tensor) -> Result<Self::Tensor> {
        self.inner.multiply(a, b)
    }

    fn add_constant(&self, x: &mut Self::Tensor, constants: &[u32]) -> Result<()> {
        self.inner.add_constant(x, constants)
    }

    fn scale(&self, x: &mut Self::Tensor, factors: &[u32]) -> Result<()> {
        self.inner.scale(x, factors)
    }

    fn add(&self, x: &mut Self::Tensor, y: &Self::Tensor) -> Result<()> {
        self.inner.add(x, y)
    }

    fn accumulate(&self, acc: &mut Self::Tensor, x: &Self::Tensor, factors: &[u32]) -> Result<()> {
        self.inner.accumulate(acc, x, factors)
    }

    fn subtract_scale(&self, x: &mut Self::Tensor, y: &Self::Tensor, factors: &[u32]) -> Result<()> {
        self.inner.subtract_scale(x, y, factors)
    }

    fn accumulate_key(
        &self,
        acc: &mut Self::Tensor,
        digit: &Self::Tensor,
        key: &Self::Tensor,
        row: usize,
    ) -> Result<()> {
        self.inner.accumulate_key(acc, digit, key, row)
    }

    fn forward_ntt(&self, x: &mut Self::Tensor) -> Result<()> {
        self.count_ntts(x);
        self.inner.forward_ntt(x)
    }

    fn inverse_ntt(&self, x: &mut Self::Tensor) -> Result<()> {
        self.count_ntts(x);
        self.inner.inverse_ntt(x)
    }

    fn convert_centred(&self, x: &Self::Tensor, limbs: &[usize]) -> Result<Self::Tensor> {
        self.inner.convert_centred(x, limbs)
    }

    fn synchronise(&self) -> Result<()> {
        self.inner.synchronise()
    }
}
