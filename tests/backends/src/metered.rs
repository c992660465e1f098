//! A backend that counts what is asked of another.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cryptodl_core::backend::{Backend, LinearMap, Result, Shape};

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

    forward! {
        name kernels device basis is_host transfers shape zeros uninitialised upload download copy unpack pack expand
        multiply add_constant scale add accumulate subtract_scale accumulate_key convert_basis prime_digit automorphism synchronise
    }

    fn linear(&self, map: &LinearMap, x: &Self::Tensor) -> Result<Self::Tensor> {
        let shape = self.inner.shape(x);
        let lanes = (shape.limbs.len() * shape.components * shape.lanes) as u64;
        self.counts.multiply_adds.fetch_add(map.multiply_adds() * lanes, Ordering::Relaxed);
        self.inner.linear(map, x)
    }

    fn forward_ntt(&self, x: &mut Self::Tensor) -> Result<()> {
        self.count_ntts(x);
        self.inner.forward_ntt(x)
    }

    fn inverse_ntt(&self, x: &mut Self::Tensor) -> Result<()> {
        self.count_ntts(x);
        self.inner.inverse_ntt(x)
    }
}
