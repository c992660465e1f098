//! From images to an encrypted result: what `cryptodl query` and the Python package have in common.

use std::error::Error as StdError;
use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::panic::resume_unwind;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use cryptodl::{Cancelled, Client, Digest, EncryptionKey, Error, KeyFolder, KeyFolderError, Keys, Progress, Watch};
use cryptodl_core::wire::{CiphertextLayout, CiphertextsReader, WireError, identify};

use super::uploads::Spool;
use super::{Remote, RemoteError};
use crate::sets;

/// Why a query came to nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    /// The service, or the way to it.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// The client spec that it sends is refused.
    #[error("the client spec that {url} sends")]
    Spec {
        /// The service.
        url: String,
        /// What is wrong with it.
        #[source]
        error: Error,
    },
    /// It sends the client spec of another model.
    #[error("{url} sends the client spec of {sent} for {model}")]
    OtherModel {
        /// The service.
        url: String,
        /// Whose spec it is.
        sent: String,
        /// What was asked for.
        model: String,
    },
    /// It sends another client spec than before.
    #[error(transparent)]
    SpecChanged(Box<SpecChange>),
    /// Keys could not be read or written.
    #[error(transparent)]
    Keys(#[from] KeyFolderError),
    /// Keys that fitted the client spec from before do not fit the new one.
    #[error("the new client spec needs other keys than these: choose another folder for new ones")]
    OtherKeys(#[source] KeyFolderError),
    /// The spec asks for larger keys than may be made.
    #[error("the keys would have {bytes} bytes, and {most} are allowed; check where the client spec comes from")]
    LargeKeys {
        /// What they would have.
        bytes: u64,
        /// What is allowed.
        most: u64,
    },
    /// A larger request than may be sent.
    #[error("{images} images would make a request of {bytes} bytes, and {most} are allowed; send fewer images at once")]
    LargeRequest {
        /// How many.
        images: usize,
        /// What they would make.
        bytes: u64,
        /// What is allowed.
        most: u64,
    },
    /// Images could not be had.
    #[error(transparent)]
    Images(Box<dyn StdError + Send + Sync>),
    /// Keys could not be made, or images not be encrypted.
    #[error("cannot encrypt")]
    Encrypt(#[source] Error),
    /// There is no place for ciphertexts.
    #[error("no room for the ciphertexts")]
    Room(#[source] io::Error),
    /// The result arrived damaged.
    #[error("the result of job {job}")]
    Result {
        /// The job, which is still there.
        job: String,
        /// What is wrong with it.
        #[source]
        error: WireError,
    },
}

/// A client spec that is not the one for which keys were made.
#[derive(Debug, thiserror::Error)]
#[error(
    "{url} now sends another client spec for {model} than the one in {}: Program {sent} instead of {pinned}. The network, \
     or what is done with its results, has changed", .path.display()
)]
pub struct SpecChange {
    /// The service.
    pub url: String,
    /// The model.
    pub model: String,
    /// The client spec from before.
    pub path: PathBuf,
    /// The Program of the one that it sends.
    pub sent: Digest,
    /// The Program of the one from before.
    pub pinned: Digest,
}

/// A model of a service, whose client spec was checked.
pub struct RemoteModel {
    remote: Remote,
    client: Client,
}

/// Keys that were loaded for a model.
pub struct LoadedKeys {
    /// The keys.
    pub keys: Keys,
    /// Whether a new client spec was put in the place of the one from before.
    pub new_spec: bool,
}

/// A request that is announced, and not yet sent.
pub struct Upload {
    name: String,
    images: usize,
    /// Bytes of the request.
    pub length: u64,
    /// Whether its sets go to a store.
    stored: bool,
}

/// Who is told how far a request is.
#[derive(Clone, Copy)]
pub struct Sending<'a> {
    /// Ciphertexts that are made, from any thread.
    pub encrypted: &'a (dyn Fn(Progress) + Sync),
    /// Bytes that have arrived, of how many.
    pub arrived: &'a (dyn Fn(u64, u64) + Sync),
}

impl RemoteModel {
    /// Fetches the client spec of `model`, and checks all of it.
    ///
    /// # Errors
    /// There is no answer, no such model, or a spec that is refused or of another model.
    pub fn open(remote: Remote, model: &str) -> Result<Self, QueryError> {
        let url = || remote.url().to_owned();
        let file = remote.spec(model)?;
        let client = Client::read_spec(&file[..]).map_err(|error| QueryError::Spec { url: url(), error })?;
        let sent = &client.spec().model;
        if sent != model {
            return Err(QueryError::OtherModel { url: url(), sent: sent.clone(), model: model.into() });
        }
        Ok(RemoteModel { remote, client })
    }

    /// The same model over another line, without asking for anything.
    pub fn over(remote: Remote, client: Client) -> Self {
        RemoteModel { remote, client }
    }

    /// The service.
    pub fn remote(&self) -> &Remote {
        &self.remote
    }

    /// What encrypts and decrypts.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// What decrypts, without the line: nothing of what it finds can be sent.
    pub fn into_client(self) -> Client {
        self.client
    }

    /// Makes keys in a folder that has none, and keeps the client spec beside them.
    ///
    /// # Errors
    /// They would be larger than `most` bytes, which a spec from a stranger can ask for; the
    /// system.
    pub fn make_keys(&self, folder: &KeyFolder, most: u64) -> Result<(), QueryError> {
        let bytes = self.client.keys_len();
        if bytes > most {
            return Err(QueryError::LargeKeys { bytes, most });
        }
        let keys = self.client.generate_keys().map_err(QueryError::Encrypt)?;
        Ok(folder.write_new(&self.client, &keys)?)
    }

    /// Loads keys, and compares the client spec with the one that lies with them. With `accept`
    /// another one takes its place, if the keys fit it.
    ///
    /// # Errors
    /// The spec is another one, or keys are absent, damaged, or do not fit it.
    pub fn load_keys(&self, folder: &KeyFolder, accept: bool) -> Result<LoadedKeys, QueryError> {
        let pinned = folder.read_spec()?;
        let changed = bytes_of(&pinned)? != bytes_of(&self.client)?;
        if changed && !accept {
            return Err(QueryError::SpecChanged(Box::new(SpecChange {
                url: self.remote.url().into(),
                model: self.client.spec().model.clone(),
                path: folder.client_spec.clone(),
                sent: self.client.spec().program,
                pinned: pinned.spec().program,
            })));
        }
        let misfit = |error| if changed { QueryError::OtherKeys(error) } else { QueryError::Keys(error) };
        let keys = folder.load(&self.client).map_err(misfit)?;
        if changed {
            folder.replace_spec(&self.client)?;
        }
        Ok(LoadedKeys { keys, new_spec: changed })
    }

    /// Registers keys, and announces a request of so many images. `public` and `evaluation` are as
    /// in [`Remote::register_keys`].
    ///
    /// # Errors
    /// The request would have more than `most` bytes; the service refuses it, or does not answer.
    pub fn announce(&self, public: &[u8], evaluation: &[u8], images: usize, most: u64) -> Result<Upload, QueryError> {
        let length = self.client.request_len(images);
        if length > most {
            return Err(QueryError::LargeRequest { images, bytes: length, most });
        }
        let key = self.remote.register_keys(&self.client.spec().model, public, evaluation)?;
        let stored = self.remote.has_store(&self.client.spec().model)?;
        let name = if stored {
            self.remote.create_stored_upload(&key, images as u64)?
        } else {
            self.remote.create_upload(&key, length)?
        };
        Ok(Upload { name, images, length, stored })
    }

    /// Encrypts images and sends each part as soon as it is there, over as many connections as it
    /// takes, and makes a job of the whole. `next` appends the values of so many images, and
    /// `within` must call its argument, which encrypts, on threads of the caller's choice. Returns
    /// the name of the job, and the seconds that encryption took.
    ///
    /// # Errors
    /// Images are refused, or `next` has none; the service refuses the request; no progress for as
    /// long as patience lasts.
    pub fn send<E: Into<Box<dyn StdError + Send + Sync>> + Send>(
        &self,
        upload: &Upload,
        key: EncryptionKey<'_>,
        mut next: impl FnMut(&mut Vec<f32>, usize) -> Result<(), E> + Send,
        within: impl FnOnce(&mut (dyn FnMut() + Send)),
        tell: Sending<'_>,
    ) -> Result<(String, f64), QueryError> {
        let spool = Spool::new(tempfile::tempfile().map_err(QueryError::Room)?);
        let given_up = AtomicBool::new(false);
        let (mut without_images, mut encrypted) = (None, Err(Error::Cancelled(Cancelled)));
        let start = Instant::now();
        let mut seconds = 0.0;
        let sent = thread::scope(|scope| {
            let uploading = scope.spawn(|| {
                let arrived = &mut |bytes| (tell.arrived)(bytes, upload.length);
                let sent = if upload.stored {
                    self.send_sets(upload, &spool, arrived)
                } else {
                    self.remote.upload(&upload.name, upload.length, &spool, arrived)
                };
                given_up.store(sent.is_err(), Ordering::Relaxed);
                sent
            });
            // Whatever happens, whoever reads is told that nothing more comes.
            let end = spool.writer();
            let show = |progress: Progress| {
                (tell.encrypted)(progress);
                if self.remote.check().is_err() {
                    given_up.store(true, Ordering::Relaxed);
                }
            };
            within(&mut || {
                let next = |values: &mut Vec<f32>, count: usize| {
                    next(values, count).map_err(|error| {
                        without_images = Some(error);
                        Cancelled.into()
                    })
                };
                let watch = Watch::new(&show).with_cancel(&given_up);
                let mut sink = BufWriter::new(spool.writer());
                let written = self.client.encrypt_sets(key, upload.images, next, &mut sink, watch);
                encrypted = written.and_then(|()| Ok(sink.flush()?));
                seconds = start.elapsed().as_secs_f64();
            });
            drop(end);
            uploading.join().unwrap_or_else(|panic| resume_unwind(panic))
        });
        // What went wrong first. An upload that nothing more comes for should not take room at the
        // service.
        match (sent, without_images, encrypted) {
            (Err(error), ..) if !matches!(error, RemoteError::File(_)) => Err(error.into()),
            (_, Some(error), _) => {
                let _ = self.remote.delete_upload(&upload.name);
                Err(QueryError::Images(error.into()))
            }
            (_, None, Err(error)) => {
                let _ = self.remote.delete_upload(&upload.name);
                Err(QueryError::Encrypt(error))
            }
            (Err(error), ..) => Err(error.into()),
            (Ok(()), None, Ok(())) => Ok((self.remote.submit(&upload.name)?.id, seconds)),
        }
    }

    /// Sends the sets of a request that `spool` holds, or will hold, to the service's store.
    fn send_sets(&self, upload: &Upload, spool: &Spool, arrived: &mut dyn FnMut(u64)) -> Result<(), RemoteError> {
        let (binding, layout) = (self.client.binding(), CiphertextLayout::input(self.client.spec()));
        let mut request = CiphertextsReader::open(spool.reader(upload.length), &binding, &layout)?;
        let (whole, mut ciphertexts) = (request.info().clone(), Vec::new());
        let sets = whole.sets(binding.params) as u64;
        for set in 0..sets {
            request.next(&mut ciphertexts)?;
            let part = sets::part_of(&whole, set, binding.params);
            self.remote.put_set(&upload.name, set, sets::file(&binding, &layout, &part, &ciphertexts))?;
            arrived(upload.length / sets * (set + 1));
        }
        request.finish()?;
        arrived(upload.length);
        Ok(())
    }

    /// Fetches the results of all sets of a job from the service's store, and joins them in `file`.
    fn fetch_sets(
        &self,
        job: &str,
        images: usize,
        file: &File,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), RemoteError> {
        let (binding, spec) = (self.client.binding(), self.client.spec());
        let layout = CiphertextLayout::result(spec);
        let request = sets::request(&CiphertextLayout::input(spec), binding.params, images);
        let mut arrived = 0;
        let open = |set| {
            let part = sets::part_of(&request, set, binding.params);
            let expected = sets::result_of(&part, &layout, binding.params);
            let length = sets::file_len(&binding, &layout, &expected);
            let bytes = io::Cursor::new(self.remote.fetch_set(job, set, length)?);
            arrived += length;
            progress(arrived);
            Ok::<_, RemoteError>(sets::open(bytes, length, &binding, &layout, &expected)?)
        };
        let sets = request.sets(binding.params) as u64;
        sets::join(&binding, &layout, images, sets, open, BufWriter::new(file))
    }

    /// Fetches the result of a job of so many images into `file`, which is then at its beginning,
    /// and deletes the job unless `keep` says otherwise. `progress` is told how many bytes have
    /// arrived. What is inside is checked by whoever decrypts it.
    ///
    /// # Errors
    /// As [`Remote::fetch`]; the result is damaged, and was not deleted.
    pub fn fetch(
        &self,
        job: &str,
        images: usize,
        mut file: &File,
        keep: bool,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), QueryError> {
        if self.remote.job(job)?.stored {
            self.fetch_sets(job, images, file, progress)?;
        } else {
            self.remote.fetch(job, self.client.response_len(images), file, progress)?;
        }
        file.seek(SeekFrom::Start(0)).map_err(RemoteError::File)?;
        // The checksum says nothing of what is inside.
        identify(file).map_err(|error| QueryError::Result { job: job.into(), error })?;
        if !keep {
            self.remote.delete_job(job)?;
        }
        file.seek(SeekFrom::Start(0)).map_err(RemoteError::File)?;
        Ok(())
    }
}

/// A client spec as it lies in its file.
fn bytes_of(client: &Client) -> Result<Vec<u8>, QueryError> {
    let mut bytes = Vec::new();
    client.write_spec(&mut bytes).map_err(QueryError::Encrypt)?;
    Ok(bytes)
}
