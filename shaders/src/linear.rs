//! Tables of the linear kernel.

use cryptodl_core::backend::{LinearMap, MAX_TAPS, MAX_WEIGHT, PADDING};
use cryptodl_core::ring::{Modulus, RnsBasis};

use crate::constants::linear::{self, CHUNK, ROWS, START};
use crate::params::{Linear, View};
use crate::{Dot, Variant};

const _: () = assert!(PADDING == linear::PADDING);

// No sum reaches -START or START before it is added up: of signed bytes, and of 15-bit halves.
const _: () = {
    let mut variant = 0;
    while variant < Variant::ALL.len() {
        let (taps, digit) = match Variant::ALL[variant].dot {
            Dot::Packed => (MAX_TAPS as u64, 128),
            Dot::Integer => (4 * CHUNK[variant] as u64, (1 << 15) - 1),
        };
        assert!(taps <= 4 * CHUNK[variant] as u64 && taps * MAX_WEIGHT as u64 * digit < START as u64);
        variant += 1;
    }
};

/// A [`LinearMap`] in the layout of the kernel `linear`: contents of its table bindings. They hold for all limbs of the basis,
/// any number of components and any lanes.
#[derive(Clone, Debug)]
pub struct LinearTables {
    /// Binding 4, `[group][block of rows][quad][row of the block]`: weights of four taps as bytes, the first in the lowest.
    pub weights: Vec<u32>,
    /// Binding 5, `[position][tap]`, padded to quads: value indices of group 0 or [`PADDING`].
    pub gather: Vec<u32>,
    /// Binding 6, `[limb of the basis][0: component 0, 1: others][row]`: what is added after the sum, canonical.
    pub constants: Vec<u32>,
    shape: Linear,
}

impl LinearTables {
    /// Prepares a map for the variants with `dot`.
    pub fn new(basis: &RnsBasis, map: &LinearMap, dot: Dot) -> Self {
        let quads = map.taps().div_ceil(4);
        let rows = map.rows_per_group();
        let blocks = rows.div_ceil(ROWS as usize);
        let shape = Linear {
            positions: map.positions() as u32,
            quads: quads as u32,
            rows: rows as u32,
            blocks: blocks as u32,
            groups: map.groups() as u32,
            group_stride: map.group_stride(),
            ..Linear::default()
        };
        let padded = |position| {
            let taps = map.gather(position).iter().copied();
            taps.chain(std::iter::repeat(PADDING)).take(4 * quads)
        };
        LinearTables {
            weights: weights(map, blocks, quads),
            gather: (0..map.positions()).flat_map(padded).collect(),
            constants: constants(basis, map, dot, quads),
            shape,
        }
    }

    /// The kernel's parameters for operands of `components` components and `lanes` lanes.
    pub fn params(&self, x: View, out: View, components: u32, lanes: u32) -> Linear {
        Linear { x, out, components, lanes, ..self.shape }
    }

    /// The `ROW_GROUPS` override to use: 1, 2 or 4. With more, more rows share an input brought into workgroup memory.
    pub fn row_groups(&self) -> u32 {
        match self.shape.blocks {
            1 => 1,
            2 => 2,
            _ => 4,
        }
    }
}

fn weights(map: &LinearMap, blocks: usize, quads: usize) -> Vec<u32> {
    let rows = map.rows_per_group();
    let quad = |group: usize, row: usize, quad: usize| {
        let weights = if row < rows { map.row(group * rows + row) } else { &[] };
        let bytes = std::array::from_fn(|i| weights.get(4 * quad + i).map_or(0, |&weight| weight as u8));
        u32::from_le_bytes(bytes)
    };
    let mut packed = Vec::with_capacity(map.groups() * blocks * quads * ROWS as usize);
    for group in 0..map.groups() {
        for first in (0..blocks).map(|block| block * ROWS as usize) {
            for q in 0..quads {
                packed.extend((first..first + ROWS as usize).map(|row| quad(group, row, q)));
            }
        }
    }
    packed
}

fn constants(basis: &RnsBasis, map: &LinearMap, dot: Dot, quads: usize) -> Vec<u32> {
    let mut constants = Vec::with_capacity(2 * basis.len() * map.rows());
    for limb in 0..basis.len() {
        let m = basis.modulus(limb);
        let corrections: Vec<u32> = (0..map.rows()).map(|row| correction(m, map.row(row), dot, quads)).collect();
        constants.extend(corrections.iter().zip(map.constants(limb)).map(|(&a, &b)| m.add(a, b)));
        constants.extend(corrections);
    }
    constants
}

/// What the kernel's representation of sums and inputs adds too little, see `dot_packed.wgsl` and `dot_integer.wgsl`.
fn correction(m: Modulus, weights: &[i16], dot: Dot, quads: usize) -> u32 {
    let variant = Variant::ALL.iter().position(|variant| variant.dot == dot).expect("all variants are listed");
    let starts = i64::from(START) * quads.div_ceil(CHUNK[variant] as usize) as i64;
    let (plane_bits, per_plane) = match dot {
        Dot::Packed => (8, 128 * weights.iter().map(|&weight| i64::from(weight)).sum::<i64>() - starts),
        Dot::Integer => (15, -starts),
    };
    let planes = (0..m.bits()).step_by(plane_bits).fold(0, |sum, shift| sum + (1i64 << shift));
    m.mul(m.reduce_signed(per_plane), m.reduce_signed(planes))
}
