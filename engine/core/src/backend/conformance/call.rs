//! One call of a [`Backend`] method with its inputs on the host, and the comparison of two results.

use std::ops::Range;

use super::{Cause, Place};
use crate::backend::{
    Backend, Horner, KeySwitch, LinearMap, Maintenance, PatersonStockmeyer, RelinLayout, Result, Rotation, Shape,
    SlotwiseOp, Window, paterson_stockmeyer,
};
use crate::ring::{Automorphism, UniformSource};

/// A tensor on the host.
#[derive(Clone)]
pub(super) struct Host {
    pub(super) shape: Shape,
    pub(super) residues: Vec<u32>,
}

impl Host {
    fn upload<B: Backend>(&self, backend: &B) -> Result<B::Tensor> {
        backend.upload(self.shape.clone(), &self.residues)
    }
}

/// One call with its inputs, ready for any backend. What a call changes in place starts as the given tensor.
pub(super) enum Call<'a> {
    Zeros(Shape),
    Upload(Host),
    Copy { x: Host, from: Window, out: Host, to: Window },
    Unpack { packed: Vec<u8>, out: Host, component: usize },
    Pack { x: Host, component: usize },
    Repack { x: Host, component: usize },
    Expand { source: UniformSource, first_object: u32, out: Host, component: usize },
    Linear { map: &'a LinearMap, x: Host },
    Multiply { a: Host, b: Host },
    AddConstant { x: Host, constants: Vec<u32> },
    Scale { x: Host, factors: Vec<u32> },
    Add { x: Host, y: Host },
    SubtractScale { x: Host, y: Host, factors: Vec<u32> },
    Accumulate { acc: Host, x: Host, factors: Vec<u32> },
    AccumulateKey { acc: Host, digit: Host, key: Host, row: usize },
    ForwardNtt(Host),
    InverseNtt(Host),
    ConvertBasis { x: Host, limbs: Vec<usize> },
    PrimeDigit { x: Host, part: usize, parts: usize, limbs: Vec<usize> },
    Automorphism { automorphism: Automorphism, x: Host },
    Slotwise { ops: &'a [SlotwiseOp<'a>], x: Host, lanes: Range<usize>, out: Host },
    ModDown { x: Host, dropped: Vec<usize> },
    Relinearise { x: Host, key: Key<'a>, drop: usize },
    Rotate { x: Host, from: Range<usize>, rotations: Vec<(Automorphism, Key<'a>, Range<usize>)> },
    Activation { polynomial: &'a Horner, products: Vec<Maintenance>, key: Option<Key<'a>>, z: Host },
    PatersonStockmeyer { polynomial: &'a PatersonStockmeyer, products: Vec<Maintenance>, key: Option<Key<'a>>, z: Host },
}

/// A key-switching key on the host.
#[derive(Clone)]
pub(super) struct Key<'a> {
    pub(super) rows: Host,
    pub(super) layout: RelinLayout,
    pub(super) special: &'a [usize],
}

impl Key<'_> {
    fn switch<'a, T>(&'a self, rows: &'a T) -> KeySwitch<'a, T> {
        KeySwitch { rows, layout: self.layout, special: self.special }
    }
}

pub(super) enum Output {
    Tensor(Host),
    Bytes(Vec<u8>),
    Answer(bool),
}

impl Call<'_> {
    /// The method's name, and the operand whose shape describes the check.
    pub(super) fn describe(&self) -> (&'static str, &Shape) {
        match self {
            Call::Zeros(shape) => ("zeros", shape),
            Call::Upload(x) => ("upload", &x.shape),
            Call::Copy { x, .. } => ("copy", &x.shape),
            Call::Unpack { out, .. } => ("unpack", &out.shape),
            Call::Pack { x, .. } => ("pack", &x.shape),
            Call::Repack { x, .. } => ("unpack", &x.shape),
            Call::Expand { out, .. } => ("expand", &out.shape),
            Call::Linear { x, .. } => ("linear", &x.shape),
            Call::Multiply { a, .. } => ("multiply", &a.shape),
            Call::AddConstant { x, .. } => ("add_constant", &x.shape),
            Call::Scale { x, .. } => ("scale", &x.shape),
            Call::Add { x, .. } => ("add", &x.shape),
            Call::SubtractScale { x, .. } => ("subtract_scale", &x.shape),
            Call::Accumulate { acc, .. } => ("accumulate", &acc.shape),
            Call::AccumulateKey { acc, .. } => ("accumulate_key", &acc.shape),
            Call::ForwardNtt(x) => ("forward_ntt", &x.shape),
            Call::InverseNtt(x) => ("inverse_ntt", &x.shape),
            Call::ConvertBasis { x, .. } => ("convert_basis", &x.shape),
            Call::PrimeDigit { x, .. } => ("prime_digit", &x.shape),
            Call::Automorphism { x, .. } => ("automorphism", &x.shape),
            Call::Slotwise { x, .. } => ("slotwise", &x.shape),
            Call::ModDown { x, .. } => ("mod_down", &x.shape),
            Call::Relinearise { x, .. } => ("relinearise", &x.shape),
            Call::Rotate { x, .. } => ("rotate", &x.shape),
            Call::Activation { z, .. } => ("activation", &z.shape),
            Call::PatersonStockmeyer { z, .. } => ("paterson_stockmeyer", &z.shape),
        }
    }

    pub(super) fn run<B: Backend>(&self, backend: &B) -> Result<Output> {
        let out = match self {
            Call::Zeros(shape) => backend.zeros(shape.clone())?,
            Call::Upload(x) => x.upload(backend)?,
            Call::Copy { x, from, out, to } => {
                let (x, mut out) = (x.upload(backend)?, out.upload(backend)?);
                backend.copy(&x, from, &mut out, to)?;
                out
            }
            Call::Unpack { packed, out, component } => {
                // What a refused unpacking leaves behind is unspecified, hence only the answer is compared.
                return Ok(Output::Answer(backend.unpack(packed, &mut out.upload(backend)?, *component)?));
            }
            Call::Pack { x, component } => return Ok(Output::Bytes(backend.pack(&x.upload(backend)?, *component)?)),
            Call::Repack { x, component } => {
                let packed = backend.pack(&x.upload(backend)?, *component)?;
                let mut out = x.upload(backend)?;
                if !backend.unpack(&packed, &mut out, *component)? {
                    return Ok(Output::Answer(false));
                }
                out
            }
            Call::Expand { source, first_object, out, component } => {
                let mut out = out.upload(backend)?;
                backend.expand(source, *first_object, &mut out, *component)?;
                out
            }
            Call::Linear { map, x } => backend.linear(map, &x.upload(backend)?)?,
            Call::Multiply { a, b } => backend.multiply(&a.upload(backend)?, &b.upload(backend)?)?,
            Call::AddConstant { x, constants } => {
                let mut x = x.upload(backend)?;
                backend.add_constant(&mut x, constants)?;
                x
            }
            Call::Scale { x, factors } => {
                let mut x = x.upload(backend)?;
                backend.scale(&mut x, factors)?;
                x
            }
            Call::Add { x, y } => {
                let mut x = x.upload(backend)?;
                backend.add(&mut x, &y.upload(backend)?)?;
                x
            }
            Call::SubtractScale { x, y, factors } => {
                let mut x = x.upload(backend)?;
                backend.subtract_scale(&mut x, &y.upload(backend)?, factors)?;
                x
            }
            Call::Accumulate { acc, x, factors } => {
                let mut acc = acc.upload(backend)?;
                backend.accumulate(&mut acc, &x.upload(backend)?, factors)?;
                acc
            }
            Call::AccumulateKey { acc, digit, key, row } => {
                let mut acc = acc.upload(backend)?;
                backend.accumulate_key(&mut acc, &digit.upload(backend)?, &key.upload(backend)?, *row)?;
                acc
            }
            Call::ForwardNtt(x) => {
                let mut x = x.upload(backend)?;
                backend.forward_ntt(&mut x)?;
                x
            }
            Call::InverseNtt(x) => {
                let mut x = x.upload(backend)?;
                backend.inverse_ntt(&mut x)?;
                x
            }
            Call::ConvertBasis { x, limbs } => backend.convert_basis(&x.upload(backend)?, limbs)?,
            Call::PrimeDigit { x, part, parts, limbs } => {
                backend.prime_digit(&x.upload(backend)?, *part, *parts, limbs)?
            }
            Call::Automorphism { automorphism, x } => backend.automorphism(*automorphism, &x.upload(backend)?)?,
            Call::Slotwise { ops, x, lanes, out } => {
                let mut out = out.upload(backend)?;
                backend.slotwise(ops, &x.upload(backend)?, lanes.clone(), &mut out)?;
                out
            }
            Call::ModDown { x, dropped } => backend.mod_down(&x.upload(backend)?, dropped)?,
            Call::Relinearise { x, key, drop } => {
                let rows = key.rows.upload(backend)?;
                backend.relinearise(&x.upload(backend)?, &key.switch(&rows), *drop)?
            }
            Call::Rotate { x, from, rotations } => {
                let mut x = x.upload(backend)?;
                let rows = rotations.iter().map(|(_, key, _)| key.rows.upload(backend)).collect::<Result<Vec<_>>>()?;
                let mut switches = Vec::new();
                for ((automorphism, key, to), rows) in rotations.iter().zip(&rows) {
                    switches.push(Rotation { automorphism: *automorphism, key: key.switch(rows), to: to.clone() });
                }
                backend.rotate(&mut x, from.clone(), &switches)?;
                x
            }
            Call::Activation { polynomial, products, key, z } => {
                let rows = upload_rows(backend, key.as_ref())?;
                let key = key.as_ref().zip(rows.as_ref()).map(|(key, rows)| key.switch(rows));
                backend.activation(polynomial, products, key.as_ref(), &z.upload(backend)?)?
            }
            Call::PatersonStockmeyer { polynomial, products, key, z } => {
                let rows = upload_rows(backend, key.as_ref())?;
                let key = key.as_ref().zip(rows.as_ref()).map(|(key, rows)| key.switch(rows));
                paterson_stockmeyer(backend, polynomial, products, key.as_ref(), &z.upload(backend)?)?
            }
        };
        backend.synchronise()?;
        Ok(Output::Tensor(Host { shape: backend.shape(&out).clone(), residues: backend.download(&out)? }))
    }
}

fn upload_rows<B: Backend>(backend: &B, key: Option<&Key<'_>>) -> Result<Option<B::Tensor>> {
    key.map(|key| key.rows.upload(backend)).transpose()
}

/// Finds the first difference.
pub(super) fn equal(expected: &Output, actual: &Output) -> std::result::Result<(), Cause> {
    let differ = |place, expected, actual| Err(Cause::Difference { place, expected, actual });
    match (expected, actual) {
        (Output::Tensor(expected), Output::Tensor(actual)) => {
            if expected.shape != actual.shape {
                return Err(Cause::Shape { expected: expected.shape.clone(), actual: actual.shape.clone() });
            }
            let (e, a) = (&expected.residues, &actual.residues);
            if e.len() != a.len() {
                return differ(Place::Length, e.len() as u64, a.len() as u64);
            }
            match e.iter().zip(a).position(|(e, a)| e != a) {
                Some(at) => differ(residue_place(&expected.shape, at), e[at].into(), a[at].into()),
                None => Ok(()),
            }
        }
        (Output::Bytes(e), Output::Bytes(a)) => {
            if e.len() != a.len() {
                return differ(Place::Length, e.len() as u64, a.len() as u64);
            }
            match e.iter().zip(a).position(|(e, a)| e != a) {
                Some(at) => differ(Place::Byte(at), e[at].into(), a[at].into()),
                None => Ok(()),
            }
        }
        // A refused unpacking has an answer where an accepted one has a tensor.
        (expected, actual) => match (accepted(expected), accepted(actual)) {
            (expected, actual) if expected == actual => Ok(()),
            (expected, actual) => differ(Place::Answer, expected.into(), actual.into()),
        },
    }
}

fn accepted(output: &Output) -> bool {
    !matches!(output, Output::Answer(false))
}

fn residue_place(shape: &Shape, at: usize) -> Place {
    let (row, lane) = (at / shape.lanes, at % shape.lanes);
    let (rest, component) = (row / shape.components, row % shape.components);
    Place::Residue { limb: rest / shape.values, value: rest % shape.values, component, lane }
}
