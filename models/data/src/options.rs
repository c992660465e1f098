//! What is asked for, and what is told while it is fetched.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

/// Part of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// Training images.
    Train,
    /// Test images.
    Test,
}

/// Where the cache is and where absent files come from.
#[derive(Debug, Clone, Default)]
pub struct FetchOptions {
    /// Cache folder instead of the platform's.
    pub cache: Option<PathBuf>,
    /// Take absent files from this folder (standard names, plain or with `.gz`).
    pub from_dir: Option<PathBuf>,
    /// Take absent files from this address (standard names, plain or with `.gz`); ignored beside `from_dir`.
    pub from_url: Option<String>,
    /// Use neither a package registry nor a URL.
    pub offline: bool,
    /// Only the files of this part of the set; without it all of them.
    pub split: Option<Split>,
    /// Set from another thread to end a registry's client that is running.
    pub cancel: Option<&'static AtomicBool>,
}

/// What a fetch is doing.
#[derive(Debug, Clone, Copy)]
pub enum Progress<'a> {
    /// A step of unknown length began.
    Step(&'a str),
    /// A file or folder was made that is deleted afterwards: a caller that ends the process before
    /// must delete it.
    Temporary(&'a Path),
    /// Part of a file arrived.
    Received {
        /// Standard name of the file.
        file: &'a str,
        /// Bytes so far.
        bytes: u64,
        /// Bytes of the whole file, uncompressed.
        total: u64,
    },
}
