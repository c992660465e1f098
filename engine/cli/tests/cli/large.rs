//! Files and specs that ask for more than there is.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::process::Command;

use cryptodl_core::ckks::{ClientSpec, EvalKeyLayout, RelinLayout};
use cryptodl_core::ring::ntt_primes;
use cryptodl_core::wire::{HEADER_LEN, TRAILER_LEN, read_client_spec, write_client_spec};
use tempfile::TempDir;

use crate::support::{SMALL, command, digits, fail, failure, names, succeed};

/// Planning flags of a small ring, so that sets are small.
const SMALL_RING: &str = "--n 2048";

/// Bytes of the payload of ciphertexts before the first set.
const SETS_AT: usize = 68;

/// The binary, which may take `mebibytes` of address space; one thread, because each thread reserves some.
fn limited(folder: &Path, arguments: &str, mebibytes: u64) -> Command {
    let plain = command(folder, arguments);
    let mut limited = Command::new("sh");
    limited.args(["-c", &format!("ulimit -v {} && exec \"$@\"", mebibytes << 10), "sh"]);
    limited.arg(plain.get_program()).args(plain.get_args()).args(["--threads", "1"]).current_dir(folder);
    limited
}

/// Keys, three encrypted images and their encrypted scores.
fn every_file() -> TempDir {
    let client = digits(3);
    let folder = client.path();
    succeed(folder, &format!("keygen --model {SMALL} {SMALL_RING} --out keys"));
    let encrypt = "encrypt --secret keys/secret/secret.key --spec keys/public/client.spec --input digits.idx";
    succeed(folder, &format!("{encrypt} --out digits.ct"));
    succeed(folder, &format!("{} --input digits.ct --out scores.ct", infer()));
    client
}

fn infer() -> String {
    let keys = "--eval-key keys/public/eval.key --public keys/public/public.key";
    format!("infer --model {SMALL} {SMALL_RING} --backend cpu {keys}")
}

fn decrypt() -> String {
    "decrypt --secret keys/secret/secret.key --spec keys/public/client.spec".into()
}

/// A file with the headers of `small`, which has one set, but with as many sets as make `bytes`: all zero, which are valid
/// residues, with a wrong checksum. It takes no room on the disk. Returns the number of its images.
fn enlarge(small: &Path, large: &Path, bytes: u64) -> u64 {
    let mut header = fs::read(small).expect("written");
    let set = (header.len() - HEADER_LEN - SETS_AT - TRAILER_LEN) as u64;
    header.truncate(HEADER_LEN + SETS_AT);
    let sets = bytes.div_ceil(set);
    let payload = SETS_AT as u64 + sets * set;
    let images = 2048 * sets;
    header[80..88].copy_from_slice(&payload.to_le_bytes());
    header[HEADER_LEN + 20..][..4].copy_from_slice(&(sets as u32).to_le_bytes());
    header[HEADER_LEN + 28..][..8].copy_from_slice(&images.to_le_bytes());
    fs::write(large, header).expect("written");
    let file = File::options().write(true).open(large).expect("written");
    file.set_len((HEADER_LEN + TRAILER_LEN) as u64 + payload).expect("sparse files");
    images
}

/// Ciphertexts of any length are read set by set. A file of 45 GB that breaks off somewhere, or is hostile, is refused like any
/// other, and never ends the process; its checksum is compared before a result appears.
#[test]
#[cfg(target_os = "linux")]
fn ciphertexts_larger_than_memory_are_refused_like_others() {
    let client = every_file();
    let folder = client.path();
    for (small, command, out, moderate) in
        [("digits.ct", infer(), "out.ct", 400 << 20), ("scores.ct", decrypt(), "out.csv", 300 << 20)]
    {
        let (small, large) = (folder.join(small), folder.join("large.ct"));
        let command = format!("{command} --input large.ct --out {out}");
        let before = names(folder);
        let refuse = |command: &str, fragment: &str| {
            let error = failure(limited(folder, command, LIMIT), 1);
            assert!(error.contains("large.ct") && error.contains(fragment), "{fragment} in\n{error}");
        };

        let images = enlarge(&small, &large, 45_000_000_000);
        refuse(&format!("{command} --max-images 100000"), &format!("{images} images, and --max-images allows 100000"));
        let mut file = File::options().write(true).open(&large).expect("written");
        let set = fs::metadata(&small).expect("written").len() - (HEADER_LEN + SETS_AT + TRAILER_LEN) as u64;
        file.seek(SeekFrom::Start((HEADER_LEN + SETS_AT) as u64 + set)).expect("inside");
        file.write_all(&[0xff; 1000]).expect("written");
        refuse(&command, "not below its prime");
        file.set_len(44_000_000_000).expect("cut");
        refuse(&command, "truncated: it has 44000000000 bytes");

        enlarge(&small, &large, moderate);
        refuse(&command, "checksum does not match");
        fs::remove_file(&large).expect("removed");
        assert_eq!(names(folder), before);
    }
}

/// Ctrl-C and the `kill` of a service manager leave nothing half-written, and the process ends as the signal says.
#[test]
#[cfg(unix)]
fn signals_leave_no_temporary_file() {
    use std::os::unix::process::ExitStatusExt;
    use std::process::Stdio;

    let client = every_file();
    let folder = client.path();
    enlarge(&folder.join("digits.ct"), &folder.join("large.ct"), 45_000_000_000);
    let before = names(folder);
    for (number, signal) in [(2, "INT"), (15, "TERM")] {
        let mut inferring = command(folder, &format!("{} --input large.ct --out out.ct", infer()));
        let mut process = inferring.stderr(Stdio::null()).spawn().expect("the binary starts");
        while names(folder) == before {
            assert!(process.try_wait().expect("a child").is_none(), "it ended before it wrote anything");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        let kill = Command::new("kill").args(["-s", signal, &process.id().to_string()]).status();
        assert!(kill.expect("kill").success());
        assert_eq!(process.wait().expect("a child").signal(), Some(number));
        assert_eq!(names(folder), before, "after SIG{signal}");
    }
}

/// Mebibytes of address space: twice what these commands need.
const LIMIT: u64 = 256;

/// Images of any number are encrypted set by set.
#[test]
#[cfg(target_os = "linux")]
fn images_larger_than_memory_are_encrypted() {
    let client = every_file();
    let folder = client.path();
    let images = 20 * 2048u32;
    let sizes = [images, 28, 28].map(u32::to_be_bytes);
    fs::write(folder.join("many.idx"), [&[0, 0, 8, 3], sizes.as_flattened()].concat()).expect("written");
    let file = File::options().write(true).open(folder.join("many.idx")).expect("written");
    file.set_len(16 + 784 * u64::from(images)).expect("sparse files");
    let keys = "--secret keys/secret/secret.key --spec keys/public/client.spec";
    let encrypt = format!("encrypt {keys} --input many.idx --out many.ct");
    let output = limited(folder, &encrypt, LIMIT).output().expect("the binary starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", output.status);
    let bytes = fs::metadata(folder.join("many.ct")).expect("written").len();
    assert!(bytes > 200_000_000, "{bytes}");
    assert!(
        said.contains("40960 images in 20 sets of up to 2048")
            && said.contains(&format!("{:.1} MB", bytes as f64 / 1e6))
    );
    let error = fail(folder, &format!("{encrypt} --max-images 40959"), 1);
    assert!(error.contains("40960 images, and --max-images allows 40959"), "{error}");
}

/// Wherever memory ends while images are read and encrypted, that is an error: the process is not ended, and leaves nothing.
#[test]
#[cfg(target_os = "linux")]
fn too_little_memory_for_images_is_an_error() {
    let client = every_file();
    let folder = client.path();
    let header = "{'descr': '<f8', 'fortran_order': False, 'shape': (2048, 28, 28), }\n";
    let start = [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes()].concat();
    fs::write(folder.join("many.npy"), &start).expect("written");
    let file = File::options().write(true).open(folder.join("many.npy")).expect("written");
    file.set_len(start.len() as u64 + 2048 * 784 * 8).expect("sparse files");
    let keys = "--secret keys/secret/secret.key --spec keys/public/client.spec";
    let encrypt = format!("encrypt {keys} --input many.npy --out many.ct");
    let before = names(folder);
    // The program alone takes so much.
    let starts =
        |mebibytes| limited(folder, "--version", mebibytes).output().is_ok_and(|output| output.status.success());
    let least = (32..LIMIT).step_by(4).find(|&mebibytes| starts(mebibytes)).expect("enough to start");
    let mut refused = 0;
    for mebibytes in least + 4.. {
        let output = limited(folder, &encrypt, mebibytes).output().expect("the binary starts");
        let said = String::from_utf8_lossy(&output.stderr);
        if output.status.success() {
            break;
        }
        assert!(
            output.status.code() == Some(1) && said.contains("no memory for"),
            "{mebibytes}: {}\n{said}",
            output.status
        );
        assert!(mebibytes < LIMIT && names(folder) == before, "{mebibytes}: {:?}", names(folder));
        refused += 1;
    }
    assert!(refused > 5, "{refused} of the limits were too small");
}

/// `run` holds all images, and says so before it reads more than there is room for.
#[test]
#[cfg(target_os = "linux")]
fn images_that_do_not_fit_are_refused_by_their_header() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let images = 1u32 << 31;
    let sizes = [images, 28, 28].map(u32::to_be_bytes);
    fs::write(folder.path().join("many.idx"), [&[0, 0, 8, 3], sizes.as_flattened()].concat()).expect("written");
    let file = File::options().write(true).open(folder.path().join("many.idx")).expect("written");
    file.set_len(16 + 784 * u64::from(images)).expect("sparse files");
    let error = fail(folder.path(), &format!("run --model {SMALL} --data many.idx --images 10"), 1);
    assert!(
        error.contains("many.idx holds 2147483648 images, which need 6734") && error.contains("`infer`"),
        "{error}"
    );
}

/// A spec that passes every check can still ask for any amount of work: it is refused before it is done.
#[test]
fn what_a_spec_asks_for_is_refused_before_it_is_paid() {
    let client = every_file();
    let folder = client.path();
    let bytes = fs::read(folder.join("keys/public/client.spec")).expect("written");
    let spec = read_client_spec(&bytes[..]).expect("a spec");
    let write = |name: &str, spec: &ClientSpec| {
        spec.clone().check().expect("a spec that is allowed");
        let mut bytes = Vec::new();
        write_client_spec(&mut bytes, spec).expect("written");
        fs::write(folder.join(name), bytes).expect("written");
    };

    let mut large_key = spec.clone();
    large_key.params.n = 65536;
    let limbs = (large_key.params.security.max_log_qp(65536) / 30) as usize;
    large_key.params.primes = ntt_primes(65536, 30, limbs).expect("such primes exist");
    large_key.params.special_primes = vec![large_key.params.primes.remove(0)];
    let layout = RelinLayout::of_primes(limbs - 1, 1);
    large_key.evaluation_keys = vec![EvalKeyLayout::Relinearisation(layout)];
    write("large-key.spec", &large_key);
    let error = fail(folder, "keygen --spec large-key.spec --out other", 1);
    for part in ["the evaluation key", " MB", "--max-size allows 268.4 MB", "client spec comes from"] {
        assert!(error.contains(part), "{part} in\n{error}");
    }
    assert!(!folder.join("other").exists());

    let mut large_sets = spec;
    (large_sets.params.n, large_sets.input.shape) = (16384, [64, 128, 128]);
    large_sets.params.primes = ntt_primes(16384, 30, 2).expect("such primes exist");
    write("large-sets.spec", &large_sets);
    succeed(folder, "keygen --spec large-sets.spec --out other");
    let sizes = [1, 64, 128, 128].map(u32::to_be_bytes);
    fs::write(folder.join("one.idx"), [&[0, 0, 8, 4], sizes.as_flattened(), &vec![0; 1 << 20]].concat())
        .expect("written");
    let files = "--secret other/secret/secret.key --spec large-sets.spec --input one.idx --out one.ct";
    let error = fail(folder, &format!("encrypt {files}"), 1);
    for part in
        ["1 images would make one.ct a file of 128849", "--max-size allows 68719.5 MB", "large-sets.spec comes from"]
    {
        assert!(error.contains(part), "{part} in\n{error}");
    }
    assert!(!folder.join("one.ct").exists());
}
