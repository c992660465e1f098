#!/usr/bin/env python3
"""A service and its workers on several hosts, through the binary: `tests/long.sh scale`.

Usage: scale.py BINARY FOLDER [CHECK ...]; without CHECK all of them, one after the other. FOLDER is made if it is absent. The
check `hosts` needs root, for network namespaces, and Ray and the package cryptodl in this Python; `store` needs moto and blake3.
"""

import base64
import hashlib
import hmac
import json
import os
import re
import secrets
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

BINARY, FOLDER = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
MODEL = "mnist-1-square"
# Seconds.
LEASE = 3


def run(*arguments, **options):
    """The binary's standard output; it must succeed."""
    command = [str(BINARY), *map(str, arguments)]
    done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, **options)
    assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stderr}"
    return done.stdout


def until(what, found, seconds=120):
    """The first answer of `found` that is true."""
    end = time.monotonic() + seconds
    while True:
        answer = found()
        if answer:
            return answer
        assert time.monotonic() < end, f"{what}: not within {seconds} s"
        time.sleep(0.1)


class Service:
    """Requests of one holder of a token. What gets no answer is asked again: the service is killed now and then."""

    def __init__(self, url, token=None, authority=None):
        self.url, self.token = url, token
        self.context = ssl.create_default_context(cafile=authority) if authority else None

    def once(self, method, path, body=None, headers=(), timeout=60):
        """Status, headers and body of one answer."""
        request = urllib.request.Request(self.url + path, data=body, method=method, headers=dict(headers))
        if self.token:
            request.add_header("Authorization", f"Bearer {self.token}")
        try:
            with urllib.request.urlopen(request, timeout=timeout, context=self.context) as answer:
                return answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.headers, error.read()

    def call(self, method, path, body=None, headers=()):
        end = time.monotonic() + 300
        while True:
            try:
                status, answered, read = self.once(method, path, body, headers)
                if status not in (429, 503):
                    assert status < 300, (method, path, status, read)
                    return answered, read
                why = read
            except (OSError, urllib.error.URLError) as error:
                why = error
            assert time.monotonic() < end, why
            time.sleep(0.3)

    def json(self, method, path, value=None):
        body = None if value is None else json.dumps(value).encode()
        return json.loads(self.call(method, path, body, {"Content-Type": "application/json"})[1])

    def register(self, keys):
        body = (keys / "public.key").read_bytes() + (keys / "eval.key").read_bytes()
        sent = self.call("POST", f"/v1/models/{MODEL}/keys", body, {"Content-Type": "application/vnd.cryptodl.keys"})
        return json.loads(sent[1])["id"]

    def submit(self, key, path):
        """The id of the job of a whole request."""
        tus, size = {"Tus-Resumable": "1.0.0"}, path.stat().st_size
        metadata = "key " + base64.b64encode(key.encode()).decode()
        made = {**tus, "Upload-Length": str(size), "Upload-Metadata": metadata}
        upload = self.call("POST", "/v1/uploads", b"", made)[0]["Location"]
        with open(path, "rb") as file:
            while True:
                at = int(self.call("HEAD", upload, None, tus)[0]["Upload-Offset"])
                if at == size:
                    break
                file.seek(at)
                piece = {**tus, "Upload-Offset": str(at), "Content-Type": "application/offset+octet-stream"}
                try:
                    self.once("PATCH", upload, file.read(32 << 20), piece)
                except (OSError, urllib.error.URLError):
                    time.sleep(0.3)
        return self.json("POST", "/v1/jobs", {"upload": upload.rsplit("/", 1)[1]})["id"]

    def submit_sets(self, key, images, files):
        """The id of the job of a request whose sets go to the service's store."""
        upload = self.json("POST", "/v1/stored-uploads", {"key": key, "images": images})
        assert upload["sets"] == len(files) and upload["bytes"] == sum(map(len, files)), upload
        for number, file in enumerate(files):
            place = self.json("GET", f"/v1/uploads/{upload['id']}/sets/{number}")
            # moto takes what has no type, as urllib calls it, for a form.
            headers = {"If-None-Match": "*", "Content-Type": "application/vnd.cryptodl.ciphertexts"}
            put = urllib.request.Request(place["url"], data=file, method="PUT", headers=headers)
            urllib.request.urlopen(put, timeout=60).close()
            assert self.json("GET", f"/v1/uploads/{upload['id']}/sets/{number}")["url"] is None, "it is there"
        return self.json("POST", "/v1/jobs", {"upload": upload["id"]})["id"]

    def done(self, job):
        """A job, as soon as it has a result."""
        while True:
            view = self.json("GET", f"/v1/jobs/{job}?wait=5")
            if view["state"] == "done":
                return view
            assert view["state"] in ("queued", "running"), view

    def result(self, job):
        """The result of a job, as soon as it is there."""
        if self.done(job)["stored"]:
            # urllib goes where the service sends it.
            return [self.call("GET", f"/v1/jobs/{job}/sets/{number}")[1] for number in range(self.done(job)["sets"])]
        return self.call("GET", f"/v1/jobs/{job}/result")[1]


class Process:
    """A process that is ended with this script."""

    all = []

    def __init__(self, *command, line=None, **options):
        self.command = list(map(str, command))
        self.process = subprocess.Popen(self.command, cwd=FOLDER, text=True, start_new_session=True,
                                        stdout=subprocess.PIPE if line else subprocess.DEVNULL, **options)
        Process.all.append(self)
        if line:
            self.line = self.process.stdout.readline().strip()
            assert self.line.startswith(line), f"{self.command}: {self.line}"

    def kill(self):
        """This process and all that it has begun, as a loss of power would."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()

    def stop(self, seconds=90):
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(timeout=seconds)
        assert status == 0, f"{self.command}: {status}"


def prepare():
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, options in (("full", ()), ("small", ("--batch", "4"))):
        if not (FOLDER / f"{name}-keys").exists():
            run("plan", "--model", MODEL, *options, "--out", f"{name}.program")
            run("keygen", "--program", f"{name}.program", "--out", f"{name}-keys")


def images(name, count):
    """A file of so many images. Any pixels do."""
    path = FOLDER / f"{name}.npy"
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({count}, 1, 28, 28), }}"
    header += " " * (-(len(header) + 11) % 64) + "\n"
    block = secrets.token_bytes(784 * 1024)
    with open(path, "wb") as file:
        file.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode())
        left = 784 * count
        while left > 0:
            left -= file.write(block[:left])
    return path


def requests(name, counts):
    """Encrypted requests of so many images, and what `infer --deterministic` says of them."""
    keys, pairs = FOLDER / f"{name}-keys", []
    for number, count in enumerate(counts):
        pixels = images(f"{name}-{number}", count)
        request, result = (FOLDER / f"{name}-{number}.{kind}" for kind in ("ct", "result"))
        run("encrypt", "--secret", keys / "secret/secret.key", "--spec", keys / "public/client.spec", "--input", pixels,
            "--out", request)
        run("infer", "--program", f"{name}.program", "--eval-key", keys / "public/eval.key", "--deterministic",
            "--input", request, "--out", result)
        pixels.unlink()
        pairs.append((request, result.read_bytes()))
    return pairs


def shards(sets=20, workers=3):
    """One request of many sets over several workers: the bytes of a single `infer --deterministic`."""
    (request, expected), = requests("full", [4096 * (sets - 1) + 100])
    served = Process(BINARY, "serve", "--program", "full.program", "--state", "state-shards", "--listen", "127.0.0.1:0",
                     "--workers-only", "--insecure-deterministic", "--max-sets", sets, "--disk-per-tenant", "64GiB",
                     line="serving ")
    service = Service(served.line.rsplit(" ", 1)[1])
    fleet = [Process(BINARY, "work", "--server", service.url, "--program", "full.program", "--threads", "1",
                     "--insecure-deterministic", "--json", f"worker-{i}.json") for i in range(workers)]
    began = time.monotonic()
    job = service.submit(service.register(FOLDER / "full-keys/public"), request)
    uploaded = time.monotonic()
    assert service.result(job) == expected, "not what `infer --deterministic` says"
    took = time.monotonic() - uploaded
    for worker in fleet:
        worker.stop()
    reports = [json.loads((FOLDER / f"worker-{i}.json").read_text()) for i in range(workers)]
    assert sum(report["sets"] for report in reports) == sets, reports
    shares = [report["sets"] for report in reports]
    assert min(shares) > 0, shares
    served.stop()
    return f"{sets} sets over {workers} workers ({shares}): the same bytes; upload {uploaded - began:.1f} s, result {took:.1f} s"


# An object store


def checked(contents):
    """A file with its checksum."""
    # Of all checks only this one needs it.
    import blake3

    return contents + blake3.blake3(contents).digest()


def parts(file):
    """The sets of a file of ciphertexts as files of their own, as docs/format.md has it."""
    _, sets = struct.unpack_from("<II", file, 104)
    images, = struct.unpack_from("<Q", file, 116)
    length = (len(file) - 188) // sets
    for number in range(sets):
        head = bytearray(file[:156])
        struct.pack_into("<Q", head, 80, 68 + length)
        struct.pack_into("<II", head, 104, number, 1)
        struct.pack_into("<Q", head, 116, min(4096, images - 4096 * number))
        part = bytes(head) + file[156 + number * length:156 + (number + 1) * length]
        yield checked(part)


def joined(files):
    """The file of which these are the sets."""
    head = bytearray(files[0][:156])
    struct.pack_into("<Q", head, 80, 68 + sum(len(file) - 188 for file in files))
    struct.pack_into("<I", head, 108, len(files))
    struct.pack_into("<Q", head, 116, sum(struct.unpack_from("<Q", file, 116)[0] for file in files))
    whole = bytes(head) + b"".join(file[156:-32] for file in files)
    return checked(whole)


class Bucket:
    """An empty bucket in a store of its own (moto)."""

    def __init__(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.url = f"http://127.0.0.1:{free.getsockname()[1]}"
        self.log = open(FOLDER / "moto.log", "w+")
        port = self.url.rsplit(":", 1)[1]
        self.process = Process(Path(sys.executable).parent / "moto_server", "-H", "127.0.0.1", "-p", port, stderr=self.log)
        self.environment = {**os.environ, "AWS_ENDPOINT_URL": self.url, "AWS_ALLOW_HTTP": "true", "AWS_REGION": "us-east-1",
                            "AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "a-secret"}

        def made():
            try:
                urllib.request.urlopen(urllib.request.Request(f"{self.url}/bucket", method="PUT")).close()
                return True
            except (OSError, urllib.error.URLError):
                return False

        until("a bucket", made)

    def names(self):
        with urllib.request.urlopen(f"{self.url}/bucket?list-type=2") as answer:
            return re.findall(r"<Key>(.*?)</Key>", answer.read().decode())

    def requests(self, pattern):
        """How often the store was asked for something."""
        self.log.seek(0)
        return len(re.findall(pattern, self.log.read()))


def is_signed(url, method, headers, secret):
    """Whether an address has the signature that Amazon asks for, which moto does not look at (Signature Version 4, in the query)."""
    split = urllib.parse.urlsplit(url)
    pairs = dict(pair.split("=", 1) for pair in split.query.split("&"))
    signature = pairs.pop("X-Amz-Signature")
    named = {"host": split.netloc, **headers}
    signed = urllib.parse.unquote(pairs["X-Amz-SignedHeaders"]).split(";")
    lines = [method, split.path, "&".join(f"{name}={value}" for name, value in sorted(pairs.items())),
             *(f"{name}:{named[name]}" for name in signed), "", ";".join(signed), "UNSIGNED-PAYLOAD"]
    scope = urllib.parse.unquote(pairs["X-Amz-Credential"]).split("/", 1)[1]
    text = "\n".join(["AWS4-HMAC-SHA256", pairs["X-Amz-Date"], scope, hashlib.sha256("\n".join(lines).encode()).hexdigest()])
    key = b"AWS4" + secret.encode()
    for part in (*scope.split("/"), text):
        key = hmac.new(key, part.encode(), "sha256").digest()
    return set(named) == set(signed) and key.hex() == signature


def store(sets=6):
    """One request of several sets through an object store, a worker killed in between: the bytes of `infer --deterministic`."""
    count = 4096 * (sets - 1) + 100
    (request, expected), = requests("full", [count])
    files = list(parts(request.read_bytes()))
    assert joined(files) == request.read_bytes(), "docs/format.md does not say how requests are cut"
    bucket, log = Bucket(), open(FOLDER / "store.log", "w+")

    def serve(name):
        served = Process(BINARY, "serve", "--program", f"{name}.program", "--state", f"state-store-{name}", "--listen",
                         "127.0.0.1:0", "--workers-only", "--insecure-deterministic", "--lease", LEASE, "--store",
                         f"s3://bucket/{name}", env=bucket.environment, stderr=log, line="serving ")
        return served, Service(served.line.rsplit(" ", 1)[1])

    def work(service, name, number):
        return Process(BINARY, "work", "--server", service.url, "--program", f"{name}.program", "--threads", "1",
                       "--insecure-deterministic", "--json", f"store-{number}.json", stderr=log)

    served, service = serve("full")
    key = service.register(FOLDER / "full-keys/public")
    upload = service.json("POST", "/v1/stored-uploads", {"key": key, "images": count})["id"]
    address = service.json("GET", f"/v1/uploads/{upload}/sets/0")["url"]
    assert is_signed(address, "PUT", {"if-none-match": "*"}, bucket.environment["AWS_SECRET_ACCESS_KEY"]), "another signature"
    job = service.submit_sets(key, count, files)
    # It takes a set, and is never heard of again.
    killed = work(service, "full", 0)
    until("a set that somebody computes", lambda: service.json("GET", "/v1/leases")["leased"] > 0)
    killed.kill()
    fleet = [work(service, "full", number) for number in (1, 2)]
    assert joined(service.result(job)) == expected, "not what `infer --deterministic` says"
    for worker in fleet:
        worker.stop()
    done = [json.loads((FOLDER / f"store-{number}.json").read_text())["sets"] for number in (1, 2)]
    # Each set went to the store once, and so did its result, unless the worker was killed before it could say so.
    put = [bucket.requests(rf'"PUT /bucket/full/{kind}/\S+ HTTP/1.1" 200') for kind in ("requests", "results")]
    assert put[0] == sets and sets <= put[1] <= sets + 2, put
    left = [len(list((FOLDER / "state-store-full" / kind).iterdir())) for kind in ("keys", "uploads", "sets", "results")]
    assert left == [0, 0, 0, 0], left
    kept = ["full/owner", f"full/keys/{key}"]
    until("a store without the request", lambda: len(bucket.names()) == len(kept) + sets)
    service.call("DELETE", f"/v1/jobs/{job}")
    assert set(bucket.names()) == set(kept), bucket.names()
    # As a client does it by itself.
    worker = work(service, "full", 3)
    run("query", "--server", service.url, "--model", MODEL, "--keys", "store-keys", "--input", images("store", 5000), "--out",
        "store.csv")
    assert sum(1 for _ in open(FOLDER / "store.csv")) == 5001
    worker.stop()
    served.stop()
    # Few images, which share ciphertexts.
    (request, expected), = requests("small", [3])
    served, service = serve("small")
    worker = work(service, "small", 4)
    job = service.submit_sets(service.register(FOLDER / "small-keys/public"), 3, [request.read_bytes()])
    assert service.result(job) == [expected]
    worker.stop()
    served.stop()
    log.seek(0)
    assert "X-Amz" not in log.read(), "a signed address is in a log"
    return (f"{sets} sets over moto and two workers ({done}), after a third was killed: the same bytes; {put} objects put; a query "
            "of 5000 images, and one of few")


# Two hosts


class Host:
    """A network namespace with one address."""

    def __init__(self, name, address):
        self.name, self.address, self.end = name, address, f"{name}v"
        subprocess.run(["ip", "netns", "del", name], capture_output=True)
        self.ip("netns", "add", name, inside=False)
        self.ip("link", "set", "lo", "up")

    def ip(self, *arguments, inside=True):
        inner = ["ip", "-n", self.name] if inside else ["ip"]
        subprocess.run([*inner, *arguments], check=True)

    def connect(self, other):
        self.ip("link", "add", self.end, "type", "veth", "peer", "name", other.end, "netns", other.name)
        for host in (self, other):
            host.ip("addr", "add", f"{host.address}/24", "dev", host.end)
            host.ip("link", "set", host.end, "up")

    def cut(self, cut):
        self.ip("link", "set", self.end, "down" if cut else "up")

    def command(self, *command):
        return ["ip", "netns", "exec", self.name, *map(str, command)]

    def python(self, code, **options):
        """What Python code says that runs on this host."""
        done = subprocess.run(self.command(sys.executable, "-c", code), capture_output=True, text=True, cwd=FOLDER, **options)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def remove(self):
        subprocess.run(["ip", "netns", "del", self.name], capture_output=True)


def processes(pattern, host=None):
    """Ids of processes whose command line matches, on one host or on all, of this script's cluster only."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            marked = f"CRYPTODL_SCALE={MARK}".encode() in (folder / "environ").read_bytes()
            there = host is None or os.path.samefile(folder / "ns/net", f"/var/run/netns/{host.name}")
        except OSError:
            continue
        if marked and there and re.search(pattern, line):
            found.append(int(folder.name))
    return found


# Tells this script's processes from those of other clusters of the machine.
MARK = secrets.token_hex(8)


def kill(pattern, host=None):
    """SIGKILL for processes of this script."""
    found = processes(pattern, host)
    for process in found:
        try:
            os.kill(process, signal.SIGKILL)
        except ProcessLookupError:
            pass
    return found


def hosts(count=200):
    """Two hosts, and every kind of process killed: all results right, each published once, a late one refused."""
    pairs = requests("small", [1, 2, 3, 4])
    state = FOLDER / "state-hosts"
    shutil.rmtree(state, ignore_errors=True)
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=scale", "-addext", "subjectAltName=IP:10.77.0.1", "-addext", "basicConstraints=critical,CA:FALSE",
         "-keyout", "tls.key", "-out", "tls.crt"], cwd=FOLDER, check=True, capture_output=True)
    (FOLDER / "tokens").unlink(missing_ok=True)
    token = run("serve", "--new-token", "alice", "--tokens", "tokens").strip()
    (FOLDER / "worker.token").write_text(run("serve", "--new-token", "fleet", "--worker", "--tokens", "tokens"))
    late_token = run("serve", "--new-token", "late", "--worker", "--tokens", "tokens").strip()

    first, second = Host("cdl-a", "10.77.0.1"), Host("cdl-b", "10.77.0.2")
    environment = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "CRYPTODL_SCALE": MARK,
                   "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "RAY_IGNORE_UNHANDLED_ERRORS": "1",
                   # So that a dead node is found while this check runs.
                   "RAY_health_check_period_ms": "2000", "RAY_health_check_timeout_ms": "10000",
                   "RAY_health_check_failure_threshold": "3", "RAY_gcs_rpc_server_reconnect_timeout_s": "15",
                   "RAY_TMPDIR": tempfile.mkdtemp(prefix="ray", dir="/tmp")}
    log = open(FOLDER / "ray.log", "w")
    noise = {"env": environment, "stderr": log}

    def serve():
        return Process(*first.command(
            BINARY, "serve", "--program", "small.program", "--state", state, "--listen", "10.77.0.1:8750", "--workers-only",
            "--insecure-deterministic", "--lease", LEASE, "--tokens", "tokens", "--tls-cert", "tls.crt", "--tls-key", "tls.key",
            "--max-jobs", 2 * count, "--jobs-per-tenant", 2 * count, "--disk-per-tenant", "64GiB"), line="serving ", **noise)

    def node(host, *arguments):
        # As systemd does with `Restart=always`.
        again = ("sh", "-c", 'while :; do "$@"; sleep 2; done', "node")
        return Process(*host.command(*again, sys.executable, "-m", "cryptodl.ray", "node", "--address", host.address,
                                     "--num-cpus", 1, *arguments), **noise)

    def fleet():
        code = f"""
import json, sys, ray
from pathlib import Path
from cryptodl.ray import Job, Limits, connect, start
connect("10.77.0.1:6379")
job = Job("https://10.77.0.1:8750", (Path("small.program").read_bytes(),), Path("worker.token").read_text().strip(),
          Path("tls.crt").read_bytes(), {str(BINARY)!r}, ("--insecure-deterministic", "--patience", "120"))
print(json.dumps(ray.get(start("scale", job, Limits(2, 2, 1)).status.remote())))
"""
        return subprocess.run(first.command(sys.executable, "-c", code), capture_output=True, text=True, cwd=FOLDER, env=environment)

    def begin_fleet():
        until("a cluster that takes the fleet", lambda: fleet().returncode == 0, 600)

    def works(host):
        return processes(r"cryptodl work ", host)

    results, wrong, done, gone = {}, [], threading.Event(), set()
    try:
        first.connect(second)
        served = serve()
        node(first, "--head")
        node(second, "--join", "10.77.0.1:6379")
        begin_fleet()
        until("a worker on each host", lambda: works(first) and works(second), 600)

        # The client is on the first host: everything of it goes through this function.
        client = f"""
import sys, threading, json
sys.argv = [sys.argv[0], {str(BINARY)!r}, {str(FOLDER)!r}]
sys.path.insert(0, {str(Path(__file__).parent)!r})
import scale, hashlib, time
service = scale.Service("https://10.77.0.1:8750", {token!r}, "tls.crt")
key = service.register(scale.FOLDER / "small-keys/public")
slots, writing = threading.Semaphore(8), threading.Lock()
def one(i):
    with slots:
        job = service.submit(key, scale.FOLDER / f"small-{{i % 4}}.ct")
        # So that every kill falls among requests.
        time.sleep(8)
        result = service.result(job)
        line = json.dumps([i, job, hashlib.sha256(result).hexdigest()]) + "\\n"
        with writing:
            sys.stdout.write(line)
            sys.stdout.flush()
threads = [threading.Thread(target=one, args=(i,)) for i in range({count})]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""
        digests = [hashlib.sha256(expected).hexdigest() for _, expected in pairs]
        asking = subprocess.Popen(first.command(sys.executable, "-c", client), stdout=subprocess.PIPE, text=True, cwd=FOLDER)

        def listen():
            for line in asking.stdout:
                number, job, digest = json.loads(line)
                path = state / "results" / job
                results[job] = (number, path.stat().st_ino, path.stat().st_mtime_ns)
                if digest != digests[number % 4]:
                    wrong.append(number)
            done.set()

        threading.Thread(target=listen, daemon=True).start()
        events = []

        def after(number):
            until(f"{number} of {count} results", lambda: len(results) >= number or done.is_set(), 1200)
            events.append(len(results))

        def again(host):
            """Ray has begun another worker."""
            until(f"another worker on {host.name}", lambda: set(works(host)) - gone, 600)

        after(count // 12)
        gone = set(kill(r"cryptodl work ", second))
        assert gone, "no worker to kill"
        again(second)
        after(2 * count // 12)
        gone = set(works(second))
        assert kill(r"/raylet ", second), "no raylet to kill"
        again(second)
        after(4 * count // 12)
        gone = set(works(first) + works(second))
        heads = kill(r"/gcs_server |/raylet ", first)
        assert len(heads) >= 2, "no head to kill"
        until("another head", lambda: set(processes(r"/gcs_server ", first)) - set(heads), 300)
        begin_fleet()
        again(first)
        again(second)
        after(6 * count // 12)
        served.kill()
        time.sleep(1)
        served = serve()
        after(8 * count // 12)

        # A worker of our own on the second host takes a set, and is cut off with all others there until the lease is over.
        def ask(code):
            return second.python(f"""
import sys
sys.argv = [sys.argv[0], {str(BINARY)!r}, {str(FOLDER)!r}]
sys.path.insert(0, {str(Path(__file__).parent)!r})
import scale, json
service = scale.Service("https://10.77.0.1:8750", {late_token!r}, "tls.crt")
{code}""").strip()

        digest = json.loads(run("inspect", "small.program", "--json", "-"))
        digest = re.search(r"[0-9a-f]{64}", digest.get("program") or json.dumps(digest))[0]
        lease = json.loads(ask(
            f"found = []\nwhile not found:\n    found = service.json('POST', '/v1/leases', "
            f"{{'programs': [{digest!r}], 'wait': 20}})['leases']\nprint(json.dumps(found[0]))"))
        second.cut(True)
        time.sleep(LEASE + 2)
        second.cut(False)
        status, problem = json.loads(ask(
            f"status, _, body = service.once('PUT', '/v1/leases/{lease['lease']}/result', bytes({lease['result_bytes']}), "
            "{'Content-Type': 'application/vnd.cryptodl.ciphertexts'})\nprint(json.dumps([status, json.loads(body)]))"))
        assert status == 409 and problem["status"] == 409, (status, problem)
        after(count)
        assert done.wait(120) and asking.wait() == 0
        assert len(results) == count and not wrong, (len(results), wrong)
        for job, (_, inode, changed) in results.items():
            now = (state / "results" / job).stat()
            assert (now.st_ino, now.st_mtime_ns) == (inode, changed), f"{job} was published again"
        left = [len(list((state / kind).iterdir())) for kind in ("uploads", "sets")]
        assert left == [0, 0], left
        return (f"{count} right results, each published once; a worker, a raylet, the head and the service were killed and a host cut off "
                f"after {', '.join(map(str, events[:-1]))} of them; late result: {status}, "
                f"{problem['detail'][:60]}...")
    finally:
        for process in Process.all:
            process.kill()
        kill(r".")
        for host in (first, second):
            host.remove()


CHECKS = {check.__name__: check for check in (shards, store, hosts)}


def main():
    # What was begun is ended in any case.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    for folder in FOLDER.glob("state-*"):
        shutil.rmtree(folder)
    prepare()
    try:
        for name in sys.argv[3:] or CHECKS:
            began = time.monotonic()
            print(f"{name}: {CHECKS[name]()} ({time.monotonic() - began:.0f} s)", flush=True)
    finally:
        for process in Process.all:
            process.kill()


if __name__ == "__main__":
    main()
