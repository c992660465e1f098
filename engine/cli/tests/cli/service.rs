//! `serve` and `query`, through the binary: a client and a service that is killed, stopped and started again.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Seek};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use cryptodl::{Client, Keys, Watch};
use cryptodl_core::wire::{CiphertextLayout, ciphertexts_len};
use cryptodl_service::{Remote, RemoteOptions, Spool};
use serde_json::Value;

use crate::support::{agreement, command, digits, failure, json, labels, succeed};

/// Few images of a network that needs evaluation keys: a small request that takes a moment.
const PLANNED: &str = "plan --model mnist-1 --batch 4 --out served.program";
const IMAGES: usize = 8;

/// A service that runs as a process of its own.
pub struct Served {
    process: Child,
    pub url: String,
}

impl Served {
    pub fn start(folder: &Path, arguments: &str) -> Self {
        let mut process = command(folder, &format!("serve --state state --threads 2 {arguments}"))
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("the binary starts");
        let mut line = String::new();
        BufReader::new(process.stdout.as_mut().expect("piped")).read_line(&mut line).expect("a line");
        let url = line.trim().rsplit(' ').next().expect("an address").to_owned();
        assert!(line.starts_with("serving ") && url.starts_with("http"), "{line}");
        Served { process, url }
    }

    /// Ends it as a loss of power would.
    fn kill(mut self) {
        self.process.kill().expect("killed");
        self.process.wait().expect("gone");
    }

    /// SIGTERM, after which it must end by itself.
    fn stop(mut self) {
        let killed = Command::new("kill").args(["-TERM", &self.process.id().to_string()]).status().expect("kill runs");
        assert!(killed.success());
        let status = self.process.wait().expect("gone");
        assert!(status.success(), "{status}");
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// From keys to labels, and a service that is not what it was.
#[test]
fn a_query_goes_through_a_service() {
    let client = digits(IMAGES);
    let folder = client.path();
    succeed(folder, PLANNED);
    let served = Served::start(folder, "--program served.program --listen 127.0.0.1:0");
    let query = format!("query --server {} --model mnist-1 --keys keys", served.url);
    let report = json(folder, &format!("{query} --input digits.idx --out labels.csv --scores"));
    assert_eq!((&report["images"], &report["batches"]), (&IMAGES.into(), &1.into()));
    assert_eq!(report["encrypted"]["accuracy"], Value::Null);
    for part in ["prepare", "keygen", "encrypt", "upload", "wait", "download", "decrypt", "total"] {
        assert!(report["seconds"][part].as_f64().is_some_and(|seconds| seconds > 0.0), "{part}: {report}");
    }
    let truth: Vec<u32> = fs::read(folder.join("labels.idx")).expect("labels")[8..].iter().map(|&l| l.into()).collect();
    assert!(agreement(&labels(&folder.join("labels.csv")), &truth) >= 0.85);
    assert!(fs::read_to_string(folder.join("labels.csv")).expect("written").starts_with("index,label,score_0,"));

    // The same keys again, on images that are known by their name; nothing is left with the service.
    let report = json(folder, &format!("{query} --images 5"));
    assert_eq!((&report["dataset"], &report["images"]), (&"mnist-test".into(), &5.into()));
    assert!(report["encrypted"]["correct"].as_u64().is_some_and(|correct| correct >= 4), "{report}");
    for kind in ["uploads", "results"] {
        assert_eq!(fs::read_dir(folder.join("state").join(kind)).expect("a folder").count(), 0, "{kind}");
    }
    assert_eq!(fs::read_dir(folder.join("state/keys")).expect("a folder").count(), 1);

    // Another process cannot use the same state, and this one ends in order.
    let twice = command(folder, "serve --program served.program --state state --listen 127.0.0.1:0");
    assert!(failure(twice, 1).contains("another process"));
    served.stop();

    // The same network, planned otherwise: whoever pinned the spec is not served without saying so.
    succeed(folder, "plan --model mnist-1 --batch 4 --tolerance 1% --out other.program");
    let served = Served::start(folder, "--program other.program --listen 127.0.0.1:0");
    let query = format!("query --server {} --model mnist-1 --keys keys --images 5", served.url);
    let refused = failure(command(folder, &query), 1);
    assert!(refused.contains("another client spec") && refused.contains("--accept-new-spec"), "{refused}");
    let pinned = fs::read(folder.join("keys/public/client.spec")).expect("a spec");
    let accepted = command(folder, &format!("{query} --accept-new-spec")).output().expect("the binary starts");
    let said = String::from_utf8_lossy(&accepted.stderr).into_owned();
    if accepted.status.success() {
        assert_ne!(fs::read(folder.join("keys/public/client.spec")).expect("a spec"), pinned);
        succeed(folder, &query);
    } else {
        // Where the planner chose other parameters.
        assert!(said.contains("needs other keys"), "{said}");
        assert_eq!(fs::read(folder.join("keys/public/client.spec")).expect("a spec"), pinned);
    }
}

/// A client that sends requests and looks for their results later.
struct Batch {
    client: Client,
    keys: Keys,
}

impl Batch {
    fn remote(served: &Served) -> Remote {
        let patience = Duration::from_secs(60);
        let options = RemoteOptions { url: served.url.clone(), token: None, authority: None, patience };
        Remote::new(options).expect("an address")
    }

    fn send(&self, remote: &Remote, images: &[f32]) -> String {
        let [mut public, mut evaluation] = [const { Vec::new() }; 2];
        self.client.write_public_key(&self.keys.public, &mut public).expect("memory takes all");
        self.client.write_evaluation_keys(&self.keys.evaluation, &mut evaluation).expect("memory takes all");
        let key = remote.register_keys("mnist-1", &public, &evaluation).expect("registered");
        let spool = Spool::new(tempfile::tempfile().expect("a file"));
        let mut request = Vec::new();
        self.client.encrypt(&self.keys, images, &mut request, Watch::default()).expect("valid images");
        std::io::Write::write_all(&mut spool.writer(), &request).expect("written");
        let upload = remote.create_upload(&key, request.len() as u64).expect("an upload");
        remote.upload(&upload, request.len() as u64, &spool, &mut |_| {}).expect("uploaded");
        remote.submit(&upload).expect("accepted").id
    }

    fn result(&self, remote: &Remote, job: &str, images: usize) -> Vec<u8> {
        let spec = self.client.spec();
        let length = ciphertexts_len(spec.params(), &CiphertextLayout::result(spec), images as u64);
        let mut file: File = tempfile::tempfile().expect("a file");
        remote.fetch(job, length, &file, &mut |_| {}).expect("fetched");
        let mut bytes = Vec::new();
        file.rewind().expect("a file");
        file.read_to_end(&mut bytes).expect("read");
        bytes
    }
}

/// Killed at many moments, and once stopped in order: every accepted job is computed once, and no half-written result is served.
#[test]
fn accepted_jobs_survive_kill_9() {
    const JOBS: usize = 4;
    const KILLS: u64 = 6;

    let folder = digits(IMAGES);
    let folder = folder.path();
    succeed(folder, PLANNED);
    succeed(folder, "plan --model mnist-1 --batch 4 --write-spec client.spec");
    let serve = "--program served.program --listen 127.0.0.1:0 --grace 0";
    let client = Client::read_spec(File::open(folder.join("client.spec")).expect("a spec")).expect("a valid spec");
    let keys = client.generate_keys().expect("randomness");
    let batch = Batch { client, keys };
    let pixels = fs::read(folder.join("digits.idx")).expect("digits");
    let pixels: Vec<f32> = pixels[16..].iter().map(|&pixel| f32::from(pixel) / 255.0).collect();

    let served = Served::start(folder, serve);
    let remote = Batch::remote(&served);
    let jobs: Vec<String> = (0..JOBS).map(|_| batch.send(&remote, &pixels)).collect();
    let mut served = served;
    for kill in 0..KILLS {
        // Spread over what a start and a job take.
        thread::sleep(Duration::from_millis(37 * kill * kill));
        if kill % 3 == 2 {
            served.stop()
        } else {
            served.kill()
        }
        served = Served::start(folder, serve);
    }
    let remote = Batch::remote(&served);
    let mut results = Vec::new();
    for job in &jobs {
        remote.wait(job, &mut |_| {}).expect("done");
        results.push(batch.result(&remote, job, IMAGES));
    }
    let truth: Vec<u32> = fs::read(folder.join("labels.idx")).expect("labels")[8..].iter().map(|&l| l.into()).collect();
    for result in &results {
        let labels = batch.client.decrypt(&batch.keys.secret, &result[..], Watch::default()).expect("scores").labels;
        assert!(agreement(&labels, &truth) >= 0.85, "{labels:?}");
    }
    // None is computed again, nor changed, by another start; and nothing else is there.
    served.kill();
    let served = Served::start(folder, serve);
    let remote = Batch::remote(&served);
    for (job, result) in jobs.iter().zip(&results) {
        remote.wait(job, &mut |_| {}).expect("still done");
        assert!(batch.result(&remote, job, IMAGES) == *result);
    }
    let count = |kind: &str| fs::read_dir(folder.join("state").join(kind)).expect("a folder").count();
    assert_eq!((count("uploads"), count("results"), count("keys")), (0, JOBS, 1));
}

#[test]
fn a_service_for_strangers_needs_tokens_and_tls() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path();
    let token = succeed(folder, "serve --new-token alice --tokens tokens.txt");
    assert!(token.starts_with("cryptodl-") && token.trim().len() == 9 + 64, "{token}");
    succeed(folder, "serve --new-token bob --tokens tokens.txt");
    let tokens = fs::read_to_string(folder.join("tokens.txt")).expect("written");
    assert_eq!(tokens.lines().count(), 2);
    assert!(!tokens.contains(token.trim()));
    let open = "serve --model mnist-1-square --state state --listen 0.0.0.0:0";
    for (arguments, words) in [
        (open.to_owned(), "--tokens"),
        (format!("{open} --tokens tokens.txt"), "--behind-proxy"),
        (format!("{open} --tokens absent.txt"), "cannot read absent.txt"),
        (format!("{open} --tokens tokens.txt --tls-cert tokens.txt --tls-key tokens.txt"), "certificate"),
        ("serve --model mnist-1-square --model mnist-1-square --state state --listen 127.0.0.1:0".into(), "two models"),
        ("serve --new-token a/b --tokens tokens.txt".into(), "no name for a tenant"),
        ("query --server http://predict.example.org --model mnist-1 --keys keys".into(), "use https"),
        ("query --server http://127.0.0.1:1 --model mnist-1 --keys keys --patience 0".into(), "does not answer"),
    ] {
        let error = failure(command(folder, &arguments), 1);
        assert!(error.contains(words), "{arguments}: {words} in\n{error}");
    }
    assert!(!folder.join("keys").exists());

    let served = Served::start(folder, "--model mnist-1-square --listen 127.0.0.1:0 --tokens tokens.txt");
    let query = format!("query --server {} --model mnist-1-square --keys keys --images 3", served.url);
    assert!(failure(command(folder, &query), 1).contains("token"));
    fs::write(folder.join("token"), &token).expect("written");
    let report = json(folder, &format!("{query} --token-file token"));
    assert_eq!(report["encrypted"]["correct"], 3);
}
