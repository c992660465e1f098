//! Objects of a store that the service names: what is put there and fetched from there does not go through the service.

use std::io::Read;
use std::time::{Duration, Instant};

use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, HeaderValue, IF_NONE_MATCH};
use reqwest::{Method, StatusCode, Url};
use serde::Deserialize;

use super::{Attempt, LOOK, Remote, RemoteError, TIMEOUT, is_id, is_this_machine};

/// Bytes per second below which an exchange that carries an object counts as broken.
const SLOWEST: u64 = 1 << 17;

/// A request whose sets go to a store.
#[derive(Deserialize)]
struct StoredUpload {
    id: String,
}

/// Where an object belongs.
#[derive(Deserialize)]
struct Place {
    bytes: u64,
    /// Absent where it is there.
    url: Option<String>,
}

impl Remote {
    /// Announces a request of so many images whose sets go to the service's store. Returns the upload's name.
    ///
    /// # Errors
    /// It is refused, or there is no answer.
    pub fn create_stored_upload(&self, key: &str, images: u64) -> Result<String, RemoteError> {
        let body = serde_json::json!({ "key": key, "images": images }).to_string();
        let path = self.path("v1/stored-uploads");
        let upload: StoredUpload = self.read_json(self.ask(|| {
            self.request(Method::POST, path.clone()).header(CONTENT_TYPE, "application/json").body(body.clone())
        })?)?;
        if is_id(&upload.id) { Ok(upload.id) } else { Err(RemoteError::Protocol("an upload without a name".into())) }
    }

    /// Sends set number `set` of an upload to the store, unless it is there.
    ///
    /// # Errors
    /// The service or the store refuses it; neither answers for as long as patience lasts.
    pub fn put_set(&self, upload: &str, set: u64, file: Vec<u8>) -> Result<(), RemoteError> {
        self.put_object(&self.path(&format!("v1/uploads/{upload}/sets/{set}")), file.into())
    }

    /// Puts an object where the service says at `place`, unless it is there. An answer of the store that was lost on the way is made
    /// up for by asking the service again.
    pub(super) fn put_object(&self, place: &Url, object: Bytes) -> Result<(), RemoteError> {
        let began = Instant::now();
        let time = TIMEOUT + Duration::from_secs(object.len() as u64 / SLOWEST);
        loop {
            let Place { bytes, url } = self.read_json(self.ask(|| self.request(Method::GET, place.clone()))?)?;
            let Some(url) = url else { return Ok(()) };
            if bytes != object.len() as u64 {
                return Err(RemoteError::Protocol(format!(
                    "a place for {bytes} bytes, where {} are to be sent",
                    object.len()
                )));
            }
            let put = self.http.put(self.store_url(&url)?).timeout(time);
            let put = put.header(IF_NONE_MATCH, HeaderValue::from_static("*")).body(object.clone());
            let reason = match self.attempt(put) {
                Ok(Attempt::Answered(_)) => return Ok(()),
                // An earlier attempt has arrived, or does so at this moment; or the store is in trouble.
                Err(RemoteError::Refused { status: 409 | 412 | 500.., detail }) => {
                    self.sleep(LOOK)?;
                    detail
                }
                Err(RemoteError::Refused { status, detail }) => {
                    let detail = format!("its store does not take ciphertexts: {detail}");
                    return Err(RemoteError::Refused { status, detail });
                }
                Ok(Attempt::Again { reason, after }) => {
                    self.sleep(after)?;
                    reason
                }
                Err(error) => return Err(error),
            };
            if began.elapsed() > self.patience + time || self.is_stopped() {
                return Err(self.unreachable(format!("its store: {reason}")));
            }
        }
    }

    /// Fetches the result of a set of a job that is done, which has `length` bytes. Nothing of it is checked.
    ///
    /// # Errors
    /// It has more bytes; it is gone; it does not arrive for as long as patience lasts.
    pub fn fetch_set(&self, job: &str, set: u64, length: u64) -> Result<Vec<u8>, RemoteError> {
        let path = self.path(&format!("v1/jobs/{job}/sets/{set}"));
        let began = Instant::now();
        loop {
            let answer = self.ask(|| self.request(Method::GET, path.clone()))?;
            let read = self.apart(move || {
                let mut bytes = Vec::new();
                answer.take(length.saturating_add(1)).read_to_end(&mut bytes).map(|_| bytes)
            })?;
            let reason = match read {
                Ok(bytes) if bytes.len() as u64 > length => {
                    return Err(RemoteError::Protocol(format!("the result of a set of more than {length} bytes")));
                }
                Ok(bytes) if bytes.len() as u64 == length => return Ok(bytes),
                Ok(_) => "the answer ended early".into(),
                Err(error) => error.to_string(),
            };
            if began.elapsed() > self.patience {
                return Err(self.unreachable(reason));
            }
            self.sleep(LOOK)?;
        }
    }

    /// An address that the service signed, if what travels there is as safe as on the way to the service.
    pub(super) fn store_url(&self, text: &str) -> Result<Url, RemoteError> {
        // The address is a secret: errors name its host at most.
        let url = Url::parse(text).map_err(|_| RemoteError::Protocol("an address in its store that is none".into()))?;
        match url.scheme() {
            "https" => Ok(url),
            "http" if self.base.scheme() == "http" && is_this_machine(&url) => Ok(url),
            scheme => Err(RemoteError::Protocol(format!(
                "its store is at {scheme}://{}, which would be reached in the clear: only https is accepted (http where service \
                 and store are on this machine)",
                url.host_str().unwrap_or_default()
            ))),
        }
    }

    /// Follows an answer that says where an object is.
    pub(super) fn follow(&self, answer: &reqwest::blocking::Response) -> Result<Option<Url>, RemoteError> {
        if answer.status() != StatusCode::TEMPORARY_REDIRECT {
            return Ok(None);
        }
        let place = answer.headers().get(reqwest::header::LOCATION).and_then(|place| place.to_str().ok());
        self.store_url(place.unwrap_or_default()).map(Some)
    }
}
