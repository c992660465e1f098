//! The two roles. A server cannot decrypt, and a client knows nothing of the model.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use cryptodl::{
    AcceptedKeys, BackendChoice, EncryptionKey, EncryptionKind, KeyFolder, Keys, Placement, Program, PublicKey,
    SecretKey, Service,
};
use cryptodl_core::wire::public_key_len;
use numpy::{IntoPyArray, PyArray1, PyArray2, PyArrayMethods as _};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::errors::{self, FormatError};
use crate::images::Images;
use crate::waiting::{cores, wait, wait_apart};

/// A client of one Program, with its keys.
#[pyclass(frozen, module = "cryptodl._native")]
pub struct Client {
    client: cryptodl::Client,
    secret: SecretKey,
    public: PublicKey,
    /// The public keys as they go to the server.
    evaluation: Vec<u8>,
}

#[pymethods]
impl Client {
    /// Of the Program that `spec` describes, with the keys in `folder`, or new ones if it has none.
    /// Without a folder the keys are new, and nowhere but in memory. Keys that would be larger than
    /// `max_key_size` bytes are not made.
    #[new]
    fn new(py: Python<'_>, spec: &[u8], folder: Option<PathBuf>, max_key_size: u64) -> PyResult<Self> {
        let client = cryptodl::Client::read_spec(spec).map_err(errors::of)?;
        let Some(folder) = folder.map(|folder| KeyFolder::new(&folder)) else {
            return generate(py, &client, max_key_size).and_then(|keys| Client::of(client, keys));
        };
        let keys = if folder.has_keys() {
            folder.load(&client).map_err(errors::keys)?
        } else {
            let keys = generate(py, &client, max_key_size)?;
            folder.write_new(&client, &keys).map_err(errors::keys)?;
            keys
        };
        Client::of(client, keys)
    }

    /// What the server computes with: it decrypts nothing.
    fn evaluation_key<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.evaluation)
    }

    #[getter]
    fn shape(&self) -> [usize; 3] {
        self.client.spec().input.shape
    }

    #[getter]
    fn range(&self) -> [f64; 2] {
        self.client.spec().input.range
    }

    #[getter]
    fn class_names(&self) -> Vec<String> {
        self.client.spec().class_names.clone()
    }

    #[pyo3(signature = (images, progress=None))]
    fn encrypt<'py>(
        &self,
        py: Python<'py>,
        images: &Bound<'py, PyAny>,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let images = Images::new(images, self.shape())?;
        let values = images.values();
        let length =
            usize::try_from(self.client.request_len(values.len() / self.client.pixels())).unwrap_or(usize::MAX);
        // Written where Python keeps it: a copy of hundreds of megabytes takes as long as a tenth of the encryption.
        PyBytes::new_with(py, length, |request| {
            wait(py, progress, |watch| self.client.encrypt_with(self.encryption_key(), values, request, watch))
        })
    }

    /// Labels `[image]`, scores `[image, class]` rounded so that none of their noise is seen, and
    /// whether each image's scores are doubtful.
    #[pyo3(signature = (response, progress=None))]
    #[allow(clippy::type_complexity)]
    fn decrypt<'py>(
        &self,
        py: Python<'py>,
        response: &[u8],
        progress: Option<Py<PyAny>>,
    ) -> PyResult<(Bound<'py, PyArray1<u32>>, Bound<'py, PyArray2<f64>>, Bound<'py, PyArray1<bool>>)> {
        let found = wait(py, progress, |watch| self.client.decrypt(&self.secret, response, watch))?;
        let shape = [found.labels.len(), found.classes];
        let scores = found.scores.into_pyarray(py).reshape(shape)?;
        Ok((found.labels.into_pyarray(py), scores, found.out_of_range.into_pyarray(py)))
    }
}

impl Client {
    pub fn of(client: cryptodl::Client, Keys { secret, public, evaluation: keys }: Keys) -> PyResult<Self> {
        let mut evaluation = Vec::new();
        client.write_public_key(&public, &mut evaluation).map_err(errors::of)?;
        client.write_evaluation_keys(&keys, &mut evaluation).map_err(errors::of)?;
        Ok(Client { client, secret, public, evaluation })
    }

    pub fn client(&self) -> &cryptodl::Client {
        &self.client
    }

    /// The public keys as they go to the server.
    pub fn public_keys(&self) -> &[u8] {
        &self.evaluation
    }

    /// The one that encrypts images.
    pub fn encryption_key(&self) -> EncryptionKey<'_> {
        match self.client.spec().encryption {
            EncryptionKind::Secret => EncryptionKey::Secret(&self.secret),
            EncryptionKind::Public => EncryptionKey::Public(&self.public),
        }
    }
}

/// New keys, which a spec from a stranger may ask to be of any size.
fn generate(py: Python<'_>, client: &cryptodl::Client, max_size: u64) -> PyResult<Keys> {
    let size = client.keys_len();
    if size > max_size {
        return Err(PyValueError::new_err(format!(
            "the keys would have {size} bytes, and max_key_size allows {max_size}: raise it, or check where the client \
             spec comes from"
        )));
    }
    wait(py, None, |_| client.generate_keys())
}

/// A Program that is ready to compute. It has no secret and cannot decrypt.
#[pyclass(frozen, module = "cryptodl._native")]
pub struct Server {
    service: Service,
    /// The keys of the last request: most requests come from the same client as the one before.
    last: Mutex<Option<([u8; 32], Arc<AcceptedKeys>)>>,
}

#[pymethods]
impl Server {
    /// `device` is `auto`, `cpu`, `gpu`, or a part of an adapter's name.
    #[new]
    #[pyo3(signature = (program, device="auto", threads=None, memory_budget=None))]
    fn new(
        py: Python<'_>,
        program: &[u8],
        device: &str,
        threads: Option<usize>,
        memory_budget: Option<u64>,
    ) -> PyResult<Self> {
        let program = Program::read(program).map_err(|error| FormatError::new_err(errors::in_words(&error)))?;
        let backend = match device {
            "auto" => BackendChoice::Auto,
            "cpu" => BackendChoice::Cpu,
            "gpu" => BackendChoice::Gpu(None),
            "" => {
                return Err(PyValueError::new_err("device: `auto`, `cpu`, `gpu` or the name of an adapter is needed"));
            }
            name => BackendChoice::Gpu(Some(name.into())),
        };
        let placement =
            Placement { backend, memory_budget, threads: Some(threads.unwrap_or_else(cores)), ..Placement::default() };
        let service = wait_apart(py, None, |_| cryptodl::Server::new(placement)?.prepare(&program))?;
        Ok(Server { service, last: Mutex::new(None) })
    }

    /// What computes.
    #[getter]
    fn device(&self) -> String {
        let machine = self.service.machine();
        format!("{} ({}, {})", machine.backend, machine.device, machine.kernels)
    }

    /// Why a GPU that is there does not compute.
    #[getter]
    fn fallback(&self) -> Option<String> {
        self.service.fallback().map(|error| errors::in_words(error))
    }

    #[getter]
    fn program(&self) -> String {
        self.service.spec().program.to_string()
    }

    /// Classifies the images of a request.
    #[pyo3(signature = (request, evaluation_key, deterministic=false, progress=None))]
    fn run<'py>(
        &self,
        py: Python<'py>,
        request: &[u8],
        evaluation_key: &[u8],
        deterministic: bool,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let response = wait_apart(py, progress, |watch| {
            let accepted = self.accepted(evaluation_key)?;
            let mut response = Vec::new();
            match deterministic {
                true => self.service.infer_deterministic(&accepted, request, &mut response, watch)?,
                false => self.service.infer(&accepted, request, &mut response, watch)?,
            };
            Ok(response)
        })?;
        Ok(PyBytes::new(py, &response))
    }
}

impl Server {
    /// The keys, expanded if they are not those of the last request.
    fn accepted(&self, bytes: &[u8]) -> Result<Arc<AcceptedKeys>, cryptodl::Error> {
        let digest = blake3::hash(bytes).into();
        let last = || self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, accepted)) = &*last()
            && *known == digest
        {
            return Ok(accepted.clone());
        }
        let length = public_key_len(self.service.params()).min(bytes.len() as u64);
        let (public, evaluation) = bytes.split_at(length as usize);
        let accepted = Arc::new(self.service.read_keys(evaluation, public)?);
        *last() = Some((digest, accepted.clone()));
        Ok(accepted)
    }
}
