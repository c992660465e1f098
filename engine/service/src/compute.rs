//! One set of a request, computed by the service itself or by a worker elsewhere.

use std::io::{self, Read, Write};
use std::sync::Arc;

use cryptodl::{
    AcceptedEvaluationKeys, Checkpoint, CiphertextsInfo, ComputeReport, Error, EvalKeys, KeysDigest, Params, PublicKey,
    Randomness, Request, Rerandomisation, Service, Watch,
};
use cryptodl_core::wire::{
    CiphertextLayout, CiphertextsWriter, TRAILER_LEN, WireError, public_key_len, read_eval_keys, read_public_key,
};

/// Reads keys as they are registered: a public key, and behind it the evaluation keys.
pub fn read_keys(mut source: impl Read, params: &Params) -> Result<(PublicKey, EvalKeys), WireError> {
    let public = read_public_key((&mut source).take(public_key_len(params)), params)?;
    let evaluation = read_eval_keys(source, params)?;
    Ok((public, evaluation))
}

/// A client's keys, ready for use with one model.
pub struct Ready {
    id: String,
    program: String,
    pub public: PublicKey,
    pub evaluation: AcceptedEvaluationKeys,
    digest: KeysDigest,
    bytes: u64,
}

impl Ready {
    /// What a checkpoint of a set belongs to that is computed with these keys.
    pub fn request(&self, service: &Service, part: &CiphertextsInfo, masked: bool) -> Request {
        Request::new(service.spec().program, part, self.digest, masked)
    }
}

/// Keys that were used lately, the last one at the end.
pub struct Recent {
    keys: Vec<Arc<Ready>>,
    most: u64,
}

impl Recent {
    /// None yet, and at most `most` bytes of expanded keys beside those that are being used.
    pub fn new(most: u64) -> Self {
        Recent { keys: Vec::new(), most }
    }

    /// Keys may have been used half.
    pub fn clear(&mut self) {
        self.keys.clear();
    }

    /// The keys of this name, which have `bytes` bytes as a file. They are read and expanded unless they are still here.
    pub fn get<E: From<Error>>(
        &mut self,
        id: &str,
        bytes: u64,
        service: &Service,
        read: impl FnOnce() -> Result<(PublicKey, EvalKeys), E>,
    ) -> Result<Arc<Ready>, E> {
        let program = service.spec().program.to_string();
        if let Some(at) = self.keys.iter().position(|ready| ready.id == id && ready.program == program) {
            let ready = self.keys.remove(at);
            self.keys.push(ready.clone());
            return Ok(ready);
        }
        // Expanded, both halves of a key are words of 32 bits.
        let bytes = bytes.saturating_mul(3);
        while !self.keys.is_empty()
            && self.keys.iter().map(|ready| ready.bytes).sum::<u64>().saturating_add(bytes) > self.most
        {
            self.keys.remove(0);
        }
        let (public, evaluation) = read()?;
        let digest = KeysDigest::from(&evaluation);
        let evaluation = service.accept_evaluation_keys(&evaluation)?;
        let ready = Arc::new(Ready { id: id.into(), program, public, evaluation, digest, bytes });
        self.keys.push(ready.clone());
        Ok(ready)
    }
}

/// Where the sets of a file of `length` bytes begin, which `info` describes.
pub fn first_set(info: &CiphertextsInfo, params: &Params, length: u64) -> u64 {
    let sets = (info.sets(params) as u64).saturating_mul(info.set_bytes(params) as u64);
    length.saturating_sub(TRAILER_LEN as u64).saturating_sub(sets)
}

/// The scores of one set, packed, and where the time went. Without a `secret` they are not masked, which is for tests. Where there is
/// a `checkpoint`, the computation goes on from what it has.
pub fn compute_set(
    service: &Service,
    keys: &Ready,
    part: &CiphertextsInfo,
    set: &[u8],
    secret: Option<&[u8; 32]>,
    checkpoint: Option<&Checkpoint>,
    watch: Watch<'_>,
) -> Result<(Vec<u8>, ComputeReport), Error> {
    let mut masks;
    let rerandomisation = match secret {
        Some(secret) => {
            masks = Randomness::from_secret(secret, "masks");
            Rerandomisation::Fresh { key: &keys.public, rng: &mut masks }
        }
        None => Rerandomisation::Omitted,
    };
    let mut computation = service.begin(part, &keys.evaluation, rerandomisation, watch)?;
    checkpoint.into_iter().for_each(|checkpoint| computation.resume(checkpoint));
    let first = computation.push(set)?;
    let (last, report) = computation.finish()?;
    Ok((first.or(last).expect("a set has a result"), report))
}

/// Writes the scores of one set as a file, a part of the whole result.
pub fn write_result(service: &Service, part: &CiphertextsInfo, scores: &[u8], sink: impl Write) -> io::Result<()> {
    let layout = CiphertextLayout::result(service.spec());
    let mut writer = CiphertextsWriter::new(sink, &service.binding(), &layout, &service.result(part))?;
    writer.put(scores)?;
    writer.finish()
}
