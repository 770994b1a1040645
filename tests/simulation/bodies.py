"""Checkers of what workers run: I7, I9, I12, I15, I19.

Rules of this file: judged by what bodies really do, whatever anybody's books say.
"""

from __future__ import annotations

from typing import Final

from evener_wire.limits import SELF_FENCE_NS, SILENCE_NS
from tests.simulation.agent_node import AgentNode
from tests.simulation.truth import Run
from tests.simulation.world import MS, Violation, World

# Clocks of hosts differ by 500 parts in a million, and agents look at their clocks now and then.
_TOLERANCE_NS: Final = 60 * MS

# Flag, SIGTERM and SIGKILL follow each other within 2.1 s; the rest is the way there.
STOPPED_NS: Final = 4_000 * MS


class Bodies:
    """Caller: the truth, when a body starts or ends."""

    def __init__(self, world: World, agents: dict[str, AgentNode], *, durable: bool) -> None:
        self._world = world
        self._agents = agents
        self._durable = durable

    def on_begin(self, run: Run) -> None:
        """A body starts."""
        checked = self._world.checked
        agent = self._agents[run.agent.partition(".")[0]]
        silent_ns = self._world.now - agent.heard_broker_ns
        runs_well = agent.slow == 1 and not agent.was_paused_since(self._world.now - SILENCE_NS)
        checked["I7"] += 1
        if runs_well and silent_ns > SELF_FENCE_NS + _TOLERANCE_NS:
            text = f"starts {silent_ns / 1e9:.2f} s after its agent heard the broker"
            raise _fail("I7", text, run)
        ticket = run.ticket
        died = sum(earlier.ended == "died" for earlier in ticket.runs)
        checked["I12"] += 1
        if died > self._deaths_max(run):
            raise _fail("I12", f"starts after {died} deaths", run)
        checked["I15"] += ticket.options.at_most_once
        if ticket.options.at_most_once and len(ticket.runs) > 1:
            raise _fail("I15", "runs twice", run)
        checked["I9"] += 1
        if sum(run.key == earlier.key for earlier in ticket.runs) > 1:
            raise _fail("I9", "one attempt runs twice", run)
        if len(ticket.runs) == 1:
            self._world.took("submission to first start", run.start_ns - ticket.submitted_ns)

    def _deaths_max(self, run: Run) -> int:
        """A broker with a journal counts on; one without begins anew."""
        ticket = run.ticket
        epochs = len({sent.epoch for sent in ticket.sent})
        if self._durable:
            # In each restart one death at most is not yet counted, when its agent died as well.
            return ticket.options.max_starts + ticket.vanished + epochs - 1
        return ticket.options.max_starts * epochs + ticket.vanished

    def on_finish(self, run: Run) -> None:
        """A body ends: not long after its limit, unless its agent stood still."""
        timeout_ms = run.ticket.options.timeout_ms
        agent = self._agents[run.agent.partition(".")[0]]
        self._world.checked["I19"] += bool(timeout_ms)
        if not timeout_ms or run.length_ns() < timeout_ms * MS + STOPPED_NS:
            return
        if agent.slow == 1 and not agent.was_paused_since(run.start_ns):
            raise _fail("I19", f"{run} went on after its limit", run)


def _fail(invariant: str, text: str, run: Run) -> Violation:
    return Violation(invariant, f"{text}\n{run.ticket.story()}")
