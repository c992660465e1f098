//! What a schedule does to labels, from per-image calibration.
//!
//! The search compares schedules by the gains of [`super::gains`], which draw every neuron's derivative independently, and puts every
//! image at the worst slot. That ranks schedules well, but on real images neurons answer together, and few slots are the worst. So the
//! schedule that was found is judged here, and where it changes too many labels the search is told by how much it was wrong.

use cryptodl_core::ckks::noise::{SLOTS, SlotNode};
use cryptodl_network::{Calibration, Histogram};

use super::PlanError;
use super::calibrate::{ImageBatch, channel_means, scores_of, values};
use super::lowered::Lowered;
use super::schedule::{LINEAR_SHARE, Source, Walk};
use super::tolerance::{Corrections, Limits, largest_noise};
use cryptodl_program::{PlainMap, Program, Step, Tolerance, sum};
use rayon::prelude::*;

/// Images of neighbouring margins whose gains stand for those of a margin.
const NEIGHBOURS: usize = 64;
/// The largest share of image and slot pairs that the root mean square leaves out.
const LARGEST: f64 = 0.01;
/// Slots of equal probability from which quantiles are taken: the nodes of [`SLOTS`] give means, but their steps are too coarse for a
/// median.
const QUANTILES: usize = 64;
/// Points at which the probability of a change is computed; between them it is interpolated.
const GRID: usize = 512;

/// What is predicted of a schedule.
#[derive(Clone, Debug)]
pub struct Prediction {
    /// Root mean square of the noise of a score over images and slots.
    pub rms: f64,
    /// The same without the largest hundredth of them.
    pub typical: f64,
    /// Of the image and slot in the middle, the root mean square over scores.
    pub median: f64,
    /// Root mean square of what weight rounding does to a score.
    pub rounding: f64,
    /// Share of labels changed by encryption noise alone.
    pub encryption: f64,
    /// The same with weight rounding.
    pub total: f64,
    /// Largest ratio of noise at the worst slot to what leaves predictions linear, in any place.
    pub crowding: f64,
    /// The same as the search predicted it.
    crowding_searched: f64,
    /// Root mean square of what weight rounding does to a margin.
    margin_error: f64,
}

impl Prediction {
    /// Judges a schedule whose quantised scores of the stored images are `quantised`.
    pub fn new(
        lowered: &Lowered,
        calibration: &Calibration,
        walk: &Walk,
        quantised: &Errors,
    ) -> Result<Self, PlanError> {
        let images = calibration.margins.len();
        let mut margin = vec![[0.0f64; SLOTS.len()]; images];
        let mut score = margin.clone();
        let mut spread = vec![[0.0f64; QUANTILES]; images];
        let quantiles = slot_quantiles();
        for source in &walk.sources {
            let name = source.name(lowered);
            let gains =
                calibration.gains.get(&name).ok_or_else(|| PlanError::StaleCalibration { place: name.clone() })?;
            let variance = SLOTS.map(|node| source.noise.variance_at(node.secret));
            add(&mut margin, &gains.margin, variance);
            add(&mut score, &gains.score, variance);
            add(&mut spread, &gains.score, quantiles.map(|secret| source.noise.variance_at(secret)));
        }
        let over_slots = |row: &[f64; SLOTS.len()]| -> f64 {
            row.iter().zip(SLOTS).map(|(v, SlotNode { weight, .. })| v * weight).sum()
        };
        let rms = (score.iter().map(over_slots).sum::<f64>() / images as f64).sqrt();
        let Summary { typical, median } = summary(spread.as_flattened());
        let chance = Chance::new(&calibration.margins, &margin, &lowered.output.margins, quantised.largest());
        let errors = &quantised.margins;
        let mean = |share: &dyn Fn(f64) -> f64| lowered.output.margins.shares().map(|(m, s)| s * share(m)).sum();
        let either = |margin: f64, error: f64| 0.5 * (chance.at(margin + error) + chance.at(margin - error));
        let with_rounding =
            |margin: f64| errors.iter().map(|&error| either(margin, error)).sum::<f64>() / errors.len() as f64;
        let crowding = crowding(lowered, calibration, walk)?;
        Ok(Prediction {
            rms,
            typical,
            median,
            rounding: quantised.score,
            encryption: mean(&|margin| chance.at(margin)),
            total: mean(&with_rounding),
            crowding: crowding.measured,
            crowding_searched: crowding.searched,
            margin_error: (errors.iter().map(|error| error * error).sum::<f64>() / errors.len() as f64).sqrt(),
        })
    }

    /// Whether the promise is kept.
    pub fn keeps(&self, tolerance: Tolerance) -> bool {
        self.crowding <= 1.0 && self.encryption <= tolerance.encryption() && self.total <= tolerance.total()
    }

    /// The limits for a search that took `walk` to be what it is not: from those that it had, `share` of the way to what would have
    /// been right for `walk`. `base` are those of the tolerance alone.
    ///
    /// Noise of encryption counts as much as noise, the same at every slot, that changes as many labels; rounding as much as it was
    /// measured; and the limit for both moves by what their sum still misses.
    pub fn correct(&self, base: Limits, had: Limits, share: f64, margins: &Histogram, walk: &Walk) -> Limits {
        let ratio = |found: f64, searched: f64| if searched > 0.0 { (found / searched).clamp(0.05, 20.0) } else { 1.0 };
        let encryption = ratio(largest_noise(margins, self.encryption), walk.noise.worst);
        let rounding = ratio(self.margin_error / std::f64::consts::SQRT_2, walk.rounding);
        let together = libm::hypot(encryption * walk.noise.worst, rounding * walk.rounding);
        let crowding = ratio(self.crowding, self.crowding_searched);
        let toward = |had: f64, right: f64| had * libm::pow(right / had, share);
        Limits {
            encryption: base.encryption,
            total: toward(had.total, base.total * ratio(together, largest_noise(margins, self.total))),
            corrections: Corrections {
                encryption: toward(had.corrections.encryption, encryption),
                rounding: toward(had.corrections.rounding, rounding),
                crowding: toward(had.corrections.crowding, crowding),
            },
        }
    }
}

/// What weight rounding does to the stored images.
pub struct Errors {
    /// Of the difference of the two largest scores, one per image, without the part that grows with the margin: a common factor of
    /// all scores changes no label. Their signs say nothing of images with small margins.
    margins: Vec<f64>,
    /// Root mean square over images and scores.
    score: f64,
}

impl Errors {
    fn largest(&self) -> f64 {
        self.margins.iter().fold(0.0, |largest, error| error.abs().max(largest))
    }
}

/// Corrects the constants of a Program so that every channel has the mean that it has without rounding, from the first map to the
/// last, and measures what remains.
///
/// # Errors
/// A calibration of another network.
pub fn correct(
    lowered: &Lowered,
    calibration: &Calibration,
    walk: &Walk,
    program: &mut Program,
) -> Result<Errors, PlanError> {
    let stale = |place: &str| PlanError::StaleCalibration { place: place.into() };
    let inputs = program.inputs();
    if calibration.images.ncols() != inputs || calibration.scores.ncols() != program.content.output.classes {
        return Err(stale("/input"));
    }
    let mut left: Vec<usize> = program.readers().iter().map(Vec::len).collect();
    let input = values(&calibration.images, program.content.input.range);
    let sizes: Vec<usize> = input.iter().map(|task| task.images).collect();
    let mut all: Vec<Option<Vec<ImageBatch>>> = vec![Some(input)];
    for (step, walked) in program.content.steps.iter_mut().zip(&walk.steps) {
        let operands = step.operands();
        let of = |tensor: usize, task: usize| &all[tensor].as_ref().expect("kept for its last reader")[task].values;
        let maps = PlainMap::of(step);
        let tasks = match step {
            Step::Linear { constants, scale, .. } => {
                let each = |(task, &images): (usize, &usize)| {
                    let parts: Vec<Vec<f64>> =
                        maps.iter().zip(&operands).map(|(map, &tensor)| map.apply(of(tensor, task), images)).collect();
                    ImageBatch { values: sum(parts.iter()), images }
                };
                let mut tasks: Vec<ImageBatch> = sizes.par_iter().enumerate().map(each).collect();
                let place = &lowered.gains.places().names()[walked.place];
                let channels = constants.len();
                let means = calibration.means.get(place).filter(|means| means.len() == channels);
                let means = means.ok_or_else(|| stale(place))?;
                let found = channel_means(&tasks, channels);
                let real: Vec<f64> = constants.iter().map(|&c| c / scale.value()).collect();
                for (channel, (constant, (mean, found))) in
                    constants.iter_mut().zip(means.iter().zip(found)).enumerate()
                {
                    let corrected = scale.integer(real[channel] + f64::from(*mean) - found);
                    let shift = (corrected - *constant) / scale.value();
                    *constant = corrected;
                    tasks.par_iter_mut().for_each(|task| {
                        let length = task.values.len() / channels;
                        task.values[channel * length..][..length].iter_mut().for_each(|v| *v += shift);
                    });
                }
                tasks
            }
            Step::Activation { operand, activation } => {
                let each = |(task, &images): (usize, &usize)| {
                    let mut values = of(*operand, task).clone();
                    activation.apply(&mut values, images);
                    ImageBatch { values, images }
                };
                sizes.par_iter().enumerate().map(each).collect()
            }
            Step::Maintenance { operand, .. } => {
                let each = |(task, &images): (usize, &usize)| ImageBatch { values: of(*operand, task).clone(), images };
                sizes.iter().enumerate().map(each).collect()
            }
        };
        all.push(Some(tasks));
        for tensor in operands {
            left[tensor] -= 1;
            if left[tensor] == 0 {
                all[tensor] = None;
            }
        }
    }
    let tasks = all.pop().flatten().expect("a Program has steps");
    let quantised = scores_of(&tasks);
    let mut squares = 0.0;
    let mut margins: Vec<(f64, f64)> = Vec::with_capacity(quantised.nrows());
    for (found, real) in quantised.rows().into_iter().zip(calibration.scores.rows()) {
        squares += found.iter().zip(real).map(|(a, &b)| (a - f64::from(b)) * (a - f64::from(b))).sum::<f64>();
        let (first, margin) = cryptodl_network::measure::margin(real);
        let others = (0..real.len()).filter(|&class| class != first);
        let second = others.reduce(|best, class| if real[class] > real[best] { class } else { best });
        let second = second.ok_or_else(|| stale("scores"))?;
        margins.push((margin, found[first] - found[second] - margin));
    }
    let product = |a: fn(&(f64, f64)) -> f64| margins.iter().map(|pair| a(pair) * pair.0).sum::<f64>();
    let factor = product(|pair| pair.1) / product(|pair| pair.0).max(f64::MIN_POSITIVE);
    let margins = margins.into_iter().map(|(margin, error)| error - factor * margin).collect();
    Ok(Errors { margins, score: (squares / quantised.len() as f64).sqrt() })
}

/// Adds a source of noise: its variance at some slots, times the square of every image's gain.
fn add<const K: usize>(sums: &mut [[f64; K]], gains: &[f32], variance: [f64; K]) {
    for (sums, &gain) in sums.iter_mut().zip(gains) {
        let power = f64::from(gain) * f64::from(gain);
        sums.iter_mut().zip(variance).for_each(|(sum, variance)| *sum += power * variance);
    }
}

/// `S = s_k^2 / E[s_k^2]` in the middle of each of [`QUANTILES`] intervals of the same probability: `P(S < x) = erf(sqrt(x / 2))`.
fn slot_quantiles() -> [f64; QUANTILES] {
    std::array::from_fn(|i| {
        let probability = (i as f64 + 0.5) / QUANTILES as f64;
        let (mut low, mut high) = (0.0f64, 64.0f64);
        for _ in 0..60 {
            let middle = 0.5 * (low + high);
            match libm::erf((0.5 * middle).sqrt()) < probability {
                true => low = middle,
                false => high = middle,
            }
        }
        0.5 * (low + high)
    })
}

/// Deviations over equally probable pairs of an image and a slot, from their variances: root mean square of all but the largest
/// hundredth, and median.
struct Summary {
    typical: f64,
    median: f64,
}

fn summary(variances: &[f64]) -> Summary {
    let mut sorted = variances.to_vec();
    sorted.sort_by(f64::total_cmp);
    let kept = &sorted[..sorted.len() - (LARGEST * sorted.len() as f64) as usize];
    Summary { typical: (kept.iter().sum::<f64>() / kept.len() as f64).sqrt(), median: sorted[sorted.len() / 2].sqrt() }
}

/// The probability that noise makes a margin negative, on a grid of margins.
struct Chance {
    step: f64,
    at: Vec<f64>,
}

impl Chance {
    /// From the measured margins, ascending, with their noise variances, for margins up to the histogram's end and rounding errors up to
    /// `largest_error`.
    fn new(measured: &[f32], variance: &[[f64; SLOTS.len()]], margins: &Histogram, largest_error: f64) -> Self {
        let largest = variance.iter().flatten().fold(0.0f64, |largest, &v| largest.max(v)).sqrt();
        // Beyond 6 deviations nothing changes that counts.
        let end = (6.0 * largest).min(margins.high + largest_error).max(f64::MIN_POSITIVE);
        let step = end / GRID as f64;
        let chance = |point: usize| {
            let margin = point as f64 * step;
            let near = measured.partition_point(|&m| f64::from(m) < margin);
            let count = NEIGHBOURS.min(measured.len());
            let first = near.saturating_sub(count / 2).min(measured.len() - count);
            let rows = &variance[first..first + count];
            // Q(m / sigma) = erfc(m / (sqrt 2 sigma)) / 2.
            let tail = |variance: f64| match variance > 0.0 {
                true => 0.5 * libm::erfc(margin / (2.0 * variance).sqrt()),
                false if margin > 0.0 => 0.0,
                false => 0.5,
            };
            let over_slots = |row: &[f64; SLOTS.len()]| -> f64 {
                row.iter().zip(SLOTS).map(|(&variance, SlotNode { weight, .. })| weight * tail(variance)).sum()
            };
            rows.iter().map(over_slots).sum::<f64>() / count as f64
        };
        Chance { step, at: (0..=GRID).into_par_iter().map(chance).collect() }
    }

    /// For a margin that rounding may have made negative already.
    fn at(&self, margin: f64) -> f64 {
        if margin < 0.0 {
            return 1.0 - self.at(-margin);
        }
        let at = margin / self.step;
        let below = at as usize;
        match self.at.get(below..below + 2) {
            Some(&[low, high]) => low + (high - low) * (at - below as f64),
            _ => 0.0,
        }
    }
}

/// Largest ratio of noise at the worst slot to what leaves predictions linear, in any place.
struct Crowding {
    /// With the measured growth of noise.
    measured: f64,
    /// As the search takes it.
    searched: f64,
}

fn crowding(lowered: &Lowered, calibration: &Calibration, walk: &Walk) -> Result<Crowding, PlanError> {
    let places = lowered.gains.places().names();
    if calibration.places != places {
        return Err(PlanError::StaleCalibration { place: calibration.places.join(", ") });
    }
    let mut worst = Crowding { measured: 0.0, searched: 0.0 };
    let mut entered = 0;
    for (state, place) in walk.states() {
        while walk.sources.get(entered).is_some_and(|source| source.place <= place) {
            entered += 1;
        }
        let noise =
            |source: &Source| source.noise.worst * source.gain * f64::from(calibration.growth[(source.place, place)]);
        let power: f64 = walk.sources[..entered].iter().map(|source| noise(source) * noise(source)).sum();
        let limit = LINEAR_SHARE * state.bound;
        worst.measured = worst.measured.max(power.sqrt() / limit);
        worst.searched = worst.searched.max(state.noise.worst / limit);
    }
    Ok(worst)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The chi-squared distribution with one degree of freedom: median 0.45494, mean 1.
    #[test]
    fn quantiles_are_of_the_secret_at_a_slot() {
        let quantiles = slot_quantiles();
        assert!(quantiles.is_sorted());
        let middle = 0.5 * (quantiles[QUANTILES / 2 - 1] + quantiles[QUANTILES / 2]);
        assert!((middle - 0.45494).abs() < 1e-3, "{middle}");
        let mean = quantiles.iter().sum::<f64>() / QUANTILES as f64;
        assert!((0.97..1.0).contains(&mean), "{mean}");
        let Summary { typical, median } = summary(&quantiles);
        assert!((median - 0.45494f64.sqrt()).abs() < 0.02 && typical < 1.0, "{median} {typical}");
    }
}
