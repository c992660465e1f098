//! Remez's exchange algorithm.

use serde::Serialize;

use crate::extrema::{Extremum, Search};
use crate::orthogonal::project;
use crate::series::chebyshev_interpolant;
use crate::{Error, Function, Interval, Measure, Series, Weight};

/// Most exchanges; convergence is quadratic, so that ten are many.
const MAX_EXCHANGES: usize = 60;
/// Gap between the bounds, as a share of the upper one, that counts as converged.
const CONVERGED: f64 = 1e-9;
/// Gap with which the best polynomial is still returned when exchanges stop helping.
const ACCEPTED: f64 = 1e-6;

/// Proof of optimality: the error takes opposite signs in `degree + 2` points, so that no polynomial of this degree has a
/// smaller largest error than `lower` (de la Vallée-Poussin; Cheney, Introduction to Approximation Theory, 1966, chapter 3).
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Alternation {
    /// Points with errors of alternating sign, ascending; empty where the function is a polynomial of this degree up to rounding.
    pub points: Vec<f64>,
    /// The smallest error among the points: a lower bound for every polynomial of the degree.
    pub lower: f64,
    /// The largest error on the interval: an upper bound, which this polynomial attains.
    pub upper: f64,
}

/// The polynomial of degree `degree` with the smallest largest error.
pub(super) fn exchange(function: &Function, interval: Interval, degree: usize) -> Result<(Series, Alternation), Error> {
    // The error of a mean-square approximation has at least degree + 1 changes of sign, so it gives a first reference, and
    // from an alternating reference the levelled error grows with every exchange.
    let quadrature = Weight::Chebyshev.on(interval)?.quadrature(function, degree)?;
    let mut series = project(function, interval, &quadrature, degree)?;
    let search = Search::new(interval, &function.breaks(interval), degree);
    let size = search.largest(true, |x| function.value(x)).value.abs();
    let rounding = 64.0 * (degree + 1) as f64 * f64::EPSILON * size;
    let mut best: Option<(Series, Alternation)> = None;
    for _ in 0..MAX_EXCHANGES {
        let mut reference = search.alternation(true, |x| function.value(x) - series.value(x));
        let upper = reference.iter().map(|e| e.value.abs()).fold(0.0, f64::max);
        if upper <= rounding {
            return Ok((series, Alternation { points: Vec::new(), lower: 0.0, upper }));
        }
        if reference.len() < degree + 2 {
            break;
        }
        shorten(&mut reference, degree + 2);
        let lower = reference.iter().map(|e| e.value.abs()).fold(f64::INFINITY, f64::min);
        let points: Vec<f64> = reference.iter().map(|e| e.x).collect();
        let next = levelled(function, interval, &points);
        if best.as_ref().is_none_or(|(_, best)| upper - lower < best.upper - best.lower) {
            best = Some((series, Alternation { points, lower, upper }));
        }
        if upper - lower <= (CONVERGED * upper).max(rounding) {
            break;
        }
        series = next;
    }
    let accepted = |a: &Alternation| a.upper - a.lower <= (ACCEPTED * a.upper).max(rounding);
    best.filter(|(_, alternation)| accepted(alternation))
        .ok_or_else(|| Error::Exchange { function: function.name().into(), degree })
}

/// Drops the smallest errors until `count` are left, with a neighbour where the signs would no longer alternate. The largest stays, and
/// none below the last levelled error does: `count` alternating ones reach it.
fn shorten(reference: &mut Vec<Extremum>, count: usize) {
    let size = |e: &Extremum| e.value.abs();
    while reference.len() > count {
        let last = reference.len() - 1;
        let smaller = |i: usize, j: usize| if size(&reference[j]) < size(&reference[i]) { j } else { i };
        let smallest = (1..=last).fold(0, smaller);
        if smallest == 0 || smallest == last {
            reference.remove(smallest);
        } else if reference.len() == count + 1 {
            reference.remove(smaller(0, last));
        } else {
            let first = smallest.min(smaller(smallest - 1, smallest + 1));
            reference.drain(first..first + 2);
        }
    }
}

/// The polynomial whose errors in the `degree + 2` points are equal in magnitude and alternate in sign.
fn levelled(function: &Function, interval: Interval, points: &[f64]) -> Series {
    let t: Vec<f64> = points.iter().map(|&x| interval.to_unit(x)).collect();
    // Barycentric weights; the factor 2 is the capacity of [-1, 1], without which they overflow.
    let weight =
        |i: usize| t.iter().enumerate().filter(|(j, _)| *j != i).map(|(_, tj)| 2.0 * (t[i] - tj)).product::<f64>();
    let weights: Vec<f64> = (0..t.len()).map(|i| 1.0 / weight(i)).collect();
    let values: Vec<f64> = points.iter().map(|&x| function.value(x)).collect();
    let sign = |i: usize| if i.is_multiple_of(2) { 1.0 } else { -1.0 };
    let sum: f64 = weights.iter().zip(&values).map(|(w, value)| w * value).sum();
    let level = sum / weights.iter().enumerate().map(|(i, w)| w * sign(i)).sum::<f64>();
    let levelled = |i: usize| values[i] - sign(i) * level;
    let value = |u: f64| {
        if let Some(i) = t.iter().position(|&t| t == u) {
            return levelled(i);
        }
        let shares = || (0..t.len()).map(|i| (i, weights[i] / (u - t[i])));
        shares().map(|(i, share)| share * levelled(i)).sum::<f64>() / shares().map(|(_, share)| share).sum::<f64>()
    };
    Series::from_chebyshev(interval, &chebyshev_interpolant(points.len() - 2, value))
}
