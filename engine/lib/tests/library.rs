//! The library as its users see it: client and server through streams of bytes.

use std::sync::atomic::{AtomicBool, Ordering};

use cryptodl::network::{LayerOp, Network};
use cryptodl::{
    BackendChoice, CiphertextsInfo, Client, Error, KeyFolder, KeyFolderError, Keys, Model, Placement, PlanOptions,
    Program, Rerandomisation, RunError, Server, Service, Watch,
};
use cryptodl_program::SplitMix;
use cryptodl_test_networks::{conv, dense, images, network, polynomial};

fn small(seed: u64) -> Network {
    let mut g = SplitMix(seed);
    network(
        [1, 6, 6],
        vec![conv(&mut g, [2, 1, 3], 1, 0), polynomial(&[0.1, 0.5, 0.2]), LayerOp::Flatten, dense(&mut g, 3, 32)],
    )
}

fn program(seed: u64) -> Program {
    Model::from(small(seed)).plan(&PlanOptions::default(), Watch::default()).expect("it fits").program
}

fn server() -> Server {
    let placement = Placement { backend: BackendChoice::Cpu, threads: Some(2), ..Placement::default() };
    Server::new(placement).expect("threads")
}

/// A client with its keys, and a request of `count` images.
fn client(service: &Service, count: usize) -> (Client, Keys, Vec<u8>) {
    let client = Client::from(service.spec().clone());
    let keys = client.generate_keys().expect("randomness");
    let mut request = Vec::new();
    let images = images(count, [1, 6, 6], 11);
    client.encrypt(&keys, images.as_slice().expect("in order"), &mut request, Watch::default()).expect("valid images");
    (client, keys, request)
}

fn expected(seed: u64, count: usize) -> Vec<u32> {
    let scores = Model::from(small(seed)).plaintext_scores(images(count, [1, 6, 6], 11).view());
    let largest = |row: ndarray::ArrayView1<'_, f32>| (0..row.len()).reduce(|a, b| if row[b] > row[a] { b } else { a });
    scores.rows().into_iter().map(|row| largest(row).expect("scores") as u32).collect()
}

fn agree(a: &[u32], b: &[u32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).filter(|(a, b)| a != b).count() <= a.len() / 50
}

/// Two Programs on one server, two requests with keys that are expanded once, more images than a set holds.
#[test]
fn programs_share_a_server_and_keys_are_used_again() {
    let server = server();
    for seed in [1, 2] {
        let service = server.prepare(&program(seed)).expect("room");
        let count = service.params().n() + 5;
        let (client, keys, request) = client(&service, count);
        let accepted = service.accept_keys(&keys.evaluation, &keys.public).expect("the right keys");
        for _ in 0..2 {
            let mut response = Vec::new();
            let report = service.infer(&accepted, &request[..], &mut response, Watch::default()).expect("a result");
            assert!(report.seconds > 0.0);
            let decrypted = client.decrypt(&keys.secret, &response[..], Watch::default()).expect("scores");
            assert!(agree(&decrypted.labels, &expected(seed, count)));
        }
        assert_eq!((service.machine().backend, service.machine().threads), ("cpu", 2));
    }
}

/// Everything through bytes: Program, spec, keys, request, response.
#[test]
fn everything_travels_as_bytes() {
    let mut saved = Vec::new();
    program(2).write(&mut saved).expect("memory takes all");
    let service = server().prepare(&Program::read(&saved[..]).expect("a Program")).expect("room");
    let (client, keys, request) = client(&service, 7);
    let [mut spec, mut secret, mut public, mut evaluation] = [const { Vec::new() }; 4];
    client.write_spec(&mut spec).expect("memory takes all");
    client.write_secret_key(&keys.secret, &mut secret).expect("memory takes all");
    client.write_public_key(&keys.public, &mut public).expect("memory takes all");
    client.write_evaluation_keys(&keys.evaluation, &mut evaluation).expect("memory takes all");

    let accepted = service.read_keys(&evaluation[..], &public[..]).expect("the right keys");
    let mut response = Vec::new();
    service.infer(&accepted, &request[..], &mut response, Watch::default()).expect("a result");

    let other = Client::read_spec(&spec[..]).expect("a spec");
    let secret = other.read_secret_key(&secret[..]).expect("a secret key");
    let labels = other.decrypt(&secret, &response[..], Watch::default()).expect("scores").labels;
    assert!(agree(&labels, &expected(2, 7)));
}

/// Equal requests have equal responses where nothing is masked, and otherwise never.
#[test]
fn only_responses_that_are_not_masked_repeat() {
    let service = server().prepare(&program(1)).expect("room");
    let (client, keys, request) = client(&service, 5);
    let accepted = service.accept_keys(&keys.evaluation, &keys.public).expect("the right keys");
    let respond = |deterministic: bool| {
        let mut response = Vec::new();
        let watch = Watch::default();
        let report = match deterministic {
            true => service.infer_deterministic(&accepted, &request[..], &mut response, watch),
            false => service.infer(&accepted, &request[..], &mut response, watch),
        };
        report.expect("a result");
        response
    };
    let bare = respond(true);
    assert_eq!(bare, respond(true));
    let [one, two] = [respond(false), respond(false)];
    assert!(one != two && one != bare);
    let labels = client.decrypt(&keys.secret, &bare[..], Watch::default()).expect("scores").labels;
    assert!(agree(&labels, &expected(1, 5)));
}

#[test]
fn what_does_not_belong_together_is_a_typed_error() {
    let server = server();
    let (a, b) = (server.prepare(&program(1)).expect("room"), server.prepare(&program(2)).expect("room"));
    let (client_a, keys, request) = client(&a, 3);
    let accepted = a.accept_keys(&keys.evaluation, &keys.public).expect("the right keys");
    let error = b.infer(&accepted, &request[..], Vec::new(), Watch::default()).unwrap_err();
    assert!(matches!(error, Error::Wire(_)), "a request of another Program: {error}");
    let (_, _, of_b) = client(&b, 3);
    let error = b.infer(&accepted, &of_b[..], Vec::new(), Watch::default()).unwrap_err();
    assert!(matches!(error, Error::Run(RunError::EvalKey { .. })), "keys that another service accepted: {error}");

    let mut damaged = request.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    let mut response = Vec::new();
    a.infer(&accepted, &damaged[..], &mut response, Watch::default()).unwrap_err();
    client_a.decrypt(&keys.secret, &response[..], Watch::default()).unwrap_err();
    a.infer(&accepted, &request[..request.len() - 1], Vec::new(), Watch::default()).unwrap_err();

    let small = Placement { memory_budget: Some(1), backend: BackendChoice::Cpu, ..Placement::default() };
    let error = Server::new(small).expect("threads").prepare(&program(1)).map(drop).unwrap_err();
    assert!(matches!(error, Error::Run(RunError::Budget { budget: 1, needed: 2.. })), "{error}");
    assert!(!error.to_string().contains("--"), "no flags of a command line: {error}");
}

/// A second computation cannot begin on the thread that holds the first: it would wait for itself.
#[test]
fn computations_take_turns() {
    let service = server().prepare(&program(1)).expect("room");
    let (_, keys, request) = client(&service, 3);
    let accepted = service.accept_keys(&keys.evaluation, &keys.public).expect("the right keys");
    let evaluation = service.accept_evaluation_keys(&keys.evaluation).expect("the right keys");
    let input = CiphertextsInfo {
        images: 3,
        seed: Some([0; 32]),
        first_set: 0,
        level: service.spec().input.level,
        values: 36,
        components: 2,
        leaves: Default::default(),
    };
    let first =
        service.begin(&input, &evaluation, Rerandomisation::Omitted, Watch::default()).expect("nothing goes on");
    let error = service.infer(&accepted, &request[..], Vec::new(), Watch::default()).unwrap_err();
    assert!(matches!(error, Error::Busy), "{error}");
    // Another thread waits, and can give up.
    let cancel = AtomicBool::new(false);
    let waits = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            service.infer(&accepted, &request[..], Vec::new(), Watch::default().with_cancel(&cancel)).map(drop)
        });
        std::thread::sleep(std::time::Duration::from_millis(50));
        cancel.store(true, Ordering::Relaxed);
        waiting.join().expect("no panic")
    });
    assert!(matches!(waits, Err(Error::Cancelled(_))));
    drop(first);
    service.infer(&accepted, &request[..], Vec::new(), Watch::default()).expect("its turn");
}

/// Keys of another ring are refused in words.
#[test]
fn keys_of_other_parameters_are_refused() {
    let n = |n| PlanOptions { n: Some(n), ..PlanOptions::default() };
    let planned = |options| Model::from(small(1)).plan(&options, Watch::default()).expect("it fits").program;
    let (small, large) = (planned(n(8192)), planned(n(16384)));
    let server = server();
    let [a, b] = [small, large].map(|program| server.prepare(&program).expect("room"));
    let (_, keys, _) = client(&a, 1);
    let error = b.accept_keys(&keys.evaluation, &keys.public).map(drop).unwrap_err();
    assert!(matches!(error, Error::Run(RunError::EvalKey { .. })), "{error}");
}

/// Whoever watches is told how far it is, and ends it.
#[test]
fn long_work_is_watched_and_cancelled() {
    let service = server().prepare(&program(1)).expect("room");
    let (client, keys, request) = client(&service, 3);
    let accepted = service.accept_keys(&keys.evaluation, &keys.public).expect("the right keys");

    let cancel = AtomicBool::new(false);
    let end = |progress: cryptodl::Progress| {
        assert!(progress.done <= progress.total);
        cancel.store(true, Ordering::Relaxed);
    };
    let watch = Watch::new(&end).with_cancel(&cancel);
    let pixels = vec![0.5; 3 * client.pixels()];
    let error = client.encrypt(&keys, &pixels, Vec::new(), watch).unwrap_err();
    assert!(matches!(error, Error::Cancelled(_)), "{error}");
    assert!(cancel.load(Ordering::Relaxed), "it was told");

    let already = Watch::default().with_cancel(&cancel);
    let mut response = Vec::new();
    let error = service.infer(&accepted, &request[..], &mut response, already).unwrap_err();
    assert!(matches!(error, Error::Cancelled(_)), "{error}");
    client.decrypt(&keys.secret, &response[..], Watch::default()).unwrap_err();
    let error = Model::from(small(1)).plan(&PlanOptions::default(), already).unwrap_err();
    assert!(matches!(error, Error::Cancelled(_)), "{error}");

    // The service goes on.
    let told = std::sync::Mutex::new(Vec::new());
    let note = |progress| told.lock().expect("no panic").push(progress);
    let mut response = Vec::new();
    service.infer(&accepted, &request[..], &mut response, Watch::new(&note)).expect("a result");
    let last = told.lock().expect("no panic").last().copied().expect("it was told");
    assert_eq!(last.done, last.total);
    let decrypted = client.decrypt(&keys.secret, &response[..], Watch::new(&note)).expect("scores");
    assert!(agree(&decrypted.labels, &expected(1, 3)));
}

/// Keys lie in files whole or not at all, and nothing is replaced.
#[test]
fn keys_lie_in_a_folder() {
    let place = tempfile::tempdir().expect("a folder");
    let client = Client::new(program(1).client_spec()).expect("a valid spec");
    let folder = KeyFolder::new(&place.path().join("mine"));
    assert!(!folder.has_keys());
    assert!(matches!(folder.load(&client), Err(KeyFolderError::Missing(_))));
    let keys = client.generate_keys().expect("randomness");
    folder.write_new(&client, &keys).expect("written");
    assert!(folder.has_keys());
    let sizes: u64 = [&folder.secret_key, &folder.public_key, &folder.eval_key]
        .iter()
        .map(|path| std::fs::metadata(path).expect("a file").len())
        .sum();
    assert_eq!(sizes, client.keys_len());
    #[cfg(unix)]
    for (path, mode) in [(&folder.secret_key, 0o600), (&folder.public_key, 0o644)] {
        let found = std::fs::metadata(path).expect("a file").permissions();
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&found) & 0o777, mode, "{}", path.display());
    }

    let files = || folder.files().map(|path| std::fs::read(path).expect("a file"));
    let before = files();
    let loaded = folder.load(&client).expect("the keys");
    let again = KeyFolder::new(&place.path().join("again"));
    again.write_new(&client, &loaded).expect("written");
    assert!(again.files().map(|path| std::fs::read(path).expect("a file")) == before);
    let others = client.generate_keys().expect("randomness");
    assert!(matches!(folder.write_new(&client, &others), Err(KeyFolderError::Exists(_))));
    assert!(files() == before);

    // One that is there keeps away all new ones, and none of them stays.
    let partly = KeyFolder::new(&place.path().join("partly"));
    partly.write_new(&client, &keys).expect("written");
    partly.files()[..3].iter().for_each(|path| std::fs::remove_file(path).expect("removed"));
    assert!(partly.has_keys());
    match partly.write_new(&client, &others) {
        Err(KeyFolderError::Exists(path)) => assert_eq!(path, partly.client_spec),
        other => panic!("{other:?}"),
    }
    assert_eq!(std::fs::read(&partly.client_spec).expect("a file"), before[3]);
    assert_eq!(std::fs::read_dir(&partly.public).expect("a folder").count(), 1);
    match partly.load(&client) {
        Err(KeyFolderError::Missing(path)) => assert_eq!(path, partly.secret_key),
        other => panic!("{:?}", other.err()),
    }
    std::fs::write(&folder.eval_key, &before[2][..before[2].len() - 1]).expect("written");
    match folder.load(&client) {
        Err(KeyFolderError::Refused { path, .. }) => assert_eq!(path, folder.eval_key),
        other => panic!("{:?}", other.err()),
    }

    let renamed = Client::new(program(2).client_spec()).expect("a valid spec");
    let digest = |client: &Client| client.spec().program;
    assert_eq!(digest(&folder.read_spec().expect("a spec")), digest(&client));
    folder.replace_spec(&renamed).expect("replaced");
    assert_eq!(digest(&folder.read_spec().expect("a spec")), digest(&renamed));
    assert_ne!(digest(&client), digest(&renamed));
}
