//! What `approx` tells.

use std::collections::BTreeSet;
use std::fmt;

use cryptodl_approx::{Alternation, Approximation, Cost, Error, Errors, Interval, Monomial};
use cryptodl_program::MAX_DEGREE;
use serde::{Serialize, Serializer};

use crate::terminal::wrapped;

#[derive(Serialize)]
pub struct Report {
    pub function: String,
    pub interval: Interval,
    pub approximations: Vec<Row>,
    /// Methods of `all` that cannot meet the request.
    pub left_out: Vec<LeftOut>,
    /// What should be known of the approximations.
    pub notes: Vec<String>,
}

#[derive(Serialize)]
pub struct LeftOut {
    pub method: &'static str,
    #[serde(serialize_with = "as_text")]
    pub reason: Error,
}

/// One approximation.
#[derive(Serialize)]
pub struct Row {
    pub method: &'static str,
    /// The method with its settings.
    pub description: String,
    pub requested_degree: usize,
    /// Whether the planner takes an activation of this degree.
    pub plannable: bool,
    /// Of the coefficients: less than requested where the leading ones vanish.
    pub degree: usize,
    #[serde(flatten)]
    pub monomial: Monomial,
    pub errors: Errors,
    pub cost: Cost,
    /// The proof of minimax.
    pub alternation: Option<Alternation>,
}

impl Row {
    pub fn new(found: Approximation) -> Result<Self, Error> {
        let monomial = found.monomial()?;
        Ok(Row {
            method: found.method.name(),
            description: found.method.to_string(),
            requested_degree: found.series.degree(),
            plannable: (2..=MAX_DEGREE).contains(&monomial.degree()),
            degree: monomial.degree(),
            cost: Cost::new(monomial.degree()),
            monomial,
            errors: found.errors,
            alternation: found.alternation,
        })
    }
}

/// Columns of a report.
const WIDTH: usize = 100;

impl Report {
    /// With notes on degrees that cannot be planned.
    pub fn new(function: String, interval: Interval, approximations: Vec<Row>, left_out: Vec<LeftOut>) -> Self {
        let degrees: BTreeSet<usize> =
            approximations.iter().filter(|row| !row.plannable).map(|row| row.degree).collect();
        let degrees = degrees.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let note = format!(
            "a network with an activation of degree {degrees} is refused by the planner, which takes 2 to {MAX_DEGREE}: allow a \
             larger error or narrow the interval"
        );
        let notes = if degrees.is_empty() { Vec::new() } else { vec![note] };
        Report { function, interval, approximations, left_out, notes }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} on [{}, {}]\n", self.function, self.interval.low(), self.interval.high())?;
        let width = self.approximations.iter().map(|row| row.description.len()).max().unwrap_or(0).max(6);
        writeln!(
            f,
            "{:<width$} {:>6} {:>12} {:>12} {:>12} {:>12} {:>7} {:>7}",
            "method", "degree", "largest err", "rms error", "slope: max", "slope: rms", "Horner", "P.-S."
        )?;
        for row in &self.approximations {
            let Row { errors, cost, .. } = row;
            let slope = |error: Option<f64>| error.map_or("unknown".into(), number);
            let circuit = |c: cryptodl_approx::Circuit| format!("{}/{}", c.depth, c.multiplications);
            writeln!(
                f,
                "{:<width$} {:>6} {:>12} {:>12} {:>12} {:>12} {:>7} {:>7}",
                row.description,
                row.degree,
                number(errors.sup),
                number(errors.l2),
                slope(errors.derivative_sup),
                slope(errors.derivative_l2),
                circuit(cost.horner),
                circuit(cost.paterson_stockmeyer)
            )?;
        }
        writeln!(f, "\nslope: error of the derivative. Horner, P.-S. (Paterson and Stockmeyer): depth/products of")?;
        writeln!(f, "ciphertexts with this scheme; the planner chooses.")?;
        for note in &self.notes {
            writeln!(f, "{}", wrapped(&format!("note: {note}"), WIDTH, "      "))?;
        }
        for row in &self.approximations {
            write!(f, "\n# {}, degree {}", row.description, row.degree)?;
            if row.degree < row.requested_degree {
                write!(f, ": the terms above it, up to {}, vanish", row.requested_degree)?;
            }
            if let Some(alternation) = &row.alternation {
                let (degree, lower) = (row.requested_degree, number(alternation.lower));
                write!(f, "\n# no polynomial of degree {degree} has a largest error below {lower}")?;
            }
            let coefficients = format!("coefficients = {:?}", row.monomial.coefficients);
            writeln!(f, "\n{}", wrapped(&coefficients, WIDTH, "    "))?;
        }
        for LeftOut { method, reason } in &self.left_out {
            writeln!(f, "\nleft out: {method}: {reason}")?;
        }
        Ok(())
    }
}

fn as_text<S: Serializer>(error: &Error, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(error)
}

/// Six decimals, or a power of ten where they would say little.
fn number(value: f64) -> String {
    if value == 0.0 || (1e-4..1e5).contains(&value) { format!("{value:.6}") } else { format!("{value:.3e}") }
}
