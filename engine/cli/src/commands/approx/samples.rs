//! A function from a file of points.

use std::io::{BufRead, BufReader};
use std::path::Path;

use anyhow::{Context, Result, bail};
use cryptodl_approx::Samples;

use crate::files;

/// Reads lines `x,y`; the first may hold names. Empty lines and lines that begin with # are left out.
pub fn read(path: &Path) -> Result<Samples> {
    files::read(path, |file| {
        let mut points = Vec::new();
        let mut names_allowed = true;
        for (index, line) in BufReader::new(file).lines().enumerate() {
            let line = line?;
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            match point(line) {
                Some(point) => points.push(point),
                None if names_allowed => {}
                None => bail!("line {}: `{line}` is not of the form x,y with two numbers", index + 1),
            }
            names_allowed = false;
        }
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        Samples::new(&points).context("after sorting by x")
    })
}

fn point(line: &str) -> Option<(f64, f64)> {
    let (x, y) = line.split_once(',')?;
    Some((x.trim().parse().ok()?, y.trim().parse().ok()?))
}
