//! Laws that hold for every request.

use cryptodl_approx::{Activation, Approximation, Function, Interval, Method, Weight};
use proptest::prelude::*;

const ALL: [Method; 8] = [
    Method::Numerical { points: 300 },
    Method::Projection(Weight::Legendre),
    Method::Projection(Weight::Chebyshev),
    Method::Projection(Weight::ModifiedRelu),
    Method::Projection(Weight::ModifiedSigmoid),
    Method::Projection(Weight::Gaussian { sigma: None }),
    Method::Derivative(Weight::Legendre),
    Method::Minimax,
];

fn interval() -> impl Strategy<Value = Interval> {
    (-3.0..3.0, 0.5..6.0).prop_map(|(centre, half)| Interval::new(centre - half, centre + half).expect("proper"))
}

fn activation() -> impl Strategy<Value = Activation> {
    prop::sample::select(Activation::ALL.to_vec())
}

fn grid(interval: Interval) -> impl Iterator<Item = f64> {
    (0..=100).map(move |i| interval.from_unit(f64::from(i) / 50.0 - 1.0))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// A method of degree n reproduces polynomials of degree n.
    #[test]
    fn polynomials_are_reproduced(
        interval in interval(), c in prop::collection::vec(-1.0..1.0, 2..8), more in 0_usize..4,
    ) {
        let horner = |c: &[f64], x: f64| c.iter().rev().fold(0.0, |sum, c| sum * x + c);
        let slopes: Vec<f64> = c.iter().enumerate().skip(1).map(|(k, c)| k as f64 * c).collect();
        let value = c.clone();
        let function = Function::new("polynomial", move |x| horner(&value, x)).with_derivative(move |x| horner(&slopes, x));
        let size = grid(interval).map(|x| function.value(x).abs()).fold(0.0, f64::max);
        for method in ALL {
            let found = Approximation::new(&function, interval, method, c.len() - 1 + more).expect("proper");
            prop_assert!(found.errors.sup <= 1e-11 * size, "{method}: {} of {size}", found.errors.sup);
            for x in grid(interval) {
                prop_assert!((found.series.value(x) - function.value(x)).abs() <= 1e-11 * size);
            }
        }
    }

    /// Stretching and shifting the axis stretches and shifts the polynomial, for measures that go with the interval.
    #[test]
    fn axes_may_be_moved(interval in interval(), degree in 1_usize..8, shift in -4.0..4.0, scale in 0.1..10.0) {
        let moved = Interval::new(interval.low() * scale + shift, interval.high() * scale + shift).expect("proper");
        let function = Activation::Swish.into();
        let stretched = Function::new("stretched", move |x| Activation::Swish.value((x - shift) / scale))
            .with_derivative(move |x| Activation::Swish.derivative((x - shift) / scale) / scale)
            .with_breaks(&[shift]);
        for method in ALL.into_iter().filter(|method| *method != Method::Projection(Weight::ModifiedRelu)) {
            let found = Approximation::new(&function, interval, method, degree).expect("proper");
            let other = Approximation::new(&stretched, moved, method, degree).expect("proper");
            let tolerance = if method == Method::Minimax { 1e-6 } else { 1e-10 };
            for x in grid(interval) {
                let difference = (found.series.value(x) - other.series.value(x * scale + shift)).abs();
                prop_assert!(difference <= tolerance, "{method}: {difference:e} at {x}");
            }
        }
    }

    /// More degrees fit better in the norm that a method minimises, and nothing beats minimax in the largest error.
    #[test]
    fn errors_fall_with_the_degree(activation in activation(), interval in interval()) {
        let function = activation.into();
        for method in ALL {
            let mut before = f64::INFINITY;
            for degree in [1, 2, 3, 5, 8, 12] {
                let found = Approximation::new(&function, interval, method, degree).expect("proper");
                let error = match method {
                    Method::Minimax => found.errors.sup,
                    Method::Derivative(_) if activation == Activation::Relu => continue,
                    Method::Derivative(_) => found.errors.derivative_l2.expect("known"),
                    _ => found.errors.l2_weighted.expect("a measure"),
                };
                prop_assert!(error <= before + 1e-9, "{activation} {method} {degree}: {error} after {before}");
                before = error;
                let best = Approximation::new(&function, interval, Method::Minimax, degree).expect("proper");
                prop_assert!(best.errors.sup <= found.errors.sup * (1.0 + 1e-6) + 1e-12);
            }
        }
    }

    /// The projection is the best: moving it in any direction makes the mean square of the error larger by that of the move.
    #[test]
    fn projections_are_optimal(activation in activation(), interval in interval(), c in prop::collection::vec(-1.0..1.0, 4)) {
        let function: Function = activation.into();
        for weight in [Weight::Legendre, Weight::ModifiedSigmoid, Weight::Gaussian { sigma: None }] {
            let found = Approximation::new(&function, interval, Method::Projection(weight), c.len() - 1).expect("proper");
            let measure = weight.on(interval).expect("proper");
            // Midpoints: another quadrature than the library's.
            let mean = |f: &dyn Fn(f64) -> f64| {
                let points = (0..20_000).map(|i| interval.from_unit((f64::from(i) + 0.5) / 10_000.0 - 1.0));
                let density = |x| cryptodl_approx::Measure::weight(&measure, x).expect("a density");
                let (sum, mass) = points.fold((0.0, 0.0), |(s, m), x| (s + density(x) * f(x), m + density(x)));
                sum / mass
            };
            let step = |x: f64| c.iter().rev().fold(0.0, |sum, c| sum * interval.to_unit(x) + c);
            let error = |x: f64| function.value(x) - found.series.value(x);
            let at_best = mean(&|x| error(x) * error(x));
            prop_assert!((at_best.sqrt() - found.errors.l2_weighted.expect("a measure")).abs() < 1e-6);
            let moved = mean(&|x| (error(x) + step(x)) * (error(x) + step(x)));
            prop_assert!((moved - at_best - mean(&|x| step(x) * step(x))).abs() < 1e-6, "{weight:?}");
        }
    }

    /// Powers of x say the same as the stable form, within the bits that they say they lose.
    #[test]
    fn monomials_agree(activation in activation(), interval in interval(), degree in 1_usize..14) {
        let found = Approximation::new(&activation.into(), interval, Method::Projection(Weight::Chebyshev), degree).expect("proper");
        let size = grid(interval).map(|x| found.series.value(x).abs()).fold(0.0, f64::max);
        if let Ok(monomial) = found.monomial() {
            let allowed = size * (2.0_f64.powf(monomial.lost_bits) * 1e-14 * degree as f64 + 2.0 * monomial.deviation);
            for x in grid(interval) {
                prop_assert!((monomial.value(x) - found.series.value(x)).abs() <= allowed);
            }
        }
    }
}

/// The largest error lies just beside 0, which the grid meets as a break point.
#[test]
fn a_break_where_the_function_is_smooth_changes_nothing() {
    let interval = Interval::new(-3.933628843020688, 8.04751467289852).expect("proper");
    let plain = Function::new("plain", |x| Activation::Swish.value(x));
    let broken = Function::new("broken", |x| Activation::Swish.value(x)).with_breaks(&[0.0]);
    let upper = |function: &Function| {
        let found = Approximation::new(function, interval, Method::Minimax, 2).expect("proper");
        found.alternation.expect("of minimax").upper
    };
    assert!((upper(&plain) - upper(&broken)).abs() < 1e-12, "{:e} {:e}", upper(&plain), upper(&broken));
}
