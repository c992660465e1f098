//! The client's side: keys, encryption, decryption.

use std::io::{Read, Write};
use std::sync::Arc;

use cryptodl_client::wire::{read_secret_key, secret_key_len, write_secret_key};
use cryptodl_client::{Decrypted, Decryption, Encryption, EncryptionKey, SecretKey};
use cryptodl_core::ckks::{CheckedSpec, ClientSpec, EncryptionKind, EvalKeys, Params, PublicKey, Randomness};
use cryptodl_core::ring::RowKernels;
use cryptodl_core::watch::Watch;
use cryptodl_core::wire::{
    Binding, CiphertextLayout, CiphertextsReader, CiphertextsWriter, ciphertexts_len, eval_keys_len, public_key_len,
    read_client_spec, read_public_key, write_client_spec, write_eval_keys, write_public_key,
};

use crate::Error;

/// A client of one Program: it knows the public description of the Program, and never the network.
#[derive(Clone, Debug)]
pub struct Client {
    spec: CheckedSpec,
    kernels: Arc<dyn RowKernels>,
}

/// All keys of a client. They belong to parameters, not to a Program: every Program of the same parameters that needs no other
/// evaluation keys can go on with them (SECURITY.md, "One key, several Programs").
pub struct Keys {
    /// Decrypts everything; it never leaves the client.
    pub secret: SecretKey,
    /// Masks results, and encrypts images where the Program says so; for the server and for whoever encrypts.
    pub public: PublicKey,
    /// What the server switches keys with; empty where the Program needs none.
    pub evaluation: EvalKeys,
}

impl Keys {
    /// Fresh keys for `spec`. The order in which randomness is drawn is fixed, so that one seed
    /// gives the same keys everywhere.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn generate(spec: &CheckedSpec, rng: &mut Randomness) -> Result<Self, Error> {
        let secret = SecretKey::generate(spec.params(), rng);
        let public = secret.public_key(rng)?;
        let evaluation = secret.eval_keys(&spec.evaluation_keys, rng)?;
        Ok(Keys { secret, public, evaluation })
    }

    /// The one that encrypts images.
    pub fn encryption(&self, kind: EncryptionKind) -> EncryptionKey<'_> {
        match kind {
            EncryptionKind::Secret => EncryptionKey::Secret(&self.secret),
            EncryptionKind::Public => EncryptionKey::Public(&self.public),
        }
    }
}

/// Of a Program whose description has been checked.
impl From<CheckedSpec> for Client {
    fn from(spec: CheckedSpec) -> Self {
        let kernels = row_kernels(spec.params());
        Client { spec, kernels }
    }
}

/// What encryption and decryption over `params` compute rows with: the machine's vectors, or plain Rust where the library is
/// built without the feature `server`.
pub fn row_kernels(params: &Params) -> Arc<dyn RowKernels> {
    let basis = params.basis().clone();
    #[cfg(feature = "server")]
    return Arc::new(cryptodl_cpu::Rows::new(basis));
    #[cfg(not(feature = "server"))]
    Arc::new(cryptodl_core::ring::ScalarRows(basis))
}

impl Client {
    /// Of a Program that `spec` describes. It may come from a stranger: everything in it is checked.
    ///
    /// # Errors
    /// The first field that is refused.
    pub fn new(spec: ClientSpec) -> Result<Self, Error> {
        Ok(Client::from(spec.check()?))
    }

    /// The same from the file of a client spec.
    ///
    /// # Errors
    /// No such file, or a field that is refused.
    pub fn read_spec(source: impl Read) -> Result<Self, Error> {
        Client::new(read_client_spec(source)?)
    }

    /// Writes the client spec.
    ///
    /// # Errors
    /// The stream cannot be written.
    pub fn write_spec(&self, sink: impl Write) -> Result<(), Error> {
        Ok(write_client_spec(sink, &self.spec)?)
    }

    /// What the client knows of the Program.
    pub fn spec(&self) -> &CheckedSpec {
        &self.spec
    }

    /// Images in a set: as many as a ciphertext has slots. A set costs the same however many of them it holds.
    pub fn images_per_set(&self) -> usize {
        self.spec.params().n()
    }

    /// Pixel values of an image.
    pub fn pixels(&self) -> usize {
        self.spec.input.shape.iter().product()
    }

    /// Bytes that all keys have in files: the spec decides it, and a stranger's may ask for any
    /// number.
    pub fn keys_len(&self) -> u64 {
        let params = self.spec.params();
        let evaluation = eval_keys_len(params, &self.spec.evaluation_keys);
        secret_key_len(params).saturating_add(public_key_len(params)).saturating_add(evaluation)
    }

    /// Bytes of a request with so many images.
    pub fn request_len(&self, images: usize) -> u64 {
        ciphertexts_len(self.spec.params(), &CiphertextLayout::input(&self.spec), images as u64)
    }

    /// Bytes of its response.
    pub fn response_len(&self, images: usize) -> u64 {
        ciphertexts_len(self.spec.params(), &CiphertextLayout::result(&self.spec), images as u64)
    }

    /// Fresh keys.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn generate_keys(&self) -> Result<Keys, Error> {
        Keys::generate(&self.spec, &mut self.randomness()?)
    }

    /// Writes the secret key. The file is to be read by its owner only.
    ///
    /// # Errors
    /// The stream cannot be written.
    pub fn write_secret_key(&self, key: &SecretKey, sink: impl Write) -> Result<(), Error> {
        Ok(write_secret_key(sink, key)?)
    }

    /// Writes the public key.
    ///
    /// # Errors
    /// The stream cannot be written.
    pub fn write_public_key(&self, key: &PublicKey, sink: impl Write) -> Result<(), Error> {
        Ok(write_public_key(sink, self.spec.params(), key)?)
    }

    /// Writes the evaluation keys.
    ///
    /// # Errors
    /// The stream cannot be written.
    pub fn write_evaluation_keys(&self, keys: &EvalKeys, sink: impl Write) -> Result<(), Error> {
        Ok(write_eval_keys(sink, self.spec.params(), keys)?)
    }

    /// Reads a secret key.
    ///
    /// # Errors
    /// A file of another kind, of other parameters, or damaged.
    pub fn read_secret_key(&self, source: impl Read) -> Result<SecretKey, Error> {
        Ok(read_secret_key(source, self.spec.params())?)
    }

    /// Reads a public key.
    ///
    /// # Errors
    /// A file of another kind, of other parameters, or damaged.
    pub fn read_public_key(&self, source: impl Read) -> Result<PublicKey, Error> {
        Ok(read_public_key(source, self.spec.params())?)
    }

    /// Encrypts images that are all in memory, one after the other, each in channel, row, column order, with values in the spec's
    /// range. `watch` is told how many ciphertexts are done.
    ///
    /// # Errors
    /// No whole number of images; a value that is out of range, with its place; the stream cannot be written; cancelled. What was
    /// written is then no file.
    pub fn encrypt(&self, keys: &Keys, images: &[f32], request: impl Write, watch: Watch<'_>) -> Result<(), Error> {
        self.encrypt_with(keys.encryption(self.spec.encryption), images, request, watch)
    }

    /// The same for whoever has only the key that encrypts.
    ///
    /// # Errors
    /// As [`Self::encrypt`].
    pub fn encrypt_with(
        &self,
        key: EncryptionKey<'_>,
        images: &[f32],
        request: impl Write,
        watch: Watch<'_>,
    ) -> Result<(), Error> {
        let count = images.len().div_ceil(self.pixels());
        let mut rest = images;
        let next = |values: &mut Vec<f32>, count: usize| {
            let (set, after) = rest.split_at((count * self.pixels()).min(rest.len()));
            rest = after;
            values.extend_from_slice(set);
            Ok(())
        };
        self.encrypt_sets(key, count, next, request, watch)
    }

    /// Encrypts `count` images of which one set is in memory at a time: `next` appends the values of so many images.
    ///
    /// # Errors
    /// As [`Self::encrypt`], and what `next` returns.
    pub fn encrypt_sets(
        &self,
        key: EncryptionKey<'_>,
        count: usize,
        mut next: impl FnMut(&mut Vec<f32>, usize) -> Result<(), Error>,
        request: impl Write,
        watch: Watch<'_>,
    ) -> Result<(), Error> {
        let mut rng = self.randomness()?;
        let mut encryption = Encryption::new(&self.spec, key, count, &mut rng)?.with_kernels(self.kernels.clone());
        let layout = CiphertextLayout::input(&self.spec);
        let mut writer = CiphertextsWriter::new(request, &self.binding(), &layout, encryption.info())?;
        let (mut values, mut set) = (Vec::new(), Vec::new());
        while encryption.next_images() > 0 {
            values.clear();
            next(&mut values, encryption.next_images())?;
            encryption.next(&values, &mut set, watch)?;
            writer.put(&set)?;
        }
        Ok(writer.finish()?)
    }

    /// Decrypts a result: labels, and scores that are rounded so coarsely that none of their noise is seen. `watch` is told how many
    /// images are done.
    ///
    /// Never send what is decrypted back to the server, not even that a result was refused: SECURITY.md, "IND-CPA, not IND-CPA-D".
    ///
    /// # Errors
    /// A file of another kind or Program, or damaged; a result that does not decrypt to scores; cancelled.
    pub fn decrypt(&self, key: &SecretKey, response: impl Read, watch: Watch<'_>) -> Result<Decrypted, Error> {
        let mut all: Option<Decrypted> = None;
        self.decrypt_sets(key, response, watch, |set| {
            match &mut all {
                None => all = Some(set),
                Some(all) => {
                    all.scores.extend(set.scores);
                    all.labels.extend(set.labels);
                    all.out_of_range.extend(set.out_of_range);
                }
            }
            Ok(())
        })?;
        Ok(all.expect("a result has a set"))
    }

    /// Decrypts a result of which one set is in memory at a time. Whether the file is whole shows at its end: what `each` got is to
    /// be forgotten after an error.
    ///
    /// # Errors
    /// As [`Self::decrypt`], and what `each` returns.
    pub fn decrypt_sets(
        &self,
        key: &SecretKey,
        response: impl Read,
        watch: Watch<'_>,
        mut each: impl FnMut(Decrypted) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let layout = CiphertextLayout::result(&self.spec);
        let mut reader = CiphertextsReader::open(response, &self.binding(), &layout)?;
        let info = reader.info().clone();
        let mut decryption = Decryption::new(&self.spec, key, &info)?.with_kernels(self.kernels.clone());
        let (mut set, mut done) = (Vec::new(), 0);
        while reader.next(&mut set)? {
            watch.check()?;
            let decrypted = decryption.next(&set)?;
            done += decrypted.labels.len();
            each(decrypted)?;
            watch.tell(done, info.images);
        }
        Ok(reader.finish()?)
    }

    /// What files of this Program belong to.
    pub fn binding(&self) -> Binding<'_> {
        Binding { program: self.spec.program, params: self.spec.params() }
    }

    fn randomness(&self) -> Result<Randomness, Error> {
        Ok(Randomness::from_os().map_err(cryptodl_client::ClientError::from)?)
    }
}
