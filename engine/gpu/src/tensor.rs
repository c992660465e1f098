//! Tensors on the device: pages of whole limbs.

use std::ops::Range;
use std::sync::Arc;

use cryptodl_core::backend::{BackendError, BackendRemedy, Result, Shape};
use cryptodl_shaders::params::View;

use super::pool::{Pool, Pooled};
use super::recorder::Slice;

/// Residues in device memory, `[limb][value][component][lane]`. A page is one buffer of whole limbs that a kernel can be given in
/// one binding.
#[derive(Debug)]
pub struct GpuTensor {
    pub(super) shape: Shape,
    limbs_per_page: usize,
    pages: Vec<Pooled>,
}

impl GpuTensor {
    /// Room for a tensor of `shape`, with any contents, in pages of at most `page_bytes` bytes.
    pub(super) fn new(pool: &Arc<Pool>, page_bytes: u64, shape: Shape) -> Result<Self> {
        let limb_bytes = 4 * (shape.limb_len() as u64).max(1);
        if limb_bytes > page_bytes {
            return Err(BackendError::Unsupported {
                device: pool.device_name().to_owned(),
                reason: format!(
                    "one limb of {} values x {} components x {} lanes takes {limb_bytes} bytes, and a \
                     kernel can be given {page_bytes} (the adapter's largest storage binding)",
                    shape.values, shape.components, shape.lanes
                ),
                remedies: &[BackendRemedy::SmallerMemoryBudget, BackendRemedy::AnotherAdapter, BackendRemedy::Cpu],
            });
        }
        let limbs = shape.limbs.len();
        let limbs_per_page = ((page_bytes / limb_bytes) as usize).clamp(1, limbs.max(1));
        let page = |first: usize| pool.take((limbs - first).min(limbs_per_page) as u64 * limb_bytes);
        let pages = (0..limbs).step_by(limbs_per_page).map(page).collect::<Result<_>>()?;
        Ok(GpuTensor { shape, limbs_per_page, pages })
    }

    /// The page that holds the limb at position `limb`.
    pub(super) fn page(&self, limb: usize) -> Slice {
        let limbs = self.page_end(limb) - self.page_start(limb);
        let size = 4 * (limbs * self.shape.limb_len()) as u64;
        Slice { buffer: self.pages[limb / self.limbs_per_page].buffer.clone(), offset: 0, size }
    }

    /// The limb at position `limb` alone.
    pub(super) fn limb(&self, limb: usize) -> Slice {
        let size = 4 * self.shape.limb_len() as u64;
        Slice { offset: (limb - self.page_start(limb)) as u64 * size, size, ..self.page(limb) }
    }

    /// All pages, with the positions of their limbs.
    pub(super) fn pages(&self) -> impl Iterator<Item = (Range<usize>, Slice)> {
        let firsts = (0..self.shape.limbs.len()).step_by(self.limbs_per_page);
        firsts.map(|first| (first..self.page_end(first), self.page(first)))
    }

    /// Where limb `limb` lies in its page; element 0 is the given value, component and lane.
    pub(super) fn view(&self, limb: usize, [value, component, lane]: [usize; 3]) -> View {
        let Shape { values, components, lanes, .. } = self.shape;
        let dense = View::dense(values as u32, components as u32, lanes as u32);
        let first = (limb % self.limbs_per_page) * self.shape.limb_len();
        let base = first + (value * components + component) * lanes + lane;
        View { base: u32::try_from(base).expect("a page has at most 2^31 words"), ..dense }
    }

    /// The position of the first limb of the page that holds `limb`.
    pub(super) fn page_start(&self, limb: usize) -> usize {
        limb / self.limbs_per_page * self.limbs_per_page
    }

    /// The position behind the last limb of the page that holds `limb`.
    pub(super) fn page_end(&self, limb: usize) -> usize {
        (self.page_start(limb) + self.limbs_per_page).min(self.shape.limbs.len())
    }
}

/// Cuts `count` limbs into runs that lie in one page of every operand. An operand is a tensor and the position of its first limb.
pub(super) fn runs(count: usize, operands: &[(&GpuTensor, usize)]) -> Vec<Range<usize>> {
    let mut runs = Vec::new();
    let mut start = 0;
    while start < count {
        let ends = operands.iter().map(|(tensor, first)| tensor.page_end(first + start) - first);
        let end = ends.fold(count, usize::min);
        runs.push(start..end);
        start = end;
    }
    runs
}

/// A run of limbs of some operands, and where another operand has them.
pub(super) struct Found {
    /// Positions in the operands.
    pub run: Range<usize>,
    /// Position of the first limb of the other operand's page.
    pub page: usize,
    /// Positions in that page.
    pub sources: Vec<u32>,
}

/// [`runs`] of all limbs of `operands`, which have the same, cut where `other` has them in several
/// pages. Its limbs are looked up by prime; it may have more, in any order.
///
/// # Panics
/// If `other` lacks one.
pub(super) fn runs_by_prime(operands: &[&GpuTensor], other: &GpuTensor) -> Vec<Found> {
    let in_other = |limb: &usize| other.shape.limbs.iter().position(|l| l == limb).expect("the operand has every limb");
    let positions: Vec<usize> = operands[0].shape.limbs.iter().map(in_other).collect();
    let operands: Vec<_> = operands.iter().map(|&operand| (operand, 0)).collect();
    let mut found = Vec::new();
    for run in runs(positions.len(), &operands) {
        let mut start = run.start;
        for part in positions[run].chunk_by(|&a, &b| other.page_start(a) == other.page_start(b)) {
            let page = other.page_start(part[0]);
            let sources = part.iter().map(|&at| (at - page) as u32).collect();
            found.push(Found { run: start..start + part.len(), page, sources });
            start += part.len();
        }
    }
    found
}
