//! Pass 2: activations become sign x monic polynomial, in Horner form without scalar products.

use super::arrangement::{Arrangement, SquareForm};
use super::fold::{FoldedStage, RawActivation};
use super::{PlanError, RealMap};

/// Highest degree of an activation polynomial.
pub const MAX_DEGREE: usize = 8;

/// A leading term that moves no output in the calibrated range by more than this share of the output range is dropped.
const NEGLIGIBLE: f64 = 1e-4;

/// `sign (((z + c_(d-1)) z + c_(d-2)) z + ...) + c_0` of a changed variable `z`, whose change the linear map before absorbed.
#[derive(Clone, Debug)]
pub struct Activation {
    /// Layer name.
    pub name: String,
    /// Whether the monic part is negated.
    pub negate: bool,
    /// `c_(d-1), ..., c_0`; the last is added after the sign.
    pub constants: Vec<f64>,
    /// Calibrated range of `z`.
    pub range: [f64; 2],
    /// Values of `z` with their shares.
    pub histogram: Vec<(f64, f64)>,
    /// Leading terms dropped as negligible, and the largest error over the range that this made.
    pub lowered: Option<(usize, f64)>,
    /// For every arrangement worth a thought, what the search asks again and again.
    estimates: Vec<(Arrangement, ProductEstimates)>,
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

/// A run of maps and its normalised activation.
#[derive(Clone, Debug)]
pub struct Stage {
    /// Linear maps.
    pub run: Vec<RealMap>,
    /// What follows.
    pub activation: Option<Activation>,
}

impl Activation {
    /// Degree `d`.
    pub fn degree(&self) -> usize {
        self.constants.len()
    }

    /// The monic part's numbers for products with squares.
    pub fn square_form(&self) -> SquareForm {
        let (last, monic) = self.constants.split_last().expect("a degree of 2 or more");
        let monic: Vec<f64> = monic.iter().rev().copied().collect();
        SquareForm::new(&monic, *last)
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

    /// Bounds and gains of the products.
    pub fn estimates(&self, arrangement: Arrangement) -> &ProductEstimates {
        let found = self.estimates.iter().find(|(known, _)| *known == arrangement);
        &found.expect("estimates were made for every arrangement of this degree").1
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

/// Normalises every activation and lets the map before it absorb the change of variable.
///
/// # Errors
/// A degree below 2 or above [`MAX_DEGREE`].
pub fn normalise(stages: Vec<FoldedStage>) -> Result<Vec<Stage>, PlanError> {
    let normalised = stages.into_iter().map(|FoldedStage { mut run, activation }| {
        let Some(raw) = activation else {
            return Ok(Stage { run, activation: None });
        };
        let (activation, factor, shift) = monic(&raw)?;
        let last = run.pop().expect("a run has at least one map");
        let channels = last.geometry.channels;
        let mut map = last.then_affine(&vec![factor; channels], &vec![shift; channels]);
        map.output_range = Some(activation.range);
        run.push(map);
        Ok(Stage { run, activation: Some(activation) })
    });
    normalised.collect()
}

/// The activation in `z = factor x + shift`.
fn monic(raw: &RawActivation) -> Result<(Activation, f64, f64), PlanError> {
    let (coefficients, lowered) = lower_degree(raw);
    let degree = coefficients.len() - 1;
    if !(2..=MAX_DEGREE).contains(&degree) {
        return Err(PlanError::Degree { layer: raw.name.clone(), degree });
    }
    let leading = coefficients[degree];
    let factor = root(leading.abs(), degree);
    let reach = raw.range[0].abs().max(raw.range[1].abs()) * factor;
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
    let negate = leading < 0.0;
    let sign = if negate { -1.0 } else { 1.0 };
    let mut constants: Vec<f64> = (1..degree).rev().map(|i| in_z[i] * sign).collect();
    if shift != 0.0 || coefficients[degree - 1] == 0.0 {
        constants[0] = 0.0; // exactly, not up to rounding
    }
    constants.push(in_z[0]);
    let to_z = |x: f64| factor * x + shift;
    let mut activation = Activation {
        name: raw.name.clone(),
        negate,
        constants,
        range: raw.range.map(to_z),
        histogram: raw.histogram.shares().map(|(x, share)| (to_z(x), share)).collect(),
        lowered,
        estimates: Vec::new(),
    };
    activation.estimates = Arrangement::of_degree(degree).iter().map(|&a| (a, activation.estimate(a))).collect();
    Ok((activation, factor, shift))
}

/// Drops leading terms that do not matter over the calibrated range.
fn lower_degree(raw: &RawActivation) -> (Vec<f64>, Option<(usize, f64)>) {
    let reach = raw.range[0].abs().max(raw.range[1].abs());
    let value = |x: f64| raw.coefficients.iter().rev().fold(0.0, |sum, c| sum * x + c);
    let (low, high) = grid(raw.range).map(value).fold((f64::MAX, f64::MIN), |(l, h), y| (l.min(y), h.max(y)));
    let mut kept = raw.coefficients.len();
    let mut error = 0.0;
    while kept > 1 {
        let term = raw.coefficients[kept - 1].abs() * libm::pow(reach, (kept - 1) as f64);
        if error + term > NEGLIGIBLE * (high - low) {
            break;
        }
        error += term;
        kept -= 1;
    }
    let dropped = raw.coefficients.len() - kept;
    (raw.coefficients[..kept].to_vec(), (dropped > 0).then_some((dropped, error)))
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
    let histogram = cryptodl_models::network::Histogram { low: 0.5, high: 2.5, counts: vec![5, 5] };
    let (activation, factor, shift) =
        monic(&RawActivation { name: "power".into(), coefficients, range, histogram }).expect("a degree in range");
    assert_eq!((factor, shift), (1.0, 0.0), "a power is monic as it is");
    activation
}

#[cfg(test)]
mod tests {
    use cryptodl_models::zoo;

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
