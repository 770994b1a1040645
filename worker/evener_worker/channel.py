"""What goes over the socket pair between the agent and one worker, as bytes.

Rules of this file: no I/O; both ends use it, and the worker's end must load fast. A frame is a
fixed header, the sizes of its buffers, its body, its buffers. Bodies are msgpack. Both ends trust
each other: a worker that sends anything else is killed.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from typing import Any, Final, NamedTuple

import msgpack

from evener_wire.messages import Buffer, Frames

# Body bytes, number of buffers, kind, outcome, sequence, run time in microseconds.
_HEADER: Final = Struct("<IHBBII")
RUN_US_MAX: Final = (1 << 32) - 1

# Agent to worker.
# body: items as in the RUN message; `sequence` is the number of the first; `outcome` is 1 where
# their clients want to see what they write
RUN: Final = 1
LEAVE: Final = 2  # run the stop hooks and end
PING: Final = 3  # to be answered between two tasks
VALUES_TAKEN: Final = 4  # of the values that attempt `sequence` yielded; body: how many are taken
# Attempts to run side by side; body: [lane, *item] for each, and `sequence` is that of the first.
SHARE: Final = 5
INTERRUPT: Final = 6  # attempt `sequence` of those shall end now

# Worker to agent.
RESULT: Final = 16  # body: one item as in the RESULT message
# body: [[function, options or nil, grace_ms or nil, at once or nil], ...], [schedule, ...]
READY: Final = 17
FAILED_START: Final = 18  # body: text
DROPPED: Final = 19  # everything up to `sequence` that did not start was dropped
PONG: Final = 20  # with the `sequence` of the PING
FILES: Final = 21  # body: [path, ...] of the modules it imported, if its environment asks for them
YIELDED: Final = 22  # attempt `sequence` yielded; body: [index, more, payload]

# Between a program and the workers of its pool; `sequence` is the number of the call. The payload
# is the body, or if that is empty the buffers.
SETUP: Final = 32  # to the worker, first: [folders to import from, id, bounds]; the class as buffer
EXECUTE: Final = 33  # to the worker: an item for `run`
MESSAGE: Final = 34  # either way: no answer, but TAKEN
REQUEST: Final = 35  # either way
REPLY: Final = 36  # either way; `outcome` as in RESULT
TAKEN: Final = 37  # either way: the message was handled
DROP: Final = 38  # to the worker: nobody waits for this call any more


class Frame(NamedTuple):
    """One frame, either way."""

    kind: int
    sequence: int = 0
    outcome: int = 0
    run_us: int = 0
    body: bytes = b""
    buffers: Sequence[Buffer] = ()


def head_of(frame: Frame) -> bytes:
    """The bytes of a frame up to its buffers, which follow as they are."""
    kind, sequence, outcome, run_us, body, buffers = frame
    if not buffers:
        return _HEADER.pack(len(body), 0, kind, outcome, sequence, run_us) + body
    header = _HEADER.pack(len(body), len(buffers), kind, outcome, sequence, run_us)
    sizes = [memoryview(buffer).nbytes for buffer in buffers]
    return header + Struct(f"<{len(sizes)}Q").pack(*sizes) + body


def result_head(sequence: int, outcome: int, run_us: int, body: bytes) -> bytes:
    """The same for the most frequent frame of all, a result without buffers."""
    return _HEADER.pack(len(body), 0, RESULT, outcome, sequence, run_us) + body


def pack_items(items: Sequence[Any]) -> tuple[bytes, list[Buffer]]:
    """Items as msgpack; in place of `Frames` stands their number, and their buffers come along."""
    buffers: list[Buffer] = []

    def take(value: object) -> int:
        if type(value) is Frames:
            buffers.extend(value.buffers)
            return len(value.buffers)
        raise TypeError(f"cannot pack {type(value).__name__}")

    return msgpack.packb(items, default=take), buffers


class FrameReader:
    """Bytes to frames. A large buffer is read straight into its place: see `target`."""

    __slots__ = ("_begun", "_buffers", "_filled", "_pending")

    def __init__(self) -> None:
        self._pending = b""
        # A frame whose buffers are not complete: it, its buffers with the offset of each, and how
        # many bytes of them are there.
        self._begun: Frame | None = None
        self._buffers: list[tuple[bytearray, int]] = []
        self._filled = 0

    def target(self) -> memoryview | None:
        """Where the next bytes belong, if a buffer is incomplete; `filled` says how many came."""
        if self._begun is None:
            return None
        for buffer, start in self._buffers:
            if self._filled < start + len(buffer):
                return memoryview(buffer)[self._filled - start :]
        return None

    def filled(self, count: int) -> Frame | None:
        """So many bytes were written to `target`. The frame, if it is complete."""
        self._filled += count
        if self.target() is not None or self._begun is None:
            return None
        buffers = tuple(memoryview(buffer) for buffer, _ in self._buffers)
        frame = self._begun._replace(buffers=buffers)
        self._begun = None
        self._buffers = []
        return frame

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that are complete with these bytes. Only while `target` is None."""
        assert self._begun is None
        if self._pending:
            data = self._pending + data
        frames: list[Frame] = []
        at = 0
        end = len(data)
        header_size = _HEADER.size
        unpack = _HEADER.unpack_from
        while end - at >= header_size:
            size, count, kind, outcome, sequence, run_us = unpack(data, at)
            body_at = at + header_size + 8 * count
            body_end = body_at + size
            if body_end > end:
                break
            frame = Frame(kind, sequence, outcome, run_us, data[body_at:body_end])
            if not count:
                frames.append(frame)
                at = body_end
                continue
            sizes = Struct(f"<{count}Q").unpack_from(data, at + header_size)
            at = body_end + self._begin(frame, sizes, memoryview(data)[body_end:])
            done = self.filled(0)
            if done is None:
                at = end
                break
            frames.append(done)
        self._pending = data[at:]
        return frames

    def _begin(self, frame: Frame, sizes: Sequence[int], rest: memoryview) -> int:
        self._begun = frame
        self._filled = 0
        start = 0
        for size in sizes:
            self._buffers.append((bytearray(size), start))
            start += size
        taken = min(start, len(rest))
        while self._filled < taken:
            place = self.target()
            assert place is not None
            part = min(len(place), taken - self._filled)
            place[:part] = rest[self._filled : self._filled + part]
            self._filled += part
        return taken
