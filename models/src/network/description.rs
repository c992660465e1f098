//! The TOML description as written, before any layer is checked.

use serde::Deserialize;
use toml::Table;

use super::fields::{checked_file_name, dimension};
use super::{
    Accuracy, Histogram, InputSpec, Invalid, MAX_DESCRIPTION_BYTES, ModelError, NetworkSpec, OutputCalibration, Problem,
};
use crate::text;

/// A description as far as TOML goes: of the sections only the shapes are known to be right, and
/// layers are still tables.
pub(super) struct Description {
    /// All but the layers.
    pub(super) spec: NetworkSpec,
    pub(super) calibration: Option<String>,
    pub(super) layers: Vec<Table>,
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
        let invalid = |place: &str| {
            let place = place.to_owned();
            move |problem| ModelError::Invalid { file: file.into(), invalid: Invalid::new(place, problem) }
        };
        if raw.format != 1 {
            return Err(invalid("format")(Problem::Format { found: raw.format }));
        }
        // Both are opened before anything else of the network is checked.
        checked_file_name("weights", &raw.weights).map_err(invalid("weights"))?;
        let calibration = raw.calibration.as_deref().map_or(Ok(()), |name| checked_file_name("calibration", name));
        calibration.map_err(invalid("calibration"))?;
        let dataset = raw.dataset.map(|id| id.parse().map_err(Problem::from)).transpose();
        let spec = NetworkSpec {
            name: raw.name,
            title: raw.title,
            dataset: dataset.map_err(invalid("dataset"))?,
            weights: raw.weights,
            tolerance: raw.tolerance,
            input: raw.input.sized().map_err(invalid("[input]"))?,
            accuracy: raw.accuracy.map(|RawAccuracy { correct, images }| Accuracy { correct, images }),
            output: raw.output.map(|output| OutputCalibration { range: output.range, margins: output.margins.into() }),
            layers: Vec::new(),
        };
        Ok(Self { spec, calibration: raw.calibration, layers: raw.layer })
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
    fn sized(self) -> Result<InputSpec, Problem> {
        let [channels, height, width] = self.shape.map(|size| dimension("shape", size, 1));
        Ok(InputSpec { shape: [channels?, height?, width?], range: self.range })
    }
}
