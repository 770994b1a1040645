"""The client: what a program uses to have its functions run on a cluster.

Rules of this file: no protocol and no sockets; those are in `session.py` and `connection.py`. A
method encodes what the caller hands in, in the caller's thread, and makes a future.
"""

from __future__ import annotations

import os
import platform
import socket
from collections.abc import Callable, Coroutine, Iterable
from random import Random
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, ParamSpec, TypeVar, cast, overload

from evener.backend import Backend
from evener.calls import Target, check_plain, encode, target_of
from evener.config import settings
from evener.connecting import await_welcome, checked_name
from evener.connection import Connection
from evener.current import Token, current_client, enter, leave
from evener.diagnosis import check_name
from evener.discovery import find_broker, is_loopback
from evener.errors import BrokerUnreachable, UsageError
from evener.exits import live_connections
from evener.function import AsyncFunction, Function
from evener.future import Future
from evener.gathering import gather
from evener.inquiries import Inquiries
from evener.mains import main_process
from evener.mapping import Mapped
from evener.options import TaskOptions, merge
from evener.outputs import OutputLine
from evener.payload import encode_call
from evener.session import ClientSession
from evener.session_records import Item
from evener.termination import termination
from evener.texts import plural
from evener.transport import Transport
from evener.version import __version__
from evener_wire.limits import ID_BYTES
from evener_wire.messages import Options, Payload

if TYPE_CHECKING:
    from typing import Self, Unpack

__all__ = ["Call", "Client", "current_client"]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

_CLOSE_S: Final = 10.0
_IDS_AT_ONCE: Final = 512

# Between two looks whether there is room, for those who must not block.
_PAUSE_MIN_S: Final = 0.005
_PAUSE_MAX_S: Final = 0.1


class Client(Inquiries):
    """A connection to a broker, for use by any number of threads.

    `address` is that of the broker, such as `"tcp://127.0.0.1:7450"`; without it the variable
    EVENER_BROKER counts, then the configuration file (`docs/configuration.md`; so it is with all
    that is None here), then the broker that runs on this machine. Returns once the broker said
    welcome, or raises `BrokerUnreachable` after `connect_timeout` seconds, and at once when waiting
    would not help; `BrokerRefused`; `UsageError`.

    `insecure` allows pickles to and from other machines, over connections that anybody on the way
    can read and change. `queue_full` says what `submit` does when as many tasks are open as the
    broker takes: "wait" (block; `submit_async` awaits instead), or "raise" `QueueFull`.

    When the broker goes away later, futures stay pending until it is back.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        connect_timeout: float | None = None,
        insecure: bool | None = None,
        name: str | None = None,
        queue_full: Literal["wait", "raise"] | None = None,
    ) -> None:
        self.closed: bool = True
        """Whether it was closed, or never got so far as to be open."""
        self.address: str = find_broker(address)
        """The broker's address."""
        configured = settings()
        patience = configured.given("client.connect_timeout", connect_timeout)
        insecure = configured.given("client.insecure", insecure)
        queue_full = configured.given("client.queue_full", queue_full)
        if queue_full not in ("wait", "raise"):
            raise UsageError(f'queue_full={queue_full!r} is neither "wait" nor "raise"')
        self.name: str = checked_name(name)
        """What the broker's lists call it."""
        rng = Random(os.urandom(16))
        facts = {
            "host": socket.gethostname()[:128],
            "pid": os.getpid(),
            "evener": __version__,
            "python": platform.python_version(),
        }
        if (finding := check_name(self.address)) is not None:
            raise BrokerUnreachable(self.address, finding.reason)
        session = ClientSession(
            os.urandom(ID_BYTES), self.name, facts, rng, hold_when_full=queue_full == "wait"
        )
        trusted = insecure or is_loopback(self.address)
        connection = Connection(session, Transport(self.address, rng), trusted=trusted)
        main_process.enter(self)
        self._begin(connection)
        connection.start()
        live_connections.add(connection)
        try:
            await_welcome(connection, self.address, patience)
        except BaseException:
            self.close(0.0)
            raise

    def _begin(self, backend: Backend) -> None:
        self._backend = backend
        self._trusted = backend.trusted
        self._submit = backend.submit
        self.by_value: Callable[[Function[Any, Any]], bool] = _never
        """Which registered functions are sent along, because workers do not know them."""
        self._ids: list[bytes] = []
        self._tokens: list[Token] = []
        self.closed = False
        """Whether `close` was called."""

    @classmethod
    def over(cls, backend: Backend, address: str) -> Client:
        """Internal: a client whose tasks go somewhere else than to a broker."""
        client = cls.__new__(cls)
        client.address = address
        client.name = checked_name(None)
        client._begin(backend)
        return client

    # --- Tasks ------------------------------------------------------------------------------------

    @overload
    def submit(
        self, function: AsyncFunction[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> Future[R]: ...
    @overload
    def submit(
        self, function: Function[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> Future[R]: ...
    @overload
    def submit(self, function: str, /, *args: Any, **kwargs: Any) -> Future[Any]: ...
    @overload
    def submit(self, function: Call, /, *args: Any, **kwargs: Any) -> Future[Any]: ...
    @overload
    def submit(
        self, function: Callable[P, Coroutine[Any, Any, R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Future[R]: ...
    @overload
    def submit(
        self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> Future[R]: ...

    def submit(self, function: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Has `function(*args, **kwargs)` run by a worker; returns its future at once.

        `function` is a registered function, the name of one that workers know, or any other
        function, which is then sent along. Options: `client.submit(function.options(...), ...)`,
        and for what is not registered `client.function(f, ...).submit(...)`.

        Raises `BadArguments`, `NotSendable`, `PayloadTooLarge`, `ClientClosed`, and `QueueFull` if
        the client was made so; otherwise it blocks while the broker's bounds are reached.
        """
        if type(function) is Call:
            target = function.target
        elif isinstance(function, Function) and self.by_value is _never:
            # The usual case in line: this method is most of what a task costs the program.
            function.check(args, kwargs)
            payload = encode_call(
                function.name,
                args,
                kwargs,
                trusted=self._trusted,
                parameters=function.parameters,
            )
            try:
                task_id = self._ids.pop()
            except IndexError:
                task_id = self._more_ids()
            future: Future[Any] = Future(
                self._backend, (task_id, function.name, payload, function.task_options)
            )
            self._submit(future)
            return future
        else:
            target = target_of(cast(object, function), self.by_value)
            if kwargs:
                check_plain(cast(object, function), args, kwargs)
        return self.submit_encoded(target, encode(target, args, kwargs, self._trusted))

    async def submit_async(self, function: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        """As `submit`, for asyncio: where that would block at the broker's bounds, this awaits.

        Who is cancelled meanwhile has submitted nothing.
        """
        if type(function) is Call:
            target = function.target
        else:
            target = target_of(cast(object, function), self.by_value)
        future: Future[Any] = Future(
            self._backend, self.new_item(target, encode(target, args, kwargs, self._trusted))
        )
        pause_s = _PAUSE_MIN_S
        while not self._backend.try_submit(future):
            import asyncio  # here, because it costs 30 ms and most programs never need it

            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _PAUSE_MAX_S)
        return future

    def submit_encoded(self, target: Target, payload: Payload) -> Future[Any]:
        """Internal: a task from its parts. For `map`, and for programs that keep encoded calls."""
        future: Future[Any] = Future(self._backend, self.new_item(target, payload))
        self._submit(future)
        return future

    def function(self, function: Any, /, **options: Unpack[TaskOptions]) -> Call:
        """A function or a name, to be called with options: `client.function("demo.add",
        timeout=3).submit(1, 2)`. Raises `UsageError` for a bad option."""
        target = target_of(function, self.by_value)
        if options:
            target = target._replace(options=merge(target.options, options))
        return Call(self, target)

    def map(
        self,
        function: Any,
        /,
        *iterables: Iterable[Any],
        chunk: int | None = None,
        **options: Unpack[TaskOptions],
    ) -> Mapped:
        """The results of `function` for each item, in the order of the items.

        Items are pulled as workers can take them, so the iterable may be endless. Several
        iterables give the function an argument each, as the built-in `map` does. Small calls
        travel in chunks, whose size adapts until one takes about 10 ms; `chunk` fixes the size.
        What the function raised for an item is raised when its turn comes; the next item may then
        be asked for. `close()` of the iterator cancels what is on the way; who only drops it leaves
        that running. When a worker dies in a chunk, all items of that chunk may run again, each by
        itself; with `timeout`, `retries` or `at_most_once` each item is a chunk of its own.
        """
        call = self.function(function, **options) if not isinstance(function, Call) else function
        return Mapped(self, call.target, iterables, chunk)

    @overload
    def gather(self, *futures: Future[T], timeout: float | None = None) -> list[T]: ...
    @overload
    def gather(
        self, futures: Iterable[Future[T]], /, *, timeout: float | None = None
    ) -> list[T]: ...

    def gather(self, *futures: Any, timeout: float | None = None) -> list[Any]:
        """As `evener.gather`, with its `timeout`."""
        return gather(*futures, timeout=timeout)

    def on_output(self, callback: Callable[[OutputLine], object] | None) -> None:
        """Calls `callback(line)` for each line that tasks with `forward_output=True` write.

        In place of showing them on this program's stdout and stderr; None: shows them again. In a
        thread that does nothing else, so it may block; what comes too fast meanwhile is left out,
        and counted (`OutputLine.left_out`). What it raises is logged. Lines come before the end of
        their task, as far as the client learns of it. With `LocalCluster(workers=0)` it is never
        called: tasks write to this program's own stdout and stderr.
        """
        self._backend.on_output(callback)

    # --- For `map` --------------------------------------------------------------------------------

    @property
    def trusted(self) -> bool:
        """Internal: whether pickles may travel."""
        return self._trusted

    @property
    def holder(self) -> Backend:
        """Internal: what futures of this client belong to."""
        return self._backend

    def new_item(self, target: Target, payload: Payload) -> Item:
        """Internal: a task with a new id, to be made into a future."""
        return (self._new_id(), target.name, payload, target.options)

    def submit_future(self, future: Future[Any]) -> None:
        """Internal: sends a task whose future the caller made. Raises as `submit` does."""
        self._submit(future)

    # --- The end ----------------------------------------------------------------------------------

    def close(self, timeout: float = _CLOSE_S) -> None:
        """Hands over what was submitted, for `timeout` seconds at most, and leaves.

        Tasks that have not ended go on at the cluster; their futures raise `ClientClosed`.
        """
        self.closed = True
        try:
            self._backend.close(timeout)
        finally:
            main_process.leave(self)

    def __enter__(self) -> Self:
        self._tokens.append(enter(self))
        termination.enter(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._tokens:
            leave(self, self._tokens.pop())
        try:
            self.close()
        finally:
            termination.leave(self)

    def __repr__(self) -> str:
        state = "closed" if self.closed else plural(self.open_tasks, "open task")
        return f"<Client {self.address}, {state}>"

    # --- Ids --------------------------------------------------------------------------------------

    def _new_id(self) -> bytes:
        try:
            return self._ids.pop()
        except IndexError:
            return self._more_ids()

    def _more_ids(self) -> bytes:
        """Random ids in stock: one system call for many."""
        pool = os.urandom(ID_BYTES * _IDS_AT_ONCE)
        ids = [pool[at : at + ID_BYTES] for at in range(0, len(pool), ID_BYTES)]
        last = ids.pop()
        self._ids.extend(ids)
        return last


class Call:
    """A function with options. Made by `Client.function`."""

    __slots__ = ("client", "target")

    def __init__(self, client: Client, target: Target) -> None:
        self.client = client
        self.target = target

    @property
    def name(self) -> str:
        """What the function is known by."""
        return self.target.name

    def options(self, **options: Unpack[TaskOptions]) -> Call:
        """The same with other options. Raises `UsageError`."""
        wanted: Options = merge(self.target.options, options)
        return Call(self.client, self.target._replace(options=wanted))

    def submit(self, *args: Any, **kwargs: Any) -> Future[Any]:
        """As `Client.submit`."""
        return self.client.submit(self, *args, **kwargs)

    def map(self, *iterables: Iterable[Any], chunk: int | None = None) -> Mapped:
        """As `Client.map`."""
        return Mapped(self.client, self.target, iterables, chunk)

    def __repr__(self) -> str:
        return f"<Call {self.name}>"


def _never(function: Function[Any, Any]) -> bool:
    return False
