"""The journal and its disk in the simulation: what `journal.py`, SQLite and a kernel do together.

Rules of this file: records come in, `Committed` or `CommitFailed` comes back, as `journaling.py`
says. One transaction is synced at a time, and what comes meanwhile shares the next one. A crash
keeps or loses what was being synced, whole, because a torn end of the log has no valid checksum. A
commit whose outcome is unknown is read again when that is possible.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from evener_broker.effects import Append
from evener_broker.events import CommitFailed, Committed, Event
from evener_broker.journaling import Contents
from tests.simulation.book import Book
from tests.simulation.world import SECOND, US, Violation, World

# The longest that a sync may take.
_SYNC_NS_MAX: Final = 30 * SECOND


@dataclass(slots=True)
class _Batch:
    """Transactions that share one sync."""

    appends: list[Append]
    life: int

    @property
    def last(self) -> int:
        return self.appends[-1].txn


class Disk:
    """The one journal of a broker. It outlives the broker's processes."""

    def __init__(self, world: World, bytes_max: int) -> None:
        self._world: Final = world
        self._rng: Final = world.stream("disk")
        self.bytes_max: Final = bytes_max
        self.book = Book()
        self.epoch = 0
        self.life = 0
        self.committed = 0
        # Faults: until when, and how likely.
        self.full_until = 0
        self.slow_until = 0
        self.error_chance = 0.0
        self.on_applied: Callable[[Append], None] = lambda append: None
        self._tell: Callable[[Event], None] = lambda event: None
        self._queue: list[Append] = []
        self._under_way: _Batch | None = None
        # A commit that failed, and may be on the disk for all that, until somebody reads it again.
        self._ghost: _Batch | None = None
        self._fenced = False
        self._report_ns = 0  # when the last report reaches the loop

    # --- A broker opens it ------------------------------------------------------------------------

    def open(self, at_least: int, tell: Callable[[Event], None]) -> tuple[int, Contents]:
        """A new process: its epoch, and what the journal holds. I9: epochs grow."""
        self.life += 1
        before, self.epoch = self.epoch, max(self.epoch + 1, at_least)
        if self.epoch <= before:
            raise Violation("I9", f"epoch {self.epoch} after {before}")
        self.committed = 0
        self._queue.clear()
        self._under_way = None
        self._fenced = False
        self._tell = tell
        return self.epoch, self.book.contents(self.bytes_max, before)

    def crash(self) -> None:
        """The process is gone, perhaps with its host: what was not synced is there, or is not."""
        for batch in (self._ghost, self._under_way):
            if batch is None:
                continue
            if batch is self._ghost or self._rng.random() < 0.4:
                self._world.hit("crash between commit and what it promises")
                self._apply(batch)
            else:
                self._world.hit("crash loses a transaction that was not synced")
        self._queue.clear()
        self._ghost = self._under_way = None
        self._tell = lambda event: None

    # --- Writing ----------------------------------------------------------------------------------

    def append(self, epoch: int, effect: Append) -> None:
        """Take a transaction. I24: from the broker whose epoch the journal has, and no other."""
        if epoch != self.epoch:
            raise Violation("I24", f"epoch {epoch} writes, and the journal has {self.epoch}")
        if self._fenced and not effect.resume:
            self._world.hit("journal drops what follows a failure")
            return
        if effect.resume:
            self._world.hit("journal is tried again after a failure")
        self._fenced = False
        self._queue.append(effect)
        if self._under_way is None:
            self._begin()

    def _begin(self) -> None:
        appends, self._queue = self._queue, []
        batch = self._under_way = _Batch(appends, self.life)
        if len(appends) > 1:
            self._world.hit("several turns share a commit")
        self._world.after(self._latency_ns(self._rng), "disk", self._on_synced, batch)

    def _latency_ns(self, rng: random.Random) -> int:
        latency_ns = int(100 * US * 30 ** rng.random())
        if self._world.now < self.slow_until:
            latency_ns = int(latency_ns * 20 * 500 ** rng.random())
        latency_ns = min(latency_ns, _SYNC_NS_MAX)
        self._world.took("sync", latency_ns)
        if latency_ns > 5 * SECOND:
            self._world.hit("sync that takes many seconds")
        return latency_ns

    def _on_synced(self, batch: _Batch) -> None:
        if batch is not self._under_way or batch.life != self.life:
            return
        self._under_way = None
        self._settle_ghost()
        if self._finish(batch):
            self._world.note("disk", f"committed {batch.last}")
            self._report(Committed(batch.last, self.book.bytes))
            if self._queue:
                self._begin()

    def _finish(self, batch: _Batch) -> bool:
        """Whether the batch is on disk, as far as the journal can tell."""
        if self._world.now < self.full_until and any(a.records for a in batch.appends):
            self._note_ends(batch)
            return self._give_up(batch, "no space left on device")
        growth = sum(self.book.growth(append.records) for append in batch.appends)
        if growth > 0 and self.book.bytes + growth > self.bytes_max:
            self._world.hit("journal is as large as it may be")
            return self._give_up(batch, "database or disk is full")
        if self._rng.random() < self.error_chance:
            self._world.fired["disk error"] += 1
            return self._unknown(batch)
        self._apply(batch)
        return True

    def _unknown(self, batch: _Batch) -> bool:
        """An error in the middle of a commit: the disk may have it, and may not."""
        written = self._rng.random() < 0.5
        if self._rng.random() < 0.5:  # the journal is opened again, and says what it has
            if written:
                self._world.hit("unknown commit that was written")
                self._apply(batch)
                return True
            self._world.hit("unknown commit that was not written")
            return self._give_up(batch, "I/O error")
        self._world.hit("unknown commit that could not be read again")
        self._ghost = batch if written else None
        return self._give_up(batch, "I/O error, twice", unknown=batch.last)

    def _settle_ghost(self) -> None:
        """Whoever tries again opens the journal first, and finds what was there all the time."""
        ghost, self._ghost = self._ghost, None
        if ghost is not None:
            self._world.hit("journal is opened again, and has what failed")
            self._apply(ghost)

    def _note_ends(self, batch: _Batch) -> None:
        self._world.fired["disk full"] += 1
        if any(append.records.ended for append in batch.appends):
            self._world.hit("no space for an end")
        if any(append.records.saved for append in batch.appends):
            self._world.hit("no space for a new task")

    def _give_up(self, batch: _Batch, reason: str, unknown: int = 0) -> bool:
        self._fenced = True
        self._world.note("disk", f"failed {batch.appends[0].txn}: {reason}")
        self._queue.clear()
        self._report(CommitFailed(batch.appends[0].txn, reason, unknown))
        return False

    def _report(self, event: Event) -> None:
        """From the thread that syncs to the loop, which may append something meanwhile."""
        at_ns = self._world.now + self._rng.randint(10, 300) * US
        self._report_ns = max(at_ns, self._report_ns + 1)
        self._world.at(self._report_ns, "disk", self._on_report, (self.life, event))

    def _on_report(self, what: tuple[int, Event]) -> None:
        life, event = what
        if life == self.life:
            if isinstance(event, Committed):
                self.committed = event.txn
            self._tell(event)

    def _apply(self, batch: _Batch) -> None:
        for append in batch.appends:
            self.book.apply(append.records)
            self.on_applied(append)

    # --- Faults -----------------------------------------------------------------------------------

    def fill(self, for_ns: int) -> None:
        """No space on the device, for a while."""
        self.full_until = max(self.full_until, self._world.now + for_ns)

    def slow_down(self, for_ns: int) -> None:
        """Syncs take up to 30 s, for a while."""
        self.slow_until = max(self.slow_until, self._world.now + for_ns)

    def heal(self) -> None:
        """All is well with it."""
        self.full_until = self.slow_until = self._world.now
        self.error_chance = 0.0
        if self._under_way is not None:  # it need not take the rest of its 30 s
            delay_ns = self._latency_ns(self._rng)
            self._world.after(delay_ns, "disk", self._on_synced, self._under_way)
