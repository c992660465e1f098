//! Scores of few images become few ciphertexts: docs/scheme.md, "Few scores".

use std::ops::Range;

use cryptodl_core::backend::{Backend, KeySwitch, Result, Shape};
use cryptodl_core::ckks::{Params, ScoreLeaves};
use cryptodl_program::ScorePacking;

/// What packs the scores of a set.
pub(super) struct ScorePacker<'a, B: Backend> {
    pub backend: &'a B,
    pub params: &'a Params,
    pub packing: ScorePacking,
    /// How the scores lie afterwards.
    pub leaves: ScoreLeaves,
    /// Keys for the secret's square, its third power and so on.
    pub powers: &'a [KeySwitch<'a, B::Tensor>],
}

impl<B: Backend> ScorePacker<'_, B> {
    /// Packs `x`: one ciphertext for every score, of as many components as there are powers and two more.
    pub fn pack(&self, x: &B::Tensor) -> Result<B::Tensor> {
        let mut x = self.relinearised(x)?;
        if self.packing.drop > 0 {
            let limbs = &self.backend.shape(&x).limbs;
            x = self.backend.mod_down(&x, &limbs[limbs.len() - self.packing.drop..])?;
        }
        if self.leaves.log > 0 { self.summed(&x) } else { Ok(x) }
    }

    /// Two components, by one key switch for each other: the highest power of the secret first.
    fn relinearised(&self, x: &B::Tensor) -> Result<B::Tensor> {
        let backend = self.backend;
        let shape = backend.shape(x).clone();
        let mut out = self.part(x, 0..shape.values, 0..2)?;
        for (i, key) in self.powers.iter().enumerate().rev() {
            let mut three = backend.uninitialised(Shape { components: 3, ..shape.clone() })?;
            let components = |range| shape.window().with_components(range);
            backend.copy(&out, &components(0..2), &mut three, &components(0..2))?;
            backend.copy(x, &components(i + 2..i + 3), &mut three, &components(2..3))?;
            out = backend.relinearise(&three, key, 0)?;
        }
        Ok(out)
    }

    /// Sums of several scores times the factors of their parts.
    fn summed(&self, x: &B::Tensor) -> Result<B::Tensor> {
        let (backend, basis) = (self.backend, self.params.basis());
        let shape = backend.shape(x).clone();
        let parts = 1usize << self.leaves.log;
        // Row 2t multiplies component 0 into component 0, and row 2t + 1 component 1 into component 1.
        let mut rows = Vec::with_capacity(4 * parts * shape.limbs.len() * shape.lanes);
        let zeros = vec![0; shape.lanes];
        for &limb in &shape.limbs {
            for part in 0..parts {
                let mut row = self.leaves.factor(shape.lanes, part);
                basis.table(limb).forward(&mut row);
                [&row, &zeros, &zeros, &row].into_iter().for_each(|part| rows.extend_from_slice(part));
            }
        }
        let rows = backend.upload(Shape { values: 2 * parts, ..shape.clone() }, &rows)?;
        let values = self.leaves.ciphertexts(shape.values);
        let mut sum = backend.zeros(Shape { values, ..shape.clone() })?;
        for part in 0..parts {
            // The last part may have fewer scores; zeros stand for those that are missing.
            let of_part = (part * values).min(shape.values)..((part + 1) * values).min(shape.values);
            if of_part.is_empty() {
                break;
            }
            for component in 0..2 {
                let mut scores = backend.zeros(Shape { values, components: 1, ..shape.clone() })?;
                let from = shape.window().with_values(of_part.clone()).with_components(component..component + 1);
                let to = backend.shape(&scores).window().with_values(0..of_part.len());
                backend.copy(x, &from, &mut scores, &to)?;
                backend.accumulate_key(&mut sum, &scores, &rows, 2 * part + component)?;
            }
        }
        Ok(sum)
    }

    /// A copy of some values and components.
    fn part(&self, x: &B::Tensor, values: Range<usize>, components: Range<usize>) -> Result<B::Tensor> {
        let shape = self.backend.shape(x).clone();
        let from = shape.window().with_values(values.clone()).with_components(components.clone());
        let shape = Shape { values: values.len(), components: components.len(), ..shape };
        let to = shape.window();
        let mut out = self.backend.uninitialised(shape)?;
        self.backend.copy(x, &from, &mut out, &to)?;
        Ok(out)
    }
}
