//! Stands in for `gpu.rs` in a build without the feature `gpu`.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use anyhow::{Result, bail};
use cryptodl_core::ckks::Params;
use cryptodl_cpu::Cpu;
use serde::Serialize;

use crate::flags::Place;

const NONE: &str = "this build has no GPU backend: use --backend cpu, or build with the feature gpu";

/// There is no driver to be quiet.
pub fn quiet_driver() {}

/// An adapter: there is none.
pub enum Choice {}

/// Which of the equivalent kernels: there are none.
#[derive(Clone, Copy)]
pub enum Variant {}

pub const VARIANTS: [(&str, Variant); 0] = [];

impl Choice {
    pub fn new(_: &Place) -> Result<Self> {
        bail!(NONE)
    }

    pub fn automatic(_: Duration) -> Option<Result<Self>> {
        None
    }

    pub fn index(&self) -> usize {
        match *self {}
    }

    pub fn checked(&self, _: &Params, _: Variant) -> Result<Cpu> {
        match *self {}
    }

    pub fn timed(&self, _: &Params) -> Result<Cpu> {
        match *self {}
    }

    pub fn variants(&self) -> std::iter::Empty<(&'static str, Variant)> {
        match *self {}
    }
}

/// An adapter in a list: there is none.
#[derive(Serialize)]
pub enum Device {}

pub fn devices(_: Duration, _: Option<usize>) -> Result<Vec<Device>> {
    bail!(NONE)
}

impl Device {
    pub fn is_usable(&self) -> bool {
        match *self {}
    }
}

impl Display for Device {
    fn fmt(&self, _: &mut Formatter<'_>) -> fmt::Result {
        match *self {}
    }
}
