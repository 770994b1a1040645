"""Tasks that run side by side, begun by tests and looked at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import evener
from tests.support import wait_until


def named(function: Any) -> str:
    """For the ids of parametrised tests."""
    return str(function.name)


def begin(
    client: evener.Client, function: Any, folder: Path, count: int, *more: str
) -> list[evener.Future[Any]]:
    """So many tasks of a function that all run now."""
    folder.mkdir(exist_ok=True)
    begun = [folder / f"begun-{number}" for number in range(count)]
    futures = [client.submit(function, str(path), *more) for path in begun]
    wait_until(lambda: all(path.exists() for path in begun), 60, "all to begin")
    return futures


def worker(client: evener.Client) -> dict[str, Any]:
    (row,) = client.query("ls", kind="workers")["rows"]
    return dict(row)
