"""What is asked of a pool: calls that workers answer, waits for processes, and room for calls.

Rules of this file: data and counting, no decisions. A call belongs to the machine from the moment
it is posted until its waiter is told.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final, Protocol

from evener_wire.messages import Buffer, Frames, Payload
from evener_worker.channel import EXECUTE, MESSAGE, REQUEST, Frame

KIND_NAMES: Final = {EXECUTE: "item", MESSAGE: "message", REQUEST: "request"}


class Waiter(Protocol):
    """Whoever waits for a call or for processes. Each is told once how it ended."""

    def admitted(self) -> None:
        """There is room for the call: it is the pool's business now."""
        ...

    def answered(self, outcome: int, payload: Payload) -> None:
        """It ended, with an outcome as in RESULT."""
        ...

    def failed(self, error: Exception) -> None:
        """It will not be answered."""
        ...


class Call:
    """An item, a message or a request for one worker, or an item for any."""

    __slots__ = (
        "at_once",
        "deadline_ns",
        "gone",
        "kind",
        "nbytes",
        "number",
        "parked",
        "payload",
        "place",
        "seat",
        "timeout_s",
        "waiter",
    )

    def __init__(
        self,
        kind: int,
        payload: Payload,
        waiter: Waiter,
        *,
        seat: int = 0,
        timeout_s: float | None = None,
        deadline_ns: int | None = None,
        at_once: bool = False,
    ) -> None:
        self.kind: Final = kind
        self.payload = payload
        self.nbytes = payload.nbytes if isinstance(payload, Frames) else len(payload)
        self.waiter: Final = waiter
        self.seat: Final = seat  # 0: any
        self.timeout_s: Final = timeout_s
        self.deadline_ns: Final = deadline_ns
        self.at_once: Final = at_once  # fails where there is no room, instead of waiting for it
        self.number = 0  # 0: not open
        self.place = 0  # whose process has it
        self.parked = False  # waits for room
        self.gone = False  # nobody waits for it any more, but the process has it

    @property
    def text(self) -> str:
        """As errors name it."""
        whom = f" to worker {self.seat}" if self.seat else ""
        return f"the {KIND_NAMES[self.kind]}{whom}"


class Wait:
    """Somebody waits until processes are ready, or ended."""

    __slots__ = ("deadline_ns", "ended", "kills", "number", "places", "text", "timeout_s", "waiter")

    def __init__(
        self,
        waiter: Waiter,
        text: str,
        *,
        timeout_s: float | None = None,
        deadline_ns: int | None = None,
        kills: bool = True,
    ) -> None:
        self.waiter: Final = waiter
        self.text: Final = text
        self.timeout_s: Final = timeout_s
        self.deadline_ns: Final = deadline_ns
        self.kills: Final = kills  # what does not start in time is killed
        self.number = 0
        self.ended = False  # waits for the end, not for ready
        self.places: set[int] = set()


class Room:
    """How many calls may be open, and who waits for room."""

    __slots__ = ("bytes_max", "count", "count_max", "nbytes", "parked")

    def __init__(self, count_max: int, bytes_max: int) -> None:
        self.count_max: Final = count_max
        self.bytes_max: Final = bytes_max
        self.count = 0
        self.nbytes = 0
        self.parked: deque[Call] = deque()  # one for each caller that waits

    def fits(self, nbytes: int) -> bool:
        """Whether there is room; one call of any size always fits alone."""
        return not self.count or (
            self.count < self.count_max and self.nbytes + nbytes <= self.bytes_max
        )

    def take(self, nbytes: int) -> None:
        """One more."""
        self.count += 1
        self.nbytes += nbytes

    def give_back(self, nbytes: int) -> None:
        """One less."""
        assert self.count > 0
        self.count -= 1
        self.nbytes -= nbytes


# --- Payloads in frames ---------------------------------------------------------------------------


def frame_of(kind: int, number: int, payload: Payload = b"", outcome: int = 0) -> Frame:
    """A frame with a payload: as body if it is one piece, else as buffers."""
    if isinstance(payload, Frames):
        return Frame(kind, number, outcome, buffers=payload.buffers)
    return Frame(kind, number, outcome, body=payload)


def payload_of(frame: Frame) -> Payload:
    """The payload in a frame."""
    buffers: Sequence[Buffer] = frame.buffers
    return Frames(buffers) if buffers else frame.body
