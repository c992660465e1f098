//! `cryptodl query`.

use std::fs::{self, File};
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::{ArgGroup, Args};
use cryptodl::Keys;
use cryptodl_client::wire::read_secret_key;
use cryptodl_client::{Decryption, Encryption, EncryptionKey, SecretKey};
use cryptodl_core::ckks::{CheckedSpec, EncryptionKind, EvalKeys, PublicKey, Randomness};
use cryptodl_core::watch::{Progress, Watch};
use cryptodl_core::wire::{
    Binding, CiphertextLayout, CiphertextsReader, CiphertextsWriter, ciphertexts_len, identify, read_client_spec,
    read_needed_eval_keys, read_public_key, write_client_spec, write_eval_keys, write_public_key,
};
use cryptodl_data::images::ImageFile;
use cryptodl_data::{self as data, DatasetId, FetchOptions, Split};
use cryptodl_network::InputSpec;
use cryptodl_service::{JobStatus, Remote, RemoteOptions, Spool};
use serde::Serialize;
use zeroize::Zeroizing;

use super::keygen::KeyFolder;
use crate::files::{self, Access, Output, Written};
use crate::json::Json;
use crate::memory::{self, peak_rss, show_size};
use crate::progress::{Bar, timed};
use crate::report::Score;
use crate::results::{FORMATS, Results, Shown};
use crate::samples::{READING, fetch, next_values, open_images};
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

/// A client's keys for one Program.
struct Loaded {
    secret: SecretKey,
    public: PublicKey,
    evaluation: EvalKeys,
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

        let remote = self.remote()?;
        let file = remote.spec(&self.model).with_context(|| format!("the client spec of {}", self.model))?;
        let spec = read_client_spec(&file[..]).map_err(anyhow::Error::from).and_then(|spec| Ok(spec.check()?));
        let spec = spec.with_context(|| format!("the client spec that {} sends", remote.url()))?;
        ensure!(
            spec.model == self.model,
            "{} sends the client spec of {} for {}",
            remote.url(),
            spec.model,
            self.model
        );
        timed(&mut seconds.keygen, || self.make_keys(&folder, &spec))?;
        let keys = self.load_keys(&folder, &spec, &remote)?;
        let mut source = self.source(&spec)?;
        let params = spec.params();
        let length = ciphertexts_len(params, &CiphertextLayout::input(&spec), source.count as u64);
        ensure!(
            length <= self.max_size,
            "{} would make a request of {}, and --max-size allows {}: raise it, or send fewer images",
            counted(source.count, "image"),
            show_size(length),
            show_size(self.max_size)
        );
        // A set and its pixels as numbers.
        let set = ciphertexts_len(params, &CiphertextLayout::input(&spec), source.count.min(params.n()) as u64);
        let pixels = source.count.min(params.n()) as u64 * spec.input.shape.iter().product::<usize>() as u64;
        memory::afford(set.saturating_add(4 * pixels).saturating_add(READING), &folder.client_spec)?;
        let result = self.out.as_ref().map(|out| out.create(&self.shown)).transpose()?;

        let (mut public, mut evaluation) = (Vec::new(), Vec::new());
        write_public_key(&mut public, params, &keys.public)?;
        write_eval_keys(&mut evaluation, params, &keys.evaluation)?;
        let key = remote.register_keys(&self.model, &public, &evaluation)?;
        let upload = remote.create_upload(&key, length)?;
        seconds.prepare = start.elapsed().as_secs_f64() - seconds.keygen;

        timed(&mut seconds.upload, || send(&remote, &upload, length, &spec, &keys, &mut source, &mut seconds.encrypt))?;
        let job = remote.submit(&upload)?.id;
        eprintln!("job {job} was accepted");
        timed(&mut seconds.wait, || wait(&remote, &job))?;
        let scores = tempfile::tempfile().context("no room for the result")?;
        let down = ciphertexts_len(params, &CiphertextLayout::result(&spec), source.count as u64);
        timed(&mut seconds.download, || self.download(&remote, &job, down, &scores))?;
        // From here on nothing is sent: the service must not learn how the decryption went.
        drop(remote);

        let decrypting = Instant::now();
        let binding = Binding { program: spec.program, params };
        let mut file = scores;
        file.seek(SeekFrom::Start(0))?;
        let mut sets =
            CiphertextsReader::open(file, &binding, &CiphertextLayout::result(&spec)).context("the result")?;
        let info = sets.info().clone();
        ensure!(info.images == source.count, "the result has {} for {}", info.images, counted(source.count, "image"));
        let mut decryption = Decryption::new(&spec, &keys.secret, &info).context("the result")?;
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
                result.write(&spec, info.images, source.names.as_deref(), |out| each(&mut |set| out.put(set)))?;
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
                upload: length,
                download: down,
                upload_per_image: length as f64 / info.images as f64,
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
    fn make_keys(&self, folder: &KeyFolder, spec: &CheckedSpec) -> Result<()> {
        if folder.client_spec.exists() {
            return Ok(());
        }
        let prepared = folder.prepare(spec, self.max_size, false)?;
        eprintln!("making keys in {}", self.keys.display());
        prepared.write(spec, &Keys::generate(spec, &mut Randomness::from_os()?)?)?;
        Ok(())
    }

    /// Loads the keys, and compares the client spec with the one that they were made for.
    fn load_keys(&self, folder: &KeyFolder, spec: &CheckedSpec, remote: &Remote) -> Result<Loaded> {
        let pinned = files::read_spec(&folder.client_spec)?;
        let changed = spec_bytes(&pinned)? != spec_bytes(spec)?;
        ensure!(
            !changed || self.accept_new_spec,
            "{} now sends another client spec for {} than the one in {}: Program {} instead of {}. The network, or what is done \
             with its results, has changed. If you still trust the service, say --accept-new-spec, or make new keys in another \
             folder with --keys",
            remote.url(),
            self.model,
            folder.client_spec.display(),
            spec.program,
            pinned.program
        );
        let params = spec.params();
        let fit = |error: anyhow::Error| {
            if !changed {
                return error;
            }
            error.context("the new client spec needs other keys than these: choose another folder with --keys")
        };
        let secret = files::read(&folder.secret_key, |file| read_secret_key(file, params)).map_err(fit)?;
        let public = files::read(&folder.public_key, |file| read_public_key(file, params)).map_err(fit)?;
        let needed = &spec.evaluation_keys;
        let read = |file| read_needed_eval_keys(file, params, needed);
        let evaluation = files::read(&folder.eval_key, read).map_err(fit)?;
        if let Some(missing) = needed.iter().find(|layout| evaluation.get(**layout).is_none()) {
            let place = folder.eval_key.display();
            return Err(fit(anyhow!("{place} has no key for {missing}")));
        }
        if changed {
            let file = Output::create(&folder.client_spec, Access::Everybody)?;
            file.write(|file| write_client_spec(file, spec))?;
            eprintln!("{} is the new client spec, with Program {}", folder.client_spec.display(), spec.program);
        }
        Ok(Loaded { secret, public, evaluation })
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

    /// Fetches a result, checks that it is whole, and deletes it there.
    fn download(&self, remote: &Remote, job: &str, length: u64, scores: &File) -> Result<()> {
        let bar = Bar::new("download");
        remote.fetch(job, length, scores, &mut |bytes| bar.show(bytes, length))?;
        let mut file = scores;
        file.seek(SeekFrom::Start(0))?;
        // The checksum says nothing of what is inside.
        identify(file).with_context(|| format!("the result of job {job}"))?;
        if !self.keep {
            remote.delete_job(job)?;
        }
        Ok(())
    }
}

fn spec_bytes(spec: &CheckedSpec) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    write_client_spec(&mut bytes, spec)?;
    Ok(bytes)
}

/// Encrypts the images, and sends each part as soon as it is there.
fn send(
    remote: &Remote,
    upload: &str,
    length: u64,
    spec: &CheckedSpec,
    keys: &Loaded,
    source: &mut Source,
    seconds: &mut f64,
) -> Result<()> {
    let spool = Spool::new(tempfile::tempfile().context("no room for the ciphertexts")?);
    let given_up = AtomicBool::new(false);
    let bar = Bar::new("upload");
    thread::scope(|scope| {
        let encrypting = scope.spawn(|| encrypt(&spool, spec, keys, source, &given_up));
        let sent = remote.upload(upload, length, &spool, &mut |bytes| bar.show(bytes, length));
        if sent.is_err() {
            given_up.store(true, Ordering::Relaxed);
        }
        // What went wrong first.
        let encrypted = encrypting.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        match (encrypted, sent) {
            (_, Err(error)) if !matches!(error, cryptodl_service::RemoteError::File(_)) => Err(error.into()),
            (Err(error), _) => Err(error),
            (_, Err(error)) => Err(error.into()),
            (Ok(took), Ok(())) => {
                *seconds = took;
                Ok(())
            }
        }
    })
}

/// Returns the seconds that it took.
fn encrypt(
    spool: &Spool,
    spec: &CheckedSpec,
    keys: &Loaded,
    source: &mut Source,
    given_up: &AtomicBool,
) -> Result<f64> {
    let start = Instant::now();
    // Whatever happens, whoever reads is told that nothing more comes.
    let mut sink = BufWriter::new(spool.writer());
    let bar = Bar::new("encrypt");
    let key = match spec.encryption {
        EncryptionKind::Secret => EncryptionKey::Secret(&keys.secret),
        EncryptionKind::Public => EncryptionKey::Public(&keys.public),
    };
    let mut rng = Randomness::from_os()?;
    let mut encryption = Encryption::new(spec, key, source.count, &mut rng).with_context(|| source.name.clone())?;
    let binding = Binding { program: spec.program, params: spec.params() };
    let layout = CiphertextLayout::input(spec);
    let mut writer = CiphertextsWriter::new(&mut sink, &binding, &layout, encryption.info())?;
    let input = InputSpec { shape: spec.input.shape, range: spec.input.range };
    let pixels: usize = spec.input.shape.iter().product();
    let (mut set, mut done) = (Vec::new(), 0);
    while encryption.next_images() > 0 {
        let count = encryption.next_images();
        let show = |progress: Progress| {
            let share = progress.done as f64 / progress.total.max(1) as f64;
            bar.show((done + (share * count as f64) as usize) as u64, source.count as u64);
        };
        let watch = Watch::new(&show).with_cancel(given_up);
        match &mut source.images {
            Images::File(path, images) => {
                let values = next_values(images, path, count, &input)?;
                let values = values.as_slice().expect("images are in standard order");
                encryption.next(values, &mut set, watch).with_context(|| source.name.clone())?;
            }
            Images::Values(values, taken) => {
                let next = &values[*taken * pixels..(*taken + count) * pixels];
                encryption.next(next, &mut set, watch).with_context(|| source.name.clone())?;
                *taken += count;
            }
        }
        writer.put(&set)?;
        done += count;
    }
    writer.finish()?;
    sink.flush()?;
    Ok(start.elapsed().as_secs_f64())
}

/// Waits until a job has a result, and shows how far it is.
fn wait(remote: &Remote, job: &str) -> Result<()> {
    let bar = Bar::new("compute");
    remote.wait(job, &mut |status: &JobStatus| match (&status.progress, status.before) {
        (Some(progress), _) if progress.total > 0 => {
            bar.say(String::new());
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
