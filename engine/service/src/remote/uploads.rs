//! Sending a request: in pieces, as in tus, while it is still being encrypted.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use reqwest::Method;
use reqwest::blocking::{Body, RequestBuilder, Response};
use reqwest::header::{CONTENT_TYPE, LOCATION};

use super::{Attempt, LOOK, Remote, RemoteError, is_id};

/// Bytes that are sent in one request: what a broken connection can cost.
const PIECE: usize = 8 << 20;

impl Remote {
    /// Announces a request of `length` bytes. Returns the upload's name.
    ///
    /// # Errors
    /// It is refused, or there is no answer.
    pub fn create_upload(&self, key: &str, length: u64) -> Result<String, RemoteError> {
        let metadata = format!("key {}", base64(key.as_bytes()));
        let answer = self.ask(|| {
            self.tus(Method::POST, "v1/uploads")
                .header("Upload-Length", length)
                .header("Upload-Metadata", metadata.as_str())
        })?;
        let place = answer.headers().get(LOCATION).and_then(|place| place.to_str().ok());
        let name = place.and_then(|place| place.rsplit('/').next()).filter(|name| is_id(name));
        name.map(Into::into).ok_or_else(|| RemoteError::Protocol("an upload without a place".into()))
    }

    /// Sends what `spool` holds, or will hold, and goes on after broken connections. `progress` is told how many bytes have arrived.
    ///
    /// # Errors
    /// The upload is refused or gone; no progress for as long as patience lasts; `spool` was given up.
    pub fn upload(
        &self,
        upload: &str,
        length: u64,
        spool: &Spool,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), RemoteError> {
        let path = format!("v1/uploads/{upload}");
        let mut at = 0;
        let mut last = Instant::now();
        let mut piece = Vec::new();
        while at < length {
            spool.read(at, PIECE.min((length - at) as usize), &mut piece)?;
            let request = self
                .tus(Method::PATCH, &path)
                .header(CONTENT_TYPE, "application/offset+octet-stream")
                .header("Upload-Offset", at)
                .body(Body::from(piece.clone()));
            let reason = match self.attempt(request) {
                Ok(Attempt::Answered(answer)) => {
                    at = offset(&answer, length)?;
                    last = Instant::now();
                    progress(at);
                    continue;
                }
                Ok(Attempt::Again { reason, after }) => {
                    self.sleep(after)?;
                    reason
                }
                // Somebody else was faster, or an earlier request of our own still writes.
                Err(RemoteError::Refused { status: 409 | 423, detail }) => {
                    self.sleep(LOOK)?;
                    detail
                }
                Err(error) => return Err(error),
            };
            if last.elapsed() > self.patience {
                return Err(self.unreachable(reason));
            }
            // Where it is now.
            let found = offset(&self.ask(|| self.tus(Method::HEAD, &path))?, length)?;
            if found > at {
                last = Instant::now();
            }
            at = found;
            progress(at);
        }
        Ok(())
    }

    /// Deletes an upload that will not be finished, so that it takes no room. It is tried once.
    ///
    /// # Errors
    /// There is no answer, or it is a job already.
    pub fn delete_upload(&self, upload: &str) -> Result<(), RemoteError> {
        match self.attempt(self.tus(Method::DELETE, &format!("v1/uploads/{upload}")))? {
            Attempt::Answered(_) => Ok(()),
            Attempt::Again { reason, .. } => Err(self.unreachable(reason)),
        }
    }

    fn tus(&self, method: Method, path: &str) -> RequestBuilder {
        self.request(method, self.path(path)).header("Tus-Resumable", "1.0.0")
    }
}

fn offset(answer: &Response, length: u64) -> Result<u64, RemoteError> {
    let offset = answer.headers().get("Upload-Offset").and_then(|offset| offset.to_str().ok()?.parse().ok());
    offset
        .filter(|&offset| offset <= length)
        .ok_or_else(|| RemoteError::Protocol("an upload that does not say how far it is".into()))
}

/// RFC 4648, section 4.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let mut word = [0; 4];
        word[1..=group.len()].copy_from_slice(group);
        let word = u32::from_be_bytes(word);
        for digit in 0..4 {
            let shown = digit <= group.len();
            text.push(if shown { DIGITS[(word >> (18 - 6 * digit) & 63) as usize].into() } else { '=' });
        }
    }
    text
}

/// A file that is written at its end while it is read from any place: encryption goes on while its first sets are sent.
pub struct Spool {
    file: Mutex<File>,
    state: Mutex<SpoolState>,
    changed: Condvar,
}

#[derive(Clone, Copy)]
struct SpoolState {
    written: u64,
    ended: bool,
}

impl Spool {
    /// Of an empty file that can be read and written.
    pub fn new(file: File) -> Self {
        let state = Mutex::new(SpoolState { written: 0, ended: false });
        Spool { file: Mutex::new(file), state, changed: Condvar::new() }
    }

    /// What writes to it. When it is dropped nothing more will come.
    pub fn writer(&self) -> SpoolWriter<'_> {
        SpoolWriter(self)
    }

    /// What reads its first `length` bytes, and waits for those that are not there yet.
    pub fn reader(&self, length: u64) -> SpoolReader<'_> {
        SpoolReader { spool: self, at: 0, length }
    }

    /// Replaces `piece` by the `len` bytes from `at` on, as soon as they are there.
    ///
    /// # Errors
    /// They will never come; the file cannot be read.
    fn read(&self, at: u64, len: usize, piece: &mut Vec<u8>) -> io::Result<()> {
        self.wait(at + len as u64)?;
        piece.clear();
        piece.resize(len, 0);
        let mut file = lock(&self.file);
        file.seek(SeekFrom::Start(at))?;
        file.read_exact(piece)
    }

    /// Waits until there are `end` bytes at least, and says how many there are.
    fn wait(&self, end: u64) -> io::Result<u64> {
        let mut state = lock(&self.state);
        while state.written < end {
            if state.ended {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the request was given up"));
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        Ok(state.written)
    }
}

/// Reads the first bytes of a [`Spool`].
pub struct SpoolReader<'a> {
    spool: &'a Spool,
    at: u64,
    length: u64,
}

impl Read for SpoolReader<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        if self.at >= self.length || bytes.is_empty() {
            return Ok(0);
        }
        let there = self.spool.wait(self.at + 1)?.min(self.length) - self.at;
        let len = bytes.len().min(usize::try_from(there).unwrap_or(usize::MAX));
        let mut file = lock(&self.spool.file);
        file.seek(SeekFrom::Start(self.at))?;
        let read = file.read(&mut bytes[..len])?;
        self.at += read as u64;
        Ok(read)
    }
}

/// Writes at the end of a [`Spool`].
pub struct SpoolWriter<'a>(&'a Spool);

impl Write for SpoolWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let at = lock(&self.0.state).written;
        let mut file = lock(&self.0.file);
        file.seek(SeekFrom::Start(at))?;
        let written = file.write(bytes)?;
        drop(file);
        lock(&self.0.state).written = at + written as u64;
        self.0.changed.notify_all();
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for SpoolWriter<'_> {
    fn drop(&mut self) {
        lock(&self.0.state).ended = true;
        self.0.changed.notify_all();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_rfc_4648() {
        for (bytes, text) in [
            (&b""[..], ""),
            (b"f", "Zg=="),
            (b"fo", "Zm8="),
            (b"foo", "Zm9v"),
            (b"foob", "Zm9vYg=="),
            (b"\xfb\xff\xbf", "+/+/"),
        ] {
            assert_eq!(base64(bytes), text);
        }
    }

    #[test]
    fn a_spool_is_read_while_it_is_written() {
        let spool = Spool::new(tempfile::tempfile().unwrap());
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let mut writer = spool.writer();
                for byte in 0..200u8 {
                    writer.write_all(&[byte; 10]).unwrap();
                }
            });
            let mut piece = Vec::new();
            for at in (0..2000).step_by(100) {
                spool.read(at, 100, &mut piece).unwrap();
                assert!(piece.iter().enumerate().all(|(i, &byte)| byte as usize == (at as usize + i) / 10));
            }
            writer.join().unwrap();
        });
        // What was written stays, and nothing more will come.
        let mut piece = Vec::new();
        spool.read(0, 2000, &mut piece).unwrap();
        assert!(spool.read(1, 2000, &mut piece).is_err());
    }
}
