//! Over TCP and TLS: time-outs, an interrupted line, and a stop that loses nothing.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use cryptodl_service::{
    Connections, Network, Remote, RemoteError, RemoteOptions, Role, ServiceError, Spool, Stop, Tokens, fresh_token,
    run, tls,
};

use crate::support::{Party, TINY, World};

/// A service at an address of its own.
pub struct Served {
    pub address: SocketAddr,
    stop: Stop,
    thread: Option<JoinHandle<Result<(), ServiceError>>>,
    pub world: World,
}

impl Served {
    pub fn new(world: World, tls: Option<Arc<rustls::ServerConfig>>, connections: Connections) -> Self {
        let (stop, (told, address)) = (Stop::default(), channel());
        let network = Network {
            listen: "127.0.0.1:0".parse().expect("an address"),
            operator: None,
            tls,
            behind_proxy: false,
            connections,
            grace: Duration::from_secs(5),
        };
        let (host, stopped) = (world.host.clone(), stop.clone());
        let thread =
            thread::spawn(move || run(&host, network, &stopped, |address| told.send(address).expect("someone waits")));
        let address = address.recv().expect("the service starts");
        Served { address, stop, thread: Some(thread), world }
    }

    pub fn end(mut self) -> World {
        self.stop.stop();
        self.thread.take().expect("a thread").join().expect("no panic").expect("a clean end");
        self.world
    }
}

const QUICK: Connections = Connections { most: 8, head: Duration::from_millis(300), idle: Duration::from_millis(900) };

/// Seconds until the other side closes.
fn closes(stream: &mut TcpStream) -> f64 {
    let start = Instant::now();
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    start.elapsed().as_secs_f64()
}

pub fn remote(url: String, token: Option<String>, authority: Option<Vec<u8>>) -> Remote {
    let patience = Duration::from_secs(20);
    Remote::new(RemoteOptions { url, token: token.map(Into::into), authority, patience }).expect("an address")
}

/// A whole query; `between` is called when half of the request has arrived.
fn query(remote: &Remote, between: impl FnOnce() + Send) -> Vec<u8> {
    let party = Party::shared();
    let spec = remote.spec(TINY).expect("a spec");
    assert_eq!(cryptodl::Client::read_spec(&spec[..]).expect("valid").spec().model, TINY);
    let key = remote.register_keys(TINY, &party.public, &party.evaluation).expect("registered");
    assert_eq!(remote.register_keys(TINY, &party.public, &party.evaluation).expect("registered before"), key);
    let length = party.request.len() as u64;
    let upload = remote.create_upload(&key, length).expect("an upload");
    let spool = Spool::new(tempfile::tempfile().expect("a file"));
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut writer = spool.writer();
            let (first, second) = party.request.split_at(party.request.len() / 2);
            writer.write_all(first).expect("written");
            between();
            writer.write_all(second).expect("written");
        });
        let mut arrived = 0;
        remote.upload(&upload, length, &spool, &mut |bytes| arrived = bytes).expect("uploaded");
        assert_eq!(arrived, length);
    });
    let job = remote.submit(&upload).expect("a job").id;
    assert_eq!(remote.submit(&upload).expect("the same job").id, job);
    remote.wait(&job, &mut |_| {}).expect("a result");
    let bytes = party.client.spec();
    let layout = cryptodl_core::wire::CiphertextLayout::result(bytes);
    let length = cryptodl_core::wire::ciphertexts_len(bytes.params(), &layout, crate::support::IMAGES as u64);
    let mut file = tempfile::tempfile().expect("a file");
    remote.fetch(&job, length, &file, &mut |_| {}).expect("fetched");
    remote.delete_job(&job).expect("deleted");
    remote.delete_job(&job).expect("deleted before");
    let mut result = Vec::new();
    std::io::Seek::rewind(&mut file).expect("a file");
    file.read_to_end(&mut result).expect("read");
    result
}

/// Over TLS with the test's own authority, with tokens, and HTTP/2, which the handshake agrees on.
#[test]
fn a_query_over_tls() {
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(["localhost".into()]).expect("a certificate");
    let (token, line) = fresh_token("alice", Role::Tenant).expect("a token");
    let world = World::with(None, false, |config| config.tokens = Some(Tokens::parse(&line).expect("tokens")));
    let config = tls(cert.pem().as_bytes(), signing_key.serialize_pem().as_bytes()).expect("a certificate and its key");
    let served = Served::new(world, Some(config), Connections::default());
    let url = format!("https://localhost:{}", served.address.port());
    let authority = Some(cert.pem().into_bytes());
    Party::shared().check(&query(&remote(url.clone(), Some(token.to_string()), authority.clone()), || {}));
    // Another authority is known at once to be another one.
    let other = rcgen::generate_simple_self_signed(["localhost".into()]).expect("a certificate").cert.pem();
    let start = Instant::now();
    match remote(url.clone(), Some(token.to_string()), Some(other.into_bytes())).spec(TINY) {
        Err(RemoteError::Credentials(why)) => assert!(why.contains("not trusted"), "{why}"),
        other => panic!("{other:?}"),
    }
    assert!(start.elapsed().as_secs() < 10);
    match remote(url, Some("cryptodl-0".into()), authority).spec(TINY) {
        Err(RemoteError::Refused { status: 401, detail }) => assert!(detail.contains("token"), "{detail}"),
        other => panic!("{other:?}"),
    }
    served.end();
}

#[test]
fn a_certificate_needs_its_key() {
    let pem = |name: &str| {
        let made = rcgen::generate_simple_self_signed([name.into()]).expect("a certificate");
        (made.cert.pem(), made.signing_key.serialize_pem())
    };
    let ((chain, key), (_, other)) = (pem("a"), pem("b"));
    assert!(tls(chain.as_bytes(), key.as_bytes()).is_ok());
    for (chain, key) in [(&chain, &other), (&key, &chain), (&String::new(), &key), (&chain, &String::new())] {
        assert!(matches!(tls(chain.as_bytes(), key.as_bytes()), Err(ServiceError::Tls(_))));
    }
}

/// A client goes on where it was when the service was stopped and started again in the middle of its upload.
#[test]
fn an_upload_survives_a_restart() {
    let served = Served::new(World::with(None, false, |_| {}), None, Connections::default());
    let address = served.address;
    let (sender, receiver) = channel();
    let result = query(&remote(format!("http://{address}"), None, None), || {
        let state = served.end().close();
        let world = World::at(state, None, false, |_| {});
        // The same port again, so that the client finds it.
        let (stop, (told, ready)) = (Stop::default(), channel());
        let network = Network {
            listen: address,
            operator: None,
            tls: None,
            behind_proxy: false,
            connections: Connections::default(),
            grace: Duration::from_secs(5),
        };
        let (host, stopped) = (world.host.clone(), stop.clone());
        let thread =
            thread::spawn(move || run(&host, network, &stopped, |address| told.send(address).expect("someone waits")));
        ready.recv().expect("the service starts");
        sender.send(Served { address, stop, thread: Some(thread), world }).expect("someone keeps it");
    });
    Party::shared().check(&result);
    receiver.recv().expect("a service").end();
}

/// A client that is cancelled waits neither for an answer nor for its next try.
#[test]
fn a_client_is_cancelled_whatever_it_waits_for() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
    for address in [silent.local_addr().expect("an address"), free] {
        let cancel = Arc::new(AtomicBool::new(false));
        let remote = remote(format!("http://{address}"), None, None).cancelled_by(cancel.clone());
        thread::scope(|scope| {
            let asking = scope.spawn(|| remote.spec(TINY));
            thread::sleep(Duration::from_millis(300));
            assert!(!asking.is_finished());
            let start = Instant::now();
            cancel.store(true, Ordering::Relaxed);
            let answer = asking.join().expect("no panic");
            assert!(matches!(answer, Err(RemoteError::Cancelled(_))), "{answer:?}");
            assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
        });
    }
}

/// Who says nothing, or says it slowly, is not waited for; others are served meanwhile.
#[test]
fn slow_clients_are_cut_off() {
    let world = World::with(None, false, |config| config.body_timeout = Duration::from_millis(300));
    let served = Served::new(world, None, QUICK);
    let connect = || TcpStream::connect(served.address).expect("a connection");
    // Nothing at all; half of a head; a head byte by byte.
    let mut silent = connect();
    assert!(closes(&mut silent) < 5.0);
    let mut half = connect();
    half.write_all(b"GET /healthz HTTP/1.1\r\nHost: local").expect("sent");
    assert!(closes(&mut half) < 5.0);
    let mut drip = connect();
    let start = Instant::now();
    while drip.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: x\r\n").is_ok()
        && start.elapsed().as_secs() < 10
    {
        thread::sleep(Duration::from_millis(100));
    }
    assert!(start.elapsed().as_secs() < 10);
    // A body that does not come.
    let mut body = connect();
    body.write_all(
        b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 40\r\n\r\n{",
    )
    .expect("sent");
    body.set_read_timeout(Some(Duration::from_secs(5))).expect("a socket");
    let mut answer = [0; 12];
    body.read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 408");
    // More silent connections than there are places: they make room.
    let silent: Vec<TcpStream> = (0..20).map(|_| connect()).collect();
    assert!(remote(format!("http://{}", served.address), None, None).spec(TINY).is_ok());
    drop(silent);
    served.end();
}

#[test]
fn addresses_for_strangers_need_tokens_and_tls() {
    let made = rcgen::generate_simple_self_signed(["localhost".into()]).expect("a certificate");
    let config = tls(made.cert.pem().as_bytes(), made.signing_key.serialize_pem().as_bytes()).expect("a certificate");
    let network = |listen: &str, operator: Option<&str>, with_tls: bool, behind_proxy| Network {
        listen: listen.parse().expect("an address"),
        operator: operator.map(|address| address.parse().expect("an address")),
        tls: with_tls.then(|| config.clone()),
        behind_proxy,
        connections: Connections::default(),
        grace: Duration::ZERO,
    };
    for (listen, operator, tls, proxy, tokens, fits) in [
        ("127.0.0.1:1", None, false, false, false, true),
        ("127.0.0.1:1", None, false, false, true, true),
        ("[::1]:1", Some("127.0.0.1:2"), false, false, false, true),
        ("0.0.0.0:1", None, false, false, false, false),
        ("0.0.0.0:1", None, true, false, false, false),
        ("0.0.0.0:1", None, false, false, true, false),
        ("0.0.0.0:1", None, true, false, true, true),
        ("192.0.2.1:1", None, false, true, true, true),
        ("192.0.2.1:1", None, false, true, false, false),
        ("[::]:1", None, false, false, true, false),
        // A proxy brings strangers to this machine's own address.
        ("127.0.0.1:1", None, false, true, false, false),
        ("127.0.0.1:1", Some("0.0.0.0:2"), false, false, true, false),
    ] {
        let found = network(listen, operator, tls, proxy).check(tokens);
        assert_eq!(found.is_ok(), fits, "{listen} {operator:?} tls {tls} proxy {proxy} tokens {tokens}: {found:?}");
    }
}
