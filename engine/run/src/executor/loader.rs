//! A set on its way to the backend: unpacked, its seeded halves expanded, and its pixels unpacked from ciphertexts that hold several
//! of them.

use std::ops::Range;
use std::time::Instant;

use cryptodl_core::backend::{Backend, KeySwitch, Rotation, Shape, packed_row};
use cryptodl_core::ckks::Leaves;
use cryptodl_core::ring::UniformSource;

use super::Executor;
use crate::RunError;

/// A set on the backend, and the seconds that it took.
pub(super) struct Loaded<T> {
    pub(super) x: T,
    pub(super) unpack: f64,
    pub(super) expand: f64,
    pub(super) rotate: f64,
}

/// Brings one set to the backend.
pub(super) struct Loader<'a, B: Backend> {
    pub(super) executor: &'a Executor<B>,
    pub(super) uniform: Option<&'a UniformSource>,
    pub(super) component_bytes: usize,
    /// How the pixels of its images lie in the ciphertexts.
    pub(super) leaves: Leaves,
    /// Rows of the keys by which they are unpacked.
    pub(super) rotations: &'a [B::Tensor],
    /// Special limbs.
    pub(super) special: &'a [usize],
    /// Its number among the sets of this computation.
    pub(super) set: usize,
    /// Number of the uniform object of its first value.
    pub(super) first_object: u32,
}

impl<B: Backend> Loader<'_, B> {
    pub(super) fn load(&self, bytes: &[u8]) -> Result<Loaded<B::Tensor>, RunError> {
        let Executor { backend, plan, .. } = self.executor;
        let started = Instant::now();
        let values = self.leaves.ciphertexts(plan.input().values);
        let mut x = backend.uninitialised(Shape { values, ..plan.input().clone() })?;
        for (component, packed) in bytes.chunks_exact(self.component_bytes).enumerate() {
            self.unpack(packed, &mut x, component)?;
        }
        let unpack = started.elapsed().as_secs_f64();
        let started = Instant::now();
        if let Some(source) = self.uniform {
            backend.expand(source, self.first_object, &mut x, 1)?;
            backend.synchronise()?;
        }
        let expand = started.elapsed().as_secs_f64();
        let started = Instant::now();
        if !self.leaves.is_spread() {
            x = self.unpacked(&x)?;
            backend.synchronise()?;
        }
        Ok(Loaded { x, unpack, expand, rotate: started.elapsed().as_secs_f64() })
    }

    /// Some values of a set whose values are the pixels.
    pub(super) fn values(&self, bytes: &[u8], values: Range<usize>) -> Result<B::Tensor, RunError> {
        let Executor { backend, plan, params, .. } = self.executor;
        let input = plan.input();
        let mut x = backend.uninitialised(Shape { values: values.len(), ..input.clone() })?;
        for (component, packed) in bytes.chunks_exact(self.component_bytes).enumerate() {
            let (mut part, mut rest) = (Vec::new(), packed);
            for &limb in &input.limbs {
                let row = packed_row(params.basis(), limb);
                part.extend_from_slice(&rest[values.start * row..values.end * row]);
                rest = &rest[input.values * row..];
            }
            self.unpack(&part, &mut x, component)?;
        }
        if let Some(source) = self.uniform {
            backend.expand(source, self.first_object + values.start as u32, &mut x, 1)?;
        }
        backend.synchronise()?;
        Ok(x)
    }

    fn unpack(&self, packed: &[u8], x: &mut B::Tensor, component: usize) -> Result<(), RunError> {
        let is_reduced = self.executor.backend.unpack(packed, x, component)?;
        if is_reduced { Ok(()) } else { Err(RunError::Residue { set: self.set }) }
    }

    /// One ciphertext for every pixel, from ciphertexts with several pixels of an image each.
    fn unpacked(&self, x: &B::Tensor) -> Result<B::Tensor, RunError> {
        let Executor { backend, plan, params, rotations: layouts, .. } = self.executor;
        let mut out = backend.uninitialised(plan.input().clone())?;
        let (from, to) = (backend.shape(x).window(), plan.input().window());
        backend.copy(x, &from, &mut out, &to.with_values(from.values.clone()))?;
        let steps: Vec<usize> = layouts.iter().map(|&(step, _)| step).collect();
        let (leaves, most) = (self.leaves, self.executor.packing.log_leaves());
        for stage in leaves.stages(plan.input().values, &leaves.steps_of(most, &steps)) {
            let rotation = |(step, to): (usize, Range<usize>)| {
                let of_most = step << (most - leaves.log);
                let key = steps.binary_search(&of_most).expect("one of these steps");
                Rotation {
                    automorphism: leaves.rotation(params.n(), step),
                    key: KeySwitch {
                        rows: &self.rotations[key],
                        layout: layouts[key].1.digits(),
                        special: self.special,
                    },
                    to,
                }
            };
            let rotations: Vec<_> = stage.to.into_iter().map(rotation).collect();
            backend.rotate(&mut out, stage.from, &rotations)?;
        }
        Ok(out)
    }
}
