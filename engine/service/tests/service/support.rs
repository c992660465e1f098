//! A service with a small network, a client of it, and requests.

use std::future::Future;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode};
use cryptodl::network::{LayerOp, Network};
use cryptodl::{
    BackendChoice, Client, Keys, Model as Networks, Placement, PlanOptions, Program, ScheduleKind, Server, Watch,
};
use cryptodl_program::SplitMix;
use cryptodl_service::{Config, Host, KEYS_TYPE, Model, Threads};
use cryptodl_test_networks::{conv, dense, images, network, polynomial};
use http_body_util::BodyExt;
use serde_json::Value;
use tempfile::TempDir;
use tower::ServiceExt;

/// The name of the network.
pub const TINY: &str = "random";
/// Sets that a request may have.
pub const MAX_SETS: u64 = 2;
/// Images of a request.
pub const IMAGES: usize = 9;

fn tiny() -> Network {
    let mut g = SplitMix(1);
    let layers =
        vec![conv(&mut g, [2, 1, 3], 1, 0), polynomial(&[0.1, 0.5, 0.2]), LayerOp::Flatten, dense(&mut g, 3, 32)];
    network([1, 6, 6], layers)
}

/// A Program that needs an evaluation key.
pub fn program() -> &'static Program {
    static PROGRAM: OnceLock<Program> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let options = PlanOptions { schedule: ScheduleKind::Layered, ..PlanOptions::default() };
        Networks::from(tiny()).plan(&options, Watch::default()).expect("it fits").program
    })
}

/// The network on a backend.
pub fn service() -> cryptodl::Service {
    let placement = Placement { backend: BackendChoice::Cpu, threads: Some(2), ..Placement::default() };
    Server::new(placement).expect("threads").prepare(program()).expect("room")
}

/// The model, and sets that one key may be used for.
pub fn model(quota: Option<u64>) -> Model {
    Model::new(service(), MAX_SETS, quota).expect("a spec")
}

/// Images that everybody sends.
pub fn pixels(count: usize) -> Vec<f32> {
    images(count, [1, 6, 6], 11).into_raw_vec_and_offset().0
}

/// What the network says of them in the clear.
pub fn expected(count: usize) -> Vec<u32> {
    let scores = Networks::from(tiny()).plaintext_scores(images(count, [1, 6, 6], 11).view());
    let largest = |row: ndarray::ArrayView1<'_, f32>| (0..row.len()).reduce(|a, b| if row[b] > row[a] { b } else { a });
    scores.rows().into_iter().map(|row| largest(row).expect("scores") as u32).collect()
}

/// A client, its keys, and what it sends. Keys take a moment, so that all tests share them.
pub struct Party {
    pub client: Client,
    pub keys: Keys,
    pub public: Vec<u8>,
    pub evaluation: Vec<u8>,
    /// Of [`IMAGES`] images.
    pub request: Vec<u8>,
}

impl Party {
    pub fn new() -> Self {
        let client = Client::from(program().client_spec().check().expect("a valid spec"));
        let keys = client.generate_keys().expect("randomness");
        let [mut public, mut evaluation, mut request] = [const { Vec::new() }; 3];
        client.write_public_key(&keys.public, &mut public).expect("memory takes all");
        client.write_evaluation_keys(&keys.evaluation, &mut evaluation).expect("memory takes all");
        client.encrypt(&keys, &pixels(IMAGES), &mut request, Watch::default()).expect("valid images");
        Party { client, keys, public, evaluation, request }
    }

    pub fn shared() -> &'static Party {
        static PARTY: OnceLock<Party> = OnceLock::new();
        PARTY.get_or_init(Party::new)
    }

    /// What is registered.
    pub fn key_file(&self) -> Vec<u8> {
        [&self.public[..], &self.evaluation].concat()
    }

    /// Fails unless `result` has the right labels.
    pub fn check(&self, result: &[u8]) {
        let labels = self.client.decrypt(&self.keys.secret, result, Watch::default()).expect("scores").labels;
        assert_eq!(labels, expected(IMAGES));
    }
}

/// Runs what waits.
pub fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(work)
}

/// A service without sockets.
pub struct World {
    pub host: Arc<Host>,
    pub folder: Arc<TempDir>,
    threads: Option<Threads>,
}

/// An answer.
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&self.body)))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("text"))
    }

    /// The last part of `Location`.
    pub fn place(&self) -> String {
        self.header("location").rsplit('/').next().expect("a place").into()
    }

    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{}", String::from_utf8_lossy(&self.body));
        self
    }
}

impl World {
    /// For one tenant on this machine, which computes itself.
    pub fn new() -> Self {
        World::with(None, true, |_| {})
    }

    pub fn with(quota: Option<u64>, works: bool, change: impl FnOnce(&mut Config)) -> Self {
        World::at(Arc::new(tempfile::tempdir().expect("a folder")), quota, works, change)
    }

    pub fn at(folder: Arc<TempDir>, quota: Option<u64>, works: bool, change: impl FnOnce(&mut Config)) -> Self {
        World::of(folder, model(quota), works, change)
    }

    /// That computes nothing itself, and may have `max_sets` sets in a request.
    pub fn fleet(folder: Arc<TempDir>, max_sets: u64, change: impl FnOnce(&mut Config)) -> Self {
        let model = Model::elsewhere(program(), max_sets, None).expect("a Program");
        World::of(folder, model, true, change)
    }

    pub fn of(folder: Arc<TempDir>, model: Model, works: bool, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::local(folder.path());
        change(&mut config);
        let host = Host::open(config, vec![model]).expect("a state");
        let threads = works.then(|| host.start().expect("threads"));
        World { host, folder, threads }
    }

    /// Ends its threads and closes the state.
    pub fn close(mut self) -> Arc<TempDir> {
        self.end();
        self.folder.clone()
    }

    fn end(&mut self) {
        self.host.stop();
        self.host.interrupt();
        if let Some(threads) = self.threads.take() {
            threads.join();
        }
    }

    pub fn send(&self, request: Request<Body>) -> Answer {
        block_on(async {
            let response = self.host.router().oneshot(request).await.expect("an answer");
            let (parts, body) = response.into_parts();
            let body = body.collect().await.expect("a body").to_bytes().to_vec();
            Answer { status: parts.status, headers: parts.headers, body }
        })
    }

    /// A request of the only tenant.
    pub fn call(&self, method: &str, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
        self.send(request(method, path, headers, body))
    }

    pub fn get(&self, path: &str) -> Answer {
        self.call("GET", path, &[], Body::empty())
    }

    /// Registers the shared keys and returns their id.
    pub fn register(&self, auth: &[(&str, &str)]) -> String {
        let headers = [auth, &[("content-type", KEYS_TYPE)]].concat();
        let answer = self.call("POST", "/v1/models/random/keys", &headers, Party::shared().key_file());
        assert!(answer.status.is_success(), "{}", String::from_utf8_lossy(&answer.body));
        answer.json()["id"].as_str().expect("an id").into()
    }

    pub fn create(&self, auth: &[(&str, &str)], key: &str, length: usize) -> Answer {
        let (length, metadata) = (length.to_string(), metadata(key));
        let headers = [TUS, &[("upload-length", &length[..]), ("upload-metadata", &metadata)], auth].concat();
        self.call("POST", "/v1/uploads", &headers, Body::empty())
    }

    pub fn patch(&self, auth: &[(&str, &str)], upload: &str, offset: usize, bytes: &[u8]) -> Answer {
        let offset = offset.to_string();
        let headers = [TUS, &[("upload-offset", &offset[..]), APPEND], auth].concat();
        self.call("PATCH", &format!("/v1/uploads/{upload}"), &headers, bytes.to_vec())
    }

    /// A whole upload of `bytes`.
    pub fn upload(&self, auth: &[(&str, &str)], key: &str, bytes: &[u8]) -> String {
        let upload = self.create(auth, key, bytes.len()).expect(201).place();
        self.patch(auth, &upload, 0, bytes).expect(204);
        upload
    }

    pub fn submit(&self, auth: &[(&str, &str)], upload: &str) -> Answer {
        let headers = [&[("content-type", "application/json")], auth].concat();
        self.call("POST", "/v1/jobs", &headers, format!("{{\"upload\": \"{upload}\"}}"))
    }

    /// Waits until a job has ended, and returns it.
    pub fn ended(&self, auth: &[(&str, &str)], job: &str) -> Value {
        loop {
            let view = self.call("GET", &format!("/v1/jobs/{job}?wait=5"), auth, Body::empty()).expect(200).json();
            if !matches!(view["state"].as_str(), Some("queued" | "running")) {
                return view;
            }
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.end();
    }
}

/// What every request of tus has.
pub const TUS: &[(&str, &str)] = &[("tus-resumable", "1.0.0")];
/// The type of its pieces.
pub const APPEND: (&str, &str) = ("content-type", "application/offset+octet-stream");

/// `Upload-Metadata` with the id of keys.
pub fn metadata(key: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bits: String = key.bytes().map(|byte| format!("{byte:08b}")).collect();
    let mut text: String = bits
        .as_bytes()
        .chunks(6)
        .map(|bits| {
            let bits = format!("{:0<6}", std::str::from_utf8(bits).expect("digits"));
            char::from(DIGITS[usize::from_str_radix(&bits, 2).expect("bits")])
        })
        .collect();
    while !text.len().is_multiple_of(4) {
        text.push('=');
    }
    format!("filename eC5jdA==,key {text}")
}

pub fn request(method: &str, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Request<Body> {
    let mut request = Request::builder().method(Method::from_bytes(method.as_bytes()).expect("a method")).uri(path);
    if !headers.iter().any(|(name, _)| *name == "host") {
        request = request.header("host", "127.0.0.1:8750");
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(body.into()).expect("a request")
}

/// Copies a state that is closed.
pub fn copied(from: &Path) -> Arc<TempDir> {
    let to = tempfile::tempdir().expect("a folder");
    copy(from, to.path());
    Arc::new(to)
}

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            std::fs::create_dir_all(&target).expect("a folder");
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("copied");
        }
    }
}
