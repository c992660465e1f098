//! The executor on the backend that the flags name.

use std::io::{self, Write};

use anyhow::{Context, Result, bail};
use cryptodl_core::backend;
use cryptodl_core::ckks::{Ciphertexts, CiphertextsInfo, EvalKeys, Params};
use cryptodl_core::watch::Watch;
use cryptodl_cpu::{Cpu, Reference};
use cryptodl_program::Program;
use cryptodl_run as run;
use cryptodl_run::{ComputeReport, Executor, Masks, RunError};
use serde::Serialize;

use crate::flags::{Backend, Execution, Kernels};
use crate::{explain, gpu, memory};

/// A [`run::Computation`], whatever its backend.
pub trait Computation {
    /// As [`run::Computation::push`].
    fn push(&mut self, set: &[u8]) -> Result<Option<Vec<u8>>, RunError>;

    /// As [`run::Computation::finish`].
    fn finish(self: Box<Self>) -> Result<(Option<Vec<u8>>, ComputeReport), RunError>;
}

impl<B: backend::Backend> Computation for run::Computation<'_, B> {
    fn push(&mut self, set: &[u8]) -> Result<Option<Vec<u8>>, RunError> {
        run::Computation::push(self, set)
    }

    fn finish(self: Box<Self>) -> Result<(Option<Vec<u8>>, ComputeReport), RunError> {
        run::Computation::finish(*self)
    }
}

/// An executor, whatever its backend.
pub trait Server {
    /// As [`Executor::begin`].
    fn begin<'a>(
        &'a self,
        input: &CiphertextsInfo,
        eval_keys: &EvalKeys,
        masks: Masks<'a>,
        watch: Watch<'a>,
    ) -> Result<Box<dyn Computation + 'a>, RunError>;

    /// As [`Executor::result`].
    fn result(&self, input: &CiphertextsInfo) -> CiphertextsInfo;

    /// As [`Executor::compute`].
    fn compute(
        &self,
        input: &Ciphertexts,
        eval_keys: &EvalKeys,
        masks: Masks<'_>,
        watch: Watch<'_>,
    ) -> Result<(Ciphertexts, ComputeReport), RunError>;

    /// What computes.
    fn machine(&self) -> Machine;
}

/// What computes.
#[derive(Clone, Serialize)]
pub struct Machine {
    pub backend: &'static str,
    pub kernels: &'static str,
    pub device: String,
    pub threads: usize,
}

impl<B: backend::Backend> Server for Executor<B> {
    fn begin<'a>(
        &'a self,
        input: &CiphertextsInfo,
        eval_keys: &EvalKeys,
        masks: Masks<'a>,
        watch: Watch<'a>,
    ) -> Result<Box<dyn Computation + 'a>, RunError> {
        Ok(Box::new(Executor::begin(self, input, eval_keys, masks, watch)?))
    }

    fn result(&self, input: &CiphertextsInfo) -> CiphertextsInfo {
        Executor::result(self, input)
    }

    fn compute(
        &self,
        input: &Ciphertexts,
        eval_keys: &EvalKeys,
        masks: Masks<'_>,
        watch: Watch<'_>,
    ) -> Result<(Ciphertexts, ComputeReport), RunError> {
        Executor::compute(self, input, eval_keys, masks, watch)
    }

    fn machine(&self) -> Machine {
        Machine::of(self.backend())
    }
}

impl Machine {
    /// What computes on `backend`.
    pub fn of<B: backend::Backend>(backend: &B) -> Self {
        Machine {
            backend: backend.name(),
            kernels: backend.kernels(),
            device: backend.device(),
            threads: rayon::current_num_threads(),
        }
    }
}

/// Why `--kernels` and a GPU do not go together.
pub const CPU_KERNELS_ONLY: &str = "--kernels names kernels of the CPU: leave it out, or use --backend cpu";

/// `wanted`, or `cpu` with one line that says why.
fn or_cpu<T>(wanted: Result<T>, cpu: impl FnOnce() -> Result<T>, say: &mut dyn Write) -> Result<T> {
    wanted.or_else(|error| {
        writeln!(say, "computing on the CPU: {}", explain(&error))?;
        cpu()
    })
}

impl Execution {
    /// Prepares `program` for the backend that the flags name.
    pub fn server(&self, program: &Program, params: &Params) -> Result<Box<dyn Server>> {
        let cpu = || self.cpu_server(program, params);
        match (self.place.backend()?, self.kernels) {
            (Backend::Gpu, Kernels::Auto) => {
                let adapter = gpu::Choice::new(&self.place)?;
                adapter.server(program, params, self.memory_budget)
            }
            (Backend::Gpu, _) => bail!("{CPU_KERNELS_ONLY}"),
            // Kernels of the CPU were named.
            (Backend::Cpu, _) | (Backend::Auto, Kernels::Reference | Kernels::Named(_)) => cpu(),
            (Backend::Auto, Kernels::Auto) => match gpu::Choice::automatic(self.place.compile_timeout.limit()) {
                None => cpu(),
                Some(adapter) => {
                    let server = adapter.and_then(|adapter| adapter.server(program, params, self.memory_budget));
                    or_cpu(server, cpu, &mut io::stderr())
                }
            },
        }
    }

    fn cpu_server(&self, program: &Program, params: &Params) -> Result<Box<dyn Server>> {
        let basis = params.basis().clone();
        let budget = self.memory_budget.unwrap_or_else(memory::default_budget);
        Ok(match self.kernels {
            Kernels::Reference => Box::new(Executor::new(program, params, Reference::new(basis), budget)?),
            Kernels::Auto => Box::new(Executor::new(program, params, Cpu::new(basis), budget)?),
            Kernels::Named(name) => {
                let cpu = Cpu::with_kernels(basis, cpu_kernels(name)?);
                Box::new(Executor::new(program, params, cpu, budget)?)
            }
        })
    }
}

/// The named kernels of the CPU.
///
/// # Errors
/// This machine cannot run them.
pub fn cpu_kernels(name: &str) -> Result<cryptodl_cpu::Kernels> {
    use cryptodl_cpu::Kernels;
    let names = || Kernels::available().iter().map(|kernels| kernels.name()).collect::<Vec<_>>().join(", ");
    Kernels::named(name).with_context(|| {
        format!("this machine cannot run the {name} kernels: use --kernels auto, or one of {}", names())
    })
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn the_cpu_stands_in_with_one_line() {
        let mut said = Vec::new();
        assert_eq!(or_cpu(Ok(1), || Ok(2), &mut said).unwrap(), 1);
        assert!(said.is_empty());
        let lost = anyhow!("the driver gave up").context("no device");
        assert_eq!(or_cpu(Err(lost), || Ok(2), &mut said).unwrap(), 2);
        assert_eq!(String::from_utf8(said).unwrap(), "computing on the CPU: no device: the driver gave up\n");
    }
}
