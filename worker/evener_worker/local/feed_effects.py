"""What both faces of a fed pool do alike: check options, and perform what `Feeding` decided.

Rules of this file: nothing here waits, and nothing starts a thread or a coroutine. How outcomes,
pulls and workers travel is up to the face: queues, pullers and lives are its own.
"""

from __future__ import annotations

import math
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Final, Generic, Protocol, TypeVar

from evener.errors import UsageError
from evener_worker.cpus import usable_cpus
from evener_worker.local import feed_steps as s
from evener_worker.local.errors import PoolClosed, WorkerStartError
from evener_worker.local.feeding import Feeding
from evener_worker.local.pulling import Puller


def size_of(size: int | None) -> int:
    """How many workers, checked; None: one for each usable CPU."""
    wanted = usable_cpus() if size is None else size
    if wanted < 1:
        raise UsageError(f"a pool has at least 1 worker, not {wanted}")
    return wanted


def begin(
    size: int, ordered: bool, ahead: int | None, timeout: float | None, retries: int
) -> s.Begin:
    """The options of `process`, checked."""
    if ahead is not None and ahead < 0:
        raise UsageError(f"ahead is a number of items, at least 0, and not {ahead}")
    if timeout is not None and not (timeout > 0 and math.isfinite(timeout)):
        raise UsageError(f"timeout is a number of seconds above 0, or None, and not {timeout}")
    if retries < 0:
        raise UsageError(f"retries is at least 0, and not {retries}")
    timeout_ns = None if timeout is None else int(timeout * 1e9)
    return s.Begin(ordered, size if ahead is None else ahead, timeout_ns, retries)


def is_active(worker: Any) -> bool:
    """Whether a worker says that it can go on; one that cannot even say so cannot."""
    try:
        return bool(worker.active)
    except Exception:
        return False


def check_active(worker: Any, number: int) -> None:
    """Refuse a worker that is not active after its `init`."""
    if not is_active(worker):
        raise WorkerStartError(number, "it is not active after init()")


class Outlet(Protocol):
    """Where outcomes go: a queue, of threads or of a loop."""

    def put_nowait(self, item: s.Deliver | s.Finish, /) -> None:
        """Put one; never blocks."""
        ...


class Life(Protocol):
    """One worker from its making to its end."""

    def give(self, item: Any) -> None:
        """Have it execute an item, told by `Executed` or `Raised`. Never blocks."""
        ...


L = TypeVar("L", bound=Life)


class Performer(ABC, Generic[L]):
    """Hands events to `Feeding`, and does what it says. Caller: whoever decides for the pool."""

    def __init__(self, size: int, outcomes: Outlet) -> None:
        self.feeding: Final = Feeding(size, random.Random())
        self._outlet = outcomes
        self._lives: Final[dict[int, L]] = {}  # by station
        self._source: Any = None
        self._puller: Puller | None = None
        self._pulled_run = 0
        self._effects: Final[dict[type[Any], Callable[[Any], None]]] = {
            s.Start: self._start,
            s.Pull: self._pull,
            s.GiveBack: self._give_back,
            s.Execute: self._execute,
            s.Destroy: lambda effect: self._destroy(self._lives.pop(effect.station)),
            s.Deliver: lambda effect: self._outlet.put_nowait(effect),
            s.StopPulling: self._stop_pulling,
            s.Finish: self._finish,
            s.Closed: lambda _: self._close(),
        }

    def connect(self, source: Any, outcomes: Outlet) -> None:
        """The next source, and where its outcomes go; then comes `Begin`."""
        self._source, self._outlet = source, outcomes

    def perform(self, event: s.Event) -> None:
        """Decide about one event, and do it."""
        if isinstance(event, s.Begin) and self.feeding.closing:
            self._outlet.put_nowait(s.Finish(PoolClosed()))
            return
        for effect in self.feeding.handle(event, time.monotonic_ns()):
            self._effects[type(effect)](effect)

    def wait_s(self) -> float | None:
        """Seconds until `Tick` is due; None: never."""
        due_ns = self.feeding.next_due_ns
        return None if due_ns is None else max(0.0, (due_ns - time.monotonic_ns()) / 1e9)

    # --- Of the face ------------------------------------------------------------------------------

    @abstractmethod
    def _new_life(self, start: s.Start) -> L:
        """A worker begins to be made."""

    @abstractmethod
    def _destroy(self, life: L) -> None:
        """A worker is to be destroyed, told by `Destroyed`."""

    @abstractmethod
    def _new_puller(self, source: Any, run: int) -> Puller:
        """What takes items out of the source."""

    @abstractmethod
    def _close(self) -> None:
        """All workers are gone."""

    # --- Effects ----------------------------------------------------------------------------------

    def _start(self, effect: s.Start) -> None:
        self._lives[effect.station] = self._new_life(effect)

    def _pull(self, effect: s.Pull) -> None:
        if self._puller is None or self._pulled_run != effect.run:
            self._pulled_run = effect.run
            self._puller = self._new_puller(self._source, effect.run)
        self._puller.pull()

    def _give_back(self, effect: s.GiveBack) -> None:
        if self._puller is not None:
            self._puller.give_back(effect.item)

    def _execute(self, effect: s.Execute) -> None:
        self._lives[effect.station].give(effect.item)

    def _stop_pulling(self, _: s.StopPulling) -> None:
        if self._puller is not None:
            self._puller.stop()

    def _finish(self, effect: s.Finish) -> None:
        self._source = None
        self._outlet.put_nowait(effect)

    def __repr__(self) -> str:
        return repr(self.feeding)
