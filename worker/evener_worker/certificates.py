"""What an agent tells people of its workers: how they are, and how one ended.

Rules of this file: facts, as they stand in `docs/protocol.md`; no decisions.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from evener_wire import messages as m
from evener_wire.limits import MILLISECOND_NS
from evener_worker.deaths import how_it_ended
from evener_worker.events import Died
from evener_worker.limits import TOLD_TASKS_MAX
from evener_worker.shares import in_hand
from evener_worker.slots import Slot


def facts_of(slots: Iterable[Slot], now_ns: int, workers: int) -> list[m.Facts]:
    """What the heartbeat says about each worker."""
    most = TOLD_TASKS_MAX // max(1, workers)
    return [_facts_of(slot, now_ns, most) for slot in slots]


def _facts_of(slot: Slot, now_ns: int, most: int) -> m.Facts:
    head = slot.head()
    facts: dict[str, object] = {
        "name": slot.worker,
        "pid": slot.pid,
        "state": slot.state.value,
        "rss_bytes": slot.rss_bytes,
        "cpu_ms": slot.cpu_ms,
        "tasks": slot.tasks,
        "restarts": slot.restarts,
        "recycled": slot.recycled,
        "running": head[0].function if head else "",
        "task": head[0].key[0] if head else b"",
        "running_ms": (now_ns - head[1]) // MILLISECOND_NS if head else 0,
    }
    if slot.shared:
        facts["at_once"] = len(slot.shared)
        facts["beside"] = tuple(attempt.key[0] for attempt in islice(in_hand(slot), 1, most))
    return facts


def certificate_of(slot: Slot, event: Died, now_ns: int, ran_ns: int, why: str) -> m.Facts:
    """The death certificate; `why` the agent killed it, if it did."""
    return {
        "reason": how_it_ended(event) + (f" ({why})" if why else ""),
        "worker": slot.worker,
        "pid": slot.pid,
        "exit_code": event.exit_code,
        "signal": event.signal,
        "rss_bytes": slot.rss_bytes,
        "age_ms": (now_ns - slot.spawned_ns) // MILLISECOND_NS,
        "ran_ms": ran_ns // MILLISECOND_NS,
        "lines": tuple(event.lines),
    }
