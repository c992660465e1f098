//! Typed access to the fields of one `[[layer]]` table.

use serde::de::DeserializeOwned;
use toml::{Table, Value};

use super::error::Problem;
use super::{Histogram, MAX_DIMENSION};

const COMMON: [&str; 4] = ["name", "kind", "input_rms", "output_range"];

/// The fields of a layer, taken out one by one; [`Fields::finish`] refuses what nobody asked for.
pub(super) struct Fields {
    table: Table,
    asked: Vec<&'static str>,
}

impl Fields {
    pub(super) fn new(table: Table) -> Self {
        Self { table, asked: Vec::new() }
    }

    pub(super) fn optional<T: DeserializeOwned>(
        &mut self,
        field: &'static str,
        expected: &'static str,
    ) -> Result<Option<T>, Problem> {
        if !COMMON.contains(&field) {
            self.asked.push(field);
        }
        let Some(value) = self.table.remove(field) else { return Ok(None) };
        let found = describe(&value);
        value.try_into().map(Some).map_err(|_| Problem::FieldType { field, found, expected })
    }

    pub(super) fn required<T: DeserializeOwned>(
        &mut self,
        field: &'static str,
        expected: &'static str,
    ) -> Result<T, Problem> {
        self.optional(field, expected)?.ok_or(Problem::MissingField { field, expected })
    }

    pub(super) fn text(&mut self, field: &'static str) -> Result<String, Problem> {
        self.required(field, "a string")
    }

    /// A dimension of 1 to [`MAX_DIMENSION`].
    pub(super) fn dimension(&mut self, field: &'static str) -> Result<usize, Problem> {
        let value = self.required(field, "an integer")?;
        dimension(field, value, 1)
    }

    /// Rows and columns, each `least` to [`MAX_DIMENSION`].
    pub(super) fn pair(&mut self, field: &'static str, least: usize) -> Result<Option<[usize; 2]>, Problem> {
        let pair: Option<[i64; 2]> = self.optional(field, "two integers [rows, columns]")?;
        pair.map(|[rows, columns]| Ok([dimension(field, rows, least)?, dimension(field, columns, least)?])).transpose()
    }

    pub(super) fn kernel(&mut self) -> Result<[usize; 2], Problem> {
        let expected = "two integers [rows, columns]";
        self.pair("kernel", 1)?.ok_or(Problem::MissingField { field: "kernel", expected })
    }

    pub(super) fn range(&mut self, field: &'static str) -> Result<Option<[f64; 2]>, Problem> {
        let range = self.optional(field, "two numbers [low, high]")?;
        range.map(|range| checked_range(field, range)).transpose()
    }

    /// Refuses fields that a layer of this kind does not have.
    pub(super) fn finish(self, kind: &str) -> Result<(), Problem> {
        match self.table.keys().next() {
            None => Ok(()),
            Some(field) => Err(Problem::UnknownField {
                field: field.clone(),
                kind: kind.into(),
                allowed: [&COMMON[..], &self.asked[..]].concat().join(", "),
            }),
        }
    }
}

pub(super) fn checked_name(name: String) -> Result<String, Problem> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
    if (1..=64).contains(&name.len()) && name.chars().all(allowed) {
        Ok(name)
    } else {
        Err(Problem::Name { found: name })
    }
}

pub(super) fn dimension(field: &'static str, value: i64, least: usize) -> Result<usize, Problem> {
    usize::try_from(value).ok().filter(|size| (least..=MAX_DIMENSION).contains(size)).ok_or(Problem::Dimension {
        field,
        found: value,
        least,
    })
}

pub(super) fn checked_range(field: &'static str, range: [f64; 2]) -> Result<[f64; 2], Problem> {
    if range[0].is_finite() && range[1].is_finite() && range[0] < range[1] {
        Ok(range)
    } else {
        Err(Problem::Range { field, found: range })
    }
}

pub(super) fn checked_histogram(field: &'static str, histogram: Histogram) -> Result<Histogram, Problem> {
    checked_range(field, [histogram.low, histogram.high])?;
    let bins = histogram.counts.len();
    let total = histogram.counts.iter().map(|&count| u128::from(count)).sum();
    if (1..=1 << 16).contains(&bins) && (1..=1 << 53).contains(&total) {
        Ok(histogram)
    } else {
        Err(Problem::Histogram { field, bins, total })
    }
}

/// A value for an error message: shown when short, else named by its type.
fn describe(value: &Value) -> String {
    match value {
        Value::String(text) if text.len() <= 40 => format!("the string {text:?}"),
        Value::Integer(number) => format!("the integer {number}"),
        Value::Float(number) => format!("the number {number}"),
        Value::Boolean(flag) => format!("the boolean {flag}"),
        Value::Array(items) => format!("an array of {} items", items.len()),
        other => format!("a {}", other.type_str()),
    }
}
