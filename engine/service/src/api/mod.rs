//! Requests and answers: routes, who may use them, and problems.

mod jobs;
mod keys;
mod leases;
mod models;
mod stored;
mod system;
mod uploads;

use std::any::Any;
use std::sync::Arc;
use std::time::Instant;

use axum::body::{Body, Bytes};
use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, ORIGIN};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use http_body_util::BodyExt;
use tower::ServiceBuilder;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(crate) use leases::MAX_LAYER;

use crate::host::{self, Host, Tenant, Worker};
use crate::problem::{PROBLEM_JSON, Problem};
use crate::storage::{Id, StoreError};
use crate::{CIPHERTEXTS_TYPE, KEYS_TYPE, SPEC_TYPE};

/// Bytes of a body that is JSON.
const MAX_JSON: usize = 1 << 12;
/// Bytes of the text of an error that axum made.
const MAX_TEXT: usize = 1 << 12;

/// What every handler has.
type Shared = State<Arc<Host>>;
/// Who asks.
type Caller = Extension<Tenant>;
/// Which worker asks.
type AskingWorker = Extension<Worker>;

/// The description that is served, without its paths.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "CryptoDL",
        description = "Private prediction as a service: encrypted images go up, encrypted scores come down, and the server reads \
                       neither. Every answer that is no success is a problem as in RFC 9457. Uploads follow tus 1.0.0 with its \
                       extensions creation and termination.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0")
    ),
    servers((url = "/")),
    security(("token" = [])),
    tags(
        (name = "models", description = "What can be computed, and what a client must know of it"),
        (name = "keys", description = "Public keys and evaluation keys, registered once"),
        (name = "uploads", description = "Requests on their way, in as many pieces as they need"),
        (name = "jobs", description = "Requests that were accepted, and their results"),
        (name = "leases", description = "For workers: sets of images to compute. A lease that is not renewed in time is over, and \
                                         only the last lease of a set can publish its result"),
        (name = "service", description = "For operators"),
    )
)]
struct Description;

/// All routes and their description.
fn documented(host: &Host) -> (Router<Arc<Host>>, utoipa::openapi::OpenApi) {
    let mut description = Description::openapi();
    let token = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("the tenant's token, or for leases a worker's"))
        .build();
    description.components.get_or_insert_default().add_security_scheme("token", SecurityScheme::Http(token));
    if host.config.tokens.is_none() {
        description.security = None;
        description.components.get_or_insert_default().security_schemes.clear();
    }
    let of_tenants = OpenApiRouter::with_openapi(description)
        .routes(routes!(models::list))
        .routes(routes!(models::show))
        .routes(routes!(models::spec))
        .routes(routes!(keys::register))
        .routes(routes!(keys::list))
        .routes(routes!(keys::show, keys::delete))
        .routes(routes!(uploads::options, uploads::create))
        .routes(routes!(uploads::status, uploads::append, uploads::terminate))
        .routes(routes!(stored::create))
        .routes(routes!(stored::place))
        .routes(routes!(jobs::list, jobs::submit))
        .routes(routes!(jobs::show, jobs::delete))
        .routes(routes!(jobs::cancel))
        .routes(routes!(jobs::result))
        .routes(routes!(stored::result));
    let of_workers = OpenApiRouter::new()
        .routes(routes!(leases::fleet, leases::take))
        .routes(routes!(leases::give_back))
        .routes(routes!(leases::renew))
        .routes(routes!(leases::fail))
        .routes(routes!(leases::keys))
        .routes(routes!(leases::input))
        .routes(routes!(leases::place, leases::publish, leases::publish_stored));
    of_tenants.merge(of_workers).split_for_parts()
}

impl Host {
    /// Everything that clients ask for, and `/metrics` where nobody else can ask for it.
    pub fn router(self: &Arc<Self>) -> Router {
        let (routes, description) = documented(self);
        let description: Arc<str> = description.to_json().expect("a description is plain data").into();
        let describe = move || async move { ([(CONTENT_TYPE, "application/json")], description.to_string()) };
        let routes = routes
            .route_layer(from_fn_with_state(self.clone(), authenticate))
            .route("/openapi.json", get(describe))
            .merge(system::health());
        // With strangers about, what is counted is for the operator.
        let routes = if self.config.tokens.is_none() { routes.merge(system::metrics()) } else { routes };
        self.finished(routes)
    }

    /// `/metrics`, `/healthz` and `/readyz` alone, for a listener of the operator.
    pub fn operator_router(self: &Arc<Self>) -> Router {
        self.finished(system::health().merge(system::metrics()))
    }

    fn finished(self: &Arc<Self>, routes: Router<Arc<Host>>) -> Router {
        let layers = ServiceBuilder::new()
            .layer(from_fn_with_state(self.clone(), count))
            .layer(from_fn(explain))
            .layer(CatchPanicLayer::custom(panicked))
            .layer(from_fn_with_state(self.clone(), only_this_machine));
        let routes = routes
            .fallback(|| async {
                Problem::new(StatusCode::NOT_FOUND, "there is nothing at this path: see /openapi.json")
            })
            .layer(layers)
            .with_state(self.clone());
        // Before routes are looked up.
        Router::new().fallback_service(ServiceBuilder::new().map_request(override_method).service(routes))
    }
}

/// tus: a client behind a proxy that knows few methods says the real one in a header.
fn override_method(mut request: Request) -> Request {
    let asked = request.headers().get("x-http-method-override").map(HeaderValue::as_bytes);
    let allowed = [Method::PATCH, Method::DELETE, Method::HEAD];
    let method = allowed.into_iter().find(|method| asked == Some(method.as_str().as_bytes()));
    if *request.method() == Method::POST
        && let Some(method) = method
    {
        *request.method_mut() = method;
    }
    request
}

/// A service without tokens is for this machine. A page in a browser can send requests to this machine too, from a name that it
/// has made to lead here, or across origins: neither is served.
async fn only_this_machine(State(host): Shared, request: Request, next: Next) -> Response {
    if host.config.tokens.is_none() {
        let named = request.headers().get(HOST).and_then(|host| host.to_str().ok());
        let named = named.or_else(|| request.uri().authority().map(|authority| authority.as_str()));
        if !named.is_some_and(is_this_machine) {
            let why = "without tokens the service answers to localhost, 127.0.0.1 and [::1] only";
            return Problem::new(StatusCode::MISDIRECTED_REQUEST, why).into_response();
        }
        if request.headers().contains_key(ORIGIN) {
            let why = "without tokens the service answers no request that a web page makes";
            return Problem::new(StatusCode::FORBIDDEN, why).into_response();
        }
    }
    next.run(request).await
}

fn is_this_machine(authority: &str) -> bool {
    let (name, port) = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, rest)) => (address, rest.strip_prefix(':').unwrap_or(rest)),
        None => authority.split_once(':').unwrap_or((authority, "")),
    };
    let is_port = port.is_empty() || port.parse::<u16>().is_ok();
    is_port && (name.eq_ignore_ascii_case("localhost") || name == "127.0.0.1" || name == "::1")
}

/// Finds out who asks.
async fn authenticate(State(host): Shared, mut request: Request, next: Next) -> Response {
    let token = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = token.and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    });
    let is_lease = request.uri().path() == "/v1/leases" || request.uri().path().starts_with("/v1/leases/");
    match (host.caller(token), is_lease) {
        (Some(host::Caller::Tenant(tenant) | host::Caller::Local(tenant, _)), false) => {
            request.extensions_mut().insert(tenant);
        }
        (Some(host::Caller::Worker(worker) | host::Caller::Local(_, worker)), true) => {
            request.extensions_mut().insert(worker);
        }
        (Some(host::Caller::Tenant(_)), true) => {
            let why = "this is for workers, and your token is a tenant's: make a worker's with `cryptodl serve --new-token \
                       NAME --worker --tokens FILE`";
            return Problem::new(StatusCode::FORBIDDEN, why).into_response();
        }
        (Some(host::Caller::Worker(_)), false) => {
            let why = "this is for tenants, and your token is a worker's";
            return Problem::new(StatusCode::FORBIDDEN, why).into_response();
        }
        (None, _) => {
            let why = "send the token that the operator gave you, as `Authorization: Bearer TOKEN`";
            return Problem::unauthorized(why).into_response();
        }
    }
    next.run(request).await
}

/// Counts requests.
async fn count(State(host): Shared, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let route = request.extensions().get::<MatchedPath>().map_or("none".into(), |path| path.as_str().to_owned());
    // A stranger may invent any number of methods.
    let method = match request.method().as_str() {
        known @ ("GET" | "HEAD" | "POST" | "PUT" | "PATCH" | "DELETE" | "OPTIONS") => known.to_owned(),
        _ => "other".to_owned(),
    };
    let response = next.run(request).await;
    host.metrics.request(&route, &method, response.status().as_u16(), began.elapsed());
    response
}

/// Makes problems of the errors that are not yet some, and adds what every answer has.
async fn explain(request: Request, next: Next) -> Response {
    let is_head = *request.method() == Method::HEAD;
    let mut response = next.run(request).await;
    let status = response.status();
    let is_error = status.is_client_error() || status.is_server_error();
    let content = response.headers().get(CONTENT_TYPE).cloned();
    if is_error && content.as_ref().is_none_or(|content| content != PROBLEM_JSON) {
        let (parts, body) = response.into_parts();
        let text = match axum::body::to_bytes(body, MAX_TEXT).await {
            Ok(text) => String::from_utf8_lossy(&text).into_owned(),
            Err(_) => String::new(),
        };
        let bare = Response::from_parts(parts, Body::empty());
        response = Problem::of(&bare, text).into_response();
    }
    if is_error && is_head {
        *response.body_mut() = Body::empty();
    }
    let headers = response.headers_mut();
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    if !headers.contains_key("cache-control") {
        headers.insert("cache-control", HeaderValue::from_static("no-store"));
    }
    response
}

fn panicked(_: Box<dyn Any + Send + 'static>) -> Response {
    // The message is on stderr already.
    Problem::internal(&"a handler panicked").into_response()
}

/// Does what waits for the disk where waiting stops nobody.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => Err(Problem::internal(&error)),
    }
}

/// The id in a path.
fn parse_id(text: &str, what: &'static str) -> Result<Id, Problem> {
    Id::parse(text).ok_or_else(|| StoreError::Absent(what).into())
}

/// The number of something in a path, of at most so many digits.
fn parse_number<T: std::str::FromStr>(text: &str, most: usize, what: &'static str) -> Result<T, Problem> {
    let digits = !text.is_empty() && text.len() <= most && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = if digits { text.parse().ok() } else { None };
    number.ok_or_else(|| StoreError::Absent(what).into())
}

/// The value of a header that is a number.
fn number(headers: &HeaderMap, name: &HeaderName) -> Result<Option<u64>, Problem> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    let digits = value.to_str().ok().filter(|text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()));
    match digits.and_then(|text| text.parse().ok()) {
        Some(number) => Ok(Some(number)),
        None => Err(Problem::bad_request(format!("{name} must be a whole number of at most 20 digits"))),
    }
}

/// Refuses a body of another type.
fn require_type(headers: &HeaderMap, expected: &'static str) -> Result<(), Problem> {
    let found = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let found = found.map(|value| value.split(';').next().unwrap_or_default().trim());
    if found.is_some_and(|found| found.eq_ignore_ascii_case(expected)) {
        return Ok(());
    }
    Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, format!("the body must have the type {expected}")))
}

/// The next piece of a body; none after the last.
async fn next_piece(host: &Host, body: &mut Body) -> Result<Option<Bytes>, Problem> {
    loop {
        match tokio::time::timeout(host.config.body_timeout, body.frame()).await {
            Err(_) => {
                let why = format!("no byte arrived for {} seconds", host.config.body_timeout.as_secs());
                return Err(Problem::new(StatusCode::REQUEST_TIMEOUT, why));
            }
            Ok(None) => return Ok(None),
            Ok(Some(Err(error))) => return Err(Problem::bad_request(format!("the body ended early: {error}"))),
            Ok(Some(Ok(frame))) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
}

/// A small body that is JSON.
async fn read_json<T: serde::de::DeserializeOwned>(
    host: &Host,
    headers: &HeaderMap,
    mut body: Body,
) -> Result<T, Problem> {
    require_type(headers, "application/json")?;
    let mut bytes = Vec::new();
    while let Some(piece) = next_piece(host, &mut body).await? {
        if bytes.len() + piece.len() > MAX_JSON {
            return Err(Problem::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("at most {MAX_JSON} bytes of JSON are read here"),
            ));
        }
        bytes.extend_from_slice(&piece);
    }
    serde_json::from_slice(&bytes)
        .map_err(|error| Problem::bad_request(format!("the body is not what is asked for: {error}")))
}
