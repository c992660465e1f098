//! What single names, sizes, ranges and histograms must be.

use crate::error::Problem;
use crate::histogram::Histogram;
use crate::limits::{MAX_CLASS_NAME_BYTES, MAX_CLASS_NAMES_BYTES, MAX_DIMENSION};
use crate::text;

/// Longest name of a file beside the description, in bytes.
const MAX_FILE_NAME: usize = 200;

pub(crate) fn checked_name(name: &str) -> Result<(), Problem> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
    if (1..=64).contains(&name.len()) && name.chars().all(allowed) {
        Ok(())
    } else {
        Err(Problem::Name { found: name.into() })
    }
}

/// Names of classes as clients accept them: each is one line that steers neither a terminal nor a spreadsheet.
pub(crate) fn checked_class_names(names: &[String]) -> Result<(), Problem> {
    let bytes = names.iter().map(String::len).sum();
    if bytes > MAX_CLASS_NAMES_BYTES {
        return Err(Problem::ClassNamesBytes { bytes });
    }
    let plain = |name: &String| {
        (1..=MAX_CLASS_NAME_BYTES).contains(&name.len())
            && name.trim() == name
            && !name.starts_with(['=', '+', '-', '@'])
            && text::one_line(name) == *name
    };
    match names.iter().position(|name| !plain(name)) {
        None => Ok(()),
        Some(class) => Err(Problem::ClassName { class, found: names[class].clone() }),
    }
}

/// Checks that a file is named plainly, so that it lies beside the description.
pub(crate) fn checked_file_name(field: &'static str, name: &str) -> Result<(), Problem> {
    let outside = name.contains(['/', '\\', ':', '"']) || name.contains(char::is_control);
    if !(1..=MAX_FILE_NAME).contains(&name.len()) || name.starts_with('.') || outside {
        Err(Problem::FileName { field, found: name.into() })
    } else {
        Ok(())
    }
}

pub(crate) fn dimension(field: &'static str, value: i64, least: usize) -> Result<usize, Problem> {
    usize::try_from(value).ok().filter(|size| (least..=MAX_DIMENSION).contains(size)).ok_or(Problem::Dimension {
        field,
        found: value,
        least,
    })
}

pub(crate) fn checked_range(field: &'static str, range: [f64; 2]) -> Result<(), Problem> {
    if range[0].is_finite() && range[1].is_finite() && range[0] < range[1] {
        Ok(())
    } else {
        Err(Problem::Range { field, found: range })
    }
}

pub(crate) fn checked_histogram(field: &'static str, histogram: &Histogram) -> Result<(), Problem> {
    checked_range(field, [histogram.low, histogram.high])?;
    let bins = histogram.counts.len();
    let total = histogram.counts.iter().map(|&count| u128::from(count)).sum();
    if (1..=1 << 16).contains(&bins) && (1..=1 << 53).contains(&total) {
        Ok(())
    } else {
        Err(Problem::Histogram { field, bins, total })
    }
}
