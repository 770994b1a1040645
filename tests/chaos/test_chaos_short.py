"""A few repetitions of the rows that every change must stand: R1, R2, R4, R4p, R8 (proxy), R12,
R12e.

All rows with all loads: `make chaos`.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.chaos.disk import why_no_disk
from tests.chaos.mounts import why_no_mounts
from tests.chaos.report import about, as_json, merged, summary, table
from tests.chaos.rows import ROWS
from tests.chaos.run import IDLE, RATE, NotRun, Row, Run, Tally, run_row
from tests.support import skip_aloud

SECONDS = 6.0  # for the repetitions of a row; the first one is always whole


def run_short(row: Row, folder: Path, repeat: int) -> None:
    """A row with one load; it must be without any violation."""
    seed = int(os.environ.get("CHAOS_SEED") or random.randrange(1 << 32))
    print(f"CHAOS_SEED={seed}")
    tally = run_row(row, [RATE], repeat=repeat, seed=seed, folder=folder, seconds=SECONDS)
    print(summary(row, tally))
    assert not tally.not_run
    assert not tally.failed()
    assert tally.repetitions >= 1
    assert sum(tally.faults.values()) >= tally.repetitions


@pytest.mark.slow
@pytest.mark.parametrize(("name", "repeat"), [("R1", 4), ("R2", 2), ("R4", 2), ("R4d", 2)])
def test_processes(tmp_path: Path, name: str, repeat: int) -> None:
    run_short(_row(name), tmp_path, repeat)


@pytest.mark.slow
def test_half_open_connections(tmp_path: Path) -> None:
    run_short(_row("R8x"), tmp_path, 2)


@pytest.mark.slow
def test_a_full_disk(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        skip_aloud("mounting a small disk needs root", expected_in_ci=True)
    reason = why_no_mounts()
    if reason is not None:
        skip_aloud(reason, expected_in_ci=True)
    run_short(_row("R12"), tmp_path, 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["R4p", "R12e"])
def test_a_disk_that_fails(tmp_path: Path, name: str) -> None:
    reason = why_no_disk()
    if reason is not None:
        skip_aloud(reason)
    run_short(_row(name), tmp_path, 2)


def _row(name: str) -> Row:
    (found,) = (row for row in ROWS if row.name == name)
    return found


# --- The report -----------------------------------------------------------------------------------


def _two_repetitions(run: Run) -> None:
    for number in run.repetitions():
        run.tally.faults["kill worker"] += 1
        if run.load == RATE and number == 1:
            raise KeyboardInterrupt


def test_what_is_broken_off_keeps_what_it_found(tmp_path: Path) -> None:
    rows = (
        Row("R1", "the first", _two_repetitions, loads=(IDLE, RATE)),
        Row("R2", "the second", _impossible),
    )
    tally = Tally()
    with pytest.raises(KeyboardInterrupt):
        run_row(
            rows[0], [IDLE, RATE], repeat=2, seed=1, folder=tmp_path, seconds=9, tally=tally
        )  # fmt: skip
    report = as_json(about(1, ["chaos"]), rows, {"R1": tally})
    first, second = report["rows"].values()
    assert (first["repetitions"], first["broken_off"], first["ok"]) == (3, True, True)
    assert first["faults"] == {"kill worker": 4}
    assert second["not_run"] == "stopped before it"
    lines = table(report).splitlines()
    assert "ok, broken off" in lines[2]
    assert "Not run: stopped before it" in lines[3]


def test_several_reports_make_one_table(tmp_path: Path) -> None:
    rows = (Row("R1", "the first", lambda _: None), Row("R2", "the second", lambda _: None))
    tallies = {name: Tally(repetitions=n) for name, n in (("R1", 3), ("R2", 4))}
    facts = about(1, ["chaos"])
    one, other = (as_json(facts, rows, {name: tallies[name]}) for name in tallies)
    found = merged([one, other])["rows"]
    assert [found[name]["repetitions"] for name in ("R1", "R2")] == [3, 4]
    assert table(merged([one, other])).splitlines()[4].split("|")[3].strip() == "7"


# --- What is not run is said ----------------------------------------------------------------------


def _impossible(run: Run) -> None:
    raise NotRun("the moon is full")


@pytest.mark.parametrize(
    ("work", "why_not"),
    [(_impossible, lambda: None), (lambda run: None, lambda: "the moon is full")],
)
def test_what_cannot_run_says_why(
    tmp_path: Path, work: Callable[[Run], None], why_not: Callable[[], str | None]
) -> None:
    row = Row("R0", "nothing", work, why_not=why_not)
    tally = run_row(row, [RATE], repeat=1, seed=1, folder=tmp_path, seconds=1)
    assert summary(row, tally) == "R0 not run: the moon is full"


def test_every_row_of_the_table_is_there() -> None:
    names = {row.name for row in ROWS}
    numbers = [*range(1, 14), 15, 17, 18, 19, 21]
    assert {f"R{number}" for number in numbers} <= names
