//! Flags that several commands share.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use cryptodl::{BackendChoice, CpuKernels, Placement, Thrift};
use cryptodl_core::ckks::{EncryptionKind, Randomness, SecurityLevel};
use cryptodl_network::limits::MIN_TOLERANCE;
use cryptodl_plan::{DEFAULT_BATCH, PackingKind, PlanOptions, ScheduleKind};
use cryptodl_program::{PrivacyGoal, Tolerance};

use crate::memory;

/// What decides the Program. Files of one Program meet only commands with the same values.
#[derive(Args)]
#[command(next_help_heading = "Planning (equal in every command that shares files)")]
pub struct Planning {
    /// How much the planner may rearrange; `layered` only folds batch-norm and pooling, and relinearises and rescales
    /// every product
    #[arg(long, default_value = "auto", value_parser = one_of(SCHEDULE))]
    schedule: ScheduleKind,
    /// Bits of security to enforce
    #[arg(long, default_value = "128", value_parser = one_of(SECURITY))]
    security: SecurityLevel,
    /// Whose key encrypts the images: the owner's secret key (smaller files), or the public key
    #[arg(long, default_value = "secret", value_parser = one_of(ENCRYPTION))]
    encryption: EncryptionKind,
    /// Images that the schedule is optimised for
    #[arg(long, value_name = "K", default_value_t = DEFAULT_BATCH)]
    batch: usize,
    /// How images may be packed: `spread` takes a ciphertext for every pixel, `compact` several pixels of an image in one where
    /// the batch leaves half of the slots empty, `auto` where that costs less and the batch has at most 4096 images
    #[arg(long, default_value = "auto", value_parser = one_of(PACKING))]
    packing: PackingKind,
    /// Labels that may differ from those of the network in the clear, for whatever reason: weights rounded to few bits, and
    /// noise of the encryption (at most two thirds of it) [default: the model's, else 0.15%]
    #[arg(long, value_name = "P%", value_parser = percentage)]
    tolerance: Option<Tolerance>,
    /// Pin the ring dimension, a power of two
    #[arg(long)]
    n: Option<usize>,
    /// Pin the number of primes in the chain
    #[arg(long, value_name = "K")]
    limbs: Option<usize>,
    /// Pin the size of the primes
    #[arg(long, value_name = "BITS")]
    prime_bits: Option<u32>,
    /// Pin the size of the integer weights, in steps of half a bit
    #[arg(long = "weight-bits", value_name = "BITS", value_parser = half_bits)]
    weight_bits: Option<f64>,
    /// Pin the scale of the input, in steps of half a bit
    #[arg(long = "input-scale-bits", value_name = "BITS", value_parser = half_bits)]
    input_log_scale: Option<f64>,
    /// Hide from the client what the computation's noise says of the model: up to K sets (of N images) for one client stay within
    /// 2^-T of what the scores alone show. Take a T of 40 or more. Costs a much larger modulus [default: off]
    #[arg(long, value_name = "K,T", value_parser = privacy_goal)]
    circuit_privacy: Option<PrivacyGoal>,
}

/// Names of schedules.
pub const SCHEDULE: [(&str, ScheduleKind); 2] = [("auto", ScheduleKind::Auto), ("layered", ScheduleKind::Layered)];
const PACKING: [(&str, PackingKind); 3] =
    [("auto", PackingKind::Auto), ("spread", PackingKind::Spread), ("compact", PackingKind::Compact)];
const ENCRYPTION: [(&str, EncryptionKind); 2] =
    [("secret", EncryptionKind::Secret), ("public", EncryptionKind::Public)];
const SECURITY: [(&str, SecurityLevel); 3] =
    [("128", SecurityLevel::Bits128), ("192", SecurityLevel::Bits192), ("256", SecurityLevel::Bits256)];

impl Planning {
    /// As the planner takes it.
    pub fn options(&self) -> PlanOptions {
        PlanOptions {
            schedule: self.schedule,
            security: self.security,
            encryption: self.encryption,
            batch: self.batch,
            packing: self.packing,
            tolerance: self.tolerance,
            n: self.n,
            limbs: self.limbs,
            prime_bits: self.prime_bits,
            weight_bits: self.weight_bits,
            input_log_scale: self.input_log_scale,
            circuit_privacy: self.circuit_privacy,
        }
    }
}

/// What decides how a Program is executed. It cannot change a bit of the result.
#[derive(Args)]
#[command(next_help_heading = "Execution (cannot change a result)")]
pub struct Execution {
    #[command(flatten)]
    pub place: Place,
    /// Which CPU kernels compute: `auto` takes the fastest that the machine has, `reference` is slow and obvious. A GPU's
    /// kernels are chosen by measuring them
    #[arg(long, default_value = "auto", value_parser = one_of(KERNELS))]
    pub kernels: CpuKernels,
    /// Memory for ciphertexts on the backend, as 2GiB, 512MiB or bytes [default: two thirds of the free memory;
    /// three quarters of a graphics card's memory]
    ///
    /// A bound, not a wish: on the CPU large networks take less, because that is faster.
    #[arg(long, value_name = "SIZE", value_parser = memory::parse_size)]
    pub memory_budget: Option<u64>,
}

/// Where to compute.
#[derive(Args)]
pub struct Place {
    /// Where to compute; `auto` takes a hardware GPU if there is one, else the CPU
    #[arg(long, default_value = "auto", value_parser = one_of(BACKEND))]
    pub backend: Backend,
    /// Compute on this GPU, by its index or a part of its name (`cryptodl devices` lists them); the only way to a software
    /// adapter
    #[arg(long, value_name = "INDEX|NAME")]
    pub adapter: Option<String>,
    #[command(flatten)]
    pub compile_timeout: CompileTimeout,
}

/// How long a graphics driver may take.
#[derive(Args)]
pub struct CompileTimeout {
    /// Give up when the graphics driver has been compiling one kernel for so many seconds; the error names the kernel
    #[arg(long = "compile-timeout", value_name = "SECONDS", default_value_t = 120,
          value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
}

impl CompileTimeout {
    /// As a time.
    pub fn limit(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

impl Place {
    /// The backend that is asked for, also by naming an adapter.
    ///
    /// # Errors
    /// The CPU and an adapter.
    pub fn backend(&self) -> Result<Backend> {
        match (self.backend, &self.adapter) {
            (Backend::Cpu, Some(_)) => bail!("--adapter names a GPU: leave it out, or leave out --backend cpu"),
            (Backend::Auto, Some(_)) => Ok(Backend::Gpu),
            (backend, _) => Ok(backend),
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
pub enum Backend {
    Auto,
    Cpu,
    Gpu,
}

const BACKEND: [(&str, Backend); 3] = [("auto", Backend::Auto), ("cpu", Backend::Cpu), ("gpu", Backend::Gpu)];
const KERNELS: [(&str, CpuKernels); 2 + cryptodl_cpu::Kernels::NAMES.len()] = {
    let mut all = [("auto", CpuKernels::Auto); 2 + cryptodl_cpu::Kernels::NAMES.len()];
    all[1] = ("reference", CpuKernels::Reference);
    let mut i = 0;
    while i < cryptodl_cpu::Kernels::NAMES.len() {
        let name = cryptodl_cpu::Kernels::NAMES[i];
        all[2 + i] = (name, CpuKernels::Named(name));
        i += 1;
    }
    all
};

impl Execution {
    /// As the library takes it.
    ///
    /// # Errors
    /// Flags that contradict each other.
    pub fn placement(&self) -> Result<Placement> {
        let backend = match self.place.backend()? {
            Backend::Auto => BackendChoice::Auto,
            Backend::Cpu => BackendChoice::Cpu,
            Backend::Gpu => BackendChoice::Gpu(self.place.adapter.clone()),
        };
        let kernels = self.kernels;
        if matches!(backend, BackendChoice::Gpu(_)) && kernels != CpuKernels::Auto {
            bail!("{CPU_KERNELS_ONLY}");
        }
        let (memory_budget, compile_limit) = (self.memory_budget, self.place.compile_timeout.limit());
        Ok(Placement { backend, kernels, memory_budget, threads: None, compile_limit })
    }
}

/// Why `--kernels` and a GPU do not go together.
pub const CPU_KERNELS_ONLY: &str = "--kernels names kernels of the CPU: leave it out, or use --backend cpu";

/// Going on where a process was killed.
#[derive(Args)]
pub struct Checkpointing {
    /// Keep in this folder what is done, so that the same command goes on there after it was killed
    ///
    /// Kept are the results of whole sets, and where more than ten minutes are left the state of the
    /// set that is computed, which is at most as large as the memory for ciphertexts. That takes at
    /// most a twentieth of the time. The folder is deleted when the result is written.
    #[arg(long = "checkpoint", value_name = "DIR")]
    pub folder: Option<PathBuf>,
    /// Keep the state after every step, for tests
    #[arg(long, hide = true, requires = "folder")]
    checkpoint_every_step: bool,
}

impl Checkpointing {
    /// When states are kept.
    pub fn thrift(&self) -> Thrift {
        thrift(self.checkpoint_every_step)
    }
}

/// When states are kept: always for tests, else where much is left to do.
pub fn thrift(every_step: bool) -> Thrift {
    match every_step {
        true => Thrift { least_rest: Duration::ZERO, most_share: f64::INFINITY },
        false => Thrift::default(),
    }
}

/// How much a file may ask for.
#[derive(Args)]
pub struct Limit {
    /// Refuse an input of more than K images before anything is done with it [default: no limit; memory does not depend on
    /// the number of images]
    #[arg(long, value_name = "K")]
    max_images: Option<usize>,
}

impl Limit {
    /// Refuses `path`, which holds `images`, if these are too many.
    pub fn check(&self, path: &Path, images: usize) -> Result<()> {
        match self.max_images {
            Some(most) if images > most => bail!(
                "{} holds {images} images, and --max-images allows {most}: raise it, or split the images",
                path.display()
            ),
            _ => Ok(()),
        }
    }
}

/// Randomness that tests can repeat. Nothing made with it is secret.
#[derive(Args, Default)]
pub struct TestSeed {
    #[arg(long, hide = true, value_name = "N")]
    insecure_test_seed: Option<u64>,
}

impl TestSeed {
    /// Randomness for `purpose`: `keygen` or `encrypt`.
    pub fn randomness(&self, purpose: &str) -> Result<Randomness> {
        self.warning_of(purpose, "nothing made with it is secret")
    }

    /// Randomness for the masks of results, and for their floods if there are any.
    pub fn masks(&self, floods: bool) -> Result<Randomness> {
        let danger = if floods {
            "two computations with one seed add the same flood, so that their difference shows what --circuit-privacy should hide"
        } else {
            "nothing made with it is secret"
        };
        self.warning_of("masks", danger)
    }

    fn warning_of(&self, purpose: &str, danger: &str) -> Result<Randomness> {
        match self.insecure_test_seed {
            None => Ok(Randomness::from_os()?),
            Some(seed) => {
                eprintln!("warning: {purpose} with --insecure-test-seed: {danger}");
                Ok(Randomness::insecure_from_seed_for_tests(seed, purpose))
            }
        }
    }
}

/// Parses one of `choices`, which help and errors list.
pub fn one_of<T, const K: usize>(choices: [(&'static str, T); K]) -> impl TypedValueParser<Value = T>
where
    T: Copy + Send + Sync + 'static,
{
    PossibleValuesParser::new(choices.map(|(name, _)| name)).map(move |name| {
        let choice = choices.iter().find(|choice| choice.0 == name);
        choice.expect("clap admits the names only").1
    })
}

fn privacy_goal(text: &str) -> Result<PrivacyGoal, String> {
    let parts = text.split_once(',').and_then(|(sets, bits)| sets.trim().parse().ok().zip(bits.trim().parse().ok()));
    let (sets, bits) = parts.ok_or("two whole numbers are needed, sets and bits, such as 64,40")?;
    Ok(PrivacyGoal { sets, bits })
}

fn percentage(text: &str) -> Result<Tolerance, String> {
    let number = text.strip_suffix('%').and_then(|number| number.trim().parse::<f64>().ok());
    let percent = number.ok_or("a percentage is needed, such as 1% or 0.15%")?;
    let share = percent / 100.0;
    // Below this, what is shown of it is 0%. A division may round it down.
    if share < MIN_TOLERANCE * (1.0 - 1e-9) {
        return Err("more than 0% is needed: at least 0.0000001%, one label in a billion".into());
    }
    Tolerance::new(share).map_err(|error| error.to_string())
}

fn half_bits(text: &str) -> Result<f64, String> {
    let bits = text.parse::<f64>().ok().filter(|&bits| bits >= 0.0 && (2.0 * bits).fract() == 0.0);
    bits.ok_or_else(|| "a multiple of 0.5 is needed, such as 13.5".into())
}
