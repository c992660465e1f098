//! A network that is served.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use cryptodl::{CheckedSpec, CiphertextsInfo, PublicKey};
use cryptodl_core::wire::{
    CiphertextLayout, CiphertextsReader, WireError, ciphertexts_len, eval_keys_len, public_key_len, read_eval_keys,
    read_public_key, write_client_spec,
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::problem::Problem;

/// Bytes of a request from which on it says what it is.
pub(crate) const HEADERS: u64 = 256;

/// A Program on its backend, and what every request to it is measured by.
pub struct Model {
    service: cryptodl::Service,
    /// Digest of the Program, as text.
    program: String,
    /// The client spec as a file.
    spec_file: Vec<u8>,
    max_sets: u64,
    sets_per_key: Option<u64>,
    view: ModelView,
}

/// What a client may know of a model before it asks for its client spec.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ModelView {
    /// Its name, by which requests call it.
    #[schema(example = "mnist-1")]
    pub name: String,
    /// Digest of the Program: it changes whenever the network or its plan does.
    pub program: String,
    /// Images in a set, which costs the same however many of them it holds.
    pub images_per_set: usize,
    /// Channels, height and width of an image.
    pub input_shape: [usize; 3],
    /// Least and greatest value of a pixel.
    pub input_range: [f64; 2],
    /// Scores of an image.
    pub classes: usize,
    /// Sets that one request may have.
    pub max_sets: u64,
    /// Sets that one key may be used for; without a limit if absent.
    pub sets_per_key: Option<u64>,
    /// Sets that all keys of a tenant together may be used for, because results hide the computation's noise up to so many; without
    /// a limit if absent.
    pub sets_per_tenant: Option<u64>,
    /// What travels.
    pub bytes: ModelBytes,
}

/// Bytes of what travels.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ModelBytes {
    /// Public key and evaluation keys, sent once.
    pub keys: u64,
    /// A request with one full set.
    pub request: u64,
    /// Its result.
    pub result: u64,
    /// The largest request.
    pub max_request: u64,
}

impl Model {
    /// Serves `service`. A request may have `max_sets` sets, and a key be used for `sets_per_key`.
    ///
    /// # Errors
    /// The client spec cannot be written.
    pub fn new(service: cryptodl::Service, max_sets: u64, sets_per_key: Option<u64>) -> io::Result<Self> {
        let spec = service.spec();
        let (params, n) = (spec.params(), spec.params().n() as u64);
        let (input, result) = (CiphertextLayout::input(spec), CiphertextLayout::result(spec));
        let keys = public_key_len(params).saturating_add(eval_keys_len(params, &spec.evaluation_keys));
        let bytes = ModelBytes {
            keys,
            request: ciphertexts_len(params, &input, n),
            result: ciphertexts_len(params, &result, n),
            max_request: ciphertexts_len(params, &input, n.saturating_mul(max_sets)),
        };
        let view = ModelView {
            name: spec.model.clone(),
            program: spec.program.to_string(),
            images_per_set: params.n(),
            input_shape: spec.input.shape,
            input_range: spec.input.range,
            classes: spec.output.classes,
            max_sets,
            sets_per_key,
            sets_per_tenant: service.circuit_privacy().map(|privacy| privacy.goal.sets.into()),
            bytes,
        };
        let mut spec_file = Vec::new();
        write_client_spec(&mut spec_file, spec)?;
        Ok(Model { program: spec.program.to_string(), spec_file, max_sets, sets_per_key, view, service })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.view.name
    }

    /// Digest of the Program.
    pub fn program(&self) -> &str {
        &self.program
    }

    /// What computes.
    pub fn service(&self) -> &cryptodl::Service {
        &self.service
    }

    /// For clients.
    pub fn view(&self) -> &ModelView {
        &self.view
    }

    /// The client spec as a file.
    pub fn spec_file(&self) -> &[u8] {
        &self.spec_file
    }

    /// Sets that one key may be used for.
    pub fn sets_per_key(&self) -> Option<u64> {
        self.sets_per_key
    }

    fn spec(&self) -> &CheckedSpec {
        self.service.spec()
    }

    /// Bytes that registered keys have.
    pub fn keys_len(&self) -> u64 {
        self.view.bytes.keys
    }

    /// Reads and checks keys as they are registered: a public key, and behind it the evaluation keys.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn read_keys(&self, mut file: &File) -> Result<(PublicKey, cryptodl::EvalKeys), WireError> {
        let params = self.spec().params();
        file.seek(SeekFrom::Start(0))?;
        let public = read_public_key(file.take(public_key_len(params)), params)?;
        let evaluation = read_eval_keys(file, params)?;
        Ok((public, evaluation))
    }

    /// Refuses keys that the Program cannot be computed with.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn check_keys(&self, file: &File) -> Result<(), Problem> {
        let refused = |error: WireError| Problem::refused(format!("these keys are refused: {error}"));
        let (_, evaluation) = self.read_keys(file).map_err(refused)?;
        for layout in &self.spec().evaluation_keys {
            if evaluation.get(*layout).is_none() {
                return Err(Problem::refused(format!(
                    "these keys are refused: there is none for {layout}; make keys from the client spec of this model"
                )));
            }
        }
        Ok(())
    }

    /// Refuses a request of `length` bytes whose length alone is wrong.
    ///
    /// # Errors
    /// Too short, or too long.
    pub fn check_length(&self, length: u64) -> Result<(), Problem> {
        let most = self.view.bytes.max_request;
        if length > most {
            let status = axum::http::StatusCode::PAYLOAD_TOO_LARGE;
            return Err(Problem::new(
                status,
                format!(
                    "a request of {length} bytes, where {most} are allowed ({} sets): send fewer images",
                    self.max_sets
                ),
            ));
        }
        if length < HEADERS {
            return Err(Problem::refused(format!("a request of {length} bytes holds no encrypted images")));
        }
        Ok(())
    }

    /// Opens a request, of which at least `HEADERS` bytes are there, and which has `length` in all.
    ///
    /// # Errors
    /// It belongs to another Program, has another length than it says, or too many sets.
    pub fn open_request(&self, file: File, length: u64) -> Result<CiphertextsReader<File>, Problem> {
        let refused = |error: WireError| Problem::refused(format!("this request is refused: {error}"));
        let layout = CiphertextLayout::input(self.spec());
        let reader = CiphertextsReader::open(file, &self.service.binding(), &layout).map_err(refused)?;
        reader.expect_len(length).map_err(refused)?;
        let sets = reader.info().sets(self.spec().params()) as u64;
        if sets > self.max_sets {
            return Err(Problem::refused(format!(
                "{sets} sets, where {} are allowed: send fewer images",
                self.max_sets
            )));
        }
        if reader.info().first_set != 0 {
            return Err(Problem::refused("a part of a whole: send its sets as a request of their own"));
        }
        Ok(reader)
    }

    /// Bytes of the result of such a request.
    pub fn result_len(&self, request: &CiphertextsInfo) -> u64 {
        let layout = CiphertextLayout::result(self.spec());
        ciphertexts_len(self.spec().params(), &layout, request.images as u64)
    }
}
