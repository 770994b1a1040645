"""How large facts are, and how much of them the broker passes on. Pure; decides nothing about work.

Agents may send facts as long as a message head. What goes on to a client shares its head with other
items, so it is cut here.
"""

from __future__ import annotations

from typing import Any, Final, cast

from evener_wire import messages as m
from evener_wire.limits import FACTS_MAX, KIB

# Of one end of a task. More: a few failures fill a message. Less: last words of a worker are cut.
_KEPT_BYTES_MAX: Final = 32 * KIB

# Room for what the broker itself adds.
_KEPT_ENTRIES_MAX: Final = FACTS_MAX - 8


def facts_bytes(facts: m.Facts) -> int:
    """What facts take in a head, roughly: texts count as UTF-8, with their keys."""
    return sum(len(key) + _fact_bytes(fact) for key, fact in facts.items())


def kept(facts: m.Facts, room: int = _KEPT_BYTES_MAX) -> dict[str, Any]:
    """As many of the facts as may be passed on, or kept; what is too long is left out."""
    found: dict[str, Any] = {}
    for key, fact in facts.items():
        size = len(key) + _fact_bytes(fact)
        if size <= room and len(found) < _KEPT_ENTRIES_MAX:
            found[key] = fact
            room -= size
    return found


def _fact_bytes(fact: object) -> int:
    if type(fact) is str:
        return len(fact.encode("utf-8", "replace")) + 5
    if type(fact) is bytes:
        return len(fact) + 5
    if isinstance(fact, tuple):
        parts = cast("tuple[object, ...]", fact)
        return 5 + sum(_fact_bytes(part) for part in parts)
    return 9
