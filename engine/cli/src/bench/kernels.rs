//! Kernels: each is timed on operands that repeat a small one, so that its result can be checked
//! against the reference's on the small one.

use anyhow::{Result, ensure};
use cryptodl_core::backend::{Backend, Ceilings, Effort, Measured, Shape, Timing, time};
use serde::Serialize;

use super::operands::repeated;
use crate::progress::Bar;

/// One kernel on one shape.
#[derive(Clone, Serialize)]
pub struct Row {
    pub kernel: &'static str,
    /// What it worked on, for people.
    pub shape: String,
    pub n: usize,
    /// Median seconds of a launch, by the device's clock where it has one, and by the host's.
    pub seconds: f64,
    pub wall_seconds: f64,
    /// What a launch does: this many of these.
    pub items: u64,
    pub item: &'static str,
    pub nanoseconds_per_item: f64,
    /// Bytes that must be read and written at least.
    pub bytes: u64,
    pub bytes_per_second: f64,
    /// Share of the copy bandwidth of the same run. None for what the host does beside a device.
    pub copy_share: Option<f64>,
    /// Multiply-adds of a weight with a residue; linear maps only.
    pub multiply_adds: Option<u64>,
    pub multiply_adds_per_second: Option<f64>,
    /// Operations of that ceiling in a launch.
    pub operations: Option<u64>,
    /// Share of the ceiling of linear maps of the same run.
    pub arithmetic_share: Option<f64>,
}

/// What one launch does.
pub(super) struct Work {
    pub kernel: &'static str,
    pub shape: String,
    pub items: u64,
    /// What one of the items is.
    pub item: &'static str,
    pub bytes: u64,
    /// Of linear maps.
    pub arithmetic: Option<Arithmetic>,
}

/// The arithmetic of a launch.
#[derive(Clone, Copy)]
pub(super) struct Arithmetic {
    /// Multiply-adds of a weight with a residue.
    pub multiply_adds: u64,
    /// Operations of the ceiling in them.
    pub operations: u64,
}

/// A run in progress.
pub struct Bench<'a> {
    pub(super) effort: Effort,
    ceilings: Ceilings,
    bar: &'a Bar,
    pub rows: Vec<Row>,
}

impl<'a> Bench<'a> {
    /// Measures the ceilings.
    pub fn new<B: Measured>(backend: &B, effort: Effort, bar: &'a Bar) -> Result<Self> {
        bar.say("ceilings".into());
        Ok(Bench { effort, ceilings: backend.ceilings(effort)?, bar, rows: Vec::new() })
    }

    /// The ceilings.
    pub fn ceilings(&self) -> &Ceilings {
        &self.ceilings
    }

    /// Times `launch` and adds a row.
    pub(super) fn measure<B: Measured>(
        &mut self,
        backend: &B,
        work: Work,
        launch: impl FnMut() -> cryptodl_core::backend::Result<()>,
    ) -> Result<()> {
        let Work { kernel, shape, items, item, bytes, arithmetic } = work;
        self.bar.say(format!("{kernel}, {shape}"));
        let Timing { seconds, wall_seconds } = time(backend, self.effort, launch)?;
        let bytes_per_second = bytes as f64 / seconds;
        self.rows.push(Row {
            kernel,
            shape,
            n: backend.basis().n(),
            seconds,
            wall_seconds,
            items,
            item,
            nanoseconds_per_item: 1e9 * seconds / items as f64,
            bytes,
            bytes_per_second,
            copy_share: Some(bytes_per_second / self.ceilings.copy.per_second),
            multiply_adds: arithmetic.map(|counts| counts.multiply_adds),
            multiply_adds_per_second: arithmetic.map(|counts| counts.multiply_adds as f64 / seconds),
            operations: arithmetic.map(|counts| counts.operations),
            arithmetic_share: arithmetic
                .map(|counts| counts.operations as f64 / seconds / self.ceilings.linear.per_second),
        });
        Ok(())
    }

    /// The largest power of two of at most `most` for which `bytes` of them stay within the effort,
    /// and one launch within a measurement's seconds as far as launches of fewer tell, from `least`
    /// on. `once` runs a launch of that many and tells the seconds.
    pub(super) fn size(
        &self,
        [least, most]: [usize; 2],
        bytes: u64,
        mut once: impl FnMut(usize) -> Result<f64>,
    ) -> Result<usize> {
        let most = most.min((self.effort.bytes / bytes.max(1)).max(1) as usize);
        let mut size = least.min(1 << most.ilog2());
        while 2 * size <= most {
            let seconds = once(size)?;
            let fits = (self.effort.seconds / seconds.max(1e-9)) as usize;
            if fits < 2 {
                break;
            }
            size = (size * fits.next_power_of_two()).min(1 << most.ilog2());
        }
        Ok(size)
    }
}

/// Checks that `x` repeats `expected`, the reference's result of shape `small`.
pub(super) fn check<B: Backend>(
    backend: &B,
    kernel: &str,
    x: &B::Tensor,
    small: &Shape,
    expected: &[u32],
) -> Result<()> {
    let shape = backend.shape(x);
    let right = backend.download(x)? == repeated(small, expected, shape);
    ensure!(
        right,
        "{kernel}, {shape:?}: the result differs from the reference's: run `cryptodl verify`; nothing was measured"
    );
    Ok(())
}
