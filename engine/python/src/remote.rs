//! A client of a service. Nothing of the connection is kept between calls, so that forked processes
//! and threads can use one.

use std::convert::Infallible;
use std::fs::File;
use std::io::Read as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use cryptodl::KeyFolder;
use cryptodl_service::{QueryError, Remote as Line, RemoteError as LineError, RemoteModel, RemoteOptions, Sending};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use zeroize::Zeroizing;

use crate::images::Images;
use crate::roles::Client;
use crate::waiting::{threads, wait_sharing};

/// A model of a service, with a client's keys for it.
#[pyclass(frozen, module = "cryptodl._native")]
pub struct Remote {
    line: LineOptions,
    client: Py<Client>,
    keep: bool,
    max_size: u64,
}

/// How the service is reached.
struct LineOptions {
    url: String,
    token: Option<Zeroizing<String>>,
    authority: Option<Vec<u8>>,
    patience: Duration,
}

#[pymethods]
impl Remote {
    /// Fetches the client spec and checks it; makes keys in `folder` if it has none, or loads them and
    /// compares the spec with the one that they were made for. `authority` is the contents of a file in
    /// PEM.
    #[new]
    #[pyo3(signature = (url, model, folder, *, token, authority, patience, accept_new_spec, keep, max_size))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        py: Python<'_>,
        url: String,
        model: &str,
        folder: PathBuf,
        token: Option<String>,
        authority: Option<Vec<u8>>,
        patience: f64,
        accept_new_spec: bool,
        keep: bool,
        max_size: u64,
    ) -> PyResult<Self> {
        let patience = Duration::try_from_secs_f64(patience)
            .map_err(|error| PyValueError::new_err(format!("patience={patience} seconds: {error}")))?;
        let line = LineOptions { url, token: token.map(Zeroizing::new), authority, patience };
        let folder = KeyFolder::new(&folder);
        let (client, keys) = wait_sharing(py, None, |_, cancel| {
            let model = RemoteModel::open(line.open(cancel)?, model)?;
            if !folder.has_keys() {
                threads().install(|| model.make_keys(&folder, max_size))?;
            }
            let loaded = model.load_keys(&folder, accept_new_spec)?;
            Ok::<_, QueryError>((model.into_client(), loaded.keys))
        })?;
        let client = Py::new(py, Client::of(client, keys)?)?;
        Ok(Remote { line, client, keep, max_size })
    }

    /// What encrypts and decrypts.
    #[getter]
    fn client(&self, py: Python<'_>) -> Py<Client> {
        self.client.clone_ref(py)
    }

    /// Encrypts images while they are sent, and makes a job of them. Returns its name.
    #[pyo3(signature = (images, progress=None))]
    fn send(&self, py: Python<'_>, images: &Bound<'_, PyAny>, progress: Option<Py<PyAny>>) -> PyResult<String> {
        let client = self.client.get();
        let images = Images::new(images, client.client().spec().input.shape)?;
        let mut rest = images.values();
        let pixels = client.client().pixels();
        let next = |values: &mut Vec<f32>, count: usize| {
            let (set, after) = rest.split_at(count * pixels);
            rest = after;
            values.extend_from_slice(set);
            Ok::<_, Infallible>(())
        };
        let count = images.view().len_of(ndarray::Axis(0));
        wait_sharing(py, progress, |watch, cancel| {
            let model = self.open(cancel)?;
            let upload = model.announce(client.public_keys(), &[], count, self.max_size)?;
            let tell =
                Sending { encrypted: &|_| (), arrived: &|bytes, length| watch.tell(bytes as usize, length as usize) };
            let within = |encrypt: &mut (dyn FnMut() + Send)| threads().install(encrypt);
            Ok::<_, QueryError>(model.send(&upload, client.encryption_key(), next, within, tell)?.0)
        })
    }

    /// Waits until a job has a result.
    #[pyo3(signature = (job, progress=None))]
    fn wait(&self, py: Python<'_>, job: &str, progress: Option<Py<PyAny>>) -> PyResult<()> {
        wait_sharing(py, progress, |watch, cancel| {
            self.line.open(cancel)?.wait(job, &mut |status| {
                if let Some(steps) = &status.progress {
                    watch.tell(steps.done as usize, steps.total as usize);
                }
            })
        })
    }

    /// Fetches the result of a job of so many images.
    #[pyo3(signature = (job, images, progress=None))]
    fn fetch<'py>(
        &self,
        py: Python<'py>,
        job: &str,
        images: usize,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let response = wait_sharing(py, progress, |watch, cancel| {
            let model = self.open(cancel)?;
            let file = tempfile::tempfile().map_err(QueryError::Room)?;
            let length = model.client().response_len(images) as usize;
            model.fetch(job, images, &file, self.keep, &mut |bytes| watch.tell(bytes as usize, length))?;
            read_whole(file)
        })?;
        Ok(PyBytes::new(py, &response))
    }
}

impl Remote {
    fn open(&self, cancel: &Arc<AtomicBool>) -> Result<RemoteModel, QueryError> {
        Ok(RemoteModel::over(self.line.open(cancel)?, self.client.get().client().clone()))
    }
}

impl LineOptions {
    fn open(&self, cancel: &Arc<AtomicBool>) -> Result<Line, LineError> {
        let LineOptions { url, token, authority, patience } = self;
        let options =
            RemoteOptions { url: url.clone(), token: token.clone(), authority: authority.clone(), patience: *patience };
        Ok(Line::new(options)?.cancelled_by(cancel.clone()))
    }
}

fn read_whole(mut file: File) -> Result<Vec<u8>, QueryError> {
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(LineError::File)?;
    Ok(bytes)
}
