//! Requests as they should be, from keys to labels, and across restarts.

use axum::body::Body;
use cryptodl_service::{CIPHERTEXTS_TYPE, KEYS_TYPE, SPEC_TYPE};
use serde_json::Value;

use crate::support::{IMAGES, Party, TUS, World, copied};

#[test]
fn a_request_goes_from_keys_to_labels() {
    let (world, party) = (World::new(), Party::shared());
    assert_eq!(world.get("/healthz").expect(200).body, b"alive\n");
    assert_eq!(world.get("/readyz").expect(200).body, b"ready\n");

    let models = world.get("/v1/models").expect(200).json();
    let model = world.get("/v1/models/random").expect(200).json();
    assert_eq!(models, Value::Array(vec![model.clone()]));
    assert_eq!(model["bytes"]["keys"], party.key_file().len());
    let spec = world.get("/v1/models/random/spec").expect(200);
    assert_eq!(spec.header("content-type"), SPEC_TYPE);
    let client = cryptodl::Client::read_spec(&spec.body[..]).expect("a valid spec");
    assert_eq!(model["program"], client.spec().program.to_string());

    // The same keys again are the same registration.
    let headers = [("content-type", KEYS_TYPE)];
    let first = world.call("POST", "/v1/models/random/keys", &headers, party.key_file()).expect(201).json();
    let again = world.call("POST", "/v1/models/random/keys", &headers, party.key_file()).expect(200).json();
    assert_eq!(first, again);
    let key = first["id"].as_str().expect("an id");

    // In three pieces; what arrived twice is refused.
    let request = &party.request;
    let upload = world.create(&[], key, request.len()).expect(201).place();
    let path = format!("/v1/uploads/{upload}");
    let half = request.len() / 2;
    assert_eq!(world.patch(&[], &upload, 0, &request[..100]).expect(204).header("upload-offset"), "100");
    world.patch(&[], &upload, 100, &request[100..half]).expect(204);
    world.patch(&[], &upload, 100, &request[100..half]).expect(409);
    world.submit(&[], &upload).expect(409);
    let head = world.call("HEAD", &path, TUS, Body::empty()).expect(200);
    assert_eq!(head.header("upload-offset"), half.to_string());
    assert_eq!(head.header("upload-length"), request.len().to_string());
    assert_eq!((head.header("cache-control"), head.header("tus-resumable")), ("no-store", "1.0.0"));
    // A proxy that knows no PATCH.
    let offset = half.to_string();
    let headers = [
        ("tus-resumable", "1.0.0"),
        ("upload-offset", &offset),
        ("content-type", "application/offset+octet-stream"),
        ("x-http-method-override", "PATCH"),
    ];
    world.call("POST", &path, &headers, request[half..].to_vec()).expect(204);

    let job = world.submit(&[], &upload).expect(202);
    let id = job.json()["id"].as_str().expect("an id").to_owned();
    assert_eq!(job.place(), id);
    assert_eq!(world.submit(&[], &upload).expect(200).json()["id"], id.as_str());
    world.call("HEAD", &path, TUS, Body::empty()).expect(404);
    let ended = world.ended(&[], &id);
    assert_eq!((&ended["state"], &ended["images"], &ended["sets"]), (&"done".into(), &IMAGES.into(), &1.into()));
    let result = world.get(&format!("/v1/jobs/{id}/result")).expect(200);
    assert_eq!(result.header("content-type"), CIPHERTEXTS_TYPE);
    assert_eq!(ended["result_bytes"], result.body.len());
    party.check(&result.body);
    let part =
        world.call("GET", &format!("/v1/jobs/{id}/result"), &[("range", "bytes=100-")], Body::empty()).expect(206);
    assert_eq!(part.body, result.body[100..]);
    assert_eq!(world.get(&format!("/v1/keys/{key}")).expect(200).json()["sets_used"], 1);
    assert_eq!(world.get("/v1/jobs").expect(200).json().as_array().map(Vec::len), Some(1));

    let metrics = String::from_utf8(world.get("/metrics").expect(200).body).expect("text");
    for line in [
        "cryptodl_jobs_accepted_total{model=\"random\"} 1",
        "cryptodl_jobs_ended_total{model=\"random\",outcome=\"done\"} 1",
        "cryptodl_images_total{model=\"random\"} 9",
        "cryptodl_jobs_pending 0",
        "cryptodl_request_seconds_bucket{route=\"/v1/uploads/{upload}\"",
        "cryptodl_requests_total{route=\"/v1/jobs\",method=\"POST\",status=\"202\"} 1",
    ] {
        assert!(metrics.contains(line), "{line} in\n{metrics}");
    }

    world.call("DELETE", &format!("/v1/jobs/{id}"), &[], Body::empty()).expect(204);
    world.get(&format!("/v1/jobs/{id}")).expect(404);
    // The upload was a job, and is none again.
    world.submit(&[], &upload).expect(422);
    world.call("DELETE", &format!("/v1/keys/{key}"), &[], Body::empty()).expect(204);
    for folder in ["keys", "uploads", "sets", "results", "checkpoints"] {
        assert_eq!(std::fs::read_dir(world.folder.path().join(folder)).expect("a folder").count(), 0, "{folder}");
    }
}

/// A job that is interrupted gives at every attempt the bytes that it would have given at the first, and another job others.
#[test]
fn every_attempt_gives_the_same_bytes() {
    let party = Party::shared();
    let world = World::with(None, false, |_| {});
    let key = world.register(&[]);
    let jobs = [0; 2].map(|_| {
        let upload = world.upload(&[], &key, &party.request);
        world.submit(&[], &upload).expect(202).json()["id"].as_str().expect("an id").to_owned()
    });
    assert_eq!(world.get("/readyz").status.as_u16(), 503, "nothing computes");
    let state = world.close();
    let results = |state| {
        let world = World::at(state, None, true, |_| {});
        jobs.clone().map(|job| {
            assert_eq!(world.ended(&[], &job)["state"], "done");
            world.get(&format!("/v1/jobs/{job}/result")).expect(200).body
        })
    };
    let first = results(copied(state.path()));
    let second = results(state);
    assert!(first == second);
    assert!(first[0] != first[1], "the same request twice has other masks");
    first.iter().for_each(|result| party.check(result));
}

/// Jobs wait for the model that they are for, however often the service is started without it.
#[test]
fn results_outlive_the_process() {
    let party = Party::shared();
    let world = World::new();
    let key = world.register(&[]);
    let upload = world.upload(&[], &key, &party.request);
    let job = world.submit(&[], &upload).expect(202).json()["id"].as_str().expect("an id").to_owned();
    world.ended(&[], &job);
    let half = world.create(&[], &key, party.request.len()).expect(201).place();
    world.patch(&[], &half, 0, &party.request[..5000]).expect(204);

    let world = World::at(world.close(), None, true, |_| {});
    party.check(&world.get(&format!("/v1/jobs/{job}/result")).expect(200).body);
    let head = world.call("HEAD", &format!("/v1/uploads/{half}"), TUS, Body::empty()).expect(200);
    assert_eq!(head.header("upload-offset"), "5000");
    world.patch(&[], &half, 5000, &party.request[5000..]).expect(204);
    let job = world.submit(&[], &half).expect(202).json()["id"].as_str().expect("an id").to_owned();
    world.ended(&[], &job);
    party.check(&world.get(&format!("/v1/jobs/{job}/result")).expect(200).body);
}

/// Every path of the API is described, with what it may refuse.
#[test]
fn the_api_is_described() {
    let world = World::with(None, false, |_| {});
    let description = world.get("/openapi.json").expect(200).json();
    assert!(description["openapi"].as_str().expect("a version").starts_with("3.1"), "{}", description["openapi"]);
    let paths = description["paths"].as_object().expect("paths");
    let names: Vec<&str> = paths.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "/v1/jobs",
            "/v1/jobs/{job}",
            "/v1/jobs/{job}/cancel",
            "/v1/jobs/{job}/result",
            "/v1/jobs/{job}/sets/{set}",
            "/v1/keys",
            "/v1/keys/{key}",
            "/v1/leases",
            "/v1/leases/{lease}",
            "/v1/leases/{lease}/fail",
            "/v1/leases/{lease}/input",
            "/v1/leases/{lease}/keys",
            "/v1/leases/{lease}/renew",
            "/v1/leases/{lease}/result",
            "/v1/models",
            "/v1/models/{model}",
            "/v1/models/{model}/keys",
            "/v1/models/{model}/spec",
            "/v1/stored-uploads",
            "/v1/uploads",
            "/v1/uploads/{upload}",
            "/v1/uploads/{upload}/sets/{set}"
        ]
    );
    let operations = paths.values().flat_map(|path| path.as_object().expect("operations"));
    let operations: Vec<_> = operations.filter(|(method, _)| *method != "parameters").collect();
    assert_eq!(operations.len(), 31);
    for (method, operation) in operations {
        assert!(operation["responses"]["4XX"].is_object() && operation["summary"].is_string(), "{method} {operation}");
    }
}
