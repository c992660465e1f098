"""The order in which a service brings things to the disk, read from what strace wrote about it.

A blob is written and synced, gets its name, and its folder is synced, before a row says that it is there; the row is in the log of
the database and the log is synced, before anybody is told. Each public function below but `read` returns these steps of one blob in
their order, each with its calls, and fails where another order is possible: what a step calls must have returned before the next
one begins, whichever threads make the calls.
"""

import re
from dataclasses import dataclass

_SYNCS = ("fsync", "fdatasync")
_WRITES = ("write", "pwrite64", "writev", "pwritev", "sendto", "sendmsg")
_LINKS = ("link", "linkat", "rename", "renameat", "renameat2")
# The tracer is no parent of the service, which stays the child that was started. All strings are in hexadecimal digits.
COMMAND = ("strace", "-D", "-f", "--seccomp-bpf", "-y", "-xx", "-s", "8192",
           "-e", "trace=" + ",".join(("openat",) + _SYNCS + _WRITES + _LINKS), "-o")


@dataclass(frozen=True)
class Call:
    """A call of the system that succeeded."""

    name: str
    # Lines of the trace in which it begins and returns.
    begin: int
    end: int
    # What it is applied to; the new name, where it gives one.
    path: str
    # All strings that it was given, or the old name.
    data: bytes
    text: str


def read(trace):
    """All calls of a trace that has ended, in the order in which they began."""
    calls, begun = [], {}
    for number, line in enumerate(trace.splitlines()):
        thread, rest = line.split(None, 1)
        first = number
        if rest.endswith("<unfinished ...>"):
            begun[thread] = (number, rest.removesuffix("<unfinished ...>"))
            continue
        resumed = re.match(r"<\.\.\. \w+ resumed>(.*)", rest)
        if resumed:
            first, head = begun.pop(thread)
            rest = head + resumed[1]
        found = re.match(r"(\w+)\((.*)\)\s+= \d+", rest)
        if found:
            calls.append(_call(found[1], first, number, found[2]))
    return sorted(calls, key=lambda call: call.begin)


def _call(name, begin, end, text):
    strings = [_bytes(string) for string in re.findall(r'"([^"]*)"', text)]
    if name in _LINKS:
        return Call(name, begin, end, strings[1].decode(), strings[0], text)
    if name == "openat":
        return Call(name, begin, end, strings[0].decode(), b"", text)
    return Call(name, begin, end, _bytes(re.match(r"\d+<(.*?)>[,)]?", text)[1]).decode(), b"".join(strings), text)


def _bytes(text):
    """What strace shows as hexadecimal digits, or as it is."""
    return re.sub(rb"\\x([0-9a-f]{2})", lambda digits: bytes.fromhex(digits[1].decode()), text.encode())


def _first(calls, what, after, names, wanted):
    """The first of `calls` of one of `names` that begins when `after` has returned and is `wanted`."""
    end = after.end if after else -1
    for call in calls:
        if call.name in names and call.begin > end and wanted(call):
            return call
    raise AssertionError(f"{what} is not in the trace, or too early")


def _committed(calls, after, row, answer):
    """The commit of a row that has the bytes `row`, once `after` has returned, its sync, and the answer that tells of it."""
    log = [call for call in calls if call.path.endswith("/service.sqlite3-wal") and call.name in _WRITES + _SYNCS]
    rows = [number for number, call in enumerate(log) if call.name in _WRITES and re.search(row, call.data, re.S)]
    assert rows, "the row is not in the trace"
    first = log[rows[0]]
    assert first.begin > after.end, f"the row is written in line {first.begin}, and its blob is on the disk in line {after.end}"
    # Of each page that is written a head of 24 bytes comes before, which in the last page of a commit has the length of the database
    # from byte 4 on, and 0 there in all others (SQLite's format of a log).
    is_last = lambda head: head.name in _WRITES and len(head.data) == 24 and any(head.data[4:8])
    ends = (number for number in range(max(rows[0], 1), len(log)) if is_last(log[number - 1]))
    end = next(ends, len(log))
    assert end + 1 < len(log) and log[end + 1].name in _SYNCS and log[end + 1].begin > log[end].end, "the commit is not synced"
    # A row is on a page of its table, and its key on one of an index.
    pages = [log[number] for number in rows if number <= end]
    tells = lambda call: call.path.startswith("socket:") and re.search(answer, call.data, re.S)
    told = _first(calls, "the answer", None, _WRITES, tells)
    assert told.begin > log[end + 1].end, f"the answer begins in line {told.begin}, the sync of line {log[end + 1].end} ends later"
    return [pages, [log[end + 1]], [told]]


def published(calls, kind, name, row, answer):
    """Of a blob that appears whole: write, sync, name, sync of the folder, row, sync of the log, answer."""
    given = _first(calls, "the name", None, _LINKS, lambda call: call.path.endswith(f"/{kind}/{name}"))
    part = given.data.decode()
    is_part = lambda call: call.path == part
    writes = [call for call in calls if call.name in _WRITES and is_part(call)]
    assert writes, "nothing is written"
    sync = _first(calls, "the sync of the file", writes[-1], _SYNCS, is_part)
    assert given.begin > sync.end, f"the name is given in line {given.begin}, and the file is synced in line {sync.end}"
    folder = _first(calls, "the sync of the folder", given, _SYNCS, lambda call: call.path == part.rsplit("/", 1)[0])
    return [writes[-1:], [sync], [given], [folder]] + _committed(calls, folder, row, answer)


def created(calls, kind, name, row, answer):
    """Of an empty blob that has its name from the beginning: name, sync, sync of the folder, row, sync of the log, answer."""
    is_blob = lambda call: call.path.endswith(f"/{kind}/{name}")
    given = _first(calls, "the name", None, ("openat",), lambda call: is_blob(call) and "O_CREAT|O_EXCL" in call.text)
    sync = _first(calls, "the sync of the file", given, _SYNCS, is_blob)
    folder = _first(calls, "the sync of the folder", given, _SYNCS, lambda call: call.path == given.path.rsplit("/", 1)[0])
    last = max(sync, folder, key=lambda call: call.end)
    return [[given], [sync], [folder]] + _committed(calls, last, row, answer)


def grown(calls, kind, name, row, answer):
    """Of a blob that was filled: write, sync, row, sync of the log, answer."""
    is_blob = lambda call: call.path.endswith(f"/{kind}/{name}")
    writes = [call for call in calls if call.name in _WRITES and is_blob(call)]
    assert writes, "nothing is written"
    sync = _first(calls, "the sync of the file", writes[-1], _SYNCS, is_blob)
    return [writes[-1:], [sync]] + _committed(calls, sync, row, answer)
