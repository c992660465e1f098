//! What depends on no input, shape arithmetic included, is computed while the file is read.

use crate::error::Refusal;
use crate::node::Node;
use crate::rearrange::{self, axes, axis, broadcast, expand};
use crate::tensor::{Data, Tensor, count};

/// What a node makes of constants, one result for each output that is known; `inputs` has `None`
/// for operands that were left out. None if it is not an operator on constants.
pub(crate) fn fold(node: Node<'_>, inputs: &[Option<Tensor>]) -> Result<Option<Vec<Tensor>>, Refusal> {
    let optional = |at: usize| inputs.get(at).and_then(Option::as_ref);
    let operand = |at: usize| optional(at).ok_or_else(|| format!("operand {} is missing", at + 1));
    let one = |tensor: Result<Tensor, Refusal>| tensor.map(|tensor| Some(vec![tensor]));
    let op = node.op();
    match op {
        "Identity" | "Dropout" => one(operand(0).cloned()),
        "Cast" | "CastLike" => {
            let real = match op {
                "Cast" => matches!(node.int("to", 1), 1 | 10 | 11 | 16),
                _ => matches!(operand(1)?.data, Data::Real(_)),
            };
            one(operand(0).map(|tensor| cast(tensor, real)))
        }
        "Shape" => one(shape(node, operand(0)?.shape.clone())),
        "Size" => one(operand(0).map(|tensor| Tensor::integers(vec![], vec![tensor.len() as i64]))),
        "ConstantOfShape" => {
            let sizes = crate::tensor::sizes(&operand(0)?.whole("its shape")?)?;
            let value = match node.tensor("value") {
                Some(value) => Tensor::read(value, &crate::external::Folder::none())?,
                None => Tensor::real(vec![1], vec![0.0]),
            };
            if value.len() != 1 {
                return Err(format!("its value has {} numbers; it must be one", value.len()));
            }
            let picks = vec![0; count(&sizes)?];
            one(Ok(value.picked(sizes, &picks)))
        }
        "Range" => {
            let at = |i: usize| operand(i)?.reals().first().copied().ok_or_else(|| "an operand is empty".to_string());
            let (start, limit, delta) = (at(0)?, at(1)?, at(2)?);
            let steps = ((limit - start) / delta).ceil();
            if !steps.is_finite() || steps > crate::limits::MAX_CONSTANT as f64 {
                return Err(format!("it makes {steps} values, which are too many"));
            }
            let values: Vec<f64> = (0..steps.max(0.0) as usize).map(|i| start + i as f64 * delta).collect();
            one(Ok(cast(&Tensor::real(vec![values.len()], values), matches!(operand(0)?.data, Data::Real(_)))))
        }
        "Add" | "Sub" | "Mul" | "Div" | "Mod" | "Pow" | "Equal" | "Less" | "LessOrEqual" | "Greater"
        | "GreaterOrEqual" | "And" | "Or" => one(binary(op, operand(0)?, operand(1)?)),
        "Min" | "Max" | "Sum" => {
            let mut all = (0..inputs.len()).map(operand);
            let first = all.next().ok_or("it has no operands")??.clone();
            one(all.try_fold(first, |result, next| binary(op, &result, next?)))
        }
        "Where" => {
            let sizes = broadcast(&broadcast(&operand(0)?.shape, &operand(1)?.shape)?, &operand(2)?.shape)?;
            let condition = spread(operand(0)?, &sizes)?.reals();
            let (yes, no) = (spread(operand(1)?, &sizes)?, spread(operand(2)?, &sizes)?);
            let real = matches!((&yes.data, &no.data), (Data::Real(_), _) | (_, Data::Real(_)));
            let (yes, no) = (yes.reals(), no.reals());
            let values = condition.iter().zip(yes.iter().zip(no.iter()));
            let values: Vec<f64> = values.map(|(&c, (&y, &n))| if c != 0.0 { y } else { n }).collect();
            one(Ok(cast(&Tensor::real(sizes, values), real)))
        }
        "Neg" | "Abs" | "Sqrt" | "Reciprocal" | "Exp" | "Log" | "Tanh" | "Sigmoid" | "Floor" | "Ceil" | "Not"
        | "Sign" => one(operand(0).and_then(|tensor| unary(op, tensor))),
        "ReduceSum" | "ReduceMean" | "ReduceProd" | "ReduceMax" | "ReduceMin" => {
            let listed = listed_axes(node, optional(1))?;
            one(reduce(op, operand(0)?, listed.as_deref(), node.int("keepdims", 1) != 0))
        }
        "MatMul" => one(product(operand(0)?, operand(1)?)),
        "Concat" => {
            let all = (0..inputs.len()).map(operand).collect::<Result<Vec<&Tensor>, _>>()?;
            one(concat(&all, node.int("axis", 0)))
        }
        "Split" => {
            let tensor = operand(0)?;
            let along = axis(node.int("axis", 0), tensor.shape.len())?;
            let parts = parts(node, optional(1), tensor.shape[along])?;
            let mut start = 0;
            let mut split = Vec::with_capacity(parts.len());
            for size in parts {
                let (sizes, picks) =
                    rearrange::slice(&tensor.shape, &[(along, start as i64, (start + size) as i64, 1)])?;
                start += size;
                split.push(tensor.picked(sizes, &picks));
            }
            Ok(Some(split))
        }
        "Transpose" => {
            let (_, (sizes, picks)) = rearrange::transpose(&operand(0)?.shape, node.ints("perm"))?;
            one(operand(0).map(|tensor| tensor.picked(sizes, &picks)))
        }
        "Slice" => {
            let (sizes, picks) = rearrange::slice(&operand(0)?.shape, &ranges(inputs, operand(0)?.shape.len())?)?;
            one(operand(0).map(|tensor| tensor.picked(sizes, &picks)))
        }
        "Gather" => {
            let (tensor, indices) = (operand(0)?, operand(1)?);
            let along = axis(node.int("axis", 0), tensor.shape.len())?;
            let Data::Integer(list) = &indices.data else { return Err("its indices must be integers".into()) };
            let (sizes, picks) = rearrange::gather(&tensor.shape, along, list, &indices.shape)?;
            one(Ok(tensor.picked(sizes, &picks)))
        }
        "Expand" => {
            let target = crate::tensor::sizes(&operand(1)?.whole("its shape")?)?;
            let sizes = broadcast(&operand(0)?.shape, &target)?;
            one(operand(0).and_then(|tensor| spread(tensor, &sizes)))
        }
        "Tile" => {
            let (sizes, picks) = rearrange::tile(&operand(0)?.shape, &operand(1)?.whole("its repeats")?)?;
            one(operand(0).map(|tensor| tensor.picked(sizes, &picks)))
        }
        "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" => {
            let sizes = reshaped(node, &operand(0)?.shape, optional(1))?;
            one(operand(0).map(|tensor| tensor.reshaped(sizes)))
        }
        _ => Ok(None),
    }
}

/// Values that a node on constants looks at, in terms of what may be made.
pub(crate) fn work(node: Node<'_>, inputs: &[Option<Tensor>]) -> usize {
    let lens = || inputs.iter().flatten().map(Tensor::len);
    match node.op() {
        "Identity" | "Dropout" | "Shape" | "Size" | "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" => 0,
        // Multiply-adds, which are quicker than anything else.
        "MatMul" => {
            let columns = inputs.get(1).and_then(Option::as_ref).and_then(|b| b.shape.last().copied()).unwrap_or(0);
            lens().next().unwrap_or(0).saturating_mul(columns) / 16
        }
        _ => lens().sum(),
    }
}

/// The shape that a node without arithmetic gives values of this shape.
pub(crate) fn reshaped(node: Node<'_>, shape: &[usize], list: Option<&Tensor>) -> Result<Vec<usize>, Refusal> {
    match node.op() {
        "Reshape" => {
            let target = list.ok_or("its shape is missing")?.whole("its shape")?;
            rearrange::reshape(shape, &target, node.flag("allowzero"))
        }
        "Flatten" => {
            let at = node.int("axis", 1);
            let at = if at == shape.len() as i64 { shape.len() } else { axis(at, shape.len())? };
            let product = |part: &[usize]| part.iter().try_fold(1usize, |product, &size| product.checked_mul(size));
            let sizes = product(&shape[..at]).zip(product(&shape[at..]));
            sizes.map(|(a, b)| vec![a, b]).ok_or_else(|| format!("shape {shape:?} is too large"))
        }
        "Squeeze" => {
            let all: Vec<i64> =
                shape.iter().enumerate().filter(|(_, size)| **size == 1).map(|(axis, _)| axis as i64).collect();
            let removed = axes(&listed_axes(node, list)?.unwrap_or(all), shape.len())?;
            if let Some(&wrong) = removed.iter().find(|&&axis| shape[axis] != 1) {
                return Err(format!("axis {wrong} has {} values, so it cannot be removed", shape[wrong]));
            }
            Ok((0..shape.len()).filter(|axis| !removed.contains(axis)).map(|axis| shape[axis]).collect())
        }
        _ => {
            let listed = listed_axes(node, list)?.ok_or("its axes are missing")?;
            let rank = shape.len() + listed.len();
            if rank > crate::limits::MAX_AXES {
                return Err(format!("it makes {rank} axes; at most {} are supported", crate::limits::MAX_AXES));
            }
            let added = axes(&listed, rank)?;
            let mut kept = shape.iter().copied();
            Ok((0..rank).map(|axis| if added.contains(&axis) { 1 } else { kept.next().unwrap_or(1) }).collect())
        }
    }
}

/// Axes as an operand, or as an attribute, as older versions have them.
pub(crate) fn listed_axes(node: Node<'_>, list: Option<&Tensor>) -> Result<Option<Vec<i64>>, Refusal> {
    match list {
        Some(list) => Ok(Some(list.whole("its axes")?.to_vec())),
        None => Ok(node.ints("axes").map(<[i64]>::to_vec)),
    }
}

/// The part of a shape that Shape gives.
pub(crate) fn shape(node: Node<'_>, shape: Vec<usize>) -> Result<Tensor, Refusal> {
    let rank = shape.len() as i64;
    let clamp = |at: i64| (if at < 0 { at.saturating_add(rank) } else { at }).clamp(0, rank) as usize;
    let (start, end) = (clamp(node.int("start", 0)), clamp(node.int("end", rank)));
    let part = shape.get(start..end).unwrap_or_default();
    Ok(Tensor::row(part.iter().map(|&size| size as i64).collect()))
}

/// Sizes of the parts that Split makes of `size` values.
pub(crate) fn parts(node: Node<'_>, list: Option<&Tensor>, size: usize) -> Result<Vec<usize>, Refusal> {
    let stated = match list {
        Some(list) => Some(crate::tensor::sizes_of_parts(&list.whole("its parts")?)?),
        None => node.ints("split").map(crate::tensor::sizes_of_parts).transpose()?,
    };
    let parts = stated.unwrap_or_else(|| {
        let count = node.outputs().len().max(1);
        let each = size.div_ceil(count);
        (0..count).map(|part| each.min(size.saturating_sub(part * each))).collect()
    });
    match parts.iter().try_fold(0usize, |sum, &part| sum.checked_add(part)) {
        Some(sum) if sum == size => Ok(parts),
        _ => Err(format!("its parts do not add up to the {size} values of the axis")),
    }
}

/// (axis, start, end, step) of Slice's operands.
pub(crate) fn ranges(inputs: &[Option<Tensor>], rank: usize) -> Result<Vec<(usize, i64, i64, i64)>, Refusal> {
    let list = |at: usize, what: &str| inputs.get(at).and_then(Option::as_ref).map(|list| list.whole(what)).transpose();
    let starts = list(1, "its starts")?.ok_or("its starts are missing")?;
    let ends = list(2, "its ends")?.ok_or("its ends are missing")?;
    let along = match list(3, "its axes")? {
        Some(axes) => axes.to_vec(),
        None => (0..starts.len() as i64).collect(),
    };
    let steps = list(4, "its steps")?.map_or_else(|| vec![1; starts.len()], |steps| steps.to_vec());
    if [ends.len(), along.len(), steps.len()].iter().any(|&len| len != starts.len()) {
        return Err("its starts, ends, axes and steps differ in number".into());
    }
    axes(&along, rank)?;
    (0..starts.len()).map(|i| Ok((axis(along[i], rank)?, starts[i], ends[i], steps[i]))).collect()
}

fn cast(tensor: &Tensor, real: bool) -> Tensor {
    let data = match (&tensor.data, real) {
        (Data::Integer(_), true) => Data::Real(tensor.reals()),
        (Data::Real(values), false) => Data::Integer(values.iter().map(|&value| value.trunc() as i64).collect()),
        (data, _) => data.clone(),
    };
    Tensor { shape: tensor.shape.clone(), data }
}

/// Repeated along axes of one.
pub(crate) fn spread(tensor: &Tensor, target: &[usize]) -> Result<Tensor, Refusal> {
    if tensor.shape == target {
        return Ok(tensor.clone());
    }
    let (shape, picks) = expand(&tensor.shape, target)?;
    Ok(tensor.picked(shape, &picks))
}

fn binary(op: &str, a: &Tensor, b: &Tensor) -> Result<Tensor, Refusal> {
    let sizes = broadcast(&a.shape, &b.shape)?;
    count(&sizes)?;
    let (a, b) = (spread(a, &sizes)?, spread(b, &sizes)?);
    let truth = |pair: fn(f64, f64) -> bool| -> Vec<i64> {
        a.reals().iter().zip(b.reals().iter()).map(|(&x, &y)| i64::from(pair(x, y))).collect()
    };
    let compared = match op {
        "Equal" => Some(truth(|x, y| x == y)),
        "Less" => Some(truth(|x, y| x < y)),
        "LessOrEqual" => Some(truth(|x, y| x <= y)),
        "Greater" => Some(truth(|x, y| x > y)),
        "GreaterOrEqual" => Some(truth(|x, y| x >= y)),
        "And" => Some(truth(|x, y| x != 0.0 && y != 0.0)),
        "Or" => Some(truth(|x, y| x != 0.0 || y != 0.0)),
        _ => None,
    };
    if let Some(values) = compared {
        return Ok(Tensor::integers(sizes, values));
    }
    if let (Data::Integer(x), Data::Integer(y)) = (&a.data, &b.data) {
        let each = |x: i64, y: i64| match op {
            "Add" | "Sum" => x.checked_add(y),
            "Sub" => x.checked_sub(y),
            "Mul" => x.checked_mul(y),
            "Div" => x.checked_div(y),
            "Mod" => x.checked_rem_euclid(y),
            "Min" => Some(x.min(y)),
            "Max" => Some(x.max(y)),
            _ => u32::try_from(y).ok().and_then(|y| x.checked_pow(y)),
        };
        let values: Option<Vec<i64>> = x.iter().zip(y.iter()).map(|(&x, &y)| each(x, y)).collect();
        return values
            .map(|values| Tensor::integers(sizes, values))
            .ok_or_else(|| "its integers overflow, or are divided by zero".into());
    }
    let each = |x: f64, y: f64| match op {
        "Add" | "Sum" => x + y,
        "Sub" => x - y,
        "Mul" => x * y,
        "Div" => x / y,
        "Mod" => x % y,
        "Min" => x.min(y),
        "Max" => x.max(y),
        _ => x.powf(y),
    };
    finite(sizes, a.reals().iter().zip(b.reals().iter()).map(|(&x, &y)| each(x, y)).collect())
}

fn unary(op: &str, tensor: &Tensor) -> Result<Tensor, Refusal> {
    if let Data::Integer(values) = &tensor.data {
        let each = |x: i64| match op {
            "Neg" => x.checked_neg(),
            "Abs" => x.checked_abs(),
            "Not" => Some(i64::from(x == 0)),
            "Sign" => Some(x.signum()),
            _ => Some(x),
        };
        let values: Option<Vec<i64>> = values.iter().map(|&x| each(x)).collect();
        let values = values.ok_or("its integers overflow")?;
        return Ok(Tensor::integers(tensor.shape.clone(), values));
    }
    let each = |x: f64| match op {
        "Neg" => -x,
        "Abs" => x.abs(),
        "Sqrt" => x.sqrt(),
        "Reciprocal" => 1.0 / x,
        "Exp" => x.exp(),
        "Log" => x.ln(),
        "Tanh" => x.tanh(),
        "Sigmoid" => 1.0 / (1.0 + (-x).exp()),
        "Floor" => x.floor(),
        "Ceil" => x.ceil(),
        "Not" => f64::from(x == 0.0),
        _ => x.signum(),
    };
    finite(tensor.shape.clone(), tensor.reals().iter().map(|&x| each(x)).collect())
}

fn finite(shape: Vec<usize>, values: Vec<f64>) -> Result<Tensor, Refusal> {
    match values.iter().find(|value| !value.is_finite()) {
        Some(value) => Err(format!("its constants give {value}; expected finite numbers")),
        None => Ok(Tensor::real(shape, values)),
    }
}

fn reduce(op: &str, tensor: &Tensor, listed: Option<&[i64]>, keep: bool) -> Result<Tensor, Refusal> {
    let rank = tensor.shape.len();
    let reduced = match listed {
        Some(list) if !list.is_empty() => axes(list, rank)?,
        _ => (0..rank).collect(),
    };
    let kept: Vec<i64> = (0..rank).filter(|axis| !reduced.contains(axis)).map(|axis| axis as i64).collect();
    // Kept axes first: what is reduced lies behind each other.
    let order: Vec<i64> = kept.iter().copied().chain(reduced.iter().map(|&axis| axis as i64)).collect();
    let (_, (_, picks)) = rearrange::transpose(&tensor.shape, Some(&order))?;
    let size: usize = reduced.iter().map(|&axis| tensor.shape[axis]).product();
    if size == 0 || tensor.len() == 0 {
        return Err("it reduces no values at all".into());
    }
    let values = tensor.reals();
    let all: Vec<f64> = picks
        .chunks_exact(size)
        .map(|group| {
            let group = group.iter().map(|&at| values[at as usize]);
            match op {
                "ReduceProd" => group.product(),
                "ReduceMax" => group.fold(f64::NEG_INFINITY, f64::max),
                "ReduceMin" => group.fold(f64::INFINITY, f64::min),
                "ReduceMean" => group.sum::<f64>() / size as f64,
                _ => group.sum(),
            }
        })
        .collect();
    let shape = (0..rank)
        .filter(|axis| keep || !reduced.contains(axis))
        .map(|axis| if reduced.contains(&axis) { 1 } else { tensor.shape[axis] })
        .collect();
    Ok(cast(&finite(shape, all)?, matches!(tensor.data, Data::Real(_))))
}

/// Multiply-adds of a product of constants that are worth the time.
const MAX_PRODUCT: usize = 1 << 28;

fn product(a: &Tensor, b: &Tensor) -> Result<Tensor, Refusal> {
    let ([rows, inner], [same, columns]) = (&a.shape[..], &b.shape[..]) else {
        return Err(format!("a product of constants of shapes {:?} and {:?} is not supported", a.shape, b.shape));
    };
    if inner != same {
        return Err(format!("shapes {:?} and {:?} do not fit each other", a.shape, b.shape));
    }
    let values = count(&[*rows, *columns])?;
    if values.saturating_mul(*inner) > MAX_PRODUCT {
        return Err("a product of constants is too large; compute it before the export".into());
    }
    let (x, y) = (a.reals(), b.reals());
    let mut sums = vec![0.0; values];
    for (row, sums) in sums.chunks_exact_mut((*columns).max(1)).enumerate() {
        for i in 0..*inner {
            let factor = x[row * inner + i];
            sums.iter_mut().zip(&y[i * columns..]).for_each(|(sum, value)| *sum += factor * value);
        }
    }
    finite(vec![*rows, *columns], sums)
}

fn concat(all: &[&Tensor], along: i64) -> Result<Tensor, Refusal> {
    let first = *all.first().ok_or("it has no operands")?;
    let along = axis(along, first.shape.len())?;
    let rest = |shape: &[usize]| [&shape[..along.min(shape.len())], &shape[(along + 1).min(shape.len())..]].concat();
    if let Some(other) =
        all.iter().find(|other| other.shape.len() != first.shape.len() || rest(&other.shape) != rest(&first.shape))
    {
        return Err(format!("shapes {:?} and {:?} do not fit behind each other", first.shape, other.shape));
    }
    let mut shape = first.shape.clone();
    shape[along] =
        all.iter().try_fold(0usize, |sum, tensor| sum.checked_add(tensor.shape[along])).unwrap_or(usize::MAX);
    count(&shape)?;
    let outer: usize = shape[..along].iter().product();
    let real = all.iter().any(|tensor| matches!(tensor.data, Data::Real(_)));
    let parts: Vec<_> = all.iter().map(|tensor| (tensor.reals(), tensor.len() / outer.max(1))).collect();
    let mut values = Vec::with_capacity(shape.iter().product());
    for at in 0..outer {
        parts.iter().for_each(|(part, len)| values.extend_from_slice(&part[at * len..][..*len]));
    }
    Ok(cast(&Tensor::real(shape, values), real))
}
