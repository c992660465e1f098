//! `cryptodl data`.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use clap::{Args, Subcommand};
use cryptodl_data::{DatasetId, FetchOptions, cache_dir, dataset_dir};
use serde::Serialize;

use crate::json::{Json, Timed};
use crate::samples;

/// Fetch and locate data sets
#[derive(Args)]
#[command(
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "\
Examples:
  cryptodl data fetch mnist        fetch it once; then everything works offline
  cryptodl data path mnist         where its files are"
)]
pub struct Data {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Fetch(Fetch),
    Path(Location),
}

/// Get a data set, check every file by its digest, and keep it in the cache
///
/// Files that are there and whole are not fetched again; then everything works offline.
#[derive(Args)]
#[command(after_help = "\
Examples:
  cryptodl data fetch mnist
  cryptodl data fetch cifar10 --folder downloads/
  cryptodl data fetch mnist --from https://mirror.example.org/mnist")]
struct Fetch {
    /// mnist, fashion-mnist or cifar10
    #[arg(value_name = "SET")]
    set: String,
    /// Take the standard files from this address, plain or with .gz
    #[arg(long, value_name = "URL", conflicts_with = "folder")]
    from: Option<String>,
    /// Take the standard files from this folder, plain or with .gz
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// Cache folder instead of $CRYPTODL_CACHE or the platform's
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    #[command(flatten)]
    json: Json,
}

/// Print the cache folder, or the folder of one data set in it
#[derive(Args)]
#[command(after_help = "\
Example:
  ls \"$(cryptodl data path mnist)\"")]
struct Location {
    /// mnist, fashion-mnist or cifar10
    #[arg(value_name = "SET")]
    set: Option<String>,
    /// Cache folder instead of $CRYPTODL_CACHE or the platform's
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    #[command(flatten)]
    json: Json,
}

impl Data {
    pub fn run(self) -> Result<()> {
        let start = Instant::now();
        let (folder, json, absent) = match self.command {
            Command::Fetch(Fetch { set, from, folder, cache, json }) => {
                let options = FetchOptions { cache, from_dir: folder, from_url: from, ..FetchOptions::default() };
                (samples::fetch(set.parse::<DatasetId>()?, &options)?, json, None)
            }
            Command::Path(Location { set: None, cache, json }) => {
                (cache_dir(cache.as_deref())?, json, Some("`cryptodl data fetch` makes it".to_owned()))
            }
            Command::Path(Location { set: Some(set), cache, json }) => {
                let id: DatasetId = set.parse()?;
                (dataset_dir(id, cache.as_deref())?, json, Some(format!("`cryptodl data fetch {id}` fetches the set")))
            }
        };
        if let Some(advice) = absent.filter(|_| !folder.exists()) {
            eprintln!("note: {} is not there yet; {advice}", folder.display());
        }
        let place = Place { present: folder.exists(), path: folder };
        json.create()?.show(&Timed::since(start, "read", &place), || format!("{}\n", place.path.display()))
    }
}

/// What `data --json` writes.
#[derive(Serialize)]
struct Place {
    path: PathBuf,
    present: bool,
}
