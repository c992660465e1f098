//! What papers report, to stand beside what is measured.

use serde::Serialize;

/// A published measurement. Networks, hardware and security levels differ: orders of magnitude are what can be compared.
#[derive(Clone, Copy, Serialize)]
pub struct Published {
    pub paper: &'static str,
    pub network: &'static str,
    /// As `cryptodl data` names it.
    pub dataset: &'static str,
    pub hardware: &'static str,
    /// Seconds that the paper gives for a batch, and the images in it.
    pub seconds: Option<f64>,
    pub images: Option<u32>,
    /// As the paper gives them, which need not be `images / seconds`.
    pub images_per_second: f64,
    /// Percent.
    pub accuracy: Option<f64>,
    /// 10^6 bytes between client and server for the batch.
    pub transfer_mb: Option<f64>,
    /// Where the figures are stated.
    pub source: &'static str,
}

const TABLE_5: &str = "CryptoDL, table 5";

/// All that we know of.
pub const PUBLISHED: [Published; 9] = [
    Published {
        paper: "CryptoDL, 2017",
        network: "CNN Model 1; the accuracy is CNN Model 2's",
        dataset: "mnist",
        hardware: "Xeon E5-2640, 16 GB",
        seconds: Some(320.0),
        images: Some(8192),
        images_per_second: 163_840.0 / 3600.0,
        accuracy: Some(99.52),
        transfer_mb: Some(336.7),
        source: "CryptoDL, table 5: 320 s, 163,840 predictions per hour; table 4 gives the same 320 s for communication",
    },
    Published {
        paper: "CryptoDL, 2017",
        network: "CNN Model 1, the layers alone",
        dataset: "mnist",
        hardware: "Xeon E5-2640, 16 GB",
        seconds: Some(149.0),
        images: Some(8192),
        images_per_second: 8192.0 / 149.0,
        accuracy: None,
        transfer_mb: None,
        source: "CryptoDL, table 3: the sum of its layers",
    },
    Published {
        paper: "CryptoDL, 2017",
        network: "CNN",
        dataset: "cifar10",
        hardware: "Xeon E5-2640, 16 GB",
        seconds: Some(11_686.0),
        images: Some(8192),
        images_per_second: 2524.0 / 3600.0,
        accuracy: Some(91.5),
        transfer_mb: Some(1803.0),
        source: "CryptoDL, table 5; the accuracy is that of the network in plaintext, by its footnote",
    },
    Published {
        paper: "CryptoNets, 2016",
        network: "CryptoNets",
        dataset: "mnist",
        hardware: "Xeon E5-1620, 16 GB",
        seconds: Some(697.0),
        images: Some(8192),
        images_per_second: 51_739.0 / 3600.0,
        accuracy: Some(98.95),
        transfer_mb: Some(595.5),
        source: TABLE_5,
    },
    Published {
        paper: "DeepSecure, 2018",
        network: "like CNN Model 1, garbled circuits",
        dataset: "mnist",
        hardware: "not stated",
        seconds: Some(10_649.0),
        images: Some(8192),
        images_per_second: 2769.0 / 3600.0,
        accuracy: Some(98.95),
        transfer_mb: Some(722_000.0),
        source: "CryptoDL, table 5, extrapolated there",
    },
    Published {
        paper: "SecureML, 2017",
        network: "two hidden layers of 128, two servers",
        dataset: "mnist",
        hardware: "not stated",
        seconds: Some(14.0),
        images: Some(100),
        images_per_second: 100.0 / 14.0,
        accuracy: Some(93.4),
        transfer_mb: None,
        source: "CryptoDL, section 4.1",
    },
    Published {
        paper: "CryptoDL, 2017",
        network: "SecureML's",
        dataset: "mnist",
        hardware: "Xeon E5-2640, 16 GB",
        seconds: Some(12.0),
        images: Some(100),
        images_per_second: 100.0 / 12.0,
        accuracy: None,
        transfer_mb: None,
        source: "CryptoDL, section 4.1: the same time for larger batches",
    },
    Published {
        paper: "HCNN, 2020",
        network: "like CryptoNets",
        dataset: "mnist",
        hardware: "GPUs",
        seconds: Some(5.16),
        images: Some(8192),
        images_per_second: 8192.0 / 5.16,
        accuracy: Some(99.0),
        transfer_mb: None,
        source: "its abstract (arXiv 1811.00778): one latency for any batch up to more than 8,000, above 80 bits",
    },
    Published {
        paper: "nGraph-HE2, 2019",
        network: "CryptoNets",
        dataset: "mnist",
        hardware: "CPU, 24 threads",
        seconds: None,
        images: None,
        images_per_second: 1998.0,
        accuracy: None,
        transfer_mb: None,
        source: "its abstract (arXiv 1908.04172)",
    },
];

/// Those on one of `datasets`.
pub fn comparable(datasets: &[&str]) -> impl Iterator<Item = &'static Published> {
    PUBLISHED.iter().filter(|published| datasets.contains(&published.dataset))
}
