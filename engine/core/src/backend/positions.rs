//! Which positions (pixels) of a layer's values a tensor holds.

use std::iter;
use std::ops::Range;

/// Positions whose places follow each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// Which positions.
    pub positions: Range<usize>,
    /// Place of the first.
    pub place: usize,
}

/// The positions that a tensor holds of each of its channels, in a circular buffer: those that come after the last overwrite the
/// first, and none ever moves. A value is `channel * room + place`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Positions {
    held: Range<usize>,
    /// The position at place 0, modulo `room`.
    origin: usize,
    room: usize,
}

impl Positions {
    /// Exactly `held`, in order.
    pub fn of(held: Range<usize>) -> Self {
        Positions { origin: held.start, room: held.len(), held }
    }

    /// None yet, with room for `room`.
    pub fn with_room(room: usize) -> Self {
        Positions { held: 0..0, origin: 0, room }
    }

    /// First and end of what is held, the position at place 0 modulo the room, and the room: for
    /// [`Self::from_parts`].
    pub fn parts(&self) -> [usize; 4] {
        [self.held.start, self.held.end, self.origin, self.room]
    }

    /// The same again; none where [`Self::parts`] gives no such numbers.
    pub fn from_parts([start, end, origin, room]: [usize; 4]) -> Option<Self> {
        let held = end.checked_sub(start)?;
        (held <= room && origin <= start).then_some(Positions { held: start..end, origin, room })
    }

    /// How many there is room for.
    pub fn room(&self) -> usize {
        self.room
    }

    /// Makes room for `next`, which comes after all that are held: the first are forgotten as far as they stand in its way. Where
    /// some between are skipped, all are forgotten.
    ///
    /// # Panics
    /// If there is less room than `next` takes, or a position of `next` is held.
    pub fn push(&mut self, next: &Range<usize>) {
        assert!(next.len() <= self.room && next.start >= self.held.end, "{next:?} after {self:?}");
        let first = if next.start > self.held.end { next.start } else { self.held.start };
        self.held = first.max(next.end.saturating_sub(self.room))..next.end;
    }

    /// Where a position is.
    ///
    /// # Panics
    /// If it is not held.
    pub fn place(&self, position: usize) -> usize {
        assert!(self.held.contains(&position), "position {position} is not in {self:?}");
        (position - self.origin) % self.room
    }

    /// `positions` cut where their places do not follow each other.
    ///
    /// # Panics
    /// If one of them is not held.
    pub fn spans(&self, positions: Range<usize>) -> impl Iterator<Item = Span> {
        let mut rest = positions;
        iter::from_fn(move || {
            let start = rest.start;
            if rest.is_empty() {
                return None;
            }
            let place = self.place(start);
            let end = rest.end.min(start + self.room - place);
            rest.start = end;
            self.place(end - 1);
            Some(Span { positions: start..end, place })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_stay_where_they_are_until_they_are_overwritten() {
        let mut positions = Positions::with_room(5);
        positions.push(&(0..3));
        assert_eq!((0..3).map(|p| positions.place(p)).collect::<Vec<_>>(), [0, 1, 2]);
        positions.push(&(3..7));
        assert_eq!((2..7).map(|p| positions.place(p)).collect::<Vec<_>>(), [2, 3, 4, 0, 1]);
        let span = |positions, place| Span { positions, place };
        assert_eq!(positions.spans(3..7).collect::<Vec<_>>(), [span(3..5, 3), span(5..7, 0)]);
        positions.push(&(9..10));
        assert_eq!(positions.spans(9..10).collect::<Vec<_>>(), [span(9..10, 4)]);
        for positions in [positions, Positions::of(4..6), Positions::with_room(3)] {
            assert_eq!(Positions::from_parts(positions.parts()), Some(positions));
        }
        for parts in [[2, 1, 0, 5], [0, 3, 0, 2], [1, 2, 2, 3]] {
            assert_eq!(Positions::from_parts(parts), None);
        }
        assert_eq!(Positions::of(4..6).spans(4..6).collect::<Vec<_>>(), [span(4..6, 0)]);
    }

    #[test]
    #[should_panic(expected = "position 1 is not in")]
    fn what_was_overwritten_is_gone() {
        let mut positions = Positions::with_room(2);
        positions.push(&(0..2));
        positions.push(&(2..4));
        positions.place(1);
    }

    #[test]
    #[should_panic(expected = "position 8 is not in")]
    fn skipped_positions_are_not_there() {
        let mut positions = Positions::with_room(3);
        positions.push(&(7..8));
        positions.push(&(9..10));
        positions.place(8);
    }
}
