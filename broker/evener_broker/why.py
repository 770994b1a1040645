"""Why a task waits, or where it runs and since when: one sentence, and the facts behind it.

Rules of this file: pure and read-only; a question costs the same however many tasks wait. Facts are
part of the command line's JSON, so they only grow; the sentence may change.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from itertools import islice
from typing import Any, Final

from evener_broker.finding import Worker, find_task, worker_of
from evener_broker.lines import Queue
from evener_broker.records import Agent, Task
from evener_broker.room import fits
from evener_broker.tables import Tables
from evener_broker.transitions import TERMINAL, State
from evener_broker.wording import ago, label, plural, report_text
from evener_wire import messages as m
from evener_wire.limits import (
    HEARTBEAT_NS,
    MILLISECOND_NS,
    RECONNECT_GRACE_NS,
    SECOND_NS,
    SILENCE_NS,
)

# Tasks of a line, and attempts of all agents, that are looked at. More: the broker stands still for
# longer. Fewer: counts become lower bounds sooner.
_LOOKED_AT: Final = 10_000

# An agent says something each second; without a word for so long it is worth to be told.
_QUIET_NS: Final = 2 * HEARTBEAT_NS

_TEXT_CHARS: Final = 200

Facts = dict[str, Any]


def why(tables: Tables, arguments: m.Facts) -> Facts:
    """The answer to the question "why", about the task whose `id` is given whole or in part."""
    wanted = arguments.get("id")
    task = find_task(tables, wanted)
    if task is None:
        text = (
            f'no task has an id that begins with "{wanted}": it never came to this broker, or it '
            f"ended and is not kept any more"
        )
        return {"id": wanted, "state": "unknown", "reason": "unknown", "text": text}
    facts: Facts = {
        "id": task.id.hex(),
        "function": task.function.name,
        "state": task.state.value,
        "since_ms": (tables.now_ns - task.since_ns) // MILLISECOND_NS,
        "queue": task.options.queue,
        "priority": task.options.priority,
        "client": task.client.name,
        "attempt": m.attempt_of(task.fence) or None,
        "starts": task.tries.starts,
        "failures": task.tries.failures,
        "last_failure": task.tries.last,
    }
    tell = _ended if task.state in TERMINAL else _TELLERS[task.state]
    sentence = tell(tables, task, facts)
    return {**facts, "text": f"{label(task)} {sentence}"}


# --- Held -----------------------------------------------------------------------------------------


def _held(tables: Tables, task: Task, facts: Facts) -> str:
    tries = task.tries
    if not tries.again_ns:
        facts["reason"] = "recovery"
        text = "is held: the broker restarted, and agents have a moment to say whether they run it"
        return text + (", to have it cancelled" if tries.cancelling else "")
    again_ns = max(0, tries.again_ns - tables.now_ns)
    facts.update(reason="retry", again_ms=again_ns // MILLISECOND_NS)
    return f"waits {ago(again_ns)} more before it is tried again, after {_failures(task)}"


def _failures(task: Task) -> str:
    """What went wrong so far, the last of it in words."""
    tries, options = task.tries, task.options
    counts: list[str] = []
    if tries.failures:
        counts.append(f"{tries.failures} of {plural(options.retries + 1, 'attempt')} failed")
    if tries.starts:
        counts.append(f"{plural(tries.starts, 'worker')} died of at most {options.max_starts}")
    return f"{tries.last or 'a failure of which nothing is known'} ({', '.join(counts)})"


# --- Queued ---------------------------------------------------------------------------------------


def _queued(tables: Tables, task: Task, facts: Facts) -> str:
    return _in_line(tables, task, facts) + _limits(tables, task, facts)


def _in_line(tables: Tables, task: Task, facts: Facts) -> str:
    queue = tables.queues[task.options.queue]
    since = f"waits since {ago(tables.now_ns - task.since_ns)} in queue {queue.name}"
    if not queue.agents:
        served = sorted({name for agent in tables.agents.values() for name in agent.queues})
        facts.update(reason="unserved", served=served)
        who = f"workers serve {', '.join(served)}" if served else "no worker is connected"
        return f"{since}, which no connected worker serves ({who})"
    able = [agent for agent in queue.agents if _offers(agent, task)]
    if not able:
        return f"{since}, and {_not_offered(queue, task, facts)}"
    there = [agent for agent in able if agent.offered and agent.session is not None]
    if not there:
        return f"{since}, and {_away(tables, able, facts)}"
    working = [agent for agent in there if not agent.draining]
    if not working:
        facts.update(reason="draining", hosts=_names(there))
        verb = "is" if len(there) == 1 else "are"
        return f"{since}, and {_hosts(there)} {verb} draining: nothing new is taken there"
    return f"{since}: {_busy(tables, queue, task, working, facts)}"


def _limits(tables: Tables, task: Task, facts: Facts) -> str:
    """How long it may still wait."""
    tries = task.tries
    text = ""
    if tries.expires_ns:
        left_ns = max(0, tries.expires_ns - tables.now_ns)
        facts["expires_in_ms"] = left_ns // MILLISECOND_NS
        text += f"; it expires in {ago(left_ns)} if it has not started"
    if tries.deadline_ns:
        left_ns = max(0, tries.deadline_ns - tables.now_ns)
        facts["deadline_in_ms"] = left_ns // MILLISECOND_NS
        text += f"; its deadline is in {ago(left_ns)}"
    return text


def _offers(agent: Agent, task: Task) -> bool:
    return task.function.by_value or task.function in agent.functions


def _not_offered(queue: Queue, task: Task, facts: Facts) -> str:
    known = sorted({f.name for agent in queue.agents for f in agent.functions})
    if not known:
        facts.update(reason="starting", hosts=_names(queue.agents))
        return f"the workers of {_hosts(queue.agents)} are still starting"
    closest = difflib.get_close_matches(task.function.name, known, n=3, cutoff=0.5)
    facts.update(reason="unknown_function", closest=closest)
    hint = f"; the closest are {', '.join(closest)}" if closest else ""
    return f"no worker there offers {task.function.name}{hint}"


def _away(tables: Tables, able: list[Agent], facts: Facts) -> str:
    facts.update(reason="disconnected", hosts=_names(able))
    texts = [_connection(tables, agent) for agent in able[:3]]
    return f"who could run it is away: {'; '.join(filter(None, texts)) or _hosts(able)}"


def _busy(tables: Tables, queue: Queue, task: Task, agents: list[Agent], facts: Facts) -> str:
    slots = sum(agent.slots for agent in agents)
    workers: Facts = {"slots": slots, "hosts": _names(agents)}
    facts["workers"] = workers
    front = facts["in_front"] = _in_front(queue, task)
    if not slots:
        facts["reason"] = "starting"
        return f"no worker of {_hosts(agents)} is ready at the moment"
    oldest = _oldest(agents)
    if oldest is not None:
        workers["oldest"] = {
            "id": oldest.id.hex(),
            "function": oldest.function.name,
            "since_ms": (tables.now_ns - oldest.since_ns) // MILLISECOND_NS,
        }
    in_front = _in_front_text(front)
    if any(fits(task, agent) for agent in agents):
        facts["reason"] = "turn"
        return f"a worker is free, and it goes to one as soon as its turn comes{in_front}"
    facts["reason"] = "busy"
    works = "its only worker is busy" if slots == 1 else f"all {slots:,} workers for it are busy"
    since = "" if oldest is None else f" (longest with {label(oldest)}, {_since(tables, oldest)})"
    silent = next(filter(None, (_connection(tables, agent) for agent in agents)), "")
    return f"{works}{since}{in_front}" + (f"; {silent}" if silent else "")


def _in_front(queue: Queue, task: Task) -> Facts:
    """What goes before a task: by priority, of its own client, and whose turns come between."""
    level = queue.levels[task.options.priority]
    lane = level.lanes[task.client]
    earlier, exact = lane.before(task, _LOOKED_AT)
    others = [other for client, other in level.lanes.items() if client is not task.client]
    return {
        "higher_priority": sum(
            other.count for other in queue.busy if other.priority > level.priority
        ),
        "earlier": earlier,
        "earlier_exact": exact,
        "other_clients": sum(1 for other in others if other.count),
        "of_other_clients": sum(other.count for other in others),
    }


def _in_front_text(front: Facts) -> str:
    parts: list[str] = []
    if front["higher_priority"]:
        parts.append(f"{front['higher_priority']:,} of higher priority")
    if front["earlier"]:
        more = "" if front["earlier_exact"] else "at least "
        parts.append(f"{more}{front['earlier']:,} earlier of its client")
    text = f"; in front of it: {' and '.join(parts)}" if parts else "; it is next of its client"
    if front["other_clients"]:
        others = plural(front["other_clients"], "other client")
        text += f", and {others} with {plural(front['of_other_clients'], 'task')} take turns"
    return text


def _oldest(agents: list[Agent]) -> Task | None:
    held = (task for agent in agents for task in agent.open.values())
    running = (t for t in islice(held, _LOOKED_AT) if t.state is State.RUNNING)
    return min(running, key=lambda task: task.since_ns, default=None)


# --- Assigned and running -------------------------------------------------------------------------


def _assigned(tables: Tables, task: Task, facts: Facts) -> str:
    agent = task.agent
    assert agent is not None
    facts["host"] = agent.name
    since = ago(tables.now_ns - task.since_ns)
    if tables.commits.is_unsent(task):
        facts["reason"] = "journal"
        failing = tables.commits.failing
        trouble = f", which cannot be written at the moment: {failing}" if failing else ""
        text = f"waits since {since} until the journal has it on disk{trouble}"
        return f"{text}; then it goes to host {agent.name}"
    text = f"is with host {agent.name} since {since} and has not started"
    facts["reason"] = "assigned"
    ahead = _oldest([agent])
    if ahead is not None:
        facts["behind"] = {"id": ahead.id.hex(), "function": ahead.function.name}
        text += f", behind {label(ahead)} which runs {_since(tables, ahead)}"
    if task.tries.recalled:
        facts["reason"] = "recalled"
        text += "; it was asked back for a worker that is free"
    return text + _more(tables, task, facts)


def _running(tables: Tables, task: Task, facts: Facts) -> str:
    agent = task.agent
    assert agent is not None
    worker = worker_of(task)
    facts.update(reason="running", host=agent.name)
    where = f"host {agent.name}"
    if worker is not None:
        name, pid = worker.facts.get("name"), worker.pid()
        facts.update(worker=name, pid=pid)
        where += f" in worker {str(name)[:_TEXT_CHARS]} (pid {pid})"
    facts["running_ms"] = _running_ns(tables, task, worker) // MILLISECOND_NS
    text = f"runs on {where} {_since(tables, task, worker)}{_tries(task)}"
    report = task.client.reports.get(task.id)
    if report is not None:
        facts["progress"] = report.facts()
        text += f", and is at {report_text(report)}"
    return text + _more(tables, task, facts)


def _running_ns(tables: Tables, task: Task, worker: Worker | None) -> int:
    """Since when: we hear of a start a moment later, its agent measured it."""
    known_ns = tables.now_ns - task.since_ns
    told_ms = worker.facts.get("running_ms") if worker is not None else 0
    return max(known_ns, told_ms * MILLISECOND_NS) if type(told_ms) is int else known_ns


def _since(tables: Tables, task: Task, worker: Worker | None = None) -> str:
    return f"since {ago(_running_ns(tables, task, worker or worker_of(task)))}"


def _tries(task: Task) -> str:
    tries, retries = task.tries, task.options.retries
    parts: list[str] = []
    if retries:
        parts.append(f"attempt {tries.failures + 1} of {retries + 1}")
    if tries.failures or tries.starts:
        parts.append(f"after {_failures(task)}")
    return f" ({', '.join(parts)})" if parts else ""


def _more(tables: Tables, task: Task, facts: Facts) -> str:
    """What else there is to say of an open attempt: it shall end, or its agent is silent."""
    tries = task.tries
    assert task.agent is not None
    text = ""
    if tries.cancelling:
        facts["reason"] = "cancelling"
        asked_ns = tables.now_ns - tries.cancelled_ns
        facts["asked_ms"] = asked_ns // MILLISECOND_NS
        text += f"; it was asked to stop {ago(asked_ns)} ago, since it is cancelled"
    elif 0 < tries.deadline_ns <= tables.now_ns:
        facts["reason"] = "overdue"
        text += f"; its deadline passed {ago(tables.now_ns - tries.deadline_ns)} ago"
    silence = _connection(tables, task.agent)
    facts["connected"] = task.agent.session is not None
    return text + (f"; {silence}" if silence else "")


def _connection(tables: Tables, agent: Agent) -> str:
    """What is wrong with the connection of an agent; empty if nothing is."""
    if agent.session is None:
        left_ns = tables.live_ns - agent.left_ns
        return (
            f"host {agent.name} is not connected since {ago(left_ns)}, and its work goes to others "
            f"when it is not back within {RECONNECT_GRACE_NS / SECOND_NS:g} s"
        )
    silent_ns = tables.live_ns - agent.session.heard_ns
    if silent_ns >= _QUIET_NS:
        return (
            f"host {agent.name} said nothing for {ago(silent_ns)}, and after "
            f"{SILENCE_NS / SECOND_NS:g} s its work goes to others"
        )
    return "" if agent.offered else f"host {agent.name} is connecting"


def _names(agents: Any) -> list[str]:
    return sorted(agent.name for agent in agents)


def _hosts(agents: Any) -> str:
    names = _names(agents)
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return f"{'host' if len(names) == 1 else 'hosts'} {shown}"


# --- Ended ----------------------------------------------------------------------------------------


def _ended(tables: Tables, task: Task, facts: Facts) -> str:
    told = task.tries.facts or {}
    facts.update(reason="ended", facts=dict(told), fetched=task.taken)
    parts = [
        str(told[name])[:_TEXT_CHARS]
        for name in ("type", "message", "reason", "text")
        if name in told
    ]
    if "limit" in told:
        parts.append(f"{told['limit']} limit of {ago(int(told['ms']) * MILLISECOND_NS)}")
    detail = f" ({': '.join(parts)})" if parts else ""
    if not tables.commits.is_saved(task):
        taken = "its client hears of it once the journal has it on disk"
    elif task.taken:
        taken = "its client has the result"
    else:
        taken = "its client has not taken the end yet"
    return f"ended as {task.state.value} {ago(tables.now_ns - task.since_ns)} ago{detail}; {taken}"


_TELLERS: Final[dict[State, Callable[[Tables, Task, Facts], str]]] = {
    State.HELD: _held,
    State.QUEUED: _queued,
    State.ASSIGNED: _assigned,
    State.RUNNING: _running,
}
