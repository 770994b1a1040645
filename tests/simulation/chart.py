"""A short sequence chart of how a seed ended: who said what to whom, and what broke.

Rules of this file: made from the trace alone; never longer than a screen and a half.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

_LINES_MAX: Final = 60
_WIDTH: Final = 14
_LINE: Final = re.compile(r"(\d+) (\S+) (.*)")
_TO: Final = re.compile(r"(\w+) to (\S+)")

# What keeps peers alive, and says nothing about a failure.
_DULL: Final = ("Heartbeat", "connected")


def chart(trace: Sequence[str]) -> list[str]:
    """The last lines of a trace, with one column for each host."""
    found = [_LINE.fullmatch(line) for line in trace]
    steps = [match.groups() for match in found if match is not None]
    steps = [step for step in steps if not step[2].startswith(_DULL)][-_LINES_MAX + 1 :]
    hosts = sorted({_host(who) for _, who, what in steps if "FAULT" not in what} | {"broker"})
    hosts.sort(key=lambda host: (not host.startswith("client"), host != "broker", host))
    lines = ["time in s".ljust(_WIDTH) + "".join(host.ljust(_WIDTH) for host in hosts)]
    return lines + [_row(hosts, *step) for step in steps]


def _row(hosts: list[str], at: str, who: str, what: str) -> str:
    place = f"{int(at) / 1e9 - 1_000:.6f}".ljust(_WIDTH)
    if "FAULT" in what:
        return f"{place}*** {what.replace('FAULT ', '')} {who}".rstrip()
    told = _TO.fullmatch(what)
    source = _host(who)
    if told is not None:
        target, text = told.group(2), told.group(1)
    elif source in ("broker", "disk", "fault"):
        target, text = source, what
    else:
        # Whatever peers say they say to the broker; what begins otherwise is no message.
        is_message = what[:1].isupper() and " " not in what
        target, text = "broker" if is_message else source, what
    if source not in hosts or target not in hosts or source == target:
        indent = hosts.index(source) * _WIDTH if source in hosts else 0
        return f"{place}{' ' * indent}{text}".rstrip()
    first, last = sorted((hosts.index(source), hosts.index(target)))
    arrow = text.center((last - first) * _WIDTH - 2, "-")
    arrow = f"{arrow}>" if hosts.index(source) < hosts.index(target) else f"<{arrow}"
    return f"{place}{' ' * first * _WIDTH}{arrow}"


def _host(who: str) -> str:
    return who.partition(".")[0]
