//! Running the binary, and real images for it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::LazyLock;

use serde_json::Value;
use tempfile::TempDir;

/// A model whose Program is small and quick.
pub const SMALL: &str = "mnist-1-square";

/// The binary with `arguments`, split at spaces.
pub fn command(folder: &Path, arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cryptodl"));
    command.current_dir(folder).args(arguments.split_whitespace());
    command
}

/// Runs the binary, which must succeed, and returns stdout.
pub fn succeed(folder: &Path, arguments: &str) -> String {
    let Output { status, stdout, stderr } = command(folder, arguments).output().expect("the binary starts");
    let stderr = String::from_utf8_lossy(&stderr);
    assert!(status.success(), "cryptodl {arguments}: {status}\n{stderr}");
    String::from_utf8(stdout).expect("text")
}

/// Runs the binary, which must fail with exit code `code` and without a panic, and returns stderr.
pub fn fail(folder: &Path, arguments: &str, code: i32) -> String {
    failure(command(folder, arguments), code)
}

/// As [`fail`], for a command that is not plain.
pub fn failure(mut command: Command, code: i32) -> String {
    let Output { status, stdout, stderr } = command.output().expect("the binary starts");
    let stderr = String::from_utf8(stderr).expect("text");
    assert_eq!(status.code(), Some(code), "{command:?}: {status}\n{stderr}");
    assert!(!stderr.contains("panicked"), "{command:?}\n{stderr}");
    assert!(stdout.is_empty(), "{command:?} printed {}", String::from_utf8_lossy(&stdout));
    stderr
}

/// Runs the binary with `--json -` and returns what it prints, which must be JSON and nothing else.
pub fn json(folder: &Path, arguments: &str) -> Value {
    serde_json::from_str(&succeed(folder, &format!("{arguments} --json -"))).expect("JSON and nothing else")
}

/// The folder of the real MNIST files.
pub fn mnist() -> &'static Path {
    static FOLDER: LazyLock<PathBuf> =
        LazyLock::new(|| PathBuf::from(succeed(Path::new("."), "data fetch mnist").trim_end()));
    &FOLDER
}

/// A folder with the first `count` test images as `digits.idx` and their labels as `labels.idx`.
pub fn digits(count: usize) -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (from, to, header, size) in
        [("t10k-images-idx3-ubyte", "digits.idx", 16, 784), ("t10k-labels-idx1-ubyte", "labels.idx", 8, 1)]
    {
        let mut bytes = std::fs::read(mnist().join(from)).expect("MNIST was fetched");
        bytes.truncate(header + count * size);
        bytes[4..8].copy_from_slice(&(count as u32).to_be_bytes());
        std::fs::write(folder.path().join(to), bytes).expect("a temporary file");
    }
    folder
}

/// The pixels of a folder made by [`digits`], one image after the other.
pub fn pixels(folder: &Path) -> Vec<u8> {
    std::fs::read(folder.join("digits.idx")).expect("digits")[16..].to_vec()
}

/// A PNG file of 28 x 28 grey pixels.
pub fn png(pixels: &[u8]) -> Vec<u8> {
    png_of(png::ColorType::Grayscale, png::BitDepth::Eight, pixels)
}

/// A PNG file of 28 x 28 pixels, which are of this kind.
pub fn png_of(colour: png::ColorType, depth: png::BitDepth, pixels: &[u8]) -> Vec<u8> {
    square_png(28, colour, depth, pixels)
}

/// A PNG file of `side` x `side` pixels, which are of this kind.
pub fn square_png(side: u32, colour: png::ColorType, depth: png::BitDepth, pixels: &[u8]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, side, side);
    encoder.set_color(colour);
    encoder.set_depth(depth);
    let mut writer = encoder.write_header().expect("a valid header");
    writer.write_image_data(pixels).expect("as many pixels");
    writer.finish().expect("written");
    file
}

/// The labels in a `.csv` that the binary wrote.
pub fn labels(path: &Path) -> Vec<u32> {
    let text = std::fs::read_to_string(path).expect("a written file");
    let label = |line: &str| line.split(',').nth(1).and_then(|label| label.parse().ok()).expect("index,label,...");
    text.lines().skip(1).map(label).collect()
}

/// Share of equal labels.
pub fn agreement(a: &[u32], b: &[u32]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).filter(|(a, b)| a == b).count() as f64 / a.len() as f64
}

/// Names in a folder, sorted, hidden ones too.
pub fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
