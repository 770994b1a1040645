"""The small parts of the agent's shell: output, CPUs, configuration, facts."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from evener_wire.errors import UsageError
from evener_worker.config import AgentConfig, config_from_json, is_loopback
from evener_worker.cpus import cgroup_quota, usable_cpus
from evener_worker.facts import is_exiting, usage_of
from evener_worker.limits import DUMP_LINES_KEPT, LINE_BYTES_MAX, LINES_KEPT, OUTPUT_BYTES_MAX
from evener_worker.output import Lines, Sink, harmless, kept_lines

# --- Output ---------------------------------------------------------------------------------------


def test_lines_are_whole_and_have_their_prefix() -> None:
    kept = kept_lines()
    lines = Lines(b"worker-3 | ", kept)
    assert lines.feed(b"one\ntw") == b"worker-3 | one\n"
    assert lines.feed(b"o\n") == b"worker-3 | two\n"
    assert lines.feed(b"rest") == b""
    assert lines.end() == b"worker-3 | rest\n"
    assert lines.end() == b""
    assert list(kept) == ["one", "two", "rest"]


def test_only_the_last_lines_are_kept() -> None:
    kept = kept_lines()
    Lines(b"", kept).feed(b"".join(b"%d\n" % number for number in range(100)))
    assert list(kept) == [str(number) for number in range(100 - LINES_KEPT, 100)]


_DUMP = """\
Fatal Python error: Segmentation fault

Thread 0x00007f30db0146c0 (most recent call first):
  File "a.py", line 76 in read

Current thread 0x00007f30dc067b80 (most recent call first):
""" + "".join(f'  File "b.py", line {number} in deep\n' for number in range(40))


@pytest.mark.parametrize("part", [10_000, 100])
def test_of_a_crash_the_head_is_kept_and_what_was_said_before(part: int) -> None:
    kept = kept_lines()
    stdout, stderr = Lines(b"", kept), Lines(b"", kept)
    stdout.feed(b"".join(b"%d\n" % number for number in range(30)))
    for begin in range(0, len(_DUMP), part):
        stderr.feed(_DUMP.encode()[begin : begin + part])
    stdout.feed(b"said before, read after\n")
    own = LINES_KEPT - DUMP_LINES_KEPT
    assert list(kept) == [
        *(str(number) for number in range(31 - own, 30)),
        "said before, read after",
        "Fatal Python error: Segmentation fault",
        "Current thread 0x00007f30dc067b80 (most recent call first):",
        *(f'  File "b.py", line {number} in deep' for number in range(DUMP_LINES_KEPT - 2)),
    ]


def test_an_endless_line_is_shown_in_pieces() -> None:
    shown = Lines(b"> ", kept_lines()).feed(b"x" * (2 * LINE_BYTES_MAX + 1))
    assert [len(line) for line in shown.split(b"\n")] == [LINE_BYTES_MAX + 2] * 2 + [0]


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (b"plain", b"plain"),
        (b"tab\there", b"tab\there"),
        (b"\x1b[31mred\x1b[0m", b"\x1b[31mred\x1b[0m"),
        (b"\x1b]0;title\x07", b"?]0;title?"),
        (b"\x1b[2Jgone", b"?[2Jgone"),
        (b" 10%\r 20%\r", b" 20%"),
        ("häß".encode(), "häß".encode()),
        (b"\xff\xfe", b"\xff\xfe"),
        (b"nul\0", b"nul?"),
    ],
)
def test_nothing_steers_the_terminal(line: bytes, shown: bytes) -> None:
    assert harmless(line) == shown


def test_a_full_pipe_does_not_block() -> None:
    reader, writer = os.pipe()
    sink = Sink(writer)
    data = b"x" * (OUTPUT_BYTES_MAX + 200_000)
    sink.write(data)
    assert sink.full
    got = b""
    while sink.queued or len(got) < len(data):
        got += os.read(reader, 1 << 20)
        sink.flush()
    assert got == data
    os.close(reader)
    sink.write(b"nobody reads")
    assert sink.queued == 0
    os.close(writer)


# --- CPUs -----------------------------------------------------------------------------------------


def tree(folder: Path, files: dict[str, str]) -> Path:
    """Files below a folder."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize(
    ("cgroup", "files", "quota"),
    [
        ("0::/a/b\n", {"a/b/cpu.max": "150000 100000"}, 1.5),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000", "a/cpu.max": "300000 100000"}, 3.0),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000"}, None),
        ("0::/not/here\n", {"cpu.max": "50000 100000"}, 0.5),
        ("0::/\n", {"cpu.max": "broken"}, None),
        ("0::/\n", {}, None),
        (
            "4:cpu,cpuacct:/d\n0::/\n",
            {
                "cpu,cpuacct/d/cpu.cfs_quota_us": "200000",
                "cpu,cpuacct/d/cpu.cfs_period_us": "100000",
            },
            2.0,
        ),
        ("4:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
    ],
)
def test_cgroup_quotas(
    tmp_path: Path, cgroup: str, files: dict[str, str], quota: float | None
) -> None:
    root = tree(tmp_path / "fs", files)
    root.mkdir(exist_ok=True)
    (tmp_path / "cgroup").write_text(cgroup)
    assert cgroup_quota(tmp_path / "cgroup", root) == quota
    assert 1 <= usable_cpus(tmp_path / "cgroup", root) <= (os.cpu_count() or 1)


def test_affinity() -> None:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert usable_cpus() == 1
    finally:
        os.sched_setaffinity(0, before)


# --- Configuration --------------------------------------------------------------------------------


def test_the_json_of_the_entry_point() -> None:
    text = '{"app": "m:app", "broker": "tcp://127.0.0.1:1", "workers": 3, "queues": ["a", "b"]}'
    assert config_from_json(text) == AgentConfig("m:app", "tcp://127.0.0.1:1", 3, ("a", "b"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "not JSON"),
        ("[]", "not a JSON object"),
        ('{"app": "a"}', "app and broker are needed"),
        ('{"app": "a", "broker": "b", "wrkers": 1}', "unknown key 'wrkers'; known: app, broker"),
        ('{"app": "a", "broker": "b", "workers": -1}', "workers is -1"),
        ('{"app": "a", "broker": "b", "queues": []}', "queues is empty"),
    ],
)
def test_a_bad_configuration_says_what_is_wrong(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says.replace("(", r"\(")):
        config_from_json(text)


@pytest.mark.parametrize(
    ("value", "workers"), [("3", 3), ("", None), ("auto", None), ("0", 0), ("x", 0), ("99999", 0)]
)
def test_workers_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, value: str, workers: int | None
) -> None:
    monkeypatch.setenv("EVENER_WORKERS", value)
    settle: Callable[[], AgentConfig] = AgentConfig("a", "b").settled
    if workers == 0:
        with pytest.raises(UsageError, match="EVENER_WORKERS"):
            settle()
    else:
        assert settle().workers == (workers or usable_cpus())
    assert AgentConfig("a", "b", workers=5).settled().workers == 5


@pytest.mark.parametrize(
    ("address", "loopback"),
    [
        ("tcp://127.0.0.1:7450", True),
        ("tcp://127.1.2.3:7450", True),
        ("tcp://localhost:7450", True),
        ("tcp://[::1]:7450", True),
        ("ipc:///tmp/x", True),
        ("tcp://10.0.0.5:7450", False),
        ("tcp://127.evil.example:7450", False),
        ("tcp://localhost.example:7450", False),
    ],
)
def test_who_is_trusted_with_pickles(address: str, loopback: bool) -> None:
    assert is_loopback(address) is loopback
    assert AgentConfig("a", address).trusted is loopback
    assert AgentConfig("a", address, insecure=True).trusted


# --- Facts ----------------------------------------------------------------------------------------


def test_what_a_process_uses() -> None:
    usage = usage_of(os.getpid())
    assert usage is not None
    assert usage[0] > 1 << 20
    assert usage[1] >= 0
    assert not is_exiting(os.getpid())
    assert usage_of(1 << 22) is None
    assert is_exiting(1 << 22)
