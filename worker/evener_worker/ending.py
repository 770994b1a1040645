"""How the agent ends: drain on the first request, at once on the second, and a last line.

Rules of this file: the order of the end. Unstarted work goes back to the broker, running work has
time to finish, then it is killed; results wait a moment to be taken; GOODBYE; exit. When whoever
started the agent is gone, nothing waits.
"""

from __future__ import annotations

from typing import Final

from evener_wire import messages as m
from evener_wire.limits import MILLISECOND_NS
from evener_worker.effects import Exit, Tell
from evener_worker.events import StopAsked
from evener_worker.ledger import Ledger
from evener_worker.limits import GOODBYE_NS, SECOND_SIGNAL_NS
from evener_worker.pool import Pool
from evener_worker.session import Session

_REFUSED_CODES: Final = {"protocol": 76, "auth": 77, "denied": 77}


class Ending:
    """Caller: the core's step."""

    __slots__ = (
        "_asked_ns",
        "_at_once",
        "_drain_ns",
        "_empty_ns",
        "_exit_code",
        "_exited",
        "_kill_at_ns",
        "_ledger",
        "_pool",
        "_session",
        "draining",
        "stopped",
        "why",
    )

    def __init__(self, ledger: Ledger, pool: Pool, session: Session, drain_ns: int) -> None:
        self._ledger = ledger
        self._pool = pool
        self._session = session
        self._drain_ns = drain_ns
        self._exit_code = 0
        self._asked_ns = 0
        self._at_once = False  # its parent is gone, and with it whoever would take results
        self._kill_at_ns: int | None = None
        self._empty_ns: int | None = None  # since when nothing runs any more
        self._exited = False
        self.draining = False
        self.stopped = 0  # attempts that ran when it did; the broker says whether they are lost
        self.why = ""  # the agent killed what still ran, for this reason

    def on_refused(self, refused: m.Refused) -> None:
        """The broker will not have this agent, now or ever."""
        if refused.code == "retry_after":
            self._session.on_deferred(refused.wait_ms * MILLISECOND_NS)
            return
        code = _REFUSED_CODES.get(refused.code)
        self._session.on_refused()
        self._ledger.say("error", f"the broker refused this agent: {refused.text}")
        if code is None:
            self._session.ask_again()
            return
        told = {"event": "error", "code": code, "text": refused.text}
        self._ledger.effects.append(Tell(told))
        self._pool.kill_all()
        self._ledger.effects.append(Exit(code))

    def on_stop_asked(self, event: StopAsked) -> None:
        """A signal, or the end of whoever started the agent."""
        now_ns = self._ledger.now_ns
        self._at_once |= event.at_once
        if not self.draining and not event.at_once:
            self._asked_ns = now_ns
            self.drain(event.why, event.exit_code)
        elif event.at_once or now_ns - self._asked_ns >= SECOND_SIGNAL_NS:
            self.drain(event.why, event.exit_code, quiet=True)
            self._exit_code = event.exit_code
            self._kill("stopped at once")

    def drain(self, reason: str, exit_code: int, *, quiet: bool = False) -> None:
        """Take nothing new, give back what has not started, and let the rest finish."""
        if self.draining:
            return
        self.draining = self._pool.stopping = True
        self._exit_code = 0
        self._pool.changed = True  # the OFFER says so
        self._kill_at_ns = self._ledger.now_ns + self._drain_ns
        for slot in self._pool.busy():
            # Whatever is still in hand when the answer comes has started.
            slot.taking = slot.held()
        running = sum(max(1, len(slot.shared)) for slot in self._pool.busy())
        if not quiet:
            tasks = "1 task" if running == 1 else f"{running:,} tasks"
            limit = f"{self._drain_ns / 1e9:g} s"
            if running:
                hint = " (Ctrl-C again to stop now)" if exit_code else f" ({reason})"
                text = f"stopping: {tasks} still running, up to {limit}{hint}"
            else:
                text = "stopping"
            self._ledger.say("info", text)

    def _kill(self, why: str) -> None:
        self.why = why
        self._kill_at_ns = None
        self._pool.kill_all()

    def _kill_busy(self) -> None:
        """The drain time is over. Who runs stop hooks by now has a limit of its own."""
        self._kill_at_ns = None
        seconds = f"{self._drain_ns / 1e9:g}"
        self.why = f"the agent stopped, and it ran on for {seconds} s"
        busy = [*self._pool.busy()]
        if busy:
            self._ledger.say("warning", f"still running after {seconds} s: killed")
        for slot in busy:
            self._pool.kill(slot)

    def proceed(self) -> None:
        """At the end of each step while draining: whatever can happen next."""
        now_ns = self._ledger.now_ns
        if self._exited:
            return
        self._pool.leave_idle()
        if self._kill_at_ns is not None and now_ns >= self._kill_at_ns:
            self._kill_busy()
        if not self._pool.gone() or self._ledger.open:
            return
        if self._empty_ns is None:
            self._empty_ns = now_ns
        waits = not self._at_once and bool(self._session.unacked or self._ledger.ended)
        if waits and now_ns - self._empty_ns < GOODBYE_NS:
            return
        self._exited = True
        self._session.send(m.Goodbye("stopped"))
        self._ledger.say("info", self._summary())
        self._ledger.effects.append(Exit(self._exit_code))

    def _summary(self) -> str:
        counts = self._ledger.counts
        parts = [f"{counts[m.DONE]:,} ok", f"{counts[m.FAILED]:,} failed"]
        for count, word in (
            (counts[m.LOST] - self.stopped, "lost"),
            (self.stopped, "stopped"),
            (counts[m.CANCELLED], "cancelled"),
            (counts[m.TIMED_OUT], "timed out"),
            (counts[m.RETURNED], "returned to the queue"),
        ):
            if count:
                parts.append(f"{count:,} {word}")
        return "done: " + ", ".join(parts)

    def wake_at(self) -> int | None:
        """When `proceed` has something to do."""
        if not self.draining or self._exited:
            return None
        if self._empty_ns is not None:
            return self._empty_ns + GOODBYE_NS
        return self._kill_at_ns
