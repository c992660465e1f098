//! Composes, validates and reflects the kernels. See the crate's documentation.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

use naga::valid::{Capabilities, ValidationFlags, Validator};
use naga::{AddressSpace, Constant, Expression, Literal, Module, ScalarKind, StorageAccess, TypeInner};

/// Workgroup memory that every WebGPU adapter has.
const WORKGROUP_MEMORY: u32 = 16384;

/// The alternatives of a kernel: `Multiply` and its shared file, `Dot` and its shared file.
const VARIANTS: [[(&str, &str); 2]; 4] = [
    [("U64", "multiply_u64"), ("Packed", "dot_packed")],
    [("U64", "multiply_u64"), ("Integer", "dot_integer")],
    [("Portable", "multiply_portable"), ("Packed", "dot_packed")],
    [("Portable", "multiply_portable"), ("Integer", "dot_integer")],
];

/// A kernel: file, the shared files before it (`multiply` and `dot` stand for the variant's), the Rust twin of its `Params`.
type Recipe = (&'static str, &'static [&'static str], &'static str);

#[rustfmt::skip]
const KERNELS: [Recipe; 20] = [
    ("add_constant", &["tensor", "residues", "elementwise"], "Elementwise"),
    ("scale", &["tensor", "multiply", "residues", "reduction", "elementwise"], "Elementwise"),
    ("add", &["tensor", "residues", "elementwise"], "Elementwise"),
    ("accumulate", &["tensor", "multiply", "residues", "reduction", "elementwise"], "Elementwise"),
    ("subtract_scale", &["tensor", "multiply", "residues", "reduction", "elementwise"], "Elementwise"),
    ("copy", &["tensor", "elementwise"], "Elementwise"),
    ("multiply", &["tensor", "multiply", "residues", "reduction"], "Multiply"),
    ("horner", &["tensor", "multiply", "residues", "reduction"], "Horner"),
    ("accumulate_key", &["tensor", "multiply", "residues", "reduction"], "AccumulateKey"),
    ("linear", &["tensor", "multiply", "residues", "reduction", "dot"], "Linear"),
    ("convert_basis", &["tensor", "multiply", "residues", "reduction"], "Convert"),
    ("prime_digit", &["tensor"], "PrimeDigit"),
    ("automorphism", &["tensor"], "Automorphism"),
    ("ntt_forward_columns", &["tensor", "multiply", "residues", "reduction", "ntt", "ntt_columns"], "Ntt"),
    ("ntt_forward_rows", &["tensor", "multiply", "residues", "reduction", "ntt", "ntt_rows"], "Ntt"),
    ("ntt_inverse_rows", &["tensor", "multiply", "residues", "reduction", "ntt", "ntt_rows"], "Ntt"),
    ("ntt_inverse_columns", &["tensor", "multiply", "residues", "reduction", "ntt", "ntt_columns"], "Ntt"),
    ("unpack", &["tensor", "packing"], "Packing"),
    ("pack", &["tensor", "packing"], "Packing"),
    ("expand", &["tensor", "chacha"], "Expand"),
];

/// What a device allows; no part of any computation.
const CEILINGS: [Recipe; 3] = [
    ("ceiling_copy", &[], "Ceiling"),
    ("ceiling_multiply_add", &["ceiling"], "Ceiling"),
    ("ceiling_dot", &["ceiling"], "Ceiling"),
];

fn main() {
    println!("cargo::rerun-if-changed=src/kernels");
    println!("cargo::rerun-if-changed=src/shared");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    let mut generated = String::new();
    let mut layouts = String::new();
    let mut constants = String::new();
    for (name, shared, params) in KERNELS.into_iter().chain(CEILINGS) {
        let kernel = Kernel::compose(name, shared, &out);
        kernel.declare(&mut generated);
        kernel.list_constants(&mut constants);
        assert_layout(kernel.module(), "Params", params, &mut layouts);
        assert_layout(kernel.module(), "View", "View", &mut layouts);
        assert_layout(kernel.module(), "Limb", "Limb", &mut layouts);
    }
    for (list, about, recipes) in [
        ("KERNELS", "Every kernel of a computation.", &KERNELS[..]),
        ("CEILINGS", "Loops that find out what a device allows.", &CEILINGS[..]),
    ] {
        let names: Vec<String> = recipes.iter().map(|(name, ..)| format!("&{}", name.to_uppercase())).collect();
        let (count, names) = (names.len(), names.join(", "));
        writeln!(generated, "/// {about}\npub static {list}: [&Kernel; {count}] = [{names}];").expect("strings grow");
    }
    let variants = VARIANTS
        .map(|[(multiply, _), (dot, _)]| format!("Variant {{ multiply: Multiply::{multiply}, dot: Dot::{dot} }}"));
    writeln!(
        generated,
        "impl Variant {{\n    /// All of them.\n    pub const ALL: [Variant; {}] = [{}];\n}}",
        variants.len(),
        variants.join(", ")
    )
    .expect("strings grow");
    writeln!(generated, "const _: () = {{\n{layouts}}};").expect("strings grow");
    fs::write(out.join("constants.rs"), constants).expect("OUT_DIR is writable");
    fs::write(out.join("kernels.rs"), generated).expect("OUT_DIR is writable");
}

/// A kernel whose variants are all valid.
struct Kernel {
    name: &'static str,
    /// The kernel's own comment, for its documentation.
    about: String,
    /// Files of the variants' sources.
    files: [String; VARIANTS.len()],
    /// The variants by file; all have the same interface.
    modules: BTreeMap<String, Module>,
}

impl Kernel {
    fn compose(name: &'static str, shared: &[&str], out: &Path) -> Self {
        let own = read(&format!("kernels/{name}"));
        let about: Vec<&str> = own.lines().map_while(|line| line.strip_prefix("//")).map(str::trim).collect();
        let mut modules = BTreeMap::new();
        let files = VARIANTS.map(|[(_, multiply), (_, dot)]| {
            let mut file = name.to_string();
            let mut source = String::new();
            for part in shared {
                let part = match *part {
                    "multiply" => multiply,
                    "dot" => dot,
                    other => other,
                };
                if [multiply, dot].contains(&part) {
                    write!(file, "-{part}").expect("strings grow");
                }
                source += &read(&format!("shared/{part}"));
            }
            source += &own;
            file += ".wgsl";
            let path = out.join(&file);
            fs::write(&path, &source).expect("OUT_DIR is writable");
            modules.entry(file.clone()).or_insert_with(|| validate(&path, &source, file.contains("u64")));
            file
        });
        let interfaces: Vec<String> = modules.values().map(|module| format!("{:?}", interface(module))).collect();
        assert!(interfaces.iter().all(|i| *i == interfaces[0]), "{name}: the variants have different interfaces");
        Kernel { name, about: about.join("\n"), files, modules }
    }

    fn module(&self) -> &Module {
        &self.modules[&self.files[0]]
    }

    /// Writes the shader's own `const`s of type `u32`; those that differ between variants as an array in the variants' order.
    fn list_constants(&self, to: &mut String) {
        let of = |file: &String| -> BTreeMap<String, u32> {
            let module = &self.modules[file];
            let value = |constant: &Constant| match module.global_expressions[constant.init] {
                Expression::Literal(Literal::U32(value)) => Some((constant.name.clone()?, value)),
                _ => None,
            };
            module.constants.iter().filter_map(|(_, constant)| value(constant)).collect()
        };
        let variants = self.files.each_ref().map(of);
        if variants[0].is_empty() {
            return;
        }
        writeln!(to, "/// Of `{0}`.\npub mod {0} {{", self.name).expect("strings grow");
        for (name, value) in &variants[0] {
            let values = variants.each_ref().map(|constants| constants[name]);
            let item = match values.iter().all(|other| other == value) {
                true => format!("u32 = {value}"),
                false => format!("[u32; {}] = {values:?}", values.len()),
            };
            writeln!(to, "    /// `{name}`.\n    pub const {name}: {item};").expect("strings grow");
        }
        writeln!(to, "}}").expect("strings grow");
    }

    /// Writes the static `Kernel`.
    fn declare(&self, to: &mut String) {
        let Kernel { name, about, files, .. } = self;
        let module = self.module();
        let bindings: Vec<String> = interface(module).iter().map(|(_, kind)| format!("Binding::{kind}")).collect();
        let list = interface(module);
        let numbered: Vec<String> =
            list.iter().enumerate().map(|(i, (name, kind))| format!("{i} `{name}` {kind}")).collect();
        let overrides: Vec<_> = module.overrides.iter().filter_map(|(_, o)| o.name.as_deref()).collect();
        let workgroup = workgroup_size(module);
        let memory = workgroup_memory(module);
        assert!(memory <= WORKGROUP_MEMORY, "{name}: {memory} bytes of workgroup memory");
        let params = span(module, "Params");
        let sources = files.each_ref().map(|file| format!("include_str!(concat!(env!(\"OUT_DIR\"), \"/{file}\"))"));
        // One static per distinct source, so that equal variants are the same string.
        let mut distinct = BTreeMap::new();
        for (file, source) in files.iter().zip(&sources) {
            let next = distinct.len();
            distinct.entry(file).or_insert((next, source));
        }
        let statics: String =
            distinct.values().map(|(i, source)| format!("static SOURCE_{i}: &str = {source};\n")).collect();
        let used: Vec<String> = files.iter().map(|file| format!("SOURCE_{}", distinct[file].0)).collect();
        writeln!(
            to,
            "#[doc = {about:?}]\n///\n/// Bindings: {}.\npub static {}: Kernel = {{\n{statics}Kernel {{ name: {name:?}, \
             bindings: &[{}], params_size: {params}, workgroup: {workgroup:?}, workgroup_memory: {memory}, \
             overrides: &{overrides:?}, sources: [{}] }}\n}};\n",
            numbered.join(", "),
            name.to_uppercase(),
            bindings.join(", "),
            used.join(", "),
        )
        .expect("strings grow");
    }
}

fn read(stem: &str) -> String {
    let path = format!("src/{stem}.wgsl");
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn validate(path: &Path, source: &str, int64: bool) -> Module {
    let path = path.display().to_string();
    let module = naga::front::wgsl::parse_str(source)
        .unwrap_or_else(|error| panic!("{}", error.emit_to_string_with_path(source, &path)));
    let capabilities = if int64 { Capabilities::SHADER_INT64 } else { Capabilities::empty() };
    if let Err(error) = Validator::new(ValidationFlags::all(), capabilities).validate(&module) {
        panic!("{}", error.emit_to_string_with_path(source, &path));
    }
    assert!(module.entry_points.len() == 1 && module.entry_points[0].name == "main", "one entry point `main`");
    module
}

/// Names and kinds of the bindings in order.
fn interface(module: &Module) -> Vec<(String, &'static str)> {
    let mut found = BTreeMap::new();
    for (_, variable) in module.global_variables.iter() {
        let Some(at) = variable.binding else { continue };
        let kind = match variable.space {
            AddressSpace::Uniform => "Uniform",
            AddressSpace::Storage { access } if access.contains(StorageAccess::STORE) => "ReadWrite",
            AddressSpace::Storage { .. } => "ReadOnly",
            other => panic!("a binding in {other:?}"),
        };
        assert_eq!(at.group, 0, "one bind group");
        found.insert(at.binding, (variable.name.clone().expect("bindings have names"), kind));
    }
    assert!(found.keys().copied().eq(0..found.len() as u32), "bindings are numbered without gaps: {found:?}");
    found.into_values().collect()
}

/// Threads of a workgroup along each axis, overrides at their defaults.
fn workgroup_size(module: &Module) -> [u32; 3] {
    let entry = &module.entry_points[0];
    let overridden = entry.workgroup_size_overrides.unwrap_or_default();
    std::array::from_fn(|axis| match overridden[axis].map(|handle| &module.global_expressions[handle]) {
        None => entry.workgroup_size[axis],
        Some(&Expression::Override(handle)) => {
            match module.overrides[handle].init.map(|handle| &module.global_expressions[handle]) {
                Some(&Expression::Literal(Literal::U32(size))) => size,
                other => panic!("workgroup size {other:?}"),
            }
        }
        Some(other) => panic!("workgroup size {other:?}"),
    })
}

fn workgroup_memory(module: &Module) -> u32 {
    let mut layouter = naga::proc::Layouter::default();
    layouter.update(module.to_ctx()).expect("validated");
    let variables = module.global_variables.iter().filter(|(_, v)| v.space == AddressSpace::WorkGroup);
    variables.map(|(_, v)| layouter[v.ty].size).sum()
}

/// Members' names, types and offsets, and the size, of a struct if the module has it.
fn members<'a>(module: &'a Module, name: &str) -> Option<(&'a [naga::StructMember], u32)> {
    module.types.iter().find_map(|(_, ty)| match &ty.inner {
        TypeInner::Struct { members, span } if ty.name.as_deref() == Some(name) => Some((&members[..], *span)),
        _ => None,
    })
}

fn span(module: &Module, name: &str) -> u32 {
    members(module, name).unwrap_or_else(|| panic!("no struct {name}")).1
}

/// Writes assertions that the Rust struct `twin` has the members, offsets and size of the WGSL struct `name`.
fn assert_layout(module: &Module, name: &str, twin: &str, to: &mut String) {
    let Some((members, size)) = members(module, name) else { return };
    let mut line = |text: String| writeln!(to, "    {text}").expect("strings grow");
    line(format!("assert!(size_of::<crate::params::{twin}>() == {size});"));
    for member in members {
        let field = member.name.as_deref().expect("members have names");
        line(format!("assert!(std::mem::offset_of!(crate::params::{twin}, {field}) == {});", member.offset));
        let scalar = match module.types[member.ty].inner {
            TypeInner::Scalar(scalar) | TypeInner::Vector { scalar, .. } => Some(scalar),
            _ => None,
        };
        assert!(scalar.is_none_or(|s| s.kind == ScalarKind::Uint && s.width == 4), "{name}.{field} is not of u32");
    }
}
