"""Small mistakes in what the broker does with its journal: more of `mutant_list.py`.

Rules of this file: as there.
"""

from __future__ import annotations

from typing import Final

from tests.simulation.mutant_list import Mutant

JOURNAL_MUTANTS: Final = (
    Mutant(
        "new tasks overtake those that a restart holds back",
        "evener_broker.recovery",
        "        return bool(self._lines)\n",
        "        return False\n",
    ),
    Mutant(
        "after a loss a task begins anew while others may have it",
        "evener_broker.lifecycle",
        "        elif not self._waits_for_others(task):\n",
        "        else:\n",
    ),
    Mutant(
        "what came back after a restart is over in memory alone",
        "evener_broker.recovery",
        "        self._tables.commits.tried(task)  # a broker that comes after us",
        "        # a broker that comes after us",
    ),
    Mutant(
        "ACCEPTED before it is on disk",
        "evener_broker.saving",
        "        elif turn.records:\n            commits.turn = Promises()\n",
        "        elif turn.records:\n            commits.turn = Promises()\n"
        "            self._accept(turn)\n",
    ),
    Mutant(
        "ACK to agents before it is on disk",
        "evener_broker.sessions",
        "        self._tables.commits.acknowledge(session)",
        "        self._tables.outbox.send(session, m.Ack(session.sequence.received))",
    ),
    Mutant(
        "RUN before its task is on disk",
        "evener_broker.placing",
        "if is_unnamed or task.txn > commits.committed:",
        "if is_unnamed:",
    ),
    Mutant(
        "RUN before its agent is on disk",
        "evener_broker.placing",
        "if is_unnamed or task.txn > commits.committed:",
        "if task.txn > commits.committed:",
    ),
    Mutant(
        "ends are told before they are on disk",
        "evener_broker.lifecycle",
        "            tables.commits.end(task, TERMINAL_CODES[task.state])\n",
        "            tables.commits.end(task, TERMINAL_CODES[task.state])\n"
        "            tables.commits.turn.terminals.pop()\n"
        "            tables.outbox.terminal(task)\n",
    ),
    Mutant(
        "a failed commit counts as one that worked",
        "evener_broker.saving",
        "        commits.failing = event.reason\n        failed = Promises()\n",
        "        self.on_committed(Committed(commits.appended, commits.bytes_used))\n"
        "        return\n"
        "        commits.failing = event.reason\n        failed = Promises()\n",
    ),
    Mutant(
        "ends of a failed commit are not written again",
        "evener_broker.saving",
        "        failed.bytes = 0\n",
        "        failed.bytes = 0\n        failed.records.ended.clear()\n",
    ),
    Mutant(
        "what one client took, others took as well",
        "evener_broker.restore",
        "not 0 < kept.order <= upto.get(kept.client, 0):\n",
        "not 0 < kept.order <= max(upto.values(), default=0):\n",
    ),
    Mutant(
        "what may be in the journal is rejected",
        "evener_broker.saving",
        "            if promises.txn <= event.unknown:\n",
        "            if not promises.txn:\n",
    ),
    Mutant(
        "a journal that failed once is never tried again",
        "evener_broker.saving",
        "            self._append(unsaved, resume=True)\n",
        "            commits.unsaved = unsaved\n",
    ),
    Mutant(
        "what comes while the journal fails is forgotten",
        "evener_broker.saving",
        "            commits.unsaved.absorb(turn)\n",
        "            pass\n",
    ),
    Mutant(
        "the next transaction is called committed with the first",
        "evener_broker.saving",
        "        while pending and pending[0].txn <= event.txn:\n            promises",
        "        while pending:\n            promises",
    ),
    Mutant(
        "a restart forgets that a task may be dispatched once",
        "evener_broker.restore",
        "        tries.dispatched, tries.settled = kept.dispatched, kept.settled\n",
        "        tries.settled = kept.settled\n",
    ),
    Mutant(
        "a restart forgets which losses were counted",
        "evener_broker.restore",
        "        tries.dispatched, tries.settled = kept.dispatched, kept.settled\n",
        "        tries.dispatched = kept.dispatched\n",
    ),
    Mutant(
        "a restart forgets the losses of a task",
        "evener_broker.restore",
        "tries.starts, tries.failures, tries.returns = kept.starts, kept.failures, kept.returns",
        "tries.failures, tries.returns = kept.failures, kept.returns",
    ),
    Mutant(
        "losses are not written",
        "evener_broker.lifecycle",
        "            self._tables.commits.tried(task)\n",
        "            pass\n",
    ),
    Mutant(
        "a dispatch that may happen once is not written",
        "evener_broker.placing",
        "                commits.tried(task)\n",
        "                pass\n",
    ),
    Mutant(
        "open tasks of the journal are in line at once",
        "evener_broker.recovery",
        "        self._expected = agents\n",
        "        self._expected = agents = {}\n",
    ),
    Mutant(
        "ends of the journal run again",
        "evener_broker.restore",
        "    ended = kept.state is not None\n"
        "    state = State.HELD if kept.state is None else _STATES[kept.state]\n",
        "    ended = kept.state is not None and kept.call is None\n"
        "    state = _STATES[kept.state] if ended else State.HELD\n",
    ),
    Mutant(
        "acceptance numbers begin anew",
        "evener_broker.restore",
        "    tables.accepted = contents.accepted\n",
        "",
    ),
    Mutant(
        "ends that are kept give no room to tasks that need it",
        "evener_broker.retention",
        "        most, commits.short = commits.growth - commits.short, 0\n",
        "        most, commits.short = commits.growth, 0\n",
    ),
    Mutant(
        "ends are forgotten before their clients have them",
        "evener_broker.commits",
        "        self.turn.records.ended.append(ended)\n",
        "        self.turn.records.ended.append(ended)\n"
        "        self.turn.records.forgotten.append(task.number)\n",
    ),
)
