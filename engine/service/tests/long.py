#!/usr/bin/env python3
"""Heavy checks of the service through the release binary: `tests/long.sh service`.

Usage: long.py BINARY FOLDER [CHECK ...]; without CHECK all of them, one after the other. FOLDER is made if it is absent. The
checks need curl, jq, openssl, strace, testssl and node, promtool in FOLDER/prometheus and tus-js-client in FOLDER/tus-js (or where
both are found without that), and in this Python tuspy and schemathesis.
"""

import base64
import dataclasses
import functools
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import syncs as order

BINARY, FOLDER = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
DOCS = Path(__file__).resolve().parents[3] / "docs" / "service.md"
DATA, LABELS = Path("t10k-images-idx3-ubyte"), Path("t10k-labels-idx1-ubyte")


def run(*arguments, **options):
    """The binary's standard output; it must succeed."""
    command = [str(BINARY), *map(str, arguments)]
    done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, **options)
    assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stderr}"
    return done.stdout


class Served:
    """A service as a process of its own."""

    all = []

    def __init__(self, state, *arguments, listen="127.0.0.1:0", program="mnist-1.program", under=()):
        command = [*under, BINARY, "serve", "--program", program, "--state", state, "--listen", listen, *arguments]
        self.process = subprocess.Popen(list(map(str, command)), cwd=FOLDER, stdout=subprocess.PIPE, text=True)
        Served.all.append(self.process)
        line = self.process.stdout.readline().strip()
        assert line.startswith("serving "), line
        self.url = line.rsplit(" ", 1)[1]
        self.address = self.url.split("//")[1]

    def kill(self):
        """As a loss of power would."""
        self.process.kill()
        self.process.wait()

    def stop(self):
        """As systemd does."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(timeout=90) == 0

    def get(self, path):
        with urllib.request.urlopen(self.url + path) as answer:
            return answer.read()

    def statuses(self):
        """How often each status was answered, as the service counts."""
        counts = {}
        for line in self.get("/metrics").decode().splitlines():
            found = re.match(r'cryptodl_requests_total\{.*status="(\d+)"\} (\d+)', line)
            if found:
                counts[int(found[1])] = counts.get(int(found[1]), 0) + int(found[2])
        return counts

    def peak(self):
        """Most bytes of memory so far."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", status)[1])


def labels(path):
    return [line.split(",")[1] for line in (FOLDER / path).read_text().splitlines()[1:]]


def agreement(a, b):
    assert len(a) == len(b)
    return sum(x == y for x, y in zip(a, b)) / len(a)


def true_labels():
    """Of all test images."""
    path = Path(run("data", "path", "mnist").strip()) / LABELS
    return [str(label) for label in path.read_bytes()[8:]]


@functools.cache
def digits():
    """Keys in `keys`, and all test images in `digits.ct`, encrypted with them."""
    run("plan", "--model", "mnist-1", "--write-spec", "client.spec")
    if not (FOLDER / "keys").exists():
        run("keygen", "--spec", "client.spec", "--out", "keys")
    data = Path(run("data", "path", "mnist").strip()) / DATA
    run("encrypt", "--secret", "keys/secret/secret.key", "--spec", "client.spec", "--input", data, "--out", "digits.ct")
    return FOLDER / "digits.ct"


def register(served):
    """Registers the keys of `digits`, and returns their id."""
    keys = (FOLDER / "keys/public/public.key").read_bytes() + (FOLDER / "keys/public/eval.key").read_bytes()
    request = urllib.request.Request(served.url + "/v1/models/mnist-1/keys", keys,
                                     {"Content-Type": "application/vnd.cryptodl.keys"})
    return json.load(urllib.request.urlopen(request))["id"]


def accuracy(served, place, name):
    """Makes a job of the upload of `digits` at `place`, and says which share of its labels is right."""
    body = json.dumps({"upload": place.rsplit("/", 1)[1]}).encode()
    submit = urllib.request.Request(served.url + "/v1/jobs", body, {"Content-Type": "application/json"})
    job = json.load(urllib.request.urlopen(submit))["id"]
    while (view := json.loads(served.get(f"/v1/jobs/{job}?wait=20")))["state"] in ("queued", "running"):
        pass
    assert view["state"] == "done", view
    (FOLDER / f"{name}.ct").write_bytes(served.get(f"/v1/jobs/{job}/result"))
    run("decrypt", "--secret", "keys/secret/secret.key", "--spec", "client.spec", "--input", f"{name}.ct", "--out", f"{name}.csv")
    right = agreement(labels(f"{name}.csv"), true_labels())
    assert right >= 0.985, right
    return right


def prepare():
    FOLDER.mkdir(parents=True, exist_ok=True)
    run("data", "fetch", "mnist")
    for name in ("mnist-1", "mnist-1-square"):
        run("plan", "--model", name, "--out", f"{name}.program")
    # Few images in small requests that take a moment: for many jobs and many interruptions.
    run("plan", "--model", "mnist-1", "--batch", "4", "--out", "small.program", "--write-spec", "small.spec")


def tls():
    """1,000 real images over TLS and HTTP/2: the labels of `run`."""
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
         "-addext", "basicConstraints=critical,CA:FALSE", "-keyout", "tls.key", "-out", "tls.crt"],
        cwd=FOLDER, check=True, capture_output=True)
    (FOLDER / "tokens").unlink(missing_ok=True)
    (FOLDER / "token").write_text(run("serve", "--new-token", "alice", "--tokens", "tokens"))
    served = Served("state-tls", "--tokens", "tokens", "--tls-cert", "tls.crt", "--tls-key", "tls.key")
    url = served.url.replace("127.0.0.1", "localhost")
    version = subprocess.run(["curl", "-sS", "--cacert", "tls.crt", "-o", os.devnull, "-w", "%{http_version}", url + "/healthz"],
                             cwd=FOLDER, capture_output=True, text=True, check=True).stdout
    assert version == "2", version
    report = json.loads(run("query", "--server", url, "--ca", "tls.crt", "--token-file", "token", "--model", "mnist-1",
                            "--keys", "keys-tls", "--images", "1000", "--out", "query.csv", "--json", "-"))
    run("run", "--model", "mnist-1", "--images", "1000", "--out", "run.csv")
    same = agreement(labels("query.csv"), labels("run.csv"))
    # Both draw their own noise, which changes some labels of each.
    assert same >= 0.99 and report["encrypted"]["accuracy"] >= 0.985, (same, report)
    served.stop()
    seconds = {part: round(value, 3) for part, value in report["seconds"].items()}
    return f"labels of `run`: {100 * same:.2f} %, accuracy {report['encrypted']['accuracy']:.4f}, seconds {seconds}"


def documented():
    """The commands of docs/service.md for a client with curl, as they stand there."""
    block = re.search(r"```\n(url=.*?)```", DOCS.read_text(), re.S)[1]
    served = Served("state-docs", program="mnist-1.program")
    digits()
    script = block.replace("http://127.0.0.1:8750", served.url)
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", script], cwd=FOLDER, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    run("decrypt", "--secret", "keys/secret/secret.key", "--spec", "client.spec", "--input", "scores.ct", "--out", "curl.csv")
    run("run", "--model", "mnist-1", "--out", "whole.csv")
    same = agreement(labels("curl.csv"), labels("whole.csv"))
    assert same >= 0.995, same
    served.stop()
    return f"{len(labels('curl.csv'))} images through curl, {100 * same:.2f} % the labels of `run`"


def kills():
    """Killed at ten random moments: every accepted job is done, once."""
    moments = random.Random(21)
    served = Served("state-kills", "--grace", "0", program="small.program")
    address, accepted, stopped = served.address, [], threading.Event()

    def client(number):
        while not stopped.is_set():
            done = subprocess.run(
                [str(BINARY), "query", "--server", f"http://{address}", "--model", "mnist-1", "--keys", f"keys-kill-{number}",
                 "--images", "8", "--keep", "--json", "-"], cwd=FOLDER, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            report = json.loads(done.stdout)
            assert report["encrypted"]["correct"] >= 7, report
            accepted.append(report["job"])

    with ThreadPoolExecutor(4) as pool:
        clients = [pool.submit(client, number) for number in range(4)]
        for _ in range(10):
            time.sleep(moments.uniform(0.3, 4))
            served.kill()
            served = Served("state-kills", "--grace", "0", listen=address, program="small.program")
        time.sleep(2)
        stopped.set()
    for done in clients:
        done.result()
    jobs = json.loads(served.get("/v1/jobs"))
    assert sorted(job["id"] for job in jobs) == sorted(accepted), "a job twice, or one that nobody waits for"
    assert all(job["state"] == "done" for job in jobs)
    assert sum(key["sets_used"] for key in json.loads(served.get("/v1/keys"))) == len(jobs)
    served.stop()
    return f"10 kills, {len(jobs)} jobs, each done once"


def checkpoints():
    """A set that takes long goes on where it was, after it was killed and after a stop that it did not survive."""
    # In bands, so that there are many steps.
    run("plan", "--model", "mnist-1", "--schedule", "layered", "--out", "layered.program")
    arguments = ("--checkpoint-every-step", "--grace", "0", "--memory-budget", "320MiB")
    served = Served("state-checkpoints", *arguments, program="layered.program")
    query = ("query", "--server", served.url, "--model", "mnist-1", "--keys", "keys-checkpoints", "--images", "100", "--json", "-")
    done, layers = 0, []
    with ThreadPoolExecutor(1) as pool:
        client = pool.submit(run, *query)
        for end in (Served.kill, Served.stop):
            least = done + 2
            while done < least:
                assert not client.done(), client.result()
                for job in json.loads(served.get("/v1/jobs")):
                    assert job["state"] in ("queued", "running"), job
                    progress = job["progress"] or {"done": 0}
                    done = max(done, progress["done"])
            layers.append(progress["layer"])
            end(served)
            assert any((FOLDER / "state-checkpoints/checkpoints").iterdir())
            served = Served("state-checkpoints", *arguments, listen=served.address, program="layered.program")
        report = json.loads(client.result())
    assert report["encrypted"]["correct"] >= 97, report
    resumed = int(re.search(r"^cryptodl_resumed_steps_total\{.*\} (\d+)", served.get("/metrics").decode(), re.M)[1])
    assert resumed >= done, (resumed, done)
    assert not any((FOLDER / "state-checkpoints/checkpoints").iterdir())
    served.stop()
    return f"interrupted in {' and '.join(layers)}, went on after {resumed} steps; {report['encrypted']['correct']} of 100 labels right"


def crowd(seconds=300):
    """16 clients: every answer is 2xx or 429, every result right, memory within the budget."""
    # Room for the expanded keys of a few of the clients, so that keys come and go.
    served = Served("state-crowd", "--max-jobs", "8", "--memory-budget", "256MiB", "--key-memory", "64MiB", program="small.program")
    before = served.peak()
    ends, right = time.monotonic() + seconds, []

    def client(number):
        while time.monotonic() < ends:
            report = json.loads(run("query", "--server", served.url, "--model", "mnist-1", "--keys", f"keys-{number}",
                                    "--images", "8", "--json", "-"))
            right.append(report["encrypted"]["correct"])

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(client, range(16)))
    statuses = served.statuses()
    assert all(status < 300 or status == 429 for status in statuses), statuses
    assert len(right) >= 16 and min(right) >= 7, right
    more = served.peak() - before
    # Both budgets, and what 16 connections may take.
    assert more <= (256 + 64 + 64) << 20, f"{more} bytes more than the {before} of the model"
    served.stop()
    return (f"{len(right)} queries in {seconds} s, statuses {statuses}, peak memory {more / 1e6:.0f} MB beside the "
            f"{before / 1e6:.0f} MB of the prepared model")


def memory(size=650):
    """16 uploads of many megabytes at once, to a service that computes nothing, take little memory."""
    served = Served("state-memory", "--workers-only", "--max-sets", "64", "--disk-per-tenant", "32GiB",
                    program="mnist-1-square.program")
    before = served.peak()
    run("plan", "--model", "mnist-1-square", "--write-spec", "square.spec")
    if not (FOLDER / "keys-square").exists():
        run("keygen", "--spec", "square.spec", "--out", "keys-square")
    data = Path(run("data", "path", "mnist").strip()) / DATA
    run("encrypt", "--secret", "keys-square/secret/secret.key", "--spec", "square.spec", "--input", data, "--out", "square.ct")
    keys = (FOLDER / "keys-square/public/public.key").read_bytes() + (FOLDER / "keys-square/public/eval.key").read_bytes()
    request = urllib.request.Request(served.url + "/v1/models/mnist-1-square/keys", keys,
                                     {"Content-Type": "application/vnd.cryptodl.keys"})
    key = json.load(urllib.request.urlopen(request))["id"]
    # A right header, and behind it as many sets as it says: bytes that are never computed.
    whole = (FOLDER / "square.ct").read_bytes()
    sets = int.from_bytes(whole[108:112], "little")
    one = (len(whole) - 188) // sets
    many = -(-size * 1_000_000 // one)
    head = bytearray(whole[:156])
    head[80:88] = (68 + many * one).to_bytes(8, "little")
    head[108:112] = many.to_bytes(4, "little")
    head[116:124] = (many * 4096).to_bytes(8, "little")
    length = 188 + many * one
    with open(FOLDER / "large", "wb") as file:
        file.write(head)
        for _ in range(many):
            file.write(whole[156:156 + one])
        file.write(bytes(length - 156 - many * one))

    def upload(_):
        metadata = base64.b64encode(key.encode()).decode()
        create = urllib.request.Request(served.url + "/v1/uploads", b"", {
            "Tus-Resumable": "1.0.0", "Upload-Length": str(length), "Upload-Metadata": f"key {metadata}"}, method="POST")
        place = urllib.request.urlopen(create).headers["Location"]
        subprocess.run(["curl", "-sS", "--fail-with-body", "-X", "PATCH", "-H", "Tus-Resumable: 1.0.0", "-H", "Upload-Offset: 0",
                        "-H", "Content-Type: application/offset+octet-stream", "-H", "Expect:", "-T", "large",
                        served.url + place], cwd=FOLDER, check=True)

    start = time.monotonic()
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(upload, range(16)))
    took, peak = time.monotonic() - start, served.peak()
    statuses = served.statuses()
    assert statuses.get(204) == 16, statuses
    served.kill()
    assert peak <= 64_000_000, f"{peak} bytes, of which {before} were in use before"
    return (f"16 uploads of {length / 1e6:.0f} MB in {took:.0f} s: peak memory {peak / 1e6:.1f} MB, of which {before / 1e6:.1f} MB "
            "before the first")


def tus():
    """A client that others wrote, tuspy, goes on after the service was killed in the middle of its upload."""
    from tusclient import client

    path, served = digits(), Served("state-tus")
    tus_client = client.TusClient(served.url + "/v1/uploads")
    uploader = tus_client.uploader(str(path), chunk_size=5_000_000, metadata={"key": register(served)})
    for _ in range(3):
        uploader.upload_chunk()
    place = uploader.url
    served.kill()
    served = Served("state-tus", listen=served.address)
    again = tus_client.uploader(str(path), chunk_size=5_000_000, url=place)
    assert again.offset == 15_000_000, again.offset
    again.upload()
    right = accuracy(served, place, "tus")
    served.stop()
    return f"tuspy went on at 15,000,000 of {path.stat().st_size:,} bytes; {100 * right:.2f} % of all labels are right"


def tus_js():
    """Another one, tus-js-client, goes on by itself when the service is killed while it sends."""
    path, served = digits(), Served("state-tus-js")
    modules = {"NODE_PATH": str(FOLDER / "tus-js/node_modules")}
    client = subprocess.Popen(["node", Path(__file__).with_name("tus.js"), served.url, register(served), path],
                              stdout=subprocess.PIPE, text=True, env={**os.environ, **modules})
    Served.all.append(client)
    accepted = 0
    while accepted < 15_000_000:
        accepted = int(client.stdout.readline().removeprefix("accepted "))
    # The next piece is on its way.
    served.kill()
    served = Served("state-tus-js", listen=served.address)
    said = client.stdout.read().split()
    assert client.wait() == 0 and said[-2] == "place", said
    length = path.stat().st_size
    sent = int(re.search(r"^cryptodl_received_bytes_total (\d+)", served.get("/metrics").decode(), re.M)[1])
    # The upload is the same, and what was accepted is not sent again.
    assert 0 < sent <= length - accepted, (sent, length, accepted)
    assert 201 not in served.statuses(), served.statuses()
    right = accuracy(served, said[-1], "tus-js")
    served.stop()
    return (f"tus-js-client sent {sent:,} of {length:,} bytes after the kill, which came when {accepted:,} were accepted; "
            f"{100 * right:.2f} % of all labels are right")


def syncs():
    """What is on the disk when: keys, an upload, the result of a set and that of its job, as strace sees them."""
    (FOLDER / "syncs.txt").unlink(missing_ok=True)
    # The trace names open files by their whole paths, and others as the service does.
    served = Served(FOLDER / "state-syncs", program="small.program", under=(*order.COMMAND, "syncs.txt"))
    done = json.loads(run("query", "--server", served.url, "--model", "mnist-1", "--keys", "keys-syncs", "--images", "4", "--keep",
                          "--json", "-"))
    job = json.loads(served.get(f"/v1/jobs/{done['job']}"))
    served.stop()
    ends = time.monotonic() + 60
    while not (trace := (FOLDER / "syncs.txt").read_text()).rstrip().endswith("+++ exited with 0 +++"):
        assert time.monotonic() < ends, "the trace has no end"
        time.sleep(0.2)
    calls = order.read(trace)
    key, upload, name = (job[what].encode() for what in ("key", "upload", "id"))
    length = done["bytes"]["upload"]
    # As SQLite stores an integer: in big endian, in as few bytes as hold it with its sign.
    width = next(width for width in (1, 2, 3, 4, 6, 8) if length < 1 << 8 * width - 1)
    number = re.escape(length.to_bytes(width, "big"))
    sets = [call.path.rsplit("/", 1)[1] for call in calls if "/sets/" in call.path and call.name.startswith("link")]
    assert len(sets) == 1, sets
    # Rows begin with the types of their columns and go on with texts and numbers (SQLite's record format). The tenant is 1, which
    # takes no byte. Of a set: job, number 0, its lease, no worker, no end of the lease, and that it is done.
    chains = {
        "keys": (order.published, "keys", job["key"], key, rb"HTTP/1.1 201.*" + key),
        "upload": (order.created, "uploads", job["upload"], upload + key, rb"HTTP/1.1 201.*location: /v1/uploads/" + upload),
        "piece": (order.grown, "uploads", job["upload"], upload + key + number + number,
                  b"HTTP/1.1 204.*upload-offset: %d\r" % length),
        "set": (order.published, "sets", sets[0], rb"\x4d\x08.\x00\x00\x09.." + rb".?" + name, rb'"state":"done"'),
        "result": (order.published, "results", job["id"], name + key + upload + rb".{1,40}done", name + rb'.*"state":"done"'),
    }
    refused = 0
    for what, (chain, *arguments) in chains.items():
        *found, _ = chain(calls, *arguments)
        for step in found:
            # Were it to come late, it would be seen.
            end = calls[-1].end + 1
            late = [dataclasses.replace(call, begin=end, end=end) for call in step]
            try:
                chain([call for call in calls if call not in step] + late, *arguments)
            except AssertionError:
                refused += 1
            else:
                raise AssertionError(f"{what}: {step[0].name} of {step[0].path} may come late")
    all_syncs = sum(call.name in ("fsync", "fdatasync") for call in calls)
    return f"{', '.join(chains)}: in order, {all_syncs} syncs in all; {refused} traces with one step too late are refused"


def metrics():
    """What is counted is as Prometheus wants it."""
    served = Served("state-metrics", program="small.program")
    run("query", "--server", served.url, "--model", "mnist-1", "--keys", "keys-metrics", "--images", "4")
    text = served.get("/metrics")
    served.stop()
    promtool = shutil.which("promtool") or FOLDER / "prometheus/usr/bin/promtool"
    check = lambda text: subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True)
    done = check(text)
    assert done.returncode == 0 and not done.stdout + done.stderr, done
    assert check(text.replace(b"_total", b"")).returncode != 0, "promtool does not look at names"
    names = {line.split(b" ")[2] for line in text.splitlines() if line.startswith(b"# TYPE ")}
    assert len(names) >= 10, text
    return f"{len(names)} metrics in {len(text.splitlines())} lines, and nothing that promtool says of them"


def testssl():
    """What testssl.sh finds in the TLS of the service."""
    openssl = lambda *arguments: subprocess.run(["openssl", *arguments], cwd=FOLDER, check=True, capture_output=True)
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl("req", "-x509", *curve, "-days", "365", "-subj", "/CN=authority of a test", "-keyout", "ca.key", "-out", "ca.crt")
    openssl("req", *curve, "-subj", "/CN=localhost", "-keyout", "ssl.key", "-out", "ssl.csr")
    (FOLDER / "ssl.cnf").write_text("subjectAltName=DNS:localhost\nbasicConstraints=critical,CA:FALSE\n"
                                    "keyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth\n")
    openssl("x509", "-req", "-in", "ssl.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "120",
            "-extfile", "ssl.cnf", "-out", "ssl.crt")
    (FOLDER / "tokens-ssl").unlink(missing_ok=True)
    run("serve", "--new-token", "alice", "--tokens", "tokens-ssl")
    served = Served("state-ssl", "--tokens", "tokens-ssl", "--tls-cert", "ssl.crt", "--tls-key", "ssl.key")
    report = FOLDER / "testssl.json"
    report.unlink(missing_ok=True)
    program = shutil.which("testssl") or shutil.which("testssl.sh")
    done = subprocess.run([program, "--quiet", "--color", "0", "--warnings", "batch", "--ip", "127.0.0.1", "--add-ca", "ca.crt",
                           "--jsonfile", report, served.url.replace("127.0.0.1", "localhost")],
                          cwd=FOLDER, capture_output=True, text=True)
    (FOLDER / "testssl.txt").write_text(done.stdout + done.stderr)
    findings = json.loads(report.read_text())
    assert len(findings) > 100 and {"TLS1_3", "heartbleed", "cert_signatureAlgorithm"} <= {f["id"] for f in findings}, findings
    # An authority that was made for this test says nothing of revocation, and no DNS knows it. An engine of its own openssl, for
    # ciphers that nobody has here, is no matter of the service.
    excluded = re.compile("cert_chain_of_trust|cert_crl|cert_ocsp|cert_revocation|OCSP|cert_caIssuers|DNS_CAA|engine_problem")
    severe = [f for f in findings if f["severity"] not in ("OK", "INFO", "LOW") and not excluded.match(f["id"])]
    assert not severe, severe
    counts = {}
    for finding in findings:
        counts[finding["severity"]] = counts.get(finding["severity"], 0) + 1
    assert served.process.poll() is None
    served.stop()
    return f"{len(findings)} findings of testssl.sh: {counts}"


def schema():
    """What is served is what is described: schemathesis with a fixed seed."""
    served = Served("state-schema")
    # tus asks for 412 where its version is not named, and keys of another length are answered with 413 where they are too long.
    refused = [400, 401, 403, 404, 405, 406, 409, 412, 413, 415, 421, 422, 428, 429]
    (FOLDER / "schemathesis.toml").write_text(
        f"[checks]\nnegative_data_rejection.expected-statuses = {refused}\n"
        f"missing_required_header.expected-statuses = {refused}\n")
    (FOLDER / "hooks.py").write_text(
        "import schemathesis\n"
        "types = ['application/offset+octet-stream', 'application/vnd.cryptodl.keys', 'application/vnd.cryptodl.ciphertexts']\n"
        "schemathesis.serializer.alias(types, 'application/octet-stream')\n")
    # Bytes that fit the schema are no keys all the same, and ids that fit it are nobody's.
    done = subprocess.run(
        [str(Path(sys.executable).parent / "schemathesis"), "run", served.url + "/openapi.json", "--checks", "all",
         "--exclude-checks", "positive_data_acceptance", "--seed", "21", "--max-examples", "25"],
        cwd=FOLDER, capture_output=True, text=True, env={**os.environ, "SCHEMATHESIS_HOOKS": "hooks", "PYTHONPATH": str(FOLDER)})
    (FOLDER / "schemathesis.txt").write_text(done.stdout + done.stderr)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]
    assert served.process.poll() is None
    served.stop()
    return done.stdout.strip().splitlines()[-1]


def overhead(images=8192, rounds=5):
    """`mnist-2`: from a whole upload to the result, beside `infer` on the same images, in turns. Of `infer` all counts but what it
    takes to prepare the model: the time from the file of images to the file of scores."""
    run("plan", "--model", "mnist-2", "--out", "mnist-2.program", "--write-spec", "deep.spec")
    if not (FOLDER / "keys-deep").exists():
        run("keygen", "--spec", "deep.spec", "--out", "keys-deep")
    first = (Path(run("data", "path", "mnist").strip()) / DATA).read_bytes()
    (FOLDER / "deep.idx").write_bytes(first[:4] + images.to_bytes(4, "big") + first[8:16] + first[16:16 + images * 784])
    run("encrypt", "--secret", "keys-deep/secret/secret.key", "--spec", "deep.spec", "--input", "deep.idx", "--out", "deep.ct")
    served = Served("state-deep", program="mnist-2.program")
    waits, wholes, computes = [], [], []
    for _ in range(rounds):
        report = json.loads(run("query", "--server", served.url, "--model", "mnist-2", "--keys", "keys-deep", "--images", images,
                                "--json", "-"))
        waits.append(report["seconds"]["wait"])
        start = time.monotonic()
        report = json.loads(run("infer", "--program", "mnist-2.program", "--eval-key", "keys-deep/public/eval.key", "--public",
                                "keys-deep/public/public.key", "--input", "deep.ct", "--out", "deep-scores.ct", "--json", "-"))
        wholes.append(time.monotonic() - start - report["seconds"]["prepare"])
        computes.append(report["seconds"]["compute"])
    served.stop()
    wait, whole, compute = map(median, (waits, wholes, computes))
    said = (f"{wait:.2f} s of the service, {whole:.2f} s of `infer` without preparing, of which {compute:.2f} s compute (medians of "
            f"{rounds}): {100 * (wait / whole - 1):+.1f} %")
    assert wait <= 1.05 * whole, said
    return said


CHECKS = {check.__name__: check for check in (tls, documented, kills, checkpoints, crowd, memory, tus, tus_js, syncs, metrics, testssl, schema, overhead)}


def main():
    prepare()
    try:
        for name in sys.argv[3:] or CHECKS:
            start = time.monotonic()
            print(f"{name}: {CHECKS[name]()} [{time.monotonic() - start:.0f} s]", flush=True)
    finally:
        for process in Served.all:
            process.kill()


if __name__ == "__main__":
    main()
