//! The client's side: what it takes to send a request over a line that may break, and to fetch the result.
//!
//! Every step can be repeated without doing anything twice: registered keys are the same registration, an upload goes on where it is,
//! and an upload is one job however often it is submitted. Nothing here knows what a result decrypts to.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use reqwest::blocking::{Body, Client, RequestBuilder, Response};
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue, LOCATION, RANGE, RETRY_AFTER};
use reqwest::{Certificate, Method, StatusCode, Url, redirect};
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::api::KEYS_TYPE;
use crate::run::Stop;

pub mod leases;

/// Bytes that are sent in one request: what a broken connection can cost.
const PIECE: usize = 8 << 20;
/// Bytes of an answer that is JSON, or a client spec.
const MAX_ANSWER: u64 = 16 << 20;
/// Seconds that the server is asked to wait for a job that has not begun.
const WAIT: u64 = 5;
/// Between two looks at a job.
const LEAST_WAIT: Duration = Duration::from_millis(50);
/// Before another try, where the service does not say when.
const LOOK: Duration = Duration::from_millis(500);

/// How to reach a service.
pub struct RemoteOptions {
    /// Such as `https://predict.example.org`; `http` to this machine only.
    pub url: String,
    /// What the operator gave.
    pub token: Option<Zeroizing<String>>,
    /// Certificates in PEM that are trusted instead of the system's.
    pub authority: Option<Vec<u8>>,
    /// How long to try again where there is no answer, or the service is full, since the last progress.
    pub patience: Duration,
}

/// Why the service did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// What it is called by.
    #[error("{0}")]
    Url(String),
    /// Certificates or tokens.
    #[error("{0}")]
    Credentials(String),
    /// It does not answer.
    #[error("{url} does not answer: {reason}")]
    Unreachable {
        /// Where.
        url: String,
        /// What happened last.
        reason: String,
    },
    /// It refuses.
    #[error("the service refuses ({status}): {detail}")]
    Refused {
        /// HTTP.
        status: u16,
        /// What it says.
        detail: String,
    },
    /// It says what it must not.
    #[error("the service does not do what was agreed: {0}")]
    Protocol(String),
    /// A job gave no result.
    #[error("the job {state}: {reason}")]
    Job {
        /// `failed` or `was cancelled`.
        state: &'static str,
        /// Why.
        reason: String,
    },
    /// A file of our own.
    #[error(transparent)]
    File(#[from] io::Error),
}

/// How far a job is.
#[derive(Clone, Debug, Deserialize)]
pub struct JobStatus {
    /// Its name.
    pub id: String,
    /// `queued`, `running`, `done`, `failed` or `cancelled`.
    pub state: String,
    /// Jobs before it.
    pub before: Option<u64>,
    /// Steps of its computation.
    pub progress: Option<StepProgress>,
    /// Why it failed.
    pub error: Option<String>,
}

/// Steps of a computation.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct StepProgress {
    /// Done.
    pub done: u64,
    /// In all.
    pub total: u64,
}

#[derive(Deserialize)]
struct Key {
    id: String,
    model: Option<String>,
    digest: String,
}

#[derive(Deserialize)]
struct ProblemDetail {
    detail: String,
}

/// A service.
pub struct Remote {
    http: Client,
    base: Url,
    token: Option<HeaderValue>,
    patience: Duration,
    /// Ends all patience.
    stop: Option<Stop>,
}

/// What an attempt was answered.
enum Attempt {
    Answered(Response),
    /// Not now.
    Again {
        after: Duration,
        reason: String,
    },
}

impl Remote {
    /// Of a service that is not asked anything yet.
    ///
    /// # Errors
    /// An address that is none, or that would carry a token in the clear; certificates that are none.
    pub fn new(options: RemoteOptions) -> Result<Self, RemoteError> {
        let RemoteOptions { url, token, authority, patience } = options;
        let base = Url::parse(&url).map_err(|error| RemoteError::Url(format!("{url}: {error}")))?;
        let host = base.host_str().unwrap_or_default();
        let is_local = host == "localhost"
            || host.trim_matches(['[', ']']).parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
        match base.scheme() {
            "https" => {}
            "http" if is_local => {}
            "http" => {
                return Err(RemoteError::Url(format!(
                    "{url} would be reached in the clear: use https (http is for this machine only)"
                )));
            }
            other => return Err(RemoteError::Url(format!("{url}: {other} is not spoken here, https is"))),
        }
        if base.path() != "/" || base.query().is_some() || base.fragment().is_some() {
            return Err(RemoteError::Url(format!("{url} must be a scheme, a host and a port, without a path")));
        }
        if !base.username().is_empty() || base.password().is_some() {
            return Err(RemoteError::Url(
                "an address must not hold a name or a password: tokens go into a file".into(),
            ));
        }
        let token = token.map(|token| {
            let value = Zeroizing::new(format!("Bearer {}", token.trim()));
            let value = HeaderValue::from_str(&value).map(|mut value| {
                value.set_sensitive(true);
                value
            });
            value.map_err(|_| RemoteError::Credentials("the token has characters that no token has".into()))
        });
        // The first one that is installed stays; it is the same everywhere here.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut http = Client::builder()
            .redirect(redirect::Policy::none())
            .connect_timeout(Duration::from_secs(10))
            .timeout(Duration::from_secs(120))
            .user_agent(concat!("cryptodl/", env!("CARGO_PKG_VERSION")));
        if let Some(pem) = authority {
            let refused = |error: reqwest::Error| RemoteError::Credentials(format!("certificates: {error}"));
            let trusted = Certificate::from_pem_bundle(&pem).map_err(refused)?;
            if trusted.is_empty() {
                return Err(RemoteError::Credentials("there is no certificate in PEM".into()));
            }
            http = http.tls_certs_only(trusted);
        }
        let http = http.build().map_err(|error| RemoteError::Credentials(reason(&error)))?;
        Ok(Remote { http, base, token: token.transpose()?, patience, stop: None })
    }

    /// From `stop` on nothing is tried a second time.
    pub fn until(self, stop: Stop) -> Self {
        Remote { stop: Some(stop), ..self }
    }

    /// How long it is tried again where there is no answer.
    pub fn patience(&self) -> Duration {
        self.patience
    }

    fn is_stopped(&self) -> bool {
        self.stop.as_ref().is_some_and(Stop::is_stopped)
    }

    /// Its address.
    pub fn url(&self) -> &str {
        self.base.as_str()
    }

    /// The client spec of a model, as a file that is not yet checked.
    ///
    /// # Errors
    /// There is no such model, no answer, or too long a one.
    pub fn spec(&self, model: &str) -> Result<Vec<u8>, RemoteError> {
        let mut path = self.base.clone();
        path.path_segments_mut().expect("a base with a host").extend(["v1", "models", model, "spec"]);
        read_all(self.ask(|| self.request(Method::GET, path.clone()))?)
    }

    /// Registers keys, unless they are registered: the contents of `public.key`, and those of an `eval.key` with exactly what the
    /// client spec asks for. Returns their name.
    ///
    /// # Errors
    /// They are refused, or there is no answer.
    pub fn register_keys(&self, model: &str, public: &[u8], evaluation: &[u8]) -> Result<String, RemoteError> {
        let mut path = self.base.clone();
        path.path_segments_mut().expect("a base with a host").extend(["v1", "models", model, "keys"]);
        let body = [public, evaluation].concat();
        let digest = blake3::hash(&body).to_hex();
        let all = self.path("v1/keys");
        let known: Vec<Key> = read_json(self.ask(|| self.request(Method::GET, all.clone()))?)?;
        let same = |key: &&Key| key.model.as_deref() == Some(model) && key.digest == digest.as_str() && is_id(&key.id);
        if let Some(key) = known.iter().find(same) {
            return Ok(key.id.clone());
        }
        let answer =
            self.ask(|| self.request(Method::POST, path.clone()).header(CONTENT_TYPE, KEYS_TYPE).body(body.clone()))?;
        let key: Key = read_json(answer)?;
        if is_id(&key.id) { Ok(key.id) } else { Err(RemoteError::Protocol("keys without a name".into())) }
    }

    /// Announces a request of `length` bytes. Returns the upload's name.
    ///
    /// # Errors
    /// It is refused, or there is no answer.
    pub fn create_upload(&self, key: &str, length: u64) -> Result<String, RemoteError> {
        let metadata = format!("key {}", base64(key.as_bytes()));
        let answer = self.ask(|| {
            self.tus(Method::POST, "v1/uploads")
                .header("Upload-Length", length)
                .header("Upload-Metadata", metadata.as_str())
        })?;
        let place = answer.headers().get(LOCATION).and_then(|place| place.to_str().ok());
        let name = place.and_then(|place| place.rsplit('/').next()).filter(|name| is_id(name));
        name.map(Into::into).ok_or_else(|| RemoteError::Protocol("an upload without a place".into()))
    }

    /// Sends what `spool` holds, or will hold, and goes on after broken connections. `progress` is told how many bytes have arrived.
    ///
    /// # Errors
    /// The upload is refused or gone; no progress for as long as patience lasts; `spool` was given up.
    pub fn upload(
        &self,
        upload: &str,
        length: u64,
        spool: &Spool,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), RemoteError> {
        let path = format!("v1/uploads/{upload}");
        let mut at = 0;
        let mut last = Instant::now();
        let mut piece = Vec::new();
        while at < length {
            spool.read(at, PIECE.min((length - at) as usize), &mut piece)?;
            let request = self
                .tus(Method::PATCH, &path)
                .header(CONTENT_TYPE, "application/offset+octet-stream")
                .header("Upload-Offset", at)
                .body(Body::from(piece.clone()));
            let reason = match self.attempt(request) {
                Ok(Attempt::Answered(answer)) => {
                    at = offset(&answer, length)?;
                    last = Instant::now();
                    progress(at);
                    continue;
                }
                Ok(Attempt::Again { reason, after }) => {
                    sleep(after);
                    reason
                }
                // Somebody else was faster, or an earlier request of our own still writes.
                Err(RemoteError::Refused { status: 409 | 423, detail }) => {
                    sleep(LOOK);
                    detail
                }
                Err(error) => return Err(error),
            };
            if last.elapsed() > self.patience {
                return Err(self.unreachable(reason));
            }
            // Where it is now.
            let found = offset(&self.ask(|| self.tus(Method::HEAD, &path))?, length)?;
            if found > at {
                last = Instant::now();
            }
            at = found;
            progress(at);
        }
        Ok(())
    }

    /// Makes a job of an upload that is whole; asked for again, it is the same job.
    ///
    /// # Errors
    /// It is refused, or there is no answer.
    pub fn submit(&self, upload: &str) -> Result<JobStatus, RemoteError> {
        let body = format!("{{\"upload\":\"{upload}\"}}");
        let path = self.path("v1/jobs");
        let status: JobStatus = read_json(self.ask(|| {
            self.request(Method::POST, path.clone()).header(CONTENT_TYPE, "application/json").body(body.clone())
        })?)?;
        if is_id(&status.id) { Ok(status) } else { Err(RemoteError::Protocol("a job without a name".into())) }
    }

    /// Waits until a job has a result. `progress` is told where it is.
    ///
    /// # Errors
    /// It failed, was cancelled, or is gone; no answer for as long as patience lasts.
    pub fn wait(&self, job: &str, progress: &mut dyn FnMut(&JobStatus)) -> Result<(), RemoteError> {
        let mut path = self.path(&format!("v1/jobs/{job}"));
        let mut wait = 0;
        loop {
            path.set_query(Some(&format!("wait={wait}")));
            let asked = Instant::now();
            let status: JobStatus = read_json(self.ask(|| self.request(Method::GET, path.clone()))?)?;
            progress(&status);
            let ended = |state| {
                let reason = status.error.clone().unwrap_or_else(|| "the service does not say why".into());
                Err(RemoteError::Job { state, reason })
            };
            // The server answers at once when the state changes, and a job that runs is asked for its progress often.
            wait = match status.state.as_str() {
                "done" => return Ok(()),
                "failed" => return ended("failed"),
                "cancelled" => return ended("was cancelled"),
                "queued" => WAIT,
                "running" => 1,
                other => return Err(RemoteError::Protocol(format!("a job that is {other:?}"))),
            };
            // A service that stops does not wait.
            sleep(LEAST_WAIT.saturating_sub(asked.elapsed()));
        }
    }

    /// Fetches the result of a job, which has `length` bytes, into `file`, and goes on after broken connections. `progress` is told
    /// how many bytes have arrived.
    ///
    /// # Errors
    /// It has another length; it is gone; no progress for as long as patience lasts.
    pub fn fetch(
        &self,
        job: &str,
        length: u64,
        mut file: &File,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), RemoteError> {
        let path = self.path(&format!("v1/jobs/{job}/result"));
        let (mut at, mut last) = (0, Instant::now());
        let mut buffer = vec![0; 1 << 16];
        while at < length {
            let request = self.request(Method::GET, path.clone()).header(RANGE, format!("bytes={at}-"));
            let reason = match self.attempt(request)? {
                Attempt::Again { reason, after } => {
                    sleep(after);
                    reason
                }
                Attempt::Answered(mut answer) => {
                    if answer.status() != StatusCode::PARTIAL_CONTENT {
                        // The whole, whatever was asked for.
                        at = 0;
                    }
                    file.seek(SeekFrom::Start(at))?;
                    let broken = loop {
                        match answer.read(&mut buffer) {
                            Ok(0) => break "the answer ended early".into(),
                            Ok(read) if at + read as u64 > length => {
                                return Err(RemoteError::Protocol(format!("a result of more than {length} bytes")));
                            }
                            Ok(read) => {
                                file.write_all(&buffer[..read])?;
                                at += read as u64;
                                last = Instant::now();
                                progress(at);
                            }
                            Err(error) => break error.to_string(),
                        }
                    };
                    if at < length {
                        sleep(LOOK);
                    }
                    broken
                }
            };
            if at < length && last.elapsed() > self.patience {
                return Err(self.unreachable(reason));
            }
        }
        Ok(())
    }

    /// Deletes a job and its result.
    ///
    /// # Errors
    /// There is no answer.
    pub fn delete_job(&self, job: &str) -> Result<(), RemoteError> {
        let path = self.path(&format!("v1/jobs/{job}"));
        match self.ask(|| self.request(Method::DELETE, path.clone())) {
            // An earlier attempt did it.
            Err(RemoteError::Refused { status: 404, .. }) => Ok(()),
            answer => answer.map(|_| ()),
        }
    }

    /// Asks until there is an answer, as long as patience lasts.
    fn ask(&self, request: impl Fn() -> RequestBuilder) -> Result<Response, RemoteError> {
        let began = Instant::now();
        loop {
            match self.attempt(request())? {
                Attempt::Answered(answer) => return Ok(answer),
                Attempt::Again { reason, .. } if began.elapsed() > self.patience || self.is_stopped() => {
                    return Err(self.unreachable(reason));
                }
                Attempt::Again { after, .. } => sleep(after),
            }
        }
    }

    fn attempt(&self, request: RequestBuilder) -> Result<Attempt, RemoteError> {
        let answer = match request.send() {
            Ok(answer) => answer,
            Err(error) if error.is_builder() => return Err(RemoteError::Protocol(reason(&error))),
            Err(error) if is_distrust(&error) => {
                return Err(RemoteError::Credentials(format!("{} is not trusted: {}", self.base, reason(&error))));
            }
            Err(error) => return Ok(Attempt::Again { after: LOOK, reason: reason(&error) }),
        };
        let status = answer.status();
        if status.is_success() {
            return Ok(Attempt::Answered(answer));
        }
        let after = answer.headers().get(RETRY_AFTER).and_then(|after| after.to_str().ok()?.parse().ok());
        let detail = problem(answer);
        match status {
            StatusCode::TOO_MANY_REQUESTS
            | StatusCode::REQUEST_TIMEOUT
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => {
                let after = Duration::from_secs(after.unwrap_or(1).clamp(1, 60));
                Ok(Attempt::Again { after, reason: detail })
            }
            status => Err(RemoteError::Refused { status: status.as_u16(), detail }),
        }
    }

    fn path(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        url.set_path(path);
        url
    }

    fn request(&self, method: Method, url: Url) -> RequestBuilder {
        let request = self.http.request(method, url).header(ACCEPT, "*/*");
        match &self.token {
            Some(token) => request.header(AUTHORIZATION, token.clone()),
            None => request,
        }
    }

    fn tus(&self, method: Method, path: &str) -> RequestBuilder {
        self.request(method, self.path(path)).header("Tus-Resumable", "1.0.0")
    }

    fn unreachable(&self, reason: String) -> RemoteError {
        RemoteError::Unreachable { url: self.base.to_string(), reason }
    }
}

/// Whether the certificate of the other side is refused: trying again does not help.
fn is_distrust(error: &reqwest::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if matches!(error.downcast_ref(), Some(rustls::Error::InvalidCertificate(_))) {
            return true;
        }
        // What an error of a stream holds is not its source.
        cause = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    false
}

/// An error with its causes, and without the address, which may be long.
fn reason(error: &reqwest::Error) -> String {
    let mut text = String::new();
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        let part = error.to_string();
        if !text.contains(&part) {
            text = if text.is_empty() { part } else { format!("{text}: {part}") };
        }
        cause = error.source();
    }
    text
}

fn problem(answer: Response) -> String {
    let status = answer.status();
    let mut bytes = Vec::new();
    let read = answer.take(1 << 12).read_to_end(&mut bytes);
    let problem = read.ok().and_then(|_| serde_json::from_slice::<ProblemDetail>(&bytes).ok());
    problem.map_or_else(|| status.to_string(), |problem| problem.detail)
}

fn read_all(answer: Response) -> Result<Vec<u8>, RemoteError> {
    let mut bytes = Vec::new();
    answer.take(MAX_ANSWER + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_ANSWER {
        return Err(RemoteError::Protocol(format!("an answer of more than {MAX_ANSWER} bytes")));
    }
    Ok(bytes)
}

fn read_json<T: serde::de::DeserializeOwned>(answer: Response) -> Result<T, RemoteError> {
    let bytes = read_all(answer)?;
    serde_json::from_slice(&bytes)
        .map_err(|error| RemoteError::Protocol(format!("an answer that is not understood: {error}")))
}

fn offset(answer: &Response, length: u64) -> Result<u64, RemoteError> {
    let offset = answer.headers().get("Upload-Offset").and_then(|offset| offset.to_str().ok()?.parse().ok());
    offset
        .filter(|&offset| offset <= length)
        .ok_or_else(|| RemoteError::Protocol("an upload that does not say how far it is".into()))
}

fn is_id(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// RFC 4648, section 4.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let mut word = [0; 4];
        word[1..=group.len()].copy_from_slice(group);
        let word = u32::from_be_bytes(word);
        for digit in 0..4 {
            let shown = digit <= group.len();
            text.push(if shown { DIGITS[(word >> (18 - 6 * digit) & 63) as usize].into() } else { '=' });
        }
    }
    text
}

/// A file that is written at its end while it is read from any place: encryption goes on while its first sets are sent.
pub struct Spool {
    file: Mutex<File>,
    state: Mutex<SpoolState>,
    changed: Condvar,
}

#[derive(Clone, Copy)]
struct SpoolState {
    written: u64,
    ended: bool,
}

impl Spool {
    /// Of an empty file that can be read and written.
    pub fn new(file: File) -> Self {
        let state = Mutex::new(SpoolState { written: 0, ended: false });
        Spool { file: Mutex::new(file), state, changed: Condvar::new() }
    }

    /// What writes to it. When it is dropped nothing more will come.
    pub fn writer(&self) -> SpoolWriter<'_> {
        SpoolWriter(self)
    }

    /// Replaces `piece` by the `len` bytes from `at` on, as soon as they are there.
    ///
    /// # Errors
    /// They will never come; the file cannot be read.
    fn read(&self, at: u64, len: usize, piece: &mut Vec<u8>) -> io::Result<()> {
        let mut state = lock(&self.state);
        while state.written < at + len as u64 {
            if state.ended {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the request was given up"));
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        drop(state);
        piece.clear();
        piece.resize(len, 0);
        let mut file = lock(&self.file);
        file.seek(SeekFrom::Start(at))?;
        file.read_exact(piece)
    }
}

/// Writes at the end of a [`Spool`].
pub struct SpoolWriter<'a>(&'a Spool);

impl Write for SpoolWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let at = lock(&self.0.state).written;
        let mut file = lock(&self.0.file);
        file.seek(SeekFrom::Start(at))?;
        let written = file.write(bytes)?;
        drop(file);
        lock(&self.0.state).written = at + written as u64;
        self.0.changed.notify_all();
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for SpoolWriter<'_> {
    fn drop(&mut self) {
        lock(&self.0.state).ended = true;
        self.0.changed.notify_all();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_rfc_4648() {
        for (bytes, text) in [
            (&b""[..], ""),
            (b"f", "Zg=="),
            (b"fo", "Zm8="),
            (b"foo", "Zm9v"),
            (b"foob", "Zm9vYg=="),
            (b"\xfb\xff\xbf", "+/+/"),
        ] {
            assert_eq!(base64(bytes), text);
        }
    }

    #[test]
    fn addresses_that_would_leak_a_token_are_refused() {
        let open = |url: &str| {
            let patience = Duration::ZERO;
            Remote::new(RemoteOptions { url: url.into(), token: None, authority: None, patience })
        };
        for url in
            ["https://a.example", "http://127.0.0.1:8000", "http://localhost:1", "http://[::1]:80", "https://a:8443/"]
        {
            assert!(open(url).is_ok(), "{url}");
        }
        for url in [
            "http://a.example",
            "http://10.0.0.1",
            "ftp://localhost",
            "https://a.example/v1",
            "localhost",
            "https://u:p@a",
            "",
        ] {
            assert!(matches!(open(url), Err(RemoteError::Url(_))), "{url}");
        }
    }

    #[test]
    fn a_spool_is_read_while_it_is_written() {
        let spool = Spool::new(tempfile::tempfile().unwrap());
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let mut writer = spool.writer();
                for byte in 0..200u8 {
                    writer.write_all(&[byte; 10]).unwrap();
                }
            });
            let mut piece = Vec::new();
            for at in (0..2000).step_by(100) {
                spool.read(at, 100, &mut piece).unwrap();
                assert!(piece.iter().enumerate().all(|(i, &byte)| byte as usize == (at as usize + i) / 10));
            }
            writer.join().unwrap();
        });
        // What was written stays, and nothing more will come.
        let mut piece = Vec::new();
        spool.read(0, 2000, &mut piece).unwrap();
        assert!(spool.read(1, 2000, &mut piece).is_err());
    }
}
