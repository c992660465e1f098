//! Image files: round trips, and what damaged or unsuitable ones are refused with.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use cryptodl_data::images::{self, ImageError, ImageFile, Pixels, RawImages};
use cryptodl_network::InputSpec;
use flate2::{Compression, write::GzEncoder};
use tempfile::TempDir;

fn idx(sizes: &[u32], data: &[u8]) -> Vec<u8> {
    let sizes_bytes = sizes.iter().flat_map(|size| size.to_be_bytes());
    [0, 0, 8, sizes.len() as u8].into_iter().chain(sizes_bytes).chain(data.iter().copied()).collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn npy(kind: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}\n");
    [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), data].concat()
}

fn png(color: png::ColorType, depth: png::BitDepth, width: u32, height: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(color);
    encoder.set_depth(depth);
    encoder.write_header().unwrap().write_image_data(data).unwrap();
    bytes
}

fn gray(width: u32, height: u32, data: &[u8]) -> Vec<u8> {
    png(png::ColorType::Grayscale, png::BitDepth::Eight, width, height, data)
}

fn jpeg(colour: jpeg_encoder::ColorType, width: u16, height: u16, data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    jpeg_encoder::Encoder::new(&mut bytes, 100).encode(data, width, height, colour).unwrap();
    bytes
}

struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Files(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }
}

/// All images of a file.
fn read(path: &Path) -> Result<RawImages, ImageError> {
    ImageFile::open(path, None)?.next(usize::MAX)
}

fn refused(path: &Path, fragment: &str) {
    let error = read(path).expect_err(fragment).to_string();
    assert!(error.contains(fragment), "{error:?} lacks {fragment:?}");
    assert!(error.contains(path.to_str().unwrap()), "{error:?} does not name the file");
    assert!(error.len() < 1000 && !error.contains('\n'), "{error:?} is long");
}

#[test]
fn every_format_gives_the_stored_pixels() {
    let files = Files::new();
    let bytes: Vec<u8> = (0..24).collect();
    let expected = |pixels, count, shape| RawImages { pixels, count, shape };
    let stored = |shape| expected(Pixels::U8(bytes.clone()), 2, shape);
    let flat = idx(&[2, 3, 4], &bytes);
    assert_eq!(read(&files.write("a-idx3-ubyte", &flat)).unwrap(), stored([1, 3, 4]));
    assert_eq!(read(&files.write("a.gz", &gzip(&flat))).unwrap(), stored([1, 3, 4]));
    assert_eq!(read(&files.write("b", &idx(&[2, 3, 2, 2], &bytes))).unwrap(), stored([3, 2, 2]));
    assert_eq!(read(&files.write("a.npy", &npy("|u1", "(2, 3, 4)", &bytes))).unwrap(), stored([1, 3, 4]));
    assert_eq!(read(&files.write("b.npy", &npy("|u1", "(2, 3, 2, 2)", &bytes))).unwrap(), stored([3, 2, 2]));
    // Channels last, where the shape says so: value `v` of an image is channel `v % 3` of pixel `v / 3`.
    let known = |sizes: &str, shape| {
        let path = files.write("last.npy", &npy("|u1", sizes, &bytes));
        ImageFile::open(&path, Some(shape)).map(|mut images| images.next(2).unwrap())
    };
    let last: Vec<u8> = bytes.chunks(12).flat_map(|image| (0..12).map(|v| image[v % 4 * 3 + v / 4])).collect();
    assert_eq!(known("(2, 1, 4, 3)", [3, 1, 4]).unwrap(), expected(Pixels::U8(last), 2, [3, 1, 4]));
    assert_eq!(known("(2, 4, 3, 1)", [1, 4, 3]).unwrap(), stored([1, 4, 3]));
    assert_eq!(known("(2, 3, 2, 2)", [3, 2, 2]).unwrap(), stored([3, 2, 2]));
    assert!(matches!(known("(2, 4, 1, 3)", [3, 1, 4]), Err(ImageError::Shape { .. })));
    let rows = files.write("c.npy", &npy("|u1", "(2, 12)", &bytes));
    assert_eq!(ImageFile::open(&rows, Some([3, 2, 2])).unwrap().next(9).unwrap(), stored([3, 2, 2]));

    let values = [0.5f32, -1.5, 0.0, 2.0];
    let single: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let double: Vec<u8> = values.iter().flat_map(|&v| f64::from(v).to_le_bytes()).collect();
    for (kind, data) in [("<f4", single), ("<f8", double)] {
        let path = files.write("f.npy", &npy(kind, "(1, 2, 2)", &data));
        assert_eq!(read(&path).unwrap(), expected(Pixels::F32(values.to_vec()), 1, [1, 2, 2]));
    }

    let one = read(&files.write("one.png", &gray(3, 2, &bytes[..6]))).unwrap();
    assert_eq!(one, expected(Pixels::U8(bytes[..6].to_vec()), 1, [1, 2, 3]));
    let rgb = png(png::ColorType::Rgb, png::BitDepth::Eight, 2, 1, &[1, 2, 3, 4, 5, 6]);
    let color = read(&files.write("rgb.png", &rgb)).unwrap();
    assert_eq!(color, expected(Pixels::U8(vec![1, 4, 2, 5, 3, 6]), 1, [3, 1, 2]));
}

#[test]
fn a_folder_of_pngs_is_read_in_the_order_of_names() {
    let files = Files::new();
    for (name, pixel) in [("10.png", 1), ("2.PNG", 2), ("1.png", 0)] {
        files.write(&format!("folder/{name}"), &gray(1, 1, &[pixel]));
    }
    files.write("folder/notes.txt", b"not an image");
    files.write("folder/.hidden", b"not an image");
    let folder = files.0.path().join("folder");
    let all = read(&folder).unwrap();
    let opened = ImageFile::open(&folder, None).unwrap();
    assert_eq!(opened.names().unwrap(), ["1.png", "10.png", "2.PNG"]);
    let [note] = opened.notes() else { panic!("{:?}", opened.notes()) };
    assert!(note.starts_with("1 of the entries of") && note.ends_with("are left out: notes.txt"), "{note}");
    assert_eq!(all, RawImages { pixels: Pixels::U8(vec![0, 1, 2]), count: 3, shape: [1, 1, 1] });
    let odd = files.write("folder/3.png", &gray(2, 1, &[1, 1]));
    let error = read(&folder).unwrap_err().to_string();
    assert!(error.contains(odd.to_str().unwrap()) && error.contains("must have one size"), "{error}");
    files.write("lines/a\nerror: fake.png", b"no image");
    let error = read(&files.0.path().join("lines")).unwrap_err().to_string();
    assert!(error.contains("a\\u000aerror: fake.png: damaged PNG"), "{error}");
    let empty = files.0.path().join("empty");
    fs::create_dir(&empty).unwrap();
    refused(&empty, "holds no .png, .jpg or .jpeg files");
}

/// What has one colour at every pixel becomes 8-bit grey or RGB, whatever its file says of
/// palettes, bits and alpha.
#[test]
fn pictures_are_converted() {
    use png::{BitDepth, ColorType};
    let files = Files::new();
    let pixels = |path: &Path| match read(path).unwrap() {
        RawImages { pixels: Pixels::U8(pixels), shape, .. } => (shape, pixels),
        other => panic!("{other:?}"),
    };
    // 0x8080 is exactly half way: 128.5 of 257 parts; 0xff7e rounds down, 0xff7f up.
    let deep = [0, 0, 0x80, 0x80, 0xff, 0x7e, 0xff, 0x7f];
    let path = files.write("deep.png", &png(ColorType::Grayscale, BitDepth::Sixteen, 4, 1, &deep));
    assert_eq!(pixels(&path), ([1, 1, 4], vec![0, 128, 254, 255]));
    let deep = [0, 1, 2, 0, 255, 255, 255, 255];
    let path = files.write("rgba.png", &png(ColorType::Rgba, BitDepth::Sixteen, 1, 1, &deep));
    assert_eq!(pixels(&path), ([3, 1, 1], vec![0, 2, 255]));
    let path = files.write("ga.png", &png(ColorType::GrayscaleAlpha, BitDepth::Eight, 2, 1, &[7, 255, 9, 255]));
    assert_eq!(pixels(&path), ([1, 1, 2], vec![7, 9]));
    refused(
        &files.write("clear.png", &png(ColorType::GrayscaleAlpha, BitDepth::Eight, 2, 1, &[7, 255, 9, 254])),
        "PNG with transparent pixels",
    );
    let path = files.write("bits.png", &png(ColorType::Grayscale, BitDepth::Two, 4, 1, &[0b00_01_10_11]));
    assert_eq!(pixels(&path), ([1, 1, 4], vec![0, 85, 170, 255]));
    let mut palette = Vec::new();
    let mut encoder = png::Encoder::new(&mut palette, 2, 1);
    encoder.set_color(ColorType::Indexed);
    encoder.set_palette(vec![10, 20, 30, 200, 200, 200]);
    encoder.write_header().unwrap().write_image_data(&[1, 0]).unwrap();
    let palette = files.write("palette.png", &palette);
    assert_eq!(pixels(&palette), ([3, 1, 2], vec![200, 10, 200, 20, 200, 30]));

    // Where the network takes one channel, colours become grey, and it is said; and the other way
    // round.
    let open = |channels| ImageFile::open(&palette, Some([channels, 1, 2])).unwrap();
    let mut grey = open(1);
    assert!(grey.notes()[0].contains("palette.png: colours become shades of grey"), "{:?}", grey.notes());
    assert_eq!(grey.names().unwrap(), ["palette.png"]);
    // 0.299 x 10 + 0.587 x 20 + 0.114 x 30 = 18.15.
    assert_eq!(grey.next(1).unwrap().pixels, Pixels::U8(vec![200, 18]));
    assert!(open(3).notes().is_empty());
    let mut colours = ImageFile::open(&files.write("g.png", &gray(2, 1, &[3, 4])), Some([3, 1, 2])).unwrap();
    assert!(colours.notes()[0].contains("grey becomes three equal channels"), "{:?}", colours.notes());
    assert_eq!(colours.next(1).unwrap().pixels, Pixels::U8(vec![3, 4, 3, 4, 3, 4]));

    // JPEG is near what was encoded, of any size, and stands beside PNG in a folder.
    let ramp: Vec<u8> = (0..20 * 12).map(|i| (i % 20 * 12) as u8).collect();
    let near = |found: &[u8], expected: &[u8]| found.iter().zip(expected).all(|(a, b)| a.abs_diff(*b) <= 4);
    let path = files.write("mixed/b.JPG", &jpeg(jpeg_encoder::ColorType::Luma, 20, 12, &ramp));
    let (shape, found) = pixels(&path);
    assert!(shape == [1, 12, 20] && near(&found, &ramp), "{found:?}");
    let colours: Vec<u8> = (0..16 * 16).flat_map(|_| [200, 100, 50]).collect();
    let (shape, found) = pixels(&files.write("c.jpeg", &jpeg(jpeg_encoder::ColorType::Rgb, 16, 16, &colours)));
    let planes: Vec<u8> = [200, 100, 50].iter().flat_map(|&value| [value; 256]).collect();
    assert!(shape == [3, 16, 16] && near(&found, &planes), "{found:?}");
    files.write("mixed/a.png", &gray(20, 12, &ramp));
    let (shape, found) = pixels(&files.0.path().join("mixed"));
    assert!(shape == [1, 12, 20] && found[..240] == ramp && near(&found[240..], &ramp));
}

/// Files larger than what is read at once, and than memory, are read a few images at a time.
#[test]
fn images_come_a_few_at_a_time() {
    let files = Files::new();
    let bytes: Vec<u8> = (0..20).collect();
    let singles: Vec<u8> = bytes.iter().flat_map(|&byte| f32::from(byte).to_le_bytes()).collect();
    for (index, byte) in bytes.iter().enumerate() {
        files.write(&format!("folder/{index:02}.png"), &gray(1, 1, &[*byte]));
    }
    let paths = [
        files.write("plain", &idx(&[20, 1, 1], &bytes)),
        files.write("zipped", &gzip(&idx(&[20, 1, 1], &bytes))),
        files.write("bytes.npy", &npy("|u1", "(20, 1, 1)", &bytes)),
        files.write("singles.npy", &npy("<f4", "(20, 1, 1)", &singles)),
        files.0.path().join("folder"),
    ];
    for path in paths {
        let mut images = ImageFile::open(&path, Some([1, 1, 1])).unwrap();
        assert_eq!((images.count(), images.shape()), (20, [1, 1, 1]));
        let chunks: Vec<RawImages> = (0..4).map(|_| images.next(7).unwrap()).collect();
        assert_eq!(chunks.iter().map(|chunk| chunk.count).collect::<Vec<_>>(), [7, 7, 6, 0]);
        let values = chunks.iter().flat_map(|chunk| match &chunk.pixels {
            Pixels::U8(pixels) => pixels.iter().map(|&pixel| f32::from(pixel)).collect(),
            Pixels::F32(values) => values.clone(),
        });
        assert_eq!(
            values.collect::<Vec<f32>>(),
            singles.as_chunks().0.iter().map(|&v| f32::from_le_bytes(v)).collect::<Vec<_>>()
        );
    }

    // 4.7 TB of zeros that take no room on the disk.
    let huge = files.write("huge", &idx(&[u32::MAX, 28, 40], &[]));
    fs::File::options().write(true).open(&huge).unwrap().set_len(16 + 1120 * u64::from(u32::MAX)).unwrap();
    let mut images = ImageFile::open(&huge, None).unwrap();
    assert_eq!(images.count(), u32::MAX as usize);
    assert_eq!(
        images.next(3).unwrap(),
        RawImages { pixels: Pixels::U8(vec![0; 3 * 1120]), count: 3, shape: [1, 28, 40] }
    );
    assert!(
        images.next(1 << 21).unwrap_err().to_string().contains("at most 1073741824 bytes of pixels are read at once")
    );

    // An image is named by its place in the file.
    let input = InputSpec { shape: [1, 1, 1], range: [0.0, 12.0] };
    let mut images = ImageFile::open(&files.0.path().join("singles.npy"), None).unwrap();
    images.next_values(10, &input).unwrap();
    let error = images.next_values(10, &input).unwrap_err().to_string();
    assert!(error.starts_with("image 13: the value at channel 0, row 0, column 0 is 13,"), "{error}");
}

/// What a compressed file expands to is refused by its header, before it is paid for; and a file that goes on is noticed.
#[test]
fn compressed_files_cost_what_their_header_says() {
    let files = Files::new();
    let bomb = files.write("bomb.gz", &gzip(&[&idx(&[1, 2, 2], &[])[..], &vec![0; 64 << 20]].concat()));
    let shape = ImageFile::open(&bomb, Some([1, 28, 28])).map(drop).unwrap_err().to_string();
    assert!(shape.contains("images are 1 x 2 x 2"), "{shape}");
    refused(&bomb, "more than 4 bytes follow the IDX header, which announces 4");
    let large = files.write("large.png", &gray(4096, 4096, &vec![0; 1 << 24]));
    let error = ImageFile::open(&large, Some([1, 28, 28])).map(drop).unwrap_err().to_string();
    assert!(error.contains("images are 1 x 4096 x 4096"), "{error}");
}

/// A small image may come with texts and profiles that expand to any size, and in a file of any size.
#[test]
#[cfg(target_os = "linux")]
fn a_small_png_costs_what_its_pixels_cost() {
    let peak = || {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() << 10
    };
    let files = Files::new();
    let plain = gray(28, 28, &[7; 784]);
    let mut zeros = flate2::write::ZlibEncoder::new(Vec::new(), Compression::best());
    (0..512).for_each(|_| zeros.write_all(&vec![0; 1 << 20]).unwrap());
    let bomb = zeros.finish().unwrap();
    // After the signature and the header.
    let with = |name: &[u8; 4], start: &[u8]| {
        let data = [name, start, &bomb].concat();
        let mut checksum = flate2::Crc::new();
        checksum.update(&data);
        let chunk = [&(data.len() as u32 - 4).to_be_bytes()[..], &data, &checksum.sum().to_be_bytes()].concat();
        [&plain[..33], &chunk, &plain[33..]].concat()
    };
    let before = peak();
    for (name, start) in [(b"iCCP", &b"a\0\0"[..]), (b"zTXt", b"a\0\0"), (b"iTXt", b"a\0\x01\0\0\0")] {
        let path = files.write("bomb.png", &with(name, start));
        assert_eq!(read(&path).map(|images| images.pixels).ok(), Some(Pixels::U8(vec![7; 784])));
    }
    let sparse = files.write("sparse.png", &plain);
    fs::File::options().write(true).open(&sparse).unwrap().set_len(1 << 30).unwrap();
    refused(&sparse, "file of more than 1051712 bytes for 784 pixels; save it without other data");
    let grown = peak() - before;
    assert!(grown < 256 << 20, "{grown} bytes");
}

/// More images than are read at a time are the same values as those that are not.
#[test]
fn values_come_in_pieces() {
    let files = Files::new();
    let (images, len) = (3000, 28 * 28);
    let value = |i: usize| f64::from((i % 251) as u8) / 256.0;
    let doubles: Vec<u8> = (0..images * len).flat_map(|i| value(i).to_le_bytes()).collect();
    assert!(doubles.len() as u64 > 4 * images::PIECE_BYTES);
    let input = InputSpec { shape: [1, 28, 28], range: [0.0, 1.0] };
    let path = files.write("doubles.npy", &npy("<f8", "(3000, 28, 28)", &doubles));
    let mut file = ImageFile::open(&path, Some(input.shape)).unwrap();
    for (count, first, found) in [(1, 0, 1), (1900, 1, 1900), (0, 1901, 0), (usize::MAX, 1901, 1099), (5, 3000, 0)] {
        let values = file.next_values(count, &input).unwrap();
        assert_eq!(values.dim(), (found, 1, 28, 28));
        assert!(values.iter().enumerate().all(|(i, &v)| f64::from(v) == value(first * len + i)));
    }
    let mut damaged = doubles;
    damaged[8 * (2900 * len + 30)..][..8].copy_from_slice(&2.0f64.to_le_bytes());
    let path = files.write("damaged.npy", &npy("<f8", "(3000, 28, 28)", &damaged));
    let error = ImageFile::open(&path, None).unwrap().next_values(usize::MAX, &input).unwrap_err().to_string();
    assert!(error.starts_with("image 2900: the value at channel 0, row 1, column 2 is 2,"), "{error}");
}

#[test]
fn labels_are_read() {
    let files = Files::new();
    let plain = idx(&[3], &[7, 2, 1]);
    assert_eq!(images::read_labels(&files.write("l", &plain), 3).unwrap(), [7, 2, 1]);
    assert_eq!(images::read_labels(&files.write("l.gz", &gzip(&plain)), 3).unwrap(), [7, 2, 1]);
    let error = images::read_labels(&files.write("i", &idx(&[1, 1, 1], &[0])), 1).unwrap_err().to_string();
    assert!(error.contains("IDX of 3 dimensions; labels have 1"), "{error}");
    // A billion labels are refused by their number: those that follow would be damaged data.
    let many = gzip(&idx(&[1 << 30], &[]));
    for (file, labels) in [(&plain, 3), (&gzip(&plain), 3), (&many, 1 << 30)] {
        let error = images::read_labels(&files.write("other", file), 2).unwrap_err().to_string();
        assert!(error.contains(&format!("2 images, but {labels} labels: one for each is needed")), "{error}");
    }
}

#[test]
fn unsuitable_and_hostile_files_are_refused() {
    let files = Files::new();
    let f16 = npy("<f2", "(1, 1, 1)", &[0, 0]);
    let fortran = String::from_utf8_lossy(&npy("|u1", "(1, 1, 1)", &[0])[10..]).replace("False", "True");
    let fortran = [b"\x93NUMPY\x01\x00", &(fortran.len() as u16).to_le_bytes()[..], fortran.as_bytes()].concat();
    let rgba = png(png::ColorType::Rgba, png::BitDepth::Eight, 1, 1, &[1, 2, 3, 4]);
    let jpeg = jpeg(jpeg_encoder::ColorType::Luma, 4, 4, &[9; 16]);
    let mut other_size = jpeg.clone();
    let frame = jpeg.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
    other_size[frame + 5..][..4].fill(0xff);
    let mut cmyk = jpeg.clone();
    cmyk[frame + 9] = 4;
    let without_end = gray(4, 4, &[9; 16]);
    let without_end = &without_end[..without_end.len() - 12];
    let table: &[(&[u8], &str)] = &[
        (b"", "not an image file: expected IDX (plain or .gz), .npy, PNG or JPEG"),
        (b"GIF89a", "not an image file"),
        (&idx(&[0, 28, 28], &[]), "holds no images"),
        (&idx(&[1, 0, 28], &[]), "images of 1 x 0 x 28 have no pixels"),
        (&idx(&[2, 2, 2], &[0; 7]), "7 bytes follow the IDX header, which announces 8"),
        (&idx(&[2, 2, 2], &[0; 9]), "9 bytes follow the IDX header, which announces 8"),
        (&idx(&[u32::MAX; 4], &[]), "claims 4294967295 images"),
        (&idx(&[60_000, 28_000, 28], &[]), "0 bytes follow the IDX header, which announces 47040000000"),
        (&idx(&[4], &[0; 4]), "IDX of 1 dimensions; images have 3"),
        (&[0, 0, 0x0d, 3, 0], "IDX of type 0x0d; only unsigned bytes"),
        (&[0, 0, 8, 200, 0, 0], "truncated inside the IDX header"),
        (&gzip(&idx(&[1, 1, 1], &[0]))[..20], "damaged gzip data"),
        (b"\x93NUMPY", "truncated inside the .npy header"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff", ".npy header of 4294967295 bytes"),
        (b"\x93NUMPY\x09\x00\x00\x00", ".npy version 9"),
        (&npy("|u1", "(0, 2, 2)", &[]), "holds no images"),
        (&npy("|u1", "(2, 2)", &[0; 4]), "array of shape [2, 2]; images are N x H x W, N x C x H x W"),
        (&npy("|u1", "(1, 2, 2)", &[0; 3]), "3 bytes follow the header, which announces 4"),
        (&npy("<f8", "(99999999999, 99999999999, 2)", &[]), "claims 99999999999 images"),
        (&npy("|u1", "(1, -2, 2)", &[]), "is not a tuple of sizes"),
        (&npy("|u1", "(1, 2, 2", &[]), "the .npy header has no `shape`"),
        (&f16, "array of type <f2; only uint8, float32 and float64"),
        (&fortran, "Fortran order"),
        (&rgba, "PNG with transparent pixels, which have no colour of their own"),
        (&jpeg[..jpeg.len() - 20], "damaged JPEG"),
        (&jpeg[..frame + 4], "damaged JPEG: it is truncated before the size"),
        (&other_size, "claims 1 images of 1 x 65535 x 65535; at most"),
        (&cmyk, "JPEG of 4 components with 8 bits; expected 8-bit grey or colour"),
        (&[0xff, 0xd8, 0xff, 0xd9], "it does not say how large the image is"),
        (&[0xff, 0xd8, 0xff, 0xe0, 0, 1], "a segment has no length"),
        (&gray(4, 4, &[9; 16])[..50], "damaged PNG"),
        (&[&gray(4, 4, &[9; 16])[..], b"more"].concat(), "4 bytes follow the end of the PNG"),
        (without_end, "damaged PNG: it has no end"),
        (&npy("a\nerror: b", "(1, 1, 1)", &[0]), "array of type a\\u000aerror: b; only"),
        (&npy(&"<f8".repeat(20_000), "(1, 1, 1)", &[0]), " characters ...] "),
        (&npy("|u1", &format!("({})", "x".repeat(60_000)), &[0]), " characters ...] "),
    ];
    for (index, (bytes, fragment)) in table.iter().enumerate() {
        refused(&files.write(&format!("{index}"), bytes), fragment);
    }
    let absent = files.0.path().join("absent");
    refused(&absent, "cannot read");
    let shape = ImageFile::open(&files.write("s", &idx(&[1, 2, 3], &[0; 6])), Some([1, 3, 2])).map(drop).unwrap_err();
    assert!(
        shape.to_string().contains("images are 1 x 2 x 3 (channels x height x width) but the network takes 1 x 3 x 2")
    );
}

#[test]
fn no_prefix_and_no_flipped_bit_panics() {
    let all = [
        idx(&[1, 2, 2], &[1; 4]),
        gzip(&idx(&[1, 2, 2], &[1; 4])),
        npy("<f4", "(1, 1, 2)", &[0; 8]),
        gray(2, 2, &[1; 4]),
        jpeg(jpeg_encoder::ColorType::Rgb, 2, 2, &[1; 12]),
    ];
    for good in all {
        let attempt = |bytes: &[u8]| {
            let _ = (images::parse_idx_images(bytes), images::parse_npy(bytes, None), images::parse_picture(bytes));
        };
        (0..good.len()).for_each(|len| attempt(&good[..len]));
        for bit in 0..good.len() * 8 {
            let mut flipped = good.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            attempt(&flipped);
        }
    }
}

#[test]
fn values_follow_the_input_range_and_are_checked() {
    let input = InputSpec { shape: [1, 1, 3], range: [-1.0, 1.0] };
    let raw = |pixels| RawImages { pixels, count: 2, shape: [1, 1, 3] };
    let values = raw(Pixels::U8(vec![0, 255, 51, 255, 0, 204])).to_values(&input).unwrap();
    assert_eq!(values.shape(), [2, 1, 1, 3]);
    let expected = [-1.0, 1.0, -0.6, 1.0, -1.0, 0.6];
    assert!(values.iter().zip(expected).all(|(found, expected): (&f32, f32)| (found - expected).abs() < 1e-6));

    for bad in [1.5, f32::NAN, f32::NEG_INFINITY] {
        let error = raw(Pixels::F32(vec![0.0, 1.0, -1.0, 0.0, bad, 0.0])).to_values(&input).unwrap_err().to_string();
        assert!(error.contains("image 1: the value at channel 0, row 0, column 1 is"), "{error}");
        assert!(error.contains("outside the network's input range [-1, 1]"), "{error}");
    }
    let other = InputSpec { shape: [3, 1, 1], ..input };
    assert!(raw(Pixels::U8(vec![0; 6])).to_values(&other).is_err());
}
