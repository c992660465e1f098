//! Ciphertexts in an object store: where they go, who may replace what, and what is left behind.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use axum::body::Body;
use cryptodl::{CiphertextsInfo, Client, Watch};
use cryptodl_core::wire::{CiphertextLayout, CiphertextsReader, CiphertextsWriter};
use cryptodl_service::{
    Config, Connections, Host, Remote, RemoteError, RemoteModel, RemoteOptions, Sending, ServiceError, Stop,
    StoreError, work,
};
use serde_json::{Value, json};

use crate::leases::{Engine, JSON, OPTIONS, SCORES, SETS, fresh, request};
use crate::s3::{S3, Trouble};
use crate::sockets::{Served, remote};
use crate::support::{Answer, Party, World, expected, model, pixels, program};

/// Below which the services here have their objects.
const PREFIX: &str = "tests/a";

fn open(store: &S3, change: impl FnOnce(&mut Config)) -> World {
    World::fleet(fresh(), SETS, |config| {
        config.store = Some(store.below(PREFIX).expect("an address"));
        config.insecure_deterministic = true;
        change(config);
    })
}

/// The shared request as the files of its sets.
fn set_files() -> Vec<Vec<u8>> {
    let client = &Party::shared().client;
    let (binding, layout) = (client.binding(), CiphertextLayout::input(client.spec()));
    let mut reader = CiphertextsReader::open(&request().0[..], &binding, &layout).expect("a request");
    let (whole, mut bytes, mut files) = (reader.info().clone(), Vec::new(), Vec::new());
    while reader.next(&mut bytes).expect("a set") {
        let (first_set, per_set) = (files.len(), client.images_per_set());
        let images = per_set.min(whole.images - first_set * per_set);
        let mut file = Vec::new();
        let part = CiphertextsInfo { first_set, images, ..whole.clone() };
        let mut writer = CiphertextsWriter::new(&mut file, &binding, &layout, &part).expect("headers");
        writer.put(&bytes).and_then(|()| writer.finish()).expect("a set");
        files.push(file);
    }
    files
}

/// The request that such files are the sets of.
fn joined(files: &[Vec<u8>], images: usize) -> Vec<u8> {
    let client = &Party::shared().client;
    let (binding, layout) = (client.binding(), CiphertextLayout::input(client.spec()));
    let open = |file: &[u8]| CiphertextsReader::open(io::Cursor::new(file.to_vec()), &binding, &layout).expect("a set");
    let (mut whole, mut bytes) = (Vec::new(), Vec::new());
    let info = CiphertextsInfo { images, ..open(&files[0]).info().clone() };
    let mut writer = CiphertextsWriter::new(&mut whole, &binding, &layout, &info).expect("headers");
    for file in files {
        open(file).next(&mut bytes).expect("a set");
        writer.put(&bytes).expect("a set");
    }
    writer.finish().expect("a checksum");
    whole
}

impl World {
    fn announce(&self) -> String {
        let body = json!({ "key": self.register(&[]), "images": request().1 });
        let upload = self.call("POST", "/v1/stored-uploads", &[JSON], body.to_string()).expect(201).json();
        assert_eq!((&upload["sets"], &upload["bytes"]), (&SETS.into(), &set_files().concat().len().into()));
        upload["id"].as_str().expect("an id").into()
    }

    /// Where the set of an upload belongs; none where it is there.
    fn place(&self, upload: &str, set: u64) -> Option<String> {
        let place = self.get(&format!("/v1/uploads/{upload}/sets/{set}")).expect(200).json();
        assert_eq!(place["bytes"], set_files()[set as usize].len());
        place["url"].as_str().map(Into::into)
    }

    /// A job whose sets are all in the store.
    fn stored(&self) -> String {
        let upload = self.announce();
        for (set, file) in set_files().into_iter().enumerate() {
            let url = self.place(&upload, set as u64).expect("it is not there");
            assert_eq!(send(&url, file), 200);
        }
        self.submit(&[], &upload).expect(202).json()["id"].as_str().expect("an id").into()
    }

    /// Where the result of a lease belongs; none where it is there.
    fn result_place(&self, lease: &Value) -> Option<String> {
        let place = self.of_lease("GET", lease, "/result", Body::empty()).expect(200).json();
        assert_eq!(place["bytes"], lease["result_bytes"]);
        place["url"].as_str().map(Into::into)
    }

    fn publish(&self, lease: &Value) -> Answer {
        self.of_lease("POST", lease, "/result", Body::empty())
    }

    /// What the store has where an answer of the service sends to.
    fn fetched(&self, path: &str) -> Vec<u8> {
        let answer = self.get(path).expect(307);
        let read = reqwest::blocking::get(answer.header("location")).expect("an answer");
        assert_eq!(read.status(), 200);
        read.bytes().expect("an object").to_vec()
    }
}

/// Puts an object, and returns the status of the answer.
fn send(url: &str, bytes: Vec<u8>) -> u16 {
    let put = reqwest::blocking::Client::new().put(url).header("if-none-match", "*").body(bytes);
    put.send().expect("an answer").status().as_u16()
}

/// Encrypts and sends [`request`]'s images as `cryptodl query` does, and returns the name of the job.
fn query(model: &RemoteModel) -> String {
    let (party, count) = (Party::shared(), request().1);
    let upload = model.announce(&party.public, &party.evaluation, count, u64::MAX).expect("an upload");
    let (values, pixels) = (pixels(count), party.client.pixels());
    let mut taken = 0;
    let next = |set: &mut Vec<f32>, images: usize| {
        set.extend_from_slice(&values[taken * pixels..(taken + images) * pixels]);
        taken += images;
        Ok::<_, std::convert::Infallible>(())
    };
    let arrived = std::sync::atomic::AtomicU64::new(0);
    let tell = Sending {
        encrypted: &|_| {},
        arrived: &|bytes, length| arrived.store(length - bytes, std::sync::atomic::Ordering::Relaxed),
    };
    let key = party.keys.encryption(party.client.spec().encryption);
    let sent = model.send(&upload, key, next, |encrypt| encrypt(), tell).expect("a job");
    assert_eq!(arrived.into_inner(), 0, "bytes that have not arrived");
    sent.0
}

fn client() -> Client {
    Client::from(program().client_spec().check().expect("a valid spec"))
}

/// A client, two workers and a service that carries nothing: the result of all sets is that of the whole, bit for bit, and nothing is
/// left when it was fetched.
#[test]
fn ciphertexts_go_through_the_store_alone() {
    let store = S3::new();
    let served = Served::new(open(&store, |_| {}), None, Connections::default());
    let url = format!("http://{}", served.address);
    assert_eq!(served.world.get("/v1/models/random").expect(200).json()["store"], true);
    let model = RemoteModel::over(remote(url.clone(), None, None), client());
    // The first answer of the store is lost, and so is what was sent second: neither is sent once more than it must be.
    let registered = served.world.register(&[]);
    store.contents().trouble = vec![Trouble::Lost, Trouble::Late];
    let job = query(&model);
    let stop = Stop::default();
    let result = thread::scope(|scope| {
        for _ in 0..2 {
            let (url, stop) = (url.clone(), stop.clone());
            scope.spawn(move || {
                let remote = remote(url, None, None).until(stop.clone());
                let options = cryptodl_service::WorkOptions { insecure_deterministic: true, ..OPTIONS };
                work(&remote, &[crate::support::service()], options, &stop, &|why| eprintln!("{why}"))
                    .expect("a service")
            });
        }
        model.remote().wait(&job, &mut |_| {}).expect("a result");
        let mut file = tempfile::tempfile().expect("a file");
        model.fetch(&job, request().1, &file, false, &mut |_| {}).expect("fetched");
        stop.stop();
        let mut result = Vec::new();
        io::Read::read_to_end(&mut file, &mut result).expect("read");
        result
    });
    let put = std::mem::take(&mut store.contents().put);
    let sets: Vec<&(String, _)> = put.iter().filter(|(name, _)| name.contains("/requests/")).collect();
    let mut names: Vec<&str> = sets.iter().map(|(name, _)| &name[..]).collect();
    names.dedup();
    assert_eq!((names.len(), sets.len()), (SETS as usize, SETS as usize), "{names:?}");
    let files: Vec<Vec<u8>> = sets.iter().map(|(_, bytes)| bytes.to_vec()).collect();
    assert!(result == Engine::new().infer(&joined(&files, request().1)));
    let party = Party::shared();
    let labels = party.client.decrypt(&party.keys.secret, &result[..], Watch::default()).expect("scores").labels;
    assert!(labels == expected(request().1));
    let left = [format!("{PREFIX}/keys/{registered}"), format!("{PREFIX}/owner")];
    assert_eq!(store.names(""), left, "keys stay until they are deleted");
    for folder in ["keys", "uploads", "sets", "results"] {
        assert_eq!(
            std::fs::read_dir(served.world.folder.path().join(folder)).expect("a folder").count(),
            0,
            "{folder}"
        );
    }
    served.world.call("DELETE", &format!("/v1/keys/{registered}"), &[], Body::empty()).expect(204);
    assert_eq!(store.names(""), left[1..]);
    served.end();
}

/// An upload that ended anywhere goes on where it was, also in another process: what is there is not sent again.
#[test]
fn sets_that_are_there_are_not_sent_again() {
    let store = S3::new();
    let served = Served::new(open(&store, |_| {}), None, Connections::default());
    let upload = served.world.announce();
    let first = remote(format!("http://{}", served.address), None, None);
    first.put_set(&upload, 0, set_files().remove(0)).expect("a place");
    drop(first);
    served.world.submit(&[], &upload).expect(422);
    // After a restart, too.
    let folder = served.end().close();
    let world = World::fleet(folder, SETS, |config| config.store = Some(store.below(PREFIX).expect("an address")));
    let served = Served::new(world, None, Connections::default());
    let second = remote(format!("http://{}", served.address), None, None);
    for (set, file) in set_files().into_iter().enumerate() {
        second.put_set(&upload, set as u64, file).expect("a place");
    }
    assert_eq!(second.submit(&upload).expect("a job").id, second.submit(&upload).expect("the same job").id);
    let put = store.contents().put.iter().filter(|(name, _)| name.contains("/requests/")).count();
    assert_eq!(put, SETS as usize);
    served.end();
}

/// Whoever comes too late replaces nothing, whatever it puts, and what it has put is removed.
#[test]
fn a_late_result_is_refused_and_touches_nothing() {
    let store = S3::new();
    let world = open(&store, |config| config.bounds.lease_seconds = 2);
    let job = world.stored();
    let engine = Engine::new();
    let late = world.take(SETS as u32);
    let scores: Vec<Vec<u8>> = late
        .iter()
        .map(|lease| engine.infer(&world.fetched(&format!("/v1/leases/{}/input", lease["lease"]))))
        .collect();
    assert!(world.fetched(&format!("/v1/leases/{}/keys", late[0]["lease"])) == Party::shared().key_file());
    // The first worker has put something else than the second will, and was cut off before it could say so.
    let mut others = scores[0].clone();
    *others.last_mut().expect("a checksum") ^= 1;
    let address = world.result_place(&late[0]).expect("it is not there");
    let second_address = world.result_place(&late[1]).expect("it is not there");
    let put = reqwest::blocking::Client::new().put(&address).body(others.clone());
    assert_eq!(put.send().expect("an answer").status(), 403, "the condition is signed");
    assert_eq!(send(&address, others.clone()), 200);
    assert_eq!(send(&address, scores[0].clone()), 412, "an object is never replaced");
    thread::sleep(Duration::from_millis(2100));
    let refused = |answer: Answer, why: &str| {
        let said = answer.expect(409).json()["detail"].as_str().expect("words").to_owned();
        assert!(said.contains(why), "{said}");
    };
    refused(world.publish(&late[0]), "expired");
    let again = world.take(SETS as u32);
    refused(world.publish(&late[0]), "is over");
    refused(world.of_lease("GET", &late[0], "/result", Body::empty()), "is over");
    for (i, (lease, scores)) in again.iter().zip(&scores).enumerate() {
        let address = world.result_place(lease).expect("it is not there");
        assert_eq!(send(&address, scores.clone()), 200);
        assert!(world.result_place(lease).is_none(), "it is there");
        world.publish(lease).expect(204);
        // An answer that was lost is asked for again.
        if i + 1 < again.len() {
            world.publish(lease).expect(204);
        }
    }
    assert_eq!(world.ended(&[], &job)["state"], "done");
    refused(world.publish(&late[0]), "is over");
    // The clerk, who has ended the job, removes what is not published.
    let results = format!("{PREFIX}/results/");
    while store.names(&results).len() > SETS as usize || !store.names(&format!("{PREFIX}/requests/")).is_empty() {
        thread::sleep(Duration::from_millis(20));
    }
    // An address of an earlier lease is still good, and leads nowhere near what is published.
    assert_eq!(send(&second_address, others), 200);
    for (set, scores) in scores.iter().enumerate() {
        assert!(world.fetched(&format!("/v1/jobs/{job}/sets/{set}")) == *scores, "{set}");
    }
    world.get(&format!("/v1/jobs/{job}/sets/{SETS}")).expect(404);
    world.get(&format!("/v1/jobs/{job}/result")).expect(409);
    assert_eq!(world.host.sweep_store().expect("a store"), 1, "what came after the end of the job");
    assert_eq!(store.names(&results).len(), SETS as usize);
    world.call("DELETE", &format!("/v1/jobs/{job}"), &[], Body::empty()).expect(204);
    assert!(store.names(&results).is_empty());
}

/// What is not what was announced is refused, by the service or by whoever computes it.
#[test]
fn foreign_and_damaged_objects_are_refused() {
    let store = S3::new();
    let world = open(&store, |_| {});
    let (upload, files) = (world.announce(), set_files());
    let names: Vec<String> = (0..SETS).map(|set| format!("{PREFIX}/requests/{upload}/{set}")).collect();
    let put = |set: usize, bytes: &[u8]| store.contents().objects.insert(names[set].clone(), bytes.to_vec().into());
    let refused = |why: &str| {
        let said = world.submit(&[], &upload).expect(422).json()["detail"].as_str().expect("words").to_owned();
        assert!(said.contains(why), "{said}");
    };
    refused("0 bytes of set 0");
    put(1, &files[1]);
    put(2, &files[2]);
    for (wrong, bytes, why) in [
        ("nothing", Vec::new(), "0 bytes"),
        ("half of it", files[0][..files[0].len() / 2].to_vec(), "as it was announced"),
        ("a byte more", [&files[0][..], b"x"].concat(), "as it was announced"),
        ("another set", files[1].clone(), "part of a whole"),
        ("zeros", vec![0; files[0].len()], "not a CryptoDL file"),
        ("a result", Engine::new().infer(&files[0]), "as it was announced"),
    ] {
        put(0, &bytes);
        refused(why);
        // What has another length makes room.
        assert_eq!(world.place(&upload, 0).is_some(), bytes.len() != files[0].len(), "{wrong}");
    }
    // What the service does not read is found out by whoever does.
    let mut flipped = files[0].clone();
    flipped[5000] ^= 1;
    put(0, &flipped);
    let job = world.submit(&[], &upload).expect(202).json()["id"].as_str().expect("an id").to_owned();
    let served = Served::new(world, None, Connections::default());
    let stop = Stop::default();
    let url = format!("http://{}", served.address);
    thread::scope(|scope| {
        let remote = remote(url, None, None).until(stop.clone());
        let ending = stop.clone();
        scope.spawn(move || {
            let options = cryptodl_service::WorkOptions { insecure_deterministic: true, ..OPTIONS };
            work(&remote, &[crate::support::service()], options, &ending, &|_| {}).expect("a service")
        });
        let ended = served.world.ended(&[], &job);
        stop.stop();
        assert_eq!(ended["state"], "failed");
        assert!(ended["error"].as_str().is_some_and(|why| why.contains("checksum")), "{}", ended["error"]);
    });
    let folder = served.end().close();
    let world = World::fleet(folder, SETS, |config| config.store = Some(store.below(PREFIX).expect("an address")));
    assert!(
        store.names(&format!("{PREFIX}/requests/")).is_empty() && store.names(&format!("{PREFIX}/results/")).is_empty()
    );

    // Results.
    let job = world.stored();
    let engine = Engine::new();
    let leases = world.take(SETS as u32);
    let scores: Vec<Vec<u8>> = leases
        .iter()
        .map(|lease| engine.infer(&world.fetched(&format!("/v1/leases/{}/input", lease["lease"]))))
        .collect();
    world.publish(&leases[0]).expect(422);
    let name = format!("{PREFIX}/results/{job}/0-{}", leases[0]["lease"]);
    for bytes in [&scores[0][1..], &scores[1], &vec![0; scores[0].len()]] {
        store.contents().objects.insert(name.clone(), bytes.to_vec().into());
        world.publish(&leases[0]).expect(422);
    }
    world.of_lease("PUT", &leases[0], "/result", scores[0].clone()).expect(409);
    world.call("PUT", "/v1/leases/1/result", &[SCORES], "x").expect(409);
    // A job that is cancelled leaves nothing.
    world.call("POST", &format!("/v1/jobs/{job}/cancel"), &[], Body::empty()).expect(200);
    assert!(
        store.names(&format!("{PREFIX}/requests/")).is_empty() && store.names(&format!("{PREFIX}/results/")).is_empty()
    );
}

/// Requests for a store that nobody should make, and what is asked of a service that has none.
#[test]
fn hostile_requests_about_the_store_are_refused() {
    let store = S3::new();
    let world = open(&store, |_| {});
    let (key, upload) = (world.register(&[]), world.announce());
    let announce = |key: &str, images: i64| json!({ "key": key, "images": images }).to_string();
    let most = SETS as i64 * Party::shared().client.images_per_set() as i64;
    for (body, status) in [
        (announce(&key, 0), 422),
        (announce(&key, -1), 400),
        (announce(&key, most + 1), 422),
        (announce(&key, i64::MAX), 422),
        (announce("0", 1), 422),
        (announce(&"0".repeat(32), 1), 404),
        ("{}".into(), 400),
    ] {
        world.call("POST", "/v1/stored-uploads", &[JSON], body.clone()).expect(status);
    }
    for path in [
        format!("/v1/uploads/{upload}/sets/{SETS}"),
        format!("/v1/uploads/{upload}/sets/-1"),
        format!("/v1/uploads/{upload}/sets/99999999999999999999"),
        format!("/v1/uploads/{upload}/sets/..%2f..%2fowner"),
        format!("/v1/uploads/{}/sets/0", "0".repeat(32)),
        format!("/v1/jobs/{}/sets/0", "0".repeat(32)),
        "/v1/leases/1/result".into(),
    ] {
        world.get(&path).expect(404);
    }
    // tus is for services without a store, and the other way round.
    assert!(world.create(&[], &key, 9000).expect(409).json()["detail"].to_string().contains("/v1/stored-uploads"));
    world.patch(&[], &upload, 0, b"x").expect(409);
    let files = World::fleet(fresh(), SETS, |_| {});
    let of_files = files.register(&[]);
    files.call("POST", "/v1/stored-uploads", &[JSON], announce(&of_files, 1)).expect(409);
    let upload = files.upload(&[], &of_files, &request().0);
    files.get(&format!("/v1/uploads/{upload}/sets/0")).expect(409);
    // An upload that is given up leaves nothing, and makes room.
    let upload = world.announce();
    assert_eq!(send(&world.place(&upload, 0).expect("it is not there"), set_files().remove(0)), 200);
    world.call("DELETE", &format!("/v1/uploads/{upload}"), crate::support::TUS, Body::empty()).expect(204);
    assert!(store.names(&format!("{PREFIX}/requests/")).is_empty());
    // What is in the store counts.
    let world = World::fleet(world.close(), SETS, |config| {
        config.store = Some(store.below(PREFIX).expect("an address"));
        config.bounds.disk_per_tenant = set_files().concat().len() as u64;
    });
    world.call("POST", "/v1/stored-uploads", &[JSON], announce(&key, request().1 as i64)).expect(403);
}

/// A store belongs to one state, and a state to one store. What nobody knows is removed, and nothing outside of the prefix is touched.
#[test]
fn a_store_belongs_to_one_state() {
    let store = S3::new();
    store.contents().objects.insert("tests/another/keys/0".into(), "kept".into());
    let at = |folder: &Arc<tempfile::TempDir>, prefix: Option<&str>| {
        let config = Config {
            store: prefix.map(|prefix| store.below(prefix).expect("an address")),
            ..Config::local(folder.path())
        };
        Host::open(config, vec![cryptodl_service::Model::elsewhere(program(), SETS, None).expect("a Program")])
    };
    let world = open(&store, |_| {});
    let key = world.register(&[]);
    let folder = world.close();
    store.contents().objects.insert(format!("{PREFIX}/results/{}/0-1", "0".repeat(32)), "late".into());
    assert_eq!(at(&folder, Some(PREFIX)).expect("its own").recovered().leftovers, 1);
    let left = [format!("{PREFIX}/keys/{key}"), format!("{PREFIX}/owner"), "tests/another/keys/0".into()];
    assert_eq!(store.names(""), left);
    let why = |opened: Result<Arc<Host>, ServiceError>| opened.err().expect("refused").to_string();
    assert!(why(at(&fresh(), Some(PREFIX))).contains("belongs to another state"));
    assert!(why(at(&folder, None)).contains("in s3://bucket/tests/a, and not in files"));
    assert!(why(at(&folder, Some("tests/b"))).contains("give the store that it was begun with"));
    // A state that keeps nothing can move.
    let empty = fresh();
    for place in [None, Some("tests/c"), None, Some("tests/c")] {
        at(&empty, place).expect("nothing is kept");
    }
    // The service itself does not compute in a store.
    let config = Config { store: Some(store.below("tests/d").expect("an address")), ..Config::local(fresh().path()) };
    assert!(matches!(Host::open(config, vec![model(None)]), Err(ServiceError::StoreIsForWorkers(_))));
    // Nor may a store replace what it must not.
    store.contents().replaces = true;
    assert!(why(at(&fresh(), Some("tests/e"))).contains("If-None-Match"));
}

/// Addresses over which ciphertexts would travel in the clear are refused, by the service and by whoever is sent there.
#[test]
fn stores_in_the_clear_are_refused() {
    let open = |url: &str, endpoint: &str| {
        let settings = [
            ("AWS_ENDPOINT_URL", endpoint),
            ("AWS_ALLOW_HTTP", "true"),
            ("AWS_ACCESS_KEY_ID", "id"),
            ("AWS_SECRET_ACCESS_KEY", "a-secret"),
        ];
        cryptodl_service::Objects::new(url, settings.map(|(name, value)| (name.to_owned(), value.to_owned())))
    };
    let objects = open("s3://bucket/prefix/", "https://store.example").expect("an address");
    assert_eq!(objects.place(), "s3://bucket/prefix");
    assert!(!format!("{objects:?}").contains("a-secret"));
    assert!(open("s3://bucket/prefix", "http://[::1]:9000").is_ok());
    for url in ["s3://bucket", "s3:///prefix", "bucket/prefix", "https://bucket/prefix", "s3://bucket/a//b", ""] {
        assert!(matches!(open(url, "https://store.example"), Err(StoreError::Objects(_))), "{url}");
    }
    let refused = open("s3://bucket/prefix", "http://10.0.0.1:9000").expect_err("in the clear").to_string();
    assert!(refused.contains("https"), "{refused}");

    // A service that sends its clients there, and one that sends them where nobody answers: errors do not tell the address.
    let sent_to = |place: &'static str| {
        let liar = axum::Router::new()
            .fallback(move || async move { (axum::http::StatusCode::TEMPORARY_REDIRECT, [("location", place)]) });
        let runtime = tokio::runtime::Runtime::new().expect("threads");
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        runtime.spawn(async move { axum::serve(listener, liar).await });
        let options = RemoteOptions { url, token: None, authority: None, patience: Duration::ZERO };
        let asked = Remote::new(options).expect("an address");
        let error = asked.fetch_set(&"0".repeat(32), 0, 10).expect_err("nothing is there");
        assert!(!error.to_string().contains("a-secret"), "{error}");
        error
    };
    match sent_to("http://10.0.0.1/bucket/object?X-Amz-Signature=a-secret") {
        RemoteError::Protocol(why) => assert!(why.contains("in the clear"), "{why}"),
        other => panic!("{other:?}"),
    }
    let nobody = sent_to("http://127.0.0.1:1/bucket/object?X-Amz-Signature=a-secret");
    assert!(matches!(nobody, RemoteError::Unreachable { .. }), "{nobody:?}");
}
