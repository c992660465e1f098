//! Large files beside the rows: written, synced, given their name if nothing has it, and their folder synced, before a row says that
//! they are there.

use std::fmt::{self, Display, Formatter};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// A name of something that belongs to a tenant: 128 bits as 32 hexadecimal digits. It is no path, and of use to its tenant only.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id(String);

impl Id {
    /// A fresh one.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn fresh() -> io::Result<Self> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(io::Error::other)?;
        Ok(Id(bytes.iter().map(|byte| format!("{byte:02x}")).collect()))
    }

    /// The one that always belongs to `parts`.
    pub fn derived(parts: &[&[u8]]) -> Self {
        let mut hasher = blake3::Hasher::new();
        for part in parts {
            hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
        }
        Id(hasher.finalize().to_hex()[..32].into())
    }

    /// `text`, if it is one.
    pub fn parse(text: &str) -> Option<Self> {
        let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        (text.len() == 32 && text.bytes().all(digit)).then(|| Id(text.into()))
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Display for Id {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a blob is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlobKind {
    /// A public key, and behind it evaluation keys.
    Keys,
    /// Encrypted images, whole or in part.
    Uploads,
    /// Encrypted scores of one set of a job that has several.
    Sets,
    /// Encrypted scores.
    Results,
    /// What the service keeps of a set that takes it long, a folder, under the name of the set's scores. It is no part of the order of
    /// syncs: no row knows of it.
    Checkpoints,
}

impl BlobKind {
    /// All of them.
    pub const ALL: [BlobKind; 5] =
        [BlobKind::Keys, BlobKind::Uploads, BlobKind::Sets, BlobKind::Results, BlobKind::Checkpoints];

    /// As its folder is called.
    pub fn folder(self) -> &'static str {
        match self {
            BlobKind::Keys => "keys",
            BlobKind::Uploads => "uploads",
            BlobKind::Sets => "sets",
            BlobKind::Results => "results",
            BlobKind::Checkpoints => "checkpoints",
        }
    }
}

/// The name of a blob that is not whole ends in it.
const PART: &str = ".part";

/// The folders of all blobs.
pub struct Blobs {
    folder: PathBuf,
}

impl Blobs {
    /// Below `folder`, which exists; makes what is absent.
    ///
    /// # Errors
    /// The folders cannot be made.
    pub fn open(folder: &Path) -> io::Result<Self> {
        let blobs = Blobs { folder: folder.to_owned() };
        for kind in BlobKind::ALL {
            make_private_folder(&folder.join(kind.folder()))?;
        }
        sync_folder(folder)?;
        Ok(blobs)
    }

    /// Where a blob is, or will be.
    pub fn path(&self, kind: BlobKind, id: &Id) -> PathBuf {
        self.folder.join(kind.folder()).join(id.as_str())
    }

    /// An empty blob that is filled step by step under its final name; its row says how much of it is valid.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn create(&self, kind: BlobKind, id: &Id) -> io::Result<File> {
        let path = self.path(kind, id);
        let file = private_file(&path)?;
        file.sync_all()?;
        sync_folder(path.parent().expect("a blob lies in a folder"))?;
        Ok(file)
    }

    /// Names of all blobs of a kind.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn names(&self, kind: BlobKind) -> io::Result<Vec<Id>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.folder.join(kind.folder()))? {
            names.extend(entry?.file_name().to_str().and_then(Id::parse));
        }
        Ok(names)
    }

    /// Bytes of all blobs of a kind, parts too.
    ///
    /// # Errors
    /// A folder cannot be read.
    pub fn bytes(&self, kind: BlobKind) -> io::Result<u64> {
        bytes_in(&self.folder.join(kind.folder()))
    }

    /// A blob that appears whole or not at all, and has no name yet.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn part(&self, kind: BlobKind) -> io::Result<Part> {
        let mut path = self.path(kind, &Id::fresh()?).into_os_string();
        path.push(PART);
        let path = PathBuf::from(path);
        Ok(Part { file: private_file(&path)?, path: Temporary(path) })
    }

    /// Removes a blob if it is there.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn remove(&self, kind: BlobKind, id: &Id) -> io::Result<()> {
        remove_if_there(&self.path(kind, id))
    }

    /// Removes everything of a kind that `keeps` does not know, parts too, and says how many files that were.
    ///
    /// # Errors
    /// A folder cannot be read, or a file not be removed.
    pub fn remove_others(&self, kind: BlobKind, keeps: impl Fn(&Id) -> bool) -> io::Result<usize> {
        let mut removed = 0;
        for entry in fs::read_dir(self.folder.join(kind.folder()))? {
            let entry = entry?;
            let known = entry.file_name().to_str().and_then(Id::parse).is_some_and(|id| keeps(&id));
            if !known {
                remove_if_there(&entry.path())?;
                removed += 1;
            }
        }
        Ok(removed)
    }
}

/// A blob that is being written. Dropped, it leaves nothing behind.
pub struct Part {
    file: File,
    path: Temporary,
}

/// A blob that is on the disk, and has no name yet. Dropped, it leaves nothing behind.
pub struct Whole(Temporary);

/// Where a blob is as long as it has no name.
struct Temporary(PathBuf);

impl Part {
    /// Where to write.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// All of it.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read(mut self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.file.seek(SeekFrom::Start(0))?;
        self.file.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Brings it to the disk.
    ///
    /// # Errors
    /// It cannot be synced.
    pub fn sync(self) -> io::Result<Whole> {
        self.file.sync_all()?;
        Ok(Whole(self.path))
    }
}

impl Whole {
    /// Gives it the name `target`, in the folder that it is in, unless something has it: then that stays, and the answer is false.
    /// When this returns, the name survives a loss of power.
    ///
    /// # Errors
    /// The file system has no hard links; it cannot be synced.
    pub fn publish(self, target: &Path) -> io::Result<bool> {
        let created = match fs::hard_link(&self.0.0, target) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
            linked => linked.map(|()| true)?,
        };
        sync_folder(target.parent().expect("a blob lies in a folder"))?;
        Ok(created)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // Recovery removes what cannot be removed now.
        let _ = fs::remove_file(&self.0);
    }
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Bytes of all files below a folder, of which some may go at this moment.
fn bytes_in(folder: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let found =
            entry.metadata().and_then(|found| if found.is_dir() { bytes_in(&entry.path()) } else { Ok(found.len()) });
        match found {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            found => bytes += found?,
        }
    }
    Ok(bytes)
}

/// A new file for reading and writing that only its owner may open.
fn private_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Makes a folder that only its owner may look into.
///
/// # Errors
/// It cannot be made.
pub fn make_private_folder(path: &Path) -> io::Result<()> {
    let mut folder = DirBuilder::new();
    folder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut folder, 0o700);
    folder.create(path)
}

/// Makes new names in a folder survive a loss of power. Only Unix can.
fn sync_folder(path: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(path)?.sync_all() } else { Ok(()) }
}
