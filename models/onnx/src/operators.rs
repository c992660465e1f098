//! Operators on values that depend on the image.

use std::rc::Rc;

use cryptodl_network::limits::MAX_VALUES;
use cryptodl_network::{LayerOp, Padding, Shape, Source};
use ndarray::{Array2, Array4};

use crate::error::Refusal;
use crate::fold;
use crate::import::{Importer, Item, Value, constants, narrow, picks, positions};
use crate::layers::name;
use crate::node::Node;
use crate::polynomial::Polynomial;
use crate::rearrange;
use crate::refusals;
use crate::tensor::{Data, Tensor};
use crate::view::{Maps, Span, View, ZERO};

/// How windows lie on an image: rows, columns.
struct Windows {
    kernel: [usize; 2],
    stride: [usize; 2],
    dilation: [usize; 2],
    padding: Padding,
}

impl<'a> Importer<'a> {
    /// What a node makes of operands of which at least one depends on the image.
    pub(crate) fn computed(&mut self, node: Node<'a>, inputs: Vec<Option<Item>>) -> Result<Vec<Item>, Refusal> {
        match node.op() {
            "Add" | "Sub" | "Mul" | "Div" | "Pow" | "Neg" | "Sum" => return self.elementwise(node, inputs),
            "Concat" => return self.concat(node, inputs),
            _ => {}
        }
        let mut inputs = inputs;
        let value = match inputs.first_mut().map(Option::take) {
            Some(Some(Item::Value(value))) => value,
            _ if matches!(node.op(), "MatMul" | "Gemm") => {
                return Err("its first operand is a constant and its second the computed one; x W and x W^T are \
                            supported, with x computed"
                    .into());
            }
            _ => return Err(refusals::of(node.op())),
        };
        let others = constants(&inputs);
        let full = self.full(&value);
        match node.op() {
            "Shape" => Ok(vec![Item::Constant(fold::shape(node, full)?)]),
            "Size" => Ok(vec![Item::Constant(Tensor::integers(vec![], vec![full.iter().product::<usize>() as i64]))]),
            "Identity" => {
                let view = value.view.clone();
                Ok(self.seen(node, value, view))
            }
            "Dropout" => {
                let training = others?.get(2).cloned().flatten();
                if training.is_some_and(|flag| flag.reals().iter().any(|&flag| flag != 0.0)) {
                    return Err(
                        "it drops values at random; export the network in evaluation mode (`model.eval()`)".into()
                    );
                }
                let view = value.view.clone();
                Ok(self.seen(node, value, view))
            }
            "Cast" | "CastLike" => match node.op() == "CastLike" || matches!(node.int("to", 1), 1 | 10 | 11 | 16) {
                true => {
                    let view = value.view.clone();
                    Ok(self.seen(node, value, view))
                }
                false => Err("it makes integers of computed values, which is no polynomial; leave it out".into()),
            },
            "Softmax" | "LogSoftmax" if self.is_output(node) => {
                self.notes.push(format!(
                    "the last operator, {}, is left out: it changes no label, and the scores are what goes into it",
                    node.op()
                ));
                let view = value.view.clone();
                Ok(self.seen(node, value, view))
            }
            "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" => {
                let shape = fold::reshaped(node, &full, others?.get(1).and_then(Option::as_ref))?;
                let view = value.view.reshaped(self.images_first(&full, shape)?);
                Ok(self.seen(node, value, view))
            }
            "Transpose" => {
                let (order, (shape, picks)) = rearrange::transpose(&self.single(&value), node.ints("perm"))?;
                if order.first() != Some(&0) {
                    return Err(self.moves_images());
                }
                let view = self.picked(&value, shape[1..].to_vec(), &picks)?;
                Ok(self.seen(node, value, view))
            }
            "Slice" => {
                let mut ranges = fold::ranges(&others?, full.len())?;
                let images = self.full(&value)[0] as i64;
                if ranges.iter().any(|&(axis, start, end, step)| {
                    axis == 0 && !((start == 0 || start <= -images) && end >= images && step == 1)
                }) {
                    return Err(self.moves_images());
                }
                ranges.retain(|range| range.0 != 0);
                let (shape, picks) = rearrange::slice(&self.single(&value), &ranges)?;
                self.part(node, value, shape, &picks)
            }
            "Gather" => {
                let indices = others?.get(1).cloned().flatten().ok_or("its indices are missing")?;
                let axis = self.inner_axis(node.int("axis", 0), full.len())?;
                let Data::Integer(list) = &indices.data else { return Err("its indices must be integers".into()) };
                let (shape, picks) = rearrange::gather(&self.single(&value), axis, list, &indices.shape)?;
                self.part(node, value, shape, &picks)
            }
            "Split" => {
                let axis = self.inner_axis(node.int("axis", 0), full.len())?;
                let parts = fold::parts(node, others?.get(1).and_then(Option::as_ref), full[axis])?;
                let mut start = 0;
                let mut split = Vec::new();
                for size in parts {
                    let range = (axis, start, start + size as i64, 1);
                    let (shape, picks) = rearrange::slice(&self.single(&value), &[range])?;
                    start += size as i64;
                    split.extend(self.part(node, Value { owned: false, ..value.clone() }, shape, &picks)?);
                }
                Ok(split)
            }
            "Expand" => {
                let target = others?.get(1).cloned().flatten().ok_or("its shape is missing")?;
                let target = crate::tensor::sizes(&target.whole("its shape")?)?;
                let shape = rearrange::broadcast(&full, &target)?;
                if shape[0] != full[0] || shape.len() != full.len() {
                    return Err(self.moves_images());
                }
                let (shape, picks) = rearrange::expand(&value.view.shape, &shape[1..])?;
                self.part(node, value, [&[1], &shape[..]].concat(), &picks)
            }
            "Tile" => {
                let repeats = others?.get(1).cloned().flatten().ok_or("its repeats are missing")?;
                let repeats = repeats.whole("its repeats")?;
                if repeats.first() != Some(&1) {
                    return Err(self.moves_images());
                }
                let (shape, picks) = rearrange::tile(&self.single(&value), &repeats)?;
                self.part(node, value, shape, &picks)
            }
            "Pad" => self.pad(node, value, &others?),
            "Conv" => self.conv(node, value, &others?),
            "Gemm" | "MatMul" => self.dense(node, value, &others?),
            "BatchNormalization" => self.batch_norm(node, value, &others?),
            "AveragePool" => self.average_pool(node, value),
            "GlobalAveragePool" => {
                let axes: Vec<usize> = (2..full.len()).collect();
                self.reduce(node, value, &axes, true, true)
            }
            "ReduceMean" | "ReduceSum" => {
                let listed = fold::listed_axes(node, others?.get(1).and_then(Option::as_ref))?;
                let listed = listed.filter(|list| !list.is_empty());
                if listed.is_none() && node.flag("noop_with_empty_axes") {
                    let view = value.view.clone();
                    return Ok(self.seen(node, value, view));
                }
                let axes = match listed {
                    Some(list) => rearrange::axes(&list, full.len())?,
                    None => (0..full.len()).collect(),
                };
                self.reduce(node, value, &axes, node.int("keepdims", 1) != 0, node.op() == "ReduceMean")
            }
            op => Err(refusals::of(op)),
        }
    }

    // ------------------------------------------------------------ moving values

    /// The shape of a value of one image.
    fn single(&self, value: &Value) -> Vec<usize> {
        [&[1], &value.view.shape[..]].concat()
    }

    fn moves_images(&self) -> Refusal {
        "it mixes images, or moves their axis, which must stay the first one".into()
    }

    /// A shape without its first axis, which must still be that of the images.
    fn images_first(&self, before: &[usize], shape: Vec<usize>) -> Result<Vec<usize>, Refusal> {
        match shape.first() == before.first() {
            true => Ok(shape[1..].to_vec()),
            false => Err(format!("{}; it makes {shape:?} of {before:?}", self.moves_images())),
        }
    }

    fn inner_axis(&self, axis: i64, rank: usize) -> Result<usize, Refusal> {
        match rearrange::axis(axis, rank)? {
            0 => Err(self.moves_images()),
            axis => Ok(axis),
        }
    }

    /// Some of the values; `shape` and `picks` are for one image.
    fn part(&mut self, node: Node<'a>, value: Value, shape: Vec<usize>, picks: &[u32]) -> Result<Vec<Item>, Refusal> {
        if picks.is_empty() || picks.len() > MAX_VALUES {
            return Err(format!("it leaves {} values of an image; 1 to {MAX_VALUES} are supported", picks.len()));
        }
        let view = self.picked(&value, shape[1..].to_vec(), picks)?;
        Ok(self.seen(node, value, view))
    }

    fn pad(&mut self, node: Node<'a>, value: Value, others: &[Option<Tensor>]) -> Result<Vec<Item>, Refusal> {
        if node.text("mode").is_some_and(|mode| mode != "constant") {
            return Err("it pads with copies of values; only zeros can be padded: use `mode=\"constant\"`".into());
        }
        let other = |at: usize| others.get(at).and_then(Option::as_ref);
        if other(2).is_some_and(|constant| constant.reals().iter().any(|&number| number != 0.0)) {
            return Err("it pads with a number that is not zero; only zeros can be padded".into());
        }
        let amounts = other(1).ok_or("its pads are missing")?.whole("its pads")?;
        let rank = value.view.shape.len() + 1;
        let axes = match other(3) {
            Some(list) => {
                let list = list.whole("its axes")?;
                list.iter().map(|&at| rearrange::axis(at, rank)).collect::<Result<Vec<_>, _>>()?
            }
            None => (0..rank).collect(),
        };
        if amounts.len() != 2 * axes.len() {
            return Err(format!("it has {} pads for {} axes", amounts.len(), axes.len()));
        }
        // Zeros are there after everything before.
        let value = self.settled(value)?;
        let mut value = if value.view.has_zeros() { self.gathered(value)? } else { value };
        for (i, &axis) in axes.iter().enumerate() {
            let [before, after] = [amounts[i], amounts[axes.len() + i]];
            if before == 0 && after == 0 {
                continue;
            }
            if axis == 0 {
                return Err(self.moves_images());
            }
            let shape = value.view.shape.clone();
            let size = (shape[axis - 1] as i64).checked_add(before).and_then(|size| size.checked_add(after));
            let others: usize =
                shape.iter().enumerate().filter(|(at, _)| at + 1 != axis).map(|(_, size)| size).product();
            let size =
                size.filter(|&size| size > 0 && (size as u128) * (others as u128) <= MAX_VALUES as u128).ok_or_else(
                    || format!("it makes {before} + {} + {after} of an axis, which is not supported", shape[axis - 1]),
                )? as usize;
            let strides = rearrange::strides(&shape);
            let mut padded = shape.clone();
            padded[axis - 1] = size;
            let of = |i: usize| {
                let inner = strides[axis - 1];
                let (outer, at, rest) = (i / inner / size, (i / inner % size) as i64 - before, i % inner);
                match usize::try_from(at).ok().filter(|&at| at < shape[axis - 1]) {
                    Some(at) => ((outer * shape[axis - 1] + at) * inner + rest) as u32,
                    None => ZERO,
                }
            };
            let picks: Vec<u32> = (0..size * others).map(of).collect();
            value.view = self.picked(&value, padded, &picks)?;
        }
        let view = value.view.clone();
        Ok(self.seen(node, value, view))
    }

    fn concat(&mut self, node: Node<'a>, inputs: Vec<Option<Item>>) -> Result<Vec<Item>, Refusal> {
        let mut values = Vec::new();
        for item in inputs {
            match item {
                Some(Item::Value(value)) => values.push(self.settled(value)?),
                Some(Item::Constant(tensor)) if tensor.len() == 0 => {}
                _ => return Err("one of its operands is a constant; only computed values can be put together".into()),
            }
        }
        let first = values.first().ok_or("it has no operands")?.clone();
        self.inner_axis(node.int("axis", 0), first.view.shape.len() + 1)?;
        // Parts of one layer are one view of it.
        let one = values.iter().all(|value| value.base == first.base);
        if !one {
            let planes = |shape: Shape| match shape {
                Shape::Image { height, width, .. } => Some([height, width]),
                Shape::Flat(_) => None,
            };
            let like = planes(self.layers.shape(first.base));
            if values.iter().any(|value| planes(self.layers.shape(value.base)) != like) {
                for value in &mut values {
                    let view = value.view.reshaped(vec![value.view.len()]);
                    let (_, flat) = self.vector(&view, value.clone())?;
                    value.base = flat;
                }
            }
        }
        let mut start = 0;
        let mut orders = Vec::new();
        for value in &values {
            orders.push(Some(positions(&value.view, start)));
            if !one {
                start += self.held(value);
            }
        }
        self.charge(values.iter().map(|value| value.view.len()).sum())?;
        let joined = fold::fold(node, &orders)?.and_then(|mut all| all.pop()).ok_or("it has no operands")?;
        let base = match one {
            true => first.base,
            false => {
                self.layers.push(&name(node, None), LayerOp::Concat, values.iter().map(|value| value.base).collect())?
            }
        };
        let view = View::new(joined.shape[1..].to_vec(), picks(&joined), self.layers.shape(base).len());
        if view.len() > MAX_VALUES {
            return Err(format!("it leaves {} values of an image; at most {MAX_VALUES} are supported", view.len()));
        }
        Ok(match one {
            true => self.seen(node, Value { owned: false, ..first }, view),
            false => self.made(node, base, view),
        })
    }

    /// The values of a view as all those of a layer, in their order: a convolution with ones takes
    /// them.
    pub(crate) fn gathered(&mut self, value: Value) -> Result<Value, Refusal> {
        let value = self.settled(value)?;
        if value.view.is_whole() {
            return Ok(value);
        }
        let image = self.layers.image(value.base);
        if let Some((image, maps)) = image.and_then(|image| Some((image, value.view.maps(image)?))) {
            let base = self.taken(value.base, image, &maps)?;
            let view = View::whole(value.view.shape.clone());
            return Ok(Value { base, view, owned: true, ..value });
        }
        if value.view.shape.len() == 1 {
            let (rows, columns) = (value.view.len(), self.held(&value));
            self.charge(rows.saturating_mul(columns))?;
            let mut weight = Array2::zeros((rows, columns));
            (0..rows).filter(|&row| value.view.at(row) != ZERO).for_each(|row| {
                weight[[row, value.view.at(row) as usize]] = 1.0;
            });
            let (value, flat) = self.vector(&value.view.clone(), value)?;
            let base = self.layers.push("gather", LayerOp::Dense { weight, bias: None }, vec![flat])?;
            let view = View::whole(value.view.shape.clone());
            return Ok(Value { base, view, owned: true, ..value });
        }
        Err("its values are rearranged in a way that no convolution undoes; channels, and even grids of rows and columns, \
             can be taken from an image, and a vector can be in any order"
            .into())
    }

    /// Some maps, rows and columns, by a convolution with ones.
    fn taken(&mut self, base: Source, image: [usize; 3], maps: &Maps) -> Result<Source, Refusal> {
        let [channels, height, width] = image;
        let along = |span: &Span, size: usize| span.tap(size);
        let (rows, row, top, bottom) = along(&maps.rows, height);
        let (columns, column, left, right) = along(&maps.columns, width);
        let (out, seen) = match &maps.channels {
            None => (channels, 1),
            Some(taken) => (taken.len(), channels),
        };
        self.charge(out.saturating_mul(seen).saturating_mul(rows * columns))?;
        let mut weight = Array4::zeros((out, seen, rows, columns));
        for channel in 0..out {
            let from = maps.channels.as_ref().map_or(0, |taken| taken[channel]);
            weight[[channel, from, row, column]] = 1.0;
        }
        let op = LayerOp::Conv2d {
            weight,
            bias: None,
            stride: [maps.rows.step, maps.columns.step],
            padding: Padding { before: [top, left], after: [bottom, right] },
            dilation: [1; 2],
            groups: channels / seen,
        };
        self.layers.push("part", op, vec![base])
    }

    /// The image that a value is, and zeros around it.
    fn padded_image(&mut self, value: Value) -> Result<(Source, [usize; 3], Padding), Refusal> {
        let mut value = self.settled(value)?;
        let shape = value.view.shape.clone();
        for _ in 0..2 {
            if let Some(image) = self.layers.image(value.base)
                && let Some(maps) = value.view.maps(image)
            {
                let sides = (maps.rows.padding(image[1]), maps.columns.padding(image[2]));
                if let (None, (Some([top, bottom]), Some([left, right]))) = (&maps.channels, sides) {
                    return Ok((value.base, image, Padding { before: [top, left], after: [bottom, right] }));
                }
                value = self.gathered(value)?;
            }
        }
        Err(format!(
            "it needs an image, and its operand of shape {shape:?} (without the images' axis) is none: its values come from {} in \
             another order. Images have channels first, and a vector cannot become an image",
            self.layers.shape(value.base)
        ))
    }

    // ------------------------------------------------------------ layers

    /// How the windows of a node lie on an image with these spatial sizes, one or two.
    fn windows(&self, node: Node<'a>, kernel: &[usize], sizes: &[usize]) -> Result<Windows, Refusal> {
        let rank = sizes.len();
        let stride = node.sizes("strides", rank, 1, 1)?;
        let dilation = node.sizes("dilations", rank, 1, 1)?;
        let mut pads = node.sizes("pads", 2 * rank, 0, 0)?;
        match node.text("auto_pad").unwrap_or("NOTSET") {
            "" | "NOTSET" => {}
            "VALID" => pads.fill(0),
            same @ ("SAME_UPPER" | "SAME_LOWER") => {
                for axis in 0..rank {
                    let extent = dilation[axis] * (kernel[axis] - 1) + 1;
                    let steps = sizes[axis].div_ceil(stride[axis]) - 1;
                    let all = (steps * stride[axis] + extent).saturating_sub(sizes[axis]);
                    let less = all / 2;
                    let (before, after) = if same == "SAME_UPPER" { (less, all - less) } else { (all - less, less) };
                    (pads[axis], pads[rank + axis]) = (before, after);
                }
            }
            other => {
                return Err(format!(
                    "its `auto_pad` is `{}`, which does not exist",
                    cryptodl_network::text::name(other)
                ));
            }
        }
        // One spatial axis is the columns.
        let two = |list: &[usize], default: usize| if rank == 2 { [list[0], list[1]] } else { [default, list[0]] };
        Ok(Windows {
            kernel: two(kernel, 1),
            stride: two(&stride, 1),
            dilation: two(&dilation, 1),
            padding: Padding { before: two(&pads[..rank], 0), after: two(&pads[rank..], 0) },
        })
    }

    fn conv(&mut self, node: Node<'a>, value: Value, others: &[Option<Tensor>]) -> Result<Vec<Item>, Refusal> {
        let spatial = self.spatial(&value)?;
        let weights = others.get(1).and_then(Option::as_ref).ok_or("its weights are missing")?;
        if weights.shape.len() != spatial.len() + 2 || weights.shape.contains(&0) {
            return Err(format!(
                "its weights have shape {:?}; its input has {} spatial axes",
                weights.shape,
                spatial.len()
            ));
        }
        let kernel = weights.shape[2..].to_vec();
        if node
            .sizes("kernel_shape", kernel.len(), 1, 0)?
            .iter()
            .zip(&kernel)
            .any(|(&stated, &size)| stated > 0 && stated != size)
        {
            return Err(format!("its `kernel_shape` is not that of its weights, {:?}", weights.shape));
        }
        let Windows { kernel, stride, dilation, padding } = self.windows(node, &kernel, &spatial)?;
        let groups = usize::try_from(node.int("group", 1)).unwrap_or(0);
        let (base, [channels, ..], around) = self.padded_image(value)?;
        let (out, seen) = (weights.shape[0], weights.shape[1]);
        if groups == 0 || channels % groups != 0 || out % groups != 0 || channels / groups != seen {
            return Err(format!(
                "its weights have shape {:?} with {groups} groups, but its input has {channels} channels",
                weights.shape
            ));
        }
        let bias = match others.get(2).and_then(Option::as_ref) {
            Some(bias) if bias.shape == [out] => Some(narrow(&bias.reals())),
            Some(bias) => return Err(format!("its bias has shape {:?}; it must be [{out}]", bias.shape)),
            None => None,
        };
        self.charge(weights.len())?;
        let numbers = weights.reals().iter().map(|&number| number as f32).collect();
        let weight =
            Array4::from_shape_vec((out, seen, kernel[0], kernel[1]), numbers).map_err(|error| error.to_string())?;
        let padding = both(padding, around);
        let op = LayerOp::Conv2d { weight, bias, stride, padding, dilation, groups };
        let base = self.layers.push(&name(node, node.inputs().get(1).map(String::as_str)), op, vec![base])?;
        Ok(self.image_of(node, base, spatial.len()))
    }

    /// Spatial sizes of an operand, one or two.
    fn spatial(&self, value: &Value) -> Result<Vec<usize>, Refusal> {
        match value.view.shape[..] {
            [_, ref spatial @ ..] if (1..=2).contains(&spatial.len()) && !spatial.contains(&0) => Ok(spatial.to_vec()),
            _ => Err(format!(
                "its operand has shape {:?}; images with one or two spatial axes are supported",
                self.full(value)
            )),
        }
    }

    /// A layer's image, with one or two spatial axes.
    fn image_of(&self, node: Node<'a>, base: Source, spatial: usize) -> Vec<Item> {
        let [channels, height, width] = self.layers.image(base).unwrap_or_default();
        let shape = if spatial == 2 { vec![channels, height, width] } else { vec![channels, width] };
        self.made(node, base, View::whole(shape))
    }

    fn average_pool(&mut self, node: Node<'a>, value: Value) -> Result<Vec<Item>, Refusal> {
        let spatial = self.spatial(&value)?;
        let kernel = node.sizes("kernel_shape", spatial.len(), 1, 1)?;
        let Windows { kernel, stride, dilation, padding } = self.windows(node, &kernel, &spatial)?;
        let own = padding != Padding::default();
        if own && !node.flag("count_include_pad") {
            return Err(
                "it pads, and divides by fewer values at the border than inside; use `count_include_pad=True` or \
                        no padding"
                    .into(),
            );
        }
        let (base, image, around) = self.padded_image(value)?;
        let padding = both(padding, around);
        if node.flag("ceil_mode") {
            let cut = |axis: usize| {
                let extent = dilation[axis] * (kernel[axis] - 1) + 1;
                let room = (image[axis + 1] + padding.before[axis] + padding.after[axis]).checked_sub(extent);
                room.is_some_and(|room| room % stride[axis] != 0)
            };
            if cut(0) || cut(1) {
                return Err(
                    "its last windows are cut off (`ceil_mode`); use `ceil_mode=False`, or sizes that its stride \
                            divides"
                        .into(),
                );
            }
        }
        let label = name(node, None);
        let base = if padding == Padding::default() && dilation == [1; 2] {
            self.layers.push(&label, LayerOp::AvgPool2d { kernel, stride }, vec![base])?
        } else {
            // Zeros count, so it is a convolution of each channel by itself.
            let [rows, columns] = kernel;
            self.charge(image[0].saturating_mul(rows).saturating_mul(columns))?;
            let weight = Array4::from_elem((image[0], 1, rows, columns), 1.0 / (rows * columns) as f32);
            let op = LayerOp::Conv2d { weight, bias: None, stride, padding, dilation, groups: image[0] };
            self.layers.push(&label, op, vec![base])?
        };
        Ok(self.image_of(node, base, spatial.len()))
    }

    /// Means or sums over axes.
    fn reduce(
        &mut self,
        node: Node<'a>,
        value: Value,
        axes: &[usize],
        keep: bool,
        mean: bool,
    ) -> Result<Vec<Item>, Refusal> {
        if axes.contains(&0) {
            return Err(self.moves_images());
        }
        let value = self.settled(value)?;
        let value = if value.view.has_zeros() { self.gathered(value)? } else { value };
        let full = self.single(&value);
        let Some([channels, height, width]) = self.layers.image(value.base) else {
            return Err(
                "it takes the mean or sum over a vector; that over rows and columns of an image is supported".into()
            );
        };
        let kept: Vec<i64> = (0..full.len()).filter(|axis| !axes.contains(axis)).map(|axis| axis as i64).collect();
        let order: Vec<i64> = kept.iter().copied().chain(axes.iter().map(|&axis| axis as i64)).collect();
        let (_, (_, all)) = rearrange::transpose(&full, Some(&order))?;
        self.charge(all.len())?;
        let shape: Vec<usize> = (1..full.len())
            .filter(|axis| keep || !axes.contains(axis))
            .map(|axis| if axes.contains(&axis) { 1 } else { full[axis] })
            .collect();
        // Every group must be all positions of one channel, each once.
        let per = height * width;
        let size: usize = axes.iter().map(|&axis| full[axis]).product();
        let mut seen = vec![false; channels * per];
        let mut found = Vec::new();
        let whole = size == per
            && all.chunks_exact(size).all(|group| {
                let channel = value.view.at(group[0] as usize) as usize / per;
                found.push(channel as u32);
                group.iter().all(|&at| {
                    let at = value.view.at(at as usize) as usize;
                    at / per == channel && !std::mem::replace(&mut seen[at], true)
                })
            });
        let label = name(node, None);
        if whole {
            let op = match mean {
                true => LayerOp::GlobalAvgPool2d,
                false => LayerOp::SumPool2d { kernel: [height, width], stride: [1; 2] },
            };
            let base = if per == 1 { value.base } else { self.layers.push(&label, op, vec![value.base])? };
            return Ok(self.made(node, base, View::new(shape, found, channels)));
        }
        // Rows or columns of an image as it is.
        let image = value.view.is_whole() && value.view.shape == [channels, height, width];
        let kernel = match axes {
            [2] if image => [height, 1],
            [3] if image => [1, width],
            _ => {
                return Err("it takes the mean or sum over channels, or over part of an image; that over all rows, all columns \
                            or both is supported"
                    .into());
            }
        };
        let stride = [1; 2];
        let op = if mean { LayerOp::AvgPool2d { kernel, stride } } else { LayerOp::SumPool2d { kernel, stride } };
        let base = self.layers.push(&label, op, vec![value.base])?;
        Ok(self.made(node, base, View::whole(shape)))
    }

    fn dense(&mut self, node: Node<'a>, value: Value, others: &[Option<Tensor>]) -> Result<Vec<Item>, Refusal> {
        let gemm = node.op() == "Gemm";
        let weights = others.get(1).and_then(Option::as_ref).ok_or("its weights are missing")?;
        let ([features], [a, b]) = (&value.view.shape[..], &weights.shape[..]) else {
            return Err(format!(
                "it multiplies shapes {:?} and {:?}; a dense layer multiplies a vector for every image with a matrix: flatten first",
                self.full(&value),
                weights.shape
            ));
        };
        if gemm && node.flag("transA") {
            return Err("it transposes its first operand, which mixes images".into());
        }
        let transposed = gemm && node.flag("transB");
        let (inner, outputs) = if transposed { (*b, *a) } else { (*a, *b) };
        if inner != *features || outputs == 0 {
            return Err(format!("its weights have shape {:?}, but its input has {features} values", weights.shape));
        }
        let (alpha, beta) = match gemm {
            true => (f64::from(node.float("alpha", 1.0)), f64::from(node.float("beta", 1.0))),
            false => (1.0, 1.0),
        };
        let bias = match others.get(2).and_then(Option::as_ref).filter(|_| gemm) {
            None => None,
            Some(bias) => {
                let row = match bias.shape.len() {
                    2 if bias.shape[0] == 1 => bias.reshaped(vec![bias.shape[1]]),
                    0 | 1 => bias.clone(),
                    _ => return Err(format!("its bias has shape {:?}; it must be [{outputs}]", bias.shape)),
                };
                if rearrange::broadcast(&row.shape, &[outputs])? != [outputs] {
                    return Err(format!("its bias has shape {:?}; it must be [{outputs}]", bias.shape));
                }
                let numbers = fold::spread(&row, &[outputs])?.reals();
                Some(numbers.iter().map(|&number| (beta * number) as f32).collect())
            }
        };
        let view = value.view.clone();
        let (value, flat) = self.vector(&view, value)?;
        let held = self.held(&value);
        self.charge(outputs.saturating_mul(held))?;
        let numbers = weights.reals();
        let mut weight = Array2::<f32>::zeros((outputs, held));
        for from in (0..inner).filter(|&from| view.at(from) != ZERO) {
            let to = view.at(from) as usize;
            for output in 0..outputs {
                let at = if transposed { output * inner + from } else { from * outputs + output };
                weight[[output, to]] += (alpha * numbers[at]) as f32;
            }
        }
        let op = LayerOp::Dense { weight, bias };
        let base = self.layers.push(&name(node, node.inputs().get(1).map(String::as_str)), op, vec![flat])?;
        Ok(self.made(node, base, View::whole(vec![outputs])))
    }

    fn batch_norm(&mut self, node: Node<'a>, value: Value, others: &[Option<Tensor>]) -> Result<Vec<Item>, Refusal> {
        if node.flag("training_mode") {
            return Err("it measures each batch; export the network in evaluation mode (`model.eval()`)".into());
        }
        let channels = *value.view.shape.first().ok_or("its input has no channels")?;
        let inner: usize = value.view.shape[1..].iter().product();
        let mut lists: Vec<Rc<[f64]>> = Vec::new();
        for at in 1..5 {
            let list = others.get(at).and_then(Option::as_ref).ok_or("some of its statistics are missing")?;
            if list.shape != [channels] {
                return Err(format!("operand {} has shape {:?}; it must be [{channels}]", at + 1, list.shape));
            }
            self.charge(channels * inner)?;
            lists.push(list.reals().iter().flat_map(|&number| std::iter::repeat_n(number, inner)).collect());
        }
        let value = self.settled(value)?;
        let (value, lists) = self.per_channel(value, &lists)?;
        let [gamma, beta, mean, var] = [0, 1, 2, 3].map(|at: usize| narrow(&lists[at]));
        // The shortest decimal number that is this f32: 1e-5, and not 9.99999974e-6.
        let eps = node.float("epsilon", 1e-5).to_string().parse().unwrap_or(1e-5);
        let op = LayerOp::BatchNorm { gamma, beta, mean, var, eps };
        let label = name(node, node.inputs().get(1).map(String::as_str));
        let base = self.layers.push(&label, op, vec![value.base])?;
        let owned = self.uses(node) == 1;
        Ok(vec![Item::Value(Value { base, polynomial: Polynomial::identity(), owned, ..value })])
    }
}

/// Zeros around zeros.
fn both(a: Padding, b: Padding) -> Padding {
    let sum = |a: [usize; 2], b: [usize; 2]| [a[0] + b[0], a[1] + b[1]];
    Padding { before: sum(a.before, b.before), after: sum(a.after, b.after) }
}
