//! What `approx` tells.

use std::fmt;

use cryptodl_approx::{Alternation, Approximation, Cost, Error, Errors, Interval, Monomial};
use serde::{Serialize, Serializer};

#[derive(Serialize)]
pub struct Report {
    pub function: String,
    pub interval: Interval,
    pub approximations: Vec<Row>,
    /// Methods of `all` that cannot meet the request.
    pub left_out: Vec<LeftOut>,
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
            degree: monomial.degree(),
            cost: Cost::new(monomial.degree()),
            monomial,
            errors: found.errors,
            alternation: found.alternation,
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} on [{}, {}]\n", self.function, self.interval.low(), self.interval.high())?;
        let width = self.approximations.iter().map(|row| row.description.len()).max().unwrap_or(0).max(6);
        writeln!(
            f,
            "{:<width$} {:>6} {:>11} {:>11} {:>11} {:>11} {:>15} {:>20}",
            "method",
            "degree",
            "largest err",
            "rms error",
            "slope: max",
            "slope: rms",
            "Horner d/mults",
            "Paterson-St. d/mults"
        )?;
        for row in &self.approximations {
            let Row { errors, cost, .. } = row;
            let slope = |error: Option<f64>| error.map_or("unknown".into(), number);
            let circuit = |c: cryptodl_approx::Circuit| format!("{}/{}", c.depth, c.multiplications);
            writeln!(
                f,
                "{:<width$} {:>6} {:>11} {:>11} {:>11} {:>11} {:>15} {:>20}",
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
        for row in &self.approximations {
            write!(f, "\n# {}, degree {}", row.description, row.degree)?;
            if row.degree < row.requested_degree {
                write!(f, ": the terms above it, up to {}, vanish", row.requested_degree)?;
            }
            if let Some(alternation) = &row.alternation {
                write!(
                    f,
                    "; no polynomial of degree {} has a largest error below {:e}",
                    row.requested_degree, alternation.lower
                )?;
            }
            writeln!(f, "\ncoefficients = {:?}", row.monomial.coefficients)?;
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
