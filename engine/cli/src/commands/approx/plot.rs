//! The function and its approximations, drawn as in CryptoDL's Figure 2, and below them how far
//! they are off.

use anyhow::Result;
use cryptodl_approx::Function;
use plotters::prelude::*;

use super::report::Report;
use crate::drawing::{Area, COLOURS, Drawn, Entry, FONT, Mark, SIZE, TEXT, key, svg};

/// Points of a curve.
const STEPS: usize = 800;
/// Room above and below the function, as a share of its range, for approximations that leave it.
const ROOM: f64 = 0.35;
/// Errors that are drawn, by the largest one of the best approximation: worse ones leave the panel.
const WORST: f64 = 8.0;
/// Pixels of the column that says which curve is which, of the title, and of the upper panel.
const KEY: i32 = 560;
const HEAD: i32 = 90;
const UPPER: u32 = 640;
/// Widths of the first curve and of the last: later ones lie upon earlier ones, whose borders stay
/// visible where both are equal.
const WIDTHS: [u32; 2] = [9, 3];

/// A curve with what it is drawn with.
struct Curve {
    label: String,
    style: ShapeStyle,
    points: Vec<(f64, f64)>,
}

/// The drawing as SVG.
pub fn draw(report: &Report, function: &Function) -> Result<String> {
    svg(SIZE, |area| render(report, function, area))
}

fn render(report: &Report, function: &Function, area: &Area<'_>) -> Drawn {
    let interval = report.interval;
    let xs: Vec<f64> = (0..=STEPS).map(|i| interval.from_unit(2.0 * i as f64 / STEPS as f64 - 1.0)).collect();
    let values: Vec<f64> = xs.iter().map(|&x| function.value(x)).collect();
    let (low, high) =
        values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), &y| (low.min(y), high.max(y)));
    let room = ROOM * if high > low { high - low } else { 1.0 };

    let last = report.approximations.len().saturating_sub(1).max(1) as u32;
    let styles = (0..)
        .zip(COLOURS.iter().cycle())
        .map(|(i, colour): (u32, _)| colour.stroke_width(WIDTHS[0] - (WIDTHS[0] - WIDTHS[1]) * i.min(last) / last));
    let found: Vec<(Curve, Curve)> = report
        .approximations
        .iter()
        .zip(styles)
        .map(|(row, style)| {
            let label = format!("{}, degree {}", row.description, row.degree);
            let points: Vec<(f64, f64)> = xs.iter().map(|&x| (x, row.monomial.value(x))).collect();
            let errors = points.iter().zip(&values).map(|(&(x, y), value)| (x, y - value)).collect();
            (Curve { label: label.clone(), style, points }, Curve { label, style, points: errors })
        })
        .collect();
    let exact = Curve {
        label: report.function.clone(),
        style: BLACK.mix(0.3).stroke_width(14),
        points: xs.iter().copied().zip(values.iter().copied()).collect(),
    };
    let sups = || report.approximations.iter().map(|row| row.errors.sup);
    let (best, worst) = (sups().fold(f64::INFINITY, f64::min), sups().fold(0.0, f64::max));
    let shown = 1.1 * worst.min(WORST * best).max(f64::MIN_POSITIVE);

    let title = format!("{} on [{}, {}]", report.function, interval.low(), interval.high());
    area.draw(&Text::new(title, (32, 28), (FONT, 48)))?;
    let (_, below) = area.split_vertically(HEAD);
    let (panels, beside) = below.split_horizontally(SIZE.0 as i32 - KEY);
    let (upper, lower) = panels.split_vertically(UPPER);
    let (functions, errors): (Vec<Curve>, Vec<Curve>) = found.into_iter().unzip();
    let functions: Vec<Curve> = [exact].into_iter().chain(functions).collect();
    panel(&upper, "value", [interval.low(), interval.high()], [low - room, high + room], &functions)?;
    panel(&lower, "error", [interval.low(), interval.high()], [-shown, shown], &errors)?;
    let entries: Vec<Entry> =
        functions.into_iter().map(|Curve { label, style, .. }| Entry { label, style, mark: Mark::Line }).collect();
    key(&beside.margin(40, 0, 0, 16), &entries)
}

/// Curves over an interval, as far as they are inside of `[low, high]`.
fn panel(area: &Area<'_>, quantity: &str, [left, right]: [f64; 2], [low, high]: [f64; 2], curves: &[Curve]) -> Drawn {
    let mut chart = ChartBuilder::on(area)
        .margin(32)
        .x_label_area_size(88)
        .y_label_area_size(150)
        .build_cartesian_2d(left..right, low..high)?;
    chart.configure_mesh().x_desc("x").y_desc(quantity).label_style(TEXT).max_light_lines(0).draw()?;
    for Curve { style, points, .. } in curves {
        for piece in clip(points, low, high) {
            chart.draw_series(LineSeries::new(piece, *style))?;
        }
    }
    Ok(())
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
