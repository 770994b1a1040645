"""Questions to the broker that wait for their answer, as futures: so that waiting for one is as
waiting for a task.

Rules of this file: no socket. What an answer says is believed as little as any message.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any, cast

from msgpack import unpackb

from evener.errors import ClientClosed, UnknownTask
from evener.failure import decode_failure
from evener.future import Future
from evener.payload import ChunkResult, decode_outcome
from evener.telling import Holder
from evener_wire.errors import PeerError
from evener_wire.messages import TERMINAL_DONE, TERMINAL_STATES, Buffer, Facts, Frames, Payload


class Question(Future[Any]):
    """The result is `(ok, body)`; body None: there was no answer in time, or there will be none."""

    def __init__(self, holder: Holder, what: str, task_id: bytes = b"") -> None:
        super().__init__(holder, (task_id, what, b"", None))

    def answered(self, ok: bool, body: Payload | None) -> list[Future[Any]]:
        """Ends it. Returns it if it has callbacks to run."""
        self._value = (ok, body)
        self._decoded = True
        return Future.settle([(self, (self.item[0], TERMINAL_DONE, b"", None))])


class Retried(Future[Any]):
    """The result of a call that another client made, and perhaps as a chunk of `map`."""

    def _decode_value(self, payload: Payload) -> Any:
        value = decode_outcome(payload, self._holder.trusted)
        if not isinstance(value, ChunkResult):
            return value
        for failure in value.failures.values():
            raise decode_failure(failure, trusted=self._holder.trusted, task=self.label)
        return value.values


class Fetched(Question, Retried):
    """The result of a task that was submitted before, perhaps by somebody else."""

    def __init__(self, holder: Holder, task_id: bytes) -> None:
        super().__init__(holder, "fetch", task_id)

    @property
    def label(self) -> str:
        """How messages name the task: `7f3a12bc`, since its function is not known here."""
        return self.item[0].hex()[:8]

    def answered(self, ok: bool, body: Payload | None) -> list[Future[Any]]:
        """Ends it as the task ended, or with the reason why nobody can tell how."""
        task_id = self.item[0]
        if body is None:
            return self.fail(ClientClosed(f"the client was closed before {self.label} had ended"))
        try:
            if not ok:
                return self.fail(UnknownTask(task_id.hex(), str(unframed(body)[0])))
            (state, facts, *_), payload = unframed(body)
            if state not in range(len(TERMINAL_STATES)) or not isinstance(facts, dict | None):
                raise PeerError(f"no end: {state!r}")
            return Future.settle([(self, (task_id, state, payload, cast("Facts | None", facts)))])
        # An answer that is none must not end the connection that brought it.
        except Exception as error:
            text = f"the broker's answer about {self.label} cannot be read: {error}"
            return self.fail(PeerError(text[:500]))


class Questions:
    """Caller: any thread."""

    def __init__(self) -> None:
        self._open: dict[int, Question] = {}
        self._numbers = itertools.count(1)

    def add(self, question: Question) -> int:
        """Waits for the answer from now on; returns the number that it will have."""
        number = next(self._numbers)
        self._open[number] = question
        return number

    def answered(self, number: int, ok: bool, body: Payload | None) -> list[Future[Any]]:
        """An answer came. Returns futures whose callbacks are to be run."""
        question = self._open.pop(number, None)
        return [] if question is None else question.answered(ok, body)

    def end(self) -> list[Future[Any]]:
        """There will be no answers any more."""
        return [f for number in list(self._open) for f in self.answered(number, False, None)]


# --- What answers say -----------------------------------------------------------------------------


def unframed(body: Payload) -> tuple[Any, Payload]:
    """The msgpack of an answer, and the payload of a task that came with it, if one did.

    In an array the third entry is a short payload. A longer one follows as frames, or joined to a
    single one, whose parts' lengths are the fourth entry.
    """
    buffers: tuple[Buffer, ...] = body.buffers if isinstance(body, Frames) else (body,)
    head: Any = unpackb(buffers[0], strict_map_key=False)
    if not isinstance(head, list):
        return head, b""
    parts = list(cast("Iterable[Any]", head))
    if len(parts) > 3:
        return parts, Frames([*_cut(buffers[1], parts[3])])
    if len(buffers) > 1:
        return parts, Frames(buffers[1:])
    inline = parts[2] if len(parts) > 2 else None
    return parts, inline if isinstance(inline, bytes) else b""


def _cut(joined: Buffer, lengths: list[int]) -> Iterator[Buffer]:
    whole = memoryview(joined)
    if sum(lengths) != whole.nbytes or min(lengths, default=0) < 0:
        raise PeerError("lengths that are not those of the payload")
    for length in lengths:
        part, whole = whole[:length], whole[length:]
        yield part
