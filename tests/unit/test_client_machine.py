"""Random lives of a client's session: a broker that forgets, a way that loses, ends that repeat.

The model is what the program submitted and what a broker of our own has of it. Held: one end per
task for the program (I2), every task that has none is kept and goes to each broker there is, in the
order of submission and once per session (I4, I6), an end counts only from whoever has the task
(I3), and all of it ends once nothing breaks any more (I19, I20).
"""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from evener import session_records as r
from evener_wire import messages as m
from tests.unit.client_bench import BROKER, Bench, Task

_ENDS = (m.TERMINAL_DONE, m.TERMINAL_FAILED, m.TERMINAL_CANCELLED, m.TERMINAL_LOST)


class ClientLife(RuleBasedStateMachine):
    """One session, the program above it, and brokers one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.bench = Bench()
        self.tasks: list[Task] = []
        self.over: dict[Task, str] = {}
        self.epoch = 5
        self.way_is_free = True
        # What the broker of now has: open tasks, and the ends of others, which it tells again.
        self.known: dict[bytes, r.TerminalItem | None] = {}
        self.unanswered: list[int] = []  # numbers of SUBMITs that it took
        self.batches: dict[int, list[bytes]] = {}  # and what was in them
        self.told_before: set[bytes] = set()  # ids that an earlier broker had
        self.in_session: set[bytes] = set()
        self.last_sent = -1
        self._take_in(self.bench.step(r.Connected()))
        self._welcome()

    # --- What comes of a step ---------------------------------------------------------------------

    def _take_in(self, effects: list[r.Effect]) -> None:
        for effect in effects:
            if isinstance(effect, r.Send):
                self._sent(effect)
            elif isinstance(effect, r.Resolve):
                for ticket, item in effect.endings:
                    self._ends(ticket, m.TERMINAL_STATES[item[1]])
                    self._check_end(item)
            elif isinstance(effect, r.Reject):
                for ticket, code, _, _ in effect.tickets:
                    self._ends(ticket, f"rejected {code}")
            elif isinstance(effect, r.Abandon):
                for ticket in effect.tickets:
                    self._ends(ticket, "abandoned")

    def _ends(self, ticket: r.Ticket, how: str) -> None:
        assert isinstance(ticket, Task)
        assert ticket not in self.over, f"I2: {how} after {self.over[ticket]}"
        self.over[ticket] = how

    def _check_end(self, item: r.TerminalItem) -> None:
        """I3: as its broker told it, or cancelled before any broker had it."""
        if self.known.get(item[0]) != item:
            assert item[1] == m.TERMINAL_CANCELLED
            assert item[0] not in self.in_session, "I16: a broker has it, and decides"

    def _sent(self, effect: r.Send) -> None:
        message = effect.message
        if isinstance(message, m.Submit):
            self._submitted(effect.number, message)
        elif isinstance(message, m.Ack) and self.way_is_free:
            pass  # ends are kept here, and told again at random: they must be no news

    def _submitted(self, number: int, message: m.Submit) -> None:
        order = {task.item[0]: place for place, task in enumerate(self.tasks)}
        open_ids = {task.item[0] for task in self.tasks if task not in self.over}
        for item in message.items:
            assert item[0] in open_ids, "I2: a task that is over"
            assert item[0] not in self.in_session, "I4: twice in one session"
            assert message.again or item[0] not in self.told_before, "I23: as if it were new"
            assert order[item[0]] > self.last_sent or not self.in_session, "I13"
            self.in_session.add(item[0])
        if self.way_is_free:
            for item in message.items:
                self.known.setdefault(item[0], None)
            self.unanswered.append(number)
            self.batches[number] = [item[0] for item in message.items]

    # --- The program ------------------------------------------------------------------------------

    @rule(count=st.integers(1, 5))
    def program_submits(self, count: int) -> None:
        tasks = self.bench.tasks(count)
        self.tasks += tasks
        self._take_in(self.bench.step(r.Submitted(tasks)))

    @precondition(lambda self: self.tasks)
    @rule(which=st.integers(0, 60))
    def program_cancels(self, which: int) -> None:
        task = self.tasks[which % len(self.tasks)]
        self._take_in(self.bench.step(r.CancelAsked([task.item[0]])))

    # --- The broker -------------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        return self.bench.session.state is r.State.OPEN and self.way_is_free

    @precondition(lambda self: self.is_open and self.unanswered)
    @rule()
    def broker_accepts(self) -> None:
        upto = self.unanswered.pop(0)
        self._take_in(self.bench.hear(m.Accepted(upto)))

    @precondition(lambda self: self.is_open and any(e is None for e in self.known.values()))
    @rule(which=st.integers(0, 60), state=st.sampled_from(_ENDS))
    def broker_ends(self, which: int, state: int) -> None:
        running = [task_id for task_id, end in self.known.items() if end is None]
        task_id = running[which % len(running)]
        item = self.known[task_id] = (task_id, state, b"r", None)
        self._take_in(self.bench.hear(m.Terminal([item])))

    @precondition(lambda self: self.is_open and any(self.known.values()))
    @rule(which=st.integers(0, 60))
    def broker_repeats_an_end(self, which: int) -> None:
        ended = [end for end in self.known.values() if end is not None]
        self._take_in(self.bench.hear(m.Terminal([ended[which % len(ended)]])))

    @precondition(lambda self: self.is_open and any(e is None for e in self.known.values()))
    @rule(which=st.integers(0, 60), code=st.sampled_from(["queue_full", "conflict", "too_large"]))
    def broker_rejects(self, which: int, code: str) -> None:
        """Before it accepts; one that it was too full for may come again."""
        fresh = [i for number in self.unanswered for i in self.batches[number]]
        running = [i for i in fresh if self.known.get(i, b"") is None]
        if not running:
            return
        task_id = running[which % len(running)]
        del self.known[task_id]
        if code == "queue_full":
            self.in_session.discard(task_id)
        self._take_in(self.bench.hear(m.Rejected([(task_id, code, "")])))

    # --- The way ----------------------------------------------------------------------------------

    @rule()
    def way_breaks(self) -> None:
        """Nobody notices yet: what is sent from now on is lost."""
        self.way_is_free = False

    @rule(restarted=st.booleans(), out_of_step=st.booleans())
    def session_begins_anew(self, restarted: bool, out_of_step: bool) -> None:
        bench = self.bench
        if out_of_step and self.is_open:
            self._take_in(bench.hear_outside(m.Resync("out of step")))
        else:
            self._take_in(bench.step(r.Disconnected("cut")))
            self._take_in(bench.step(r.Connected()))
        if restarted:
            self.epoch += 1
            self.told_before |= self.known.keys() | self.in_session
            self.known.clear()
        self.way_is_free = True
        self._welcome()

    def _welcome(self) -> None:
        self.unanswered.clear()
        self.in_session = {task_id for task_id in self.in_session if self._is_accepted(task_id)}
        broker = BROKER[:-1] + bytes([self.epoch % 256])
        for _ in range(10):
            if self.bench.session.state is r.State.GREETING:
                break
            self._take_in(self.bench.step(after_ns=500_000_000))
        self.in_session.clear()
        self._take_in(self.bench.welcome(broker, self.epoch))
        for end in [end for end in self.known.values() if end is not None]:
            self._take_in(self.bench.hear(m.Terminal([end])))

    def _is_accepted(self, task_id: bytes) -> bool:
        return task_id in self.known

    @rule(ms=st.sampled_from([1, 30, 1_000]))
    def time_passes(self, ms: int) -> None:
        if self.is_open:
            self._take_in(self.bench.hear(m.Heartbeat()))
        self._take_in(self.bench.step(after_ns=ms * 1_000_000))

    # --- What holds -------------------------------------------------------------------------------

    @invariant()
    def nothing_is_forgotten(self) -> None:
        """I6, I20: what has no end is kept, and nothing else."""
        kept = self.bench.session.tasks
        for task in self.tasks:
            assert (task.item[0] in kept) == (task not in self.over), (task, self.over.get(task))

    def teardown(self) -> None:
        """I19: a broker that listens, and ends everything."""
        self.session_begins_anew(restarted=False, out_of_step=False)
        for _ in range(100):
            while self.unanswered:
                self.broker_accepts()
            while any(end is None for end in self.known.values()):
                self.broker_ends(0, m.TERMINAL_DONE)
            if len(self.over) == len(self.tasks):
                break
            self.time_passes(1_000)
        assert len(self.over) == len(self.tasks)
        counts = self.bench.session.tasks.counts()
        assert counts == {"open": 0, "waiting": 0, "flights": 0, "held": 0}, counts


TestClientLife = ClientLife.TestCase
TestClientLife.settings = settings(
    max_examples=25,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
