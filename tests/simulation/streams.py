"""Generators in the simulation: what a worker yields, and how programs read it. I2, I3, I8, I22.

Rules of this file: `Yielding` does what `outlet.py` and `generators.py` do, `Readers` what
`streaming.py` does; each judges what the other end tells it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgpack

from evener import session_records as r
from evener_wire import messages as m
from evener_wire.limits import CLIENT_AWAY_NS, STREAM_VALUES_MAX
from tests.simulation.truth import Run, Ticket
from tests.simulation.world import MS, Violation, World

# Clocks of hosts differ by 500 parts in a million.
_TOLERANCE_NS: Final = 60 * MS

# Who reads slowly takes so many values at a time.
_SIP: Final = 64

# How programs read, by how often: as it comes, now and then, only after a while, not at all.
MANNERS: Final = ("at once", "at once", "slowly", "late", "gives up")


class Yielding:
    """The outlet of one attempt in its worker."""

    def __init__(
        self,
        world: World,
        run: Run,
        count: int,
        heard_ns: Mapping[str, int],
        tell: Callable[[int, bool, m.Payload], None],
        over: Callable[[], None],
    ) -> None:
        self._world = world
        self._run = run
        self._heard_ns = heard_ns  # when each client was last heard by a broker
        self._count = count  # after so many values comes `over`, once all are taken
        self._tell = tell
        self._over = over
        self._taken = 0
        self.waits = False  # for its reader
        self._drains = False

    def proceed(self) -> bool:
        """The next value, if its reader is not too far behind; whether there is one more to come.

        What stops the task stops it here, too: the worker asks no more then.
        """
        run = self._run
        if run.yielded - self._taken >= STREAM_VALUES_MAX:
            self._world.hit("generator waits for its reader")
            self.waits = True
            return False
        if run.yielded < self._count:
            value = msgpack.packb([run.ticket.number, run.key[1], run.yielded])
            run.yielded += 1
            self._tell(run.yielded - 1, True, value)
            return True
        return False

    def end(self, *, well: bool) -> None:
        """There are no more, or it raised: it waits until all are taken."""
        run = self._run
        if well:
            run.yielded += 1
            run.over = True
            self._tell(run.yielded - 1, False, b"")
        self._drains = True
        self._look()

    def taken(self, upto: int) -> None:
        """I22: nothing is forgotten that its reader has not taken."""
        run = self._run
        self._world.checked["I22"] += 1
        if upto > run.yielded:
            raise _fail("I8", f"{upto} values are taken of {run.yielded}", run)
        ticket = run.ticket
        wanted = ticket.alarming and not ticket.unread and not ticket.ends
        away_ns = self._world.now - self._heard_ns.get(ticket.owner, 0)
        if wanted and away_ns >= CLIENT_AWAY_NS - _TOLERANCE_NS:
            # Whether its reader had them already no broker knows that restarted meanwhile.
            ticket.given_up = True
            self._world.hit("values of a stream are dropped, as nobody comes")
        elif wanted and upto > ticket.read.get(run.key[1], 0):
            text = f"told as taken up to {upto}, its reader has {ticket.read}"
            raise _fail("I22", text, run)
        self._taken = max(self._taken, upto)
        self._look()

    def _look(self) -> None:
        if self._drains and self._taken >= self._run.yielded:
            self._drains = False
            self._over()


class Readers:
    """The program of a client, as far as it reads values."""

    def __init__(self, world: World, rng: random.Random, ask: Callable[[r.Event], None]) -> None:
        self._world = world
        self._rng = rng
        self._ask = ask
        self.patient = False  # from now on everybody reads as it comes
        self._came: dict[Ticket, tuple[int, int]] = {}  # fence, how many values
        self._looks: set[Ticket] = set()
        self._life = 0

    def begin(self) -> None:
        """A new program."""
        self._came.clear()
        self._looks.clear()
        self._life += 1

    def valued(self, values: Sequence[tuple[Any, int, m.Payload | None]]) -> None:
        """Values come to the program, in order and once."""
        for ticket, fence, payload in values:
            self._take_in(ticket, fence, payload)
            if ticket not in self._looks:
                self._look_soon(ticket)

    def _take_in(self, ticket: Ticket, fence: int, payload: m.Payload | None) -> None:
        world = self._world
        world.checked.update(("I2", "I3", "I8"))
        before, count = self._came.get(ticket, (0, 0))
        if fence < before:
            raise _failed("I8", f"a value of attempt {fence} after one of {before}", ticket)
        if fence > before:
            if before:
                world.hit("stream begins anew with another attempt")
            count = 0
        run = next((run for run in ticket.runs if run.key == (ticket.id, fence)), None)
        if run is None or count >= run.yielded:
            raise _failed("I3", f"value {count} of {fence}, which it did not yield", ticket)
        if payload is None:
            world.hit("stream ends at its reader")
            if not run.over or count != run.yielded - 1:
                raise _failed("I2", f"the end of {fence} after {count} values", ticket)
        elif msgpack.unpackb(bytes(payload if isinstance(payload, bytes) else b"")) != [
            ticket.number,
            fence,
            count,
        ]:
            raise _failed("I2", f"{payload!r} instead of value {count} of {fence}", ticket)
        if ticket.ends:
            raise _failed("I2", f"value {count} of {fence} after its end", ticket)
        self._came[ticket] = fence, count + 1

    # --- How it reads -----------------------------------------------------------------------------

    def _look_soon(self, ticket: Ticket) -> None:
        manner = "at once" if self.patient else ticket.reads
        rng = self._rng
        delay_ns = {
            "at once": 0,
            "slowly": rng.randint(5, 300) * MS,
            "late": 2_000 * MS,
            "gives up": rng.randint(0, 500) * MS,
        }[manner]
        self._looks.add(ticket)
        self._world.after(delay_ns, ticket.owner, self._on_look, (ticket, self._life))

    def _on_look(self, what: tuple[Ticket, int]) -> None:
        ticket, life = what
        if life != self._life or ticket.ends:
            return
        self._looks.discard(ticket)
        fence, came = self._came[ticket]
        if ticket.reads == "gives up":
            ticket.unread = True
            self._world.hit("program gives up reading a stream")
            self._ask(r.Took(ticket.id, 0, None))
            return
        read = ticket.read.get(fence, 0)
        sip = _SIP if ticket.reads == "slowly" and not self.patient else came
        upto = ticket.read[fence] = min(came, read + sip)
        self._ask(r.Took(ticket.id, fence, upto))
        if upto < came:
            self._look_soon(ticket)

    def ended(self, ticket: Ticket, how: str, what: object) -> None:
        """I22: whoever hears that a generator is done has all its values, or hears that not."""
        if how != "done" or not ticket.body.values or ticket.unread:
            return
        self._world.checked["I22"] += 1
        fence, came = self._came.get(ticket, (0, 0))
        run = next((run for run in ticket.runs if run.key == (ticket.id, fence)), None)
        facts = what[3] if isinstance(what, tuple) else None
        said = bool((facts or {}).get("values_dropped"))
        if said and not ticket.given_up:
            raise _failed("I22", "said to be dropped, and nothing was", ticket)
        if (run is None or came < run.yielded) and not said:
            raise _failed("I22", f"done, and {came} values of {fence} came", ticket)


def _fail(invariant: str, text: str, run: Run) -> Violation:
    return Violation(invariant, f"{run}: {text}\n{run.ticket.story()}")


def _failed(invariant: str, text: str, ticket: Ticket) -> Violation:
    return Violation(invariant, f"{text}\n{ticket.story()}")
