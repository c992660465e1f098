//! The TOML description as written, before any layer is checked.

use serde::Deserialize;
use toml::Table;

use crate::error::{Invalid, ModelError, Problem};
use crate::histogram::Histogram;
use crate::limits::MAX_DESCRIPTION_BYTES;
use crate::rules::{checked_file_name, dimension};
use crate::spec::{Accuracy, InputSpec, NetworkSpec, OutputCalibration};
use crate::text;

/// A description as far as TOML goes, which names the other files of its network. Of the sections
/// only the shapes are known to be right, and layers are still tables.
pub struct Description<'a> {
    /// What errors call the description.
    pub(crate) file: &'a str,
    pub(crate) text: &'a str,
    /// All but the layers.
    pub(crate) spec: NetworkSpec,
    pub(crate) calibration: Option<String>,
    pub(crate) layers: Vec<Table>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    format: i64,
    name: String,
    title: String,
    dataset: Option<String>,
    #[serde(default)]
    class_names: Vec<String>,
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
pub(crate) struct RawHistogram {
    low: f64,
    high: f64,
    counts: Vec<u64>,
}

impl From<RawHistogram> for Histogram {
    fn from(RawHistogram { low, high, counts }: RawHistogram) -> Self {
        Self { low, high, counts }
    }
}

impl<'a> Description<'a> {
    /// Reads the text of a description; errors name it `file`.
    ///
    /// # Errors
    /// Text that is too long or no TOML, sections with other fields than they have, another
    /// version, or a file that is not named plainly.
    pub fn parse(file: &'a str, text: &'a str) -> Result<Self, ModelError> {
        if text.len() as u64 > MAX_DESCRIPTION_BYTES {
            return Err(ModelError::TooLarge { file: file.into(), limit: MAX_DESCRIPTION_BYTES });
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
            class_names: raw.class_names,
            weights: raw.weights,
            tolerance: raw.tolerance,
            input: raw.input.sized().map_err(invalid("[input]"))?,
            accuracy: raw.accuracy.map(|RawAccuracy { correct, images }| Accuracy { correct, images }),
            output: raw.output.map(|output| OutputCalibration { range: output.range, margins: output.margins.into() }),
            layers: Vec::new(),
        };
        Ok(Self { file, text, spec, calibration: raw.calibration, layers: raw.layer })
    }

    /// Plain name of the weight file, beside the description.
    pub fn weights(&self) -> &str {
        &self.spec.weights
    }

    /// Plain name of the calibration file, beside the description, if there is one.
    pub fn calibration(&self) -> Option<&str> {
        self.calibration.as_deref()
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
