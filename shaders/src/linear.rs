//! Tables of the linear kernel.

use cryptodl_core::backend::LinearMap;
use cryptodl_core::ring::RnsBasis;

use crate::Dot;
use crate::params::{Linear, View};

/// Rows that one thread computes.
pub const LINEAR_ROWS: u32 = 8;
/// Lanes of a workgroup.
pub const LINEAR_LANES: u32 = 64;
/// Quads of taps that a workgroup brings into its memory at once.
const STAGE: usize = 4;

/// A [`LinearMap`] in the layout of the kernel `linear`: contents of its three table bindings.
#[derive(Clone, Debug)]
pub struct LinearTables {
    /// Binding 4, `[group][block of rows][quad][row of the block]`: weights of four taps as bytes, the first in the lowest.
    pub weights: Vec<u32>,
    /// Binding 5, `[position][tap]`: value indices of group 0 or [`PADDING`](cryptodl_core::backend::PADDING).
    pub gather: Vec<u32>,
    /// Binding 6, `[limb of the basis][0: component 0, 1: others][row]`: what is added after the sum, canonical.
    pub constants: Vec<u32>,
    shape: Linear,
}

impl LinearTables {
    /// Prepares a map for a variant.
    pub fn new(basis: &RnsBasis, map: &LinearMap, dot: Dot) -> Self {
        let _ = (basis, dot);
        let shape = Linear { rows: map.rows_per_group() as u32, ..Linear::default() };
        LinearTables { weights: vec![], gather: vec![], constants: vec![], shape }
    }

    /// The kernel's parameters for operands of `components` components and `lanes` lanes.
    pub fn params(&self, x: View, out: View, components: u32, lanes: u32) -> Linear {
        Linear { x, out, components, lanes, ..self.shape }
    }

    /// The `ROW_GROUPS` override to use: 1, 2 or 4.
    pub fn row_groups(&self) -> u32 {
        self.shape.blocks.next_power_of_two().min(4)
    }
}
