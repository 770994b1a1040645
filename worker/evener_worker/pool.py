"""The slots and their processes: starts, deaths, restarts with back-off, and the end of all.

Rules of this file: the life of processes. What a death means for the attempt that ran is decided in
`core.py`.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence

from evener_wire import messages as m
from evener_worker.effects import Exit, Kill, Leave, StartWorker, Tell
from evener_worker.events import Died, Measured, Ready, Spawned, StartFailed
from evener_worker.handout import HandOut
from evener_worker.ledger import Ledger
from evener_worker.limits import LEAVE_NS, START_FAILURES_MAX
from evener_worker.slots import LIVING, Slot, SlotState


class Pool:
    """Caller: the core's step."""

    __slots__ = (
        "_handout",
        "_ledger",
        "_rng",
        "_told_all_ready",
        "changed",
        "ever_ready",
        "functions",
        "slots",
        "start_text",
        "stopping",
    )

    def __init__(
        self, ledger: Ledger, handout: HandOut, rng: random.Random, name: str, workers: int
    ) -> None:
        self._ledger = ledger
        self._handout = handout
        self._rng = rng
        self._told_all_ready = False
        self.slots = {n: Slot(n, f"{name}:{n}") for n in range(1, workers + 1)}
        self.functions: Sequence[tuple[str, m.Options | None]] | None = None
        self.changed = False  # what can be offered to the broker changed
        self.ever_ready = False
        self.stopping = False
        self.start_text = ""  # why a worker could not start, told once

    # --- Starting ---------------------------------------------------------------------------------

    def start_due(self) -> None:
        """Start the processes whose back-off is over."""
        for slot in self.slots.values():
            if slot.state is SlotState.WAITING and slot.start_at_ns <= self._ledger.now_ns:
                slot.move(SlotState.STARTING)
                slot.spawned_ns = self._ledger.now_ns
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
        self.ever_ready = True
        self._handout.add(slot)
        self.changed = True
        if self.functions is None:
            self.functions = event.functions
        ready = self._handout.ready()
        self._tell({"event": "worker", "ready": ready, "workers": len(self.slots), "pid": slot.pid})
        if ready == len(self.slots) and not self._told_all_ready:
            self._told_all_ready = True
            names = [name for name, _ in self.functions]
            self._tell({"event": "ready", "workers": ready, "functions": names})

    def _tell(self, report: Mapping[str, object]) -> None:
        self._ledger.effects.append(Tell(report))

    def on_start_failed(self, event: StartFailed) -> None:
        """The worker says why it cannot start: told once to the operator. It ends itself."""
        if event.text != self.start_text:
            self.start_text = event.text
            self._ledger.say("error", event.text)
        if not self.ever_ready and not self.stopping:
            # Their code does not import: it will not either the next time.
            self._give_up(event.text)

    def _give_up(self, text: str) -> None:
        self.stopping = True
        self._tell({"event": "error", "code": 1, "text": text})
        self.kill_all()
        self._ledger.effects.append(Exit(1))

    # --- Deaths -----------------------------------------------------------------------------------

    def on_died(self, event: Died, ran: str = "") -> Slot:
        """The process ended while `ran` was running: plan the next. Its hands are empty."""
        slot = self.slots[event.slot]
        now_ns = self._ledger.now_ns
        self._handout.remove(slot)
        self.changed = True
        left = slot.state is SlotState.LEAVING
        was_ready = bool(slot.ready_ns)
        delay_ns = slot.restart_delay_ns(now_ns, self._rng)
        slot.renew()
        if self.stopping:
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
            lost = f" while running {ran}, which goes back to the broker" if ran else ""
            self._ledger.say(
                "warning", f"worker {slot.worker} {how_it_ended(event)}{lost}; starts again {when}"
            )
        self.start_due()
        return slot

    def _stopped(self, slot: Slot, event: Died) -> None:
        text = (
            f"worker {slot.worker} ended {START_FAILURES_MAX} times before it was ready"
            f" (last: {how_it_ended(event)}); it is not started again"
        )
        self._ledger.say("error", text)
        if all(other.state is SlotState.STOPPED for other in self.slots.values()):
            self._give_up(f"no worker can start: {text}")

    # --- The end ----------------------------------------------------------------------------------

    def leave_idle(self) -> None:
        """While stopping: let workers go that have nothing in hand, and kill those that stay."""
        now_ns = self._ledger.now_ns
        for slot in self.slots.values():
            if slot.state is SlotState.WAITING:
                slot.move(SlotState.STOPPED)
            elif slot.state in (SlotState.STARTING, SlotState.READY) and not slot.handed:
                self._handout.remove(slot)
                slot.move(SlotState.LEAVING)
                slot.leave_until_ns = now_ns + LEAVE_NS
                self._ledger.effects.append(Leave(slot.number))
            elif slot.state is SlotState.LEAVING and 0 < slot.leave_until_ns <= now_ns:
                slot.leave_until_ns = 0
                self._ledger.effects.append(Kill(slot.number))

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
            slot = self.slots[number]
            slot.rss_bytes = rss_bytes
            slot.cpu_ms = cpu_ms

    def busy(self) -> Iterator[Slot]:
        """Slots that have something in hand."""
        return (slot for slot in self.slots.values() if slot.handed)

    def facts(self) -> list[m.Facts]:
        """What the heartbeat says about each worker."""
        return [
            {
                "name": slot.worker,
                "pid": slot.pid,
                "state": slot.state.value,
                "rss_bytes": slot.rss_bytes,
                "cpu_ms": slot.cpu_ms,
                "tasks": slot.tasks,
                "restarts": slot.restarts,
                "running": slot.handed[0].function if slot.handed else "",
            }
            for slot in self.slots.values()
        ]

    def wake_at(self) -> int | None:
        """When a process is to be started or killed."""
        if self._handout.ready() == len(self.slots):
            return None
        times = [
            slot.start_at_ns if slot.state is SlotState.WAITING else slot.leave_until_ns
            for slot in self.slots.values()
            if slot.state is SlotState.WAITING
            or (slot.state is SlotState.LEAVING and slot.leave_until_ns)
        ]
        return min(times) if times else None


def how_it_ended(event: Died) -> str:
    """In words: how a process ended."""
    if event.note:
        return event.note
    if event.signal is not None:
        name = _SIGNALS.get(event.signal, f"signal {event.signal}")
        return f"died by {name}"
    return f"ended with exit code {event.exit_code}"


# Names of the signals that end processes; `signal.Signals` would have to be imported for them.
_SIGNALS = {
    1: "SIGHUP",
    2: "SIGINT",
    3: "SIGQUIT",
    4: "SIGILL",
    6: "SIGABRT",
    7: "SIGBUS",
    8: "SIGFPE",
    9: "SIGKILL",
    11: "SIGSEGV",
    13: "SIGPIPE",
    14: "SIGALRM",
    15: "SIGTERM",
    24: "SIGXCPU",
    25: "SIGXFSZ",
    31: "SIGSYS",
}
