//! The rotations by which a server makes a ciphertext for every pixel of few images.

use cryptodl_core::ckks::{Leaves, MAX_EVAL_KEYS};

/// Evaluation keys that are left for powers of the secret.
const OTHER_KEYS: usize = 16;

/// Rotations that unpack images of so many values, each by one of a number of steps that have a key (docs/scheme.md, "Small
/// batches").
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Unpacking {
    /// As in [`Leaves::stages`]; none where images are spread.
    pub steps: Vec<usize>,
    /// Rotations behind a value, on average.
    pub mean_depth: f64,
    /// Ciphertexts that are cut into digits.
    pub cut: usize,
    /// Ciphertexts that are made of these.
    pub made: usize,
}

impl Unpacking {
    fn new(leaves: Leaves, values: usize, steps: Vec<usize>) -> Self {
        let stages = leaves.stages(values, &steps);
        let mean_depth = leaves.mean_depth(values, &steps);
        let cut = stages.iter().map(|stage| stage.from.len()).sum();
        let made = stages.iter().flat_map(|stage| &stage.to).map(|(_, to)| to.len()).sum();
        Unpacking { steps, mean_depth, cut, made }
    }

    /// All that there is to choose from, from few keys to many, by `log2` of the step whose multiples are steps.
    pub fn choices(leaves: Leaves, values: usize) -> Vec<Unpacking> {
        if leaves.is_spread() {
            return vec![Unpacking::default()];
        }
        let steps = (0..=leaves.log).rev().map(|log_giant| leaves.steps(values, log_giant));
        let allowed = steps.enumerate().filter(|(i, steps)| *i == 0 || steps.len() <= MAX_EVAL_KEYS - OTHER_KEYS);
        allowed.map(|(_, steps)| Self::new(leaves, values, steps)).collect()
    }
}
