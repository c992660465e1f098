//! As much of S3 as the service, its clients and its workers use: objects in memory, at an address of this machine.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, State};
use axum::http::header::{
    AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderName, IF_NONE_MATCH, LAST_MODIFIED, RANGE,
};
use axum::http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use cryptodl_service::{Objects, StoreError};

/// Names in one answer, so that there are several.
const PAGE: usize = 2;
/// When everything was changed.
const CHANGED: HeaderValue = HeaderValue::from_static("Sun, 22 Nov 2026 00:00:00 GMT");

/// A store.
pub struct S3 {
    address: String,
    state: Arc<Mutex<Contents>>,
    // Its server ends with it.
    _runtime: tokio::runtime::Runtime,
}

/// What a store holds, and what became of it.
#[derive(Default)]
pub struct Contents {
    /// Objects by their names, after the bucket.
    pub objects: BTreeMap<String, Bytes>,
    /// Everything that was put, in its order.
    pub put: Vec<(String, Bytes)>,
    /// How the next objects that are put fail.
    pub trouble: Vec<Trouble>,
    /// Whether conditions are heeded.
    pub replaces: bool,
}

/// What goes wrong when an object is put.
#[derive(Clone, Copy)]
pub enum Trouble {
    /// It is there, and the answer is lost.
    Late,
    /// It is not there.
    Lost,
}

impl S3 {
    pub fn new() -> Self {
        let state = Arc::<Mutex<Contents>>::default();
        let router = Router::new().fallback(answer).layer(DefaultBodyLimit::disable()).with_state(state.clone());
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a thread");
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("a port");
        let address = format!("http://{}", listener.local_addr().expect("an address"));
        runtime.spawn(async move { axum::serve(listener, router).await });
        S3 { address, state, _runtime: runtime }
    }

    /// What is below `prefix` of its only bucket, as a service sees it.
    pub fn below(&self, prefix: &str) -> Result<Arc<Objects>, StoreError> {
        let settings = [
            ("AWS_ENDPOINT_URL", &self.address[..]),
            ("AWS_ALLOW_HTTP", "true"),
            ("AWS_REGION", "here"),
            ("AWS_ACCESS_KEY_ID", "id"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
        ];
        let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Objects::new(&format!("s3://bucket/{prefix}"), settings).map(Arc::new)
    }

    pub fn contents(&self) -> MutexGuard<'_, Contents> {
        self.state.lock().expect("no panic")
    }

    /// Names of what it holds below `folder`.
    pub fn names(&self, folder: &str) -> Vec<String> {
        self.contents().objects.keys().filter(|name| name.starts_with(folder)).cloned().collect()
    }
}

/// Values in the query of an address.
fn query(uri: &Uri, name: &str) -> Option<String> {
    let pairs = uri.query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
    let found = pairs.into_iter().find(|(found, _)| *found == name);
    found.map(|(_, value)| value.replace("%2F", "/").replace("%3B", ";"))
}

/// Whether somebody has signed this, and all that was signed has come.
fn is_signed(uri: &Uri, headers: &HeaderMap) -> bool {
    match query(uri, "X-Amz-SignedHeaders") {
        Some(signed) => {
            !headers.contains_key(AUTHORIZATION) && signed.split(';').all(|name| headers.contains_key(name))
        }
        None => headers.get(AUTHORIZATION).is_some_and(|value| value.as_bytes().starts_with(b"AWS4-HMAC-SHA256 ")),
    }
}

async fn answer(State(state): State<Arc<Mutex<Contents>>>, request: Request<Body>) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, usize::MAX).await else { return StatusCode::BAD_REQUEST.into_response() };
    if !is_signed(&parts.uri, &parts.headers) {
        return StatusCode::FORBIDDEN.into_response();
    }
    let mut state = state.lock().expect("no panic");
    let Some(name) = parts.uri.path().strip_prefix("/bucket/").filter(|name| !name.is_empty()) else {
        return list(&state, &parts.uri);
    };
    match parts.method {
        Method::PUT => put(&mut state, name, body, &parts.headers),
        Method::DELETE => {
            state.objects.remove(name);
            StatusCode::NO_CONTENT.into_response()
        }
        _ => fetch(&state, name, &parts.headers),
    }
}

fn put(state: &mut Contents, name: &str, body: Bytes, headers: &HeaderMap) -> Response {
    let trouble = state.trouble.pop();
    if matches!(trouble, Some(Trouble::Lost)) {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let never_replaces = headers.get(IF_NONE_MATCH).is_some_and(|value| value == "*");
    if never_replaces && !state.replaces && state.objects.contains_key(name) {
        return StatusCode::PRECONDITION_FAILED.into_response();
    }
    state.put.push((name.into(), body.clone()));
    state.objects.insert(name.into(), body);
    match trouble {
        Some(_) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        None => (StatusCode::OK, [(ETAG, "\"tag\"")]).into_response(),
    }
}

fn fetch(state: &Contents, name: &str, headers: &HeaderMap) -> Response {
    let Some(object) = state.objects.get(name) else { return StatusCode::NOT_FOUND.into_response() };
    let about = |length: usize| -> [(HeaderName, HeaderValue); 3] {
        [(ETAG, HeaderValue::from_static("\"tag\"")), (LAST_MODIFIED, CHANGED), (CONTENT_LENGTH, length.into())]
    };
    let range = headers.get(RANGE).and_then(|range| range.to_str().ok()?.strip_prefix("bytes=")?.split_once('-'));
    let Some((first, last)) = range else { return (about(object.len()), object.clone()).into_response() };
    let first: usize = first.parse().expect("a number");
    let last = last.parse().map_or(object.len(), |last: usize| object.len().min(last + 1));
    let piece = object.slice(first..last);
    let range = HeaderValue::try_from(format!("bytes {first}-{}/{}", last - 1, object.len())).expect("text");
    (StatusCode::PARTIAL_CONTENT, about(piece.len()), [(CONTENT_RANGE, range)], piece).into_response()
}

fn list(state: &Contents, uri: &Uri) -> Response {
    let prefix = query(uri, "prefix").unwrap_or_default();
    let after = query(uri, "continuation-token").unwrap_or_default();
    let names: Vec<&String> =
        state.objects.keys().filter(|name| name.starts_with(&prefix) && **name > after).take(PAGE + 1).collect();
    let mut text = String::from("<ListBucketResult>");
    for name in names.iter().take(PAGE) {
        let size = state.objects[*name].len();
        text += &format!(
            "<Contents><Key>{name}</Key><Size>{size}</Size><LastModified>2026-11-22T00:00:00Z</LastModified></Contents>"
        );
    }
    if names.len() > PAGE {
        text += &format!("<NextContinuationToken>{}</NextContinuationToken>", names[PAGE - 1]);
    }
    (text + "</ListBucketResult>").into_response()
}
