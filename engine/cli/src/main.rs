//! `cryptodl`: classify images under encryption.
#![forbid(unsafe_code)]

mod advice;
mod bench;
mod classify;
mod commands;
mod drawing;
mod files;
mod flags;
#[cfg_attr(not(feature = "gpu"), path = "no_gpu.rs")]
mod gpu;
mod json;
mod memory;
mod prepared;
mod progress;
mod report;
mod results;
mod samples;
mod signals;
mod terminal;

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;

/// Classify images that stay encrypted: a client encrypts them, a server runs a neural network on the ciphertexts, and
/// only the client can decrypt the labels.
#[derive(Parser)]
#[command(version, arg_required_else_help = true, after_help = EXAMPLES)]
struct Cli {
    /// Threads to use [default: one per core]
    #[arg(long, global = true, display_order = 1000, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    #[command(subcommand)]
    command: commands::Command,
}

const EXAMPLES: &str = "\
Start here:
  cryptodl demo                    real digits, classified under encryption
  cryptodl run --model mnist-1     the whole test set, with a full report

Client and server apart:
  cryptodl plan --model mnist-1 --write-spec mnist.spec
  cryptodl keygen --spec mnist.spec --out keys
  cryptodl encrypt --secret keys/secret/secret.key --spec mnist.spec \\
      --input digits/ --out digits.ct
  cryptodl infer --model mnist-1 --eval-key keys/public/eval.key \\
      --public keys/public/public.key --input digits.ct --out scores.ct
  cryptodl decrypt --secret keys/secret/secret.key --spec mnist.spec \\
      --input scores.ct --out labels.csv";

fn main() -> ExitCode {
    gpu::quiet_driver();
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        // What was ended by a signal needs no explanation, and ends as the signal says.
        Err(_) if signals::stopping() => loop {
            std::thread::park();
        },
        Err(error) => {
            eprintln!("{}", terminal::fitted(&format!("error: {}", advice::explain(&error))));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<()> {
    signals::watch().context("cannot watch for signals")?;
    // Zero means one per core. Threads that start when they are first needed end the process where there is no room for them.
    let threads = cli.threads.map_or(0, usize::from);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
    pool.context("cannot start as many threads: give a smaller number with --threads")?;
    cli.command.run()
}
