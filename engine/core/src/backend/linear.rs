//! Integer linear maps: convolutions, pooling and fully connected layers as one gather-multiply-add form.

use std::ops::Range;

use super::Positions;
use crate::ring::{MAX_MODULUS_BITS, RnsBasis};

/// A gather index that stands for a zero (padding of a convolution).
pub const PADDING: u32 = u32::MAX;

/// Largest magnitude of a weight: a signed byte, so that byte dot-product kernels apply.
pub const MAX_WEIGHT: i16 = 127;

/// Largest number of taps. A sum of K products of a weight and a residue stays below `127 * 2^30 * K <= 2^53`, and one of
/// products with a byte of a residue within a 32-bit accumulator (`127 * 255 * 65536 < 2^31`).
pub const MAX_TAPS: usize = 1 << 16;

const _: () = assert!(((MAX_WEIGHT as u64) * (MAX_TAPS as u64)) << MAX_MODULUS_BITS <= 1 << 53);
const _: () = assert!((MAX_WEIGHT as u64) * 255 * (MAX_TAPS as u64) < 1 << 31);

/// `out[row * positions + p] = sum_k weights[row][k] x[gather[p][k] + group(row) * group_stride] + constant[row]`.
///
/// Values are in channel, height, width order. Rows are split evenly among `groups` (1 for convolutions and dense layers, the
/// number of channels for pooling).
#[derive(Clone, Debug, PartialEq)]
pub struct LinearMap {
    inputs: usize,
    rows: usize,
    taps: usize,
    groups: usize,
    group_stride: u32,
    weights: Vec<i16>,
    gather: Vec<u32>,
    /// `[limb of the basis][row]`.
    constants: Vec<u32>,
}

/// Why a linear map is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("linear map refused: {0}")]
pub struct LinearMapError(pub String);

impl LinearMap {
    /// Checks and prepares a map.
    ///
    /// `weights` is `[rows][taps]`; `gather` is `[positions][taps]` with input value indices of group 0 or [`PADDING`];
    /// `constants` has one integer-valued number per row, or is empty.
    ///
    /// # Errors
    /// Lengths that do not fit, an index beyond `inputs`, a weight beyond [`MAX_WEIGHT`], more than [`MAX_TAPS`] taps, a
    /// constant that is no integer.
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        basis: &RnsBasis,
        inputs: usize,
        rows: usize,
        taps: usize,
        groups: usize,
        group_stride: u32,
        weights: Vec<i16>,
        gather: Vec<u32>,
        constants: &[f64],
    ) -> Result<Self, LinearMapError> {
        let refuse = |what: String| Err(LinearMapError(what));
        if rows == 0 || taps == 0 || groups == 0 || !rows.is_multiple_of(groups) || gather.is_empty() {
            return refuse(format!("{rows} rows in {groups} groups of {taps} taps"));
        }
        if taps > MAX_TAPS {
            return refuse(format!("{taps} taps, at most {MAX_TAPS}"));
        }
        if weights.len() != rows * taps || !gather.len().is_multiple_of(taps) {
            return refuse(format!("{} weights and {} indices for {rows} x {taps}", weights.len(), gather.len()));
        }
        if let Some(w) = weights.iter().find(|w| !(-MAX_WEIGHT..=MAX_WEIGHT).contains(w)) {
            return refuse(format!("weight {w}, at most {MAX_WEIGHT} in magnitude"));
        }
        let shift = (groups as u64 - 1) * u64::from(group_stride);
        if let Some(index) = gather.iter().find(|&&i| i != PADDING && u64::from(i) + shift >= inputs as u64) {
            return refuse(format!("index {index} of {inputs} inputs"));
        }
        if !(constants.is_empty() || constants.len() == rows) || constants.iter().any(|c| c.fract() != 0.0) {
            return refuse(format!("{} constants for {rows} rows, or one that is no integer", constants.len()));
        }
        let residues = |limb| {
            let modulus = basis.modulus(limb);
            (0..rows).map(move |row| constants.get(row).map_or(0, |&c| modulus.reduce_integer_f64(c)))
        };
        let constants = (0..basis.len()).flat_map(residues).collect();
        Ok(LinearMap { inputs, rows, taps, groups, group_stride, weights, gather, constants })
    }

    /// Number of input values.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Number of output values.
    pub fn outputs(&self) -> usize {
        self.rows * self.positions()
    }

    /// Outputs per position.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Products per output.
    pub fn taps(&self) -> usize {
        self.taps
    }

    /// Output positions per row.
    pub fn positions(&self) -> usize {
        self.gather.len() / self.taps
    }

    /// Number of groups.
    pub fn groups(&self) -> usize {
        self.groups
    }

    /// Rows of each group.
    pub fn rows_per_group(&self) -> usize {
        self.rows / self.groups
    }

    /// Weights of one row, in `[-127, 127]`.
    pub fn row(&self, row: usize) -> &[i16] {
        &self.weights[row * self.taps..][..self.taps]
    }

    /// Input indices of one position for group 0; add `group * group_stride` to those that are not [`PADDING`].
    pub fn gather(&self, position: usize) -> &[u32] {
        &self.gather[position * self.taps..][..self.taps]
    }

    /// Distance of the inputs of neighbouring groups.
    pub fn group_stride(&self) -> u32 {
        self.group_stride
    }

    /// For every position, the smallest range of input positions that holds all its taps, where an input value is
    /// `channel * input_positions + position`. Positions that see only padding get `0..1`.
    pub fn needed_positions(&self, input_positions: usize) -> Vec<Range<usize>> {
        if !(self.group_stride as usize).is_multiple_of(input_positions) {
            return vec![0..input_positions; self.positions()];
        }
        let range = |position| {
            let taps = self.gather(position).iter().filter(|&&index| index != PADDING);
            let at = taps.map(|&index| index as usize % input_positions);
            at.fold(None, |range: Option<Range<usize>>, p| {
                Some(range.map_or(p..p + 1, |range| range.start.min(p)..range.end.max(p + 1)))
            })
        };
        (0..self.positions()).map(|position| range(position).unwrap_or(0..1)).collect()
    }

    /// The map restricted to some of its positions, on operands that hold only `held` of `input_positions`: all that those need
    /// ([`Self::needed_positions`]).
    ///
    /// # Panics
    /// If they do not.
    pub fn restrict(&self, positions: Range<usize>, input_positions: usize, held: &Positions) -> Self {
        let room = held.room();
        let moved = |&index: &u32| {
            if index == PADDING {
                return PADDING;
            }
            let (channel, position) = (index as usize / input_positions, index as usize % input_positions);
            (channel * room + held.place(position)) as u32
        };
        let whole = room == input_positions;
        let group_planes = self.group_stride as usize / input_positions;
        assert!(whole || group_planes * input_positions == self.group_stride as usize, "groups of whole planes");
        LinearMap {
            inputs: self.inputs / input_positions * room,
            rows: self.rows,
            taps: self.taps,
            groups: self.groups,
            group_stride: if whole { self.group_stride } else { (group_planes * room) as u32 },
            weights: self.weights.clone(),
            gather: self.gather[positions.start * self.taps..positions.end * self.taps].iter().map(moved).collect(),
            constants: self.constants.clone(),
        }
    }

    /// Constants of all rows modulo the prime of `limb`, canonical.
    pub fn constants(&self, limb: usize) -> &[u32] {
        &self.constants[limb * self.rows..][..self.rows]
    }

    /// Multiply-adds per lane of one component in one limb, zero weights included.
    pub fn multiply_adds(&self) -> u64 {
        self.outputs() as u64 * self.taps as u64
    }
}
