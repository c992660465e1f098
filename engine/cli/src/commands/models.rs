//! `cryptodl models`.

use std::fmt::Write as _;

use anyhow::Result;
use clap::Args;
use cryptodl_network::Network;
use cryptodl_plan::{Plan, PlanOptions, plan};
use cryptodl_program::Step;
use cryptodl_zoo as zoo;
use serde::Serialize;

use crate::json::Json;
use crate::report::percent;

/// List the shipped models with their accuracy and budget
///
/// The budget is that of the default planning flags.
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
        let rows: Vec<Row> = zoo::names().iter().copied().map(Row::new).collect::<Result<_>>()?;
        self.json.create()?.show(&rows, || table(&rows))
    }
}

fn table(rows: &[Row]) -> String {
    let mut text = format!(
        "{:<16} {:>9} {:>8} {:>6} {:>6} {:>6} {:>8} {:>13} {:>11}  title\n",
        "model", "accuracy", "degrees", "depth", "N", "limbs", "log2 QP", "multiply-adds", "(published)"
    );
    for row in rows {
        let degrees: Vec<String> = row.degrees.iter().map(ToString::to_string).collect();
        writeln!(
            text,
            "{:<16} {:>9} {:>8} {:>6} {:>6} {:>6} {:>8.1} {:>13} {:>11}  {}",
            row.name,
            row.accuracy.map_or("unknown".into(), percent),
            degrees.join(","),
            row.depth,
            row.n,
            row.limbs,
            row.log_qp,
            row.multiply_adds,
            row.multiply_adds_published,
            row.title
        )
        .expect("a string takes everything");
    }
    text
}
