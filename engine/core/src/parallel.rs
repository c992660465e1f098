//! Independent work on many items: on all threads with the feature `threads`, one after the other without it.

#[cfg(feature = "threads")]
use rayon::prelude::*;

/// Does `work` on every item, which it gets with its index.
///
/// # Errors
/// The first that a piece of work returns; other pieces may then be left undone.
pub fn try_for_each<T: Send, E: Send>(
    items: Vec<T>,
    work: impl Fn(usize, T) -> Result<(), E> + Sync + Send,
) -> Result<(), E> {
    #[cfg(feature = "threads")]
    return items.into_par_iter().enumerate().try_for_each(|(index, item)| work(index, item));
    #[cfg(not(feature = "threads"))]
    items.into_iter().enumerate().try_for_each(|(index, item)| work(index, item))
}

/// [`try_for_each`] of work that cannot fail.
pub fn for_each<T: Send>(items: Vec<T>, work: impl Fn(usize, T) + Sync + Send) {
    let done: Result<(), std::convert::Infallible> = try_for_each(items, |index, item| {
        work(index, item);
        Ok(())
    });
    match done {
        Ok(()) => (),
    }
}
