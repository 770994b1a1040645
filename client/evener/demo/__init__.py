"""The demo: a cluster indexes the standard library's identifiers while a worker is killed.

Rules of this package: it uses evener as any program would, through its public names, and runs from
an installed wheel. Importing it costs nothing: workers import `evener.demo.app` and need no more.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

__all__ = ["main"]


def main(
    workers: int = 4,
    kill: bool = True,
    *,
    broker: str | None = None,
    paths: Sequence[Path] | None = None,
) -> int:
    """Run the demo and return its exit code: 0 when the cluster's totals equal one process's.

    Without `broker` it starts a cluster of its own with this many `workers`, and with `kill` one of
    them gets SIGKILL half-way. With the address of a `broker` it uses what is connected there, and
    kills nothing. `paths` are files to index instead of the standard library's.
    """
    from evener.demo.job import run

    return run(workers=workers, kill=kill, broker=broker, paths=paths)
