"""How long functions run, as measured here: what decides how much work a worker is handed.

Rules of this file: sums only. The estimate follows new measurements by a quarter of the difference.
"""

from __future__ import annotations

from evener_worker.limits import ESTIMATES_MAX


class Estimates:
    """Run time in nanoseconds by function; a function that never ended here has none."""

    __slots__ = ("_by_function",)

    def __init__(self) -> None:
        self._by_function: dict[str, int] = {}

    def get(self, function: str) -> int | None:
        """The estimate, if there is one."""
        return self._by_function.get(function)

    def observe(self, function: str, run_us: int) -> None:
        """Take note of one run."""
        new = run_us * 1_000
        old = self._by_function.get(function)
        if old is None:
            if len(self._by_function) >= ESTIMATES_MAX:
                self._by_function.clear()
            self._by_function[function] = new
        else:
            self._by_function[function] = old + ((new - old) >> 2)

    def __repr__(self) -> str:
        return f"<Estimates of {len(self._by_function)} functions>"
