//! A network after folding and normalisation, with everything that the search looks up: merged maps, gains, tolerances.

use std::sync::OnceLock;

use cryptodl_network::{Network, OutputCalibration};

use super::fold::{Branch, fold};
use super::gains::Gains;
use super::limits::{Merging, check_calibration, check_depth, probes};
use super::normalise::{BranchId, Stage, normalise};
use super::options::half_bit_steps;
use super::quantise::{WEIGHT_BITS, grid, rounding_gain, weight_scale};
use super::tolerance::Limits;
use super::worst::WorstGains;
use super::{PlanError, RealMap};
use cryptodl_program::Tolerance;

/// Most ways to cut a branch into factors of which all are tried; of more, the search goes from one
/// to those beside it.
const MAX_FACTORISATIONS: usize = 128;
/// A merged map may cost at most this many times the multiply-adds of its parts to be considered.
const MERGE_LIMIT: u64 = 8;

/// The network as the search sees it.
#[derive(Clone, Debug)]
pub struct Lowered {
    /// Sums of branches, and activations.
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
    /// Number of input values.
    pub inputs: usize,
    /// All branches, in order.
    pub branches: Vec<BranchId>,
    /// Per branch, `[first][count - 1]`: the base maps `first .. first + count` merged, as far as
    /// that is possible and sensible.
    merged: Vec<Vec<Vec<Factor>>>,
    /// Of every variable, how many branches take it.
    pub readers: Vec<usize>,
}

/// One map of a factorisation.
#[derive(Clone, Debug)]
pub struct Factor {
    /// The map.
    pub map: RealMap,
    /// Per size in [`WEIGHT_BITS`], in steps of half a bit.
    rounded: Vec<RoundedWeights>,
    /// Whether its weights are integers times one number, so that nothing is rounded at those scales.
    pub on_grid: bool,
}

/// What a map's weights are at one size.
#[derive(Clone, Copy, Debug)]
pub struct RoundedWeights {
    /// Integers per unit of a weight.
    pub scale: f64,
    /// Output variance per unit mean square of the input from rounding.
    pub rounding_gain: f64,
}

impl Factor {
    fn new(map: RealMap) -> Self {
        let grid = grid(&map);
        let rounded = |bits| {
            let scale = weight_scale(&map, grid, bits);
            // On the grid nothing is rounded but the numbers in the file.
            RoundedWeights { scale, rounding_gain: if grid.is_some() { 0.0 } else { rounding_gain(&map, scale) } }
        };
        Factor { rounded: half_bit_steps(&WEIGHT_BITS).map(rounded).collect(), on_grid: grid.is_some(), map }
    }

    /// Rounding gain at any weight scale, if rounding errors are uniform: `1 / 12` of a unit each.
    pub fn rounding_gain(&self, weight_scale: f64) -> f64 {
        let taps = self.map.geometry.taps() as f64;
        taps / (12.0 * weight_scale * weight_scale)
    }

    /// Its weights at one of the sizes in [`WEIGHT_BITS`]. On a grid they can have more bits than asked for.
    pub fn rounded(&self, bits: f64) -> RoundedWeights {
        self.rounded[(2.0 * (bits - WEIGHT_BITS.start())) as usize]
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
        check_depth(&stages)?;
        if let Some(calibration) = &network.calibration {
            check_calibration(calibration, &stages)?;
        }
        let output = network.output.as_ref().ok_or_else(|| PlanError::MissingCalibration {
            layer: network.layers.last().map_or(String::new(), |layer| layer.name.clone()),
            field: "range and margins of its scores, [output],",
        })?;
        if let Some(stage) = stages.last_mut() {
            stage.range = Some(output.range);
            if let [Branch { maps, .. }] = &mut stage.branches[..]
                && let Some(map) = maps.last_mut()
            {
                map.output_range = Some(output.range);
            }
        }
        let [low, high] = network.input.range;
        let from_input = stages.iter_mut().flat_map(|stage| &mut stage.branches).filter(|branch| branch.variable == 0);
        for first in from_input.filter_map(|branch| branch.maps.first_mut()) {
            first.input_rms.get_or_insert(low.abs().max(high.abs()));
        }
        let mut readers = vec![0; stages.len() + 1];
        stages.iter().flat_map(|stage| &stage.branches).for_each(|branch| readers[branch.variable] += 1);
        let of_stage = |(stage, Stage { branches, .. }): (usize, &Stage)| {
            (0..branches.len()).map(move |index| BranchId { stage, index })
        };
        let branches: Vec<BranchId> = stages.iter().enumerate().flat_map(of_stage).collect();
        let merge =
            |id: &BranchId, merging: &mut Merging| merge_all(&stages[id.stage].branches[id.index].maps, merging);
        let mut merging = Merging::default();
        Ok(Lowered {
            gains: Gains::measure(&stages, probes),
            worst_gains: OnceLock::new(),
            input_bound: network.input.range[0].abs().max(network.input.range[1].abs()),
            tolerance,
            limits: Limits::new(&output.margins, tolerance),
            output: output.clone(),
            merged: branches.iter().map(|id| merge(id, &mut merging)).collect(),
            inputs: network.input.shape.iter().product(),
            branches,
            readers,
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
        self.stages.last().map_or(0, Stage::values)
    }

    /// The base maps of a branch.
    pub fn maps(&self, branch: usize) -> &[RealMap] {
        let BranchId { stage, index } = self.branches[branch];
        &self.stages[stage].branches[index].maps
    }

    /// The merged map of `count` base maps of a branch from `first` on.
    pub fn factor(&self, branch: usize, first: usize, count: usize) -> Option<&Factor> {
        self.merged[branch][first].get(count - 1)
    }

    /// In how many ways a branch can be cut into factors that exist.
    pub fn count_factorisations(&self, branch: usize) -> usize {
        let length = self.maps(branch).len();
        // Of the maps from each one on.
        let mut ways = vec![0usize; length + 1];
        ways[length] = 1;
        for first in (0..length).rev() {
            let counts = (1..=length - first).filter(|&count| self.factor(branch, first, count).is_some());
            ways[first] = counts.fold(0, |sum, count| sum.saturating_add(ways[first + count]));
        }
        ways[0]
    }

    /// The cut with the fewest multiply-adds; of equals the one that merges more maps first.
    pub fn cheapest_factorisation(&self, branch: usize) -> Vec<usize> {
        let length = self.maps(branch).len();
        // For the maps from each one on, the least multiply-adds and the size of the first factor.
        let mut best = vec![(u64::MAX, 0); length + 1];
        best[length] = (0, 0);
        for first in (0..length).rev() {
            for count in (1..=length - first).rev() {
                let Some(factor) = self.factor(branch, first, count) else { continue };
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

    /// Cuts of a branch that a search may try after `counts`: all where there are few, else those
    /// that merge two neighbouring factors or split one.
    pub fn factorisations_near(&self, branch: usize, counts: &[usize]) -> Vec<Vec<usize>> {
        if self.count_factorisations(branch) <= MAX_FACTORISATIONS {
            return self.factorisations(branch);
        }
        let mut near = Vec::new();
        let mut first = 0;
        for (i, &count) in counts.iter().enumerate() {
            let splits = (1..count).map(|left| vec![left, count - left]);
            let merged = counts.get(i + 1).map(|next| vec![count + next]);
            for parts in splits.chain(merged.clone()) {
                let mut at = first;
                let exist = parts.iter().all(|&part| {
                    let factor = self.factor(branch, at, part);
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

    /// Every way to cut a branch into factors that exist, as lists of counts.
    pub fn factorisations(&self, branch: usize) -> Vec<Vec<usize>> {
        let length = self.maps(branch).len();
        let mut complete = Vec::new();
        let mut open = vec![Vec::new()];
        while let Some(counts) = open.pop() {
            let first: usize = counts.iter().sum();
            if first == length {
                complete.push(counts);
                continue;
            }
            for count in 1..=length - first {
                if self.factor(branch, first, count).is_some() {
                    open.push([&counts[..], &[count]].concat());
                }
            }
        }
        complete
    }
}

fn merge_all(maps: &[RealMap], merging: &mut Merging) -> Vec<Vec<Factor>> {
    let from = |first: usize| {
        let mut factors = vec![Factor::new(maps[first].clone())];
        let mut parts = maps[first].geometry.multiply_adds();
        for next in &maps[first + 1..] {
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
    (0..maps.len()).map(from).collect()
}
