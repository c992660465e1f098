//! What a client must know of a Program: everything but the model.

use serde::{Deserialize, Serialize};

use super::{EvalKeyLayout, Packing, ParamsSpec, RelinLayout, Scale};

/// Who encrypts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EncryptionKind {
    /// The data owner, with the secret key: only c0 and a seed travel.
    #[default]
    Secret,
    /// A third party, with the public key over `Q P`, divided by `P`.
    Public,
}

/// The public description of a Program for its clients. It may come from a stranger, so everything
/// that computes takes the [`CheckedSpec`](super::CheckedSpec) that [`ClientSpec::check`] makes of
/// it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientSpec {
    /// Name of the model, for people.
    pub model: String,
    /// Names of the classes, for people: one for each, or none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub class_names: Vec<String>,
    /// BLAKE3 digest of the Program, lower-case hexadecimal.
    pub program: Digest,
    /// Ring, chain, special primes and security level.
    pub params: ParamsSpec,
    /// Evaluation keys to make, at most one of each kind.
    pub evaluation_keys: Vec<EvalKeyLayout>,
    /// How images are encrypted.
    pub encryption: EncryptionKind,
    /// Images.
    pub input: InputLayout,
    /// Scores.
    pub output: OutputLayout,
}

impl ClientSpec {
    /// The relinearisation key to make, or none.
    pub fn relin(&self) -> Option<RelinLayout> {
        self.evaluation_keys.iter().find_map(|layout| layout.as_relin())
    }

    /// The name of the class with this label, if classes have names.
    pub fn class_name(&self, label: u32) -> Option<&str> {
        self.class_names.get(label as usize).map(String::as_str)
    }
}

/// How images become ciphertexts: value `v` is pixel `v` in channel, row, column order. Spread, slot `i` is image `i` of the set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputLayout {
    /// Where the values of an image may lie.
    pub packing: Packing,
    /// Channels (gray, or R, G, B), height, width.
    pub shape: [usize; 3],
    /// Pixel values allowed; an 8-bit pixel `p` is `range[0] + p / 255 (range[1] - range[0])`.
    pub range: [f64; 2],
    /// Scale of the encoding.
    pub scale: Scale,
    /// Chain limbs of a fresh ciphertext.
    pub level: usize,
}

/// A scale in two parts: that of the encoder, and a power of two.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Encoding {
    /// Scale of the encoder.
    pub scale: Scale,
    /// Bits by which the encoder's integers are then shifted to the left. There are some only at
    /// scales so large that a flood is to hide the noise: pixels have fewer digits than that.
    pub shift: u32,
}

impl InputLayout {
    /// How pixels become integers at [`Self::scale`]. Integers of the encoder are exact below 2^52.
    pub fn encoding(&self) -> Encoding {
        const MAX_LOG2_ENCODED: i32 = 51;
        let largest = self.scale.value() * self.range[0].abs().max(self.range[1].abs());
        // largest < 2^exponent.
        let (_, exponent) = libm::frexp(largest);
        let shift = (exponent - MAX_LOG2_ENCODED).max(0) as u32;
        Encoding { scale: self.scale.times(libm::ldexp(1.0, -(shift as i32))), shift }
    }
}

/// How a result is read. Spread, value `c` is the score of class `c`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutputLayout {
    /// Where the scores of images lie that are packed compactly themselves ([`Packing::of_scores`]).
    pub packing: Packing,
    /// Number of classes.
    pub classes: usize,
    /// Components of a result.
    pub components: usize,
    /// Chain limbs of a result.
    pub level: usize,
    /// Scale of the scores.
    pub scale: Scale,
    /// Calibrated range of the scores.
    pub range: [f64; 2],
    /// Predicted noise of a score (rms), which bounds the digits worth reporting.
    pub noise: f64,
}

/// A 256-bit digest, in text as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The first 16 digits, for people: enough to tell files apart.
    pub fn short(&self) -> String {
        self.to_string().chars().take(16).collect()
    }
}

impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::fmt::Debug for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.to_string()
    }
}

impl TryFrom<String> for Digest {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let digest = blake3::Hash::from_hex(&text).map_err(|_| "a digest is 64 hexadecimal digits".to_string())?;
        Ok(Digest(digest.into()))
    }
}
