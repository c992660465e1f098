//! Sets that take long go on where they were.

use std::fs;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::body::Body;
use cryptodl::network::LayerOp;
use cryptodl::{
    BackendChoice, Client, Model as Networks, Placement, PlanOptions, Program, ScheduleKind, Server, Thrift, Watch,
    least_memory_budget,
};
use cryptodl_program::SplitMix;
use cryptodl_service::{KEYS_TYPE, Model};
use cryptodl_test_networks::{conv, dense, images, network, polynomial};
use tempfile::TempDir;

use crate::support::{World, copied};

/// Every step is kept.
const ALWAYS: Thrift = Thrift { least_rest: Duration::ZERO, most_share: f64::INFINITY };
/// None is kept before the computation is ended.
const AT_THE_END: Thrift = Thrift { least_rest: Duration::ZERO, most_share: 0.0 };

/// A Program whose computation takes many steps where memory is scarce.
fn program() -> &'static Program {
    static PROGRAM: OnceLock<Program> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let mut g = SplitMix(1);
        let layers = vec![
            conv(&mut g, [4, 1, 3], 1, 1),
            polynomial(&[0.1, 0.5, 0.2]),
            conv(&mut g, [4, 4, 3], 1, 1),
            polynomial(&[0.1, 0.5, 0.2]),
            LayerOp::Flatten,
            dense(&mut g, 3, 256),
        ];
        let options = PlanOptions { schedule: ScheduleKind::Layered, ..PlanOptions::default() };
        let network = Networks::from(network([1, 8, 8], layers));
        network.plan(&options, Watch::default()).expect("it fits").program
    })
}

fn service() -> cryptodl::Service {
    let spec = program().client_spec().check().expect("a valid spec");
    let memory_budget = Some(least_memory_budget(program(), spec.params()).expect("a budget"));
    let placement = Placement { backend: BackendChoice::Cpu, threads: Some(2), memory_budget, ..Placement::default() };
    Server::new(placement).expect("threads").prepare(program()).expect("room")
}

fn open(folder: Arc<TempDir>, works: bool, checkpoints: Thrift) -> World {
    let model = Model::new(service(), 2, None).expect("a spec");
    World::of(folder, model, works, |config| config.checkpoints = checkpoints)
}

/// A state with a job that waits, and the job.
fn waiting() -> (Arc<TempDir>, String) {
    let client = Client::from(program().client_spec().check().expect("a valid spec"));
    let keys = client.generate_keys().expect("randomness");
    let [mut registered, mut request] = [const { Vec::new() }; 2];
    client.write_public_key(&keys.public, &mut registered).expect("memory takes all");
    client.write_evaluation_keys(&keys.evaluation, &mut registered).expect("memory takes all");
    let pixels = images(9, [1, 8, 8], 11).into_raw_vec_and_offset().0;
    client.encrypt(&keys, &pixels, &mut request, Watch::default()).expect("valid images");
    let world = open(Arc::new(tempfile::tempdir().expect("a folder")), false, ALWAYS);
    let path = format!("/v1/models/{}/keys", world.host.models()[0].name());
    let key = world.call("POST", &path, &[("content-type", KEYS_TYPE)], registered).expect(201).json();
    let upload = world.upload(&[], key["id"].as_str().expect("an id"), &request);
    let job = world.submit(&[], &upload).expect(202).json()["id"].as_str().expect("an id").to_owned();
    (world.close(), job)
}

/// What is kept of sets.
fn kept(state: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(state.join("checkpoints")).expect("a folder");
    entries.map(|entry| entry.expect("an entry").path()).collect()
}

fn counted(world: &World, name: &str) -> f64 {
    let metrics = String::from_utf8(world.get("/metrics").expect(200).body).expect("text");
    let line = metrics.lines().find(|line| line.starts_with(name));
    line.map_or(0.0, |line| line.rsplit(' ').next().expect("a number").parse().expect("a number"))
}

const RESUMED: &str = "cryptodl_resumed_steps_total{";
const DISK: &str = "cryptodl_disk_bytes{kind=\"checkpoints\"}";

/// The result of the job, and how many of its steps were kept from before.
fn finished(world: &World, job: &str) -> (Vec<u8>, f64) {
    assert_eq!(world.ended(&[], job)["state"], "done");
    (world.get(&format!("/v1/jobs/{job}/result")).expect(200).body, counted(world, RESUMED))
}

/// A copy of `state` whose job was interrupted on its way, and at which step that was.
fn interrupted(state: &Path, job: &str, checkpoints: Thrift) -> (Arc<TempDir>, f64) {
    let layers = service().layers();
    assert!(layers.len() > 10, "{layers:?}");
    for _ in 0..5 {
        let world = open(copied(state), true, checkpoints);
        let done = loop {
            let view = world.get(&format!("/v1/jobs/{job}")).expect(200).json();
            let done = view["progress"]["done"].as_f64().unwrap_or_default();
            if done >= 2.0 || view["state"] == "done" {
                if let Some(layer) = view["progress"]["layer"].as_str() {
                    assert_eq!(layer, layers[done as usize]);
                }
                break done;
            }
        };
        let state = world.close();
        if done > 0.0 && !kept(state.path()).is_empty() {
            return (state, done);
        }
        // It was faster than this test.
    }
    panic!("never interrupted");
}

/// Interrupted on its way, a set goes on there after the next start, gives the same bytes, and leaves nothing behind.
#[test]
fn an_interrupted_set_goes_on_where_it_was() {
    let (state, job) = waiting();
    let world = open(copied(state.path()), true, Thrift::default());
    let (expected, resumed) = finished(&world, &job);
    assert_eq!(resumed, 0.0);
    // What takes less than ten minutes is not kept.
    assert!(kept(world.folder.path()).is_empty());

    for checkpoints in [ALWAYS, AT_THE_END] {
        let (state, least) = interrupted(state.path(), &job, checkpoints);
        let world = open(state, true, checkpoints);
        assert_eq!(world.host.recovered().leftovers, 0);
        let (result, resumed) = finished(&world, &job);
        assert!(result == expected);
        assert!(resumed >= least, "{resumed} steps of at least {least}");
        assert!(kept(world.folder.path()).is_empty());
    }
}

/// What is damaged, or not of this set, is not used.
#[test]
fn what_is_kept_is_checked() {
    let (state, job) = waiting();
    let (expected, _) = finished(&open(copied(state.path()), true, ALWAYS), &job);
    let (state, _) = interrupted(state.path(), &job, ALWAYS);
    for name in ["set-0.state", "request"] {
        let state = copied(state.path());
        let path = kept(state.path())[0].join(name);
        let mut bytes = fs::read(&path).expect("a file");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&path, bytes).expect("written");
        // A folder of nobody's set goes at the start.
        fs::create_dir(state.path().join("checkpoints").join("0".repeat(32))).expect("a folder");
        let world = open(state, true, ALWAYS);
        assert_eq!(world.host.recovered().leftovers, 1);
        assert!(finished(&world, &job) == (expected.clone(), 0.0), "{name}");
        assert!(kept(world.folder.path()).is_empty());
    }
}

/// What is kept of a set is counted, and goes with its job.
#[test]
fn what_is_kept_goes_with_the_job() {
    let (state, job) = waiting();
    let (state, _) = interrupted(state.path(), &job, ALWAYS);
    let world = open(state, false, ALWAYS);
    assert!(counted(&world, DISK) > 1e5, "{}", counted(&world, DISK));
    world.call("POST", &format!("/v1/jobs/{job}/cancel"), &[], Body::empty()).expect(200);
    assert!(kept(world.folder.path()).is_empty());
    assert_eq!(counted(&world, DISK), 0.0);
}
