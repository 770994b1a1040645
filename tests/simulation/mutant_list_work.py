"""Small mistakes around generators, care of workers and schedules: more of `mutant_list.py`.

Rules of this file: as there.
"""

from __future__ import annotations

from typing import Final

from tests.simulation.mutant_list import Mutant

WORK_MUTANTS: Final = (
    # --- Generators -------------------------------------------------------------------------------
    Mutant(
        "a client takes values with gaps",
        "evener.session_streams",
        "        if index != stream.next:\n",
        "        if index < stream.next:\n",
    ),
    Mutant(
        "values are not told again in a new session",
        "evener_worker.core",
        "        self._offer_all = self.streams.stale = True\n",
        "        self._offer_all = True\n",
    ),
    Mutant(
        "what was taken of an older attempt counts for the new one",
        "evener_broker.reports",
        "            elif task.fence == fence:\n",
        "            elif task.fence:\n",
    ),
    Mutant(
        "values that nobody claims are waited for",
        "evener_broker.reports",
        "        return tables.now_ns >= until_ns\n",
        "        return False\n",
    ),
    Mutant(
        "after values were dropped the rest goes to the client",
        "evener_broker.reports",
        "            if client.gone or task.tries.facts == VALUES_DROPPED:\n",
        "            if client.gone:\n",
    ),
    Mutant(
        "of generators side by side the last one's values are those of all",
        "evener_worker.shares",
        "        return shared.attempt\n    head = slot.handed[0] if slot.handed else None\n",
        "        return next(reversed(slot.shared.values())).attempt\n"
        "    head = slot.handed[0] if slot.handed else None\n",
    ),
    # --- Care of workers --------------------------------------------------------------------------
    Mutant(
        "all workers that reached a limit leave at a time",
        "evener_worker.care",
        "        return max(1, self._pool.size // AWAY_DIVISOR)\n",
        "        return 100\n",
    ),
    Mutant(
        "who is recycled leaves with work in its hands",
        "evener_worker.care",
        "            if slot.state is SlotState.RETIRING and not slot.busy:\n",
        "            if slot.state is SlotState.RETIRING:\n",
    ),
    Mutant(
        "nobody looks at the age of workers",
        "evener_worker.care",
        "            if 0 < slot.age_at_ns <= now_ns and not slot.due:\n",
        "            if False:\n",
    ),
    Mutant(
        "nobody looks at the memory of workers",
        "evener_worker.care",
        "                if not slot.due and slot.ready_ns and pool.limits.too_large(slot):\n",
        "                if False:\n",
    ),
    # --- Schedules --------------------------------------------------------------------------------
    Mutant(
        "a run is made beside the last one",
        "evener_broker.schedule_runs",
        '        if not open_tasks or overlap == "queue":\n',
        "        if overlap:\n",
    ),
    Mutant(
        "intervals drift",
        "evener_broker.schedules",
        "            schedule.due_ns = due_ns + schedule.spec.every_ms * MILLISECOND_NS\n",
        "            now_ns = self._tables.now_ns\n"
        "            schedule.due_ns = now_ns + schedule.spec.every_ms * MILLISECOND_NS\n",
    ),
    Mutant(
        "a paused schedule runs",
        "evener_broker.schedules",
        '        if schedule.paused or (is_missed and schedule.spec.late == "skip"):\n',
        '        if is_missed and schedule.spec.late == "skip":\n',
    ),
    Mutant(
        "a schedule is not armed again",
        "evener_broker.schedules",
        "            self._on_due(schedule, schedule.due_ns)\n        self._arm(schedule)\n",
        "            self._on_due(schedule, schedule.due_ns)\n",
    ),
)
