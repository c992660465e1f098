//! Requests that were accepted, and their results.

use std::fs::File;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, Query, Request, State};
use axum::http::header::{CONTENT_LOCATION, CONTENT_TYPE, LOCATION};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tower::ServiceExt;
use tower_http::services::ServeFile;
use utoipa::{IntoParams, ToSchema};

use super::{CIPHERTEXTS_TYPE, Caller, Shared, blocking, parse_id, read_json, stored};
use crate::host::{Host, Steps};
use crate::problem::{Problem, ProblemBody};
use crate::storage::{Accepted, BlobKind, Id, Job, JobState, NewJob, StoreError};

/// Longest wait for a job in one request.
const MAX_WAIT: u64 = 30;

/// A job.
#[derive(Debug, Serialize, ToSchema)]
pub struct JobView {
    /// Its name.
    pub id: String,
    /// Name of the model; absent where it is served no more.
    pub model: Option<String>,
    /// Digest of the Program.
    pub program: String,
    /// The keys that it is computed with.
    pub key: String,
    /// The upload that it was made of.
    pub upload: String,
    /// `queued`, `running`, `done`, `failed` or `cancelled`.
    pub state: &'static str,
    /// Encrypted images.
    pub images: u64,
    /// Sets that they fill.
    pub sets: u64,
    /// Sets whose results are there; those of a job are computed apart, and in any order.
    pub sets_done: u64,
    /// Of a job that waits: those that were accepted before it and have not ended. Turns go round the tenants, so that fewer may
    /// come first.
    pub before: Option<u64>,
    /// Of a job that runs: how far it is.
    pub progress: Option<JobProgress>,
    /// Bytes of the result.
    pub result_bytes: u64,
    /// Whether its result is in a store, set by set.
    pub stored: bool,
    /// Seconds since 1970.
    pub created: i64,
    /// When the computation of its first set began.
    pub started: Option<i64>,
    /// When the job ended.
    pub finished: Option<i64>,
    /// When it is removed, and its result with it.
    pub expires: Option<i64>,
    /// Why it failed.
    pub error: Option<String>,
}

/// Steps of a computation: layers of all sets, or parts of layers where these are large. Steps of sets that were lost with their
/// worker are done anew, so that fewer may be done than a moment ago.
#[derive(Debug, Serialize, ToSchema)]
pub struct JobProgress {
    /// Those that are done.
    pub done: usize,
    /// All of them; 0 until the first is done.
    pub total: usize,
    /// The layer of the network that is being computed, or several that are computed at once; of several sets, that of the first.
    /// Absent where nothing is being computed, and while a result is masked and packed.
    #[schema(example = "act1 > conv2+pool1")]
    pub layer: Option<String>,
}

/// What makes a job.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JobRequest {
    /// Id of an upload that is whole.
    #[schema(example = "9f86d081884c7d659a2feaa0c55ad015")]
    pub upload: String,
}

/// How long to wait for a job.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Wait {
    /// Seconds to wait for the job to end or to begin, at most 30.
    #[param(minimum = 0, maximum = 30)]
    pub wait: Option<u64>,
}

impl JobView {
    fn new(host: &Host, job: Job, before: Option<u64>) -> Self {
        let progress = (job.state == JobState::Running).then(|| {
            let Steps { done, of_a_set, layer } = host.progress(&job.id);
            let (sets_done, sets) = (job.sets_done as usize, job.sets as usize);
            JobProgress { done: done + sets_done * of_a_set, total: sets * of_a_set, layer }
        });
        let sets_done = if job.state == JobState::Done { job.sets } else { job.sets_done };
        JobView {
            id: job.id.to_string(),
            model: host.model_of(&job.program).map(|model| model.name().to_owned()),
            program: job.program,
            key: job.key.to_string(),
            upload: job.upload.to_string(),
            state: job.state.name(),
            images: job.images,
            sets: job.sets,
            sets_done,
            before,
            progress,
            result_bytes: job.result_bytes,
            stored: host.store.objects().is_some(),
            created: job.created,
            started: job.started,
            finished: job.finished,
            expires: job.expires,
            error: job.error,
        }
    }

    fn of(host: &Host, job: Job) -> Result<Self, Problem> {
        let before = if job.state == JobState::Queued { Some(host.store.jobs_before(&job.id)?) } else { None };
        Ok(JobView::new(host, job, before))
    }
}

/// Makes a job of an upload that is whole. Asked for again, the same upload is the same job.
#[utoipa::path(post, path = "/v1/jobs", tag = "jobs", operation_id = "submitJob",
    request_body = JobRequest,
    responses(
        (status = 202, description = "It is accepted, and will be computed once", body = JobView,
            headers(("Location" = String))),
        (status = 200, description = "It was accepted before", body = JobView),
        (status = "4XX", description = "Refused", body = ProblemBody, content_type = "application/problem+json")))]
pub async fn submit(
    State(host): Shared,
    Extension(tenant): Caller,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let request: JobRequest = read_json(&host, &headers, body).await?;
    let upload = Id::parse(&request.upload).ok_or_else(|| Problem::refused("there is no upload of this id"))?;
    let store = host.clone();
    let (created, view) = blocking(move || {
        let Accepted { job, created } = match store.store.job_of_upload(tenant.id, &upload)? {
            Some(job) => Accepted { job, created: false },
            None => accept(&store, tenant.id, &upload)?,
        };
        if created {
            store.metrics.accepted(store.model_of(&job.program).map_or("none", |model| model.name()));
        }
        Ok((created, JobView::of(&store, job)?))
    })
    .await?;
    if created {
        host.wake();
        host.job_changed();
    }
    let place = HeaderValue::try_from(format!("/v1/jobs/{}", view.id)).expect("an id is text");
    let status = if created { StatusCode::ACCEPTED } else { StatusCode::OK };
    let mut response = (status, Json(view)).into_response();
    response.headers_mut().insert(LOCATION, place);
    Ok(response)
}

fn accept(host: &Host, tenant: i64, id: &Id) -> Result<Accepted, Problem> {
    // An upload that another tenant has, or nobody, is refused like any other contents.
    let upload = match host.store.upload(tenant, id) {
        Err(StoreError::Absent(_)) => return Err(Problem::refused("there is no upload of this id")),
        found => found?,
    };
    let upload = if upload.images.is_some() { stored::count_sets(host, upload)? } else { upload };
    if !upload.is_whole() {
        let why = format!("{} of {} bytes have arrived: send the others first", upload.received, upload.length);
        return Err(StoreError::Conflict(why).into());
    }
    let model = host.model_of(&upload.program);
    let model = model.ok_or_else(|| Problem::refused("the model of this upload is served no more"))?;
    let info = match upload.images {
        Some(images) => model.request(images),
        None => {
            let file = File::open(host.store.blobs().path(BlobKind::Uploads, id))?;
            model.open_request(file, upload.length)?.info().clone()
        }
    };
    let new = NewJob {
        images: info.images as u64,
        sets: info.sets(model.params()) as u64,
        result_bytes: model.result_len(&info),
        sets_per_key: model.sets_per_key(),
        sets_per_tenant: model.view().sets_per_tenant,
    };
    Ok(host.store.accept_job(tenant, id, &new)?)
}

/// All your jobs, in the order in which they were accepted.
#[utoipa::path(get, path = "/v1/jobs", tag = "jobs", operation_id = "listJobs",
    responses(
        (status = 200, description = "Your jobs", body = [JobView]),
        (status = "4XX", description = "Refused", body = ProblemBody, content_type = "application/problem+json")))]
pub async fn list(State(host): Shared, Extension(tenant): Caller) -> Result<Json<Vec<JobView>>, Problem> {
    let views = blocking(move || {
        let jobs = host.store.jobs(tenant.id)?;
        jobs.into_iter().map(|job| JobView::of(&host, job)).collect::<Result<Vec<_>, _>>()
    });
    Ok(Json(views.await?))
}

/// A job. With `wait`, the answer comes when its state changes, or after so many seconds.
#[utoipa::path(get, path = "/v1/jobs/{job}", tag = "jobs", operation_id = "showJob",
    params(("job" = String, Path, description = "Its id"), Wait),
    responses(
        (status = 200, description = "The job", body = JobView),
        (status = "4XX", description = "Refused", body = ProblemBody, content_type = "application/problem+json")))]
pub async fn show(
    State(host): Shared,
    Extension(tenant): Caller,
    Path(id): Path<String>,
    query: Result<Query<Wait>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<JobView>, Problem> {
    let Query(Wait { wait }) = query.map_err(|error| Problem::bad_request(error.body_text()))?;
    let wait = wait.unwrap_or(0);
    if wait > MAX_WAIT {
        return Err(Problem::bad_request(format!("wait must be at most {MAX_WAIT} seconds")));
    }
    let id = parse_id(&id, "job")?;
    let deadline = Instant::now() + Duration::from_secs(wait);
    let mut changes = host.changes();
    let mut first = None;
    loop {
        let (store, name) = (host.clone(), id.clone());
        let job = blocking(move || Ok(store.store.job(tenant.id, &name)?)).await?;
        let before = *first.get_or_insert(job.state);
        let over = !job.state.is_pending() || job.state != before || Instant::now() >= deadline || host.is_stopping();
        if over {
            let store = host.clone();
            return Ok(Json(blocking(move || JobView::of(&store, job)).await?));
        }
        // A change of another job, or the end of the wait: look again.
        let _ = tokio::time::timeout_at(deadline, changes.changed()).await;
    }
}

/// Ends a job that waits or runs. Its sets are then not counted.
#[utoipa::path(post, path = "/v1/jobs/{job}/cancel", tag = "jobs", operation_id = "cancelJob",
    params(("job" = String, Path, description = "Its id")),
    responses(
        (status = 200, description = "The job; one that has ended is as it was", body = JobView),
        (status = "4XX", description = "Refused", body = ProblemBody, content_type = "application/problem+json")))]
pub async fn cancel(
    State(host): Shared,
    Extension(tenant): Caller,
    Path(id): Path<String>,
) -> Result<Json<JobView>, Problem> {
    let id = parse_id(&id, "job")?;
    let store = host.clone();
    let view = blocking(move || {
        let was_pending = store.store.job(tenant.id, &id)?.state.is_pending();
        let job = store.store.cancel_job(tenant.id, &id)?;
        if was_pending && job.state == JobState::Cancelled {
            store.end_job(&id, "cancelled");
            let model = store.model_of(&job.program).map_or("none", |model| model.name());
            store.metrics.ended(model, "cancelled");
        }
        JobView::of(&store, job)
    })
    .await?;
    host.job_changed();
    Ok(Json(view))
}

/// Deletes a job that has ended, and its result.
#[utoipa::path(delete, path = "/v1/jobs/{job}", tag = "jobs", operation_id = "deleteJob",
    params(("job" = String, Path, description = "Its id")),
    responses(
        (status = 204, description = "It is gone"),
        (status = "4XX", description = "Refused", body = ProblemBody, content_type = "application/problem+json")))]
pub async fn delete(
    State(host): Shared,
    Extension(tenant): Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let id = parse_id(&id, "job")?;
    blocking(move || Ok(host.store.delete_job(tenant.id, &id)?)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The result of a job that is done. Parts of it can be asked for with `Range`.
#[utoipa::path(get, path = "/v1/jobs/{job}/result", tag = "jobs", operation_id = "fetchResult",
    params(("job" = String, Path, description = "Its id")),
    responses(
        (status = 200, description = "The encrypted scores as a file", body = Vec<u8>,
            content_type = "application/vnd.cryptodl.ciphertexts"),
        (status = 206, description = "The part that was asked for", body = Vec<u8>,
            content_type = "application/vnd.cryptodl.ciphertexts"),
        (status = "4XX", description = "Refused", body = ProblemBody, content_type = "application/problem+json")))]
pub async fn result(
    State(host): Shared,
    Extension(tenant): Caller,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let id = parse_id(&id, "job")?;
    let (store, name) = (host.clone(), id.clone());
    let job = blocking(move || Ok(store.store.job(tenant.id, &name)?)).await?;
    job.require_result()?;
    if host.store.objects().is_some() {
        let why =
            format!("the result of this job is in a store, set by set: fetch /v1/jobs/{id}/sets/0 and those after it");
        return Err(StoreError::Conflict(why).into());
    }
    let path = host.store.blobs().path(BlobKind::Results, &id);
    let mime = CIPHERTEXTS_TYPE.parse().expect("a media type");
    match ServeFile::new_with_mime(path, &mime).oneshot(request).await {
        Ok(response) => {
            let mut response = response.map(Body::new);
            response.headers_mut().remove(CONTENT_LOCATION);
            if response.status() == StatusCode::NOT_FOUND {
                response.headers_mut().remove(CONTENT_TYPE);
            }
            Ok(response)
        }
        Err(never) => match never {},
    }
}
