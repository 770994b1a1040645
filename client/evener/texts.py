"""Texts of unknown origin, made fit to be sent and shown.

Rules of this file: text in, text out; nothing of evener is imported.
"""

from __future__ import annotations

import signal
from typing import Final


def cut(text: str, chars_max: int) -> str:
    """A text shortened in its middle, where a traceback says least."""
    if len(text) <= chars_max:
        return text
    half = (chars_max - 40) // 2
    return f"{text[:half]}\n... {len(text) - 2 * half} characters ...\n{text[-half:]}"


def sane(text: str) -> str:
    """A text that can be encoded: lone surrogates become escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def plural(number: int, noun: str) -> str:
    """`1 task`, `3 tasks`, `1,204 tasks`."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


_NAMED: Final = frozenset(map(int, signal.Signals))

_UNITS: Final = ((86_400, "d", "h", 3_600), (3_600, "h", "min", 60), (60, "min", "s", 1))


def seconds_text(seconds: float) -> str:
    """A duration for people: `1.2 s`, `350 ms`, `2 min 5 s`, `1 d 3 h`."""
    if seconds < 0.001:
        return f"{seconds * 1e6:.0f} µs"
    if seconds < 1:
        return f"{seconds * 1e3:.0f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    size, unit, lesser, part = next(row for row in _UNITS if whole >= row[0])
    return f"{whole // size} {unit} {whole % size // part} {lesser}"


def noticed(code: str, text: str) -> str:
    """What the broker wants a person to read, with what a client can do about it."""
    if code != "unserved_queue":
        return text
    return f"{text}; start such a worker, or bound the wait with the option expires or deadline"


def signal_text(number: int) -> str:
    """`SIGSEGV`, or `signal 99` for what has no name."""
    return signal.Signals(number).name if number in _NAMED else f"signal {number}"


def printable(text: str) -> str:
    """A remote text without what steers a terminal."""
    if text.isprintable():
        return text
    return "".join(c if c in "\n\t" or c.isprintable() else ascii(c)[1:-1] for c in text)
