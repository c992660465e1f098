//! The report of a benchmark.

use std::fmt::Write;

use cryptodl_core::backend::{Ceiling, Ceilings};
use serde::Serialize;

use super::kernels::Row;
use super::models::EndToEnd;
use super::published::{PUBLISHED, Published, comparable};
use crate::memory::show_size;
use crate::report::percent;
use cryptodl::Machine;

/// What `bench --json` writes.
#[derive(Serialize)]
pub struct Report {
    pub version: &'static str,
    #[serde(flatten)]
    pub machine: Machine,
    /// Whose clock `seconds` of the rows are by, but those of the client: `device` or `host`.
    pub clock: &'static str,
    pub ceilings: Ceilings,
    pub rows: Vec<Row>,
    pub models: Vec<EndToEnd>,
    /// What papers report.
    pub published: &'static [Published],
    /// What was left out, and why.
    pub skipped: Vec<String>,
}

impl Report {
    /// With the published figures.
    pub fn new(
        machine: Machine,
        clock: &'static str,
        ceilings: Ceilings,
        rows: Vec<Row>,
        models: Vec<EndToEnd>,
        skipped: Vec<String>,
    ) -> Self {
        let version = env!("CARGO_PKG_VERSION");
        Report { version, machine, clock, ceilings, rows, models, published: &PUBLISHED, skipped }
    }

    /// As a Markdown document, which people can read on a terminal, too.
    pub fn text(&self) -> String {
        let Machine { backend, kernels, device, threads } = &self.machine;
        let mut text =
            format!("cryptodl {} on {backend}: {device}, {threads} thread(s); kernels: {kernels}\n", self.version);
        let left_out: String = self.skipped.iter().map(|skipped| format!("Left out: {skipped}\n")).collect();
        let sections = [self.ceilings(), self.models(), self.kernels(), left_out];
        for section in sections.iter().filter(|section| !section.is_empty()) {
            text += &format!("\n{}\n", section.trim_end());
        }
        text
    }

    fn ceilings(&self) -> String {
        let Ceilings { copy, multiply_add, linear } = &self.ceilings;
        let named =
            [("copy", "B", copy), ("32-bit multiply-add", "", multiply_add), ("linear maps' operations", "", linear)];
        let rows = named.map(|(name, unit, Ceiling { per_second, how })| {
            vec![name.into(), format!("{}{unit}", si(*per_second)), (*how).into()]
        });
        table("ceiling | per second | how", rows)
    }

    fn kernels(&self) -> String {
        if self.rows.is_empty() {
            return String::new();
        }
        let rows = self.rows.iter().map(|row| {
            vec![
                row.kernel.into(),
                row.shape.clone(),
                format!("{}s", si(1e-9 * row.nanoseconds_per_item)),
                format!("per {}", row.item),
                format!("{}B", si(row.bytes_per_second)),
                row.copy_share.map_or(String::new(), share),
                row.multiply_adds_per_second.map_or(String::new(), si),
                row.arithmetic_share.map_or(String::new(), share),
            ]
        });
        let header = "kernel | shape | time | | bytes/s | of copy | multiply-adds/s | of ceiling";
        format!(
            "Median times by the {}'s clock; encryption and decryption are the host's\n\n{}",
            self.clock,
            table(header, rows)
        )
    }

    /// Models, beside PyTorch and beside papers, then their parts.
    fn models(&self) -> String {
        if self.models.is_empty() {
            return String::new();
        }
        let rows = self.models.iter().map(|model| {
            let (run, stages) = (&model.run, &model.run.seconds.stages);
            vec![
                format!("`{}`, {}", run.model, model.schedule),
                run.images.to_string(),
                format!("{:.3} s", stages.encrypt),
                format!("{:.3} s", stages.compute),
                format!("{:.3} s", stages.decrypt),
                format!("{:.0}", run.images_per_second),
                accuracy(run.encrypted.accuracy),
                accuracy(run.plaintext.accuracy),
                percent(run.agreement),
                run.peak_rss_bytes.map_or(String::new(), show_size),
                share(model.roofline),
                model.of_plaintext.map_or(String::new(), |share| format!("{share:.2}")),
            ]
        });
        let header = "model | images | encrypt | compute | decrypt | images/s | accuracy | plaintext | labels agree | peak memory \
                      | of roofline | of PyTorch's time";
        let mut text = table(header, rows);
        text += &self.plaintext();
        text += &self.published();
        for model in &self.models {
            let rows = model.parts.iter().map(|part| {
                let counted = part.multiply_adds > 0;
                vec![
                    part.name.clone(),
                    format!("{:.4} s", part.seconds),
                    if counted { si(part.multiply_adds_per_second) } else { String::new() },
                    if counted { share(part.arithmetic_share) } else { String::new() },
                    format!("{}B", si(part.bytes as f64)),
                    format!("{:.4} s", part.attainable_seconds),
                    share(part.roofline),
                ]
            });
            let header = "part | time | multiply-adds/s | of ceiling | bytes | attainable | of roofline";
            text += &format!("\n`{}`, {}\n\n{}", model.run.model, model.schedule, table(header, rows));
        }
        text
    }

    fn plaintext(&self) -> String {
        let measured = self.models.iter().filter_map(|model| Some((model, model.plaintext.as_ref()?)));
        let rows: Vec<_> = measured
            .flat_map(|(model, plaintext)| {
                plaintext.peers.iter().map(move |peer| {
                    vec![
                        format!("`{}`, beside {}", model.run.model, model.schedule),
                        format!("PyTorch {} {}", plaintext.torch, peer.name()),
                        format!("{:.3} s", peer.seconds),
                        format!("{:.0}", model.run.images as f64 / peer.seconds),
                        accuracy(peer.accuracy()),
                    ]
                })
            })
            .collect();
        match rows.is_empty() {
            true => String::new(),
            false => format!("\n{}", table("plaintext | how | time | images/s | accuracy", rows)),
        }
    }

    fn published(&self) -> String {
        let datasets: Vec<&str> = self.models.iter().map(|model| model.dataset).collect();
        let time = |seconds: f64, images: usize| format!("{seconds:.3} s for {images}");
        let measured = self.models.iter().map(|model| {
            let run = &model.run;
            vec![
                "this run".into(),
                format!("`{}`, {}", run.model, model.schedule),
                self.machine.device.clone(),
                time(run.seconds.stages.compute, run.images),
                format!("{:.0}", run.images_per_second),
                accuracy(run.encrypted.accuracy),
                show_size(run.bytes.upload + run.bytes.download),
                String::new(),
            ]
        });
        let papers = comparable(&datasets).map(|published| {
            let &Published { paper, network, hardware, images_per_second, source, .. } = published;
            let batch = published.seconds.zip(published.images);
            let transfer = published.transfer_mb.map(|mb| show_size((1e6 * mb) as u64));
            vec![
                paper.into(),
                network.into(),
                hardware.into(),
                batch.map_or(String::new(), |(seconds, images)| time(seconds, images as usize)),
                format!("{images_per_second:.1}"),
                published.accuracy.map_or(String::new(), |percent| format!("{percent} %")),
                transfer.unwrap_or_default(),
                source.into(),
            ]
        });
        let header =
            "source | network | hardware | time (here: `compute`) | images/s | accuracy | transfer | stated in";
        format!("\n{}", table(header, measured.chain(papers)))
    }
}

/// A table with these columns.
pub(super) fn table(header: &str, rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let columns = header.split('|').count();
    let mut text = format!("| {header} |\n|{}\n", "---|".repeat(columns));
    for row in rows {
        assert_eq!(row.len(), columns, "{header}");
        writeln!(text, "| {} |", row.join(" | ")).expect("strings grow");
    }
    text
}

fn share(share: f64) -> String {
    format!("{:.0} %", 100.0 * share)
}

fn accuracy(accuracy: Option<f64>) -> String {
    accuracy.map_or(String::new(), percent)
}

/// A number with a prefix of the SI, three digits at least.
pub fn si(value: f64) -> String {
    let prefixes = [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "u"), (1e-9, "n")];
    let (unit, prefix) = prefixes.into_iter().find(|(unit, _)| value >= *unit).unwrap_or((1e-9, "n"));
    format!("{:.*} {prefix}", if value / unit < 10.0 { 2 } else { 1 }, value / unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_prefixes() {
        let cases = [(4.8e12, "4.80 T"), (1.5e9, "1.50 G"), (999.0, "999.0 "), (53e-6, "53.0 u"), (2e-10, "0.20 n")];
        for (value, text) in cases {
            assert_eq!(si(value), text);
        }
    }
}
