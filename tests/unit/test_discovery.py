"""Which broker a client talks to, and what it does not believe."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from evener.cli.options import ADDRESS
from evener.discovery import (
    check_address,
    find_broker,
    is_loopback,
    local_brokers,
    runtime_folder,
)
from evener_wire.errors import UsageError


def write(folder: Path, pid: int, /, **changes: Any) -> Path:
    folder.mkdir(mode=0o700, exist_ok=True)
    facts = {"schema": 1, "address": "tcp://127.0.0.1:7450", "pid": pid, "epoch": 3, "started": 9}
    path = folder / f"broker-{pid}.json"
    path.write_text(json.dumps(facts | changes))
    path.chmod(0o600)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "brokers"


def test_the_argument_goes_before_the_variable_before_the_local_broker(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    monkeypatch.setenv("EVENER_RUNTIME_DIR", str(folder))
    with pytest.raises(UsageError, match="evener up") as raised:
        find_broker()
    assert "LocalCluster" in str(raised.value)
    write(folder, os.getpid(), address="tcp://127.0.0.1:1")
    assert find_broker() == "tcp://127.0.0.1:1"
    monkeypatch.setenv("EVENER_BROKER", "tcp://127.0.0.1:2")
    assert find_broker() == "tcp://127.0.0.1:2"
    assert find_broker("tcp://127.0.0.1:3") == "tcp://127.0.0.1:3"


def test_the_newest_running_broker_wins(folder: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        write(folder, os.getpid(), started=1)
        write(folder, child.pid, started=2, address="tcp://127.0.0.1:2")
        found = local_brokers(folder)
        assert [broker.pid for broker in found] == [child.pid, os.getpid()]
    finally:
        child.kill()
        child.communicate()
    assert [broker.pid for broker in local_brokers(folder)] == [os.getpid()]


@pytest.mark.parametrize(
    "changes",
    [
        {"schema": 2},
        {"address": 5},
        {"address": "http://127.0.0.1"},
        {"pid": "1"},
        {"pid": 0},
        {"pid": True},
        {"epoch": None},
        {"started": "yesterday"},
    ],
)
def test_files_that_say_something_else_are_passed_over(
    folder: Path, changes: dict[str, Any]
) -> None:
    write(folder, os.getpid(), **changes)
    assert local_brokers(folder) == []


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000])
def test_garbage_is_passed_over(folder: Path, text: str) -> None:
    write(folder, os.getpid()).write_text(text)
    assert local_brokers(folder) == []


def test_what_others_could_have_written_is_not_believed(folder: Path, tmp_path: Path) -> None:
    path = write(folder, os.getpid())
    assert len(local_brokers(folder)) == 1
    path.chmod(0o666)
    assert local_brokers(folder) == []
    path.chmod(0o600)
    folder.chmod(0o777)
    assert local_brokers(folder) == []
    folder.chmod(0o700)
    elsewhere = path.rename(tmp_path / "elsewhere.json")
    path.symlink_to(elsewhere)
    assert local_brokers(folder) == []
    link = tmp_path / "link"
    link.symlink_to(folder)
    assert local_brokers(link) == []
    assert local_brokers(tmp_path / "missing") == []


def test_a_pipe_in_place_of_a_file_does_not_block(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    os.mkfifo(folder / "broker-1.json", 0o600)
    assert local_brokers(folder) == []


def test_the_folder_is_of_this_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EVENER_RUNTIME_DIR")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/5")
    assert runtime_folder() == Path("/run/user/5/evener")
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert runtime_folder() == Path(f"/tmp/evener-{os.getuid()}")


@pytest.mark.parametrize(
    "address", ["tcp://h:1", "tcp://127.0.0.1:65535", "tcp://[::1]:7450", "ipc:///run/broker"]
)
def test_addresses(address: str) -> None:
    assert check_address(address, "address") == address


@pytest.mark.parametrize(
    ("address", "whole"),
    [
        ("h", "tcp://h:7450"),
        ("h:1", "tcp://h:1"),
        ("tcp://h", "tcp://h:7450"),
        ("[::1]", "tcp://[::1]:7450"),
        ("[::1]:99", "tcp://[::1]:99"),
    ],
)
def test_what_an_address_lacks_is_added_wherever_it_is_given(
    address: str, whole: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert check_address(address, "address") == whole
    assert find_broker(address) == whole
    monkeypatch.setenv("EVENER_BROKER", address)
    assert find_broker() == whole
    assert ADDRESS.convert(address, None, None) == whole


@pytest.mark.parametrize(
    "address",
    [
        *("", "h:", "tcp://", "::1", "h:1:2", "tcp://h:", "tcp://:1", "tcp://h:0", "tcp://h:65536"),
        *("tcp://h:1x", "udp://h:1", "tcp://a b:1", "tcp://h\n:1", "ipc://"),
    ],
)
def test_what_is_no_address_is_named_with_its_source(address: str) -> None:
    with pytest.raises(UsageError, match="EVENER_BROKER"):
        check_address(address, "EVENER_BROKER")


def test_loopback_is_taken_by_the_letter() -> None:
    for address in ("tcp://127.0.0.1:1", "tcp://127.9.9.9:1", "tcp://localhost:1"):
        assert is_loopback(address)
    assert is_loopback("tcp://[::1]:1")
    assert is_loopback("ipc:///x")
    for address in ("tcp://127.example.com:1", "tcp://127.0.0.1.evil.com:1", "tcp://10.0.0.1:1"):
        assert not is_loopback(address)
    assert not is_loopback("tcp://0.0.0.0:1")
