//! A network after folding and normalisation, with everything that the search looks up: merged maps, gains, tolerances.

use std::sync::OnceLock;

use cryptodl_models::network::{Network, OutputCalibration};

use super::gains::Gains;
use super::limits::{Merging, check_calibration, check_depth, probes};
use super::normalise::{Stage, normalise};
use super::quantise::{WEIGHT_HALF_BITS, rounding_gain, weight_scale};
use super::tolerance::{Limits, Tolerance};
use super::worst::WorstGains;
use super::{PlanError, RealMap, fold::fold};

/// Most ways to cut a run into factors of which all are tried; of more, the search goes from one to those beside it.
const MAX_FACTORISATIONS: usize = 128;
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
    /// Per stage, `[first][count - 1]`: the base maps `first .. first + count` merged, as far as that is possible and sensible.
    merged: Vec<Vec<Vec<Factor>>>,
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
    /// What the passes refuse, missing calibrations, and networks too large to be planned.
    pub fn new(network: &Network, tolerance: Tolerance) -> Result<Self, PlanError> {
        let folded = fold(network)?;
        let probes = probes(&folded)?;
        let mut stages = normalise(folded)?;
        check_depth(stages.iter().filter_map(|stage| stage.activation.as_ref()))?;
        if let Some(calibration) = &network.calibration {
            check_calibration(calibration, &stages)?;
        }
        let output = network.output.as_ref().ok_or_else(|| PlanError::MissingCalibration {
            layer: network.layers.last().map_or(String::new(), |layer| layer.name.clone()),
            field: "range and margins of its scores, [output],",
        })?;
        if let Some(map) = stages.last_mut().and_then(|stage| stage.run.last_mut()) {
            map.output_range = Some(output.range);
        }
        let first = &mut stages[0].run[0];
        if first.input_rms.is_none() {
            let [low, high] = network.input.range;
            first.input_rms = Some(low.abs().max(high.abs()));
        }
        let mut merging = Merging::default();
        Ok(Lowered {
            gains: Gains::measure(&stages, probes),
            worst_gains: OnceLock::new(),
            input_bound: network.input.range[0].abs().max(network.input.range[1].abs()),
            tolerance,
            limits: Limits::new(&output.margins, tolerance),
            output: output.clone(),
            merged: stages.iter().map(|stage| merge_all(&stage.run, &mut merging)).collect(),
            stages,
        })
    }

    /// Lets so many labels change instead.
    pub fn allow(&mut self, tolerance: Tolerance) {
        self.tolerance = tolerance;
        self.limits = Limits::new(&self.output.margins, tolerance);
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
        self.merged[stage][first].get(count - 1)
    }

    /// In how many ways a stage's run can be cut into factors that exist.
    pub fn count_factorisations(&self, stage: usize) -> usize {
        let length = self.stages[stage].run.len();
        // Of the maps from each one on.
        let mut ways = vec![0usize; length + 1];
        ways[length] = 1;
        for first in (0..length).rev() {
            let counts = (1..=length - first).filter(|&count| self.factor(stage, first, count).is_some());
            ways[first] = counts.fold(0, |sum, count| sum.saturating_add(ways[first + count]));
        }
        ways[0]
    }

    /// The cut with the fewest multiply-adds; of equals the one that merges more maps first.
    pub fn cheapest_factorisation(&self, stage: usize) -> Vec<usize> {
        let length = self.stages[stage].run.len();
        // For the maps from each one on, the least multiply-adds and the size of the first factor.
        let mut best = vec![(u64::MAX, 0); length + 1];
        best[length] = (0, 0);
        for first in (0..length).rev() {
            for count in (1..=length - first).rev() {
                let Some(factor) = self.factor(stage, first, count) else { continue };
                let price = factor.map.geometry.multiply_adds().saturating_add(best[first + count].0);
                if price < best[first].0 {
                    best[first] = (price, count);
                }
            }
        }
        let (mut counts, mut first) = (Vec::new(), 0);
        while first < length {
            counts.push(best[first].1);
            first += best[first].1;
        }
        counts
    }

    /// Cuts of a stage's run that a search may try after `counts`: all where there are few, else those that merge two
    /// neighbouring factors or split one.
    pub fn factorisations_near(&self, stage: usize, counts: &[usize]) -> Vec<Vec<usize>> {
        if self.count_factorisations(stage) <= MAX_FACTORISATIONS {
            return self.factorisations(stage);
        }
        let mut near = Vec::new();
        let mut first = 0;
        for (i, &count) in counts.iter().enumerate() {
            let splits = (1..count).map(|left| vec![left, count - left]);
            let merged = counts.get(i + 1).map(|next| vec![count + next]);
            for parts in splits.chain(merged.clone()) {
                let mut at = first;
                let exist = parts.iter().all(|&part| {
                    let factor = self.factor(stage, at, part);
                    at += part;
                    factor.is_some()
                });
                if exist {
                    let taken = if Some(&parts) == merged.as_ref() { 2 } else { 1 };
                    near.push([&counts[..i], &parts, &counts[i + taken..]].concat());
                }
            }
            first += count;
        }
        near
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

fn merge_all(run: &[RealMap], merging: &mut Merging) -> Vec<Vec<Factor>> {
    let from = |first: usize| {
        let mut factors = vec![Factor::new(run[first].clone())];
        let mut parts = run[first].geometry.multiply_adds();
        for next in &run[first + 1..] {
            parts += next.geometry.multiply_adds();
            let merged = factors.last().map(|factor| &factor.map).filter(|map| {
                let cheap = || map.merged_geometry(next).multiply_adds() <= MERGE_LIMIT * parts;
                map.merges_with(next) && cheap() && merging.allows(map, next)
            });
            let Some(merged) = merged.map(|map| map.merge(next)) else { break };
            factors.push(Factor::new(merged));
        }
        factors
    };
    (0..run.len()).map(from).collect()
}
