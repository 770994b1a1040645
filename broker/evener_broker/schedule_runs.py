"""Runs of schedules: tasks that the broker makes by itself, and what becomes of them.

Rules of this file: when a run is due, others say (`schedules.py`, `schedule_wishes.py`). Changes:
tasks of the client that stands for all schedules, and what schedules know of their runs.
"""

from __future__ import annotations

from typing import Final

from evener_broker.admission import Admission
from evener_broker.lifecycle import Lifecycle
from evener_broker.records import Client, Task
from evener_broker.retention import Retention
from evener_broker.schedule_records import SCHEDULER, SCHEDULER_NAME, Schedule, read_id
from evener_broker.tables import Tables
from evener_broker.transitions import TERMINAL


class Runs:
    """Caller: the parts that schedules have, and the broker core at the end of a turn."""

    def __init__(
        self, tables: Tables, admission: Admission, lifecycle: Lifecycle, retention: Retention
    ) -> None:
        self._tables = tables
        self._admission = admission
        self._lifecycle = lifecycle
        self._retention = retention
        self.by_key: Final[dict[bytes, Schedule]] = {}
        # Of runs in the journal, by key: those that are open, and the last due time.
        self.restored: Final[dict[bytes, tuple[list[bytes], int]]] = {}
        # Those with a run that waits for the end of the one before.
        self.waiting: Final[dict[str, Schedule]] = {}
        # How many ends are kept, each the last one of its schedule.
        self.kept = 0

    def _client(self) -> Client:
        clients = self._tables.clients
        client = clients.get(SCHEDULER)
        if client is None:
            client = clients[SCHEDULER] = Client(SCHEDULER, SCHEDULER_NAME, {})
        client.closed = True  # nobody comes for the ends: dead letters are for people
        return client

    def open_of(self, schedule: Schedule) -> list[Task]:
        """Its runs that have not ended."""
        found = [self._tables.tasks.get(task_id) for task_id in schedule.open]
        tasks = [task for task in found if task is not None and task.state not in TERMINAL]
        schedule.open = [task.id for task in tasks]
        return tasks

    def due(self, schedule: Schedule, task_id: bytes) -> None:
        """A run is due. What it does while the last one is open, its schedule says."""
        if task_id in self._tables.tasks:
            return  # an earlier broker made it
        overlap, open_tasks = schedule.spec.overlap, self.open_of(schedule)
        if not open_tasks or overlap == "queue":
            # One that waited for the last one to end has its place taken by this.
            schedule.skipped += schedule.waiting is not None
            schedule.waiting = None
            self.make(schedule, task_id)
        elif overlap == "skip":
            schedule.skipped += 1
        else:
            schedule.skipped += schedule.waiting is not None
            schedule.waiting = task_id
            self.waiting[schedule.spec.name] = schedule
            for task in open_tasks:
                self._lifecycle.cancel(task)

    def make(self, schedule: Schedule, task_id: bytes) -> str:
        """Make the task of a run; returns why not, or nothing."""
        tables, spec = self._tables, schedule.spec
        client, function = self._client(), tables.functions.get(spec.function)
        text = f"no worker knows {spec.function}"
        if function is not None:
            queue = function.options.queue
            refusal = self._admission.refusal(client, function, spec.call, queue, again=False)
            self._admission.refusals.clear()
            text = "" if refusal is None else refusal[1]
        if function is None or text:
            schedule.skipped += 1
            tables.outbox.log("warning", f"schedule {spec.name}: a run is left out: {text}")
            return text
        self._admission.accept(client, task_id, function, spec.call, function.options)
        schedule.open.append(task_id)
        schedule.last_id, schedule.last_ns, schedule.last_end = task_id, tables.now_ns, None
        schedule.runs += 1
        return ""

    # --- The end of a turn ------------------------------------------------------------------------

    def look(self) -> None:
        """Make runs that waited for the end of others, and take in ends."""
        for name, schedule in list(self.waiting.items()):
            task_id = schedule.waiting
            if task_id is None or not self.open_of(schedule):
                del self.waiting[name]
                schedule.waiting = None
                if task_id is not None:
                    self.make(schedule, task_id)
        client = self._tables.clients.get(SCHEDULER)
        if client is not None and len(client.outgoing) != self.kept:
            self._take_ends(client)

    def _take_ends(self, client: Client) -> None:
        """Of each schedule the last end is kept, so that the journal tells what it was."""
        kept: dict[bytes, Task] = {}
        taken: list[Task] = []
        for task in client.outgoing:
            key, due_ns = read_id(task.id)
            schedule = self.by_key.get(key)
            if schedule is not None and schedule.last_id in (None, task.id):
                schedule.last_id, schedule.last_end = task.id, task.state.value
            if due_ns is None or (schedule is None and key not in self.restored):
                taken.append(task)
                continue
            other = kept.get(key)
            newer = task if other is None or other.number < task.number else other
            if other is not None:
                taken.append(other if newer is task else task)
            kept[key] = newer
        client.outgoing.clear()
        client.outgoing.extend(kept.values())
        self.kept = len(kept)
        if taken:
            self._retention.taken(client, taken)
