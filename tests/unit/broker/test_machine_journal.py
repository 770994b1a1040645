"""The random lives of `test_machine.py` with a journal: it commits late, in parts, or fails.

What was on disk is known to every later broker (I5), and an end there is never run again (I23); the
world sees to it that nothing promises more than is on disk.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule

from evener_broker.transitions import TERMINAL
from evener_wire import messages as m
from tests.unit.broker.fake_journal import FakeJournal
from tests.unit.broker.test_machine import Cluster
from tests.unit.broker.world import World, task_id


class DurableCluster(Cluster):
    """The same cluster, whose broker has a journal."""

    def __init__(self) -> None:
        super().__init__()
        # Tasks whose clients were told that the journal could not take them. What they hear later
        # of such a task, if an unknown commit had it after all, is no news to them.
        self.rejected: set[int] = set()
        for client in self.clients:
            setattr(client, "end", partial(self._end_of, client.end))  # noqa: B010

    def _end_of(self, end: Callable[[int], str], number: int) -> str:
        how = end(number)
        return "rejected" if how == "open" and number in self.rejected else how

    def make_world(self) -> World:
        """Nothing is committed before a rule says so."""
        self.journal = FakeJournal(auto=False)
        return World(journal=self.journal)

    @rule(most=st.sampled_from([1, 2, None]))
    def journal_commits(self, most: int | None) -> None:
        if self.journal.pending:
            self.world.commit(most)

    @rule(written=st.booleans())
    def journal_fails(self, written: bool) -> None:
        """Tasks that it would have saved are withdrawn: to their clients they have failed."""
        if not self.journal.pending:
            return
        self.world.fail(written=written)
        known = self.world.core.tables.tasks
        for number, (client, _, _) in self.submitted.items():
            is_open = client.end(number) == "open" and self.known[client] == self.epoch
            if is_open and task_id(number) not in known:
                self.rejected.add(number)

    def refused_again(self, refused: list[m.Rejected]) -> None:
        """While the journal fails, of what no broker ever had on disk."""
        on_disk = {kept.id for kept in self.journal.tasks.values()}
        numbers = {task_id(number): number for number in self.submitted}
        for item in (item for message in refused for item in message.items):
            assert item[1] == "journal", item
            assert item[0] not in on_disk, "what is on disk the next broker takes (I5)"
            self.rejected.add(numbers[item[0]])

    @property
    def epoch(self) -> int:
        """Of the broker."""
        return self.world.core.tables.epoch

    @invariant()
    def what_is_on_disk_is_known(self) -> None:
        """I5, I23: in no earlier state."""
        tables, commits = self.world.core.tables, self.world.core.tables.commits
        noted = [*commits.pending, commits.unsaved]
        gone = {number for promises in noted for number in promises.records.forgotten}
        for number, kept in self.journal.tasks.items():
            task = tables.tasks.get(kept.id)
            if number in gone:
                continue
            assert task is not None, kept
            assert kept.state is None or task.state in TERMINAL, (kept, task)

    def teardown(self) -> None:
        """The journal works again."""
        self.journal.auto = True
        self.world.commit()
        self.world.pass_ms(2_000)
        # What a client submitted again while the disk failed, and had never been accepted before.
        refused = {
            item[0]
            for client in self.clients
            for message in client.got(m.Rejected)
            for item in message.items
        }
        self.rejected.update(n for n in self.submitted if task_id(n) in refused)
        super().teardown()


TestDurableCluster = DurableCluster.TestCase
TestDurableCluster.settings = settings(
    max_examples=50,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
