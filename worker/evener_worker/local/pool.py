"""A pool of worker processes for callers that wait: `WorkerPool`, and the handle of each worker.

Rules of this file: no decisions. A call is posted to the loop, and its outcome waited for; whatever
happens, every wait ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from evener.errors import UsageError
from evener_worker.channel import EXECUTE, MESSAGE, REQUEST
from evener_worker.local.base import HandleBase, PoolBase, ask, check_id, wait_for
from evener_worker.local.calls import Call, Wait
from evener_worker.local.errors import PoolError
from evener_worker.local.front import ThreadFront
from evener_worker.local.futures import PoolFuture, RoomSignal, Signal
from evener_worker.local.loop import PoolLoop
from evener_worker.local.stimuli import (
    AwaitReady,
    Event,
    GaveUp,
    KillWorker,
    Replace,
    Restart,
    StartAll,
)

if TYPE_CHECKING:
    from typing import Self

In = TypeVar("In")
Out = TypeVar("Out")

_HANDLERS_END_S = 5.0


class WorkerHandle(HandleBase[In, Out]):
    """One worker. Made by `WorkerPool`. Any thread may use it."""

    def execute(self, item: In, /, *, timeout: float | None = None) -> Out:
        """Have `run(item)` called, and wait for its result.

        Items of a worker run in the order they came, `concurrency` at a time; one that waits is not
        lost with the process. Raises what `run` raised, `WorkerDied` if the process ended,
        `RequestTimeout` after `timeout` seconds (what began goes on for nobody), `NotSendable`.
        """
        _refuse_in_loop(self._pool)
        result: Out = _finish(_begin(self._pool, EXECUTE, item, self.id, timeout))
        return result

    def submit(
        self, item: In, /, *, timeout: float | None = None, block: bool = True
    ) -> PoolFuture[Out]:
        """The same without waiting for the result, for which `timeout` seconds are left.

        Waits for room, or with `block=False` raises `PoolFull`.
        """
        return _submit(self._pool, item, self.id, timeout, block)

    def request(self, message: Any, /, *, timeout: float | None = 60.0) -> Any:
        """Have `on_message(message)` called, and wait for what it returns.

        Up to `timeout` seconds (None: for ever). Raises as `execute` does.
        """
        _refuse_in_loop(self._pool)
        return _finish(_begin(self._pool, REQUEST, message, self.id, timeout))

    def send(self, message: Any, /, *, timeout: float | None = None) -> None:
        """Have `on_message(message)` called, and do not wait for it.

        Waits for room up to `timeout` seconds; raises `PoolFull` if there was none.
        """
        _refuse_in_loop(self._pool)
        waiter = RoomSignal()
        self._ask(MESSAGE, message, waiter, "a message", timeout=timeout, at_once=timeout == 0)
        waiter.wait()

    # --- Its process ------------------------------------------------------------------------------

    def init(self, timeout: float | None = None) -> None:
        """Wait until it is ready; start it if it is stopped.

        What is not ready after `timeout` seconds is killed. Raises `WorkerStartError`.
        """
        self._wait(AwaitReady, f"the start of worker {self.id}", timeout)

    def restart(self, timeout: float | None = None) -> None:
        """End its process when that is done with what it has, and wait for a new one.

        Items and messages that were not handed to it go to the new one. Also starts a worker that
        is stopped. After `timeout` seconds a start is killed (`WorkerStartError`), and an old
        process that still works goes on to do so (`RequestTimeout`).
        """
        self._wait(Restart, f"the restart of worker {self.id}", timeout)

    def replace(self, timeout: float | None = None) -> None:
        """The same without a gap: the old process leaves when the new one is ready.

        If the new one does not get ready in `timeout` seconds, the old one stays, and this raises.
        """
        self._wait(Replace, f"the replacement of worker {self.id}", timeout)

    def kill(self) -> None:
        """End its process now, with all that it started, and leave it stopped.

        What it has raises `WorkerDied`, and so does what waits for it. `restart()` starts it again.
        """
        self._wait(KillWorker, f"the end of worker {self.id}", None)

    def destroy(self) -> None:
        """The same; never raises."""
        try:
            self.kill()
        except (PoolError, UsageError):
            return

    def _wait(self, kind: Callable[[Wait, int], Event], text: str, timeout: float | None) -> None:
        _refuse_in_loop(self._pool)
        signal = Signal()
        self._pool.running_loop().post(kind(wait_for(signal, text, timeout), self.id))
        signal.wait()


class WorkerPool(PoolBase[In, Out]):
    """`size` processes (default: one per usable CPU), each with an object of a worker class.

    `factory` is a subclass of `evener.Worker`, made without arguments in each process, or any other
    callable, called there with the worker's id (from 1). A class of `__main__` is copied into the
    processes, so a script needs no `if __name__ == "__main__"`.

    The processes live exactly as long as the program, however it ends, and never keep it from
    ending. What they print appears on its outputs, line by line (with `prefix`, after their names).
    A process that ends by itself is started again (`restart`), after ever longer waits.

    `ready_timeout`: seconds from the start of a process until its `start()` returned.
    `stop_timeout`: for the work in hand and `stop()`, when it is asked to end; then it is killed.
    `on_request(handle, message)` answers `Worker.request`. `environment`: variables for the
    processes. `calls_max`, `bytes_max`: open calls per worker; beyond it callers wait.

        with WorkerPool(Resizer, 4) as pool:
            print(pool.execute(image))
    """

    _front: ThreadFront | None = None
    _handles: dict[int, WorkerHandle[In, Out]] | None = None

    # --- The start --------------------------------------------------------------------------------

    def spawn_all(self, timeout: float | None = None) -> list[WorkerHandle[In, Out]]:
        """Start all workers, and wait until they are ready, up to `timeout` seconds.

        Raises `WorkerStartError` with the last output of one that did not; then no process is left.
        """
        try:
            loop = self._open(self._make_front)
            signal = Signal()
            loop.post(StartAll(wait_for(signal, "the start of the workers", timeout)))
            signal.wait()
        except BaseException:
            self.close_now()
            raise
        return self.handles

    def _make_front(self) -> ThreadFront:
        self._front = ThreadFront(self._handlers)
        return self._front

    @property
    def handles(self) -> list[WorkerHandle[In, Out]]:
        """One for each worker, by id."""
        if self._handles is None:
            numbers = range(1, self.size + 1)
            self._handles = {number: WorkerHandle(self, number) for number in numbers}
        return [*self._handles.values()]

    def _handle_of(self, number: int) -> WorkerHandle[In, Out]:
        return self[number]

    def __getitem__(self, number: int) -> WorkerHandle[In, Out]:
        """The handle of the worker with this id."""
        return self.handles[check_id(number, self.size) - 1]

    def __iter__(self) -> Iterator[WorkerHandle[In, Out]]:
        return iter(self.handles)

    # --- Work -------------------------------------------------------------------------------------

    def execute(self, item: In, /, *, timeout: float | None = None) -> Out:
        """Have the next free worker run an item, and wait for its result.

        Raises as `WorkerHandle.execute` does, also `RequestTimeout` after `timeout` seconds.
        """
        _refuse_in_loop(self)
        result: Out = _finish(_begin(self, EXECUTE, item, 0, timeout))
        return result

    def submit(
        self, item: In, /, *, timeout: float | None = None, block: bool = True
    ) -> PoolFuture[Out]:
        """The same without waiting for the result, for which `timeout` seconds are left.

        Waits for room, or with `block=False` raises `PoolFull`.
        """
        return _submit(self, item, 0, timeout, block)

    def replace(self, number: int, timeout: float | None = None) -> WorkerHandle[In, Out]:
        """Replace the process of a worker: the new one is ready before the old one leaves.

        Within `timeout` seconds; raises as `WorkerHandle.replace` does.
        """
        self[number].replace(timeout)
        return self[number]

    # --- The end ----------------------------------------------------------------------------------

    def shutdown(self, timeout: float | None = 30.0) -> None:
        """Finish what is open, let all workers `stop()`, and wait until they are gone.

        New calls raise `PoolClosed`. What is still there after `timeout` seconds is killed. Does
        nothing when it is called again.
        """
        try:
            loop = self._stop(timeout)
            if loop is not None:
                _join(loop)
        finally:
            self.close()

    def close(self) -> None:
        """Kill all workers and wait until they are gone. What is open raises `PoolClosed`."""
        self.close_now()
        if self._front is not None:
            self._front.join(_HANDLERS_END_S)

    def __enter__(self) -> Self:
        self.spawn_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.shutdown()
        else:
            self.close()


def _join(loop: PoolLoop) -> None:
    if not loop.is_current:
        loop.join(None)


def _begin(
    pool: PoolBase[Any, Any],
    kind: int,
    value: object,
    seat: int,
    timeout: float | None,
    at_once: bool = False,
) -> PoolFuture[Any]:
    """Ask, and wait for nothing."""
    asked: list[Call] = []
    loop = pool.running_loop()

    def give_up(_: PoolFuture[Any]) -> None:
        loop.post_quietly(GaveUp(asked[0]))

    future: PoolFuture[Any] = PoolFuture(give_up)
    what = "an item" if kind == EXECUTE else "a request"
    whom = f"worker {seat}" if seat else "the pool"
    asked.append(ask(pool, kind, value, future, f"{what} to {whom}", seat, timeout, at_once))
    return future


def _submit(
    pool: PoolBase[Any, Any], item: object, seat: int, timeout: float | None, block: bool
) -> PoolFuture[Any]:
    """Ask, and wait for room."""
    in_loop = pool.running_loop().is_current
    future = _begin(pool, EXECUTE, item, seat, timeout, in_loop or not block)
    if in_loop:
        return future  # whether there was room, it tells itself
    try:
        future.wait_for_room()
    except BaseException:
        future.cancel()
        raise
    return future


def _refuse_in_loop(pool: PoolBase[Any, Any]) -> None:
    if pool.running_loop().is_current:
        raise UsageError(
            "this waits for the pool, and is called in the pool's own thread (the callback of a"
            " future): there only submit() and cancel() can be used"
        )


def _finish(future: PoolFuture[Any]) -> Any:
    try:
        return future.result()
    except BaseException:
        future.cancel()  # Ctrl-C while it waited; otherwise it is done, and this does nothing
        raise
