//! Requests that nobody should make. Each is answered with the right status and a problem, and changes nothing.

use axum::body::Body;
use cryptodl_service::{KEYS_TYPE, PROBLEM_JSON};

use crate::support::{APPEND, MAX_SETS, Party, TUS, World, metadata};

const JSON: (&str, &str) = ("content-type", "application/json");
const KEYS: (&str, &str) = ("content-type", KEYS_TYPE);
const NONE: &[(&str, &str)] = &[];
const EMPTY: &[u8] = b"";
/// An id that nothing has.
const NOBODY: &str = "0123456789abcdef0123456789abcdef";

fn changed(bytes: &[u8], at: usize, to: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at..at + to.len()].copy_from_slice(to);
    bytes
}

#[test]
fn hostile_requests_are_refused_one_by_one() {
    let (world, party) = (World::new(), Party::shared());
    let key = world.register(&[]);
    let upload = world.create(&[], &key, party.request.len()).expect(201).place();
    world.patch(&[], &upload, 0, &party.request[..1000]).expect(204);
    let queued = world.submit(&[], &world.upload(&[], &key, &party.request)).expect(202).json();
    let done = queued["id"].as_str().expect("an id").to_owned();
    world.ended(&[], &done);
    let keys = world.get("/v1/models/random").json();
    let most = keys["bytes"]["max_request"].as_u64().expect("bytes");
    let key_file = party.key_file();

    let (at, register) = (format!("/v1/uploads/{upload}"), "/v1/models/random/keys");
    let named = metadata(&key);
    let of_nobody = metadata(NOBODY);
    let tus = ("tus-resumable", "1.0.0");
    let named_upload = |upload: &str| format!("{{\"upload\": \"{upload}\"}}").into_bytes();
    let long = "x".repeat(20_000);
    let too_long = (most + 1).to_string();
    let length = party.request.len().to_string();
    let create = |length: &'static str| vec![tus, ("upload-length", length)];
    let append = |offset: &'static str| vec![tus, APPEND, ("upload-offset", offset)];
    let with = |mut headers: Vec<(&'static str, &'static str)>, more: (&'static str, &'static str)| {
        headers.push(more);
        headers
    };
    let leak = |text: &str| -> &'static str { Box::leak(text.to_owned().into_boxed_str()) };
    let (named, of_nobody, too_long, length) = (leak(&named), leak(&of_nobody), leak(&too_long), leak(&length));

    type Row = (&'static str, &'static str, String, Vec<(&'static str, &'static str)>, Vec<u8>, u16);
    let row = |wrong: &'static str,
               method: &'static str,
               path: &str,
               headers: &[(&'static str, &'static str)],
               body: &[u8],
               status: u16|
     -> Row { (wrong, method, path.into(), headers.to_vec(), body.to_vec(), status) };
    let rows: Vec<Row> = vec![
        // Where there is nothing.
        row("no such path", "GET", "/v2/models", NONE, EMPTY, 404),
        row("the root", "GET", "/", NONE, EMPTY, 404),
        row("traversal", "GET", "/v1/jobs/..%2f..%2fservice.sqlite3/result", NONE, EMPTY, 404),
        row("traversal in the clear", "GET", "/v1/jobs/../../etc/passwd", NONE, EMPTY, 404),
        row("a null byte", "GET", "/v1/jobs/%00", NONE, EMPTY, 404),
        row("no UTF-8", "GET", "/v1/jobs/%ff%fe", NONE, EMPTY, 400),
        row("an id in capitals", "GET", &format!("/v1/jobs/{}", done.to_uppercase()), NONE, EMPTY, 404),
        row("a long id", "GET", &format!("/v1/jobs/{done}{done}"), NONE, EMPTY, 404),
        row("another model", "GET", "/v1/models/secret", NONE, EMPTY, 404),
        row("a model that is a path", "GET", "/v1/models/..%2f..%2fetc%2fpasswd/spec", NONE, EMPTY, 404),
        row("a key that nobody has", "GET", &format!("/v1/keys/{NOBODY}"), NONE, EMPTY, 404),
        row("a job that nobody has", "GET", &format!("/v1/jobs/{NOBODY}"), NONE, EMPTY, 404),
        row("the result of a job that nobody has", "GET", &format!("/v1/jobs/{NOBODY}/result"), NONE, EMPTY, 404),
        row("cancelling what nobody has", "POST", &format!("/v1/jobs/{NOBODY}/cancel"), NONE, EMPTY, 404),
        row("a key's name as a job's", "GET", &format!("/v1/jobs/{key}"), NONE, EMPTY, 404),
        // What cannot be done.
        row("deleting a model", "DELETE", "/v1/models/random", NONE, EMPTY, 405),
        row("an unknown method", "BREW", "/v1/models", NONE, EMPTY, 405),
        row("TRACE", "TRACE", "/v1/jobs", NONE, EMPTY, 405),
        row("an override that is not allowed", "POST", "/v1/models", &[("x-http-method-override", "GET")], EMPTY, 405),
        row("putting a result", "PUT", &format!("/v1/jobs/{done}/result"), NONE, b"x", 405),
        row("deleting a key that is needed", "DELETE", &format!("/v1/keys/{key}"), NONE, EMPTY, 409),
        // Who asks.
        row("another host", "GET", "/v1/models", &[("host", "evil.example")], EMPTY, 421),
        row("a host that begins well", "GET", "/v1/models", &[("host", "localhost.evil.example")], EMPTY, 421),
        row("a host with a bad port", "GET", "/v1/models", &[("host", "localhost:evil")], EMPTY, 421),
        row("a web page", "POST", "/v1/jobs", &[JSON, ("origin", "https://evil.example")], EMPTY, 403),
        // Jobs.
        row("no body", "POST", "/v1/jobs", &[JSON], EMPTY, 400),
        row("no JSON", "POST", "/v1/jobs", &[JSON], b"upload", 400),
        row("deep JSON", "POST", "/v1/jobs", &[JSON], "[".repeat(4000).as_bytes(), 400),
        row("long JSON", "POST", "/v1/jobs", &[JSON], long.as_bytes(), 413),
        row("another type", "POST", "/v1/jobs", &[("content-type", "text/plain")], &named_upload(&upload), 415),
        row("no type", "POST", "/v1/jobs", NONE, &named_upload(&upload), 415),
        row("an unknown field", "POST", "/v1/jobs", &[JSON], b"{\"upload\": \"\", \"tenant\": 2}", 400),
        row("a field twice", "POST", "/v1/jobs", &[JSON], b"{\"upload\": \"\", \"upload\": \"\"}", 400),
        row("a number for a name", "POST", "/v1/jobs", &[JSON], b"{\"upload\": 7}", 400),
        row("no upload's name", "POST", "/v1/jobs", &[JSON], &named_upload("../keys"), 422),
        row("an upload that nobody has", "POST", "/v1/jobs", &[JSON], &named_upload(NOBODY), 422),
        row("an upload that is not whole", "POST", "/v1/jobs", &[JSON], &named_upload(&upload), 409),
        row("a long wait", "GET", &format!("/v1/jobs/{done}?wait=31"), NONE, EMPTY, 400),
        row("a negative wait", "GET", &format!("/v1/jobs/{done}?wait=-1"), NONE, EMPTY, 400),
        row("an endless wait", "GET", &format!("/v1/jobs/{done}?wait=99999999999999999999"), NONE, EMPTY, 400),
        row("an unknown question", "GET", &format!("/v1/jobs/{done}?tenant=2"), NONE, EMPTY, 400),
        row(
            "bytes beyond the end",
            "GET",
            &format!("/v1/jobs/{done}/result"),
            &[("range", "bytes=99999999-")],
            EMPTY,
            416,
        ),
        // Uploads.
        row("no version of tus", "POST", "/v1/uploads", &[("upload-length", "1000")], EMPTY, 412),
        row("another version of tus", "HEAD", &at, &[("tus-resumable", "0.2.2")], EMPTY, 412),
        row("no length", "POST", "/v1/uploads", &[tus, ("upload-metadata", named)], EMPTY, 400),
        row("a length that comes later", "POST", "/v1/uploads", &[tus, ("upload-defer-length", "1")], EMPTY, 400),
        row("a negative length", "POST", "/v1/uploads", &with(create("-1"), ("upload-metadata", named)), EMPTY, 400),
        row("a signed length", "POST", "/v1/uploads", &with(create("+1000"), ("upload-metadata", named)), EMPTY, 400),
        row("a length that overflows", "POST", "/v1/uploads", &create("99999999999999999999999"), EMPTY, 400),
        row(
            "a giant length",
            "POST",
            "/v1/uploads",
            &with(create("18446744073709551615"), ("upload-metadata", named)),
            EMPTY,
            413,
        ),
        row("a set too many", "POST", "/v1/uploads", &with(create(too_long), ("upload-metadata", named)), EMPTY, 413),
        row("nothing", "POST", "/v1/uploads", &with(create("0"), ("upload-metadata", named)), EMPTY, 422),
        row("no metadata", "POST", "/v1/uploads", &create("1000"), EMPTY, 400),
        row("no base64", "POST", "/v1/uploads", &with(create("1000"), ("upload-metadata", "key ../..")), EMPTY, 400),
        row("another's key", "POST", "/v1/uploads", &with(create(length), ("upload-metadata", of_nobody)), EMPTY, 404),
        row("an offset in the past", "PATCH", &at, &append("0"), b"x", 409),
        row("an offset in the future", "PATCH", &at, &append("5000"), b"x", 409),
        row("no offset", "PATCH", &at, &[tus, APPEND], b"x", 400),
        row("no number", "PATCH", &at, &append("1e3"), b"x", 400),
        row("another type of piece", "PATCH", &at, &[tus, JSON, ("upload-offset", "1000")], b"x", 415),
        row("more than was announced", "PATCH", &at, &append("1000"), &vec![0; party.request.len()], 413),
        row("an upload that nobody has", "PATCH", &format!("/v1/uploads/{NOBODY}"), &append("0"), b"x", 404),
        row("the file of an upload", "GET", &at, NONE, EMPTY, 405),
        // Keys.
        row("keys of nothing", "POST", "/v1/models/secret/keys", &[KEYS], &key_file, 404),
        row("keys of another type", "POST", register, &[JSON], &key_file, 415),
        row("no keys", "POST", register, &[KEYS], EMPTY, 422),
        row("half of the keys", "POST", register, &[KEYS], &key_file[..key_file.len() / 2], 422),
        row("a byte more", "POST", register, &[KEYS], &[&key_file[..], b"x"].concat(), 413),
        row("keys of zeros", "POST", register, &[KEYS], &vec![0; key_file.len()], 422),
        row("a flipped bit", "POST", register, &[KEYS], &changed(&key_file, 5000, &[key_file[5000] ^ 1]), 422),
        row("other parameters", "POST", register, &[KEYS], &changed(&key_file, 48, &[7; 32]), 422),
        row("keys in another order", "POST", register, &[KEYS], &[&party.evaluation[..], &party.public].concat(), 422),
        row("an announced giant", "POST", register, &[KEYS, ("content-length", "18446744073709551615")], EMPTY, 413),
    ];
    assert!(rows.len() >= 60, "{}", rows.len());
    for (wrong, method, path, headers, body, status) in rows {
        let answer = world.call(method, &path, &headers, Body::from(body));
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        assert_eq!(answer.status.as_u16(), status, "{wrong}: {text}");
        assert_eq!(answer.header("content-type"), PROBLEM_JSON, "{wrong}: {text}");
        if method != "HEAD" {
            let problem = answer.json();
            assert_eq!(problem["status"], status, "{wrong}: {text}");
            assert!(problem["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{wrong}: {text}");
            assert!(
                problem["type"].as_str().is_some_and(|kind| kind.starts_with("urn:cryptodl:problem:")),
                "{wrong}: {text}"
            );
        }
        // Nothing of the server's own is told.
        let state = world.folder.path().to_str().expect("text");
        assert!(!text.contains(state) && !text.contains("sqlite") && !text.contains("src/"), "{wrong}: {text}");
    }

    // The service is up, and nothing was changed.
    world.patch(&[], &upload, 1000, &party.request[1000..]).expect(204);
    let job = world.submit(&[], &upload).expect(202).json()["id"].as_str().expect("an id").to_owned();
    assert_eq!(world.ended(&[], &job)["state"], "done");
    party.check(&world.get(&format!("/v1/jobs/{job}/result")).expect(200).body);
    assert_eq!(world.get("/v1/keys").json().as_array().map(Vec::len), Some(1));
}

/// Requests that are no encrypted images of this model are refused when their header has come, or when they are computed; they give
/// no result and cost no evaluation.
#[test]
fn forged_requests_give_no_result() {
    let (world, party) = (World::new(), Party::shared());
    let (key, request) = (world.register(&[]), &party.request);
    // The fields of the container and of the ciphertexts' header, see docs/format.md.
    for (wrong, bytes) in [
        ("another magic", changed(request, 0, b"X")),
        ("another version", changed(request, 8, &[9])),
        ("another kind", changed(request, 12, &[6])),
        ("another Program", changed(request, 16, &[7; 32])),
        ("other parameters", changed(request, 48, &[7; 32])),
        ("another length", changed(request, 80, &[0xff; 8])),
        ("another level", changed(request, 88, &[200])),
        ("other values", changed(request, 92, &[1])),
        ("more sets than there are", changed(request, 108, &[0xff; 4])),
        ("no images", changed(request, 116, &[0; 8])),
        ("more images than there is room", changed(request, 116, &[0xff; 8])),
        ("shorter than it says", request[..request.len() - 1].to_vec()),
        ("longer than it says", [&request[..], b"x"].concat()),
    ] {
        let upload = world.create(&[], &key, bytes.len()).expect(201).place();
        let problem = world.patch(&[], &upload, 0, &bytes).expect(422).json();
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("refused")), "{wrong}: {problem}");
        world.call("HEAD", &format!("/v1/uploads/{upload}"), TUS, Body::empty()).expect(404);
    }
    for (wrong, bytes) in [
        ("a flipped bit", changed(request, 5000, &[request[5000] ^ 1])),
        ("a wrong checksum", changed(request, request.len() - 1, &[!request[request.len() - 1]])),
        ("no residues", changed(request, 300, &[0xff; 2000])),
    ] {
        let job = world.submit(&[], &world.upload(&[], &key, &bytes)).expect(202).json();
        let id = job["id"].as_str().expect("an id");
        let ended = world.ended(&[], id);
        assert_eq!(ended["state"], "failed", "{wrong}");
        assert!(ended["error"].is_string(), "{wrong}");
        world.get(&format!("/v1/jobs/{id}/result")).expect(409);
    }
    let view = world.get(&format!("/v1/keys/{key}")).json();
    assert_eq!(view["sets_used"], 0);
    // More sets than are allowed, all of them right.
    let images = crate::support::pixels(party.client.images_per_set() * MAX_SETS as usize + 1);
    let mut large = Vec::new();
    party.client.encrypt(&party.keys, &images, &mut large, cryptodl::Watch::default()).expect("valid images");
    world.create(&[], &key, large.len()).expect(413);
}

/// Two that submit the same upload, or write to it, at once.
#[test]
fn races_are_won_once() {
    let (world, party) = (World::with(None, false, |_| {}), Party::shared());
    let key = world.register(&[]);
    let upload = world.upload(&[], &key, &party.request);
    let statuses: Vec<(u16, String)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    let answer = world.submit(&[], &upload);
                    (answer.status.as_u16(), answer.json()["id"].as_str().unwrap_or_default().to_owned())
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("an answer")).collect()
    });
    assert_eq!(statuses.iter().filter(|(status, _)| *status == 202).count(), 1, "{statuses:?}");
    assert!(statuses.iter().all(|(status, _)| matches!(status, 200 | 202 | 423)), "{statuses:?}");
    let ids: std::collections::HashSet<_> =
        statuses.iter().filter(|(status, _)| *status != 423).map(|(_, id)| id).collect();
    assert_eq!(ids.len(), 1);

    let upload = world.create(&[], &key, party.request.len()).expect(201).place();
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let write = || world.patch(&[], &upload, 0, &party.request).status.as_u16();
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(write)).collect();
        threads.into_iter().map(|thread| thread.join().expect("an answer")).collect()
    });
    assert_eq!(statuses.iter().filter(|&&status| status == 204).count(), 1, "{statuses:?}");
    assert!(statuses.iter().all(|status| matches!(status, 204 | 409 | 423)), "{statuses:?}");
    assert_eq!(world.submit(&[], &upload).expect(202).json()["sets"], 1);
}
