"""What tells two calls of one id apart: a checksum, the same in every process. Pure."""

from __future__ import annotations

import zlib
from typing import Final

from evener_wire import messages as m
from evener_wire.limits import KIB

# Of each end of a large frame, what goes into the checksum: two calls of one id that differ only in
# between are taken for one. More: a call of a gigabyte stops the loop for a second.
_DIGESTED_BYTES: Final = 64 * KIB


def digest_of(payload: m.Payload) -> int:
    """The checksum of a call: 32 bits, never 0."""
    if type(payload) is bytes:
        return zlib.crc32(payload) or 1
    assert type(payload) is m.Frames
    digest = len(payload) & 0xFFFF_FFFF
    for buffer in payload.buffers:
        view = memoryview(buffer).cast("B")
        digest = zlib.crc32(view[:_DIGESTED_BYTES], digest)
        if len(view) > _DIGESTED_BYTES:
            digest = zlib.crc32(view[-_DIGESTED_BYTES:], digest)
    return digest or 1
