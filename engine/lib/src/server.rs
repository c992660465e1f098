//! The server's side: Programs prepared for a backend, and computations on them.

use std::any::Any;
use std::io::{Read, Write};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, ThreadId};
use std::time::Duration;

use cryptodl_core::backend::Backend;
use cryptodl_core::ckks::{
    CheckedSpec, Ciphertexts, CiphertextsInfo, EncryptionKind, EvalKeys, Params, PublicKey, Randomness,
};
use cryptodl_core::watch::Watch;
use cryptodl_core::wire::{
    Binding, CiphertextLayout, CiphertextsReader, CiphertextsWriter, read_needed_eval_keys, read_public_key,
};
use cryptodl_cpu::{Cpu, Reference};
use cryptodl_program::{CircuitPrivacy, Program};
use cryptodl_run::{Checkpoint, ComputeReport, Executor, ExpandedKeys, Rerandomisation, RunError};

use crate::placement::cpu_kernels;
use crate::{BackendChoice, CpuKernels, Error, Placement, PlacementError, default_budget};

/// Tells what a graphics driver is compiling: the kernel that takes longest, kernels that are ready, kernels in all.
pub type CompileProgress = Arc<dyn Fn(Option<&'static str>, usize, usize) + Send + Sync>;

/// What computes: one place, for any number of Programs. Requests are computed one after the other, so that the operands and results
/// of one request at a time are within the memory budget. What a prepared Program keeps comes on top: its weights, accepted keys, and
/// memory that its backend keeps for the next request.
#[derive(Clone)]
pub struct Server {
    placement: Placement,
    threads: Option<Arc<rayon::ThreadPool>>,
    #[cfg_attr(not(feature = "gpu"), expect(dead_code, reason = "nothing is compiled without a GPU"))]
    compiling: Option<CompileProgress>,
    turn: Arc<Turns>,
}

/// Whose turn it is. A thread that has it may be given other work by its pool while it waits for the computation, and that work may
/// be another request: it must not wait for itself.
#[derive(Default)]
struct Turns {
    holder: Mutex<Option<ThreadId>>,
    ended: Condvar,
}

/// The right to compute, until it is dropped.
struct Turn<'a>(&'a Turns);

impl Turns {
    /// How often whoever waits looks whether to go on.
    const LOOK: Duration = Duration::from_millis(100);

    fn take(&self, watch: Watch<'_>) -> Result<Turn<'_>, Error> {
        // A request that panicked leaves nothing behind that the next one sees.
        let mut holder = self.holder.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(thread) = *holder {
            watch.check()?;
            if thread == thread::current().id() {
                return Err(Error::Busy);
            }
            holder = self.ended.wait_timeout(holder, Self::LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
        *holder = Some(thread::current().id());
        Ok(Turn(self))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.0.holder.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.0.ended.notify_one();
    }
}

/// A Program on a [`Server`], prepared once for any number of requests.
pub struct Service {
    engine: Box<dyn Engine>,
    spec: CheckedSpec,
    circuit_privacy: Option<CircuitPrivacy>,
    fallback: Option<PlacementError>,
    threads: Option<Arc<rayon::ThreadPool>>,
    turn: Arc<Turns>,
    /// Tells its keys from those of other services.
    identity: Arc<()>,
}

/// A client's public keys on a [`Service`], expanded once for any number of its requests.
pub struct AcceptedKeys {
    public: PublicKey,
    evaluation: AcceptedEvaluationKeys,
}

/// The part of them that switches keys.
pub struct AcceptedEvaluationKeys {
    expanded: Box<dyn Any + Send + Sync>,
    service: Arc<()>,
}

/// What computes.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Machine {
    /// `cpu` or `gpu`.
    pub backend: &'static str,
    /// Which kernels.
    pub kernels: &'static str,
    /// The machine's own name.
    pub device: String,
    /// Threads of the host.
    pub threads: usize,
}

impl Machine {
    /// What computes on `backend`.
    pub fn of<B: Backend>(backend: &B) -> Self {
        Machine {
            backend: backend.name(),
            kernels: backend.kernels(),
            device: backend.device(),
            threads: rayon::current_num_threads(),
        }
    }
}

/// An executor on a backend.
struct Opened {
    engine: Box<dyn Engine>,
    /// Why it is not on the GPU, where there is one that cannot be used.
    fallback: Option<PlacementError>,
}

impl Server {
    /// At this place. A GPU is opened when a Program is prepared.
    ///
    /// # Errors
    /// The threads cannot be started.
    pub fn new(placement: Placement) -> Result<Self, Error> {
        let threads = placement.threads.map(|threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
            pool.map(Arc::new).map_err(|error| PlacementError::Threads { threads, reason: error.to_string() })
        });
        Ok(Server { placement, threads: threads.transpose()?, compiling: None, turn: Arc::default() })
    }

    /// Tells `progress` what a graphics driver is compiling.
    pub fn with_compile_progress(self, progress: CompileProgress) -> Self {
        Server { compiling: Some(progress), ..self }
    }

    /// Prepares `program`: weights and tables go to the backend, and a GPU's kernels are compiled.
    ///
    /// # Errors
    /// What was asked for cannot be had here; a memory budget below what one set needs.
    pub fn prepare(&self, program: &Program) -> Result<Service, Error> {
        // Its fields are public, and a saved one may come from anywhere.
        let spec = program.check()?;
        let work = || self.engine(program, spec.params());
        let Opened { engine, fallback } = match &self.threads {
            Some(threads) => threads.install(work)?,
            None => work()?,
        };
        Ok(Service {
            engine,
            spec,
            circuit_privacy: program.content.circuit_privacy,
            fallback,
            threads: self.threads.clone(),
            turn: self.turn.clone(),
            identity: Arc::default(),
        })
    }

    /// Opens what was asked for.
    fn engine(&self, program: &Program, params: &Params) -> Result<Opened, Error> {
        let cpu = || self.cpu(program, params);
        match (&self.placement.backend, self.placement.kernels) {
            (BackendChoice::Gpu(adapter), CpuKernels::Auto) => {
                Ok(Opened { engine: self.gpu(adapter.as_deref(), program, params)?, fallback: None })
            }
            (BackendChoice::Gpu(_), CpuKernels::Reference) => Err(PlacementError::CpuKernels("reference").into()),
            (BackendChoice::Gpu(_), CpuKernels::Named(name)) => Err(PlacementError::CpuKernels(name).into()),
            // Kernels of the CPU were named.
            (BackendChoice::Cpu, _) | (BackendChoice::Auto, CpuKernels::Reference | CpuKernels::Named(_)) => {
                Ok(Opened { engine: cpu()?, fallback: None })
            }
            (BackendChoice::Auto, CpuKernels::Auto) => match self.gpu(None, program, params) {
                Ok(engine) => Ok(Opened { engine, fallback: None }),
                Err(Error::Placement(error)) if error.is_absence() => Ok(Opened { engine: cpu()?, fallback: None }),
                Err(Error::Placement(error)) => Ok(Opened { engine: cpu()?, fallback: Some(error) }),
                Err(error) => Err(error),
            },
        }
    }

    fn cpu(&self, program: &Program, params: &Params) -> Result<Box<dyn Engine>, Error> {
        let basis = params.basis().clone();
        let budget = self.placement.memory_budget.unwrap_or_else(default_budget);
        Ok(match self.placement.kernels {
            CpuKernels::Reference => Box::new(Executor::new(program, params, Reference::new(basis), budget)?),
            CpuKernels::Auto => Box::new(Executor::new(program, params, Cpu::new(basis), budget)?),
            CpuKernels::Named(name) => {
                let cpu = Cpu::with_kernels(basis, cpu_kernels(name)?);
                Box::new(Executor::new(program, params, cpu, budget)?)
            }
        })
    }

    #[cfg(not(feature = "gpu"))]
    fn gpu(&self, _: Option<&str>, _: &Program, _: &Params) -> Result<Box<dyn Engine>, Error> {
        Err(PlacementError::NoGpu.into())
    }

    #[cfg(feature = "gpu")]
    fn gpu(&self, adapter: Option<&str>, program: &Program, params: &Params) -> Result<Box<dyn Engine>, Error> {
        use cryptodl_gpu::{Adapter, AdapterKind, CompileWatch, Compiling, Gpu, GpuOptions};

        /// Memory of a GPU that is used where nothing tells how much there is (Metal, DX12): every card that can compete with a CPU
        /// has this much. Where it does not, its driver refuses an allocation.
        const UNKNOWN_BUDGET: u64 = 3 << 30;

        let adapter = Adapter::named(adapter).map_err(PlacementError::from)?;
        let budget = self.placement.memory_budget.unwrap_or_else(|| match adapter.info().kind {
            AdapterKind::Hardware => adapter.default_budget().unwrap_or(UNKNOWN_BUDGET),
            AdapterKind::Software => default_budget(),
        });
        let mut watch = CompileWatch { limit: self.placement.compile_limit, ..CompileWatch::default() };
        if let Some(tell) = self.compiling.clone() {
            watch.progress = Arc::new(move |&Compiling { kernel, done, total }| tell(kernel, done, total));
        }
        let options = GpuOptions { watch, ..GpuOptions::new(budget) };
        let gpu = Gpu::new(&adapter, params.basis().clone(), options).map_err(PlacementError::from)?;
        // The other half is for linear maps, tables, and memory that is kept for the next tensor.
        let executor = Executor::new(program, params, gpu, budget / 2).map_err(|error| match error {
            RunError::Budget { needed, .. } => RunError::Budget { budget, needed: 2 * needed },
            other => other,
        })?;
        Ok(Box::new(executor))
    }
}

impl PlacementError {
    /// Whether there is no GPU, as opposed to one that cannot be used.
    fn is_absence(&self) -> bool {
        match self {
            PlacementError::NoGpu => true,
            #[cfg(feature = "gpu")]
            PlacementError::Gpu(error) => {
                matches!(error, cryptodl_gpu::GpuError::NoAdapter | cryptodl_gpu::GpuError::NoHardware { .. })
            }
            _ => false,
        }
    }
}

impl Service {
    /// What clients must know of the Program.
    pub fn spec(&self) -> &CheckedSpec {
        &self.spec
    }

    /// The checked parameters.
    pub fn params(&self) -> &Params {
        self.spec.params()
    }

    /// What computes.
    pub fn machine(&self) -> Machine {
        self.on_threads(|| self.engine.machine())
    }

    /// The most bytes that a set's ciphertexts take on the way, as predicted.
    pub fn peak(&self) -> u64 {
        self.engine.peak()
    }

    /// What the steps of a set that a [`Watch`] is told of compute: for each of them, names of layers of the network. Where a layer is
    /// computed in bands, several steps have its name.
    pub fn layers(&self) -> Vec<String> {
        self.engine.layers()
    }

    /// Why the CPU computes although there is a GPU and neither was named.
    pub fn fallback(&self) -> Option<&PlacementError> {
        self.fallback.as_ref()
    }

    /// How results hide the computation's noise, if the Program was planned to.
    pub fn circuit_privacy(&self) -> Option<CircuitPrivacy> {
        self.circuit_privacy
    }

    /// Takes a client's public keys and expands them on the backend.
    ///
    /// # Errors
    /// A key that the Program needs is missing; no room for it.
    pub fn accept_keys(&self, evaluation: &EvalKeys, public: &PublicKey) -> Result<AcceptedKeys, Error> {
        self.require_own(public.b.len() == self.params().basis().len() * self.params().n())?;
        Ok(AcceptedKeys { public: public.clone(), evaluation: self.accept_evaluation_keys(evaluation)? })
    }

    /// The part of [`Self::accept_keys`] that [`Self::begin`] needs.
    ///
    /// # Errors
    /// A key that the Program needs is missing; no room for it.
    pub fn accept_evaluation_keys(&self, evaluation: &EvalKeys) -> Result<AcceptedEvaluationKeys, Error> {
        for key in self.spec.evaluation_keys.iter().filter_map(|&layout| evaluation.get(layout)) {
            let digits = key.layout.digits();
            let rows = key.layout.limbs(self.params()).len() * digits.digits(digits.level);
            self.require_own(key.b.len() == rows * self.params().n())?;
        }
        let expanded = self.on_threads(|| self.engine.expand_keys(evaluation))?;
        Ok(AcceptedEvaluationKeys { expanded, service: self.identity.clone() })
    }

    /// The same from a client's files.
    ///
    /// # Errors
    /// As [`Self::accept_keys`]; a file of another kind, of other parameters, or damaged.
    pub fn read_keys(&self, evaluation: impl Read, public: impl Read) -> Result<AcceptedKeys, Error> {
        let evaluation = read_needed_eval_keys(evaluation, self.spec.params(), &self.spec.evaluation_keys)?;
        let public = read_public_key(public, self.spec.params())?;
        self.accept_keys(&evaluation, &public)
    }

    /// Classifies the encrypted images of a request. One set is in memory at a time. The result is
    /// re-randomised, so that it gives no exact equations in the weights (SECURITY.md).
    ///
    /// Requests take turns: another one waits until this one is done, also of other Programs of the same server. For circuit privacy,
    /// the sets of all requests of one client count together, whatever the Program (SECURITY.md).
    ///
    /// # Errors
    /// A request of another Program, or damaged; what the backend could not do; the response cannot be written; cancelled. What
    /// was written is then no file.
    pub fn infer(
        &self,
        keys: &AcceptedKeys,
        request: impl Read,
        response: impl Write,
        watch: Watch<'_>,
    ) -> Result<ComputeReport, Error> {
        let mut rng = Randomness::from_os().map_err(|error| RunError::Randomness(error.to_string()))?;
        let rerandomisation = Rerandomisation::Fresh { key: &keys.public, rng: &mut rng };
        self.infer_as(rerandomisation, keys, request, response, watch)
    }

    /// The same without re-randomisation, so that equal requests have equal responses: for tests only. A response shows exact
    /// equations in the weights.
    ///
    /// # Errors
    /// As [`Self::infer`]; a Program with circuit privacy, which such a response would break.
    pub fn infer_deterministic(
        &self,
        keys: &AcceptedKeys,
        request: impl Read,
        response: impl Write,
        watch: Watch<'_>,
    ) -> Result<ComputeReport, Error> {
        self.infer_as(Rerandomisation::Omitted, keys, request, response, watch)
    }

    fn infer_as(
        &self,
        rerandomisation: Rerandomisation<'_>,
        keys: &AcceptedKeys,
        request: impl Read,
        response: impl Write,
        watch: Watch<'_>,
    ) -> Result<ComputeReport, Error> {
        let mut reader = CiphertextsReader::open(request, &self.binding(), &CiphertextLayout::input(&self.spec))?;
        let mut computation = self.begin(reader.info(), &keys.evaluation, rerandomisation, watch)?;
        let layout = CiphertextLayout::result(&self.spec);
        let result = self.engine.result(reader.info());
        let mut writer = CiphertextsWriter::new(response, &self.binding(), &layout, &result)?;
        let mut set = Vec::new();
        while reader.next(&mut set)? {
            if let Some(result) = computation.push(&set)? {
                writer.put(&result)?;
            }
        }
        let (last, report) = computation.finish()?;
        if let Some(result) = last {
            writer.put(&result)?;
        }
        // A damaged request has no result.
        reader.finish()?;
        writer.finish()?;
        Ok(report)
    }

    /// Begins to classify sets that come one after the other, as `input` describes them; for callers that read and write otherwise
    /// than [`Self::infer`].
    ///
    /// # Errors
    /// Input of another layout.
    pub fn begin<'a>(
        &'a self,
        input: &CiphertextsInfo,
        keys: &'a AcceptedEvaluationKeys,
        rerandomisation: Rerandomisation<'a>,
        watch: Watch<'a>,
    ) -> Result<Computation<'a>, Error> {
        if !Arc::ptr_eq(&self.identity, &keys.service) {
            let (expected, actual) = ("keys that it has accepted".into(), "got those of another service".into());
            return Err(RunError::EvalKey { expected, actual }.into());
        }
        // Nothing but a flood hides the noise of such a Program's results.
        if self.circuit_privacy.is_some() && matches!(rerandomisation, Rerandomisation::Omitted) {
            let (expected, actual) = ("one with a flood".into(), "none".to_string());
            return Err(RunError::Input { field: "re-randomisation", actual, expected }.into());
        }
        let turn = self.turn.take(watch)?;
        let steps = self.engine.begin(input, &*keys.expanded, rerandomisation, watch)?;
        Ok(Computation { steps, service: self, _turn: turn })
    }

    /// What the sets of a result are, for such an input.
    pub fn result(&self, input: &CiphertextsInfo) -> CiphertextsInfo {
        self.engine.result(input)
    }

    /// Classifies what is all in memory, and goes on from `checkpoint` where there is one.
    ///
    /// # Errors
    /// As [`Self::infer`].
    pub fn compute(
        &self,
        input: &Ciphertexts,
        keys: &AcceptedEvaluationKeys,
        rerandomisation: Rerandomisation<'_>,
        checkpoint: Option<&Checkpoint>,
        watch: Watch<'_>,
    ) -> Result<(Ciphertexts, ComputeReport), Error> {
        let info = input.info();
        let mut computation = self.begin(&info, keys, rerandomisation, watch)?;
        checkpoint.into_iter().for_each(|checkpoint| computation.resume(checkpoint));
        let mut sets = Vec::with_capacity(input.sets.len());
        for set in &input.sets {
            sets.extend(computation.push(set)?);
        }
        let (last, report) = computation.finish()?;
        sets.extend(last);
        Ok((Ciphertexts::new(&self.result(&info), sets), report))
    }

    /// What files of this Program belong to.
    pub fn binding(&self) -> Binding<'_> {
        Binding { program: self.spec.program, params: self.spec.params() }
    }

    /// Who encrypts.
    pub fn encryption(&self) -> EncryptionKind {
        self.spec.encryption
    }

    /// Refuses keys of other parameters.
    fn require_own(&self, own: bool) -> Result<(), RunError> {
        let (expected, actual) = ("keys of its parameters".into(), "got keys of others".into());
        if own { Ok(()) } else { Err(RunError::EvalKey { expected, actual }) }
    }

    fn on_threads<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        match &self.threads {
            Some(threads) => threads.install(work),
            None => work(),
        }
    }
}

/// A computation that takes ciphertext sets one after the other and gives each result as soon as it is there, on a device one set
/// late.
pub struct Computation<'a> {
    steps: Box<dyn Steps<'a> + 'a>,
    service: &'a Service,
    _turn: Turn<'a>,
}

impl<'a> Computation<'a> {
    /// Takes what `checkpoint` has of these sets instead of computing it, and keeps there what is
    /// computed. To be called before the first set.
    pub fn resume(&mut self, checkpoint: &'a Checkpoint) {
        self.steps.resume(checkpoint);
    }

    /// Takes the next set, and returns the next result, packed, if it is there.
    ///
    /// # Errors
    /// As [`cryptodl_run::Computation::push`].
    pub fn push(&mut self, set: &[u8]) -> Result<Option<Vec<u8>>, RunError> {
        let Computation { steps, service, .. } = self;
        service.on_threads(|| steps.push(set))
    }

    /// The last result, if it has not come before, and where the time went.
    ///
    /// # Errors
    /// As [`cryptodl_run::Computation::finish`].
    pub fn finish(self) -> Result<(Option<Vec<u8>>, ComputeReport), RunError> {
        let Computation { steps, service, .. } = self;
        service.on_threads(|| steps.finish())
    }
}

/// A [`cryptodl_run::Computation`], whatever its backend.
trait Steps<'a>: Send {
    fn resume(&mut self, checkpoint: &'a Checkpoint);

    fn push(&mut self, set: &[u8]) -> Result<Option<Vec<u8>>, RunError>;

    fn finish(self: Box<Self>) -> Result<(Option<Vec<u8>>, ComputeReport), RunError>;
}

impl<'a, B: Backend> Steps<'a> for cryptodl_run::Computation<'a, B> {
    fn resume(&mut self, checkpoint: &'a Checkpoint) {
        cryptodl_run::Computation::resume(self, checkpoint);
    }

    fn push(&mut self, set: &[u8]) -> Result<Option<Vec<u8>>, RunError> {
        cryptodl_run::Computation::push(self, set)
    }

    fn finish(self: Box<Self>) -> Result<(Option<Vec<u8>>, ComputeReport), RunError> {
        cryptodl_run::Computation::finish(*self)
    }
}

/// An [`Executor`], whatever its backend.
trait Engine: Send + Sync {
    fn expand_keys(&self, evaluation: &EvalKeys) -> Result<Box<dyn Any + Send + Sync>, RunError>;

    fn begin<'a>(
        &'a self,
        input: &CiphertextsInfo,
        keys: &'a (dyn Any + Send + Sync),
        rerandomisation: Rerandomisation<'a>,
        watch: Watch<'a>,
    ) -> Result<Box<dyn Steps<'a> + 'a>, RunError>;

    fn result(&self, input: &CiphertextsInfo) -> CiphertextsInfo;

    fn machine(&self) -> Machine;

    fn peak(&self) -> u64;

    fn layers(&self) -> Vec<String>;
}

impl<B: Backend<Tensor: 'static>> Engine for Executor<B> {
    fn expand_keys(&self, evaluation: &EvalKeys) -> Result<Box<dyn Any + Send + Sync>, RunError> {
        Ok(Box::new(Executor::expand_keys(self, evaluation)?))
    }

    fn begin<'a>(
        &'a self,
        input: &CiphertextsInfo,
        keys: &'a (dyn Any + Send + Sync),
        rerandomisation: Rerandomisation<'a>,
        watch: Watch<'a>,
    ) -> Result<Box<dyn Steps<'a> + 'a>, RunError> {
        let keys: Option<&ExpandedKeys<B::Tensor>> = keys.downcast_ref();
        let keys = keys.expect("keys of this service");
        Ok(Box::new(Executor::begin(self, input, keys, rerandomisation, watch)?))
    }

    fn result(&self, input: &CiphertextsInfo) -> CiphertextsInfo {
        Executor::result(self, input)
    }

    fn machine(&self) -> Machine {
        Machine::of(self.backend())
    }

    fn peak(&self) -> u64 {
        Executor::peak(self)
    }

    fn layers(&self) -> Vec<String> {
        Executor::layers(self)
    }
}
