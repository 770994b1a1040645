"""The conversation with a program over its pipes: one JSON message per line, in both directions.

Rules of this file: no I/O, no clock, no threads. Bytes in, `Heard` out; messages in, lines out.
A line that is no message ends the conversation: `BadLine`, and nothing is heard afterwards.

What kinds there are:

    {"kind":"ready"}                                    program: first of all
    {"kind":"item","id":7,"value":...}                  to the program: please answer
    {"kind":"result","id":7,"value":...}                program: the answer; without "id" it is
    {"kind":"error","id":7,"message":"...",...}         that to the oldest item without answer
    anything else                                       a message for who listens
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from itertools import islice
from typing import Any, Final, TypeAlias, cast

from evener.errors import NotSendable, PayloadTooLarge, RemoteError
from evener_worker.local.errors import PoolFull
from evener_worker.local.feed_limits import (
    INBOX_BYTES_MAX,
    INBOX_MESSAGES_MAX,
    LINE_CHARS_SHOWN,
    LINE_MESSAGE_BYTES_MAX,
    LOOK_MESSAGES,
    REQUESTS_MAX,
)

# A message is asked for by its kind, or by a function that tells whether it is the one; or any will
# do.
Wanted: TypeAlias = str | Callable[[Any], bool] | None
"""Which messages: of this kind, those for which the function is true, or any."""


class TalkState(Enum):
    """How far the conversation is."""

    GREETING = "greeting"  # the program has not said that it is ready
    OPEN = "open"
    OVER = "over"


TALK_STEPS: Final[dict[TalkState, frozenset[TalkState]]] = {
    TalkState.GREETING: frozenset({TalkState.OPEN, TalkState.OVER}),
    TalkState.OPEN: frozenset({TalkState.OVER}),
    TalkState.OVER: frozenset(),
}


class BadLine(Exception):
    """A line that is no message, and why. Never leaves this package."""

    def __init__(self, line: bytes, reason: str) -> None:
        super().__init__(reason)
        self.line = line[: LINE_CHARS_SHOWN * 4].decode("utf-8", "replace")
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Greeted:
    """The program is ready; its message may have more to tell."""

    message: Any


@dataclass(frozen=True, slots=True)
class Answered:
    """The answer to a request: a value, or the error that came instead."""

    request: int
    value: Any = None
    error: RemoteError | None = None


@dataclass(frozen=True, slots=True)
class Came:
    """A message came for who listens; it is in the inbox."""


Heard = Greeted | Answered | Came


class Talk:
    """One conversation. Caller: whoever holds the lock of the program's link."""

    def __init__(self, *, greets: bool, line_bytes_max: int = LINE_MESSAGE_BYTES_MAX) -> None:
        self.state = TalkState.GREETING if greets else TalkState.OPEN
        self._line_bytes_max = line_bytes_max
        self._partial = bytearray()
        self._searched = 0  # so far there is no line end in it
        # By a number that grows, with the bytes of each.
        self._inbox: deque[tuple[int, Any, int]] = deque()
        self._inbox_bytes = 0
        self._came = 0
        self._requests: dict[int, bool] = {}  # in their order; False: nobody waits for it any more
        self._asked = 0

    def move(self, state: TalkState) -> None:
        """The next state, by the table; to where it is already, it need not move."""
        if state is not self.state:
            assert state in TALK_STEPS[self.state], (self.state, state)
            self.state = state

    # --- To the program ---------------------------------------------------------------------------

    def line_of(self, message: Any) -> bytes:
        """A message as its line. Raises `NotSendable`, `PayloadTooLarge`."""
        return encode(message, self._line_bytes_max)

    def ask(self, value: Any) -> tuple[int, bytes]:
        """A request: its number, and its line. Raises `PoolFull` at `REQUESTS_MAX`."""
        if len(self._requests) >= REQUESTS_MAX:
            raise PoolFull(f"the program has {REQUESTS_MAX} requests that it did not answer")
        number = self._asked + 1
        line = self.line_of({"kind": "item", "id": number, "value": value})
        self._asked = number
        self._requests[number] = True
        return number, line

    def abandon(self, number: int) -> None:
        """Nobody waits for that answer any more. When it comes, it is dropped."""
        if number in self._requests:
            self._requests[number] = False

    # --- From the program -------------------------------------------------------------------------

    def feed(self, data: bytes) -> Iterator[Heard]:
        """What these bytes tell. Raises `BadLine`; what was before it has been told."""
        self._partial += data
        while (end := self._partial.find(b"\n", self._searched)) >= 0:
            line = bytes(self._partial[:end])
            del self._partial[: end + 1]
            self._searched = 0
            if len(line) > self._line_bytes_max:
                break
            if line.strip():
                yield from self._hear(line)
        else:
            self._searched = len(self._partial)
            if self._searched <= self._line_bytes_max:
                return
            line = bytes(self._partial[: LINE_CHARS_SHOWN * 4])
        raise BadLine(line, f"it is longer than {self._line_bytes_max:,} bytes")

    def end(self) -> Iterator[Heard]:
        """No more bytes will come: a last line may lack its end."""
        rest, self._partial = bytes(self._partial), bytearray()
        self._searched = 0
        if rest.strip():
            yield from self._hear(rest)

    def _hear(self, line: bytes) -> Iterator[Heard]:
        message = decode(line)
        kind = kind_of(message)
        if kind == "ready" and self.state is TalkState.GREETING:
            self.move(TalkState.OPEN)
            yield Greeted(message)
        elif kind in ("result", "error"):
            answer = self._answer(line, message)
            if answer is not None:
                yield answer
        else:
            self._came += 1
            self._inbox.append((self._came, message, len(line)))
            self._inbox_bytes += len(line)
            if self.overflows and any(self._requests.values()):
                raise BadLine(line, "nobody listens for what it sends, and its answer is behind it")
            yield Came()

    def _answer(self, line: bytes, message: dict[str, Any]) -> Answered | None:
        number = message.get("id")
        if number is None and self._requests:
            number = next(iter(self._requests))
        if type(number) is not int or number not in self._requests:
            raise BadLine(line, "it answers nothing that was asked")
        if not self._requests.pop(number):
            return None
        if message["kind"] == "result":
            return Answered(number, message.get("value"))
        texts = [message.get(name, "") for name in ("type", "message", "traceback")]
        name, text, traceback = (part if isinstance(part, str) else str(part) for part in texts)
        return Answered(number, error=RemoteError(name or "error", text, traceback))

    # --- The inbox --------------------------------------------------------------------------------

    @property
    def overflows(self) -> bool:
        """Whether so much waits for listeners that no more should be read."""
        return len(self._inbox) >= INBOX_MESSAGES_MAX or self._inbox_bytes >= INBOX_BYTES_MAX

    def after(self, seen: int) -> list[tuple[int, Any]]:
        """Some messages that nobody took, oldest first, after the one with this number."""
        if seen >= self._came:
            return []
        later = ((number, message) for number, message, _ in self._inbox if number > seen)
        return list(islice(later, LOOK_MESSAGES))

    def take(self, number: int) -> bool:
        """Take a message out; False when somebody else was quicker."""
        for index, (there, _, nbytes) in enumerate(self._inbox):
            if there == number:
                del self._inbox[index]
                self._inbox_bytes -= nbytes
                return True
        return False


def kind_of(message: Any) -> Any:
    """The kind of a message; None if it has none."""
    return cast("dict[str, Any]", message).get("kind") if isinstance(message, dict) else None


def fits(message: Any, wanted: Wanted) -> bool:
    """Whether a message is one that was asked for."""
    if wanted is None:
        return True
    if isinstance(wanted, str):
        return bool(kind_of(message) == wanted)
    return bool(wanted(message))


def encode(message: Any, nbytes_max: int = LINE_MESSAGE_BYTES_MAX) -> bytes:
    """A message as one line."""
    try:
        text = json.dumps(message, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        reason = f"is no JSON: {error}"
        raise NotSendable("a message", type(message).__name__, reason) from error
    line = text.encode("ascii") + b"\n"
    if len(line) > nbytes_max:
        raise PayloadTooLarge("a message", len(line), nbytes_max)
    return line


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def decode(line: bytes) -> Any:
    """The message of a line. Raises `BadLine`."""
    try:
        return json.loads(line.decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        reason = "no UTF-8" if isinstance(error, UnicodeError) else f"no JSON: {error}"
        raise BadLine(line, reason) from error
