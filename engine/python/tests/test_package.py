"""The package as its users meet it."""

import multiprocessing
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import cryptodl
import numpy as np
import pytest

README = Path(__file__).resolve().parents[3] / "README.md"


def test_three_ways_to_predict(model, digits):
    images, labels = digits[0][:300], digits[1][:300]
    predicted = {fhe: model.predict(images, fhe=fhe) for fhe in ("execute", "simulate", "disable")}
    for fhe, found in predicted.items():
        assert found.shape == (300,) and found.dtype == np.uint32
        assert (found == labels).mean() >= 0.97, fhe
    assert (predicted["execute"] == predicted["disable"]).mean() >= 0.99
    with pytest.raises(ValueError, match="execute, simulate, disable"):
        model.predict(images, fhe="yes")


def test_roles_apart(saved, client, digits):
    images, labels = digits[0][:50], digits[1][:50]
    request, key = client.encrypt(images), client.evaluation_key()
    server = cryptodl.Server(saved, device="cpu")
    assert "cpu" in server.device and len(server.program) == 64
    found = client.decrypt(server.run(request, key))
    assert (found.labels == labels).mean() >= 0.95
    assert found.scores.shape == (50, 10) and (found.scores.argmax(1) == found.labels).mean() >= 0.9
    assert found.doubtful.dtype == np.bool_ and not found.doubtful.any()
    assert len(found.names) == 50
    # Results are masked, unless a test asks for equal ones.
    assert server.run(request, key) != server.run(request, key)
    plain = server.run(request, key, deterministic=True)
    assert plain == server.run(request, key, deterministic=True)
    assert (client.decrypt(plain).labels == found.labels).mean() >= 0.98
    for secret in ("decrypt", "secret", "encrypt"):
        assert not hasattr(server, secret) and not hasattr(server._native, secret)


def test_keys_are_kept(saved, client, digits, tmp_path):
    again = cryptodl.Client(saved / "client.spec", client._key_dir)
    assert again.evaluation_key() == client.evaluation_key()
    secret = client._key_dir / "secret"
    assert os.stat(secret).st_mode & 0o077 == 0 and os.stat(secret / "secret.key").st_mode & 0o077 == 0
    # A stranger with other keys reads nothing.
    other = cryptodl.Client(saved / "client.spec", None)
    response = cryptodl.Server(saved).run(client.encrypt(digits[0][:20]), client.evaluation_key())
    try:
        found = other.decrypt(response)
    except cryptodl.FormatError:
        pass
    else:
        assert found.doubtful.mean() > 0.5
    assert pickle.loads(pickle.dumps(client)).evaluation_key() == client.evaluation_key()
    with pytest.raises(TypeError, match="key_dir"):
        pickle.dumps(other)


def test_keys_are_refused_by_what_is_wrong(saved, tmp_path):
    with pytest.raises(ValueError, match="max_key_size"):
        cryptodl.Client(saved / "client.spec", tmp_path / "large", max_key_size=1000)
    assert not (tmp_path / "large").exists()
    keys = tmp_path / "keys"
    cryptodl.Client(saved / "client.spec", keys)
    secret = (keys / "secret/secret.key").read_bytes()
    (keys / "secret/secret.key").write_bytes(secret[:-1])
    with pytest.raises(cryptodl.FormatError, match="secret.key.*another folder"):
        cryptodl.Client(saved / "client.spec", keys)
    (keys / "secret/secret.key").unlink()
    with pytest.raises(FileNotFoundError, match="secret.key is not there, but others"):
        cryptodl.Client(saved / "client.spec", keys)
    # Those that are there were not replaced.
    assert (keys / "public/eval.key").exists() and not (keys / "secret/secret.key").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda x: x.astype(np.float64), "float32.*astype"),
        (lambda x: (x * 255).astype(np.uint8), "float32.*astype"),
        (lambda x: x.transpose(0, 2, 3, 1), r"\[N, 1, 28, 28\].*transpose"),
        (lambda x: x[:, 0], r"\[N, 1, 28, 28\]"),
        (lambda x: x[:0], r"\[N, 1, 28, 28\]"),
        (lambda x: x[:, :, ::-1], "ascontiguousarray"),
        (lambda x: x.tolist(), "numpy array"),
        (lambda x: x * 300, "range|0 to 1|outside|between"),
        (lambda x: x * np.nan, "range|0 to 1|outside|between|NaN"),
    ],
)
def test_wrong_arrays_are_refused_with_the_right_one(client, digits, change, said):
    with pytest.raises(cryptodl.InputError, match=f"(?s){said}"):
        client.encrypt(change(digits[0][:4]))


def test_damaged_bytes_are_refused(saved, client, digits):
    request, key = client.encrypt(digits[0][:3]), client.evaluation_key()
    server = cryptodl.Server(saved)
    flipped = bytearray(request)
    flipped[len(request) // 2] ^= 1
    for bad_request, bad_key in ((request[:-1], key), (bytes(flipped), key), (b"", key), (request, key[:-1]),
                                 (request, b""), (request, request)):
        with pytest.raises(cryptodl.FormatError):
            server.run(bad_request, bad_key)
    with pytest.raises(cryptodl.FormatError):
        cryptodl.Client(b"no spec", "nowhere")
    with pytest.raises(cryptodl.FormatError):
        client.decrypt(request)


def _in_another_process(server, client, request, images, queue):
    request = client.encrypt(images) if request is None else request
    response = server.run(request, client.evaluation_key(), deterministic=True)
    queue.put((response, client.decrypt(response).labels))


@pytest.mark.parametrize("method", ["spawn", "fork", "forkserver"])
@pytest.mark.parametrize("threads", [None, 1])
def test_roles_go_to_other_processes(saved, client, digits, method, threads):
    server = cryptodl.Server(saved, threads=threads)
    images, labels = digits[0][:5], digits[1][:5]
    request = client.encrypt(images)
    expected = server.run(request, client.evaluation_key(), deterministic=True)
    context = multiprocessing.get_context(method)
    for sent in (request, None):
        queue = context.Queue()
        process = context.Process(target=_in_another_process, args=(server, client, sent, images, queue))
        process.start()
        response, found = queue.get(timeout=120)
        process.join()
        assert process.exitcode == 0 and (found == labels).mean() >= 0.8
        assert (response == expected) == (sent is not None)


def test_what_is_pickled(saved, model):
    server = cryptodl.Server(saved)
    assert pickle.loads(pickle.dumps(server)).program == server.program
    assert len(pickle.dumps(server)) < 1000
    for whole in (model, cryptodl.load(saved)):
        with pytest.raises(TypeError, match="save it"):
            pickle.dumps(whole)


def _predict_in_a_fork(model, images, queue):
    queue.put(model.predict(images))


def test_a_model_predicts_in_a_forked_process(model, digits):
    images = digits[0][:20]
    here = model.predict(images)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=_predict_in_a_fork, args=(model, images, queue))
    process.start()
    assert (queue.get(timeout=120) == here).mean() >= 0.9
    process.join()


def test_two_models_and_many_threads(saved, client, digits, tmp_path):
    other = cryptodl.compile("mnist-1", calibration=None)
    other.save(tmp_path / "other")
    servers = {
        folder: (cryptodl.Server(folder), cryptodl.Client(folder / "client.spec", tmp_path / f"keys-{folder.name}"))
        for folder in (saved, tmp_path / "other")
    }
    images, labels = digits[0][:40], digits[1][:40]
    right = []

    def work(server, client):
        found = client.decrypt(server.run(client.encrypt(images), client.evaluation_key()))
        right.append((found.labels == labels).mean())

    threads = [threading.Thread(target=work, args=pair) for pair in servers.values() for _ in range(3)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert len(right) == 6 and min(right) >= 0.95
    (one, _), (_, stranger) = servers.values()
    with pytest.raises(cryptodl.FormatError):
        one.run(stranger.encrypt(images), stranger.evaluation_key())


def test_progress_is_told(saved, client, digits):
    told = []
    request = client.encrypt(digits[0][:3], progress=lambda done, total: told.append((done, total)))
    assert told and told[-1][0] == told[-1][1]
    with pytest.raises(ZeroDivisionError):
        cryptodl.Server(saved).run(request, client.evaluation_key(), progress=lambda done, total: 1 / 0)


def test_the_interpreter_is_free_meanwhile(client, digits):
    ticks, end = [], threading.Event()

    def tick():
        while not end.is_set():
            ticks.append(time.monotonic())
            time.sleep(0.005)

    ticker = threading.Thread(target=tick)
    ticker.start()
    start = time.monotonic()
    client.encrypt(digits[0])
    seconds = time.monotonic() - start
    end.set()
    ticker.join()
    during = sum(start <= at <= start + seconds for at in ticks)
    assert during >= 5, f"{during} ticks in {seconds:.2f} s"


def test_ctrl_c_ends_a_long_call(saved, tmp_path):
    script = tmp_path / "long.py"
    script.write_text(
        "import sys, numpy, cryptodl\n"
        "client = cryptodl.Client(sys.argv[1], sys.argv[2])\n"
        "images = numpy.zeros((400000, 1, 28, 28), numpy.float32)\n"
        "print('begun', flush=True)\n"
        "try:\n"
        "    client.encrypt(images)\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted', flush=True)\n"
    )
    command = [sys.executable, script, saved / "client.spec", tmp_path / "keys"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "begun\n"
    time.sleep(0.5)
    start = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert process.stdout.read() == "interrupted\n"
    assert process.wait() == 0 and time.monotonic() - start < 10


def test_a_saved_model_is_loaded_without_planning(saved, model, digits):
    again = cryptodl.load(saved)
    assert again.spec == model.spec and again.plan is None and again.shape == (1, 28, 28)
    images = digits[0][:100]
    assert (again.predict(images, fhe="simulate") == model.predict(images, fhe="simulate")).all()
    assert "N =" in model.plan


def test_what_cannot_be_computed_says_so(tmp_path, digits):
    with pytest.raises(cryptodl.ModelError, match="mnist-1"):
        cryptodl.compile("mnist1", calibration=None)
    (tmp_path / "broken.onnx").write_bytes(b"nothing")
    with pytest.raises(cryptodl.ModelError):
        cryptodl.compile(tmp_path / "broken.onnx", calibration=digits[0])
    with pytest.raises(cryptodl.InputError, match="calibration"):
        cryptodl.compile(tmp_path / "broken.onnx", calibration=None)
    with pytest.raises(ValueError, match="128, 192 or 256"):
        cryptodl.compile("mnist-1-square", calibration=None, security=100)


def test_the_readme_gives_the_same_bytes_as_the_command_line(binary, digits, tmp_path, monkeypatch):
    """README's example as it stands there, but for the network, which is one that ships."""
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"## From Python\n.*?```python\n(.*?)```", README.read_text(), re.S)
    images, labels = digits[0][:100], digits[1][:100]
    page = {"network": "mnist-1", "validation_images": digits[0][1000:3000], "images": images}
    exec(block, page)
    assert (page["labels"] == labels).mean() >= 0.95
    Path("request").write_bytes(page["request"])
    infer = ["infer", "--program", "my-network/server.program", "--eval-key", "keys/public/eval.key", "--deterministic"]
    subprocess.run([binary, *infer, "--input", "request", "--out", "response"], check=True)
    ours = page["server"].run(page["request"], page["client"].evaluation_key(), deterministic=True)
    assert ours == Path("response").read_bytes()


def test_keys_and_models_go_to_the_command_line_and_back(binary, saved, client, digits, tmp_path):
    run = lambda *command: subprocess.run([binary, *map(str, command)], check=True, cwd=tmp_path)  # noqa: E731
    images, labels = digits[0][:20], digits[1][:20]
    # Keys of the command line, requests of the package.
    run("keygen", "--spec", saved / "client.spec", "--out", "keys")
    ours = cryptodl.Client(saved / "client.spec", tmp_path / "keys")
    response = cryptodl.Server(saved).run(ours.encrypt(images), ours.evaluation_key())
    (tmp_path / "response").write_bytes(response)
    run("decrypt", "--secret", "keys/secret/secret.key", "--spec", saved / "client.spec", "--input", "response",
        "--out", "labels.npy")
    assert (np.load(tmp_path / "labels.npy") == labels).mean() >= 0.9
    # Keys and images of the package.
    np.save(tmp_path / "images.npy", images)
    keys = client._key_dir
    run("encrypt", "--secret", keys / "secret/secret.key", "--spec", keys / "public/client.spec", "--input",
        "images.npy", "--out", "request")
    run("infer", "--program", saved / "server.program", "--eval-key", keys / "public/eval.key", "--public",
        keys / "public/public.key", "--input", "request", "--out", "result")
    assert (client.decrypt((tmp_path / "result").read_bytes()).labels == labels).mean() >= 0.9
    # The saved folder is a model.
    run("run", "--model", saved, "--data", "images.npy", "--images", "20")
