//! Requests and results that lie in an object store: the service says where each set belongs, and looks at what was put there.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header::LOCATION;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Caller, Shared, blocking, parse_id, parse_number, read_json};
use crate::host::Host;
use crate::model::{HEADERS, Model};
use crate::problem::{Problem, ProblemBody};
use crate::storage::{Id, Objects, Upload, request_set_name};

/// What announces a request.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StoredUploadRequest {
    /// Id of keys that are registered.
    #[schema(example = "9f86d081884c7d659a2feaa0c55ad015")]
    pub key: String,
    /// Encrypted images.
    pub images: u64,
}

/// A request whose sets go to the store.
#[derive(Debug, Serialize, ToSchema)]
pub struct StoredUpload {
    /// Its name.
    pub id: String,
    /// Sets that its images fill.
    pub sets: u64,
    /// Bytes of all of them, each as a file of its own.
    pub bytes: u64,
}

/// Where an object belongs.
#[derive(Serialize, ToSchema)]
pub struct PlaceView {
    /// Bytes that it has.
    pub bytes: u64,
    /// Whoever has this address can put the object there for a few minutes, with PUT and `If-None-Match: *`. Absent where it is there.
    pub url: Option<String>,
}

impl PlaceView {
    /// Of an object that has so many bytes. What has others is not it, and makes room.
    pub(super) fn of(objects: &Objects, name: &str, bytes: u64) -> Result<Self, Problem> {
        let found = objects.len(name)?;
        if found == Some(bytes) {
            return Ok(PlaceView { bytes, url: None });
        }
        if found.is_some() {
            objects.remove(name)?;
        }
        Ok(PlaceView { bytes, url: Some(objects.url_to_put(name)?) })
    }
}

/// The store, where there is one.
pub(super) fn objects_of(host: &Host) -> Result<&Objects, Problem> {
    let why = "this service has no store: requests and results go to the service itself";
    host.store.objects().ok_or_else(|| Problem::new(StatusCode::CONFLICT, why))
}

/// The first bytes of the object of a set, and how many it has.
pub(super) fn head_of(objects: &Objects, name: &str, set: u64) -> Result<(Vec<u8>, u64), Problem> {
    let length = objects.len(name)?.unwrap_or(0);
    if length < HEADERS {
        return Err(Problem::refused(format!("the store has {length} bytes of set {set}: put it there first")));
    }
    Ok((objects.head(name, HEADERS)?, length))
}

/// Sends to an object of this name, where there is a store.
pub(super) async fn in_store(host: &Arc<Host>, name: String) -> Result<Option<Response>, Problem> {
    if host.store.objects().is_none() {
        return Ok(None);
    }
    let store = host.clone();
    let address = blocking(move || Ok(objects_of(&store)?.url_to_fetch(&name)?)).await?;
    let mut place = HeaderValue::try_from(address).map_err(|_| Problem::internal(&"an address that is no header"))?;
    place.set_sensitive(true);
    Ok(Some((StatusCode::TEMPORARY_REDIRECT, [(LOCATION, place)]).into_response()))
}

/// The model of an upload.
fn model_of<'a>(host: &'a Host, upload: &Upload) -> Result<&'a Model, Problem> {
    host.model_of(&upload.program).ok_or_else(|| Problem::refused("the model of this upload is served no more"))
}

/// Announces a request whose sets go to the store.
#[utoipa::path(post, path = "/v1/stored-uploads", tag = "uploads", operation_id = "createStoredUpload",
    request_body = StoredUploadRequest,
    responses(
        (status = 201, description = "Put its sets into the store", body = StoredUpload),
        (status = 409, description = "Requests go to the service itself", body = ProblemBody,
            content_type = "application/problem+json"),
        (status = "4XX", description = "Refused", body = ProblemBody, content_type = "application/problem+json")))]
pub async fn create(
    State(host): Shared,
    Extension(tenant): Caller,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<StoredUpload>), Problem> {
    objects_of(&host)?;
    let StoredUploadRequest { key, images } = read_json(&host, &headers, body).await?;
    let key = Id::parse(&key).ok_or_else(|| Problem::refused("there is no key of this id"))?;
    let view = blocking(move || {
        let row = host.store.key(tenant.id, &key)?;
        let model = host.model_of(&row.program);
        let model = model.ok_or_else(|| Problem::refused("the model of these keys is served no more"))?;
        model.check_images(images)?;
        let request = model.request(images);
        let sets = request.sets(model.params()) as u64;
        // All but the last are alike.
        let bytes =
            model.set_len(&request, 0).saturating_mul(sets - 1).saturating_add(model.set_len(&request, sets - 1));
        let upload = host.store.create_upload(tenant.id, &key, bytes, Some(images))?;
        Ok(StoredUpload { id: upload.id.to_string(), sets, bytes })
    });
    Ok((StatusCode::CREATED, Json(view.await?)))
}

/// Where a set of a request belongs, as a file of its own that is a part of the request.
#[utoipa::path(get, path = "/v1/uploads/{upload}/sets/{set}", tag = "uploads", operation_id = "placeSet",
    params(("upload" = String, Path, description = "Its id"), ("set" = u64, Path, description = "Its number, from 0")),
    responses(
        (status = 200, description = "Where to put it", body = PlaceView),
        (status = "4XX", description = "Refused", body = ProblemBody, content_type = "application/problem+json")))]
pub async fn place(
    State(host): Shared,
    Extension(tenant): Caller,
    Path((upload, set)): Path<(String, String)>,
) -> Result<Json<PlaceView>, Problem> {
    let (upload, set) = (parse_id(&upload, "upload")?, parse_set(&set)?);
    let place = blocking(move || {
        let objects = objects_of(&host)?;
        let upload = host.store.upload(tenant.id, &upload)?;
        let model = model_of(&host, &upload)?;
        let request = model.request(upload.images.unwrap_or_default());
        if set >= request.sets(model.params()) as u64 {
            return Err(Problem::absent("set"));
        }
        host.store.note_received(&upload.id, upload.received)?;
        PlaceView::of(objects, &request_set_name(&upload.id, set), model.set_len(&request, set))
    });
    Ok(Json(place.await?))
}

/// Looks at all sets of an upload in the store. It is whole if they are those of the request that was announced.
pub(super) fn count_sets(host: &Host, mut upload: Upload) -> Result<Upload, Problem> {
    let (objects, model) = (objects_of(host)?, model_of(host, &upload)?);
    let request = model.request(upload.images.unwrap_or_default());
    for set in 0..request.sets(model.params()) as u64 {
        let (head, length) = head_of(objects, &request_set_name(&upload.id, set), set)?;
        model.check_set(&request, set, &head, length)?;
    }
    upload.received = upload.length;
    host.store.note_received(&upload.id, upload.received)?;
    Ok(upload)
}

/// The result of a set of a job that is done, as a file of encrypted scores that is a part of the whole.
#[utoipa::path(get, path = "/v1/jobs/{job}/sets/{set}", tag = "jobs", operation_id = "fetchSetResult",
    params(("job" = String, Path, description = "Its id"), ("set" = u64, Path, description = "Its number, from 0")),
    responses(
        (status = 307, description = "It is in the store, for a few minutes at this address",
            headers(("Location" = String))),
        (status = "4XX", description = "Refused", body = ProblemBody, content_type = "application/problem+json")))]
pub async fn result(
    State(host): Shared,
    Extension(tenant): Caller,
    Path((job, set)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let (job, set) = (parse_id(&job, "job")?, parse_set(&set)?);
    let store = host.clone();
    let name = blocking(move || {
        objects_of(&store)?;
        store.store.job(tenant.id, &job)?.require_result()?;
        Ok(store.store.published(tenant.id, &job, set)?)
    });
    let name = name.await?;
    Ok(in_store(&host, name).await?.expect("there is a store"))
}

/// The number of a set in a path.
fn parse_set(text: &str) -> Result<u64, Problem> {
    parse_number(text, 10, "set")
}
