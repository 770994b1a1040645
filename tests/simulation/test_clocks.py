"""I17: clocks on walls change no decision, because whoever decides has none.

The cores may not import `time` at all (`tests/test_tidy.py`); the simulation gives each host
another zero and another speed. What is left are the shells: who reads a wall clock is named here.
"""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

_WALL = re.compile(
    r"\btime\.(time|time_ns|localtime|gmtime|ctime|strftime)\b|\bdatetime\.|CLOCK_REALTIME"
)

# The epoch of a broker without a journal begins there, but never goes back behind the last one;
# and people want to read when something happened. Cron goes by the wall clock: the shell of the
# broker reads it for schedules, which decide when a task is made and nothing about one that is.
READERS = {
    "broker/evener_broker/cron.py",
    "broker/evener_broker/runtime.py",
    "broker/evener_broker/shell.py",
    "client/evener/cli/logs.py",
    "client/evener/cli/worker_logs.py",
    "worker/evener_worker/logs.py",
}


def test_wall_clocks_are_read_where_they_decide_nothing() -> None:
    found = {
        path.relative_to(ROOT).as_posix()
        for package in ("wire", "broker", "client", "worker")
        for path in (ROOT / package).rglob("*.py")
        if _WALL.search(path.read_text(encoding="utf-8"))
    }
    assert found == READERS
