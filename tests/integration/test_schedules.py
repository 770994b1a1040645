"""Schedules with real processes: a broker, two agents, a database, and a broker that is killed."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import evener
from evener_broker.schedule_records import read_id
from evener_wire.limits import SECOND_NS
from tests.support import ROOT, Processes, free_port, wait_until

EXAMPLE = ROOT / "examples" / "expired_sessions" / "sessions.py"
NAME = "shop.delete_expired"


class Shop:
    """The example: its database, and whoever cleans it up."""

    def __init__(self, processes: Processes, folder: Path, every: str) -> None:
        self._processes = processes
        self._folder = folder
        self.port = free_port()
        self.database = folder / "sessions.db"
        self._settings = {"SESSIONS_DB": str(self.database), "SESSIONS_EVERY": every}
        self.run("fill", "1000")

    def run(self, *arguments: str) -> str:
        """The example as a program."""
        argv = [sys.executable, str(EXAMPLE), *arguments]
        environment = self._processes.environment | self._settings
        done = subprocess.run(
            argv, env=environment, capture_output=True, text=True, timeout=60, check=True
        )
        return done.stdout

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """A part of the cluster."""
        return self._processes.start(
            sys.executable,
            "-m",
            "evener",
            *arguments,
            cwd=self._folder,
            env=self._processes.environment | self._settings,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def broker(self) -> subprocess.Popen[str]:
        return self.start("broker", "--port", str(self.port), "--journal", "journal.db")

    def worker(self, name: str) -> subprocess.Popen[str]:
        address = f"tcp://127.0.0.1:{self.port}"
        return self.start(
            "worker", f"{EXAMPLE}:app", "-n", "1", "--name", name, "--broker", address
        )

    def ask(self, what: str, **arguments: Any) -> dict[str, Any]:
        """An answer of the broker."""
        with evener.Client(f"tcp://127.0.0.1:{self.port}", connect_timeout=30) as client:
            found: dict[str, Any] = client.query(what, **arguments)
            return found

    def schedule(self) -> dict[str, Any]:
        rows = self.ask("ls", kind="schedules")["rows"]
        return next((row for row in rows if row["name"] == NAME), {})

    def deleted(self) -> list[int]:
        """What each clean-up deleted."""
        with closing(sqlite3.connect(self.database)) as database:
            found = database.execute("SELECT deleted FROM clean_ups ORDER BY at").fetchall()
        return [count for (count,) in found]


def test_two_hosts_clean_up_once_each_time(processes: Processes, tmp_path: Path) -> None:
    shop = Shop(processes, tmp_path, "1s")
    shop.broker()
    shop.worker("one")
    shop.worker("two")
    wait_until(lambda: shop.schedule().get("hosts") == 2, 30, "both agents")
    count = len(shop.deleted()) + 2
    wait_until(lambda: len(shop.deleted()) >= count, 30, "two runs")
    assert shop.ask("schedule", name=NAME, do="pause")["state"] == "paused"
    wait_until(lambda: shop.schedule()["last_state"] == "done", 30, "the end of the last run")
    runs = shop.deleted()
    assert len(runs) == shop.schedule()["runs"]
    assert runs == [500] + [0] * (len(runs) - 1)
    assert shop.run("show").startswith("500 sessions\n")


def test_a_schedule_goes_on_after_the_broker_was_killed(
    processes: Processes, tmp_path: Path
) -> None:
    shop = Shop(processes, tmp_path, "2s")
    broker = shop.broker()
    shop.worker("one")
    wait_until(lambda: shop.schedule().get("last_state") == "done", 30, "a run")
    _, first_ns = read_id(bytes.fromhex(shop.schedule()["last_id"]))
    processes.kill(broker)
    shop.broker()
    wait_until(lambda: shop.schedule().get("runs"), 30, "a run of the next broker")
    _, next_ns = read_id(bytes.fromhex(shop.schedule()["last_id"]))
    assert first_ns is not None
    assert next_ns is not None
    assert next_ns > first_ns
    assert (next_ns - first_ns) % (2 * SECOND_NS) == 0, "the due times do not go on"


def test_a_run_that_fails_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SESSIONS_DB", str(tmp_path / "sessions.db"))
    example = _load()
    example.fill(10)
    with pytest.raises(RuntimeError), example.transaction() as database:
        _fail_after(database.execute("DELETE FROM sessions"))
    assert example.delete_expired() == 5
    assert example.delete_expired() == 0


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--help"], "usage: python sessions.py fill NUMBER | show"),
        (["fill"], "usage: python sessions.py fill NUMBER | show"),
        (["fill", "many"], "usage: python sessions.py fill NUMBER | show"),
        (["show"], "there is no database .*sessions.db yet: fill it first\nusage: "),
    ],
)
def test_the_example_says_how_it_is_called(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: list[str], text: str
) -> None:
    monkeypatch.setenv("SESSIONS_DB", str(tmp_path / "sessions.db"))
    example = _load()
    with pytest.raises(SystemExit, match=text):
        example.main(words)
    assert [*tmp_path.iterdir()] == []
    (tmp_path / "sessions.db").touch()
    with pytest.raises(SystemExit, match="usage: "):
        example.main(words)


def _fail_after(_: object) -> None:
    raise RuntimeError("somewhere else")


def _load() -> ModuleType:
    spec = spec_from_file_location("expired_sessions", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
