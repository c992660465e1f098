//! Keys in files.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use cryptodl_core::wire::read_needed_eval_keys;
use tempfile::NamedTempFile;

use crate::{Client, Error, Keys};

/// Where a client's keys lie below a folder: `secret/secret.key`, which decrypts everything and is
/// its owner's alone; and `public/public.key`, `public/eval.key` and `public/client.spec`, which
/// can be given to a server as they are.
#[derive(Clone, Debug)]
pub struct KeyFolder {
    /// The folder itself.
    pub folder: PathBuf,
    /// The part for the server.
    pub public: PathBuf,
    /// Decrypts.
    pub secret_key: PathBuf,
    /// Masks results, and encrypts where the Program says so.
    pub public_key: PathBuf,
    /// What the server switches keys with.
    pub eval_key: PathBuf,
    /// What the keys were made for.
    pub client_spec: PathBuf,
}

/// Why keys could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyFolderError {
    /// Some of the files are there and this one is not.
    #[error("{} is not there, but others of its keys are: name another folder for new keys", .0.display())]
    Missing(PathBuf),
    /// New keys never replace others.
    #[error("{} exists: choose another folder for new keys", .0.display())]
    Exists(PathBuf),
    /// A file is damaged, or of other parameters.
    #[error("{}", .path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        error: Error,
    },
    /// A key that the Program needs is not in its file.
    #[error("{} has no key for {key}", .path.display())]
    Lacks {
        /// The file.
        path: PathBuf,
        /// Which key.
        key: String,
    },
    /// The system.
    #[error("{}", .path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What it says.
        #[source]
        error: io::Error,
    },
}

impl KeyFolder {
    /// Below `folder`, which need not be there.
    pub fn new(folder: &Path) -> Self {
        let (secret, public) = (folder.join("secret"), folder.join("public"));
        KeyFolder {
            folder: folder.to_owned(),
            secret_key: secret.join("secret.key"),
            public_key: public.join("public.key"),
            eval_key: public.join("eval.key"),
            client_spec: public.join("client.spec"),
            public,
        }
    }

    /// Its files, the secret key first.
    pub fn files(&self) -> [&Path; 4] {
        [&self.secret_key, &self.public_key, &self.eval_key, &self.client_spec]
    }

    /// Whether any of its files is there.
    pub fn has_keys(&self) -> bool {
        self.files().iter().any(|path| path.exists())
    }

    /// Writes new keys and the client spec: all files or none, each whole or not at all. Nothing is
    /// replaced, since another process may make keys in the same folder meanwhile.
    ///
    /// # Errors
    /// A file is there; the system.
    pub fn write_new(&self, client: &Client, keys: &Keys) -> Result<(), KeyFolderError> {
        for file in [&self.public_key, &self.secret_key] {
            let folder = parent(file);
            let made = fs::create_dir_all(folder).and_then(|()| self.close(folder));
            made.map_err(|error| KeyFolderError::File { path: folder.to_owned(), error })?;
        }
        let filled = [
            self.fill(&self.secret_key, |file| client.write_secret_key(&keys.secret, file))?,
            self.fill(&self.public_key, |file| client.write_public_key(&keys.public, file))?,
            self.fill(&self.eval_key, |file| client.write_evaluation_keys(&keys.evaluation, file))?,
            self.fill(&self.client_spec, |file| client.write_spec(file))?,
        ];
        for (index, (file, path)) in filled.into_iter().zip(self.files()).enumerate() {
            if let Err(failed) = file.persist_noclobber(path) {
                // Those that have their names already are of no use without this one.
                for done in &self.files()[..index] {
                    let _ = fs::remove_file(done);
                }
                return Err(match failed.error.kind() {
                    io::ErrorKind::AlreadyExists => KeyFolderError::Exists(path.to_owned()),
                    _ => KeyFolderError::File { path: path.to_owned(), error: failed.error },
                });
            }
        }
        Ok(())
    }

    /// Reads the keys for the Program of `client`, and of the evaluation keys exactly those that it
    /// needs.
    ///
    /// # Errors
    /// A file is absent, damaged, or of other parameters; a key is not there.
    pub fn load(&self, client: &Client) -> Result<Keys, KeyFolderError> {
        let spec = client.spec();
        let needed = |file: File| Ok(read_needed_eval_keys(file, spec.params(), &spec.evaluation_keys)?);
        let secret = read(&self.secret_key, |file| client.read_secret_key(file))?;
        let public = read(&self.public_key, |file| client.read_public_key(file))?;
        let evaluation = read(&self.eval_key, needed)?;
        match spec.evaluation_keys.iter().find(|layout| evaluation.get(**layout).is_none()) {
            Some(missing) => Err(KeyFolderError::Lacks { path: self.eval_key.clone(), key: missing.to_string() }),
            None => Ok(Keys { secret, public, evaluation }),
        }
    }

    /// Reads the client spec that lies with the keys, and checks everything in it.
    ///
    /// # Errors
    /// It is absent, damaged or refused.
    pub fn read_spec(&self) -> Result<Client, KeyFolderError> {
        read(&self.client_spec, Client::read_spec)
    }

    /// Replaces the client spec that lies with the keys.
    ///
    /// # Errors
    /// The system.
    pub fn replace_spec(&self, client: &Client) -> Result<(), KeyFolderError> {
        let file = self.fill(&self.client_spec, |file| client.write_spec(file))?;
        let put = file.persist(&self.client_spec);
        put.map(|_| ()).map_err(|failed| KeyFolderError::File { path: self.client_spec.clone(), error: failed.error })
    }

    /// Keeps others out of the folder of the secret key: who may write to a folder may replace what
    /// is in it.
    fn close(&self, folder: &Path) -> io::Result<()> {
        #[cfg(unix)]
        if folder == parent(&self.secret_key) {
            let owner_only = std::os::unix::fs::PermissionsExt::from_mode(0o700);
            return fs::set_permissions(folder, owner_only);
        }
        let _ = folder;
        Ok(())
    }

    /// A file beside `path` with its contents. Temporary files are their owner's, and the public
    /// ones are opened after.
    fn fill(
        &self,
        path: &Path,
        contents: impl FnOnce(&File) -> Result<(), Error>,
    ) -> Result<NamedTempFile, KeyFolderError> {
        let failed = |error| KeyFolderError::File { path: path.to_owned(), error };
        let file = tempfile::Builder::new().prefix(".cryptodl-").tempfile_in(parent(path)).map_err(failed)?;
        contents(file.as_file()).map_err(|error| KeyFolderError::Refused { path: path.to_owned(), error })?;
        file.as_file().sync_all().map_err(failed)?;
        #[cfg(unix)]
        if path != self.secret_key {
            let readable = std::os::unix::fs::PermissionsExt::from_mode(0o644);
            file.as_file().set_permissions(readable).map_err(failed)?;
        }
        Ok(file)
    }
}

fn parent(file: &Path) -> &Path {
    file.parent().expect("a file lies in a folder")
}

/// What is in a file.
fn read<T>(path: &Path, parse: impl FnOnce(File) -> Result<T, Error>) -> Result<T, KeyFolderError> {
    let file = File::open(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => KeyFolderError::Missing(path.to_owned()),
        _ => KeyFolderError::File { path: path.to_owned(), error },
    })?;
    parse(file).map_err(|error| KeyFolderError::Refused { path: path.to_owned(), error })
}
