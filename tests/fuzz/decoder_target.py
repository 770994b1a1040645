"""The decoder as a target: frames in, a message or one `PeerError` out, and the same when repeated.

An input is a msgpack array of the frames.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any, Final

import msgpack

from evener_wire.codec import encode
from evener_wire.limits import HEAD_BYTES_MAX
from tests.fuzz.guided import Target
from tests.fuzz.test_decoder import change, change_bytes, try_decode
from tests.wire_samples import SAMPLES

_FRAMES_MAX: Final = 8


def run(data: bytes) -> None:
    """Decode, and what is a message must survive the round trip."""
    try_decode(frames_of(data))


def frames_of(data: bytes) -> list[Any]:
    """The frames that an input stands for; whatever it is, there are some."""
    try:
        found = msgpack.unpackb(data)
    except Exception:
        return [data]
    frames = found if isinstance(found, list) else [data]
    return [frame if isinstance(frame, bytes) else b"" for frame in frames][:_FRAMES_MAX]


def seeds() -> Iterator[bytes]:
    for _, session, number, message in SAMPLES:
        yield _packed([bytes(frame) for frame in encode(message, session, number)])


def alter(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """Change a field, some bytes, the frames; or take the head of one and the rest of another."""
    first, *others = frames_of(data) or [b""]
    action = rng.random()
    if action < 0.6:
        first = _change_fields(rng, first)
    elif action < 0.85:
        first = change_bytes(rng, first)
    elif action < 0.95:
        others = rng.choice(([], [*others, b""], others[1:], others * 2, frames_of(other)[1:]))
    else:
        theirs = (frames_of(other) or [b""])[0]
        first = first[: rng.randrange(len(first) + 1)] + theirs[rng.randrange(len(theirs) + 1) :]
    return _packed([first[:HEAD_BYTES_MAX], *others])


def _change_fields(rng: random.Random, head: bytes) -> bytes:
    try:
        fields = msgpack.unpackb(head, strict_map_key=False)
        for _ in range(rng.randrange(1, 3)):
            fields = change(rng, fields)
        return bytes(msgpack.packb(fields))
    except Exception:
        return change_bytes(rng, head)


def _packed(frames: list[bytes]) -> bytes:
    return bytes(msgpack.packb(frames))


TARGET: Final = Target(
    "decoder",
    run,
    seeds,
    alter,
    ("evener_wire/codec.py", "evener_wire/decoders.py", "evener_wire/checks.py"),
)
