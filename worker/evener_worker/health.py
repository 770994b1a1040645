"""Whether workers answer: pings between tasks, and what becomes of a worker that stays silent.

A worker reads what its agent sends between two tasks, so a ping asks whether it would take the next
one. One that runs several at once reads all the time, on its event loop: a task that holds up the
loop holds up all of them, and is found by this. Rules of this file: a worker that runs one alone is
never judged, however long that takes: for it there are limits of time, and its stack. One that has
nothing to do and does not answer is stuck (a thread of its own that holds the interpreter, a
debugger, a stopped process) and is replaced. Rounds are counted, not time, so a machine that slept
kills nobody.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from evener_worker.effects import Ping
from evener_worker.events import Ponged
from evener_worker.ledger import Ledger
from evener_worker.limits import PING_ANSWER_NS, PING_ROUNDS
from evener_worker.pool import Pool
from evener_worker.slots import Slot, SlotState

Told = Callable[[int | None], None]
"""Takes how many nanoseconds an answer took; None: there is none yet, and nobody waits longer."""


@dataclass(slots=True)
class _Silence:
    """A worker that was pinged and has not answered."""

    number: int
    rounds: int = 1


@dataclass(slots=True)
class _Asked:
    told: Told
    since_ns: int


class Health:
    """Caller: the core's step; `look` about once a second."""

    __slots__ = ("_asked", "_last", "_ledger", "_look_ns", "_period_ns", "_pool", "_silent")

    def __init__(self, ledger: Ledger, pool: Pool, timeout_ns: int) -> None:
        self._ledger = ledger
        self._pool = pool
        self._period_ns: Final = timeout_ns // PING_ROUNDS
        self._look_ns = 0
        self._last = 0
        self._silent: dict[int, _Silence] = {}  # by pid
        self._asked: dict[int, _Asked] = {}  # by number of the ping

    def look(self) -> None:
        """Ping those that have nothing to do, and judge those that were pinged before."""
        now_ns = self._ledger.now_ns
        for number, asked in list(self._asked.items()):
            if now_ns - asked.since_ns >= PING_ANSWER_NS:
                del self._asked[number]
                asked.told(None)
        if not self._period_ns or now_ns < self._look_ns:
            return
        self._look_ns = now_ns + self._period_ns
        silent, self._silent = self._silent, {}
        for slot in self._pool.slots.values():
            if slot.handed or not (slot.state is SlotState.READY or slot.shared):
                continue
            silence = silent.get(slot.pid)
            if silence is None:
                self._silent[slot.pid] = _Silence(self._ping(slot))
            elif silence.rounds < PING_ROUNDS:
                silence.rounds += 1
                self._silent[slot.pid] = silence
            else:
                self._give_up(slot)

    def _give_up(self, slot: Slot) -> None:
        seconds = self._period_ns * PING_ROUNDS / 1e9
        does = f"runs {len(slot.shared)} at once" if slot.shared else "runs nothing"
        text = f"worker {slot.worker} (pid {slot.pid}) {does} and does not answer"
        self._ledger.say("warning", f"{text} for {seconds:g} s: killed")
        self._pool.kill(slot)

    def ask(self, slot: Slot, told: Told) -> None:
        """Ping one worker because somebody wants to know."""
        self._asked[self._ping(slot)] = _Asked(told, self._ledger.now_ns)

    @property
    def asked(self) -> int:
        """How many wait for an answer."""
        return len(self._asked)

    def _ping(self, slot: Slot) -> int:
        self._last = self._last % _NUMBER_MAX + 1
        self._ledger.effects.append(Ping(slot.number, self._last))
        return self._last

    def on_ponged(self, event: Ponged) -> None:
        """A worker answered."""
        slot = self._pool.slots.get(event.slot)
        if slot is not None:
            self._silent.pop(slot.pid, None)
        asked = self._asked.pop(event.number, None)
        if asked is not None:
            asked.told(self._ledger.now_ns - asked.since_ns)


# The field of a frame that carries it has 32 bits.
_NUMBER_MAX: Final = (1 << 32) - 1
