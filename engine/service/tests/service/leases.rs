//! Workers: sets of a request that are computed apart, and by whom they may be published.

use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use axum::body::Body;
use cryptodl::{AcceptedKeys, Service, Watch};
use cryptodl_service::{
    CIPHERTEXTS_TYPE, Connections, PROBLEM_JSON, Role, Stop, Tokens, WorkError, WorkOptions, fresh_token, work,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::sockets::{Served, remote};
use crate::support::{Answer, Party, World, expected, pixels, program, service};

/// Sets of the requests here, the last of which is not full.
pub const SETS: u64 = 3;
pub const JSON: (&str, &str) = ("content-type", "application/json");
pub const SCORES: (&str, &str) = ("content-type", CIPHERTEXTS_TYPE);

/// A request of [`SETS`] sets, and how many images it has.
pub fn request() -> &'static (Vec<u8>, usize) {
    static REQUEST: OnceLock<(Vec<u8>, usize)> = OnceLock::new();
    REQUEST.get_or_init(|| {
        let party = Party::shared();
        let count = party.client.images_per_set() * (SETS as usize - 1) + 5;
        let mut request = Vec::new();
        party.client.encrypt(&party.keys, &pixels(count), &mut request, Watch::default()).expect("valid images");
        (request, count)
    })
}

/// Computes as `infer --deterministic` does.
pub struct Engine {
    service: Service,
    keys: AcceptedKeys,
}

impl Engine {
    pub fn new() -> Self {
        let (service, party) = (service(), Party::shared());
        let keys = service.accept_keys(&party.keys.evaluation, &party.keys.public).expect("keys of this Program");
        Engine { service, keys }
    }

    pub fn infer(&self, request: &[u8]) -> Vec<u8> {
        let mut response = Vec::new();
        self.service.infer_deterministic(&self.keys, request, &mut response, Watch::default()).expect("a result");
        response
    }
}

pub fn fresh() -> Arc<TempDir> {
    Arc::new(tempfile::tempdir().expect("a folder"))
}

/// A service without workers yet that masks nothing, and a job with [`SETS`] sets.
fn waiting(lease_seconds: u64) -> (World, String) {
    let world = World::fleet(fresh(), SETS, |config| {
        config.insecure_deterministic = true;
        config.bounds.lease_seconds = lease_seconds;
    });
    let key = world.register(&[]);
    let job = world.submit(&[], &world.upload(&[], &key, &request().0)).expect(202).json();
    (world, job["id"].as_str().expect("an id").into())
}

impl World {
    pub fn take(&self, capacity: u32) -> Vec<Value> {
        let body = json!({ "programs": [program().digest().to_string()], "capacity": capacity, "wait": 0 });
        let found = self.call("POST", "/v1/leases", &[JSON], body.to_string()).expect(200).json();
        found["leases"].as_array().expect("leases").clone()
    }

    pub fn of_lease(&self, method: &str, lease: &Value, what: &str, body: impl Into<Body>) -> Answer {
        let headers = if method == "PUT" { &[SCORES] } else { &[JSON] };
        self.call(method, &format!("/v1/leases/{}{what}", lease["lease"]), headers, body)
    }

    fn input(&self, lease: &Value) -> Vec<u8> {
        let input = self.of_lease("GET", lease, "/input", Body::empty()).expect(200);
        assert_eq!(input.header("content-type"), CIPHERTEXTS_TYPE);
        assert_eq!(lease["bytes"], input.body.len());
        input.body
    }

    fn put(&self, lease: &Value, result: &[u8]) -> Answer {
        self.of_lease("PUT", lease, "/result", result.to_vec())
    }

    fn result(&self, job: &str) -> Vec<u8> {
        assert_eq!(self.ended(&[], job)["state"], "done");
        self.get(&format!("/v1/jobs/{job}/result")).expect(200).body
    }
}

/// Sets are computed apart and in any order, and their results joined are those of the whole, bit for bit.
#[test]
fn sets_are_joined_to_the_result_of_the_whole() {
    let (world, job) = waiting(60);
    let (engine, party) = (Engine::new(), Party::shared());
    assert_eq!(world.get("/readyz").expect(200).body, b"ready\n");
    assert_eq!(world.get("/v1/leases").expect(200).json(), json!({ "waiting": 3, "leased": 0 }));
    let mut leases = world.take(2);
    leases.extend(world.take(64));
    assert!(world.take(1).is_empty());
    assert_eq!(world.get("/v1/leases").expect(200).json(), json!({ "waiting": 0, "leased": 3 }));
    let per_set = party.client.images_per_set();
    let found: Vec<(u64, u64)> = leases
        .iter()
        .map(|lease| (lease["set"].as_u64().expect("a number"), lease["images"].as_u64().expect("a number")))
        .collect();
    assert_eq!(found, [(0, per_set as u64), (1, per_set as u64), (2, 5)]);
    assert!(leases.windows(2).all(|pair| pair[0]["lease"].as_i64() < pair[1]["lease"].as_i64()));
    assert!(leases.iter().all(|lease| lease["secret"].is_null()));
    let keys = world.of_lease("GET", &leases[0], "/keys", Body::empty()).expect(200).body;
    assert!(keys == party.key_file());

    leases.reverse();
    for (i, lease) in leases.iter().enumerate() {
        let renewed = world.of_lease("POST", lease, "/renew", json!({ "done": 2, "total": 4 }).to_string());
        assert_eq!(renewed.expect(200).json()["seconds"], 60);
        let view = world.get(&format!("/v1/jobs/{job}")).expect(200).json();
        assert_eq!((&view["state"], &view["sets_done"]), (&"running".into(), &i.into()));
        assert_eq!(view["progress"], json!({ "done": 4 * i + 2, "total": 12, "layer": null }));
        let scores = engine.infer(&world.input(lease));
        assert_eq!(lease["result_bytes"], scores.len());
        world.put(lease, &scores).expect(204);
        // An answer that was lost on the way is asked for again.
        if i + 1 < leases.len() {
            world.put(lease, &scores).expect(204);
        }
    }
    assert!(world.result(&job) == engine.infer(&request().0));
    let left =
        ["uploads", "sets"].map(|kind| std::fs::read_dir(world.folder.path().join(kind)).expect("a folder").count());
    assert_eq!(left, [0, 0]);
    let metrics = String::from_utf8(world.get("/metrics").expect(200).body).expect("text");
    for line in [
        "cryptodl_leases_total{model=\"random\"} 3",
        "cryptodl_lease_seconds_count{model=\"random\",outcome=\"done\"} 3",
        "cryptodl_leases 0",
        "cryptodl_sets_waiting 0",
        "cryptodl_sets_total{model=\"random\"} 3",
    ] {
        assert!(metrics.contains(line), "{line} in\n{metrics}");
    }
}

/// Whoever comes back too late changes nothing, and is told so.
#[test]
fn late_results_are_refused() {
    let (world, job) = waiting(3);
    let engine = Engine::new();
    let late = world.take(3);
    let scores: Vec<Vec<u8>> = late.iter().map(|lease| engine.infer(&world.input(lease))).collect();
    thread::sleep(Duration::from_millis(3100));
    let refused = |answer: Answer| {
        assert_eq!((answer.status.as_u16(), answer.header("content-type")), (409, PROBLEM_JSON));
        answer.json()["detail"].as_str().expect("words").to_owned()
    };
    assert!(refused(world.put(&late[0], &scores[0])).contains("expired"));
    let again = world.take(3);
    for ((lease, before), scores) in again.iter().zip(&late).zip(&scores) {
        assert!(lease["set"] == before["set"] && lease["lease"].as_i64() > before["lease"].as_i64());
        let said = refused(world.put(before, scores));
        assert!(said.contains("is over") && said.contains("nothing that was computed under it is taken"), "{said}");
        refused(world.of_lease("POST", before, "/renew", json!({ "done": 0, "total": 0 }).to_string()));
        refused(world.of_lease("DELETE", before, "", Body::empty()));
        refused(world.of_lease("POST", before, "/fail", json!({ "reason": "late" }).to_string()));
        refused(world.of_lease("GET", before, "/input", Body::empty()));
        world
            .of_lease("POST", lease, "/renew", json!({ "done": 1, "total": 2, "layer": "act\n1" }).to_string())
            .expect(200);
    }
    let progress = world.get(&format!("/v1/jobs/{job}")).expect(200).json()["progress"].clone();
    assert_eq!(progress, json!({ "done": 3, "total": 6, "layer": "act 1" }), "what was lost does not count");
    for (lease, scores) in again.iter().zip(&scores) {
        world.put(lease, scores).expect(204);
    }
    assert!(world.result(&job) == engine.infer(&request().0));
    let metrics = String::from_utf8(world.get("/metrics").expect(200).body).expect("text");
    let expired = "cryptodl_lease_seconds_count{model=\"random\",outcome=\"expired\"} 2";
    assert!(metrics.contains(expired), "{metrics}");
    // The job has ended, and with it the leases.
    refused(world.put(&again[0], &scores[0]));
}

/// What is no result of the set is not taken, and does not end the lease.
#[test]
fn only_the_result_of_the_set_is_taken() {
    let (world, job) = waiting(60);
    let engine = Engine::new();
    let leases = world.take(3);
    let scores: Vec<Vec<u8>> = leases.iter().map(|lease| engine.infer(&world.input(lease))).collect();
    let flipped = |at: usize| {
        let mut bytes = scores[0].clone();
        bytes[at] ^= 1;
        bytes
    };
    for (wrong, bytes, status) in [
        ("nothing", Vec::new(), 422),
        ("half of it", scores[0][..scores[0].len() / 2].to_vec(), 422),
        ("a byte more", [&scores[0][..], b"x"].concat(), 413),
        ("another set's", scores[1].clone(), 422),
        ("zeros", vec![0; scores[0].len()], 422),
        ("another Program's", flipped(16), 422),
        ("a flipped bit", flipped(5000), 422),
        ("a wrong checksum", flipped(scores[0].len() - 1), 422),
    ] {
        let answer = world.put(&leases[0], &bytes);
        assert_eq!(answer.status.as_u16(), status, "{wrong}: {}", String::from_utf8_lossy(&answer.body));
    }
    for (lease, scores) in leases.iter().zip(&scores) {
        world.put(lease, scores).expect(204);
    }
    assert!(world.result(&job) == engine.infer(&request().0));
}

/// Requests of workers that nobody should make.
#[test]
fn hostile_requests_of_workers_are_refused() {
    let (world, job) = waiting(60);
    let lease = world.take(1).remove(0);
    let number = lease["lease"].as_i64().expect("a number");
    let digest = program().digest().to_string();
    let take = |change: &dyn Fn(&mut Value)| {
        let mut body = json!({ "programs": [digest] });
        change(&mut body);
        body.to_string()
    };
    let at = |number: &str, what: &str| format!("/v1/leases/{number}{what}");
    let own = number.to_string();
    let renew = json!({ "done": 0, "total": 0 }).to_string();
    let rows = [
        ("no body", "POST", "/v1/leases".to_owned(), &[JSON][..], String::new(), 400),
        ("no type", "POST", "/v1/leases".into(), &[], take(&|_| {}), 415),
        ("no Programs", "POST", "/v1/leases".into(), &[JSON], take(&|body| body["programs"] = json!([])), 422),
        ("another Program", "POST", "/v1/leases".into(), &[JSON], take(&|body| body["programs"] = json!(["0"])), 422),
        ("long JSON", "POST", "/v1/leases".into(), &[JSON], take(&|b| b["programs"] = json!(["0".repeat(9000)])), 413),
        ("no capacity", "POST", "/v1/leases".into(), &[JSON], take(&|body| body["capacity"] = 0.into()), 422),
        ("all of them", "POST", "/v1/leases".into(), &[JSON], take(&|body| body["capacity"] = 65.into()), 422),
        ("a giant", "POST", "/v1/leases".into(), &[JSON], take(&|body| body["capacity"] = (1u64 << 40).into()), 400),
        ("a long wait", "POST", "/v1/leases".into(), &[JSON], take(&|body| body["wait"] = 31.into()), 422),
        ("a negative wait", "POST", "/v1/leases".into(), &[JSON], take(&|body| body["wait"] = (-1).into()), 400),
        ("another's name", "POST", "/v1/leases".into(), &[JSON], take(&|body| body["worker"] = "b".into()), 400),
        ("the next number", "POST", at(&(number + 1).to_string(), "/renew"), &[JSON], renew.clone(), 404),
        ("number 0", "POST", at("0", "/renew"), &[JSON], renew.clone(), 404),
        ("a negative number", "POST", at("-1", "/renew"), &[JSON], renew.clone(), 404),
        ("a signed number", "POST", at(&format!("+{own}"), "/renew"), &[JSON], renew.clone(), 404),
        ("no number", "POST", at("1e3", "/renew"), &[JSON], renew.clone(), 404),
        ("a number that overflows", "POST", at(&"9".repeat(30), "/renew"), &[JSON], renew.clone(), 404),
        ("traversal", "GET", at("..%2f..%2fservice.sqlite3", "/input"), &[], String::new(), 404),
        ("half of the progress", "POST", at(&own, "/renew"), &[JSON], json!({ "done": 1 }).to_string(), 400),
        ("no progress", "POST", at(&own, "/renew"), &[JSON], json!({ "done": -1, "total": 1 }).to_string(), 400),
        ("no reason", "POST", at(&own, "/fail"), &[JSON], "{}".into(), 400),
        ("a long reason", "POST", at(&own, "/fail"), &[JSON], json!({ "reason": "x".repeat(9000) }).to_string(), 413),
        ("a result as JSON", "PUT", at(&own, "/result"), &[JSON], "{}".into(), 415),
        ("a result of nobody", "PUT", at("999999", "/result"), &[SCORES], "x".into(), 404),
        (
            "an announced giant",
            "PUT",
            at(&own, "/result"),
            &[SCORES, ("content-length", "99999999999")],
            "x".into(),
            413,
        ),
        ("posting a result without a store", "POST", at(&own, "/result"), &[SCORES], "x".into(), 409),
        ("a list of all leases' inputs", "GET", at("", "input"), &[], String::new(), 405),
    ];
    for (wrong, method, path, headers, body, status) in rows {
        let answer = world.call(method, &path, headers, body);
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        assert_eq!((answer.status.as_u16(), answer.header("content-type")), (status, PROBLEM_JSON), "{wrong}: {text}");
        assert!(answer.json()["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{wrong}: {text}");
        let state = world.folder.path().to_str().expect("text");
        assert!(!text.contains(state) && !text.contains("sqlite"), "{wrong}: {text}");
    }
    // The lease is what it was.
    world.of_lease("POST", &lease, "/renew", renew).expect(200);
    assert_eq!(world.get(&format!("/v1/jobs/{job}")).expect(200).json()["state"], "running");
    // Given back, it waits for the next one at once.
    world.of_lease("DELETE", &lease, "", Body::empty()).expect(204);
    assert_eq!(world.get(&format!("/v1/jobs/{job}")).expect(200).json()["state"], "queued");
    assert_eq!(world.take(1)[0]["set"], lease["set"]);
}

/// A job whose set cannot be computed anywhere fails, and says why.
#[test]
fn a_set_that_always_fails_ends_its_job() {
    let (world, job) = waiting(60);
    for attempt in 0..3 {
        assert_eq!(world.get(&format!("/v1/jobs/{job}")).expect(200).json()["state"], "queued", "{attempt}");
        let lease = world.take(1).remove(0);
        let reason = json!({ "reason": "no \u{1b}[31m room" }).to_string();
        world.of_lease("POST", &lease, "/fail", reason).expect(204);
    }
    let view = world.ended(&[], &job);
    assert_eq!(view["state"], "failed");
    assert_eq!(view["error"], "set 0 of this job failed 3 times, at last because: no  [31m room");
    assert!(world.take(1).is_empty());
}

/// Tokens of tenants and of workers open different doors, and one worker cannot speak for another.
#[test]
fn tokens_of_workers_are_for_leases_only() {
    let made = [("alice", Role::Tenant), ("gpu-1", Role::Worker), ("gpu-2", Role::Worker)]
        .map(|(name, role)| fresh_token(name, role).expect("a token"));
    let file: String = made.iter().map(|(_, line)| line.as_str()).collect();
    let tokens = Tokens::parse(&file).expect("tokens");
    let [alice, first, second] = made.map(|(token, _)| format!("Bearer {}", *token));
    let world = World::fleet(fresh(), SETS, |config| config.tokens = Some(tokens));
    let [alice, first, second] = [&alice, &first, &second].map(|token| ("authorization", &token[..]));
    let key = world.register(&[alice]);
    world.submit(&[alice], &world.upload(&[alice], &key, &request().0)).expect(202);
    let take = json!({ "programs": [program().digest().to_string()] }).to_string();
    for path in ["/v1/models", "/v1/keys", "/v1/jobs"] {
        world.call("GET", path, &[first], Body::empty()).expect(403);
    }
    world.call("POST", "/v1/leases", &[JSON], take.clone()).expect(401);
    let refused = world.call("POST", "/v1/leases", &[JSON, alice], take.clone()).expect(403).json();
    assert!(refused["detail"].as_str().is_some_and(|detail| detail.contains("--worker")), "{refused}");
    let lease = world.call("POST", "/v1/leases", &[JSON, first], take).expect(200).json()["leases"][0].clone();
    assert_eq!(lease["secret"].as_str().map(str::len), Some(64), "results are masked");
    let input = format!("/v1/leases/{}/input", lease["lease"]);
    world.call("GET", &input, &[second], Body::empty()).expect(409);
    world.call("GET", &input, &[alice], Body::empty()).expect(403);
    world.call("GET", &input, &[first], Body::empty()).expect(200);
    let result = format!("/v1/leases/{}/result", lease["lease"]);
    world.call("PUT", &result, &[SCORES, second], "x").expect(409);
    let renew = format!("/v1/leases/{}/renew", lease["lease"]);
    world.call("POST", &renew, &[JSON, first], json!({ "done": 0, "total": 0 }).to_string()).expect(200);
}

pub const OPTIONS: WorkOptions =
    WorkOptions { key_memory: 1 << 30, grace: Duration::from_secs(10), insecure_deterministic: false };

/// Workers over sockets, one of which is gone in the middle, and a service that is started again: the results are right, and masked.
#[test]
fn workers_share_a_request() {
    let folder = fresh();
    let open = |folder: Arc<TempDir>| World::fleet(folder, SETS, |config| config.bounds.lease_seconds = 1);
    let served = Served::new(open(folder), None, Connections::default());
    let (party, (request, count)) = (Party::shared(), request());
    let key = served.world.register(&[]);
    let jobs = [0; 2].map(|_| {
        let upload = served.world.upload(&[], &key, request);
        served.world.submit(&[], &upload).expect(202).json()["id"].as_str().expect("an id").to_owned()
    });
    // It takes one set of each job, and is never heard of again.
    assert_eq!(served.world.take(2).len(), 2);
    let stop = Stop::default();
    let url = format!("http://{}", served.address);
    let (reports, results) = thread::scope(|scope| {
        let workers = [0; 2].map(|_| {
            let (url, stop) = (url.clone(), stop.clone());
            scope.spawn(move || {
                let remote = remote(url, None, None).until(stop.clone());
                work(&remote, &[service()], OPTIONS, &stop, &|why| eprintln!("{why}")).expect("a service")
            })
        });
        let results = jobs.each_ref().map(|job| served.world.result(job));
        stop.stop();
        (workers.map(|worker| worker.join().expect("no panic")), results)
    });
    assert_eq!(reports.iter().map(|report| report.sets).sum::<u64>(), 2 * SETS);
    assert_eq!(reports.iter().map(|report| report.images).sum::<u64>(), 2 * *count as u64);
    assert!(results[0] != results[1], "the same request twice has other masks");
    for result in results {
        let labels = party.client.decrypt(&party.keys.secret, &result[..], Watch::default()).expect("scores").labels;
        assert!(labels == expected(*count));
    }
    served.end();
}

/// A worker without the Program, one that is asked for no masks, and one that nobody answers end with an error that says so.
#[test]
fn workers_that_cannot_work_say_why() {
    let (world, _) = waiting(60);
    let served = Served::new(world, None, Connections::default());
    let url = format!("http://{}", served.address);
    let run = |options: WorkOptions, services: &[Service]| {
        work(&remote(url.clone(), None, None), services, options, &Stop::default(), &|_| {})
    };
    assert!(matches!(run(OPTIONS, &[service()]), Err(WorkError::Unmasked)));
    match run(OPTIONS, &[]) {
        Err(WorkError::Remote(error)) => assert!(error.to_string().contains("none of these Programs"), "{error}"),
        other => panic!("{other:?}"),
    }
    // The set was given back, so that it can be had at once.
    assert_eq!(served.world.take(1)[0]["set"], 0);
    served.end();
    let start = Instant::now();
    let options =
        cryptodl_service::RemoteOptions { url: url.clone(), token: None, authority: None, patience: Duration::ZERO };
    let gone = cryptodl_service::Remote::new(options).expect("an address");
    assert!(work(&gone, &[service()], OPTIONS, &Stop::default(), &|_| {}).is_err());
    assert!(start.elapsed().as_secs() < 20);
}

/// A job that is cancelled ends for whoever computes it.
#[test]
fn a_cancelled_job_ends_everywhere() {
    let (world, job) = waiting(60);
    let lease = world.take(1).remove(0);
    let view = world.call("POST", &format!("/v1/jobs/{job}/cancel"), &[], Body::empty()).expect(200).json();
    assert_eq!(view["state"], "cancelled");
    world.of_lease("POST", &lease, "/renew", json!({ "done": 0, "total": 0 }).to_string()).expect(409);
    world.of_lease("GET", &lease, "/input", Body::empty()).expect(409);
    assert!(world.take(3).is_empty());
    assert_eq!(world.get("/v1/keys").expect(200).json()[0]["sets_used"], 0);
}
