"""What a chaos run found: as JSON, and as a table made of that.

Rules of this file: the table says nothing that is not in the JSON, so that one of several runs can
be made of their files.
"""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import evener_broker
from tests.chaos.run import SUMMED, Row, Tally
from tests.support import ROOT

Report = dict[str, Any]

_HEADS = (
    "row", "fault", "reps", "faults", "tasks", "lost", "dup", "twice", "false", "verdicts",
    "detection p50/p99", "recovery p50/p99", "",
)  # fmt: skip


def percentile(values: Iterable[float], part: float) -> float | None:
    """The value below which this part of them lies; None if there are none."""
    ordered = sorted(values)
    if not ordered:
        return None
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def seconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value * 1000:.1f} ms" if value < 1 else f"{value:.2f} s"


# --- JSON -----------------------------------------------------------------------------------------


def about(seed: int, command: Sequence[str]) -> Report:
    """What and where: the same for all rows."""
    head = subprocess.run(
        ["git", "-C", str(ROOT), "describe", "--always", "--dirty"], capture_output=True, text=True
    )
    return {
        "seed": seed,
        "command": " ".join(command),
        "commit": head.stdout.strip() or "unknown",
        "broker": evener_broker.__file__,
        "python": platform.python_version(),
        "kernel": platform.release(),
        "cpus": os.cpu_count(),
    }


def as_json(
    facts: Report, rows: Sequence[Row], found: Mapping[str, Tally], left: Sequence[str] = ()
) -> Report:
    """All of it, also when not all rows have run yet."""
    return {
        **facts,
        "left_behind": list(left),
        "rows": {row.name: _row_json(row, found.get(row.name)) for row in rows},
    }


def _row_json(row: Row, tally: Tally | None) -> Report:
    if tally is None or tally.not_run:
        return {"title": row.title, "not_run": tally.not_run if tally else "stopped before it"}
    return {
        "title": row.title,
        "ok": not tally.failed(),
        "broken_off": tally.broken_off,
        "repetitions": tally.repetitions,
        "seconds": round(tally.seconds, 1),
        "load_average": tally.load_average,
        "faults": dict(tally.faults),
        **{name: tally.figures[name] for name in SUMMED},
        "detection_s": _times(tally.detection_s),
        "recovery_s": _times(tally.recovery_s),
        "recovery_p50_s_by_load": {
            load: percentile(values, 0.5) for load, values in tally.by_load.items()
        },
        "violations": dict(tally.violations),
        "examples": tally.examples,
        "errors": tally.errors,
        "notes": tally.notes,
    }


def _times(values: Sequence[float]) -> dict[str, float | None]:
    return {
        "count": len(values),
        "p50": percentile(values, 0.5),
        "p99": percentile(values, 0.99),
        "max": max(values, default=None),
    }


def merged(reports: Sequence[Report]) -> Report:
    """One of several: each row from the last of them that ran it."""
    rows: dict[str, Report] = {}
    for report in reports:
        for name, row in report["rows"].items():
            if name not in rows or "not_run" not in row:
                rows[name] = row
    return {**reports[-1], "rows": rows}


# --- The table ------------------------------------------------------------------------------------


def _pair(times: Mapping[str, float | None]) -> str:
    return f"{seconds(times['p50'])} / {seconds(times['p99'])}" if times["count"] else "-"


def _cells(name: str, row: Report) -> tuple[str, ...]:
    if "not_run" in row:
        return name, row["title"], *[""] * 10, f"Not run: {row['not_run']}"
    state = ("ok" if row["ok"] else "FAILED") + (", broken off" if row["broken_off"] else "")
    return (
        name, row["title"], f"{row['repetitions']}", f"{sum(row['faults'].values())}",
        f"{row['tasks']:,}", f"{row['lost']}", f"{row['duplicates']}",
        f"{row['twice_without_verdict']}", f"{row['false_verdicts']}", f"{row['verdicts']}",
        _pair(row["detection_s"]), _pair(row["recovery_s"]), state,
    )  # fmt: skip


def table(report: Report) -> str:
    """Markdown, so that it can go into a page as it is; what to know stands below it."""
    rows: dict[str, Report] = report["rows"]
    cells = [_HEADS, *(_cells(name, row) for name, row in rows.items()), _total(rows)]
    widths = [max(len(line[n]) for line in cells) for n in range(len(_HEADS) - 1)]
    lines = [
        "| " + " | ".join([*(c.ljust(w) for c, w in zip(line, widths, strict=False)), line[-1]])
        + " |"
        for line in cells
    ]  # fmt: skip
    lines.insert(1, "|" + "|".join(["-" * (width + 2) for width in widths] + ["---"]) + "|")
    notes = [f"* {note}" for row in rows.values() for note in row.get("notes", ())]
    return "\n".join([*lines, "", *notes])


def _total(rows: Mapping[str, Report]) -> tuple[str, ...]:
    ran = [row for row in rows.values() if "not_run" not in row]

    def total(name: str) -> str:
        return f"{sum(row[name] for row in ran):,}"

    return (
        "all", "", total("repetitions"), f"{sum(sum(row['faults'].values()) for row in ran):,}",
        total("tasks"), total("lost"), total("duplicates"), total("twice_without_verdict"),
        total("false_verdicts"), total("verdicts"), "", "", "",
    )  # fmt: skip


def summary(row: Row, tally: Tally) -> str:
    """What to know of a row at once: its figures, and what went wrong."""
    if tally.not_run:
        return f"{row.name} not run: {tally.not_run}"
    faults = ", ".join(f"{count} {kind}" for kind, count in sorted(tally.faults.items()))
    first = (
        f"{row.name} {'FAILED' if tally.failed() else 'ok'}: {tally.repetitions} repetitions in "
        f"{tally.seconds:.0f} s, {tally.figures['tasks']:,} tasks; {faults}; detection "
        f"{_pair(_times(tally.detection_s))}, recovery {_pair(_times(tally.recovery_s))}"
    )
    lines = [first]
    lines += [
        f"  recovery with {load} load: {_pair(_times(times))}"
        for load, times in tally.by_load.items()
        if times
    ]
    lines += [f"  {count} x {rule}" for rule, count in sorted(tally.violations.items())]
    lines += [f"  {text}" for text in [*tally.examples[:8], *tally.errors[:8]]]
    return "\n".join(lines)
