//! A worker's side: leases of sets.

use std::io::Read;

use reqwest::header::CONTENT_TYPE;
use reqwest::{Method, Url};
use serde::Deserialize;
use zeroize::{Zeroize, Zeroizing};

use super::{Attempt, Remote, RemoteError};
use crate::CIPHERTEXTS_TYPE;
use crate::api::MAX_LAYER;

/// A set that is to be computed.
#[derive(Deserialize)]
pub struct Leased {
    /// Number of the lease.
    pub lease: i64,
    /// Digest of the Program.
    pub program: String,
    /// Name of the keys.
    pub key: String,
    /// Bytes of the keys.
    pub key_bytes: u64,
    /// Number of the set within its request.
    pub set: u64,
    /// Images in it.
    pub images: u64,
    /// Bytes of its file.
    pub bytes: u64,
    /// Bytes of the file of its result.
    pub result_bytes: u64,
    /// Whether the result goes to a store.
    #[serde(default)]
    pub stored: bool,
    /// Seconds in which the lease must be renewed.
    pub seconds: u64,
    secret: Option<String>,
}

impl Drop for Leased {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}

impl Leased {
    /// What masks and floods of this set are expanded from; none where nothing is to be masked.
    ///
    /// # Errors
    /// It is no secret.
    pub fn secret(&self) -> Result<Option<Zeroizing<[u8; 32]>>, RemoteError> {
        let Some(digits) = &self.secret else { return Ok(None) };
        let wrong = || RemoteError::Protocol("a lease whose secret is none".into());
        let mut secret = Zeroizing::new([0; 32]);
        if digits.len() != 64 || !digits.is_ascii() {
            return Err(wrong());
        }
        for (byte, at) in secret.iter_mut().zip((0..64).step_by(2)) {
            *byte = u8::from_str_radix(&digits[at..at + 2], 16).map_err(|_| wrong())?;
        }
        Ok(Some(secret))
    }
}

/// How many sets there are to compute.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct FleetStatus {
    /// That wait for a worker.
    pub waiting: u64,
    /// That somebody computes.
    pub leased: u64,
}

#[derive(Deserialize)]
struct Leases {
    leases: Vec<Leased>,
}

#[derive(Deserialize)]
struct Renewed {
    seconds: u64,
}

impl RemoteError {
    /// Whether a lease is over.
    pub fn is_over(&self) -> bool {
        matches!(self, RemoteError::Refused { status: 404 | 409, .. })
    }
}

impl Remote {
    /// Takes up to `capacity` sets of one of these Programs, and waits up to `wait` seconds for the first.
    ///
    /// # Errors
    /// Refused, or no answer for as long as patience lasts.
    pub fn take_leases(&self, programs: &[String], capacity: u32, wait: u64) -> Result<Vec<Leased>, RemoteError> {
        let body = serde_json::json!({ "programs": programs, "capacity": capacity, "wait": wait }).to_string();
        let path = self.path("v1/leases");
        let answer = self.ask(|| {
            self.request(Method::POST, path.clone()).header(CONTENT_TYPE, "application/json").body(body.clone())
        })?;
        Ok(self.read_json::<Leases>(answer)?.leases)
    }

    /// How many sets there are to compute.
    ///
    /// # Errors
    /// Refused, or no answer for as long as patience lasts.
    pub fn fleet(&self) -> Result<FleetStatus, RemoteError> {
        let path = self.path("v1/leases");
        self.read_json(self.ask(|| self.request(Method::GET, path.clone()))?)
    }

    /// Goes on with a lease, of whose computation `done` of `total` steps are done, and `layer` is next. It is tried once; the answer is
    /// the seconds until it ends, or none if there was no answer.
    ///
    /// # Errors
    /// It is over, or refused.
    pub fn renew_lease(
        &self,
        lease: i64,
        done: usize,
        total: usize,
        layer: Option<&str>,
    ) -> Result<Option<u64>, RemoteError> {
        let layer: Option<String> = layer.map(|layer| layer.chars().take(MAX_LAYER).collect());
        let body = serde_json::json!({ "done": done, "total": total, "layer": layer }).to_string();
        let request = self.request(Method::POST, self.lease_path(lease, "/renew"));
        match self.attempt(request.header(CONTENT_TYPE, "application/json").body(body))? {
            Attempt::Answered(answer) => Ok(Some(self.read_json::<Renewed>(answer)?.seconds)),
            Attempt::Again { .. } => Ok(None),
        }
    }

    /// Gives a set back that was not computed.
    ///
    /// # Errors
    /// The lease is over, or there is no answer.
    pub fn give_back(&self, lease: i64) -> Result<(), RemoteError> {
        let path = self.lease_path(lease, "");
        self.ask(|| self.request(Method::DELETE, path.clone())).map(|_| ())
    }

    /// Says why a set could not be computed.
    ///
    /// # Errors
    /// The lease is over, or there is no answer.
    pub fn fail_lease(&self, lease: i64, reason: &str) -> Result<(), RemoteError> {
        let body = serde_json::json!({ "reason": reason.chars().take(500).collect::<String>() }).to_string();
        let path = self.lease_path(lease, "/fail");
        let ask = || self.request(Method::POST, path.clone()).header(CONTENT_TYPE, "application/json");
        self.ask(|| ask().body(body.clone())).map(|_| ())
    }

    /// The keys that a set is computed with: what was registered, of which nothing is checked yet.
    ///
    /// # Errors
    /// The lease is over; another length than was announced; no answer.
    pub fn leased_keys(&self, lease: &Leased) -> Result<Vec<u8>, RemoteError> {
        let path = self.lease_path(lease.lease, "/keys");
        let answer = self.ask(|| self.request(Method::GET, path.clone()))?;
        let mut bytes = Vec::new();
        answer.take(lease.key_bytes.saturating_add(1)).read_to_end(&mut bytes)?;
        if bytes.len() as u64 != lease.key_bytes {
            return Err(RemoteError::Protocol(format!("keys of another length than {} bytes", lease.key_bytes)));
        }
        Ok(bytes)
    }

    /// The set itself, as it arrives.
    ///
    /// # Errors
    /// The lease is over, or there is no answer.
    pub fn leased_input(&self, lease: i64) -> Result<impl Read + use<>, RemoteError> {
        let path = self.lease_path(lease, "/input");
        self.ask(|| self.request(Method::GET, path.clone()))
    }

    /// Publishes the result of a set. It can be said again where there was no answer.
    ///
    /// # Errors
    /// The lease is over: the result is of no use. It is refused, or there is no answer.
    pub fn publish(&self, lease: &Leased, result: Vec<u8>) -> Result<(), RemoteError> {
        let path = self.lease_path(lease.lease, "/result");
        if lease.stored {
            self.put_object(&path, result.into())?;
            return self.ask(|| self.request(Method::POST, path.clone())).map(|_| ());
        }
        let ask = || self.request(Method::PUT, path.clone()).header(CONTENT_TYPE, CIPHERTEXTS_TYPE);
        self.ask(|| ask().body(result.clone())).map(|_| ())
    }

    fn lease_path(&self, lease: i64, rest: &str) -> Url {
        self.path(&format!("v1/leases/{lease}{rest}"))
    }
}
