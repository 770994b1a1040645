"""Texts of unknown origin, made fit to be sent and shown.

Rules of this file: text in, text out; nothing of evener is imported.
"""

from __future__ import annotations


def cut(text: str, chars_max: int) -> str:
    """A text shortened in its middle, where a traceback says least."""
    if len(text) <= chars_max:
        return text
    half = (chars_max - 40) // 2
    return f"{text[:half]}\n... {len(text) - 2 * half} characters ...\n{text[-half:]}"


def sane(text: str) -> str:
    """A text that can be encoded: lone surrogates become escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def printable(text: str) -> str:
    """A remote text without what steers a terminal."""
    if text.isprintable():
        return text
    return "".join(c if c in "\n\t" or c.isprintable() else ascii(c)[1:-1] for c in text)
