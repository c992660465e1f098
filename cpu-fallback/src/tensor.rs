//! The tensor of both CPU backends: a shape and its residues in main memory.

use std::sync::Arc;

use cryptodl_core::backend::{BackendError, Result, Shape, Window};
use rayon::prelude::*;

use crate::memory::{Memory, Pool};

/// Residues in main memory, `[limb][value][component][lane]`.
#[derive(Debug)]
pub struct CpuTensor {
    shape: Shape,
    residues: Memory,
}

impl Clone for CpuTensor {
    fn clone(&self) -> Self {
        Self::from_residues(self.shape.clone(), &self.residues).expect("memory for a copy")
    }
}

impl PartialEq for CpuTensor {
    fn eq(&self, other: &Self) -> bool {
        self.shape == other.shape && self.residues[..] == other.residues[..]
    }
}

impl Eq for CpuTensor {}

/// Which polynomial of a tensor; `limb` counts positions in [`Shape::limbs`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Position in the list of limbs.
    pub limb: usize,
    /// Value.
    pub value: usize,
    /// Component.
    pub component: usize,
}

impl Place {
    /// The place of row `index`, rows counted in tensor order.
    fn of_row(shape: &Shape, index: usize) -> Self {
        let (rest, component) = (index / shape.components, index % shape.components);
        Place { limb: rest / shape.values, value: rest % shape.values, component }
    }

    /// The place in window `from` moved to window `to`.
    fn moved(self, from: &Window, to: &Window) -> Self {
        Place {
            limb: self.limb - from.limbs.start + to.limbs.start,
            value: self.value - from.values.start + to.values.start,
            component: self.component - from.components.start + to.components.start,
        }
    }
}

impl CpuTensor {
    /// Zeros.
    ///
    /// # Errors
    /// [`BackendError::OutOfMemory`] if the system refuses.
    pub fn zeros(shape: Shape) -> Result<Self> {
        let residues = Memory::zeros(shape.len()).ok_or_else(|| out_of_memory(&shape))?;
        Ok(CpuTensor { shape, residues })
    }

    /// Any residues, to be written before they are read, in memory of `pool`.
    pub(crate) fn uninitialised(shape: Shape, pool: &Arc<Pool>) -> Result<Self> {
        let residues = pool.take(shape.len()).ok_or_else(|| out_of_memory(&shape))?;
        Ok(CpuTensor { shape, residues })
    }

    /// A copy of `residues`, canonical, in tensor order.
    ///
    /// # Errors
    /// As [`Self::zeros`].
    ///
    /// # Panics
    /// If there are not exactly `shape.len()` residues.
    pub fn from_residues(shape: Shape, residues: &[u32]) -> Result<Self> {
        assert_eq!(residues.len(), shape.len(), "residues of a tensor of shape {shape:?}");
        let mut tensor = Self::zeros(shape)?;
        tensor.residues.copy_from_slice(residues);
        Ok(tensor)
    }

    /// Shape.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// All residues, in tensor order.
    pub fn residues(&self) -> &[u32] {
        &self.residues
    }

    /// All residues, in tensor order.
    pub fn residues_mut(&mut self) -> &mut [u32] {
        &mut self.residues
    }

    /// The lanes of one polynomial.
    pub fn row(&self, at: Place) -> &[u32] {
        let Shape { values, components, lanes, .. } = self.shape;
        &self.residues[((at.limb * values + at.value) * components + at.component) * lanes..][..lanes]
    }

    /// Every polynomial with its place, in tensor order.
    pub fn rows_mut(&mut self) -> impl Iterator<Item = (Place, &mut [u32])> {
        let CpuTensor { shape, residues } = self;
        let rows = residues.chunks_exact_mut(shape.lanes.max(1)).enumerate();
        rows.map(|(index, row)| (Place::of_row(shape, index), row))
    }

    /// [`Self::rows_mut`] in parallel.
    pub fn par_rows_mut(&mut self) -> impl IndexedParallelIterator<Item = (Place, &mut [u32])> {
        let CpuTensor { shape, residues } = self;
        let rows = residues.par_chunks_exact_mut(shape.lanes.max(1)).enumerate();
        rows.map(|(index, row)| (Place::of_row(shape, index), row))
    }

    /// For every value, its components in each limb, one after another.
    pub(crate) fn values_mut(&mut self) -> Vec<Vec<&mut [u32]>> {
        self.shape.values_mut(&mut self.residues)
    }

    /// The components of one value, in each limb.
    pub(crate) fn value(&self, value: usize) -> Vec<&[u32]> {
        let len = self.shape.components * self.shape.lanes;
        let blocks = self.residues.chunks_exact(self.shape.limb_len().max(1));
        blocks.map(|block| &block[value * len..][..len]).collect()
    }

    /// Copies window `from` of `self` over window `to` of `out`.
    ///
    /// # Panics
    /// If the extents differ or a window leaves its tensor.
    pub fn copy(&self, from: &Window, out: &mut CpuTensor, to: &Window) {
        assert_eq!(from.extents(), to.extents(), "windows of a copy");
        assert!(contains(&self.shape, from) && contains(&out.shape, to), "window {from:?} or {to:?} leaves its tensor");
        out.window_rows_mut(to).into_par_iter().for_each(|(place, row)| {
            row.copy_from_slice(&self.row(place.moved(to, from))[from.lanes.clone()]);
        });
    }

    /// The lanes of every polynomial in a window, with its place.
    fn window_rows_mut(&mut self, window: &Window) -> Vec<(Place, &mut [u32])> {
        let Shape { components, lanes, .. } = self.shape;
        let limb_len = self.shape.limb_len();
        let mut rows = Vec::with_capacity(window.limbs.len() * window.values.len() * window.components.len());
        let blocks = self.residues.chunks_exact_mut(limb_len.max(1)).enumerate();
        for (limb, block) in blocks.skip(window.limbs.start).take(window.limbs.len()) {
            let values = block.chunks_exact_mut((components * lanes).max(1)).enumerate();
            for (value, block) in values.skip(window.values.start).take(window.values.len()) {
                let all = block.chunks_exact_mut(lanes.max(1)).enumerate();
                let kept = all.skip(window.components.start).take(window.components.len());
                rows.extend(
                    kept.map(|(component, row)| (Place { limb, value, component }, &mut row[window.lanes.clone()])),
                );
            }
        }
        rows
    }
}

fn out_of_memory(shape: &Shape) -> BackendError {
    BackendError::OutOfMemory { device: "main memory".into(), bytes: shape.bytes() }
}

fn contains(shape: &Shape, window: &Window) -> bool {
    window.limbs.end <= shape.limbs.len()
        && window.values.end <= shape.values
        && window.components.end <= shape.components
        && window.lanes.end <= shape.lanes
}
