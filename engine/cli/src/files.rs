//! Files in and out.

use std::fmt::{self, Display, Formatter};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use cryptodl_core::ckks::{CheckedSpec, CiphertextsInfo};
use cryptodl_core::wire::{Binding, CiphertextLayout, CiphertextsReader, WireError, read_client_spec};
use cryptodl_data::images::is_image_name;
use serde::Serialize;
use tempfile::{NamedTempFile, TempPath};
use zeroize::Zeroizing;

use crate::memory::show_size;
use crate::signals;
use crate::terminal::printable;

/// Bytes that are collected before they are written.
const BUFFER: usize = 1 << 16;

/// Reads `path` with `parse`; every error names the file. The file is not buffered: parsers read large pieces, and a buffer
/// would keep a key after it is read.
pub fn read<T, E>(path: &Path, parse: impl FnOnce(File) -> Result<T, E>) -> Result<T>
where
    Result<T, E>: Context<T, E>,
{
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    parse(file).with_context(|| path.display().to_string())
}

/// A file of ciphertexts that is read set by set; every error names it.
pub struct Sets<'a> {
    path: &'a Path,
    reader: CiphertextsReader<File>,
}

impl<'a> Sets<'a> {
    /// Reads the headers; errors name `model`, whose file it should be. A file that is too short or
    /// too long is known before the first set is read.
    pub fn open(path: &'a Path, model: &str, binding: &Binding<'_>, layout: &CiphertextLayout) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        let len = file.metadata().ok().filter(fs::Metadata::is_file).map(|found| found.len());
        let opened = CiphertextsReader::open(file, binding, layout)
            .and_then(|reader| len.map_or(Ok(()), |len| reader.expect_len(len)).map(|()| reader));
        let reader = opened.map_err(|error| {
            let place = match &error {
                WireError::Program { .. } => {
                    format!("{} does not belong to {model} as it is planned here", path.display())
                }
                _ => path.display().to_string(),
            };
            anyhow::Error::from(error).context(place)
        })?;
        Ok(Sets { reader, path })
    }

    /// What the sets are.
    pub fn info(&self) -> &CiphertextsInfo {
        self.reader.info()
    }

    /// As [`CiphertextsReader::next`].
    pub fn next(&mut self, set: &mut Vec<u8>) -> Result<bool> {
        self.reader.next(set).with_context(|| self.path.display().to_string())
    }

    /// As [`CiphertextsReader::finish`].
    pub fn finish(self) -> Result<()> {
        self.reader.finish().with_context(|| self.path.display().to_string())
    }
}

/// Reads a client spec and checks everything in it: it may be hostile.
pub fn read_spec(path: &Path) -> Result<CheckedSpec> {
    read(path, read_client_spec)?.check().with_context(|| path.display().to_string())
}

/// The name of an input; `-` is standard input.
pub fn input_path(text: &str) -> Result<PathBuf, String> {
    standard(text, "/dev/stdin")
}

/// The name of an output; `-` is standard output.
pub fn output_path(text: &str) -> Result<PathBuf, String> {
    standard(text, STDOUT)
}

const STDOUT: &str = "/dev/stdout";

/// Whether this output is standard output, where nothing else may then be printed.
pub fn is_stdout(path: &Path) -> bool {
    path == Path::new(STDOUT)
}

fn standard(text: &str, device: &str) -> Result<PathBuf, String> {
    match text {
        "-" if cfg!(unix) => Ok(device.into()),
        "-" => Err("`-` is known on Unix only: name a file".into()),
        name => Ok(name.into()),
    }
}

/// A file that was written.
#[derive(Serialize)]
pub struct Written {
    path: PathBuf,
    /// Of a file; a device or pipe has no size.
    bytes: Option<u64>,
    /// What it is for.
    #[serde(skip)]
    purpose: &'static str,
}

impl Written {
    /// What is at `path` now.
    pub fn at(path: &Path, purpose: &'static str) -> Self {
        let bytes = fs::metadata(path).ok().filter(fs::Metadata::is_file).map(|found| found.len());
        Written { path: path.to_owned(), bytes, purpose }
    }
}

impl Display for Written {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "wrote {}", self.path.display())?;
        if let Some(bytes) = self.bytes {
            write!(f, ", {}", show_size(bytes))?;
        }
        if !self.purpose.is_empty() {
            write!(f, ": {}", self.purpose)?;
        }
        writeln!(f)
    }
}

/// One line for each file.
pub fn listed(files: &[Written]) -> String {
    files.iter().map(ToString::to_string).collect()
}

/// Refuses an output that is also an input or another output, or an image in a folder of images: it
/// would be destroyed.
pub fn distinct(outputs: &[&Path], inputs: &[&Path]) -> Result<()> {
    // Of a file that is to be made, the folder is there.
    let beside = |path: &Path| {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Ok(fs::canonicalize(folder)?.join(path.file_name().ok_or(io::ErrorKind::InvalidInput)?))
    };
    let place = |path: &Path| {
        let found: io::Result<PathBuf> = fs::canonicalize(path).or_else(|_| beside(path));
        found.or_else(|_| std::path::absolute(path)).unwrap_or(path.to_owned())
    };
    for (i, output) in outputs.iter().enumerate() {
        let twin = outputs[..i].iter().chain(inputs).find(|other| place(other) == place(output));
        // Devices and pipes take any number of outputs.
        let replaced = fs::metadata(output).map_or(true, |found| found.is_file());
        if twin.is_some() && replaced {
            bail!(
                "{} is named twice, once as an output: it would be overwritten; choose another name",
                output.display()
            );
        }
        let folder = place(output).parent().map(Path::to_owned);
        if let Some(input) = inputs.iter().find(|input| input.is_dir() && Some(place(input)) == folder)
            && is_image_name(output)
        {
            bail!(
                "{} lies in the folder {}, whose images are read: it would replace one of them, or be taken for one; choose \
                 another name",
                output.display(),
                input.display()
            );
        }
    }
    Ok(())
}

/// Who may read a new file, as far as the system knows about it.
#[derive(Clone, Copy)]
pub enum Access {
    Everybody,
    Owner,
}

/// An output that appears whole or not at all: it is written beside its final name and renamed. Devices and pipes,
/// which cannot be renamed to, are written directly.
pub struct Output {
    path: PathBuf,
    sink: Sink,
}

enum Sink {
    Temporary(NamedTempFile),
    Direct(File),
}

impl Output {
    /// Prepares to write `path`, so that a place that cannot be written is known before the work begins.
    pub fn create(path: &Path, access: Access) -> Result<Self> {
        let failed = format!("cannot write {}", path.display());
        // Where a link leads is replaced, not the link.
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let sink = match fs::metadata(&path) {
            Ok(found) if found.is_dir() => Err(io::Error::from(io::ErrorKind::IsADirectory)),
            Ok(found) if !found.is_file() => File::options().write(true).open(&path).map(Sink::Direct),
            _ => temporary_beside(&path, access).map(|file| {
                signals::delete_at_end(file.path());
                Sink::Temporary(file)
            }),
        };
        Ok(Output { sink: sink.context(failed)?, path })
    }

    /// Writes the contents and gives the file its name.
    pub fn write<T, E: Into<anyhow::Error>>(self, contents: impl FnOnce(&mut dyn Write) -> Result<T, E>) -> Result<T> {
        let written = self.fill(contents)?;
        publish_all(vec![self])?;
        Ok(written)
    }

    /// Writes the contents; the file still has its temporary name.
    pub fn fill<T, E: Into<anyhow::Error>>(&self, contents: impl FnOnce(&mut dyn Write) -> Result<T, E>) -> Result<T> {
        let file = match &self.sink {
            Sink::Temporary(file) => file.as_file(),
            Sink::Direct(file) => file,
        };
        let buffer = Zeroizing::new(Vec::with_capacity(BUFFER));
        let mut buffered = Buffered { file, path: &self.path, buffer };
        let written = contents(&mut buffered).map_err(Into::into)?;
        buffered.flush()?;
        Ok(written)
    }
}

/// Gives all files their names, or none: where one cannot have it, what was there before is put back.
pub fn publish_all(outputs: Vec<Output>) -> Result<()> {
    let _signals_wait = signals::hold();
    let mut replaced: Vec<Replaced> = Vec::new();
    let last = outputs.len().saturating_sub(1);
    for (i, output) in outputs.into_iter().enumerate() {
        let failed = format!("cannot write {}", output.path.display());
        let published = match output.sink {
            // Nothing can fail after the last one.
            Sink::Temporary(file) => publish(file, output.path, i < last).map(|file| replaced.push(file)),
            Sink::Direct(_) => Ok(()),
        };
        if let Err(error) = published {
            replaced.into_iter().rev().for_each(Replaced::restore);
            return Err(error).context(failed);
        }
    }
    Ok(())
}

/// A file that has its name, and where its predecessor is if that is kept; it is deleted when this is dropped.
struct Replaced {
    path: PathBuf,
    before: Option<TempPath>,
}

impl Replaced {
    /// Puts the predecessor back. It is done after a failure, which says more than one of this could.
    fn restore(self) {
        let _ = match self.before {
            Some(before) => fs::rename(&before, &self.path),
            None => fs::remove_file(&self.path),
        };
    }
}

fn publish(file: NamedTempFile, path: PathBuf, keep_predecessor: bool) -> io::Result<Replaced> {
    file.as_file().sync_all()?;
    let mut before = None;
    if keep_predecessor && path.try_exists()? {
        let place = temporary_beside(&path, Access::Owner)?.into_temp_path();
        fs::rename(&path, &place)?;
        before = Some(place);
    }
    let replaced = Replaced { path, before };
    match file.persist(&replaced.path) {
        Ok(_) => Ok(replaced),
        Err(error) => {
            if replaced.before.is_some() {
                replaced.restore();
            }
            Err(error.error)
        }
    }
}

/// What is written to a file, in large pieces. It is wiped, because keys and scores pass through it, and its errors name
/// the file.
struct Buffered<'a> {
    file: &'a File,
    path: &'a Path,
    buffer: Zeroizing<Vec<u8>>,
}

impl Buffered<'_> {
    fn put(mut file: &File, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let failed =
            |error: io::Error| io::Error::new(error.kind(), format!("cannot write {}: {error}", path.display()));
        file.write_all(bytes).map_err(failed)
    }
}

impl Write for Buffered<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.buffer.len() + bytes.len() > BUFFER {
            self.flush()?;
        }
        if bytes.len() >= BUFFER {
            Self::put(self.file, self.path, bytes)?;
        } else {
            // It never grows: an old buffer would not be wiped.
            self.buffer.extend_from_slice(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Self::put(self.file, self.path, &self.buffer)?;
        self.buffer.clear();
        Ok(())
    }
}

/// Makes the folder `path` with its parents, if it is absent. Where `access` says so, only its owner may look into it and write to
/// it, also if it was there: who may write to a folder may replace what is in it.
pub fn make_folder(path: &Path, access: Access) -> Result<()> {
    let mut folder = fs::DirBuilder::new();
    folder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(
        &mut folder,
        match access {
            Access::Everybody => 0o777,
            Access::Owner => 0o700,
        },
    );
    folder.create(path).with_context(|| format!("cannot make the folder {}", path.display()))?;
    #[cfg(unix)]
    if matches!(access, Access::Owner) {
        let closed = fs::metadata(path).and_then(|found| {
            let mode = std::os::unix::fs::PermissionsExt::mode(&found.permissions());
            let owner_only = std::os::unix::fs::PermissionsExt::from_mode(0o700);
            if mode & 0o077 == 0 { Ok(()) } else { fs::set_permissions(path, owner_only) }
        });
        closed.with_context(|| format!("cannot keep others out of the folder {}", path.display()))?;
    }
    Ok(())
}

/// Waits until no other process holds this lock of the folder `path`, and holds it until the file is dropped. Only systems
/// that can open folders have such locks.
pub fn lock_folder(path: &Path) -> Result<Option<File>> {
    if cfg!(not(unix)) {
        return Ok(None);
    }
    let locked = File::open(path).and_then(|folder| match folder.lock() {
        Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(None),
        locked => locked.map(|()| Some(folder)),
    });
    locked.with_context(|| format!("cannot lock the folder {}", path.display()))
}

/// An empty file in the folder of `path`, with the rights that `path` is to have from the start.
fn temporary_beside(path: &Path, access: Access) -> io::Result<NamedTempFile> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut temporary = tempfile::Builder::new();
    temporary.prefix(".cryptodl-");
    #[cfg(unix)]
    temporary.permissions(std::os::unix::fs::PermissionsExt::from_mode(match access {
        Access::Everybody => 0o666,
        Access::Owner => 0o600,
    }));
    temporary.tempfile_in(folder)
}

/// Prints `text` on stdout, as [`printable`]. A reader that has gone away is no failure.
pub fn print(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(printable(text).as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error).context("cannot write standard output"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(path: &Path, text: &str) -> Output {
        let output = Output::create(path, Access::Everybody).unwrap();
        output.fill(|file| file.write_all(text.as_bytes())).unwrap();
        output
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Files of one client belong together: old keys beside new ones are of no use, and the old ones would be lost.
    #[test]
    fn all_files_are_published_or_none() {
        let folder = tempfile::tempdir().unwrap();
        let [a, b, c] = ["a", "b", "c"].map(|name| folder.path().join(name));
        publish_all(vec![output(&a, "old a"), output(&c, "old c")]).unwrap();

        let outputs = vec![output(&a, "new a"), output(&b, "new b"), output(&c, "new c")];
        // What cannot be replaced by a file.
        fs::remove_file(&c).unwrap();
        fs::create_dir_all(c.join("inside")).unwrap();
        let error = format!("{:#}", publish_all(outputs).unwrap_err());
        assert!(error.contains("cannot write") && error.contains(c.to_str().unwrap()), "{error}");
        assert_eq!(fs::read_to_string(&a).unwrap(), "old a");
        assert_eq!(names(folder.path()), ["a", "c"]);
        assert!(c.join("inside").is_dir());

        fs::remove_dir_all(&c).unwrap();
        publish_all(vec![output(&a, "new a"), output(&b, "new b"), output(&c, "new c")]).unwrap();
        assert_eq!(names(folder.path()), ["a", "b", "c"]);
        assert_eq!(fs::read_to_string(&a).unwrap(), "new a");
    }

    /// Pieces of any size arrive in their order.
    #[test]
    fn pieces_of_any_size_are_written_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let pieces: Vec<Vec<u8>> =
            [0, 1, 7, BUFFER - 8, 1, BUFFER, 3, BUFFER + 1, 2 * BUFFER - 1, 5].map(|len| vec![len as u8; len]).into();
        let file = Output::create(&path, Access::Owner).unwrap();
        file.write(|file| pieces.iter().try_for_each(|piece| file.write_all(piece))).unwrap();
        assert!(fs::read(&path).unwrap() == pieces.concat());
    }
}
