//! The report of a benchmark.

use std::fmt::Write;

use cryptodl_core::backend::{Ceiling, Ceilings};
use serde::Serialize;

use super::Row;
use crate::server::Machine;

/// What `bench --json` writes.
#[derive(Serialize)]
pub struct Report {
    pub version: &'static str,
    #[serde(flatten)]
    pub machine: Machine,
    /// Whose clock `seconds` are by: `device` or `host`.
    pub clock: &'static str,
    pub ceilings: Ceilings,
    pub rows: Vec<Row>,
    /// Programs that were left out, and why.
    pub skipped: Vec<String>,
}

impl Report {
    /// As a Markdown document, which people can read on a terminal, too.
    pub fn text(&self) -> String {
        let Machine { backend, kernels, device, threads } = &self.machine;
        let mut text =
            format!("cryptodl {} on {backend}: {device}, {threads} thread(s); kernels: {kernels}; ", self.version);
        let mut line = |line: String| writeln!(text, "{line}").expect("strings grow");
        line(format!("median times by the {}'s clock\n", self.clock));
        line("| ceiling | per second | how |\n|---|---|---|".into());
        let Ceilings { copy, multiply_add, linear } = &self.ceilings;
        for (name, unit, Ceiling { per_second, how }) in
            [("copy", "B", copy), ("32-bit multiply-add", "", multiply_add), ("linear maps' operations", "", linear)]
        {
            line(format!("| {name} | {}{unit} | {how} |", si(*per_second)));
        }
        line("\n| kernel | shape | time | | bytes/s | of copy | multiply-adds/s | of ceiling |".into());
        line("|---|---|---|---|---|---|---|---|".into());
        for row in &self.rows {
            let time = si(1e-9 * row.nanoseconds_per_item);
            let share = |share: f64| format!("{:.0} %", 100.0 * share);
            line(format!(
                "| {} | {} | {time}s | per {} | {}B | {} | {} | {} |",
                row.kernel,
                row.shape,
                row.item,
                si(row.bytes_per_second),
                share(row.copy_share),
                row.multiply_adds_per_second.map_or("".into(), si),
                row.arithmetic_share.map_or("".into(), share),
            ));
        }
        if !self.skipped.is_empty() {
            line(String::new());
            self.skipped.iter().for_each(|skipped| line(format!("Left out: {skipped}")));
        }
        text
    }
}

/// A number with a prefix of the SI, three digits at least.
fn si(value: f64) -> String {
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
