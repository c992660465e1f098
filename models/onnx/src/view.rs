//! How the values of a tensor lie in what a layer leaves.
//!
//! Operators that only move values become no layers: a tensor remembers for each of its values
//! which one of the layer's it is. So a transposition to channels last and back is gone, and the
//! weights of a dense layer behind a permuted flatten are permuted instead.

use std::rc::Rc;

/// A value that is zero, because an image was padded.
pub(crate) const ZERO: u32 = u32::MAX;

/// Values of one image.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct View {
    /// Axes without that of the images.
    pub(crate) shape: Vec<usize>,
    /// Which value each is, in row-major order, or [`ZERO`]; none where they are all the values in
    /// their own order.
    order: Option<Rc<[u32]>>,
}

impl View {
    pub(crate) fn whole(shape: Vec<usize>) -> Self {
        Self { shape, order: None }
    }

    /// The values `order` of a layer that leaves `of` values.
    pub(crate) fn new(shape: Vec<usize>, order: Vec<u32>, of: usize) -> Self {
        debug_assert_eq!(shape.iter().product::<usize>(), order.len());
        let own = order.len() == of && order.iter().enumerate().all(|(i, &at)| at as usize == i);
        Self { shape, order: (!own).then(|| order.into()) }
    }

    pub(crate) fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Which value of the layer value `i` is.
    pub(crate) fn at(&self, i: usize) -> u32 {
        self.order.as_ref().map_or(i as u32, |order| order[i])
    }

    pub(crate) fn is_whole(&self) -> bool {
        self.order.is_none()
    }

    pub(crate) fn same_order(&self, other: &View) -> bool {
        self.order == other.order
    }

    pub(crate) fn has_zeros(&self) -> bool {
        self.order.as_ref().is_some_and(|order| order.contains(&ZERO))
    }

    pub(crate) fn reshaped(&self, shape: Vec<usize>) -> Self {
        debug_assert_eq!(shape.iter().product::<usize>(), self.len());
        Self { shape, order: self.order.clone() }
    }

    /// The values at `picks`, which may be [`ZERO`]; the layer leaves `of` values.
    pub(crate) fn picked(&self, shape: Vec<usize>, picks: &[u32], of: usize) -> Self {
        let order = picks.iter().map(|&at| if at == ZERO { ZERO } else { self.at(at as usize) }).collect();
        Self::new(shape, order, of)
    }

    /// Which maps, rows and columns of an image these values are, if they are some.
    pub(crate) fn maps(&self, [channels, height, width]: [usize; 3]) -> Option<Maps> {
        let dims = match self.shape[..] {
            [c, h, w] => [c, h, w],
            [c, w] => [c, 1, w],
            _ => return None,
        };
        let of = channels * height * width;
        let at = |c: usize, y: usize, x: usize| {
            let found = self.at((c * dims[1] + y) * dims[2] + x);
            (found != ZERO).then_some(found as usize)
        };
        let first = (0..self.len()).find(|&i| self.at(i) != ZERO)?;
        let [c, y, x] = [first / (dims[1] * dims[2]), first / dims[2] % dims[1], first % dims[2]];
        let taken: Vec<usize> =
            (0..dims[0]).map(|c| at(c, y, x).map(|i| i / (height * width))).collect::<Option<_>>()?;
        let rows = Span::of((0..dims[1]).map(|y| at(c, y, x).map(|i| i / width % height)))?;
        let columns = Span::of((0..dims[2]).map(|x| at(c, y, x).map(|i| i % width)))?;
        let expected = |i: usize| {
            let channel = taken[i / (dims[1] * dims[2])];
            let row = rows.at(i / dims[2] % dims[1], height)?;
            let column = columns.at(i % dims[2], width)?;
            Some((channel * height + row) * width + column)
        };
        let fits = (0..self.len()).all(|i| expected(i).map_or(ZERO, |at| at as u32) == self.at(i));
        let all = taken.len() == channels && taken.iter().enumerate().all(|(i, &channel)| i == channel);
        (of > 0 && fits).then_some(Maps { channels: (!all).then_some(taken), rows, columns })
    }
}

/// Some maps of an image, and an even grid of their rows and columns.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Maps {
    /// The channels; none for all in their order.
    pub(crate) channels: Option<Vec<usize>>,
    pub(crate) rows: Span,
    pub(crate) columns: Span,
}

/// Rows or columns at equal distances; those outside the image are zeros.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Span {
    pub(crate) offset: i64,
    pub(crate) step: usize,
    pub(crate) count: usize,
}

impl Span {
    fn of(places: impl ExactSizeIterator<Item = Option<usize>>) -> Option<Self> {
        let count = places.len();
        let known: Vec<(usize, usize)> = places.enumerate().filter_map(|(i, at)| Some((i, at?))).collect();
        let (start, first) = *known.first()?;
        let step = match known.get(1) {
            Some((_, second)) => second.checked_sub(first).filter(|&step| step > 0)?,
            None => 1,
        };
        Some(Self { offset: first as i64 - (step * start) as i64, step, count })
    }

    fn at(&self, i: usize, size: usize) -> Option<usize> {
        usize::try_from(self.offset + (self.step * i) as i64).ok().filter(|&at| at < size)
    }

    /// Zeros before and after all of so many, if this is that.
    pub(crate) fn padding(&self, size: usize) -> Option<[usize; 2]> {
        let before = usize::try_from(-self.offset).ok()?;
        let after = self.count.checked_sub(before + size)?;
        (self.step == 1).then_some([before, after])
    }

    /// What a convolution with one tap must be to take these of so many: (size of its kernel, place
    /// of the tap, zeros before, zeros after). Its stride is the step.
    pub(crate) fn tap(&self, size: usize) -> (usize, usize, usize, usize) {
        let (before, tap) = ((-self.offset).max(0) as usize, self.offset.max(0) as usize);
        let last = self.offset + (self.step * (self.count - 1)) as i64;
        let beyond = last - (size as i64 - 1);
        (tap + 1 + (-beyond).max(0) as usize, tap, before, beyond.max(0) as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rearrange;

    const SHAPE: [usize; 3] = [3, 4, 5];

    fn sliced(ranges: &[(usize, i64, i64, i64)]) -> View {
        let (shape, picks) = rearrange::slice(&SHAPE, ranges).unwrap();
        View::whole(SHAPE.to_vec()).picked(shape, &picks, 60)
    }

    #[test]
    fn maps_are_recognised() {
        let all = View::whole(SHAPE.to_vec()).maps(SHAPE).unwrap();
        assert_eq!((all.channels, all.rows.padding(4), all.columns.padding(5)), (None, Some([0; 2]), Some([0; 2])));
        let part = sliced(&[(0, 1, 3, 1), (1, 1, 4, 2), (2, 2, 5, 1)]).maps(SHAPE).unwrap();
        assert_eq!(part.channels, Some(vec![1, 2]));
        assert_eq!(part.rows, Span { offset: 1, step: 2, count: 2 });
        assert_eq!(part.rows.padding(4), None);
        // Rows 1 and 3 of 4: a kernel of 2 with its tap behind, stride 2.
        assert_eq!(part.rows.tap(4), (2, 1, 0, 0));
        assert_eq!(part.columns.tap(5), (3, 2, 0, 0));
    }

    #[test]
    fn other_orders_are_not() {
        assert_eq!(sliced(&[(1, 3, i64::MIN, -1)]).maps(SHAPE), None);
        let (_, (shape, picks)) = rearrange::transpose(&SHAPE, Some(&[0, 2, 1])).unwrap();
        assert_eq!(View::whole(SHAPE.to_vec()).picked(shape, &picks, 60).maps(SHAPE), None);
        assert_eq!(View::whole(vec![60]).maps(SHAPE), None);
    }

    #[test]
    fn a_transposition_and_its_inverse_are_nothing() {
        let start = View::whole(SHAPE.to_vec());
        let (_, (shape, picks)) = rearrange::transpose(&SHAPE, Some(&[1, 2, 0])).unwrap();
        let last = start.picked(shape, &picks, 60);
        assert!(!last.is_whole());
        let (_, (shape, picks)) = rearrange::transpose(&last.shape, Some(&[2, 0, 1])).unwrap();
        assert_eq!(last.picked(shape, &picks, 60), start);
    }
}
