//! What planning may take. A model file may come from anybody: whatever it says, it is planned or refused within seconds and
//! a gigabyte. All limits are counts, so that every machine refuses the same files.

use cryptodl_core::backend::MAX_TAPS;
use cryptodl_network::Calibration;
use cryptodl_network::limits::MAX_WINDOW_VALUES;

use super::PlanRemedy::{
    FewerActivations, FewerChannels, FewerLayers, FewerLayersBetweenActivations, LowerDegree, NewCalibration,
    NoPrivacy, SmallerImages, SmallerKernels, SmallerPools,
};
use super::calibrate::stored;
use super::fold::FoldedStage;
use super::gains::Elements;
use super::normalise::Stage;
use super::{PlanError, PlanRemedy, RealMap};
use cryptodl_program::Geometry;

/// Most weights of all maps together before any are merged; a pool counts as a map with a weight for every value of its window.
pub const MAX_WEIGHTS: u64 = 1 << 23;
/// Most weights of all merged maps.
const MAX_MERGED_WEIGHTS: u64 = 1 << 24;
/// Most products of two weights that merging maps may take.
const MAX_MERGED_PRODUCTS: u64 = 1 << 31;
/// Most consecutive multiplications of ciphertexts: the longest chain has so many primes, and each takes about one.
pub const MAX_DEPTH: u64 = *super::options::LIMBS.end() as u64;
/// Most multiply-adds that it may take to measure the gains between all places of a network.
const MAX_PROBE_WORK: u64 = 1 << 33;
/// Most multiply-adds that it may take to bound the gains of the worst image.
const MAX_WORST_WORK: u64 = 1 << 33;
/// Random vectors that gains are measured with, and the fewest where a network is so large that fewer must do: it has the more
/// values to average over.
const PROBES: [u64; 4] = [32, 16, 8, 4];

/// Refuses more than `limit` of something.
pub fn at_most(
    what: impl FnOnce() -> String,
    found: u64,
    limit: u64,
    remedies: &[PlanRemedy],
) -> Result<(), PlanError> {
    if found <= limit {
        return Ok(());
    }
    Err(PlanError::TooLarge { what: what(), found, limit, remedies: remedies.to_vec() })
}

/// Counts the weights of maps as they are made.
#[derive(Default)]
pub struct Weights(u64);

impl Weights {
    /// Adds those of a map to come.
    ///
    /// # Errors
    /// More than [`MAX_WEIGHTS`] in all, or more taps than the kernels take.
    pub fn add(&mut self, layer: &str, geometry: &Geometry) -> Result<(), PlanError> {
        let what = || format!("the number of inputs of each output of layer {layer}");
        at_most(what, geometry.taps() as u64, MAX_TAPS as u64, &[SmallerKernels, SmallerImages, FewerChannels])?;
        self.0 = self.0.saturating_add(geometry.weights());
        let what = || format!("the number of weights up to layer {layer}");
        at_most(what, self.0, MAX_WEIGHTS, &[SmallerKernels, SmallerPools, FewerChannels])
    }
}

/// What remains for merging maps.
pub struct Merging {
    weights: u64,
    products: u64,
}

impl Default for Merging {
    fn default() -> Self {
        Merging { weights: MAX_MERGED_WEIGHTS, products: MAX_MERGED_PRODUCTS }
    }
}

impl Merging {
    /// Whether `first` and then `next` may be merged: the kernels can compute the map, and its making is within what remains,
    /// from which it is then taken.
    pub fn allows(&mut self, first: &RealMap, next: &RealMap) -> bool {
        let merged = first.merged_geometry(next);
        let products = next.geometry.weights().saturating_mul(first.geometry.taps() as u64);
        let windows = merged.taps() as u128 * merged.positions() as u128;
        let allowed = merged.taps() <= MAX_TAPS
            && windows <= MAX_WINDOW_VALUES
            && merged.weights() <= self.weights
            && products <= self.products;
        if allowed {
            self.weights -= merged.weights();
            self.products -= products;
        }
        allowed
    }
}

/// Checks the depth of activations.
///
/// # Errors
/// More than [`MAX_DEPTH`] consecutive multiplications.
pub fn check_depth(stages: &[Stage]) -> Result<(), PlanError> {
    // By variable.
    let mut depths = vec![0u64];
    for stage in stages {
        let before = stage.branches.iter().map(|branch| depths[branch.variable]).max().unwrap_or(0);
        let own = stage.activation.as_ref().map_or(0, |activation| activation.degree().next_power_of_two().ilog2());
        depths.push(before + u64::from(own));
    }
    let depth = depths.into_iter().max().unwrap_or(0);
    let help = &[FewerActivations, LowerDegree];
    at_most(|| "the number of consecutive multiplications of ciphertexts".into(), depth, MAX_DEPTH, help)
}

/// Checks that a calibration has no more images than would have been measured: all of them are followed through every schedule
/// that is judged.
///
/// # Errors
/// More of them.
pub fn check_calibration(calibration: &Calibration, stages: &[Stage]) -> Result<(), PlanError> {
    let elements = Elements::new(stages);
    let help = &[NewCalibration];
    let images = calibration.images.nrows() as u64;
    at_most(|| "the number of images stored in its calibration".into(), images, stored(&elements) as u64, help)
}

/// Checks that the gains of the worst image can be bounded, which circuit privacy needs.
///
/// # Errors
/// More multiply-adds than are allowed.
pub fn check_worst(stages: &[Stage]) -> Result<(), PlanError> {
    // From every place of a branch, what is sent goes through the rest of it.
    let of_branch = |maps: &[RealMap]| -> u64 {
        let works = maps.iter().zip(1u64..);
        works.map(|(map, starts)| map.geometry.multiply_adds().saturating_mul(starts)).fold(0, u64::saturating_add)
    };
    let branches = stages.iter().flat_map(|stage| &stage.branches);
    let work = branches.map(|branch| of_branch(&branch.maps)).fold(0, u64::saturating_add);
    let what = || "the number of multiply-adds for bounding the worst image's noise".into();
    let help = &[FewerLayersBetweenActivations, FewerChannels, SmallerImages, NoPrivacy];
    at_most(what, work.saturating_mul(super::worst::VECTORS), MAX_WORST_WORK, help)
}

/// With how many random vectors the gains from every place to every later place are measured.
///
/// # Errors
/// A network for which even the fewest take too many multiply-adds.
pub fn probes(stages: &[FoldedStage]) -> Result<usize, PlanError> {
    let [.., fewest] = PROBES;
    let fitting = PROBES.into_iter().find(|&probes| probe_work(stages, probes) <= MAX_PROBE_WORK);
    let probes = fitting.unwrap_or(fewest);
    let help = &[FewerLayers, FewerChannels, SmallerImages];
    let what = || "the number of multiply-adds for estimating noise".into();
    at_most(what, probe_work(stages, probes), MAX_PROBE_WORK, help)?;
    Ok(probes as usize)
}

/// Multiply-adds of measuring gains with so many random vectors: what is sent from a place goes through all that follows.
fn probe_work(stages: &[FoldedStage], probes: u64) -> u64 {
    // Finding a value in a histogram costs as much as some multiply-adds.
    const DRAW: u64 = 16;
    let (mut places, mut work) = (0u64, 0u64);
    let mut add = |per_vector: u64, once: u64| {
        places += 1;
        let element = per_vector.saturating_mul(probes).saturating_add(once);
        work = work.saturating_add(places.saturating_mul(element));
    };
    for FoldedStage { branches, activation, .. } in stages {
        let maps = branches.iter().flat_map(|branch| &branch.maps);
        for RealMap { geometry, .. } in maps {
            add(geometry.multiply_adds() + geometry.inputs() as u64, geometry.gathered() as u64);
        }
        let values = branches[0].maps.last().map_or(0, |map| map.geometry.outputs()) as u64;
        if branches.len() > 1 {
            add(values * branches.len() as u64, 0);
        }
        if let Some(activation) = activation {
            let bins =
                activation.histogram.counts.len() + activation.channels.iter().map(|h| h.counts.len()).sum::<usize>();
            add(DRAW * values, DRAW * bins as u64);
        }
    }
    work
}
