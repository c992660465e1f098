//! Discrete forms of measures: nodes and weights.

use std::f64::consts::PI;

use crate::{Error, Function, Interval};

/// Points and positive weights that integrate against a measure of mass 1.
#[derive(Clone, Debug)]
pub struct Quadrature {
    /// Nodes, ascending.
    pub nodes: Vec<f64>,
    /// Weights, which sum to 1.
    pub weights: Vec<f64>,
}

impl Quadrature {
    /// The mean of `f` in the measure.
    pub fn mean(&self, f: impl Fn(f64) -> f64) -> f64 {
        sum(self.nodes.iter().zip(&self.weights).map(|(&x, w)| w * f(x)))
    }

    /// Scales the weights to sum 1 and leaves out nodes without weight.
    pub(crate) fn normalised(nodes: &[f64], weights: &[f64]) -> Self {
        let mass = sum(weights.iter().copied());
        let (nodes, weights) =
            nodes.iter().zip(weights).map(|(&x, w)| (x, w / mass)).filter(|(_, weight)| *weight > 0.0).unzip();
        Quadrature { nodes, weights }
    }
}

/// Neumaier's compensated sum: exact to rounding, in any order and of any number of terms.
pub(crate) fn sum(terms: impl Iterator<Item = f64>) -> f64 {
    let (total, lost) = terms.fold((0.0_f64, 0.0), |(total, lost), term| {
        let next = total + term;
        let rest = if total.abs() >= term.abs() { (total - next) + term } else { (term - next) + total };
        (next, lost + rest)
    });
    total + lost
}

/// Nodes and weights of the Gauss–Legendre rule with `count` points on [-1, 1], ascending and exactly symmetric; Newton's
/// method on the Legendre polynomial (Davis and Rabinowitz, Methods of Numerical Integration, 1984, section 2.7).
pub fn gauss_legendre(count: usize) -> Vec<(f64, f64)> {
    let half = |i: usize| {
        let mut t = if 2 * i + 1 == count { 0.0 } else { libm::cos(PI * (i as f64 + 0.75) / (count as f64 + 0.5)) };
        let mut slope = legendre(count, t).1;
        // Quadratic convergence from this start: few steps suffice, further ones change nothing.
        for _ in 0..6 {
            let (value, derivative) = legendre(count, t);
            t -= value / derivative;
            slope = derivative;
        }
        (t, 2.0 / ((1.0 - t * t) * slope * slope))
    };
    let upper: Vec<(f64, f64)> = (0..count.div_ceil(2)).map(half).collect();
    let lower = upper[..count / 2].iter().map(|&(t, w)| (-t, w));
    lower.chain(upper.iter().rev().copied()).collect()
}

/// `P_n` and its derivative inside (-1, 1).
fn legendre(n: usize, t: f64) -> (f64, f64) {
    let (mut p, mut before) = (1.0, 0.0);
    for k in 1..=n {
        (p, before) = (((2 * k - 1) as f64 * t * p - (k - 1) as f64 * before) / k as f64, p);
    }
    (p, n as f64 * (before - t * p) / (1.0 - t * t))
}

/// Agreement between a panel and its halves that counts as converged, as a share of the whole integral.
const CONVERGED: f64 = 1e-14;
/// A panel is not halved more often than this. What is left of a step, a share of 1e-13, is negligible...
const DEEPEST: u32 = 44;
/// ... but more than this share is left of a pole only.
const NEGLIGIBLE: f64 = 1e-10;
/// Panels beyond those that the break points ask for.
const MAX_PANELS: usize = 20_000;

/// A density on an interval of a parameter `s`, in which it is smooth between break points.
pub(crate) struct Chart<'a> {
    /// Ends and break points of `s`, ascending.
    pub splits: Vec<f64>,
    /// `s` to `x` and the density with respect to `ds`, which is finite.
    pub map: &'a dyn Fn(f64) -> (f64, f64),
}

impl Chart<'_> {
    /// Composite Gauss–Legendre quadrature that integrates the density, alone and times `function`, times polynomials of
    /// degree `2 degree`. Panels are halved until both halves together agree with the whole.
    ///
    /// # Errors
    /// [`Error::NotFinite`], [`Error::Unresolved`].
    pub fn quadrature(&self, function: &Function, interval: Interval, degree: usize) -> Result<Quadrature, Error> {
        let rule = gauss_legendre(degree + 10);
        let panel = |low: f64, high: f64| -> Result<Panel, Error> {
            let (centre, half) = (0.5 * (low + high), 0.5 * (high - low));
            let mut panel = Panel { low, high, nodes: Vec::new(), weights: Vec::new(), sums: [0.0; 3] };
            for &(t, weight) in &rule {
                let (x, density) = (self.map)(centre + half * t);
                let weight = weight * half * density;
                let value = function.finite(x)?;
                panel.nodes.push(x);
                panel.weights.push(weight);
                panel.sums =
                    [panel.sums[0] + weight, panel.sums[1] + weight * value, panel.sums[2] + weight * value.abs()];
            }
            Ok(panel)
        };
        let mut stack = Vec::new();
        for ends in self.splits.windows(2) {
            stack.push((panel(ends[0], ends[1])?, 0));
        }
        let limit = stack.len() + MAX_PANELS;
        let total = |i: usize| stack.iter().map(|(panel, _)| panel.sums[i]).sum::<f64>();
        // Weight that the first panels missed counts once it is found.
        let mut scales = [total(0), total(2)];
        let unresolved =
            || Error::Unresolved { function: function.name().into(), low: interval.low(), high: interval.high() };
        // Taken from the end and halved right half first, the panels come out ascending.
        stack.reverse();
        let (mut nodes, mut weights, mut halved) = (Vec::new(), Vec::new(), 0);
        while let Some((whole, depth)) = stack.pop() {
            let centre = 0.5 * (whole.low + whole.high);
            let (left, right) = (panel(whole.low, centre)?, panel(centre, whole.high)?);
            let error = |i: usize| (left.sums[i] + right.sums[i] - whole.sums[i]).abs();
            let within = |share: f64| error(0) <= share * scales[0] && error(1) <= share * scales[1];
            if within(CONVERGED) || (depth == DEEPEST && within(NEGLIGIBLE)) {
                // The halves are there and more precise.
                for half in [left, right] {
                    nodes.extend(half.nodes);
                    weights.extend(half.weights);
                }
                continue;
            }
            halved += 1;
            for (scale, i) in scales.iter_mut().zip([0, 2]) {
                *scale += left.sums[i] + right.sums[i] - whole.sums[i];
            }
            if depth == DEEPEST || halved + stack.len() > limit {
                return Err(unresolved());
            }
            stack.push((right, depth + 1));
            stack.push((left, depth + 1));
        }
        Ok(Quadrature::normalised(&nodes, &weights))
    }
}

struct Panel {
    low: f64,
    high: f64,
    nodes: Vec<f64>,
    weights: Vec<f64>,
    /// Of the density, the density times the function, and the density times its magnitude.
    sums: [f64; 3],
}
