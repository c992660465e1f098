//! Every way in which a file can be wrong gets its own error, and never a panic.

use cryptodl_core::ckks::{Digest, ParamsSpec};
use cryptodl_core::ring::pack_row;
use cryptodl_core::wire::{self, Binding, CiphertextLayout, HEADER_LEN, Kind, TRAILER_LEN, WireError};

use crate::examples::{self, Example, LAYOUTS, ciphertexts, public_key};
use crate::fuzz_bodies::{SPEC, binding, sealed, written};

fn payload(file: &[u8]) -> Vec<u8> {
    file[HEADER_LEN..file.len() - TRAILER_LEN].to_vec()
}

/// The file with `bytes` at `at` of its payload, and a right checksum.
fn patched(example: &Example, at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut payload = payload(&example.file);
    payload[at..at + bytes.len()].copy_from_slice(bytes);
    sealed(example.kind, &payload)
}

fn example(kind: Kind) -> Example {
    examples::all().into_iter().find(|example| example.kind == kind).expect("every kind has an example")
}

fn field(result: Result<(), WireError>) -> &'static str {
    match result {
        Err(WireError::Field { field, .. }) => field,
        other => panic!("expected a wrong field, found {other:?}"),
    }
}

#[test]
fn truncated_at_every_byte() {
    for Example { file, read, .. } in examples::all() {
        for len in 0..file.len() {
            for error in [read(&file[..len]).unwrap_err(), wire::identify(&file[..len]).unwrap_err()] {
                match error {
                    WireError::NoHeader { has } if len < HEADER_LEN => assert_eq!(has, len as u64),
                    WireError::Truncated { has, needs } if len >= HEADER_LEN => {
                        assert_eq!((has, needs), (len as u64, file.len() as u64));
                    }
                    error => panic!("at {len}: {error}"),
                }
            }
        }
    }
}

/// A whole file whose payload is too short for its kind is not "truncated: it has 120 bytes and needs 120".
#[test]
fn payloads_that_are_too_short() {
    for Example { kind, read, .. } in examples::all() {
        for len in [0, 1, 7] {
            let file = sealed(kind, &vec![0; len]);
            let error = read(&file).unwrap_err();
            let refused = matches!(error, WireError::Field { field: "payload length", .. } | WireError::Text(_));
            assert!(refused, "{kind} of {len} bytes: {error}");
            if let Err(error) = wire::identify(&file[..]) {
                let refused = matches!(error, WireError::Field { field: "payload length", .. } | WireError::Text(_));
                assert!(refused, "{kind} of {len} bytes: {error}");
            }
        }
    }
}

/// Sets are read and written one at a time, and a file of the wrong length is known before the first.
#[test]
fn sets_come_one_by_one() {
    let layout = CiphertextLayout::result(&SPEC);
    let mut sets = ciphertexts(binding().params, &layout, 40);
    sets.sets.iter_mut().enumerate().for_each(|(i, set)| set[0] = i as u8);
    let file = written(|file| {
        let mut writer = wire::CiphertextsWriter::new(file, &binding(), &layout, &sets.info())?;
        sets.sets.iter().try_for_each(|set| writer.put(set))?;
        writer.finish()
    });
    assert_eq!(file, written(|file| wire::write_ciphertexts(file, &binding(), &layout, &sets)));

    let open = |file| wire::CiphertextsReader::open(file, &binding(), &layout).expect("the headers are right");
    let mut reader = open(&file[..]);
    assert_eq!(reader.info(), &sets.info());
    let (mut set, mut count) = (Vec::new(), 0);
    while reader.next(&mut set).expect("a whole file") {
        assert_eq!(set, sets.sets[count]);
        count += 1;
    }
    assert_eq!(count, 3);
    reader.finish().expect("undamaged");
    assert!(matches!(open(&file[..]).finish(), Err(WireError::Field { field: "payload length", .. })));

    let (len, reader) = (file.len() as u64, open(&file[..]));
    reader.expect_len(len).expect("the length of the file");
    assert!(
        matches!(reader.expect_len(len - 1), Err(WireError::Truncated { has, needs }) if (has, needs) == (len - 1, len))
    );
    assert!(matches!(reader.expect_len(len + 1), Err(WireError::Trailing { .. })));

    let mut cut = open(&file[..file.len() - TRAILER_LEN - 1]);
    cut.next(&mut set).expect("the first set is there");
    cut.next(&mut set).expect("the second set is there");
    assert!(matches!(cut.next(&mut set), Err(WireError::Truncated { .. })));
}

#[test]
fn every_bit_flip_is_found() {
    for Example { mut file, read, .. } in examples::all() {
        for bit in 0..8 * file.len() {
            file[bit / 8] ^= 1 << (bit % 8);
            assert!(read(&file).is_err() && wire::identify(&file[..]).is_err(), "bit {bit}");
            file[bit / 8] ^= 1 << (bit % 8);
        }
        read(&file).expect("undamaged again");
    }
}

#[test]
fn trailing_bytes() {
    for Example { mut file, read, .. } in examples::all() {
        file.push(0);
        let WireError::Trailing { len } = read(&file).unwrap_err() else { panic!("trailing byte") };
        assert_eq!(len, file.len() as u64 - 1);
    }
}

#[test]
fn oversized_lengths_are_refused_before_they_are_believed() {
    for Example { mut file, read, .. } in examples::all() {
        for len in [u64::MAX, u64::MAX - HEADER_LEN as u64, 1 << 40] {
            file[HEADER_LEN - 8..HEADER_LEN].copy_from_slice(&len.to_le_bytes());
            assert_eq!(field(read(&file)), "payload length");
            let found = wire::identify(&file[..]).unwrap_err();
            assert!(matches!(found, WireError::Truncated { .. } | WireError::Field { .. }), "{found}");
        }
    }
}

#[test]
fn a_consistent_claim_of_billions_of_images_reads_one_set() {
    let Example { mut file, read, .. } = example(Kind::Result);
    let (sets, n) = ((1u32 << 31) - 6, binding().params.n() as u64);
    let images = u64::from(sets) * n;
    let layout = CiphertextLayout::result(&SPEC);
    let len = wire::ciphertexts_len(binding().params, &layout, images) - (HEADER_LEN + TRAILER_LEN) as u64;
    file[HEADER_LEN - 8..HEADER_LEN].copy_from_slice(&len.to_le_bytes());
    file[HEADER_LEN + 20..HEADER_LEN + 24].copy_from_slice(&sets.to_le_bytes());
    file[HEADER_LEN + 28..HEADER_LEN + 36].copy_from_slice(&images.to_le_bytes());
    assert!(matches!(read(&file), Err(WireError::Truncated { has, .. }) if has == file.len() as u64));
}

#[test]
fn a_hostile_spec_cannot_make_a_short_file_take_memory() {
    let Example { mut file, .. } = example(Kind::Result);
    let layout = CiphertextLayout { values: 1 << 31, components: 1 << 12, ..CiphertextLayout::result(&SPEC) };
    let len = wire::ciphertexts_len(binding().params, &layout, 1) - (HEADER_LEN + TRAILER_LEN) as u64;
    assert!(len > 1 << 46, "a set that no machine holds");
    file[HEADER_LEN - 8..HEADER_LEN].copy_from_slice(&len.to_le_bytes());
    file[HEADER_LEN + 4..HEADER_LEN + 8].copy_from_slice(&(1u32 << 31).to_le_bytes());
    file[HEADER_LEN + 8..HEADER_LEN + 12].copy_from_slice(&(1u32 << 12).to_le_bytes());
    file[HEADER_LEN + 16..HEADER_LEN + 20].copy_from_slice(&0u32.to_le_bytes());
    file[HEADER_LEN + 20..HEADER_LEN + 24].copy_from_slice(&1u32.to_le_bytes());
    file[HEADER_LEN + 28..HEADER_LEN + 36].copy_from_slice(&1u64.to_le_bytes());
    let error = wire::read_ciphertexts(&file[..], &binding(), &layout).unwrap_err();
    assert!(matches!(error, WireError::Truncated { has, .. } if has == file.len() as u64), "{error}");
}

#[test]
fn wrong_kinds_say_what_they_are() {
    for Example { kind: expected, read, .. } in examples::all() {
        for other in examples::all().into_iter().filter(|other| other.kind != expected) {
            let error = read(&other.file).unwrap_err();
            assert!(error.to_string().contains(other.kind.name()) && error.to_string().contains(expected.name()));
            assert!(matches!(error, WireError::Kind { actual, .. } if actual == other.kind));
        }
    }
}

#[test]
fn foreign_files_and_versions() {
    let Example { mut file, read, .. } = example(Kind::PublicKey);
    for foreign in [&b"\x89PNG\r\n\x1a\n"[..], b"C", b"CRYPTODl"] {
        let refused = matches!(read(foreign), Err(WireError::NotCryptodl));
        assert_eq!(refused, foreign != b"C", "a prefix of the magic is truncated");
    }
    for (version, fragment) in [(1u8, "comes from an older release"), (3, "is unknown"), (255, "is unknown")] {
        file[8] = version;
        let error = read(&file).unwrap_err();
        assert!(matches!(error, WireError::Version { actual } if actual == u32::from(version)));
        let says = ["this program reads version 2", fragment];
        assert!(says.iter().all(|part| error.to_string().contains(part)), "{error}");
    }
    file[8] = 2;
    file[12] = 9;
    assert_eq!(field(read(&file)), "kind");
}

#[test]
fn other_programs_and_parameters() {
    let layout = CiphertextLayout::result(&SPEC);
    let file = example(Kind::Result).file;
    let other = Binding { program: Digest([8; 32]), ..binding() };
    let message = wire::read_ciphertexts(&file[..], &other, &layout).unwrap_err().to_string();
    let needed = [SPEC.program.short(), other.program.short(), "planning options".into()];
    assert!(needed.iter().all(|part| message.contains(part)), "{message}");

    let spec = ParamsSpec { special_primes: Vec::new(), ..SPEC.params.clone() };
    let params = spec.build_insecure_for_tests().expect("a small ring");
    let other = Binding { params: &params, ..binding() };
    assert!(matches!(wire::read_ciphertexts(&file[..], &other, &layout), Err(WireError::Params { .. })));
    for kind in [Kind::PublicKey, Kind::EvalKey] {
        let file = example(kind).file;
        let refused = match kind {
            Kind::PublicKey => wire::read_public_key(&file[..], &params).map(drop),
            _ => wire::read_eval_keys(&file[..], &params).map(drop),
        };
        assert!(matches!(refused, Err(WireError::Params { .. })), "{kind}");
    }
}

/// Keys serve every Program of their parameters, and name none.
#[test]
fn keys_name_no_program() {
    for Example { kind, mut file, read } in examples::all().into_iter().filter(|example| example.kind.is_key()) {
        assert_eq!(file[16..48], [0; 32]);
        file[47] = 1;
        assert_eq!(field(read(&file)), "program digest of a key", "{kind}");
        assert_eq!(field(wire::identify(&file[..]).map(drop)), "program digest of a key", "{kind}");
    }
}

#[test]
fn unreduced_residues_are_named() {
    let params = binding().params;
    let mut key = public_key(params, 1);
    let prime = params.basis().modulus(1).value();
    key.b[params.n() + 5] = prime;
    let file = written(|file| wire::write_public_key(file, params, &key));
    let error = wire::read_public_key(&file[..], params).unwrap_err();
    assert!(matches!(error, WireError::Residue { limb: 1, index: 5, residue, .. } if residue == prime), "{error}");

    let layout = CiphertextLayout::result(&SPEC);
    let mut sets = ciphertexts(params, &layout, 1);
    wire::check_residues(params, &sets, &sets.sets[0]).expect("zeros are reduced");
    let (n, bits) = (params.n(), params.basis().modulus(0).bits());
    let row_len = sets.sets[0].len() / (layout.components * layout.values);
    let mut row = vec![0; n];
    row[3] = params.basis().modulus(0).value() + 1;
    // Component 2, value 1.
    pack_row(&row, bits, &mut sets.sets[0][5 * row_len..]);
    let error = wire::check_residues(params, &sets, &sets.sets[0]).unwrap_err();
    assert!(matches!(error, WireError::Residue { limb: 0, index, .. } if index == 5 * n + 3), "{error}");
}

#[test]
fn fields_out_of_range() {
    let result = example(Kind::Result);
    let fields =
        ["level", "values per set", "components", "packing", "index of the first set", "number of sets", "seeded flag"];
    for (i, name) in fields.into_iter().enumerate() {
        for value in [1u32 << 31, u32::MAX] {
            assert_eq!(field((result.read)(&patched(&result, 4 * i, &value.to_le_bytes()))), name);
        }
    }
    assert_eq!(field((result.read)(&patched(&result, 28, &[0; 8]))), "number of images");
    assert_eq!(field((result.read)(&patched(&result, 28, &[255; 8]))), "number of sets");
    assert_eq!(field((result.read)(&patched(&result, 36, &[1]))), "seed of unseeded ciphertexts");
    // Two sets of two values: the last number is below 2^32 up to this first set.
    let last = (1u32 << 31) - 3;
    (result.read)(&patched(&result, 16, &last.to_le_bytes())).expect("the last part of the largest whole");
    wire::identify(&patched(&result, 16, &(last + 1).to_le_bytes())[..]).expect_err("beyond 32 bits");
    assert_eq!(field((result.read)(&patched(&result, 16, &(last + 1).to_le_bytes()))), "index of the first set");
    for packing in [1u32, 2, 255, u32::MAX] {
        assert_eq!(field((result.read)(&patched(&result, 12, &packing.to_le_bytes()))), "packing");
    }
}

/// Every layout in a list is checked against the parameters, before its rows are read.
#[test]
fn forged_lists_of_evaluation_keys() {
    let params = binding().params;
    let keys = |count: usize| {
        let keys = examples::eval_keys(params, &LAYOUTS[..count]);
        let file = written(|file| wire::write_eval_keys(file, params, &keys));
        let read = |file: &[u8]| wire::read_eval_keys(file, binding().params).map(drop);
        Example { kind: Kind::EvalKey, file, read }
    };
    let (two, one, none) = (keys(2), keys(1), keys(0));
    let first = payload(&one.file).len();
    let fields =
        [(0, "kind of an evaluation key"), (4, ""), (8, "evaluation_keys.level"), (12, "evaluation_keys.digit_primes")];
    for (at, name) in fields {
        for value in [7u32, u32::MAX] {
            for (entry, element) in [(4, "element of a relinearisation key"), (first, "evaluation_keys.element")] {
                let name = if name.is_empty() { element } else { name };
                let file = patched(&two, entry + at, &value.to_le_bytes());
                assert_eq!(field((two.read)(&file)), name);
                // Without parameters, a level can be refused for the length that it needs, and only
                // the first entry is known.
                if entry == 4 {
                    let found = field(wire::identify(&file[..]).map(drop));
                    assert!(found == name || (value, found) == (7, "payload length"), "{found} for {name} = {value}");
                }
            }
        }
    }
    for at in [8, 12] {
        assert!(field((one.read)(&patched(&one, 4 + at, &[0; 4]))).starts_with("evaluation_keys."));
    }
    // A digit has four primes at most.
    assert_eq!(field((one.read)(&patched(&one, 16, &[5]))), "evaluation_keys.digit_primes");
    // A key of automorphisms has an element, and a prime has four parts at most.
    assert_eq!(field((one.read)(&patched(&one, 4, &[2]))), "evaluation_keys.element");
    assert_eq!(field((two.read)(&patched(&two, first + 14, &[4]))), "evaluation_keys.prime_parts");

    // The number of keys.
    for count in [65u32, u32::MAX] {
        assert_eq!(field((two.read)(&patched(&two, 0, &count.to_le_bytes()))), "number of keys");
    }
    for (example, counts) in [(&two, [0, 1, 3, 64]), (&one, [0, 2, 3, 64]), (&none, [1, 2, 3, 64])] {
        for count in counts {
            assert_eq!(field((example.read)(&patched(example, 0, &[count]))), "payload length", "{count}");
        }
    }
    // The same layout twice, with another seed.
    let [both, entry] = [&two, &one].map(|example| payload(&example.file));
    let mut twice = [&[2, 0, 0, 0], &entry[4..], &entry[4..]].concat();
    twice[first + 16] ^= 1;
    let error = (two.read)(&sealed(Kind::EvalKey, &twice)).unwrap_err();
    assert!(error.to_string().contains("for the second time"), "{error}");
    // In another order the same keys are the same keys.
    let turned = [&both[..4], &both[first..], &both[4..first]].concat();
    (two.read)(&sealed(Kind::EvalKey, &turned)).expect("any order");
    // Nothing may follow, and nothing may lack.
    for len in [both.len() - 1, first, first + 15, first + 47] {
        assert_eq!(field((two.read)(&sealed(Kind::EvalKey, &both[..len]))), "payload length", "{len}");
    }
    assert_eq!(field((two.read)(&sealed(Kind::EvalKey, &[&both[..], &[0]].concat()))), "payload length");
    assert_eq!(field((none.read)(&sealed(Kind::EvalKey, &[0; 5]))), "payload length");
}

/// `identify` has no parameters, and refuses what no parameters would allow.
#[test]
fn what_no_reader_takes_is_not_identified() {
    let refused = |file: &[u8]| field(wire::identify(file).map(drop));
    let result = example(Kind::Result);
    for (at, name) in [(0, "level"), (4, "values per set"), (8, "components"), (20, "number of sets")] {
        assert_eq!(refused(&patched(&result, at, &[0; 4])), name);
    }
    for (at, value, name) in [
        (0, 65, "level"),
        (4, (1 << 20) + 1, "values per set"),
        (8, 1, "components"),
        (8, 17, "components"),
        (12, 1, "number of sets"),
        (12, 17, "packing"),
        (16, 1 << 31, "index of the first set"),
        // 17 images are in two sets, and 17 sets hold at least 17 images.
        (20, 18, "number of sets"),
        (20, 7, "length of all sets"),
        (24, 1, "seeded flag"),
    ] {
        assert_eq!(refused(&patched(&result, at, &u32::to_le_bytes(value))), name, "{value}");
    }
    assert_eq!(refused(&patched(&result, 28, &[0; 8])), "number of images");
    // A set holds at most 65,536 images.
    assert_eq!(refused(&patched(&result, 28, &(2 * 65_536u64 + 1).to_le_bytes())), "number of sets");
    assert_eq!(refused(&sealed(Kind::Result, &payload(&result.file)[..68])), "length of all sets");

    let key = example(Kind::EvalKey);
    let [level, digit] = ["evaluation_keys.level", "evaluation_keys.digit_primes"];
    for (at, value, name) in [
        (0, 65, "number of keys"),
        (0, 0, "payload length"),
        (4, 0, "kind of an evaluation key"),
        (4, 3, "evaluation_keys.power"),
        (4, 4, "kind of an evaluation key"),
        (8, 1, "element of a relinearisation key"),
        (12, 0, level),
        (12, 65, level),
        (12, u32::MAX, level),
        (16, 0, digit),
        (16, 5, digit),
        (16, 0x40001, "evaluation_keys.prime_parts"),
    ] {
        assert_eq!(refused(&patched(&key, at, &value.to_le_bytes())), name, "{value}");
    }
    let empty = examples::all().into_iter().rfind(|example| example.kind == Kind::EvalKey).expect("the empty list");
    wire::identify(&empty.file[..]).expect("no keys");
    assert_eq!(refused(&sealed(Kind::EvalKey, &[0; 5])), "payload length");
    assert_eq!(refused(&patched(&empty, 0, &[1])), "payload length");

    // Keys of the smallest ring that clients accept have 1024 coefficients, or one row of 1024 residues of 13 bits.
    let secret = |len: usize| sealed(Kind::SecretKey, &vec![255; len]);
    for len in [1024, 65_536] {
        wire::identify(&secret(len)[..]).expect("a secret key");
    }
    for len in [1, 2, 512, 1023, 1025, 131_072, 1 << 20] {
        assert_eq!(refused(&secret(len)), "payload length");
    }
    let other = [vec![1; 1023], vec![2]].concat();
    assert_eq!(refused(&sealed(Kind::SecretKey, &other)), "a coefficient of the secret key");
    for len in [0, 1, 32, 32 + 1663] {
        assert_eq!(refused(&sealed(Kind::PublicKey, &vec![0; len])), "payload length");
    }
    wire::identify(&sealed(Kind::PublicKey, &vec![0; 32 + 1664])[..]).expect("a public key");
    let short = [&payload(&result.file)[..68], &[0; 24]].concat();
    assert_eq!(refused(&sealed(Kind::Result, &short)), "payload length");
}

#[test]
fn hostile_spec_texts() {
    let read = |text: &[u8]| wire::read_client_spec(&sealed(Kind::ClientSpec, text)[..]).map(drop);
    let text = String::from_utf8(payload(&example(Kind::ClientSpec).file)).expect("JSON is UTF-8");
    read(text.as_bytes()).expect("the valid text");
    let nested = "[".repeat(60_000);
    let extra = text.replacen('{', "{\"extra\":1,", 1);
    for bad in
        ["", "null", "\u{0}", &nested, &extra, &text[1..], &text.replace("16", "-16"), &text.replace("16", "1e99")]
    {
        assert!(matches!(read(bad.as_bytes()), Err(WireError::Text(_))));
    }
    assert!(matches!(read(b"\"\xff\""), Err(WireError::Text(_))));
    let forged = read(text.replacen('{', "{\"a\\nerror: forged\":1,", 1).as_bytes()).unwrap_err().to_string();
    assert!(forged.contains("a\\u000aerror: forged") && !forged.contains('\n'), "{forged}");
    // What a reader by type would take: arrays for objects, an object for a name.
    let spec: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let altered = |alter: &dyn Fn(&mut serde_json::Value)| {
        let mut spec = spec.clone();
        alter(&mut spec);
        read(spec.to_string().as_bytes())
    };
    altered(&|_| ()).expect("members in another order");
    altered(&|spec| spec["evaluation_keys"] = serde_json::json!([])).expect("no key to switch with");
    let in_order: [(&str, &[&str]); 3] = [
        ("params", &["n", "primes", "special_primes", "security"]),
        ("input", &["packing", "shape", "range", "scale", "level"]),
        ("output", &["packing", "classes", "components", "level", "scale", "range", "noise"]),
    ];
    for (member, order) in in_order {
        let array = |spec: &mut serde_json::Value| {
            spec[member] = order.iter().map(|name| spec[member][name].clone()).collect();
        };
        assert_eq!(field(altered(&array)), "form of the client spec", "{member} as an array");
    }
    let key_in_order =
        |spec: &mut serde_json::Value| spec["evaluation_keys"][0] = serde_json::json!(["relinearisation", 2, 1]);
    assert_eq!(field(altered(&key_in_order)), "form of the client spec");
    for (at, value) in [
        ("", serde_json::Value::Null),
        ("", serde_json::json!({ "kind": "relinearisation", "level": 2, "digit_primes": 1 })),
        ("/0", serde_json::json!({ "level": 2, "digit_primes": 1 })),
        ("/0", serde_json::json!({ "kind": "automorphism", "level": 2, "digit_primes": 1 })),
        ("/0", serde_json::json!({ "kind": "relinearisation", "level": 2 })),
        ("/0", serde_json::json!({ "kind": "relinearisation", "level": 2, "digit_primes": 1, "more": 1 })),
        ("/0/kind", serde_json::Value::Null),
        ("/0/level", serde_json::json!(-1)),
    ] {
        let change = |spec: &mut serde_json::Value| {
            *spec["evaluation_keys"].pointer_mut(at).expect("a member") = value.clone();
        };
        assert!(matches!(altered(&change), Err(WireError::Text(_))), "{value} at {at}");
    }
    for packing in [serde_json::json!("dense"), serde_json::json!(0), serde_json::Value::Null] {
        let change = |spec: &mut serde_json::Value| spec["input"]["packing"] = packing.clone();
        assert!(matches!(altered(&change), Err(WireError::Text(_))), "{packing}");
    }
    for (object, member) in
        [("", "evaluation_keys"), ("/input", "packing"), ("/output", "packing"), ("/output", "range")]
    {
        let without = |spec: &mut serde_json::Value| {
            let object = spec.pointer_mut(object).and_then(serde_json::Value::as_object_mut);
            drop(object.expect("an object").remove(member));
        };
        assert!(matches!(altered(&without), Err(WireError::Text(_))), "without {member}");
    }
    let packing = |spec: &mut serde_json::Value| spec["input"]["packing"] = serde_json::json!({ "spread": null });
    assert_eq!(field(altered(&packing)), "form of the client spec");
    let encryption = |spec: &mut serde_json::Value| spec["encryption"] = serde_json::json!({ "secret": null });
    assert_eq!(field(altered(&encryption)), "form of the client spec");
    let named = |names: serde_json::Value| altered(&|spec| spec["class_names"] = names.clone());
    named(serde_json::json!(["a", "ß"])).expect("names of classes");
    for names in [serde_json::Value::Null, "a".into(), serde_json::json!([1]), serde_json::json!({ "0": "a" })] {
        assert!(matches!(named(names.clone()), Err(WireError::Text(_))), "{names}");
    }
    let mut whole: Vec<_> = ["model", "program", "params", "evaluation_keys", "encryption", "input", "output"]
        .map(|name| spec[name].clone())
        .into();
    whole.insert(1, serde_json::json!([]));
    assert_eq!(field(read(serde_json::Value::from(whole).to_string().as_bytes())), "form of the client spec");
    assert_eq!(field(read(&vec![b' '; wire::MAX_CLIENT_SPEC_BYTES as usize + 1])), "payload length");
    assert_eq!(field(read(text.replace("0707", "0808").as_bytes())), "program digest of the header");
    assert_eq!(field(read(text.replace("\"n\":16", "\"n\":32").as_bytes())), "parameter digest of the header");
}
