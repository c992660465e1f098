//! The sizes of the workload, and what computes each of them.

use std::str::FromStr;

use anyhow::{Error, bail};
use cryptodl::PlanOptions;

/// How many images a run has.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Size {
    Single,
    Small,
    Medium,
    Large,
}

impl Size {
    pub const ALL: [Size; 4] = [Size::Single, Size::Small, Size::Medium, Size::Large];

    /// As the harness names its folders.
    pub fn name(self) -> &'static str {
        match self {
            Size::Single => "single",
            Size::Small => "small",
            Size::Medium => "medium",
            Size::Large => "large",
        }
    }

    pub fn images(self) -> usize {
        match self {
            Size::Single => 1,
            Size::Small => 100,
            Size::Medium => 1_000,
            Size::Large => 10_000,
        }
    }

    /// The network that was fastest, measured over all stages (README.md).
    pub fn model(self) -> &'static str {
        "mnist-1-square"
    }

    /// What the Program is planned for: the planner packs a few images into a few ciphertexts.
    pub fn options(self) -> PlanOptions {
        PlanOptions { batch: self.images(), ..PlanOptions::default() }
    }
}

/// The number by which the harness calls a size.
impl FromStr for Size {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let number = text.parse::<usize>().ok();
        let Some(&size) = number.and_then(|number| Size::ALL.get(number)) else {
            bail!("size {text}: 0 (single), 1 (small), 2 (medium) or 3 (large) is needed");
        };
        Ok(size)
    }
}
