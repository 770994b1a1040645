"""One seed: safety, heal, quiesce, audit.

Rules of this file: puts the parts together and lets time pass; what must hold stands in
`checkers.py` and `audit.py`.
"""

from __future__ import annotations

import traceback
from dataclasses import dataclass, field
from typing import Final

from evener_broker.schedule_records import SCHEDULER
from evener_wire.limits import REFUSED_AGAIN_MAX_NS
from tests.simulation.adversary import Adversary
from tests.simulation.agent_node import AgentNode
from tests.simulation.audit import audit
from tests.simulation.bodies import Bodies
from tests.simulation.broker_node import BrokerNode
from tests.simulation.checkers import Checkers
from tests.simulation.client_node import ClientNode
from tests.simulation.comeback import check_connected, check_hellos
from tests.simulation.disk import Disk
from tests.simulation.durable import Durability
from tests.simulation.faults import Faults
from tests.simulation.hostility import Hostility
from tests.simulation.network import Network
from tests.simulation.presence import Presence
from tests.simulation.swarm import Swarm, draw
from tests.simulation.timetable import Timetable
from tests.simulation.truth import Truth
from tests.simulation.watch import Watch
from tests.simulation.workload import Workload, functions_of, queues_of
from tests.simulation.world import SECOND, START_NS, Violation, World

# How often a core recounts its books: every step would make the books the slowest part.
_CHECK_EVERY: Final = 23

# After healing: so long nothing may start while something waits, and so long it may take in all.
_STILL_NS: Final = 120 * SECOND
_QUIESCE_NS_MAX: Final = 6 * 3_600 * SECOND
_SETTLE_NS: Final = 90 * SECOND

# If faults let nothing through: so often somebody tries once more, every 5 s, before it is a fault.
_BURSTS_MAX: Final = 12


@dataclass(frozen=True, slots=True)
class Choice:
    """What to run: a seed, and what of it to leave out (see `shrink.py`)."""

    seed: int
    omit: frozenset[str] = frozenset()
    tasks: int | None = None
    safety_ns: int | None = None
    profile: str = "usual"
    verbose: bool = False

    def swarm(self) -> Swarm:
        """The swarm of the seed, less what is left out."""
        swarm = draw(self.seed, self.profile).without(self.omit)
        if self.tasks is not None:
            swarm.tasks = min(swarm.tasks, self.tasks)
        if self.safety_ns is not None:
            swarm.safety_ns = min(swarm.safety_ns, self.safety_ns)
        return swarm

    def line(self) -> str:
        """What to type to see it again."""
        text = f"make sim SEED={self.seed}"
        options = [] if self.profile == "usual" else [f"--profile {self.profile}"]
        options += [f"--omit '{kind}'" for kind in sorted(self.omit)]
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
    alone_s: int = 0  # of that nobody was connected to the broker
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
    checked: dict[str, int] = field(default_factory=dict)
    steps: dict[tuple[str, str], int] = field(default_factory=dict)
    lengths: dict[str, list[int]] = field(default_factory=dict)
    story: str = ""


class Simulation:
    """A whole cluster, built from a choice."""

    def __init__(self, choice: Choice, swarm: Swarm | None = None) -> None:
        self.choice: Final = choice
        swarm = self.swarm = swarm or choice.swarm()
        world = self.world = World(choice.seed)
        world.verbose = choice.verbose
        self.truth = Truth(world)
        network = self.network = Network(world)
        if swarm.chances:
            network.hostility = Hostility(world, swarm.chances)
        self.watch = Watch(world, self.truth)
        disk = self.disk = Disk(world, swarm.journal_bytes) if swarm.durable else None
        self.broker = BrokerNode(
            world,
            network,
            self.watch,
            swarm.bounds,
            _CHECK_EVERY,
            disk,
            has_wall=bool(swarm.schedules),
        )
        if disk is not None:
            self.watch.durable = Durability(world, self.truth, disk)
        self.agents = [self._agent(n, workers) for n, workers in enumerate(swarm.agents)]
        self.clients = [self._client(n) for n in range(swarm.clients)]
        # Two with one instance: as if a process had been doubled with all it knows.
        names = ("adversary0", "adversary1") if "adversary" in swarm.mean_s else ()
        self.adversaries = [Adversary(world, network, self.truth, name) for name in names]
        for adversary in self.adversaries[1:]:
            adversary.instance = self.adversaries[0].instance
        self.checkers = Checkers(
            world,
            self.watch,
            self.broker,
            self.agents,
            hostile=bool(swarm.chances),
        )
        self.watch.judge = self.checkers
        self.timetable = self.checkers.timetable = Timetable(
            world, self.truth, swarm.schedules, durable=swarm.durable
        )
        self.alone_s = 0
        self.is_paused = False  # of schedules
        bodies = Bodies(world, {a.name: a for a in self.agents}, durable=swarm.durable)
        self.truth.on_begin = bodies.on_begin
        self.truth.on_finish = bodies.on_finish
        for client in self.clients:
            client.on_end = self.checkers.on_end
            client.on_answer = self.checkers.on_answer

    def _agent(self, number: int, workers: int) -> AgentNode:
        node = AgentNode(
            self.world,
            self.network,
            self.truth,
            f"agent{number}",
            workers=workers,
            queues=queues_of(number, self.swarm.queues),
            functions=functions_of(number),
            check_every=_CHECK_EVERY,
            care_s=self.swarm.care_s,
            schedules=[spec for spec, _ in self.swarm.schedules],
        )
        node.shares = self.swarm.shares
        return node

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
        presence = Presence(world, self.swarm, self.agents, works)
        faults = Faults(
            world,
            self.network,
            self.swarm,
            self.broker,
            self.agents,
            self.clients,
            self.adversaries,
            self.disk,
        )
        world.run(world.now + self.swarm.safety_ns)
        presence.end()
        faults.heal()
        for work in works:
            work.over = True
        if not self.checkers.accepted:
            self._have_some_accepted(works)
        self._quiesce()
        if self.swarm.schedules:
            self._come_round()
        self.checkers.on_turn_over()
        for client in self.clients:
            check_hellos(client)
        world.run(world.now + _SETTLE_NS)
        audit(self)

    def _have_some_accepted(self, works: list[Workload]) -> None:
        """Faults let nothing through so far; what is well now takes work, and soon."""
        world = self.world
        work = next(w for w in works if not w.client.is_paused())
        for _ in range(_BURSTS_MAX):
            if work.client.over:
                work.client.crash(host=False)
            if not work.client.alive:
                work.client.start()
            work.last_burst()
            world.run(world.now + 5 * SECOND)
            if self.checkers.accepted:
                return

    def _come_round(self) -> None:
        """Schedules go on by themselves, until somebody pauses them."""
        world, timetable = self.world, self.timetable
        if not self.broker.core.tables.agents:
            # What was corrupted on its way had all of them refused, and they come within a minute.
            world.run(world.now + 2 * REFUSED_AGAIN_MAX_NS)
        soon = timetable.soon()
        world.run(world.now + max((wait_ns for _, wait_ns in soon.values()), default=0))
        timetable.check_goes_on(soon, self.broker)
        client = next(c for c in self.clients if not c.is_paused())
        if client.over:
            client.crash(host=False)
        if not client.alive:
            client.start()
        self.network.link(client.name).unnamed_until = 0  # whoever is late: this one is not
        for _ in range(2):
            for name in timetable.names():
                client.ask("schedule", {"name": name, "do": "pause"})
            world.run(world.now + 10 * SECOND)
        self.is_paused = True
        self._quiesce()
        timetable.paused_ns = world.now

    def _look(self, _: object) -> None:
        """What is judged by time, not by what somebody did."""
        self.alone_s += not self.network.conns
        for client in self.clients:
            if not self.swarm.chances:
                check_connected(self.broker, client, self.world.now)
        self.world.after(SECOND, "look", self._look)

    def _quiesce(self) -> None:
        """I19: as long as anything starts there is progress; what is left when nothing does hangs.

        The longest that nothing need start is a long body, and the longest back-off of a worker.
        """
        world = self.world
        last, last_ns = -1, world.now
        until_ns = world.now + _QUIESCE_NS_MAX
        while world.now < until_ns and not self._is_quiet():
            runs = self.truth.runs if self.is_paused else self.truth.progress
            if runs != last:
                last, last_ns = runs, world.now
            elif world.now - last_ns > _STILL_NS:
                return
            world.run(world.now + 10 * SECOND, self._is_quiet)

    def _is_quiet(self) -> bool:
        tables = self.broker.core.tables
        others = (c.open_tasks for c in tables.clients.values() if c.instance != SCHEDULER)
        if sum(others) or (tables.open_tasks and (self.is_paused or not self.swarm.schedules)):
            return False
        return not any(not t.ends and t.alarming for t in self.truth.tickets)

    def outcome(self) -> Outcome:
        """Numbers for the report."""
        world = self.world
        found = Outcome(self.choice, str(self.swarm))
        found.digest = world.digest()
        found.simulated_ns = world.now - START_NS
        found.alone_s = self.alone_s
        found.events = world.events
        found.tasks = len(self.truth.tickets)
        found.accepted = self.checkers.accepted
        found.executions = self.truth.runs
        found.verdicts_true = self.checkers.verdicts.true
        found.verdicts_false = self.checkers.verdicts.false
        for ticket in self.truth.tickets:
            how = ticket.ends[0][0] if ticket.ends else "client gone"
            found.ends[how] = found.ends.get(how, 0) + 1
        found.fired = dict(world.fired)
        found.sometimes = dict(world.sometimes)
        found.peaks = dict(world.peaks)
        found.checked = dict(world.checked)
        found.steps = dict(world.steps)
        found.lengths = world.lengths
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
