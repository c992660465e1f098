//! `cryptodl models`.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Result;
use clap::Args;
use cryptodl_network::Network;
use cryptodl_plan::{Plan, PlanOptions, plan};
use cryptodl_program::Step;
use cryptodl_zoo as zoo;
use rayon::prelude::*;
use serde::Serialize;

use crate::json::Json;
use crate::progress::Bar;
use crate::report::percent;

/// List the shipped models with their accuracy and budget
///
/// The budget is that of the default planning flags. Every model is planned for it, which takes
/// seconds.
#[derive(Args)]
#[command(after_help = "\
Examples:
  cryptodl models
  cryptodl models --json -")]
pub struct Models {
    #[command(flatten)]
    json: Json,
}

#[derive(Serialize)]
struct Row {
    name: &'static str,
    title: String,
    dataset: Option<&'static str>,
    /// Of the float network on the test set, as its training recipe measured it.
    accuracy: Option<f64>,
    /// Of each activation.
    degrees: Vec<usize>,
    /// Products of ciphertexts one after the other.
    depth: usize,
    n: usize,
    limbs: usize,
    log_qp: f64,
    security_bits: u32,
    /// Per image, as executed.
    multiply_adds: u64,
    multiply_adds_published: u64,
}

impl Row {
    fn new(name: &'static str) -> Result<Self> {
        let network: Network = zoo::load(name)?;
        let Plan { program, report } = plan(&network, &PlanOptions::default())?;
        let activations = program.content.steps.iter().filter_map(|step| match step {
            Step::Activation { activation, .. } => Some((activation.degree, activation.maintenance.len())),
            Step::Linear { .. } | Step::Maintenance { .. } => None,
        });
        let (degrees, products): (Vec<usize>, Vec<usize>) = activations.unzip();
        Ok(Row {
            name,
            dataset: network.dataset.map(|id| id.name()),
            accuracy: network.accuracy.map(|accuracy| accuracy.share()),
            depth: products.iter().sum(),
            degrees,
            n: report.params.n,
            limbs: report.params.limbs,
            log_qp: report.params.log_qp,
            security_bits: report.params.security_bits,
            multiply_adds: report.segments.iter().map(|segment| segment.multiply_adds).sum(),
            multiply_adds_published: network.multiply_adds(),
            title: network.title.clone(),
        })
    }
}

impl Models {
    pub fn run(self) -> Result<()> {
        let (bar, names, done) = (Bar::new("models"), zoo::names(), AtomicU64::new(0));
        let row = |&name: &&'static str| {
            let row = Row::new(name);
            bar.show(1 + done.fetch_add(1, Ordering::Relaxed), names.len() as u64);
            row
        };
        let rows: Vec<Row> = names.par_iter().with_max_len(1).map(row).collect::<Result<_>>()?;
        drop(bar);
        self.json.create()?.show(&rows, || table(&rows))
    }
}

fn table(rows: &[Row]) -> String {
    let mut text = format!(
        "{:<26} {:<13} {:>8}  {:>11} {:>5} {:>6} {:>5} {:>8}\n",
        "model", "data set", "accuracy", "degrees", "depth", "N", "limbs", "log2 QP"
    );
    for row in rows {
        writeln!(
            text,
            "{:<26} {:<13} {:>8}  {:>11} {:>5} {:>6} {:>5} {:>8.1}",
            row.name,
            row.dataset.unwrap_or("its own"),
            row.accuracy.map_or("unknown".into(), percent),
            degrees(&row.degrees),
            row.depth,
            row.n,
            row.limbs,
            row.log_qp
        )
        .expect("a string takes everything");
    }
    text + "\n\
        accuracy   of the network in the clear, on the test images\n\
        degrees    of its activations\n\
        depth      multiplications of ciphertexts one after the other\n\
        N          slots of a ciphertext, which is how many images share a set\n\
        limbs      primes of the modulus; log2 QP is its size in bits, keys included\n\
        `cryptodl plan --model NAME` says more of one; --json has titles and operation counts.\n"
}

/// Degrees of activations, equal ones counted: `2`, `4, 4`, `6 x 2`.
fn degrees(degrees: &[usize]) -> String {
    let runs = degrees.chunk_by(|a, b| a == b);
    let shown = runs.map(|run| if run.len() == 1 { run[0].to_string() } else { format!("{} x {}", run.len(), run[0]) });
    shown.collect::<Vec<_>>().join(", ")
}
