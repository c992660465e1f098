//! Where the values of images lie in ciphertexts.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::ring::Automorphism;

/// How images may be packed (docs/scheme.md, "Small batches").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Packing {
    /// One image in every slot, and one ciphertext for every pixel or score.
    #[default]
    Spread,
    /// Or up to `2^k` values of an image in a ciphertext for this `k` or any smaller one, at least 1. Few images take few
    /// ciphertexts, which the server turns into one for every pixel by rotations of slots. Their scores take few ciphertexts, too.
    Compact(u32),
}

impl Packing {
    /// `log2` of the most pixels of an image in a ciphertext: 0 if spread.
    pub fn log_leaves(self) -> u32 {
        match self {
            Packing::Spread => 0,
            Packing::Compact(log_leaves) => log_leaves,
        }
    }

    /// How `images` images are packed best in dimension `n`: with as many of their pixels in a ciphertext as leave room for
    /// all of them.
    pub fn of_images(self, n: usize, images: usize) -> Leaves {
        let room = |log: &u32| images <= n >> log;
        Leaves { log: (0..=self.log_leaves()).rev().find(room).unwrap_or(0) }
    }

    /// How the scores of so many images lie that lie so, if this is the packing of scores: each image is sent as often as there is
    /// room for all of them, but not more often than this packing has scores in a ciphertext.
    pub fn of_scores(self, n: usize, leaves: Leaves, images: usize) -> ScoreLeaves {
        let room = (leaves.capacity(n) / images.max(1)).checked_ilog2().unwrap_or(0);
        ScoreLeaves { log: if leaves.is_spread() { 0 } else { room.min(self.log_leaves()) } }
    }

    /// The automorphisms that a server must have to unpack, for every packing that is allowed: `X -> X^(gamma^(2^i))` for
    /// `i = 0 .. k`, where `gamma` generates the rotations among `2^k` slots.
    pub fn automorphisms(self, n: usize) -> Vec<Automorphism> {
        let leaves = Leaves { log: self.log_leaves() };
        (0..leaves.log).map(|i| leaves.rotation(n, 1 << i)).collect()
    }
}

impl std::fmt::Display for Packing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Packing::Spread => f.write_str("spread"),
            Packing::Compact(log_leaves) => write!(f, "compact with up to 2^{log_leaves} values in a ciphertext"),
        }
    }
}

/// How the pixels of one set of images lie in ciphertexts: `2^log` of each image in every ciphertext, its *leaves*.
///
/// With `U` ciphertexts, pixel `t U + u` is leaf `t` of ciphertext `u`. Leaf `t` of image `b` lies in the slot that
/// `X -> X^(gamma^t)` moves to slot `b`, with `gamma = 5^(N / 2^log)`: so this automorphism makes of ciphertext `u` one that
/// has pixel `t U + u` of image `b` in slot `b`. Images have the slots from 0 on, and `N / 2^log` of them fit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leaves {
    /// `log2` of their number; 0 where every pixel has a ciphertext of its own.
    pub log: u32,
}

/// Rotations of some values of a set to others, all of which read the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RotationStage {
    /// The values that are read.
    pub from: Range<usize>,
    /// By the number of leaves by which it rotates: the values that are made. The last of those read may have no place.
    pub to: Vec<(usize, Range<usize>)>,
}

impl Leaves {
    /// Whether every pixel has a ciphertext of its own.
    pub fn is_spread(self) -> bool {
        self.log == 0
    }

    /// Ciphertexts for images of so many values.
    pub fn ciphertexts(self, values: usize) -> usize {
        values.div_ceil(1 << self.log)
    }

    /// Most images in a set.
    pub fn capacity(self, n: usize) -> usize {
        n >> self.log
    }

    /// `X -> X^(gamma^step)`, which makes leaf `t + step` of leaf `t`.
    ///
    /// # Panics
    /// If there are more leaves than slots.
    pub fn rotation(self, n: usize, step: usize) -> Automorphism {
        Automorphism::power(n, 5, (n >> self.log) * step)
    }

    /// Slots of all leaves of all images: entry `b 2^log + t` is that of leaf `t` of image `b`. A permutation of `0 .. N`.
    pub fn slots(self, n: usize) -> Vec<u32> {
        let gamma = Automorphism::power(n, 5, n >> self.log);
        let one = Automorphism::new(n, 1).expect("the identity");
        let powers: Vec<u32> = std::iter::successors(Some(one), |power| Some(power.then(gamma)))
            .take(1 << self.log)
            .map(Automorphism::element)
            .collect();
        let slot = |image: usize, power: u32| {
            // Slot `s` belongs to the exponents `2s + 1` and `4N - (2s + 1)`.
            let exponent = power as usize * (2 * image + 1) % (4 * n);
            (exponent.min(4 * n - exponent) / 2) as u32
        };
        (0..self.capacity(n)).flat_map(|image| powers.iter().map(move |&power| slot(image, power))).collect()
    }

    /// Every rotation that makes `values` values of the first [`Self::ciphertexts`], in an order in which all that is read
    /// has been made before: leaf `t` from leaf `t - step` with the largest of `steps` that is at most `t`.
    ///
    /// `steps` ascend, and have every power of two below the number of leaves. The more there are, the fewer leaves are read,
    /// and each that is read is cut into digits once.
    pub fn stages(self, values: usize, steps: &[usize]) -> Vec<RotationStage> {
        let width = self.ciphertexts(values);
        // Leaf 0, then the leaves whose highest bit is bit 0, 1, and so on: powers of two are steps, so all of these are made from
        // leaves before them.
        let blocks = std::iter::once(0..1).chain((0..self.log).map(|bit| 1 << bit..2 << bit));
        let stage = |leaves: Range<usize>| {
            let start = leaves.start * width;
            let to = steps.iter().enumerate().filter_map(|(i, &step)| {
                // From here on the next step leads to the same leaves.
                let next = steps.get(i + 1).map_or(usize::MAX, |next| next - step);
                let end = leaves.end.min(next).max(leaves.start);
                let to = (leaves.start + step) * width..((end + step) * width).min(values);
                (!to.is_empty()).then_some((step, to))
            });
            let to: Vec<_> = to.collect();
            let read = to.iter().map(|(_, to)| to.len()).max().unwrap_or(0);
            RotationStage { from: start..start + read, to }
        };
        blocks.map(stage).filter(|stage| !stage.to.is_empty()).collect()
    }

    /// Mean over all `values` values of the rotations behind each, with these steps as in [`Self::stages`].
    pub fn mean_depth(self, values: usize, steps: &[usize]) -> f64 {
        let mut depths = vec![0u32; values];
        for stage in self.stages(values, steps) {
            for (_, to) in stage.to {
                for (value, from) in to.zip(stage.from.clone()) {
                    depths[value] = depths[from] + 1;
                }
            }
        }
        depths.iter().map(|&depth| f64::from(depth)).sum::<f64>() / values as f64
    }

    /// Steps for [`Self::stages`]: the powers of two, and every multiple of `2^log_giant` that leads to one of `values` values.
    /// Then about `2^log_giant` leaves are read.
    pub fn steps(self, values: usize, log_giant: u32) -> Vec<usize> {
        let count = values.div_ceil(self.ciphertexts(values));
        let is_step = |step: &usize| step.is_power_of_two() || (step.is_multiple_of(1 << log_giant) && *step < count);
        (1..1 << self.log).filter(is_step).collect()
    }

    /// These leaves' steps among those of packings with up to `2^log_most` leaves: `2^(log_most - log)` of theirs are one here.
    pub fn steps_of(self, log_most: u32, steps: &[usize]) -> Vec<usize> {
        let shift = log_most - self.log;
        steps.iter().filter(|&step| step.trailing_zeros() >= shift).map(|step| step >> shift).collect()
    }
}

/// How the scores of one set of images lie in the ciphertexts of a result: `2^log` of each image in every ciphertext.
///
/// Each image has been sent `2^log` times: copy `j` of image `i` is in the slots of image `i 2^log + j` of [`Leaves`]. With `U`
/// ciphertexts, score `t U + u` is part `t` of ciphertext `u`, which is the sum of its scores' ciphertexts times `1` for part 0
/// and `X^(t N / 2^log) + X^(-t N / 2^log)` for the others. In the slots of the copies these factors are orthogonal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScoreLeaves {
    /// `log2` of the copies of an image, and of its scores in a ciphertext.
    pub log: u32,
}

impl ScoreLeaves {
    /// Ciphertexts for so many scores.
    pub fn ciphertexts(self, scores: usize) -> usize {
        scores.div_ceil(1 << self.log)
    }

    /// Slots of an image's copies.
    pub fn slots(self, image: usize) -> Range<usize> {
        image << self.log..(image + 1) << self.log
    }

    /// Coefficients of the factor of part `part`, in dimension `n`.
    pub fn factor(self, n: usize, part: usize) -> Vec<u32> {
        let mut factor = vec![0; n];
        factor[part * (n >> self.log)] = 1;
        factor
    }

    /// Part `part` of an image from what a ciphertext has in the slots of its copies: the factors' values in these slots,
    /// `2 cos(pi part (2b + 1) / 2^(log + 1))` or 1, are orthogonal.
    pub fn part(self, image: usize, part: usize, values: &[f64]) -> f64 {
        let angle = std::f64::consts::PI * part as f64 / (2 << self.log) as f64;
        let terms = self.slots(image).zip(values).map(|(slot, value)| libm::cos(angle * (2 * slot + 1) as f64) * value);
        terms.sum::<f64>() / (1u64 << self.log) as f64
    }
}
