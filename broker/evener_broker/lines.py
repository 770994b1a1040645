"""The lines in which ready tasks wait: queue, priority, client, and then first in, first out.

Strict priorities with ageing; inside one, clients take turns; inside a client, the order of
acceptance, also for tasks that come back. A task whose function only some agents of the queue offer
stands in a line of its own, so that it holds up nobody. No I/O, no clock.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Final, TypeAlias

from evener_broker.fifo import Fifo, number_of
from evener_broker.records import Agent, Client, Function, Task
from evener_wire.limits import AGEING_NS, PRIORITY_MAX, PRIORITY_MIN

Fits: TypeAlias = Callable[[Task, Agent], bool]

# A line forgets ended tasks when it comes to them; it looks for them once this many piled up.
_SWEEP_MIN: Final = 64

# Lines of one lane that are looked at to tell how many tasks are in front of one.
_LINES_LOOKED_AT: Final = 100

# How often a queue looks for overdue tasks. A hundredth of the ageing time is near enough.
_AGEING_LOOK_NS: Final = AGEING_NS // 100


class Lane:
    """What one client has waiting at one priority of one queue."""

    __slots__ = ("common", "count", "gone", "special")

    def __init__(self) -> None:
        self.common: Final = Fifo()
        self.special: Final[dict[Function, Fifo]] = {}
        self.count = 0
        self.gone = 0

    def line_of(self, function: Function) -> Fifo:
        """The line aside for a function that not all agents of the queue offer."""
        line = self.special.get(function)
        if line is None:
            line = self.special[function] = Fifo()
        return line

    def head_for(self, agent: Agent) -> tuple[Fifo, Task] | None:
        """The next task that this agent can run, with the line it stands in."""
        common = self.common
        while (task := common.head()) is not None:
            if task.function.by_value or task.function in agent.functions:
                break
            # Its agents are others than it seemed when it came: let it wait for them aside.
            common.pop()
            self.line_of(task.function).add(task)
        best = None if task is None else (common, task)
        for function, line in list(self.special.items()):
            first = line.head()
            if first is None:
                del self.special[function]
            elif (function.by_value or function in agent.functions) and (
                best is None or first.number < best[1].number
            ):
                best = (line, first)
        return best

    def only_line(self) -> Fifo | None:
        """The line in which everything here stands, if there is only one."""
        if not self.special:
            return self.common
        if len(self.special) == 1 and self.common.head() is None:
            return next(iter(self.special.values()))
        return None

    def oldest(self) -> Task | None:
        """The task that has waited longest, whoever can run it."""
        heads = [line.head() for line in (self.common, *self.special.values())]
        return min((head for head in heads if head is not None), key=number_of, default=None)

    def before(self, task: Task, most: int) -> tuple[int, bool]:
        """How many of these came before a task, and whether that is all; looks at `most` a line."""
        lines = (self.common, *islice(self.special.values(), _LINES_LOOKED_AT))
        counts = [line.before(task.number, most) for line in lines]
        exact = len(self.special) <= _LINES_LOOKED_AT and all(exact for _, exact in counts)
        return sum(count for count, _ in counts), exact

    def forget_one(self) -> None:
        """One of the waiting tasks ended; sweep when there are many such."""
        self.count -= 1
        self.gone += 1
        if self.gone >= _SWEEP_MIN and self.gone > self.count:
            self.sweep()

    def sweep(self) -> None:
        """Take out what does not wait any more."""
        self.gone = 0
        for line in (self.common, *self.special.values()):
            line.sweep()

    def tasks(self) -> Iterator[Task]:
        """All that wait here."""
        yield from self.common
        for line in self.special.values():
            yield from line


class Level:
    """One priority of one queue: the lanes of the clients that have something waiting, by turns."""

    __slots__ = ("count", "lanes", "priority", "turns")

    def __init__(self, priority: int) -> None:
        self.priority: Final = priority
        self.count = 0
        self.lanes: Final[dict[Client, Lane]] = {}
        self.turns: Final[deque[Client]] = deque()

    def lane_of(self, client: Client) -> Lane:
        """The lane of a client; a new one takes the last turn."""
        lane = self.lanes.get(client)
        if lane is None:
            lane = self.lanes[client] = Lane()
            self.turns.append(client)
        return lane

    def take(self, agent: Agent, fits: Fits | None) -> Task | None:
        """Take out the next task for this agent, from the client whose turn it is.

        None if there is none for it, or if the next one does not fit.
        """
        turns = self.turns
        for _ in range(len(turns)):
            lane = self.lanes[turns[0]]
            if lane.count == 0:
                del self.lanes[turns.popleft()]
                continue
            if turns[0].paused:
                turns.rotate(-1)
                continue
            line = lane.common
            task = line.head()
            if task is None or lane.special or task.function not in agent.functions:
                found = lane.head_for(agent)
                if found is None:
                    turns.rotate(-1)
                    continue
                line, task = found
            if fits is not None and not fits(task, agent):
                return None
            line.pop()
            turns.rotate(-1)
            lane.count -= 1
            self.count -= 1
            return task
        return None

    def take_overdue(self, agent: Agent, since_ns: int, fits: Fits | None) -> Task | None:
        """Take out a task that waits since then at least, and is the next one of its client."""
        for client in list(self.turns):
            if client.paused:
                continue
            lane = self.lanes[client]
            found = lane.head_for(agent)
            if found is None or found[1].since_ns > since_ns:
                continue
            line, task = found
            if fits is not None and not fits(task, agent):
                continue
            line.pop()
            self.turns.remove(client)
            self.turns.append(client)
            lane.count -= 1
            self.count -= 1
            return task
        return None

    def take_like(self, first: Task, most: int) -> list[Task]:
        """Take out the tasks that follow `first`, just taken, and are like it.

        None when several clients wait, for then it is the turn of another.
        """
        if len(self.turns) > 1:
            return []
        lane = self.lanes[first.client]
        line = lane.only_line()
        if line is None:
            return []
        taken = line.pop_like(first, most)
        lane.count -= len(taken)
        self.count -= len(taken)
        return taken


class Queue:
    """A queue by name: its lines, and the agents that serve it, split by their credit."""

    __slots__ = (
        "_looked_ns",
        "_overdue",
        "agents",
        "ahead",
        "busy",
        "common",
        "count",
        "idle",
        "levels",
        "look_again",
        "looks",
        "name",
        "told",
        "unserved_ns",
        "warned",
    )

    def __init__(self, name: str) -> None:
        self.name: Final = name
        self.levels: Final = [Level(n) for n in range(PRIORITY_MIN, PRIORITY_MAX + 1)]
        # The levels where something waits, most urgent first.
        self.busy: list[Level] = []
        self.count = 0
        self.agents: set[Agent] = set()
        # Agents with a free worker, and agents that may get work ahead of one: both in rotation.
        self.idle: Final[OrderedDict[Agent, None]] = OrderedDict()
        self.ahead: Final[OrderedDict[Agent, None]] = OrderedDict()
        # Functions that every agent of the queue offers.
        self.common: frozenset[Function] = frozenset()
        # Since when tasks wait here without anybody to serve them, and to whom we said so.
        self.unserved_ns: int | None = None
        self.warned = False
        self.told: set[Client] = set()
        # Whether a look for unknown functions is due, and another one after it.
        self.looks = False
        self.look_again = False
        self._overdue: Level | None = None
        self._looked_ns = 0

    def add(self, task: Task) -> None:
        """Put a ready task in line."""
        function = task.function
        level = self.levels[task.options.priority]
        lane = level.lanes.get(task.client) or level.lane_of(task.client)
        if function in self.common or function.by_value or not self.agents:
            lane.common.add(task)
        else:
            lane.line_of(function).add(task)
        lane.count += 1
        level.count += 1
        self.count += 1
        if level.count == 1:
            self.busy.append(level)
            self.busy.sort(key=_urgency)

    def take(self, agent: Agent, now_ns: int, fits: Fits | None = None) -> Task | None:
        """Take out the next task that this agent can run: the overdue first, then by priority.

        `fits` may refuse the task whose turn it is; then nothing is taken.
        """
        levels = self.busy
        if len(levels) > 1:
            # Only with several priorities at work can one starve another.
            level = self._look_for_overdue(now_ns)
            if level is not None:
                task = level.take_overdue(agent, now_ns - AGEING_NS, fits)
                if task is not None:
                    return self._taken(level, task)
        for level in levels:
            task = level.take(agent, fits)
            if task is not None:
                return self._taken(level, task)
        return None

    def _taken(self, level: Level, task: Task) -> Task:
        self.count -= 1
        if level.count == 0:
            self._leave(level)
        return task

    def take_like(self, first: Task, most: int) -> list[Task]:
        """Take out up to `most` tasks that are next after `first`, just taken, and are like it."""
        level = self.levels[first.options.priority]
        if level.count == 0 or self.busy[0] is not level:
            return []
        taken = level.take_like(first, most)
        self.count -= len(taken)
        if level.count == 0:
            self._leave(level)
        return taken

    def _look_for_overdue(self, now_ns: int) -> Level | None:
        # A walk over all lanes, so not for each task.
        if now_ns - self._looked_ns >= _AGEING_LOOK_NS:
            self._looked_ns = now_ns
            levels = (level for level in reversed(self.busy[1:]) if _is_overdue(level, now_ns))
            self._overdue = next(levels, None)
        return self._overdue

    def forget(self, task: Task) -> None:
        """A waiting task ended."""
        level = self.levels[task.options.priority]
        level.lanes[task.client].forget_one()
        self.count -= 1
        level.count -= 1
        if level.count == 0:
            self._leave(level)

    def sweep(self) -> None:
        """Take out what was forgotten and may come back: no task stands here twice."""
        for level in self.busy:
            for lane in level.lanes.values():
                lane.sweep()

    def _leave(self, level: Level) -> None:
        self.busy.remove(level)
        level.lanes.clear()
        level.turns.clear()

    def tasks(self) -> Iterator[Task]:
        """All that wait here, most urgent priority first."""
        for level in reversed(self.levels):
            for lane in level.lanes.values():
                yield from lane.tasks()

    def waiting_clients(self) -> dict[Client, None]:
        """Whose tasks wait here."""
        lanes = (pair for level in self.busy for pair in level.lanes.items())
        return {client: None for client, lane in lanes if lane.count}

    def recount_common(self) -> None:
        """Note which functions all agents of the queue offer; after each change of either."""
        common: frozenset[Function] | None = None
        for agent in self.agents:
            common = agent.functions if common is None else common & agent.functions
        self.common = common or frozenset()

    def __repr__(self) -> str:
        return f"<Queue {self.name}, {self.count} waiting, {len(self.agents)} agents>"


def _urgency(level: Level) -> int:
    return -level.priority


def _is_overdue(level: Level, now_ns: int) -> bool:
    heads = (lane.oldest() for lane in level.lanes.values())
    return any(head is not None and now_ns - head.since_ns >= AGEING_NS for head in heads)
