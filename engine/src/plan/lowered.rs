//! A network after folding and normalisation, with everything that the search looks up: merged maps, gains, tolerances.

use std::sync::OnceLock;

use cryptodl_core::backend::MAX_TAPS;
use cryptodl_models::network::{Network, OutputCalibration};

use super::gains::Gains;
use super::normalise::{Stage, normalise};
use super::quantise::{WEIGHT_HALF_BITS, rounding_gain, weight_scale};
use super::tolerance::{Limits, Tolerance};
use super::worst::WorstGains;
use super::{PlanError, RealMap, fold::fold};

/// A merged map may cost at most this many times the multiply-adds of its parts to be considered.
const MERGE_LIMIT: u64 = 8;

/// The network as the search sees it.
#[derive(Clone, Debug)]
pub struct Lowered {
    /// Runs and activations.
    pub stages: Vec<Stage>,
    /// Noise gains between places.
    pub gains: Gains,
    /// Bounds on these for the worst image, measured where noise is to be hidden.
    worst_gains: OnceLock<WorstGains>,
    /// Magnitude of the input.
    pub input_bound: f64,
    /// The share of labels that may change.
    pub tolerance: Tolerance,
    /// What noise on a logit keeps within it.
    pub limits: Limits,
    /// Range of the logits, and their margins.
    pub output: OutputCalibration,
    /// Per stage, `[first][count - 1]`: the base maps `first .. first + count` merged, where that is possible and sensible.
    merged: Vec<Vec<Vec<Option<Factor>>>>,
}

/// One map of a factorisation.
#[derive(Clone, Debug)]
pub struct Factor {
    /// The map.
    pub map: RealMap,
    /// Per entry of [`WEIGHT_HALF_BITS`]: weight scale, and output variance per unit mean square of the input from rounding.
    precisions: Vec<(f64, f64)>,
}

impl Factor {
    fn new(map: RealMap) -> Self {
        let precision = |half_bits| {
            let scale = weight_scale(&map, half_bits);
            (scale, rounding_gain(&map, scale))
        };
        Factor { precisions: WEIGHT_HALF_BITS.map(precision).collect(), map }
    }

    /// Weight scale and rounding gain at `half_bits / 2` bits.
    pub fn precision(&self, half_bits: u32) -> (f64, f64) {
        self.precisions[(half_bits - WEIGHT_HALF_BITS.start()) as usize]
    }
}

impl Lowered {
    /// Folds and normalises `network` and prepares the search.
    ///
    /// # Errors
    /// What the passes refuse, and missing calibrations.
    pub fn new(network: &Network, tolerance: Tolerance) -> Result<Self, PlanError> {
        let mut stages = normalise(fold(network)?)?;
        let output = network.output.as_ref().ok_or_else(|| PlanError::MissingCalibration {
            layer: network.layers.last().map_or(String::new(), |layer| layer.name.clone()),
            field: "range and margins of its scores, [output],",
        })?;
        let margins = &output.margins;
        if let Some(map) = stages.last_mut().and_then(|stage| stage.run.last_mut()) {
            map.output_range = Some(output.range);
        }
        let first = &mut stages[0].run[0];
        if first.input_rms.is_none() {
            let [low, high] = network.input.range;
            first.input_rms = Some(low.abs().max(high.abs()));
        }
        Ok(Lowered {
            gains: Gains::measure(&stages),
            worst_gains: OnceLock::new(),
            input_bound: network.input.range[0].abs().max(network.input.range[1].abs()),
            tolerance,
            limits: Limits::new(margins, tolerance),
            output: output.clone(),
            merged: stages.iter().map(|stage| merge_all(&stage.run)).collect(),
            stages,
        })
    }

    /// What noise becomes in the scores for the worst image.
    pub fn worst_gains(&self) -> &WorstGains {
        self.worst_gains.get_or_init(|| WorstGains::measure(&self.stages))
    }

    /// Number of scores.
    pub fn scores(&self) -> usize {
        self.stages.last().and_then(|stage| stage.run.last()).map_or(0, |map| map.geometry.outputs())
    }

    /// The merged map of `count` base maps of a stage from `first` on.
    pub fn factor(&self, stage: usize, first: usize, count: usize) -> Option<&Factor> {
        self.merged[stage][first].get(count - 1).and_then(Option::as_ref)
    }

    /// Every way to cut a stage's run into factors that exist, as lists of counts.
    pub fn factorisations(&self, stage: usize) -> Vec<Vec<usize>> {
        let length = self.stages[stage].run.len();
        let mut complete = Vec::new();
        let mut open = vec![Vec::new()];
        while let Some(counts) = open.pop() {
            let first: usize = counts.iter().sum();
            if first == length {
                complete.push(counts);
                continue;
            }
            for count in 1..=length - first {
                if self.factor(stage, first, count).is_some() {
                    open.push([&counts[..], &[count]].concat());
                }
            }
        }
        complete
    }
}

fn merge_all(run: &[RealMap]) -> Vec<Vec<Option<Factor>>> {
    let from = |first: usize| {
        let mut current = Some(run[first].clone());
        let mut parts = 0;
        let rest = run[first..].iter().enumerate().map(move |(i, next)| {
            parts += next.geometry.multiply_adds();
            if i > 0 {
                current = current.take().filter(|map| map.merges_with(next)).and_then(|map| {
                    let merged = map.merged_geometry(next);
                    let fits = merged.multiply_adds() <= MERGE_LIMIT * parts && merged.taps() <= MAX_TAPS;
                    fits.then(|| map.merge(next))
                });
            }
            current.clone().map(Factor::new)
        });
        rest.collect()
    };
    (0..run.len()).map(from).collect()
}
