//! Against formulas from the literature.

use std::f64::consts::{LN_2, PI};

use cryptodl_approx::{
    Activation, Approximation, Circuit, Cost, Function, Interval, Measure, Method, Points, Recurrence, Samples, Weight,
    gauss_legendre, orthogonal_polynomials,
};

const UNIT: [f64; 2] = [-1.0, 1.0];

fn on([low, high]: [f64; 2]) -> Interval {
    Interval::new(low, high).expect("a proper interval")
}

fn fit(function: &Function, interval: [f64; 2], method: Method, degree: usize) -> Approximation {
    Approximation::new(function, on(interval), method, degree).expect("a proper request")
}

fn relu() -> Function {
    Activation::Relu.into()
}

#[track_caller]
fn close(found: f64, expected: f64, tolerance: f64) {
    assert!((found - expected).abs() <= tolerance, "{found} is not {expected}");
}

#[track_caller]
fn all_close(found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len(), "{found:?} {expected:?}");
    found.iter().zip(expected).for_each(|(&found, &expected)| close(found, expected, tolerance));
}

/// Gautschi, Orthogonal Polynomials, table 1.1; for points at equal distances Gram's polynomials, same book, section 1.5.
#[test]
fn recurrences_of_classical_families() {
    let recurrence = |weight: Weight| {
        orthogonal_polynomials(&weight.on(on([-3.0, 5.0])).expect("a proper measure"), 12).expect("well-conditioned")
    };
    let check = |Recurrence { alpha, beta }: Recurrence, expected: &dyn Fn(f64) -> f64| {
        alpha.iter().for_each(|&alpha| close(alpha, 0.0, 2e-14));
        (1..12).for_each(|k| close(beta[k], expected(k as f64), 2e-14));
    };
    check(recurrence(Weight::Legendre), &|k| k * k / (4.0 * k * k - 1.0));
    check(recurrence(Weight::Chebyshev), &|k| if k == 1.0 { 0.5 } else { 0.25 });
    // Ten standard deviations hold the normal law up to 1e-22: Hermite's polynomials.
    let hermite = orthogonal_polynomials(&Weight::Gaussian { sigma: Some(0.4) }.on(on([-3.0, 5.0])).expect("sigma"), 8);
    let hermite = hermite.expect("well-conditioned");
    (1..8).for_each(|k| close(hermite.beta[k], 0.01 * k as f64, 3e-14));
    let n = 40.0;
    let points = Points::new(&relu(), on([-3.0, 5.0]), 40);
    let step = 2.0 / (n - 1.0);
    check(orthogonal_polynomials(&points, 12).expect("well-conditioned"), &|k| {
        step * step * k * k * (n * n - k * k) / (4.0 * (4.0 * k * k - 1.0))
    });
}

/// Under the weight itself, by another quadrature.
#[test]
fn polynomials_are_orthogonal() {
    for (weight, interval) in [
        (Weight::ModifiedRelu, [-3.0, 3.0]),
        (Weight::ModifiedRelu, [-0.5, 2.0]),
        (Weight::ModifiedSigmoid, [-8.0, 8.0]),
        (Weight::ModifiedSigmoid, [1.0, 4.0]),
        (Weight::Gaussian { sigma: None }, [-4.0, 6.0]),
        (Weight::Legendre, [-2.0, 2.0]),
    ] {
        let measure = weight.on(on(interval)).expect("a proper measure");
        let Recurrence { alpha, beta } = orthogonal_polynomials(&measure, 7).expect("well-conditioned");
        let mut products = [[0.0; 8]; 8];
        // Simpson's rule on 20,000 panels.
        let steps = 40_000;
        for i in 0..=steps {
            let x = measure.support().from_unit(2.0 * i as f64 / steps as f64 - 1.0);
            let t = measure.support().to_unit(x);
            let simpson = if i == 0 || i == steps { 1.0 } else { 2.0 + 2.0 * (i % 2) as f64 };
            let density = simpson * measure.weight(x).expect("a density");
            let mut p = vec![1.0, t - alpha[0]];
            (1..7).for_each(|k| p.push((t - alpha[k]) * p[k] - beta[k] * p[k - 1]));
            products
                .iter_mut()
                .zip(&p)
                .for_each(|(row, u)| row.iter_mut().zip(&p).for_each(|(s, v)| *s += density * u * v));
        }
        for i in 0..8 {
            for j in 0..i {
                close(products[i][j] / (products[i][i] * products[j][j]).sqrt(), 0.0, 1e-9);
            }
        }
    }
}

#[test]
fn gauss_legendre_is_exact() {
    let three = gauss_legendre(3);
    all_close(&[three[0].0, three[1].0, three[2].0], &[-0.6_f64.sqrt(), 0.0, 0.6_f64.sqrt()], 1e-15);
    all_close(&[three[0].1, three[1].1], &[5.0 / 9.0, 8.0 / 9.0], 1e-15);
    for count in [1, 2, 7, 20, 138] {
        for power in (0..2 * count as i32).step_by(3) {
            let sum: f64 = gauss_legendre(count).iter().map(|&(t, w)| w * t.powi(power)).sum();
            close(sum, if power % 2 == 0 { 2.0 / f64::from(power + 1) } else { 0.0 }, 1e-14);
        }
    }
}

/// `|t| = 2/pi + 4/pi sum (-1)^(k+1) / (4k^2-1) T_2k(t)`, and `ReLU(l t) = l (t + |t|) / 2`.
#[test]
fn relu_in_chebyshev_polynomials() {
    for (l, degree) in [(1.0, 2), (4.0, 5), (255.0, 8), (0.01, 40)] {
        let found = fit(&relu(), [-l, l], Method::Projection(Weight::Chebyshev), degree);
        for i in 0..=50 {
            let t = f64::from(i) / 25.0 - 1.0;
            let tail = (1..=degree / 2).map(|k| {
                let sign = if k % 2 == 1 { 1.0 } else { -1.0 };
                sign / (4 * k * k - 1) as f64 * (2.0 * k as f64 * t.acos()).cos()
            });
            let magnitude = 2.0 / PI + 4.0 / PI * tail.sum::<f64>();
            close(found.series.value(l * t), l * (t + magnitude) / 2.0, 4e-14 * l);
        }
    }
}

/// `|t|` has the Legendre coefficients 1/2, 5/8, -3/16, 13/128, and Parseval gives the error.
#[test]
fn relu_in_legendre_polynomials() {
    let found = fit(&relu(), [-2.0, 2.0], Method::Projection(Weight::Legendre), 7);
    let legendre = [0.5, 0.625, -0.1875, 13.0 / 128.0];
    for i in 0..=20 {
        let t = f64::from(i) / 10.0 - 1.0;
        let (p2, p4) = (1.5 * t * t - 0.5, (35.0 * t.powi(4) - 30.0 * t * t + 3.0) / 8.0);
        let p6 = (231.0 * t.powi(6) - 315.0 * t.powi(4) + 105.0 * t * t - 5.0) / 16.0;
        let magnitude: f64 = legendre.iter().zip([1.0, p2, p4, p6]).map(|(c, p)| c * p).sum();
        close(found.series.value(2.0 * t), t + magnitude, 1e-14);
    }
    let norm: f64 = legendre.iter().zip([1.0, 5.0, 9.0, 13.0]).map(|(c, n)| c * c / n).sum();
    let rms = (1.0_f64 / 3.0 - norm).sqrt();
    close(found.errors.l2, rms, 1e-13);
    close(found.errors.l2_weighted.expect("a measure"), rms, 1e-13);
    // At 0 the error of an even series of |t| is largest.
    close(found.errors.sup, 0.5 - 0.3125 - 0.1875 * 0.375 - 13.0 / 128.0 * 5.0 / 16.0, 1e-13);
    close(found.errors.sup_at, 0.0, 1e-9);
}

/// Chebyshev: of monic polynomials of degree n, `2 ((b-a)/4)^n T_n` is the smallest; de la Vallée-Poussin's points prove it.
#[test]
fn minimax_of_powers() {
    for degree in 1..12 {
        for ends in [UNIT, [-2.0, 3.0], [0.5, 1.0]] {
            let power = Function::new("x^n", move |x| x.powi(degree as i32 + 1));
            let found = fit(&power, ends, Method::Minimax, degree);
            let expected = 2.0 * ((ends[1] - ends[0]) / 4.0).powi(degree as i32 + 1);
            close(found.errors.sup, expected, 1e-9 * expected + 1e-13);
            let alternation = found.alternation.expect("minimax proves itself");
            assert_eq!(alternation.points.len(), degree + 2);
            close(alternation.upper, found.errors.sup, 1e-14);
            close(alternation.lower, alternation.upper, 1e-8 * expected + 1e-13);
            let error = |x: f64| power.value(x) - found.series.value(x);
            for pair in alternation.points.windows(2) {
                assert!(pair[0] < pair[1] && error(pair[0]) * error(pair[1]) < 0.0);
                assert!(error(pair[0]).abs() >= alternation.lower * (1.0 - 1e-9));
            }
        }
    }
}

/// The known best errors of `1/(x - a)` (Bernstein; Rivlin, An Introduction to the Approximation of Functions, 1969, section 1.3) and of
/// `|x|`: 1/8 at degree 2, and `2n E_2n` grows to Bernstein's constant 0.2801694990.
#[test]
fn minimax_of_a_pole_and_a_kink() {
    for degree in 1..=14 {
        let pole = Function::new("1/(2-x)", |x| 1.0 / (2.0 - x));
        let found = fit(&pole, UNIT, Method::Minimax, degree);
        let expected = (2.0 - 3.0_f64.sqrt()).powi(degree as i32) / 3.0;
        close(found.errors.sup, expected, 1e-8 * expected + 1e-14);
    }
    let parabola = fit(&relu(), UNIT, Method::Minimax, 2);
    all_close(&parabola.monomial().expect("stable").coefficients, &[0.0625, 0.5, 0.5], 1e-12);
    let mut before = 0.0;
    for n in [1, 2, 4, 8, 16, 32] {
        // E_2n(|x|) = 2 E_2n(ReLU), as ReLU = (x + |x|) / 2.
        let scaled = 4.0 * n as f64 * fit(&relu(), UNIT, Method::Minimax, 2 * n).errors.sup;
        assert!(before < scaled && scaled < 0.280_169_499_1, "{n}: {scaled}");
        before = scaled;
    }
    // Varga and Carpenter, On the Bernstein conjecture in approximation theory, 1985: the first terms of its expansion.
    let n2 = 32.0 * 32.0;
    close(before, 0.280_169_499_0 - 0.043_967_529 / n2 + 0.026_407_169 / (n2 * n2), 1e-9);
}

/// Many more extrema than a polynomial of the degree has: `cos(k acos x)` has the smallest error 1 up to degree k - 1, with p = 0.
#[test]
fn minimax_of_a_wave() {
    let wave = Function::new("T_40", |x: f64| (40.0 * x.clamp(-1.0, 1.0).acos()).cos());
    for degree in [1, 2, 7, 20, 39] {
        let found = fit(&wave, UNIT, Method::Minimax, degree);
        close(found.errors.sup, 1.0, 1e-9);
        close(found.alternation.expect("minimax proves itself").lower, 1.0, 1e-6);
    }
    // One wave is larger than the others: only extrema near it matter.
    let bump = Function::new("bump", |x: f64| (30.0 * x).sin() * (1.0 + (-4.0 * x * x).exp()));
    let found = fit(&bump, UNIT, Method::Minimax, 3);
    let alternation = found.alternation.expect("minimax proves itself");
    assert!(alternation.upper - alternation.lower <= 1e-6 * alternation.upper);
}

#[test]
fn taylor_series_at_zero() {
    let root = (2.0 * PI).sqrt();
    for (activation, degree, expected) in [
        (Activation::Sigmoid, 7, vec![0.5, 0.25, 0.0, -1.0 / 48.0, 0.0, 1.0 / 480.0, 0.0, -17.0 / 80640.0]),
        (Activation::Tanh, 7, vec![0.0, 1.0, 0.0, -1.0 / 3.0, 0.0, 2.0 / 15.0, 0.0, -17.0 / 315.0]),
        (Activation::Swish, 4, vec![0.0, 0.5, 0.25, 0.0, -1.0 / 48.0]),
        (Activation::Softplus, 4, vec![LN_2, 0.5, 0.125, 0.0, -1.0 / 192.0]),
        // Softplus in its place.
        (Activation::Relu, 2, vec![LN_2, 0.5, 0.125]),
        (Activation::Gelu, 6, vec![0.0, 0.5, 1.0 / root, 0.0, -1.0 / (6.0 * root), 0.0, 1.0 / (40.0 * root)]),
    ] {
        let found = fit(&activation.into(), [-2.0, 2.0], Method::Taylor { at: None }, degree);
        all_close(&found.monomial().expect("stable").coefficients, &expected, 1e-16);
    }
    // Beside 0 ReLU is a line.
    let line = fit(&relu(), [-1.0, 3.0], Method::Taylor { at: Some(0.5) }, 3);
    all_close(&line.monomial().expect("stable").coefficients, &[0.0, 1.0], 0.0);
    close(line.errors.sup, 1.0, 1e-15);
}

/// The slope of ReLU's method 5 is the Sigmoid, `q(x) = 1/2 + (mean of x tanh(x/2) / 2) / (mean of x^2) x` at degree 1.
#[test]
fn derivative_method_on_a_quadratic() {
    let found = fit(&relu(), [-4.0, 4.0], Method::Derivative(Weight::Legendre), 3);
    let moment: f64 = gauss_legendre(60).iter().map(|&(t, w)| w / 2.0 * 4.0 * t * (2.0 * t).tanh() / 2.0).sum();
    let slope = moment / (16.0 / 3.0);
    // Zero mean: the mean of ReLU is 1, of x^2 16/3.
    let constant = 1.0 - slope / 2.0 * 16.0 / 3.0;
    all_close(&found.monomial().expect("stable").coefficients, &[constant, 0.5, slope / 2.0], 1e-14);
}

/// Fritsch and Carlson's interpolant meets the points, follows lines exactly, and never overshoots.
#[test]
fn samples_are_joined_without_overshoot() {
    let points = [(-2.0, 1.0), (-1.0, 1.0), (0.0, 1.5), (0.5, 4.0), (3.0, 4.0)];
    let samples = Samples::new(&points).expect("ascending points");
    points.iter().for_each(|&(x, y)| close(samples.value(x), y, 1e-15));
    let mut before = samples.value(-2.0);
    for i in 0..=500 {
        let x = -2.0 + 0.01 * f64::from(i);
        let rounding = 1e-14;
        assert!(samples.value(x) >= before - rounding && (samples.value(x) - 2.5).abs() <= 1.5 + rounding, "{x}");
        before = samples.value(x);
        let difference = (samples.value(x + 1e-6) - samples.value(x - 1e-6)) / 2e-6;
        if (0.01..=4.98).contains(&(x + 2.0)) {
            close(samples.derivative(x), difference, 1e-4);
        }
    }
    let line = Samples::new(&[(-1.0, -3.0), (0.5, 0.0), (2.0, 3.0)]).expect("ascending points");
    close(line.value(1.7), 2.4, 1e-15);
    close(line.derivative(-0.3), 2.0, 1e-15);
}

/// `x^2` on [-1, 3] is `(2t + 1)^2`, and its best line leaves `2 T_2(t)`: the slope's error is `4 t`.
#[test]
fn slope_errors() {
    let square = Function::new("x^2", |x| x * x).with_derivative(|x| 2.0 * x);
    let errors = fit(&square, [-1.0, 3.0], Method::Minimax, 1).errors;
    close(errors.sup, 2.0, 1e-9);
    close(errors.derivative_sup.expect("known"), 4.0, 1e-8);
    close(errors.derivative_l2.expect("known"), 4.0 / 3.0_f64.sqrt(), 1e-8);
    let unknown = fit(&Function::new("x^2", |x| x * x), [-1.0, 3.0], Method::Minimax, 1).errors;
    assert_eq!((unknown.derivative_sup, unknown.derivative_l2), (None, None));
    // Beside the kink ReLU's slope is wrong by one half.
    close(fit(&relu(), UNIT, Method::Minimax, 2).errors.derivative_sup.expect("known"), 0.5, 1e-9);
}

/// The lowest degree that brings `1/(2-x)` below an error follows from the closed form.
#[test]
fn lowest_degree_for_an_error() {
    let pole = Function::new("1/(2-x)", |x| 1.0 / (2.0 - x));
    for tolerance in [0.1_f64, 1e-3, 1e-6] {
        let degree = ((3.0 * tolerance).ln() / (2.0 - 3.0_f64.sqrt()).ln()).ceil();
        let found =
            Approximation::of_lowest_degree(&pole, on(UNIT), Method::Minimax, tolerance, 30).expect("reachable");
        assert_eq!(found.series.degree() as f64, degree);
        // Another method needs at least this degree, and the one below it does not do.
        let method = Method::Projection(Weight::Chebyshev);
        let other = Approximation::of_lowest_degree(&pole, on(UNIT), method, tolerance, 30).expect("reachable");
        assert!(other.errors.sup <= tolerance && other.series.degree() >= found.series.degree());
        let below = fit(&pole, UNIT, method, other.series.degree() - 1);
        assert!(below.errors.sup > tolerance);
    }
}

/// Products of ciphertexts, counted by hand.
#[test]
fn costs() {
    for (degree, horner, scheme) in [
        (0, (0, 0), (0, 0)),
        (1, (0, 0), (0, 0)),
        (2, (1, 1), (1, 1)),
        (3, (2, 2), (2, 2)),
        // z^2, then z^2 (z^2 + a z + b) + ...
        (4, (3, 3), (2, 2)),
        // Horner's rule in z^2: (z^2 (z + a) + b z + c) z^2 + ...
        (5, (4, 4), (3, 3)),
        (6, (5, 5), (3, 3)),
        // z^2, z^3, z^4 and z^4 (z^3 + ...) + ..., or z^4 (z^4 + ...) + ...
        (7, (6, 6), (3, 4)),
        (8, (7, 7), (3, 4)),
    ] {
        let circuit = |(depth, multiplications)| Circuit { depth, multiplications };
        assert_eq!(
            Cost::new(degree),
            Cost { horner: circuit(horner), paterson_stockmeyer: circuit(scheme) },
            "{degree}"
        );
    }
    for degree in 9..200_usize {
        let Circuit { depth, multiplications } = Cost::new(degree).paterson_stockmeyer;
        assert_eq!(depth, degree.next_power_of_two().ilog2() as usize);
        // No scheme does with fewer than sqrt(d) products (Paterson and Stockmeyer, 1973, theorem 2).
        assert!(multiplications as f64 >= (degree as f64).sqrt() - 1.0 && multiplications < degree, "{degree}");
    }
}
