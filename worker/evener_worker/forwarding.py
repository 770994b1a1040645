"""What attempts write, on its way to the clients that want to see it.

Rules of this file: only attempts that RUN names, and only what their own worker wrote while it had
them. Nobody waits: what is too much goes, the oldest first, and as all lines of an attempt have
numbers its client sees what it missed. What is left of an attempt goes before its result.
"""

from __future__ import annotations

from collections import deque
from typing import Final, TypeAlias

from evener_wire import messages as m
from evener_wire.limits import (
    BATCH_BYTES_TARGET,
    BATCH_ITEMS_MAX,
    NAME_BYTES_MAX,
    OUTPUT_CHARS_MAX,
    OUTPUT_NS,
    SECOND_NS,
)
from evener_worker.attempts import Attempt, Key
from evener_worker.events import Printed
from evener_worker.ledger import Ledger
from evener_worker.limits import (
    FORWARD_ATTEMPT_BYTES_MAX,
    FORWARD_BURST_BYTES,
    FORWARD_BYTES_MAX,
    FORWARD_BYTES_PER_SECOND,
)
from evener_worker.session import Session
from evener_worker.shares import in_hand
from evener_worker.slots import Slot

_Item: TypeAlias = tuple[bytes, int, int, int, str, str]

# What a part takes beside its text, and at which size it is closed.
_PART_BYTES: Final = 128
_PART_CHARS: Final = OUTPUT_CHARS_MAX // 2

# What only attempts that have ended may take of the burst: last words are worth more than others.
_RESERVE: Final = FORWARD_BURST_BYTES // 2


class _Part:
    """Lines that follow each other, of one stream."""

    __slots__ = ("bytes", "chars", "first", "lines", "stream")

    def __init__(self, first: int, stream: int) -> None:
        self.first: Final = first
        self.stream: Final = stream
        self.lines: list[str] = []
        self.chars = 0
        self.bytes = _PART_BYTES


class _Written:
    """What an attempt wrote and nobody was told."""

    __slots__ = ("bytes", "count", "parts", "worker")

    def __init__(self, worker: str) -> None:
        self.worker: Final = worker
        self.count = 0  # lines so far, told or not
        self.parts: deque[_Part] = deque()
        self.bytes = 0


class Forwarding:
    """Caller: the core's step."""

    __slots__ = ("_budget", "_budget_ns", "_bytes", "_ledger", "_open", "_session", "_told_ns")

    def __init__(self, ledger: Ledger, session: Session) -> None:
        self._ledger = ledger
        self._session = session
        # Of attempts that wrote something, also of those that ended until that is told.
        self._open: dict[Key, _Written] = {}
        self._bytes = 0
        self._told_ns = 0
        # Bytes that may go now; they grow with time.
        self._budget = FORWARD_BURST_BYTES
        self._budget_ns = 0

    # --- In ---------------------------------------------------------------------------------------

    def on_printed(self, slot: Slot, event: Printed) -> None:
        """A worker wrote lines, each with the task that its marks name: it counts if it is here."""
        task, attempt = "", None
        for named, text in event.lines:
            if named != task:
                task, attempt = named, _attempt_of(slot, named)
            if attempt is not None:
                self._add(attempt.key, slot.worker, event.stream, text)

    def _add(self, key: Key, worker: str, stream: int, text: str) -> None:
        written = self._open.get(key)
        if written is None:
            written = self._open[key] = _Written(worker[:NAME_BYTES_MAX])
        chars = len(text) + 1
        part = written.parts[-1] if written.parts else None
        if part is None or part.stream != stream or part.chars + chars > _PART_CHARS:
            part = _Part(written.count, stream)
            written.parts.append(part)
            written.bytes += part.bytes
            self._bytes += part.bytes
        written.count += 1
        part.lines.append(text[: OUTPUT_CHARS_MAX - 1])
        part.chars += chars
        size = chars if text.isascii() else 4 * chars
        part.bytes += size
        written.bytes += size
        self._bytes += size
        while written.bytes > FORWARD_ATTEMPT_BYTES_MAX or (
            self._bytes > FORWARD_BYTES_MAX and written.parts
        ):
            self._drop(written, written.parts.popleft())

    def _drop(self, written: _Written, part: _Part) -> None:
        written.bytes -= part.bytes
        self._bytes -= part.bytes

    # --- Out --------------------------------------------------------------------------------------

    def proceed(self) -> None:
        """In each step, before results are told: what ended has told all; the rest now and then."""
        if not self._open or not self._session.is_open:
            return
        now_ns = self._ledger.now_ns
        earned = (now_ns - self._budget_ns) * FORWARD_BYTES_PER_SECOND // SECOND_NS
        if earned:
            self._budget = min(FORWARD_BURST_BYTES, self._budget + earned)
            self._budget_ns = now_ns
        items: list[_Item] = []
        for key in [key for key in self._open if key not in self._ledger.open]:
            self._finish(key, items)
        if now_ns - self._told_ns >= OUTPUT_NS:
            for key in [key for key, written in self._open.items() if written.parts]:
                if self._budget <= _RESERVE:
                    break
                self._told_ns = now_ns
                written = self._open.pop(key)
                while written.parts and self._budget > _RESERVE:
                    items.append(self._take(key, written, written.parts.popleft()))
                self._open[key] = written  # the others are first next time
        self._tell(items)

    def _finish(self, key: Key, items: list[_Item]) -> None:
        written = self._open.pop(key)
        size = written.bytes
        while written.parts and size > self._budget:
            size -= written.parts[0].bytes
            self._drop(written, written.parts.popleft())
        while written.parts:
            items.append(self._take(key, written, written.parts.popleft()))
        items.append((*key, written.count, 1, written.worker, ""))

    def _take(self, key: Key, written: _Written, part: _Part) -> _Item:
        self._drop(written, part)
        self._budget -= part.bytes
        text = "\n".join([*part.lines, ""])
        return (*key, part.first, part.stream, written.worker, text)

    def _tell(self, items: list[_Item]) -> None:
        batch: list[_Item] = []
        size = 0
        for item in items:
            batch.append(item)
            size += _PART_BYTES + 4 * len(item[5])
            if size >= BATCH_BYTES_TARGET or len(batch) == BATCH_ITEMS_MAX:
                self._session.send(m.Output(batch))
                batch, size = [], 0
        if batch:
            self._session.send(m.Output(batch))

    def wake_at(self) -> int | None:
        """When there is something to tell, if nothing else happens."""
        if not self._session.is_open or not any(w.parts for w in self._open.values()):
            return None
        short = max(0, _RESERVE + 1 - self._budget)
        earned_ns = self._budget_ns + short * SECOND_NS // FORWARD_BYTES_PER_SECOND
        return max(self._told_ns + OUTPUT_NS, earned_ns)

    def check(self) -> None:
        """Recount. Raises AssertionError with the difference."""
        for written in self._open.values():
            assert written.bytes == sum(part.bytes for part in written.parts)
            assert written.bytes <= FORWARD_ATTEMPT_BYTES_MAX
        assert self._bytes == sum(written.bytes for written in self._open.values())
        assert self._bytes <= FORWARD_BYTES_MAX


def _attempt_of(slot: Slot, task: str) -> Attempt | None:
    """The attempt of a task that this worker has, if its output is wanted."""
    for attempt in in_hand(slot):
        if attempt.forward and attempt.key[0].hex() == task:
            return attempt
    return None
