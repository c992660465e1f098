//! Pass 2: activations become sign x monic polynomial, in Horner form without scalar products.

use cryptodl_network::Histogram;

use cryptodl_program::MAX_DEGREE;

use super::PlanError;
use super::fold::{Branch, FoldedStage, RawActivation};
use cryptodl_program::{Arrangement, SquareForm};

/// A leading term that moves no output in the calibrated range by more than this share of the output range is dropped.
const NEGLIGIBLE: f64 = 1e-4;

/// `sign (((z + c_(d-1)) z + c_(d-2)) z + ...) + c_0` of a changed variable `z`, whose change the linear maps before absorbed.
#[derive(Clone, Debug)]
pub struct Activation {
    /// Layer name.
    pub name: String,
    /// Whether the monic part is negated.
    pub negate: bool,
    /// One for all channels, or one for each.
    pub channels: Vec<Monic>,
    /// Calibrated range of `z` over all channels.
    pub range: [f64; 2],
    /// Leading terms that were dropped as negligible.
    pub dropped: Option<DroppedTerms>,
    /// For every arrangement worth a thought, what the search asks again and again.
    estimates: Vec<(Arrangement, ProductEstimates)>,
}

/// Leading terms of a polynomial that are left out.
#[derive(Clone, Copy, Debug)]
pub struct DroppedTerms {
    /// How many.
    pub count: usize,
    /// Largest error over the calibrated range.
    pub error: f64,
}

/// The monic polynomial of a channel.
#[derive(Clone, Debug)]
pub struct Monic {
    negate: bool,
    /// `c_(d-1), ..., c_0`; the last is added after the sign.
    pub constants: Vec<f64>,
    /// Calibrated range of `z`.
    pub range: [f64; 2],
    /// Values of `z` with their shares.
    pub histogram: Vec<(f64, f64)>,
}

/// What is known of the products of an activation over its calibrated inputs.
#[derive(Clone, Debug)]
pub struct ProductEstimates {
    /// For each product, the largest magnitude of its result with the constant that follows.
    pub bounds: Vec<f64>,
    /// For each product, what a small error of it becomes in the activation's value, root mean square.
    pub gains: Vec<f64>,
    /// The same, the most over the calibrated range.
    pub peaks: Vec<f64>,
}

/// A sum of branches and its normalised activation.
#[derive(Clone, Debug)]
pub struct Stage {
    /// Name of the layer whose output the sum is.
    pub name: String,
    /// At least one.
    pub branches: Vec<Branch>,
    /// Smallest and largest value of the sum, where it is known.
    pub range: Option<[f64; 2]>,
    /// What follows.
    pub activation: Option<Activation>,
}

/// Which branch of which stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BranchId {
    /// The stage.
    pub stage: usize,
    /// Its number among the branches of the stage.
    pub index: usize,
}

impl Stage {
    /// Channels, rows, columns of what it leaves.
    pub fn output(&self) -> [usize; 3] {
        self.branches[0].maps.last().expect("a branch has at least one map").geometry.output()
    }

    /// Number of values that it leaves.
    pub fn values(&self) -> usize {
        self.output().iter().product()
    }

    /// Whether it sums several branches.
    pub fn joins(&self) -> bool {
        self.branches.len() > 1
    }
}

impl Activation {
    /// Degree `d`.
    pub fn degree(&self) -> usize {
        self.channels[0].constants.len()
    }

    /// The polynomial of the `index`-th of `values` values, which are channel by channel.
    pub fn of(&self, index: usize, values: usize) -> &Monic {
        &self.channels[index / (values / self.channels.len())]
    }

    /// Bounds and gains of the products.
    pub fn estimates(&self, arrangement: Arrangement) -> &ProductEstimates {
        let found = self.estimates.iter().find(|(known, _)| *known == arrangement);
        &found.expect("estimates were made for every arrangement of this degree").1
    }

    /// The largest bounds and peaks of all channels, and the root mean square of their gains.
    fn estimate(&self, arrangement: Arrangement) -> ProductEstimates {
        let all: Vec<ProductEstimates> = self.channels.iter().map(|channel| channel.estimate(arrangement)).collect();
        let [first, rest @ ..] = &all[..] else { unreachable!("an activation has a channel") };
        if rest.is_empty() {
            return first.clone();
        }
        let largest = |of: fn(&ProductEstimates) -> &Vec<f64>, product: usize| {
            all.iter().fold(0.0f64, |largest, channel| largest.max(of(channel)[product]))
        };
        let products = 0..arrangement.products(self.degree());
        let mean =
            |product: usize| all.iter().map(|c| c.gains[product] * c.gains[product]).sum::<f64>() / all.len() as f64;
        ProductEstimates {
            bounds: products.clone().map(|product| largest(|channel| &channel.bounds, product)).collect(),
            gains: products.clone().map(|product| mean(product).sqrt()).collect(),
            peaks: products.map(|product| largest(|channel| &channel.peaks, product)).collect(),
        }
    }

    /// Largest magnitude of a derivative over the calibrated ranges.
    pub fn steepest(&self) -> f64 {
        let of = |channel: &Monic| grid(channel.range).map(|z| channel.derivative(z).abs()).fold(0.0, f64::max);
        self.channels.iter().map(of).fold(0.0, f64::max)
    }
}

impl Monic {
    /// Degree `d`.
    fn degree(&self) -> usize {
        self.constants.len()
    }

    /// The monic part's numbers for products with squares.
    pub fn square_form(&self) -> SquareForm {
        SquareForm::of_horner(&self.constants)
    }

    /// Value at `z`.
    pub fn value(&self, z: f64) -> f64 {
        *self.trace(z).last().expect("a degree of 2 or more")
    }

    /// By Horner's rule, the value after each product and the constant that follows it.
    fn trace(&self, z: f64) -> Vec<f64> {
        let mut u = z + self.constants[0];
        let rest = self.constants[1..].iter().enumerate().map(|(i, c)| {
            u *= z;
            if self.negate && i + 2 == self.degree() {
                u = -u;
            }
            u += c;
            u
        });
        rest.collect()
    }

    fn estimate(&self, arrangement: Arrangement) -> ProductEstimates {
        let products = arrangement.products(self.degree());
        let squares = (arrangement == Arrangement::PatersonStockmeyer).then(|| self.square_form());
        let mut bounds = vec![0.0f64; products];
        for z in grid(self.range) {
            let trace = match &squares {
                None => self.trace(z),
                Some(squares) => squares.trace(self.degree(), self.negate, z),
            };
            bounds.iter_mut().zip(trace).for_each(|(bound, value)| *bound = bound.max(value.abs()));
        }
        let mut moments = vec![0.0f64; products];
        for &(z, share) in &self.histogram {
            let sensitivities = self.sensitivities(arrangement, z);
            moments.iter_mut().zip(sensitivities).for_each(|(sum, gain)| *sum += share * gain * gain);
        }
        let mut peaks = vec![0.0f64; products];
        for z in grid(self.range) {
            peaks
                .iter_mut()
                .zip(self.sensitivities(arrangement, z))
                .for_each(|(peak, gain)| *peak = peak.max(gain.abs()));
        }
        ProductEstimates { bounds, gains: moments.into_iter().map(f64::sqrt).collect(), peaks }
    }

    /// What a small error of each product becomes in the activation's value at `z`, up to its sign.
    pub fn sensitivities(&self, arrangement: Arrangement, z: f64) -> Vec<f64> {
        match arrangement {
            // What enters after a product is multiplied by z once for every product that follows.
            Arrangement::Horner => {
                (0..arrangement.products(self.degree())).rev().map(|later| libm::pow(z.abs(), later as f64)).collect()
            }
            Arrangement::PatersonStockmeyer => self.square_form().sensitivities(self.degree(), z),
        }
    }

    /// Derivative of the whole.
    pub fn derivative(&self, z: f64) -> f64 {
        let (mut u, mut du) = (z + self.constants[0], 1.0);
        for &c in &self.constants[1..] {
            du = du * z + u;
            u = u * z + c;
        }
        if self.negate { -du } else { du }
    }
}

/// Normalises every activation and lets the maps around it absorb the change of variable, and the signs where channels differ in
/// theirs.
///
/// # Errors
/// A degree below 2 or above [`MAX_DEGREE`].
pub fn normalise(stages: Vec<FoldedStage>) -> Result<Vec<Stage>, PlanError> {
    // By variable, what its channels are to be multiplied by.
    let mut signs: Vec<Option<Vec<f64>>> = vec![None];
    let mut normalised = Vec::with_capacity(stages.len());
    for FoldedStage { name, mut branches, mut range, activation } in stages {
        for Branch { variable, maps } in &mut branches {
            if let Some(signs) = &signs[*variable] {
                let signs = spread(signs, maps[0].geometry.input[0]);
                let first = maps.remove(0);
                maps.insert(0, first.after_factors(&signs));
            }
        }
        let mut own_signs = None;
        let activation = match activation {
            None => None,
            Some(raw) => {
                let Normalised { activation, factors, shifts, signs } = monic(&raw)?;
                let joins = branches.len() > 1;
                for (i, Branch { maps, .. }) in branches.iter_mut().enumerate() {
                    let last = maps.pop().expect("a branch has at least one map");
                    let channels = last.geometry.channels;
                    // A sum is shifted once.
                    let shifts = if i == 0 { spread(&shifts, channels) } else { vec![0.0; channels] };
                    let mut map = last.then_affine(&spread(&factors, channels), &shifts);
                    map.output_range = if joins { None } else { Some(activation.range) };
                    maps.push(map);
                }
                range = Some(activation.range);
                own_signs = signs;
                Some(activation)
            }
        };
        signs.push(own_signs);
        normalised.push(Stage { name, branches, range, activation });
    }
    Ok(normalised)
}

/// A number for each of `channels` channels from one for all, one for each, or one for each plane of which several are flattened.
fn spread(numbers: &[f64], channels: usize) -> Vec<f64> {
    let each = channels / numbers.len();
    numbers.iter().flat_map(|&number| std::iter::repeat_n(number, each)).collect()
}

/// An activation in `z = factor x + shift`, by channel.
struct Normalised {
    activation: Activation,
    factors: Vec<f64>,
    shifts: Vec<f64>,
    /// What its values are to be multiplied by.
    signs: Option<Vec<f64>>,
}

fn monic(raw: &RawActivation) -> Result<Normalised, PlanError> {
    if let [coefficients] = &raw.coefficients[..] {
        let dropped = negligible_terms(coefficients, raw.range);
        let coefficients = &coefficients[..coefficients.len() - dropped.map_or(0, |dropped| dropped.count)];
        let negate = coefficients.last().is_some_and(|&leading| leading < 0.0);
        let MonicChannel { monic, factor, shift } =
            monic_channel(&raw.name, coefficients, raw.range, &raw.histogram, negate)?;
        let activation = Activation::new(raw, negate, vec![monic], dropped);
        return Ok(Normalised { activation, factors: vec![factor], shifts: vec![shift], signs: None });
    }
    if raw.channels.len() != raw.coefficients.len() {
        return Err(PlanError::MissingCalibration {
            layer: raw.name.clone(),
            field: "histogram of each channel's input",
        });
    }
    let (mut channels, mut factors, mut shifts, mut signs) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (i, coefficients) in raw.coefficients.iter().enumerate() {
        let histogram = &raw.channels[i];
        if coefficients.last() == Some(&0.0) {
            return Err(PlanError::VanishingChannel { layer: raw.name.clone(), channel: i });
        }
        // The sign goes to the columns of the next maps: kernels negate all channels or none.
        let sign = if coefficients.last().is_some_and(|&leading| leading < 0.0) { -1.0 } else { 1.0 };
        let positive: Vec<f64> = coefficients.iter().map(|c| c * sign).collect();
        let MonicChannel { monic, factor, shift } =
            monic_channel(&raw.name, &positive, [histogram.low, histogram.high], histogram, false)?;
        channels.push(monic);
        factors.push(factor);
        shifts.push(shift);
        signs.push(sign);
    }
    let signs = signs.contains(&-1.0).then_some(signs);
    Ok(Normalised { activation: Activation::new(raw, false, channels, None), factors, shifts, signs })
}

impl Activation {
    fn new(raw: &RawActivation, negate: bool, channels: Vec<Monic>, dropped: Option<DroppedTerms>) -> Self {
        let hull = |a: [f64; 2], b: [f64; 2]| [a[0].min(b[0]), a[1].max(b[1])];
        let range = channels.iter().map(|channel| channel.range).reduce(hull).expect("a channel");
        let name = raw.name.clone();
        let mut activation = Activation { name, negate, channels, range, dropped, estimates: Vec::new() };
        let arrangements = Arrangement::of_degree(activation.degree());
        activation.estimates = arrangements.iter().map(|&a| (a, activation.estimate(a))).collect();
        activation
    }
}

/// The polynomial of a channel in `z = factor x + shift`.
struct MonicChannel {
    monic: Monic,
    factor: f64,
    shift: f64,
}

fn monic_channel(
    layer: &str,
    coefficients: &[f64],
    range: [f64; 2],
    histogram: &Histogram,
    negate: bool,
) -> Result<MonicChannel, PlanError> {
    let degree = coefficients.len() - 1;
    let leading = coefficients[degree];
    if !(2..=MAX_DEGREE).contains(&degree) {
        return Err(PlanError::Degree { layer: layer.into(), degree });
    }
    let factor = root(leading.abs(), degree);
    let reach = range[0].abs().max(range[1].abs()) * factor;
    // The shift that removes the term of degree d - 1, where it does not widen the range by more than half.
    let depressing = coefficients[degree - 1] / (degree as f64 * leading) * factor;
    let shift = if depressing.abs() <= 0.5 * reach { depressing } else { 0.0 };

    // Coefficients in z of p((z - shift) / factor), by repeated synthetic division.
    let mut in_z: Vec<f64> = coefficients.iter().enumerate().map(|(i, c)| c / libm::pow(factor, i as f64)).collect();
    for start in 0..degree {
        for i in (start..degree).rev() {
            in_z[i] -= shift * in_z[i + 1];
        }
    }
    let sign = if negate { -1.0 } else { 1.0 };
    let mut constants: Vec<f64> = (1..degree).rev().map(|i| in_z[i] * sign).collect();
    if shift != 0.0 || coefficients[degree - 1] == 0.0 {
        constants[0] = 0.0; // exactly, not up to rounding
    }
    constants.push(in_z[0]);
    let to_z = |x: f64| factor * x + shift;
    let histogram = histogram.shares().map(|(x, share)| (to_z(x), share)).collect();
    let monic = Monic { negate, constants, range: range.map(to_z), histogram };
    Ok(MonicChannel { monic, factor, shift })
}

/// Leading terms that do not matter over the calibrated range, if there are any.
fn negligible_terms(coefficients: &[f64], range: [f64; 2]) -> Option<DroppedTerms> {
    let reach = range[0].abs().max(range[1].abs());
    let value = |x: f64| coefficients.iter().rev().fold(0.0, |sum, c| sum * x + c);
    let (low, high) = grid(range).map(value).fold((f64::MAX, f64::MIN), |(l, h), y| (l.min(y), h.max(y)));
    let mut kept = coefficients.len();
    let mut error = 0.0;
    while kept > 1 {
        let term = coefficients[kept - 1].abs() * libm::pow(reach, (kept - 1) as f64);
        if error + term > NEGLIGIBLE * (high - low) {
            break;
        }
        error += term;
        kept -= 1;
    }
    let count = coefficients.len() - kept;
    (count > 0).then_some(DroppedTerms { count, error })
}

/// The positive `degree`-th root.
fn root(x: f64, degree: usize) -> f64 {
    match degree {
        2 => x.sqrt(),
        3 => libm::cbrt(x),
        _ => libm::pow(x, 1.0 / degree as f64),
    }
}

fn grid([low, high]: [f64; 2]) -> impl Iterator<Item = f64> {
    (0..=256).map(move |i| low + (high - low) * f64::from(i) / 256.0)
}

/// `z^degree` over a range, its inputs as often 1 as 2.
#[cfg(test)]
pub fn power(degree: usize, range: [f64; 2]) -> Activation {
    let mut coefficients = vec![0.0; degree];
    coefficients.push(1.0);
    let histogram = cryptodl_network::Histogram { low: 0.5, high: 2.5, counts: vec![5, 5] };
    let coefficients = vec![coefficients];
    let raw = RawActivation { name: "power".into(), coefficients, range, histogram, channels: Vec::new() };
    let Normalised { activation, factors, shifts, .. } = monic(&raw).expect("a degree in range");
    assert_eq!((factors, shifts), (vec![1.0], vec![0.0]), "a power is monic as it is");
    activation
}

#[cfg(test)]
mod tests {
    use cryptodl_zoo as zoo;

    use super::super::fold::fold;
    use super::*;

    /// By hand: the only product of a square is the result. The first product of a cube is multiplied by `z`, which over
    /// [-3, 2] is at most 3, and whose mean square is (1 + 4) / 2.
    #[test]
    fn gains_and_peaks_of_a_square_and_a_cube() {
        for (degree, gains, peaks) in [(2, vec![1.0], vec![1.0]), (3, vec![libm::sqrt(2.5), 1.0], vec![3.0, 1.0])] {
            let activation = power(degree, [-3.0, 2.0]);
            let found = activation.estimates(Arrangement::Horner);
            for (found, expected) in [(&found.gains, &gains), (&found.peaks, &peaks)] {
                assert_eq!(found.len(), expected.len(), "degree {degree}");
                assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "degree {degree}: {found:?}");
            }
        }
    }

    /// No mean is above the most, for every product of every activation of the shipped networks, however it is arranged.
    #[test]
    fn peaks_are_above_gains() {
        for model in zoo::names() {
            let stages = normalise(fold(&zoo::load(model).unwrap()).unwrap()).unwrap();
            for activation in stages.iter().filter_map(|stage| stage.activation.as_ref()) {
                for (arrangement, ProductEstimates { gains, peaks, .. }) in &activation.estimates {
                    let holds = peaks.iter().zip(gains).all(|(peak, gain)| *peak >= gain * (1.0 - 1e-9));
                    assert!(holds, "{model}, {}, {arrangement:?}: {peaks:?} and {gains:?}", activation.name);
                }
            }
        }
    }
}
