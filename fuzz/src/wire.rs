//! Bodies of the fuzz targets of `cryptodl_core::wire`; `engine/core/tests/wire` runs them on stable Rust.
//!
//! Each takes bytes from anywhere and gives them to a parser twice: as a whole file, and as the payload of a file whose header
//! and checksum are right, so that what lies behind the checksum is reached. Whatever a parser takes must be written back as
//! the same bytes.

use std::sync::LazyLock;

use cryptodl_core::ckks::{
    Ciphertexts, ClientSpec, Digest, EncryptionKind, EvalKeyLayout, InputLayout, OutputLayout, Packing, Params,
    ParamsSpec, RelinLayout, Scale, SecurityLevel,
};
use cryptodl_core::ring::ntt_primes;
use cryptodl_core::wire::{self, Binding, CiphertextLayout, Header, Kind, Writer};

/// A Program in a tiny ring, with limbs of two sizes.
pub static SPEC: LazyLock<ClientSpec> = LazyLock::new(|| {
    let primes = |bits, count| ntt_primes(16, bits, count).expect("such primes exist");
    let (n, security) = (16, SecurityLevel::Bits128);
    let scale = Scale::new(32.0).expect("an allowed scale");
    ClientSpec {
        model: "tiny".into(),
        class_names: Vec::new(),
        program: Digest([7; 32]),
        params: ParamsSpec { n, primes: primes(12, 2), special_primes: primes(13, 1), security },
        evaluation_keys: vec![EvalKeyLayout::Relinearisation(RelinLayout::of_primes(2, 1))],
        encryption: EncryptionKind::Secret,
        input: InputLayout { packing: Packing::Spread, shape: [1, 2, 1], range: [0.0, 1.0], scale, level: 2 },
        output: OutputLayout {
            packing: Packing::Spread,
            classes: 2,
            components: 3,
            level: 1,
            scale,
            range: [-1.0, 1.0],
            noise: 0.1,
        },
    }
});

static PARAMS: LazyLock<Params> =
    LazyLock::new(|| SPEC.params.clone().build_insecure_for_tests().expect("a small ring"));

/// What the files of [`SPEC`] belong to.
pub fn binding() -> Binding<'static> {
    Binding { program: SPEC.program, params: &PARAMS }
}

/// A whole file of `kind` around `payload`.
pub fn sealed(kind: Kind, payload: &[u8]) -> Vec<u8> {
    let len = payload.len() as u64;
    let header = if kind.is_key() { Header::of_key(kind, &PARAMS, len) } else { Header::new(kind, &binding(), len) };
    written(|file| {
        let mut writer = Writer::new(file, &header)?;
        writer.put(payload)?;
        writer.finish()
    })
}

/// The bytes that `write` writes.
pub fn written(write: impl FnOnce(&mut Vec<u8>) -> std::io::Result<()>) -> Vec<u8> {
    let mut file = Vec::new();
    write(&mut file).expect("a Vec takes every byte");
    file
}

/// `data` as a file, and as the payload of a file of `kind`.
fn files(kind: Kind, data: &[u8]) -> [Vec<u8>; 2] {
    [data.to_vec(), sealed(kind, data)]
}

/// Any file.
pub fn identify(data: &[u8]) {
    let kind = Kind::ALL[usize::from(data.first().copied().unwrap_or(0)) % Kind::ALL.len()];
    for file in files(kind, data) {
        if let Ok(identity) = wire::identify(&file[..]) {
            assert_eq!(identity.header.file_len(), file.len() as u64);
        }
    }
}

/// A client spec, with its check.
pub fn client_spec(data: &[u8]) {
    for file in files(Kind::ClientSpec, data) {
        if let Ok(spec) = wire::read_client_spec(&file[..]) {
            let again = written(|file| wire::write_client_spec(file, &spec));
            assert_eq!(wire::read_client_spec(&again[..]).expect("just written"), spec);
        }
    }
}

/// A public key.
pub fn public_key(data: &[u8]) {
    for file in files(Kind::PublicKey, data) {
        if let Ok(key) = wire::read_public_key(&file[..], &PARAMS) {
            assert_eq!(written(|file| wire::write_public_key(file, &PARAMS, &key)), file);
        }
    }
}

/// Evaluation keys.
pub fn eval_key(data: &[u8]) {
    for file in files(Kind::EvalKey, data) {
        if let Ok(keys) = wire::read_eval_keys(&file[..], &PARAMS) {
            assert_eq!(written(|file| wire::write_eval_keys(file, &PARAMS, &keys)), file);
        }
    }
}

/// Ciphertexts and results.
pub fn ciphertexts(data: &[u8]) {
    for layout in [CiphertextLayout::input(&SPEC), CiphertextLayout::result(&SPEC)] {
        for file in files(layout.kind, data) {
            if let Ok(ciphertexts) = wire::read_ciphertexts(&file[..], &binding(), &layout) {
                check_sets(&ciphertexts);
                assert_eq!(written(|file| wire::write_ciphertexts(file, &binding(), &layout, &ciphertexts)), file);
            }
        }
    }
}

fn check_sets(ciphertexts: &Ciphertexts) {
    for set in &ciphertexts.sets {
        assert_eq!(set.len(), ciphertexts.set_bytes(&PARAMS));
        // Unreduced residues are for the reader of the set to refuse; finding them must not panic.
        let _ = wire::check_residues(&PARAMS, ciphertexts, set);
    }
}
