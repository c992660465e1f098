//! `cryptodl demo`.

use std::num::NonZeroUsize;

use anyhow::Result;
use clap::Args;
use cryptodl_plan::PlanOptions;
use ndarray::Axis;

use crate::classify::classify;
use crate::flags::{Execution, TestSeed};
use crate::json::Json;
use crate::prepared::Prepared;
use crate::report::RunReport;
use crate::samples::Samples;

const MODEL: &str = "mnist-1";
const IMAGES: usize = 8192;
/// Digits that are drawn, and how many side by side.
const DRAWN: usize = 6;
const PER_ROW: usize = 3;

/// See it work: real digits, classified under encryption
///
/// Fetches the MNIST test images if they are absent, generates keys, encrypts the images, classifies them with the
/// shipped model mnist-1, decrypts the labels, and shows times, sizes, accuracies and some of the digits.
#[derive(Args)]
#[command(after_help = "\
Example:
  cryptodl demo

To go on: `cryptodl run --help` for other models and images, `cryptodl --help` for client and server apart.")]
pub struct Demo {
    #[command(flatten)]
    json: Json,
    #[command(flatten)]
    execution: Execution,
}

impl Demo {
    pub fn run(self) -> Result<()> {
        let prepared = Prepared::new(MODEL, &PlanOptions::default(), &self.execution)?;
        let mut samples = Samples::load(prepared.network(), None, None)?;
        samples.truncate(IMAGES)?;
        let json = self.json.create()?;
        let outcome = classify(&prepared, &samples, &TestSeed::default(), NonZeroUsize::MIN)?;
        let report = RunReport::new(&prepared, &samples, &outcome);
        json.show(&report, || format!("{report}{}", digits(&samples, &outcome.decrypted.labels)))
    }
}

/// The first digits, and in the last place one that was misread, if any was.
fn digits(samples: &Samples, predicted: &[u32]) -> String {
    let truth = samples.labels.as_deref().unwrap_or_default();
    let misread = predicted.iter().zip(truth).position(|(&predicted, &truth)| predicted != u32::from(truth));
    let chosen: Vec<usize> = (0..DRAWN - 1).chain([misread.unwrap_or(DRAWN - 1).max(DRAWN - 1)]).collect();
    let captions = |&i: &usize| {
        let verdict = if predicted[i] == u32::from(truth[i]) { "" } else { "  wrong" };
        format!("encrypted {}, true {}{verdict}", predicted[i], truth[i])
    };
    let rows = chosen.chunks(PER_ROW).map(|row| {
        let drawn: Vec<Vec<String>> = row.iter().map(|&i| draw(samples.values.index_axis(Axis(0), i))).collect();
        let lines = (0..drawn[0].len()).map(|y| drawn.iter().map(|digit| digit[y].as_str()).collect::<String>());
        let captions: String = row.iter().map(|i| format!("{:<28}", captions(i))).collect();
        lines.chain([captions]).map(|line| format!("{}\n", line.trim_end())).collect::<String>()
    });
    rows.map(|row| format!("\n{row}")).collect()
}

/// Two pixels per character.
fn draw(image: ndarray::ArrayView3<'_, f32>) -> Vec<String> {
    let (_, height, width) = image.dim();
    let ink = |y: usize, x: usize| image.get((0, y, x)).is_some_and(|&value| value > 0.5);
    let glyph = |y: usize, x: usize| match (ink(y, x), ink(y + 1, x)) {
        (true, true) => '█',
        (true, false) => '▀',
        (false, true) => '▄',
        (false, false) => ' ',
    };
    (0..height).step_by(2).map(|y| (0..width).map(|x| glyph(y, x)).collect()).collect()
}
