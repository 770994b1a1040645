"""What running attempts say of their progress, on its way to the broker.

Rules of this file: the last thing that each said, all of them in one message, and none sooner than
`PROGRESS_NS` after the one before. Nothing is told again: what got lost, the next one replaces.
"""

from __future__ import annotations

from evener_wire import messages as m
from evener_wire.limits import BATCH_ITEMS_MAX, PROGRESS_NS
from evener_worker.attempts import Attempt, Key
from evener_worker.events import Page
from evener_worker.ledger import Ledger
from evener_worker.session import Session


class Reports:
    """Caller: the core, while it looks at what busy workers run."""

    __slots__ = ("_ledger", "_session", "_told_ns", "_waiting")

    def __init__(self, ledger: Ledger, session: Session) -> None:
        self._ledger = ledger
        self._session = session
        self._told_ns = 0
        # Of attempts that run and said something since the last message.
        self._waiting: dict[Key, tuple[float, float | None, str]] = {}

    def look(self, attempt: Attempt, page: Page) -> None:
        """Take note of what a worker said of an attempt that it runs."""
        report = page.report
        if report is not None and report.sequence == attempt.sequence:
            self._waiting[attempt.key] = report[1:]

    def flush(self) -> None:
        """Tell the broker, if it is time. What ended meanwhile has said more by its result."""
        waiting, now_ns = self._waiting, self._ledger.now_ns
        if not waiting or now_ns - self._told_ns < PROGRESS_NS or not self._session.is_open:
            return
        items = [(*key, *said) for key, said in waiting.items() if key in self._ledger.open]
        waiting.clear()
        if items:
            self._told_ns = now_ns
        for start in range(0, len(items), BATCH_ITEMS_MAX):
            self._session.send(m.Progress(items[start : start + BATCH_ITEMS_MAX]))
