"""One or more valid messages of each kind, for the tests of the wire and for the published vectors.

Rules of this file: the data is fixed once published in `docs/protocol-vectors.json`; every
field differs from its neighbours, so that two fields mixed up do not pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgpack
import pytest

from evener_wire import messages as m
from evener_wire.codec import decode
from evener_wire.errors import PeerError

PEER: Final = bytes(range(16))
BROKER: Final = bytes(range(16, 32))
TASK: Final = bytes(range(32, 48))
TASK_2: Final = bytes(range(48, 64))
NOBODY: Final = bytes(16)
EPOCH: Final = 1_760_000_000
FENCE: Final = m.fence_of(EPOCH, 1)
FENCE_2: Final = m.fence_of(EPOCH, 2)
SESSION: Final = 0x0123_4567_89AB_CDEF

OPTIONS: Final = m.Options(
    "reports",
    9,
    3,
    250,
    ("ValueError", "http.client.HTTPException"),
    2,
    1_500,
    60_000,
    90_000,
    True,
)

# Name of the vector, session, number, message. In the order in which they may be on the wire.
SAMPLES: Final[tuple[tuple[str, int, int, m.Message], ...]] = (
    (
        "hello of a client",
        0,
        0,
        m.Hello(1, 1, "client", PEER, "host-4711", 0, NOBODY, {"version": "0.1.0", "pid": 4711}),
    ),
    (
        "hello of an agent that knew this broker",
        0,
        0,
        m.Hello(1, 2, "agent", PEER, "host", EPOCH, BROKER, {"version": "0.1.0", "cpus": 2}),
    ),
    (
        "welcome",
        SESSION,
        1,
        m.Welcome(1, EPOCH, BROKER, 1_000, 4_000, 2_000_000, 2_147_483_648, False, {"pid": 12}),
    ),
    ("resync", 0, 0, m.Resync("unknown session")),
    ("refused", 0, 0, m.Refused("protocol", "this broker speaks protocol 1, the peer 2 to 3")),
    ("refused for now", 0, 0, m.Refused("retry_after", "many come at the same time", 120)),
    ("heartbeat of an idle peer", SESSION, 2, m.Heartbeat()),
    (
        "heartbeat of an agent",
        SESSION,
        3,
        m.Heartbeat(
            ((TASK, FENCE, 1_250), (TASK_2, FENCE_2, 0)),
            ({"pid": 99, "state": "running", "cpu": 0.5, "lines": ("a", "b"), "app": None},),
        ),
    ),
    ("goodbye", SESSION, 4, m.Goodbye("stopped")),
    ("ack", SESSION, 5, m.Ack(17)),
    (
        "submit",
        SESSION,
        6,
        m.Submit(
            [
                (TASK, "demo.add", b"\x92\x92\x01\x02\xc0", None),
                (TASK_2, "~math.sqrt", b"", OPTIONS),
            ]
        ),
    ),
    (
        "submit with payloads in frames, told again",
        SESSION,
        7,
        m.Submit(
            [
                (TASK, "demo.load", m.Frames([b"first", b"", b"second"]), None),
                (TASK_2, "demo.load", m.Frames([b"third"]), None),
            ],
            again=True,
        ),
    ),
    ("accepted", SESSION, 8, m.Accepted(7)),
    ("rejected", SESSION, 9, m.Rejected(((TASK, "queue_full", "submit again later"),))),
    (
        "rejected with facts",
        SESSION,
        9,
        m.Rejected(
            (
                (TASK, "conflict", "another task has this id"),
                (TASK_2, "unknown_function", "did you mean demo.add?"),
            ),
            (None, {"closest": ("demo.add",), "workers": 4, "functions": 3}),
        ),
    ),
    (
        "terminal of each state",
        SESSION,
        10,
        m.Terminal(
            [
                (TASK, m.TERMINAL_DONE, b"\x91\x03", None),
                (TASK_2, m.TERMINAL_FAILED, b"\x90", {"attempt": 2, "attempts": 4}),
                (PEER, m.TERMINAL_CANCELLED, b"", None),
                (BROKER, m.TERMINAL_EXPIRED, b"", {"limit": "queue", "ms": 60_000}),
                (NOBODY, m.TERMINAL_LOST, b"", {"reason": "poison", "starts": 3, "signal": 11}),
            ]
        ),
    ),
    (
        "terminal with a payload in frames",
        SESSION,
        11,
        m.Terminal([(TASK, 0, m.Frames([b"big"]), None)]),
    ),
    ("cancel", SESSION, 12, m.Cancel(((TASK, 0), (TASK_2, FENCE)))),
    ("notice", SESSION, 13, m.Notice("unserved_queue", "no worker serves queue reports")),
    ("query", SESSION, 14, m.Query(1, "status", {"queue": "default", "most": 10})),
    ("answer", SESSION, 15, m.Answer(1, True, b"\x81\xa7workers\x04")),
    ("answer in frames", SESSION, 16, m.Answer(2, False, m.Frames([b"\xa7no such"]))),
    (
        "offer, first of a session",
        SESSION,
        17,
        m.Offer(
            4,
            False,
            ("default", "reports"),
            [("demo.add", None), ("demo.load", OPTIONS)],
            ((TASK, FENCE), (TASK_2, FENCE_2)),
        ),
    ),
    (
        "offer with schedules",
        SESSION,
        33,
        m.Offer(
            4,
            False,
            ("default",),
            [("demo.clean", None)],
            None,
            (
                m.Schedule(
                    "demo.clean", "demo.clean", 300_000, "", "", "skip", "once", 0, b"\x92\x90\xc0"
                ),
                m.Schedule(
                    "nightly",
                    "demo.clean",
                    0,
                    "0 3 * * *",
                    "UTC",
                    "queue",
                    "skip",
                    60_000,
                    b"\x92\x90\xc0",
                ),
            ),
        ),
    ),
    (
        "offer with shares",
        SESSION,
        34,
        m.Offer(
            2,
            False,
            ("default",),
            [("demo.add", None), ("demo.fetch", None), ("demo.read", None)],
            None,
            (),
            (("demo.fetch", 50), ("demo.read", 16)),
        ),
    ),
    ("offer, later", SESSION, 18, m.Offer(3, True, ("default",))),
    (
        "run",
        SESSION,
        19,
        m.Run(
            [
                (TASK, FENCE, "demo.add", b"\x92\x92\x01\x02\xc0", 0, 0),
                (TASK_2, FENCE_2, "demo.load", m.Frames([b"first", b"second"]), 1_500, 90_000),
            ]
        ),
    ),
    ("started", SESSION, 20, m.Started(((TASK, FENCE),))),
    (
        "result of each outcome",
        SESSION,
        21,
        m.Result(
            [
                (TASK, FENCE, m.DONE, b"\x91\x03", 120, None),
                (TASK_2, FENCE_2, m.FAILED, m.Frames([b"traceback"]), 7, None),
                (PEER, FENCE, m.LOST, b"", 2_000_000, {"exit_code": None, "signal": 9, "pid": 99}),
                (BROKER, FENCE, m.RETURNED, b"", 0, None),
                (NOBODY, FENCE, m.CANCELLED, b"", 1, None),
                (bytes(reversed(range(16))), FENCE, m.TIMED_OUT, b"", 1_500_000, {"ms": 1_500}),
            ]
        ),
    ),
    ("recall", SESSION, 22, m.Recall(((TASK, FENCE), (TASK_2, FENCE_2)))),
    ("drain", SESSION, 23, m.Drain("the broker stops")),
    ("query to an agent", SESSION, 24, m.Query(7, "stack", {"task": TASK, "fence": FENCE})),
    ("answer of an agent", SESSION, 25, m.Answer(7, True, b"\x81\xa3pid\xcd\x12\x67")),
    (
        "progress",
        SESSION,
        26,
        m.Progress(((TASK, FENCE, 7, 20, "page 7"), (TASK_2, FENCE_2, 0.25, None, ""))),
    ),
    (
        "values",
        SESSION,
        27,
        m.Values(
            [
                (TASK, FENCE, 8, True, b"\x91\x03"),
                (TASK, FENCE, 9, True, m.Frames([b"big"])),
                (TASK_2, FENCE_2, 0, False, b""),
            ]
        ),
    ),
    ("taken", SESSION, 28, m.Taken(((TASK, FENCE, 10, False), (TASK_2, 0, 0, True)))),
    (
        "output",
        SESSION,
        29,
        m.Output(
            (
                (TASK, FENCE, 17, 1, "host:3", "3 loaves are ready\nh\u00f6t\n"),
                (TASK_2, FENCE_2, 1_234, 2, "host:4", ""),
            )
        ),
    ),
    (
        "run, with the output of the second",
        SESSION,
        30,
        m.Run(
            [
                (TASK, FENCE, "demo.add", b"\x92\x01\x02", 0, 0),
                (TASK_2, FENCE_2, "demo.tell", b"\x90", 0, 0),
            ],
            (1,),
        ),
    ),
)


def head(*fields: object) -> list[bytes]:
    """The frames of a message without payload frames."""
    return [msgpack.packb(fields)]


def refused(frames: Sequence[m.Buffer]) -> str:
    """The text of the one error that these frames must give."""
    with pytest.raises(PeerError) as caught:
        decode(frames)
    return str(caught.value)
