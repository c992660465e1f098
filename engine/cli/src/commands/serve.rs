//! `cryptodl serve`.

use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{ArgGroup, Args};
use cryptodl::Program;
use cryptodl_service::{
    Bounds, Config, Connections, Host, Model, Network, Objects, Recovered, Role, Stop, Tokens, fresh_token,
};

use crate::files::{self, make_folder};
use crate::flags::{Execution, Planning, thrift};
use crate::memory;
use crate::prepared::{load_and_plan, prepare, server};
use crate::signals;
use crate::terminal::counted;

/// Offer predictions on encrypted images over HTTP
///
/// Clients fetch the client spec, register keys, upload encrypted images and fetch encrypted scores: `cryptodl query` does all
/// of it. Nothing that the service receives, stores or computes can be read by it. Jobs that were accepted survive a crash, and
/// each is computed once. One set of images is computed at a time; tenants take turns. `cryptodl work`, on this machine or on
/// others, computes sets beside the service, or instead of it with --workers-only.
///
/// Without --tokens the service is for this machine, and listens on a loopback address only. With --tokens every tenant has a
/// token, and strangers cannot use it: make one with --new-token, which prints the token once and stores its hash. Tokens must
/// not travel in the clear, so any other address needs --tls-cert and --tls-key, or --behind-proxy.
#[derive(Args)]
#[command(override_usage = "\
cryptodl serve <--model MODEL|--program FILE>... --state DIR [OPTIONS]
       cryptodl serve --new-token NAME [--worker] --tokens FILE")]
#[command(group(ArgGroup::new("what").required(true).multiple(true).args(["model", "program", "new_token"])))]
#[command(after_help = "\
Examples:
  cryptodl serve --model mnist-1 --state service
      then, on the same machine:
  cryptodl query --server http://127.0.0.1:8750 --model mnist-1 --keys my-keys --images 100

  AWS_REGION=eu-central-1 cryptodl serve --program mnist-2.program --workers-only --state service \\
      --store s3://my-bucket/cryptodl

  cryptodl serve --new-token alice --tokens tokens.txt
  cryptodl serve --program mnist-1.program --program mnist-2.program --state /var/lib/cryptodl \\
      --listen 0.0.0.0:8750 --tokens tokens.txt --tls-cert cert.pem --tls-key key.pem

GET /openapi.json describes the API, /healthz and /readyz say how the service is. On SIGTERM or
Ctrl-C it takes no more work and lets what runs end within --grace; a second signal ends it at once.
docs/service.md has the whole story, docs/scale.md says how to use several machines, and SECURITY.md
says who learns what.")]
pub struct Serve {
    /// A shipped model or a .toml file to serve; may be given several times
    #[arg(long)]
    model: Vec<String>,
    /// A saved Program to serve, as `plan --out` writes it; may be given several times
    #[arg(long, value_name = "FILE", conflicts_with = "Planning")]
    program: Vec<PathBuf>,
    /// Folder for the database, and without --store for keys, requests and results; made if absent
    #[arg(long, value_name = "DIR", required_unless_present = "new_token")]
    state: Option<PathBuf>,
    /// Keep keys, requests and results in an object store that speaks S3, below s3://BUCKET/PREFIX, instead of in files
    ///
    /// Clients and workers put ciphertexts there and fetch them there, by addresses that the service signs for a few minutes, so
    /// that they do not go through it. Credentials, region and endpoint are those of the environment variables AWS_ACCESS_KEY_ID,
    /// AWS_SECRET_ACCESS_KEY, AWS_REGION and AWS_ENDPOINT_URL; an endpoint without TLS must be on this machine, and needs
    /// AWS_ALLOW_HTTP=true. Nothing else may use the prefix: what the service does not know there is removed.
    #[arg(long, value_name = "URL", requires = "workers_only")]
    store: Option<String>,
    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8750")]
    listen: SocketAddr,
    /// Where the operator finds /metrics, /healthz and /readyz, in the clear; a loopback address. Without --tokens /metrics is
    /// at --listen too
    #[arg(long, value_name = "ADDRESS")]
    metrics_listen: Option<SocketAddr>,
    /// Who may use the service: a line for each token, with the tenant's name and the token's hash
    #[arg(long, alias = "token-file", value_name = "FILE")]
    tokens: Option<PathBuf>,
    /// Make a token for the tenant NAME, or with --worker for a worker: print it, add its hash to --tokens, and do nothing else.
    /// A running service must be started again to know it
    #[arg(long, value_name = "NAME", requires = "tokens", conflicts_with_all = ["model", "program", "state"])]
    new_token: Option<String>,
    /// With --new-token: the token is for workers (`cryptodl work`), and not for a tenant. A worker receives the public keys and
    /// ciphertexts of all tenants, and decides what their results are
    #[arg(long, requires = "new_token")]
    worker: bool,
    /// Compute nothing in this process: workers do (`cryptodl work`). Weights then take no memory here
    #[arg(long, conflicts_with = "new_token")]
    workers_only: bool,
    /// Do not mask results, so that equal requests have equal results: for tests
    #[arg(long, hide = true)]
    insecure_deterministic: bool,
    /// Keep the state of a set after every step, for tests
    #[arg(long, hide = true)]
    checkpoint_every_step: bool,
    /// Certificate chain for TLS, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Private key of the certificate, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// A proxy in front of the service does TLS: listen in the clear, and ask for tokens on any address
    #[arg(long, conflicts_with = "tls_cert")]
    behind_proxy: bool,
    #[command(flatten)]
    bounds: BoundFlags,
    #[command(flatten)]
    planning: Planning,
    #[command(flatten)]
    execution: Execution,
}

/// What tenants may have.
#[derive(Args)]
#[command(next_help_heading = "Bounds")]
struct BoundFlags {
    /// Sets of images that one key may be used for with a model [default: no limit]
    ///
    /// A set yields up to N evaluations of the network, however many images it declares, and who has enough of them can
    /// imitate the network. For a Program that was planned with --circuit-privacy K,T all keys of a tenant together are held to K
    /// sets in any case.
    #[arg(long, value_name = "SETS")]
    quota: Option<u64>,
    /// Sets of images in one request
    #[arg(long, value_name = "SETS", default_value_t = 16, value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    max_sets: u64,
    /// Jobs of all tenants that wait or run; more are answered with 429
    #[arg(long, value_name = "JOBS", default_value_t = 64)]
    max_jobs: u32,
    /// Jobs of one tenant that wait or run
    #[arg(long, value_name = "JOBS", default_value_t = 16)]
    jobs_per_tenant: u32,
    /// Keys of one tenant; deleted ones that were used count too
    #[arg(long, value_name = "KEYS", default_value_t = 16)]
    keys_per_tenant: u32,
    /// Uploads of one tenant that are no jobs yet
    #[arg(long, value_name = "UPLOADS", default_value_t = 16)]
    uploads_per_tenant: u32,
    /// Disk, or room in the --store, for the keys, uploads and results of one tenant
    #[arg(long, value_name = "SIZE", default_value = "16GiB", value_parser = memory::parse_size)]
    disk_per_tenant: u64,
    /// Memory for expanded evaluation keys, those that were used last
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = memory::parse_size)]
    key_memory: u64,
    /// Hours that results, and uploads that do not grow, are kept
    #[arg(long, value_name = "HOURS", default_value_t = 24, value_parser = clap::value_parser!(u64).range(1..=24 * 365))]
    keep: u64,
    /// Connections at a time
    #[arg(long, value_name = "CONNECTIONS", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=1 << 16))]
    max_connections: u32,
    /// Seconds after which a set is given to another worker, if the one that computes it has not been heard of
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=24 * 3600))]
    lease: u64,
    /// Seconds that requests and the set that is computed may take to end after SIGTERM; a set that does not end waits for the
    /// next start
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    grace: u64,
}

impl Serve {
    pub fn run(self) -> Result<()> {
        if let (Some(name), Some(path)) = (&self.new_token, &self.tokens) {
            return new_token(name, path, if self.worker { Role::Worker } else { Role::Tenant });
        }
        let state = self.state.as_ref().expect("clap requires a state");
        let tokens = self.tokens.as_ref().map(|path| {
            let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
            Tokens::parse(&text).with_context(|| path.display().to_string())
        });
        let tokens = tokens.transpose()?;
        let network = self.network()?;
        // Known before anything is planned.
        network.check(tokens.is_some())?;
        let store = self.store.as_deref().map(store).transpose()?;
        make_folder(state, files::Access::Owner)?;
        let bounds = &self.bounds;
        let config = Config {
            store,
            tokens,
            bounds: Bounds {
                disk_per_tenant: bounds.disk_per_tenant,
                keys_per_tenant: bounds.keys_per_tenant,
                uploads_per_tenant: bounds.uploads_per_tenant,
                jobs_per_tenant: bounds.jobs_per_tenant,
                jobs: bounds.max_jobs,
                upload_seconds: 3600 * bounds.keep,
                result_seconds: 3600 * bounds.keep,
                lease_seconds: bounds.lease,
            },
            key_memory: bounds.key_memory,
            checkpoints: thrift(self.checkpoint_every_step),
            insecure_deterministic: self.insecure_deterministic,
            ..Config::local(state)
        };
        if self.insecure_deterministic {
            eprintln!(
                "warning: --insecure-deterministic: results are not masked, and show exact equations in the weights"
            );
        }
        let host = Host::open(config, self.models()?)?;
        let Recovered { jobs, leftovers } = host.recovered();
        if jobs > 0 || leftovers > 0 {
            let (jobs, leftovers) = (counted(jobs, "job"), counted(leftovers, "unfinished file"));
            eprintln!("after an interruption: {jobs} will be computed again, {leftovers} removed");
        }
        let stop = Stop::default();
        let stopping = stop.clone();
        signals::end_gracefully(move || {
            eprintln!("stopping: what runs may end; a second signal ends it at once");
            stopping.stop();
        });
        let scheme = if network.tls.is_some() { "https" } else { "http" };
        cryptodl_service::run(&host, network, &stop, |address| {
            let names: Vec<&str> = host.models().iter().map(Model::name).collect();
            let line = format!("serving {} at {scheme}://{address}\n", names.join(", "));
            // Whoever started it reads the address; it serves all the same if nobody does.
            let _ = files::print(&line);
        })?;
        Ok(())
    }

    fn network(&self) -> Result<Network> {
        let read = |path: &Path| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
        let tls = match (&self.tls_cert, &self.tls_key) {
            (Some(chain), Some(key)) => {
                let key = zeroize::Zeroizing::new(read(key)?);
                Some(cryptodl_service::tls(&read(chain)?, &key).with_context(|| chain.display().to_string())?)
            }
            _ => None,
        };
        Ok(Network {
            listen: self.listen,
            operator: self.metrics_listen,
            tls,
            behind_proxy: self.behind_proxy,
            connections: Connections { most: self.bounds.max_connections as usize, ..Connections::default() },
            grace: Duration::from_secs(self.bounds.grace),
        })
    }

    fn models(&self) -> Result<Vec<Model>> {
        let options = self.planning.options();
        let planned = self.model.iter().map(|name| Ok::<_, anyhow::Error>(load_and_plan(name, &options)?.1.program));
        let saved = self.program.iter().map(|path| files::read(path, Program::read));
        let programs = planned.chain(saved);
        let BoundFlags { max_sets, quota, .. } = self.bounds;
        if self.workers_only {
            return programs.map(|program| Ok(Model::elsewhere(&program?, max_sets, quota)?)).collect();
        }
        let server = server(&self.execution)?;
        programs.map(|program| Ok(Model::new(prepare(&server, &program?)?, max_sets, quota)?)).collect()
    }
}

/// The object store at `url`, as the environment variables of AWS describe it.
fn store(url: &str) -> Result<Arc<Objects>> {
    let text = |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
    let settings = std::env::vars_os().filter_map(text).filter(|(name, _)| name.starts_with("AWS_"));
    Ok(Arc::new(Objects::new(url, settings)?))
}

/// Makes a token.
fn new_token(name: &str, path: &Path, role: Role) -> Result<()> {
    let (token, line) = fresh_token(name, role)?;
    let failed = || format!("cannot write {}", path.display());
    let mut options = fs::OpenOptions::new();
    options.append(true).create(true).read(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path).with_context(failed)?;
    let before = fs::read(path).with_context(failed)?;
    if before.last().is_some_and(|&last| last != b'\n') {
        bail!("{} does not end with a line feed: it may have been cut off, see what is in it", path.display());
    }
    file.write_all(line.as_bytes()).and_then(|()| file.sync_all()).with_context(failed)?;
    files::print(&format!("{}\n", *token))?;
    eprintln!("this token lets {name} in; it is shown this once, and {} has its hash only", path.display());
    Ok(())
}
