"""The command line of the chaos runs.

    python -m tests.chaos --rows R1,R2 --repeat 30 --seed 7 --report chaos.json

Rules of this file: whatever ends a run, Ctrl-C and SIGTERM too, everything that it made is removed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.chaos import network
from tests.chaos.report import about, as_json, merged, summary, table
from tests.chaos.rows import ROWS
from tests.chaos.run import LOADS, Row, Tally, run_row
from tests.support import adopt_orphans, children, command_line, is_running


def arguments_of(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--rows", default="", help="such as R1,R2; all without it")
    parser.add_argument("--loads", default=",".join(LOADS), help="idle,rate,saturated")
    parser.add_argument("--repeat", type=int, help="per row and load; each row has its own default")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--report", type=Path, help="a file for the report as JSON")
    parser.add_argument("--minutes", type=float, default=60.0, help="for all rows together")
    parser.add_argument("--starve", type=float, default=20.0, help="seconds of R13, each time")
    parser.add_argument(
        "--table", type=Path, nargs="+", metavar="FILE", help="run nothing; a table of such reports"
    )
    parser.add_argument("--keep", action="store_true", help="keep the histories of good runs too")
    parser.add_argument("--folder", type=Path, help="where the histories are")
    return parser.parse_args(argv)


def chosen(names: str) -> list[Row]:
    """The rows asked for, in the order of the table. Exits on a name that is none."""
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    known = {row.name for row in ROWS}
    if unknown := [name for name in wanted if name not in known]:
        raise SystemExit(f"no row {unknown[0]}; there are: {', '.join(row.name for row in ROWS)}")
    return [row for row in ROWS if not wanted or row.name in wanted]


def main(argv: Sequence[str]) -> int:
    options = arguments_of(argv)
    if options.table:
        print(table(merged([json.loads(path.read_text()) for path in options.table])))
        return 0
    rows = chosen(options.rows)
    loads = options.loads.split(",")
    for end in (signal.SIGINT, signal.SIGTERM):
        signal.signal(end, _stop)
    adopt_orphans()
    if os.geteuid() == 0 and network.why_missing() is None:
        network.remove_leftovers()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="evener-chaos-"))
    print(f"seed {options.seed}, histories in {folder}", flush=True)
    found: dict[str, Tally] = {}
    facts = about(options.seed, ["python", "-m", "tests.chaos", *argv])

    def tell(left: Sequence[str] = ()) -> dict[str, Any]:
        report = as_json(facts, rows, found, left)
        if options.report:  # whole or not at all, whatever ends this run
            fresh = options.report.with_name(f"{options.report.name}.new")
            fresh.write_text(json.dumps(report, indent=1) + "\n")
            fresh.replace(options.report)
        return report

    until = time.monotonic() + options.minutes * 60
    try:
        for number, row in enumerate(rows):
            share = max(5.0, (until - time.monotonic()) / (len(rows) - number))
            tally = found[row.name] = Tally()
            run_row(
                row, loads, repeat=options.repeat, seed=options.seed, folder=folder,
                seconds=share, keep=options.keep, tally=tally, starve_s=options.starve,
            )  # fmt: skip
            print(summary(row, tally), flush=True)
            tell()
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
    left = bury_orphans()
    print()
    print(table(tell(left)))
    if left:
        print(f"left behind, and ended now: {left}", file=sys.stderr)
    if folder.exists() and not any(folder.iterdir()):
        folder.rmdir()
    bad = left or any(tally.failed() for tally in found.values())
    stopped = len(found) < len(rows) or any(tally.broken_off for tally in found.values())
    return 1 if bad else 130 if stopped else 0


def _stop(number: int, frame: object) -> None:
    """The first time; what is made is removed then, and nothing may disturb that."""
    for other in (signal.SIGINT, signal.SIGTERM):
        signal.signal(other, signal.SIG_IGN)
    raise KeyboardInterrupt


def bury_orphans() -> list[str]:
    """End what lost its parent and came to us; nothing should."""
    left: list[str] = []
    for pid in children():
        if is_running(pid):
            left.append(command_line(pid))
            os.kill(pid, signal.SIGKILL)
        try:
            os.waitpid(pid, 0)
        except ChildProcessError:
            continue
    return left
