"""A broker begins with what its journal has: tasks, and whom they belong to.

Durations begin anew, since nobody knows how long no broker ran. Open tasks are held until the
agents that may run them have told; ends are told to whoever comes for them, and those that were
taken are kept for people. Changes: tasks, clients.
"""

from __future__ import annotations

from typing import Final

from evener_broker.journaling import Contents, KeptTask
from evener_broker.lifecycle import Lifecycle
from evener_broker.records import Client, Task
from evener_broker.recovery import Recovery
from evener_broker.retention import Retention
from evener_broker.sessions import Sessions
from evener_broker.tables import Tables
from evener_broker.transitions import TERMINAL_CODES, State

_STATES: Final = {code: state for state, code in TERMINAL_CODES.items()}


def restore(
    tables: Tables,
    lifecycle: Lifecycle,
    recovery: Recovery,
    retention: Retention,
    sessions: Sessions,
    contents: Contents,
) -> None:
    """Fill the tables of a broker that has not said anything yet."""
    commits = tables.commits
    commits.bytes_used, commits.bytes_max = contents.bytes_used, contents.bytes_max
    tables.accepted = contents.accepted
    names, upto = dict(contents.clients), dict(contents.taken)
    commits.ends = max(upto.values(), default=0)
    clients: dict[bytes, Client] = {}
    held: list[Task] = []
    ends: list[Task] = []
    taken: list[Task] = []
    for kept in contents.tasks:
        client = clients.get(kept.client)
        if client is None:
            client = clients[kept.client] = Client(kept.client, names.get(kept.client, "?"), {})
            client.recorded = True
            # Until it comes back: whoever does, submits again what it still wants to know.
            client.closed = True
        task = _task_of(tables, client, kept)
        if kept.state is None:
            held.append(task)
            task.function.accepted += 1
            lifecycle.limit(task)
            if kept.starts or kept.failures:
                task.own_tries().expires_ns = 0  # it had its first start
        elif kept.client in names and not 0 < kept.order <= upto.get(kept.client, 0):
            ends.append(task)
        else:
            taken.append(task)
    ends.sort(key=_order)
    taken.sort(key=_order)
    commits.ends = max([commits.ends, *(found[-1].order for found in (ends, taken) if found)])
    for task in (*held, *ends):
        client = task.client
        tables.clients[client.instance] = client
        size = task.size()
        client.bytes += size
        tables.bytes += size
    for task in held:
        task.client.open_tasks += 1
    tables.open_tasks += len(held)
    for task in ends:
        task.client.ended_tasks += 1
        task.client.outgoing.append(task)
    retention.restored(taken)
    for client in tables.clients.values():
        sessions.await_return(client)
    # Of those that left in the moment of the crash, or had taken everything.
    commits.turn.records.clients_gone.extend((names.keys() | upto.keys()) - tables.clients.keys())
    recovery.expect(held, dict(contents.agents), contents.epoch)
    if held or ends:
        text = f"from the journal: {len(held)} open tasks, {len(ends)} ends"
        tables.outbox.log("info", text)


def _order(task: Task) -> tuple[int, int]:
    return task.order, task.number


def _task_of(tables: Tables, client: Client, kept: KeptTask) -> Task:
    ended = kept.state is not None
    state = State.HELD if kept.state is None else _STATES[kept.state]
    payload = kept.result if ended else kept.call
    assert payload is not None
    function = tables.function(kept.function)
    task = Task(
        kept.id, function, payload, kept.options, client, kept.number, tables.now_ns, state, 0
    )
    task.digest = kept.digest
    tables.outbox.forwards = tables.outbox.forwards or kept.options.forward_output
    task.order = kept.order
    counts = kept.starts, kept.failures, kept.returns, kept.dispatched, kept.settled
    if any(counts) or kept.facts is not None:
        tries = task.own_tries()
        tries.starts, tries.failures, tries.returns = kept.starts, kept.failures, kept.returns
        tries.dispatched, tries.settled = kept.dispatched, kept.settled
        tries.facts = kept.facts
    if ended and kept.call is not None:
        task.own_tries().call = kept.call
    tables.tasks[kept.id] = task
    return task
