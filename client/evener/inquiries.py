"""What a client asks about the cluster, and about tasks that are no longer in its hands.

Rules of this file: no protocol and no sockets. A task is named by its id in hexadecimal digits, as
the command line shows it, by the bytes of it, or by its future.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, TypeAlias, cast

from evener.backend import Backend
from evener.errors import BrokerUnreachable, ClientClosed, UsageError
from evener.future import Future
from evener.options import Duration, parse_duration
from evener.questions import Fetched, Question, Retried, unframed
from evener.statistics import FunctionStatistics, statistics_of
from evener.texts import plural
from evener_wire import checks
from evener_wire.errors import PeerError
from evener_wire.limits import ID_BYTES
from evener_wire.messages import Payload

Task: TypeAlias = str | bytes | Future[Any]
"""A task: its id in hexadecimal digits or as bytes, or its future."""

DEAD_LETTERS: Final = ("failed", "lost", "expired")
"""The ends that the broker keeps with their calls."""

_QUERY_S: Final = 5.0


class Inquiries:
    """A part of `Client`. Caller: any thread."""

    address: str
    closed: bool
    _backend: Backend

    # --- The cluster ------------------------------------------------------------------------------

    def query(self, what: str, *, query_timeout: float = _QUERY_S, **arguments: Any) -> Any:
        """Asks about the cluster, such as `query("ls", kind="tasks")`.

        Raises `UsageError` with the broker's words if it cannot answer, and `BrokerUnreachable`
        when there is no answer within `query_timeout` seconds.
        """
        return self._ask(what, query_timeout, arguments)[0]

    def _ask(self, what: str, timeout: float, arguments: dict[str, Any]) -> tuple[Any, Payload]:
        question = Question(self._backend, what)
        self._backend.ask(question, arguments, timeout)
        ok, body = question.result()
        if body is None:
            if self.closed:
                raise ClientClosed
            raise BrokerUnreachable(self.address, f"no answer within {timeout:g} s")
        head, payload = unframed(body)
        if not ok:
            raise UsageError(str(head))
        return head, payload

    def status(self, *, query_timeout: float = _QUERY_S) -> dict[str, Any]:
        """The cluster: broker, tasks by state, hosts, workers, queues, clients, functions.

        What `evener status --json` prints. `["broker"]["durable"]` says whether accepted tasks
        survive the death of the broker. Raises as `query` does, and as late (`query_timeout`).
        """
        return cast("dict[str, Any]", self.query("status", query_timeout=query_timeout))

    def statistics(self, *, query_timeout: float = _QUERY_S) -> dict[str, FunctionStatistics]:
        """What became of the tasks of each function since the broker began, by function's name.

        Of all clients together, and of up to a thousand functions. Raises as `query` does, and as
        late (`query_timeout`).
        """
        answer = self.query("ls", query_timeout=query_timeout, kind="functions", limit=1_000)
        return {row["name"]: statistics_of(row) for row in answer["rows"]}

    @property
    def durable(self) -> bool | None:
        """Whether the broker keeps accepted tasks in a journal; None: it was never connected."""
        return self._backend.durable

    @property
    def open_tasks(self) -> int:
        """How many tasks of this client have not ended."""
        return self._backend.open_tasks()

    def count_workers(self, timeout: float) -> int:
        """The workers of the cluster; 0 if the broker does not say in `timeout` seconds."""
        try:
            rows = self.query("ls", query_timeout=timeout, kind="hosts", limit=1_000)["rows"]
        except (UsageError, BrokerUnreachable):
            return 0
        return sum(row.get("slots", 0) for row in rows)

    # --- Tasks of anybody -------------------------------------------------------------------------

    def cancel(self, tasks: Iterable[Task]) -> None:
        """Asks the broker to stop these tasks, of whichever client, and waits for nothing.

        What has ended stays so, and an id that nobody knows changes nothing. Raises `UsageError`
        for what is no id, and `ClientClosed`.
        """
        self._backend.cancel_ids([id_of(task) for task in tasks])

    def fetch(self, task: Task) -> Future[Any]:
        """The future of a task that was submitted before, by this client or by any other.

        Its result comes when the task has ended, or at once if it has already. The broker keeps
        ends for a time after the client that submitted the task has them: of what was done the last
        few for an hour, of what failed, got lost or expired for a week; with a journal also when it
        restarts. Later, and for an id that never was, the result raises `UnknownTask`.
        """
        task_id = id_of(task)
        own = self._backend.open_future(task_id)
        if own is not None:
            return own
        fetched = Fetched(self._backend, task_id)
        self._backend.ask(fetched, {"id": task_id.hex()}, None)
        return fetched

    def show(self, task: Task) -> dict[str, Any]:
        """All that the broker knows of a task, as data. Raises `UsageError` if it knows none."""
        return cast("dict[str, Any]", self.query("show", id=id_of(task).hex()))

    def why(self, task: Task) -> dict[str, Any]:
        """Why a task waits, or where it runs and since when: a sentence in `["text"]`, and facts.

        What `evener why --json` prints; `["state"]` is "unknown" for a task that is not kept.
        """
        return cast("dict[str, Any]", self.query("why", id=id_of(task).hex()))

    # --- Dead letters -----------------------------------------------------------------------------

    def retry(self, task: Task) -> Future[Any]:
        """Submits the call of a task that failed, got lost or expired once more, as a new task.

        The new one has an id of its own; what is known of the old one stays until it is purged.
        Raises `UsageError` if the broker does not have the call any more, or the task has not ended
        so.
        """
        (name, options, *_), payload = self._ask("call", _QUERY_S, {"id": id_of(task).hex()})
        try:
            wanted = tuple(_frozen(value) for value in options)
            item = (self._new_id(), str(name), payload, checks.options(wanted))
        except (TypeError, ValueError) as error:
            raise PeerError(f"the broker's answer about a call cannot be read: {error}") from error
        future = Retried(self._backend, item)
        self._backend.submit(future)
        return future

    def purge(
        self,
        *tasks: Task,
        state: str | None = None,
        function: str | None = None,
        older_than: Duration | None = None,
        dry_run: bool = False,
    ) -> int:
        """Has the broker forget tasks that failed, got lost or expired; returns how many.

        Either those named, or all that are in this `state` ("failed", "lost" or "expired"), of this
        `function`, and ended longer ago than `older_than`. With `dry_run` they are only counted.
        Raises `UsageError` for what is no such task.
        """
        if tasks:
            if state is not None or function is not None or older_than is not None:
                raise UsageError("purge takes either tasks, or a state, function or age, not both")
            return sum(self._purge_one(id_of(task).hex(), dry_run) for task in tasks)
        wanted: dict[str, Any] = {"state": state, "function": function}
        if older_than is not None:
            wanted["older_ms"] = round(parse_duration("older_than", older_than) * 1000)
        wanted = {name: value for name, value in wanted.items() if value is not None}
        if not wanted:
            raise UsageError("purge what? Give tasks, or state=, function= or older_than=")
        answer = self.query("purge", **wanted, **({"dry_run": True} if dry_run else {}))
        return int(answer["purged"])

    def _purge_one(self, task_id: str, dry_run: bool) -> int:
        if not dry_run:
            return int(self.query("purge", id=task_id)["purged"])
        state = self.query("show", id=task_id)["state"]
        if state not in DEAD_LETTERS:
            raise UsageError(f"task {task_id} is {state}: only dead letters are purged")
        return 1

    # --- Acceptance -------------------------------------------------------------------------------

    def flush(self, timeout: float | None = None) -> None:
        """Waits until the broker has accepted, or rejected, everything that was submitted.

        With a journal this means: it is on disk, and done even if this program ends now. Raises
        `BrokerUnreachable` after `timeout` seconds.
        """
        if not self._backend.flush(timeout):
            open_tasks = plural(self.open_tasks, "open task")
            reason = f"not all of {open_tasks} are accepted after {timeout or 0.0:g} s"
            raise BrokerUnreachable(self.address, reason)

    def _new_id(self) -> bytes:
        raise NotImplementedError


def _frozen(value: Any) -> Any:
    return tuple(cast("list[object]", value)) if isinstance(value, list) else value


def id_of(task: Task) -> bytes:
    """The id of a task, however it is named. Raises `UsageError`."""
    if isinstance(task, Future):
        return task.item[0]
    task_id = task if isinstance(task, bytes) else b""
    if isinstance(task, str):
        try:
            task_id = bytes.fromhex(task)
        except ValueError:
            task_id = b""
    if len(task_id) != ID_BYTES:
        raise UsageError(
            f"{task!r} is not the id of a task: {2 * ID_BYTES} hexadecimal digits, {ID_BYTES} "
            "bytes, or a future"
        )
    return task_id
