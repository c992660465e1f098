//! Measuring a backend: how long its kernels take, and the most that its machine allows.

use std::time::Instant;

use super::{Backend, Result};

/// A backend whose kernels can be compared with what the machine allows.
pub trait Measured: Backend {
    /// What the machine allows, measured now.
    fn ceilings(&self, effort: Effort) -> Result<Ceilings>;

    /// Operations of [`Ceilings::linear`] in one multiply-add of a weight with a residue of `bits` bits.
    fn linear_operations(&self, bits: u32) -> u32;

    /// How often a transform reads and writes a polynomial in memory.
    fn transform_passes(&self) -> u32;

    /// Seconds that kernels took by the device's own clock, of everything that was waited for so far. `None` where there is no
    /// such clock: then wall time counts.
    fn kernel_seconds(&self) -> Option<f64> {
        None
    }
}

/// What a machine allows, all threads or the whole device together.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Ceilings {
    /// Bytes that copying memory reads and writes, both counted.
    pub copy: Ceiling,
    /// Multiply-adds of 32-bit integers.
    pub multiply_add: Ceiling,
    /// Operations that the backend's linear maps sum with.
    pub linear: Ceiling,
}

/// The most that a simple loop reached.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Ceiling {
    /// Per second.
    pub per_second: f64,
    /// What was measured.
    pub how: &'static str,
}

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Effort {
    /// Measurements, of which the median counts.
    pub repetitions: usize,
    /// Seconds that each takes at least, unless one launch takes longer.
    pub seconds: f64,
    /// Bytes of an operand at most.
    pub bytes: u64,
}

/// How long a launch takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Timing {
    /// Median seconds, by the device's clock where it has one.
    pub seconds: f64,
    /// Median seconds by the host's clock, with everything that the host does.
    pub wall_seconds: f64,
}

/// Most launches of one measurement.
const MAX_LAUNCHES: f64 = 1000.0;

/// Times `launch`: once to warm up, then as often as `effort` says.
///
/// # Errors
/// What `launch` returns.
pub fn time<B: Measured>(backend: &B, effort: Effort, mut launch: impl FnMut() -> Result<()>) -> Result<Timing> {
    let mut run = |launches: usize| -> Result<Timing> {
        let (start, before) = (Instant::now(), backend.kernel_seconds());
        (0..launches).try_for_each(|_| launch())?;
        backend.synchronise()?;
        let wall = start.elapsed().as_secs_f64();
        let device = backend.kernel_seconds().zip(before).map(|(after, before)| after - before);
        // A clock that stands still is none.
        let seconds = device.filter(|&seconds| seconds > 0.0).unwrap_or(wall);
        Ok(Timing { seconds: seconds / launches as f64, wall_seconds: wall / launches as f64 })
    };
    run(1)?;
    let first = run(1)?.wall_seconds;
    let launches = (effort.seconds / first).clamp(1.0, MAX_LAUNCHES) as usize;
    let mut timings: Vec<Timing> = (0..effort.repetitions.max(1)).map(|_| run(launches)).collect::<Result<_>>()?;
    let middle = timings.len() / 2;
    let mut median = |of: fn(&Timing) -> f64| {
        timings.sort_by(|a, b| of(a).total_cmp(&of(b)));
        of(&timings[middle])
    };
    Ok(Timing { seconds: median(|t| t.seconds), wall_seconds: median(|t| t.wall_seconds) })
}
