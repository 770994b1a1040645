"""How evener's long-running processes log: to stderr, short on a terminal, plain or JSON elsewhere.

Rules of this file: standard library only, and called by commands only. Library code logs to loggers
below "evener" and configures nothing.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
import time
from collections.abc import Callable
from typing import Final

_COLOURS: Final = {"DEBUG": "2", "WARNING": "33", "ERROR": "31", "CRITICAL": "31;1"}

# What records may carry beside their text (`extra=`), and JSON lines then show.
_FIELDS: Final = ("worker", "task_id", "task", "queue", "attempt")


def set_up(role: str, level: str = "info", form: str = "auto", quiet: bool = False) -> None:
    """Send everything below "evener" to stderr. `form`: auto, short, plain or json."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_formatter(role, form))
    logger = logging.getLogger("evener")
    for old in logger.handlers[:]:
        logger.removeHandler(old)
    logger.addHandler(handler)
    logger.setLevel(logging.WARNING if quiet else level.upper())
    logger.propagate = False


def settled(form: str) -> str:
    """`auto` as short or plain, by what stderr is here."""
    if form == "auto":
        return "short" if sys.stderr.isatty() else "plain"
    return form


def _formatter(role: str, form: str) -> logging.Formatter:
    form = settled(form)
    if form == "json":
        return JsonLines(role)
    if form == "short":
        return ShortLines(role, sys.stderr.isatty() and not os.environ.get("NO_COLOR"))
    return PlainLines(role)


def line_maker(role: str, form: str) -> Callable[[str, str], str]:
    """What makes a log line of a level and a text, for who writes lines without a logger."""
    formatter = _formatter(role, form)

    def line(level: str, text: str) -> str:
        # A traceback stays one that can be read, but not where each line is an object.
        head, newline, rest = (text, "", "") if settled(form) == "json" else text.partition("\n")
        number = logging.getLevelNamesMapping()[level.upper()]
        record = logging.LogRecord(f"evener.{role}", number, "", 0, head, None, None)
        return formatter.format(record) + newline + rest

    return line


class ShortLines(logging.Formatter):
    """`12:01:44 worker-3 INFO  task done`: for eyes, in local time."""

    def __init__(self, role: str, colour: bool) -> None:
        super().__init__()
        self.role = role
        self.colour = colour

    def format(self, record: logging.LogRecord) -> str:
        level = f"{record.levelname:<7}"
        if self.colour and record.levelname in _COLOURS:
            level = f"\x1b[{_COLOURS[record.levelname]}m{level}\x1b[0m"
        moment = time.strftime("%H:%M:%S", time.localtime(record.created))
        who = getattr(record, "worker", self.role)
        return _with_trace(self, record, f"{moment} {who} {level} {_text(record)}")


class PlainLines(logging.Formatter):
    """`2026-11-21T12:01:44.123Z broker INFO text`: for files."""

    def __init__(self, role: str) -> None:
        super().__init__()
        self.role = role

    def format(self, record: logging.LogRecord) -> str:
        who = getattr(record, "worker", self.role)
        line = f"{_iso(record.created)} {who} {record.levelname} {_text(record)}"
        return _with_trace(self, record, line)


class JsonLines(logging.Formatter):
    """One JSON object in each line: for programs."""

    def __init__(self, role: str) -> None:
        super().__init__()
        self.role = role
        self.host = socket.gethostname()

    def format(self, record: logging.LogRecord) -> str:
        body: dict[str, object] = {
            "ts": _iso(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "msg": record.getMessage(),
            "role": self.role,
            "host": self.host,
            "pid": record.process,
        }
        body.update((name, getattr(record, name)) for name in _FIELDS if hasattr(record, name))
        if record.exc_info:
            body["exception"] = self.formatException(record.exc_info)
        return json.dumps(body, default=repr, ensure_ascii=False)


def _iso(seconds: float) -> str:
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{whole}.{int(seconds % 1 * 1000):03}Z"


def _text(record: logging.LogRecord) -> str:
    """The text with everything escaped that would steer a terminal or forge a line."""
    text = record.getMessage()
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _with_trace(formatter: logging.Formatter, record: logging.LogRecord, line: str) -> str:
    if record.exc_info:
        return f"{line}\n{formatter.formatException(record.exc_info)}"
    return line
