//! Which kernels a machine can run.

use super::portable::Portable;

#[cfg(target_arch = "aarch64")]
use super::neon::Neon;
#[cfg(target_arch = "x86_64")]
use super::{avx2::Avx2, avx512::Avx512};

/// A family of kernels that this machine can run. All return the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernels(pub(crate) Family);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    Portable(Portable),
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2<false>),
    #[cfg(target_arch = "x86_64")]
    AvxVnni(Avx2<true>),
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
    #[cfg(target_arch = "aarch64")]
    Neon(Neon),
}

impl Kernels {
    /// Names of all families, on this machine or another.
    pub const NAMES: [&str; 5] = ["portable", "avx2", "avxvnni", "avx512", "neon"];

    /// Kernels for any machine.
    pub fn portable() -> Self {
        Kernels(Family::Portable(Portable))
    }

    /// All that this machine can run, the fastest last.
    pub fn available() -> Vec<Self> {
        let mut all = vec![Family::Portable(Portable)];
        #[cfg(target_arch = "x86_64")]
        {
            all.extend(Avx2::detect().map(Family::Avx2));
            all.extend(Avx2::detect().map(Family::AvxVnni));
            all.extend(Avx512::detect().map(Family::Avx512));
        }
        #[cfg(target_arch = "aarch64")]
        all.extend(Neon::detect().map(Family::Neon));
        all.into_iter().map(Kernels).collect()
    }

    /// The fastest that this machine can run.
    pub fn best() -> Self {
        *Self::available().last().expect("the portable kernels run everywhere")
    }

    /// The family with a name of [`Self::NAMES`], if this machine can run it.
    pub fn named(name: &str) -> Option<Self> {
        Self::available().into_iter().find(|kernels| kernels.name() == name)
    }

    /// Name.
    pub fn name(self) -> &'static str {
        match self.0 {
            Family::Portable(_) => "portable",
            #[cfg(target_arch = "x86_64")]
            Family::Avx2(_) => "avx2",
            #[cfg(target_arch = "x86_64")]
            Family::AvxVnni(_) => "avxvnni",
            #[cfg(target_arch = "x86_64")]
            Family::Avx512(_) => "avx512",
            #[cfg(target_arch = "aarch64")]
            Family::Neon(_) => "neon",
        }
    }
}

/// Evaluates an expression with `$simd` bound to the vectors of a family.
macro_rules! with_simd {
    ($kernels:expr, $simd:ident => $body:expr) => {
        match $kernels.0 {
            $crate::simd::family::Family::Portable($simd) => $body,
            #[cfg(target_arch = "x86_64")]
            $crate::simd::family::Family::Avx2($simd) => $body,
            #[cfg(target_arch = "x86_64")]
            $crate::simd::family::Family::AvxVnni($simd) => $body,
            #[cfg(target_arch = "x86_64")]
            $crate::simd::family::Family::Avx512($simd) => $body,
            #[cfg(target_arch = "aarch64")]
            $crate::simd::family::Family::Neon($simd) => $body,
        }
    };
}
pub(crate) use with_simd;
