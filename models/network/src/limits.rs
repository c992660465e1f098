//! How large a network and its files may be. Whatever is larger is refused before it takes memory.

/// Longest name of a class, in bytes.
pub const MAX_CLASS_NAME_BYTES: usize = 200;
/// Most bytes of the names of all classes together.
pub const MAX_CLASS_NAMES_BYTES: usize = 1 << 16;
/// Least share of labels that a description may allow to change: as many decimals as are shown of it.
pub const MIN_TOLERANCE: f64 = 1e-9;
/// Largest description that is read, in bytes.
pub const MAX_DESCRIPTION_BYTES: u64 = 1 << 20;
/// Largest weight file that is read, in bytes.
pub const MAX_WEIGHT_BYTES: u64 = 1 << 25;
/// Largest header of a safetensors file that is read, in bytes: it has room for several thousand tensors. What a header says
/// takes twenty times its size to hold.
pub const MAX_HEADER_BYTES: u64 = 1 << 20;
/// Most layers of a network.
pub const MAX_LAYERS: usize = 512;
/// Most operands of a layer that joins some.
pub const MAX_OPERANDS: usize = 64;
/// Largest single dimension (channels, height, width, kernel, stride, padding, dilation, features).
pub const MAX_DIMENSION: usize = 1 << 16;
/// Most coefficients of a polynomial.
pub const MAX_COEFFICIENTS: usize = 64;
/// Most values that one image may have between two layers.
pub const MAX_VALUES: usize = 1 << 18;
/// Most values of one image that may be needed at once: a layer's operands and output, and what
/// later layers read.
pub const MAX_HELD_VALUES: usize = 1 << 22;
/// Most values that all windows of a convolution or pool may hold: weights per output value times output positions.
pub const MAX_WINDOW_VALUES: u128 = 1 << 24;
/// Most images that a calibration stores for measuring weight rounding.
pub const MAX_STORED_IMAGES: usize = 256;
/// Most images whose margins and gains a calibration stores.
pub const MAX_MARGINS: usize = 1000;
/// Largest calibration file that is read, in bytes: the most images of the largest size, and 16 MiB for all else.
pub const MAX_CALIBRATION_BYTES: u64 = (MAX_STORED_IMAGES * MAX_VALUES) as u64 + (1 << 24);
/// Bins of the histogram of one channel before an activation with coefficients per channel.
pub const CHANNEL_BINS: usize = 64;
