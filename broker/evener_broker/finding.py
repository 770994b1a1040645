"""Which task or worker somebody means: by an id or its beginning, by a pid, by a name.

Rules of this file: pure and read-only; nothing walks over millions. Raises ValueError with a text
for people. What agents tell of their workers has any type, and is checked where it is used.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, Final, NamedTuple

from evener_broker.records import Agent, Task
from evener_broker.tables import Tables
from evener_broker.transitions import OPEN
from evener_wire import messages as m
from evener_wire.limits import ID_BYTES

# Tasks among which the beginning of an id is searched: 10 to 20 ms. More: everybody waits for one
# question. Fewer: people have to give whole ids sooner.
SEARCHED_MAX: Final = 200_000

# Attempts in agents' hands that are looked at, when only these matter.
_OPEN_LOOKED_AT: Final = 100_000

# Tasks or workers that a text names when several are meant.
_NAMED_MAX: Final = 3

_DIGITS: Final = 2 * ID_BYTES
_TELLING_DIGITS: Final = 8
_PID_DIGITS: Final = 10


class Worker(NamedTuple):
    """A worker process as its agent told of it."""

    agent: Agent
    facts: m.Facts

    def pid(self) -> int | None:
        """Its process id."""
        pid = self.facts.get("pid")
        return pid if type(pid) is int and pid else None


# --- Tasks ----------------------------------------------------------------------------------------


def find_task(tables: Tables, text: object) -> Task | None:
    """The only task whose id begins so; None if there is none."""
    beginning = _beginning(text)
    if len(beginning) == _DIGITS:
        return tables.tasks.get(bytes.fromhex(beginning))
    if len(tables.tasks) > SEARCHED_MAX:
        # What runs is asked about most, and so many digits rarely fit a second task.
        held = find_open_task(tables, text) if len(beginning) >= _TELLING_DIGITS else None
        if held is not None:
            return held
        raise ValueError(
            f"the broker has {len(tables.tasks):,} tasks, too many to search for the beginning of "
            f"an id: give all {_DIGITS} digits, which evener ls tasks --wide shows"
        )
    low, high = _range(beginning)
    tasks = tables.tasks
    return _only([tasks[task_id] for task_id in tasks if low <= task_id <= high], beginning)


def find_open_task(tables: Tables, text: object) -> Task | None:
    """The same among the tasks that agents have in hand."""
    beginning = _beginning(text)
    low, high = _range(beginning)
    held = (task for agent in tables.agents.values() for task in agent.open.values())
    found = [task for task in islice(held, _OPEN_LOOKED_AT) if low <= task.id <= high]
    return _only(found, beginning)


def is_beginning(text: object) -> bool:
    """Whether this may be the beginning of a task's id."""
    return (
        isinstance(text, str)
        and 4 <= len(text) <= _DIGITS
        and all(digit in "0123456789abcdef" for digit in text)
    )


def _beginning(text: object) -> str:
    if not is_beginning(text):
        raise ValueError("the id of a task, or its beginning, is 4 to 32 hex digits in lower case")
    assert isinstance(text, str)
    return text


def _range(beginning: str) -> tuple[bytes, bytes]:
    low, high = beginning.ljust(_DIGITS, "0"), beginning.ljust(_DIGITS, "f")
    return bytes.fromhex(low), bytes.fromhex(high)


def _only(found: list[Task], beginning: str) -> Task | None:
    if len(found) > 1:
        named = [
            f"{task.id.hex()} ({task.function.name}, {task.state.value})"
            for task in found[:_NAMED_MAX]
        ]
        more = ", ..." if len(found) > _NAMED_MAX else ""
        raise ValueError(
            f'{len(found)} task ids begin with "{beginning}": {", ".join(named)}{more}'
        )
    return found[0] if found else None


# --- Hosts ----------------------------------------------------------------------------------------


def find_host(tables: Tables, text: str) -> Agent | None:
    """The only agent with this name or instance, of those that are connected if there are any."""
    if len(text) == _DIGITS and is_beginning(text):
        agent = tables.agents.get(bytes.fromhex(text))
        if agent is not None:
            return agent
    named = [agent for agent in tables.agents.values() if agent.name == text]
    found = [agent for agent in named if agent.session is not None] or named
    if len(found) > 1:
        shown = ", ".join(agent.instance.hex() for agent in found[:_NAMED_MAX])
        raise ValueError(f'{len(found)} agents have the name "{text}"; give the instance: {shown}')
    return found[0] if found else None


# --- Workers --------------------------------------------------------------------------------------


def workers(tables: Tables) -> Iterator[Worker]:
    """Everyone that agents told of."""
    for agent in tables.agents.values():
        for facts in agent.workers:
            yield Worker(agent, facts)


def worker_of(task: Task) -> Worker | None:
    """The worker that runs a task, once its agent has told."""
    if task.agent is None or task.state not in OPEN:
        return None
    for facts in task.agent.workers:
        if facts.get("task") == task.id or task.id in _beside(facts):
            return Worker(task.agent, facts)
    return None


def _beside(facts: m.Facts) -> tuple[Any, ...]:
    """What it runs beside that one. An agent may say anything here."""
    others: Any = facts.get("beside", ())
    return others if others.__class__ is tuple else ()


def find_worker(tables: Tables, text: str) -> Worker | None:
    """The only worker with this name, pid or host/pid; None if there is none."""
    host, slash, pid = text.rpartition("/")
    found = [w for w in workers(tables) if w.facts.get("name") == text]
    if not found and len(pid) <= _PID_DIGITS and pid.isascii() and pid.isdecimal():
        number = int(pid)
        found = [
            worker
            for worker in workers(tables)
            if worker.pid() == number and (not slash or worker.agent.name == host)
        ]
    if len(found) > 1:
        named = [f"{w.agent.name}/{_shown(w.facts.get('pid'))}" for w in found[:_NAMED_MAX]]
        raise ValueError(f'{len(found)} workers are meant by "{text}": {", ".join(named)}')
    return found[0] if found else None


def _shown(value: Any) -> str:
    return str(value)[:32]
