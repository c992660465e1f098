//! A graph becomes layers.
//!
//! What depends on no input is a constant. Every other value is a polynomial, the same for all
//! channels or one for each, of values that a layer leaves. So every spelling of a polynomial
//! becomes the same layer, however the exporter wrote it.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use cryptodl_network::{LayerOp, Shape, Source, text};

use crate::error::{ImportError, Refusal};
use crate::external::Folder;
use crate::fold::{self, fold};
use crate::layers::{self, Layers};
use crate::limits::MAX_MADE;
use crate::node::Node;
use crate::polynomial::{Polynomial, nine_digits};
use crate::proto::{GraphProto, TensorProto};
use crate::rearrange;
use crate::refusals;
use crate::tensor::{Data, Tensor};
use crate::view::{View, ZERO};

/// What a name of the graph stands for.
#[derive(Clone)]
pub(crate) enum Item {
    Constant(Tensor),
    Value(Value),
}

/// A tensor that depends on the image.
#[derive(Clone)]
pub(crate) struct Value {
    /// The layer, or the image.
    pub(crate) base: Source,
    /// What is computed of each of its values.
    pub(crate) polynomial: Polynomial,
    /// How they lie in the tensor.
    pub(crate) view: View,
    /// Whether nothing else reads what the layer leaves.
    pub(crate) owned: bool,
    /// A name for the layer that the polynomial or a flatten becomes.
    pub(crate) hint: Option<Rc<str>>,
}

pub(crate) struct Importer<'a> {
    /// Images that the graph computes at once; 1 where any number is allowed.
    batch: usize,
    items: HashMap<&'a str, Item>,
    stored: HashMap<&'a str, &'a TensorProto>,
    folder: &'a Folder,
    /// How often every name is read.
    uses: HashMap<&'a str, usize>,
    pub(crate) layers: Layers,
    /// Layers that polynomials became, and flattened images.
    polynomials: Vec<(Source, Polynomial, Source)>,
    flattened: HashMap<Source, Source>,
    /// Values that may still be made.
    left: usize,
    /// Nodes that were computed while reading.
    pub(crate) folded: usize,
    pub(crate) notes: Vec<String>,
    outputs: HashSet<&'a str>,
}

/// The image, as a graph names it.
pub(crate) struct Input<'a> {
    pub(crate) name: &'a str,
    pub(crate) batch: usize,
    /// Channels, rows, columns.
    pub(crate) image: [usize; 3],
    pub(crate) view: View,
}

impl<'a> Importer<'a> {
    pub(crate) fn new(graph: &'a GraphProto, input: Input<'a>, scaled: Polynomial, folder: &'a Folder) -> Self {
        let stored = graph.initializer.iter().filter_map(|tensor| Some((tensor.name.as_deref()?, tensor))).collect();
        let mut importer = Self {
            batch: input.batch,
            items: HashMap::new(),
            stored,
            folder,
            uses: HashMap::new(),
            layers: Layers::new(Shape::of_image(input.image)),
            polynomials: Vec::new(),
            flattened: HashMap::new(),
            left: MAX_MADE,
            folded: 0,
            notes: Vec::new(),
            outputs: graph.output.iter().filter_map(|output| output.name.as_deref()).collect(),
        };
        let image = Value {
            base: Source::Input,
            hint: (!scaled.is_identity()).then(|| "pixels".into()),
            polynomial: scaled,
            view: input.view,
            owned: false,
        };
        importer.items.insert(input.name, Item::Value(image));
        importer
    }

    /// Reads all nodes that the output needs, in their order.
    pub(crate) fn nodes(&mut self, nodes: &[Node<'a>]) -> Result<(), ImportError> {
        for node in nodes {
            for name in node.inputs().iter().filter(|name| !name.is_empty()) {
                *self.uses.entry(name).or_default() += 1;
            }
        }
        for output in self.outputs.clone() {
            *self.uses.entry(output).or_default() += 1;
        }
        for &node in nodes {
            let results = self.node(node)?;
            if results.len() < node.outputs().len() && !matches!(node.op(), "Dropout" | "BatchNormalization") {
                let problem = format!("it has {} outputs, of which {} are known", node.outputs().len(), results.len());
                return Err(node.refused(problem));
            }
            for (name, item) in node.outputs().iter().zip(results) {
                if !name.is_empty() && self.items.insert(name, item).is_some() {
                    return Err(node.refused(format!("its output `{}` is made twice", text::name(name))));
                }
            }
        }
        Ok(())
    }

    fn node(&mut self, node: Node<'a>) -> Result<Vec<Item>, ImportError> {
        if !node.is_standard() {
            return Err(node.refused(format!(
                "its operator is of the domain `{}`; only those of ONNX itself are read: export the network without \
                 extensions and local functions",
                text::name(node.domain())
            )));
        }
        let mut inputs = Vec::with_capacity(node.inputs().len());
        for name in node.inputs() {
            inputs.push(if name.is_empty() { None } else { Some(self.operand(node, name)?) });
        }
        let constants: Option<Vec<Option<Tensor>>> = inputs
            .iter()
            .map(|item| match item {
                None => Some(None),
                Some(Item::Constant(tensor)) => Some(Some(tensor.clone())),
                Some(Item::Value(_)) => None,
            })
            .collect();
        let refused = |problem| node.refused(problem);
        if node.op() == "Constant" {
            let tensor = self.constant(node).map_err(refused)?;
            self.folded += 1;
            return Ok(vec![Item::Constant(tensor)]);
        }
        let Some(constants) = constants else { return self.computed(node, inputs).map_err(refused) };
        self.charge(fold::work(node, &constants)).map_err(refused)?;
        match fold(node, &constants).map_err(refused)? {
            Some(tensors) => {
                self.charge(tensors.iter().map(Tensor::len).sum()).map_err(refused)?;
                self.folded += 1;
                Ok(tensors.into_iter().map(Item::Constant).collect())
            }
            None => Err(refused(refusals::of(node.op()))),
        }
    }

    fn operand(&mut self, node: Node<'a>, name: &'a str) -> Result<Item, ImportError> {
        if let Some(item) = self.items.get(name) {
            return Ok(item.clone());
        }
        let Some(proto) = self.stored.get(name) else {
            return Err(node.refused(format!(
                "it takes `{}`, which is neither stored nor made by a node before it: nodes must be sorted, and must not \
                 go round in a circle",
                text::name(name)
            )));
        };
        let refused = |problem| ImportError::Tensor { tensor: name.into(), problem };
        let tensor = Tensor::read(proto, self.folder).map_err(refused)?;
        self.charge(tensor.len()).map_err(refused)?;
        self.items.insert(name, Item::Constant(tensor.clone()));
        Ok(Item::Constant(tensor))
    }

    fn constant(&mut self, node: Node<'a>) -> Result<Tensor, Refusal> {
        let tensor = if let Some(tensor) = node.tensor("value") {
            Tensor::read(tensor, self.folder)?
        } else if let Some(list) = node.floats("value_floats") {
            Tensor::real(vec![list.len()], list.iter().map(|&value| value.into()).collect())
        } else if let Some(list) = node.ints("value_ints") {
            Tensor::row(list.to_vec())
        } else if node.has("value_float") {
            Tensor::real(vec![], vec![node.float("value_float", 0.0).into()])
        } else if node.has("value_int") {
            Tensor::integers(vec![], vec![node.int("value_int", 0)])
        } else {
            return Err("it has no numbers; constants of text and sparse ones are not read".into());
        };
        if tensor.reals().iter().any(|value| !value.is_finite()) {
            return Err("its value is not finite".into());
        }
        self.charge(tensor.len())?;
        Ok(tensor)
    }

    /// Takes so many values from what may be made.
    pub(crate) fn charge(&mut self, values: usize) -> Result<(), Refusal> {
        self.left = self.left.checked_sub(values).ok_or_else(|| {
            format!(
                "constants and rearranged values together have more than {MAX_MADE} numbers; the network is too large"
            )
        })?;
        Ok(())
    }

    pub(crate) fn uses(&self, node: Node<'a>) -> usize {
        let first = node.outputs().first();
        first.and_then(|name| self.uses.get(name.as_str())).copied().unwrap_or(0)
    }

    /// The shape of a value as the graph sees it, images included.
    pub(crate) fn full(&self, value: &Value) -> Vec<usize> {
        [&[self.batch], &value.view.shape[..]].concat()
    }

    /// Number of values that the value's layer leaves.
    pub(crate) fn held(&self, value: &Value) -> usize {
        self.layers.shape(value.base).len()
    }

    pub(crate) fn is_output(&self, node: Node<'a>) -> bool {
        node.outputs().first().is_some_and(|name| self.outputs.contains(name.as_str()))
    }

    /// The value of another layer, as it is.
    pub(crate) fn made(&self, node: Node<'a>, base: Source, view: View) -> Vec<Item> {
        let owned = self.uses(node) == 1;
        vec![Item::Value(Value { base, polynomial: Polynomial::identity(), view, owned, hint: None })]
    }

    /// The same value, seen otherwise.
    pub(crate) fn seen(&self, node: Node<'a>, value: Value, view: View) -> Vec<Item> {
        let owned = value.owned && self.uses(node) == 1;
        vec![Item::Value(Value { view, owned, ..value })]
    }

    pub(crate) fn picked(&mut self, value: &Value, shape: Vec<usize>, picks: &[u32]) -> Result<View, Refusal> {
        self.charge(picks.len())?;
        Ok(value.view.picked(shape, picks, self.held(value)))
    }

    /// The name of a graph's output.
    pub(crate) fn output(&mut self, name: &str) -> Result<Value, ImportError> {
        match self.items.get(name) {
            Some(Item::Value(value)) => Ok(value.clone()),
            Some(Item::Constant(_)) => {
                Err(ImportError::Interface { message: "the output does not depend on the input".into() })
            }
            None => Err(ImportError::Interface {
                message: format!("no node makes the output `{}` of the input", text::name(name)),
            }),
        }
    }

    /// Makes the scores the last layer.
    pub(crate) fn finish(&mut self, value: Value) -> Result<(), Refusal> {
        let value = self.settled(value)?;
        let (value, flat) = self.vector(&View::reshaped(&value.view, vec![value.view.len()]), value)?;
        if !value.view.is_whole() {
            // Scores in another order: a matrix of ones and zeros.
            let (rows, columns) = (value.view.len(), self.held(&value));
            self.charge(rows.saturating_mul(columns))?;
            let mut weight = ndarray::Array2::zeros((rows, columns));
            for row in 0..rows {
                let at = value.view.at(row);
                if at != ZERO {
                    weight[[row, at as usize]] = 1.0;
                }
            }
            self.layers.push("scores", LayerOp::Dense { weight, bias: None }, vec![flat])?;
            self.notes.push(
                "the scores come in another order than the last layer leaves them, so a dense layer sorts them".into(),
            );
        }
        Ok(())
    }

    // ------------------------------------------------------------ what layers need

    /// The value as some layer leaves it, without a polynomial.
    pub(crate) fn settled(&mut self, value: Value) -> Result<Value, Refusal> {
        if value.polynomial.is_identity() {
            return Ok(value);
        }
        let Value { base, polynomial, view, owned, hint } = value;
        let known = self.polynomials.iter().find(|(from, same, _)| *from == base && *same == polynomial);
        let layer = match known {
            Some(&(_, _, layer)) => layer,
            None => {
                let layer = self.polynomial_layer(base, &polynomial, hint.as_deref())?;
                self.polynomials.push((base, polynomial, layer));
                layer
            }
        };
        Ok(Value { base: layer, polynomial: Polynomial::identity(), view, owned, hint: None })
    }

    fn polynomial_layer(
        &mut self,
        base: Source,
        polynomial: &Polynomial,
        hint: Option<&str>,
    ) -> Result<Source, Refusal> {
        let rows = polynomial.rows();
        match polynomial.degree() {
            0 => Err("the value does not depend on the image: everything cancels".into()),
            1 => {
                // Batch-norm without statistics is `y -> gamma y + beta`; planners fold it.
                let channels = self.layers.shape(base).channels();
                let column = |power: usize| -> ndarray::Array1<f32> {
                    (0..channels).map(|c| rows[if rows.len() > 1 { c } else { 0 }][power] as f32).collect()
                };
                let ones = || ndarray::Array1::ones(channels);
                let op = LayerOp::BatchNorm {
                    gamma: column(1),
                    beta: column(0),
                    mean: ndarray::Array1::zeros(channels),
                    var: ones(),
                    // The square root of 1 + 1e-30 is 1.
                    eps: 1e-30,
                };
                self.layers.push(hint.unwrap_or("affine"), op, vec![base])
            }
            _ => {
                let coefficients = rows.iter().map(|row| row.iter().map(|&c| nine_digits(c)).collect()).collect();
                let op = LayerOp::Polynomial { coefficients, inputs: None };
                self.layers.push(hint.unwrap_or("act"), op, vec![base])
            }
        }
    }

    /// A vector of what a layer leaves, with the order of its values; `view` is that of `value` with
    /// one axis.
    pub(crate) fn vector(&mut self, view: &View, value: Value) -> Result<(Value, Source), Refusal> {
        let value = self.settled(value)?;
        let base = match self.layers.shape(value.base) {
            Shape::Flat(_) => value.base,
            Shape::Image { .. } => self.flat(value.base, value.hint.as_deref())?,
        };
        let flat = Value { base, view: view.clone(), polynomial: Polynomial::identity(), owned: false, hint: None };
        Ok((flat, base))
    }

    fn flat(&mut self, base: Source, hint: Option<&str>) -> Result<Source, Refusal> {
        if let Some(&flat) = self.flattened.get(&base) {
            return Ok(flat);
        }
        let flat = self.layers.push(hint.unwrap_or("flatten"), LayerOp::Flatten, vec![base])?;
        self.flattened.insert(base, flat);
        Ok(flat)
    }

    /// The value as a layer's output with one value per number of the vector, where numbers of one
    /// channel are to be treated differently.
    fn flattened(&mut self, value: Value) -> Result<Value, Refusal> {
        let value = self.settled(value)?;
        let base = self.flat(value.base, value.hint.as_deref())?;
        Ok(Value { base, ..value })
    }

    // ------------------------------------------------------------ elementwise

    /// For each list of numbers, one per value of the tensor in row-major order, those of the
    /// channels of the layer; one number where all are the same. The value may be another one then.
    pub(crate) fn per_channel(&mut self, value: Value, lists: &[Rc<[f64]>]) -> Result<(Value, Vec<Vec<f64>>), Refusal> {
        let mut value = value;
        if value.view.has_zeros() {
            value = self.gathered(value)?;
        }
        let shape = self.layers.shape(value.base);
        let per = shape.len() / shape.channels();
        // By channel, the first of its values in the tensor.
        let mut first = vec![usize::MAX; shape.channels()];
        let mut differs = false;
        for i in 0..value.view.len() {
            let channel = value.view.at(i) as usize / per;
            match first[channel] {
                usize::MAX => first[channel] = i,
                other => differs |= lists.iter().any(|list| list[other] != list[i]),
            }
        }
        self.charge(value.view.len())?;
        if differs {
            if per > 1 && value.view.shape.len() == 1 {
                let flat = self.flattened(value)?;
                return self.per_channel(flat, lists);
            }
            return Err(
                "its constants differ from position to position; one constant for all values or one per channel \
                        is supported"
                    .into(),
            );
        }
        if first.contains(&usize::MAX) {
            let gathered = self.gathered(value)?;
            return self.per_channel(gathered, lists);
        }
        let found = lists.iter().map(|list| first.iter().map(|&at| list[at]).collect()).collect();
        Ok((value, found))
    }

    /// The value with a constant that has its shape: (value, one number, or one per channel).
    fn met(&mut self, value: Value, constant: &Tensor) -> Result<(Value, Polynomial), Refusal> {
        let full = self.full(&value);
        let target = rearrange::broadcast(&full, &constant.shape)?;
        if target[0] != self.batch || target.len() < full.len() {
            return Err(format!("its constant of shape {:?} differs from image to image", constant.shape));
        }
        let mut value = value;
        self.charge(constant.len())?;
        if target.len() != full.len() || target[1..] != full[1..] {
            let (shape, picks) = rearrange::expand(&value.view.shape, &target[1..])?;
            value.view = self.picked(&value, shape, &picks)?;
        }
        let numbers = constant.reals();
        if let Some(&first) = numbers.first()
            && numbers.iter().all(|&number| number == first)
        {
            return Ok((value, Polynomial::constant(vec![first])));
        }
        let own = match constant.shape.len() == target.len() {
            true if constant.shape[0] != 1 => {
                return Err(format!("its constant of shape {:?} differs from image to image", constant.shape));
            }
            true => constant.reshaped(constant.shape[1..].to_vec()),
            false => constant.clone(),
        };
        self.charge(value.view.len())?;
        let numbers = fold::spread(&own, &target[1..])?.reals();
        let (value, mut lists) = self.per_channel(value, &[numbers])?;
        Ok((value, Polynomial::constant(lists.swap_remove(0))))
    }

    /// The value with another polynomial.
    fn mapped(&mut self, node: Node<'a>, value: Value, polynomial: Polynomial) -> Result<Vec<Item>, Refusal> {
        if !polynomial.is_finite() {
            return Err("its constants make coefficients that are not finite".into());
        }
        self.charge(polynomial.size())?;
        let owned = value.owned && self.uses(node) == 1;
        let hint = node.scope().map(Rc::from).or(value.hint);
        let value = Value { polynomial, owned, hint, ..value };
        // What several nodes read, is a variable: a square of it is not one of what it is made of.
        let variable = value.polynomial.is_per_channel() && value.polynomial.degree() == 1 && self.uses(node) > 1;
        Ok(vec![Item::Value(if variable { self.settled(value)? } else { value })])
    }

    pub(crate) fn elementwise(&mut self, node: Node<'a>, inputs: Vec<Option<Item>>) -> Result<Vec<Item>, Refusal> {
        let mut operands = inputs.into_iter().flatten();
        let missing = || "an operand is missing".to_string();
        let first = operands.next().ok_or_else(missing)?;
        let op = node.op();
        if op == "Neg" {
            let Item::Value(value) = first else { return Err(missing()) };
            let negated = value.polynomial.times(&Polynomial::constant(vec![-1.0]))?;
            return self.mapped(node, value, negated);
        }
        if op == "Sum" {
            let mut sum = first;
            for next in operands {
                sum = self.pair(node, "Add", sum, next)?.swap_remove(0);
            }
            return Ok(vec![sum]);
        }
        let second = operands.next().ok_or_else(missing)?;
        self.pair(node, op, first, second)
    }

    fn pair(&mut self, node: Node<'a>, op: &str, first: Item, second: Item) -> Result<Vec<Item>, Refusal> {
        match (first, second) {
            (Item::Value(a), Item::Value(b)) => self.both(node, op, a, b),
            (Item::Value(value), Item::Constant(constant)) => self.with_constant(node, op, value, &constant),
            (Item::Constant(constant), Item::Value(value)) => {
                let (value, c) = self.met(value, &constant)?;
                match op {
                    "Add" => self.shifted(node, value, &c),
                    "Mul" => {
                        let product = value.polynomial.times(&c)?;
                        self.mapped(node, value, product)
                    }
                    "Sub" => {
                        let negated = value.polynomial.times(&Polynomial::constant(vec![-1.0]))?;
                        self.mapped(node, value, negated.plus(&c))
                    }
                    _ => Err(refusals::no_polynomial(op)),
                }
            }
            (Item::Constant(a), Item::Constant(b)) => {
                let folded = fold(node, &[Some(a), Some(b)])?;
                let tensor = folded.and_then(|mut all| all.pop()).ok_or_else(|| refusals::of(op))?;
                Ok(vec![Item::Constant(tensor)])
            }
        }
    }

    fn with_constant(
        &mut self,
        node: Node<'a>,
        op: &str,
        value: Value,
        constant: &Tensor,
    ) -> Result<Vec<Item>, Refusal> {
        if op == "Pow" {
            let numbers = constant.reals();
            let exponent = numbers.first().copied().unwrap_or(0.0);
            let whole = exponent.fract() == 0.0 && (1.0..=63.0).contains(&exponent);
            if !whole || numbers.iter().any(|&other| other != exponent) {
                return Err(format!("its exponent is {exponent}; whole numbers from 1 to 63 make polynomials"));
            }
            let (value, _) = self.met(value, constant)?;
            // The square of a scaled and shifted value is the square of a variable.
            let affine = value.polynomial.is_per_channel() && value.polynomial.degree() == 1 && exponent > 1.0;
            let value = if affine { self.settled(value)? } else { value };
            let power = value.polynomial.power(exponent as usize)?;
            return self.mapped(node, value, power);
        }
        let (value, c) = self.met(value, constant)?;
        match op {
            "Add" => self.shifted(node, value, &c),
            "Sub" => {
                let negated = c.times(&Polynomial::constant(vec![-1.0]))?;
                self.shifted(node, value, &negated)
            }
            "Mul" => {
                let product = value.polynomial.times(&c)?;
                self.mapped(node, value, product)
            }
            "Div" => {
                let inverse = Polynomial::constant(c.rows().iter().map(|row| 1.0 / row[0]).collect());
                let quotient = value.polynomial.times(&inverse)?;
                self.mapped(node, value, quotient)
            }
            _ => Err(refusals::no_polynomial(op)),
        }
    }

    /// A constant per channel that is added to a linear layer without bias is its bias.
    fn shifted(&mut self, node: Node<'a>, value: Value, c: &Polynomial) -> Result<Vec<Item>, Refusal> {
        if value.polynomial.is_identity() && value.owned && c.is_per_channel() {
            let bias: Vec<f64> = c.rows().iter().map(|row| row[0]).collect();
            if self.layers.give_bias(value.base, &bias) {
                let view = value.view.clone();
                return Ok(self.seen(node, value, view));
            }
        }
        let sum = value.polynomial.plus(c);
        self.mapped(node, value, sum)
    }

    fn both(&mut self, node: Node<'a>, op: &str, mut a: Value, mut b: Value) -> Result<Vec<Item>, Refusal> {
        let target = rearrange::broadcast(&a.view.shape, &b.view.shape)?;
        for value in [&mut a, &mut b] {
            if value.view.shape != target {
                let (shape, picks) = rearrange::expand(&value.view.shape, &target)?;
                value.view = self.picked(value, shape, &picks)?;
            }
        }
        let same = a.base == b.base && a.view.same_order(&b.view);
        match op {
            "Add" | "Sub" => {
                let minus = Polynomial::constant(vec![-1.0]);
                if op == "Sub" {
                    b.polynomial = b.polynomial.times(&minus)?;
                }
                if same {
                    let sum = a.polynomial.plus(&b.polynomial);
                    a.owned = false;
                    return self.mapped(node, a, sum);
                }
                self.sum(node, a, b)
            }
            "Mul" if same => {
                let product = a.polynomial.times(&b.polynomial)?;
                a.owned = false;
                self.mapped(node, a, product)
            }
            "Mul" => {
                Err("it multiplies two different computed values; under encryption a value may be multiplied with \
                          itself and with constants: replace gates and attention by sums or concatenations"
                    .into())
            }
            _ => Err(refusals::no_polynomial(op)),
        }
    }

    /// A residual connection.
    fn sum(&mut self, node: Node<'a>, a: Value, b: Value) -> Result<Vec<Item>, Refusal> {
        let (mut a, mut b) = (self.settled(a)?, self.settled(b)?);
        if !a.view.same_order(&b.view) {
            (a, b) = (self.gathered(a)?, self.gathered(b)?);
        }
        if self.layers.shape(a.base) != self.layers.shape(b.base) {
            let fits = self.held(&a) == self.held(&b) && a.view.same_order(&b.view);
            if !fits {
                return Err(format!(
                    "it adds {} and {}, whose values lie differently; operands must have the same shape",
                    self.layers.shape(a.base),
                    self.layers.shape(b.base)
                ));
            }
            for value in [&mut a, &mut b] {
                if self.layers.image(value.base).is_some() {
                    value.base = self.flat(value.base, None)?;
                }
            }
        }
        let base = self.layers.push(&layers::name(node, None), LayerOp::Add, vec![a.base, b.base])?;
        Ok(self.made(node, base, a.view))
    }
}

/// The numbers of a tensor of so many values, as a list of f32 numbers.
pub(crate) fn narrow(numbers: &[f64]) -> ndarray::Array1<f32> {
    numbers.iter().map(|&number| number as f32).collect()
}

/// The values of constants among operands; the first one is not.
pub(crate) fn constants(inputs: &[Option<Item>]) -> Result<Vec<Option<Tensor>>, Refusal> {
    let one = |(at, item): (usize, &Option<Item>)| match item {
        Some(Item::Value(_)) if at > 0 => {
            Err(format!("operand {} is computed from the image; it must be a constant", at + 1))
        }
        Some(Item::Constant(tensor)) => Ok(Some(tensor.clone())),
        _ => Ok(None),
    };
    inputs.iter().enumerate().map(one).collect()
}

/// Positions of a view, as a constant that operators on constants rearrange; -1 is a zero.
pub(crate) fn positions(view: &View, offset: usize) -> Tensor {
    let at = |i: usize| match view.at(i) {
        ZERO => -1,
        at => i64::from(at) + offset as i64,
    };
    Tensor::integers([&[1], &view.shape[..]].concat(), (0..view.len()).map(at).collect())
}

/// What [`positions`] gave, rearranged.
pub(crate) fn picks(positions: &Tensor) -> Vec<u32> {
    match &positions.data {
        Data::Integer(values) => values.iter().map(|&at| if at < 0 { ZERO } else { at as u32 }).collect(),
        Data::Real(_) => Vec::new(),
    }
}
