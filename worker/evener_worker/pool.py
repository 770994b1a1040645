"""The slots and their processes: starts, deaths, restarts with back-off, and the end of all.

Rules of this file: the life of processes. What a death means for the attempt that ran is decided in
`core.py`.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence

from evener_wire import messages as m
from evener_worker.certificates import facts_of
from evener_worker.deaths import how_it_ended
from evener_worker.effects import Exit, Kill, Leave, StartWorker, Tell
from evener_worker.events import Died, Measured, Ready, Spawned, StartFailed
from evener_worker.handout import HandOut
from evener_worker.ledger import Ledger
from evener_worker.limits import FACTS_AGAIN_NS, START_FAILURES_MAX, TOLD_WORKERS_MAX
from evener_worker.recycling import NO_LIMITS, TIMED, Limits, lateness
from evener_worker.slots import LIVING, Slot, SlotState


class Pool:
    """Caller: the core's step."""

    __slots__ = (
        "_handout",
        "_last",
        "_ledger",
        "_name",
        "_patient",
        "_rng",
        "_tell_again_ns",
        "_told",
        "_told_all_ready",
        "changed",
        "ever_ready",
        "functions",
        "generation",
        "limits",
        "shares",
        "size",
        "slots",
        "start_text",
        "stopping",
        "trial_text",
        "waits_for_code",
    )

    def __init__(
        self,
        ledger: Ledger,
        handout: HandOut,
        rng: random.Random,
        name: str,
        workers: int,
        limits: Limits = NO_LIMITS,
        *,
        patient: bool = False,
    ) -> None:
        self._ledger = ledger
        self._handout = handout
        self._rng = rng
        self._told_all_ready = False
        self._told: list[m.Facts] | None = None  # of the workers, to the broker
        self._tell_again_ns = 0
        self._name = name
        self._last = self.size = workers
        self.limits = limits
        self.slots = {n: Slot(n, f"{name}:{n}") for n in range(1, workers + 1)}
        self.generation = 0  # of the code that a process imports which starts now
        self.functions: Sequence[tuple[str, m.Options | None]] | None = None
        self.shares: Sequence[tuple[str, int]] = ()  # how many run at once, as told last
        self.changed = False  # what can be offered to the broker changed
        self.ever_ready = False
        self.stopping = False
        self._patient = patient  # code that does not import may be mended: its files are watched
        self.waits_for_code = False
        self.start_text = ""  # why a worker could not start, told once
        self.trial_text = ""  # why the last one on trial did not get ready

    # --- Starting ---------------------------------------------------------------------------------

    def start_due(self) -> None:
        """Start the processes whose back-off is over."""
        for slot in self.slots.values():
            if slot.state is SlotState.WAITING and slot.start_at_ns <= self._ledger.now_ns:
                slot.move(SlotState.STARTING)
                slot.spawned_ns = now_ns = self._ledger.now_ns
                slot.leave_until_ns = now_ns + self.limits.start_ns if self.limits.start_ns else 0
                slot.generation = self.generation
                self._ledger.effects.append(StartWorker(slot.number, slot.worker))

    def on_spawned(self, event: Spawned) -> None:
        """The process exists."""
        self.slots[event.slot].pid = event.pid

    def on_ready(self, event: Ready) -> None:
        """The worker can run tasks."""
        slot = self.slots[event.slot]
        if slot.state is not SlotState.STARTING:
            return
        slot.move(SlotState.READY)
        slot.ready_ns = self._ledger.now_ns
        slot.start_failures = 0
        slot.trial = False
        same = event.functions == self.functions
        slot.functions = self.functions if same and self.functions else event.functions
        self.limits.draw(slot, slot.ready_ns, self._rng)
        self.ever_ready = True
        self.waits_for_code = False
        self._handout.add(slot)
        self._recount()
        assert self.functions is not None
        ready = self._handout.ready()
        self._tell({"event": "worker", "ready": ready, "workers": len(self.slots), "pid": slot.pid})
        self._tell_all_ready()

    def _tell_all_ready(self) -> None:
        """Once, when it is so for the first time."""
        ready = self._handout.ready()
        if ready == len(self.slots) and not self._told_all_ready and self.functions is not None:
            self._told_all_ready = True
            names = [name for name, _ in self.functions]
            self._tell({"event": "ready", "workers": ready, "functions": names})

    def _recount(self) -> None:
        """After each change of who is ready: only what all of them know can be offered."""
        self.changed = True
        ready = [slot for slot in self.slots.values() if slot.state is SlotState.READY]
        if not ready:
            return
        newest = max(ready, key=_generation).functions
        for slot in ready:
            if slot.functions is not newest and slot.functions != newest:
                known = {name for name, _ in slot.functions}
                newest = [item for item in newest if item[0] in known]
        self.functions = newest

    def _tell(self, report: Mapping[str, object]) -> None:
        self._ledger.effects.append(Tell(report))

    def on_start_failed(self, event: StartFailed) -> None:
        """The worker says why it cannot start: told once to the operator. It ends itself."""
        slot = self.slots.get(event.slot)
        if slot is not None and slot.trial:
            self.trial_text = event.text
        elif event.text != self.start_text:
            self.start_text = event.text
            self._ledger.say("error", event.text)
        if slot is not None:
            slot.start_failures = 0  # it says why: what it lacks may come back
        if self.ever_ready or self.stopping or self.waits_for_code:
            return
        # Their code does not import: it will not either the next time.
        if self._patient and event.watched:
            self.waits_for_code = True
            self._ledger.say("error", "no worker can start; waiting for its files to change")
        else:
            self._give_up(event.text)

    def _give_up(self, text: str) -> None:
        self.stopping = True
        self._tell({"event": "error", "code": 1, "text": text})
        self.kill_all()
        self._ledger.effects.append(Exit(1))

    # --- Deaths -----------------------------------------------------------------------------------

    def on_died(self, event: Died, lost: str = "") -> Slot:
        """The process ended, and `lost` says while what ran. Plan the next; its hands are empty."""
        slot = self.slots[event.slot]
        now_ns = self._ledger.now_ns
        self._handout.remove(slot)
        self.changed = True
        left = slot.state is SlotState.LEAVING
        was_ready = bool(slot.ready_ns)
        if (slot.gone or slot.trial or left) and not self.stopping:
            self._replaced(slot, event)
            return slot
        if not event.spawned:
            slot.start_failures = 0  # what the system lacks may come back
        delay_ns = slot.restart_delay_ns(now_ns, self._rng)
        slot.renew()
        if self.stopping or self.waits_for_code:
            slot.move(SlotState.STOPPED)
            return slot
        if delay_ns is None:
            slot.move(SlotState.STOPPED)
            self._stopped(slot, event)
            return slot
        slot.move(SlotState.WAITING)
        slot.start_at_ns = now_ns + delay_ns
        slot.restarts += 1
        if not left or not was_ready:
            when = "now" if not delay_ns else f"in {delay_ns / 1e9:.1f} s"
            self._ledger.say(
                "warning", f"worker {slot.worker} {how_it_ended(event)}{lost}; starts again {when}"
            )
        self.start_due()
        return slot

    def _replaced(self, slot: Slot, event: Died) -> None:
        """The process was to leave, or was on trial. It is no death, and costs no back-off."""
        if slot.trial and not self.trial_text:
            self.trial_text = "\n".join((how_it_ended(event), *event.lines))
        elif slot.state is SlotState.RETIRING:
            self._ledger.say(
                "warning", f"worker {slot.worker}, which was to leave, {how_it_ended(event)}"
            )
        slot.renew()
        if slot.gone or slot.trial:
            del self.slots[slot.number]
            self._recount()
            return
        slot.move(SlotState.WAITING)
        slot.start_at_ns = self._ledger.now_ns
        slot.deaths = 0
        slot.recycled += 1
        self.start_due()

    def _stopped(self, slot: Slot, event: Died) -> None:
        text = (
            f"worker {slot.worker} ended {START_FAILURES_MAX} times before it was ready"
            f" (last: {how_it_ended(event)}); it is not started again"
        )
        self._ledger.say("error", text)
        if all(other.state is SlotState.STOPPED for other in self.slots.values()):
            self._give_up(f"no worker can start: {text}")

    # --- Coming and going -------------------------------------------------------------------------

    def add(self, index: int, *, trial: bool = False) -> Slot:
        """One more worker, at this place. Its process starts at once."""
        self._last += 1
        slot = self.slots[self._last] = Slot(self._last, f"{self._name}:{index}")
        slot.trial = trial
        self.start_due()
        return slot

    def retire(self, slot: Slot) -> None:
        """A ready worker gets nothing new, gives back what has not started, and leaves then."""
        slot.move(SlotState.RETIRING)
        slot.retired_ns = self._ledger.now_ns
        self._handout.remove(slot)
        self._handout.ask_all_back(slot)
        self._recount()

    def keep(self, slot: Slot) -> None:
        """It does not leave after all."""
        slot.gone = False
        if slot.state is SlotState.RETIRING:
            slot.move(SlotState.READY)
            self._handout.add(slot)
            self._recount()

    def dismiss(self, slot: Slot) -> None:
        """The worker leaves, and nothing is started in its place."""
        slot.gone = True
        if slot.state is SlotState.READY:
            self.retire(slot)
        elif slot.state is SlotState.STARTING:
            self.kill(slot)
        elif slot.state not in LIVING:
            del self.slots[slot.number]
            self._tell_all_ready()

    def let_go(self, slot: Slot) -> None:
        """A worker with empty hands runs its stop hooks and ends."""
        self._handout.remove(slot)
        slot.move(SlotState.LEAVING)
        slot.leave_until_ns = self._ledger.now_ns + self.limits.leave_ns
        self._ledger.effects.append(Leave(slot.number))
        self._recount()

    def kill_late(self) -> None:
        """End those that were let go and stay, and those that do not get ready."""
        for slot in self.slots.values():
            if what := lateness(slot, self._ledger.now_ns):
                slot.leave_until_ns = 0
                self._ledger.say("warning", f"worker {slot.worker} {what}: killed")
                self._ledger.effects.append(Kill(slot.number))

    def all_ready(self) -> bool:
        """Whether no process is starting, leaving or away."""
        return self._handout.ready() == len(self.slots)

    def places(self) -> int:
        """Ready workers, and those that run their last one; not those that run their last few.

        What these have in hand is less than a worker, and nothing new comes into their room.
        """
        retiring = (slot.state is SlotState.RETIRING for slot in self.busy() if slot.handed)
        return self._handout.ready() + sum(retiring)

    # --- The end ----------------------------------------------------------------------------------

    def leave_idle(self) -> None:
        """While stopping: let workers go that have nothing in hand, and kill those that stay."""
        for slot in self.slots.values():
            if slot.state is SlotState.WAITING:
                slot.move(SlotState.STOPPED)
            elif slot.state in _LEAVE_IDLE and not slot.busy:
                self.let_go(slot)
        self.kill_late()

    def kill(self, slot: Slot) -> None:
        """End a worker process and everything it started."""
        if slot.state in LIVING:
            self._ledger.effects.append(Kill(slot.number))

    def kill_all(self) -> None:
        """End all processes."""
        for slot in self.slots.values():
            self.kill(slot)

    def gone(self) -> bool:
        """Whether no process is left."""
        return not any(slot.state in LIVING for slot in self.slots.values())

    # --- Looking ----------------------------------------------------------------------------------

    def on_measured(self, event: Measured) -> None:
        """Take note of memory and processor time."""
        for number, (rss_bytes, cpu_ms) in event.usage.items():
            slot = self.slots[number]  # whoever was measured lives, and its slot with it
            slot.rss_bytes = rss_bytes
            slot.cpu_ms = cpu_ms

    def busy(self) -> Iterator[Slot]:
        """Slots that have something in hand."""
        return (slot for slot in self.slots.values() if slot.handed or slot.shared)

    def lanes(self) -> dict[int, list[int]]:
        """The lanes on which workers have something, by slot."""
        return {
            slot.number: [shared.lane for shared in slot.shared.values()]
            for slot in self.slots.values()
            if slot.shared
        }

    def facts(self) -> list[m.Facts]:
        """What the heartbeat says about each worker."""
        slots: Iterable[Slot] = self.slots.values()
        if len(self.slots) > TOLD_WORKERS_MAX:
            slots = sorted(slots, key=_is_free)[:TOLD_WORKERS_MAX]
        return facts_of(slots, self._ledger.now_ns, len(self.slots))

    def news(self) -> list[m.Facts]:
        """The same, but nothing when nothing changed since, for a while."""
        now_ns, facts = self._ledger.now_ns, self.facts()
        if facts == self._told and now_ns < self._tell_again_ns:
            return []
        self._told, self._tell_again_ns = facts, now_ns + FACTS_AGAIN_NS
        return facts

    def tell_all(self) -> None:
        """A broker that may know nothing: the next `news` are all there is."""
        self._told = None

    def wake_at(self) -> int | None:
        """When a process is to be started or killed."""
        if self.all_ready():
            return None
        times = [
            slot.start_at_ns if slot.state is SlotState.WAITING else slot.leave_until_ns
            for slot in self.slots.values()
            if slot.state is SlotState.WAITING or (slot.state in TIMED and slot.leave_until_ns)
        ]
        return min(times) if times else None


_LEAVE_IDLE = frozenset({SlotState.STARTING, SlotState.READY, SlotState.RETIRING})


def _generation(slot: Slot) -> int:
    return slot.generation


def _is_free(slot: Slot) -> bool:
    return not slot.busy
