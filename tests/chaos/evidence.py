"""What the checker reads: histories, facts of the run, and the verdicts in the broker's log.

Rules of this file: it imports nothing of evener, decides nothing, and drops nothing: a line that it
cannot read is evidence too.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

SECOND = 1_000_000_000

# `2026-01-31 12:00:00,123 broker WARNING agent host1 is gone: why; tasks back in line: 3`
_VERDICT = re.compile(r"agent (?P<agent>\S+) is gone: (?P<why>.*); tasks back in line: (?P<n>\d+)")
# A container's log has a time of the engine before it: `2026-01-31T12:00:00.123456789Z ...`
_TIME = re.compile(r"(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d)[,.](\d{3})\d*(Z?)")
_READY = re.compile(r"broker ready on ")
_CONNECTED = re.compile(r"agent (?P<agent>\S+) connected")
_STALL = re.compile(r"the broker stood still for ([0-9.]+) s")


@dataclass(slots=True)
class Execution:
    """One run of a task. `ended_ns` is None when it did not come to its end."""

    pid: int
    began_ns: int
    ended_ns: int | None = None


@dataclass(slots=True)
class Told:
    """All lines about one task, in the order of their time."""

    invoked: list[int] = field(default_factory=list)
    expect: frozenset[str] = frozenset()
    accepted: list[int] = field(default_factory=list)
    results: list[tuple[int, str, str, int]] = field(default_factory=list)  # ns, what, text, pid
    runs: list[Execution] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Fault:
    """What the run did to the cluster. `until_ns` is None for what has no duration."""

    kind: str
    at_ns: int
    until_ns: int | None
    agents: frozenset[str]
    pids: frozenset[int]


@dataclass(frozen=True, slots=True)
class BrokerVerdict:
    """A line of the broker's log."""

    at_ns: int
    agent: str
    why: str
    tasks: int


@dataclass(slots=True)
class Evidence:
    """Everything that is known of one run."""

    tasks: dict[str, Told] = field(default_factory=lambda: defaultdict(Told))
    deaths: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    faults: list[Fault] = field(default_factory=list)
    agent_of: dict[int, str] = field(default_factory=dict)
    verdicts: list[BrokerVerdict] = field(default_factory=list)
    stalls: list[tuple[int, float]] = field(default_factory=list)
    ready: list[int] = field(default_factory=list)
    connected: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    durable: bool = False
    unreadable: list[str] = field(default_factory=list)


def read(folder: Path) -> Evidence:
    """All of a run's folder."""
    evidence = Evidence()
    wall_ns = _read_facts(folder / "facts", evidence)
    for path in sorted(folder.glob("**/history")):
        _read_history(path, evidence)
    for path in sorted(folder.glob("broker*.log")):
        _read_log(path, wall_ns, evidence)
    for told in evidence.tasks.values():
        told.runs.sort(key=lambda run: run.began_ns)
        told.results.sort()
    evidence.verdicts.sort(key=lambda verdict: verdict.at_ns)
    return evidence


def _lines(path: Path) -> list[str]:
    if not path.exists():
        return []
    *lines, rest = path.read_text(errors="replace").split("\n")
    return [*lines, rest] if rest else lines


def _read_facts(path: Path, evidence: Evidence) -> int:
    """Returns what to subtract from the wall clock."""
    wall_ns = 0
    for line in _lines(path):
        try:
            fact: dict[str, Any] = json.loads(line)
            if fact["what"] == "clock":
                wall_ns = fact["wall_ns"] - fact["ns"]
                evidence.durable = fact.get("durable", False)
            elif fact["what"] == "worker":
                evidence.agent_of[fact["pid"]] = fact["agent"]
            elif fact["what"] == "death":
                evidence.deaths[fact["pid"]].append(fact["ns"])
            elif fact["what"] == "fault":
                evidence.faults.append(_fault(fact))
        except (ValueError, KeyError, TypeError):
            evidence.unreadable.append(f"{path.name}: {line}")
    return wall_ns


def _fault(fact: dict[str, Any]) -> Fault:
    until: int | None = fact.get("until_ns")
    agents = frozenset(fact.get("agents", ()))
    return Fault(fact["kind"], fact["ns"], until, agents, frozenset(fact.get("pids", ())))


def _read_history(path: Path, evidence: Evidence) -> None:
    running: dict[tuple[str, int], Execution] = {}
    for line in _lines(path):
        parts = line.split(" ", 4)
        try:
            what, token, pid, at_ns = parts[0], parts[1], int(parts[2]), int(parts[3])
        except (ValueError, IndexError):
            evidence.unreadable.append(f"{path.name}: {line}")
            continue
        text = parts[4] if len(parts) > 4 else ""
        told = evidence.tasks[token]
        if what == "invoke":
            told.invoked.append(at_ns)
            told.expect = frozenset(text.split("|"))
        elif what == "accepted":
            told.accepted.append(at_ns)
        elif what in ("ok", "fail"):
            told.results.append((at_ns, what, text, pid))
        elif what == "start":
            run = running[token, pid] = Execution(pid, at_ns)
            told.runs.append(run)
        elif what == "end" and (token, pid) in running:
            running.pop((token, pid)).ended_ns = at_ns
        elif what == "die":
            evidence.deaths[pid].append(at_ns)
        else:
            evidence.unreadable.append(f"{path.name}: {line}")


def _read_log(path: Path, wall_ns: int, evidence: Evidence) -> None:
    for line in _lines(path):
        at = _TIME.search(line)
        if at is None:
            continue
        zone = UTC if at[4] else None  # else local, as Python logs it
        moment = datetime.strptime(f"{at[1]} {at[2]}", "%Y-%m-%d %H:%M:%S").replace(tzinfo=zone)
        at_ns = int(moment.timestamp()) * SECOND + int(at[3]) * 1_000_000 - wall_ns
        if (found := _VERDICT.search(line)) is not None:
            verdict = BrokerVerdict(at_ns, found["agent"], found["why"], int(found["n"]))
            evidence.verdicts.append(verdict)
        elif (stall := _STALL.search(line)) is not None:
            evidence.stalls.append((at_ns, float(stall[1])))
        elif _READY.search(line) is not None:
            evidence.ready.append(at_ns)
        elif (came := _CONNECTED.search(line)) is not None:
            evidence.connected[came["agent"]].append(at_ns)
