//! Memory of the machine and of this process.

use std::path::Path;

use anyhow::{Result, ensure};
use cryptodl::default_budget;

/// Refuses work of which one part takes `bytes` where that is more than may be taken, before any of it is taken. The client spec
/// in `spec` decides how much it is.
pub fn afford(bytes: u64, spec: &Path) -> Result<()> {
    let free = default_budget();
    ensure!(
        bytes <= free,
        "one set of ciphertexts needs {} of memory, and {} may be used here: use a machine with more, or check where {} \
         comes from",
        show_size(bytes),
        show_size(free),
        spec.display()
    );
    Ok(())
}

/// Most memory that this process has held since it started or [`forget_peak`], where the system tells.
pub fn peak_rss() -> Option<u64> {
    kibibytes("/proc/self/status", "VmHWM:")
}

/// Lets [`peak_rss`] begin again with what is held now. Only where the system can (Linux): elsewhere it does not tell the peak.
/// Whether it worked: in a sandbox it may not, and the peak is that of the whole process.
pub fn forget_peak() -> bool {
    std::fs::write("/proc/self/clear_refs", "5").is_ok()
}

fn kibibytes(file: &str, field: &str) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(field))?;
    Some(1024 * value.trim().strip_suffix(" kB")?.parse::<u64>().ok()?)
}

/// Parses `2GiB`, `512MiB`, `64KiB` or a number of bytes.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let units = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("", 1)];
    let (number, unit) = units
        .into_iter()
        .find_map(|(suffix, unit)| Some((text.strip_suffix(suffix)?, unit)))
        .expect("the empty suffix always fits");
    let size = number.trim().parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
    size.ok_or_else(|| "a size is a whole number of bytes, or of KiB, MiB or GiB, such as 2GiB".into())
}

/// `bytes` in the largest unit that suits it.
pub fn show_size(bytes: u64) -> String {
    match bytes {
        1 => "1 byte".into(),
        0..10_000 => format!("{bytes} bytes"),
        10_000..10_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        _ => format!("{:.1} MB", bytes as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(parse_size("2GiB"), Ok(2 << 30));
        assert_eq!(parse_size("512 MiB"), Ok(512 << 20));
        assert_eq!(parse_size("4096"), Ok(4096));
        for wrong in ["", "GiB", "-1", "1.5GiB", "2GB", "99999999999GiB"] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
        assert_eq!(show_size(160), "160 bytes");
        assert_eq!(show_size(368_700), "368.7 kB");
        assert_eq!(show_size(72_253_440), "72.3 MB");
    }

    #[test]
    fn what_cannot_be_afforded_is_refused() {
        let error = afford(u64::MAX, Path::new("large.spec")).unwrap_err().to_string();
        assert!(error.contains("check where large.spec comes from"), "{error}");
        afford(1, Path::new("small.spec")).unwrap();
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_holds_memory() {
        assert!(peak_rss().is_some_and(|bytes| bytes > 1 << 20));
        assert!(default_budget() > 1 << 20);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_peak_is_forgotten() {
        const LARGE: usize = 256 << 20;
        drop(std::hint::black_box(vec![1u8; LARGE]));
        let before = peak_rss().expect("a peak");
        if !forget_peak() {
            return;
        }
        let after = peak_rss().expect("a peak");
        assert!(before > LARGE as u64 && after < before - LARGE as u64 / 2, "{before}, then {after}");
    }
}
