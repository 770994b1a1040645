"""Attempts side by side in one simulated worker: lanes, bodies that end in any order, one death.

Rules of this file: it does what `evener_worker/sharing.py`, `threads.py` and `yields.py` do. It
knows what runs in the process, and so judges whether that may be (I10): never more than a worker
has to give, and nothing beside what needs it whole.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, Final

import msgpack

from evener_wire import messages as m
from evener_worker import channel as c
from evener_worker import events as e
from evener_worker.attempts import Attempt
from tests.simulation.streams import Yielding
from tests.simulation.truth import Run, Truth, result_of
from tests.simulation.world import MS, Violation, World

_SEEN_NS: Final = 3 * MS
_STEP_NS: Final = 8_000

Later = Callable[[int, Callable[[Any], None], Any], None]


class Lane:
    """One attempt, and the run of its body."""

    __slots__ = ("each_ns", "item", "lane", "number", "outcome", "run", "yielding")

    def __init__(self, number: int, lane: int, item: Any, run: Run) -> None:
        self.number: Final = number
        self.lane: Final = lane
        self.item: Final = item
        self.run: Final = run
        self.outcome = 0  # once it is flagged
        self.yielding: Yielding | None = None
        self.each_ns = 0  # between two of its values


class Beside:
    """What one process runs side by side. Its worker lends it time, permits and a way to tell."""

    def __init__(
        self,
        world: World,
        truth: Truth,
        shares: dict[str, int],
        who: str,
        later: Later,
        tell: Callable[[e.Event], None],
        die: Callable[[], None],
    ) -> None:
        self._world = world
        self._truth = truth
        self._shares = shares
        self._who = who
        self._later = later
        self._tell = tell
        self._die = die
        self.started: dict[int, tuple[int, int]] = {}  # by lane: number, and when
        self.running: dict[int, Lane] = {}

    # --- From the agent ---------------------------------------------------------------------------

    def begin(
        self,
        slot: int,
        first: int,
        pairs: Sequence[tuple[int, Any]],
        take_permit: Callable[[], bool],
        local: Callable[[], int],
        slow: int,
    ) -> None:
        """Lanes and items came: each with a permit begins at once."""
        for number, (lane, item) in enumerate(pairs, first):
            if not take_permit():
                self._world.hit("worker drops shares that were taken back")
                self._tell(e.Dropped(slot, first + len(pairs) - 1))
                return
            self.started[lane] = number, local()
            run = self._truth.begin(item[3], (item[0], item[1]), self._who)
            begun = self.running[number] = Lane(number, lane, item, run)
            self._check()
            self._plan(slot, begun, slow)

    def _plan(self, slot: int, begun: Lane, slow: int) -> None:
        body = begun.run.ticket.body
        nth = len(begun.run.ticket.runs)
        run_ns = max(_STEP_NS, body.run_ns) * slow
        if body.values:
            self._begin_to_yield(slot, begun, run_ns)
        elif body.failures < nth <= body.failures + body.deaths:
            self._later(run_ns, self._on_fatal, begun)
        else:
            outcome = m.FAILED if nth <= body.failures else m.DONE
            self._later(run_ns, self._on_end, (slot, begun, outcome))

    def flag(self, slot: int, number: int, outcome: int) -> None:
        """One of them shall end; a body that looks finds out."""
        begun = self.running.get(number)
        if begun is not None:
            begun.outcome = outcome
            if not begun.run.ticket.body.deaf:
                self._later(_SEEN_NS, self._on_end, (slot, begun, outcome))

    def interrupt(self, slot: int, number: int) -> None:
        """And now it is interrupted."""
        begun = self.running.get(number)
        if begun is not None and begun.run.ticket.body.deaf < 2:
            self._world.hit("one of many interrupted")
            self._on_end((slot, begun, begun.outcome))

    # --- Generators -------------------------------------------------------------------------------

    def _begin_to_yield(self, slot: int, begun: Lane, run_ns: int) -> None:
        """Those that fail or die do so when half of their values are out."""
        body, falls = begun.run.ticket.body, not _is_well(begun)

        def tell(index: int, more: bool, payload: m.Payload) -> None:
            self._tell(e.Yielded(slot, begun.number, index, more, payload))

        def over() -> None:
            self._on_end((slot, begun, m.FAILED if falls else m.DONE))

        count = body.values // 2 if falls else body.values
        heard_ns = self._truth.heard_ns
        begun.yielding = Yielding(self._world, begun.run, count, heard_ns, tell, over)
        begun.each_ns = max(_STEP_NS, run_ns // body.values)
        if sum(other.yielding is not None for other in self.running.values()) > 1:
            self._world.hit("generators side by side")
        self._later(begun.each_ns, self._on_yield, begun)

    def _on_yield(self, begun: Lane) -> None:
        yielding = begun.yielding
        if self.running.get(begun.number) is not begun or yielding is None:
            return
        if yielding.proceed():
            self._later(begun.each_ns, self._on_yield, begun)
        elif not yielding.waits:
            body, nth = begun.run.ticket.body, _nth(begun)
            if body.failures < nth <= body.failures + body.deaths:
                self._on_fatal(begun)
            else:
                yielding.end(well=_is_well(begun))

    def taken(self, number: int, upto: int) -> bool:
        """The agent says what the reader of one took; False if none of this number runs."""
        begun = self.running.get(number)
        if begun is None or begun.yielding is None:
            return False
        begun.yielding.taken(upto)
        if begun.yielding.waits:
            begun.yielding.waits = False
            self._on_yield(begun)
        return True

    # --- Ends -------------------------------------------------------------------------------------

    def _on_end(self, what: tuple[int, Lane, int]) -> None:
        slot, begun, outcome = what
        if self.running.get(begun.number) is not begun:
            return
        del self.running[begun.number]
        run, body = begun.run, begun.run.ticket.body
        done = outcome in (m.DONE, m.FAILED)
        payload = result_of(run) if done else b""
        facts = None
        if outcome == m.FAILED:
            facts = {"type": body.types[0], "message": "as it was told", "types": body.types}
        run_us = (self._world.now - run.start_ns) // 1_000
        self._truth.end(run, {m.DONE: "done", m.FAILED: "failed"}.get(outcome, "stopped"))
        packed = msgpack.packb((*begun.item[:2], outcome, payload, run_us, facts))
        frame = c.Frame(c.RESULT, begun.number, outcome, min(run_us, c.RUN_US_MAX), packed)
        self._tell(e.Finished(slot, [frame]))

    def _on_fatal(self, begun: Lane) -> None:
        if self.running.get(begun.number) is begun:
            if len(self.running) > 1:
                self._world.hit("one of many takes the others down")
            self._die()

    def vanish(self) -> None:
        """The process ends. What was being stopped is not counted as a death by anybody."""
        for begun in self.running.values():
            self._truth.end(begun.run, "stopped" if begun.outcome else "died")
        self.running.clear()

    # --- What must hold ---------------------------------------------------------------------------

    def _check(self) -> None:
        """I10: in one process, whatever anybody's books say."""
        self._world.checked["I10"] += 1
        functions = [begun.item[2] for begun in self.running.values()]
        self._world.peak("attempts side by side", len(functions))
        if len(set(functions)) > 1:
            self._world.hit("several functions share a worker")
        alone = [name for name in functions if name not in self._shares]
        parts = [Fraction(1, self._shares[n]) for n in functions if n in self._shares]
        if alone or sum(parts) > 1:
            raise Violation("I10", f"{self._who} runs {functions} in one worker")

    def pages(self, lanes: Sequence[int]) -> dict[int, e.Page]:
        """What lanes say."""
        return {lane: e.Page(*self.started.get(lane, (0, 0))) for lane in lanes}


def _nth(begun: Lane) -> int:
    """Which run of its task this is, from 1."""
    return begun.run.ticket.runs.index(begun.run) + 1


def _is_well(begun: Lane) -> bool:
    """Whether this run neither fails nor dies."""
    body = begun.run.ticket.body
    return _nth(begun) > body.failures + body.deaths


def pairs_of(attempts: Sequence[Attempt], lanes: Sequence[int]) -> list[tuple[int, Any]]:
    """As they travel, since attempts change meanwhile."""
    return [(lane, attempt.item) for lane, attempt in zip(lanes, attempts, strict=True)]
