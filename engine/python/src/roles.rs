//! The two roles. A server cannot decrypt, and a client knows nothing of the model.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use cryptodl::{
    AcceptedKeys, BackendChoice, EncryptionKey, EncryptionKind, Keys, Placement, Program, PublicKey, SecretKey, Service,
};
use cryptodl_core::wire::{eval_keys_len, public_key_len, read_needed_eval_keys};
use numpy::{IntoPyArray, PyArray1, PyArray2, PyArrayMethods as _};
use pyo3::exceptions::{PyFileNotFoundError, PyValueError};
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

/// The files of a client's keys, as `cryptodl keygen` writes them.
struct KeyFiles {
    secret: PathBuf,
    public: PathBuf,
    evaluation: PathBuf,
    spec: PathBuf,
}

#[pymethods]
impl Client {
    /// Of the Program that `spec` describes, with the keys in `folder`, or new ones if it has none.
    /// Without a folder the keys are new, and nowhere but in memory. Keys that would be larger than
    /// `max_key_size` bytes are not made.
    #[new]
    fn new(py: Python<'_>, spec: &[u8], folder: Option<PathBuf>, max_key_size: u64) -> PyResult<Self> {
        let client = cryptodl::Client::read_spec(spec).map_err(errors::of)?;
        let files = folder.map(|folder| KeyFiles::new(&folder));
        let Some(files) = files else {
            return generate(py, &client, max_key_size).and_then(|keys| Client::of(client, keys));
        };
        if files.all().iter().all(|path| !path.exists()) {
            let keys = generate(py, &client, max_key_size)?;
            files.write(&client, &keys)?;
            return Client::of(client, keys);
        }
        let secret = read(&files.secret, |file| client.read_secret_key(file))?;
        let public = read(&files.public, |file| client.read_public_key(file))?;
        let spec = client.spec();
        let needed = |file: File| Ok(read_needed_eval_keys(file, spec.params(), &spec.evaluation_keys)?);
        let evaluation = read(&files.evaluation, needed)?;
        if let Some(missing) = spec.evaluation_keys.iter().find(|layout| evaluation.get(**layout).is_none()) {
            let place = files.evaluation.display();
            return Err(FormatError::new_err(format!("{place} has no key for {missing}{OTHER_KEYS}")));
        }
        Client::of(client, Keys { secret, public, evaluation })
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
        let key = match self.client.spec().encryption {
            EncryptionKind::Secret => EncryptionKey::Secret(&self.secret),
            EncryptionKind::Public => EncryptionKey::Public(&self.public),
        };
        let request = wait(py, progress, |watch| {
            let mut request = Vec::new();
            self.client.encrypt_with(key, values, &mut request, watch)?;
            Ok(request)
        })?;
        Ok(PyBytes::new(py, &request))
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

/// What to do about keys of another Program.
const OTHER_KEYS: &str = ": the keys may be of another Program; name another folder for new ones";

impl Client {
    fn of(client: cryptodl::Client, Keys { secret, public, evaluation: keys }: Keys) -> PyResult<Self> {
        let mut evaluation = Vec::new();
        client.write_public_key(&public, &mut evaluation).map_err(errors::of)?;
        client.write_evaluation_keys(&keys, &mut evaluation).map_err(errors::of)?;
        Ok(Client { client, secret, public, evaluation })
    }
}

/// New keys, which a spec from a stranger may ask to be of any size.
fn generate(py: Python<'_>, client: &cryptodl::Client, max_size: u64) -> PyResult<Keys> {
    let spec = client.spec();
    let size = public_key_len(spec.params()).saturating_add(eval_keys_len(spec.params(), &spec.evaluation_keys));
    if size > max_size {
        return Err(PyValueError::new_err(format!(
            "the keys would have {size} bytes, and max_key_size allows {max_size}: raise it, or check where the client \
             spec comes from"
        )));
    }
    wait(py, None, |_| client.generate_keys())
}

/// The key in a file.
fn read<T>(path: &Path, parse: impl FnOnce(File) -> Result<T, cryptodl::Error>) -> PyResult<T> {
    let file = File::open(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => PyFileNotFoundError::new_err(format!(
            "{} is not there, but others of its keys are: name another folder for new keys",
            path.display()
        )),
        _ => PyErr::from(error),
    })?;
    parse(file)
        .map_err(|error| FormatError::new_err(format!("{}: {}{OTHER_KEYS}", path.display(), errors::in_words(&error))))
}

impl KeyFiles {
    fn new(folder: &Path) -> Self {
        let (secret, public) = (folder.join("secret"), folder.join("public"));
        KeyFiles {
            secret: secret.join("secret.key"),
            public: public.join("public.key"),
            evaluation: public.join("eval.key"),
            spec: public.join("client.spec"),
        }
    }

    fn all(&self) -> [&Path; 4] {
        [&self.secret, &self.public, &self.evaluation, &self.spec]
    }

    /// Writes new keys, the secret one for its owner alone. Nothing is replaced: another process
    /// may make keys in the same folder meanwhile.
    fn write(&self, client: &cryptodl::Client, keys: &Keys) -> PyResult<()> {
        for file in [&self.public, &self.secret] {
            fs::create_dir_all(file.parent().expect("a file lies in a folder"))?;
        }
        #[cfg(unix)]
        fs::set_permissions(
            self.secret.parent().expect("a file lies in a folder"),
            std::os::unix::fs::PermissionsExt::from_mode(0o700),
        )?;
        self.put(&self.public, |file| client.write_public_key(&keys.public, file))?;
        self.put(&self.evaluation, |file| client.write_evaluation_keys(&keys.evaluation, file))?;
        self.put(&self.spec, |file| client.write_spec(file))?;
        self.put(&self.secret, |file| client.write_secret_key(&keys.secret, file))
    }

    /// A file that appears whole or not at all.
    fn put(&self, path: &Path, contents: impl FnOnce(&File) -> Result<(), cryptodl::Error>) -> PyResult<()> {
        // Temporary files are their owner's, and the public ones are opened after.
        let file = tempfile::NamedTempFile::new_in(path.parent().expect("a file lies in a folder"))?;
        contents(file.as_file()).map_err(errors::of)?;
        file.as_file().sync_all()?;
        #[cfg(unix)]
        if path != self.secret {
            file.as_file().set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
        }
        file.persist_noclobber(path).map_err(|error| error.error)?;
        Ok(())
    }
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
