//! What drawings share: one size, one font, one set of colours.

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;

/// Coordinates are whole numbers, so small drawings have jagged curves.
pub const SIZE: (u32, u32) = (1800, 1200);
pub const FONT: &str = "sans-serif";
/// Of axes and legends.
pub const TEXT: (&str, u32) = (FONT, 30);
/// Okabe and Ito's colours, which colour-blind readers can tell apart.
pub const COLOURS: [RGBColor; 8] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(148, 103, 50),
    RGBColor(120, 120, 120),
];

/// A white area to draw on.
pub type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
/// What drawing returns.
pub type Drawn = Result<(), Box<dyn std::error::Error>>;

/// What `render` draws, as SVG.
pub fn svg(size: (u32, u32), render: impl FnOnce(&Area<'_>) -> Drawn) -> Result<String> {
    let mut svg = String::new();
    let draw = |svg: &mut String| -> Drawn {
        let area = SVGBackend::with_string(svg, size).into_drawing_area();
        area.fill(&WHITE)?;
        render(&area)?;
        Ok(area.present()?)
    };
    // plotters' error is not Send, so it cannot be a cause.
    draw(&mut svg).map_err(|error| anyhow!("cannot draw: {error}"))?;
    Ok(svg)
}

/// What the curves of `chart` are, in a corner of it.
pub fn legend<'a, 'b: 'a, X, Y>(
    chart: &mut ChartContext<'a, SVGBackend<'b>, Cartesian2d<X, Y>>,
    corner: SeriesLabelPosition,
) -> Drawn
where
    X: Ranged,
    Y: Ranged,
{
    chart
        .configure_series_labels()
        .position(corner)
        .margin(24)
        .legend_area_size(64)
        .label_font(TEXT)
        .background_style(WHITE.mix(0.85))
        .border_style(BLACK.mix(0.4))
        .draw()?;
    Ok(())
}
