"""Decides for a pool that is fed from a source: what is pulled, who gets it, whose turn it is.

Rules of this file: no I/O, no clock, no threads. `handle(event, now_ns)` returns what is to be
done. An item is pulled only when a worker is idle, and no item is forgotten: see `STEPS`.
"""

from __future__ import annotations

import random
from bisect import insort
from collections.abc import Callable
from typing import Any, Final

from evener.errors import TaskTimeout
from evener_worker.local import feed_steps as s
from evener_worker.local.errors import PoolClosed
from evener_worker.local.feed_items import Entry, ItemState, Run, Station
from evener_worker.local.outcome import Outcome, PoolBroken
from evener_worker.slots import SlotState


class Feeding:
    """The pool as its shells see it. Caller: one thread, or one event loop."""

    def __init__(self, size: int, rng: random.Random) -> None:
        assert size >= 1
        self.size: Final = size
        self.run: Run | None = None
        self.closing = False
        self.closed = False
        self._rng = rng
        self._runs = 0
        self._lives = 0
        self._turn = 0  # the station that is asked first, so that all get their share
        self._stations = {number: Station(number) for number in range(size)}
        self._last_error: BaseException | None = None
        self._effects: list[s.Effect] = []
        self._now_ns = 0
        self._handlers: dict[type[Any], Callable[[Any], None]] = {
            s.Begin: self._on_begin,
            s.Pulled: self._on_pulled,
            s.SourceEnded: self._on_source_ended,
            s.Ready: self._on_ready,
            s.StartFailed: self._on_start_failed,
            s.Executed: self._on_executed,
            s.Raised: self._on_raised,
            s.Destroyed: self._on_destroyed,
            s.Taken: self._on_taken,
            s.Stop: self._on_stop,
            s.Shutdown: self._on_shutdown,
            s.Tick: self._on_tick,
        }

    def handle(self, event: s.Event, now_ns: int) -> list[s.Effect]:
        """What is to be done about an event, in this order."""
        self._now_ns = now_ns
        self._handlers[type(event)](event)
        self._advance()
        effects, self._effects = self._effects, []
        return effects

    @property
    def next_due_ns(self) -> int | None:
        """When a `Tick` is needed, if nothing else happens."""
        due = [
            station.entry.due_ns for station in self._stations.values() if station.entry is not None
        ]
        if self.run is not None and not self.run.stopping:
            slots = [station.slot for station in self._stations.values()]
            due += [slot.start_at_ns for slot in slots if slot.state is SlotState.WAITING]
        return min((at for at in due if at is not None), default=None)

    @property
    def open(self) -> int:
        """Items that were pulled and not yet taken."""
        run = self.run
        if run is None:
            return 0
        running = sum(station.entry is not None for station in self._stations.values())
        return len(run.waiting) + running + len(run.ended) + len(run.delivered)

    def count(self, state: SlotState) -> int:
        """How many workers are in a state."""
        return sum(station.slot.state is state for station in self._stations.values())

    # --- The source -------------------------------------------------------------------------------

    def _on_begin(self, event: s.Begin) -> None:
        assert self.run is None
        assert not self.closing
        self._runs += 1
        self.run = Run(self._runs, event)
        for number, station in self._stations.items():
            if station.slot.state is SlotState.STOPPED:
                self._stations[number] = Station(number)  # a new source, a new chance

    def _on_pulled(self, event: s.Pulled) -> None:
        run = self.run
        if run is None or run.number != event.run or run.stopping:
            self._effects.append(s.GiveBack(event.run, event.item))  # it comes after the end
            return
        run.pulling = False
        run.waiting.append(Entry(run.pulled, event.item))
        run.pulled += 1

    def _on_source_ended(self, event: s.SourceEnded) -> None:
        run = self.run
        if run is None or run.number != event.run:
            return
        run.pulling = run.source_open = False
        run.source_error = event.error

    def _on_taken(self, _: s.Taken) -> None:
        if self.run is not None and self.run.delivered:
            self.run.delivered.popleft().move(ItemState.TAKEN)

    # --- The workers ------------------------------------------------------------------------------

    def _station(self, event: s.Ready | s.StartFailed | s.Executed | s.Raised) -> Station | None:
        """The station of a worker, unless the worker goes or has gone: then it comes too late."""
        station = self._stations[event.station]
        expected = station.slot.state in (SlotState.STARTING, SlotState.READY)
        return station if expected and station.life == event.life else None

    def _on_ready(self, event: s.Ready) -> None:
        station = self._station(event)
        if station is not None:
            station.slot.move(SlotState.READY)

    def _on_start_failed(self, event: s.StartFailed) -> None:
        station = self._station(event)
        if station is not None:
            self._last_error = event.error
            self._destroy(station)

    def _on_executed(self, event: s.Executed) -> None:
        station = self._station(event)
        if station is None:
            return
        entry, station.entry = station.entry, None
        assert entry is not None
        station.slot.ready_ns = self._now_ns
        station.slot.deaths = station.slot.start_failures = 0
        self._end(entry, Outcome(entry.index, entry.item, event.value, None, entry.tries))
        if not event.active:
            self._destroy(station)

    def _on_raised(self, event: s.Raised) -> None:
        station = self._station(event)
        if station is None:
            return
        entry, station.entry = station.entry, None
        assert entry is not None
        if event.ran:
            # It worked until then: what comes now is not charged as a start that failed.
            station.slot.ready_ns = station.slot.ready_ns or self._now_ns
        else:
            entry.tries -= 1
            self._last_error = event.error
        if not event.active and self.run is not None and entry.tries <= self.run.begin.retries:
            self._wait_again(entry)
        else:
            self._end(
                entry, Outcome(entry.index, entry.item, None, event.error, max(entry.tries, 1))
            )
        if not event.active:
            self._destroy(station)
        else:
            station.slot.deaths = station.slot.start_failures = 0

    def _on_destroyed(self, event: s.Destroyed) -> None:
        station = self._stations[event.station]
        if station.life != event.life or station.slot.state is not SlotState.LEAVING:
            return
        slot = station.slot
        delay_ns = slot.restart_delay_ns(self._now_ns, self._rng)
        slot.renew()
        if self.closing or delay_ns is None:
            slot.move(SlotState.STOPPED)
        else:
            slot.move(SlotState.WAITING)
            slot.start_at_ns = self._now_ns + delay_ns

    def _destroy(self, station: Station) -> None:
        station.slot.move(SlotState.LEAVING)
        self._effects.append(s.Destroy(station.slot.number, station.life))

    def _end(self, entry: Entry, outcome: Outcome[Any, Any]) -> None:
        run = self.run
        assert run is not None
        entry.move(ItemState.ENDED)
        entry.outcome = outcome
        run.ended[entry.index] = entry

    def _wait_again(self, entry: Entry) -> None:
        assert self.run is not None
        entry.move(ItemState.WAITING)
        entry.due_ns = None
        insort(self.run.waiting, entry, key=lambda other: other.index)  # the oldest goes first

    # --- Time and the end -------------------------------------------------------------------------

    def _on_tick(self, _: s.Tick) -> None:
        for station in self._stations.values():
            entry = station.entry
            if entry is None or entry.due_ns is None or entry.due_ns > self._now_ns:
                continue
            assert self.run is not None
            seconds = (self.run.begin.timeout_ns or 0) / 1e9
            error = TaskTimeout("run", seconds, f"of item {entry.index}")
            station.entry = None
            # It did start; and it did nothing wrong that it should wait for.
            station.slot.ready_ns, station.slot.deaths = self._now_ns, 0
            self._end(entry, Outcome(entry.index, entry.item, None, error, entry.tries))
            self._destroy(station)

    def _on_stop(self, _: s.Stop) -> None:
        if self.run is not None:
            self._halt(None)

    def _on_shutdown(self, _: s.Shutdown) -> None:
        self.closing = True
        if self.run is not None:
            self._halt(PoolClosed("the pool was shut down while it worked"))
        for station in self._stations.values():
            if station.slot.state in (SlotState.STARTING, SlotState.READY):
                self._destroy(station)
            elif station.slot.state is SlotState.WAITING:
                station.slot.move(SlotState.STOPPED)

    def _halt(self, error: BaseException | None) -> None:
        """End the run now: what runs ends with its worker."""
        run = self.run
        assert run is not None
        if run.stopping:
            return
        run.stopping, run.stop_error = True, error
        unbegun = [entry.item for entry in run.waiting if not entry.tries]
        self._effects += [s.GiveBack(run.number, item) for item in reversed(unbegun)]
        run.waiting.clear()
        run.ended.clear()
        for station in self._stations.values():
            if station.entry is not None:
                station.entry = None
                station.slot.ready_ns, station.slot.deaths = self._now_ns, 0
                self._destroy(station)

    # --- What follows from all that ---------------------------------------------------------------

    def _advance(self) -> None:
        run = self.run
        if run is not None and not run.stopping:
            self._start_workers()
            self._hand_out(run)
            self._deliver(run)
            self._pull(run)
        if run is not None:
            self._finish(run)
        over = self.closing and self.run is None and self.count(SlotState.STOPPED) == self.size
        if over and not self.closed:
            self.closed = True
            self._effects.append(s.Closed())

    def _start_workers(self) -> None:
        for number, station in self._stations.items():
            if station.slot.state is SlotState.WAITING and station.slot.start_at_ns <= self._now_ns:
                self._lives += 1
                station.life = self._lives
                station.slot.move(SlotState.STARTING)
                self._effects.append(s.Start(number, station.life))

    def _hand_out(self, run: Run) -> None:
        last = self._turn - 1
        for offset in range(self.size):
            number = (self._turn + offset) % self.size
            station = self._stations[number]
            if station.idle and run.waiting:
                entry = run.waiting.popleft()
                entry.move(ItemState.RUNNING)
                entry.tries += 1
                timeout_ns = run.begin.timeout_ns
                entry.due_ns = None if timeout_ns is None else self._now_ns + timeout_ns
                station.entry = entry
                self._effects.append(s.Execute(number, station.life, entry.item))
                last = number
        self._turn = (last + 1) % self.size

    def _deliver(self, run: Run) -> None:
        while run.ended:
            index = run.turn if run.begin.ordered else next(iter(run.ended))
            entry = run.ended.pop(index, None)
            if entry is None:
                return  # it is the turn of one that has not ended
            assert entry.outcome is not None
            entry.move(ItemState.DELIVERED)
            run.turn += 1
            run.delivered.append(entry)
            self._effects.append(s.Deliver(entry.outcome))

    def _pull(self, run: Run) -> None:
        if run.pulling or not run.source_open or run.waiting:
            return
        idle = any(station.idle for station in self._stations.values())
        if idle and self.open < self.size + run.begin.ahead:
            run.pulling = True
            self._effects.append(s.Pull(run.number))

    def _finish(self, run: Run) -> None:
        if run.stopping:
            if self.count(SlotState.LEAVING):
                return  # nothing of it shall run when it is told to have ended
            error = run.stop_error
        elif self.count(SlotState.STOPPED) == self.size:
            error = PoolBroken(f"{type(self._last_error).__name__}: {self._last_error}")
            error.__cause__ = self._last_error
        elif run.source_open or run.waiting or run.ended or self._busy():
            return
        else:
            error = run.source_error
        self.run = None
        self._effects += [s.StopPulling(run.number), s.Finish(error)]

    def _busy(self) -> bool:
        return any(station.entry is not None for station in self._stations.values())

    # --- For tests --------------------------------------------------------------------------------

    def check(self) -> None:
        """Recount what must be true between two events."""
        for station in self._stations.values():
            if station.entry is not None:
                assert station.slot.state is SlotState.READY
                assert station.entry.state is ItemState.RUNNING
        run = self.run
        if run is None:
            assert not self._busy()
            return
        assert all(entry.state is ItemState.WAITING for entry in run.waiting)
        assert all(entry.state is ItemState.ENDED for entry in run.ended.values())
        assert all(entry.state is ItemState.DELIVERED for entry in run.delivered)
        assert self.open <= self.size + run.begin.ahead
        assert not (run.waiting and any(station.idle for station in self._stations.values()))

    def __repr__(self) -> str:
        ready = self.count(SlotState.READY)
        return f"<Feeding {ready} of {self.size} workers ready, {self.open} items open>"
