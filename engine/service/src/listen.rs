//! TCP, TLS and HTTP below the router: bounds on connections, and on the time that each may do nothing.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, Sleep, sleep, timeout};
use tokio_rustls::TlsAcceptor;

use crate::ServiceError;
use crate::host::Host;

/// What connections may take.
#[derive(Clone, Copy, Debug)]
pub struct Connections {
    /// At a time; others wait to be accepted.
    pub most: usize,
    /// For the handshake of TLS, and for the head of a request.
    pub head: Duration,
    /// In which not one byte goes either way. It must be longer than the longest wait for a job, 30 s.
    pub idle: Duration,
}

impl Default for Connections {
    fn default() -> Self {
        Connections { most: 256, head: Duration::from_secs(10), idle: Duration::from_secs(75) }
    }
}

/// Streams of HTTP/2 in one connection.
const STREAMS: u32 = 32;
/// Bytes of a stream's body on their way, and of all streams of a connection.
const STREAM_WINDOW: u32 = 1 << 18;
const CONNECTION_WINDOW: u32 = 1 << 19;
/// Bytes of the headers of a request.
const HEAD_BYTES: u32 = 1 << 14;
/// Bytes that HTTP/1 reads at a time.
const READ_BYTES: usize = 1 << 16;
/// How often HTTP/2 asks whether the other side lives.
const PING: Duration = Duration::from_secs(20);
/// After a failure to accept: usually there are no file descriptors, and one comes free.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// TLS with a certificate chain and a key, both in PEM.
///
/// # Errors
/// They cannot be read, or do not belong together.
pub fn tls(chain: &[u8], key: &[u8]) -> Result<Arc<ServerConfig>, ServiceError> {
    let refused = |error: &dyn std::fmt::Display| ServiceError::Tls(error.to_string());
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(chain).collect::<Result<_, _>>().map_err(|error| refused(&error))?;
    if chain.is_empty() {
        return Err(refused(&"there is no certificate in PEM"));
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| refused(&error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key));
    let mut config = config.map_err(|error| refused(&error))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // The strongest suite that both sides have, whatever a client would like best.
    config.ignore_client_order = true;
    Ok(Arc::new(config))
}

/// Answers requests that come to `listener` until `stop` says so, and then lets those that are under way end within `grace`.
pub async fn serve(
    host: Arc<Host>,
    listener: TcpListener,
    router: Router,
    tls: Option<Arc<ServerConfig>>,
    connections: Connections,
    mut stop: watch::Receiver<bool>,
    grace: Duration,
) {
    let acceptor = tls.map(TlsAcceptor::from);
    let places = Arc::new(Semaphore::new(connections.most));
    let graceful = GracefulShutdown::new();
    loop {
        let next = async {
            let place = places.clone().acquire_owned().await.expect("the places are never closed");
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            next = next => next,
            _ = stop.wait_for(|&stop| stop) => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(_) => {
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (acceptor, router, host, watcher) = (acceptor.clone(), router.clone(), host.clone(), graceful.watcher());
        tokio::spawn(async move {
            host.metrics.connections(1.0);
            // Errors of a connection are the client's affair.
            let _ = carry(stream, acceptor, router, connections, watcher).await;
            host.metrics.connections(-1.0);
            drop(place);
        });
    }
    drop(listener);
    let _ = timeout(grace, graceful.shutdown()).await;
}

async fn carry(
    stream: TcpStream,
    acceptor: Option<TlsAcceptor>,
    router: Router,
    connections: Connections,
    watcher: hyper_util::server::graceful::Watcher,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    stream.set_nodelay(true)?;
    let stream = Impatient::new(stream, connections.idle);
    let builder = builder(connections);
    let service = TowerToHyperService::new(router);
    match acceptor {
        None => watcher.watch(builder.serve_connection(TokioIo::new(stream), service).into_owned()).await,
        Some(acceptor) => {
            let stream = timeout(connections.head, acceptor.accept(stream)).await??;
            watcher.watch(builder.serve_connection(TokioIo::new(stream), service).into_owned()).await
        }
    }
}

fn builder(connections: Connections) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(connections.head)
        .max_buf_size(READ_BYTES)
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING)
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(HEAD_BYTES)
        .max_send_buf_size(READ_BYTES);
    builder
}

/// A connection that ends when nothing happens on it.
struct Impatient {
    stream: TcpStream,
    idle: Duration,
    alarm: Pin<Box<Sleep>>,
}

impl Impatient {
    fn new(stream: TcpStream, idle: Duration) -> Self {
        Impatient { stream, idle, alarm: Box::pin(sleep(idle)) }
    }

    /// Something happened.
    fn calm(&mut self) {
        self.alarm.as_mut().reset(Instant::now() + self.idle);
    }

    /// Nothing happens: for how long?
    fn look<T>(&mut self, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        ready!(self.alarm.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Impatient {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_read(context, out) {
            Poll::Ready(read) => {
                self.calm();
                Poll::Ready(read)
            }
            Poll::Pending => self.look(context),
        }
    }
}

impl AsyncWrite for Impatient {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.stream).poll_write(context, bytes) {
            Poll::Ready(written) => {
                self.calm();
                Poll::Ready(written)
            }
            Poll::Pending => self.look(context),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Whether only this machine reaches an address.
pub fn is_loopback(address: &SocketAddr) -> bool {
    address.ip().is_loopback()
}
