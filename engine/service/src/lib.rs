//! Private prediction as a service: requests over HTTP that survive restarts, and the client that makes them.
//!
//! [`Host`] holds models, the state of all jobs and the rules of who may do what; [`run`] puts it
//! on a network. [`Remote`] and [`RemoteModel`] are the client, and [`work()`] a worker that
//! computes for a service elsewhere. docs/service.md and docs/scale.md say what travels, and
//! SECURITY.md who is protected from whom. With `default-features = false` there is the client
//! only.
#![forbid(unsafe_code)]

#[cfg(feature = "server")]
mod api;
#[cfg(feature = "server")]
mod clerk;
#[cfg(feature = "server")]
mod compute;
#[cfg(feature = "server")]
mod host;
#[cfg(feature = "server")]
mod listen;
#[cfg(feature = "server")]
mod metrics;
#[cfg(feature = "server")]
mod model;
#[cfg(feature = "server")]
mod problem;
mod remote;
#[cfg(feature = "server")]
mod run;
mod sets;
mod stop;
#[cfg(feature = "server")]
mod storage;
#[cfg(feature = "server")]
mod tokens;
#[cfg(feature = "server")]
mod work;
#[cfg(feature = "server")]
mod worker;

pub use remote::query::{LoadedKeys, QueryError, RemoteModel, Sending, SpecChange, Upload};
pub use remote::uploads::{Spool, SpoolWriter};
pub use remote::{JobStatus, Remote, RemoteError, RemoteOptions, StepProgress};
pub use stop::Stop;

#[cfg(feature = "server")]
pub use host::{Config, Host};
#[cfg(feature = "server")]
pub use listen::{Connections, is_loopback, serve, tls};
#[cfg(feature = "server")]
pub use model::{Model, ModelBytes, ModelView};
#[cfg(feature = "server")]
pub use problem::{PROBLEM_JSON, Problem, ProblemBody};
#[cfg(feature = "server")]
pub use remote::leases::{FleetStatus, Leased};
#[cfg(feature = "server")]
pub use run::{Network, run};
#[cfg(feature = "server")]
pub use storage::{Bounds, Objects, Recovered, StoreError};
#[cfg(feature = "server")]
pub use tokens::{Role, TokenError, Tokens, fresh_token};
#[cfg(feature = "server")]
pub use work::{WorkError, WorkOptions, WorkReport, work};
#[cfg(feature = "server")]
pub use worker::Threads;

/// The media type of client specs, keys, requests and results.
pub const SPEC_TYPE: &str = "application/vnd.cryptodl.client-spec";
/// Of a public key, and behind it evaluation keys.
pub const KEYS_TYPE: &str = "application/vnd.cryptodl.keys";
/// Of encrypted images and scores.
pub const CIPHERTEXTS_TYPE: &str = "application/vnd.cryptodl.ciphertexts";

/// Why the service cannot be started, or goes no further.
#[cfg(feature = "server")]
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// Nothing is to be served.
    #[error("there is no model to serve")]
    NoModel,
    /// Requests could not tell two models apart.
    #[error("two models have the name {0}: serve one of them, or give it another name in its description")]
    SameName(String),
    /// Ciphertexts in a store are for workers.
    #[error(
        "{0} is computed by the service itself, and with --store only workers compute: say --workers-only, and start `cryptodl work`"
    )]
    StoreIsForWorkers(String),
    /// What a store does not take at once.
    #[error("keys or sets of {0} have {1} bytes, and a store takes {MAX} at once: serve it without --store", MAX = storage::MAX_OBJECT)]
    LargeObject(String, u64),
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
