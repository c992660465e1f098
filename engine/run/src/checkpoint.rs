//! What a long computation leaves on disk, so that a process that was killed goes on where it was:
//! results of whole sets, and the state of the set that was being computed.
//!
//! No randomness is kept. A set that is computed anew is re-randomised anew.

use std::ffi::OsStr;
use std::fs::{self, File, TryLockError};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use cryptodl_core::backend::{Backend, Positions, Shape};
use cryptodl_core::ckks::{CiphertextsInfo, Digest, EvalKeys};

use super::RunError;

/// Begins the files of this module; another version does not read them.
const MAGIC: &[u8; 16] = b"cryptodl-resume1";
/// Bytes at the end of a file.
const CHECKSUM: u64 = 32;
/// Name of the file that says what the checkpoint belongs to.
const REQUEST: &str = "request";
/// Begins the names of the files of a set.
const SET: &str = "set-";
/// Begins the names of files that are being written.
const TEMPORARY: &str = "unfinished-";

/// Why a checkpoint cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The folder belongs to another computation.
    #[error(
        "checkpoint {}: it belongs to another computation (another Program, other keys or images, or masks where \
         there were none): name another folder, or delete this one", .0.display()
    )]
    Other(PathBuf),
    /// The folder holds something else.
    #[error("checkpoint: {} is not of a checkpoint: name a folder of its own", .0.display())]
    Occupied(PathBuf),
    /// Another process computes with it.
    #[error("checkpoint {}: another process uses it", .0.display())]
    InUse(PathBuf),
    /// The system refused.
    #[error("checkpoint {}: {error}", .path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's words.
        error: io::Error,
    },
}

/// A client's evaluation keys, as a digest.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KeysDigest([u8; 32]);

impl From<&EvalKeys> for KeysDigest {
    fn from(keys: &EvalKeys) -> Self {
        let mut hasher = blake3::Hasher::new();
        for key in keys.iter() {
            let layout = key.layout.to_string();
            update(&mut hasher, layout.len());
            hasher.update(layout.as_bytes()).update(&key.seed);
            update(&mut hasher, key.b.len());
            for part in key.b.chunks(PIECE) {
                hasher.update(&bytes_of(part));
            }
        }
        KeysDigest(hasher.finalize().into())
    }
}

/// What a checkpoint belongs to, as a digest.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Request([u8; 32]);

impl Request {
    /// Sets as `input` describes them, computed by `program` with these keys, and re-randomised or
    /// not.
    pub fn new(program: Digest, input: &CiphertextsInfo, keys: KeysDigest, rerandomised: bool) -> Self {
        let &CiphertextsInfo { level, values, components, leaves, first_set, seed, images } = input;
        let mut hasher = blake3::Hasher::new();
        hasher.update(MAGIC).update(&program.0).update(&seed.unwrap_or_default());
        let numbers = [level, values, components, leaves.log as usize, first_set, images];
        numbers.iter().for_each(|&number| update(&mut hasher, number));
        [seed.is_some(), rerandomised].iter().for_each(|&flag| update(&mut hasher, flag.into()));
        hasher.update(&keys.0);
        Request(hasher.finalize().into())
    }
}

fn update(hasher: &mut blake3::Hasher, number: usize) {
    hasher.update(&(number as u64).to_le_bytes());
}

/// When the state of a set is kept.
#[derive(Clone, Copy, Debug)]
pub struct Thrift {
    /// Only where the rest of the computation takes longer.
    pub least_rest: Duration,
    /// Share of the time that goes into keeping states.
    pub most_share: f64,
}

impl Default for Thrift {
    /// Ten minutes; a twentieth.
    fn default() -> Self {
        Thrift { least_rest: Duration::from_secs(600), most_share: 0.05 }
    }
}

/// A folder with the results of the sets of one request that are done, and with the state of one
/// that is not. It is locked while it is open.
pub struct Checkpoint {
    folder: PathBuf,
    request: Request,
    thrift: Thrift,
    /// The lock, as soon as the folder is there.
    begun: OnceLock<Option<File>>,
}

/// What a set is known by: the digest of its bytes.
pub(super) type SetDigest = [u8; 32];

/// The digest of a set's bytes.
pub(super) fn digest(set: &[u8]) -> SetDigest {
    blake3::hash(set).into()
}

/// Residues that are written at a time.
const PIECE: usize = 1 << 16;

fn bytes_of(residues: &[u32]) -> Vec<u8> {
    residues.iter().flat_map(|residue| residue.to_le_bytes()).collect()
}

impl Checkpoint {
    /// The checkpoint of `request` in `folder`, which is made if it is absent. What a process left
    /// unfinished is deleted.
    ///
    /// # Errors
    /// A folder of another request or of something else, or in use; what the system refuses.
    pub fn open(folder: &Path, request: Request, thrift: Thrift) -> Result<Self, CheckpointError> {
        let checkpoint = Checkpoint { folder: folder.to_owned(), request, thrift, begun: OnceLock::new() };
        checkpoint.begin()?;
        Ok(checkpoint)
    }

    /// [`Self::open`] where the folder is there. Where it is not, it is made when the first state is kept, and nothing is kept before:
    /// most computations end sooner.
    ///
    /// # Errors
    /// As there.
    pub fn open_when_due(folder: &Path, request: Request, thrift: Thrift) -> Result<Self, CheckpointError> {
        let checkpoint = Checkpoint { folder: folder.to_owned(), request, thrift, begun: OnceLock::new() };
        if folder.exists() {
            checkpoint.begin()?;
        }
        Ok(checkpoint)
    }

    /// Makes the folder, unless it is there, and locks it.
    fn begin(&self) -> Result<(), CheckpointError> {
        if self.begun.get().is_some() {
            return Ok(());
        }
        let folder = &self.folder;
        fs::create_dir_all(folder).map_err(at(folder))?;
        let lock = lock(folder)?;
        let mut known = false;
        for entry in fs::read_dir(folder).map_err(at(folder))? {
            let path = entry.map_err(at(folder))?.path();
            match path.file_name().and_then(OsStr::to_str) {
                Some(REQUEST) => known = true,
                Some(name) if name.starts_with(SET) => (),
                Some(name) if name.starts_with(TEMPORARY) => fs::remove_file(&path).map_err(at(&path))?,
                _ => return Err(CheckpointError::Occupied(path)),
            }
        }
        if !known {
            self.write(REQUEST, |file| file.write_all(&self.request.0))?;
        }
        match self.read(REQUEST, |file| read_array(file))? {
            Some(found) if found == self.request.0 => {
                // Only the thread that computes comes here.
                let _ = self.begun.set(lock);
                Ok(())
            }
            _ => Err(CheckpointError::Other(folder.to_owned())),
        }
    }

    /// Deletes everything: the computation has ended and its result is where it belongs.
    ///
    /// # Errors
    /// What the system refuses.
    pub fn remove(self) -> Result<(), CheckpointError> {
        match self.begun.get() {
            Some(_) => fs::remove_dir_all(&self.folder).map_err(at(&self.folder)),
            None => Ok(()),
        }
    }

    /// The result of a set, if it is there.
    pub(super) fn result(&self, set: usize, digest: &SetDigest) -> Result<Option<Vec<u8>>, CheckpointError> {
        let kept = self.read(&format!("{SET}{set}.result"), |file| {
            let (owner, mut result): (SetDigest, _) = (read_array(file)?, Vec::new());
            file.read_to_end(&mut result)?;
            Ok((owner, result))
        })?;
        self.own(kept, digest)
    }

    /// Keeps the result of a set, and forgets its state.
    pub(super) fn keep_result(&self, set: usize, digest: &SetDigest, result: &[u8]) -> Result<(), CheckpointError> {
        if self.begun.get().is_none() {
            return Ok(());
        }
        self.write(&format!("{SET}{set}.result"), |file| {
            file.write_all(digest)?;
            file.write_all(result)
        })?;
        let state = self.folder.join(state_name(set));
        match fs::remove_file(&state) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(&state)(error)),
            _ => Ok(()),
        }
    }

    /// What was kept, if it is of a set of this digest.
    fn own<T>(&self, kept: Option<(SetDigest, T)>, digest: &SetDigest) -> Result<Option<T>, CheckpointError> {
        match kept {
            Some((owner, _)) if owner != *digest => Err(CheckpointError::Other(self.folder.clone())),
            kept => Ok(kept.map(|(_, kept)| kept)),
        }
    }

    /// Writes a file that is there whole or not at all, also after a loss of power.
    fn write(
        &self,
        name: &str,
        contents: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(), CheckpointError> {
        let (path, temporary) = (self.folder.join(name), self.folder.join(format!("{TEMPORARY}{name}")));
        let written = || {
            let mut file = Checked { file: BufWriter::new(File::create(&temporary)?), hasher: blake3::Hasher::new() };
            file.write_all(MAGIC)?;
            contents(&mut file)?;
            let Checked { mut file, hasher } = file;
            file.write_all(hasher.finalize().as_bytes())?;
            file.into_inner()?.sync_all()?;
            fs::rename(&temporary, &path)?;
            // The name is in the folder.
            if cfg!(unix) { File::open(&self.folder)?.sync_all() } else { Ok(()) }
        };
        written().map_err(at(&path))
    }

    /// Parses a file, whose checksum is checked before; none where it is absent or damaged.
    fn read<T>(
        &self,
        name: &str,
        parse: impl FnOnce(&mut dyn Read) -> io::Result<T>,
    ) -> Result<Option<T>, CheckpointError> {
        let path = self.folder.join(name);
        let open = || {
            let file = File::open(&path)?;
            let contents = file.metadata()?.len().saturating_sub(CHECKSUM);
            Ok::<_, io::Error>((BufReader::new(file), contents))
        };
        let parsed = || {
            let (mut file, len) = open()?;
            let mut hasher = blake3::Hasher::new();
            io::copy(&mut (&mut file).take(len), &mut hasher)?;
            if read_array(&mut file)? != *hasher.finalize().as_bytes() {
                return Err(io::ErrorKind::InvalidData.into());
            }
            let (file, len) = open()?;
            let mut file = file.take(len);
            if read_array(&mut file)? != *MAGIC {
                return Err(io::ErrorKind::InvalidData.into());
            }
            parse(&mut file)
        };
        match parsed() {
            Ok(parsed) => Ok(Some(parsed)),
            Err(error) => match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData => Ok(None),
                _ => Err(at(&path)(error)),
            },
        }
    }
}

/// Names the file or folder of an error.
fn at(path: &Path) -> impl Fn(io::Error) -> CheckpointError {
    let path = path.to_owned();
    move |error| CheckpointError::Io { path: path.clone(), error }
}

fn state_name(set: usize) -> String {
    format!("{SET}{set}.state")
}

/// Locks a folder as long as the file is open. Only systems that can open folders have such locks.
fn lock(folder: &Path) -> Result<Option<File>, CheckpointError> {
    if cfg!(not(unix)) {
        return Ok(None);
    }
    let opened = File::open(folder).map_err(at(folder))?;
    match opened.try_lock() {
        Ok(()) => Ok(Some(opened)),
        Err(TryLockError::WouldBlock) => Err(CheckpointError::InUse(folder.to_owned())),
        Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => Ok(None),
        Err(TryLockError::Error(error)) => Err(at(folder)(error)),
    }
}

/// A file whose checksum is kept.
struct Checked {
    file: BufWriter<File>,
    hasher: blake3::Hasher,
}

impl Write for Checked {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn read_array<const K: usize>(file: &mut (impl Read + ?Sized)) -> io::Result<[u8; K]> {
    let mut bytes = [0; K];
    file.read_exact(&mut bytes).map(|()| bytes)
}

fn read_number(file: &mut (impl Read + ?Sized)) -> io::Result<usize> {
    usize::try_from(u64::from_le_bytes(read_array(file)?)).map_err(|_| io::ErrorKind::InvalidData.into())
}

fn write_number(file: &mut (impl Write + ?Sized), number: usize) -> io::Result<()> {
    file.write_all(&(number as u64).to_le_bytes())
}

/// A tensor that is alive between two actions of a schedule.
pub(super) struct Alive<T> {
    /// Its number in the plan.
    pub tensor: usize,
    /// What is held of it.
    pub positions: Positions,
    /// The residues.
    pub x: T,
}

/// Where a set was when it was left: what is alive before the next action.
pub(super) struct State<T> {
    /// The next action.
    pub action: usize,
    pub alive: Vec<Alive<T>>,
}

/// A set that is being computed, and its checkpoint.
pub(super) struct Resumable<'a> {
    checkpoint: &'a Checkpoint,
    set: usize,
    digest: SetDigest,
    /// What the numbers of actions and tensors mean.
    schedule: [u8; 32],
    /// When the last state was kept, or the computation began.
    last: Instant,
    /// The action before which that was.
    kept: Option<usize>,
    /// Bytes that are kept in a second, as far as is known.
    rate: f64,
}

/// Bytes that a common disk takes in a second.
const RATE: f64 = 200e6;

impl<'a> Resumable<'a> {
    pub fn new(checkpoint: &'a Checkpoint, set: usize, digest: SetDigest, schedule: [u8; 32]) -> Self {
        Resumable { checkpoint, set, digest, schedule, last: Instant::now(), kept: None, rate: RATE }
    }

    /// Whether it is time to keep a state of so many `bytes`, where the rest takes so long.
    pub fn is_due(&self, bytes: u64, rest: Duration) -> bool {
        let Thrift { least_rest, most_share } = self.checkpoint.thrift;
        rest >= least_rest && self.last.elapsed().as_secs_f64() * most_share >= bytes as f64 / self.rate
    }

    /// Whether the state before `action` is worth keeping when the computation is ended there, where the rest takes so long.
    pub fn is_worth(&self, action: usize, rest: Duration) -> bool {
        rest >= self.checkpoint.thrift.least_rest && self.kept != Some(action)
    }

    /// Keeps the state before `action`.
    pub fn keep<B: Backend>(
        &mut self,
        backend: &B,
        action: usize,
        alive: &[Alive<&B::Tensor>],
    ) -> Result<(), RunError> {
        self.checkpoint.begin()?;
        let start = Instant::now();
        let mut refused = None;
        let mut bytes = 0;
        let written = self.checkpoint.write(&state_name(self.set), |file| {
            file.write_all(&self.digest)?;
            file.write_all(&self.schedule)?;
            write_number(file, action)?;
            write_number(file, alive.len())?;
            for Alive { tensor, positions, x } in alive {
                let Shape { limbs, values, components, lanes } = backend.shape(x);
                let numbers = [*tensor, *values, *components, *lanes, limbs.len()];
                numbers.iter().chain(&positions.parts()).chain(limbs).try_for_each(|&n| write_number(file, n))?;
                let residues = match backend.download(x) {
                    Ok(residues) => residues,
                    Err(error) => {
                        refused = Some(error);
                        return Err(io::ErrorKind::Other.into());
                    }
                };
                residues.chunks(PIECE).try_for_each(|part| file.write_all(&bytes_of(part)))?;
                bytes += 4 * residues.len();
            }
            Ok(())
        });
        if let Some(error) = refused {
            return Err(error.into());
        }
        written?;
        self.rate = bytes as f64 / start.elapsed().as_secs_f64();
        (self.last, self.kept) = (Instant::now(), Some(action));
        Ok(())
    }

    /// The state in which the set was left, on the backend; none where nothing was kept, or in
    /// another order of actions. `shape` says what a tensor of the plan is, but for its values.
    pub fn state<B: Backend>(
        &self,
        backend: &B,
        shape: impl Fn(usize) -> Option<Shape>,
    ) -> Result<Option<State<B::Tensor>>, RunError> {
        let mut refused = None;
        let kept = self.checkpoint.read(&state_name(self.set), |file| {
            let (digest, schedule): (SetDigest, [u8; 32]) = (read_array(file)?, read_array(file)?);
            if schedule != self.schedule {
                return Ok((digest, None));
            }
            let (action, count) = (read_number(file)?, read_number(file)?);
            let mut alive = Vec::new();
            for _ in 0..count {
                let found = read_alive(file, &shape)?;
                match backend.upload(found.shape, &found.residues) {
                    Ok(x) => alive.push(Alive { tensor: found.tensor, positions: found.positions, x }),
                    Err(error) => {
                        refused = Some(error);
                        return Ok((digest, None));
                    }
                }
            }
            Ok((digest, Some(State { action, alive })))
        })?;
        match refused {
            Some(error) => Err(error.into()),
            None => Ok(self.checkpoint.own(kept, &self.digest)?.flatten()),
        }
    }
}

/// A tensor as it is kept.
struct Kept {
    tensor: usize,
    positions: Positions,
    shape: Shape,
    residues: Vec<u32>,
}

fn read_alive(file: &mut dyn Read, shape: impl Fn(usize) -> Option<Shape>) -> io::Result<Kept> {
    let invalid = || io::Error::from(io::ErrorKind::InvalidData);
    let mut number = || read_number(file);
    let (tensor, values) = (number()?, number()?);
    let own = shape(tensor).ok_or_else(invalid)?;
    let found = [number()?, number()?, number()?];
    if found != [own.components, own.lanes, own.limbs.len()] || values > own.values {
        return Err(invalid());
    }
    let positions = Positions::from_parts([number()?, number()?, number()?, number()?]).ok_or_else(invalid)?;
    for &limb in &own.limbs {
        if number()? != limb {
            return Err(invalid());
        }
    }
    let shape = Shape { values, ..own };
    let mut residues = Vec::with_capacity(shape.len());
    let mut piece = vec![0; 4 * PIECE.min(shape.len())];
    while residues.len() < shape.len() {
        let part = &mut piece[..4 * PIECE.min(shape.len() - residues.len())];
        file.read_exact(part)?;
        residues.extend(part.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().expect("four bytes"))));
    }
    Ok(Kept { tensor, positions, shape, residues })
}
