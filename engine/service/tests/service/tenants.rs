//! Several tenants, who are strangers to each other.

use axum::body::Body;
use cryptodl_service::{Bounds, Config, Role, Tokens, fresh_token};

use crate::support::{Party, TUS, World, request};

/// The value of a header for each of two tenants.
fn tokens() -> (impl Fn(&mut Config), [String; 2]) {
    let made = ["alice", "bob"].map(|name| fresh_token(name, Role::Tenant).expect("a token"));
    let file: String = made.iter().map(|(_, line)| line.as_str()).collect();
    let tokens = Tokens::parse(&file).expect("tokens");
    (
        move |config: &mut Config| config.tokens = Some(tokens.clone()),
        made.map(|(token, _)| format!("Bearer {}", *token)),
    )
}

#[test]
fn tenants_see_nothing_of_each_other() {
    let (change, [alice, bob]) = tokens();
    let world = World::with(None, true, change);
    let (alice, bob) = (&[("authorization", &alice[..])][..], &[("authorization", &bob[..])][..]);
    let key = world.register(alice);
    let upload = world.upload(alice, &key, &Party::shared().request);
    let half = world.create(alice, &key, 1000).expect(201).place();
    let job = world.submit(alice, &upload).expect(202).json()["id"].as_str().expect("an id").to_owned();
    world.ended(alice, &job);

    let tus = [TUS, bob].concat();
    for (method, path, headers, status) in [
        ("GET", format!("/v1/jobs/{job}"), bob, 404),
        ("GET", format!("/v1/jobs/{job}/result"), bob, 404),
        ("POST", format!("/v1/jobs/{job}/cancel"), bob, 404),
        ("DELETE", format!("/v1/jobs/{job}"), bob, 404),
        ("GET", format!("/v1/keys/{key}"), bob, 404),
        ("DELETE", format!("/v1/keys/{key}"), bob, 404),
        ("HEAD", format!("/v1/uploads/{half}"), &tus, 404),
        ("DELETE", format!("/v1/uploads/{half}"), &tus, 404),
    ] {
        assert_eq!(world.call(method, &path, headers, Body::empty()).status.as_u16(), status, "{method} {path}");
    }
    world.submit(bob, &upload).expect(422);
    world.patch(bob, &half, 0, b"x").expect(404);
    world.create(bob, &key, 1000).expect(404);
    for list in ["/v1/jobs", "/v1/keys"] {
        assert_eq!(world.call("GET", list, bob, Body::empty()).expect(200).json().as_array().map(Vec::len), Some(0));
        assert_eq!(world.call("GET", list, alice, Body::empty()).expect(200).json().as_array().map(Vec::len), Some(1));
    }
    Party::shared().check(&world.call("GET", &format!("/v1/jobs/{job}/result"), alice, Body::empty()).expect(200).body);
    // The same keys of two tenants are two registrations.
    assert_ne!(world.register(bob), key);
}

#[test]
fn nobody_comes_in_without_a_token() {
    let (change, [alice, _]) = tokens();
    let world = World::with(None, false, change);
    let wrong = [
        String::new(),
        "Bearer".into(),
        "Bearer ".into(),
        format!("Basic {}", &alice[7..]),
        alice[..alice.len() - 1].into(),
        format!("{alice}0"),
        "Bearer cryptodl-".to_owned() + &"0".repeat(64),
    ];
    for path in ["/v1/models", "/v1/models/random/spec", "/v1/keys", "/v1/jobs"] {
        let none = world.get(path).expect(401);
        assert_eq!(none.header("www-authenticate"), "Bearer");
        for wrong in &wrong {
            world.call("GET", path, &[("authorization", wrong)], Body::empty()).expect(401);
        }
        world.call("GET", path, &[("authorization", &alice)], Body::empty()).expect(200);
    }
    // A name of the host, or a web page, is no matter where there are tokens.
    let headers = [("authorization", &alice[..]), ("host", "predict.example.org"), ("origin", "https://example.org")];
    world.send(request("GET", "/v1/models", &headers, Body::empty())).expect(200);
    // What is counted is the operator's.
    world.get("/metrics").expect(404);
    world.get("/healthz").expect(200);
    assert!(world.get("/openapi.json").expect(200).json()["components"]["securitySchemes"]["token"].is_object());
}

#[test]
fn queues_and_quotas_are_bounded() {
    let (change, [alice, bob]) = tokens();
    let bounds = Bounds { jobs_per_tenant: 2, jobs: 3, uploads_per_tenant: 2, keys_per_tenant: 1, ..Bounds::default() };
    let world = World::with(Some(3), false, |config| {
        change(config);
        config.bounds = bounds;
    });
    let (alice, bob) = (&[("authorization", &alice[..])][..], &[("authorization", &bob[..])][..]);
    let request = &Party::shared().request;
    let (of_alice, of_bob) = (world.register(alice), world.register(bob));
    for _ in 0..2 {
        world.submit(alice, &world.upload(alice, &of_alice, request)).expect(202);
    }
    let third = world.upload(alice, &of_alice, request);
    let full = world.submit(alice, &third).expect(429);
    assert!(full.header("retry-after").parse::<u32>().is_ok_and(|seconds| seconds > 0), "{:?}", full.headers);
    world.submit(bob, &world.upload(bob, &of_bob, request)).expect(202);
    world.submit(bob, &world.upload(bob, &of_bob, request)).expect(429);
    world.create(alice, &of_alice, request.len()).expect(201);
    let full = world.create(alice, &of_alice, request.len()).expect(429);
    assert!(!full.header("retry-after").is_empty());

    // A cancelled job counts nothing, and makes room.
    let jobs = world.call("GET", "/v1/jobs", alice, Body::empty()).expect(200).json();
    let job = jobs[0]["id"].as_str().expect("an id");
    let used = || {
        world.call("GET", &format!("/v1/keys/{of_alice}"), alice, Body::empty()).expect(200).json()["sets_used"].clone()
    };
    assert_eq!(used(), 2);
    let view = world.call("POST", &format!("/v1/jobs/{job}/cancel"), alice, Body::empty()).expect(200).json();
    assert_eq!((view["state"].clone(), used()), ("cancelled".into(), 1.into()));
    world.submit(alice, &third).expect(202);

    // Other keys are not a way around.
    let other = Party::new();
    let headers = [alice, &[("content-type", cryptodl_service::KEYS_TYPE)]].concat();
    world.call("POST", "/v1/models/random/keys", &headers, other.key_file()).expect(403);
}

/// Sets that a key may be used for end, and results that were handed out count.
#[test]
fn evaluations_are_metered() {
    let world = World::with(Some(2), true, |_| {});
    let (key, request) = (world.register(&[]), &Party::shared().request);
    for _ in 0..2 {
        let job = world.submit(&[], &world.upload(&[], &key, request)).expect(202).json();
        assert_eq!(world.ended(&[], job["id"].as_str().expect("an id"))["state"], "done");
    }
    let refused = world.submit(&[], &world.upload(&[], &key, request)).expect(403).json();
    assert!(refused["detail"].as_str().expect("words").contains("2 of 2 sets"), "{refused}");
}
