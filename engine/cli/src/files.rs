//! Files in and out.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use cryptodl_core::ckks::{ClientSpec, Params};
use cryptodl_core::wire::read_client_spec;
use tempfile::NamedTempFile;

use crate::terminal::printable;

/// Reads `path` with `parse`; every error names the file.
pub fn read<T, E>(path: &Path, parse: impl FnOnce(BufReader<File>) -> Result<T, E>) -> Result<T>
where
    Result<T, E>: Context<T, E>,
{
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    parse(BufReader::new(file)).with_context(|| path.display().to_string())
}

/// Reads a client spec and checks everything in it: it may be hostile.
pub fn read_spec(path: &Path) -> Result<(ClientSpec, Params)> {
    let spec = read(path, read_client_spec)?;
    let params = spec.check().with_context(|| path.display().to_string())?;
    Ok((spec, params))
}

/// Refuses an output that is also an input or another output: it would be destroyed.
pub fn distinct(outputs: &[&Path], inputs: &[&Path]) -> Result<()> {
    let place = |path: &Path| fs::canonicalize(path).or_else(|_| std::path::absolute(path)).unwrap_or(path.to_owned());
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
            _ => temporary_beside(&path, access).map(Sink::Temporary),
        };
        Ok(Output { sink: sink.context(failed)?, path })
    }

    /// Writes the contents and gives the file its name.
    pub fn write(self, contents: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
        self.stage(contents)?.publish()
    }

    /// Writes the contents; the file still has its temporary name.
    pub fn stage(self, contents: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<Self> {
        let file = match &self.sink {
            Sink::Temporary(file) => file.as_file(),
            Sink::Direct(file) => file,
        };
        let mut buffered = BufWriter::with_capacity(1 << 16, file);
        contents(&mut buffered)
            .and_then(|()| buffered.flush())
            .with_context(|| format!("cannot write {}", self.path.display()))?;
        drop(buffered);
        Ok(self)
    }

    /// Gives the file its name.
    pub fn publish(self) -> Result<()> {
        let named = match self.sink {
            Sink::Temporary(file) => {
                file.as_file().sync_all().and_then(|()| file.persist(&self.path).map(drop).map_err(|e| e.error))
            }
            Sink::Direct(_) => Ok(()),
        };
        named.with_context(|| format!("cannot write {}", self.path.display()))
    }
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
