//! `approx`.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::support::{fail, json, names, succeed};

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().expect("a list").iter().map(|number| number.as_f64().expect("a number")).collect()
}

/// The paper's five methods on one interval: the layout that training recipes read, with values of closed forms.
#[test]
fn the_papers_methods() {
    let methods = "numerical,taylor,chebyshev,modified-chebyshev,derivative";
    let report =
        json(Path::new("."), &format!("approx --function relu --method {methods} --degree 2,4 --interval=-4,4"));
    assert_eq!((report["function"].as_str(), numbers(&report["interval"])), (Some("relu"), vec![-4.0, 4.0]));
    let rows = report["approximations"].as_array().expect("a list");
    let place = |row: &Value| format!("{} {}", row["method"].as_str().expect("a name"), row["degree"]);
    let places: Vec<String> = rows.iter().map(place).collect();
    let expected: Vec<String> = methods.split(',').flat_map(|m| [format!("{m} 2"), format!("{m} 4")]).collect();
    assert_eq!(places, expected);
    for row in rows {
        let degree = row["degree"].as_u64().expect("a number");
        let coefficients = numbers(&row["coefficients"]);
        assert_eq!(coefficients.len() as u64, degree + 1);
        assert!((coefficients[1] - 0.5).abs() < 1e-12, "{row}");
        assert_eq!(row["cost"]["horner"]["depth"], degree - 1);
        assert_eq!(row["cost"]["paterson_stockmeyer"]["depth"], degree / 2);
        let sup = row["errors"]["sup"].as_f64().expect("a number");
        assert!(sup > row["errors"]["l2"].as_f64().expect("a number") && sup < 1.0, "{row}");
        // At 0, in the middle of a kink, no polynomial of a low degree is right.
        assert!(row["errors"]["derivative_sup"].as_f64().expect("a number") >= 0.499, "{row}");
    }
    let chebyshev = numbers(&rows[4]["coefficients"]);
    assert!((chebyshev[0] - 4.0 / (3.0 * std::f64::consts::PI)).abs() < 1e-13);
    assert_eq!(numbers(&rows[2]["coefficients"]), [std::f64::consts::LN_2, 0.5, 0.125]);
}

#[test]
fn the_lowest_degree_for_an_error() {
    let request = "approx --function tanh --interval=-2,2 --method minimax";
    let report = json(Path::new("."), &format!("{request} --error 0.01"));
    let row = &report["approximations"][0];
    let (degree, sup) = (row["degree"].as_u64().expect("a number"), row["errors"]["sup"].as_f64().expect("a number"));
    assert!(sup <= 0.01 && row["alternation"]["lower"].as_f64().expect("a bound") <= sup);
    assert!(report["notes"].as_array().is_some_and(Vec::is_empty) && row["plannable"] == true, "{report}");
    // A degree that the planner refuses is told.
    let high = "approx --function relu --interval=-5,5 --method minimax --error 0.05";
    let too_high = json(Path::new("."), high);
    let row = &too_high["approximations"][0];
    assert!(row["degree"].as_u64().is_some_and(|degree| degree > 8) && row["plannable"] == false, "{row}");
    let note = format!("note: a network with an activation of degree {} is refused by the planner", row["degree"]);
    assert!(succeed(Path::new("."), high).contains(&note), "{note}");
    // Odd, so two degrees lower is the next that differs.
    let below = json(Path::new("."), &format!("{request} --degree {}", degree - 2));
    assert!(below["approximations"][0]["alternation"]["lower"].as_f64().expect("a bound") > 0.01);
}

#[test]
fn a_drawing_and_a_table() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let text = succeed(
        folder.path(),
        "approx --function relu --method all --degree 3 --interval -4,4 --plot relu.svg --json relu.json",
    );
    for part in [
        "relu on [-4, 4]",
        "modified-chebyshev",
        "derivative (chebyshev)",
        "coefficients = [",
        "Horner",
        "vanish",
        "wrote relu.svg",
    ] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    assert_eq!(names(folder.path()), ["relu.json", "relu.svg"]);
    let svg = fs::read_to_string(folder.path().join("relu.svg")).expect("text");
    assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
    // Title, axes, and a legend entry and a curve for the function and each of the eight methods.
    for part in ["relu on [-4, 4]", ">\nx\n<", "value", "error", "taylor, degree 2", "minimax, degree 2"] {
        assert!(svg.contains(part), "{part} in\n{svg}");
    }
    // The function once, every approximation and its error, and all but the errors in the key.
    assert!(svg.matches("<polyline").count() >= 1 + 2 * 8 + 9, "{svg}");
}

/// Measured points: the file in any order, with a line of names.
#[test]
fn sampled_functions() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut csv = String::from("# a cubic\nx,y\n");
    for i in (0..40).rev() {
        let x = f64::from(i) / 10.0 - 2.0;
        writeln!(csv, "{x}, {}", 1.0 - x + 0.5 * x * x * x).expect("a string takes everything");
    }
    fs::write(folder.path().join("cubic.csv"), csv).expect("written");
    let report = json(folder.path(), "approx --samples cubic.csv --method numerical --degree 3");
    assert_eq!(numbers(&report["interval"]), [-2.0, 1.9]);
    let found = numbers(&report["approximations"][0]["coefficients"]);
    found.iter().zip([1.0, -1.0, 0.0, 0.5]).for_each(|(found, expected)| assert!((found - expected).abs() < 1e-12));
    // Of all methods the one that cannot do it is left out, with the reason; by name it is an error.
    let all = json(folder.path(), "approx --samples cubic.csv --method all --degree 3");
    assert_eq!(all["left_out"][0]["method"], "taylor");
    assert_eq!(all["approximations"].as_array().map(Vec::len), Some(7));
    let error = fail(folder.path(), "approx --samples cubic.csv --method taylor --degree 3", 1);
    assert!(error.contains("no Taylor series"), "{error}");

    for (contents, fragment) in [
        ("0,1\n", "too few"),
        ("0,1\n1;2\n", "line 2: `1;2`"),
        ("0,1\n1,2\nnan,3\n", "finite"),
        ("0,1\n1,2\n1,3\n", "ascend strictly"),
        ("0,1\n1,2\n2,2\n", "3 samples in the interval are too few: 4"),
    ] {
        fs::write(folder.path().join("bad.csv"), contents).expect("written");
        let error = fail(folder.path(), "approx --samples bad.csv --method numerical --degree 3", 1);
        assert!(error.contains(fragment), "{fragment} in {error}");
    }
    let error = fail(folder.path(), "approx --samples cubic.csv --degree 3 --json cubic.csv", 1);
    assert!(error.contains("named twice"), "{error}");
}

#[test]
fn bad_requests() {
    let here = Path::new(".");
    for (arguments, fragment) in [
        ("--degree 0 --interval=-1,1", "1 to 128"),
        ("--degree 129 --interval=-1,1", "1 to 128"),
        ("--degree 60 --interval=-1,1", "too high for stable monomial coefficients"),
        ("--degree 2 --interval=1,1", "is no interval"),
        ("--degree 2 --interval=1,-1", "is no interval"),
        ("--degree 2 --interval=-1,inf", "is no interval"),
        ("--degree 2 --interval=nan,1", "is no interval"),
        ("--error 1e-9 --interval=-1,1 --max-degree 8", "no degree up to 8 reaches"),
        ("--error 0 --interval=-1,1", "above 0"),
        ("--degree 3 --points 3 --interval=-1,1 --method numerical", "too few: 4"),
        ("--degree 3 --sigma 0 --interval=-1,1 --method gaussian", "sigma 0"),
        ("--degree 3 --at inf --interval=-1,1 --method taylor", "no point to expand at"),
    ] {
        let error = fail(here, &format!("approx --function relu {arguments}"), 1);
        assert!(error.contains(fragment), "{arguments}: {fragment} in {error}");
    }
}
