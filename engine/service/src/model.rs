//! A network that is served.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};

use cryptodl::{Binding, CheckedSpec, CiphertextsInfo, CircuitPrivacy, Params, Program, ProgramError, PublicKey};
use cryptodl_core::wire::{
    CiphertextLayout, CiphertextsReader, WireError, ciphertexts_len, eval_keys_len, public_key_len, write_client_spec,
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::compute::read_keys;
use crate::problem::Problem;
use crate::sets;

/// Bytes of a request from which on it says what it is.
pub(crate) const HEADERS: u64 = 256;

/// A Program, perhaps on a backend, and what every request to it is measured by.
pub struct Model {
    /// What computes it in this process, if anything does.
    service: Option<cryptodl::Service>,
    spec: CheckedSpec,
    hides_noise: bool,
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
    /// Whether requests go to an object store, set by set, and results come from there.
    pub store: bool,
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
    /// Serves `service`, which computes in this process. A request may have `max_sets` sets, and a key be used for `sets_per_key`.
    ///
    /// # Errors
    /// The client spec cannot be written.
    pub fn new(service: cryptodl::Service, max_sets: u64, sets_per_key: Option<u64>) -> io::Result<Self> {
        let (spec, privacy) = (service.spec().clone(), service.circuit_privacy());
        Model::described(spec, privacy, Some(service), max_sets, sets_per_key)
    }

    /// Serves `program`, which workers compute and this process does not. Its weights are not kept.
    ///
    /// # Errors
    /// A Program that is refused.
    pub fn elsewhere(program: &Program, max_sets: u64, sets_per_key: Option<u64>) -> Result<Self, ProgramError> {
        let (spec, privacy) = (program.check()?, program.content.circuit_privacy);
        let model = Model::described(spec, privacy, None, max_sets, sets_per_key);
        Ok(model.expect("memory takes a client spec"))
    }

    fn described(
        spec: CheckedSpec,
        privacy: Option<CircuitPrivacy>,
        service: Option<cryptodl::Service>,
        max_sets: u64,
        sets_per_key: Option<u64>,
    ) -> io::Result<Self> {
        let (params, n) = (spec.params(), spec.params().n() as u64);
        let (input, result) = (CiphertextLayout::input(&spec), CiphertextLayout::result(&spec));
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
            store: false,
            max_sets,
            sets_per_key,
            sets_per_tenant: privacy.map(|privacy| privacy.goal.sets.into()),
            bytes,
        };
        let mut spec_file = Vec::new();
        write_client_spec(&mut spec_file, &spec)?;
        let (program, hides_noise) = (spec.program.to_string(), privacy.is_some());
        Ok(Model { service, spec, hides_noise, program, spec_file, max_sets, sets_per_key, view })
    }

    /// Requests go to an object store from now on.
    pub(crate) fn keep_in_store(&mut self) {
        self.view.store = true;
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.view.name
    }

    /// Digest of the Program.
    pub fn program(&self) -> &str {
        &self.program
    }

    /// What computes it in this process, if anything does.
    pub fn service(&self) -> Option<&cryptodl::Service> {
        self.service.as_ref()
    }

    /// The checked parameters.
    pub(crate) fn params(&self) -> &Params {
        self.spec.params()
    }

    /// What its files belong to.
    pub(crate) fn binding(&self) -> Binding<'_> {
        Binding { program: self.spec.program, params: self.spec.params() }
    }

    /// Whether results hide the computation's noise, so that they must be masked.
    pub(crate) fn hides_noise(&self) -> bool {
        self.hides_noise
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

    /// What clients must know of it.
    pub(crate) fn spec(&self) -> &CheckedSpec {
        &self.spec
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
        file.seek(SeekFrom::Start(0))?;
        read_keys(file, self.params())
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
        let reader = CiphertextsReader::open(file, &self.binding(), &self.input_layout()).map_err(refused)?;
        reader.expect_len(length).map_err(refused)?;
        let sets = reader.info().sets(self.params()) as u64;
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
        ciphertexts_len(self.params(), &self.result_layout(), request.images as u64)
    }

    /// Ciphertexts of requests.
    pub(crate) fn input_layout(&self) -> CiphertextLayout {
        CiphertextLayout::input(self.spec())
    }

    /// Ciphertexts of results.
    fn result_layout(&self) -> CiphertextLayout {
        CiphertextLayout::result(self.spec())
    }

    /// Refuses so many images for a request whose sets go to a store.
    ///
    /// # Errors
    /// None, or too many.
    pub(crate) fn check_images(&self, images: u64) -> Result<(), Problem> {
        let most = self.max_sets.saturating_mul(self.params().n() as u64);
        if !(1..=most).contains(&images) {
            return Err(Problem::refused(format!("{images} images, where 1 to {most} are allowed in a request")));
        }
        let request = self.request(images);
        let result = sets::result_of(&request, &self.result_layout(), self.params());
        if !request.is_numbered(self.params()) || !result.is_numbered(self.params()) {
            return Err(Problem::refused(format!(
                "{images} images have more ciphertexts than can be numbered: send fewer"
            )));
        }
        Ok(())
    }

    /// What a request of so many images is whose sets go to a store.
    pub(crate) fn request(&self, images: u64) -> CiphertextsInfo {
        sets::request(&self.input_layout(), self.params(), usize::try_from(images).unwrap_or(usize::MAX))
    }

    /// Bytes of set number `set` of such a request, as a file.
    pub(crate) fn set_len(&self, request: &CiphertextsInfo, set: u64) -> u64 {
        sets::file_len(&self.binding(), &self.input_layout(), &sets::part_of(request, set, self.params()))
    }

    /// Refuses a file of `length` bytes that begins with `head` and is not set number `set` of such a request.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn check_set(
        &self,
        request: &CiphertextsInfo,
        set: u64,
        head: &[u8],
        length: u64,
    ) -> Result<(), Problem> {
        let refused = |error: WireError| Problem::refused(format!("set {set} of this request is refused: {error}"));
        let (part, announced) = (sets::part_of(request, set, self.params()), self.set_len(request, set));
        if length != announced {
            return Err(Problem::refused(format!(
                "set {set} of this request has {announced} bytes as it was announced, and this one has {length}: put it there again"
            )));
        }
        sets::open(head, length, &self.binding(), &self.input_layout(), &part).map_err(refused).map(|_| ())
    }

    /// Bytes of the scores of set number `set` of such a request, as a file.
    pub(crate) fn set_result_len(&self, request: &CiphertextsInfo, set: u64) -> u64 {
        let layout = self.result_layout();
        let part = sets::part_of(request, set, self.params());
        sets::file_len(&self.binding(), &layout, &sets::result_of(&part, &layout, self.params()))
    }

    /// Opens a file of `length` bytes, of which the first are there, and which must be the result of set number `set` of such a
    /// request.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn open_set_result<R: io::Read>(
        &self,
        request: &CiphertextsInfo,
        set: u64,
        source: R,
        length: u64,
    ) -> Result<CiphertextsReader<R>, Problem> {
        let part = sets::part_of(request, set, self.params());
        sets::open(source, length, &self.binding(), &self.result_layout(), &part).map_err(result_refused)
    }

    /// Refuses a file that is not the result of set number `set` of such a request.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn check_set_result(&self, request: &CiphertextsInfo, set: u64, mut file: &File) -> Result<(), Problem> {
        file.seek(SeekFrom::Start(0))?;
        let length = file.metadata()?.len();
        let mut reader = self.open_set_result(request, set, file, length)?;
        let mut bytes = Vec::new();
        while reader.next(&mut bytes).map_err(result_refused)? {}
        reader.finish().map_err(result_refused)
    }
}

fn result_refused(error: WireError) -> Problem {
    Problem::refused(format!("this result is refused: {error}"))
}
