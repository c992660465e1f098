//! `cryptodl data`.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Subcommand};
use cryptodl_data::{DatasetId, FetchOptions, cache_dir, dataset_dir};

use crate::{files, samples};

/// Fetch and locate data sets
#[derive(Args)]
#[command(subcommand_required = true, arg_required_else_help = true)]
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
}

impl Data {
    pub fn run(self) -> Result<()> {
        let folder = match self.command {
            Command::Fetch(Fetch { set, from, folder, cache }) => {
                let options = FetchOptions { cache, from_dir: folder, from_url: from, offline: false, split: None };
                samples::fetch(set.parse::<DatasetId>()?, &options)?
            }
            Command::Path(Location { set: None, cache }) => cache_dir(cache.as_deref())?,
            Command::Path(Location { set: Some(set), cache }) => dataset_dir(set.parse()?, cache.as_deref())?,
        };
        files::print(&format!("{}\n", folder.display()))
    }
}
