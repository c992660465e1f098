//! Drawings of a report, also of one that was written earlier.

use anyhow::{Context, Result};
use plotters::prelude::*;
use serde::Deserialize;
use serde_json::Value;

use super::report::si;
use crate::drawing::{Area, COLOURS, Drawn, Entry, FONT, Mark, RIGHT, SIZE, TEXT, key, svg};

const TITLE: (&str, u32) = (FONT, 44);
const SMALL: (&str, u32) = (FONT, 26);
/// Height of a row, and of what is above and below all rows.
const ROW: u32 = 64;
const AROUND: u32 = 300;
/// Pixels that names take left of a chart.
const NAMES: i32 = 560;
/// Characters of a name in a line; there are two of them.
const LINE: usize = 38;

/// What drawings need of a report.
#[derive(Deserialize)]
struct Measurements {
    device: String,
    ceilings: Ceilings,
    rows: Vec<Kernel>,
    models: Vec<Model>,
}

#[derive(Deserialize)]
struct Ceilings {
    copy: Ceiling,
    linear: Ceiling,
}

#[derive(Deserialize)]
struct Ceiling {
    per_second: f64,
}

#[derive(Deserialize)]
struct Kernel {
    kernel: String,
    seconds: f64,
    bytes: f64,
    /// Of linear maps.
    operations: Option<f64>,
    /// None for what the host does beside a device.
    copy_share: Option<f64>,
}

#[derive(Deserialize)]
struct Model {
    schedule: String,
    attainable_seconds: f64,
    parts: Vec<Part>,
    run: Run,
}

#[derive(Deserialize)]
struct Part {
    name: String,
    seconds: f64,
    attainable_seconds: f64,
}

#[derive(Deserialize)]
struct Run {
    model: String,
    images: usize,
    seconds: Seconds,
}

#[derive(Deserialize)]
struct Seconds {
    compute: f64,
}

/// File names and contents: the roofline where kernels were measured, and the parts of every model.
///
/// # Errors
/// `report` is not what `bench --json` writes.
pub fn draw(report: &Value) -> Result<Vec<(String, String)>> {
    let report = Measurements::deserialize(report).context("not a report of `cryptodl bench --json`")?;
    let mut drawings = Vec::new();
    if report.rows.iter().any(|row| row.copy_share.is_some()) {
        drawings.push(("roofline.svg".into(), svg(SIZE, |area| kernels(&report, area))?));
    }
    for model in &report.models {
        let height = AROUND + ROW * model.parts.len() as u32;
        let name = format!("{}-{}.svg", model.run.model, model.schedule);
        drawings.push((name, svg((SIZE.0, height), |area| parts(model, area))?));
    }
    Ok(drawings)
}

/// Linear maps under the roofline, and beside it how near all kernels come to a copy's bandwidth.
fn kernels(report: &Measurements, area: &Area<'_>) -> Drawn {
    area.draw(&Text::new(format!("Kernels on {}", report.device), (32, 28), TITLE))?;
    let (_, below) = area.split_vertically(100);
    let (left, right) = below.split_horizontally(SIZE.0 as i32 / 2);
    roofline(report, &left)?;
    bandwidths(report, &right)
}

fn roofline(report: &Measurements, area: &Area<'_>) -> Drawn {
    let (copy, linear) = (report.ceilings.copy.per_second, report.ceilings.linear.per_second);
    let points: Vec<(f64, f64)> = report
        .rows
        .iter()
        .filter(|row| row.copy_share.is_some())
        .filter_map(|row| row.operations.map(|count| (count / row.bytes, count / row.seconds)))
        .collect();
    let ridge = linear / copy;
    let left = points.iter().map(|point| point.0).fold(ridge, f64::min) / 3.0;
    let right = points.iter().map(|point| point.0).fold(ridge, f64::max) * 3.0;
    let low = points.iter().map(|point| point.1).fold(left * copy, f64::min) / 2.0;
    let (panel, beneath) = area.split_vertically(area.dim_in_pixel().1 as i32 - 140);
    let mut chart = ChartBuilder::on(&panel)
        .margin(32)
        .x_label_area_size(88)
        .y_label_area_size(150)
        .build_cartesian_2d((left..right).log_scale(), (low..3.0 * linear).log_scale())?;
    chart
        .configure_mesh()
        .x_desc("operations per byte")
        .y_desc("operations per second")
        .x_label_formatter(&|x| si(*x))
        .y_label_formatter(&|y| si(*y))
        .label_style(TEXT)
        .max_light_lines(0)
        .draw()?;
    let (ceiling, dots) = (BLACK.stroke_width(4), COLOURS[0].mix(0.7));
    chart.draw_series(LineSeries::new([(left, left * copy), (ridge, linear), (right, linear)], ceiling))?;
    chart.draw_series(points.iter().map(|&point| Circle::new(point, 9, dots.filled())))?;
    let ceilings = format!("{}B/s copied, {} operations/s", si(copy), si(linear));
    key(
        &beneath.margin(8, 0, 180, 0),
        &[
            Entry { label: ceilings, style: ceiling, mark: Mark::Line },
            Entry { label: "linear maps".into(), style: dots.filled(), mark: Mark::Dot },
        ],
    )
}

/// One row for each kernel, with a dot for every shape that it was measured on.
fn bandwidths(report: &Measurements, area: &Area<'_>) -> Drawn {
    let rows = || report.rows.iter().filter_map(|row| Some((row.kernel.as_str(), row.copy_share?)));
    let mut names: Vec<&str> = rows().map(|row| row.0).collect();
    names.sort_unstable();
    names.dedup();
    let most = rows().map(|row| row.1).fold(1.0, f64::max) * 1.08;
    let (left, chart_area) = area.split_horizontally(220);
    let count = names.len() as f64;
    let mut chart =
        ChartBuilder::on(&chart_area).margin(32).x_label_area_size(88).build_cartesian_2d(0.0..most, 0.0..count)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .disable_y_axis()
        .x_desc("bytes per second, of a copy's")
        .x_label_formatter(&|share| format!("{:.0} %", 100.0 * share))
        .x_labels(6)
        .label_style(TEXT)
        .max_light_lines(0)
        .draw()?;
    chart.draw_series([PathElement::new([(1.0, 0.0), (1.0, count)], BLACK.stroke_width(4))])?;
    let top = left.get_base_pixel();
    for (row, name) in names.iter().enumerate() {
        // The first name comes on top.
        let y = count - row as f64 - 0.5;
        let dots = rows().filter(|row| row.0 == *name).map(|row| (row.1, y));
        chart.draw_series(dots.map(|dot| Circle::new(dot, 9, COLOURS[row % COLOURS.len()].mix(0.6).filled())))?;
        let (_, pixel) = chart.backend_coord(&(0.0, y));
        left.draw(&Text::new((*name).to_owned(), (240, pixel - top.1), TextStyle::from(SMALL.into_font()).pos(RIGHT)))?;
    }
    Ok(())
}

/// Seconds of each part of a model's `compute` beside those that the ceilings allow.
fn parts(model: &Model, area: &Area<'_>) -> Drawn {
    let longest = model.parts.iter().map(|part| part.seconds.max(part.attainable_seconds)).fold(1e-9, f64::max);
    let (run, count) = (&model.run, model.parts.len() as f64);
    let title = format!(
        "{} {}: compute {:.3} s for {} images, {:.3} s attainable",
        run.model, model.schedule, run.seconds.compute, run.images, model.attainable_seconds
    );
    area.draw(&Text::new(title, (32, 28), TITLE))?;
    let (_, below) = area.split_vertically(90);
    let (names, right) = below.split_horizontally(NAMES);
    let (panel, beneath) = right.split_vertically(right.dim_in_pixel().1 as i32 - 60);
    let mut chart = ChartBuilder::on(&panel)
        .margin(24)
        .x_label_area_size(88)
        .build_cartesian_2d(0.0..1.05 * longest, 0.0..count)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .disable_y_axis()
        .x_desc("seconds")
        .x_labels(8)
        .label_style(TEXT)
        .max_light_lines(0)
        .draw()?;
    let [measured, attainable] = [COLOURS[0], COLOURS[1]].map(|colour| colour.filled());
    let top = names.get_base_pixel();
    for (row, part) in model.parts.iter().enumerate() {
        let y = count - row as f64;
        let bars =
            [(part.seconds, y - 0.12, y - 0.48, measured), (part.attainable_seconds, y - 0.52, y - 0.88, attainable)];
        chart
            .draw_series(bars.map(|(seconds, from, to, style)| Rectangle::new([(0.0, from), (seconds, to)], style)))?;
        let (_, pixel) = chart.backend_coord(&(0.0, y - 0.5));
        let lines = in_lines(&part.name);
        for (line, text) in (0..).zip(&lines) {
            let height = pixel - top.1 + 28 * line - 14 * (lines.len() as i32 - 1);
            names.draw(&Text::new(text.clone(), (NAMES - 8, height), TextStyle::from(SMALL.into_font()).pos(RIGHT)))?;
        }
    }
    let entry = |label: &str, style| Entry { label: label.into(), style, mark: Mark::Bar };
    let (first, second) = beneath.split_horizontally(360);
    key(&first.margin(0, 0, 24, 0), &[entry("measured", measured)])?;
    key(&second, &[entry("attainable", attainable)])
}

/// A layer's name in at most two lines, as much of it as there is room for.
fn in_lines(name: &str) -> Vec<String> {
    let chars: Vec<char> = name.chars().collect();
    if chars.len() <= LINE {
        return vec![name.into()];
    }
    // Better between two steps or layers than within a name.
    let end = chars[..LINE].iter().rposition(|c| " +".contains(*c)).map_or(LINE, |i| i + 1);
    let (first, rest) = chars.split_at(end);
    let rest =
        if rest.len() <= LINE { rest.iter().collect() } else { rest[..LINE - 3].iter().chain(&['.'; 3]).collect() };
    vec![first.iter().collect::<String>().trim_end().into(), rest]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_take_two_lines() {
        assert_eq!(in_lines("unpack"), ["unpack"]);
        assert_eq!(
            in_lines("conv1+pool1+conv2+pool2+bn > act > fc1+fc2"),
            ["conv1+pool1+conv2+pool2+bn > act >", "fc1+fc2"]
        );
        let long = in_lines(&"x".repeat(100));
        assert_eq!([long[0].len(), long[1].len()], [LINE, LINE]);
        assert!(long[1].ends_with("..."));
    }
}
