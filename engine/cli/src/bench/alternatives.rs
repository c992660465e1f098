//! Whether the schedules that the planner chooses are the fastest of those that it finds.

use std::fmt::Write;
use std::num::NonZeroUsize;

use anyhow::{Context, Result};
use cryptodl_plan as plan;
use cryptodl_plan::PlanOptions;
use cryptodl_zoo as zoo;
use serde::Serialize;

use super::report::table;
use crate::classify::classify;
use crate::flags::{Execution, TestSeed};
use crate::memory::show_size;
use crate::prepared::Prepared;
use crate::progress::Bar;
use crate::report::{RunReport, percent};
use crate::samples::Samples;
use cryptodl::Machine;

/// What `bench --alternatives` writes.
#[derive(Serialize)]
pub struct Alternatives {
    pub version: &'static str,
    pub models: Vec<Model>,
}

/// The schedules of a model, the chosen one first, then in the order of their predicted time.
#[derive(Serialize)]
pub struct Model {
    pub model: String,
    pub schedules: Vec<Schedule>,
    /// Measured time of the chosen schedule by that of the fastest.
    pub chosen_by_fastest: f64,
}

/// A schedule, predicted and measured.
#[derive(Serialize)]
pub struct Schedule {
    pub schedule: String,
    /// What the planner compares: one core of its table's machine, upload and the client's work included.
    pub predicted_seconds: f64,
    /// As `run --json` writes it.
    pub run: RunReport,
}

impl Schedule {
    /// The least of all computations: what else runs on the machine only ever adds, and schedules that differ little are told
    /// apart.
    fn seconds(&self) -> f64 {
        self.run.compute_repetitions.iter().copied().fold(f64::INFINITY, f64::min)
    }
}

impl Alternatives {
    /// Classifies the first `images` test images with every schedule of every model, computing `repeat` times.
    pub fn measure(models: &[String], images: usize, repeat: NonZeroUsize, execution: &Execution) -> Result<Self> {
        let bar = Bar::new("bench");
        let mut measured = Vec::new();
        for (done, model) in models.iter().enumerate() {
            bar.show(done as u64, models.len() as u64);
            let network = zoo::load(model)?;
            let mut samples = Samples::load(&network, None, None)?;
            samples.truncate(images)?;
            let plans =
                plan::alternatives(&network, &PlanOptions::default()).with_context(|| format!("model {model}"))?;
            let mut schedules = Vec::new();
            for plan in plans {
                bar.say(format!("{model}: {}", plan.report.schedule));
                let (schedule, predicted_seconds) = (plan.report.schedule.clone(), plan.report.predicted_seconds);
                let prepared = Prepared::with_plan(network.clone().into(), plan, execution)?;
                let outcome = classify(&prepared, &samples, &TestSeed::default(), repeat)?;
                let run = RunReport::new(&prepared, &samples, &outcome);
                schedules.push(Schedule { schedule, predicted_seconds, run });
            }
            let fastest = schedules.iter().map(Schedule::seconds).fold(f64::INFINITY, f64::min);
            let chosen_by_fastest = schedules[0].seconds() / fastest;
            measured.push(Model { model: model.clone(), schedules, chosen_by_fastest });
        }
        Ok(Alternatives { version: env!("CARGO_PKG_VERSION"), models: measured })
    }

    /// As a Markdown document.
    pub fn text(&self) -> String {
        let mut text = format!("cryptodl {}; least times\n", self.version);
        for Model { model, schedules, chosen_by_fastest } in &self.models {
            let [chosen, ..] = &schedules[..] else { continue };
            let Machine { device, threads, kernels, .. } = &chosen.run.machine;
            let rows = schedules.iter().map(|schedule| {
                let beside_chosen = |of: fn(&Schedule) -> f64| format!("{:.2}", of(schedule) / of(chosen));
                vec![
                    schedule.schedule.clone(),
                    beside_chosen(|s| s.predicted_seconds),
                    beside_chosen(Schedule::seconds),
                    format!("{:.3} s", schedule.seconds()),
                    show_size(schedule.run.bytes.upload),
                    schedule.run.encrypted.accuracy.map_or(String::new(), percent),
                ]
            });
            let head = "schedule | predicted, of the chosen | measured, of the chosen | compute | upload | accuracy";
            write!(
                text,
                "\n{model}, {} images, {device}, {threads} thread(s), kernels: {kernels}: the chosen schedule (first) takes \
                 {chosen_by_fastest:.2} times as long as the fastest\n\n{}",
                chosen.run.images,
                table(head, rows)
            )
            .expect("strings grow");
        }
        text
    }
}
