//! The client's side: what it takes to send a request over a line that may break, and to fetch the result.
//!
//! Every step can be repeated without doing anything twice: registered keys are the same registration, an upload goes on where it is,
//! and an upload is one job however often it is submitted. Nothing here knows what a result decrypts to.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use reqwest::blocking::{Client, RequestBuilder, Response};
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue, RANGE, RETRY_AFTER};
use reqwest::{Certificate, Method, StatusCode, Url, redirect};
use serde::Deserialize;
use zeroize::Zeroizing;

use cryptodl::{Cancelled, WireError};

use crate::KEYS_TYPE;
use crate::stop::Stop;

#[cfg(feature = "server")]
pub mod leases;
pub mod query;
mod stored;
pub mod uploads;

/// Bytes of an answer that is JSON, or a client spec.
const MAX_ANSWER: u64 = 16 << 20;
/// Seconds that the server is asked to wait for a job that has not begun.
const WAIT: u64 = 5;
/// Between two looks at a job.
const LEAST_WAIT: Duration = Duration::from_millis(50);
/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(120);
/// Before another try, where the service does not say when.
const LOOK: Duration = Duration::from_millis(500);
/// How soon an exchange that waits for the other side is given up after [`Remote::cancelled_by`]
/// says so.
const HEED: Duration = Duration::from_millis(50);

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
    /// As [`Remote::cancelled_by`] asked for.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

impl From<WireError> for RemoteError {
    fn from(error: WireError) -> Self {
        match error {
            WireError::Io(error) => RemoteError::File(error),
            error => RemoteError::Protocol(format!("ciphertexts are refused: {error}")),
        }
    }
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
    /// Whether its result is in a store, set by set.
    #[serde(default)]
    pub stored: bool,
}

/// Steps of a computation.
#[derive(Clone, Debug, Deserialize)]
pub struct StepProgress {
    /// Done.
    pub done: u64,
    /// In all.
    pub total: u64,
    /// What is being computed, as the service calls it.
    pub layer: Option<String>,
}

/// What a model says of itself.
#[derive(Deserialize)]
struct ServedModel {
    /// Whether requests go to a store.
    #[serde(default)]
    store: bool,
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
    /// Ends everything.
    cancel: Option<Arc<AtomicBool>>,
}

/// What one exchange came to.
enum Exchanged {
    Done(Attempt),
    /// The service has it in a store.
    Elsewhere(Url),
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
        match base.scheme() {
            "https" => {}
            "http" if is_this_machine(&base) => {}
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
            .timeout(TIMEOUT)
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
        Ok(Remote { http, base, token: token.transpose()?, patience, stop: None, cancel: None })
    }

    /// From `stop` on nothing is tried a second time.
    pub fn until(self, stop: Stop) -> Self {
        Remote { stop: Some(stop), ..self }
    }

    /// Once `cancel` is set, everything ends with [`RemoteError::Cancelled`] within a moment,
    /// whatever it waits for. An exchange that is then under way goes on by itself until it is
    /// answered or times out, and nobody hears of it.
    pub fn cancelled_by(self, cancel: Arc<AtomicBool>) -> Self {
        Remote { cancel: Some(cancel), ..self }
    }

    /// How long it is tried again where there is no answer.
    pub fn patience(&self) -> Duration {
        self.patience
    }

    fn check(&self) -> Result<(), Cancelled> {
        let cancelled = self.cancel.as_ref().is_some_and(|cancel| cancel.load(Ordering::Relaxed));
        if cancelled { Err(Cancelled) } else { Ok(()) }
    }

    /// Waits, unless this is cancelled.
    fn sleep(&self, time: Duration) -> Result<(), Cancelled> {
        let until = Instant::now() + time;
        loop {
            self.check()?;
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            thread::sleep(if self.cancel.is_some() { left.min(HEED) } else { left });
        }
    }

    /// Does `work`, which may wait long for the other side: on a thread that is left behind when
    /// this is cancelled.
    fn apart<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, RemoteError> {
        if self.cancel.is_none() {
            return Ok(work());
        }
        self.check()?;
        let (done, end) = sync_channel(1);
        thread::Builder::new().name("remote".into()).spawn(move || {
            // Whoever was cancelled does not listen any more.
            let _ = done.send(work());
        })?;
        loop {
            match end.recv_timeout(HEED) {
                Ok(value) => return Ok(value),
                Err(RecvTimeoutError::Timeout) => self.check()?,
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(io::Error::other("a thread for the exchange was lost").into());
                }
            }
        }
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
        self.read_all(self.ask(|| self.request(Method::GET, path.clone()))?)
    }

    /// Whether requests for a model go to a store, set by set.
    ///
    /// # Errors
    /// There is no such model, or no answer.
    pub fn has_store(&self, model: &str) -> Result<bool, RemoteError> {
        let mut path = self.base.clone();
        path.path_segments_mut().expect("a base with a host").extend(["v1", "models", model]);
        Ok(self.read_json::<ServedModel>(self.ask(|| self.request(Method::GET, path.clone()))?)?.store)
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
        let known: Vec<Key> = self.read_json(self.ask(|| self.request(Method::GET, all.clone()))?)?;
        let same = |key: &&Key| key.model.as_deref() == Some(model) && key.digest == digest.as_str() && is_id(&key.id);
        if let Some(key) = known.iter().find(same) {
            return Ok(key.id.clone());
        }
        let answer =
            self.ask(|| self.request(Method::POST, path.clone()).header(CONTENT_TYPE, KEYS_TYPE).body(body.clone()))?;
        let key: Key = self.read_json(answer)?;
        if is_id(&key.id) { Ok(key.id) } else { Err(RemoteError::Protocol("keys without a name".into())) }
    }

    /// Makes a job of an upload that is whole; asked for again, it is the same job.
    ///
    /// # Errors
    /// It is refused, or there is no answer.
    pub fn submit(&self, upload: &str) -> Result<JobStatus, RemoteError> {
        let body = format!("{{\"upload\":\"{upload}\"}}");
        let path = self.path("v1/jobs");
        let status: JobStatus = self.read_json(self.ask(|| {
            self.request(Method::POST, path.clone()).header(CONTENT_TYPE, "application/json").body(body.clone())
        })?)?;
        if is_id(&status.id) { Ok(status) } else { Err(RemoteError::Protocol("a job without a name".into())) }
    }

    /// Where a job is.
    ///
    /// # Errors
    /// There is none of this name, or no answer.
    pub fn job(&self, job: &str) -> Result<JobStatus, RemoteError> {
        let path = self.path(&format!("v1/jobs/{job}"));
        self.read_json(self.ask(|| self.request(Method::GET, path.clone()))?)
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
            let status: JobStatus = self.read_json(self.ask(|| self.request(Method::GET, path.clone()))?)?;
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
            self.sleep(LEAST_WAIT.saturating_sub(asked.elapsed()))?;
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
        while at < length {
            let request = self.request(Method::GET, path.clone()).header(RANGE, format!("bytes={at}-"));
            let reason = match self.attempt(request)? {
                Attempt::Again { reason, after } => {
                    self.sleep(after)?;
                    reason
                }
                Attempt::Answered(answer) => {
                    if answer.status() != StatusCode::PARTIAL_CONTENT {
                        // The whole, whatever was asked for.
                        at = 0;
                    }
                    file.seek(SeekFrom::Start(at))?;
                    let mut part = (answer, vec![0; 1 << 16]);
                    let broken = loop {
                        let (rest, read) = self.apart(move || {
                            let read = part.0.read(&mut part.1);
                            (part, read)
                        })?;
                        part = rest;
                        match read {
                            Ok(0) => break "the answer ended early".into(),
                            Ok(read) if at + read as u64 > length => {
                                return Err(RemoteError::Protocol(format!("a result of more than {length} bytes")));
                            }
                            Ok(read) => {
                                file.write_all(&part.1[..read])?;
                                at += read as u64;
                                last = Instant::now();
                                progress(at);
                            }
                            Err(error) => break error.to_string(),
                        }
                    };
                    if at < length {
                        self.sleep(LOOK)?;
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
                Attempt::Again { after, .. } => self.sleep(after)?,
            }
        }
    }

    /// Asks once. Where the answer is that an object is in a store, it is fetched there, without the token.
    fn attempt(&self, request: RequestBuilder) -> Result<Attempt, RemoteError> {
        match self.exchange(request)? {
            Exchanged::Done(attempt) => Ok(attempt),
            Exchanged::Elsewhere(url) => match self.exchange(self.http.get(url))? {
                Exchanged::Done(attempt) => Ok(attempt),
                Exchanged::Elsewhere(_) => Err(RemoteError::Protocol("its store sends elsewhere".into())),
            },
        }
    }

    fn exchange(&self, request: RequestBuilder) -> Result<Exchanged, RemoteError> {
        let request = request.build().map_err(|error| RemoteError::Protocol(reason(&error.without_url())))?;
        let (is_get, host) = (request.method() == Method::GET, request.url().authority().to_owned());
        let http = self.http.clone();
        // Addresses in a store are secrets.
        let answer = match self.apart(move || http.execute(request).map_err(reqwest::Error::without_url))? {
            Ok(answer) => answer,
            Err(error) if is_distrust(&error) => {
                return Err(RemoteError::Credentials(format!("{host} is not trusted: {}", reason(&error))));
            }
            Err(error) => return Ok(Exchanged::Done(Attempt::Again { after: LOOK, reason: reason(&error) })),
        };
        let status = answer.status();
        if status.is_success() {
            return Ok(Exchanged::Done(Attempt::Answered(answer)));
        }
        if is_get && let Some(url) = self.follow(&answer)? {
            return Ok(Exchanged::Elsewhere(url));
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
                Ok(Exchanged::Done(Attempt::Again { after, reason: detail }))
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

    fn read_all(&self, answer: Response) -> Result<Vec<u8>, RemoteError> {
        let bytes = self.apart(move || {
            let mut bytes = Vec::new();
            answer.take(MAX_ANSWER + 1).read_to_end(&mut bytes).map(|_| bytes)
        })??;
        if bytes.len() as u64 > MAX_ANSWER {
            return Err(RemoteError::Protocol(format!("an answer of more than {MAX_ANSWER} bytes")));
        }
        Ok(bytes)
    }

    fn read_json<T: serde::de::DeserializeOwned>(&self, answer: Response) -> Result<T, RemoteError> {
        let bytes = self.read_all(answer)?;
        serde_json::from_slice(&bytes)
            .map_err(|error| RemoteError::Protocol(format!("an answer that is not understood: {error}")))
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

/// Whether an address leads to this machine.
pub(crate) fn is_this_machine(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    host == "localhost" || host.trim_matches(['[', ']']).parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
}

fn is_id(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
