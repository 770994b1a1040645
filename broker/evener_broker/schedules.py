"""Runs that are due: the broker makes tasks by itself, each due time once in the whole cluster.

What a run is, stands in `schedule_runs.py`; what people want of schedules, in `schedule_wishes.py`.
Intervals go by the broker's own clock. Cron goes by the wall clock, whose reading comes in as an
event: where it jumps forward, what it jumped over is left out; where it goes back, nothing runs
twice. The id of a run follows from its schedule and its due time, and the last run of each is kept,
so that a journal remembers both. Changes: schedules, tasks of the client that stands for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from evener_broker.cron import CronError, last_due_ns, next_due_ns
from evener_broker.events import WallClock
from evener_broker.records import Agent
from evener_broker.schedule_records import (
    SCHEDULER,
    Schedule,
    jitter_ns,
    key_of,
    read_id,
    run_id,
)
from evener_broker.schedule_runs import Runs
from evener_broker.schedule_wishes import Wishes
from evener_broker.tables import Tables
from evener_broker.transitions import TERMINAL
from evener_wire import messages as m
from evener_wire.limits import BROKER_SCHEDULES_MAX, MILLISECOND_NS, SECOND_NS

# A run that could not be made for so long after it was due counts as missed.
_MISSED_NS: Final = 10 * SECOND_NS

# The wall clock may be set forward by so much without anything being left out: runs are made late.
_SET_FORWARD_NS: Final = 60 * SECOND_NS

# Set back by more than this, it was wrong before, and cron schedules begin anew.
_SET_BACK_NS: Final = 24 * 3_600 * SECOND_NS

# Timers of cron schedules are set anew once the two clocks drifted apart by this.
_DRIFT_NS: Final = SECOND_NS

# How long after its start a broker remembers schedules of its journal that nobody offers.
_RESTORED_NS: Final = 24 * 3_600 * SECOND_NS


class Schedules:
    """Caller: the broker core."""

    def __init__(self, tables: Tables, runs: Runs, wishes: Wishes) -> None:
        self._tables = tables
        self._runs = runs
        self._wishes = wishes
        # What the wall clock was ahead of ours when timers were set.
        self._set_ahead_ns = 0

    # --- The clocks -------------------------------------------------------------------------------

    def on_wall(self, event: WallClock) -> None:
        """What the wall clock says at this moment."""
        before, ahead_ns = self._tables.wall_ahead_ns, event.wall_ns - self._tables.now_ns
        self._tables.wall_ahead_ns = ahead_ns
        jump_ns = 0 if before is None else ahead_ns - before
        leaves_out = jump_ns > _SET_FORWARD_NS or jump_ns < -_SET_BACK_NS
        if before is None or leaves_out or abs(ahead_ns - self._set_ahead_ns) >= _DRIFT_NS:
            self._set_ahead_ns = ahead_ns
            for schedule in self._tables.schedules.values():
                if not schedule.spec.cron:
                    continue
                if schedule.due_ns is None and before is None:
                    self._begin(schedule)
                elif leaves_out and schedule.due_ns is not None:
                    schedule.skipped += schedule.due_ns <= event.wall_ns
                    self._due_after(schedule, event.wall_ns)
                self._arm(schedule)
        if leaves_out:
            text = (
                f"the wall clock was set by {jump_ns / 1e9:+.0f} s: cron schedules go on from now"
            )
            self._tables.outbox.log("warning", text)

    def _wall_ns(self) -> int:
        return self._tables.now_ns + (self._tables.wall_ahead_ns or 0)

    def _own_ns(self, schedule: Schedule, due_ns: int) -> int:
        """When it is due, in time of the broker's own clock."""
        return due_ns - (self._tables.wall_ahead_ns or 0) if schedule.spec.cron else due_ns

    def _id(self, schedule: Schedule, due_ns: int) -> bytes:
        return run_id(schedule.key, due_ns if schedule.spec.cron else due_ns + schedule.base_ns)

    # --- What agents offer ------------------------------------------------------------------------

    def restored(self, paused: Sequence[str]) -> None:
        """The tables were filled from a journal: see which runs were the last."""
        tables = self._tables
        self._wishes.restored(paused)
        if SCHEDULER not in tables.clients and not paused:
            return
        for task in tables.tasks.values():
            if task.client.instance == SCHEDULER:
                key, due_ns = read_id(task.id)
                is_open = [] if task.state in TERMINAL else [task.id]
                open_before, last_ns = self._runs.restored.get(key, ([], 0))
                self._runs.restored[key] = open_before + is_open, max(last_ns, due_ns or 0)
        tables.timers.set(tables.now_ns + _RESTORED_NS, self._forget_restored, None)

    def _forget_restored(self, _: object) -> None:
        self._wishes.forget_restored()
        self._runs.restored.clear()
        self._runs.kept = -1

    def offered(self, agent: Agent, specs: Sequence[m.Schedule]) -> None:
        """An agent tells all that its app wants to run by itself."""
        tables = self._tables
        names = {spec.name for spec in specs}
        for schedule in tables.schedules.values():
            if schedule.spec.name not in names:
                schedule.agents.discard(agent)
        left_out = 0
        for spec in specs:
            known = tables.schedules.get(spec.name)
            if known is None and not self._has_room():
                left_out += 1
                continue
            if known is None:
                known = tables.schedules[spec.name] = Schedule(spec)
                self._wishes.offered(known)
                self._adopt(known)
            elif known.spec != spec:
                self._change(known, spec)
            was_served = self._is_served(known)
            known.agents.add(agent)
            if not was_served:
                self._arm(known)
        if left_out:
            tables.counters["names_left_out"] += left_out
            text = f"agent {agent.name}: {left_out} schedules more than the broker can hold"
            tables.outbox.log("warning", text, agent.instance)

    def _has_room(self) -> bool:
        schedules = self._tables.schedules
        if len(schedules) >= BROKER_SCHEDULES_MAX:
            for name, schedule in list(schedules.items()):
                if not self._is_served(schedule) and not self._runs.open_of(schedule):
                    del schedules[name]
                    self._wishes.gone(schedule)
                    self._runs.by_key.pop(schedule.key, None)
                    self._runs.waiting.pop(name, None)
                    self._runs.kept = -1
        return len(schedules) < BROKER_SCHEDULES_MAX

    def _is_served(self, schedule: Schedule) -> bool:
        """Whether any agent that is here, or may come back, offers it."""
        agents = self._tables.agents
        schedule.agents = {a for a in schedule.agents if agents.get(a.instance) is a}
        return bool(schedule.agents)

    def _change(self, schedule: Schedule, spec: m.Schedule) -> None:
        """The same name, offered in another way: the last one who says so is right."""
        schedule.spec = spec
        key = key_of(spec)
        if key != schedule.key:
            self._runs.by_key.pop(schedule.key, None)
            schedule.key, schedule.due_ns = key, None
            self._runs.kept = -1
            self._adopt(schedule)
        self._arm(schedule)

    def _adopt(self, schedule: Schedule) -> None:
        self._runs.by_key[schedule.key] = schedule
        schedule.open += self._runs.restored.get(schedule.key, ([], 0))[0]
        self._begin(schedule)

    # --- Due times --------------------------------------------------------------------------------

    def _begin(self, schedule: Schedule) -> None:
        """Find the first due time: after the last run, if the journal has one, or after now."""
        tables, spec = self._tables, schedule.spec
        last_ns = self._runs.restored.get(schedule.key, ([], 0))[1]
        wall_ns = self._wall_ns()
        if spec.cron:
            if self._tables.wall_ahead_ns is not None:
                is_known = last_ns and last_ns - wall_ns < _SET_BACK_NS
                self._due_after(schedule, last_ns if is_known else wall_ns)
            return
        every_ns = spec.every_ms * MILLISECOND_NS
        # Nobody else knows how long there was no broker; the wall clock may be wrong about that.
        passed_ns = (
            max(0, wall_ns - last_ns) if last_ns and self._tables.wall_ahead_ns is not None else 0
        )
        schedule.due_ns = tables.now_ns + every_ns - passed_ns
        schedule.base_ns = (last_ns + every_ns if last_ns else wall_ns + every_ns) - schedule.due_ns

    def _due_after(self, schedule: Schedule, moment_ns: int) -> None:
        spec = schedule.spec
        try:
            schedule.due_ns = next_due_ns(spec.cron, spec.zone, moment_ns)
            schedule.error = "" if schedule.due_ns is not None else "it is never due"
        except CronError as error:
            schedule.due_ns = None
            if schedule.error != str(error):
                self._tables.outbox.log("error", f"schedule {spec.name}: {error}")
            schedule.error = str(error)

    def _arm(self, schedule: Schedule) -> None:
        """See to it that a timer fires no later than the next run is due."""
        if schedule.due_ns is None:
            return
        at_ns = self._fires_ns(schedule, schedule.due_ns)
        if schedule.timer_ns is None or at_ns < schedule.timer_ns:
            schedule.timer_ns = at_ns
            self._tables.timers.set(at_ns, self._on_timer, (schedule, at_ns))

    def _fires_ns(self, schedule: Schedule, due_ns: int) -> int:
        return self._own_ns(schedule, due_ns) + jitter_ns(schedule.spec, self._id(schedule, due_ns))

    def _on_timer(self, subject: tuple[Schedule, int]) -> None:
        schedule, at_ns = subject
        tables = self._tables
        if schedule.timer_ns != at_ns or tables.schedules.get(schedule.spec.name) is not schedule:
            return  # another one was set for it, or it is gone
        schedule.timer_ns = None
        if schedule.due_ns is None or not self._is_served(schedule):
            return  # the next agent that offers it arms it
        if tables.now_ns >= self._fires_ns(schedule, schedule.due_ns):
            self._on_due(schedule, schedule.due_ns)
        self._arm(schedule)

    def _on_due(self, schedule: Schedule, due_ns: int) -> None:
        late_ns = self._tables.now_ns - self._fires_ns(schedule, due_ns)
        if late_ns >= SECOND_NS:
            due_ns = self._latest(schedule, due_ns)
        is_missed = late_ns > _MISSED_NS
        schedule.missed += is_missed
        if schedule.paused or (is_missed and schedule.spec.late == "skip"):
            schedule.skipped += 1
        else:
            self._runs.due(schedule, self._id(schedule, due_ns))
        if schedule.spec.cron:
            self._due_after(schedule, due_ns)
        else:
            schedule.due_ns = due_ns + schedule.spec.every_ms * MILLISECOND_NS

    def _latest(self, schedule: Schedule, due_ns: int) -> int:
        """Of the due times that were missed the last one; it stands for all."""
        spec = schedule.spec
        if spec.cron:
            latest_ns = last_due_ns(spec.cron, spec.zone, self._wall_ns())
            return max(due_ns, latest_ns or 0)
        every_ns = spec.every_ms * MILLISECOND_NS
        return due_ns + (self._tables.now_ns - due_ns) // every_ns * every_ns
