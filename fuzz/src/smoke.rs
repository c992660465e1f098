//! Damaged copies of files, for the tests that run the fuzz targets' bodies on stable Rust.

/// A cheap sequence of numbers below `bound`.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (self.0 >> 33) as usize % bound
    }
}

/// Runs `body` on `rounds` damaged copies of `file` and on as many files of noise after its first bytes.
pub fn smoke(body: fn(&[u8]), file: &[u8], rounds: usize) {
    let mut numbers = Numbers(1);
    body(file);
    for _ in 0..rounds {
        let mut damaged = file.to_vec();
        for _ in 0..=numbers.below(4) {
            let at = numbers.below(damaged.len().min(4096));
            damaged[at] = [0, 1, 255, b'9', numbers.below(256) as u8][numbers.below(5)];
        }
        body(&damaged);
        body(&damaged[..numbers.below(damaged.len())]);
        let head = file.len().min(numbers.below(24));
        let noise: Vec<u8> = (0..numbers.below(200)).map(|_| numbers.below(256) as u8).collect();
        body(&[&file[..head], &noise].concat());
    }
}
