//! `cryptodl approx`.

mod plot;
mod report;
mod samples;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Args;
use clap::builder::PossibleValuesParser;
use cryptodl_approx::{Activation, Approximation, DEFAULT_POINTS, Error, Function, Interval, Method, Weight};

use crate::files::{self, Access, Output, Written};
use crate::flags::one_of;
use crate::json::{Json, Timed};
use report::{LeftOut, Report, Row};

/// Approximate an activation by a polynomial, which is all that encrypted evaluation can compute
///
/// Prints the coefficients for a layer of kind `polynomial` (constant term first), how far the polynomial is from the
/// function on the interval, and what it costs under encryption: products of ciphertexts one after the other (depth) and
/// in all. Choose the interval that the layer's inputs fill: outside it a polynomial runs away.
#[derive(Args)]
#[command(after_help = HELP)]
pub struct Approx {
    /// What to approximate
    #[arg(long, value_parser = PossibleValuesParser::new(Activation::ALL.map(Activation::name)), required_unless_present = "samples")]
    function: Option<String>,
    /// Approximate measured points instead: a CSV file of lines `x,y`, in any order
    #[arg(long, value_name = "FILE", conflicts_with = "function")]
    samples: Option<PathBuf>,
    /// How to choose the polynomial, explained below; several with commas, or `all`
    #[arg(long, value_delimiter = ',', default_value = "chebyshev", value_parser = method_names())]
    method: Vec<String>,
    /// Degree of the polynomial; several with commas
    #[arg(long, value_name = "D", value_delimiter = ',', required_unless_present = "error")]
    degree: Vec<usize>,
    /// Instead of a degree, the largest error to allow anywhere on the interval: takes the lowest degree that keeps it
    #[arg(long, value_name = "E", conflicts_with = "degree")]
    error: Option<f64>,
    /// Where to give up with --error
    #[arg(long, value_name = "D", default_value_t = 32, requires = "error")]
    max_degree: usize,
    /// Where to approximate, as LOW,HIGH [default: the range of --samples]
    #[arg(long, value_name = "A,B", allow_hyphen_values = true, value_parser = interval, required_unless_present = "samples")]
    interval: Option<[f64; 2]>,
    /// Points at equal distances that `numerical` fits when it has a function
    #[arg(long, value_name = "N", default_value_t = DEFAULT_POINTS)]
    points: usize,
    /// Where `taylor` expands [default: 0 if it is in the interval, else the middle]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    at: Option<f64>,
    /// Standard deviation of `gaussian` [default: a sixth of the interval]
    #[arg(long, value_name = "S")]
    sigma: Option<f64>,
    /// Measure in which `derivative` fits the derivative
    #[arg(long, value_name = "MEASURE", default_value = "chebyshev", value_parser = one_of(FITS))]
    derivative_fit: Fit,
    /// Draw the function and its approximations
    #[arg(long, value_name = "FILE.svg", value_parser = svg_path)]
    plot: Option<PathBuf>,
    #[command(flatten)]
    json: Json,
}

const HELP: &str = "\
Methods (the paper is CryptoDL, section 3.2):
  numerical           least squares on points (method 1)
  taylor              Taylor polynomial (method 2); for ReLU, which has none at 0, Softplus's
  chebyshev           least squares with weight 1/sqrt(1-x^2), stretched to the interval
                      (method 3): good everywhere, a good first choice
  modified-chebyshev  weight exp(-1/(1e-5+x^2)); for Sigmoid and Tanh exp(-(l/x)^2) (method 4)
  derivative          fits the derivative, for ReLU a Sigmoid, and integrates (method 5)
  legendre            least squares, all of the interval alike
  gaussian            least squares for inputs that batch normalisation gathers in the middle
  minimax             the smallest largest error, with a proof that no polynomial has less

On an interval symmetric about 0, ReLU, Swish, Softplus and GELU are x/2 plus an even function,
Sigmoid and Tanh a constant plus an odd one, so every second degree adds nothing. The reported
degree is then lower than the requested one.

Examples:
  cryptodl approx --function relu --method derivative --degree 4 --interval=-5,5
  cryptodl approx --function tanh --method all --degree 3 --interval=-3,3 --plot tanh.svg
  cryptodl approx --function swish --method minimax --error 0.01 --interval=-6,6
  cryptodl approx --samples measured.csv --method numerical --degree 3";

#[derive(Clone, Copy)]
enum Fit {
    Legendre,
    Chebyshev,
    Modified,
    Gaussian,
}

const FITS: [(&str, Fit); 4] = [
    ("legendre", Fit::Legendre),
    ("chebyshev", Fit::Chebyshev),
    ("modified-chebyshev", Fit::Modified),
    ("gaussian", Fit::Gaussian),
];

impl Approx {
    pub fn run(self) -> Result<()> {
        let outputs: Vec<&Path> = self.plot.as_deref().into_iter().chain(self.json.path()).collect();
        let inputs: Vec<&Path> = self.samples.as_deref().into_iter().collect();
        files::distinct(&outputs, &inputs)?;
        let function = self.function()?;
        let interval = self.interval(&function)?;
        let plot = self.plot.as_deref().map(|path| Output::create(path, Access::Everybody)).transpose()?;
        let (json, start) = (self.json.create()?, Instant::now());
        let report = self.report(&function, interval)?;
        let timed = Timed::since(start, "compute", &report);
        if let Some(file) = plot {
            let drawing = plot::draw(&report, &function)?;
            file.write(|file| file.write_all(drawing.as_bytes()))?;
        }
        let files: Vec<Written> = self.plot.iter().map(|path| Written::at(path, "")).collect();
        json.show(&timed, || report.to_string() + &files::listed(&files))
    }

    fn function(&self) -> Result<Function> {
        match (&self.function, &self.samples) {
            (Some(name), _) => Ok(name.parse::<Activation>()?.into()),
            (None, Some(path)) => Ok(Function::sampled(path.display().to_string(), samples::read(path)?)),
            (None, None) => bail!("--function or --samples is needed"),
        }
    }

    fn interval(&self, function: &Function) -> Result<Interval> {
        let range = function.samples().map(|samples| samples.range().into());
        let [low, high] = self.interval.or(range).context("--interval is needed")?;
        Ok(Interval::new(low, high)?)
    }

    fn report(&self, function: &Function, interval: Interval) -> Result<Report> {
        let (mut rows, mut left_out) = (Vec::new(), Vec::new());
        let all = self.method.iter().any(|name| name == "all");
        let names: Vec<&str> =
            if all { Method::NAMES.to_vec() } else { self.method.iter().map(String::as_str).collect() };
        for name in names {
            let method = self.method(name, function)?;
            match self.approximations(function, interval, method) {
                Ok(found) => rows.extend(found),
                // Asked for by name it is an error.
                Err(reason) if all => left_out.push(LeftOut { method: method.name(), reason }),
                Err(error) => return Err(error).context(format!("{} by method {name}", function.name())),
            }
        }
        if let (true, Some(first)) = (rows.is_empty(), left_out.first()) {
            bail!("no method approximates {}: {}: {}", function.name(), first.method, first.reason);
        }
        Ok(Report::new(function.name().into(), interval, rows, left_out))
    }

    fn approximations(&self, function: &Function, interval: Interval, method: Method) -> Result<Vec<Row>, Error> {
        if let Some(tolerance) = self.error {
            let found = Approximation::of_lowest_degree(function, interval, method, tolerance, self.max_degree)?;
            return Ok(vec![Row::new(found)?]);
        }
        let each = |&degree: &usize| Row::new(Approximation::new(function, interval, method, degree)?);
        self.degree.iter().map(each).collect()
    }

    /// The method of this name with the settings of the flags.
    fn method(&self, name: &str, function: &Function) -> Result<Method, Error> {
        let gaussian = Weight::Gaussian { sigma: self.sigma };
        Ok(match Method::from_name(name, function)? {
            Method::Numerical { .. } if function.samples().is_none() => Method::Numerical { points: self.points },
            Method::Taylor { .. } => Method::Taylor { at: self.at },
            Method::Projection(Weight::Gaussian { .. }) => Method::Projection(gaussian),
            Method::Derivative(_) => Method::Derivative(match self.derivative_fit {
                Fit::Legendre => Weight::Legendre,
                Fit::Chebyshev => Weight::Chebyshev,
                // What is fitted is a Sigmoid or like one.
                Fit::Modified => Weight::ModifiedSigmoid,
                Fit::Gaussian => gaussian,
            }),
            other => other,
        })
    }
}

fn method_names() -> PossibleValuesParser {
    PossibleValuesParser::new(Method::NAMES.iter().copied().chain(["all"]))
}

fn interval(text: &str) -> Result<[f64; 2], String> {
    let number = |text: &str| text.trim().parse::<f64>().ok();
    let ends = text.split_once(',').and_then(|(low, high)| Some([number(low)?, number(high)?]));
    ends.ok_or_else(|| "two numbers with a comma between are needed, such as -5,5".into())
}

fn svg_path(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    let svg = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("svg"));
    svg.then_some(path).ok_or_else(|| "the drawing is SVG: a name that ends in .svg is needed".into())
}
