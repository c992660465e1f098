//! Operators that move values and compute nothing: for every value of the result, the position of
//! the one that it is.

use crate::error::Refusal;
use crate::limits::MAX_AXES;
use crate::tensor::count;

/// A new shape, and for each of its values in row-major order a position in what was there.
pub(crate) type Picked = (Vec<usize>, Vec<u32>);

/// How far values along each axis are from each other, in row-major order.
pub(crate) fn strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis];
    }
    strides
}

/// The positions whose offsets along each axis of the result are `tables`.
fn enumerate(tables: &[Vec<usize>]) -> Result<Picked, Refusal> {
    let shape: Vec<usize> = tables.iter().map(Vec::len).collect();
    if shape.len() > MAX_AXES {
        return Err(format!("it makes {} axes; at most {MAX_AXES} are supported", shape.len()));
    }
    let mut picks = Vec::with_capacity(count(&shape)?);
    picks.push(0);
    for table in tables {
        picks = picks.iter().flat_map(|&start| table.iter().map(move |&offset| start + offset as u32)).collect();
    }
    Ok((shape, picks))
}

/// An axis that may be counted from the end.
pub(crate) fn axis(axis: i64, rank: usize) -> Result<usize, Refusal> {
    let wrapped = if axis < 0 { axis + rank as i64 } else { axis };
    usize::try_from(wrapped)
        .ok()
        .filter(|&axis| axis < rank)
        .ok_or_else(|| format!("axis {axis} does not exist; the operand has {rank} axes"))
}

/// Different axes, in ascending order.
pub(crate) fn axes(list: &[i64], rank: usize) -> Result<Vec<usize>, Refusal> {
    let mut found = list.iter().map(|&at| axis(at, rank)).collect::<Result<Vec<usize>, _>>()?;
    found.sort_unstable();
    match found.windows(2).any(|pair| pair[0] == pair[1]) {
        true => Err(format!("the axes {list:?} name one axis twice")),
        false => Ok(found),
    }
}

/// Offsets of all values along each axis.
fn whole(shape: &[usize]) -> Vec<Vec<usize>> {
    shape.iter().zip(strides(shape)).map(|(&size, stride)| (0..size).map(|i| i * stride).collect()).collect()
}

pub(crate) fn transpose(shape: &[usize], order: Option<&[i64]>) -> Result<(Vec<usize>, Picked), Refusal> {
    let rank = shape.len();
    let order = match order {
        None => (0..rank).rev().collect(),
        Some(order) => order.iter().map(|&at| axis(at, rank)).collect::<Result<Vec<usize>, _>>()?,
    };
    let mut sorted = order.clone();
    sorted.sort_unstable();
    if sorted != (0..rank).collect::<Vec<_>>() {
        return Err(format!("its `perm` {order:?} is no order of {rank} axes"));
    }
    let tables = whole(shape);
    let picked = enumerate(&order.iter().map(|&at| tables[at].clone()).collect::<Vec<_>>())?;
    Ok((order, picked))
}

/// `ranges` of (axis, start, end, step), as Slice has them.
pub(crate) fn slice(shape: &[usize], ranges: &[(usize, i64, i64, i64)]) -> Result<Picked, Refusal> {
    let mut tables = whole(shape);
    for &(axis, start, end, step) in ranges {
        if step == 0 {
            return Err("a step of 0 takes nothing".into());
        }
        let size = shape[axis] as i64;
        let wrap = |at: i64| if at < 0 { at.saturating_add(size) } else { at };
        // Backwards, the end may lie before the first value.
        let (low, high) = if step > 0 { (0, size) } else { (-1, size - 1) };
        let first = wrap(start).clamp(low.max(0), high.max(0));
        let end = if step < 0 && end < -size { -1 } else { wrap(end).clamp(low, high) };
        let mut taken = Vec::new();
        let mut at = first;
        while size > 0 && (step > 0 && at < end || step < 0 && at > end) {
            taken.push(tables[axis][at as usize]);
            at = at.saturating_add(step);
        }
        tables[axis] = taken;
    }
    enumerate(&tables)
}

/// The values at `indices` along `axis`; the axes of `index_shape` take the place of this one.
pub(crate) fn gather(shape: &[usize], axis: usize, indices: &[i64], index_shape: &[usize]) -> Result<Picked, Refusal> {
    let mut tables = whole(shape);
    let size = shape[axis] as i64;
    let table = indices
        .iter()
        .map(|&at| {
            let wrapped = if at < 0 { at.saturating_add(size) } else { at };
            match (0..size).contains(&wrapped) {
                true => Ok(tables[axis][wrapped as usize]),
                false => Err(format!("index {at} is outside axis {axis}, which has {size} values")),
            }
        })
        .collect::<Result<Vec<usize>, Refusal>>()?;
    tables[axis] = table;
    let (taken, picks) = enumerate(&tables)?;
    let result = [&taken[..axis], index_shape, &taken[axis + 1..]].concat();
    if result.len() > MAX_AXES {
        return Err(format!("it makes {} axes; at most {MAX_AXES} are supported", result.len()));
    }
    Ok((result, picks))
}

/// The shape in which two shapes meet, as NumPy broadcasts them.
pub(crate) fn broadcast(a: &[usize], b: &[usize]) -> Result<Vec<usize>, Refusal> {
    let rank = a.len().max(b.len());
    let at = |shape: &[usize], axis: usize| (axis + shape.len()).checked_sub(rank).map_or(1, |axis| shape[axis]);
    (0..rank)
        .map(|axis| match (at(a, axis), at(b, axis)) {
            (x, y) if x == y || y == 1 => Ok(x),
            (1, y) => Ok(y),
            _ => Err(format!("shapes {a:?} and {b:?} do not fit each other")),
        })
        .collect()
}

/// Values repeated along axes of one, so that they have the shape `target`, which broadcasting made.
pub(crate) fn expand(shape: &[usize], target: &[usize]) -> Result<Picked, Refusal> {
    count(target)?;
    let strides = strides(shape);
    let before = target.len() - shape.len();
    let tables: Vec<Vec<usize>> = target
        .iter()
        .enumerate()
        .map(|(axis, &size)| match axis.checked_sub(before) {
            Some(own) if shape[own] == size => (0..size).map(|i| i * strides[own]).collect(),
            _ => vec![0; size],
        })
        .collect();
    enumerate(&tables)
}

/// Values repeated as often along each axis as `repeats` says.
pub(crate) fn tile(shape: &[usize], repeats: &[i64]) -> Result<Picked, Refusal> {
    if repeats.len() != shape.len() {
        return Err(format!("it has {} repeats for {} axes", repeats.len(), shape.len()));
    }
    let sizes = shape.iter().zip(repeats).map(|(&size, &times)| size.saturating_mul(times.max(0) as usize));
    let sizes: Vec<usize> = sizes.collect();
    count(&sizes)?;
    let tables: Vec<Vec<usize>> = whole(shape)
        .into_iter()
        .zip(sizes)
        .map(|(table, size)| table.iter().copied().cycle().take(size).collect())
        .collect();
    enumerate(&tables)
}

/// Number of values of a shape that nothing is stored in: that of a file's batch of images.
fn volume(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |product, &size| product.checked_mul(size))
}

/// A shape as Reshape states it: 0 keeps an axis (unless `allow_zero`), one -1 is what is left.
pub(crate) fn reshape(shape: &[usize], target: &[i64], allow_zero: bool) -> Result<Vec<usize>, Refusal> {
    let wrong = || format!("values of shape {shape:?} cannot have the shape {target:?}");
    if target.len() > MAX_AXES {
        return Err(wrong());
    }
    let total = volume(shape).ok_or_else(wrong)?;
    let mut sizes = Vec::new();
    for (axis, &size) in target.iter().enumerate() {
        sizes.push(match size {
            0 if !allow_zero => *shape.get(axis).ok_or_else(wrong)?,
            -1 => 1,
            _ => usize::try_from(size).map_err(|_| wrong())?,
        });
    }
    let known = volume(&sizes).ok_or_else(wrong)?;
    let mut unknown = target.iter().enumerate().filter(|(_, size)| **size == -1).map(|(axis, _)| axis);
    if let Some(axis) = unknown.next() {
        if unknown.next().is_some() || known == 0 || !total.is_multiple_of(known) {
            return Err(wrong());
        }
        sizes[axis] = total / known;
    }
    if volume(&sizes) == Some(total) { Ok(sizes) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_picked_as_numpy_does() {
        let (order, (shape, picks)) = transpose(&[2, 3], None).unwrap();
        assert_eq!((order, shape, picks), (vec![1, 0], vec![3, 2], vec![0, 3, 1, 4, 2, 5]));
        assert_eq!(slice(&[2, 4], &[(1, -3, 100, 2)]).unwrap(), (vec![2, 2], vec![1, 3, 5, 7]));
        assert_eq!(slice(&[4], &[(0, -1, i64::MIN, -1)]).unwrap(), (vec![4], vec![3, 2, 1, 0]));
        assert_eq!(slice(&[4], &[(0, 3, 0, -2)]).unwrap(), (vec![2], vec![3, 1]));
        assert_eq!(slice(&[4], &[(0, 2, 1, 1)]).unwrap(), (vec![0], vec![]));
        assert_eq!(gather(&[2, 3], 1, &[-1, 0], &[2]).unwrap(), (vec![2, 2], vec![2, 0, 5, 3]));
        assert_eq!(gather(&[2, 3], 0, &[1], &[]).unwrap(), (vec![3], vec![3, 4, 5]));
        assert_eq!(expand(&[2, 1], &[2, 2, 2]).unwrap(), (vec![2, 2, 2], vec![0, 0, 1, 1, 0, 0, 1, 1]));
        assert_eq!(tile(&[2], &[2]).unwrap(), (vec![4], vec![0, 1, 0, 1]));
        assert_eq!(broadcast(&[3, 1], &[2]).unwrap(), [3, 2]);
        assert_eq!(reshape(&[2, 6], &[0, 3, -1], false).unwrap(), [2, 3, 2]);
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(transpose(&[2, 3], Some(&[0, 0])).is_err());
        assert!(slice(&[2], &[(0, 0, 1, 0)]).is_err());
        assert!(gather(&[2], 0, &[2], &[1]).is_err());
        assert!(axis(2, 2).is_err() && axes(&[0, -2], 2).is_err());
        assert!(broadcast(&[2], &[3]).is_err());
        assert!(reshape(&[6], &[-1, -1], false).is_err() && reshape(&[6], &[4, -1], false).is_err());
        assert!(reshape(&[6], &[1 << 40, 1 << 40], false).is_err());
        assert!(tile(&[2], &[1 << 40]).unwrap_err().contains("too large"));
        assert!(expand(&[1], &[1 << 40]).is_err());
    }
}
