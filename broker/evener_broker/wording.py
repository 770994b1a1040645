"""Words for people: names of tasks, durations, counts. Pure text; decides nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from evener_wire import messages as m
from evener_wire.limits import SECOND_NS

if TYPE_CHECKING:
    from evener_broker.records import Task
    from evener_broker.reports import Report

# What is kept of the text of a failure. More: tasks that fail often take more memory.
_FAILURE_CHARS_MAX: Final = 200


def label(task: Task) -> str:
    """A task as people know it: `demo.add[7f3a90b1]`."""
    return f"{task.function.name}[{task.id.hex()[:8]}]"


def ago(duration_ns: int) -> str:
    """A duration: `12 ms`, `3.2 s`, `2 min 5 s`, `3 h 20 min`, `2 d 4 h`."""
    duration_ns = max(0, duration_ns)
    if duration_ns < SECOND_NS:
        return f"{duration_ns // 1_000_000} ms"
    if duration_ns < 120 * SECOND_NS:
        return f"{duration_ns / SECOND_NS:.1f} s"
    minutes, seconds = divmod(duration_ns // SECOND_NS, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"


def plural(number: int, noun: str, nouns: str = "") -> str:
    """`1 task`, `3 tasks`, `1,204 tasks`."""
    return f"{number:,} {noun if number == 1 else nouns or noun + 's'}"


def report_text(report: Report) -> str:
    """How far an attempt says it is: `7 of 20 (page 7)`."""
    text = f"{report.done:,}" + ("" if report.total is None else f" of {report.total:,}")
    return text + (f" ({report.note})" if report.note.isprintable() and report.note else "")


def failure_text(facts: m.Facts) -> str:
    """What a function raised: `ValueError: boom`."""
    named = [str(facts[name]) for name in ("type", "message") if facts.get(name)]
    return ": ".join(named)[:_FAILURE_CHARS_MAX] or "an exception"


def loss_text(certificate: m.Facts) -> str:
    """How an attempt ended together with its worker, or with its whole host."""
    reason = certificate.get("reason")
    text = f"its worker {reason}" if reason else "its host was lost while it ran"
    return text[:_FAILURE_CHARS_MAX]
