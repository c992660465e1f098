//! Linear maps on a line of lanes: an integer matrix product whose inner loop is [`Dot`].
//!
//! A *column* is one position of one group: the same inputs for all rows of the group. Taps are cut into words of
//! [`Dot::TAPS`] inputs, and the digits of a word are packed once for all columns of a chunk that use it. Rows go in blocks
//! whose sums fill the registers; each load of packed inputs serves all rows of a block.

use std::collections::HashMap;

use cryptodl_core::backend::{LinearMap, PADDING};
use cryptodl_core::ring::Modulus;

use super::reduce::{Prime, SumReducer};
use crate::machine::Caches;
use crate::memory::Memory;
use crate::simd::{Dot, Kernel, unrolled};

/// Lanes that go through a run of operations together: one line of the cache.
pub(crate) const LINE: usize = 16;

/// A map prepared for one family of kernels.
pub(crate) struct PreparedMap<'a, D: Dot> {
    map: &'a LinearMap,
    chunks: Vec<Chunk>,
    /// By number of planes, from 1.
    weights: [Option<Weights<D>>; 4],
}

/// Columns whose packed inputs fit the cache together.
struct Chunk {
    /// Distinct words of inputs, as values or [`PADDING`].
    words: Vec<[u32; 4]>,
    columns: Vec<Column>,
}

struct Column {
    group: usize,
    position: usize,
    /// Words of taps that are more than padding, at least one: the number of the word, and its place in [`Chunk::words`].
    words: Vec<(u32, u32)>,
}

/// Weights in the order of use.
struct Weights<D: Dot> {
    /// First row in its group, number of rows, and where the weights start, `[word][row]`.
    blocks: Vec<(usize, usize, usize)>,
    /// All groups one after another.
    weights: Vec<D::Weight>,
    /// Weights of one group.
    group_len: usize,
}

impl<D: Dot> Weights<D> {
    fn new(map: &LinearMap, planes: usize) -> Self {
        let (rows, words) = (map.rows_per_group(), map.taps().div_ceil(D::TAPS));
        let count = rows.div_ceil(D::ROWS[planes - 1]);
        let bounds = |block: usize| block * rows / count..(block + 1) * rows / count;
        let blocks: Vec<_> = (0..count).map(|b| (bounds(b).start, bounds(b).len(), bounds(b).start * words)).collect();
        let mut weights = Vec::with_capacity(map.rows() * words);
        for group in 0..map.groups() {
            for block in 0..count {
                for word in 0..words {
                    weights.extend(bounds(block).map(|row| {
                        let taps = &map.row(group * rows + row)[word * D::TAPS..];
                        D::weight(&taps[..taps.len().min(D::TAPS)])
                    }));
                }
            }
        }
        Weights { blocks, weights, group_len: rows * words }
    }
}

impl<'a, D: Dot> PreparedMap<'a, D> {
    /// Prepares `map` for primes of the given sizes in bits.
    pub(crate) fn new(map: &'a LinearMap, sizes: impl IntoIterator<Item = u32>) -> Self {
        let mut weights = [const { None }; 4];
        for bits in sizes {
            let planes = D::planes(bits);
            weights[planes - 1].get_or_insert_with(|| Weights::new(map, planes));
        }
        PreparedMap { map, chunks: chunks::<D>(map), weights }
    }

    /// Number of output values.
    pub(crate) fn outputs(&self) -> usize {
        self.map.outputs()
    }

    /// For every input value, whether the map reads it. A map for one band of positions reads few.
    pub(crate) fn reads(&self) -> Vec<bool> {
        let mut reads = vec![false; self.map.inputs()];
        let words = self.chunks.iter().flat_map(|chunk| &chunk.words).flatten();
        words.filter(|&&value| value != PADDING).for_each(|&value| reads[value as usize] = true);
        reads
    }

    /// Applies the map to a line `x`, `[value][component][lane]`. Writes every output of `out`, in the same order, canonical.
    #[inline(always)]
    pub(crate) fn apply(
        &self,
        s: D,
        (limb, modulus): (usize, Modulus),
        components: usize,
        x: &[u32],
        out: &mut [u32],
        panel: &mut Memory,
    ) {
        let planes = D::planes(modulus.bits());
        let weights = self.weights[planes - 1].as_ref().expect("the map is prepared for this size of primes");
        let reducer = SumReducer::new::<D>(modulus);
        let vectors = LINE / D::LANES;
        let (x, out) = (D::arrays(x).0, D::arrays_mut(out).0);
        for component in 0..components {
            let constants = if component == 0 { self.map.constants(limb) } else { &[] };
            for vector in 0..vectors {
                let place = |value: usize| (value * components + component) * vectors + vector;
                for chunk in &self.chunks {
                    panel.set_len(chunk.words.len() * planes * D::LANES);
                    pack(s, &chunk.words, planes, |value| &x[place(value)], D::arrays_mut(panel).0);
                    let panel = D::arrays(panel).0;
                    for column in &chunk.columns {
                        let rows = column.group * self.map.rows_per_group();
                        for &(first, count, start) in &weights.blocks {
                            let first = rows + first;
                            let mut offsets = [reducer.offset(0); MAX_ROWS + 1];
                            if !constants.is_empty() {
                                (0..count).for_each(|row| offsets[row] = reducer.offset(constants[first + row]));
                            }
                            let block = Block::<'_, D> {
                                weights: &weights.weights[column.group * weights.group_len + start..]
                                    [..count * self.map.taps().div_ceil(D::TAPS)],
                                words: &column.words,
                                panel,
                                reducer: &reducer,
                                offsets: &offsets,
                                out: &mut out[place(first * self.map.positions() + column.position)..],
                                stride: self.map.positions() * components * vectors,
                            };
                            block.compute(s, planes, count);
                        }
                    }
                }
            }
        }
    }
}

/// Cuts the columns of a map into chunks and finds the words that columns share.
fn chunks<D: Dot>(map: &LinearMap) -> Vec<Chunk> {
    // Packed inputs should stay in a core's cache beside the line's values.
    let most = Caches::of_this_machine().core / 4 / (D::LANES * 4 * D::planes(cryptodl_core::ring::MAX_MODULUS_BITS));
    let mut chunks = Vec::new();
    let mut places = HashMap::new();
    let mut chunk = Chunk { words: Vec::new(), columns: Vec::new() };
    for group in 0..map.groups() {
        let shift = group as u32 * map.group_stride();
        for position in 0..map.positions() {
            let gather = map.gather(position);
            if chunk.words.len() + gather.len().div_ceil(D::TAPS) > most && !chunk.columns.is_empty() {
                chunks.push(std::mem::replace(&mut chunk, Chunk { words: Vec::new(), columns: Vec::new() }));
                places.clear();
            }
            let mut word = |taps: &[u32]| {
                let mut word = [PADDING; 4];
                let shifted = taps.iter().map(|&value| if value == PADDING { PADDING } else { value + shift });
                word.iter_mut().zip(shifted).for_each(|(to, value)| *to = value);
                *places.entry(word).or_insert_with(|| {
                    chunk.words.push(word);
                    chunk.words.len() as u32 - 1
                })
            };
            let is_seen = |taps: &[u32]| taps.iter().any(|&value| value != PADDING);
            let mut seen: Vec<_> = (0..).zip(gather.chunks(D::TAPS)).filter(|(_, taps)| is_seen(taps)).collect();
            if seen.is_empty() {
                seen.push((0, &gather[..D::TAPS.min(gather.len())]));
            }
            let words = seen.into_iter().map(|(number, taps)| (number, word(taps))).collect();
            chunk.columns.push(Column { group, position, words });
        }
    }
    chunks.push(chunk);
    chunks
}

/// Cuts the words' inputs into digits: `panel[word * planes + plane]`.
#[inline(always)]
fn pack<'x, D: Dot>(
    s: D,
    words: &[[u32; 4]],
    planes: usize,
    input: impl Fn(usize) -> &'x D::Array,
    panel: &mut [D::Array],
) {
    for (word, packed) in words.iter().zip(panel.chunks_exact_mut(planes)) {
        let mut inputs = [s.splat(0); 4];
        for tap in 0..D::TAPS {
            if word[tap] != PADDING {
                inputs[tap] = s.load(input(word[tap] as usize));
            }
        }
        let digits = s.digits(inputs);
        for (plane, packed) in packed.iter_mut().enumerate() {
            s.store(digits[plane], packed);
        }
    }
}

/// The most rows of any block.
const MAX_ROWS: usize = 12;

/// Where a block's offsets hold that of zero.
const NO_CONSTANT: usize = MAX_ROWS;

/// One block of rows of one column.
struct Block<'a, D: Dot> {
    /// `[word][row]`.
    weights: &'a [D::Weight],
    /// [`Column::words`], whose places are in `panel`.
    words: &'a [(u32, u32)],
    panel: &'a [D::Array],
    reducer: &'a SumReducer,
    /// [`SumReducer::offset`] of each row's constant, and at [`NO_CONSTANT`] that of zero.
    offsets: &'a [u32; MAX_ROWS + 1],
    /// Row `r` goes to `out[r * stride]`.
    out: &'a mut [D::Array],
    stride: usize,
}

impl<D: Dot> Block<'_, D> {
    #[inline(always)]
    fn compute(self, s: D, planes: usize, rows: usize) {
        macro_rules! by_size {
            ($($planes:literal: $($rows:literal)*;)*) => {
                match (planes, rows) {
                    $($(($planes, $rows) if $rows <= const { D::ROWS[$planes - 1] } => {
                        s.run(SizedBlock::<'_, D, $planes, $rows>(self))
                    })*)*
                    _ => unreachable!("blocks have at most D::ROWS rows"),
                }
            };
        }
        by_size! {
            1: 1 2 3 4 5 6 7 8 9 10 11 12;
            2: 1 2 3 4 5 6 7 8 9 10 11 12;
            3: 1 2 3 4 5 6 7 8 9;
            4: 1 2 3 4 5 6;
        }
    }
}

/// A block whose size is known to the compiler.
struct SizedBlock<'a, D: Dot, const PLANES: usize, const ROWS: usize>(Block<'a, D>);

impl<D: Dot, const PLANES: usize, const ROWS: usize> Kernel<D> for SizedBlock<'_, D, PLANES, ROWS> {
    type Output = ();

    #[inline(always)]
    fn compute(self, s: D) {
        block::<D, PLANES, ROWS>(s, self.0);
    }
}

#[inline(always)]
fn block<D: Dot, const PLANES: usize, const ROWS: usize>(s: D, b: Block<'_, D>) {
    let prime = Prime::new(s, b.reducer.modulus);
    let (weights, _) = b.weights.as_chunks::<ROWS>();
    for (part, words) in b.words.chunks(D::MAX_TAPS / D::TAPS).enumerate() {
        let mut sums = [[s.splat(0); PLANES]; ROWS];
        for &(word, place) in words {
            let weights = &weights[word as usize];
            let packed: &[D::Array; PLANES] =
                b.panel[place as usize * PLANES..].first_chunk().expect("places are within the panel");
            let mut x = [s.splat(0); PLANES];
            unrolled!(plane < PLANES => { x[plane] = s.load(&packed[plane]); });
            unrolled!(row < ROWS => {
                unrolled!(plane < PLANES => { sums[row][plane] = s.dot(sums[row][plane], x[plane], weights[row]); });
            });
        }
        unrolled!(row < ROWS => {
            let out = &mut b.out[row * b.stride];
            let offset = b.offsets[if part == 0 { row } else { NO_CONSTANT }];
            let residue = b.reducer.residue(s, sums[row], s.splat(offset));
            s.store(if part == 0 { residue } else { prime.add(s.load(out), residue) }, out);
        });
    }
}
