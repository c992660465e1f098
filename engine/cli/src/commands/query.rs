//! `cryptodl query`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, anyhow, bail, ensure};
use clap::{ArgGroup, Args};
use cryptodl::{KeyFolder, Keys, row_kernels};
use cryptodl_client::Decryption;
use cryptodl_core::ckks::CheckedSpec;
use cryptodl_core::wire::{Binding, CiphertextLayout, CiphertextsReader};
use cryptodl_data::images::ImageFile;
use cryptodl_data::{self as data, DatasetId, FetchOptions, Split};
use cryptodl_network::{InputSpec, text};
use cryptodl_service::{JobStatus, QueryError, Remote, RemoteModel, RemoteOptions, Sending, Upload};
use serde::Serialize;
use zeroize::Zeroizing;

use crate::files::{self, Written};
use crate::json::Json;
use crate::memory::{self, peak_rss, show_size};
use crate::progress::{Bar, timed};
use crate::report::Score;
use crate::results::{FORMATS, Results, Shown};
use crate::samples::{READING, fetch, next_values, open_images};
use crate::signals;
use crate::terminal::counted;

const TEACH: &str = "\
The first time, keys are made in --keys for the client spec that the service sends, after all of it
was checked, and the spec is kept beside them. From then on a service that sends another spec is
refused: the network, or what is done with its results, has changed. With --accept-new-spec the new
one is kept instead, if the keys fit it.

The token that the operator gave you is read from --token-file, or from the environment variable
CRYPTODL_TOKEN. An interrupted upload or download goes on where it was.

Examples:
  cryptodl query --server http://127.0.0.1:8750 --model mnist-1 --keys my-keys --images 100
  cryptodl query --server https://predict.example.org --token-file token --model mnist-1 \\
      --keys my-keys --input digits/ --out labels.csv";

/// Have images classified by a service that cannot see them
///
/// Encrypts the images, sends them to a service that `cryptodl serve` runs, fetches the encrypted scores, and decrypts the labels
/// here. The secret key never leaves this machine, and the service is told nothing of what was decrypted: nothing is sent after
/// it, whether it went well or not.
#[derive(Args)]
#[command(override_usage = "\
cryptodl query --server URL --model NAME --keys DIR [--input FILE --out FILE] [OPTIONS]")]
#[command(group(ArgGroup::new("taken").args(["input", "data"])))]
#[command(after_help = format!("{TEACH}\n\n{FORMATS}"))]
pub struct Query {
    /// The service, such as https://predict.example.org; http only on this machine
    #[arg(long, value_name = "URL")]
    server: String,
    /// One of the models that it serves
    #[arg(long, value_name = "NAME")]
    model: String,
    /// Folder of your keys for this model of this service, as `keygen` writes it; made if absent
    #[arg(long, value_name = "DIR")]
    keys: PathBuf,
    /// Your images: as of `encrypt --input`
    #[arg(long, value_name = "FILE", requires = "out", value_parser = files::input_path)]
    input: Option<PathBuf>,
    /// The test images of this data set instead; by default that of the shipped model of the same name
    #[arg(long, value_name = "SET")]
    data: Option<DatasetId>,
    /// Take the first K images only
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(1..))]
    images: Option<u32>,
    /// Where the labels go: a .csv, .json, .npy or .txt file, or `-` for standard output
    #[arg(long, value_name = "FILE")]
    out: Option<Results>,
    #[command(flatten)]
    shown: Shown,
    /// File with the token that the operator gave you
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Trust these certificates, in PEM, instead of the system's
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Go on with a client spec that has changed since the keys were made
    #[arg(long)]
    accept_new_spec: bool,
    /// Leave the result with the service until it expires, instead of deleting it after it was fetched
    #[arg(long)]
    keep: bool,
    /// Refuse to make keys, or to send more, than SIZE, as 2GiB, 512MiB or bytes
    ///
    /// How large keys and ciphertexts are follows from the client spec, which comes from a stranger.
    #[arg(long, value_name = "SIZE", default_value = "4GiB", value_parser = memory::parse_size)]
    max_size: u64,
    /// Give up when the service has not answered, or was full, for so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    patience: u64,
    #[command(flatten)]
    json: Json,
}

/// What `query --json` writes: the client's part of what `run --json` does.
#[derive(Serialize)]
struct Report {
    model: String,
    server: String,
    dataset: String,
    program: String,
    job: String,
    images: usize,
    batches: usize,
    slots: usize,
    encrypted: Score,
    /// Images whose labels are doubtful.
    out_of_range: usize,
    seconds: Seconds,
    bytes: Bytes,
    files: Vec<Written>,
    peak_rss_bytes: Option<u64>,
}

#[derive(Default, Serialize)]
struct Seconds {
    prepare: f64,
    keygen: f64,
    /// Of which the most passes while ciphertexts are sent.
    encrypt: f64,
    upload: f64,
    /// From the whole upload to the result: waiting for a turn, and the computation.
    wait: f64,
    download: f64,
    decrypt: f64,
    total: f64,
}

#[derive(Serialize)]
struct Bytes {
    eval_key: u64,
    public_key: u64,
    upload: u64,
    download: u64,
    upload_per_image: f64,
}

/// Images, one set after the other.
struct Source {
    name: String,
    count: usize,
    images: Images,
    names: Option<Vec<String>>,
    labels: Option<Vec<u8>>,
}

enum Images {
    File(PathBuf, ImageFile),
    /// All values, and how many were taken.
    Values(Vec<f32>, usize),
}

impl Query {
    pub fn run(self) -> Result<()> {
        let start = Instant::now();
        let mut seconds = Seconds::default();
        let folder = KeyFolder::new(&self.keys);
        let outputs: Vec<&Path> = self.out.iter().map(Results::path).chain(self.json.path()).collect();
        let keys = [&folder.secret_key, &folder.public_key, &folder.eval_key, &folder.client_spec];
        let inputs = keys.into_iter().chain(&self.input).chain(&self.token_file).chain(&self.ca).map(PathBuf::as_path);
        files::distinct(&outputs, &inputs.collect::<Vec<_>>())?;
        let json = match &self.out {
            Some(out) => self.json.create_beside(out.path())?,
            None => self.json.create()?,
        };

        let model = RemoteModel::open(self.remote()?, &self.model)
            .with_context(|| format!("the client spec of {}", self.model))?;
        let spec = model.client().spec();
        timed(&mut seconds.keygen, || self.make_keys(&folder, &model))?;
        let keys = self.load_keys(&folder, &model)?;
        let mut source = self.source(spec)?;
        let params = spec.params();
        // A set and its pixels as numbers.
        let set = model.client().request_len(source.count.min(params.n()));
        let pixels = source.count.min(params.n()) as u64 * spec.input.shape.iter().product::<usize>() as u64;
        memory::afford(set.saturating_add(4 * pixels).saturating_add(READING), &folder.client_spec)?;
        let result = self.out.as_ref().map(|out| out.create(&self.shown)).transpose()?;

        let (mut public, mut evaluation) = (Vec::new(), Vec::new());
        model.client().write_public_key(&keys.public, &mut public)?;
        model.client().write_evaluation_keys(&keys.evaluation, &mut evaluation)?;
        let upload =
            model.announce(&public, &evaluation, source.count, self.max_size).map_err(|error| match error {
                QueryError::LargeRequest { images, bytes, most } => anyhow!(
                    "{} would make a request of {}, and --max-size allows {}: raise it, or send fewer images",
                    counted(images, "image"),
                    show_size(bytes),
                    show_size(most)
                ),
                error => error.into(),
            })?;
        seconds.prepare = start.elapsed().as_secs_f64() - seconds.keygen;

        let job = timed(&mut seconds.upload, || send(&model, &upload, &keys, &mut source, &mut seconds.encrypt))?;
        eprintln!("job {job} was accepted");
        timed(&mut seconds.wait, || wait(model.remote(), &job))?;
        let scores = tempfile::tempfile().context("no room for the result")?;
        let down = model.client().response_len(source.count);
        timed(&mut seconds.download, || {
            let bar = Bar::new("download");
            Ok(model.fetch(&job, source.count, &scores, self.keep, &mut |bytes| bar.show(bytes, down))?)
        })?;
        // From here on nothing is sent: the service must not learn how the decryption went.
        let client = model.into_client();
        let spec = client.spec();
        let params = spec.params();
        let decrypting = Instant::now();
        let binding = Binding { program: spec.program, params };
        let mut sets =
            CiphertextsReader::open(scores, &binding, &CiphertextLayout::result(spec)).context("the result")?;
        let info = sets.info().clone();
        ensure!(info.images == source.count, "the result has {} for {}", info.images, counted(source.count, "image"));
        let mut decryption = Decryption::new(spec, &keys.secret, &info).context("the result")?;
        decryption = decryption.with_kernels(row_kernels(params));
        let (mut labels, mut doubtful) = (Vec::new(), 0);
        let mut each = |put: &mut dyn FnMut(&cryptodl::Decrypted) -> Result<()>| -> Result<()> {
            let bar = Bar::new("decrypt");
            let mut set = Vec::new();
            while sets.next(&mut set)? {
                let decrypted = decryption.next(&set).context("the result")?;
                doubtful += decrypted.out_of_range.iter().filter(|&&doubtful| doubtful).count();
                labels.extend_from_slice(&decrypted.labels);
                put(&decrypted)?;
                bar.show(labels.len() as u64, info.images as u64);
            }
            Ok(())
        };
        match result {
            Some(result) => {
                result.write(spec, info.images, source.names.as_deref(), |out| each(&mut |set| out.put(set)))?;
            }
            None => each(&mut |_| Ok(()))?,
        }
        seconds.decrypt = decrypting.elapsed().as_secs_f64();
        seconds.total = start.elapsed().as_secs_f64();
        if doubtful > 0 {
            eprintln!(
                "warning: {doubtful} image(s) have scores far outside the calibrated range, so that their labels are doubtful"
            );
        }
        let truth = source.labels.as_ref();
        let correct = truth.map(|truth| truth.iter().zip(&labels).filter(|(a, b)| u32::from(**a) == **b).count());
        let report = Report {
            model: spec.model.clone(),
            server: self.server.clone(),
            dataset: source.name,
            program: spec.program.to_string(),
            job,
            images: info.images,
            batches: info.sets(params),
            slots: params.n(),
            encrypted: Score { correct, accuracy: correct.map(|correct| correct as f64 / info.images as f64) },
            out_of_range: doubtful,
            bytes: Bytes {
                eval_key: evaluation.len() as u64,
                public_key: public.len() as u64,
                upload: upload.length,
                download: down,
                upload_per_image: upload.length as f64 / info.images as f64,
            },
            seconds,
            files: self.out.iter().map(|out| Written::at(out.path(), "")).collect(),
            peak_rss_bytes: peak_rss(),
        };
        json.show(&report, || report.text())
    }

    fn remote(&self) -> Result<Remote> {
        let token = match &self.token_file {
            Some(path) => {
                let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
                Some(Zeroizing::new(text))
            }
            None => std::env::var("CRYPTODL_TOKEN").ok().map(Zeroizing::new),
        };
        let authority =
            self.ca.as_ref().map(|path| fs::read(path).with_context(|| format!("cannot read {}", path.display())));
        let patience = Duration::from_secs(self.patience);
        let url = self.server.clone();
        Ok(Remote::new(RemoteOptions { url, token, authority: authority.transpose()?, patience })?)
    }

    /// Makes keys if there are none, and keeps the client spec beside them.
    fn make_keys(&self, folder: &KeyFolder, model: &RemoteModel) -> Result<()> {
        if folder.has_keys() {
            return Ok(());
        }
        eprintln!("making keys in {}", self.keys.display());
        // Files under temporary names are not left behind.
        let _signals_wait = signals::hold();
        model.make_keys(folder, self.max_size).map_err(|error| match error {
            QueryError::LargeKeys { bytes, most } => anyhow!(
                "the keys would have {}, and --max-size allows {}: raise it, or check where the client spec comes from",
                show_size(bytes),
                show_size(most)
            ),
            error => error.into(),
        })
    }

    /// Loads the keys, and compares the client spec with the one that they were made for.
    fn load_keys(&self, folder: &KeyFolder, model: &RemoteModel) -> Result<Keys> {
        let loaded = model.load_keys(folder, self.accept_new_spec).map_err(|error| match error {
            QueryError::SpecChanged(_) => anyhow!(
                "{error}. If you still trust the service, say --accept-new-spec, or make new keys in another folder with --keys"
            ),
            error => error.into(),
        })?;
        if loaded.new_spec {
            let program = model.client().spec().program;
            eprintln!("{} is the new client spec, with Program {program}", folder.client_spec.display());
        }
        Ok(loaded.keys)
    }

    fn source(&self, spec: &CheckedSpec) -> Result<Source> {
        let input = InputSpec { shape: spec.input.shape, range: spec.input.range };
        let most = self.images.map_or(usize::MAX, |images| images as usize);
        if let Some(path) = &self.input {
            let images = open_images(path, &input)?;
            let count = images.count().min(most);
            let names = images.names().map(|names| names[..count].to_vec());
            let name = path.display().to_string();
            return Ok(Source { name, count, names, labels: None, images: Images::File(path.clone(), images) });
        }
        let shipped = || cryptodl_zoo::load(&spec.model).ok()?.dataset;
        let Some(id) = self.data.or_else(shipped) else {
            bail!(
                "{} is no shipped model, so that its images are not known: name them with --input, or with --data",
                self.model
            );
        };
        fetch(id, &FetchOptions { split: Some(Split::Test), ..FetchOptions::default() })?;
        let set = data::load(id, Split::Test, &FetchOptions::default())?;
        let values = set.images.to_values(&input).with_context(|| format!("data set {id}"))?;
        let count = values.dim().0.min(most);
        let labels = Some(set.labels[..count].to_vec());
        let values = values.into_raw_vec_and_offset().0;
        Ok(Source { name: format!("{id}-test"), count, names: None, labels, images: Images::Values(values, 0) })
    }
}

impl Source {
    /// Appends the values of the next `count` images.
    fn next(&mut self, values: &mut Vec<f32>, count: usize, input: &InputSpec) -> Result<()> {
        match &mut self.images {
            Images::File(path, images) => {
                let next = next_values(images, path, count, input)?;
                values.extend_from_slice(next.as_slice().expect("images are in standard order"));
            }
            Images::Values(all, taken) => {
                let pixels: usize = input.shape.iter().product();
                values.extend_from_slice(&all[*taken * pixels..(*taken + count) * pixels]);
                *taken += count;
            }
        }
        Ok(())
    }
}

/// Encrypts the images, and sends each part as soon as it is there. Returns the name of the job.
fn send(model: &RemoteModel, upload: &Upload, keys: &Keys, source: &mut Source, seconds: &mut f64) -> Result<String> {
    let spec = model.client().spec();
    let input = InputSpec { shape: spec.input.shape, range: spec.input.range };
    let (encrypting, uploading) = (Bar::new("encrypt"), Bar::new("upload"));
    let tell = Sending {
        encrypted: &|progress| encrypting.watch(progress),
        arrived: &|bytes, length| uploading.show(bytes, length),
    };
    let next = |values: &mut Vec<f32>, count: usize| source.next(values, count, &input);
    let sent = model.send(upload, keys.encryption(spec.encryption), next, |encrypt| encrypt(), tell);
    let (job, took) = sent.map_err(|error| match error {
        QueryError::Encrypt(error) => Error::from(error).context(source.name.clone()),
        error => error.into(),
    })?;
    *seconds = took;
    Ok(job)
}

/// Waits until a job has a result, and shows how far it is.
fn wait(remote: &Remote, job: &str) -> Result<()> {
    let bar = Bar::new("compute");
    remote.wait(job, &mut |status: &JobStatus| match (&status.progress, status.before) {
        (Some(progress), _) if progress.total > 0 => {
            bar.say(progress.layer.as_deref().map(text::name).unwrap_or_default());
            bar.show(progress.done, progress.total);
        }
        (_, Some(before)) => bar.say(format!("{} before this one", counted(before as usize, "job"))),
        _ => {}
    })?;
    Ok(())
}

impl Report {
    fn text(&self) -> String {
        let Seconds { keygen, encrypt, upload, wait, download, decrypt, .. } = self.seconds;
        let Bytes { upload: up, download: down, .. } = self.bytes;
        let mut text = format!(
            "{} classified by {}\nkeys {keygen:.2} s, encrypt {encrypt:.2} s, upload {upload:.2} s ({}), wait {wait:.2} s, \
             download {download:.2} s ({}), decrypt {decrypt:.2} s\n",
            counted(self.images, "image"),
            self.server,
            show_size(up),
            show_size(down),
        );
        if let Score { correct: Some(correct), accuracy: Some(accuracy) } = self.encrypted {
            text += &format!("{correct} of {} labels are right: {:.2} %\n", self.images, 100.0 * accuracy);
        }
        text + &files::listed(&self.files)
    }
}
