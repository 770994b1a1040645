"""Checkers of what becomes of attempts when agents and brokers come back: I11, I23.

Rules of this file: an agent tells what it holds, and the broker either lets it go on or has it
stopped; from the two follows what the broker adopted. The broker's own tables prove nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from evener_wire import messages as m
from evener_wire.limits import RECOVERY_NS
from tests.simulation.taps import AgentTap
from tests.simulation.truth import Key
from tests.simulation.world import MS, Violation

if TYPE_CHECKING:
    from tests.simulation.watch import Watch


class Adoption:
    """Caller: the watch, whose books it reads."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    def on_held(self, agent: AgentTap, reported: Iterable[Key]) -> None:
        """All that an agent still has."""
        watch = self._watch
        held = {*reported}
        agent.reported = True
        for key in list(agent.open):
            if key not in held:
                ticket, _ = agent.open.pop(key)
                if any(run.key == key for run in ticket.runs):
                    raise Violation("I11", f"{agent.who} forgot {key[1]}: {ticket.story()}")
                assert watch.judge is not None
                watch.judge.on_returned(ticket)
                watch.world.hit("RUN that never arrived")
        for key in held:
            found = watch.by_key.get(key)
            if found is None or key in agent.open:
                continue
            ticket, sent = found
            if watch.durable is not None and watch.durable.is_settled(ticket, sent.fence):
                continue  # its acknowledgement was lost, with the broker
            if sent.agent != agent.who:
                watch.world.hit("agent says that it holds what another one has")
                continue
            if sent.taken_in == watch.epoch:
                continue  # its acknowledgement was lost
            newer = any(other.epoch == watch.epoch for other in ticket.sent)
            others = sent.given_up_in == watch.epoch and watch.epoch in ticket.accepted
            over = newer or others or watch.epoch in ticket.told
            if sent.epoch == watch.epoch or over:
                sent.given_up = True
                watch.world.hit("agent comes back with an attempt that others have now")
            else:
                sent.given_up = False
                agent.open[key] = found
                assert watch.judge is not None
                watch.judge.on_adopted(ticket)
                watch.world.hit("agent tells a new broker what it runs")

    def on_stop(self, message: m.Cancel) -> None:
        """I23: what an agent reports in time is adopted, unless somebody wants it stopped."""
        watch = self._watch
        for key in message.items:
            found = watch.by_key.get((key[0], key[1]))
            if found is None or found[1].epoch == watch.epoch:
                continue
            watch.world.checked["I23"] += 1
            ticket, sent = found
            if watch.durable is not None and watch.durable.is_settled(ticket, sent.fence):
                continue  # the broker before had its result
            # A RESULT in the very turn of the inventory counts only if that was adopted.
            if sent.taken_in == watch.epoch and sent.taken_ns < watch.world.now:
                continue
            _, since_ns, again = ticket.accepted.get(watch.epoch, (0, watch.world.now, False))
            deadline_ms = ticket.options.deadline_ms
            is_late = deadline_ms and watch.world.now - since_ns >= deadline_ms * MS
            if ticket.cancelled_in == watch.epoch or is_late:
                continue  # it is adopted, and its end is awaited
            wanted = again and not (ticket.cancelled_in or ticket.told or deadline_ms)
            here = any(other.epoch == watch.epoch for other in ticket.sent)
            # An older attempt that was reported first is adopted as well as the newest.
            held = [k for tap in watch.agents.values() for k in tap.open if k[0] == ticket.id]
            here = here or any(k != (key[0], key[1]) for k in held)
            in_time = watch.world.now - watch.first_ns < RECOVERY_NS - 5 * MS
            newest = max(other.fence for other in ticket.sent) == sent.fence
            if watch.durable is not None and not watch.durable.awaits(sent.agent):
                wanted = False
            if wanted and in_time and newest and not here and sent.given_up_in != watch.epoch:
                raise Violation("I23", f"reported in time, not adopted: {ticket.story()}")
            sent.given_up = True
            for tap in watch.agents.values():
                tap.open.pop((key[0], key[1]), None)
