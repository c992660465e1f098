//! Linear maps on a tile of lanes, in exact `f64` arithmetic without reduction inside the sums.
//!
//! The bound `127 * 2^30 * 65536 <= 2^53` (see [`MAX_TAPS`](cryptodl_core::backend::MAX_TAPS)) makes every product and partial
//! sum an exact integer. Inputs of one position are gathered once, converted to `f64` in a contiguous panel, and used for all
//! rows.

use cryptodl_core::backend::{LinearMap, PADDING};
use cryptodl_core::ring::Modulus;

use super::reduce::SumReducer;

/// Rows computed together: each load of an input serves all of them.
const ROWS: usize = 4;

/// Lanes computed together: two vectors, so that `ROWS * LANES` sums just fill half of the registers.
pub(super) const LANES: usize = if cfg!(target_feature = "avx512f") {
    16
} else if cfg!(target_feature = "avx") {
    8
} else {
    4
};

/// A linear map with its weights in the order of use.
pub(super) struct PackedMap<'a> {
    map: &'a LinearMap,
    /// `[group][block of rows][tap][row of the block]`, with zeros beyond the last row of a group.
    weights: Vec<[f64; ROWS]>,
}

/// Buffers that live as long as a worker's run of tiles.
#[derive(Default)]
pub(super) struct Panel {
    /// Taps that are not padding.
    taps: Vec<u32>,
    /// Their inputs.
    inputs: Vec<[f64; LANES]>,
}

impl<'a> PackedMap<'a> {
    pub(super) fn new(map: &'a LinearMap) -> Self {
        let rows = map.rows_per_group();
        let blocks = (0..map.groups()).flat_map(|group| (0..rows).step_by(ROWS).map(move |first| (group, first)));
        let weight = |group, row, tap| if row < rows { f64::from(map.row(group * rows + row)[tap]) } else { 0.0 };
        let weights = blocks
            .flat_map(|(group, first)| {
                (0..map.taps()).map(move |tap| std::array::from_fn(|r| weight(group, first + r, tap)))
            })
            .collect();
        PackedMap { map, weights }
    }

    /// Number of output values.
    pub(super) fn outputs(&self) -> usize {
        self.map.outputs()
    }

    /// Applies the map to a tile `x`, `[value][component][lane]` with `width` lanes, a multiple of [`LANES`]. Writes
    /// canonical residues to `out`, laid out alike.
    pub(super) fn apply(
        &self,
        (limb, modulus): (usize, Modulus),
        (components, width): (usize, usize),
        x: &[u32],
        out: &mut [u32],
        panel: &mut Panel,
    ) {
        let (map, reducer) = (self.map, SumReducer::new(modulus));
        let (rows, positions) = (map.rows_per_group(), map.positions());
        let blocks = rows.div_ceil(ROWS);
        let offset = |value: usize, component: usize| (value * components + component) * width;
        for position in 0..positions {
            let gather = map.gather(position);
            panel.taps.clear();
            panel.taps.extend((0..map.taps() as u32).filter(|&tap| gather[tap as usize] != PADDING));
            for group in 0..map.groups() {
                let shift = group * map.group_stride() as usize;
                for component in 0..components {
                    let constants = if component == 0 { map.constants(limb) } else { &[] };
                    for lane in (0..width).step_by(LANES) {
                        panel.inputs.clear();
                        panel.inputs.extend(panel.taps.iter().map(|&tap| {
                            let value = gather[tap as usize] as usize + shift;
                            to_f64(&x[offset(value, component) + lane..])
                        }));
                        for block in 0..blocks {
                            let weights = &self.weights[(group * blocks + block) * map.taps()..][..map.taps()];
                            let sums = multiply_add(weights, panel);
                            for (row, sums) in (block * ROWS..rows).zip(sums) {
                                let row = group * rows + row;
                                let constant = constants.get(row).copied().unwrap_or(0);
                                let out = &mut out[offset(row * positions + position, component) + lane..][..LANES];
                                for (out, sum) in out.iter_mut().zip(sums) {
                                    *out = modulus.add(reducer.residue(sum), constant);
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Residues as `f64`; going through `i32` vectorises everywhere and is exact below `2^30`.
fn to_f64(x: &[u32]) -> [f64; LANES] {
    let x: &[u32; LANES] = x.first_chunk().expect("tiles are whole vectors wide");
    x.map(|x| f64::from(x as i32))
}

/// `sums[r][l] = sum_k weights[taps[k]][r] inputs[k][l]`.
fn multiply_add(weights: &[[f64; ROWS]], panel: &Panel) -> [[f64; LANES]; ROWS] {
    let mut sums = [[0.0; LANES]; ROWS];
    for (&tap, inputs) in panel.taps.iter().zip(&panel.inputs) {
        let weights = &weights[tap as usize];
        for r in 0..ROWS {
            for l in 0..LANES {
                sums[r][l] += weights[r] * inputs[l];
            }
        }
    }
    sums
}
