//! Names and shapes of the data sets that a network may be trained on.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::text;

/// A name that is no data set.
#[derive(Debug, Error)]
#[error("unknown data set `{}`; data sets are {}", text::name(name), DatasetId::ALL.map(DatasetId::name).join(", "))]
pub struct UnknownDataset {
    /// What was asked for.
    pub name: String,
}

/// A data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DatasetId {
    /// Handwritten digits, 1 x 28 x 28, 60,000 + 10,000.
    Mnist,
    /// Articles of clothing, 1 x 28 x 28, 60,000 + 10,000.
    FashionMnist,
    /// Photographs of ten kinds, 3 x 32 x 32, 50,000 + 10,000.
    Cifar10,
}

impl DatasetId {
    /// All data sets.
    pub const ALL: [DatasetId; 3] = [DatasetId::Mnist, DatasetId::FashionMnist, DatasetId::Cifar10];

    /// Name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            DatasetId::Mnist => "mnist",
            DatasetId::FashionMnist => "fashion-mnist",
            DatasetId::Cifar10 => "cifar10",
        }
    }

    /// Channels, height, width of every image.
    pub fn shape(self) -> [usize; 3] {
        match self {
            DatasetId::Mnist | DatasetId::FashionMnist => [1, 28, 28],
            DatasetId::Cifar10 => [3, 32, 32],
        }
    }
}

impl fmt::Display for DatasetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for DatasetId {
    type Err = UnknownDataset;

    fn from_str(name: &str) -> Result<Self, UnknownDataset> {
        let found = DatasetId::ALL.into_iter().find(|id| id.name() == name);
        found.ok_or_else(|| UnknownDataset { name: name.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for id in DatasetId::ALL {
            assert_eq!(id.to_string().parse::<DatasetId>().unwrap(), id);
        }
        assert!("MNIST".parse::<DatasetId>().is_err());
    }
}
