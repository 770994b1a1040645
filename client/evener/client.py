"""The client: what a program uses to have its functions run on a cluster.

Rules of this file: no protocol and no sockets; those are in `session.py` and `connection.py`. A
method encodes what the caller hands in, in the caller's thread, and makes a future.
"""

from __future__ import annotations

import os
import platform
import socket
import time
from collections.abc import Callable, Coroutine, Iterable
from random import Random
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, ParamSpec, TypeVar, cast, overload

from evener.backend import Backend
from evener.calls import Target, encode, target_of
from evener.connecting import await_welcome, checked_name
from evener.connection import Connection
from evener.current import Token, current_client, enter, leave
from evener.diagnosis import check_name
from evener.discovery import find_broker, is_loopback
from evener.errors import BrokerUnreachable, ClientClosed, UsageError
from evener.exits import live_connections
from evener.function import AsyncFunction, Function
from evener.future import Future
from evener.mapping import Mapped
from evener.options import TaskOptions, merge
from evener.payload import encode_call
from evener.session import ClientSession
from evener.session_records import Item
from evener.transport import Transport
from evener.version import __version__
from evener_wire.limits import ID_BYTES
from evener_wire.messages import Frames, Options, Payload

if TYPE_CHECKING:
    from typing import Self, Unpack

__all__ = ["Call", "Client", "current_client", "gather"]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

_CLOSE_S: Final = 10.0
_IDS_AT_ONCE: Final = 512


class Client:
    """A connection to a broker, for use by any number of threads.

    `address` is that of the broker, such as `"tcp://127.0.0.1:7450"`; without it the variable
    EVENER_BROKER counts, then the broker that runs on this machine. Returns once the broker said
    welcome, or raises `BrokerUnreachable` after `connect_timeout` seconds, and at once when waiting
    would not help; `BrokerRefused`; `UsageError`.

    `insecure` allows pickles to and from other machines, over connections that anybody on the way
    can read and change. `queue_full` says what `submit` does when as many tasks are open as the
    broker takes: "wait", or "raise" `QueueFull`.

    When the broker goes away later, futures stay pending until it is back.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        connect_timeout: float = 5.0,
        insecure: bool = False,
        name: str | None = None,
        queue_full: Literal["wait", "raise"] = "wait",
    ) -> None:
        self.closed = True
        """Whether it was closed, or never got so far as to be open."""
        self.address = find_broker(address)
        """The broker's address."""
        if queue_full not in ("wait", "raise"):
            raise UsageError(f'queue_full={queue_full!r} is neither "wait" nor "raise"')
        self.name = checked_name(name)
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
        self._begin(connection)
        connection.start()
        live_connections.add(connection)
        try:
            await_welcome(connection, self.address, connect_timeout)
        except BaseException:
            connection.close(0.0)
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
        """A client whose tasks go somewhere else than to a broker."""
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
        return self.submit_encoded(target, encode(target, args, kwargs, self._trusted))

    def submit_encoded(self, target: Target, payload: Payload) -> Future[Any]:
        """A task from its parts. For `map`, and for programs that keep encoded calls."""
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
        be asked for. When a worker dies in a chunk, all items of that chunk may run again, each by
        itself; with `timeout`, `retries` or `at_most_once` each item is a chunk of its own.
        """
        call = self.function(function, **options) if not isinstance(function, Call) else function
        return Mapped(self, call.target, iterables, chunk)

    def cancel(self, tasks: Iterable[str | Future[Any]]) -> None:
        """Asks the broker to stop these tasks, given as ids or futures, of whichever client."""
        task_ids: list[bytes] = []
        for task in tasks:
            text = task.task_id if isinstance(task, Future) else task
            try:
                task_id = bytes.fromhex(text)
            except (ValueError, TypeError):
                task_id = b""
            if len(task_id) != ID_BYTES:
                raise UsageError(f"{text!r} is not the id of a task: {2 * ID_BYTES} hex digits")
            task_ids.append(task_id)
        self._backend.cancel_ids(task_ids)

    def gather(self, *futures: Future[T], timeout: float | None = None) -> list[T]:
        """The results of several tasks, in the order given; see `gather`."""
        return gather(*futures, timeout=timeout)

    # --- For `map` --------------------------------------------------------------------------------

    @property
    def trusted(self) -> bool:
        """Whether pickles may travel."""
        return self._trusted

    @property
    def holder(self) -> Backend:
        """What futures of this client belong to."""
        return self._backend

    def new_item(self, target: Target, payload: Payload) -> Item:
        """A task with a new id, to be made into a future."""
        return (self._new_id(), target.name, payload, target.options)

    def submit_future(self, future: Future[Any]) -> None:
        """Sends a task whose future the caller made. Raises as `submit` does."""
        self._submit(future)

    def count_workers(self, timeout: float) -> int:
        """The workers of the cluster; 0 if the broker does not say in time."""
        try:
            rows = self.query("ls", query_timeout=timeout, kind="hosts", limit=1_000)["rows"]
        except (UsageError, BrokerUnreachable):
            return 0
        return sum(row.get("slots", 0) for row in rows)

    # --- The cluster ------------------------------------------------------------------------------

    def query(self, what: str, *, query_timeout: float = 5.0, **arguments: Any) -> Any:
        """Asks about the cluster, such as `query("status")` or `query("ls", kind="tasks")`.

        Raises `UsageError` with the broker's words if it cannot answer, and `BrokerUnreachable`
        when there is no answer within `query_timeout` seconds.
        """
        ok, body = self._backend.ask(what, arguments, query_timeout)
        if body is None:
            if self.closed:
                raise ClientClosed
            raise BrokerUnreachable(self.address, f"no answer within {query_timeout:g} s")
        from msgpack import unpackb

        stream = body.buffers[0] if isinstance(body, Frames) else body
        answer = unpackb(stream, strict_map_key=False)
        if not ok:
            raise UsageError(str(answer))
        return answer

    @property
    def open_tasks(self) -> int:
        """How many tasks of this client have not ended."""
        return self._backend.open_tasks()

    # --- The end ----------------------------------------------------------------------------------

    def close(self, timeout: float = _CLOSE_S) -> None:
        """Hands over what was submitted, for `timeout` seconds at most, and leaves.

        Tasks that have not ended go on at the cluster; their futures raise `ClientClosed`.
        """
        self.closed = True
        self._backend.close(timeout)

    def __enter__(self) -> Self:
        self._tokens.append(enter(self))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._tokens:
            leave(self, self._tokens.pop())
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"{self.open_tasks} open tasks"
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
    """A function with options, as `Client.function` gives it."""

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


def gather(*futures: Future[T], timeout: float | None = None) -> list[T]:
    """The results of several tasks, in the order given.

    Waits `timeout` seconds at most for all together, then raises `TaskTimeout`. Raises what the
    first failed one in that order raised; the others go on.
    """
    if timeout is None:
        return [future.result() for future in futures]
    deadline = time.monotonic() + timeout
    return [future.result(max(0.0, deadline - time.monotonic())) for future in futures]


def _never(function: Function[Any, Any]) -> bool:
    return False
