//! The function and its approximations, drawn as in CryptoDL's Figure 2.

use anyhow::Result;
use cryptodl_approx::Function;
use plotters::prelude::*;

use super::report::Report;
use crate::drawing::{Area, COLOURS, Drawn, FONT, SIZE, TEXT, legend, svg};

/// Points of a curve.
const STEPS: usize = 800;
/// Room above and below the function, as a share of its range, for approximations that leave it.
const ROOM: f64 = 0.35;
/// The drawing as SVG.
pub fn draw(report: &Report, function: &Function) -> Result<String> {
    svg(SIZE, |area| render(report, function, area))
}

fn render(report: &Report, function: &Function, area: &Area<'_>) -> Drawn {
    let interval = report.interval;
    let xs: Vec<f64> = (0..=STEPS).map(|i| interval.from_unit(2.0 * i as f64 / STEPS as f64 - 1.0)).collect();
    let values = || xs.iter().map(|&x| function.value(x));
    let (low, high) = values().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), y| (low.min(y), high.max(y)));
    let room = ROOM * if high > low { high - low } else { 1.0 };
    let (low, high) = (low - room, high + room);

    let title = format!("{} on [{}, {}]", report.function, interval.low(), interval.high());
    let mut chart = ChartBuilder::on(area)
        .caption(title, (FONT, 48))
        .margin(32)
        .x_label_area_size(88)
        .y_label_area_size(120)
        .build_cartesian_2d(interval.low()..interval.high(), low..high)?;
    chart.configure_mesh().x_desc("x").y_desc("value").label_style(TEXT).max_light_lines(1).draw()?;

    let mut curve = |name: String, style: ShapeStyle, points: Vec<(f64, f64)>| -> Drawn {
        for (index, piece) in clip(&points, low, high).into_iter().enumerate() {
            let drawn = chart.draw_series(LineSeries::new(piece, style))?;
            if index == 0 {
                drawn.label(&name).legend(move |(x, y)| PathElement::new([(x, y), (x + 48, y)], style));
            }
        }
        Ok(())
    };
    curve(report.function.clone(), BLACK.stroke_width(6), xs.iter().copied().zip(values()).collect())?;
    for (row, colour) in report.approximations.iter().zip(COLOURS.iter().cycle()) {
        let points = xs.iter().map(|&x| (x, row.monomial.value(x))).collect();
        curve(format!("{}, degree {}", row.description, row.degree), colour.stroke_width(4), points)?;
    }
    legend(&mut chart, SeriesLabelPosition::UpperLeft)
}

/// The parts of a polyline between two heights.
fn clip(points: &[(f64, f64)], low: f64, high: f64) -> Vec<Vec<(f64, f64)>> {
    let inside = |y: f64| (low..=high).contains(&y);
    // Where the line from an inner to an outer point leaves.
    let border = |(x, y): (f64, f64), (x_out, y_out): (f64, f64)| {
        let bound = if y_out > high { high } else { low };
        (x + (x_out - x) * (bound - y) / (y_out - y), bound)
    };
    let mut pieces: Vec<Vec<(f64, f64)>> = Vec::new();
    for (i, &point) in points.iter().enumerate() {
        let before = i.checked_sub(1).map(|i| points[i]);
        match (before.filter(|before| inside(before.1)), inside(point.1)) {
            (Some(_), true) => pieces.last_mut().expect("an inner point has a piece").push(point),
            (None, true) => {
                pieces.push(before.map(|before| border(point, before)).into_iter().chain([point]).collect())
            }
            (Some(before), false) => pieces.last_mut().expect("an inner point has a piece").push(border(before, point)),
            (None, false) => {}
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::clip;

    #[test]
    fn curves_end_at_the_border() {
        let points = [(0.0, -2.0), (1.0, 0.0), (2.0, 0.5), (3.0, 2.5), (4.0, 9.0), (5.0, 0.0)];
        let expected =
            vec![vec![(0.5, -1.0), (1.0, 0.0), (2.0, 0.5), (2.25, 1.0)], vec![(5.0 - 1.0 / 9.0, 1.0), (5.0, 0.0)]];
        assert_eq!(clip(&points, -1.0, 1.0), expected);
    }
}
