"""Random lives of an agent's core: a broker that forgets, workers that die, work taken back.

The model is what the broker sent, what workers really started, and what was told. Held: nothing
runs twice (I7, I9), one end per attempt which is told in the same bytes (I1, I8), what never
started is told as returned and only that (I11), nothing is forgotten before the broker has it
(I20), and all of it ends once nothing breaks any more (I19).
"""

from __future__ import annotations

import msgpack
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from evener_wire import messages as m
from evener_worker import channel as c
from evener_worker import effects as f
from evener_worker import events as e
from evener_worker.slots import LIVING
from tests.agent_harness import Bench, item, key

WORKERS = 3
OTHER = b"c" * 16

# What a worker that was flagged may say of its end.
STOPPED = {m.CANCELLED, m.TIMED_OUT}


class AgentLife(RuleBasedStateMachine):
    """One agent, its workers as a kernel would run them, and the broker's side of the session."""

    def __init__(self) -> None:
        super().__init__()
        self.bench = Bench(WORKERS)
        self.looked = 0
        self.sessions = 11
        self.last = 0  # task numbers given so far
        self.wanted: set[int] = set()  # sent, and their end not yet acknowledged
        self.void: set[int] = set()  # a broker sent them that does not exist any more
        self.started: set[int] = set()
        self.handed: dict[int, dict[int, int]] = {}  # by slot: sequence -> task
        self.batches: dict[int, list[int]] = {}  # by slot: last number of those not gone through
        self.flagged: dict[int, int] = {}  # by slot: sequence
        self.running: dict[int, int] = {}  # by slot: sequence
        self.told: dict[int, bytes] = {}
        self.unacked: dict[int, list[int]] = {}  # by message number of this session
        self.cancelled: set[int] = set()
        self.bench.open()
        self._look()

    # --- What comes of a step ---------------------------------------------------------------------

    def _look(self) -> None:
        effects, self.looked = self.bench.effects[self.looked :], len(self.bench.effects)
        # What comes of answers at once is noted twice: it counts where it stands last.
        last = {id(effect): place for place, effect in enumerate(effects)}
        for effect in [effects[place] for place in sorted(last.values())]:
            if isinstance(effect, f.Hand):
                slot = self.handed.setdefault(effect.slot, {})
                for sequence, attempt in enumerate(effect.attempts, effect.first):
                    number = int.from_bytes(attempt.key[0], "big")
                    assert number not in self.started, "I7, I9: it ran before"
                    holders = [s for s, has in self.handed.items() if number in has.values()]
                    assert not holders, "I7: somebody has it"
                    slot[sequence] = number
                self.batches.setdefault(effect.slot, []).append(sequence)
            elif isinstance(effect, f.TakeBack):
                self._taken_back(effect.slot, effect.count)
            elif isinstance(effect, f.Flag):
                self.flagged[effect.slot] = effect.sequence
            elif isinstance(effect, f.SendResults):
                self._told(effect)

    def _taken_back(self, slot: int, count: int) -> None:
        """The bench answers for the permits: the last of those no worker can start any more."""
        has = self.handed.get(slot, {})
        waiting = sorted(s for s in has if s > self.bench.started.get(slot, 0))
        for sequence in waiting[max(0, len(waiting) - count) :]:
            assert has[sequence] not in self.started
            del has[sequence]

    def _go_on(self, slot: int) -> None:
        """A worker that runs nothing goes through its batches, and tells which of them were cut."""
        batches = self.batches.get(slot, [])
        while batches and slot not in self.running:
            if any(sequence <= batches[0] for sequence in self.handed[slot]):
                return
            last = batches.pop(0)
            if last > self.bench.started[slot]:
                self.bench.step(e.Dropped(slot, last))
                self._look()

    def _told(self, effect: f.SendResults) -> None:
        numbers: list[int] = []
        for attempt in effect.attempts:
            unpacked = msgpack.unpackb(attempt.packed)
            number, outcome = int.from_bytes(unpacked[0], "big"), unpacked[2]
            numbers.append(number)
            assert (unpacked[0], unpacked[1]) == key(number)
            assert self.told.setdefault(number, attempt.packed) == attempt.packed, "I1: two ends"
            assert (outcome == m.RETURNED) <= (number not in self.started), "I11: it started"
            assert (outcome in (m.LOST, m.DONE)) <= (number in self.started), "I11: it did not"
            if outcome in STOPPED:
                assert number in self.cancelled or outcome == m.TIMED_OUT
        self.unacked[effect.number] = numbers

    # --- The broker -------------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        return self.bench.core.session.is_open

    @precondition(lambda self: self.is_open)
    @rule(count=st.integers(1, 5), timeout_ms=st.sampled_from([0, 0, 400]))
    def broker_sends(self, count: int, timeout_ms: int) -> None:
        numbers = range(self.last + 1, self.last + count + 1)
        self.last += count
        self.wanted.update(numbers)
        self.bench.say(m.Run([item(number, timeout_ms=timeout_ms) for number in numbers]))
        self._look()

    @precondition(lambda self: self.is_open and self.wanted)
    @rule(which=st.integers(0, 30), kind=st.sampled_from([m.Recall, m.Cancel]))
    def broker_wants_back(self, which: int, kind: type[m.Recall | m.Cancel]) -> None:
        number = sorted(self.wanted)[which % len(self.wanted)]
        if kind is m.Cancel:
            self.cancelled.add(number)
        self.bench.say(kind([key(number)]))
        self._look()

    @precondition(lambda self: self.is_open and self.unacked)
    @rule()
    def broker_acknowledges(self) -> None:
        upto = min(self.unacked)
        self.wanted.difference_update(self.unacked.pop(upto))
        self.bench.say(m.Ack(upto))
        self._look()

    @rule(restarted=st.booleans())
    def session_is_lost(self, restarted: bool) -> None:
        """The same broker, or one that knows nothing and sends anew what nobody started."""
        self.sessions += 1
        self.unacked.clear()
        self.bench.step(e.SendFailed())
        self.bench.step(e.Writable())
        if restarted:
            self.void |= self.wanted
        broker = OTHER if restarted else self.bench.core.session.broker
        self.bench.welcome(broker, self.sessions)
        self._look()

    @precondition(lambda self: self.is_open)
    @rule(undo=st.booleans())
    def somebody_drains(self, undo: bool) -> None:
        self.bench.say(m.Query(1, "drain", {"undo": undo}))
        self._look()

    # --- The workers ------------------------------------------------------------------------------

    @rule(slot=st.integers(0, 5))
    def worker_starts(self, slot: int) -> None:
        """It takes the permit of its next attempt."""
        slot = self._slot(slot)
        has = self.handed.get(slot, {})
        waiting = sorted(s for s in has if s > self.bench.started.get(slot, 0))
        if slot in self.running or not waiting:
            return
        self.running[slot] = waiting[0]
        self.started.add(has[waiting[0]])
        self.bench.start(slot, waiting[0])

    @rule(slot=st.integers(0, 5), outcome=st.sampled_from([m.DONE, m.DONE, m.FAILED]))
    def worker_finishes(self, slot: int, outcome: int) -> None:
        slot = self._slot(slot)
        if slot not in self.running:
            return
        sequence = self.running.pop(slot)
        number = self.handed[slot].pop(sequence)
        body = msgpack.packb((*key(number), outcome, b"r", 10, None))
        self.bench.step(e.Finished(slot, [c.Frame(c.RESULT, sequence, outcome, 10, body)]))
        self._look()

    @rule(slot=st.integers(0, 5))
    def worker_dies(self, slot: int) -> None:
        slot = self._slot(slot)
        if slot in self.bench.started:
            self._die(slot)

    def _die(self, slot: int) -> None:
        self.running.pop(slot, None)
        self.handed.pop(slot, None)
        self.batches.pop(slot, None)
        started = self.bench.started.pop(slot)
        self.bench.handed.pop(slot, None)
        self.bench.step(e.Died(slot, started, None, 9, ("last words",)))
        self._look()

    @rule(ms=st.sampled_from([1, 120, 1_000, 5_000]))
    def time_passes(self, ms: int) -> None:
        """Workers that were started meanwhile are ready, and free ones look at what they have."""
        self.bench.tick(ms)
        for slot in list(self.bench.core.pool.slots.values()):
            if slot.state in LIVING and slot.number not in self.bench.started:
                self.bench.ready(slot.number)
        for effect in self.bench.effects[self.looked :]:
            if isinstance(effect, f.Kill) and effect.slot in self.bench.started:
                self._die(effect.slot)
        self._look()
        for number in list(self.batches):
            self._go_on(number)

    def _slot(self, which: int) -> int:
        slots = sorted(self.bench.core.pool.slots)
        return slots[which % len(slots)]

    # --- What holds -------------------------------------------------------------------------------

    @invariant()
    def nothing_is_forgotten(self) -> None:
        """I20: the agent has what it was sent until its end is acknowledged."""
        core = self.bench.core
        held = {
            int.from_bytes(i[0], "big") for i in (*core.ledger.open, *core.session.results_held())
        }
        running = {self.handed[slot][sequence] for slot, sequence in self.running.items()}
        assert running <= held
        missing = self.wanted - self.void - held
        assert not missing, missing
        assert held <= set(range(1, self.last + 1))

    @invariant()
    def workers_have_what_it_thinks(self) -> None:
        """What it counts as waiting no worker has."""
        waiting = {int.from_bytes(a.key[0], "big") for a in self.bench.core.ledger.waiting}
        assert not waiting & self.started

    def teardown(self) -> None:
        """I19: nothing breaks any more, the broker listens, and bodies end."""
        self.session_is_lost(restarted=False)
        self.somebody_drains(undo=True)
        core = self.bench.core
        for _ in range(200):
            self.time_passes(1_000)
            self.bench.say(m.Heartbeat())
            for slot in sorted(core.pool.slots):
                self.worker_starts(sorted(core.pool.slots).index(slot))
                self.worker_finishes(sorted(core.pool.slots).index(slot), m.DONE)
            while self.unacked:
                self.broker_acknowledges()
            is_over = not core.ledger.open and not core.session.results_held()
            if is_over and core.handout.ready() == WORKERS:
                break
        assert not core.ledger.open, core.ledger.open
        assert not core.session.results_held()
        assert core.handout.ready() == WORKERS


TestAgentLife = AgentLife.TestCase
TestAgentLife.settings = settings(
    max_examples=100,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
