//! For operators: whether the service lives, whether it is ready, and what it counts.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;

use super::{Shared, blocking};
use crate::host::Host;
use crate::problem::Problem;

pub(super) fn health() -> Router<Arc<Host>> {
    Router::new().route("/healthz", get(|| async { "alive\n" })).route("/readyz", get(ready))
}

pub(super) fn metrics() -> Router<Arc<Host>> {
    Router::new().route("/metrics", get(render))
}

/// Ready means: jobs are computed, here or by workers, and rows can be written.
async fn ready(State(host): Shared) -> Result<&'static str, Problem> {
    let unready = |why: &str| Problem::new(StatusCode::SERVICE_UNAVAILABLE, why);
    if host.is_stopping() {
        return Err(unready("the service is stopping"));
    }
    if host.working.load(Ordering::SeqCst) == 0 {
        return Err(unready("nothing computes"));
    }
    let store = host.clone();
    blocking(move || Ok(store.store.check_writable()?)).await.map_err(|_| unready("the database cannot be written"))?;
    Ok("ready\n")
}

async fn render(State(host): Shared) -> impl IntoResponse {
    let store = host.clone();
    // Gone over when somebody looks, because there may be many.
    let _ = blocking(move || {
        store.count_fleet();
        store.count_disk();
        Ok(())
    })
    .await;
    ([(CONTENT_TYPE, "text/plain; version=0.0.4")], host.metrics.render())
}
