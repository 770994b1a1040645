"""What became of the tasks of a function, as `Client.statistics` tells it.

Rules of this file: data. What a broker says is believed as little as any message.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from evener_wire.errors import PeerError

__all__ = ["FunctionStatistics", "Percentiles"]


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Durations in seconds that 50, 90 and 99 of 100 stay below, to about an eighth."""

    p50: float | None = None
    """None, as the others: nothing was measured yet."""
    p90: float | None = None
    p99: float | None = None


@dataclass(frozen=True, slots=True)
class FunctionStatistics:
    """The tasks of one function since the broker began."""

    name: str
    hosts: int
    """How many hosts can run it."""
    queued: int
    """Accepted, and with no host at the moment; also those that wait for their next try."""
    running: int
    """With a host: they run, or are about to."""
    completed: int
    failed: int
    cancelled: int
    expired: int
    lost: int
    runs: int
    """Attempts that returned or raised; a task that is retried has several."""
    run_seconds: float
    """What those took together."""
    run: Percentiles
    """How long attempts run. One of each batch of results is measured."""
    wait: Percentiles
    """From acceptance until a host got the task. One of those handed out together is measured."""

    @property
    def mean_run(self) -> float | None:
        """Seconds that a run takes on average; None before the first."""
        return self.run_seconds / self.runs if self.runs else None


def statistics_of(row: Mapping[str, Any]) -> FunctionStatistics:
    """A row of the broker's list. Raises `PeerError` for one of an older broker."""
    try:
        return FunctionStatistics(
            name=row["name"],
            hosts=row["hosts"],
            queued=row["queued"],
            running=row["running"],
            completed=row["completed"],
            failed=row["failed"],
            cancelled=row["cancelled"],
            expired=row["expired"],
            lost=row["lost"],
            runs=row["runs"],
            run_seconds=row["run_total_us"] / 1e6,
            run=_percentiles(row["run_us"]),
            wait=_percentiles(row["wait_us"]),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise PeerError(f"the broker's statistics cannot be read: {error!r}") from error


def _percentiles(told: Mapping[str, int | None]) -> Percentiles:
    seconds = {name: None if us is None else us / 1e6 for name, us in told.items()}
    return Percentiles(seconds["p50"], seconds["p90"], seconds["p99"])
