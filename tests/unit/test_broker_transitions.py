"""The table of a task's states: what it allows, and that the page in docs is drawn from it."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

import evener_broker
from evener_broker.records import Client, Function, Task
from evener_broker.tables import Bounds, Tables
from evener_broker.transitions import OPEN, TERMINAL, TRANSITIONS, Cause, State
from evener_wire import messages as m
from tests.states_page import PAGE, page


def test_the_page_is_not_stale() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python -m tests.states_page"


def test_every_state_has_a_row() -> None:
    assert set(TRANSITIONS) == set(State)
    used = {cause for steps in TRANSITIONS.values() for cause in steps}
    assert used == set(Cause)


def test_terminal_states_are_those_of_the_wire_and_have_no_way_out() -> None:
    """I1."""
    assert {state.value for state in TERMINAL} == set(m.TERMINAL_STATES)


def test_every_open_task_can_be_cancelled_expired_and_lost() -> None:
    """I19: no state that a limit or a cancel cannot end."""
    for state in set(State) - TERMINAL:
        ends = {Cause.CANCEL, Cause.EXPIRE, Cause.LOSE}
        assert ends <= TRANSITIONS[state].keys(), state


def test_an_attempt_opens_only_when_none_is_open() -> None:
    """I7: by assignment from the queue, or by adoption of what an agent has."""
    opening = {
        (state, cause)
        for state, steps in TRANSITIONS.items()
        for cause, after in steps.items()
        if after in OPEN and state not in OPEN
    }
    adopting = {(State.QUEUED, Cause.ADOPT), (State.HELD, Cause.ADOPT)}
    assert opening == {(State.QUEUED, Cause.ASSIGN), *adopting}


def test_every_state_can_be_reached() -> None:
    reached = {State.QUEUED, State.HELD}
    for _ in State:
        reached |= {after for state in reached for after in TRANSITIONS[state].values()}
    assert reached == set(State)


@pytest.mark.parametrize("state", list(State))
def test_a_step_that_is_not_in_the_table_is_an_error(state: State) -> None:
    tables = Tables(bytes(16), 1, random.Random(0), Bounds(), durable=False)
    client = Client(bytes(16), "client", {})
    function = Function("demo.add")
    for cause in Cause:
        task = Task(bytes(16), function, b"", m.DEFAULT_OPTIONS, client, 1, 0, state, 0)
        if cause in TRANSITIONS[state]:
            tables.move(task, cause)
            assert task.state is TRANSITIONS[state][cause]
        else:
            with pytest.raises(KeyError):
                tables.move(task, cause)


def test_nobody_but_the_one_method_changes_a_state() -> None:
    """Read from the source: `.state =` stands where a task is made, and in `Tables.move`."""
    folder = Path(evener_broker.__file__).parent
    lines = [
        f"{path.name}: {line.strip()}"
        for path in sorted(folder.glob("*.py"))
        for line in path.read_text(encoding="utf-8").splitlines()
        if ".state = " in line
    ]
    assert lines == [
        "records.py: self.state = state",
        "tables.py: task.state = TRANSITIONS[before][cause]",
    ]
