//! What drawings share: one size, one font, one set of colours.

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

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

/// An entry of a [`key`].
pub struct Entry {
    pub label: String,
    pub style: ShapeStyle,
    pub mark: Mark,
}

/// How a thing is drawn.
#[derive(Clone, Copy)]
pub enum Mark {
    Line,
    Dot,
    Bar,
}

/// What is drawn how, in an area of its own: nothing is hidden behind it.
pub fn key(area: &Area<'_>, entries: &[Entry]) -> Drawn {
    const LINE: i32 = 56;
    const WIDTH: i32 = 64;
    for (row, Entry { label, style, mark }) in (0..).zip(entries) {
        let y = LINE * row + LINE / 2;
        match mark {
            Mark::Line => area.draw(&PathElement::new([(0, y), (WIDTH, y)], *style))?,
            Mark::Dot => area.draw(&Circle::new((WIDTH / 2, y), 10, style.filled()))?,
            Mark::Bar => area.draw(&Rectangle::new([(0, y - 12), (WIDTH, y + 12)], style.filled()))?,
        }
        area.draw(&Text::new(label.clone(), (WIDTH + 16, y), TextStyle::from(TEXT.into_font()).pos(LEFT)))?;
    }
    Ok(())
}

/// Text begins at the point, in the middle of its height.
pub const LEFT: Pos = Pos { h_pos: HPos::Left, v_pos: VPos::Center };
/// Text ends at the point.
pub const RIGHT: Pos = Pos { h_pos: HPos::Right, v_pos: VPos::Center };
