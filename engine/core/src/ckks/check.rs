//! The checks of a [`ClientSpec`], which may come from a stranger.

use std::ops::Deref;

use super::{ClientSpec, EncryptionKind, EvalKeyLayout, Packing, Params, ParamsError, RelinLayout, Scale};
use crate::ring::{MAX_MODULUS_BITS, MAX_PARTS, PrimeDigit};

/// Largest height and width of an image.
pub const MAX_SIDE: usize = 4096;
/// Largest number of channels.
pub const MAX_CHANNELS: usize = 64;
/// Largest number of pixel values of an image.
pub const MAX_PIXELS: usize = 1 << 20;
/// Largest number of classes.
pub const MAX_CLASSES: usize = 1 << 16;
/// Largest number of components of a ciphertext.
pub const MAX_COMPONENTS: usize = 16;
/// Largest number of chain primes in a digit of a relinearisation key.
pub const MAX_DIGIT_PRIMES: usize = 4;

/// Largest magnitude of a pixel, of a score, or of a score's noise.
const MAX_RANGE: f64 = 1e6;
/// Longest name of a model or of a class, in bytes.
const MAX_NAME: usize = 200;
/// Most bytes of the names of all classes together.
const MAX_CLASS_NAMES: usize = 1 << 16;
/// Smallest ring dimension of the security table.
pub const MIN_SECURE_DIMENSION: usize = 1024;
/// A value may be this many times its calibrated range before it wraps (docs/scheme.md, "Slots and
/// encoding").
pub const HEADROOM: f64 = 4.0;

/// Why a client spec is refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SpecError {
    /// A field holds what it must not.
    #[error("{field} = {value} is not allowed: {allowed}")]
    Field {
        /// Path of the field.
        field: &'static str,
        /// What it holds.
        value: String,
        /// What it may hold.
        allowed: String,
    },
    /// The ring is refused.
    #[error("params: {0}")]
    Params(#[from] ParamsError),
}

/// A [`ClientSpec`] that has been checked, with its ring. Outside tests [`ClientSpec::check`] is the
/// only way to one, and it cannot be changed, so whoever holds it need not check again.
#[derive(Clone, Debug)]
pub struct CheckedSpec {
    spec: ClientSpec,
    params: Params,
}

impl CheckedSpec {
    /// The parameters that the spec states, with their tables.
    pub fn params(&self) -> &Params {
        &self.params
    }
}

impl Deref for CheckedSpec {
    type Target = ClientSpec;

    fn deref(&self) -> &ClientSpec {
        &self.spec
    }
}

impl ClientSpec {
    /// Checks every field, and builds the ring: nothing in the spec is believed. The parameters meet the security level that
    /// the spec states, and at least 128 bits.
    ///
    /// # Errors
    /// The first field that is refused, with what is allowed.
    pub fn check(self) -> Result<CheckedSpec, SpecError> {
        let n = self.params.n;
        require(n >= MIN_SECURE_DIMENSION, "params.n", n, || format!("at least {MIN_SECURE_DIMENSION}"))?;
        let params = self.params.clone().build()?;
        self.check_with(params)
    }

    /// Like [`Self::check`] with any ring dimension and without the security table: for tests.
    ///
    /// # Errors
    /// As for [`Self::check`].
    pub fn check_insecure_for_tests(self) -> Result<CheckedSpec, SpecError> {
        let params = self.params.clone().build_insecure_for_tests()?;
        self.check_with(params)
    }

    fn check_with(self, params: Params) -> Result<CheckedSpec, SpecError> {
        let name_fits = self.model.len() <= MAX_NAME && !self.model.chars().any(char::is_control);
        require(name_fits, "model", format!("{:.20?}...", self.model), || {
            format!("at most {MAX_NAME} bytes without control characters")
        })?;
        self.check_input(&params)?;
        self.check_output(&params)?;
        self.check_class_names()?;
        for (i, layout) in self.evaluation_keys.iter().enumerate() {
            layout.check(&params)?;
            // A Program needs no two keys that switch the same: it would not know which one to
            // take.
            let twin = self.evaluation_keys[..i].iter().any(|other| other.is_twin(*layout));
            require(!twin, "evaluation_keys", layout, || "at most one key that switches the same".into())?;
        }
        let divisible = self.encryption == EncryptionKind::Secret || !params.special().is_empty();
        require(divisible, "encryption", "public", || "public-key encryption needs params.special_primes".into())?;
        Ok(CheckedSpec { spec: self, params })
    }

    fn check_input(&self, params: &Params) -> Result<(), SpecError> {
        let input = &self.input;
        let [channels, height, width] = input.shape;
        require((1..=MAX_CHANNELS).contains(&channels), "input.shape[0]", channels, || {
            format!("1 to {MAX_CHANNELS} channels")
        })?;
        for (field, side) in [("input.shape[1]", height), ("input.shape[2]", width)] {
            require((1..=MAX_SIDE).contains(&side), field, side, || format!("1 to {MAX_SIDE} pixels"))?;
        }
        let pixels = channels * height * width;
        require(pixels <= MAX_PIXELS, "input.shape", pixels, || format!("at most {MAX_PIXELS} values in all"))?;
        check_level("input.level", input.level, params)?;
        self.check_packing(params)?;
        let bound = check_range("input.range", input.range)?;
        check_headroom("input.scale", input.scale, bound, input.level, params)
    }

    /// A compact packing has leaves, not more than slots, and a key for every automorphism that it takes, for the input's level.
    fn check_packing(&self, params: &Params) -> Result<(), SpecError> {
        let Packing::Compact(log_leaves) = self.input.packing else { return Ok(()) };
        let most = params.n().trailing_zeros();
        require((1..=most).contains(&log_leaves), "input.packing", log_leaves, || format!("1 to {most}"))?;
        for automorphism in self.input.packing.automorphisms(params.n()) {
            let serves = |layout: &EvalKeyLayout| {
                layout.element() == automorphism.element() && layout.digits().level >= self.input.level
            };
            require(self.evaluation_keys.iter().any(serves), "input.packing", self.input.packing, || {
                format!(
                    "it needs an evaluation key for X -> X^{} at level {}",
                    automorphism.element(),
                    self.input.level
                )
            })?;
        }
        Ok(())
    }

    fn check_output(&self, params: &Params) -> Result<(), SpecError> {
        let output = &self.output;
        require((1..=MAX_CLASSES).contains(&output.classes), "output.classes", output.classes, || {
            format!("1 to {MAX_CLASSES}")
        })?;
        require((2..=MAX_COMPONENTS).contains(&output.components), "output.components", output.components, || {
            format!("2 to {MAX_COMPONENTS}")
        })?;
        // As many copies of an image as fit.
        if let Packing::Compact(log) = output.packing {
            let log_n = params.n().trailing_zeros();
            let most = match self.input.packing {
                Packing::Spread => 0,
                Packing::Compact(log_leaves) => log_n - log_leaves,
            };
            require((1..=most).contains(&log), "output.packing", log, || format!("\"spread\", or 1 to {most}"))?;
        }
        check_level("output.level", output.level, params)?;
        let bound = check_range("output.range", output.range)?;
        check_headroom("output.scale", output.scale, bound, output.level, params)?;
        require((0.0..=MAX_RANGE).contains(&output.noise), "output.noise", output.noise, || {
            format!("a number from 0 to {MAX_RANGE}")
        })
    }
}

impl ClientSpec {
    /// Names of classes are one for each class or none, and each is one line that steers neither a terminal nor a
    /// spreadsheet.
    fn check_class_names(&self) -> Result<(), SpecError> {
        let (names, classes) = (&self.class_names, self.output.classes);
        require(names.is_empty() || names.len() == classes, "class_names", format!("{} names", names.len()), || {
            format!("none, or one for each of the {classes} classes")
        })?;
        let bytes = names.iter().map(String::len).sum::<usize>();
        require(bytes <= MAX_CLASS_NAMES, "class_names", format!("{bytes} bytes in all"), || {
            format!("at most {MAX_CLASS_NAMES}")
        })?;
        let refused = names.iter().find(|name| !is_class_name(name));
        refused.map_or(Ok(()), |name| {
            require(false, "class_names", format!("{:?}", name.chars().take(20).collect::<String>()), || {
                format!(
                    "1 to {MAX_NAME} bytes without control characters and marks of direction, with no space at either \
                     end, and not starting with =, +, - or @, which spreadsheets take for a formula"
                )
            })
        })
    }
}

/// Whether a class may be called so.
fn is_class_name(name: &str) -> bool {
    let steers = |c: char| {
        // As in the Unicode standard, section 23.2: marks, embeddings, overrides and isolates of direction, and
        // separators of lines and paragraphs.
        c.is_control()
            || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    (1..=MAX_NAME).contains(&name.len())
        && name.trim() == name
        && !name.starts_with(['=', '+', '-', '@'])
        && !name.contains(steers)
}

impl RelinLayout {
    /// Checks that a key of this layout exists over `params` and that no digit is larger than the special product by more than
    /// a prime: a rescale can divide as much off what is left of the noise, and more would drown the result.
    ///
    /// # Errors
    /// The field that is refused.
    pub fn check(&self, params: &Params) -> Result<(), SpecError> {
        check_level("evaluation_keys.level", self.level, params)?;
        let digit_primes = self.digit_primes;
        require((1..=MAX_DIGIT_PRIMES).contains(&digit_primes), "evaluation_keys.digit_primes", digit_primes, || {
            format!("1 to {MAX_DIGIT_PRIMES}")
        })?;
        let parts = self.prime_parts;
        let fits = parts == 1 || (digit_primes == 1 && (2..=MAX_PARTS).contains(&parts));
        require(fits, "evaluation_keys.prime_parts", parts, || {
            format!("1, or with digit_primes = 1 up to {MAX_PARTS}")
        })?;
        require(!params.special().is_empty(), "evaluation_keys", "a key", || {
            "key switching needs params.special_primes".into()
        })?;
        // At most four primes of 30 bits each.
        let product = |limbs: &mut dyn Iterator<Item = usize>| -> u128 {
            limbs.map(|limb| u128::from(params.basis().modulus(limb).value())).product()
        };
        let special = product(&mut params.special().into_iter());
        let digits = 0..self.digits(self.level);
        let digit = |g| match parts {
            1 => product(&mut self.digit_limbs(g, self.level)),
            parts => 1 << PrimeDigit::new(params.basis().modulus(g / parts), 0, parts).width(),
        };
        let largest = digits.map(digit).max().unwrap_or(0);
        let least = params.basis().primes().into_iter().min().unwrap_or(0);
        require(parts == 1 || largest <= u128::from(least), "evaluation_keys.prime_parts", parts, || {
            format!("more parts: a digit of up to {largest} must be below every prime, and the least is {least}")
        })?;
        require(largest >> MAX_MODULUS_BITS <= special, "evaluation_keys.digit_primes", digit_primes, || {
            format!(
                "the special primes multiply to {special}, and a digit ({largest}) exceeds that by more than {MAX_MODULUS_BITS} bits: \
                 fewer primes per digit or more special primes"
            )
        })
    }
}

pub(super) fn require(
    allowed: bool,
    field: &'static str,
    value: impl ToString,
    rule: impl FnOnce() -> String,
) -> Result<(), SpecError> {
    if allowed { Ok(()) } else { Err(SpecError::Field { field, value: value.to_string(), allowed: rule() }) }
}

fn check_level(field: &'static str, level: usize, params: &Params) -> Result<(), SpecError> {
    let chain = params.chain_len();
    require((1..=chain).contains(&level), field, level, || format!("1 to {chain}, the length of params.primes"))
}

/// Checks a range of values and returns the largest magnitude in it.
fn check_range(field: &'static str, [low, high]: [f64; 2]) -> Result<f64, SpecError> {
    let fits = low < high && low.abs() <= MAX_RANGE && high.abs() <= MAX_RANGE;
    require(fits, field, format!("[{low}, {high}]"), || {
        format!("two finite numbers in ascending order, of magnitude at most {MAX_RANGE}")
    })?;
    Ok(low.abs().max(high.abs()))
}

/// `scale x 4 x bound < Q_level / 2`, compared as logarithms.
fn check_headroom(
    field: &'static str,
    scale: Scale,
    bound: f64,
    level: usize,
    params: &Params,
) -> Result<(), SpecError> {
    let (needed, available) = (scale.log2() + libm::log2(HEADROOM * bound), params.log_q(level) - 1.0);
    require(needed < available, field, log2_text(scale), || {
        format!(
            "4 times the range needs {needed:.1} bits at this scale, of {available:.1} that the modulus of level {level} leaves"
        )
    })
}

fn log2_text(scale: Scale) -> String {
    format!("2^{:.1}", scale.log2())
}
