"""Which tasks the broker takes on, and the ones it has to give up again before anybody saw them.

Changes: tasks, clients' sums, queues' lines.
"""

from __future__ import annotations

from typing import Final, TypeAlias

from evener_broker.digest import digest_of
from evener_broker.events import MemoryShort
from evener_broker.lifecycle import Lifecycle
from evener_broker.placing import Placing
from evener_broker.rates import Rates
from evener_broker.records import Client, Function, Task
from evener_broker.tables import Tables
from evener_broker.transitions import TERMINAL, Cause, State
from evener_broker.unknown import unknown_function
from evener_wire import messages as m
from evener_wire.limits import SECOND_NS

# Refusals per second that name functions like the unknown one. More: who submits thousands of names
# that do not exist holds up everybody, as each search takes up to a millisecond.
_HINTS_MAX: Final = 50


# A code, a text, and what programs may want of it.
Refusal: TypeAlias = tuple[str, str, "m.Facts | None"]


class Admission:
    """Caller: the broker core."""

    def __init__(self, tables: Tables, placing: Placing, lifecycle: Lifecycle) -> None:
        self._tables = tables
        self._placing = placing
        self._lifecycle = lifecycle
        # What was found out about unknown functions, within one message: it costs a search.
        self.refusals: Final[dict[tuple[str, str], Refusal | None]] = {}
        self._hints = Rates(_HINTS_MAX, SECOND_NS)

    def refusal(
        self, client: Client, function: Function, payload: m.Payload, queue: str, again: bool
    ) -> Refusal | None:
        """Why a new task cannot be accepted, or None.

        An earlier broker accepted those that come `again`: agents that know them may be on the way.
        """
        tables = self._tables
        bounds = tables.bounds
        size = len(payload)
        mine = client.open_tasks + client.ended_tasks
        most = min(bounds.client_bytes, bounds.payload_bytes)
        if size > most:
            # Not "full": it would be full for ever, and the client would wait as long.
            text = f"the call has {size} bytes; this broker takes {most} per client"
            return "too_large", text, None
        if tables.memory_short:
            return "queue_full", tables.memory_short, None
        unsaved = tables.commits.refusal(size)
        if unsaved is not None:
            return *unsaved, None
        if (
            mine >= bounds.client_tasks
            or client.bytes + size > bounds.client_bytes
            or tables.held_tasks() >= bounds.tasks
            or tables.bytes + size > bounds.payload_bytes
        ):
            text = (
                f"the broker holds {tables.held_tasks()} tasks of {tables.bytes} bytes, "
                f"{mine} of {client.bytes} bytes from this client"
            )
            return "queue_full", text, None
        if function.agents and queue in tables.queues:
            return None
        if not tables.has_room_for(function, queue):
            text = "the broker knows as many queues and functions as it can hold"
            return "queue_full", text, None
        if function.agents or function.by_value or again:
            return None
        key = function.name, queue
        if key not in self.refusals:
            served = tables.queues.get(queue)
            hint = served is not None and not self._hints.excess(b"", tables.now_ns)
            facts = None if served is None else unknown_function(function, served, hint=hint)
            self.refusals[key] = None if facts is None else _unknown(facts)
        return self.refusals[key]

    def on_memory(self, event: MemoryShort) -> None:
        """The process takes more memory than it may, or not any more."""
        tables = self._tables
        tables.memory_short = event.text
        tables.counters["memory_short"] += bool(event.text)
        news = event.text or "the broker has memory again, and takes on new tasks"
        tables.outbox.log("warning", news)

    def accept(
        self,
        client: Client,
        task_id: bytes,
        function: Function,
        payload: m.Payload,
        options: m.Options,
        state: State = State.QUEUED,
    ) -> Task:
        """Take on a task. In state QUEUED it is in line at once.

        In state HELD an earlier broker may have started it, and the caller says what is next.
        """
        tables = self._tables
        number = tables.accepted = tables.accepted + 1
        fence = tables.first_fence if state is State.QUEUED else 0
        task = Task(
            task_id, function, payload, options, client, number, tables.now_ns, state, fence
        )
        tables.tasks[task_id] = task
        function.accepted += 1
        size = len(payload)
        client.open_tasks += 1
        client.bytes += size
        tables.open_tasks += 1
        tables.bytes += size
        if tables.commits.durable:
            task.digest = digest_of(payload)
            tables.commits.save(task)
        if options.expires_ms or options.deadline_ms:
            self._lifecycle.limit(task)
        if options.forward_output:
            tables.outbox.forwards = True
        if state is State.QUEUED:
            tables.queue(options.queue).add(task)
        return task

    def withdraw(self, task: Task) -> None:
        """The journal could not take it: as if it had never been accepted. No agent has it."""
        tables, client = self._tables, task.client
        if task.state in TERMINAL:
            client.ended_tasks -= 1
        else:
            if task.agent is not None:
                agent = task.agent
                self._placing.close(task)
                self._placing.refresh(agent)
            elif task.state is State.QUEUED:
                tables.queue(task.options.queue).forget(task)
            tables.move(task, Cause.CANCEL)
            task.function.accepted -= 1
            client.open_tasks -= 1
            tables.open_tasks -= 1
        size = task.size()
        client.bytes -= size
        tables.bytes -= size
        tables.relieve(client)
        tables.counters["tasks_withdrawn"] += 1
        del tables.tasks[task.id]
        tables.waiting.give_up(task.id, "the broker could not write it to its journal")


def _unknown(facts: m.Facts) -> Refusal:
    counts = {name: facts[name] for name in ("closest", "workers", "functions") if name in facts}
    return "unknown_function", str(facts["text"]), counts


def same_call(task: Task, function: Function, payload: m.Payload) -> bool:
    """Whether a repeated submission is of this very task."""
    if task.function is not function:
        return False
    return digest_of(payload) == (task.digest or digest_of(task.payload))
