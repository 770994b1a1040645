"""What a run of many seeds found, as JSON: never only "passed".

Rules of this file: sums of outcomes, no judgement beyond what the seeds said.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from tests.simulation.run import Outcome
from tests.simulation.swarm import ALL

# Points that a few hundred seeds must reach. What is not reached is not tested.
SOMETIMES: Final = (
    "CANCEL of a task that is over",
    "CANCEL of a task that is running",
    "CANCEL of a task that is sent",
    "CANCEL of a task that is waiting",
    "EXPIRED queue",
    "EXPIRED run",
    "EXPIRED total",
    "HELLO of a peer that the broker still knew",
    "LOST poison",
    "LOST unknown",
    "NOTICE unserved_queue",
    "REJECTED conflict",
    "REJECTED queue_full",
    "REJECTED unknown_function",
    "RESULT cancelled",
    "RESULT done",
    "RESULT failed",
    "RESULT lost",
    "RESULT of an attempt that is not open",
    "RESULT returned",
    "RESULT timed_out",
    "RUN that never arrived",
    "TERMINAL cancelled",
    "TERMINAL done",
    "TERMINAL expired",
    "TERMINAL failed",
    "TERMINAL lost",
    "TERMINAL told again",
    "agent comes back with an attempt that others have now",
    "agent ends in order",
    "agent gets bytes that are no message",
    "agent kills a worker that runs something",
    "agent opens a new connection after silence",
    "agent takes back what has not started",
    "agent tells a new broker what it runs",
    "agent tells that an attempt started",
    "body ended by SIGTERM",
    "body ends at the flag",
    "body takes its worker down",
    "broker gets bytes that are no message",
    "broker gives up a peer that does not read",
    "broker notices that it stood still",
    "broker parks messages for a full peer",
    "broker recalls work ahead",
    "broker restarted",
    "broker says RESYNC: out of step",
    "broker says RESYNC: unknown session",
    "broker sends work ahead",
    "broker's send fails: the peer is gone",
    "client gets bytes that are no message",
    "client is closed",
    "client opens a new connection after silence",
    "client submits again to a broker that restarted",
    "counter attempts_adopted",
    "counter attempts_stale",
    "counter messages_repeated",
    "counter results_stale",
    "counter sessions_silent",
    "crash between two effects",
    "ghost message of a dead connection",
    "id of another client's task",
    "message lost with the tail of a connection",
    "same task submitted twice",
    "second run beside one that was given up",
    "verdict: its connection broke and it did not come back",
    "verdict: left",
    "verdict: silent",
    "worker drops what was taken back",
    "worker gets several attempts at once",
    "worker killed while idle",
    "worker killed while running",
)


def summary(outcomes: Sequence[Outcome], cpu_s: float) -> dict[str, Any]:
    """All seeds together."""
    ends: Counter[str] = Counter()
    fired: Counter[str] = Counter()
    sometimes: Counter[str] = Counter()
    peaks: dict[str, int] = {}
    for outcome in outcomes:
        ends.update(outcome.ends)
        fired.update(outcome.fired)
        sometimes.update(outcome.sometimes)
        for name, value in outcome.peaks.items():
            peaks[name] = max(value, peaks.get(name, 0))
    events = sum(outcome.events for outcome in outcomes)
    seeds = [outcome.choice.seed for outcome in outcomes]
    return {
        "seeds": [min(seeds), max(seeds)] if seeds else [],
        "seeds_run": len(seeds),
        "simulated_hours": round(sum(o.simulated_ns for o in outcomes) / 3.6e12, 3),
        "cpu_seconds": round(cpu_s, 1),
        "events": events,
        "events_per_second": round(events / cpu_s) if cpu_s else 0,
        "tasks": sum(outcome.tasks for outcome in outcomes),
        "accepted": sum(outcome.accepted for outcome in outcomes),
        "tasks_by_end": dict(sorted(ends.items())),
        "executions": sum(outcome.executions for outcome in outcomes),
        "verdicts_true": sum(outcome.verdicts_true for outcome in outcomes),
        "verdicts_false": sum(outcome.verdicts_false for outcome in outcomes),
        "faults_fired": {kind: fired[kind] for kind in ALL},
        "sometimes": {point: sometimes[point] for point in SOMETIMES},
        "never": [point for point in SOMETIMES if not sometimes[point]],
        "other_points": {p: n for p, n in sorted(sometimes.items()) if p not in SOMETIMES},
        "peaks": dict(sorted(peaks.items())),
        "failed": {o.choice.seed: o.failure for o in outcomes if o.failure},
    }
