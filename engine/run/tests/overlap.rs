//! The executor on a device: the next set is loaded while one is computed, where there is room.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, LazyLock, Mutex};
use std::time::Duration;

use cryptodl_client::{EncryptionKey, SecretKey, encrypt};
use cryptodl_core::backend::{Backend, BackendError, LinearMap, Result, Shape, SlotwiseOp, Transfers, Window};
use cryptodl_core::ckks::{Ciphertexts, EvalKeys, Params, PublicKey, Randomness};
use cryptodl_core::ring::{Automorphism, RnsBasis, UniformSource};
use cryptodl_core::watch::Watch;
use cryptodl_cpu::{Cpu, CpuTensor};
use cryptodl_plan::{PlanOptions, plan};
use cryptodl_program::Program;
use cryptodl_run::{Executor, Rerandomisation, RunError};
use cryptodl_zoo as zoo;

/// What a [`Device`] saw and holds.
#[derive(Default)]
struct Log {
    /// `unpack` and `pack` in the order of their calls.
    calls: Mutex<Vec<&'static str>>,
    called: Condvar,
    /// Tensors that exist.
    tensors: AtomicUsize,
}

impl Log {
    fn add(&self, call: &'static str) {
        self.calls.lock().unwrap().push(call);
        self.called.notify_all();
    }

    /// Waits for the `count`-th call of `unpack`. The limit only turns a hang into a failure.
    fn wait_for_unpack(&self, count: usize) {
        let unpacked = |calls: &mut Vec<&str>| calls.iter().filter(|call| **call == "unpack").count() < count;
        let calls = self.calls.lock().unwrap();
        let (_calls, timeout) = self.called.wait_timeout_while(calls, Duration::from_secs(60), unpacked).unwrap();
        assert!(!timeout.timed_out(), "set {} is not loaded while set 0 is computed", count - 1);
    }
}

/// A tensor that is counted.
struct Held(CpuTensor, Arc<Log>);

impl Drop for Held {
    fn drop(&mut self) {
        self.1.tensors.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The CPU backend in the place of a device. The first segment of a set may wait for the loading of the next, or fail.
struct Device {
    inner: Cpu,
    log: Arc<Log>,
    waits: bool,
    fails: bool,
}

impl Device {
    fn held(&self, x: CpuTensor) -> Held {
        self.log.tensors.fetch_add(1, Ordering::SeqCst);
        Held(x, Arc::clone(&self.log))
    }
}

impl Backend for Device {
    type Tensor = Held;

    fn name(&self) -> &'static str {
        "device"
    }

    fn kernels(&self) -> &'static str {
        self.inner.kernels()
    }

    fn device(&self) -> String {
        self.inner.device()
    }

    fn basis(&self) -> &Arc<RnsBasis> {
        self.inner.basis()
    }

    fn is_host(&self) -> bool {
        false
    }

    fn transfers(&self) -> Option<Transfers> {
        let sets = self.log.calls.lock().unwrap().len() as u64;
        Some(Transfers {
            uploaded_bytes: 10 * sets,
            upload_seconds: 0.5,
            downloaded_bytes: sets,
            download_seconds: 1.0,
        })
    }

    fn shape<'a>(&self, x: &'a Held) -> &'a Shape {
        x.0.shape()
    }

    fn zeros(&self, shape: Shape) -> Result<Held> {
        Ok(self.held(self.inner.zeros(shape)?))
    }

    fn upload(&self, shape: Shape, residues: &[u32]) -> Result<Held> {
        Ok(self.held(self.inner.upload(shape, residues)?))
    }

    fn download(&self, x: &Held) -> Result<Vec<u32>> {
        self.inner.download(&x.0)
    }

    fn copy(&self, x: &Held, from: &Window, out: &mut Held, to: &Window) -> Result<()> {
        self.inner.copy(&x.0, from, &mut out.0, to)
    }

    fn unpack(&self, packed: &[u8], out: &mut Held, component: usize) -> Result<bool> {
        self.log.add("unpack");
        self.inner.unpack(packed, &mut out.0, component)
    }

    fn pack(&self, x: &Held, component: usize) -> Result<Vec<u8>> {
        self.log.add("pack");
        self.inner.pack(&x.0, component)
    }

    fn expand(&self, source: &UniformSource, first_object: u32, out: &mut Held, component: usize) -> Result<()> {
        self.inner.expand(source, first_object, &mut out.0, component)
    }

    fn linear(&self, map: &LinearMap, x: &Held) -> Result<Held> {
        Ok(self.held(self.inner.linear(map, &x.0)?))
    }

    fn multiply(&self, a: &Held, b: &Held) -> Result<Held> {
        Ok(self.held(self.inner.multiply(&a.0, &b.0)?))
    }

    fn add_constant(&self, x: &mut Held, constants: &[u32]) -> Result<()> {
        self.inner.add_constant(&mut x.0, constants)
    }

    fn scale(&self, x: &mut Held, factors: &[u32]) -> Result<()> {
        self.inner.scale(&mut x.0, factors)
    }

    fn add(&self, x: &mut Held, y: &Held) -> Result<()> {
        self.inner.add(&mut x.0, &y.0)
    }

    fn accumulate(&self, acc: &mut Held, x: &Held, factors: &[u32]) -> Result<()> {
        self.inner.accumulate(&mut acc.0, &x.0, factors)
    }

    fn subtract_scale(&self, x: &mut Held, y: &Held, factors: &[u32]) -> Result<()> {
        self.inner.subtract_scale(&mut x.0, &y.0, factors)
    }

    fn accumulate_key(&self, acc: &mut Held, digit: &Held, key: &Held, row: usize) -> Result<()> {
        self.inner.accumulate_key(&mut acc.0, &digit.0, &key.0, row)
    }

    fn forward_ntt(&self, x: &mut Held) -> Result<()> {
        self.inner.forward_ntt(&mut x.0)
    }

    fn inverse_ntt(&self, x: &mut Held) -> Result<()> {
        self.inner.inverse_ntt(&mut x.0)
    }

    fn convert_basis(&self, x: &Held, limbs: &[usize]) -> Result<Held> {
        Ok(self.held(self.inner.convert_basis(&x.0, limbs)?))
    }

    fn prime_digit(&self, x: &Held, part: usize, parts: usize, limbs: &[usize]) -> Result<Held> {
        Ok(self.held(self.inner.prime_digit(&x.0, part, parts, limbs)?))
    }

    fn automorphism(&self, automorphism: Automorphism, x: &Held) -> Result<Held> {
        Ok(self.held(self.inner.automorphism(automorphism, &x.0)?))
    }

    fn synchronise(&self) -> Result<()> {
        self.inner.synchronise()
    }

    fn slotwise(&self, ops: &[SlotwiseOp<'_>], x: &Held, lanes: Range<usize>, out: &mut Held) -> Result<()> {
        let packed = self.log.calls.lock().unwrap().contains(&"pack");
        if self.waits && !packed {
            self.log.wait_for_unpack(2);
        }
        if self.fails {
            return Err(BackendError::DeviceLost { device: "test".into(), reason: "as asked".into() });
        }
        self.inner.slotwise(ops, &x.0, lanes, &mut out.0)
    }
}

/// Three sets of random pixels.
struct Request {
    program: Program,
    params: Params,
    public: PublicKey,
    input: Ciphertexts,
}

impl Request {
    fn new() -> Self {
        // The smallest ring has no room for key switching.
        let options = PlanOptions { n: Some(2048), ..PlanOptions::default() };
        let program = plan(&zoo::load("mnist-1-square").unwrap(), &options).unwrap().program;
        let spec = program.client_spec().check().unwrap();
        let params = spec.params().clone();
        let mut rng = Randomness::insecure_from_seed_for_tests(5, "overlap");
        let secret = SecretKey::generate(&params, &mut rng);
        let public = secret.public_key(&mut rng).unwrap();
        let count = 2 * params.n() + 1;
        let [low, high] = program.content.input.range.map(|bound| bound as f32);
        let pixel = |i: usize| low + (high - low) * ((i * 31) % 97) as f32 / 96.0;
        let images: Vec<f32> = (0..count * program.inputs()).map(pixel).collect();
        let key = EncryptionKey::Secret(&secret);
        let input = encrypt(&spec, key, &images, count, &mut rng, Watch::default()).unwrap();
        Request { program, params, public, input }
    }

    /// The result, re-randomised from one seed, or why there is none.
    fn compute<B: Backend>(
        &self,
        backend: B,
        input: &Ciphertexts,
        budget: u64,
    ) -> std::result::Result<Ciphertexts, RunError> {
        let executor = Executor::new(&self.program, &self.params, backend, budget)?;
        let mut rng = Randomness::insecure_from_seed_for_tests(6, "masks");
        let (result, report) = executor.compute(
            input,
            &EvalKeys::default(),
            Rerandomisation::Fresh { key: &self.public, rng: &mut rng },
            Watch::default(),
        )?;
        let transfers = report.parts.transfers;
        assert_eq!(transfers.is_some(), executor.backend().transfers().is_some());
        if let Some(transfers) = transfers {
            // Of this computation alone.
            assert_eq!((transfers.upload_seconds, transfers.uploaded_bytes), (0.0, 10 * transfers.downloaded_bytes));
        }
        Ok(result)
    }

    fn device(&self) -> Device {
        Device { inner: self.portable(), log: Arc::default(), waits: false, fails: false }
    }

    fn portable(&self) -> Cpu {
        Cpu::new(self.params.basis().clone())
    }
}

const BUDGET: u64 = 4 << 30;

static REQUEST: LazyLock<Request> = LazyLock::new(Request::new);

#[test]
fn the_next_set_is_loaded_while_one_is_computed() {
    let request = &*REQUEST;
    let expected = request.compute(request.portable(), &request.input, BUDGET).unwrap();

    let device = Device { waits: true, ..request.device() };
    let log = Arc::clone(&device.log);
    assert!(request.compute(device, &request.input, BUDGET).unwrap() == expected);
    assert_eq!(log.tensors.load(Ordering::SeqCst), 0);

    // The least budget has no room for a second set.
    let Err(RunError::Budget { needed, .. }) = request.compute(request.portable(), &request.input, 1) else {
        panic!("a tiny budget")
    };
    let device = request.device();
    let log = Arc::clone(&device.log);
    assert!(request.compute(device, &request.input, needed).unwrap() == expected);
    let packs = ["pack"].repeat(expected.components);
    assert_eq!(*log.calls.lock().unwrap(), [&["unpack"], &packs[..]].concat().repeat(3));
}

#[test]
fn errors_of_either_side_end_the_computation_and_leave_nothing() {
    let request = &*REQUEST;
    // A damaged set is found while the one before it is computed.
    let mut damaged = request.input.clone();
    damaged.sets[1].fill(255);
    let device = Device { waits: true, ..request.device() };
    let log = Arc::clone(&device.log);
    let error = request.compute(device, &damaged, BUDGET).unwrap_err();
    assert!(matches!(error, RunError::Residue { set: 1 }), "{error}");
    assert_eq!(log.tensors.load(Ordering::SeqCst), 0);

    // Where both fail, the earlier set is the reason.
    let device = Device { waits: true, fails: true, ..request.device() };
    let log = Arc::clone(&device.log);
    let error = request.compute(device, &damaged, BUDGET).unwrap_err();
    assert!(matches!(error, RunError::Backend(BackendError::DeviceLost { .. })), "{error}");
    assert_eq!(log.tensors.load(Ordering::SeqCst), 0);
}
