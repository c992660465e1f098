//! Typed access to the fields of one `[[layer]]` table.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use toml::{Table, Value};

use crate::error::Problem;
use crate::layer::Padding;
use crate::rules::dimension;

const COMMON: [&str; 5] = ["name", "kind", "inputs", "input_rms", "output_range"];

/// Numbers for rows and columns, or one for both.
#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrTwo {
    One(i64),
    Two([i64; 2]),
}

/// The fields of a layer, taken out one by one; [`Fields::finish`] refuses what nobody asked for.
pub(crate) struct Fields {
    table: Table,
    asked: Vec<&'static str>,
}

impl Fields {
    pub(crate) fn new(table: Table) -> Self {
        Self { table, asked: Vec::new() }
    }

    pub(crate) fn optional<T: DeserializeOwned>(
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

    pub(crate) fn required<T: DeserializeOwned>(
        &mut self,
        field: &'static str,
        expected: &'static str,
    ) -> Result<T, Problem> {
        self.optional(field, expected)?.ok_or(Problem::MissingField { field, expected })
    }

    pub(crate) fn text(&mut self, field: &'static str) -> Result<String, Problem> {
        self.required(field, "a string")
    }

    /// A dimension of 1 to [`MAX_DIMENSION`](crate::limits::MAX_DIMENSION).
    pub(crate) fn dimension(&mut self, field: &'static str) -> Result<usize, Problem> {
        let value = self.required(field, "an integer")?;
        dimension(field, value, 1)
    }

    pub(crate) fn optional_dimension(&mut self, field: &'static str) -> Result<Option<usize>, Problem> {
        self.optional(field, "an integer")?.map(|value| dimension(field, value, 1)).transpose()
    }

    /// Rows and columns, each `least` to [`MAX_DIMENSION`](crate::limits::MAX_DIMENSION).
    pub(crate) fn pair(&mut self, field: &'static str, least: usize) -> Result<Option<[usize; 2]>, Problem> {
        let pair: Option<[i64; 2]> = self.optional(field, "two integers [rows, columns]")?;
        pair.map(|[rows, columns]| Ok([dimension(field, rows, least)?, dimension(field, columns, least)?])).transpose()
    }

    pub(crate) fn kernel(&mut self) -> Result<[usize; 2], Problem> {
        let expected = "two integers [rows, columns]";
        self.pair("kernel", 1)?.ok_or(Problem::MissingField { field: "kernel", expected })
    }

    /// Rows and columns, or one number for both; each at least 1.
    pub(crate) fn one_or_two(&mut self, field: &'static str) -> Result<Option<[usize; 2]>, Problem> {
        let pair = self.optional(field, "an integer or two integers [rows, columns]")?;
        let pair = pair.map(|pair| match pair {
            OneOrTwo::One(both) => [both; 2],
            OneOrTwo::Two(pair) => pair,
        });
        pair.map(|[rows, columns]| Ok([dimension(field, rows, 1)?, dimension(field, columns, 1)?])).transpose()
    }

    /// Zeros around an image.
    pub(crate) fn padding(&mut self) -> Result<Padding, Problem> {
        let (field, expected) = ("padding", "two integers [rows, columns] or four [top, left, bottom, right]");
        let sizes: Option<Vec<i64>> = self.optional(field, expected)?;
        let sizes = sizes.unwrap_or_else(|| vec![0, 0]);
        let checked: Vec<usize> = sizes.iter().map(|&size| dimension(field, size, 0)).collect::<Result<_, _>>()?;
        match checked[..] {
            [rows, columns] => Ok(Padding::even([rows, columns])),
            [top, left, bottom, right] => Ok(Padding { before: [top, left], after: [bottom, right] }),
            _ => Err(Problem::FieldType { field, found: format!("an array of {} items", sizes.len()), expected }),
        }
    }

    pub(crate) fn range(&mut self, field: &'static str) -> Result<Option<[f64; 2]>, Problem> {
        self.optional(field, "two numbers [low, high]")
    }

    /// Refuses fields that a layer of this kind does not have.
    pub(crate) fn finish(self, kind: &str) -> Result<(), Problem> {
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
