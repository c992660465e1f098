//! The TOML description as written, before any layer is checked.

use serde::Deserialize;
use toml::Table;

use super::fields::{checked_histogram, checked_name, checked_range, dimension};
use super::{
    Accuracy, Histogram, InputSpec, MAX_DESCRIPTION_BYTES, MAX_LAYERS, MIN_TOLERANCE, ModelError, OutputCalibration,
    Problem,
};
use crate::data::DatasetId;
use crate::text;

/// Longest name of a file beside the description, in bytes.
const MAX_FILE_NAME: usize = 200;

/// The checked sections of a description; layers are still tables.
pub(super) struct Description {
    pub(super) name: String,
    pub(super) title: String,
    pub(super) dataset: Option<DatasetId>,
    pub(super) weights: String,
    pub(super) calibration: Option<String>,
    pub(super) input: InputSpec,
    pub(super) accuracy: Option<Accuracy>,
    pub(super) tolerance: Option<f64>,
    pub(super) layers: Vec<Table>,
    pub(super) output: Option<OutputCalibration>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    format: i64,
    name: String,
    title: String,
    dataset: Option<String>,
    weights: String,
    calibration: Option<String>,
    tolerance: Option<f64>,
    input: RawInput,
    accuracy: Option<RawAccuracy>,
    #[serde(default)]
    layer: Vec<Table>,
    output: Option<RawOutput>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawInput {
    shape: [i64; 3],
    range: [f64; 2],
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAccuracy {
    correct: u64,
    images: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawOutput {
    range: [f64; 2],
    margins: RawHistogram,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawHistogram {
    low: f64,
    high: f64,
    counts: Vec<u64>,
}

impl From<RawHistogram> for Histogram {
    fn from(RawHistogram { low, high, counts }: RawHistogram) -> Self {
        Self { low, high, counts }
    }
}

impl Description {
    pub(super) fn parse(file: &str, text: &str) -> Result<Self, ModelError> {
        if text.len() as u64 > MAX_DESCRIPTION_BYTES {
            return Err(ModelError::TooLarge { path: file.into(), limit: MAX_DESCRIPTION_BYTES });
        }
        let raw: Raw = toml::from_str(text)
            .map_err(|error| ModelError::Syntax { file: file.into(), message: place_and_cause(text, &error) })?;
        let invalid = |place: &'static str| {
            move |problem| ModelError::Invalid { file: file.into(), place: place.into(), problem: Box::new(problem) }
        };
        if raw.format != 1 {
            return Err(invalid("format")(Problem::Format { found: raw.format }));
        }
        let plain = |name: &str| {
            let path = name.starts_with('.') || name.contains(['/', '\\', ':']) || name.contains(char::is_control);
            !path && (1..=MAX_FILE_NAME).contains(&name.len())
        };
        if !plain(&raw.weights) {
            return Err(invalid("weights")(Problem::FileName { field: "weights", found: raw.weights }));
        }
        if let Some(found) = raw.calibration.clone().filter(|name| !plain(name)) {
            return Err(invalid("calibration")(Problem::FileName { field: "calibration", found }));
        }
        if raw.layer.is_empty() || raw.layer.len() > MAX_LAYERS {
            return Err(invalid("[[layer]]")(Problem::LayerCount { found: raw.layer.len() }));
        }
        if !(1..=200).contains(&raw.title.chars().count()) || raw.title.contains(char::is_control) {
            return Err(invalid("title")(Problem::Title { found: raw.title }));
        }
        if let Some(found) = raw.tolerance.filter(|share| !(MIN_TOLERANCE..=0.5).contains(share)) {
            let expected = "a share of the labels, from 0.000000001 to 0.5 (0.01 is one label in a hundred)";
            return Err(invalid("tolerance")(Problem::Number { field: "tolerance", found, expected }));
        }
        let dataset = raw.dataset.map(|id| id.parse().map_err(Problem::from)).transpose();
        Ok(Self {
            name: checked_name(raw.name).map_err(invalid("name"))?,
            title: raw.title,
            dataset: dataset.map_err(invalid("dataset"))?,
            weights: raw.weights,
            calibration: raw.calibration,
            tolerance: raw.tolerance,
            input: raw.input.checked().map_err(invalid("[input]"))?,
            accuracy: raw.accuracy.map(RawAccuracy::checked).transpose().map_err(invalid("[accuracy]"))?,
            layers: raw.layer,
            output: raw.output.map(RawOutput::checked).transpose().map_err(invalid("[output]"))?,
        })
    }
}

/// What the parser of TOML says, and where, in one line.
fn place_and_cause(toml: &str, error: &toml::de::Error) -> String {
    let cause = text::message(&error.message());
    let Some(before) = error.span().and_then(|span| toml.get(..span.start)) else { return cause };
    let (line, start) = (before.matches('\n').count(), before.rfind('\n').map_or(0, |end| end + 1));
    let found = text::name(toml.lines().nth(line).unwrap_or_default());
    let column = before[start..].chars().count() + 1;
    format!("TOML parse error at line {}, column {column}: {cause}, in: {found}", line + 1)
}

impl RawInput {
    fn checked(self) -> Result<InputSpec, Problem> {
        let [channels, height, width] = self.shape.map(|size| dimension("shape", size, 1));
        Ok(InputSpec { shape: [channels?, height?, width?], range: checked_range("range", self.range)? })
    }
}

impl RawAccuracy {
    fn checked(self) -> Result<Accuracy, Problem> {
        let Self { correct, images } = self;
        if images == 0 || correct > images {
            return Err(Problem::Accuracy { correct, images });
        }
        Ok(Accuracy { correct, images })
    }
}

impl RawOutput {
    fn checked(self) -> Result<OutputCalibration, Problem> {
        let margins = checked_histogram("margins", self.margins.into())?;
        if margins.low < 0.0 {
            return Err(Problem::Number {
                field: "margins.low",
                found: margins.low,
                expected: "zero or more: a margin is the largest minus the second largest logit",
            });
        }
        Ok(OutputCalibration { range: checked_range("range", self.range)?, margins })
    }
}
