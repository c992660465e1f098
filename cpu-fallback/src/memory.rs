//! Memory for tensors and intermediates: it starts at a line of the cache, since a vector that lies across two lines takes twice
//! as long to load, and what is large is in huge pages, since lanes of different rows are far apart: small pages would cost a walk
//! of the page table for almost every line, and a fault for every 4 KiB. Pages that a backend's tensors no longer need wait in its
//! [`Pool`]: the first touch of a page of the system takes longer than most kernels take on it.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use memmap2::MmapMut;

/// Words, the first at the start of a line of the cache.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    store: Store,
    len: usize,
    /// Where the pages go, and the bytes that were asked of it.
    pool: Option<(Arc<Pool>, usize)>,
}

#[derive(Debug)]
enum Store {
    /// Fewer than [`PAGES_FROM`] bytes: words, and how many precede the first line.
    Heap(Vec<u32>, usize),
    /// More.
    Pages(MmapMut),
}

/// Bytes from which memory comes in pages of its own.
const PAGES_FROM: usize = 1 << 20;

/// Bytes of a line of the cache.
const LINE: usize = 64;

/// Pages of tensors that are gone, for those to come.
#[derive(Debug, Default)]
pub(crate) struct Pool(Mutex<Pages>);

#[derive(Debug, Default)]
struct Pages {
    waiting: Vec<MmapMut>,
    /// Bytes of all pages, those of tensors as well.
    mapped: usize,
    /// Bytes that tensors have asked for.
    asked: usize,
    /// The most so far.
    peak: usize,
}

/// How many times larger than needed pages may be.
const MAX_EXCESS: usize = 4;

impl Pool {
    /// `len` words, any, or `None` if there is no room.
    pub(crate) fn take(self: &Arc<Self>, len: usize) -> Option<Memory> {
        let bytes = len.checked_mul(size_of::<u32>())?;
        if bytes < PAGES_FROM {
            return Memory::zeros(len);
        }
        let pages = self.pages().take(bytes);
        let pages = pages.or_else(|| map(bytes).inspect(|pages| self.pages().mapped += pages.len()));
        let Some(pages) = pages else {
            self.pages().asked -= bytes;
            return None;
        };
        Some(Memory { store: Store::Pages(pages), len, pool: Some((self.clone(), bytes)) })
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pages {
    /// The best of the pages that wait for a tensor of so many bytes. If none will do, others go back to the system, until those to
    /// come have room within what tensors have asked for at once: what waits never adds to a peak.
    fn take(&mut self, bytes: usize) -> Option<MmapMut> {
        self.asked += bytes;
        self.peak = self.peak.max(self.asked);
        let fits = |pages: &MmapMut| (bytes..=bytes.saturating_mul(MAX_EXCESS)).contains(&pages.len());
        if let Some(best) = self.smallest(fits) {
            return Some(self.waiting.swap_remove(best));
        }
        let to_come = rounded(bytes)?;
        while let Some(excess) = (self.mapped + to_come).checked_sub(self.peak).filter(|&excess| excess > 0)
            && !self.waiting.is_empty()
        {
            let least = self.smallest(|pages| pages.len() >= excess).or_else(|| self.largest());
            self.mapped -= self.waiting.swap_remove(least.expect("some wait")).len();
        }
        None
    }

    fn smallest(&self, fits: impl Fn(&MmapMut) -> bool) -> Option<usize> {
        (0..self.waiting.len()).filter(|&i| fits(&self.waiting[i])).min_by_key(|&i| self.waiting[i].len())
    }

    fn largest(&self) -> Option<usize> {
        (0..self.waiting.len()).max_by_key(|&i| self.waiting[i].len())
    }
}

/// What every thread needs one of at a time, kept from call to call: memory in it has its pages.
#[derive(Debug, Default)]
pub(crate) struct Kept<T>(Mutex<Vec<T>>);

impl<T: Default> Kept<T> {
    /// One that nobody has, or a new one.
    pub(crate) fn take(&self) -> Lent<'_, T> {
        let one = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Lent { one: one.unwrap_or_default(), owner: self }
    }
}

/// One of [`Kept`], which it returns to when dropped.
pub(crate) struct Lent<'a, T: Default> {
    one: T,
    owner: &'a Kept<T>,
}

impl<T: Default> Deref for Lent<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.one
    }
}

impl<T: Default> DerefMut for Lent<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.one
    }
}

impl<T: Default> Drop for Lent<'_, T> {
    fn drop(&mut self) {
        let one = std::mem::take(&mut self.one);
        self.owner.0.lock().unwrap_or_else(PoisonError::into_inner).push(one);
    }
}

/// Bytes of the pages for so many: up to a quarter more, which is not touched and so takes no memory until a window that grows a
/// little finds room in it.
fn rounded(bytes: usize) -> Option<usize> {
    bytes.checked_next_multiple_of(bytes.checked_next_power_of_two()? / 8)
}

/// Pages of zeros for so many bytes.
fn map(bytes: usize) -> Option<MmapMut> {
    let pages = MmapMut::map_anon(rounded(bytes)?).ok()?;
    // A wish: without huge pages everything works, more slowly.
    #[cfg(target_os = "linux")]
    let _ = pages.advise(memmap2::Advice::HugePage);
    Some(pages)
}

impl Default for Store {
    fn default() -> Self {
        Store::Heap(Vec::new(), 0)
    }
}

impl Memory {
    /// Zeros, or `None` if there is no room.
    pub(crate) fn zeros(len: usize) -> Option<Self> {
        let bytes = len.checked_mul(size_of::<u32>())?;
        if bytes < PAGES_FROM {
            let words = vec![0; len + LINE / size_of::<u32>()];
            let start = words.as_ptr().align_offset(LINE);
            return Some(Memory { store: Store::Heap(words, start), len, pool: None });
        }
        Some(Memory { store: Store::Pages(map(bytes)?), len, pool: None })
    }

    /// Makes `len` words of it: as before where there were as many, any where there were not.
    ///
    /// # Panics
    /// If there is no room.
    pub(crate) fn set_len(&mut self, len: usize) {
        if len > self.words().len() {
            *self = Self::zeros(len).expect("memory for the intermediates of a step");
        }
        self.len = len;
    }

    /// Makes it a copy of `parts`, one after another, of `len` words together.
    pub(crate) fn set_parts<'a>(&mut self, len: usize, parts: impl IntoIterator<Item = &'a [u32]>) {
        self.set_len(len);
        let mut rest = &mut self[..];
        for part in parts {
            rest.split_off_mut(..part.len()).expect("parts of the given length").copy_from_slice(part);
        }
        assert!(rest.is_empty(), "parts of the given length");
    }

    /// All words from the start on.
    fn words(&self) -> &[u32] {
        match &self.store {
            Store::Heap(words, start) => &words[*start..],
            Store::Pages(pages) => bytemuck::cast_slice(pages),
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if let (Some((pool, bytes)), Store::Pages(pages)) = (self.pool.take(), std::mem::take(&mut self.store)) {
            let mut all = pool.pages();
            all.asked -= bytes;
            all.waiting.push(pages);
        }
    }
}

impl Deref for Memory {
    type Target = [u32];

    fn deref(&self) -> &[u32] {
        &self.words()[..self.len]
    }
}

impl DerefMut for Memory {
    fn deref_mut(&mut self) -> &mut [u32] {
        let words = match &mut self.store {
            Store::Heap(words, start) => &mut words[*start..],
            Store::Pages(pages) => bytemuck::cast_slice_mut(pages),
        };
        &mut words[..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_zero_aligned_and_writable_whatever_its_size() {
        for len in [0, 1, PAGES_FROM / 4 - 1, PAGES_FROM / 4, PAGES_FROM / 4 + 1] {
            let mut memory = Memory::zeros(len).expect("a few megabytes");
            assert!(memory.len() == len && memory.iter().all(|&word| word == 0));
            assert_eq!(memory.as_ptr().align_offset(LINE), 0);
            memory.fill(7);
            assert!(memory.iter().all(|&word| word == 7));
        }
        assert!(Memory::zeros(usize::MAX / 2).is_none());
    }

    #[test]
    fn pages_are_used_again_where_they_fit() {
        let pool = Arc::new(Pool::default());
        let at = |memory: &Memory| memory.as_ptr();
        let memory = pool.take(PAGES_FROM).expect("4 MiB");
        let first = at(&memory);
        drop(memory);
        let (again, other) = (pool.take(PAGES_FROM / 2).expect("2 MiB"), pool.take(PAGES_FROM / 2).expect("2 MiB"));
        assert_eq!(at(&again), first);
        assert_eq!(again.len(), PAGES_FROM / 2);
        drop((again, other));
        assert_eq!(pool.pages().waiting.len(), 2);
        assert!(pool.take(10 * PAGES_FROM).is_some_and(|memory| memory.iter().all(|&word| word == 0)));
        let pages = pool.pages();
        assert_eq!(pages.waiting.len(), 1, "those that were too small went back to the system");
        assert_eq!((pages.asked, pages.mapped), (0, pages.waiting[0].len()));
    }

    #[test]
    fn what_waits_never_adds_to_a_peak() {
        let pool = Arc::new(Pool::default());
        let take = |words: usize| pool.take(words).expect("some megabytes");
        let (large, small) = (take(8 * PAGES_FROM), take(2 * PAGES_FROM));
        drop((large, small));
        // Neither fits, and together with both there is less than was in use at once.
        let tiny = take(PAGES_FROM / 4);
        assert_eq!(pool.pages().waiting.len(), 1, "the smaller one makes room enough");
        drop(tiny);
        for words in [3, 9, 5, 7, 1, 9].map(|megawords| megawords * PAGES_FROM) {
            let memory = take(words);
            let pages = pool.pages();
            assert!(pages.mapped <= pages.peak, "{} and {}", pages.mapped, pages.peak);
            drop(pages);
            drop(memory);
        }
    }

    #[test]
    fn what_is_kept_is_lent_again() {
        let kept: Kept<Vec<u32>> = Kept::default();
        let (mut first, second) = (kept.take(), kept.take());
        first.push(7);
        drop((second, first));
        assert_eq!(kept.0.lock().unwrap().len(), 2);
        assert_eq!(kept.take()[..], [7]);
    }

    #[test]
    fn a_shorter_length_keeps_words_and_a_longer_one_makes_room() {
        let mut memory = Memory::default();
        memory.set_parts(5, [&[1, 2][..], &[3, 4, 5]]);
        assert_eq!(memory[..], [1, 2, 3, 4, 5]);
        memory.set_len(3);
        assert_eq!(memory[..], [1, 2, 3]);
        memory.set_len(PAGES_FROM);
        assert_eq!((memory.len(), memory.as_ptr().align_offset(LINE)), (PAGES_FROM, 0));
    }
}
