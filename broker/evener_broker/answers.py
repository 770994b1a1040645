"""Answers to questions about the cluster: read-only views of the tables, as msgpack.

Rules of this file: nothing changes; every list is cut at a limit, and says when it was. Names of
fields are part of the command line's JSON, so they only grow.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, Final

import msgpack

from evener_broker.records import Agent, Task
from evener_broker.tables import Tables
from evener_broker.transitions import State
from evener_wire import messages as m
from evener_wire.limits import INLINE_BYTES_MAX

_ROWS_DEFAULT: Final = 100
_ROWS_MAX: Final = 1_000

_View = dict[str, Any]


def answer(tables: Tables, what: str, arguments: m.Facts) -> tuple[bool, m.Payload]:
    """The answer to a QUERY: (whether it could be answered, msgpack body)."""
    view = _VIEWS.get(what)
    if view is None:
        return False, _pack(f'the broker cannot answer "{what}"; it knows {", ".join(_VIEWS)}')
    try:
        return True, _pack(view(tables, arguments))
    except ValueError as error:
        return False, _pack(str(error))


def _pack(body: object) -> m.Payload:
    packed: bytes = msgpack.packb(body)
    return packed if len(packed) <= INLINE_BYTES_MAX else m.Frames([packed])


# --- Status ---------------------------------------------------------------------------------------


def _status(tables: Tables, arguments: m.Facts) -> _View:
    states = _states(tables)
    return {
        "broker": {
            "epoch": tables.epoch,
            "id": tables.broker.hex(),
            "durable": False,
            "live_s": tables.live_ns // 1_000_000_000,
            "accepted": tables.accepted,
            "payload_bytes": tables.bytes,
            "sessions": len(tables.sessions),
            "counters": dict(tables.counters),
        },
        "tasks": {state.value: states[state] for state in State},
        **{name: _rows(tables, name, {}) for name in ("hosts", "workers", "queues", "clients")},
        "functions": _rows(tables, "functions", {}),
        "unserved": [_queue(tables, q) for q in tables.queues if _is_unserved(tables, q)],
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
    for task in tables.tasks.values():
        if state is not None and task.state.value != state:
            continue
        if isinstance(prefix, str) and not task.id.hex().startswith(prefix):
            continue
        yield _task(tables, task)


def _task(tables: Tables, task: Task) -> _View:
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
    }


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
    for function in sorted(tables.functions.values(), key=lambda f: f.name):
        yield {
            "name": function.name,
            "hosts": len(function.agents),
            "runs": function.runs,
            "ended": function.ended,
            "failed": function.failed,
            "mean_us": function.run_total_us // function.runs if function.runs else None,
        }


_LISTS: Final[dict[str, Callable[[Tables, m.Facts], Iterator[_View]]]] = {
    "tasks": _tasks,
    "workers": _workers,
    "hosts": _hosts,
    "queues": _queues,
    "clients": _clients,
    "functions": _functions,
}
_TOTALS: Final[dict[str, Callable[[Tables], int]]] = {
    "tasks": lambda tables: len(tables.tasks),
    "workers": lambda tables: sum(len(agent.workers) for agent in tables.agents.values()),
    "hosts": lambda tables: len(tables.agents),
    "queues": lambda tables: len(tables.queues),
    "clients": lambda tables: len(tables.clients),
    "functions": lambda tables: len(tables.functions),
}
_VIEWS: Final[dict[str, Callable[[Tables, m.Facts], _View]]] = {"status": _status, "ls": _ls}
