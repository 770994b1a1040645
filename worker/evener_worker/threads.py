"""Plain functions in threads, and how one of them is interrupted there.

Python raises an exception into another thread at the next step of its bytecode, so it may arrive
after the function returned. Rules of this file: one exception for each attempt at most, and none
that outlives its attempt. Both sides write before they read, under the interpreter's lock: who
interrupts says so and looks whether the attempt is over; its thread says that it is over and looks
whether somebody interrupts, and then waits for that to have happened and takes it back.

Threads are kept and used again. There are as many as attempts ran at once.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable
from contextvars import copy_context
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final

from evener.execution import Executed, Execution, Interrupted
from evener.generators import Outlet
from evener_wire.messages import CANCELLED, TIMED_OUT
from evener_worker import sharing
from evener_worker.marking import spill

if TYPE_CHECKING:
    from evener_worker.sharing import Beside

_WAIT_S: Final = 0.0005
_STOPPED: Final = (CANCELLED, TIMED_OUT)

_raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc
_raise_in.argtypes = (ctypes.c_ulong, ctypes.py_object)
_raise_in.restype = ctypes.c_int
_clear_in = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p)(
    ("PyThreadState_SetAsyncExc", ctypes.pythonapi)
)


class _Turn:
    """One attempt in its thread."""

    __slots__ = ("attempt", "interrupting", "over", "raised", "thread_id")

    def __init__(self, attempt: Beside) -> None:
        self.attempt: Final = attempt
        self.thread_id = 0  # once its thread is about to run it
        self.over = False  # written by its thread
        self.interrupting = False  # written by the loop, before
        self.raised = False  # and after


class Threads:
    """Caller: the loop's thread, but for `_serve`."""

    def __init__(
        self,
        execution: Execution,
        outlet_of: Callable[[Beside], Outlet],
        on_over: Callable[[Beside, Executed], None],
    ) -> None:
        self._execution = execution
        self._outlet_of = outlet_of
        self._on_over = on_over
        self._queue: SimpleQueue[_Turn] = SimpleQueue()
        self._turns: dict[int, _Turn] = {}
        self._count = 0
        self._free = 0

    def start(self, attempt: Beside) -> None:
        """Run it at once. Raises RuntimeError where no thread can be made."""
        if not self._free:
            name = f"evener-{self._count + 1}"
            threading.Thread(target=self._serve, name=name, daemon=True).start()
            self._count += 1
        else:
            self._free -= 1
        turn = self._turns[attempt.number] = _Turn(attempt)
        self._queue.put(turn)

    def ended(self, attempt: Beside) -> None:
        """What came of it was told."""
        if self._turns.pop(attempt.number, None) is not None:
            self._free += 1

    def interrupt(self, attempt: Beside) -> None:
        """Raise `Interrupted` in its function, unless that is over."""
        turn = self._turns[attempt.number]
        turn.interrupting = True
        if turn.thread_id and not turn.over:
            _raise_in(turn.thread_id, Interrupted)
        turn.raised = True
        if attempt.stream is not None:
            attempt.stream.ring()  # its generator may wait for its reader

    # --- The thread -------------------------------------------------------------------------------

    def _serve(self) -> None:
        execution = self._execution.apart()
        thread_id = threading.get_ident()
        while True:
            turn = self._queue.get()
            executed = copy_context().run(self._run, execution, turn, thread_id)
            execution.outlet = None
            self._on_over(turn.attempt, executed)
            del turn, executed

    def _run(self, execution: Execution, turn: _Turn, thread_id: int) -> Executed:
        attempt = turn.attempt
        sharing.current.set(attempt)
        _, _, function, payload, _, _ = attempt.item
        try:
            execution.outlet = self._outlet_of(attempt)
            turn.thread_id = thread_id
            if turn.interrupting:
                executed = Executed(attempt.outcome, b"", 0, None)
            else:
                executed = execution.run(function, payload, attempt.on_item)
                if executed.outcome in _STOPPED:  # whoever raised it could not say which
                    executed = executed._replace(outcome=attempt.outcome)
            spill(attempt.aside)
            turn.over = True
            if turn.interrupting:
                _take_back(turn, thread_id)
        except Interrupted:  # there is no second one
            turn.over = True
            return Executed(attempt.outcome, b"", 0, None)
        return executed


def _take_back(turn: _Turn, thread_id: int) -> None:
    """Until it is sure that nothing is raised here any more. It may be raised here."""
    while not turn.raised:
        time.sleep(_WAIT_S)
    _clear_in(thread_id, None)
