//! Memory for tensors and intermediates: it starts at a line of the cache, since a vector that lies across two lines takes twice
//! as long to load, and what is large is in huge pages, since lanes of different rows are far apart: small pages would cost a walk
//! of the page table for almost every line, and a fault for every 4 KiB. Pages that a backend's tensors no longer need wait in its
//! [`Pool`]: the first touch of a page of the system takes longer than most kernels take on it.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

use memmap2::MmapMut;

/// Words, the first at the start of a line of the cache.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    store: Store,
    len: usize,
    /// Where the pages go.
    pool: Option<Arc<Pool>>,
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
pub(crate) struct Pool(Mutex<Vec<MmapMut>>);

/// How many times larger than needed pages may be.
const MAX_EXCESS: usize = 4;

impl Pool {
    /// `len` words, any, or `None` if there is no room.
    pub(crate) fn take(self: &Arc<Self>, len: usize) -> Option<Memory> {
        let pages = self.pages(len.checked_mul(size_of::<u32>())?);
        let mut memory = match pages {
            Some(pages) => Memory { store: Store::Pages(pages), len, pool: None },
            None => Memory::zeros(len)?,
        };
        memory.pool = Some(self.clone());
        Some(memory)
    }

    /// The best of the pages that wait. If none will do, as many bytes go back to the system as are about to come from it, so
    /// that what waits never adds to a peak.
    fn pages(&self, bytes: usize) -> Option<MmapMut> {
        if bytes < PAGES_FROM {
            return None;
        }
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |pages: &MmapMut| (bytes..=bytes.saturating_mul(MAX_EXCESS)).contains(&pages.len());
        let best = (0..waiting.len()).filter(|&i| fits(&waiting[i])).min_by_key(|&i| waiting[i].len());
        if best.is_none() {
            let mut returned = 0;
            while returned < bytes
                && let Some(pages) = waiting.pop()
            {
                returned += pages.len();
            }
        }
        best.map(|index| waiting.swap_remove(index))
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
        // Up to a quarter more, which is not touched and so takes no memory until a window that grows a little finds room in it.
        let step = bytes.checked_next_power_of_two()? / 8;
        let pages = MmapMut::map_anon(bytes.checked_next_multiple_of(step)?).ok()?;
        // A wish: without huge pages everything works, more slowly.
        #[cfg(target_os = "linux")]
        let _ = pages.advise(memmap2::Advice::HugePage);
        Some(Memory { store: Store::Pages(pages), len, pool: None })
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
        if let (Some(pool), Store::Pages(pages)) = (self.pool.take(), std::mem::take(&mut self.store)) {
            pool.0.lock().unwrap_or_else(PoisonError::into_inner).push(pages);
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
        assert_eq!(pool.0.lock().unwrap().len(), 2);
        assert!(pool.take(10 * PAGES_FROM).is_some_and(|memory| memory.iter().all(|&word| word == 0)));
        assert_eq!(pool.0.lock().unwrap().len(), 1, "those that were too small went back to the system");
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
