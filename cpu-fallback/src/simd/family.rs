//! Which kernels a machine can run.

#[cfg(target_arch = "aarch64")]
use super::neon::Neon;
use super::portable::Portable;
#[cfg(target_arch = "x86_64")]
use super::{avx2::Avx2, avx512::Avx512};

/// A family of kernels that this machine can run. All return the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernels(pub(crate) Family);

/// Registers families, those that are faster later: where there may be such machines, the variant and its vectors, the name.
/// The first argument is a dollar sign, for the macro that this one makes.
macro_rules! families {
    ($dollar:tt $($(#[$machine:meta])? $variant:ident($vectors:ty) = $name:literal;)+) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Family {
            $($(#[$machine])? $variant($vectors),)+
        }

        impl Kernels {
            /// Names of all families, on this machine or another.
            pub const NAMES: [&str; [$($name),+].len()] = [$($name),+];

            /// All that this machine can run, the fastest last.
            pub fn available() -> Vec<Self> {
                let mut all = Vec::new();
                $($(#[$machine])? all.extend(<$vectors>::detect().map(Family::$variant));)+
                all.into_iter().map(Kernels).collect()
            }

            /// Name.
            pub fn name(self) -> &'static str {
                match self.0 {
                    $($(#[$machine])? Family::$variant(_) => $name,)+
                }
            }
        }

        /// Evaluates an expression with `$simd` bound to the vectors of a family.
        macro_rules! with_simd {
            ($dollar kernels:expr, $dollar simd:ident => $dollar body:expr) => {
                match $dollar kernels.0 {
                    $($(#[$machine])? $dollar crate::simd::family::Family::$variant($dollar simd) => $dollar body,)+
                }
            };
        }
        pub(crate) use with_simd;
    };
}

families! {
    $
    Portable(Portable) = "portable";
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2<false>) = "avx2";
    #[cfg(target_arch = "x86_64")]
    AvxVnni(Avx2<true>) = "avxvnni";
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512) = "avx512";
    #[cfg(target_arch = "aarch64")]
    Neon(Neon) = "neon";
}

impl Kernels {
    /// Kernels for any machine.
    pub fn portable() -> Self {
        Kernels(Family::Portable(Portable))
    }

    /// The fastest that this machine can run.
    pub fn best() -> Self {
        *Self::available().last().expect("the portable kernels run everywhere")
    }

    /// The family with a name of [`Self::NAMES`], if this machine can run it.
    pub fn named(name: &str) -> Option<Self> {
        Self::available().into_iter().find(|kernels| kernels.name() == name)
    }
}
