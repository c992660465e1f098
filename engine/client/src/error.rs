//! What can go wrong on the client's side.

use cryptodl_core::ckks::{EncryptionKind, RandomError, SpecError};

/// Why a key, a ciphertext or a result could not be made.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ClientError {
    /// Whoever watches has ended it.
    #[error(transparent)]
    Cancelled(#[from] cryptodl_core::watch::Cancelled),
    /// No randomness.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// A layout that the parameters do not allow.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// Things of different parameters meet.
    #[error("{what} belongs to other parameters than the client spec: make it from the same spec")]
    OtherParams {
        /// What does not fit.
        what: &'static str,
    },
    /// Not the coefficients of a secret key.
    #[error("a secret key has {expected} coefficients, each -1, 0 or 1: {reason}")]
    SecretKey {
        /// Ring dimension.
        expected: usize,
        /// What was found instead; never a coefficient.
        reason: String,
    },
    /// The key is of the kind that the spec does not name.
    #[error("the client spec asks for encryption with the {} key", kind_name(*.expected))]
    EncryptionKind {
        /// What the spec asks for.
        expected: EncryptionKind,
    },
    /// An empty batch.
    #[error("no images: at least one is needed")]
    NoImages,
    /// Not the pixels of the stated number of images.
    #[error("{count} images of {pixels} pixel values each are expected, but there are {actual} values")]
    ImageSize {
        /// Images stated.
        count: usize,
        /// Values of one image.
        pixels: usize,
        /// Values given.
        actual: usize,
    },
    /// More images than the objects of one seed.
    #[error("{count} images at a time are too many: at most {allowed}")]
    TooManyImages {
        /// Images given.
        count: usize,
        /// Images allowed.
        allowed: usize,
    },
    /// A pixel outside the declared range, which would spoil the images that share its ciphertext.
    #[error("image {image}, pixel {pixel}: {value} is not allowed: {low} to {high}")]
    Pixel {
        /// Which image, from 0.
        image: usize,
        /// Which value of it, in channel, row, column order, from 0.
        pixel: usize,
        /// What it holds.
        value: f32,
        /// Least value allowed.
        low: f64,
        /// Largest value allowed.
        high: f64,
    },
    /// Ciphertexts of another shape than the result of the spec.
    #[error("the ciphertexts have {field} = {actual}: {expected} expected")]
    Shape {
        /// Which property.
        field: &'static str,
        /// What it is.
        actual: usize,
        /// What it must be.
        expected: String,
    },
    /// A set of the wrong length.
    #[error("ciphertext set {set} has {actual} bytes: {expected} expected")]
    SetLength {
        /// Which set, from 0.
        set: usize,
        /// Bytes found.
        actual: usize,
        /// Bytes expected.
        expected: usize,
    },
    /// A residue that is not below its prime.
    #[error(
        "ciphertext set {set}, value {value}, component {component}, limb {limb}: a residue is not below its prime {q}"
    )]
    Residue {
        /// Which set, from 0.
        set: usize,
        /// Which ciphertext of the set.
        value: usize,
        /// Which component.
        component: usize,
        /// Which limb.
        limb: usize,
        /// The prime.
        q: u32,
    },
    /// No room for one set.
    #[error(
        "no memory for {bytes} bytes of one ciphertext set: use a machine with more, or check where the spec comes from"
    )]
    OutOfMemory {
        /// Bytes of one set, or of its slots.
        bytes: usize,
    },
    /// A result that cannot be a result.
    #[error(
        "set {set} (images {first} to {last}) is spoilt: {exceeding} of its slots have a score of class {class} beyond {bound}, four times the calibrated range. Was it encrypted with another key, or damaged on the way? If not, its images are unlike those that the model was made for"
    )]
    Spoilt {
        /// Which set, from 0.
        set: usize,
        /// First image of the set.
        first: usize,
        /// Last image of the set.
        last: usize,
        /// The class with the most such scores.
        class: usize,
        /// Its slots beyond the bound.
        exceeding: usize,
        /// The bound.
        bound: f64,
    },
}

fn kind_name(kind: EncryptionKind) -> &'static str {
    match kind {
        EncryptionKind::Secret => "secret",
        EncryptionKind::Public => "public",
    }
}
