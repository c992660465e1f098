//! Whole models: as `run` computes them, each part against what the machine allows, in turns with plaintext PyTorch.

use anyhow::Result;
use cryptodl_core::backend::Ceilings;
use cryptodl_core::ckks::EncryptionKind;
use serde::Serialize;

use super::pytorch::{Peer, Plaintext};
use crate::classify::{Outcome, Session};
use crate::flags::TestSeed;
use crate::prepared::Prepared;
use crate::report::RunReport;
use crate::samples::Samples;

/// Computations before it is PyTorch's turn, and the other way round.
const TURN: usize = 3;

/// A model, from pixels to labels.
#[derive(Serialize)]
pub struct EndToEnd {
    pub schedule: &'static str,
    /// As `cryptodl data` names it.
    #[serde(skip)]
    pub dataset: &'static str,
    /// Of the median `compute`, in order.
    pub parts: Vec<Part>,
    /// Sum over the parts.
    pub attainable_seconds: f64,
    /// Share of `compute` that the ceilings account for: `attainable_seconds` by its seconds.
    pub roofline: f64,
    /// PyTorch on the same images, in turns with these computations.
    pub plaintext: Option<Plaintext>,
    /// Seconds of `compute` by those of PyTorch, both medians.
    pub of_plaintext: Option<f64>,
    /// As `run --json` writes it; the peak of memory is of this model and what the process held before it, tens of megabytes.
    pub run: RunReport,
}

/// A part of `compute` against the ceilings of the same run.
#[derive(Serialize)]
pub struct Part {
    pub name: String,
    pub seconds: f64,
    /// Multiply-adds of a weight with a residue, as planned: what bands compute twice is no use.
    pub multiply_adds: u64,
    pub multiply_adds_per_second: f64,
    /// Share of the ceiling of linear maps.
    pub arithmetic_share: f64,
    /// Bytes that must be read and written at least: operands and results once, as residues of four bytes in memory and packed
    /// in files; weights and keys are left out.
    pub bytes: u64,
    /// The least time that the ceilings allow: the larger of the multiply-adds' operations by the ceiling of linear maps and of
    /// `bytes` by the bandwidth of a copy. Transforms, products and random streams count by their bytes alone, so that it is a
    /// lower bound.
    pub attainable_seconds: f64,
    /// `attainable_seconds` by `seconds`.
    pub roofline: f64,
}

/// What [`Part`]s are compared with.
pub struct Limits<'a> {
    pub ceilings: &'a Ceilings,
    /// Operations of the ceiling of linear maps in a multiply-add with a residue of this Program.
    pub operations: u32,
}

impl Part {
    fn new(limits: &Limits<'_>, name: &str, seconds: f64, multiply_adds: u64, bytes: u64) -> Self {
        let Ceilings { linear, copy, .. } = limits.ceilings;
        let arithmetic = (multiply_adds * u64::from(limits.operations)) as f64 / linear.per_second;
        let attainable_seconds = arithmetic.max(bytes as f64 / copy.per_second);
        // A part that takes no time at all has nothing to compare.
        let per = |quantity: f64| if seconds > 0.0 { quantity / seconds } else { 0.0 };
        Part {
            name: name.into(),
            seconds,
            multiply_adds,
            multiply_adds_per_second: per(multiply_adds as f64),
            arithmetic_share: per(arithmetic),
            bytes,
            attainable_seconds,
            roofline: per(attainable_seconds),
        }
    }

    /// All parts of the median computation.
    fn all(limits: &Limits<'_>, prepared: &Prepared, outcome: &Outcome) -> Vec<Part> {
        let Outcome { compute, bytes, sets, .. } = outcome;
        let content = &prepared.plan.program.content;
        // Residues of one component of the input, and of the last layer's result.
        let residues = content.input.level * prepared.plan.program.inputs() * prepared.params().n();
        let component = (4 * residues * sets) as u64;
        let stored = match content.encryption {
            EncryptionKind::Secret => 1,
            EncryptionKind::Public => 2,
        };
        let part = |name: &str, seconds, bytes| Part::new(limits, name, seconds, 0, bytes);
        let mut parts = vec![
            part("unpack", compute.parts.unpack, bytes.upload + stored * component),
            part("expand", compute.parts.expand, (2 - stored) * component),
        ];
        let mut operand = 2 * component;
        for (planned, measured) in prepared.plan.report.segments.iter().zip(&compute.segments) {
            let result = planned.bytes * *sets as u64;
            let multiply_adds = planned.residue_multiply_adds * *sets as u64;
            parts.push(Part::new(limits, &planned.name, measured.seconds, multiply_adds, operand + result));
            operand = result;
        }
        // The result is read and written, the mask read.
        parts.push(part("masks", compute.parts.rerandomisation, 3 * operand));
        parts.push(part("pack", compute.parts.pack, operand + bytes.download));
        parts
    }
}

/// Classifies `samples` under encryption, `computations` times, in turns with `peer`. A peer that fails is lost, and why is told.
pub fn end_to_end(
    prepared: &Prepared,
    samples: &Samples,
    computations: usize,
    schedule: &'static str,
    limits: &Limits<'_>,
    peer: &mut Option<Peer>,
    lost: &mut dyn FnMut(anyhow::Error),
) -> Result<EndToEnd> {
    let mut session = Session::start(prepared, samples, &TestSeed::default())?;
    for done in (0..computations).step_by(TURN) {
        let times = TURN.min(computations - done);
        if let Some(Err(error)) = peer.as_mut().map(|peer| peer.classify(times)) {
            lost(error);
            *peer = None;
        }
        (0..times).try_for_each(|_| session.compute())?;
    }
    let outcome = session.finish()?;
    let parts = Part::all(limits, prepared, &outcome);
    let attainable_seconds = parts.iter().map(|part| part.attainable_seconds).sum();
    let plaintext = peer.as_mut().and_then(Peer::take);
    let seconds = outcome.compute.seconds;
    Ok(EndToEnd {
        schedule,
        dataset: prepared.network().dataset.map_or("", |id| id.name()),
        parts,
        attainable_seconds,
        roofline: attainable_seconds / seconds,
        of_plaintext: plaintext.as_ref().map(|plaintext| seconds / plaintext.peers[0].seconds),
        plaintext,
        run: RunReport::new(prepared, samples, &outcome),
    })
}
