"""The simulated world's time: one heap of events, one clock, independent streams of chance.

Rules of this file: nothing of evener. Everything random comes from a stream with a name of its own,
so that a fault that is left out does not shift what the others do. Whatever happens is added to a
hash: the same seed must give the same hash in every process.
"""

from __future__ import annotations

import hashlib
import heapq
import random
from collections import Counter, deque
from collections.abc import Callable
from typing import Any, Final

US: Final = 1_000
MS: Final = 1_000 * US
SECOND: Final = 1_000 * MS

# Lines of the trace that a failure prints. More: longer to read. Fewer: the cause may be missing.
_TRACE_LINES: Final = 400

START_NS: Final = 1_000 * SECOND


class Violation(AssertionError):
    """Raised when a checker finds that an invariant does not hold."""

    def __init__(self, invariant: str, text: str) -> None:
        super().__init__(f"{invariant}: {text}")
        self.invariant: Final = invariant


class World:
    """Time, chance, and what is counted. Caller: everything in the simulation."""

    def __init__(self, seed: int) -> None:
        self.seed: Final = seed
        self.now = START_NS
        self.events = 0
        self.fired: Final[Counter[str]] = Counter()
        self.sometimes: Final[Counter[str]] = Counter()
        self.peaks: Final[dict[str, int]] = {}
        self.checked: Final[Counter[str]] = Counter()
        self.steps: Final[Counter[tuple[str, str]]] = Counter()
        self.lengths: Final[dict[str, list[int]]] = {}
        self.trace: Final[deque[str]] = deque(maxlen=_TRACE_LINES)
        self.verbose = False
        self._heap: list[tuple[int, int, str, Callable[[Any], None], Any]] = []
        self._order = 0
        self._hash = hashlib.sha256()

    # --- Chance -----------------------------------------------------------------------------------

    def stream(self, name: str) -> random.Random:
        """A source of chance that no other one shifts."""
        return random.Random(f"{self.seed}/{name}")

    # --- Time -------------------------------------------------------------------------------------

    def at(self, at_ns: int, node: str, what: Callable[[Any], None], subject: Any = None) -> None:
        """Call `what(subject)` at a time; `node` says on whose behalf."""
        self._order += 1
        heapq.heappush(self._heap, (at_ns, self._order, node, what, subject))

    def after(
        self, delay_ns: int, node: str, what: Callable[[Any], None], subject: Any = None
    ) -> None:
        """The same, a while from now."""
        self.at(self.now + delay_ns, node, what, subject)

    def run(self, until_ns: int, stop: Callable[[], bool] | None = None) -> None:
        """Let time pass, up to a moment, or until `stop` says so (asked now and then)."""
        heap = self._heap
        pop = heapq.heappop
        count = 0
        try:
            while heap and heap[0][0] <= until_ns:
                self.now, _, _, what, subject = pop(heap)
                count += 1
                what(subject)
                if stop is not None and not count % 256 and stop():
                    return
        finally:
            self.events += count
        self.now = until_ns

    # --- What is recorded -------------------------------------------------------------------------

    def note(self, node: str, what: str, data: bytes = b"") -> None:
        """Something that everybody must agree on, whichever process simulates it."""
        line = f"{self.now} {node} {what}"
        self._hash.update(line.encode())
        self._hash.update(data)
        self.trace.append(line)
        if self.verbose:
            print(f"{(self.now - START_NS) / 1e9:.6f} {node} {what}")

    def digest(self) -> str:
        """Of everything noted so far."""
        return self._hash.hexdigest()

    def fault(self, kind: str, node: str, text: str = "") -> None:
        """A fault strikes."""
        self.fired[kind] += 1
        self.note(node, f"FAULT {kind} {text}")

    def hit(self, point: str) -> None:
        """A point was reached that must be reached now and then."""
        self.sometimes[point] += 1

    def took(self, what: str, length_ns: int) -> None:
        """How long something took, for the report."""
        self.lengths.setdefault(what, []).append(length_ns)

    def peak(self, name: str, value: int) -> None:
        """A high-water mark."""
        if value > self.peaks.get(name, 0):
            self.peaks[name] = value
