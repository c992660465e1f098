//! What can be done about an error with flags and commands. The libraries say what is wrong and what would help in their own
//! terms; the command line adds how to ask for it here.

use std::error::Error;

use cryptodl::PlacementError;
use cryptodl_approx::Activation;
use cryptodl_core::backend::conformance::Cause;
use cryptodl_core::backend::{BackendError, BackendRemedy};
use cryptodl_core::wire::WireError;
use cryptodl_data::DataError;
#[cfg(feature = "gpu")]
use cryptodl_gpu::GpuError;
use cryptodl_network::text::shortened;
use cryptodl_network::{ModelError, Problem};
use cryptodl_plan::{PlanChoice, PlanError, PlanNote, PlanRemedy, PlanReport};
use cryptodl_program::ProgramError;
use cryptodl_run::RunError;
use cryptodl_zoo::LoadError;

use crate::terminal;

/// Characters of an error that are printed.
const MAX_ERROR: usize = 2000;

/// The planning flags, which decide the Program.
const PLANNING: &str = "--schedule, --security, --encryption, --batch, --tolerance, --n, --limbs, --prime-bits, \
                        --weight-bits, --input-scale-bits, --packing and --circuit-privacy";

/// The error with its causes, without causes that it already quotes, and what the user can do about
/// it.
pub fn explain(error: &anyhow::Error) -> String {
    let text = error.chain().map(ToString::to_string).fold(String::new(), |text, cause| match text.as_str() {
        "" => cause,
        quoted if quoted.contains(&cause) => text,
        _ => format!("{text}: {cause}"),
    });
    // Files from strangers are quoted in errors.
    let text = shortened(&terminal::printable(&text), MAX_ERROR);
    match of(error) {
        None => text,
        Some(advice) => format!("{}. {advice}", text.trim_end_matches(['.', '\n'])),
    }
}

/// What the user can do about `error` and its causes, in one sentence; nothing where no flag helps.
pub fn of(error: &anyhow::Error) -> Option<String> {
    sentence(error.chain().flat_map(of_cause).collect())
}

/// A plan's report for the terminal, with what the user can do about its notes.
pub fn with_report(report: &PlanReport) -> String {
    let mut advice: Vec<String> = report.notes.iter().filter_map(of_note).collect();
    if !report.noise.calibrated {
        advice.push("`cryptodl calibrate` measures the per-image calibration".into());
    }
    sentence(advice).map_or_else(|| report.to_string(), |advice| format!("{report}{advice}\n"))
}

/// Nothing is said twice.
fn sentence(advice: Vec<String>) -> Option<String> {
    let mut once: Vec<String> = Vec::new();
    for part in advice {
        if !once.contains(&part) {
            once.push(part);
        }
    }
    (!once.is_empty()).then(|| format!("On the command line: {}", once.join("; ")))
}

/// A transparent error stands for the one that it holds, which is then no cause of its own.
fn of_cause(cause: &(dyn Error + 'static)) -> Vec<String> {
    #[cfg(feature = "gpu")]
    if let Some(error) = cause.downcast_ref::<GpuError>() {
        return of_backend(error.remedies());
    }
    if let Some(error) = cause.downcast_ref() {
        of_library(error)
    } else if let Some(error) = cause.downcast_ref() {
        of_placement(error)
    } else if let Some(LoadError::Model(error)) = cause.downcast_ref() {
        of_model(error).into_iter().collect()
    } else if let Some(error) = cause.downcast_ref() {
        of_plan(error)
    } else if let Some(error) = cause.downcast_ref() {
        of_run(error)
    } else if let Some(error) = cause.downcast_ref::<BackendError>() {
        of_backend(error.remedies())
    } else if let Some(Cause::Backend(error)) = cause.downcast_ref() {
        of_backend(error.remedies())
    } else if let Some(error) = cause.downcast_ref() {
        of_wire(error).into_iter().collect()
    } else if let Some(error) = cause.downcast_ref() {
        of_program(error).into_iter().collect()
    } else if let Some(error) = cause.downcast_ref() {
        of_model(error).into_iter().collect()
    } else if let Some(error) = cause.downcast_ref() {
        of_data(error)
    } else {
        Vec::new()
    }
}

/// The library's error stands for one of those below.
fn of_library(error: &cryptodl::Error) -> Vec<String> {
    use cryptodl::Error;
    match error {
        Error::Wire(error) => of_wire(error).into_iter().collect(),
        Error::Load(LoadError::Model(error)) | Error::Model(error) => of_model(error).into_iter().collect(),
        Error::Plan(error) => of_plan(error),
        Error::Program(error) => of_program(error).into_iter().collect(),
        Error::Run(error) => of_run(error),
        Error::Placement(error) => of_placement(error),
        _ => Vec::new(),
    }
}

fn of_placement(error: &PlacementError) -> Vec<String> {
    match error {
        PlacementError::CpuKernels(_) => vec!["no --kernels, or --backend cpu".into()],
        PlacementError::Kernels { .. } => vec!["--kernels auto".into()],
        PlacementError::NoGpu => vec!["--backend cpu".into()],
        PlacementError::Threads { .. } => vec!["fewer --threads".into()],
        #[cfg(feature = "gpu")]
        PlacementError::Gpu(error) => of_backend(error.remedies()),
    }
}

fn of_plan(error: &PlanError) -> Vec<String> {
    match error {
        PlanError::OutOfRange { choice, .. } => vec![format!("{} sets it", flag(*choice))],
        _ => error.remedies().iter().filter_map(of_plan_remedy).collect(),
    }
}

/// The flag of a planning option.
fn flag(choice: PlanChoice) -> &'static str {
    match choice {
        PlanChoice::Batch => "--batch",
        PlanChoice::RingDimension => "--n",
        PlanChoice::Limbs => "--limbs",
        PlanChoice::PrimeBits => "--prime-bits",
        PlanChoice::WeightBits => "--weight-bits",
        PlanChoice::InputScaleBits => "--input-scale-bits",
        PlanChoice::PrivacySets => "K of --circuit-privacy K,T",
        PlanChoice::PrivacyBits => "T of --circuit-privacy K,T",
    }
}

fn of_plan_remedy(remedy: &PlanRemedy) -> Option<String> {
    Some(match remedy {
        PlanRemedy::Tolerance(tolerance) => format!("--tolerance {}", tolerance.percent()),
        PlanRemedy::LargerTolerance => "a larger --tolerance".into(),
        PlanRemedy::FewerPins(pins) => {
            let flags: Vec<&str> = pins.iter().copied().map(flag).collect();
            format!("fewer of {}", flags.join(", "))
        }
        PlanRemedy::AutoSchedule => "--schedule auto".into(),
        PlanRemedy::Training => "`cryptodl calibrate --help` says how to train".into(),
        PlanRemedy::LargerRing => "a larger --n".into(),
        PlanRemedy::LowerSecurity => "a lower --security".into(),
        PlanRemedy::LessPrivacy => "a smaller K or T of --circuit-privacy K,T".into(),
        PlanRemedy::NoPrivacy => "no --circuit-privacy".into(),
        PlanRemedy::NewCalibration => "`cryptodl calibrate` measures a calibration".into(),
        PlanRemedy::LowerDegree
        | PlanRemedy::FewerActivations
        | PlanRemedy::FewerLayers
        | PlanRemedy::FewerLayersBetweenActivations
        | PlanRemedy::FewerChannels
        | PlanRemedy::SmallerImages
        | PlanRemedy::SmallerKernels
        | PlanRemedy::SmallerPools => return None,
    })
}

fn of_note(note: &PlanNote) -> Option<String> {
    match note {
        PlanNote::WeakPrivacy { .. } => Some("a larger T of --circuit-privacy K,T".into()),
        PlanNote::DroppedTerms { .. } => None,
    }
}

fn of_run(error: &RunError) -> Vec<String> {
    match error {
        RunError::Backend(error) => of_backend(error.remedies()),
        RunError::Budget { .. } => vec!["a larger --memory-budget".into()],
        RunError::TooManySets { .. } => {
            vec!["a larger K of --circuit-privacy K,T in every command, or fewer images".into()]
        }
        _ => Vec::new(),
    }
}

fn of_backend(remedies: &[BackendRemedy]) -> Vec<String> {
    let flag = |remedy: &BackendRemedy| match remedy {
        BackendRemedy::SmallerMemoryBudget => Some("a smaller --memory-budget"),
        BackendRemedy::AnotherBackend => Some("another --backend"),
        BackendRemedy::Cpu => Some("--backend cpu"),
        BackendRemedy::AnotherAdapter => Some("another --adapter"),
        BackendRemedy::SoftwareAdapter => Some("--adapter INDEX|NAME"),
        BackendRemedy::LongerCompileLimit => Some("a longer --compile-timeout"),
        BackendRemedy::CheckKernels => Some("`cryptodl verify` checks the kernels"),
        BackendRemedy::FewerImages
        | BackendRemedy::InstallDriver
        | BackendRemedy::UpdateDriver
        | BackendRemedy::StartAgain => None,
    };
    remedies.iter().filter_map(flag).map(Into::into).collect()
}

fn of_wire(error: &WireError) -> Option<String> {
    match error {
        WireError::NotCryptodl => {
            Some("`cryptodl keygen`, `encrypt`, `infer` and `plan` write the files that are needed".into())
        }
        WireError::Program { .. } => Some(format!(
            "the same --model and the same planning flags ({PLANNING}) everywhere, or the same saved Program with --program"
        )),
        WireError::Text(_) => Some("`cryptodl plan --write-spec` writes a client spec".into()),
        _ => None,
    }
}

fn of_program(error: &ProgramError) -> Option<String> {
    match error {
        ProgramError::Wire(error) => of_wire(error),
        ProgramError::Malformed(_) | ProgramError::Step { .. } | ProgramError::Map { .. } | ProgramError::Spec(_) => {
            Some("`cryptodl plan --out` writes a Program".into())
        }
    }
}

fn of_model(error: &ModelError) -> Option<String> {
    match error {
        ModelError::Invalid { invalid, .. } => match &*invalid.problem {
            Problem::Calibration { .. } => Some("`cryptodl calibrate` measures a calibration".into()),
            Problem::UnknownKind { kind, .. } => Some(of_kind(&kind.to_lowercase())),
            Problem::MissingField { .. } | Problem::FieldType { .. } | Problem::UnknownField { .. } => {
                Some(DESCRIPTION.into())
            }
            _ => None,
        },
        ModelError::Syntax { .. } => Some(DESCRIPTION.into()),
        _ => None,
    }
}

/// What can be computed in the place of a layer that cannot.
fn of_kind(kind: &str) -> String {
    const WHY: &str = "because only sums and products can be computed under encryption";
    let activation = Activation::ALL.iter().map(|known| known.name()).find(|known| *known == kind);
    let instead = match (kind, activation) {
        (_, Some(function)) => format!(
            "`cryptodl approx --function {function} --method all --degree 2 --interval=-5,5` finds \
             polynomials to train with in its place, {WHY}"
        ),
        ("leaky_relu" | "elu" | "relu6" | "silu", _) => {
            format!("train with a `polynomial` or `square` in its place, {WHY}")
        }
        ("max_pool2d" | "maxpool2d", _) => format!("train with `avg_pool2d` in its place, {WHY}"),
        ("softmax" | "log_softmax", _) => "leave it out: labels are the same without it".into(),
        _ => return DESCRIPTION.into(),
    };
    format!("{instead}; {DESCRIPTION}")
}

/// Where descriptions are described.
const DESCRIPTION: &str = "docs/networks.md has every kind with its fields and an example";

fn of_data(error: &DataError) -> Vec<String> {
    match error {
        DataError::Unavailable { id, .. } => vec![
            format!("`cryptodl data fetch {id}` fetches it"),
            format!("`cryptodl data fetch {id} --folder DIR` takes it from a folder"),
            format!("`cryptodl data fetch {id} --from URL` takes it from a mirror"),
        ],
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use anyhow::{Context, anyhow};
    use cryptodl_program::Tolerance;

    use super::*;

    fn backend(remedies: &'static [BackendRemedy]) -> BackendError {
        BackendError::Unsupported { device: "card".into(), reason: "no".into(), remedies }
    }

    #[test]
    fn causes_are_found_at_any_depth_and_advice_is_given_once() {
        let error = anyhow::Error::from(backend(&[BackendRemedy::Cpu])).context("outer").context("outermost");
        assert_eq!(of(&error).as_deref(), Some("On the command line: --backend cpu"));
        let transparent = RunError::from(backend(&[BackendRemedy::Cpu, BackendRemedy::AnotherAdapter]));
        let found = Err::<(), _>(transparent).context("a file").unwrap_err();
        assert_eq!(of(&found).as_deref(), Some("On the command line: --backend cpu; another --adapter"));
        let twice = anyhow::Error::from(RunError::Budget { budget: 1, needed: 2 })
            .context(RunError::Budget { budget: 1, needed: 2 });
        assert_eq!(of(&twice).as_deref(), Some("On the command line: a larger --memory-budget"));
        assert_eq!(of(&anyhow!("nothing known")), None);
        let library = cryptodl::Error::from(RunError::Budget { budget: 1, needed: 2 });
        assert_eq!(
            of(&anyhow::Error::from(library).context("x")).as_deref(),
            Some("On the command line: a larger --memory-budget")
        );
    }

    /// Whatever the planner's remedies are, those that are flags are named.
    #[test]
    fn every_planning_option_has_its_flag() {
        let remedies = vec![
            PlanRemedy::Tolerance(Tolerance::new(0.01).unwrap()),
            PlanRemedy::FewerPins(vec![PlanChoice::Limbs, PlanChoice::PrimeBits]),
            PlanRemedy::AutoSchedule,
            PlanRemedy::LowerDegree,
            PlanRemedy::Training,
        ];
        let error = PlanError::Unsettled { model: "m".into(), remedies };
        assert_eq!(
            of(&error.into()).unwrap(),
            "On the command line: --tolerance 1%; fewer of --limbs, --prime-bits; --schedule auto; \
             `cryptodl calibrate --help` says how to train"
        );
        let error = PlanError::OutOfRange {
            choice: PlanChoice::RingDimension,
            value: "3000".into(),
            allowed: "a power of two".into(),
        };
        assert_eq!(of(&error.into()).unwrap(), "On the command line: --n sets it");
    }

    #[test]
    fn another_program_names_every_planning_flag() {
        use clap::Args as _;
        let (actual, expected) = (cryptodl_core::ckks::Digest([1; 32]), cryptodl_core::ckks::Digest([2; 32]));
        let told = of(&WireError::Program { actual, expected }.into()).unwrap();
        let planning = crate::flags::Planning::augment_args(clap::Command::new("test"));
        let flags: Vec<String> = planning
            .get_arguments()
            .filter_map(|argument| argument.get_long())
            .map(|long| format!("--{long}"))
            .collect();
        assert!(flags.len() > 8, "{flags:?}");
        assert!(flags.iter().all(|flag| told.contains(flag)), "{told} lacks one of {flags:?}");
    }
}
