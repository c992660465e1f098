//! The harness's text of pixels: an image a line, numbers from 0 to 1 between blanks.

use anyhow::{Context, Result, ensure};
use rayon::prelude::*;

/// The values of all images, one after the other, each moved from 0..1 to `range`.
///
/// # Errors
/// The first line with another number of pixels than `pixels`, or with something that is no number
/// from 0 to 1, with its place.
pub fn parse(text: &str, pixels: usize, [low, high]: [f64; 2]) -> Result<Vec<f32>> {
    let lines: Vec<&str> = text.lines().collect();
    let mut values = vec![0.0; lines.len() * pixels];
    let parsed = values.par_chunks_mut(pixels).zip(&lines).enumerate().map(|(line, (image, text))| {
        let mut words = text.split_ascii_whitespace();
        for (pixel, value) in image.iter_mut().enumerate() {
            let word = words.next().with_context(|| format!("line {}: {pixel} of {pixels} pixels", line + 1))?;
            let number = word.parse::<f64>().ok().filter(|number| (0.0..=1.0).contains(number));
            let number = number.with_context(|| format!("line {}: `{word}` is no number from 0 to 1", line + 1))?;
            *value = (low + number * (high - low)) as f32;
        }
        ensure!(words.next().is_none(), "line {}: more than {pixels} pixels", line + 1);
        Ok(())
    });
    // Of several broken lines the first is named, whichever thread came first.
    parsed.collect::<Vec<Result<()>>>().into_iter().collect::<Result<()>>()?;
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_lines_of_numbers() {
        let text = "0.000000 0.500000 1.000000\n1 0.25 0\n";
        assert_eq!(parse(text, 3, [0.0, 1.0]).unwrap(), [0.0, 0.5, 1.0, 1.0, 0.25, 0.0]);
        assert_eq!(parse(text, 3, [-2.0, 2.0]).unwrap(), [-2.0, 0.0, 2.0, 2.0, -1.0, -2.0]);
        for (text, expected) in [
            ("0 0 0\n0 0\n", "line 2: 2 of 3 pixels"),
            ("0 0 0 0\n", "line 1: more than 3 pixels"),
            ("0 0 1.5\n", "`1.5` is no number from 0 to 1"),
            ("0 0 NaN\n", "`NaN`"),
            ("0 \n\n", "line 1: 1 of 3 pixels"),
        ] {
            let error = parse(text, 3, [0.0, 1.0]).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
