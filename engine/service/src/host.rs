//! The service itself, whatever carries its requests.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cryptodl::Thrift;
use tokio::sync::{Semaphore, watch};

use crate::ServiceError;
use crate::metrics::Metrics;
use crate::model::Model;
use crate::storage::{BlobKind, Bounds, Id, Lease, MAX_OBJECT, Objects, Recovered, Store, StoreError, now};
use crate::tokens::{LOCAL, Role, Tokens};

/// Registrations of keys at a time: each is read and checked in memory.
const REGISTRATIONS: usize = 2;

/// How a service is run.
#[derive(Clone, Debug)]
pub struct Config {
    /// The folder of its state.
    pub state: PathBuf,
    /// Where keys, requests and results are, if not in files of the state.
    pub store: Option<Arc<Objects>>,
    /// Who may use it; without tokens, one tenant on this machine.
    pub tokens: Option<Tokens>,
    /// What tenants may have.
    pub bounds: Bounds,
    /// Bytes of expanded evaluation keys that are kept for the next request.
    pub key_memory: u64,
    /// How long a piece of a body may take to arrive.
    pub body_timeout: Duration,
    /// When what is done of a set is kept, so that it goes on there after an interruption.
    pub checkpoints: Thrift,
    /// Results are not masked, so that equal requests have equal results: for tests only. They show exact equations in the weights.
    pub insecure_deterministic: bool,
}

impl Config {
    /// With the state in `folder`, for one tenant on this machine, and default bounds.
    pub fn local(folder: impl Into<PathBuf>) -> Self {
        Config {
            state: folder.into(),
            store: None,
            tokens: None,
            bounds: Bounds::default(),
            key_memory: 1 << 30,
            body_timeout: Duration::from_secs(30),
            checkpoints: Thrift::default(),
            insecure_deterministic: false,
        }
    }
}

/// Models, the state of all jobs, and who may see what of it.
pub struct Host {
    pub(crate) store: Store,
    pub(crate) models: Vec<Model>,
    pub(crate) config: Config,
    pub(crate) metrics: Metrics,
    pub(crate) registrations: Semaphore,
    recovered: Recovered,
    /// Numbers of all tenants by their names.
    tenants: HashMap<String, i64>,
    /// Counts changes of jobs, for whoever waits for one.
    changed: watch::Sender<u64>,
    running: Mutex<Option<Arc<Running>>>,
    held: Mutex<HashMap<i64, Held>>,
    /// When jobs were begun, as far as this process has seen it.
    begun: Mutex<HashMap<Id, Instant>>,
    work: Bell,
    stopping: AtomicBool,
    /// Threads that compute, or make results of sets.
    pub(crate) working: AtomicUsize,
}

/// Tells threads and tasks that there may be work.
struct Bell {
    rings: Mutex<u64>,
    rung: Condvar,
    tasks: watch::Sender<u64>,
}

/// The set that this process computes.
pub(crate) struct Running {
    pub job: Id,
    /// Ends the computation.
    pub cancel: AtomicBool,
}

/// A set that somebody computes, as far as this process was told.
pub(crate) struct Held {
    pub job: Id,
    pub set: u64,
    pub model: String,
    pub since: Instant,
    /// Steps that are done, and all of them.
    pub done: usize,
    pub total: usize,
    /// The layer that is being computed, where it is known.
    pub layer: Option<String>,
}

/// How far the sets of a job are that are being computed.
#[derive(Default)]
pub(crate) struct Steps {
    /// Steps that are done.
    pub done: usize,
    /// The most that one set has.
    pub of_a_set: usize,
    /// The layer that is being computed of the first of these sets, where it is known.
    pub layer: Option<String>,
}

/// Who makes a request.
#[derive(Clone, Debug)]
pub(crate) struct Tenant {
    pub id: i64,
}

/// A worker that makes a request, by the name of its token.
#[derive(Clone, Debug)]
pub(crate) struct Worker {
    pub name: String,
}

/// Who makes a request.
pub(crate) enum Caller {
    Tenant(Tenant),
    Worker(Worker),
    /// Without tokens everybody is both.
    Local(Tenant, Worker),
}

impl Host {
    /// Opens the state, brings it in order, and serves `models`.
    ///
    /// # Errors
    /// The state is used by another process or cannot be read; two models have one name; there is no model; a model is not for the
    /// store.
    pub fn open(config: Config, mut models: Vec<Model>) -> Result<Arc<Self>, ServiceError> {
        if models.is_empty() {
            return Err(ServiceError::NoModel);
        }
        for (i, model) in models.iter().enumerate() {
            if models[..i].iter().any(|other| other.name() == model.name()) {
                return Err(ServiceError::SameName(model.name().into()));
            }
        }
        if config.insecure_deterministic
            && let Some(model) = models.iter().find(|model| model.hides_noise())
        {
            return Err(ServiceError::Unmasked(model.name().into()));
        }
        if config.store.is_some() {
            for model in &mut models {
                if model.service().is_some() {
                    return Err(ServiceError::StoreIsForWorkers(model.name().into()));
                }
                let largest = model.keys_len().max(model.view().bytes.request);
                if largest > MAX_OBJECT {
                    return Err(ServiceError::LargeObject(model.name().into(), largest));
                }
                model.keep_in_store();
            }
        }
        let (store, recovered) = Store::open(&config.state, config.store.clone(), config.bounds.clone())?;
        for model in &models {
            store.add_model(model.program(), model.name())?;
        }
        let names: Vec<&str> = config.tokens.as_ref().map_or(vec![LOCAL], |tokens| tokens.tenants().collect());
        let tenant = |name: &str| Ok::<_, StoreError>((name.to_owned(), store.tenant(name)?));
        let tenants = names.into_iter().map(tenant).collect::<Result<_, _>>()?;
        let host = Host {
            store,
            models,
            config,
            metrics: Metrics::new()?,
            registrations: Semaphore::new(REGISTRATIONS),
            recovered,
            tenants,
            changed: watch::channel(0).0,
            running: Mutex::default(),
            held: Mutex::default(),
            begun: Mutex::default(),
            work: Bell { rings: Mutex::default(), rung: Condvar::new(), tasks: watch::channel(0).0 },
            stopping: AtomicBool::new(false),
            working: AtomicUsize::new(0),
        };
        host.metrics.pending(host.store.pending_jobs()?);
        Ok(Arc::new(host))
    }

    /// What was found at the start.
    pub fn recovered(&self) -> Recovered {
        self.recovered
    }

    /// All models.
    pub fn models(&self) -> &[Model] {
        &self.models
    }

    /// Removes what has expired.
    ///
    /// # Errors
    /// The database or a file fails.
    pub fn sweep(&self) -> Result<usize, ServiceError> {
        self.forget_expired_leases()?;
        Ok(self.store.sweep(now())?)
    }

    /// Removes from the store what no row knows.
    ///
    /// # Errors
    /// The database fails; the store does not answer.
    pub fn sweep_store(&self) -> Result<usize, ServiceError> {
        Ok(self.store.sweep_objects(false)?)
    }

    /// Whose token this is; without tokens everybody is the same.
    pub(crate) fn caller(&self, token: Option<&str>) -> Option<Caller> {
        let tenant = |name: &str| self.tenants.get(name).map(|&id| Tenant { id });
        match &self.config.tokens {
            None => Some(Caller::Local(tenant(LOCAL)?, Worker { name: LOCAL.into() })),
            Some(tokens) => match tokens.holder(token?)? {
                (name, Role::Tenant) => Some(Caller::Tenant(tenant(name)?)),
                (name, Role::Worker) => Some(Caller::Worker(Worker { name: name.into() })),
            },
        }
    }

    /// The model of this name.
    pub(crate) fn model(&self, name: &str) -> Option<&Model> {
        self.models.iter().find(|model| model.name() == name)
    }

    /// The model of this Program.
    pub(crate) fn model_of(&self, program: &str) -> Option<&Model> {
        self.models.iter().find(|model| model.program() == program)
    }

    /// Tells everybody who waits that a job is in another state.
    pub(crate) fn job_changed(&self) {
        self.changed.send_modify(|count| *count = count.wrapping_add(1));
        if let Ok(pending) = self.store.pending_jobs() {
            self.metrics.pending(pending);
        }
    }

    /// Changes of jobs from now on.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Digests of all Programs.
    pub(crate) fn programs(&self) -> Vec<String> {
        self.models.iter().map(|model| model.program().to_owned()).collect()
    }

    /// Tells everybody who waits for work that there may be some.
    pub(crate) fn wake(&self) {
        *lock(&self.work.rings) += 1;
        self.work.rung.notify_all();
        self.work.tasks.send_modify(|rings| *rings = rings.wrapping_add(1));
    }

    /// Rings from now on, for a task.
    pub(crate) fn rings(&self) -> watch::Receiver<u64> {
        self.work.tasks.subscribe()
    }

    /// Sleeps until there may be work that came after ring number `heard`, or `limit` has passed.
    pub(crate) fn wait_for_work(&self, heard: &mut u64, limit: Duration) {
        let mut rings = lock(&self.work.rings);
        if *rings == *heard {
            rings = self.work.rung.wait_timeout(rings, limit).unwrap_or_else(PoisonError::into_inner).0;
        }
        *heard = *rings;
    }

    /// Somebody computes a set from now on.
    pub(crate) fn begin_set(&self, lease: &Lease) {
        let model = self.model_of(&lease.program).map_or("none", Model::name).to_owned();
        self.metrics.leased(&model);
        let since = Instant::now();
        lock(&self.begun).entry(lease.job.clone()).or_insert(since);
        // Whoever had the set before was not heard of in time.
        let before = |held: &Held| held.job == lease.job && held.set == lease.set;
        let expired = lock(&self.held).iter().find(|(_, held)| before(held)).map(|(&number, _)| number);
        expired.into_iter().for_each(|number| self.end_set(number, "expired"));
        let held = Held { job: lease.job.clone(), set: lease.set, model, since, done: 0, total: 0, layer: None };
        let mut all = lock(&self.held);
        all.insert(lease.number, held);
        self.metrics.leases(all.len());
    }

    /// Nobody computes it any more.
    pub(crate) fn end_set(&self, lease: i64, outcome: &'static str) {
        let mut all = lock(&self.held);
        if let Some(held) = all.remove(&lease) {
            self.metrics.lease_ended(&held.model, outcome, held.since.elapsed());
        }
        self.metrics.leases(all.len());
    }

    /// How far the computation of a set is, and which layer is next.
    pub(crate) fn progress_set(&self, lease: &Lease, done: usize, total: usize, layer: Option<&str>) {
        if !lock(&self.held).contains_key(&lease.number) {
            // It was given before this process was started.
            self.begin_set(lease);
        }
        if let Some(held) = lock(&self.held).get_mut(&lease.number) {
            (held.done, held.total, held.layer) = (done, total, layer.map(Into::into));
        }
    }

    /// How far those of a job's sets are that are being computed.
    pub(crate) fn progress(&self, job: &Id) -> Steps {
        let held = lock(&self.held);
        let mut of_job: Vec<&Held> = held.values().filter(|held| held.job == *job).collect();
        of_job.sort_by_key(|held| held.set);
        of_job.into_iter().fold(Steps::default(), |steps, held| Steps {
            done: steps.done + held.done,
            of_a_set: steps.of_a_set.max(held.total),
            layer: steps.layer.or_else(|| held.layer.clone()),
        })
    }

    /// When a job has ended: its leases are over, and how long it took, if this process has seen its beginning.
    pub(crate) fn end_job(&self, job: &Id, outcome: &'static str) -> Option<Duration> {
        if let Some(running) = self.running().filter(|running| running.job == *job) {
            running.cancel.store(true, Ordering::SeqCst);
        }
        let of_job = lock(&self.held).iter().filter(|(_, held)| held.job == *job).map(|(&lease, _)| lease).collect();
        let of_job: Vec<i64> = of_job;
        of_job.into_iter().for_each(|lease| self.end_set(lease, outcome));
        lock(&self.begun).remove(job).map(|since| since.elapsed())
    }

    /// Leases that nobody has renewed are no longer counted.
    fn forget_expired_leases(&self) -> Result<(), StoreError> {
        let alive = self.store.leases(now())?;
        let expired: Vec<i64> = lock(&self.held).keys().filter(|lease| !alive.contains(lease)).copied().collect();
        expired.into_iter().for_each(|lease| self.end_set(lease, "expired"));
        Ok(())
    }

    /// Counts the sets that wait.
    pub(crate) fn count_fleet(&self) {
        if let Ok(fleet) = self.store.fleet(&self.programs(), now()) {
            self.metrics.sets_waiting(fleet.waiting);
        }
    }

    /// Counts what lies on the disk.
    pub(crate) fn count_disk(&self) {
        for kind in BlobKind::ALL {
            if let Ok(bytes) = self.store.blobs().bytes(kind) {
                self.metrics.disk(kind.folder(), bytes);
            }
        }
    }

    /// The set that this process computes.
    pub(crate) fn running(&self) -> Option<Arc<Running>> {
        lock(&self.running).clone()
    }

    pub(crate) fn set_running(&self, running: Option<Arc<Running>>) {
        *lock(&self.running) = running;
    }

    /// No further set is begun, and readiness is denied.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.wake();
    }

    /// Interrupts the set that this process computes. It waits for the next start, or for another worker.
    pub fn interrupt(&self) {
        if let Some(running) = self.running() {
            running.cancel.store(true, Ordering::SeqCst);
        }
    }

    /// Whether [`Self::stop`] was called.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
