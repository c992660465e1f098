//! What a computation reports.

use cryptodl_core::backend::Transfers;

/// Seconds of each part of the computation. On a device, encryptions of zero are drawn and the next
/// set is loaded while a set's segments run, so the parts can exceed the whole.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub struct ComputeParts {
    /// Evaluation key to the backend.
    pub key: f64,
    /// Unpacking bits to residues; on a device, the transfer is inside.
    pub unpack: f64,
    /// Expanding seeds.
    pub expand: f64,
    /// Rotations that make a ciphertext for every pixel of compact inputs.
    pub rotate: f64,
    /// Segments.
    #[serde(rename = "layers")]
    pub segments: f64,
    /// Packing the scores of few images.
    pub scores: f64,
    /// Drawing encryptions of zero and adding them to the result, with the flood and the division
    /// after it.
    #[serde(rename = "masks")]
    pub rerandomisation: f64,
    /// Packing the result's residues; on a device, the transfer is inside.
    pub pack: f64,
    /// Keeping results of sets and states on disk, where there is a checkpoint.
    pub checkpoint: f64,
    /// What crossed between host and device, for all parts together; none where the backend computes in the host's memory.
    pub transfers: Option<Transfers>,
}

/// One segment over all sets.
#[derive(Clone, Debug, serde::Serialize)]
pub struct SegmentTime {
    /// Names of its steps.
    pub name: String,
    /// Seconds.
    pub seconds: f64,
    /// Chain limbs after it.
    pub limbs: usize,
    /// Components after it.
    pub components: usize,
    /// Multiply-adds per image that were executed.
    pub multiply_adds: u64,
    /// Multiply-adds of a weight with a residue that were executed, over all sets.
    pub residue_multiply_adds: u64,
}

/// Where the time went.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct ComputeReport {
    /// Seconds in all: from the received bytes in memory to the result's bytes.
    pub seconds: f64,
    /// Parts.
    pub parts: ComputeParts,
    /// Sets whose results a checkpoint had already.
    pub sets_kept: usize,
    /// Steps of other sets that were done before, where a checkpoint had a state.
    pub steps_kept: usize,
    /// Segments in order.
    #[serde(rename = "layers")]
    pub segments: Vec<SegmentTime>,
}
