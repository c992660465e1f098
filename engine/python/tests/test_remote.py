"""`Client.remote` against the service that the command line runs."""

import json
import multiprocessing
import os
import pickle
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import cryptodl
import numpy as np
import pytest

DOCS = Path(__file__).resolve().parents[3] / "docs" / "service.md"
MODEL = "mnist-1-square"
# Bytes that are sent in one request.
PIECE = 8 << 20


class Service:
    """`cryptodl serve` as a process of its own."""

    def __init__(self, binary, folder, program, *arguments):
        self.command = [binary, "serve", "--program", program, "--state", folder / "state", "--threads", "2",
                        "--listen", "127.0.0.1:0", *arguments]
        self.state = folder / "state"
        self.start()

    def start(self):
        self.process = subprocess.Popen(list(map(str, self.command)), stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        assert line.startswith("serving "), line
        self.url = line.split()[-1]

    @property
    def port(self):
        return int(self.url.rsplit(":", 1)[1])

    def kill(self):
        """As a loss of power would."""
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def files(self, kind):
        return len(list((self.state / kind).iterdir()))

    def ask(self, path, method="GET"):
        request = urllib.request.Request(self.url + path, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)


@pytest.fixture
def serve(binary, saved, tmp_path):
    running = []

    def start(*arguments, program=saved / "server.program"):
        folder = tmp_path / f"service-{len(running)}"
        folder.mkdir()
        running.append(Service(binary, folder, program, *arguments))
        return running[-1]

    yield start
    for service in running:
        if service.process.poll() is None:
            service.kill()


@pytest.fixture(autouse=True)
def no_token(monkeypatch):
    monkeypatch.delenv("CRYPTODL_TOKEN", raising=False)


def test_a_service_classifies_what_it_cannot_see(serve, binary, saved, digits, tmp_path):
    service = serve()
    images, labels = digits[0][:60], digits[1][:60]
    client = cryptodl.Client.remote(service.url, MODEL, tmp_path / "keys")
    assert (client.shape, client.range) == ((1, 28, 28), (0.0, 1.0))
    told = []
    found = client.predict(images, progress=lambda done, total: told.append((done, total)))
    assert (found.labels == labels).mean() >= 0.95
    assert found.scores.shape == (60, 10) and not found.doubtful.any() and len(found.names) == 60
    # The steps one after the other; the first one is sending.
    length = len(cryptodl.Client(saved / "client.spec", tmp_path / "keys").encrypt(images))
    assert (length, length) in told and all(0 < done <= total for done, total in told)
    # Nothing is left there but the public keys, and the secret one is its owner's.
    assert [service.files(kind) for kind in ("uploads", "results", "keys")] == [0, 0, 1]
    secret = tmp_path / "keys/secret/secret.key"
    assert os.stat(secret).st_mode & 0o077 == 0 and os.stat(secret.parent).st_mode & 0o077 == 0
    key = secret.read_bytes()
    assert all(key[64:128] not in path.read_bytes() for path in (service.state / "keys").iterdir())

    # The same keys again, and a result that stays.
    again = cryptodl.Client.remote(service.url, MODEL, tmp_path / "keys", keep=True)
    assert (again.predict(images[:7]).labels == found.labels[:7]).all()
    assert secret.read_bytes() == key
    assert [service.files(kind) for kind in ("uploads", "results", "keys")] == [0, 1, 1]

    # The command line goes on with the same folder, and with one that it made the package does.
    np.save(tmp_path / "images.npy", images)
    query = [binary, "query", "--server", service.url, "--model", MODEL, "--input", "images.npy", "--out", "labels.npy"]
    for keys in ("keys", "others"):
        subprocess.run([*query, "--keys", keys], check=True, cwd=tmp_path)
        assert (np.load(tmp_path / "labels.npy") == found.labels).mean() >= 0.95
    others = cryptodl.Client.remote(service.url, MODEL, tmp_path / "others")
    assert (others.predict(images[:7]).labels == found.labels[:7]).all()
    assert service.files("keys") == 2


def test_the_documented_client(serve, digits, tmp_path, monkeypatch):
    """docs/service.md as it stands there, but for the address and the network."""
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.S)
    assert "http://127.0.0.1:8750" in block and '"mnist-1"' in block
    page = {"images": digits[0][:30]}
    exec(block.replace("http://127.0.0.1:8750", serve().url).replace('"mnist-1"', f'"{MODEL}"'), page)
    assert (page["labels"] == digits[1][:30]).mean() >= 0.9 and Path("my-keys/secret/secret.key").exists()


def test_who_is_asked_for_a_token(serve, binary, digits, tmp_path, monkeypatch):
    tokens = tmp_path / "tokens.txt"
    command = [binary, "serve", "--new-token", "alice", "--tokens", tokens]
    token = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    service = serve("--tokens", tokens)
    folder = tmp_path / "keys"
    wrong = "cryptodl-" + 64 * "0"
    for given in (None, wrong, "no token\nat all"):
        with pytest.raises(cryptodl.AuthenticationError, match="token"):
            cryptodl.Client.remote(service.url, MODEL, folder, token=given)
    assert not folder.exists()
    client = cryptodl.Client.remote(service.url, MODEL, folder, token=token)
    assert (client.predict(digits[0][:20]).labels == digits[1][:20]).mean() >= 0.9
    monkeypatch.setenv("CRYPTODL_TOKEN", token)
    cryptodl.Client.remote(service.url, MODEL, folder)
    # One that is given counts, whatever the environment says.
    with pytest.raises(cryptodl.AuthenticationError):
        cryptodl.Client.remote(service.url, MODEL, folder, token=wrong)
    # Nobody else gets hold of it by the way.
    with pytest.raises(TypeError, match="token"):
        pickle.dumps(client)
    assert token.strip() not in repr(vars(client))


def test_whom_the_client_trusts(serve, digits, tmp_path):
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-addext",
         "basicConstraints=critical,CA:FALSE", "-keyout", key, "-out", cert],
        check=True, capture_output=True)
    service = serve("--tls-cert", cert, "--tls-key", key)
    url = f"https://localhost:{service.port}"
    with pytest.raises(cryptodl.AuthenticationError, match="not trusted"):
        cryptodl.Client.remote(url, MODEL, tmp_path / "keys")
    client = cryptodl.Client.remote(url, MODEL, tmp_path / "keys", ca=cert)
    assert (client.predict(digits[0][:20]).labels == digits[1][:20]).mean() >= 0.9
    with pytest.raises(cryptodl.AuthenticationError, match="certificate"):
        cryptodl.Client.remote(url, MODEL, tmp_path / "keys", ca=tmp_path / "keys/public/client.spec")
    with pytest.raises(FileNotFoundError, match="absent.pem"):
        cryptodl.Client.remote(url, MODEL, tmp_path / "keys", ca=tmp_path / "absent.pem")


def test_a_changed_spec_is_refused_unless_it_is_asked_for(serve, digits, tmp_path):
    folder = tmp_path / "keys"
    pinned = folder / "public/client.spec"
    images, labels = digits[0][:20], digits[1][:20]
    cryptodl.Client.remote(serve().url, MODEL, folder)
    before = pinned.read_bytes()
    # The same parameters, for which the keys are good; and others.
    renamed = cryptodl.compile(MODEL, calibration=None, class_names=[f"digit {i}" for i in range(10)])
    stronger = cryptodl.compile(MODEL, calibration=None, security=256)
    renamed.save(tmp_path / "renamed")
    stronger.save(tmp_path / "stronger")
    urls = {name: serve(program=tmp_path / name / "server.program").url for name in ("renamed", "stronger")}
    for url in urls.values():
        with pytest.raises(cryptodl.SpecChangedError, match="another client spec.*accept_new_spec=True"):
            cryptodl.Client.remote(url, MODEL, folder)
        assert pinned.read_bytes() == before
    with pytest.raises(cryptodl.FormatError, match="other keys"):
        cryptodl.Client.remote(urls["stronger"], MODEL, folder, accept_new_spec=True)
    assert pinned.read_bytes() == before
    client = cryptodl.Client.remote(urls["renamed"], MODEL, folder, accept_new_spec=True)
    assert pinned.read_bytes() == renamed.spec != before
    found = client.predict(images)
    assert (found.labels == labels).mean() >= 0.9 and found.names[0] == f"digit {found.labels[0]}"
    # It is the one that is expected now.
    cryptodl.Client.remote(urls["renamed"], MODEL, folder)


class Line:
    """What is between client and service. After `most` bytes from the client, the service is killed and started again."""

    def __init__(self, service, most):
        self.service, self.most = service, most
        self.before = self.after = 0
        self.lock = threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = "http://127.0.0.1:%d" % self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self.service.port))
            except OSError:
                client.close()
                continue
            threading.Thread(target=self.forward, args=(client, server, True), daemon=True).start()
            threading.Thread(target=self.forward, args=(server, client, False), daemon=True).start()

    def forward(self, source, sink, up):
        try:
            while data := source.recv(1 << 16):
                if up:
                    self.count(len(data))
                sink.sendall(data)
        except OSError:
            pass
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def count(self, size):
        with self.lock:
            if self.before >= self.most:
                self.after += size
                return
            self.before += size
            if self.before >= self.most:
                self.service.kill()
                self.service.start()


def test_an_upload_goes_on_after_the_service_was_killed(serve, digits, tmp_path):
    images, labels = digits[0][:40], digits[1][:40]
    service = serve()
    cryptodl.Client.remote(service.url, MODEL, tmp_path / "keys")
    keys = len(cryptodl.Client(tmp_path / "keys/public/client.spec", tmp_path / "keys").evaluation_key())
    line = Line(service, keys + PIECE + PIECE // 2)
    found = cryptodl.Client.remote(line.url, MODEL, tmp_path / "keys").predict(images)
    assert (found.labels == labels).mean() >= 0.9
    length = len(cryptodl.Client(tmp_path / "keys/public/client.spec", tmp_path / "keys").encrypt(images))
    assert length > 2 * PIECE
    # It was killed in the midst of the upload, whose first piece was not sent again.
    assert 0 < line.after < length - PIECE // 2, (line.before, line.after, length)
    assert service.files("uploads") == 0 and service.files("results") == 0


def test_a_service_that_is_away_for_too_long(serve, digits, tmp_path):
    service = serve()
    client = cryptodl.Client.remote(service.url, MODEL, tmp_path / "keys", patience=1)
    service.kill()
    start = time.monotonic()
    with pytest.raises(cryptodl.UnreachableError, match="does not answer"):
        client.predict(digits[0][:3])
    assert time.monotonic() - start < 30
    with pytest.raises(cryptodl.UnreachableError):
        cryptodl.Client.remote(service.url, MODEL, tmp_path / "keys", patience=0)
    assert issubclass(cryptodl.UnreachableError, cryptodl.RemoteError)
    assert issubclass(cryptodl.RemoteError, cryptodl.CryptoDLError)


def test_what_is_refused_says_so(serve, digits, tmp_path):
    service, folder = serve(), tmp_path / "keys"
    with pytest.raises(cryptodl.RefusedError, match="(?i)model"):
        cryptodl.Client.remote(service.url, "mnist-3", folder)
    for url in ("http://predict.example.org", "ftp://127.0.0.1", f"{service.url}/v1", "http://a:b@127.0.0.1"):
        with pytest.raises(ValueError, match="http|password"):
            cryptodl.Client.remote(url, MODEL, folder)
    with pytest.raises(ValueError, match="patience"):
        cryptodl.Client.remote(service.url, MODEL, folder, patience=-1)
    with pytest.raises(ValueError, match="max_size"):
        cryptodl.Client.remote(service.url, MODEL, folder, max_size=1000)
    assert not folder.exists()
    client = cryptodl.Client.remote(service.url, MODEL, folder)
    small = cryptodl.Client.remote(service.url, MODEL, folder, max_size=1 << 20)
    with pytest.raises(ValueError, match="max_size"):
        small.predict(digits[0][:3])
    with pytest.raises(cryptodl.InputError, match="astype"):
        client.predict(digits[0][:3].astype(np.float64))
    with pytest.raises(cryptodl.InputError, match="0 to 1"):
        client.predict(2 * digits[0][:3])
    # Nor does what was refused take room there.
    assert service.files("uploads") == 0
    with pytest.raises(ZeroDivisionError):
        client.predict(digits[0][:3], progress=lambda done, total: 1 / 0)
    # Keys that are damaged, or not all there, are not made again.
    secret = folder / "secret/secret.key"
    secret.write_bytes(secret.read_bytes()[:-1])
    with pytest.raises(cryptodl.FormatError, match="secret.key"):
        cryptodl.Client.remote(service.url, MODEL, folder)
    secret.unlink()
    with pytest.raises(FileNotFoundError, match="secret.key is not there, but others"):
        cryptodl.Client.remote(service.url, MODEL, folder)


def test_a_job_that_is_cancelled(serve, digits, tmp_path):
    # Nobody computes, so the job waits.
    service = serve("--workers-only")
    client = cryptodl.Client.remote(service.url, MODEL, tmp_path / "keys")
    failures = []

    def predict():
        try:
            client.predict(digits[0][:3])
        except cryptodl.CryptoDLError as error:
            failures.append(error)

    thread = threading.Thread(target=predict)
    thread.start()
    while not (jobs := service.ask("/v1/jobs")):
        time.sleep(0.1)
    service.ask(f"/v1/jobs/{jobs[0]['id']}/cancel", "POST")
    thread.join(60)
    (failure,) = failures
    assert isinstance(failure, cryptodl.JobError) and "cancelled" in str(failure)


def _predict(client, images, queue):
    queue.put(client.predict(images).labels)


def test_threads_and_forked_processes_share_a_client(serve, digits, tmp_path):
    client = cryptodl.Client.remote(serve().url, MODEL, tmp_path / "keys")
    images, labels = digits[0][:20], digits[1][:20]
    assert (client.predict(images).labels == labels).mean() >= 0.9
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=_predict, args=(client, images, queue))
    process.start()
    assert (queue.get(timeout=120) == labels).mean() >= 0.9
    process.join()
    ticks, results, start = [], [], time.monotonic()
    work = [threading.Thread(target=lambda: results.append(client.predict(images).labels)) for _ in range(3)]
    [thread.start() for thread in work]
    # The interpreter is free meanwhile.
    while any(thread.is_alive() for thread in work):
        ticks.append(time.monotonic())
        time.sleep(0.005)
    assert len(results) == 3 and min((found == labels).mean() for found in results) >= 0.9
    assert len(ticks) >= 5, f"{len(ticks)} ticks in {time.monotonic() - start:.2f} s"


@pytest.mark.parametrize("step", ["send", "compute"])
def test_ctrl_c_ends_a_query_that_waits(serve, tmp_path, step):
    """The service is stopped, so that no answer comes, or it computes nothing."""
    service = serve(*(["--workers-only"] if step == "compute" else []))
    script = tmp_path / "query.py"
    script.write_text(
        "import sys, numpy, cryptodl\n"
        "client = cryptodl.Client.remote(sys.argv[1], sys.argv[2], sys.argv[3])\n"
        "print('begun', flush=True)\n"
        "input()\n"
        "try:\n"
        "    client.predict(numpy.zeros((2, 1, 28, 28), numpy.float32))\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted', flush=True)\n"
    )
    command = [sys.executable, script, service.url, MODEL, tmp_path / "keys"]
    process = subprocess.Popen(list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "begun\n"
    if step == "send":
        service.process.send_signal(signal.SIGSTOP)
    process.stdin.write("\n")
    process.stdin.flush()
    while step == "compute" and not service.ask("/v1/jobs"):
        time.sleep(0.1)
    time.sleep(1)
    start = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert process.stdout.read() == "interrupted\n"
    assert process.wait() == 0 and time.monotonic() - start < 5
