"""What people want of schedules: a run now, a pause, no pause any more.

Rules of this file: a pause outlives the broker where there is a journal, so whoever asks for one
hears of it once that is on disk. It belongs to the name, however often the schedule is changed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from evener_broker.answers import pack, schedule_view
from evener_broker.records import Session
from evener_broker.schedule_records import Schedule, asked_id
from evener_broker.schedule_runs import Runs
from evener_broker.tables import Tables
from evener_wire import messages as m


class Wishes:
    """Caller: schedules, and the broker core."""

    def __init__(self, tables: Tables, runs: Runs) -> None:
        self._tables = tables
        self._runs = runs
        # Names in the journal whose schedules nobody has offered yet.
        self._restored: Final[set[str]] = set()

    # --- The journal ------------------------------------------------------------------------------

    def restored(self, names: Iterable[str]) -> None:
        """The journal has these as paused."""
        self._restored.update(names)

    def offered(self, schedule: Schedule) -> None:
        """Its name was not known before."""
        name = schedule.spec.name
        if name in self._restored:
            self._restored.discard(name)
            schedule.paused = True

    def gone(self, schedule: Schedule) -> None:
        """Nobody has offered it for long, and others need its place."""
        if schedule.paused:
            self._tables.commits.pause(schedule.spec.name, paused=False)

    def forget_restored(self) -> None:
        """Nobody has offered those for a day."""
        for name in sorted(self._restored):
            self._tables.commits.pause(name, paused=False)
        self._restored.clear()

    # --- Questions --------------------------------------------------------------------------------

    def take(self, session: Session, query: m.Query) -> bool:
        """Do what is wanted of a schedule, and tell how it stands; False: another question."""
        if query.what != "schedule":
            return False
        try:
            schedule = self._change_for(query.arguments.get("name"), query.arguments.get("do"))
        except ValueError as error:
            ok, body = False, pack(str(error))
        else:
            ok, body = True, pack(schedule_view(self._tables, schedule))
        answer = m.Answer(query.number, ok, body)
        if not self._tables.commits.answer(session, answer):
            self._tables.outbox.send(session, answer)
        return True

    def _change_for(self, name: object, wish: object) -> Schedule:
        schedule = self._tables.schedules.get(name) if isinstance(name, str) else None
        if schedule is None:
            names = ", ".join(sorted(self._tables.schedules)) or "none"
            raise ValueError(f'there is no schedule "{name}"; there are: {names}')
        if wish in ("pause", "resume"):
            commits = self._tables.commits
            if commits.failing:
                raise ValueError(f"the broker cannot write its journal: {commits.failing}")
            schedule.paused = wish == "pause"
            commits.pause(schedule.spec.name, paused=schedule.paused)
            return schedule
        if wish != "run":
            raise ValueError(f'a schedule cannot "{wish}"; it can run, pause and resume')
        open_tasks = self._runs.open_of(schedule)
        if open_tasks and schedule.spec.overlap != "queue":
            raise ValueError(f"its last run is still open: task {open_tasks[-1].id.hex()}")
        drawn = self._tables.rng.getrandbits(63)
        refused = self._runs.make(schedule, asked_id(schedule.key, drawn))
        if refused:
            raise ValueError(refused)
        # Questions are answered at the end of a turn: it is handed out in another one, at once.
        self._tables.timers.set(self._tables.now_ns, _wake, None)
        return schedule


def _wake(_: object) -> None:
    """Nothing is to be done but a turn."""
