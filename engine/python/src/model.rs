//! Networks, and what they become.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use cryptodl::network::Network;
use cryptodl::{Client, PlanOptions, PrivacyGoal, SecurityLevel, Tolerance};
use cryptodl_onnx::{ImportOptions, import};
use ndarray::Array4;
use numpy::{IntoPyArray, PyArray2};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::errors::{self, FormatError};
use crate::images::Images;
use crate::waiting::wait;

/// A trained network.
#[pyclass(frozen, module = "cryptodl._native")]
pub struct Model(cryptodl::Model);

impl Model {
    fn network(&self) -> &Network {
        self.0.network()
    }
}

#[pymethods]
impl Model {
    /// A shipped network by its name, or a description in TOML by its path, or the folder of one.
    #[staticmethod]
    fn load(name: &str) -> PyResult<Self> {
        Ok(Model(cryptodl::Model::load(name).map_err(errors::of)?))
    }

    /// The network of an ONNX file, whose pixels are in this range.
    #[staticmethod]
    fn from_onnx(
        py: Python<'_>,
        path: PathBuf,
        name: &str,
        range: [f64; 2],
        shape: Option<[usize; 3]>,
    ) -> PyResult<Self> {
        let options = ImportOptions { pixels: vec![range], shape, ..ImportOptions::new(name) };
        let imported = py.detach(|| import(&path, &options)).map_err(|error| errors::model(&error))?;
        Ok(Model(imported.network.into()))
    }

    /// The same with names of its classes, or with the share of labels that may change.
    #[pyo3(signature = (*, class_names=None, tolerance=None))]
    fn changed(&self, class_names: Option<Vec<String>>, tolerance: Option<f64>) -> PyResult<Self> {
        if let Some(tolerance) = tolerance {
            Tolerance::new(tolerance).map_err(|error| PyValueError::new_err(error.to_string()))?;
        }
        let network = self.network().clone().changed(|spec| {
            if let Some(names) = class_names {
                spec.class_names = names;
            }
            spec.tolerance = tolerance.or(spec.tolerance);
        });
        Ok(Model(network.map_err(|error| errors::model(&error))?.into()))
    }

    #[getter]
    fn name(&self) -> &str {
        &self.network().name
    }

    /// Channels, rows, columns.
    #[getter]
    fn shape(&self) -> [usize; 3] {
        self.network().input.shape
    }

    /// The least and the largest value of a pixel.
    #[getter]
    fn range(&self) -> [f64; 2] {
        self.network().input.range
    }

    #[getter]
    fn classes(&self) -> usize {
        self.network().classes()
    }

    #[getter]
    fn class_names(&self) -> Vec<String> {
        self.network().class_names.clone()
    }

    /// The same with what the planner must know of the values inside, measured on images.
    fn calibrated(&self, py: Python<'_>, images: &Bound<'_, PyAny>) -> PyResult<Self> {
        let images = Images::new(images, self.shape())?;
        // They must not change meanwhile.
        let copy: Array4<f32> = images.view().to_owned();
        let model = self.0.clone();
        Ok(Model(wait(py, None, move |_| model.calibrated(copy.view()))?))
    }

    /// Scores `[image, class]` without encryption.
    fn scores<'py>(&self, py: Python<'py>, images: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyArray2<f32>>> {
        let images = Images::new(images, self.shape())?;
        let view = images.view();
        let scores = wait(py, None, |_| Ok(self.0.plaintext_scores(view)))?;
        Ok(scores.into_pyarray(py))
    }

    /// Parameters and a schedule.
    #[pyo3(signature = (*, security=128, batch=None, circuit_privacy=None))]
    fn plan(
        &self,
        py: Python<'_>,
        security: u32,
        batch: Option<usize>,
        circuit_privacy: Option<(u32, u32)>,
    ) -> PyResult<Program> {
        let security = match security {
            128 => SecurityLevel::Bits128,
            192 => SecurityLevel::Bits192,
            256 => SecurityLevel::Bits256,
            other => return Err(PyValueError::new_err(format!("security={other}: 128, 192 or 256 is needed"))),
        };
        let circuit_privacy = circuit_privacy.map(|(sets, bits)| PrivacyGoal { sets, bits });
        let default = PlanOptions::default();
        let batch = batch.unwrap_or(default.batch);
        let options = PlanOptions { security, batch, circuit_privacy, ..default };
        let plan = wait(py, None, |watch| self.0.plan(&options, watch))?;
        let report = Some(plan.report.to_string());
        let json = serde_json::to_string(&plan.report).expect("a report is JSON");
        Ok(Program { program: plan.program, report, json: Some(json) })
    }

    /// Writes description, weights and calibration into a folder.
    fn save(&self, folder: PathBuf) -> PyResult<()> {
        let network = self.network();
        let stem = network.weights.strip_suffix(".safetensors").unwrap_or(&network.weights);
        let name = format!("{stem}.calibration.safetensors");
        let calibration = network.calibration.as_ref().map(|found| (name.as_str(), found.to_bytes(network)));
        let description =
            network.description("Written by the Python package cryptodl.", calibration.as_ref().map(|(name, _)| *name));
        fs::create_dir_all(&folder)?;
        write(&folder.join(&network.weights), &network.weight_file())?;
        if let Some((name, bytes)) = &calibration {
            write(&folder.join(name), bytes)?;
        }
        write(&folder.join(format!("{stem}.toml")), description.as_bytes())
    }
}

/// A file that appears whole or not at all.
fn write(path: &Path, bytes: &[u8]) -> PyResult<()> {
    let mut file = tempfile::NamedTempFile::new_in(path.parent().expect("a file lies in a folder"))?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// What a server computes: parameters, integers and a schedule.
#[pyclass(frozen, module = "cryptodl._native")]
pub struct Program {
    pub program: cryptodl::Program,
    /// Of the planner, in words and as JSON; a saved Program has none.
    report: Option<String>,
    json: Option<String>,
}

#[pymethods]
impl Program {
    #[staticmethod]
    fn from_bytes(bytes: &[u8]) -> PyResult<Self> {
        let program = cryptodl::Program::read(bytes).map_err(|error| FormatError::new_err(errors::in_words(&error)))?;
        Ok(Program { program, report: None, json: None })
    }

    fn to_bytes<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        let mut bytes = Vec::new();
        self.program.write(&mut bytes).expect("memory takes everything");
        PyBytes::new(py, &bytes)
    }

    /// The public description that clients need.
    fn spec<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let client = Client::new(self.program.client_spec()).map_err(errors::of)?;
        let mut bytes = Vec::new();
        client.write_spec(&mut bytes).map_err(errors::of)?;
        Ok(PyBytes::new(py, &bytes))
    }

    #[getter]
    fn digest(&self) -> String {
        self.program.digest().to_string()
    }

    #[getter]
    fn report(&self) -> Option<&str> {
        self.report.as_deref()
    }

    #[getter]
    fn report_json(&self) -> Option<&str> {
        self.json.as_deref()
    }

    /// Scores `[image, class]` that an encrypted run is predicted to return: by the Program's
    /// integers, with noise of the predicted size, and without encryption. Equal images have equal
    /// scores.
    fn simulate<'py>(&self, py: Python<'py>, images: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyArray2<f64>>> {
        let images = Images::new(images, self.program.content.input.shape)?;
        let view = images.view();
        let rows = view.to_shape((view.len_of(ndarray::Axis(0)), self.program.inputs())).expect("contiguous");
        let scores = wait(py, None, |_| Ok(cryptodl_program::simulate(&self.program, rows.view(), 0)))?;
        Ok(scores.into_pyarray(py))
    }
}
