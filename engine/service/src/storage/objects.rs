//! An object store in the place of the folders of blobs. Clients and workers put and fetch ciphertexts there by addresses that the
//! service signs for one object and a few minutes, so that ciphertexts do not go through the service.
//!
//! An object appears whole or not at all, and is never replaced: whatever puts one says `If-None-Match: *`.

use std::fmt::{self, Debug, Formatter};
use std::future::Future;
use std::time::Duration;

use axum::http::header::IF_NONE_MATCH;
use axum::http::{HeaderValue, Method};
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey};
use object_store::list::{PaginatedListOptions, PaginatedListStore};
use object_store::path::Path;
use object_store::signer::{SignedUrlOptions, Signer};
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutOptions, RetryConfig};
use tokio::runtime::{Builder, Runtime};

use super::{Id, StoreError};
use crate::remote::is_this_machine;

/// How long a signed address is good for. An exchange that began before goes on.
const VALID: Duration = Duration::from_secs(300);
/// Settings that can be changed by the environment variables of the same name.
const SETTINGS: [(&str, &str); 2] = [
    // Some stores do not know how to delete several objects at once.
    ("aws_disable_bulk_delete", "true"),
    // Of one request, which may carry evaluation keys.
    ("aws_timeout", "300 seconds"),
];
/// How long a request of the service's own is tried again.
const PATIENCE: Duration = Duration::from_secs(20);
/// The most that a store takes at once, in bytes.
pub const MAX_OBJECT: u64 = 5 << 30;

/// Says whose objects these are.
const OWNER: &str = "owner";
/// What objects are, by the first part of their names.
const KINDS: [&str; 3] = ["keys", "requests", "results"];

/// The name of registered keys.
pub fn keys_name(key: &Id) -> String {
    format!("keys/{key}")
}

/// What the names of all sets of a request begin with.
pub fn request_name(upload: &Id) -> String {
    format!("requests/{upload}")
}

/// The name of a set of a request.
pub fn set_name(upload: &Id, set: u64) -> String {
    format!("{}/{set}", request_name(upload))
}

/// What the names of the results of all sets of a job begin with.
pub fn results_name(job: &Id) -> String {
    format!("results/{job}")
}

/// The name of the result of a set that was computed under a lease. Another lease has another name, so that nobody who comes too late
/// can touch what is published: the row of the set says which one that is.
pub fn result_name(job: &Id, set: u64, lease: i64) -> String {
    format!("{}/{set}-{lease}", results_name(job))
}

/// Objects whose names begin with a prefix, in a bucket of a store that speaks S3.
pub struct Objects {
    store: AmazonS3,
    /// `s3://BUCKET/PREFIX`.
    place: String,
    prefix: Path,
    /// Every exchange runs here, so that whoever asks may be any thread that may wait.
    runtime: Runtime,
}

impl Debug for Objects {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("Objects").field("place", &self.place).finish_non_exhaustive()
    }
}

impl Objects {
    /// Those at `url`, which is `s3://BUCKET/PREFIX`, with credentials, region and endpoint as in `settings`: the environment
    /// variables of AWS, of which those without a meaning here are left out. Nothing is asked yet.
    ///
    /// # Errors
    /// An address or a setting that is none; an endpoint without TLS on another machine.
    pub fn new(url: &str, settings: impl IntoIterator<Item = (String, String)>) -> Result<Self, StoreError> {
        let wrong = |why: &dyn fmt::Display| StoreError::Objects(format!("{url}: {why}"));
        let parts =
            url.strip_prefix("s3://").map(|rest| rest.trim_end_matches('/')).and_then(|rest| rest.split_once('/'));
        let Some((bucket, prefix)) = parts.filter(|(bucket, prefix)| !bucket.is_empty() && !prefix.is_empty()) else {
            return Err(wrong(&"a store is s3://BUCKET/PREFIX, with a prefix that nothing else uses"));
        };
        let prefix = Path::parse(prefix).map_err(|error| wrong(&error))?;
        // The first one that is installed stays; it is the same everywhere here.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let retry = RetryConfig { max_retries: 5, retry_timeout: PATIENCE, ..RetryConfig::default() };
        let mut builder = AmazonS3Builder::new().with_retry(retry);
        let defaults = SETTINGS.map(|(name, value)| (name.to_owned(), value.to_owned()));
        for (name, value) in defaults.into_iter().chain(settings) {
            let name = name.to_ascii_lowercase();
            if let Some(key) = name.starts_with("aws_").then(|| name.parse::<AmazonS3ConfigKey>().ok()).flatten() {
                builder = builder.with_config(key, value);
            }
        }
        let store = builder.with_bucket_name(bucket).build().map_err(|error| wrong(&error))?;
        let runtime = Builder::new_multi_thread().worker_threads(1).thread_name("store").enable_all().build()?;
        let objects = Objects { store, place: format!("s3://{bucket}/{prefix}"), prefix, runtime };
        let address = reqwest::Url::parse(&objects.url_to_fetch(OWNER)?).map_err(|error| wrong(&error))?;
        if address.scheme() != "https" && !is_this_machine(&address) {
            let why = "its endpoint would be reached in the clear: use https (http is for this machine only)";
            return Err(wrong(&why));
        }
        Ok(objects)
    }

    /// `s3://BUCKET/PREFIX`.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Claims everything below the prefix for the state with the name `owner`, which claims it at each of its starts.
    ///
    /// # Errors
    /// It belongs to another state; the store replaces objects where it must not; it does not answer.
    pub fn claim(&self, owner: &Id) -> Result<(), StoreError> {
        let mine = owner.as_str().as_bytes();
        if self.create(OWNER, mine.to_vec())? {
            // What is published relies on this.
            if self.create(OWNER, mine.to_vec())? {
                return Err(StoreError::Objects(format!(
                    "{}: the store replaces an object although it is told `If-None-Match: *`: use one that knows conditional writes",
                    self.place
                )));
            }
        } else if self.head(OWNER, mine.len() as u64)? != mine {
            return Err(StoreError::Objects(format!(
                "{} belongs to another state than this one: name another prefix, or delete {}/{OWNER} there if the other one is \
                 never used again",
                self.place, self.place
            )));
        }
        Ok(())
    }

    /// Makes an object; false, and nothing is changed, where there is one of this name.
    ///
    /// # Errors
    /// The store does not answer, or refuses.
    pub fn create(&self, name: &str, bytes: Vec<u8>) -> Result<bool, StoreError> {
        let options = PutOptions::from(PutMode::Create);
        match self.wait(self.store.put_opts(&self.path(name), bytes.into(), options)) {
            Err(Error::AlreadyExists { .. }) => Ok(false),
            put => Ok(put.map(|_| true)?),
        }
    }

    /// Bytes of an object, if it is there.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub fn len(&self, name: &str) -> Result<Option<u64>, StoreError> {
        match self.wait(self.store.head(&self.path(name))) {
            Err(Error::NotFound { .. }) => Ok(None),
            found => Ok(Some(found?.size)),
        }
    }

    /// The first bytes of an object, at most so many.
    ///
    /// # Errors
    /// As [`Self::create`]; it is not there, or is empty.
    pub fn head(&self, name: &str, most: u64) -> Result<Vec<u8>, StoreError> {
        Ok(self.wait(self.store.get_range(&self.path(name), 0..most))?.to_vec())
    }

    /// Removes an object, which need not be there.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub fn remove(&self, name: &str) -> Result<(), StoreError> {
        match self.wait(self.store.delete(&self.path(name))) {
            Err(Error::NotFound { .. }) => Ok(()),
            removed => Ok(removed?),
        }
    }

    /// Removes all objects below `folder` that `keeps` does not know. What cannot be removed now is named in the log, and removed by
    /// a later sweep.
    pub fn remove_below(&self, folder: &str, keeps: impl Fn(&str) -> bool) {
        let removed = self
            .names(folder)
            .and_then(|names| names.iter().filter(|name| !keeps(name)).try_for_each(|name| self.remove(name)));
        if let Err(error) = removed {
            eprintln!("error: {error}: what is left below {folder} is removed later");
        }
    }

    /// Names of all objects below the prefix, but for its owner.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub fn all_names(&self) -> Result<Vec<String>, StoreError> {
        KINDS.iter().try_fold(Vec::new(), |mut all, kind| {
            all.extend(self.names(kind)?);
            Ok(all)
        })
    }

    fn names(&self, folder: &str) -> Result<Vec<String>, StoreError> {
        let below = format!("{}/{folder}/", self.prefix);
        let (mut names, mut page) = (Vec::new(), None);
        loop {
            let options = PaginatedListOptions { page_token: page, ..PaginatedListOptions::default() };
            let found = self.wait(self.store.list_paginated(Some(&below), options))?;
            let start = self.prefix.as_ref().len() + 1;
            names.extend(found.result.objects.iter().map(|object| object.location.as_ref()[start..].to_owned()));
            page = found.page_token;
            if page.is_none() {
                return Ok(names);
            }
        }
    }

    /// Where whoever has this address can fetch an object for a few minutes. It is a secret for so long.
    ///
    /// # Errors
    /// There are no credentials to sign with.
    pub fn url_to_fetch(&self, name: &str) -> Result<String, StoreError> {
        self.signed(Method::GET, name, &SignedUrlOptions::new())
    }

    /// Where whoever has this address can put an object that is not there yet, for a few minutes, with the header
    /// `If-None-Match: *`, which is signed. It is a secret for so long.
    ///
    /// # Errors
    /// As [`Self::url_to_fetch`].
    pub fn url_to_put(&self, name: &str) -> Result<String, StoreError> {
        let never_replaces = SignedUrlOptions::new().with_signed_header(IF_NONE_MATCH, HeaderValue::from_static("*"));
        self.signed(Method::PUT, name, &never_replaces)
    }

    fn signed(&self, method: Method, name: &str, options: &SignedUrlOptions) -> Result<String, StoreError> {
        Ok(self.wait(self.store.signed_url_opts(method, &self.path(name), VALID, options))?.into())
    }

    fn path(&self, name: &str) -> Path {
        name.split('/').fold(self.prefix.clone(), |path, part| path.join(part))
    }

    fn wait<T>(&self, exchange: impl Future<Output = T>) -> T {
        self.runtime.block_on(exchange)
    }
}

impl From<Error> for StoreError {
    fn from(error: Error) -> Self {
        StoreError::Objects(error.to_string())
    }
}
