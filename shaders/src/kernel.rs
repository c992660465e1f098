//! The list of kernels; sources, bindings and sizes come from the build.

/// How a shader multiplies 32-bit numbers to 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Multiply {
    /// With `u64`: needs wgpu's `SHADER_INT64`.
    U64,
    /// With 16-bit halves: runs everywhere.
    Portable,
}

/// How a linear map sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dot {
    /// Four taps per packed dot product of bytes: needs an instruction for it to be fast.
    Packed,
    /// Plain 32-bit multiply-adds of 15-bit halves.
    Integer,
}

impl Multiply {
    /// For people and reports.
    pub fn name(self) -> &'static str {
        match self {
            Multiply::U64 => "64-bit integers",
            Multiply::Portable => "16-bit halves",
        }
    }
}

impl Dot {
    /// For people and reports.
    pub fn name(self) -> &'static str {
        match self {
            Dot::Packed => "packed dot products",
            Dot::Integer => "integer multiply-adds",
        }
    }
}

/// Which of the equivalent sources of a kernel to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Variant {
    /// Products.
    pub multiply: Multiply,
    /// Sums of linear maps; other kernels do not depend on it.
    pub dot: Dot,
}

/// What a binding holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Binding {
    /// A uniform struct.
    Uniform,
    /// A storage buffer that is only read.
    ReadOnly,
    /// A storage buffer that is written. It must not be bound a second time in the same dispatch.
    ReadWrite,
}

/// A compute kernel. Its entry point is [`ENTRY`].
#[derive(Debug)]
pub struct Kernel {
    /// Name, the stem of its file.
    pub name: &'static str,
    /// Bindings 0, 1, ... of group 0.
    pub bindings: &'static [Binding],
    /// Bytes of the uniform struct.
    pub params_size: u64,
    /// Threads of a workgroup, with every override at its default. `linear` multiplies y by its `ROW_GROUPS`.
    pub workgroup: [u32; 3],
    /// Bytes of workgroup memory.
    pub workgroup_memory: u32,
    /// Overrides, all `u32`. `LOG_N` (`ntt_*`) has no default.
    pub overrides: &'static [&'static str],
    /// Sources in the order of [`Variant::ALL`].
    sources: [&'static str; Variant::ALL.len()],
}

/// Entry point of every kernel.
pub const ENTRY: &str = "main";

impl Kernel {
    /// The source of a variant.
    pub fn wgsl(&self, variant: Variant) -> &'static str {
        let index = Variant::ALL.iter().position(|&v| v == variant).expect("all variants are listed");
        self.sources[index]
    }

    /// The variants that differ: one for kernels without products, two or four for others.
    pub fn variants(&self) -> impl Iterator<Item = Variant> + '_ {
        let first = |&i: &usize| (0..i).all(|j| !std::ptr::eq(self.sources[i], self.sources[j]));
        (0..Variant::ALL.len()).filter(first).map(|i| Variant::ALL[i])
    }
}

include!(concat!(env!("OUT_DIR"), "/kernels.rs"));
