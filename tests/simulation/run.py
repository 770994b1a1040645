"""One seed: safety, heal, quiesce, audit.

Rules of this file: puts the parts together and lets time pass; what must hold stands in
`checkers.py` and `audit.py`.
"""

from __future__ import annotations

import traceback
from dataclasses import dataclass, field
from typing import Final

from tests.simulation.agent_node import AgentNode
from tests.simulation.audit import audit
from tests.simulation.broker_node import BrokerNode
from tests.simulation.checkers import Checkers
from tests.simulation.client_node import ClientNode
from tests.simulation.comeback import check_connected, check_hellos
from tests.simulation.faults import Faults
from tests.simulation.hostility import Hostility
from tests.simulation.network import Network
from tests.simulation.swarm import Swarm, draw
from tests.simulation.truth import Truth
from tests.simulation.watch import Watch
from tests.simulation.workload import Workload, functions_of, queues_of
from tests.simulation.world import SECOND, START_NS, Violation, World

# How often a core recounts its books: every step would make the books the slowest part.
_CHECK_EVERY: Final = 23

# After healing: so long nothing may start while something waits, and so long it may take in all.
_STILL_NS: Final = 120 * SECOND
_QUIESCE_NS_MAX: Final = 6 * 3_600 * SECOND
_SETTLE_NS: Final = 45 * SECOND


@dataclass(frozen=True, slots=True)
class Choice:
    """What to run: a seed, and what of it to leave out (see `shrink.py`)."""

    seed: int
    omit: frozenset[str] = frozenset()
    tasks: int | None = None
    safety_ns: int | None = None
    verbose: bool = False

    def swarm(self) -> Swarm:
        """The swarm of the seed, less what is left out."""
        swarm = draw(self.seed).without(self.omit)
        if self.tasks is not None:
            swarm.tasks = min(swarm.tasks, self.tasks)
        if self.safety_ns is not None:
            swarm.safety_ns = min(swarm.safety_ns, self.safety_ns)
        return swarm

    def line(self) -> str:
        """What to type to see it again."""
        text = f"make sim SEED={self.seed}"
        options = [f"--omit '{kind}'" for kind in sorted(self.omit)]
        if self.tasks is not None:
            options.append(f"--tasks {self.tasks}")
        if self.safety_ns is not None:
            options.append(f"--safety-ms {self.safety_ns // 1_000_000}")
        return text + (f' ARGS="{" ".join(options)}"' if options else "")


@dataclass(slots=True)
class Outcome:
    """What came of one seed."""

    choice: Choice
    swarm: str
    failure: str = ""  # the invariant, or the kind of error
    text: str = ""
    trace: list[str] = field(default_factory=list)
    digest: str = ""
    simulated_ns: int = 0
    events: int = 0
    tasks: int = 0
    accepted: int = 0
    executions: int = 0
    verdicts_true: int = 0
    verdicts_false: int = 0
    ends: dict[str, int] = field(default_factory=dict)
    fired: dict[str, int] = field(default_factory=dict)
    sometimes: dict[str, int] = field(default_factory=dict)
    peaks: dict[str, int] = field(default_factory=dict)


class Simulation:
    """A whole cluster, built from a choice."""

    def __init__(self, choice: Choice) -> None:
        self.choice: Final = choice
        swarm = self.swarm = choice.swarm()
        world = self.world = World(choice.seed)
        world.verbose = choice.verbose
        self.truth = Truth(world)
        network = self.network = Network(world)
        if swarm.chances:
            network.hostility = Hostility(world, swarm.chances)
        self.watch = Watch(world, self.truth)
        self.broker = BrokerNode(world, network, self.watch, swarm.bounds, _CHECK_EVERY)
        self.agents = [self._agent(n, workers) for n, workers in enumerate(swarm.agents)]
        self.clients = [self._client(n) for n in range(swarm.clients)]
        self.checkers = Checkers(
            world,
            self.watch,
            self.broker,
            self.agents,
            hostile=bool(swarm.chances),
        )
        self.watch.judge = self.checkers
        self.truth.on_begin = self.checkers.on_begin
        self.truth.on_finish = self.checkers.on_finish
        for client in self.clients:
            client.on_end = self.checkers.on_end

    def _agent(self, number: int, workers: int) -> AgentNode:
        return AgentNode(
            self.world,
            self.network,
            self.truth,
            f"agent{number}",
            workers=workers,
            queues=queues_of(number, self.swarm.queues),
            functions=functions_of(number),
            check_every=_CHECK_EVERY,
        )

    def _client(self, number: int) -> ClientNode:
        return ClientNode(
            self.world,
            self.network,
            self.truth,
            f"client{number}",
            hold_when_full=self.swarm.hold_when_full,
            check_every=_CHECK_EVERY,
        )

    def run(self) -> None:
        """All phases. Raises whatever is found."""
        world = self.world
        for node in (self.broker, *self.agents, *self.clients):
            node.start()
        works = [Workload(world, self.truth, self.swarm, client) for client in self.clients]
        for work in works:
            work.others = [other for other in works if other is not work]
        self._look(None)
        faults = Faults(world, self.network, self.swarm, self.broker, self.agents, self.clients)
        world.run(world.now + self.swarm.safety_ns)
        faults.heal()
        for work in works:
            work.over = True
        if not self.checkers.accepted:
            if self.clients[0].over:
                self.clients[0].crash(host=False)
            if not self.clients[0].alive:
                self.clients[0].start()
            works[0].last_burst()
        self._quiesce()
        self.checkers.on_turn_over()
        for client in self.clients:
            check_hellos(client)
        world.run(world.now + _SETTLE_NS)
        audit(self)

    def _look(self, _: object) -> None:
        """What is judged by time, not by what somebody did."""
        for client in self.clients:
            if not self.swarm.chances:
                check_connected(self.broker, client, self.world.now)
        self.world.after(SECOND, "look", self._look)

    def _quiesce(self) -> None:
        """I19: as long as anything starts there is progress; what is left when nothing does hangs.

        The longest that nothing need start is a long body, and the longest back-off of a worker.
        """
        world = self.world
        last_runs, last_ns = -1, world.now
        until_ns = world.now + _QUIESCE_NS_MAX
        while world.now < until_ns and not self._is_quiet():
            if self.truth.runs != last_runs:
                last_runs, last_ns = self.truth.runs, world.now
            elif world.now - last_ns > _STILL_NS:
                return
            world.run(world.now + 10 * SECOND, self._is_quiet)

    def _is_quiet(self) -> bool:
        if self.broker.core.tables.open_tasks:
            return False
        return not any(not t.ends and t.alarming for t in self.truth.tickets)

    def outcome(self) -> Outcome:
        """Numbers for the report."""
        world = self.world
        found = Outcome(self.choice, str(self.swarm))
        found.digest = world.digest()
        found.simulated_ns = world.now - START_NS
        found.events = world.events
        found.tasks = len(self.truth.tickets)
        found.accepted = self.checkers.accepted
        found.executions = self.truth.runs
        found.verdicts_true = self.checkers.verdicts_true
        found.verdicts_false = self.checkers.verdicts_false
        for ticket in self.truth.tickets:
            how = ticket.ends[0][0] if ticket.ends else "client gone"
            found.ends[how] = found.ends.get(how, 0) + 1
        found.fired = dict(world.fired)
        found.sometimes = dict(world.sometimes)
        found.peaks = dict(world.peaks)
        return found


def simulate(choice: Choice) -> Outcome:
    """Run one seed and say what came of it."""
    simulation = Simulation(choice)
    failure, text = "", ""
    try:
        simulation.run()
    except Violation as violation:
        failure, text = violation.invariant, str(violation)
    except Exception as error:
        failure = f"{type(error).__name__} in {_place(error)}"
        text = "".join(traceback.format_exception(error))
    outcome = simulation.outcome()
    outcome.failure, outcome.text = failure, text
    if failure:
        outcome.trace = list(simulation.world.trace)
    return outcome


def _place(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].filename.rpartition('/')[2]}:{frames[-1].name}" if frames else "?"
