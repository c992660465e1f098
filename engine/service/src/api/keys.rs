//! Registration of public keys and evaluation keys.

use std::io::Write;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header::CONTENT_LENGTH;
use axum::http::{HeaderMap, StatusCode};
use axum::{Extension, Json};
use serde::Serialize;
use utoipa::ToSchema;

use super::{Caller, KEYS_TYPE, Shared, blocking, next_piece, number, parse_id, require_type};
use crate::host::Host;
use crate::problem::{Problem, ProblemBody};
use crate::storage::{BlobKind, KeyRow, Registered};

/// Keys that are registered.
#[derive(Debug, Serialize, ToSchema)]
pub struct KeyView {
    /// By this name uploads call them.
    #[schema(example = "9f86d081884c7d659a2feaa0c55ad015")]
    pub id: String,
    /// Name of the model that they are for; absent where it is served no more.
    pub model: Option<String>,
    /// Digest of the Program.
    pub program: String,
    /// BLAKE3 of what was sent, in hexadecimal digits.
    pub digest: String,
    /// Bytes.
    pub bytes: u64,
    /// Seconds since 1970.
    pub created: i64,
    /// Sets whose results were handed out, or will be.
    pub sets_used: u64,
    /// Sets that the key may be used for; without a limit if absent.
    pub sets_allowed: Option<u64>,
}

impl KeyView {
    fn new(host: &Host, key: KeyRow) -> Self {
        let model = host.model_of(&key.program);
        KeyView {
            id: key.id.to_string(),
            model: model.map(|model| model.name().to_owned()),
            sets_allowed: model.and_then(|model| model.sets_per_key()),
            program: key.program,
            digest: key.digest,
            bytes: key.bytes,
            created: key.created,
            sets_used: key.sets,
        }
    }
}

/// Registers keys for a model: a `public.key` file, and behind it an `eval.key` file with exactly the keys that the client spec asks
/// for. The same keys again are the same registration.
#[utoipa::path(post, path = "/v1/models/{model}/keys", tag = "keys", operation_id = "registerKeys",
    params(("model" = String, Path, description = "Name of the model")),
    request_body(content = Vec<u8>, content_type = "application/vnd.cryptodl.keys"),
    responses(
        (status = 201, description = "They are registered", body = KeyView),
        (status = 200, description = "They were registered before", body = KeyView),
        (status = "4XX", description = "Refused", body = ProblemBody, content_type = "application/problem+json")))]
pub async fn register(
    State(host): Shared,
    Extension(tenant): Caller,
    Path(name): Path<String>,
    headers: HeaderMap,
    mut body: Body,
) -> Result<(StatusCode, Json<KeyView>), Problem> {
    let model =
        host.model(&name).ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, "there is no model of this name"))?;
    require_type(&headers, KEYS_TYPE)?;
    let expected = model.keys_len();
    let wrong = |actual: String| {
        Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("keys of {name} have {expected} bytes, and these have {actual}: make them from its client spec"),
        )
    };
    if let Some(length) = number(&headers, &CONTENT_LENGTH)?
        && length != expected
    {
        return Err(if length > expected {
            wrong(length.to_string())
        } else {
            Problem::refused(format!("keys of {name} have {expected} bytes, and these have {length}"))
        });
    }
    let Ok(_place) = host.registrations.try_acquire() else {
        return Err(Problem::full("other keys are being registered: try again in a moment"));
    };
    let store = host.clone();
    let mut part = blocking(move || {
        store.store.require_room_for_key(tenant.id, expected)?;
        Ok(store.store.blobs().part(BlobKind::Keys)?)
    })
    .await?;
    let mut received = 0;
    let mut hasher = blake3::Hasher::new();
    while let Some(piece) = next_piece(&host, &mut body).await? {
        received += piece.len() as u64;
        if received > expected {
            return Err(wrong("more".into()));
        }
        host.metrics.received(piece.len() as u64);
        (part, hasher) = blocking(move || {
            part.file().write_all(&piece)?;
            hasher.update(&piece);
            Ok((part, hasher))
        })
        .await?;
    }
    if received != expected {
        return Err(Problem::refused(format!("keys of {name} have {expected} bytes, and these have {received}")));
    }
    let store = host.clone();
    let Registered { key, created } = blocking(move || {
        let model = store.model(&name).ok_or_else(|| Problem::absent("model"))?;
        model.check_keys(part.file())?;
        Ok(store.store.register_key(tenant.id, model.program(), part, received, &hasher.finalize())?)
    })
    .await?;
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(KeyView::new(&host, key))))
}

/// All keys that you have registered.
#[utoipa::path(get, path = "/v1/keys", tag = "keys", operation_id = "listKeys",
    responses(
        (status = 200, description = "Your keys", body = [KeyView]),
        (status = "4XX", description = "Refused", body = ProblemBody, content_type = "application/problem+json")))]
pub async fn list(State(host): Shared, Extension(tenant): Caller) -> Result<Json<Vec<KeyView>>, Problem> {
    let store = host.clone();
    let keys = blocking(move || Ok(store.store.keys(tenant.id)?)).await?;
    Ok(Json(keys.into_iter().map(|key| KeyView::new(&host, key)).collect()))
}

/// Keys, and how often they were used.
#[utoipa::path(get, path = "/v1/keys/{key}", tag = "keys", operation_id = "showKey",
    params(("key" = String, Path, description = "Its id")),
    responses(
        (status = 200, description = "The keys", body = KeyView),
        (status = "4XX", description = "Refused", body = ProblemBody, content_type = "application/problem+json")))]
pub async fn show(
    State(host): Shared,
    Extension(tenant): Caller,
    Path(key): Path<String>,
) -> Result<Json<KeyView>, Problem> {
    let (store, key) = (host.clone(), parse_id(&key, "key")?);
    let key = blocking(move || Ok(store.store.key(tenant.id, &key)?)).await?;
    Ok(Json(KeyView::new(&host, key)))
}

/// Deletes keys. How often they were used is kept.
#[utoipa::path(delete, path = "/v1/keys/{key}", tag = "keys", operation_id = "deleteKey",
    params(("key" = String, Path, description = "Its id")),
    responses(
        (status = 204, description = "They are gone"),
        (status = "4XX", description = "Refused", body = ProblemBody, content_type = "application/problem+json")))]
pub async fn delete(
    State(host): Shared,
    Extension(tenant): Caller,
    Path(key): Path<String>,
) -> Result<StatusCode, Problem> {
    let key = parse_id(&key, "key")?;
    blocking(move || Ok(host.store.delete_key(tenant.id, &key)?)).await?;
    Ok(StatusCode::NO_CONTENT)
}
