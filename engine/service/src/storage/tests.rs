use std::fs;
use std::io::Write;

use super::leases::{MAX_ATTEMPTS, MAX_FAILURES};
use super::*;

const PROGRAM: &str = "p";

fn bounds() -> Bounds {
    Bounds {
        disk_per_tenant: 10_000,
        keys_per_tenant: 2,
        uploads_per_tenant: 3,
        jobs_per_tenant: 3,
        jobs: 4,
        lease_seconds: 60,
        ..Bounds::default()
    }
}

fn open(folder: &Path) -> (Store, Recovered) {
    let (store, recovered) = Store::open(folder, None, bounds()).unwrap();
    store.add_model(PROGRAM, "model").unwrap();
    (store, recovered)
}

fn register(store: &Store, tenant: i64, contents: &[u8]) -> Result<Registered, StoreError> {
    let part = store.blobs().part(BlobKind::Keys).unwrap();
    part.file().write_all(contents).unwrap();
    store.register_key(tenant, PROGRAM, part, contents.len() as u64, &blake3::hash(contents))
}

fn upload(store: &Store, tenant: i64, key: &Id, contents: &[u8]) -> Id {
    let upload = store.create_upload(tenant, key, contents.len() as u64, None).unwrap();
    let mut file = store.upload_file(&upload).unwrap();
    file.write_all(contents).unwrap();
    store.commit_upload(&upload.id, &file, contents.len() as u64).unwrap();
    upload.id
}

const ONE: NewJob = NewJob { images: 1, sets: 1, result_bytes: 10, sets_per_key: Some(5), sets_per_tenant: None };

fn accept(store: &Store, tenant: i64, key: &Id) -> Job {
    let upload = upload(store, tenant, key, b"ciphertexts");
    store.accept_job(tenant, &upload, &ONE).unwrap().job
}

/// The service's own lease of the next set.
fn next(store: &Store) -> Option<Lease> {
    store.lease_set(&[PROGRAM.into()], None, now()).unwrap().lease
}

/// A worker's.
fn take(store: &Store, worker: &str, now: i64) -> Option<Lease> {
    store.lease_set(&[PROGRAM.into()], Some(worker), now).unwrap().lease
}

fn whole(store: &Store, kind: BlobKind, contents: &[u8]) -> Whole {
    let part = store.blobs().part(kind).unwrap();
    part.file().write_all(contents).unwrap();
    part.sync().unwrap()
}

/// What happens to a job whose only set is computed.
fn finish(store: &Store, lease: &Lease) -> bool {
    let scores = whole(store, BlobKind::Sets, b"scores");
    if store.publish_set(lease.number, None, Some(scores), now()).is_err() {
        return false;
    }
    store.note_checked(&lease.job).unwrap();
    store.finish_job(&lease.job, Some((whole(store, BlobKind::Results, b"scores"), 6))).unwrap()
}

/// Fails unless a lease is refused because it is over.
#[track_caller]
fn is_over<T>(found: Result<T, StoreError>, words: &str) {
    match found {
        Err(StoreError::Conflict(why)) => assert!(why.contains(words), "{why}"),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was taken"),
    }
}

fn files(folder: &Path) -> Vec<String> {
    let mut files = Vec::new();
    for kind in ["keys", "uploads", "sets", "results"] {
        for entry in fs::read_dir(folder.join(kind)).unwrap() {
            files.push(format!("{kind}/{}", entry.unwrap().file_name().into_string().unwrap()));
        }
    }
    files.sort();
    files
}

/// The bytes of everything below the folder: nothing that was erased is found in them.
fn everything(folder: &Path) -> Vec<u8> {
    let names = ["service.sqlite3", "service.sqlite3-wal"];
    names.iter().filter_map(|name| fs::read(folder.join(name)).ok()).flatten().collect()
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[test]
fn a_state_has_one_process() {
    let folder = tempfile::tempdir().unwrap();
    let (_store, _) = open(folder.path());
    assert!(matches!(Store::open(folder.path(), None, bounds()), Err(StoreError::InUse(_))));
}

#[test]
fn the_same_keys_are_the_same_registration() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(folder.path());
    let (alice, bob) = (store.tenant("alice").unwrap(), store.tenant("bob").unwrap());
    assert_eq!(store.tenant("alice").unwrap(), alice);
    let first = register(&store, alice, b"keys").unwrap();
    let again = register(&store, alice, b"keys").unwrap();
    assert!(first.created && !again.created && first.key == again.key);
    let other = register(&store, bob, b"keys").unwrap();
    assert!(other.created && other.key.id != first.key.id);
    assert!(matches!(store.key(bob, &first.key.id), Err(StoreError::Absent("key"))));
    register(&store, alice, b"second").unwrap();
    assert!(matches!(register(&store, alice, b"third"), Err(StoreError::Quota(_))));
    // Keys that were never used make room for others.
    store.delete_key(alice, &first.key.id).unwrap();
    register(&store, alice, b"third").unwrap();
    assert_eq!(store.keys(alice).unwrap().len(), 2);
    let rows: i64 = store.db().query_row("SELECT count(*) FROM keys", [], |row| row.get(0)).unwrap();
    assert_eq!(rows, 3, "deleted keys that were never used are forgotten");
    assert_eq!(files(folder.path()).len(), 3);
}

/// Nobody gets more evaluations by deleting keys and registering them, or others, again.
#[test]
fn evaluations_outlive_keys() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(folder.path());
    let tenant = store.tenant("alice").unwrap();
    let key = register(&store, tenant, b"keys").unwrap().key.id;
    for sets in [3, 2] {
        let upload = upload(&store, tenant, &key, b"ciphertexts");
        store.accept_job(tenant, &upload, &NewJob { sets, ..ONE }).unwrap();
        let leases: Vec<Lease> = std::iter::from_fn(|| next(&store)).collect();
        assert_eq!(leases.len(), sets as usize);
        assert!(leases[1..].iter().all(|lease| !finish(&store, lease)), "sets are left");
        assert!(finish(&store, &leases[0]));
        store.delete_job(tenant, &leases[0].job).unwrap();
    }
    let full = upload(&store, tenant, &key, b"ciphertexts");
    let refused = |found: Result<Accepted, StoreError>, words: &str| match found {
        Err(StoreError::Quota(why)) => assert!(why.contains(words), "{why}"),
        other => panic!("{other:?}"),
    };
    refused(store.accept_job(tenant, &full, &ONE), "5 of 5 sets");
    store.delete_upload(tenant, &full).unwrap();
    store.delete_key(tenant, &key).unwrap();
    let again = register(&store, tenant, b"keys").unwrap();
    assert_eq!((again.created, &again.key.id, again.key.sets), (true, &key, 5));
    let full = upload(&store, tenant, &key, b"ciphertexts");
    refused(store.accept_job(tenant, &full, &ONE), "5 of 5 sets");
    // A second key starts at nothing, but not where all keys count together; and there is no third.
    let second = register(&store, tenant, b"second").unwrap().key.id;
    let request = upload(&store, tenant, &second, b"ciphertexts");
    refused(store.accept_job(tenant, &request, &NewJob { sets_per_tenant: Some(5), ..ONE }), "all your keys together");
    store.accept_job(tenant, &request, &ONE).unwrap();
    store.delete_upload(tenant, &full).unwrap();
    store.delete_key(tenant, &key).unwrap();
    assert!(matches!(register(&store, tenant, b"third"), Err(StoreError::Quota(_))));
}

/// A job without a result counts nothing.
#[test]
fn failed_and_cancelled_jobs_give_their_sets_back() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(folder.path());
    let tenant = store.tenant("alice").unwrap();
    let key = register(&store, tenant, b"keys").unwrap().key.id;
    let used = || store.key(tenant, &key).unwrap().sets;
    let (first, second, third) =
        (accept(&store, tenant, &key), accept(&store, tenant, &key), accept(&store, tenant, &key));
    assert_eq!(used(), 3);
    assert_eq!(next(&store).unwrap().job, first.id);
    store.fail_job(&first.id, "damaged").unwrap();
    // It ended before: nothing is given back twice.
    store.fail_job(&first.id, "damaged").unwrap();
    assert_eq!(used(), 2);
    assert_eq!(store.cancel_job(tenant, &second.id).unwrap().state, JobState::Cancelled);
    assert_eq!(used(), 1);
    let running = next(&store).unwrap();
    assert_eq!(running.job, third.id);
    assert_eq!(store.cancel_job(tenant, &third.id).unwrap().state, JobState::Cancelled);
    // Its result comes too late, and is not published.
    assert!(!finish(&store, &running));
    assert_eq!((used(), store.job(tenant, &third.id).unwrap().state), (0, JobState::Cancelled));
    assert_eq!(files(folder.path()).len(), 1, "only the keys are left");
}

#[test]
fn turns_go_round_the_tenants() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(folder.path());
    let [alice, bob] = ["alice", "bob"].map(|name| store.tenant(name).unwrap());
    let [of_alice, of_bob] = [alice, bob].map(|tenant| register(&store, tenant, b"keys").unwrap().key.id);
    let jobs: Vec<Id> = (0..3).map(|_| accept(&store, alice, &of_alice).id).collect();
    let late = accept(&store, bob, &of_bob).id;
    assert_eq!(store.jobs_before(&late).unwrap(), 3);
    // The queue is full, for one tenant and for all.
    let request = upload(&store, bob, &of_bob, b"ciphertexts");
    assert!(matches!(store.accept_job(bob, &request, &ONE), Err(StoreError::Full(_))));
    let request = upload(&store, alice, &of_alice, b"ciphertexts");
    assert!(matches!(store.accept_job(alice, &request, &ONE), Err(StoreError::Full(_))));
    // A Program that is not served has no turn.
    assert!(store.lease_set(&["other".into()], None, now()).unwrap().lease.is_none());
    let order: Vec<Id> = std::iter::from_fn(|| next(&store)).map(|lease| lease.job).collect();
    assert_eq!(order, [jobs[0].clone(), late, jobs[1].clone(), jobs[2].clone()]);
}

/// The service goes on with the set that it has kept a part of, whoever's turn it is. Workers take turns. One is kept at a time, until
/// it is done.
#[test]
fn what_is_kept_comes_first() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(folder.path());
    let [alice, bob] = ["alice", "bob"].map(|name| store.tenant(name).unwrap());
    let [of_alice, of_bob] = [alice, bob].map(|tenant| register(&store, tenant, b"keys").unwrap().key.id);
    let [first, late] = [(alice, of_alice), (bob, of_bob)].map(|(tenant, key)| accept(&store, tenant, &key).id);
    assert_eq!(next(&store).unwrap().job, first);
    let keep = |store: &Store, job: &Id| {
        let kept = store.checkpoint(job, 0).unwrap();
        fs::create_dir(&kept).unwrap();
        fs::write(kept.join("state"), b"ciphertexts").unwrap();
        kept
    };
    let of_first = keep(&store, &first);
    drop(store);

    let (store, recovered) = open(folder.path());
    assert_eq!(recovered, Recovered { jobs: 1, leftovers: 0 });
    assert_eq!(store.blobs().bytes(BlobKind::Checkpoints).unwrap(), 11);
    let again = next(&store).unwrap();
    assert_eq!(again.job, first, "although it is the other one's turn");
    store.give_back(again.number, None, false, now()).unwrap();
    let of_worker = take(&store, "w", now()).unwrap();
    assert_eq!(of_worker.job, late);
    let of_late = keep(&store, &late);
    assert!(!of_first.exists());
    let scores = whole(&store, BlobKind::Sets, b"scores");
    store.publish_set(of_worker.number, Some("w"), Some(scores), now()).unwrap();
    assert!(!of_late.exists());
    // What is kept goes with the job.
    let of_first = keep(&store, &first);
    store.cancel_job(alice, &first).unwrap();
    assert!(!of_first.exists());
}

/// An upload is one job, however often that is asked for, and whose it is.
#[test]
fn an_upload_is_one_job() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(folder.path());
    let [alice, bob] = ["alice", "bob"].map(|name| store.tenant(name).unwrap());
    let key = register(&store, alice, b"keys").unwrap().key.id;
    assert!(matches!(store.create_upload(bob, &key, 5, None), Err(StoreError::Absent("key"))));
    let half = store.create_upload(alice, &key, 11, None).unwrap();
    assert!(matches!(store.accept_job(alice, &half.id, &ONE), Err(StoreError::Conflict(_))));
    let request = upload(&store, alice, &key, b"ciphertexts");
    assert!(matches!(store.accept_job(bob, &request, &ONE), Err(StoreError::Absent("upload"))));
    {
        let _writing = store.write_to(&request).unwrap();
        assert!(matches!(store.accept_job(alice, &request, &ONE), Err(StoreError::Busy)));
        assert!(matches!(store.delete_upload(alice, &request), Err(StoreError::Busy)));
    }
    let accepted: Vec<Accepted> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| store.accept_job(alice, &request, &ONE))).collect();
        threads.into_iter().filter_map(|thread| thread.join().unwrap().ok()).collect()
    });
    assert_eq!(accepted.iter().filter(|accepted| accepted.created).count(), 1);
    assert!(accepted.iter().all(|other| other.job.id == accepted[0].job.id));
    let job = &accepted[0].job;
    assert!(matches!(store.job(bob, &job.id), Err(StoreError::Absent("job"))));
    assert!(matches!(store.delete_job(alice, &job.id), Err(StoreError::Conflict(_))));
    assert!(matches!(store.delete_key(alice, &key), Err(StoreError::Conflict(_))));
    assert!(finish(&store, &next(&store).unwrap()));
    assert!(!store.accept_job(alice, &request, &ONE).unwrap().created);
    assert_eq!(store.key(alice, &key).unwrap().sets, 1);
}

#[test]
fn a_tenant_has_bounded_room() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(folder.path());
    let tenant = store.tenant("alice").unwrap();
    let key = register(&store, tenant, &[1; 1000]).unwrap().key.id;
    store.create_upload(tenant, &key, 8000, None).unwrap();
    assert!(matches!(store.create_upload(tenant, &key, 1001, None), Err(StoreError::Quota(_))));
    assert!(matches!(store.require_room_for_key(tenant, 1001), Err(StoreError::Quota(_))));
    assert!(matches!(store.create_upload(tenant, &key, u64::MAX, None), Err(StoreError::Quota(_))));
    store.create_upload(tenant, &key, 500, None).unwrap();
    store.create_upload(tenant, &key, 500, None).unwrap();
    assert!(matches!(store.create_upload(tenant, &key, 0, None), Err(StoreError::Full(_))));
    // Others have their own, and what was refused left nothing behind.
    let other = store.tenant("bob").unwrap();
    let key = register(&store, other, b"keys").unwrap().key.id;
    store.create_upload(other, &key, 9000, None).unwrap();
    assert_eq!(files(folder.path()).len(), 6);
}

/// After a crash: rows are right, jobs go on with the secret that they had, and nothing is left that no row knows.
#[test]
fn a_crash_loses_nothing_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (store, recovered) = open(folder.path());
    assert_eq!(recovered, Recovered::default());
    let tenant = store.tenant("alice").unwrap();
    let key = register(&store, tenant, b"keys").unwrap().key.id;
    let [first, second, third] = [0; 3].map(|_| accept(&store, tenant, &key).id);
    let secret = next(&store).unwrap().secret;
    let half = store.create_upload(tenant, &key, 100, None).unwrap();
    let mut file = store.upload_file(&half).unwrap();
    file.write_all(b"noted").unwrap();
    store.commit_upload(&half.id, &file, 5).unwrap();
    file.write_all(b"not noted").unwrap();
    // As a process leaves it that is killed: half a result, results without their rows, keys that were not registered.
    fs::write(folder.path().join("sets").join(format!("{first}.part")), "sco").unwrap();
    fs::write(folder.path().join("sets").join(set_name(&first, 0).as_str()), "scores").unwrap();
    fs::write(folder.path().join("results").join(first.as_str()), "scores").unwrap();
    fs::write(folder.path().join("keys").join(Id::fresh().unwrap().as_str()), "keys").unwrap();
    fs::write(folder.path().join("uploads").join(Id::fresh().unwrap().as_str()), "").unwrap();
    drop(store);

    let (store, recovered) = open(folder.path());
    assert_eq!(recovered, Recovered { jobs: 1, leftovers: 5 });
    assert_eq!(store.job(tenant, &first).unwrap().state, JobState::Queued);
    let found = store.upload(tenant, &half.id).unwrap();
    assert_eq!((found.received, store.upload_file(&found).unwrap().metadata().unwrap().len()), (5, 5));
    let again = next(&store).unwrap();
    assert!(again.job == first && again.secret == secret);
    assert!(finish(&store, &again));
    assert!(!finish(&store, &again), "it is done once");
    drop(store);

    let (store, recovered) = open(folder.path());
    assert_eq!(recovered, Recovered::default());
    assert!(store.blobs().path(BlobKind::Results, &first).exists());
    assert_eq!(next(&store).unwrap().job, second);
    fs::remove_file(folder.path().join("uploads").join(store.job(tenant, &third).unwrap().upload.as_str())).unwrap();
    drop(store);

    let (store, _) = open(folder.path());
    let lost = store.job(tenant, &third).unwrap();
    assert!(lost.state == JobState::Failed && lost.error.unwrap().contains("lost"));
    assert_eq!(next(&store).unwrap().job, second);
    assert!(next(&store).is_none());
}

/// One set that always ends whoever computes it does not do so for ever.
#[test]
fn attempts_are_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(folder.path());
    let tenant = store.tenant("alice").unwrap();
    let key = register(&store, tenant, b"keys").unwrap().key.id;
    let job = accept(&store, tenant, &key).id;
    // A stop in good order is no failed attempt.
    for _ in 0..20 {
        store.give_back(next(&store).unwrap().number, None, false, now()).unwrap();
        assert_eq!(store.job(tenant, &job).unwrap().state, JobState::Queued);
    }
    let mut clock = now();
    for attempt in 0..MAX_ATTEMPTS {
        if attempt % 2 == 0 {
            let lease = take(&store, "w", clock).unwrap();
            store.give_back(lease.number, Some("w"), true, clock).unwrap();
        } else {
            // A worker that is never heard of again.
            take(&store, "w", clock).unwrap();
            clock += 60;
        }
    }
    let turn = store.lease_set(&[PROGRAM.into()], Some("w"), clock).unwrap();
    assert!(turn.lease.is_none() && turn.failed == [job.clone()]);
    let failed = store.job(tenant, &job).unwrap();
    assert_eq!(failed.state, JobState::Failed);
    assert!(failed.error.unwrap().contains("begun 16 times"));
    assert_eq!(files(folder.path()).len(), 1, "only the keys are left");
}

/// A worker that says why it cannot compute a set is not asked for ever, and the tenant reads the last reason.
#[test]
fn failures_are_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(folder.path());
    let tenant = store.tenant("alice").unwrap();
    let key = register(&store, tenant, b"keys").unwrap().key.id;
    let request = upload(&store, tenant, &key, b"ciphertexts");
    let job = store.accept_job(tenant, &request, &NewJob { sets: 2, ..ONE }).unwrap().job.id;
    for failure in 1..=MAX_FAILURES {
        assert_eq!(store.job(tenant, &job).unwrap().state, JobState::Queued);
        let lease = take(&store, "w", 0).unwrap();
        assert_eq!(lease.set, 0);
        let (of, failed) = store.fail_set(lease.number, Some("w"), &format!("reason {failure}"), 1).unwrap();
        assert_eq!((of, failed), (job.clone(), failure == MAX_FAILURES));
        is_over(store.fail_set(lease.number, Some("w"), "again", 1), "is over");
    }
    let error = store.job(tenant, &job).unwrap().error.unwrap();
    assert_eq!(error, "set 0 of this job failed 3 times, at last because: reason 3");
    assert_eq!(store.key(tenant, &key).unwrap().sets, 0);
    assert!(take(&store, "w", 2).is_none());
}

/// The life of a lease, with a clock of our own.
#[test]
fn a_lease_is_renewed_or_expires() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(folder.path());
    let tenant = store.tenant("alice").unwrap();
    let key = register(&store, tenant, b"keys").unwrap().key.id;
    let job = accept(&store, tenant, &key).id;
    let first = take(&store, "a", 1000).unwrap();
    assert_eq!((first.set, first.seconds), (0, 60));
    assert!(take(&store, "b", 1059).is_none(), "somebody has it");
    assert_eq!(store.fleet(&[PROGRAM.into()], 1059).unwrap().leased, 1);
    assert_eq!(store.renew_lease(first.number, Some("a"), 1059).unwrap(), 60);
    assert!(take(&store, "b", 1118).is_none(), "it was renewed");
    // Nobody else may speak for it.
    is_over(store.renew_lease(first.number, Some("b"), 1060), "is over");
    is_over(store.renew_lease(first.number, None, 1060), "is over");
    assert!(matches!(store.renew_lease(first.number + 1, Some("a"), 1060), Err(StoreError::Absent("lease"))));
    assert!(matches!(store.renew_lease(0, Some("a"), 1060), Err(StoreError::Absent("lease"))));
    assert!(matches!(store.renew_lease(-1, Some("a"), 1060), Err(StoreError::Absent("lease"))));
    // It expires, also if nobody else has asked for the set.
    is_over(store.renew_lease(first.number, Some("a"), 1119), "expired 0 seconds ago");
    is_over(
        store.publish_set(first.number, Some("a"), Some(whole(&store, BlobKind::Sets, b"late")), 1125),
        "expired 6 seconds",
    );
    assert_eq!(store.fleet(&[PROGRAM.into()], 1119).unwrap().waiting, 1);

    // The next one has a higher number, and the first cannot do anything any more.
    let second = take(&store, "b", 1130).unwrap();
    assert!(second.number > first.number && second.job == job && second.secret == first.secret);
    let late = || whole(&store, BlobKind::Sets, b"late");
    is_over(store.publish_set(first.number, Some("a"), Some(late()), 1131), "somebody else has its set");
    is_over(store.give_back(first.number, Some("a"), false, 1131), "is over");
    is_over(store.fail_set(first.number, Some("a"), "late", 1131), "is over");
    store.publish_set(second.number, Some("b"), Some(whole(&store, BlobKind::Sets, b"scores")), 1189).unwrap();
    // Once more by who did it changes nothing; by who came late it is refused still.
    store.publish_set(second.number, Some("b"), Some(whole(&store, BlobKind::Sets, b"other")), 1190).unwrap();
    is_over(store.publish_set(first.number, Some("a"), Some(late()), 1190), "is over");
    is_over(store.renew_lease(second.number, Some("b"), 1190), "is over");
    is_over(store.give_back(second.number, Some("b"), true, 1190), "is over");
    let scores = store.blobs().path(BlobKind::Sets, &set_name(&job, 0));
    assert_eq!(fs::read(scores).unwrap(), b"scores");
    assert!(take(&store, "c", 99_999).is_none(), "what is done is done");

    // Nothing is published before the request was found undamaged.
    let chore = store.next_chore(&[PROGRAM.into()]).unwrap();
    assert!(matches!(chore, Some(Chore::Check(of)) if of.id == job));
    store.note_checked(&job).unwrap();
    let chore = store.next_chore(&[PROGRAM.into()]).unwrap();
    assert!(matches!(chore, Some(Chore::Join(of)) if of.id == job));
    assert!(store.finish_job(&job, Some((whole(&store, BlobKind::Results, b"scores"), 6))).unwrap());
    assert!(!store.finish_job(&job, Some((whole(&store, BlobKind::Results, b"others"), 6))).unwrap(), "published once");
    assert_eq!(fs::read(store.blobs().path(BlobKind::Results, &job)).unwrap(), b"scores");
    assert!(store.next_chore(&[PROGRAM.into()]).unwrap().is_none());
    is_over(store.publish_set(second.number, Some("b"), Some(late()), 1200), "the job has ended");
    assert_eq!(files(folder.path()).len(), 2, "keys and result");
}

/// What was linked before a crash, and is not in the rows, is the same result: it is neither replaced nor an obstacle.
#[test]
fn a_result_whose_row_was_not_written_stays() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(folder.path());
    let tenant = store.tenant("alice").unwrap();
    let key = register(&store, tenant, b"keys").unwrap().key.id;
    let job = accept(&store, tenant, &key).id;
    let path = store.blobs().path(BlobKind::Sets, &set_name(&job, 0));
    fs::write(&path, "linked").unwrap();
    let lease = take(&store, "a", 0).unwrap();
    store.publish_set(lease.number, Some("a"), Some(whole(&store, BlobKind::Sets, b"again")), 1).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"linked");
    assert_eq!(store.job(tenant, &job).unwrap().sets_done, 1);
}

/// A restart ends the service's own leases, and those of workers go on with the numbers and secrets that they have.
#[test]
fn leases_of_workers_survive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(folder.path());
    let tenant = store.tenant("alice").unwrap();
    let key = register(&store, tenant, b"keys").unwrap().key.id;
    let request = upload(&store, tenant, &key, b"ciphertexts");
    let job = store.accept_job(tenant, &request, &NewJob { sets: 3, ..ONE }).unwrap().job.id;
    let start = now();
    let [own, theirs] = [next(&store).unwrap(), take(&store, "a", start).unwrap()];
    assert_eq!((own.set, theirs.set), (0, 1));
    assert!(own.secret != theirs.secret, "whoever computes a set learns nothing of the masks of another");
    drop(store);

    let (store, recovered) = open(folder.path());
    assert_eq!(recovered, Recovered { jobs: 1, leftovers: 0 });
    assert_eq!(store.job(tenant, &job).unwrap().state, JobState::Running, "a worker has one of its sets");
    is_over(store.publish_set(own.number, None, Some(whole(&store, BlobKind::Sets, b"own")), now()), "is over");
    let again = next(&store).unwrap();
    assert!(again.set == 0 && again.number > theirs.number && again.secret == own.secret);
    // All of its time, whenever it was renewed last.
    store.publish_set(theirs.number, Some("a"), Some(whole(&store, BlobKind::Sets, b"theirs")), start + 59).unwrap();
    drop(store);

    // Numbers rise for ever, and what is published stays.
    let (store, _) = open(folder.path());
    let numbers: Vec<(u64, i64)> =
        std::iter::from_fn(|| take(&store, "b", now())).map(|lease| (lease.set, lease.number)).collect();
    assert_eq!(numbers.iter().map(|(set, _)| *set).collect::<Vec<_>>(), [0, 2]);
    assert!(numbers.iter().all(|(_, number)| *number > again.number));
    assert_eq!(fs::read(store.blobs().path(BlobKind::Sets, &set_name(&job, 1))).unwrap(), b"theirs");
}

/// Many who ask at once get different sets.
#[test]
fn a_set_has_one_lease() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(folder.path());
    let tenant = store.tenant("alice").unwrap();
    let key = register(&store, tenant, b"keys").unwrap().key.id;
    let request = upload(&store, tenant, &key, b"ciphertexts");
    let sets = 40;
    store.accept_job(tenant, &request, &NewJob { sets, sets_per_key: None, ..ONE }).unwrap();
    let mut taken: Vec<(u64, i64)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|i| {
                let store = &store;
                let name = format!("worker-{i}");
                scope.spawn(move || std::iter::from_fn(|| take(store, &name, 0)).map(|l| (l.set, l.number)).collect())
            })
            .collect();
        threads.into_iter().flat_map(|thread| -> Vec<(u64, i64)> { thread.join().unwrap() }).collect()
    });
    taken.sort_unstable();
    assert_eq!(taken.iter().map(|(set, _)| *set).collect::<Vec<_>>(), (0..sets).collect::<Vec<_>>());
    let numbers: HashSet<i64> = taken.iter().map(|(_, number)| *number).collect();
    assert_eq!(numbers.len(), sets as usize);
}

/// The state that a service without leases has left.
#[test]
fn an_older_state_is_brought_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(folder.path());
    let tenant = store.tenant("alice").unwrap();
    let key = register(&store, tenant, b"keys").unwrap().key.id;
    let request = upload(&store, tenant, &key, b"ciphertexts");
    let job = store.accept_job(tenant, &request, &NewJob { sets: 2, ..ONE }).unwrap().job.id;
    store
        .db()
        .execute_batch(
            "DROP TABLE sets; DROP TABLE leases; DROP TABLE place; ALTER TABLE jobs DROP COLUMN checked;
             ALTER TABLE uploads DROP COLUMN images;
             ALTER TABLE jobs ADD COLUMN attempts INTEGER NOT NULL DEFAULT 0;
             ALTER TABLE jobs ADD COLUMN cancelling INTEGER NOT NULL DEFAULT 0;
             UPDATE jobs SET state = 'running', started = 1, attempts = 1;",
        )
        .unwrap();
    drop(store);
    let (store, _) = open(folder.path());
    assert_eq!(store.job(tenant, &job).unwrap().state, JobState::Queued);
    let sets: Vec<u64> = std::iter::from_fn(|| next(&store)).map(|lease| lease.set).collect();
    assert_eq!(sets, [0, 1]);
}

/// What has expired is gone, and secrets are wiped as soon as no attempt can follow.
#[test]
fn what_expires_is_erased() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(folder.path());
    let tenant = store.tenant("alice").unwrap();
    let key = register(&store, tenant, b"keys").unwrap().key.id;
    let job = accept(&store, tenant, &key).id;
    let half = store.create_upload(tenant, &key, 100, None).unwrap().id;
    let lease = next(&store).unwrap();
    let secret: Vec<u8> = store.db().query_row("SELECT secret FROM jobs", [], |row| row.get(0)).unwrap();
    assert_eq!(store.sweep(now()).unwrap(), 0);
    assert!(contains(&everything(folder.path()), &secret));
    assert!(finish(&store, &lease));
    store.sweep(now()).unwrap();
    assert!(!contains(&everything(folder.path()), &secret));
    let later = now() + 24 * 3600 + 1;
    {
        let _writing = store.write_to(&half).unwrap();
        assert_eq!(store.sweep(later).unwrap(), 1, "the job, and not an upload that grows");
    }
    assert_eq!(store.sweep(later).unwrap(), 1);
    assert!(matches!(store.job(tenant, &job), Err(StoreError::Absent(_))));
    assert!(matches!(store.upload(tenant, &half), Err(StoreError::Absent(_))));
    assert_eq!(files(folder.path()).len(), 1);
    assert!(!contains(&everything(folder.path()), job.as_str().as_bytes()));
    assert_eq!(store.key(tenant, &key).unwrap().sets, 1);
}

#[test]
fn names_are_no_paths() {
    for text in
        ["", "..", "../../etc/passwd", "0123456789abcdef0123456789abcde", "0123456789ABCDEF0123456789ABCDEF", "é"]
    {
        assert_eq!(Id::parse(text), None, "{text}");
    }
    let id = Id::fresh().unwrap();
    assert_eq!(Id::parse(id.as_str()), Some(id.clone()));
    assert_ne!(Id::fresh().unwrap(), id);
    assert_ne!(Id::derived(&[b"a", b"b"]), Id::derived(&[b"ab", b""]));
}
