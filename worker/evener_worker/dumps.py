"""The stacks that are asked for at the moment: when each is complete, and what is told without it.

Rules of this file: never waits, decides nothing. A dump of one worker serves all who asked for it
meanwhile. `faulthandler` marks no end, so a stack counts as complete once the signal is handled.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from evener_wire.limits import KIB, MILLISECOND_NS, SECOND_NS
from evener_worker import events as e
from evener_worker.process import WorkerProcess
from evener_worker.stack import SIGNAL, STACK_BYTES_MAX, is_writing, kernel_facts

# How long a worker may take. Longer: whoever asks waits longer for the answer that there is none.
# Shorter: a worker that gets no processor time looks as if it did not answer.
DUMP_NS: Final = 2 * SECOND_NS

# How often what was written is looked at, meanwhile.
_LOOK_NS: Final = 5 * MILLISECOND_NS

# What stopped growing for so long is taken for complete, though the kernel seems to disagree: user
# code may have blocked the signal in the main thread, and another one wrote the stacks.
_QUIET_NS: Final = 250 * MILLISECOND_NS

# A write that crosses the end of the shared memory fails as a whole.
_PAGE_BYTES: Final = 4 * KIB


@dataclass(slots=True)
class _Dump:
    process: WorkerProcess
    until_ns: int
    written: int = 0
    grown_ns: int = 0
    numbers: list[int] = field(default_factory=list[int])


class Dumps:
    """Caller: the agent's loop. `events`: where answers go, for the core's next step."""

    __slots__ = ("_clock", "_events", "_look_ns", "_open")

    def __init__(self, clock: Callable[[], int], events: list[e.Event]) -> None:
        self._clock = clock
        self._events = events
        self._open: dict[int, _Dump] = {}
        self._look_ns = 0

    def ask(self, number: int, process: WorkerProcess) -> None:
        """Have a worker write its stack; `number` comes back with the answer."""
        dump = self._open.get(process.pid)
        if dump is None:
            refusal = process.stack.ask(process.pid, process.pidfd)
            if refusal:
                self._tell(number, process, "", refusal)
                return
            now_ns = self._clock()
            dump = self._open[process.pid] = _Dump(process, now_ns + DUMP_NS, 0, now_ns)
            self._look_ns = now_ns
        dump.numbers.append(number)

    def look(self) -> None:
        """Tell what is complete, and what does not come."""
        if not self._open:
            return
        now_ns = self._clock()
        if now_ns < self._look_ns:
            return
        self._look_ns = now_ns + _LOOK_NS
        for dump in list(self._open.values()):
            written = dump.process.stack.written()
            if written != dump.written:
                dump.written = written
                dump.grown_ns = now_ns
            quiet = now_ns - dump.grown_ns >= _QUIET_NS
            if written and (quiet or not is_writing(dump.process.pid)):
                self._end(dump, "")
            elif now_ns >= dump.until_ns:
                seconds = f"{DUMP_NS / SECOND_NS:g} s"
                self._end(dump, f"the process did not handle {SIGNAL.name} within {seconds}")

    def forget(self, process: WorkerProcess) -> None:
        """The process ended: what it wrote until then is told."""
        dump = self._open.get(process.pid)
        if dump is not None:
            self._end(dump, "the process ended before its stack was complete")

    def _end(self, dump: _Dump, reason: str) -> None:
        process = dump.process
        del self._open[process.pid]
        stack = process.stack.text()
        if len(stack) >= STACK_BYTES_MAX - _PAGE_BYTES:
            reason = f"the stack was cut at {STACK_BYTES_MAX // KIB} KiB"
        for number in dump.numbers:
            self._tell(number, process, stack, reason)

    def _tell(self, number: int, process: WorkerProcess, stack: str, reason: str) -> None:
        self._events.append(e.Dumped(number, stack, reason, kernel_facts(process.pid)))

    def next_at(self) -> int | None:
        """When `look` has something to do."""
        return self._look_ns if self._open else None
