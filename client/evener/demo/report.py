"""The demo's words: what it prints when the work is done.

Rules of this file: data in, lines out. Each number that is rounded for people stands beside enough
others to be checked.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from evener.demo.totals import Totals
from evener.texts import plural

_TOP = 12


def megabytes(count: int) -> str:
    """A number of bytes as text, in units of a million."""
    return f"{count / 1e6:.1f} MB"


def top_identifiers(totals: Totals) -> Iterator[str]:
    """The most frequent names; among equals in the order of the alphabet."""
    ranked = sorted(totals.identifiers.items(), key=lambda item: (-item[1], item[0]))
    yield "top identifiers"
    for name, count in ranked[:_TOP]:
        yield f"  {count:>9,}  {name}"


def faults(totals: Totals) -> Iterator[str]:
    """Every file that could not be indexed, by name; nothing when there is none."""
    if totals.faults:
        yield f"{plural(len(totals.faults), 'file')} not indexed, because not valid Python"
        width = max(map(len, totals.faults))
        for name, fault in sorted(totals.faults.items()):
            yield f"  {name:<{width}}  {fault}"


def comparison(
    cluster: Totals, cluster_s: float, alone: Totals, alone_s: float, workers: int
) -> Iterator[str]:
    """Whether both found the same, and how long each took."""
    differences = cluster.differences(alone)
    if differences:
        yield "the cluster and one process do NOT agree (cluster and one process, the first few)"
        yield from (f"  {line}" for line in differences)
    else:
        yield (
            f"one process that calls the same function finds the same: "
            f"{alone.identifiers.total():,} identifiers, {len(alone.identifiers):,} different, "
            f"in {alone.lines:,} lines"
        )
    yield (
        f"  {plural(workers, 'worker')} {cluster_s:.1f} s, one process {alone_s:.1f} s: "
        f"{alone_s / cluster_s:.1f}x as fast on {plural(os.cpu_count() or 1, 'CPU')}"
    )


def closing(cluster: Totals, seconds: float, *, killed: int, again: bool = False, lost: int) -> str:
    """The last line. `again`: the task of the last killed worker was seen to run again."""
    rate = f"{cluster.files / seconds:,.0f} files/s, {cluster.bytes / 1e6 / seconds:.1f} MB/s"
    parts = [f"{plural(cluster.files, 'task')} in {seconds:.1f} s ({rate})"]
    if killed:
        told = " and its task run again" if killed == 1 else " and the last one's task run again"
        parts.append(f"{plural(killed, 'worker')} killed{told if again else ''}")
    parts.append(f"{lost:,} lost")
    return "; ".join(parts)
