//! The service itself, whatever carries its requests.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};

use crate::ServiceError;
use crate::metrics::Metrics;
use crate::model::Model;
use crate::storage::{Bounds, Id, Recovered, Store, StoreError, now};
use crate::tokens::{LOCAL, Tokens};

/// Registrations of keys at a time: each is read and checked in memory.
const REGISTRATIONS: usize = 2;

/// How a service is run.
#[derive(Clone, Debug)]
pub struct Config {
    /// The folder of its state.
    pub state: PathBuf,
    /// Who may use it; without tokens, one tenant on this machine.
    pub tokens: Option<Tokens>,
    /// What tenants may have.
    pub bounds: Bounds,
    /// Bytes of expanded evaluation keys that are kept for the next request.
    pub key_memory: u64,
    /// How long a piece of a body may take to arrive.
    pub body_timeout: Duration,
}

impl Config {
    /// With the state in `folder`, for one tenant on this machine, and default bounds.
    pub fn local(folder: impl Into<PathBuf>) -> Self {
        Config {
            state: folder.into(),
            tokens: None,
            bounds: Bounds::default(),
            key_memory: 1 << 30,
            body_timeout: Duration::from_secs(30),
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
    /// Whether there may be work: the worker sleeps until it is set.
    work: Mutex<bool>,
    woken: Condvar,
    stopping: AtomicBool,
    pub(crate) working: AtomicBool,
}

/// The job that is being computed.
pub(crate) struct Running {
    pub job: Id,
    /// Ends the computation.
    pub cancel: AtomicBool,
    pub done: AtomicUsize,
    pub total: AtomicUsize,
}

/// Who makes a request.
#[derive(Clone, Debug)]
pub(crate) struct Tenant {
    pub id: i64,
}

impl Host {
    /// Opens the state, brings it in order, and serves `models`.
    ///
    /// # Errors
    /// The state is used by another process or cannot be read; two models have one name; there is no model.
    pub fn open(config: Config, models: Vec<Model>) -> Result<Arc<Self>, ServiceError> {
        if models.is_empty() {
            return Err(ServiceError::NoModel);
        }
        for (i, model) in models.iter().enumerate() {
            if models[..i].iter().any(|other| other.name() == model.name()) {
                return Err(ServiceError::SameName(model.name().into()));
            }
        }
        let (store, recovered) = Store::open(&config.state, config.bounds.clone())?;
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
            work: Mutex::new(true),
            woken: Condvar::new(),
            stopping: AtomicBool::new(false),
            working: AtomicBool::new(false),
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
        Ok(self.store.sweep(now())?)
    }

    /// The tenant whose token this is; without tokens everybody is the same one.
    pub(crate) fn tenant(&self, token: Option<&str>) -> Option<Tenant> {
        let name = match &self.config.tokens {
            None => LOCAL,
            Some(tokens) => tokens.tenant(token?)?,
        };
        self.tenants.get(name).map(|&id| Tenant { id })
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

    /// Wakes the worker.
    pub(crate) fn wake(&self) {
        *lock(&self.work) = true;
        self.woken.notify_all();
    }

    /// Sleeps until there may be work, or `limit` has passed.
    pub(crate) fn wait_for_work(&self, limit: Duration) {
        let mut work = lock(&self.work);
        if !*work {
            work = self.woken.wait_timeout(work, limit).unwrap_or_else(PoisonError::into_inner).0;
        }
        *work = false;
    }

    /// The job that is being computed.
    pub(crate) fn running(&self) -> Option<Arc<Running>> {
        lock(&self.running).clone()
    }

    pub(crate) fn set_running(&self, running: Option<Arc<Running>>) {
        *lock(&self.running) = running;
    }

    /// No further job is begun, and readiness is denied.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.wake();
    }

    /// Interrupts the job that is being computed. It waits for the next start.
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
