//! Extrema of error curves.

use crate::Interval;

/// Pieces that get the full grid; more of them share it.
const FULL_GRIDS: usize = 64;
/// Steps of the golden section, which shrink a bracket by 1e-10.
const STEPS: usize = 48;

/// A local extremum.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extremum {
    pub x: f64,
    pub value: f64,
}

/// An interval in smooth pieces, to be searched with a grid fine enough for polynomials of a degree.
pub(crate) struct Search {
    splits: Vec<f64>,
    steps: usize,
}

impl Search {
    pub fn new(interval: Interval, breaks: &[f64], degree: usize) -> Self {
        let splits = interval.split_at(breaks);
        let pieces = splits.len() - 1;
        let steps = (8 * (degree + 2) * FULL_GRIDS.min(pieces) / pieces).max(8);
        Search { splits, steps }
    }

    /// The largest magnitude of each run of one sign, from left to right: an alternating sequence. `ends` tells whether the curve
    /// has a value in break points and ends, or only beside them.
    pub fn alternation(&self, ends: bool, curve: impl Fn(f64) -> f64) -> Vec<Extremum> {
        let mut runs: Vec<(Extremum, [f64; 2])> = Vec::new();
        for piece in self.splits.windows(2) {
            let (low, high) = (piece[0], piece[1]);
            let grid = self.grid(low, high, ends);
            for (i, &x) in grid.iter().enumerate() {
                let found = Extremum { x, value: curve(x) };
                let bracket = [if i == 0 { low } else { grid[i - 1] }, grid.get(i + 1).copied().unwrap_or(high)];
                match runs.last_mut() {
                    // A break point, seen from its other side: the extremum may lie on either.
                    Some((run, place)) if run.x == x => place[1] = bracket[1],
                    Some((run, place)) if run.value * found.value >= 0.0 => {
                        if run.value.abs() < found.value.abs() {
                            (*run, *place) = (found, bracket);
                        }
                    }
                    _ => runs.push((found, bracket)),
                }
            }
        }
        runs.into_iter().map(|(run, bracket)| refine(run, bracket, &curve)).collect()
    }

    /// The largest magnitude.
    pub fn largest(&self, ends: bool, curve: impl Fn(f64) -> f64) -> Extremum {
        let larger = |a: Extremum, b: Extremum| if b.value.abs() > a.value.abs() { b } else { a };
        let start = Extremum { x: self.splits[0], value: 0.0 };
        self.alternation(ends, curve).into_iter().fold(start, larger)
    }

    /// Chebyshev points of a piece, with or without its ends.
    fn grid(&self, low: f64, high: f64, ends: bool) -> Vec<f64> {
        let (centre, half) = (0.5 * (low + high), 0.5 * (high - low));
        let (first, last, offset) = if ends { (1, self.steps - 1, 0.0) } else { (0, self.steps - 1, 0.5) };
        let angle = |i: usize| std::f64::consts::PI * (i as f64 + offset) / self.steps as f64;
        let inner = (first..=last).map(|i| centre - half * libm::cos(angle(i)));
        let bound = |x| ends.then_some(x).into_iter();
        bound(low).chain(inner).chain(bound(high)).collect()
    }
}

/// Golden section search for the largest magnitude in a bracket.
fn refine(start: Extremum, bracket: [f64; 2], curve: &impl Fn(f64) -> f64) -> Extremum {
    const GOLDEN: f64 = 0.618_033_988_749_894_9;
    let sign = if start.value < 0.0 { -1.0 } else { 1.0 };
    let height = |x: f64| sign * curve(x);
    let [mut low, mut high] = bracket;
    let (mut left, mut right) = (high - GOLDEN * (high - low), low + GOLDEN * (high - low));
    let (mut at_left, mut at_right) = (height(left), height(right));
    for _ in 0..STEPS {
        if at_left > at_right {
            (high, right, at_right) = (right, left, at_left);
            left = high - GOLDEN * (high - low);
            at_left = height(left);
        } else {
            (low, left, at_left) = (left, right, at_right);
            right = low + GOLDEN * (high - low);
            at_right = height(right);
        }
    }
    let (x, found) = if at_left > at_right { (left, at_left) } else { (right, at_right) };
    if found > start.value.abs() { Extremum { x, value: sign * found } } else { start }
}
