//! What went wrong, as RFC 9457 has it (`application/problem+json`).

use std::io;

use axum::http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::storage::StoreError;

/// The media type of problems.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// Seconds after which a full queue is worth another try.
const RETRY_SECONDS: u32 = 5;

/// The body of every answer that is no success.
#[derive(Debug, Serialize, ToSchema)]
pub struct ProblemBody {
    /// What kind of problem: `urn:cryptodl:problem:` and a word.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind in words.
    pub title: &'static str,
    /// The status of the answer.
    pub status: u16,
    /// What was wrong with this request, what is allowed, and what to do next.
    pub detail: String,
}

/// An answer that is no success.
#[derive(Debug)]
pub struct Problem {
    status: StatusCode,
    detail: String,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Problem {
    /// With this status, and `detail` for people.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Problem { status, detail: detail.into(), headers: Vec::new() }
    }

    /// With a header beside it.
    pub fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// The request is not understood.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Problem::new(StatusCode::BAD_REQUEST, detail)
    }

    /// Nothing of this tenant has this name.
    pub fn absent(what: &str) -> Self {
        Problem::new(StatusCode::NOT_FOUND, format!("there is no {what} of this id"))
    }

    /// What was sent is understood, and refused.
    pub fn refused(detail: impl Into<String>) -> Self {
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail)
    }

    /// A bound that time lifts by itself.
    pub fn full(detail: impl Into<String>) -> Self {
        Problem::new(StatusCode::TOO_MANY_REQUESTS, detail).with(RETRY_AFTER, RETRY_SECONDS.into())
    }

    /// Nobody is known by this token.
    pub fn unauthorized(detail: impl Into<String>) -> Self {
        Problem::new(StatusCode::UNAUTHORIZED, detail).with(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
    }

    /// The service itself failed: the operator's log says why, and the answer does not.
    pub fn internal(what: &dyn std::fmt::Display) -> Self {
        eprintln!("error: {what}");
        Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the service failed: its operator's log says why; try again later",
        )
    }

    /// The status of the answer.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// What was wrong, for people.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// What an answer without a body, or with text, says as a problem.
    pub fn of(response: &Response, text: String) -> Self {
        let mut problem =
            Problem::new(response.status(), if text.is_empty() { title(response.status()).into() } else { text });
        for name in [ALLOW, RETRY_AFTER] {
            if let Some(value) = response.headers().get(&name) {
                problem.headers.push((name, value.clone()));
            }
        }
        problem
    }
}

/// A status in words that say more than its name.
fn title(status: StatusCode) -> &'static str {
    match status {
        StatusCode::BAD_REQUEST => "the request is not understood",
        StatusCode::UNAUTHORIZED => "no token, or one that is not known",
        StatusCode::FORBIDDEN => "not allowed",
        StatusCode::NOT_FOUND => "there is nothing here",
        StatusCode::METHOD_NOT_ALLOWED => "this cannot be done here",
        StatusCode::REQUEST_TIMEOUT => "the request did not arrive in time",
        StatusCode::CONFLICT => "not in this state",
        StatusCode::PRECONDITION_FAILED => "another version of the protocol",
        StatusCode::PAYLOAD_TOO_LARGE => "too large",
        StatusCode::UNSUPPORTED_MEDIA_TYPE => "another media type",
        StatusCode::RANGE_NOT_SATISFIABLE => "there are no such bytes",
        StatusCode::UNPROCESSABLE_ENTITY => "the contents are refused",
        StatusCode::LOCKED => "somebody else is writing",
        StatusCode::TOO_MANY_REQUESTS => "full for now",
        StatusCode::SERVICE_UNAVAILABLE => "not ready",
        StatusCode::INSUFFICIENT_STORAGE => "the disk is full",
        status if status.is_server_error() => "the service failed",
        _ => "refused",
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        let detail = error.to_string();
        match error {
            StoreError::Absent(_) => Problem::new(StatusCode::NOT_FOUND, detail),
            StoreError::Conflict(_) => Problem::new(StatusCode::CONFLICT, detail),
            StoreError::Busy => Problem::new(StatusCode::LOCKED, detail),
            StoreError::Full(_) => Problem::full(detail),
            StoreError::Quota(_) => Problem::new(StatusCode::FORBIDDEN, detail),
            StoreError::Files(error) if error.kind() == io::ErrorKind::StorageFull => {
                eprintln!("error: {error}");
                Problem::new(StatusCode::INSUFFICIENT_STORAGE, "the server's disk is full: try again later")
            }
            StoreError::Database(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull) => {
                eprintln!("error: {error}");
                Problem::new(StatusCode::INSUFFICIENT_STORAGE, "the server's disk is full: try again later")
            }
            StoreError::Objects(_) => {
                eprintln!("error: {detail}");
                let why = "the object store does not answer: the operator's log says why; try again later";
                Problem::new(StatusCode::SERVICE_UNAVAILABLE, why).with(RETRY_AFTER, RETRY_SECONDS.into())
            }
            StoreError::InUse(_) | StoreError::Elsewhere { .. } | StoreError::Database(_) | StoreError::Files(_) => {
                Problem::internal(&detail)
            }
        }
    }
}

impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Self {
        StoreError::from(error).into()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Problem { status, detail, headers } = self;
        let words = title(status);
        let name = status.canonical_reason().unwrap_or("refused").to_lowercase().replace(' ', "-");
        let body =
            ProblemBody { kind: format!("urn:cryptodl:problem:{name}"), title: words, status: status.as_u16(), detail };
        let mut headers: HeaderMap = headers.into_iter().collect();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        (status, headers, serde_json::to_vec(&body).expect("plain data")).into_response()
    }
}
