//! What can be computed.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::header::{CONTENT_TYPE, ETAG};
use axum::response::IntoResponse;

use super::{SPEC_TYPE, Shared};
use crate::host::Host;
use crate::model::{Model, ModelView};
use crate::problem::{Problem, ProblemBody};

fn find<'a>(host: &'a Host, name: &str) -> Result<&'a Model, Problem> {
    host.model(name).ok_or_else(|| {
        let names: Vec<&str> = host.models().iter().map(Model::name).collect();
        Problem::new(
            axum::http::StatusCode::NOT_FOUND,
            format!("there is no model of this name; there is {}", names.join(", ")),
        )
    })
}

/// All models that are served.
#[utoipa::path(get, path = "/v1/models", tag = "models", operation_id = "listModels",
    responses(
        (status = 200, description = "All models", body = [ModelView]),
        (status = "4XX", description = "Refused", body = ProblemBody, content_type = "application/problem+json")))]
pub async fn list(State(host): Shared) -> Json<Vec<ModelView>> {
    Json(host.models().iter().map(|model| model.view().clone()).collect())
}

/// One model.
#[utoipa::path(get, path = "/v1/models/{model}", tag = "models", operation_id = "showModel",
    params(("model" = String, Path, description = "Its name")),
    responses(
        (status = 200, description = "The model", body = ModelView),
        (status = "4XX", description = "Refused", body = ProblemBody, content_type = "application/problem+json")))]
pub async fn show(State(host): Shared, Path(name): Path<String>) -> Result<Json<ModelView>, Problem> {
    Ok(Json(find(&host, &name)?.view().clone()))
}

/// The client spec of a model: what a client needs to make keys, encrypt and decrypt. Check all of it.
#[utoipa::path(get, path = "/v1/models/{model}/spec", tag = "models", operation_id = "showSpec",
    params(("model" = String, Path, description = "Its name")),
    responses(
        (status = 200, description = "The client spec as a file", body = Vec<u8>,
            content_type = "application/vnd.cryptodl.client-spec"),
        (status = "4XX", description = "Refused", body = ProblemBody, content_type = "application/problem+json")))]
pub async fn spec(State(host): Shared, Path(name): Path<String>) -> Result<impl IntoResponse, Problem> {
    let model = find(&host, &name)?;
    let tag = format!("\"{}\"", model.program());
    Ok(([(CONTENT_TYPE, SPEC_TYPE.to_owned()), (ETAG, tag)], model.spec_file().to_vec()))
}
