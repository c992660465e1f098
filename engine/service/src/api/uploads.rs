//! Resumable uploads: tus 1.0.0, core and the extensions creation and termination (<https://tus.io/protocols/resumable-upload>).

use std::fs::File;
use std::io::Write;
use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header::{CACHE_CONTROL, LOCATION};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use super::{Caller, Shared, blocking, next_piece, number, parse_id, require_type};
use crate::host::{Host, Tenant};
use crate::model::HEADERS;
use crate::problem::{Problem, ProblemBody};
use crate::storage::{Id, StoreError, Upload};

const VERSION: &str = "1.0.0";
const TUS_RESUMABLE: HeaderName = HeaderName::from_static("tus-resumable");
const TUS_VERSION: HeaderName = HeaderName::from_static("tus-version");
const TUS_EXTENSION: HeaderName = HeaderName::from_static("tus-extension");
const TUS_MAX_SIZE: HeaderName = HeaderName::from_static("tus-max-size");
const UPLOAD_LENGTH: HeaderName = HeaderName::from_static("upload-length");
const UPLOAD_OFFSET: HeaderName = HeaderName::from_static("upload-offset");
const UPLOAD_METADATA: HeaderName = HeaderName::from_static("upload-metadata");
const UPLOAD_DEFER: HeaderName = HeaderName::from_static("upload-defer-length");

/// Bytes that are collected before they are written.
const BUFFER: usize = 1 << 18;
/// Bytes that are written before they are brought to the disk and noted: what a crash can lose.
const COMMIT: u64 = 8 << 20;
/// Bytes of the metadata of an upload.
const MAX_METADATA: usize = 1 << 12;

fn speaks_tus(headers: &HeaderMap) -> Result<(), Problem> {
    if headers.get(&TUS_RESUMABLE).is_some_and(|version| version == VERSION) {
        return Ok(());
    }
    Err(tus(Problem::new(
        StatusCode::PRECONDITION_FAILED,
        "uploads follow tus 1.0.0: send the header `Tus-Resumable: 1.0.0`",
    ))
    .with(TUS_VERSION, HeaderValue::from_static(VERSION)))
}

fn tus(problem: Problem) -> Problem {
    problem.with(TUS_RESUMABLE, HeaderValue::from_static(VERSION))
}

/// What every answer has, and some have beside it.
fn answer<const K: usize>(status: StatusCode, headers: [(HeaderName, String); K]) -> Response {
    let mut response = (status, headers).into_response();
    response.headers_mut().insert(TUS_RESUMABLE, HeaderValue::from_static(VERSION));
    response
}

/// What of tus is spoken here.
#[utoipa::path(options, path = "/v1/uploads", tag = "uploads", operation_id = "describeUploads",
    responses(
        (status = 204, description = "What of tus is spoken here", headers(
            ("Tus-Version" = String), ("Tus-Extension" = String), ("Tus-Max-Size" = u64))),
        (status = "4XX", description = "Refused", body = ProblemBody, content_type = "application/problem+json")))]
pub async fn options(State(host): Shared) -> Response {
    let most = host.models().iter().map(|model| model.view().bytes.max_request).max().unwrap_or(0);
    answer(
        StatusCode::NO_CONTENT,
        [
            (TUS_VERSION, VERSION.into()),
            (TUS_EXTENSION, "creation,termination".into()),
            (TUS_MAX_SIZE, most.to_string()),
        ],
    )
}

/// Announces a request. `Upload-Metadata` names the registered keys: `key`, a space, and their id in base64.
#[utoipa::path(post, path = "/v1/uploads", tag = "uploads", operation_id = "createUpload",
    params(
        ("Tus-Resumable" = String, Header, description = "1.0.0"),
        ("Upload-Length" = u64, Header, description = "Bytes of the request"),
        ("Upload-Metadata" = String, Header, description = "`key` and its id in base64")),
    responses(
        (status = 201, description = "Send it to this place", headers(("Location" = String))),
        (status = "4XX", description = "Refused", body = ProblemBody, content_type = "application/problem+json")))]
pub async fn create(State(host): Shared, Extension(tenant): Caller, headers: HeaderMap) -> Result<Response, Problem> {
    speaks_tus(&headers)?;
    takes_files(&host).map_err(tus)?;
    if headers.contains_key(&UPLOAD_DEFER) {
        return Err(tus(Problem::bad_request(
            "the length must be known: send Upload-Length instead of Upload-Defer-Length",
        )));
    }
    let length = number(&headers, &UPLOAD_LENGTH).map_err(tus)?;
    let length =
        length.ok_or_else(|| tus(Problem::bad_request("Upload-Length is absent: say how many bytes will come")))?;
    let key = metadata_key(&headers).map_err(tus)?;
    let upload = blocking(move || {
        let row = host.store.key(tenant.id, &key)?;
        let model = host.model_of(&row.program);
        let model = model.ok_or_else(|| Problem::refused("the model of these keys is served no more"))?;
        model.check_length(length)?;
        Ok(host.store.create_upload(tenant.id, &key, length, None)?)
    })
    .await
    .map_err(tus)?;
    Ok(answer(StatusCode::CREATED, [(LOCATION, format!("/v1/uploads/{}", upload.id))]))
}

/// Refuses a request as one file where requests go to a store.
fn takes_files(host: &Host) -> Result<(), Problem> {
    if host.store.objects().is_none() {
        return Ok(());
    }
    let why = "requests go to a store here, set by set: announce them with POST /v1/stored-uploads instead of tus";
    Err(Problem::new(StatusCode::CONFLICT, why))
}

/// The id of the keys in `Upload-Metadata`: pairs of a name and a value in base64, with commas between them.
fn metadata_key(headers: &HeaderMap) -> Result<Id, Problem> {
    let wrong = || {
        Problem::bad_request(
            "Upload-Metadata must have `key`, a space, and in base64 the id of keys that are registered",
        )
    };
    let value = headers.get(&UPLOAD_METADATA).and_then(|value| value.to_str().ok()).ok_or_else(wrong)?;
    if value.len() > MAX_METADATA {
        return Err(wrong());
    }
    let pairs = value.split(',').filter_map(|pair| pair.trim().split_once(' '));
    let key = pairs.into_iter().find(|(name, _)| *name == "key").map(|(_, value)| value.trim()).ok_or_else(wrong)?;
    let text = from_base64(key).and_then(|bytes| String::from_utf8(bytes).ok()).ok_or_else(wrong)?;
    Id::parse(&text).ok_or_else(wrong)
}

/// Bytes of base64 with padding (RFC 4648, section 4).
fn from_base64(text: &str) -> Option<Vec<u8>> {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    if !text.len().is_multiple_of(4) {
        return None;
    }
    let digits = text.trim_end_matches('=');
    if text.len() - digits.len() > 2 {
        return None;
    }
    let mut bytes = Vec::with_capacity(digits.len() * 3 / 4);
    for group in digits.as_bytes().chunks(4) {
        let mut word = 0u32;
        for &digit in group {
            word = word << 6 | DIGITS.iter().position(|&known| known == digit)? as u32;
        }
        word <<= 6 * (4 - group.len());
        bytes.extend_from_slice(&word.to_be_bytes()[1..group.len()]);
    }
    Some(bytes)
}

/// Bytes that have arrived.
#[utoipa::path(head, path = "/v1/uploads/{upload}", tag = "uploads", operation_id = "showUpload",
    params(("upload" = String, Path, description = "Its id"), ("Tus-Resumable" = String, Header, description = "1.0.0")),
    responses(
        (status = 200, description = "How far it is", headers(("Upload-Offset" = u64), ("Upload-Length" = u64))),
        (status = "4XX", description = "Refused")))]
pub async fn status(
    State(host): Shared,
    Extension(tenant): Caller,
    Path(upload): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    speaks_tus(&headers)?;
    let upload = parse_id(&upload, "upload").map_err(tus)?;
    let upload = blocking(move || Ok(host.store.upload(tenant.id, &upload)?)).await.map_err(tus)?;
    let Upload { received, length, .. } = upload;
    let fields = [
        (UPLOAD_OFFSET, received.to_string()),
        (UPLOAD_LENGTH, length.to_string()),
        (CACHE_CONTROL, "no-store".into()),
    ];
    Ok(answer(StatusCode::OK, fields))
}

/// Appends bytes. What arrived before a connection broke is kept.
#[utoipa::path(patch, path = "/v1/uploads/{upload}", tag = "uploads", operation_id = "appendToUpload",
    params(
        ("upload" = String, Path, description = "Its id"),
        ("Tus-Resumable" = String, Header, description = "1.0.0"),
        ("Upload-Offset" = u64, Header, description = "Bytes that have arrived before these")),
    request_body(content = Vec<u8>, content_type = "application/offset+octet-stream"),
    responses(
        (status = 204, description = "They arrived", headers(("Upload-Offset" = u64))),
        (status = "4XX", description = "Refused", body = ProblemBody, content_type = "application/problem+json")))]
pub async fn append(
    State(host): Shared,
    Extension(tenant): Caller,
    Path(upload): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    speaks_tus(&headers)?;
    takes_files(&host).map_err(tus)?;
    require_type(&headers, "application/offset+octet-stream").map_err(tus)?;
    let offset = number(&headers, &UPLOAD_OFFSET).map_err(tus)?;
    let offset = offset.ok_or_else(|| tus(Problem::bad_request("Upload-Offset is absent")))?;
    let announced = number(&headers, &axum::http::header::CONTENT_LENGTH).map_err(tus)?;
    let upload = parse_id(&upload, "upload").map_err(tus)?;
    // A task of its own: what has arrived is kept, also when the connection ends and with it this handler.
    let task = tokio::spawn(receive(host, tenant, upload, offset, announced, body));
    let received = match task.await {
        Ok(received) => received.map_err(tus)?,
        Err(error) => return Err(tus(Problem::internal(&error))),
    };
    Ok(answer(StatusCode::NO_CONTENT, [(UPLOAD_OFFSET, received.to_string())]))
}

async fn receive(
    host: Arc<Host>,
    tenant: Tenant,
    id: Id,
    offset: u64,
    announced: Option<u64>,
    mut body: Body,
) -> Result<u64, Problem> {
    let writing = host.store.write_to(&id)?;
    let (store, name) = (host.clone(), id.clone());
    let (upload, mut file) = blocking(move || {
        let upload = store.store.upload(tenant.id, &name)?;
        if offset != upload.received {
            return Err(StoreError::Conflict(format!(
                "{} bytes have arrived, and these are to come after {offset}: go on where the upload is",
                upload.received
            ))
            .into());
        }
        let file = store.store.upload_file(&upload)?;
        Ok((upload, file))
    })
    .await?;
    let left = upload.length - offset;
    let too_long = || {
        let why = format!("{left} bytes are still to come, and there are more in this body");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, why)
    };
    if announced.is_some_and(|announced| announced > left) {
        return Err(too_long());
    }
    let mut progress = Progress { written: offset, committed: offset };
    let mut buffer = Vec::with_capacity(BUFFER);
    let mut problem = None;
    loop {
        let piece = match next_piece(&host, &mut body).await {
            Ok(piece) => piece,
            // What has arrived is kept all the same.
            Err(error) => {
                problem = Some(error);
                None
            }
        };
        let ended = piece.is_none();
        if let Some(mut piece) = piece {
            host.metrics.received(piece.len() as u64);
            if piece.len() as u64 > upload.length - progress.written - buffer.len() as u64 {
                problem = Some(too_long());
                piece.clear();
            }
            buffer.extend_from_slice(&piece);
        }
        let last = ended || problem.is_some();
        if buffer.len() >= BUFFER || last {
            let (store, name, before) = (host.clone(), id.clone(), progress.committed);
            (file, buffer, progress) =
                blocking(move || write(&store, &name, file, buffer, progress, last).map_err(Problem::from)).await?;
            // A request that is none is known before the rest of it has come.
            if before < HEADERS && progress.committed >= HEADERS {
                let (store, upload) = (host.clone(), upload.clone());
                if let Err(problem) = blocking(move || check(&store, &upload)).await {
                    drop(writing);
                    blocking(move || Ok(host.store.delete_upload(tenant.id, &id)?)).await?;
                    return Err(problem);
                }
            }
        }
        if last {
            break;
        }
    }
    drop(writing);
    match problem {
        Some(problem) => Err(problem),
        None => Ok(progress.committed),
    }
}

/// Bytes of an upload.
#[derive(Clone, Copy)]
struct Progress {
    written: u64,
    /// On the disk, and noted.
    committed: u64,
}

fn write(
    host: &Host,
    upload: &Id,
    mut file: File,
    mut buffer: Vec<u8>,
    mut progress: Progress,
    last: bool,
) -> Result<(File, Vec<u8>, Progress), StoreError> {
    file.write_all(&buffer)?;
    progress.written += buffer.len() as u64;
    buffer.clear();
    let due =
        progress.committed < HEADERS && progress.written >= HEADERS || progress.written - progress.committed >= COMMIT;
    if progress.written > progress.committed && (last || due) {
        host.store.commit_upload(upload, &file, progress.written)?;
        progress.committed = progress.written;
    }
    Ok((file, buffer, progress))
}

/// Refuses a request whose header is wrong.
fn check(host: &Host, upload: &Upload) -> Result<(), Problem> {
    let model = host.model_of(&upload.program).ok_or_else(|| Problem::absent("model"))?;
    let file = File::open(host.store.blobs().path(crate::storage::BlobKind::Uploads, &upload.id))?;
    model.open_request(file, upload.length).map(|_| ())
}

/// Gives up an upload.
#[utoipa::path(delete, path = "/v1/uploads/{upload}", tag = "uploads", operation_id = "deleteUpload",
    params(("upload" = String, Path, description = "Its id"), ("Tus-Resumable" = String, Header, description = "1.0.0")),
    responses(
        (status = 204, description = "It is gone"),
        (status = "4XX", description = "Refused", body = ProblemBody, content_type = "application/problem+json")))]
pub async fn terminate(
    State(host): Shared,
    Extension(tenant): Caller,
    Path(upload): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    speaks_tus(&headers)?;
    let upload = parse_id(&upload, "upload").map_err(tus)?;
    blocking(move || Ok(host.store.delete_upload(tenant.id, &upload)?)).await.map_err(tus)?;
    Ok(answer(StatusCode::NO_CONTENT, []))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_rfc_4648() {
        for (text, bytes) in [
            ("", &b""[..]),
            ("Zg==", b"f"),
            ("Zm8=", b"fo"),
            ("Zm9v", b"foo"),
            ("Zm9vYg==", b"foob"),
            ("Zm9vYmE=", b"fooba"),
            ("Zm9vYmFy", b"foobar"),
            ("+/+/", b"\xfb\xff\xbf"),
        ] {
            assert_eq!(from_base64(text).as_deref(), Some(bytes), "{text}");
        }
        for text in ["Z", "Zg=", "Zg===", "Z===", "Zm9$", "====", "Zm 9"] {
            assert_eq!(from_base64(text).filter(|bytes| !bytes.is_empty()), None, "{text}");
        }
    }
}
