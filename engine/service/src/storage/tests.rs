use std::fs;
use std::io::Write;

use super::jobs::MAX_ATTEMPTS;
use super::*;

const PROGRAM: &str = "p";

fn bounds() -> Bounds {
    Bounds {
        disk_per_tenant: 10_000,
        keys_per_tenant: 2,
        uploads_per_tenant: 3,
        jobs_per_tenant: 3,
        jobs: 4,
        ..Bounds::default()
    }
}

fn open(folder: &Path) -> (Store, Recovered) {
    let (store, recovered) = Store::open(folder, bounds()).unwrap();
    store.add_model(PROGRAM, "model").unwrap();
    (store, recovered)
}

fn register(store: &Store, tenant: i64, contents: &[u8]) -> Result<Registered, StoreError> {
    let part = store.blobs().part(BlobKind::Keys, &Id::fresh().unwrap()).unwrap();
    part.file().write_all(contents).unwrap();
    store.register_key(tenant, PROGRAM, part, contents.len() as u64, &blake3::hash(contents))
}

fn upload(store: &Store, tenant: i64, key: &Id, contents: &[u8]) -> Id {
    let upload = store.create_upload(tenant, key, contents.len() as u64).unwrap();
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

fn next(store: &Store) -> Option<Work> {
    store.next_job(&[PROGRAM.into()]).unwrap()
}

fn finish(store: &Store, job: &Id) -> bool {
    let part = store.blobs().part(BlobKind::Results, job).unwrap();
    part.file().write_all(b"scores").unwrap();
    store.finish_job(job, part, 6).unwrap()
}

fn files(folder: &Path) -> Vec<String> {
    let mut files = Vec::new();
    for kind in ["keys", "uploads", "results"] {
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
    assert!(matches!(Store::open(folder.path(), bounds()), Err(StoreError::InUse(_))));
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
        let work = next(&store).unwrap();
        assert!(finish(&store, &work.job.id));
        store.delete_job(tenant, &work.job.id).unwrap();
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
    assert_eq!(next(&store).unwrap().job.id, first.id);
    store.fail_job(&first.id, "damaged").unwrap();
    // It ended before: nothing is given back twice.
    store.fail_job(&first.id, "damaged").unwrap();
    assert_eq!(used(), 2);
    assert_eq!(store.cancel_job(tenant, &second.id).unwrap().state, JobState::Cancelled);
    assert_eq!(used(), 1);
    assert_eq!(next(&store).unwrap().job.id, third.id);
    let asked = store.cancel_job(tenant, &third.id).unwrap();
    assert!(asked.state == JobState::Running && asked.cancelling);
    // Its result comes too late, and is not published.
    assert!(!finish(&store, &third.id));
    store.end_cancelled_job(&third.id).unwrap();
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
    assert!(store.next_job(&["other".into()]).unwrap().is_none());
    let order: Vec<Id> = std::iter::from_fn(|| next(&store)).map(|work| work.job.id).collect();
    assert_eq!(order, [jobs[0].clone(), late, jobs[1].clone(), jobs[2].clone()]);
}

/// An upload is one job, however often that is asked for, and whose it is.
#[test]
fn an_upload_is_one_job() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(folder.path());
    let [alice, bob] = ["alice", "bob"].map(|name| store.tenant(name).unwrap());
    let key = register(&store, alice, b"keys").unwrap().key.id;
    assert!(matches!(store.create_upload(bob, &key, 5), Err(StoreError::Absent("key"))));
    let half = store.create_upload(alice, &key, 11).unwrap();
    assert!(matches!(store.accept_job(alice, &half.id, &ONE), Err(StoreError::Conflict(_))));
    let request = upload(&store, alice, &key, b"ciphertexts");
    assert!(matches!(store.accept_job(bob, &request, &ONE), Err(StoreError::Absent("upload"))));
    {
        let _writing = store.lease(&request).unwrap();
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
    next(&store).unwrap();
    assert!(finish(&store, &job.id));
    assert!(!store.accept_job(alice, &request, &ONE).unwrap().created);
    assert_eq!(store.key(alice, &key).unwrap().sets, 1);
}

#[test]
fn a_tenant_has_bounded_room() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(folder.path());
    let tenant = store.tenant("alice").unwrap();
    let key = register(&store, tenant, &[1; 1000]).unwrap().key.id;
    store.create_upload(tenant, &key, 8000).unwrap();
    assert!(matches!(store.create_upload(tenant, &key, 1001), Err(StoreError::Quota(_))));
    assert!(matches!(store.require_room_for_key(tenant, 1001), Err(StoreError::Quota(_))));
    assert!(matches!(store.create_upload(tenant, &key, u64::MAX), Err(StoreError::Quota(_))));
    store.create_upload(tenant, &key, 500).unwrap();
    store.create_upload(tenant, &key, 500).unwrap();
    assert!(matches!(store.create_upload(tenant, &key, 0), Err(StoreError::Full(_))));
    // Others have their own, and what was refused left nothing behind.
    let other = store.tenant("bob").unwrap();
    let key = register(&store, other, b"keys").unwrap().key.id;
    store.create_upload(other, &key, 9000).unwrap();
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
    let half = store.create_upload(tenant, &key, 100).unwrap();
    let mut file = store.upload_file(&half).unwrap();
    file.write_all(b"noted").unwrap();
    store.commit_upload(&half.id, &file, 5).unwrap();
    file.write_all(b"not noted").unwrap();
    // As a process leaves it that is killed: half a result, a result without its row, keys that were not registered.
    fs::write(folder.path().join("results").join(format!("{first}.part")), "sco").unwrap();
    fs::write(folder.path().join("results").join(first.as_str()), "scores").unwrap();
    fs::write(folder.path().join("keys").join(Id::fresh().unwrap().as_str()), "keys").unwrap();
    fs::write(folder.path().join("uploads").join(Id::fresh().unwrap().as_str()), "").unwrap();
    drop(store);

    let (store, recovered) = open(folder.path());
    assert_eq!(recovered, Recovered { jobs: 1, leftovers: 4 });
    let found = store.upload(tenant, &half.id).unwrap();
    assert_eq!((found.received, store.upload_file(&found).unwrap().metadata().unwrap().len()), (5, 5));
    let again = next(&store).unwrap();
    assert!(again.job.id == first && again.job.attempts == 2 && again.secret == secret);
    assert!(contains(&everything(folder.path()), &secret[..]));
    assert!(finish(&store, &first));
    assert!(!finish(&store, &first), "it is done once");
    drop(store);

    let (store, recovered) = open(folder.path());
    assert_eq!(recovered, Recovered::default());
    assert!(store.blobs().path(BlobKind::Results, &first).exists());
    assert_eq!(next(&store).unwrap().job.id, second);
    store.cancel_job(tenant, &second).unwrap();
    fs::remove_file(folder.path().join("uploads").join(store.job(tenant, &third).unwrap().upload.as_str())).unwrap();
    drop(store);

    let (store, _) = open(folder.path());
    assert_eq!(store.job(tenant, &second).unwrap().state, JobState::Cancelled, "as was asked before the crash");
    let lost = store.job(tenant, &third).unwrap();
    assert!(lost.state == JobState::Failed && lost.error.unwrap().contains("lost"));
    assert!(next(&store).is_none());
}

/// One job that always ends the process does not do so for ever.
#[test]
fn attempts_are_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(folder.path());
    let tenant = store.tenant("alice").unwrap();
    let key = register(&store, tenant, b"keys").unwrap().key.id;
    let job = accept(&store, tenant, &key).id;
    // A stop of the service itself is no failed attempt.
    for _ in 0..20 {
        next(&store).unwrap();
        store.requeue_job(&job, false).unwrap();
    }
    for _ in 0..MAX_ATTEMPTS {
        next(&store).unwrap();
        store.requeue_job(&job, true).unwrap();
    }
    assert!(next(&store).is_none());
    assert_eq!(store.job(tenant, &job).unwrap().state, JobState::Failed);
}

/// What has expired is gone, and secrets are wiped as soon as no attempt can follow.
#[test]
fn what_expires_is_erased() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(folder.path());
    let tenant = store.tenant("alice").unwrap();
    let key = register(&store, tenant, b"keys").unwrap().key.id;
    let job = accept(&store, tenant, &key).id;
    let half = store.create_upload(tenant, &key, 100).unwrap().id;
    let secret = next(&store).unwrap().secret;
    assert_eq!(store.sweep(now()).unwrap(), 0);
    assert!(contains(&everything(folder.path()), &secret[..]));
    assert!(finish(&store, &job));
    store.sweep(now()).unwrap();
    assert!(!contains(&everything(folder.path()), &secret[..]));
    let later = now() + 24 * 3600 + 1;
    {
        let _writing = store.lease(&half).unwrap();
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
