//! Drawings of a report.

use anyhow::Result;
use plotters::prelude::*;

use super::kernels::Row;
use super::models::EndToEnd;
use super::report::{Report, si};
use crate::drawing::{Area, COLOURS, Drawn, FONT, SIZE, TEXT, legend, svg};

const TITLE: (&str, u32) = (FONT, 44);
/// Height of a bar's row, and of what is above and below all rows.
const ROW: u32 = 60;
const AROUND: u32 = 260;

/// File names and contents: the roofline where kernels were measured, and the parts of every model.
pub fn draw(report: &Report) -> Result<Vec<(String, String)>> {
    let mut drawings = Vec::new();
    if !report.rows.is_empty() {
        drawings.push(("roofline.svg".into(), svg(SIZE, |area| roofline(report, area))?));
    }
    for model in &report.models {
        let height = AROUND + ROW * model.parts.len() as u32;
        let name = format!("{}-{}.svg", model.run.model, model.schedule);
        drawings.push((name, svg((SIZE.0, height), |area| bars(model, area))?));
    }
    Ok(drawings)
}

/// Every kernel that the ceilings are a measure for as a point under them. One whose operations are not counted has its bytes as
/// operations: one each.
fn roofline(report: &Report, area: &Area<'_>) -> Drawn {
    let (copy, linear) = (report.ceilings.copy.per_second, report.ceilings.linear.per_second);
    let point = |row: &Row| {
        let operations = row.operations.unwrap_or(row.bytes) as f64;
        (operations / row.bytes as f64, operations / row.seconds)
    };
    let rows = || report.rows.iter().filter(|row| row.copy_share.is_some());
    let points = || rows().map(point);
    let right = points().map(|point| point.0).fold(linear / copy, f64::max) * 4.0;
    let left = points().map(|point| point.0).fold(1.0, f64::min) / 4.0;
    let low = points().map(|point| point.1).fold(left * copy, f64::min) / 2.0;
    let mut chart = ChartBuilder::on(area)
        .caption(format!("Kernels on {}", report.machine.device), TITLE)
        .margin(32)
        .x_label_area_size(88)
        .y_label_area_size(150)
        .build_cartesian_2d((left..right).log_scale(), (low..4.0 * linear).log_scale())?;
    chart
        .configure_mesh()
        .x_desc("operations per byte (1 where only bytes are counted)")
        .y_desc("operations per second")
        .x_label_formatter(&|x| si(*x))
        .y_label_formatter(&|y| si(*y))
        .label_style(TEXT)
        .max_light_lines(1)
        .draw()?;
    let (black, ridge) = (BLACK.stroke_width(4), linear / copy);
    let ceiling = [(left, left * copy), (ridge, linear), (right, linear)];
    chart
        .draw_series(LineSeries::new(ceiling, black))?
        .label(format!("ceilings: {}B/s copied, {} operations/s", si(copy), si(linear)))
        .legend(move |(x, y)| PathElement::new([(x, y), (x + 40, y)], black));
    let mut kernels: Vec<&str> = rows().map(|row| row.kernel).collect();
    kernels.sort_unstable();
    kernels.dedup();
    for (kernel, colour) in
        kernels.into_iter().zip(COLOURS.iter().chain(std::iter::repeat(&BLACK)).map(|colour| colour.mix(0.8).filled()))
    {
        let of_kernel = rows().filter(|row| row.kernel == kernel);
        chart
            .draw_series(of_kernel.map(|row| Circle::new(point(row), 8, colour)))?
            .label(kernel)
            .legend(move |(x, y)| Circle::new((x + 20, y), 8, colour));
    }
    legend(&mut chart, SeriesLabelPosition::LowerRight)
}

/// Seconds of each part of a model's `compute` beside those that the ceilings allow.
fn bars(model: &EndToEnd, area: &Area<'_>) -> Drawn {
    let longest = model.parts.iter().map(|part| part.seconds.max(part.attainable_seconds)).fold(1e-9, f64::max);
    let count = model.parts.len();
    let title = format!(
        "{} {}: compute {:.3} s for {} images, {:.3} s attainable",
        model.run.model, model.schedule, model.run.seconds.stages.compute, model.run.images, model.attainable_seconds
    );
    let mut chart = ChartBuilder::on(area)
        .caption(title, TITLE)
        .margin(32)
        .x_label_area_size(88)
        .y_label_area_size(560)
        .build_cartesian_2d(0.0..1.05 * longest, (0..count).into_segmented())?;
    // The first part comes on top.
    let part = |row: usize| &model.parts[count - 1 - row];
    chart
        .configure_mesh()
        .disable_y_mesh()
        .x_desc("seconds")
        .y_labels(count)
        .y_label_formatter(&|segment| match segment {
            SegmentValue::CenterOf(row) if *row < count => shortened(&part(*row).name),
            _ => String::new(),
        })
        .label_style((FONT, 24))
        .axis_desc_style(TEXT)
        .draw()?;
    for (index, (label, colour)) in ["measured", "attainable"].into_iter().zip(COLOURS).enumerate() {
        let seconds = |row| [part(row).seconds, part(row).attainable_seconds][index];
        // The first of the two is the upper half of its row.
        let bar = |row: usize| {
            let mut bar = Rectangle::new(
                [(0.0, SegmentValue::Exact(row)), (seconds(row), SegmentValue::Exact(row + 1))],
                colour.filled(),
            );
            let (above, below) = if index == 0 { (6, ROW / 2 - 4) } else { (ROW / 2 - 4, 6) };
            bar.set_margin(above, below, 0, 0);
            bar
        };
        chart
            .draw_series((0..count).map(bar))?
            .label(label)
            .legend(move |(x, y)| Rectangle::new([(x, y - 8), (x + 40, y + 8)], colour.filled()));
    }
    legend(&mut chart, SeriesLabelPosition::LowerRight)
}

/// A layer's name, as much of it as there is room for.
fn shortened(name: &str) -> String {
    const ROOM: usize = 40;
    match name.char_indices().nth(ROOM) {
        None => name.into(),
        Some((end, _)) => format!("{}...", &name[..end]),
    }
}
