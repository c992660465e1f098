//! For workers: sets of images to compute, each under a lease.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Path, Request, State};
use axum::http::header::{CONTENT_LENGTH, CONTENT_LOCATION, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use cryptodl::CiphertextsInfo;
use cryptodl_core::wire::TRAILER_LEN;
use http_body::Frame;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tower::ServiceExt;
use tower_http::services::ServeFile;
use utoipa::ToSchema;
use zeroize::Zeroize;

use super::stored::{PlaceView, head_of, in_store, objects_of};
use super::{
    AskingWorker, CIPHERTEXTS_TYPE, KEYS_TYPE, Shared, blocking, next_piece, number, parse_number, read_json,
    require_type,
};
use crate::compute::first_set;
use crate::host::Host;
use crate::model::Model;
use crate::problem::{Problem, ProblemBody};
use crate::sets::{headers, part_of};
use crate::storage::{BlobKind, Id, Lease, StoreError, keys_name, now, request_set_name, result_name};

/// Longest wait for a set in one request.
const MAX_WAIT: u64 = 30;
/// Leases in one answer.
const MAX_CAPACITY: u32 = 64;
/// How often whoever waits looks for sets whose leases have expired.
const LOOK: Duration = Duration::from_secs(1);
/// Bytes of a piece of a set on its way.
const PIECE: usize = 1 << 18;
/// Characters of the reason why a set could not be computed.
const MAX_REASON: usize = 500;
/// Characters of the names of layers that are computed at once.
pub const MAX_LAYER: usize = 200;

/// What a worker can do.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LeaseRequest {
    /// Digests of the Programs that it has prepared.
    pub programs: Vec<String>,
    /// Sets that it takes now, 1 to 64.
    #[schema(minimum = 1, maximum = 64, default = 1)]
    pub capacity: Option<u32>,
    /// Seconds to wait for the first set, at most 30.
    #[schema(minimum = 0, maximum = 30, default = 0)]
    pub wait: Option<u64>,
}

/// A set that is to be computed. Not to be printed: it has a secret, which is erased with it. What it is written into on its way to the
/// worker is not.
#[derive(Serialize, ToSchema)]
pub struct LeaseView {
    /// Number of the lease. Every lease has a higher one than all before it.
    #[schema(example = 17)]
    pub lease: i64,
    /// Digest of the Program.
    pub program: String,
    /// The keys that it is computed with: the same name is always the same keys.
    pub key: String,
    /// Bytes of the keys.
    pub key_bytes: u64,
    /// Number of the set within its request. Its ciphertexts are numbered on from those of the sets before it.
    pub set: u64,
    /// Images in the set.
    pub images: u64,
    /// Bytes of the set as a file.
    pub bytes: u64,
    /// Bytes of its result as a file.
    pub result_bytes: u64,
    /// Whether the result goes to a store.
    pub stored: bool,
    /// Seconds in which the lease must be renewed.
    pub seconds: u64,
    /// What masks and floods of this set are expanded from: 64 hexadecimal digits, for whoever computes it only. Absent where the
    /// service was told to mask nothing, which is for tests.
    pub secret: Option<String>,
}

impl Drop for LeaseView {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}

/// Sets to compute.
#[derive(Serialize, ToSchema)]
pub struct LeaseList {
    /// At most as many as were asked for; none where nothing waits.
    pub leases: Vec<LeaseView>,
}

/// How many sets there are to compute.
#[derive(Debug, Serialize, ToSchema)]
pub struct FleetView {
    /// That wait for a worker.
    pub waiting: u64,
    /// That somebody computes.
    pub leased: u64,
}

/// How far a worker is.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LeaseProgress {
    /// Steps of the computation that are done.
    pub done: u32,
    /// All of them; 0 until it is known.
    pub total: u32,
    /// Name of the layer that is being computed, for the tenant to read; at most 200 characters.
    #[schema(max_length = 200)]
    pub layer: Option<String>,
}

/// A lease that goes on.
#[derive(Debug, Serialize, ToSchema)]
pub struct Renewed {
    /// Seconds in which it must be renewed again.
    pub seconds: u64,
}

/// Why a set could not be computed.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LeaseFailure {
    /// For the tenant to read; at most 500 characters.
    pub reason: String,
}

/// The number of a lease in a path.
fn parse_lease(text: &str) -> Result<i64, Problem> {
    parse_number(text, 18, "lease")
}

/// What a worker says, as it is shown to a tenant, perhaps on a terminal.
fn shown(text: &str, most: usize) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(most).collect()
}

/// The whole request that a lease belongs to, and its file.
fn open_request(host: &Host, lease: &Lease) -> Result<(CiphertextsInfo, File, u64), Problem> {
    let model = host.model_of(&lease.program).ok_or_else(|| Problem::absent("model"))?;
    let file = File::open(host.store.blobs().path(BlobKind::Uploads, &lease.upload))?;
    let length = file.metadata()?.len();
    let request = model.open_request(file.try_clone()?, length)?.info().clone();
    Ok((request, file, length))
}

/// What the whole request is that a lease belongs to, and its model.
fn request_of<'a>(host: &'a Host, lease: &Lease) -> Result<(&'a Model, CiphertextsInfo), Problem> {
    let model = host.model_of(&lease.program).ok_or_else(|| Problem::absent("model"))?;
    let request = match host.store.objects() {
        Some(_) => model.request(lease.images),
        None => open_request(host, lease)?.0,
    };
    Ok((model, request))
}

impl LeaseView {
    fn new(host: &Host, lease: &Lease) -> Result<Self, Problem> {
        let (model, request) = request_of(host, lease)?;
        let digits = || {
            // In one piece, so that no copy is left behind where a shorter one was.
            let mut digits = String::with_capacity(2 * lease.secret.len());
            let digit = |half: u8| char::from_digit(half.into(), 16).expect("half a byte");
            lease.secret.iter().for_each(|byte| digits.extend([digit(byte >> 4), digit(byte & 15)]));
            digits
        };
        Ok(LeaseView {
            lease: lease.number,
            program: lease.program.clone(),
            key: lease.key.to_string(),
            key_bytes: model.keys_len(),
            set: lease.set,
            images: part_of(&request, lease.set, model.params()).images as u64,
            bytes: model.set_len(&request, lease.set),
            result_bytes: model.set_result_len(&request, lease.set),
            stored: host.store.objects().is_some(),
            seconds: lease.seconds,
            secret: (!host.config.insecure_deterministic).then(digits),
        })
    }
}

/// How many sets wait, and how many are being computed: whoever starts workers can start as many as are of use.
#[utoipa::path(get, path = "/v1/leases", tag = "leases", operation_id = "countSets",
    responses(
        (status = 200, description = "Sets of all models", body = FleetView),
        (status = "4XX", description = "Refused", body = ProblemBody, content_type = "application/problem+json")))]
pub async fn fleet(State(host): Shared, Extension(_worker): AskingWorker) -> Result<Json<FleetView>, Problem> {
    let fleet = blocking(move || Ok(host.store.fleet(&host.programs(), now())?)).await?;
    Ok(Json(FleetView { waiting: fleet.waiting, leased: fleet.leased }))
}

/// Takes sets to compute. With `wait`, the answer comes as soon as there is one.
#[utoipa::path(post, path = "/v1/leases", tag = "leases", operation_id = "takeLeases",
    request_body = LeaseRequest,
    responses(
        (status = 200, description = "Sets, or none", body = LeaseList),
        (status = "4XX", description = "Refused", body = ProblemBody, content_type = "application/problem+json")))]
pub async fn take(
    State(host): Shared,
    Extension(worker): AskingWorker,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<LeaseList>, Problem> {
    let LeaseRequest { programs, capacity, wait } = read_json(&host, &headers, body).await?;
    let (capacity, wait) = (capacity.unwrap_or(1), wait.unwrap_or(0));
    if !(1..=MAX_CAPACITY).contains(&capacity) {
        return Err(Problem::refused(format!("capacity must be 1 to {MAX_CAPACITY}, the sets that are taken now")));
    }
    if wait > MAX_WAIT {
        return Err(Problem::refused(format!("wait must be at most {MAX_WAIT} seconds")));
    }
    if !programs.iter().any(|program| host.model_of(program).is_some()) {
        let served: Vec<String> = host.models.iter().map(|m| format!("{} ({})", m.program(), m.name())).collect();
        return Err(Problem::refused(format!(
            "none of these Programs is served here: make the worker's from the same file, which is one of {}",
            served.join(", ")
        )));
    }
    let deadline = Instant::now() + Duration::from_secs(wait);
    let mut rings = host.rings();
    loop {
        if host.is_stopping() {
            let why = "the service is stopping, and gives no further sets";
            return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, why).with(RETRY_AFTER, 1.into()));
        }
        let (store, programs, name) = (host.clone(), programs.clone(), worker.name.clone());
        let leases = blocking(move || {
            let mut leases = Vec::new();
            while leases.len() < capacity as usize
                && let Some(lease) = store.lease(&programs, Some(&name))?
            {
                match LeaseView::new(&store, &lease) {
                    Ok(view) => leases.push(view),
                    // Its job ended meanwhile, or its file is damaged.
                    Err(problem) => match store.fail_set(lease.number, Some(&name), problem.detail()) {
                        Ok(()) | Err(StoreError::Conflict(_)) => {}
                        Err(error) => return Err(error.into()),
                    },
                }
            }
            Ok(leases)
        })
        .await?;
        if !leases.is_empty() {
            host.job_changed();
        }
        if !leases.is_empty() || Instant::now() >= deadline {
            return Ok(Json(LeaseList { leases }));
        }
        let look = deadline.min(Instant::now() + LOOK);
        let _ = tokio::time::timeout_at(look, rings.changed()).await;
    }
}

/// Goes on with a lease, and says how far the computation is.
#[utoipa::path(post, path = "/v1/leases/{lease}/renew", tag = "leases", operation_id = "renewLease",
    params(("lease" = i64, Path, description = "Its number")),
    request_body = LeaseProgress,
    responses(
        (status = 200, description = "It goes on", body = Renewed),
        (status = 409, description = "It is over: end the computation", body = ProblemBody,
            content_type = "application/problem+json"),
        (status = "4XX", description = "Refused", body = ProblemBody, content_type = "application/problem+json")))]
pub async fn renew(
    State(host): Shared,
    Extension(worker): AskingWorker,
    Path(lease): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Renewed>, Problem> {
    let LeaseProgress { done, total, layer } = read_json(&host, &headers, body).await?;
    let number = parse_lease(&lease)?;
    let layer = layer.map(|layer| shown(&layer, MAX_LAYER));
    let seconds = blocking(move || {
        let seconds = host.store.renew_lease(number, Some(&worker.name), now())?;
        let lease = host.store.leased(number, Some(&worker.name), now())?;
        host.progress_set(&lease, done as usize, total as usize, layer.as_deref());
        Ok(seconds)
    })
    .await?;
    Ok(Json(Renewed { seconds }))
}

/// Gives a set back that was not computed, so that another worker can take it at once.
#[utoipa::path(delete, path = "/v1/leases/{lease}", tag = "leases", operation_id = "giveBackLease",
    params(("lease" = i64, Path, description = "Its number")),
    responses(
        (status = 204, description = "It waits again"),
        (status = "4XX", description = "Refused", body = ProblemBody, content_type = "application/problem+json")))]
pub async fn give_back(
    State(host): Shared,
    Extension(worker): AskingWorker,
    Path(lease): Path<String>,
) -> Result<StatusCode, Problem> {
    let number = parse_lease(&lease)?;
    let store = host.clone();
    blocking(move || Ok(store.store.give_back(number, Some(&worker.name), false, now())?)).await?;
    host.end_set(number, "given back");
    host.wake();
    host.job_changed();
    Ok(StatusCode::NO_CONTENT)
}

/// Says that a set could not be computed. Another worker may try; when that has failed often enough, the job fails with this reason.
#[utoipa::path(post, path = "/v1/leases/{lease}/fail", tag = "leases", operation_id = "failLease",
    params(("lease" = i64, Path, description = "Its number")),
    request_body = LeaseFailure,
    responses(
        (status = 204, description = "It is noted"),
        (status = "4XX", description = "Refused", body = ProblemBody, content_type = "application/problem+json")))]
pub async fn fail(
    State(host): Shared,
    Extension(worker): AskingWorker,
    Path(lease): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, Problem> {
    let LeaseFailure { reason } = read_json(&host, &headers, body).await?;
    let number = parse_lease(&lease)?;
    let reason = shown(&reason, MAX_REASON);
    let store = host.clone();
    blocking(move || Ok(store.fail_set(number, Some(&worker.name), &reason)?)).await?;
    host.wake();
    host.job_changed();
    Ok(StatusCode::NO_CONTENT)
}

/// The keys that a set is computed with, as their tenant registered them.
#[utoipa::path(get, path = "/v1/leases/{lease}/keys", tag = "leases", operation_id = "fetchLeasedKeys",
    params(("lease" = i64, Path, description = "Its number")),
    responses(
        (status = 200, description = "A public key, and behind it evaluation keys", body = Vec<u8>,
            content_type = "application/vnd.cryptodl.keys"),
        (status = 307, description = "They are in the store, for a few minutes at this address",
            headers(("Location" = String))),
        (status = "4XX", description = "Refused", body = ProblemBody, content_type = "application/problem+json")))]
pub async fn keys(
    State(host): Shared,
    Extension(worker): AskingWorker,
    Path(lease): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let number = parse_lease(&lease)?;
    let store = host.clone();
    let lease = blocking(move || Ok(store.store.leased(number, Some(&worker.name), now())?)).await?;
    if let Some(address) = in_store(&host, keys_name(&lease.key)).await? {
        return Ok(address);
    }
    let path = host.store.blobs().path(BlobKind::Keys, &lease.key);
    match ServeFile::new_with_mime(path, &KEYS_TYPE.parse().expect("a media type")).oneshot(request).await {
        Ok(response) => {
            let mut response = response.map(Body::new);
            response.headers_mut().remove(CONTENT_LOCATION);
            Ok(response)
        }
        Err(never) => match never {},
    }
}

/// The set as a file of encrypted images: a part of the request that keeps its seed and the numbers of its ciphertexts.
#[utoipa::path(get, path = "/v1/leases/{lease}/input", tag = "leases", operation_id = "fetchLeasedInput",
    params(("lease" = i64, Path, description = "Its number")),
    responses(
        (status = 200, description = "Encrypted images", body = Vec<u8>,
            content_type = "application/vnd.cryptodl.ciphertexts"),
        (status = 307, description = "They are in the store, for a few minutes at this address",
            headers(("Location" = String))),
        (status = "4XX", description = "Refused", body = ProblemBody, content_type = "application/problem+json")))]
pub async fn input(
    State(host): Shared,
    Extension(worker): AskingWorker,
    Path(lease): Path<String>,
) -> Result<Response, Problem> {
    let number = parse_lease(&lease)?;
    let store = host.clone();
    let lease = blocking(move || Ok(store.store.leased(number, Some(&worker.name), now())?)).await?;
    if let Some(address) = in_store(&host, request_set_name(&lease.upload, lease.set)).await? {
        return Ok(address);
    }
    let store = host.clone();
    let (head, file, length) = blocking(move || {
        let model = store.model_of(&lease.program).ok_or_else(|| Problem::absent("model"))?;
        let (request, mut file, length) = open_request(&store, &lease)?;
        let params = model.params();
        let set_bytes = request.set_bytes(params) as u64;
        file.seek(SeekFrom::Start(first_set(&request, params, length) + lease.set * set_bytes))?;
        // The set itself goes from the disk to the line in pieces.
        let head = headers(&model.binding(), &model.input_layout(), &part_of(&request, lease.set, params));
        Ok((head, file, set_bytes))
    })
    .await?;
    let total = head.len() as u64 + length + TRAILER_LEN as u64;
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(send_set(head, file, length, sender));
    let headers =
        [(CONTENT_TYPE, HeaderValue::from_static(CIPHERTEXTS_TYPE)), (CONTENT_LENGTH, HeaderValue::from(total))];
    Ok((headers, Body::new(Pieces(receiver))).into_response())
}

/// Sends headers, the next `left` bytes of a file, and the checksum of both. Nothing is read before there is room for it.
async fn send_set(head: Vec<u8>, mut file: File, mut left: u64, sender: mpsc::Sender<std::io::Result<Bytes>>) {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&head);
    if sender.send(Ok(head.into())).await.is_err() {
        return;
    }
    while left > 0 {
        let Ok(place) = sender.reserve().await else { return };
        let read = tokio::task::spawn_blocking(move || {
            let mut piece = vec![0; PIECE.min(usize::try_from(left).unwrap_or(PIECE))];
            let read = file.read_exact(&mut piece).map(|()| {
                hasher.update(&piece);
                piece
            });
            (file, hasher, read)
        });
        let Ok((next_file, next_hasher, read)) = read.await else { return };
        (file, hasher) = (next_file, next_hasher);
        match read {
            Ok(piece) => {
                left -= piece.len() as u64;
                place.send(Ok(piece.into()));
            }
            Err(error) => {
                place.send(Err(error));
                return;
            }
        }
    }
    let _ = sender.send(Ok(Bytes::copy_from_slice(hasher.finalize().as_bytes()))).await;
}

/// A body that comes piece by piece.
struct Pieces(mpsc::Receiver<std::io::Result<Bytes>>);

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<std::io::Result<Frame<Bytes>>>> {
        self.0.poll_recv(context).map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }
}

/// Publishes the result of a set: a file of encrypted scores that is the same part of the whole. Each set is published once; a lease
/// that is over publishes nothing, however late its result comes.
#[utoipa::path(put, path = "/v1/leases/{lease}/result", tag = "leases", operation_id = "publishResult",
    params(("lease" = i64, Path, description = "Its number")),
    request_body(content = Vec<u8>, content_type = "application/vnd.cryptodl.ciphertexts"),
    responses(
        (status = 204, description = "It is published, or was under this lease before"),
        (status = 409, description = "The lease is over: the result is refused", body = ProblemBody,
            content_type = "application/problem+json"),
        (status = "4XX", description = "Refused", body = ProblemBody, content_type = "application/problem+json")))]
pub async fn publish(
    State(host): Shared,
    Extension(worker): AskingWorker,
    Path(lease): Path<String>,
    headers: HeaderMap,
    mut body: Body,
) -> Result<StatusCode, Problem> {
    require_type(&headers, CIPHERTEXTS_TYPE)?;
    if host.store.objects().is_some() {
        let why = "results go to a store here: GET says where, and POST publishes what was put there";
        return Err(Problem::new(StatusCode::CONFLICT, why));
    }
    let number_of_lease = parse_lease(&lease)?;
    let (store, name) = (host.clone(), worker.name.clone());
    let leased = blocking(move || {
        let lease = store.store.leased(number_of_lease, Some(&name), now())?;
        let (model, request) = request_of(&store, &lease)?;
        let expected = model.set_result_len(&request, lease.set);
        Ok((lease, request, expected, store.store.blobs().part(BlobKind::Sets)?))
    });
    let (lease, request, expected, mut part) = noted(&host, number_of_lease, leased.await).await?;
    let wrong = |status, actual: String| {
        Problem::new(status, format!("the result of this set has {expected} bytes, and this one has {actual}"))
    };
    if let Some(length) = number(&headers, &CONTENT_LENGTH)?
        && length != expected
    {
        let too_long = length > expected;
        let status = if too_long { StatusCode::PAYLOAD_TOO_LARGE } else { StatusCode::UNPROCESSABLE_ENTITY };
        return Err(wrong(status, length.to_string()));
    }
    let mut received = 0;
    while let Some(piece) = next_piece(&host, &mut body).await? {
        received += piece.len() as u64;
        if received > expected {
            return Err(wrong(StatusCode::PAYLOAD_TOO_LARGE, "more".into()));
        }
        host.metrics.received(piece.len() as u64);
        part = blocking(move || {
            part.file().write_all(&piece)?;
            Ok(part)
        })
        .await?;
    }
    if received != expected {
        return Err(wrong(StatusCode::UNPROCESSABLE_ENTITY, received.to_string()));
    }
    let store = host.clone();
    let stored = blocking(move || store_result(&store, &worker.name, &lease, &request, part));
    noted(&host, number_of_lease, stored.await).await?;
    host.end_set(number_of_lease, "done");
    host.wake();
    host.job_changed();
    Ok(StatusCode::NO_CONTENT)
}

fn store_result(
    host: &Arc<Host>,
    worker: &str,
    lease: &Lease,
    request: &CiphertextsInfo,
    part: crate::storage::Part,
) -> Result<Id, Problem> {
    let model = host.model_of(&lease.program).ok_or_else(|| Problem::absent("model"))?;
    model.check_set_result(request, lease.set, part.file())?;
    Ok(host.store.publish_set(lease.number, Some(worker), Some(part.sync()?), now())?)
}

/// Where the result of a set belongs that goes to a store. The address is good for a few minutes, and for this lease only.
#[utoipa::path(get, path = "/v1/leases/{lease}/result", tag = "leases", operation_id = "placeResult",
    params(("lease" = i64, Path, description = "Its number")),
    responses(
        (status = 200, description = "Where to put it", body = PlaceView),
        (status = 409, description = "The lease is over, or results go to the service itself", body = ProblemBody,
            content_type = "application/problem+json"),
        (status = "4XX", description = "Refused", body = ProblemBody, content_type = "application/problem+json")))]
pub async fn place(
    State(host): Shared,
    Extension(worker): AskingWorker,
    Path(lease): Path<String>,
) -> Result<Json<PlaceView>, Problem> {
    let number = parse_lease(&lease)?;
    let store = host.clone();
    let place = blocking(move || {
        let objects = objects_of(&store)?;
        let lease = store.store.leased(number, Some(&worker.name), now())?;
        let (model, request) = request_of(&store, &lease)?;
        PlaceView::of(objects, &result_name(&lease.job, lease.set, number), model.set_result_len(&request, lease.set))
    });
    Ok(Json(noted(&host, number, place.await).await?))
}

/// Publishes the result of a set that was put into the store. Each set is published once; a lease that is over publishes nothing,
/// whatever was put there.
#[utoipa::path(post, path = "/v1/leases/{lease}/result", tag = "leases", operation_id = "publishStoredResult",
    params(("lease" = i64, Path, description = "Its number")),
    responses(
        (status = 204, description = "It is published, or was under this lease before"),
        (status = 409, description = "The lease is over: the result is refused", body = ProblemBody,
            content_type = "application/problem+json"),
        (status = "4XX", description = "Refused", body = ProblemBody, content_type = "application/problem+json")))]
pub async fn publish_stored(
    State(host): Shared,
    Extension(worker): AskingWorker,
    Path(lease): Path<String>,
) -> Result<StatusCode, Problem> {
    let number = parse_lease(&lease)?;
    let store = host.clone();
    let published = blocking(move || {
        let objects = objects_of(&store)?;
        let lease = store.store.leased(number, Some(&worker.name), now())?;
        let (model, request) = request_of(&store, &lease)?;
        let (head, length) = head_of(objects, &result_name(&lease.job, lease.set, number), lease.set)?;
        model.open_set_result(&request, lease.set, &head[..], length)?;
        Ok(store.store.publish_set(number, Some(&worker.name), None, now())?)
    });
    noted(&host, number, published.await).await?;
    host.end_set(number, "done");
    host.wake();
    host.job_changed();
    Ok(StatusCode::NO_CONTENT)
}

/// Counts a result that came too late. The lease of another worker goes on, whoever speaks for it.
async fn noted<T>(host: &Arc<Host>, lease: i64, done: Result<T, Problem>) -> Result<T, Problem> {
    if done.as_ref().is_err_and(|problem| problem.status() == StatusCode::CONFLICT) {
        let store = host.clone();
        let alive = blocking(move || Ok(store.store.leases(now())?)).await?;
        if !alive.contains(&lease) {
            host.end_set(lease, "refused");
        }
    }
    done
}
