"""Converts a PNG to a PPM or back: `python png_ppm.py SOURCE TARGET`.

Only the standard library, and only plain files: 8 bits, grey, RGB or RGBA, not interlaced. It
stands in for ImageMagick where that is not installed.
"""

from __future__ import annotations

import struct
import sys
import zlib
from pathlib import Path

SIGNATURE = b"\x89PNG\r\n\x1a\n"
CHANNELS = {0: 1, 2: 3, 6: 4}  # by the colour type of a PNG


def read_png(data: bytes) -> tuple[int, int, bytes]:
    """Width, height and the pixels of a PNG, three bytes each."""
    if not data.startswith(SIGNATURE):
        raise ValueError("it is no PNG")
    packed, at = b"", len(SIGNATURE)
    width = height = channels = 0
    while at < len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        body = data[at + 8 : at + 8 + length]
        at += length + 12
        if kind == b"IHDR":
            width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", body)
            if depth != 8 or colour not in CHANNELS or interlaced:
                raise ValueError("this kind of PNG is not known here")
            channels = CHANNELS[colour]
        elif kind == b"IDAT":
            packed += body
    rows = unfilter(zlib.decompress(packed), width * channels, height, channels)
    if channels == 3:
        return width, height, rows
    planes = [rows[channel::channels] for channel in range(channels)]
    red, green, blue = planes[:3] if channels == 4 else planes * 3
    pixels = bytearray(3 * width * height)
    pixels[0::3], pixels[1::3], pixels[2::3] = red, green, blue
    return width, height, bytes(pixels)


def unfilter(data: bytes, stride: int, height: int, step: int) -> bytes:
    """The rows of a PNG without their filters."""
    above, rows = bytearray(stride), bytearray()
    for y in range(height):
        begin = y * (stride + 1)
        kind, row = data[begin], bytearray(data[begin + 1 : begin + 1 + stride])
        for x in range(stride):
            left = row[x - step] if x >= step else 0
            corner = above[x - step] if x >= step else 0
            guess = (0, left, above[x], (left + above[x]) // 2, paeth(left, above[x], corner))
            row[x] = (row[x] + guess[kind]) & 255
        rows += row
        above = row
    return bytes(rows)


def paeth(left: int, up: int, corner: int) -> int:
    """Which of three neighbours is nearest to where their slope leads."""
    slope = left + up - corner
    return min((left, up, corner), key=lambda value: abs(slope - value))


def read_ppm(data: bytes) -> tuple[int, int, bytes]:
    """Width, height and the pixels of a binary PPM."""
    kind, width, height, depth, pixels = data.split(maxsplit=4)
    if kind != b"P6" or depth != b"255":
        raise ValueError("this kind of PPM is not known here")
    return int(width), int(height), pixels


def chunk(kind: bytes, body: bytes) -> bytes:
    """One part of a PNG."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def write_png(width: int, height: int, pixels: bytes) -> bytes:
    """A PNG of RGB pixels."""
    stride = 3 * width
    rows = b"".join(b"\0" + pixels[y * stride : (y + 1) * stride] for y in range(height))
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return SIGNATURE + parts


def main(source: Path, target: Path) -> None:
    """Read one, write the other."""
    data = source.read_bytes()
    if target.suffix == ".png":
        target.write_bytes(write_png(*read_ppm(data)))
    else:
        width, height, pixels = read_png(data)
        target.write_bytes(b"P6\n%d %d\n255\n" % (width, height) + pixels)


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), Path(sys.argv[2]))
    except (OSError, ValueError, zlib.error) as error:
        sys.exit(f"{sys.argv[1]}: {error}")
