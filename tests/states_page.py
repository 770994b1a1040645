"""Draws `docs/states.md` from the broker's table of transitions: `python -m tests.states_page`.

Rules of this file: what stands in the page and is not in the table stands here; the test beside it
fails when the page and this differ.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from evener_broker.transitions import TERMINAL, TRANSITIONS, Cause, State

PAGE: Final = Path(__file__).resolve().parent.parent / "docs" / "states.md"

STATES: Final = {
    State.HELD: "waits for a moment: the end of a back-off, or of the recovery after a restart",
    State.QUEUED: "waits in its queue for a worker",
    State.ASSIGNED: "sent to an agent, not known to have started",
    State.RUNNING: "known to have started",
    State.DONE: "the function returned a value",
    State.FAILED: "the function raised, and no retry is left; or nobody knows the function",
    State.CANCELLED: "the client wanted no result any more",
    State.EXPIRED: "a limit of time was reached: in the queue, of a run, or of all together",
    State.LOST: "it took down too many workers, or nobody can say whether it ran",
}
CAUSES: Final = {
    Cause.RELEASE: "the moment it was held for has come",
    Cause.ASSIGN: "an agent with credit gets it",
    Cause.START: "the agent says that it runs",
    Cause.RETURN: "back to its place, not having run, or not known to have run",
    Cause.RETRY: "held before its next try",
    Cause.ADOPT: "an agent reports that it runs this already, from an earlier broker",
    Cause.FINISH: "a value came back",
    Cause.FAIL: "an exception came back",
    Cause.CANCEL: "the client cancelled it, and nothing of it runs",
    Cause.EXPIRE: "a limit of time was reached",
    Cause.LOSE: "no further try is allowed",
}

_HEAD: Final = """\
# The states of a task

Drawn from the table in `evener_broker/transitions.py` by `python -m tests.states_page`; a test
fails when the two differ. A step that is not here cannot happen: the broker stops with an error.

A task that is accepted begins in `queued`. One that its client submits again after a restart of
the broker begins in `held`, because it may still run somewhere. The last five states are terminal:
each task reaches exactly one of them, and never leaves it.
"""


def page() -> str:
    """The whole text of the page."""
    return "\n".join([_HEAD, *_diagram(), "", *_table(), "", *_causes(), ""])


def _diagram() -> list[str]:
    lines = ["```mermaid", "stateDiagram-v2", "    [*] --> queued", "    [*] --> held"]
    for state, steps in TRANSITIONS.items():
        into: dict[State, list[str]] = {}
        for cause, after in steps.items():
            into.setdefault(after, []).append(cause.value)
        for after in State:
            if after in into:
                causes = ", ".join(sorted(into[after]))
                lines.append(f"    {state.value} --> {after.value}: {causes}")
    lines += [f"    {state.value} --> [*]" for state in State if state in TERMINAL]
    return [*lines, "```"]


def _table() -> list[str]:
    lines = ["| state | meaning | goes to |", "|---|---|---|"]
    for state in State:
        after = {after.value for after in TRANSITIONS[state].values()}
        lines.append(f"| {state.value} | {STATES[state]} | {', '.join(sorted(after)) or '-'} |")
    return lines


def _causes() -> list[str]:
    lines = ["| step | why |", "|---|---|"]
    return lines + [f"| {cause.value} | {CAUSES[cause]} |" for cause in Cause]


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
