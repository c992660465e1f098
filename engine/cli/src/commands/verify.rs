//! `cryptodl verify`.

use std::time::Instant;

use anyhow::{Result, bail};
use clap::Args;
use clap::builder::PossibleValuesParser;
use cryptodl_core::backend::Backend as _;
use cryptodl_core::backend::conformance::{Failure, compare};
use cryptodl_core::ckks::{Params, Randomness, params_for_tests};
use cryptodl_cpu::{Cpu, Kernels, Reference};
use serde::Serialize;

use crate::advice::explain;
use crate::flags::{Backend, Place};
use crate::gpu::{Choice, VARIANTS, Variant};
use crate::json::{Json, Timed};
use crate::progress::Bar;

/// Check on this machine that a backend computes every bit as the reference does
///
/// Runs every operation with random and with extreme inputs on the backend and on the reference, and compares all
/// results. All kernels that the machine can run are checked. Fails at the first difference and says where it is.
#[derive(Args)]
#[command(after_help = "\
Examples:
  cryptodl verify
  cryptodl verify --adapter llvmpipe --n 1024
  cryptodl verify --backend gpu --kernels u64-packed --seed 7 --json -")]
pub struct Verify {
    #[command(flatten)]
    place: Place,
    /// Check these kernels only [default: all that the backend has]
    #[arg(long, value_parser = PossibleValuesParser::new(names()))]
    kernels: Option<String>,
    /// Dimensions of the ring, powers of two
    #[arg(long, value_name = "N", value_delimiter = ',', default_values_t = [1024, 4096])]
    n: Vec<usize>,
    /// Seed of the inputs [default: a new one, which is printed]
    #[arg(long)]
    seed: Option<u64>,
    #[command(flatten)]
    json: Json,
}

fn names() -> impl Iterator<Item = &'static str> {
    Kernels::NAMES.into_iter().chain(VARIANTS.iter().map(|(name, _)| *name))
}

/// What `verify --json` writes.
#[derive(Serialize)]
struct Report {
    backend: &'static str,
    device: String,
    seed: u64,
    passed: bool,
    comparisons: usize,
    passes: Vec<Pass>,
}

/// One run of the suite.
#[derive(Serialize)]
struct Pass {
    n: usize,
    kernels: &'static str,
    seconds: f64,
    comparisons: usize,
    /// Comparisons of each operation that passed, in the order in which they were made.
    operations: serde_json::Map<String, serde_json::Value>,
    difference: Option<Difference>,
}

/// The first comparison that did not pass.
#[derive(Serialize)]
struct Difference {
    operation: &'static str,
    /// The inputs.
    case: String,
    /// The place and both values, or why there is no result.
    what: String,
}

/// What is to be checked.
enum Candidate {
    Cpu(Vec<Kernels>),
    Gpu(Choice, Vec<(&'static str, Variant)>),
}

impl Verify {
    pub fn run(self) -> Result<()> {
        let candidate = self.candidate()?;
        let seed = match self.seed {
            Some(seed) => seed,
            None => {
                u64::from(u32::from_le_bytes(*Randomness::from_os()?.fresh_seed()?.first_chunk().expect("32 bytes")))
            }
        };
        let all: Vec<Params> = self.n.iter().map(|&n| params_for_tests(n)).collect::<Result<_, _>>()?;
        let (json, start) = (self.json.create()?, Instant::now());
        let report = check(&candidate, &all, seed)?;
        json.show(&Timed::since(start, "compute", &report), || text(&report))?;
        verdict(&report)
    }

    fn candidate(&self) -> Result<Candidate> {
        let wanted = self.kernels.as_deref();
        let on_gpu = wanted.map(|name| !Kernels::NAMES.contains(&name));
        let choice = match (self.place.backend()?, on_gpu) {
            (Backend::Cpu | Backend::Auto, Some(false)) | (Backend::Cpu, None) => None,
            (Backend::Gpu, Some(false)) => bail!("--kernels {} are kernels of the CPU", wanted.unwrap_or_default()),
            (Backend::Cpu, Some(true)) => bail!("--kernels {} are kernels of a GPU", wanted.unwrap_or_default()),
            (Backend::Auto, None) => Choice::automatic(self.place.compile_timeout.limit()).transpose()?,
            (Backend::Gpu, _) | (Backend::Auto, Some(true)) => Some(Choice::new(&self.place)?),
        };
        Ok(match choice {
            None => Candidate::Cpu(wanted.map_or_else(
                || Ok(Kernels::available()),
                |name| cryptodl::cpu_kernels(name).map(|kernels| vec![kernels]),
            )?),
            Some(choice) => {
                let variants = match wanted {
                    None => choice.variants().collect(),
                    Some(wanted) => VARIANTS.into_iter().filter(|(name, _)| *name == wanted).collect(),
                };
                Candidate::Gpu(choice, variants)
            }
        })
    }
}

/// Runs the suite for every ring and every variant, up to the first difference.
fn check(candidate: &Candidate, all: &[Params], seed: u64) -> Result<Report> {
    let (backend, variants) = match candidate {
        Candidate::Cpu(kernels) => ("cpu", kernels.len()),
        Candidate::Gpu(_, variants) => ("gpu", variants.len()),
    };
    let mut report = Report { backend, device: String::new(), seed, passed: true, comparisons: 0, passes: Vec::new() };
    let (bar, total) = (Bar::new("verify"), (all.len() * variants) as u64);
    for params in all {
        for index in 0..variants {
            bar.show(report.passes.len() as u64, total);
            let pass = match candidate {
                Candidate::Cpu(kernels) => {
                    let cpu = Cpu::with_kernels(params.basis().clone(), kernels[index]);
                    report.device = cpu.device();
                    pass(cpu.kernels(), &cpu, seed, &bar)
                }
                Candidate::Gpu(choice, variants) => {
                    let (name, variant) = variants[index];
                    let gpu = choice.checked(params, variant)?;
                    report.device = gpu.device();
                    pass(name, &gpu, seed, &bar)
                }
            };
            report.comparisons += pass.comparisons;
            report.passed = pass.difference.is_none();
            report.passes.push(pass);
            if !report.passed {
                return Ok(report);
            }
        }
    }
    Ok(report)
}

/// One run of the suite.
fn pass<B: cryptodl_core::backend::Backend>(kernels: &'static str, backend: &B, seed: u64, bar: &Bar) -> Pass {
    let (start, basis) = (Instant::now(), backend.basis());
    let mut operations = serde_json::Map::new();
    let mut comparisons = 0;
    let result = compare(&Reference::new(basis.clone()), backend, seed, &mut |check| {
        let count = operations.get(check.operation).and_then(serde_json::Value::as_u64).unwrap_or(0);
        operations.insert(check.operation.into(), (count + 1).into());
        comparisons += 1;
        bar.say(format!("{kernels}, N = {}: {}", basis.n(), check.operation));
    });
    let difference = result.err().map(|Failure { check, cause }| Difference {
        operation: check.operation,
        case: format!("{}, {:?}", check.case, check.shape),
        what: explain(&cause.into()),
    });
    Pass { n: basis.n(), kernels, seconds: start.elapsed().as_secs_f64(), comparisons, operations, difference }
}

/// An error if there was a difference.
fn verdict(report: &Report) -> Result<()> {
    match report.passes.last().and_then(|pass| Some((pass, pass.difference.as_ref()?))) {
        None => Ok(()),
        Some((pass, Difference { operation, case, what })) => {
            let (kernels, n, seed) = (pass.kernels, pass.n, report.seed);
            bail!("{kernels} kernels, N = {n}: {operation}, {case}: {what} (--seed {seed})")
        }
    }
}

fn text(report: &Report) -> String {
    let mut text =
        format!("{}: {}, compared with the reference; seed {}\n", report.backend, report.device, report.seed);
    let mut shown = None;
    for Pass { n, kernels, seconds, comparisons, operations, difference } in &report.passes {
        let equal = if difference.is_none() { "all equal bit for bit" } else { "equal, then a difference" };
        text += &format!("N = {n}, {kernels} kernels: {comparisons} comparisons, {equal}, {seconds:.1} s\n");
        // They are the same for most passes.
        if shown.replace(operations) != Some(operations) {
            let counts: Vec<String> = operations.iter().map(|(name, count)| format!("{name} {count}")).collect();
            text += &format!("  {}\n", counts.join(", "));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use cryptodl_test_backends::{Fault, Faulty};

    use super::*;

    fn report(pass: Pass) -> Report {
        let (passed, comparisons) = (pass.difference.is_none(), pass.comparisons);
        Report { backend: "cpu", device: "test".into(), seed: 5, passed, comparisons, passes: vec![pass] }
    }

    #[test]
    fn a_difference_is_an_error_with_its_place() {
        let params = params_for_tests(16).unwrap();
        let portable = || Cpu::new(params.basis().clone());
        let right = report(pass("portable", &portable(), 5, &Bar::new("test")));
        assert!(verdict(&right).is_ok() && right.passed && text(&right).contains("all equal bit for bit"));

        let wrong = Faulty { inner: portable(), fault: Fault::ForwardNtt };
        let wrong = report(pass("faulty", &wrong, 5, &Bar::new("test")));
        assert!(0 < wrong.comparisons && wrong.comparisons < right.comparisons);
        assert!(!wrong.passed && text(&wrong).contains("equal, then a difference"), "{}", text(&wrong));
        let error = verdict(&wrong).unwrap_err().to_string();
        for part in ["faulty kernels, N = 16: forward_ntt", "limb 1", "expected", "--seed 5"] {
            assert!(error.contains(part), "{error} lacks {part}");
        }
    }
}
