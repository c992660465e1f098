//! Networks.

use std::path::Path;

use cryptodl_core::watch::Watch;
use cryptodl_network::Network;
use cryptodl_plan::{Plan, PlanOptions, plan_watched};
use ndarray::{Array2, ArrayView4};

use crate::Error;

/// A trained network: one that ships, one from files (docs/networks.md), or one's own ([`crate::network`]).
#[derive(Clone, Debug)]
pub struct Model {
    network: Network,
}

impl Model {
    /// A shipped network by its name (see [`Self::shipped`]), or a description in TOML by its path, whose name ends in `.toml`.
    ///
    /// # Errors
    /// No such network; what is wrong with the files.
    pub fn load(name: &str) -> Result<Self, Error> {
        Ok(Model { network: cryptodl_zoo::load(name)? })
    }

    /// A description in TOML, with its weights beside it.
    ///
    /// # Errors
    /// What is wrong with the files.
    pub fn open(path: &Path) -> Result<Self, Error> {
        Ok(Model { network: cryptodl_zoo::load_file(path)? })
    }

    /// The names of all shipped networks.
    pub fn shipped() -> impl Iterator<Item = &'static str> {
        cryptodl_zoo::names().iter().copied()
    }

    /// The network itself.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Finds parameters and a schedule: a pure function of the network and the options. It takes seconds; a Program can be saved.
    ///
    /// # Errors
    /// The network cannot be computed with these options, and what would help; cancelled.
    pub fn plan(&self, options: &PlanOptions, watch: Watch<'_>) -> Result<Plan, Error> {
        Ok(plan_watched(&self.network, options, watch)?)
    }

    /// The network with what the planner must know of the values inside, measured on `images`, `[image][channel][row][column]` in the
    /// network's range: some thousand such as will come, and not those that it was trained on (docs/calibration.md).
    ///
    /// # Errors
    /// The network cannot be computed under encryption at all.
    ///
    /// # Panics
    /// If there are no images, or images of another size than the network takes.
    pub fn calibrated(self, images: ArrayView4<'_, f32>) -> Result<Self, Error> {
        let mut network = self.network;
        cryptodl_network::measure::measure(&mut network, images);
        let count = images.len_of(ndarray::Axis(0));
        let rows = images.to_shape((count, images.len() / count)).expect("as many values as there are");
        network.calibration = Some(cryptodl_plan::calibrate(&network, rows.view())?);
        Ok(Model { network })
    }

    /// Scores `[image][class]` without encryption. `images` are `[image][channel][row][column]`, in the network's range.
    ///
    /// # Panics
    /// If the images have another size than the network takes.
    pub fn plaintext_scores(&self, images: ArrayView4<'_, f32>) -> Array2<f32> {
        cryptodl_network::plain::logits(&self.network, images)
    }
}

impl From<Network> for Model {
    fn from(network: Network) -> Self {
        Model { network }
    }
}
