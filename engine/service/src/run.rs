//! The service as a process: listeners, its own threads, sweeps, and a stop that loses nothing.

use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::ServiceError;
use crate::host::Host;
use crate::listen::{Connections, is_loopback, serve};
use crate::stop::Stop;

/// Threads that carry bytes; computing has its own.
const NETWORK_THREADS: usize = 2;
/// Threads that wait for the disk.
const DISK_THREADS: usize = 16;
/// Between two sweeps.
const SWEEP: Duration = Duration::from_secs(60);
/// Sweeps for one of an object store, of which all names are looked at.
const STORE_SWEEPS: u32 = 60;

/// Where the service is reached.
pub struct Network {
    /// By clients.
    pub listen: SocketAddr,
    /// By the operator, for `/metrics`, `/healthz` and `/readyz`; a loopback address.
    pub operator: Option<SocketAddr>,
    /// Certificate and key.
    pub tls: Option<Arc<ServerConfig>>,
    /// A proxy in front does TLS.
    pub behind_proxy: bool,
    /// Bounds.
    pub connections: Connections,
    /// How long requests and the set that is computed may take to end after [`Stop::stop`].
    pub grace: Duration,
}

impl Network {
    /// Refuses an address that is open to strangers without tokens or without TLS.
    ///
    /// # Errors
    /// As said.
    pub fn check(&self, has_tokens: bool) -> Result<(), ServiceError> {
        if !is_loopback(&self.listen) || self.behind_proxy {
            if !has_tokens {
                return Err(ServiceError::NoTokens(self.listen));
            }
            if self.tls.is_none() && !self.behind_proxy {
                return Err(ServiceError::NoTls(self.listen));
            }
        }
        match &self.operator {
            Some(address) if !is_loopback(address) => Err(ServiceError::OpenMetrics(*address)),
            _ => Ok(()),
        }
    }
}

/// Serves `host` until `stop`. `ready` is told the address as soon as requests are answered.
///
/// # Errors
/// An address that is refused, or cannot be listened on.
pub fn run(
    host: &Arc<Host>,
    network: Network,
    stop: &Stop,
    ready: impl FnOnce(SocketAddr),
) -> Result<(), ServiceError> {
    network.check(host.config.tokens.is_some())?;
    let bind = |address: SocketAddr| {
        let listener =
            StdListener::bind(address).and_then(|listener| listener.set_nonblocking(true).map(|()| listener));
        listener.map_err(|error| ServiceError::System("cannot listen", error))
    };
    let listener = bind(network.listen)?;
    let operator = network.operator.map(bind).transpose()?;
    let failed = |error| ServiceError::System("cannot start", error);
    let address = listener.local_addr().map_err(failed)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(NETWORK_THREADS)
        .max_blocking_threads(DISK_THREADS)
        .enable_all()
        .build()
        .map_err(failed)?;
    let threads = host.start().map_err(failed)?;
    let served = runtime.block_on(async {
        let listener = TcpListener::from_std(listener).map_err(failed)?;
        let operator = operator.map(TcpListener::from_std).transpose().map_err(failed)?;
        let Network { tls, connections, grace, .. } = network;
        let stopped = || stop.subscribe();
        let sweeping = tokio::spawn(sweep(host.clone()));
        let beside = operator.map(|listener| {
            let router = host.operator_router();
            tokio::spawn(serve(host.clone(), listener, router, None, connections, stopped(), grace))
        });
        ready(address);
        let ending = tokio::spawn(end(host.clone(), stopped(), grace));
        serve(host.clone(), listener, host.router(), tls, connections, stopped(), grace).await;
        let _ = ending.await;
        if let Some(beside) = beside {
            let _ = beside.await;
        }
        sweeping.abort();
        Ok(())
    });
    host.stop();
    host.interrupt();
    threads.join();
    runtime.shutdown_timeout(Duration::from_secs(1));
    served
}

/// Begins no further set when it is time to stop, and after the grace interrupts the one that is computed.
async fn end(host: Arc<Host>, mut stop: watch::Receiver<bool>, grace: Duration) {
    let _ = stop.wait_for(|&stop| stop).await;
    host.stop();
    // Whoever waits for a job is answered now.
    host.job_changed();
    let deadline = tokio::time::Instant::now() + grace;
    while host.running().is_some() && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    host.interrupt();
}

async fn sweep(host: Arc<Host>) {
    for turn in 1u32.. {
        tokio::time::sleep(SWEEP).await;
        let host = host.clone();
        let swept = tokio::task::spawn_blocking(move || {
            host.sweep()?;
            if turn.is_multiple_of(STORE_SWEEPS) { host.sweep_store() } else { Ok(0) }
        });
        let swept = swept.await;
        if let Ok(Err(error)) = swept {
            eprintln!("error: {error}");
        }
    }
}
