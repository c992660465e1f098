//! What is measured.

use std::collections::HashSet;
use std::time::Instant;

use anyhow::Result;
use cryptodl_core::backend::{
    Backend, CiphertextShape, KeySwitch, LinearMap, Maintenance, Measured, Shape, SlotwiseOp, packed_len,
};
use cryptodl_core::ckks::{Params, RelinLayout, UniformPurpose};
use cryptodl_cpu::Reference;
use cryptodl_program::{Program, Step, Term, TermMap};

use super::kernels::{Arithmetic, Bench, Work, check};
use super::operands::{repeated, residues};

/// A planned model.
pub struct Shipped {
    /// Model and schedule.
    pub name: String,
    pub program: Program,
    pub params: Params,
}

/// Both transforms on `params`' ring.
pub fn transforms<B: Measured>(bench: &mut Bench<'_>, backend: &B, params: &Params) -> Result<()> {
    let (basis, n) = (params.basis(), params.n());
    let small = Shape { limbs: params.chain(1), values: 1, components: 1, lanes: n };
    let sample = residues(basis, &small);
    let reference = Reference::new(basis.clone());
    type Transform<B> = fn(&B, &mut <B as Backend>::Tensor) -> cryptodl_core::backend::Result<()>;
    let pairs: [(&'static str, Transform<Reference>, Transform<B>); 2] = [
        ("forward_ntt", Reference::forward_ntt, B::forward_ntt),
        ("inverse_ntt", Reference::inverse_ntt, B::inverse_ntt),
    ];
    for (kernel, by_definition, transform) in pairs {
        let operand = |values| {
            let shape = Shape { values, ..small.clone() };
            backend.upload(shape.clone(), &repeated(&small, &sample, &shape))
        };
        let values = bench.size([1, usize::MAX], 4 * n as u64, |values| {
            let mut x = operand(values)?;
            seconds(backend, || transform(backend, &mut x))
        })?;
        let mut expected = reference.upload(small.clone(), &sample)?;
        by_definition(&reference, &mut expected)?;
        let mut x = operand(values)?;
        transform(backend, &mut x)?;
        check(backend, kernel, &x, &small, expected.residues())?;
        let work = Work {
            kernel,
            shape: format!("N = {n}, {values} at once"),
            items: values as u64,
            item: "transform",
            bytes: 8 * u64::from(backend.transform_passes()) * (values * n) as u64,
            arithmetic: None,
        };
        bench.measure(backend, work, || transform(backend, &mut x))?;
    }
    Ok(())
}

/// Linear maps, key switching, rescaling, unpacking and expansion as `shipped` needs them, but none that is in `seen`.
pub fn programs<B: Measured>(
    bench: &mut Bench<'_>,
    backend: &B,
    shipped: &Shipped,
    seen: &mut HashSet<String>,
) -> Result<()> {
    let Shipped { name, program, params } = shipped;
    let content = &program.content;
    let shapes = program.ciphertext_shapes();
    let ring = format!("N = {}, {} bits", params.n(), params.basis().modulus(0).bits());
    if seen.insert(format!("input {ring}")) {
        unpack_and_expand(bench, backend, params, content.input.level)?;
    }
    for (i, (step, label)) in content.steps.iter().zip(&program.names).enumerate() {
        match step {
            Step::Linear { terms, constants, .. } => {
                let level = shapes[i + 1].level;
                for Term { operand, map, .. } in terms {
                    // Factors of channels are products like others.
                    let TermMap::Dense(map) = map else { continue };
                    let map = map.prepare(params.basis(), constants)?;
                    let components = shapes[*operand].components;
                    let shape = (map.inputs(), map.rows(), map.taps(), map.positions(), map.groups());
                    if seen.insert(format!("{shape:?} {ring} {level} {components}")) {
                        linear(
                            bench,
                            backend,
                            &format!("{name} {label}"),
                            params,
                            CiphertextShape { level, components },
                            &map,
                        )?;
                    }
                }
            }
            Step::Activation { operand, activation } => {
                let products = activation.trace(shapes[*operand]).products;
                for (product, after) in products.iter().zip(&activation.maintenance) {
                    maintenance(bench, backend, shipped, *after, product.shape(), seen)?;
                }
            }
            Step::Maintenance { operand, maintenance: after, .. } => {
                maintenance(bench, backend, shipped, *after, shapes[*operand], seen)?;
            }
        }
    }
    Ok(())
}

/// What follows a product.
fn maintenance<B: Measured>(
    bench: &mut Bench<'_>,
    backend: &B,
    Shipped { program, params, .. }: &Shipped,
    after: Maintenance,
    size: CiphertextShape,
    seen: &mut HashSet<String>,
) -> Result<()> {
    let key = program.content.relin().filter(|_| after.relinearise);
    let ring = (params.n(), params.basis().modulus(0).bits());
    let CiphertextShape { level, components } = size;
    if !seen.insert(format!("{key:?} {ring:?} {level} {} {components}", after.drop)) {
        return Ok(());
    }
    match key {
        Some(layout) => relinearise(bench, backend, params, layout, level, after.drop),
        None if after.drop > 0 => rescale(bench, backend, params, size, after.drop),
        None => Ok(()),
    }
}

/// Seconds of one launch, by the host's clock, the second of two.
fn seconds<B: Backend>(backend: &B, mut launch: impl FnMut() -> cryptodl_core::backend::Result<()>) -> Result<f64> {
    launch()?;
    backend.synchronise()?;
    let start = Instant::now();
    launch()?;
    backend.synchronise()?;
    Ok(start.elapsed().as_secs_f64())
}

/// Lanes that the reference computes.
const LANES: usize = 2;

fn linear<B: Measured>(
    bench: &mut Bench<'_>,
    backend: &B,
    name: &str,
    params: &Params,
    CiphertextShape { level, components }: CiphertextShape,
    map: &LinearMap,
) -> Result<()> {
    let (basis, ops) = (params.basis(), [SlotwiseOp::Linear(map)]);
    let small = Shape { limbs: params.chain(level), values: map.inputs(), components, lanes: LANES };
    let sample = residues(basis, &small);
    let result = |lanes| Shape { values: map.outputs(), lanes, ..small.clone() };
    let operand = |lanes| {
        let shape = Shape { lanes, ..small.clone() };
        backend.upload(shape.clone(), &repeated(&small, &sample, &shape))
    };
    let lane_bytes = 4 * (level * components * map.inputs().max(map.outputs())) as u64;
    let lanes = bench.size([64, params.n()], lane_bytes, |lanes| {
        let (x, mut out) = (operand(lanes)?, backend.zeros(result(lanes))?);
        seconds(backend, || backend.slotwise(&ops, &x, 0..lanes, &mut out))
    })?;
    let reference = Reference::new(basis.clone());
    let expected = reference.linear(map, &reference.upload(small.clone(), &sample)?)?;
    let (x, mut out) = (operand(lanes)?, backend.zeros(result(lanes))?);
    backend.slotwise(&ops, &x, 0..lanes, &mut out)?;
    check(backend, "linear", &out, reference.shape(&expected), expected.residues())?;
    let per_limb = map.multiply_adds() * (components * lanes) as u64;
    let operations = |&limb: &usize| per_limb * u64::from(backend.linear_operations(basis.modulus(limb).bits()));
    let (rows, taps, positions) = (map.rows(), map.taps(), map.positions());
    let work = Work {
        kernel: "linear",
        shape: format!("{name}: {rows} x {taps} at {positions}, {level} x {components} x {lanes} lanes"),
        items: (level * components * lanes) as u64,
        item: "lane",
        bytes: 4 * (level * components * lanes * (map.inputs() + map.outputs())) as u64,
        arithmetic: Some(Arithmetic {
            multiply_adds: per_limb * level as u64,
            operations: small.limbs.iter().map(operations).sum(),
        }),
    };
    bench.measure(backend, work, || backend.slotwise(&ops, &x, 0..lanes, &mut out))
}

fn relinearise<B: Measured>(
    bench: &mut Bench<'_>,
    backend: &B,
    params: &Params,
    layout: RelinLayout,
    level: usize,
    dropped: usize,
) -> Result<()> {
    let (basis, n, special) = (params.basis(), params.n(), params.special());
    let small = Shape { limbs: params.chain(level), values: 1, components: 3, lanes: n };
    let limbs: Vec<usize> = params.chain(layout.level).into_iter().chain(params.special()).collect();
    let key_shape = Shape { limbs, values: layout.digits(layout.level), components: 2, lanes: n };
    let (sample, key_rows) = (residues(basis, &small), residues(basis, &key_shape));
    let rows = backend.upload(key_shape.clone(), &key_rows)?;
    let key = KeySwitch { rows: &rows, layout, special: &special };
    let operand = |values| {
        let shape = Shape { values, ..small.clone() };
        backend.upload(shape.clone(), &repeated(&small, &sample, &shape))
    };
    let values = bench.size([1, usize::MAX], small.bytes(), |values| {
        let x = operand(values)?;
        seconds(backend, || backend.relinearise(&x, &key, dropped).map(drop))
    })?;
    let reference = Reference::new(basis.clone());
    let reference_rows = reference.upload(key_shape.clone(), &key_rows)?;
    let reference_key = KeySwitch { rows: &reference_rows, layout, special: &special };
    let expected = reference.relinearise(&reference.upload(small.clone(), &sample)?, &reference_key, dropped)?;
    let x = operand(values)?;
    let out = backend.relinearise(&x, &key, dropped)?;
    check(backend, "relinearise", &out, reference.shape(&expected), expected.residues())?;
    let (operands, key_bytes) = (backend.shape(&x).bytes() + backend.shape(&out).bytes(), key_shape.bytes());
    let digits = layout.digits(level);
    let work = Work {
        kernel: "relinearise",
        shape: format!("N = {n}, {level} limbs to {}, {digits} digits, {values} at once", level - dropped),
        items: values as u64,
        item: "ciphertext",
        bytes: operands + key_bytes,
        arithmetic: None,
    };
    bench.measure(backend, work, || backend.relinearise(&x, &key, dropped).map(drop))
}

fn rescale<B: Measured>(
    bench: &mut Bench<'_>,
    backend: &B,
    params: &Params,
    CiphertextShape { level, components }: CiphertextShape,
    count: usize,
) -> Result<()> {
    let (basis, n) = (params.basis(), params.n());
    let small = Shape { limbs: params.chain(level), values: 1, components, lanes: n };
    let dropped = small.limbs[level - count..].to_vec();
    let sample = residues(basis, &small);
    let operand = |values| {
        let shape = Shape { values, ..small.clone() };
        backend.upload(shape.clone(), &repeated(&small, &sample, &shape))
    };
    let values = bench.size([1, usize::MAX], small.bytes(), |values| {
        let x = operand(values)?;
        seconds(backend, || backend.mod_down(&x, &dropped).map(drop))
    })?;
    let reference = Reference::new(basis.clone());
    let expected = reference.mod_down(&reference.upload(small.clone(), &sample)?, &dropped)?;
    let x = operand(values)?;
    let out = backend.mod_down(&x, &dropped)?;
    check(backend, "mod_down", &out, reference.shape(&expected), expected.residues())?;
    let work = Work {
        kernel: "mod_down",
        shape: format!("N = {n}, {level} limbs to {}, {values} x {components} at once", level - count),
        items: values as u64,
        item: "ciphertext",
        bytes: backend.shape(&x).bytes() + backend.shape(&out).bytes(),
        arithmetic: None,
    };
    bench.measure(backend, work, || backend.mod_down(&x, &dropped).map(drop))
}

fn unpack_and_expand<B: Measured>(bench: &mut Bench<'_>, backend: &B, params: &Params, level: usize) -> Result<()> {
    let (basis, n) = (params.basis(), params.n());
    let reference = Reference::new(basis.clone());
    let shape = |values| Shape { limbs: params.chain(level), values, components: 1, lanes: n };
    let small = shape(1);
    let packed = |values| -> Result<(Vec<u32>, Vec<u8>)> {
        let sample = repeated(&small, &residues(basis, &small), &shape(values));
        let packed = reference.pack(&reference.upload(shape(values), &sample)?, 0)?;
        Ok((sample, packed))
    };
    let values = bench.size([1, usize::MAX], small.bytes(), |values| {
        let (_, packed) = packed(values)?;
        let mut x = backend.zeros(shape(values))?;
        seconds(backend, || backend.unpack(&packed, &mut x, 0).map(drop))
    })?;
    let (sample, packed) = packed(values)?;
    let mut x = backend.zeros(shape(values))?;
    backend.unpack(&packed, &mut x, 0)?;
    check(backend, "unpack", &x, &shape(values), &sample)?;
    let (bits, residues) = (basis.modulus(0).bits(), shape(values).len() as u64);
    let name = format!("N = {n}, {level} x {bits} bits, {values} at once");
    let bytes = packed_len(basis, &shape(values)) as u64 + 4 * residues;
    let (items, item, arithmetic) = (values as u64, "value", None);
    let work = Work { kernel: "unpack", shape: name.clone(), items, item, bytes, arithmetic };
    bench.measure(backend, work, || backend.unpack(&packed, &mut x, 0).map(drop))?;

    let source = UniformPurpose::Ciphertext.source(params, &[7; 32]);
    backend.expand(&source, 5, &mut x, 0)?;
    let mut expected = reference.zeros(shape(values))?;
    reference.expand(&source, 5, &mut expected, 0)?;
    check(backend, "expand", &x, &shape(values), expected.residues())?;
    let work = Work { kernel: "expand", shape: name, items, item, bytes: 4 * residues, arithmetic: None };
    bench.measure(backend, work, || backend.expand(&source, 5, &mut x, 0))
}
