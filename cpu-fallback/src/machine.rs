//! What the system tells of the machine.

use std::path::Path;
use std::sync::OnceLock;

/// The processor's model name where the system tells it, else its architecture.
pub(crate) fn processor() -> String {
    std::fs::read_to_string("/proc/cpuinfo")
        .ok()
        .and_then(|info| model_name(&info).map(str::to_owned))
        .unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}

fn model_name(info: &str) -> Option<&str> {
    let line = info.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim())
}

/// Bytes of the caches for which tiles are cut. They decide the order of work, never a bit of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Caches {
    /// The second level, which a few cores share at most.
    pub(crate) core: usize,
    /// The third level, else the second, which all cores share.
    pub(crate) shared: usize,
}

impl Caches {
    /// Where the system tells nothing: the sizes of common servers.
    const USUAL: Caches = Caches { core: 1 << 20, shared: 32 << 20 };

    /// Those of the first core, as Linux tells them, within bounds that keep tiles sensible.
    pub(crate) fn of_this_machine() -> Self {
        static CACHES: OnceLock<Caches> = OnceLock::new();
        *CACHES.get_or_init(|| Self::described_in(Path::new("/sys/devices/system/cpu/cpu0/cache")))
    }

    /// What a folder in the form of Linux's says: one folder `indexK` for each cache.
    fn described_in(folder: &Path) -> Self {
        let size = |level: &str| {
            let caches = (0..8).map(|index| folder.join(format!("index{index}")));
            let read = |path: &Path, file: &str| std::fs::read_to_string(path.join(file)).unwrap_or_default();
            caches
                .filter(|cache| read(cache, "level").trim() == level)
                .find_map(|cache| bytes(&read(&cache, "size")))
                .filter(|&bytes| bytes > 0)
        };
        let (second, third) = (size("2"), size("3"));
        Caches {
            core: second.unwrap_or(Self::USUAL.core).clamp(256 << 10, 4 << 20),
            shared: third.or(second).unwrap_or(Self::USUAL.shared).clamp(4 << 20, 256 << 20),
        }
    }
}

/// `512K` and the like.
fn bytes(text: &str) -> Option<usize> {
    let text = text.trim();
    let units = [("K", 10), ("M", 20), ("G", 30), ("", 0)];
    let (count, shift) = units.into_iter().find_map(|(unit, shift)| Some((text.strip_suffix(unit)?, shift)))?;
    count.parse::<usize>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_first_model_name() {
        let info = "processor\t: 0\nmodel name\t: Some CPU @ 3 GHz\nprocessor\t: 1\nmodel name\t: Other\n";
        assert_eq!(model_name(info), Some("Some CPU @ 3 GHz"));
        assert_eq!(model_name("Features: asimd\n"), None);
    }

    #[test]
    fn reads_the_sizes_of_caches() {
        assert_eq!(bytes("1280K\n"), Some(1280 << 10));
        assert_eq!(bytes("32M"), Some(32 << 20));
        assert_eq!(bytes("4096"), Some(4096));
        assert_eq!([bytes(""), bytes("K"), bytes("-1K"), bytes("1T")], [None; 4]);
        let described = |sizes: &[(&str, &str)]| {
            let folder = tempfile::tempdir().unwrap();
            for (index, (level, size)) in sizes.iter().enumerate() {
                let cache = folder.path().join(format!("index{index}"));
                std::fs::create_dir(&cache).unwrap();
                std::fs::write(cache.join("level"), format!("{level}\n")).unwrap();
                std::fs::write(cache.join("size"), format!("{size}\n")).unwrap();
            }
            let Caches { core, shared } = Caches::described_in(folder.path());
            (core >> 10, shared >> 10)
        };
        let usual = (Caches::USUAL.core >> 10, Caches::USUAL.shared >> 10);
        assert_eq!(described(&[]), usual);
        assert_eq!(described(&[("2", "0K"), ("3", "none")]), usual);
        assert_eq!(described(&[("1", "48K"), ("1", "32K"), ("2", "2048K"), ("3", "8192K")]), (2048, 8192));
        // Without a third level the second is the last; sizes out of bounds.
        assert_eq!(described(&[("2", "8M")]), (4096, 8192));
        assert_eq!(described(&[("2", "1K"), ("3", "1G")]), (256, 256 << 10));
    }
}
