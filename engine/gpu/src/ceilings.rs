//! What the device allows, by kernels that do nothing else.

use cryptodl_core::backend::{BackendError, BackendRemedy, Ceiling, Ceilings, Effort, Measured, Result, time};
use cryptodl_shaders::{self as shaders, constants, params};

use super::Gpu;
use super::pipelines::Pipelines;
use super::recorder::{Argument, Slice};

/// Threads of the loops: more than any device runs at once.
const THREADS: u32 = 1 << 20;

/// Bytes of each of the two buffers of the copy: more than caches hold.
const COPIED: u64 = 128 << 20;

/// Operands of the loops: odd, with bytes of both signs.
const FACTOR: u32 = 0x9e37_79b9;
const ADDEND: u32 = 0x7f4a_7c15;

impl Measured for Gpu {
    fn ceilings(&self, effort: Effort) -> Result<Ceilings> {
        let pipelines =
            Pipelines::compile(&self.device, self.variants.units(&shaders::CEILINGS, self.basis.n()), &self.watch)?;
        let multiply_add = self.looped(&pipelines, &shaders::CEILING_MULTIPLY_ADD, multiply_add, effort)?;
        let linear = match self.variants.sums {
            shaders::Dot::Integer => {
                Ceiling { per_second: multiply_add, how: "the same loop, two multiply-adds for a residue's halves" }
            }
            shaders::Dot::Packed => Ceiling {
                per_second: 4.0 * self.looped(&pipelines, &shaders::CEILING_DOT, dot, effort)?,
                how: "a loop of packed dot products of signed bytes, four multiply-adds of bytes each",
            },
        };
        Ok(Ceilings {
            copy: Ceiling {
                per_second: self.copied(&pipelines, effort)?,
                how: "a copy between two buffers on the device",
            },
            multiply_add: Ceiling { per_second: multiply_add, how: "a loop of 32-bit integer multiply-adds" },
            linear,
        })
    }

    fn linear_operations(&self, bits: u32) -> u32 {
        match self.variants.sums {
            shaders::Dot::Packed => bits.div_ceil(8).max(3),
            shaders::Dot::Integer => 2,
        }
    }

    fn transform_passes(&self) -> u32 {
        2
    }

    fn kernel_seconds(&self) -> Option<f64> {
        self.is_timed().then(|| self.timings().iter().map(|kernel| kernel.seconds).sum())
    }
}

impl Gpu {
    /// Bytes read and written per second.
    fn copied(&self, pipelines: &Pipelines, effort: Effort) -> Result<f64> {
        let bytes = COPIED.min(self.page_bytes).min(self.pool.usage().budget / 4) / 16 * 16;
        let words: Vec<u32> = (0..bytes as u32 / 4).map(|i| i.wrapping_mul(FACTOR)).collect();
        let [source, out] = [self.pool.take(bytes)?, self.pool.take(bytes)?];
        let whole = |buffer: &wgpu::Buffer| Slice { size: bytes, ..Slice::whole(buffer) };
        self.recorder.write(&whole(&source.buffer), &[bytemuck::must_cast_slice(&words)])?;
        let params = params::Ceiling { count: (bytes / 16) as u32, ..Default::default() };
        let groups = params.count.div_ceil(constants::ceiling_copy::THREADS).min(shaders::groups::MAX_GROUPS);
        let launch = || {
            let buffers = [&source, &out].map(|buffer| Argument::Buffer(whole(&buffer.buffer)));
            let arguments = [Argument::Bytes(bytemuck::bytes_of(&params))].into_iter().chain(buffers);
            self.recorder.dispatch(pipelines.get(&shaders::CEILING_COPY, 0), arguments.collect(), [groups, 1, 1])
        };
        let timing = time(self, effort, launch)?;
        self.expect(self.words(&whole(&out.buffer))? == words, "ceiling_copy")?;
        Ok(2.0 * bytes as f64 / timing.seconds)
    }

    /// Operations per second of a loop whose step is `twin`.
    fn looped(
        &self,
        pipelines: &Pipelines,
        kernel: &'static shaders::Kernel,
        twin: fn(u32) -> u32,
        effort: Effort,
    ) -> Result<f64> {
        use constants::ceiling_dot::{CHAINS, STEPS};
        let out = self.pool.take(4 * u64::from(THREADS))?;
        let whole = Slice { size: 4 * u64::from(THREADS), ..Slice::whole(&out.buffer) };
        let launch = |rounds| {
            let params = params::Ceiling { count: rounds, factor: FACTOR, addend: ADDEND, padding: 0 };
            let arguments = vec![Argument::Bytes(bytemuck::bytes_of(&params)), Argument::Buffer(whole.clone())];
            self.recorder.dispatch(pipelines.get(kernel, 0), arguments, [THREADS / kernel.workgroup[0], 1, 1])
        };
        // Rounds that make a launch long enough to hide its start.
        let once = Effort { repetitions: 1, seconds: 0.0, ..effort };
        let mut rounds = 1;
        while rounds < 1 << 14 && time(self, once, || launch(rounds))?.seconds < effort.seconds / 4.0 {
            rounds *= 4;
        }
        let timing = time(self, effort, || launch(rounds))?;
        let words = self.words(&whole)?;
        let right = [0, 1, THREADS / 2 + 77, THREADS - 1].iter().all(|&thread| {
            let chain = |start: u32| (0..STEPS * rounds).fold(start, |x, _| twin(x));
            let total = (0..CHAINS).fold(0, |sum: u32, i| sum.wrapping_add(chain((CHAINS * thread).wrapping_add(i))));
            words[thread as usize] == total
        });
        self.expect(right, kernel.name)?;
        Ok(f64::from(THREADS) * f64::from(CHAINS * STEPS) * f64::from(rounds) / timing.seconds)
    }

    /// A loop that computes something else measures nothing.
    fn expect(&self, right: bool, kernel: &str) -> Result<()> {
        if right {
            return Ok(());
        }
        Err(BackendError::Unsupported {
            device: self.device.info.name.clone(),
            reason: format!("the kernel {kernel} gave a wrong result"),
            remedies: &[BackendRemedy::CheckKernels, BackendRemedy::UpdateDriver],
        })
    }
}

/// One step of `ceiling_multiply_add`.
fn multiply_add(x: u32) -> u32 {
    x.wrapping_mul(FACTOR).wrapping_add(ADDEND)
}

/// One step of `ceiling_dot`.
fn dot(x: u32) -> u32 {
    let bytes = x.to_le_bytes().into_iter().zip(FACTOR.to_le_bytes());
    bytes.fold(x, |sum, (x, y)| sum.wrapping_add_signed(i32::from(x as i8) * i32::from(y as i8)))
}
