"""The app of these tests: functions that cost nothing, and results of any size."""

from __future__ import annotations

import evener

app = evener.App("w")


@app.task
def noop() -> None:
    """Nothing."""


@app.task
def swallow(data: bytes) -> int:
    """How much came."""
    return len(data)


@app.task
def blob(number: int, size: int) -> bytes:
    """So many bytes, with its number in front."""
    return number.to_bytes(8, "big") + bytes(max(0, size - 8))
