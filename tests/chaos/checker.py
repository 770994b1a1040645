"""Judges the histories of a chaos run: `python checker.py FOLDER`, exit code 1 if guilty.

Rules of this file: a program of its own that imports nothing of evener, and believes nobody but the
histories, the faults that the run fired, and the verdicts in the broker's log.

C1  each submitted task ends once at its caller, as it may end, with its own value;
    nothing runs or is answered that nobody submitted
C2  invoke, then start, then end, then the answer; no start after the answer; at most
    once means once; refused means never
C3  a task starts again only if its worker died, or its agent was given up before, or was late to a
    new broker; it runs twice at the same time only after such a verdict; no verdict without a fault
    that explains it
C4  ordered tasks of one client start in the order in which they were submitted
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

try:
    from tests.chaos.evidence import SECOND, BrokerVerdict, Evidence, Execution, Fault, Told, read
except ImportError:  # started as a file, from anywhere
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    from evidence import (  # type: ignore[no-redef, import-not-found]
        SECOND,
        BrokerVerdict,
        Evidence,
        Execution,
        Fault,
        Told,
        read,
    )

SILENCE_S = 4.0  # as documented: silence after which an agent is given up ...
HEARTBEAT_S = 1.0  # ... counted from the last heartbeat, which may be so old when a fault begins
GRACE_S = 1.5  # how long a broken connection has to come back

# How long after the end of a run its result may still be lost with its worker or agent.
DELIVERY_NS = 5 * SECOND

# How long a new broker waits for an agent to come, as documented: then others may get what it runs.
RECOVERY_NS = 3 * SECOND // 2

# The log has milliseconds, cut off; and a process that runs late reads its clock late.
CLOCK_NS = 3_000_000

# Ends of tasks that the broker never took in, so that no worker may see them.
REFUSED = frozenset({"TaskRejected", "QueueFull"})

# Kinds of faults that explain a verdict on their agents: not before this many seconds, and not
# later than so many (and so many times its length) after its end. What is lost by TCP is sent
# again after ever longer times, up to as long as the fault was.
EXPLAINS: dict[str, tuple[float, float, float]] = {
    "pause agent": (SILENCE_S - HEARTBEAT_S, 1.0, 0.0),
    "partition": (SILENCE_S - HEARTBEAT_S, 6.0, 1.0),
    "partition inwards": (SILENCE_S - HEARTBEAT_S, 6.0, 1.0),  # it hears nothing, but is heard
    "cut": (GRACE_S, 6.0, 1.0),  # a connection is broken, and cannot come back at once
    "kill agent": (0.0, 10.0, 0.0),
    "stop agent": (0.0, 60.0, 0.0),
}

EXAMPLES_MAX = 5


@dataclass(slots=True)
class Judgement:
    """What was found. `violations` by rule; the rest are figures."""

    tasks: int = 0
    answered: int = 0
    executions: int = 0
    reruns: int = 0
    lost: int = 0
    duplicates: int = 0
    twice_without_verdict: int = 0
    overlaps: int = 0
    overlaps_after_verdict: int = 0
    late: int = 0
    false_verdicts: int = 0
    verdicts: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    detection_s: list[float] = field(default_factory=list)
    recovery_s: list[float] = field(default_factory=list)
    violations: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def guilty(self, rule: str, text: str) -> None:
        self.violations[rule] += 1
        kept = self.examples.setdefault(rule, [])
        if len(kept) < EXAMPLES_MAX:
            kept.append(text)

    def as_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


def judge(evidence: Evidence) -> Judgement:
    """All rules over all evidence."""
    found = Judgement(tasks=sum(bool(told.invoked) for told in evidence.tasks.values()))
    found.faults.update(fault.kind for fault in evidence.faults)
    found.verdicts = len(evidence.verdicts)
    for line in evidence.unreadable:
        found.guilty("C0 unreadable", line[:200])
    for token, told in evidence.tasks.items():
        _judge_answers(token, told, found)
        _judge_steps(token, told, found)
        _judge_runs(token, told, evidence, found)
    _judge_order(evidence, found)
    _judge_verdicts(evidence, found)
    _measure(evidence, found)
    return found


# --- C1: what callers got -------------------------------------------------------------------------


def _judge_answers(token: str, told: Told, found: Judgement) -> None:
    if not told.invoked:
        what = "answered" if told.results else "run"
        found.guilty("C1 unexpected", f"{token}: {what}, but nobody submitted it")
        return
    if len(told.invoked) > 1:
        found.guilty("C1 unexpected", f"{token}: submitted {len(told.invoked)} times")
    if not told.results and "never" not in told.expect:
        found.lost += 1
        found.guilty("C1 lost", f"{token}: no answer; its runs: {told.runs}")
    if len(told.results) > 1:
        found.duplicates += len(told.results) - 1
        found.guilty("C1 duplicate", f"{token}: {told.results}")
    for _, what, text, _ in told.results:
        found.answered += 1
        if what == "ok" and text != f"{token}!":
            found.guilty("C1 stray", f"{token}: got the value {text!r}")
        elif (what if what == "ok" else text) not in told.expect:
            found.lost += 1
            found.guilty("C1 lost", f"{token}: ended as {what} {text}")


# --- C2: the steps of one task --------------------------------------------------------------------


def _judge_steps(token: str, told: Told, found: Judgement) -> None:
    if not told.invoked:
        return
    first_ns = told.invoked[0]
    answer = told.results[0] if told.results else None
    for run in told.runs:
        if run.began_ns < first_ns:
            found.guilty("C2 steps", f"{token}: began before it was submitted")
        if answer is not None and run.began_ns > answer[0]:
            found.guilty("C2 steps", f"{token}: began on {run.pid} after its answer {answer}")
    if answer is not None and answer[0] < first_ns:
        found.guilty("C2 steps", f"{token}: answered before it was submitted")
    if answer is not None and answer[1] == "ok":
        ends = [run.ended_ns for run in told.runs if run.ended_ns is not None]
        if not any(end_ns < answer[0] for end_ns in ends):
            found.guilty("C2 steps", f"{token}: answered, but no run had come to its end")
    if told.accepted and told.accepted[0] < first_ns:
        found.guilty("C2 steps", f"{token}: accepted before it was submitted")
    if answer is not None and answer[2] in REFUSED and told.runs:
        found.guilty("C2 refused", f"{token}: ran on {told.runs[0].pid}, and was refused")
    if "unknown" in told.expect and len(told.runs) > 1:
        found.guilty("C2 at most once", f"{token}: {len(told.runs)} runs")


# --- C3: again, and at the same time --------------------------------------------------------------


def _judge_runs(token: str, told: Told, evidence: Evidence, found: Judgement) -> None:
    found.executions += len(told.runs)
    for index, run in enumerate(told.runs[1:], 1):
        found.reruns += 1
        before = told.runs[index - 1]
        if _may_begin_again(before, run.began_ns, evidence):
            pass
        elif _is_late(before, run.began_ns, evidence):
            found.late += 1
        else:
            found.twice_without_verdict += 1
            found.guilty("C3 twice without a verdict", f"{token}: {before}, then {run}")
        for other in told.runs[:index]:
            if _runs_at(other, run.began_ns, evidence):
                found.overlaps += 1
                at_ns = run.began_ns
                if _given_up(other, at_ns, evidence) or _is_late(other, at_ns, evidence):
                    found.overlaps_after_verdict += 1
                else:
                    found.guilty("C3 overlap without a verdict", f"{token}: {other} and {run}")


def _may_begin_again(run: Execution, at_ns: int, evidence: Evidence) -> bool:
    last_ns = at_ns if run.ended_ns is None else min(at_ns, run.ended_ns + DELIVERY_NS)
    if any(run.began_ns <= died <= last_ns for died in evidence.deaths.get(run.pid, ())):
        return True
    if _given_up(run, at_ns, evidence):
        return True
    # Without a journal an answer that the broker had, and nobody else, dies with it.
    return not evidence.durable and any(
        fault.kind == "kill broker" and run.ended_ns is not None
        and run.ended_ns <= fault.at_ns + DELIVERY_NS and run.began_ns <= fault.at_ns <= at_ns
        for fault in evidence.faults
    )  # fmt: skip


def _runs_at(run: Execution, at_ns: int, evidence: Evidence) -> bool:
    if run.ended_ns is not None:
        return run.ended_ns > at_ns
    return not any(run.began_ns <= died <= at_ns for died in evidence.deaths.get(run.pid, ()))


def _given_up(run: Execution, at_ns: int, evidence: Evidence) -> bool:
    """Whether the broker gave up the agent of a run between its beginning and that moment."""
    agent = evidence.agent_of.get(run.pid)
    return any(
        verdict.agent == agent and run.began_ns - CLOCK_NS <= verdict.at_ns <= at_ns + CLOCK_NS
        for verdict in evidence.verdicts
    )


def _is_late(run: Execution, at_ns: int, evidence: Evidence) -> bool:
    """Whether its agent came too late to a new broker, which had given the task to another then."""
    began = [ns for ns in evidence.ready if run.began_ns < ns + CLOCK_NS and ns <= at_ns]
    if not began:
        return False
    until_ns = max(began) + RECOVERY_NS - CLOCK_NS
    came = evidence.connected.get(evidence.agent_of.get(run.pid, ""), [])
    in_time = any(max(began) <= ns < until_ns for ns in came)
    return at_ns >= until_ns and not in_time


def _judge_verdicts(evidence: Evidence, found: Judgement) -> None:
    for verdict in evidence.verdicts:
        if not any(_explains(fault, verdict) for fault in evidence.faults):
            found.false_verdicts += 1
            near = [
                f"{fault.kind} {(verdict.at_ns - fault.at_ns) / SECOND:.2f} s before"
                for fault in evidence.faults
                if verdict.agent in fault.agents and fault.at_ns < verdict.at_ns
            ]
            found.guilty("C3 false verdict", f"{verdict}; faults of this agent: {near[-3:]}")


def _explains(fault: Fault, verdict: BrokerVerdict) -> bool:
    times = EXPLAINS.get(fault.kind)
    if times is None or verdict.agent not in fault.agents:
        return False
    lead_s, slack_s, factor = times
    until_ns = fault.until_ns or fault.at_ns
    first_ns = fault.at_ns + int(lead_s * SECOND) - CLOCK_NS
    length_ns = until_ns - fault.at_ns
    return first_ns <= verdict.at_ns <= until_ns + int(slack_s * SECOND + factor * length_ns)


# --- C4: order ------------------------------------------------------------------------------------


def _judge_order(evidence: Evidence, found: Judgement) -> None:
    """Clients named `line...` submit to a queue with one worker: first starts are in order.

    Not promised after a verdict, so each of them begins a new count; a new broker is no excuse.
    """
    cuts = [verdict.at_ns for verdict in evidence.verdicts]
    last: dict[str, tuple[int, int, str]] = {}
    ordered = (
        (told.runs[0].began_ns, told.invoked[0], token)
        for token, told in evidence.tasks.items()
        if token.startswith("line") and told.runs and told.invoked
    )
    for began_ns, invoked_ns, token in sorted(ordered):
        client = token.partition(".")[0]
        before = last.get(client)
        if before is not None and before[1] > invoked_ns:
            if not any(invoked_ns <= cut_ns <= began_ns for cut_ns in cuts):
                found.guilty("C4 order", f"{token} began after {before[2]}")
        else:
            last[client] = (began_ns, invoked_ns, token)


# --- Figures --------------------------------------------------------------------------------------


def _measure(evidence: Evidence, found: Judgement) -> None:
    answers = sorted(told.results[0][0] for told in evidence.tasks.values() if told.results)
    for verdict in evidence.verdicts:
        causes = [fault for fault in evidence.faults if _explains(fault, verdict)]
        if causes:
            # The last one: what was before it may be over, and forgiven.
            cause = max(causes, key=lambda fault: fault.at_ns)
            if cause.kind != "partition inwards":
                found.detection_s.append((verdict.at_ns - cause.at_ns) / SECOND)
    for fault in evidence.faults:
        if fault.kind in ("kill broker", "pause broker") and fault.until_ns is not None:
            until_ns = fault.until_ns
            after = next((at_ns for at_ns in answers if at_ns >= until_ns), None)
            if after is not None:
                found.recovery_s.append((after - fault.at_ns) / SECOND)
        else:
            found.recovery_s += _reruns_after(fault, evidence)


def _reruns_after(fault: Fault, evidence: Evidence) -> Iterator[float]:
    """From a fault that cut a run short to the next start of that task."""
    pids = fault.pids | {pid for pid, a in evidence.agent_of.items() if a in fault.agents}
    if not pids:
        return
    for told in evidence.tasks.values():
        for run, following in zip(told.runs, told.runs[1:], strict=False):
            cut = run.ended_ns is None or run.ended_ns > fault.at_ns
            if cut and run.pid in pids and run.began_ns <= fault.at_ns <= following.began_ns:
                yield (following.began_ns - fault.at_ns) / SECOND


def main(arguments: list[str]) -> int:
    found = judge(read(Path(arguments[0])))
    json.dump(found.as_json(), sys.stdout)
    return 1 if found.violations else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
