"""Who waits for processes to be ready or to end.

Rules of this file: no I/O, no decisions about processes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from evener_worker.local.calls import Wait
from evener_worker.local.errors import PoolError, RequestTimeout
from evener_worker.local.ledger import Ledger
from evener_worker.local.stimuli import Answer, Fail


class Waits:
    """Caller: the machine's step."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger: Final = ledger
        self.open: Final[dict[int, Wait]] = {}

    def begin(self, wait: Wait, places: Iterable[int], *, ended: bool = False) -> None:
        """Wait until all these places are ready, or have no process any more."""
        wait.ended = ended
        wait.places.update(places)
        if not wait.places:
            self._ledger.effects.append(Answer(wait, 0, b""))
            return
        wait.number = self._ledger.number(self.open.__contains__)
        self.open[wait.number] = wait
        if wait.deadline_ns is not None:
            self._ledger.remind(wait.deadline_ns, wait)

    def on_ready(self, place: int) -> None:
        """A place is ready."""
        self._tick_off(place, ended=False)

    def on_ended(self, place: int) -> None:
        """The process of a place ended."""
        self._tick_off(place, ended=True)

    def _tick_off(self, place: int, *, ended: bool) -> None:
        for wait in [wait for wait in self.open.values() if wait.ended is ended]:
            wait.places.discard(place)
            if not wait.places:
                del self.open[wait.number]
                self._ledger.effects.append(Answer(wait, 0, b""))

    def on_failed(self, place: int, error: PoolError) -> None:
        """A place did not get ready."""
        for wait in [w for w in self.open.values() if not w.ended and place in w.places]:
            self.fail(wait, error)

    def fail(self, wait: Wait, error: PoolError) -> None:
        """It is over for this one."""
        if self.open.pop(wait.number, None) is not None:
            self._ledger.effects.append(Fail(wait, error))

    def time_out(self, wait: Wait) -> None:
        """Its deadline."""
        self.fail(wait, RequestTimeout(wait.text, wait.timeout_s or 0.0))
