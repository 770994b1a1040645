"""Checkers of verdicts: I18. Not too early, not too late, and none on an agent that is well.

Rules of this file: compared with what happened to the agent, the broker, and the way between.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from evener_wire.limits import HEARTBEAT_NS, RECONNECT_GRACE_NS, SILENCE_NS
from tests.simulation.agent_node import AgentNode
from tests.simulation.broker_node import BrokerNode
from tests.simulation.taps import AgentTap
from tests.simulation.world import MS, Violation, World

# Clocks of hosts differ by 500 parts in a million, and agents look at their clocks now and then.
_TOLERANCE_NS: Final = 60 * MS

# What of a pause of the broker may pass for sleep: up to its next timer, and a little.
_UNNOTICED_NS: Final = HEARTBEAT_NS + 300 * MS

# A silent agent has its verdict after this, even if its last sign of life was a broken connection.
_DETECTION_NS: Final = SILENCE_NS + HEARTBEAT_NS + RECONNECT_GRACE_NS + 500 * MS


class Verdicts:
    """Caller: the checkers."""

    def __init__(
        self, world: World, broker: BrokerNode, agents: dict[str, AgentNode], *, hostile: bool
    ) -> None:
        self._world = world
        self._broker = broker
        self._agents = agents
        self._hostile = hostile
        self.true = 0
        self.false = 0

    def check_silence(self, taps: Iterable[AgentTap]) -> None:
        """Whoever is silent has a verdict soon, in time that the broker lived through."""
        for tap in taps:
            if tap.who.partition(".")[0] not in self._agents:
                continue
            self._world.checked["I18"] += 1
            silent_ns = self._world.now - tap.read_ns
            if silent_ns > _DETECTION_NS:
                silent_ns -= self._broker.stood_still_since(tap.read_ns, 0)
                if silent_ns > _DETECTION_NS:
                    raise self._fail(f"{tap.who}: {silent_ns / 1e9:.1f} s and no verdict")

    def on_verdict(self, tap: AgentTap, why: str) -> None:
        """The broker gives an agent up. An adversary with two connections flaps as it likes."""
        self._world.hit(f"verdict: {_kind(why)}")
        if tap.who.partition(".")[0] not in self._agents:
            return
        self._world.checked["I18"] += 1
        stopped_ns = self._broker.stood_still_since(tap.read_ns, _UNNOTICED_NS)
        unread_ns = self._world.now - tap.read_ns - stopped_ns
        if why.startswith("silent"):
            if self._broker.unread_of(tap.who.partition(".")[0]) and not self._hostile:
                raise self._fail(f"{tap.who}: silent, and messages of it were not read")
            if unread_ns < SILENCE_NS - _TOLERANCE_NS:
                raise self._fail(f"{tap.who}: silent, heard {unread_ns / 1e9:.2f} s ago")
        elif why.startswith("its connection"):
            if self._world.now - tap.session_ns < RECONNECT_GRACE_NS - _TOLERANCE_NS:
                raise self._fail(f"{tap.who}: given up within its grace")
        elif not tap.left:
            raise self._fail(f"{tap.who}: left, but it did not say so")
        if why.startswith("left"):
            return
        if self._was_well(tap.who):
            self.false += 1
            raise self._fail(f"{tap.who} was well all the time, and was given up: {why}")
        self.true += 1
        self._world.took("detection", self._world.now - tap.read_ns)

    def _was_well(self, who: str) -> bool:
        agent = self._agents[who.partition(".")[0]]
        since_ns = self._world.now - SILENCE_NS - HEARTBEAT_NS
        if self._hostile or not agent.alive or agent.who != who or agent.exited:
            return False
        return agent.undisturbed_since() <= since_ns and not agent.was_paused_since(since_ns)

    def _fail(self, text: str) -> Violation:
        return Violation("I18", text)


def _kind(why: str) -> str:
    return why.partition(";")[0].partition(" for ")[0].partition(" (")[0]
