//! One file per command.

mod approx;
mod bench;
mod calibrate;
mod data;
mod decrypt;
mod demo;
mod devices;
mod encrypt;
mod import;
mod infer;
mod inspect;
mod keygen;
mod models;
mod plan;
mod query;
mod run;
mod serve;
mod verify;
mod work;

use anyhow::Result;
use clap::Subcommand;

#[derive(Subcommand)]
pub enum Command {
    Demo(demo::Demo),
    Run(run::Run),
    Plan(plan::Plan),
    Keygen(keygen::Keygen),
    Encrypt(encrypt::Encrypt),
    Infer(infer::Infer),
    Decrypt(decrypt::Decrypt),
    Serve(serve::Serve),
    Work(work::Work),
    Query(query::Query),
    Inspect(inspect::Inspect),
    Import(import::Import),
    Calibrate(calibrate::Calibrate),
    Data(data::Data),
    Models(models::Models),
    Approx(approx::Approx),
    Devices(devices::Devices),
    Verify(verify::Verify),
    Bench(bench::BenchCommand),
}

impl Command {
    pub fn run(self) -> Result<()> {
        match self {
            Command::Demo(command) => command.run(),
            Command::Run(command) => command.run(),
            Command::Plan(command) => command.run(),
            Command::Keygen(command) => command.run(),
            Command::Encrypt(command) => command.run(),
            Command::Infer(command) => command.run(),
            Command::Decrypt(command) => command.run(),
            Command::Serve(command) => command.run(),
            Command::Work(command) => command.run(),
            Command::Query(command) => command.run(),
            Command::Inspect(command) => command.run(),
            Command::Import(command) => command.run(),
            Command::Calibrate(command) => command.run(),
            Command::Data(command) => command.run(),
            Command::Models(command) => command.run(),
            Command::Approx(command) => command.run(),
            Command::Devices(command) => command.run(),
            Command::Verify(command) => command.run(),
            Command::Bench(command) => command.run(),
        }
    }
}
