//! `serve` and `work`, through the binary: a request that workers share, of which one is killed and another comes back too late.

use std::fs::{self, File};
use std::io::{Read, Seek, copy};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use cryptodl::Program;
use cryptodl_service::{Remote, RemoteError, RemoteOptions, Spool};
use serde_json::Value;

use crate::service::Served;
use crate::support::{command, digits, fail, failure, succeed};

/// Three sets of the smallest network, the last of which is not full.
const IMAGES: usize = 9000;
const SETS: u64 = 3;

/// A worker that runs as a process of its own, and says in a file what it has done.
struct Worker {
    process: Child,
    report: String,
}

impl Worker {
    fn start(folder: &Path, url: &str, name: &str, arguments: &str) -> Self {
        let report = format!("{name}.json");
        let work = format!(
            "work --server {url} --program fleet.program --insecure-deterministic --patience 60 --threads 1 --json {report} \
             {arguments}"
        );
        let process = command(folder, &work).stdout(Stdio::null()).spawn().expect("the binary starts");
        Worker { process, report }
    }

    fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.process.id().to_string()]).status().expect("kill runs");
        assert!(sent.success());
    }

    /// SIGTERM, after which it must end by itself and say what it has done.
    fn stop(mut self, folder: &Path) -> Value {
        self.signal("-TERM");
        let status = self.process.wait().expect("gone");
        assert!(status.success(), "{status}");
        let report = fs::read(folder.join(&self.report)).expect("a report");
        serde_json::from_slice(&report).expect("JSON")
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Looks until `found` says so.
#[track_caller]
fn until(what: &str, mut found: impl FnMut() -> bool) {
    let start = Instant::now();
    while !found() {
        assert!(start.elapsed().as_secs() < 120, "{what}");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn workers_share_a_request_and_may_die() {
    let made = digits(IMAGES);
    let folder = made.path();
    succeed(folder, "plan --model mnist-1-square --out fleet.program");
    succeed(folder, "keygen --program fleet.program --out keys");
    let spec = "--spec keys/public/client.spec";
    succeed(folder, &format!("encrypt --secret keys/secret/secret.key {spec} --input digits.idx --out digits.ct"));
    let infer = "infer --program fleet.program --eval-key keys/public/eval.key --input digits.ct";
    succeed(folder, &format!("{infer} --deterministic --out whole.ct"));

    let served = Served::start(
        folder,
        "--program fleet.program --listen 127.0.0.1:0 --workers-only --insecure-deterministic --lease 2",
    );
    let patience = Duration::from_secs(60);
    let remote = RemoteOptions { url: served.url.clone(), token: None, authority: None, patience };
    let remote = Remote::new(remote).expect("an address");
    let read = |name: &str| fs::read(folder.join(name)).expect("a file");
    let key = remote.register_keys("mnist-1-square", &read("keys/public/public.key"), &read("keys/public/eval.key"));
    let length = fs::metadata(folder.join("digits.ct")).expect("a file").len();
    let upload = remote.create_upload(&key.expect("registered"), length).expect("an upload");
    let spool = Spool::new(tempfile::tempfile().expect("a file"));
    copy(&mut File::open(folder.join("digits.ct")).expect("a file"), &mut spool.writer()).expect("copied");
    remote.upload(&upload, length, &spool, &mut |_| {}).expect("uploaded");
    let job = remote.submit(&upload).expect("a job").id;

    // One that is killed while it computes, and one that stands still until its lease is over. Both are slow, so that they are met in
    // the middle of a set: a worker takes a second one when it has begun to compute the first.
    let mut killed = Worker::start(folder, &served.url, "killed", "--kernels reference");
    until("a computation", || remote.fleet().expect("an answer").leased > 1);
    killed.process.kill().expect("killed");
    killed.process.wait().expect("gone");
    until("its end", || remote.fleet().expect("an answer").waiting == SETS);
    let stopped = Worker::start(folder, &served.url, "stopped", "--kernels reference");
    until("a computation", || remote.fleet().expect("an answer").leased > 1);
    stopped.signal("-STOP");
    until("its end", || remote.fleet().expect("an answer").waiting == SETS);
    // And one that computes nothing, and says later that it has.
    let program = Program::read(File::open(folder.join("fleet.program")).expect("a file")).expect("a Program");
    let late = remote.take_leases(&[program.digest().to_string()], 1, 5).expect("an answer").remove(0);

    let workers = ["first", "second"].map(|name| Worker::start(folder, &served.url, name, ""));
    remote.wait(&job, &mut |_| {}).expect("done");
    let whole = read("whole.ct");
    let mut scores = tempfile::tempfile().expect("a file");
    remote.fetch(&job, whole.len() as u64, &scores, &mut |_| {}).expect("fetched");
    let mut joined = Vec::new();
    scores.rewind().and_then(|()| scores.read_to_end(&mut joined)).expect("read");
    assert!(joined == whole, "not what `infer --deterministic` says");

    match remote.publish(&late, vec![0; late.result_bytes as usize]) {
        Err(RemoteError::Refused { status: 409, detail }) => assert!(detail.contains("is over"), "{detail}"),
        other => panic!("{other:?}"),
    }
    stopped.signal("-CONT");
    let report = stopped.stop(folder);
    assert_eq!(report["sets"], 0, "{report}");
    assert!(report["lost"].as_u64().is_some_and(|lost| lost > 0), "{report}");
    let reports = workers.map(|worker| worker.stop(folder));
    let sets: u64 = reports.iter().map(|report| report["sets"].as_u64().expect("sets")).sum();
    assert_eq!(sets, SETS, "each was published once: {reports:?}");
    let images: u64 = reports.iter().map(|report| report["images"].as_u64().expect("images")).sum();
    assert_eq!(images, IMAGES as u64);
}

#[test]
fn a_worker_that_cannot_work_says_why() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path();
    fail(folder, "work --server http://127.0.0.1:1", 2);
    fail(folder, "work --program absent.program", 2);
    for (arguments, words) in [
        ("--server http://predict.example.org --model mnist-1-square", "use https"),
        ("--server http://127.0.0.1:1 --patience 0 --model mnist-1-square", "does not answer"),
        ("--server http://127.0.0.1:1 --program absent.program", "absent.program"),
    ] {
        let error = failure(command(folder, &format!("work {arguments}")), 1);
        assert!(error.contains(words), "{arguments}: {words} in\n{error}");
    }
    let served = Served::start(folder, "--model mnist-1-square --listen 127.0.0.1:0");
    let other = format!("work --server {} --model mnist-1-square --tolerance 1%", served.url);
    let error = failure(command(folder, &other), 1);
    assert!(error.contains("none of these Programs"), "{error}");
    succeed(folder, "serve --new-token gpu-1 --worker --tokens tokens.txt");
    let tokens = fs::read_to_string(folder.join("tokens.txt")).expect("written");
    assert!(tokens.starts_with("gpu-1 ") && tokens.ends_with(" worker\n"), "{tokens}");
}
