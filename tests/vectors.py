"""Writes `docs/protocol-vectors.json`: messages as fields and as bytes, for other implementations.

Rules of this file: the output depends on nothing but the samples and the codec.

    python -m tests.vectors           writes the file
    python -m tests.vectors --check   exits 1 when the file is stale

Values of JSON stand for values of msgpack, with three exceptions, since JSON has neither bytes nor
safe 64-bit numbers: `{"hex": "00ff"}` is a byte string, `{"frames": ["00ff"]}` is a payload in
frames of its own, and `{"whole": "81985529216486895"}` is a whole number beyond 2^53.
"""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Mapping
from dataclasses import fields as dataclass_fields
from typing import Any, Final

import msgpack

from evener_wire import messages as m
from evener_wire.codec import decode, encode
from evener_wire.errors import PeerError
from evener_wire.limits import PROTOCOL_MAX, QUEUES_MAX
from tests.support import ROOT
from tests.wire_samples import FENCE, OPTIONS, PEER, SAMPLES, SESSION, TASK

PATH: Final = ROOT / "docs/protocol-vectors.json"

_SAFE_MAX: Final = 1 << 53


def to_json(value: object) -> Any:
    """A value of a message as JSON."""
    if isinstance(value, m.Options):
        return {name: to_json(part) for name, part in value._asdict().items()}
    if isinstance(value, m.Frames):
        return {"frames": [bytes(buffer).hex() for buffer in value.buffers]}
    if isinstance(value, bytes):
        return {"hex": value.hex()}
    if isinstance(value, Mapping):
        return {str(name): to_json(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(part) for part in value]
    if type(value) is int and abs(value) > _SAFE_MAX:
        return {"whole": str(value)}
    assert value is None or isinstance(value, (str, int, float)), value
    return value


def describe(message: m.Message) -> dict[str, Any]:
    """The fields of a message by name, as JSON."""
    return {
        field.name: to_json(getattr(message, field.name)) for field in dataclass_fields(message)
    }


def vector(name: str, frames: list[bytes], *, canonical: bool) -> dict[str, Any]:
    """What these frames mean. `canonical`: evener itself writes exactly these bytes."""
    envelope = decode(frames)
    return {
        "name": name,
        "message": type(envelope.message).__name__.upper(),
        "kind": envelope.message.KIND,
        "session": to_json(envelope.session),
        "number": envelope.number,
        "fields": describe(envelope.message),
        "canonical": canonical,
        "frames": [frame.hex() for frame in frames],
    }


def valid() -> list[dict[str, Any]]:
    """At least one of each message, and what must be understood though evener does not write it."""
    vectors = [
        vector(name, [bytes(frame) for frame in encode(message, session, number)], canonical=True)
        for name, session, number, message in SAMPLES
    ]
    attempt = msgpack.packb([TASK, FENCE])
    understood = {
        "fields of a later version at the end are ignored": [_head(7, SESSION, 9, 3, "later", {})],
        "refused by a broker before wait_ms": [_head(4, 0, 0, "protocol", "too old")],
        "options may end early": [_head(16, 1, 2, [[TASK, "f", b"", ["reports", 7]]], False)],
        "numbers and lengths need not be written in the shortest form": [
            b"\xdc\x00\x04\xcc\x22\xcd\x00\x01\xce\x00\x00\x00\x02\xdd\x00\x00\x00\x01" + attempt
        ],
        "an empty batch": [_head(35, 1, 2, [])],
    }
    return vectors + [vector(name, frames, canonical=False) for name, frames in understood.items()]


def _head(*fields: object) -> bytes:
    packed: bytes = msgpack.packb(fields)
    return packed


def malformed() -> list[dict[str, Any]]:
    """What every receiver must refuse, and why."""
    hello: tuple[object, ...] = (1, 0, 0, 1, 1, "client", PEER, "host", 0, bytes(16), {})
    submit = [TASK, "demo.add", b"", None]
    ack = _head(7, 1, 1, 1)
    cases: list[tuple[str, list[bytes]]] = [
        ("no bytes", [b""]),
        ("not msgpack: 0xc1 is never used", [b"\xc1"]),
        ("head is not an array", [msgpack.packb({"kind": 1})]),
        ("head too short", [_head(7, 1)]),
        ("truncated", [ack[:-1]]),
        ("trailing byte", [ack + b"\xc0"]),
        ("unknown kind", [_head(255, 1, 1)]),
        ("kind is a float", [_head(7.0, 1, 1, 1)]),
        ("number is negative", [_head(7, 1, -1, 1)]),
        ("number is beyond 2^63 - 1", [_head(7, 1, 1 << 63, 1)]),
        ("session is true", [_head(7, True, 1, 1)]),
        ("missing field", [_head(7, 1, 1)]),
        ("declares more elements than there are bytes", [b"\xdd\xff\xff\xff\xff"]),
        ("text is not UTF-8", [_head(3, 0, 0)[:1] + b"\x03\x00\x00\xa2\xff\xfe"]),
        ("text with a lone surrogate", [b"\x94\x03\x00\x00\xa3\xed\xa0\x80"]),
        ("bytes where a text is wanted", [_head(3, 0, 0, b"reason")]),
        ("extension type", [_head(22, 1, 1, 1, "status", {"when": msgpack.ExtType(5, b"x")})]),
        ("timestamp", [b"\x95\x07\x01\x01\x01\xd6\xff" + struct.pack(">I", 1)]),
        ("map with a number as key", [_head(22, 1, 1, 1, "status", {1: 1})]),
        ("map with a key twice", [_head(22, 1, 1, 1, "status")[:-1] + b"s\x82\xa1a\x01\xa1a\x02"]),
        ("fact is nested too deep", [_head(22, 1, 1, 1, "status", {"a": [[1]]})]),
        ("fact is not a finite number", [_head(22, 1, 1, 1, "status", {"a": float("nan")})]),
        ("unknown role", [_head(*hello[:5], "worker", *hello[6:])]),
        ("range of protocols upside down", [_head(1, 0, 0, 2, 1, *hello[5:])]),
        ("instance of 15 bytes", [_head(*hello[:6], PEER[:15], *hello[7:])]),
        ("name with a line feed", [_head(*hello[:7], "a\nb", *hello[8:])]),
        ("name with a space", [_head(16, 1, 1, [[TASK, "demo add", b"", None]], False)]),
        ("name of 129 bytes", [_head(16, 1, 1, [[TASK, "a" * 129, b"", None]], False)]),
        ("item with a part too few", [_head(16, 1, 1, [submit[:3]], False)]),
        ("item with a part too many", [_head(16, 1, 1, [[*submit, 0]], False)]),
        ("item is a map", [_head(18, 1, 1, [{"a": 1, "b": 2, "c": 3}])]),
        ("too many queues", [_head(32, 1, 1, 1, False, ["q"] * (QUEUES_MAX + 1), None, None)]),
        ("one option too many", [_head(16, 1, 1, [[*submit[:3], [*OPTIONS, 0]]], False)]),
        ("priority 10", [_head(16, 1, 1, [[*submit[:3], ["default", 10]]], False)]),
        ("priority is a float", [_head(16, 1, 1, [[*submit[:3], ["default", 5.0]]], False)]),
        ("flag is a number", [_head(16, 1, 1, [submit], 0)]),
        ("unknown outcome", [_head(35, 1, 1, [[TASK, FENCE, 6, b"", 0, None]])]),
        ("unknown terminal state", [_head(19, 1, 1, [[TASK, 5, b"", None]])]),
        ("payload of no frames", [_head(23, 1, 1, 1, True, 0)]),
        ("payload names a frame that is not there", [_head(23, 1, 1, 1, True, 2), b"one"]),
        ("frame that no payload names", [ack, b""]),
    ]
    return [_refused(name, frames) for name, frames in cases]


def _refused(name: str, frames: list[bytes]) -> dict[str, Any]:
    try:
        decode(frames)
    except PeerError:
        return {"name": name, "frames": [frame.hex() for frame in frames]}
    raise AssertionError(f"not refused: {name}")


def document() -> str:
    """The whole file."""
    whole = {
        "about": "Test vectors of the evener protocol; docs/protocol.md says what they mean. "
        "Written by `python -m tests.vectors`.",
        "protocol": PROTOCOL_MAX,
        "valid": valid(),
        "malformed": malformed(),
    }
    return json.dumps(whole, indent=1, ensure_ascii=True) + "\n"


def main(arguments: list[str]) -> int:
    """Write the file, or say whether it is stale."""
    if arguments == ["--check"]:
        return int(PATH.read_text() != document())
    PATH.write_text(document())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
