//! Private prediction as a service: requests over HTTP that survive restarts, and the client that makes them.
//!
//! [`Host`] holds models, the state of all jobs and the rules of who may do what; [`run`] puts it on a network. [`Remote`] is the
//! client, and [`work()`] a worker that computes for a service elsewhere. docs/service.md and docs/scale.md say what travels, and
//! SECURITY.md who is protected from whom.
#![forbid(unsafe_code)]

mod api;
mod clerk;
mod compute;
mod host;
mod listen;
mod metrics;
mod model;
mod problem;
mod remote;
mod run;
mod storage;
mod tokens;
mod work;
mod worker;

pub use api::{CIPHERTEXTS_TYPE, KEYS_TYPE, SPEC_TYPE};
pub use host::{Config, Host};
pub use listen::{Connections, is_loopback, serve, tls};
pub use model::{Model, ModelBytes, ModelView};
pub use problem::{PROBLEM_JSON, Problem, ProblemBody};
pub use remote::leases::{FleetStatus, Leased};
pub use remote::{JobStatus, Remote, RemoteError, RemoteOptions, Spool, SpoolWriter, StepProgress};
pub use run::{Network, Stop, run};
pub use storage::{Bounds, Recovered, StoreError};
pub use tokens::{Role, TokenError, Tokens, fresh_token};
pub use work::{WorkError, WorkOptions, WorkReport, work};
pub use worker::Threads;

/// Why the service cannot be started, or goes no further.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// Nothing is to be served.
    #[error("there is no model to serve")]
    NoModel,
    /// Requests could not tell two models apart.
    #[error("two models have the name {0}: serve one of them, or give it another name in its description")]
    SameName(String),
    /// Results must be masked.
    #[error(
        "{0} was planned with --circuit-privacy, and results that are not masked would show what it should hide: leave out \
         --insecure-deterministic"
    )]
    Unmasked(String),
    /// The state.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The counters.
    #[error("metrics: {0}")]
    Metrics(#[from] metrics_exporter_prometheus::BuildError),
    /// Certificate or key.
    #[error("TLS: {0}")]
    Tls(String),
    /// An address is open to strangers, and they are not asked who they are.
    #[error(
        "{0} can be reached from other machines, and nobody would have to say who they are: give --tokens, or listen on \
         127.0.0.1"
    )]
    NoTokens(std::net::SocketAddr),
    /// An address is open to strangers, and tokens would travel in the clear.
    #[error(
        "{0} can be reached from other machines, and tokens would travel in the clear: give --tls-cert and --tls-key, or \
         --behind-proxy if a proxy in front of the service does TLS"
    )]
    NoTls(std::net::SocketAddr),
    /// What is counted would be open to strangers.
    #[error("{0} can be reached from other machines, and /metrics asks nobody who they are: listen on 127.0.0.1")]
    OpenMetrics(std::net::SocketAddr),
    /// The system.
    #[error("{0}: {1}")]
    System(&'static str, std::io::Error),
}
