"""Answers to questions about the cluster: read-only views of the tables, as msgpack.

Rules of this file: nothing changes; every list is cut at a limit, and says when it was. Names of
fields are part of the command line's JSON, so they only grow.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, Final

import msgpack

from evener_broker.finding import SEARCHED_MAX, is_beginning
from evener_broker.records import Agent, Task
from evener_broker.schedule_records import Schedule
from evener_broker.tables import Tables
from evener_broker.transitions import LETTERS, OPEN, State
from evener_broker.why import why
from evener_wire import messages as m
from evener_wire.limits import ID_BYTES, INLINE_BYTES_MAX

_OPEN_STATES: Final = {state.value for state in OPEN}

_ROWS_DEFAULT: Final = 100
_ROWS_MAX: Final = 1_000

_View = dict[str, Any]


def answer(
    tables: Tables, what: str, arguments: m.Facts, others: Iterable[str] = ()
) -> tuple[bool, m.Payload]:
    """The answer to a QUERY: (whether it could be answered, msgpack body).

    `others` are questions that are answered elsewhere, for the text if this is none at all.
    """
    view = _VIEWS.get(what)
    if view is None:
        known = ", ".join(sorted((*_VIEWS, *others)))
        return False, pack(f'the broker cannot answer "{what}"; it knows {known}')
    try:
        return True, pack(view(tables, arguments))
    except ValueError as error:
        return False, pack(str(error))


def pack(body: object) -> m.Payload:
    """A body of an answer."""
    packed: bytes = msgpack.packb(body)
    return packed if len(packed) <= INLINE_BYTES_MAX else m.Frames([packed])


# --- Status ---------------------------------------------------------------------------------------


def _status(tables: Tables, arguments: m.Facts) -> _View:
    states = _states(tables)
    return {
        "broker": {
            "epoch": tables.epoch,
            "id": tables.broker.hex(),
            "durable": tables.commits.durable,
            "journal": _journal(tables),
            "live_s": tables.live_ns // 1_000_000_000,
            "accepted": tables.accepted,
            "payload_bytes": tables.bytes,
            "sessions": len(tables.sessions),
            "put_off": tables.put_off,
            "counters": dict(tables.counters),
        },
        "tasks": {state.value: states[state] for state in State},
        **{name: _rows(tables, name, {}) for name in ("hosts", "workers", "queues", "clients")},
        "functions": _rows(tables, "functions", {}),
        "unserved": [_queue(tables, q) for q in tables.queues if _is_unserved(tables, q)],
    }


def _journal(tables: Tables) -> _View | None:
    commits = tables.commits
    if not commits.durable:
        return None
    return {
        "bytes": commits.bytes_used,
        "bytes_max": commits.bytes_max,
        "failing": commits.failing or None,
        "transactions": commits.committed,
        "under_way": commits.under_way(),
    }


def _states(tables: Tables) -> Counter[State]:
    """How many tasks are in each state. What waits, be it millions, is not walked over."""
    states = Counter(task.state for agent in tables.agents.values() for task in agent.open.values())
    states[State.QUEUED] = sum(queue.count for queue in tables.queues.values())
    states[State.HELD] = tables.open_tasks - states.total()
    for client in tables.clients.values():
        states.update(task.state for task in client.outgoing)
        for _, told in client.flights:
            states.update(task.state for task in told)
    states.update(task.state for task in tables.commits.untold())
    return states


def _is_unserved(tables: Tables, name: str) -> bool:
    queue = tables.queues[name]
    return queue.count > 0 and not queue.agents


# --- Lists ----------------------------------------------------------------------------------------


def _ls(tables: Tables, arguments: m.Facts) -> _View:
    kind = arguments.get("kind")
    if not isinstance(kind, str) or kind not in _LISTS:
        raise ValueError(f'cannot list "{kind}"; there are {", ".join(_LISTS)}')
    rows = _rows(tables, kind, arguments)
    return {"kind": kind, "rows": rows, "total": _TOTALS[kind](tables)}


def _rows(tables: Tables, kind: str, arguments: m.Facts) -> list[_View]:
    limit = arguments.get("limit", _ROWS_DEFAULT)
    if type(limit) is not int or not 1 <= limit <= _ROWS_MAX:
        raise ValueError(f"limit is not within 1 to {_ROWS_MAX}")
    return list(islice(_LISTS[kind](tables, arguments), limit))


def _tasks(tables: Tables, arguments: m.Facts) -> Iterator[_View]:
    state = arguments.get("state")
    prefix = arguments.get("id", "")
    for task in _candidates(tables, state, prefix):
        if state is not None and task.state.value != state:
            continue
        if isinstance(prefix, str) and not task.id.hex().startswith(prefix):
            continue
        yield task_view(tables, task)


def _candidates(tables: Tables, state: object, prefix: object) -> Iterable[Task]:
    """Among which tasks to look. Of a million only the oldest: everybody waits for a walk."""
    if isinstance(prefix, str) and len(prefix) == 2 * ID_BYTES and is_beginning(prefix):
        task = tables.tasks.get(bytes.fromhex(prefix))
        return () if task is None else (task,)
    if state in _OPEN_STATES:
        return (task for agent in tables.agents.values() for task in agent.open.values())
    return islice(tables.tasks.values(), SEARCHED_MAX)


def task_view(tables: Tables, task: Task) -> _View:
    """What a list tells of a task."""
    report = task.client.reports.get(task.id)
    return {
        "id": task.id.hex(),
        "function": task.function.name,
        "state": task.state.value,
        "since_ms": (tables.now_ns - task.since_ns) // 1_000_000,
        "queue": task.options.queue,
        "priority": task.options.priority,
        "client": task.client.name,
        "host": task.agent.name if task.agent else None,
        "attempt": m.attempt_of(task.fence),
        "starts": task.tries.starts,
        "failures": task.tries.failures,
        "payload_bytes": len(task.payload),
        "facts": dict(task.tries.facts) if task.tries.facts else None,
        "progress": None if report is None else report.facts(),
    }


def _letters(tables: Tables, state: State) -> Iterator[Task]:
    """What ended so and is kept, taken by its client or not."""
    ends = (task for client in tables.clients.values() for task in client.ends())
    return (task for task in (*tables.letters, *ends) if task.state is state)


def _ended(state: State) -> Callable[[Tables, m.Facts], Iterator[_View]]:
    def rows(tables: Tables, arguments: m.Facts) -> Iterator[_View]:
        function = arguments.get("function")
        for task in _letters(tables, state):
            if function is None or task.function.name == function:
                yield task_view(tables, task)

    return rows


def _workers(tables: Tables, arguments: m.Facts) -> Iterator[_View]:
    for agent in tables.agents.values():
        for worker in agent.workers:
            yield {"host": agent.name, **worker}


def _hosts(tables: Tables, arguments: m.Facts) -> Iterator[_View]:
    for agent in tables.agents.values():
        yield _host(tables, agent)


def _host(tables: Tables, agent: Agent) -> _View:
    session = agent.session
    return {
        "name": agent.name,
        "instance": agent.instance.hex(),
        "connected": session is not None,
        "silent_ms": None if session is None else (tables.live_ns - session.heard_ns) // 1_000_000,
        "slots": agent.slots,
        "draining": agent.draining,
        "held": agent.held(),
        "running": sum(task.state is State.RUNNING for task in agent.open.values()),
        "queues": list(agent.queues),
        "functions": sorted(function.name for function in agent.functions),
        "facts": dict(agent.facts),
    }


def _queues(tables: Tables, arguments: m.Facts) -> Iterator[_View]:
    for name in tables.queues:
        yield _queue(tables, name)


def _queue(tables: Tables, name: str) -> _View:
    queue = tables.queues[name]
    heads = (lane.oldest() for level in queue.busy for lane in level.lanes.values())
    oldest = min((task.since_ns for task in heads if task is not None), default=None)
    return {
        "name": name,
        "waiting": queue.count,
        "oldest_ms": None if oldest is None else (tables.now_ns - oldest) // 1_000_000,
        "agents": len(queue.agents),
        "slots": sum(agent.slots for agent in queue.agents),
        "by_priority": {str(level.priority): level.count for level in queue.busy},
    }


def _clients(tables: Tables, arguments: m.Facts) -> Iterator[_View]:
    for client in tables.clients.values():
        yield {
            "name": client.name,
            "instance": client.instance.hex(),
            "connected": client.session is not None,
            "open": client.open_tasks,
            "unfetched": client.ended_tasks,
            "payload_bytes": client.bytes,
            "facts": dict(client.facts),
        }


def _functions(tables: Tables, arguments: m.Facts) -> Iterator[_View]:
    """What became of tasks since this broker began; times are those of samples."""
    held = (task for agent in tables.agents.values() for task in agent.open.values())
    running = Counter(task.function.name for task in held)
    for function in sorted(tables.functions.values(), key=lambda f: f.name):
        unwell = function.failed + function.cancelled + function.expired + function.lost
        yield {
            "name": function.name,
            "hosts": len(function.agents),
            "queued": function.accepted - function.ended - running[function.name],
            "running": running[function.name],
            "runs": function.runs,
            "ended": function.ended,
            "completed": function.ended - unwell,
            "failed": function.failed,
            "cancelled": function.cancelled,
            "expired": function.expired,
            "lost": function.lost,
            "run_total_us": function.run_total_us,
            "mean_us": function.run_total_us // function.runs if function.runs else None,
            "run_us": function.run_times.percentiles(),
            "wait_us": function.waits.percentiles(),
        }


def _schedules(tables: Tables, arguments: m.Facts) -> Iterator[_View]:
    for name in sorted(tables.schedules):
        yield schedule_view(tables, tables.schedules[name])


def schedule_view(tables: Tables, schedule: Schedule) -> _View:
    """What a list tells of a schedule."""
    spec, due_ns = schedule.spec, schedule.due_ns
    hosts = sum(tables.agents.get(agent.instance) is agent for agent in schedule.agents)
    last = tables.tasks.get(schedule.last_id) if schedule.last_id is not None else None
    if spec.cron and due_ns is not None:
        due_ns -= tables.wall_ahead_ns or 0
    if schedule.error:
        state = "broken"
    elif schedule.paused:
        state = "paused"
    else:
        state = "active" if hosts else "no workers"
    return {
        "name": spec.name,
        "function": spec.function,
        "every_ms": spec.every_ms or None,
        "cron": spec.cron or None,
        "zone": spec.zone or None,
        "state": state,
        "error": schedule.error or None,
        "next_ms": None if due_ns is None else (due_ns - tables.now_ns) // 1_000_000,
        "last_id": None if schedule.last_id is None else schedule.last_id.hex(),
        "last_ms": (tables.now_ns - schedule.last_ns) // 1_000_000 if schedule.last_ns else None,
        "last_state": schedule.last_end or (None if last is None else last.state.value),
        "hosts": hosts,
        "runs": schedule.runs,
        "skipped": schedule.skipped,
        "missed": schedule.missed,
        "overlap": spec.overlap,
        "late": spec.late,
        "jitter_ms": spec.jitter_ms,
    }


_LISTS: Final[dict[str, Callable[[Tables, m.Facts], Iterator[_View]]]] = {
    "tasks": _tasks,
    "workers": _workers,
    "hosts": _hosts,
    "queues": _queues,
    "clients": _clients,
    "functions": _functions,
    "schedules": _schedules,
    **{state.value: _ended(state) for state in sorted(LETTERS, key=lambda s: s.value)},
}
_TOTALS: Final[dict[str, Callable[[Tables], int]]] = {
    "tasks": lambda tables: len(tables.tasks),
    "workers": lambda tables: sum(len(agent.workers) for agent in tables.agents.values()),
    "hosts": lambda tables: len(tables.agents),
    "queues": lambda tables: len(tables.queues),
    "clients": lambda tables: len(tables.clients),
    "functions": lambda tables: len(tables.functions),
    "schedules": lambda tables: len(tables.schedules),
    "expired": lambda tables: sum(1 for _ in _letters(tables, State.EXPIRED)),
    "failed": lambda tables: sum(1 for _ in _letters(tables, State.FAILED)),
    "lost": lambda tables: sum(1 for _ in _letters(tables, State.LOST)),
}
_VIEWS: Final[dict[str, Callable[[Tables, m.Facts], _View]]] = {
    "status": _status,
    "ls": _ls,
    "why": why,
}
