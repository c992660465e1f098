//! Against results of other algorithms in 50 digits: golden.py made golden.json.

use cryptodl_approx::{Activation, Approximation, Function, Interval, Method, Weight};
use serde_json::Value;

fn golden(key: &str) -> Vec<Value> {
    let golden: Value = serde_json::from_str(include_str!("golden.json")).expect("JSON");
    golden[key].as_array().expect("a list").clone()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().expect("a list").iter().map(|number| number.as_f64().expect("a number")).collect()
}

fn activation(case: &Value) -> Activation {
    case["function"].as_str().expect("a name").parse().expect("an activation")
}

#[test]
fn approximations() {
    let cases = golden("approximations");
    assert!(cases.len() > 40);
    for case in cases {
        let function: Function = activation(&case).into();
        let name = case["method"].as_str().expect("a name");
        let method = match (Method::from_name(name, &function).expect("a method"), case["weight"].as_str()) {
            (Method::Numerical { .. }, _) => {
                Method::Numerical { points: case["points"].as_u64().expect("a count") as usize }
            }
            (Method::Derivative(_), Some("modified-chebyshev")) => Method::Derivative(Weight::ModifiedSigmoid),
            (Method::Derivative(_), Some("legendre")) => Method::Derivative(Weight::Legendre),
            (method, _) => method,
        };
        let [low, high] = numbers(&case["interval"])[..] else { panic!("{case}") };
        let degree = case["degree"].as_u64().expect("a degree") as usize;
        let found =
            Approximation::new(&function, Interval::new(low, high).expect("proper"), method, degree).expect("proper");
        let coefficients = found.monomial().expect("stable").coefficients;
        let magnitude = low.abs().max(high.abs());
        // Minimax coefficients are as flat around the optimum as its error is known.
        let tolerance = if method == Method::Minimax { 1e-7 } else { 2e-13 };
        for (k, expected) in numbers(&case["coefficients"]).into_iter().enumerate() {
            let found = coefficients.get(k).copied().unwrap_or(0.0);
            let difference = (found - expected).abs() * magnitude.powi(k as i32) / magnitude.max(1.0);
            assert!(difference <= tolerance, "{case}\n{k}: {found} is not {expected}: {difference:e}");
        }
        if let Some(sup) = case["sup"].as_f64() {
            assert!((found.errors.sup - sup).abs() <= 1e-9 * sup, "{case}: {}", found.errors.sup);
        }
    }
}

#[test]
fn taylor_series() {
    for case in golden("taylor") {
        let expected = numbers(&case["coefficients"]);
        let found =
            activation(&case).taylor(case["at"].as_f64().expect("a point"), expected.len() - 1).expect("smooth");
        for (found, expected) in found.iter().zip(&expected) {
            assert!((found - expected).abs() <= 2e-15, "{case}: {found} is not {expected}");
        }
    }
}

#[test]
fn values_and_slopes() {
    for case in golden("values") {
        let x = case["x"].as_f64().expect("a point");
        for (key, found) in [("value", activation(&case).value(x)), ("slope", activation(&case).derivative(x))] {
            let expected = case[key].as_f64().expect("a number");
            // Where the distribution function is small its argument's rounding counts.
            let tolerance = 1e-14 * expected.abs() * (1.0 + x * x) + 1e-300;
            assert!((found - expected).abs() <= tolerance, "{case}: {key} {found}");
        }
    }
}
