//! `cryptodl work`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::{ArgGroup, Args};
use cryptodl::{Machine, Program, Service};
use cryptodl_service::{Remote, RemoteOptions, Stop, WorkOptions, WorkReport, work};
use serde::Serialize;
use zeroize::Zeroizing;

use crate::files;
use crate::flags::{Execution, Planning};
use crate::json::Json;
use crate::memory::{self, peak_rss};
use crate::prepared::{load_and_plan, model_files, prepare, server};
use crate::signals;
use crate::terminal::{counted, printable};

/// Compute for a service that runs elsewhere
///
/// Takes sets of encrypted images from a service that `cryptodl serve` runs, computes them here, and sends the encrypted scores
/// back. A request of many sets is shared by all workers. A worker can be killed at any moment: when it has not been heard of for
/// as long as the service's --lease says, another one has its set, and whatever it sends later is refused.
///
/// The worker has its own copy of the model: weights do not travel. Its Program must be the one that the service serves, so
/// give both the same file that `cryptodl plan --out` wrote, or the same model and planning flags.
#[derive(Args)]
#[command(override_usage = "\
cryptodl work --server URL <--model MODEL|--program FILE>... [OPTIONS]")]
#[command(group(ArgGroup::new("computed").required(true).multiple(true).args(["model", "program"])))]
#[command(after_help = "\
Examples:
  cryptodl serve --workers-only --program mnist-2.program --state service
      then, in two other terminals of the same machine:
  cryptodl work --server http://127.0.0.1:8750 --program mnist-2.program --threads 4

  cryptodl serve --new-token gpu-1 --worker --tokens tokens.txt > gpu-1.token
  cryptodl work --server https://predict.example.org:8750 --token-file gpu-1.token \\
      --program mnist-2.program

The token is read from --token-file, or from the environment variable CRYPTODL_TOKEN. On SIGTERM or
Ctrl-C the worker takes no further set, and gives back what it does not finish within --grace; a
second signal ends it at once. docs/scale.md says how many workers one service can feed.")]
pub struct Work {
    /// The service, such as https://predict.example.org; http only on this machine
    #[arg(long, value_name = "URL")]
    server: String,
    /// A shipped model or a .toml file to compute; may be given several times
    #[arg(long)]
    model: Vec<String>,
    /// A saved Program to compute, as `plan --out` writes it; may be given several times
    #[arg(long, value_name = "FILE", conflicts_with = "Planning")]
    program: Vec<PathBuf>,
    /// File with the worker's token, which `serve --new-token NAME --worker` printed
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Trust these certificates, in PEM, instead of the system's
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Memory for expanded evaluation keys, those that were used last
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = memory::parse_size)]
    key_memory: u64,
    /// Give up when the service has not answered for so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    patience: u64,
    /// Seconds that the set that is computed may take to end after SIGTERM
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    grace: u64,
    /// Compute without masks where the service asks for it: for tests
    #[arg(long, hide = true)]
    insecure_deterministic: bool,
    #[command(flatten)]
    json: Json,
    #[command(flatten)]
    planning: Planning,
    #[command(flatten)]
    execution: Execution,
}

/// What `work --json` writes when the worker ends.
#[derive(Serialize)]
struct Report {
    server: String,
    #[serde(flatten)]
    machine: Machine,
    programs: Vec<String>,
    #[serde(flatten)]
    work: WorkReport,
    seconds_in_all: f64,
    peak_rss_bytes: Option<u64>,
}

impl Work {
    pub fn run(self) -> Result<()> {
        let start = Instant::now();
        let models: Vec<PathBuf> = self.model.iter().flat_map(|name| model_files(name)).collect();
        let inputs = self.program.iter().chain(&self.token_file).chain(&self.ca).chain(&models);
        files::distinct(
            &self.json.path().into_iter().collect::<Vec<_>>(),
            &inputs.map(PathBuf::as_path).collect::<Vec<_>>(),
        )?;
        let remote = self.remote()?;
        let json = self.json.create()?;
        let services = self.services()?;
        let stop = Stop::default();
        let stopping = stop.clone();
        signals::end_gracefully(move || {
            eprintln!("stopping: the set that is computed may end; a second signal ends it at once");
            stopping.stop();
        });
        let remote = remote.until(stop.clone());
        let names: Vec<&str> = services.iter().map(|service| service.spec().model.as_str()).collect();
        eprintln!("{}", printable(&format!("computing {} for {}", names.join(", "), remote.url())));
        let options = WorkOptions {
            key_memory: self.key_memory,
            grace: Duration::from_secs(self.grace),
            insecure_deterministic: self.insecure_deterministic,
        };
        let tell = |why: &str| eprintln!("{}", printable(why));
        let done = work(&remote, &services, options, &stop, &tell)?;
        let report = Report {
            server: self.server.clone(),
            machine: services[0].machine(),
            programs: services.iter().map(|service| service.spec().program.to_string()).collect(),
            work: done,
            seconds_in_all: start.elapsed().as_secs_f64(),
            peak_rss_bytes: peak_rss(),
        };
        json.show(&report, || {
            let WorkReport { sets, images, lost, failed, given_back, seconds } = &report.work;
            format!(
                "{} of {} in {:.1} s of computing and {:.1} s of waiting; {lost} lost, {failed} failed, {given_back} given back\n",
                counted(*sets as usize, "set"),
                counted(*images as usize, "image"),
                seconds.compute,
                seconds.wait
            )
        })
    }

    fn remote(&self) -> Result<Remote> {
        let read = |path: &Path| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
        let token = match &self.token_file {
            Some(path) => {
                let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
                Some(Zeroizing::new(text))
            }
            None => std::env::var("CRYPTODL_TOKEN").ok().map(Zeroizing::new),
        };
        let authority = self.ca.as_deref().map(read).transpose()?;
        let patience = Duration::from_secs(self.patience);
        Ok(Remote::new(RemoteOptions { url: self.server.clone(), token, authority, patience })?)
    }

    fn services(&self) -> Result<Vec<Service>> {
        let server = server(&self.execution)?;
        let options = self.planning.options();
        let planned = self.model.iter().map(|name| Ok::<_, anyhow::Error>(load_and_plan(name, &options)?.1.program));
        let saved = self.program.iter().map(|path| files::read(path, Program::read));
        planned.chain(saved).map(|program| prepare(&server, &program?)).collect()
    }
}
