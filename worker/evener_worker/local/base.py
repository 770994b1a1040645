"""What the two faces of a pool have in common: settings, the loop behind them, handles.

Rules of this file: nothing here waits. A pool has no thread and no process before it is started.
"""

from __future__ import annotations

import atexit
import os
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Generic, TypeAlias, TypeVar, cast

from evener.errors import UsageError
from evener.pickling import type_label
from evener.worker_class import Worker, lacks_run
from evener_wire.limits import SECOND_NS, SLOTS_MAX
from evener_worker.limits import POOL_BYTES_MAX, POOL_CALLS_MAX, POOL_EXIT_NS
from evener_worker.local.calls import Call, Wait, Waiter
from evener_worker.local.errors import PoolClosed
from evener_worker.local.front import Front, Handler, Handlers
from evener_worker.local.futures import Nobody
from evener_worker.local.ledger import Settings
from evener_worker.local.letters import encode, ship
from evener_worker.local.loop import Launch, PoolLoop, now
from evener_worker.local.machine import PoolMachine
from evener_worker.local.seats import Seat
from evener_worker.local.stimuli import Asked, Stop

In = TypeVar("In")
Out = TypeVar("Out")

Factory: TypeAlias = type[Worker[In, Out]] | Callable[[int], Worker[In, Out]]
"""What is called in each process: a worker class without arguments, anything else with the id."""


class PoolBase(Generic[In, Out]):
    """Internal: settings, and from the start on the loop."""

    def __init__(
        self,
        factory: Factory[In, Out],
        size: int | None = None,
        *,
        ready_timeout: float = 30.0,
        stop_timeout: float = 30.0,
        restart: bool = True,
        on_request: Handler | None = None,
        environment: Mapping[str, str] | None = None,
        prefix: bool = False,
        calls_max: int = POOL_CALLS_MAX,
        bytes_max: int = POOL_BYTES_MAX,
    ) -> None:
        self.size: Final[int] = _size(size)
        """How many workers."""
        for name, seconds in (("ready_timeout", ready_timeout), ("stop_timeout", stop_timeout)):
            if not seconds > 0:
                raise UsageError(f"{name}={seconds!r} is not a number of seconds above 0")
        if calls_max < 1 or bytes_max < 1:
            raise UsageError("calls_max and bytes_max have to be at least 1")
        self._factory = check_factory(factory, type(self).__name__)
        settings = Settings(
            self.size,
            restart,
            int(ready_timeout * SECOND_NS),
            int(stop_timeout * SECOND_NS),
            calls_max,
            bytes_max,
        )
        self._machine = PoolMachine(settings, random.Random())  # jitter only
        self._launch_settings = (calls_max, bytes_max), dict(environment or {}), prefix
        self._loop: PoolLoop | None = None
        self._closed = False
        self._handlers = Handlers(self._handle_of, self._reply, on_request)

    # --- The start --------------------------------------------------------------------------------

    def _open(self, front: Callable[[], Front]) -> PoolLoop:
        """The loop, started if it was not."""
        if self._closed:
            raise PoolClosed
        if self._loop is None:
            _refuse_in_a_loading_worker()
            bounds, environment, prefix = self._launch_settings
            launch = Launch(ship(self._factory), _folders(), bounds, environment, prefix)
            self._loop = PoolLoop(self._machine, launch, front())
            atexit.register(self.close_now)
        return self._loop

    def running_loop(self) -> PoolLoop:
        """Internal: the loop of a pool that was started. Raises `PoolClosed`, `UsageError`."""
        if self._closed:
            raise PoolClosed
        if self._loop is None:
            raise UsageError("the pool has no workers yet: call spawn_all(), or use it in a `with`")
        return self._loop

    def close_now(self) -> None:
        """Kills all workers, at once. Also what happens when the program ends."""
        self._closed = True
        loop = self._loop
        if loop is not None and not loop.closed:
            loop.post_quietly(Stop(Wait(Nobody(), "the end"), at_once=True))
            if not loop.is_current:
                loop.join(POOL_EXIT_NS / SECOND_NS)
        atexit.unregister(self.close_now)

    def _stop(self, timeout: float | None) -> PoolLoop | None:
        self._closed = True
        if self._loop is not None:
            self._loop.post_quietly(Stop(wait_for(Nobody(), "the end of the pool", timeout)))
        return self._loop

    # --- Handles ----------------------------------------------------------------------------------

    def _handle_of(self, number: int) -> Any:
        raise NotImplementedError

    def _reply(self, place: int, frame: Any) -> None:
        if self._loop is not None:
            self._loop.reply(place, frame)

    def seat(self, number: int) -> Seat:
        """Internal: the seat of a worker."""
        return self._machine.seats[number]

    @property
    def handlers(self) -> Handlers:
        """Internal: who hears of events; use `PoolEvents`."""
        return self._handlers

    def __len__(self) -> int:
        return self.size

    def __repr__(self) -> str:
        ready = sum(seat.state.value == "ready" for seat in self._machine.seats.values())
        state = ", shut down" if self._closed else ""
        return f"<{type(self).__name__} {self.size} workers, {ready} ready{state}>"


class HandleBase(Generic[In, Out]):
    """One worker of a pool, whichever process it has."""

    def __init__(self, pool: PoolBase[In, Out], number: int) -> None:
        self._pool = pool
        self._seat = pool.seat(number)

    @property
    def id(self) -> int:
        """From 1; a new process has the same."""
        return self._seat.id

    @property
    def pid(self) -> int:
        """Of its process; 0 while there is none."""
        return self._seat.pid

    @property
    def state(self) -> str:
        """waiting (for its next start), starting, ready, leaving or stopped."""
        return self._seat.state.value

    @property
    def active(self) -> bool:
        """Whether it is ready."""
        return self.state == "ready"

    def _ask(self, kind: int, value: object, waiter: Waiter, what: str, **terms: Any) -> Call:
        return ask(self._pool, kind, value, waiter, f"{what} to worker {self.id}", self.id, **terms)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id}: {self.state}, pid {self.pid}>"


def ask(
    pool: PoolBase[Any, Any],
    kind: int,
    value: object,
    waiter: Waiter,
    what: str,
    seat: int = 0,
    timeout: float | None = None,
    at_once: bool = False,
) -> Call:
    """Post a call."""
    loop = pool.running_loop()
    call = Call(
        kind,
        encode(value, what),
        waiter,
        seat=seat,
        timeout_s=timeout,
        deadline_ns=deadline_ns(timeout),
        at_once=at_once,
    )
    loop.post(Asked(call))
    return call


def wait_for(waiter: Waiter, text: str, timeout: float | None, *, kills: bool = True) -> Wait:
    """Somebody who waits for processes."""
    at_ns = deadline_ns(timeout)
    return Wait(waiter, text, timeout_s=timeout, deadline_ns=at_ns, kills=kills)


def deadline_ns(timeout: float | None) -> int | None:
    """When a time of so many seconds from now is over."""
    return None if timeout is None else now() + int(max(0.0, timeout) * SECOND_NS)


def check_factory(factory: Any, pool: str) -> Any:
    """What makes the workers. Raises `TypeError` at once for what cannot, and says what to use."""
    if isinstance(factory, Worker):
        kind = type(cast("object", factory)).__name__
        raise TypeError(
            f"{pool} was given one {kind}, but each process makes its own: give the class,"
            f" {pool}({kind}, ...), or a function of the worker's id that makes one"
        )
    if isinstance(factory, type):
        _check_class(factory)
    if callable(factory):
        return factory
    words: Sequence[object] | None = None
    if isinstance(factory, (list, tuple)):
        words = [*cast("Sequence[object]", factory)]
    elif isinstance(factory, (str, bytes, os.PathLike)):
        words = os.fsdecode(cast("str", factory)).split()
    if words is not None:
        kind = "Async" if pool.startswith("Async") else ""
        raise TypeError(
            f"{pool} makes its workers by a class. Programs are workers of the other pool:"
            f" {kind}ItemPool(lambda number: {kind}CommandWorker({words!r}, id=number), size)"
        )
    raise TypeError(
        f"{type_label(cast('object', factory))} makes no workers: give a subclass of"
        " evener.Worker, or a function of the worker's id that makes one"
    )


def _check_class(kind: Any) -> None:
    if not issubclass(kind, Worker):
        raise TypeError(f"{kind.__qualname__} is not a subclass of evener.Worker")
    if lacks_run(kind):
        raise TypeError(f"{kind.__qualname__} has no run(item), which gets the items")


def check_id(number: Any, size: int) -> int:
    """The id of a worker. Raises `UsageError`, or `TypeError`, which name those that there are."""
    if not isinstance(number, int):
        raise TypeError(f"there is no worker {number!r}: ids are whole numbers, 1 to {size}")
    if not 1 <= number <= size:
        raise UsageError(f"there is no worker {number}: ids are 1 to {size}")
    return number


def _size(size: int | None) -> int:
    if size is None:
        from evener_worker.config import AgentConfig

        return AgentConfig("", "").settled().workers
    if type(size) is not int or not 1 <= size <= SLOTS_MAX:
        raise UsageError(f"size={size!r} is not a whole number from 1 to {SLOTS_MAX:,}")
    return size


def _folders() -> list[str]:
    """Where this process finds its modules, for the workers."""
    return list(dict.fromkeys(os.path.abspath(path) if path else os.getcwd() for path in sys.path))


def _refuse_in_a_loading_worker() -> None:
    inside = sys.modules.get("evener_worker.local.inside")
    if inside is not None and inside.loading:
        raise UsageError(
            "a worker of a pool imports the module that starts the pool, so each worker would start"
            ' one: put what starts it under if __name__ == "__main__":, or the class into a module'
            " of its own"
        )
