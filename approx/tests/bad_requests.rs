//! What cannot be done is refused, with what can.

use cryptodl_approx::{Activation, Approximation, Error, Function, Interval, Method, Samples, Weight};

fn unit() -> Interval {
    Interval::symmetric(1.0).expect("proper")
}

fn fit(function: &Function, interval: Interval, method: Method, degree: usize) -> Result<Approximation, Error> {
    Approximation::new(function, interval, method, degree)
}

#[test]
fn intervals() {
    for (low, high) in [
        (1.0, 1.0),
        (2.0, 1.0),
        (f64::NAN, 1.0),
        (0.0, f64::INFINITY),
        (f64::NEG_INFINITY, 0.0),
        (-f64::MAX, f64::MAX),
        (1e9, 1e9 + 1e-6),
        (0.0, 1e-310),
    ] {
        let error = Interval::new(low, high).expect_err("improper");
        assert!(
            matches!(error, Error::Interval { .. }) && error.to_string().contains("for example [-5, 5]"),
            "{error}"
        );
    }
}

#[test]
fn degrees() {
    let relu = Activation::Relu.into();
    for degree in [0, 129, usize::MAX] {
        assert_eq!(fit(&relu, unit(), Method::Minimax, degree).expect_err("refused"), Error::Degree { degree });
    }
    assert!(Error::Degree { degree: 0 }.to_string().contains("1 to 128"));
    // The stable form is there at any degree, the monomials are not.
    let high = fit(&relu, unit(), Method::Projection(Weight::Chebyshev), 60).expect("stable");
    let error = high.monomial().expect_err("unstable");
    assert!(matches!(error, Error::Unstable { degree: 60, .. }), "{error}");
    assert!(high.errors.sup < 0.02 && high.cost().is_err());
    // Far from 0 monomials cancel early, and the error tells to shift.
    let far = fit(&Activation::Softplus.into(), Interval::new(100.0, 101.0).expect("proper"), Method::Minimax, 1);
    assert_eq!(far.expect("a line").monomial().expect("stable").degree(), 1);
    let wavy = Function::new("wave", |x| (3.0 * x).sin());
    let far = fit(&wavy, Interval::new(100.0, 101.0).expect("proper"), Method::Projection(Weight::Legendre), 6);
    let error = far.expect("stable").monomial().expect_err("unstable");
    assert!(error.to_string().contains("shift the input"), "{error}");
    let huge =
        fit(&Activation::Tanh.into(), Interval::symmetric(1e60).expect("proper"), Method::Taylor { at: None }, 7);
    assert!(matches!(huge, Err(Error::Unstable { .. })), "{huge:?}");
}

#[test]
fn functions_that_are_not_finite() {
    let pole = Function::new("1/x", |x| 1.0 / x);
    let error = fit(&pole, unit(), Method::Minimax, 2).expect_err("refused");
    assert!(
        matches!(error, Error::NotFinite { x: 0.0, .. }) && error.to_string().contains("1/x is inf at 0"),
        "{error}"
    );
    let log = Function::new("ln x", f64::ln);
    assert!(matches!(fit(&log, unit(), Method::Minimax, 2), Err(Error::NotFinite { x: -1.0, .. })));
    // Between the points of the first check, found by quadrature or not at all as an answer.
    let hidden = Function::new("pole", |x| 1.0 / (x - 0.123_456_789).powi(2));
    let error = fit(&hidden, unit(), Method::Projection(Weight::Legendre), 2).expect_err("refused");
    assert!(matches!(error, Error::Unresolved { .. } | Error::NotFinite { .. }), "{error}");
    let noise = Function::new("noise", |x: f64| (x.to_bits().wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as f64);
    let error = fit(&noise, unit(), Method::Projection(Weight::Chebyshev), 2).expect_err("refused");
    assert!(matches!(error, Error::Unresolved { .. }) && error.to_string().contains("samples"), "{error}");
}

#[test]
fn samples() {
    assert_eq!(Samples::new(&[(0.0, 1.0)]).expect_err("one"), Error::TooFewSamples { found: 1, needed: 2 });
    for (points, index) in [
        (vec![(0.0, 0.0), (0.0, 1.0)], 1),
        (vec![(0.0, 0.0), (1.0, 1.0), (0.5, 1.0)], 2),
        (vec![(f64::NAN, 0.0), (1.0, 1.0)], 0),
        (vec![(0.0, 0.0), (1.0, f64::INFINITY)], 1),
    ] {
        let error = Samples::new(&points).expect_err("refused");
        assert!(matches!(error, Error::Sample { index: found, .. } if found == index), "{error}");
    }
    let points: Vec<(f64, f64)> = (0..5).map(|i| (f64::from(i), f64::from(i * i))).collect();
    let function = Function::sampled("points", Samples::new(&points).expect("ascending"));
    let whole = Interval::new(0.0, 4.0).expect("proper");
    let numerical = Method::Numerical { points: 9 };
    assert_eq!(
        fit(&function, whole, numerical, 5).expect_err("5 points"),
        Error::TooFewSamples { found: 5, needed: 6 }
    );
    let half = Interval::new(0.0, 2.5).expect("proper");
    assert_eq!(fit(&function, half, numerical, 3).expect_err("3 points"), Error::TooFewSamples { found: 3, needed: 4 });
    let beyond = Interval::new(0.0, 4.5).expect("proper");
    assert_eq!(
        fit(&function, beyond, numerical, 2).expect_err("beyond"),
        Error::OutsideSamples { low: 0.0, high: 4.0 }
    );
    let taylor = fit(&function, whole, Method::Taylor { at: None }, 2).expect_err("no series");
    assert_eq!(taylor, Error::NoTaylorSeries { function: "points".into(), at: 0.0 });
    // Enough points are enough: the parabola is found again.
    let parabola = fit(&function, whole, numerical, 2).expect("5 points").monomial().expect("stable");
    parabola
        .coefficients
        .iter()
        .zip([0.0, 0.0, 1.0])
        .for_each(|(found, expected)| assert!((found - expected).abs() < 1e-13));
    // Points at equal distances cannot hold nearly as many degrees as they are.
    let relu = Activation::Relu.into();
    assert!(matches!(fit(&relu, unit(), Method::Numerical { points: 120 }, 118), Err(Error::Dependent { .. })));
}

#[test]
fn settings() {
    let relu: Function = Activation::Relu.into();
    for sigma in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let method = Method::Projection(Weight::Gaussian { sigma: Some(sigma) });
        assert!(matches!(fit(&relu, unit(), method, 2), Err(Error::Sigma { .. })));
    }
    let nowhere = Method::Taylor { at: Some(f64::NAN) };
    assert!(matches!(fit(&relu, unit(), nowhere, 2), Err(Error::ExpansionPoint { .. })));
    for tolerance in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let found = Approximation::of_lowest_degree(&relu, unit(), Method::Minimax, tolerance, 8);
        assert!(matches!(found, Err(Error::Tolerance { .. })));
    }
    let error = Approximation::of_lowest_degree(&relu, unit(), Method::Minimax, 1e-3, 12).expect_err("too much");
    assert!(matches!(error, Error::ToleranceNotReached { max_degree: 12, best_degree: 12, .. }), "{error}");
    let closure = Function::new("cube", |x| x * x * x);
    let derivative = fit(&closure, unit(), Method::Derivative(Weight::Legendre), 3).expect_err("unknown");
    assert_eq!(derivative, Error::NoDerivative { function: "cube".into() });
    assert!("relu6".parse::<Activation>().expect_err("unknown").to_string().contains("softplus"));
    assert!(Method::from_name("lagrange", &relu).expect_err("unknown").to_string().contains("minimax"));
}

/// On a short interval all the weight of the measure for ReLU is at the ends: in the limit only the values there count, and higher
/// degrees cannot be told apart.
#[test]
fn measures_without_width() {
    let relu: Function = Activation::Relu.into();
    let method = Method::Projection(Weight::ModifiedRelu);
    let short = Interval::symmetric(1e-3).expect("proper");
    let line = fit(&relu, short, method, 1).expect("two points carry a line").monomial().expect("stable");
    line.coefficients
        .iter()
        .zip([5e-4, 0.5])
        .for_each(|(found, expected)| assert!((found / expected - 1.0).abs() < 1e-3));
    let error = fit(&relu, short, method, 100).expect_err("too many degrees");
    assert!(matches!(error, Error::Dependent { .. }) && error.to_string().contains("wider interval"), "{error}");
}
