"""Whatever stands in a row, reading it gives a task or one of two errors, and nothing else."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from evener_broker import journal_rows as rows
from evener_broker.journaling import TaskSaved
from evener_wire import messages as m

_WHOLE = st.integers(-(2**63), 2**63 - 1)
_CELL = st.one_of(st.none(), _WHOLE, st.floats(), st.text(max_size=20), st.binary(max_size=40))
_COLUMNS = rows.COLUMNS.count(",") + 1
_NAMES = rows.COLUMNS.split(", ")


def _row_of(task: TaskSaved) -> list[Any]:
    """What SQLite gives back of a task that was accepted."""
    number, packed, lengths, call = rows.Packing().saved(task)
    row: list[Any] = [None] * _COLUMNS
    row[:2] = number, packed
    row[_NAMES.index("call_lengths")] = lengths
    row[rows.CALL] = bytes(call)
    return row


_OPTIONS = st.builds(
    m.Options,
    queue=st.sampled_from(["default", "späte"]),
    priority=st.integers(0, 9),
    retry_on=st.lists(st.text(max_size=10), max_size=3).map(tuple),
    max_starts=st.integers(1, 1_000),
    retries=st.integers(0, 1_000),
    **dict.fromkeys(
        ("retry_delay_ms", "timeout_ms", "expires_ms", "deadline_ms"), st.integers(0, 10**9)
    ),
    at_most_once=st.booleans(),
)
_PAYLOADS = st.one_of(
    st.binary(max_size=50), st.lists(st.binary(max_size=20), max_size=4).map(m.Frames)
)
_TASKS = st.builds(
    TaskSaved,
    number=st.integers(1, 2**47),
    id=st.binary(min_size=16, max_size=16),
    client=st.binary(min_size=16, max_size=16),
    function=st.sampled_from(["a.b", "späte.arbeit"]),
    options=_OPTIONS,
    call=_PAYLOADS,
    digest=st.integers(0, 2**63 - 1),
)


def test_columns_stand_where_they_are_said_to() -> None:
    assert _NAMES[rows.CALL] == "call"
    assert _NAMES[rows.RESULT] == "result"


@settings(deadline=None)
@given(_TASKS)
def test_every_task_comes_back(task: TaskSaved) -> None:
    number, task_id, client, function, options, call, digest = task
    kept = rows.kept(tuple(_row_of(task)))
    assert kept[:7] == (number, task_id, client, function, options, call, digest)
    assert (kept.starts, kept.dispatched, kept.state, kept.facts) == (0, False, None, None)


@settings(deadline=None)
@given(st.tuples(*[_CELL] * _COLUMNS))
def test_any_row_at_all(row: tuple[Any, ...]) -> None:
    try:
        rows.kept(row)
    except (ValueError, TypeError):
        return
    raise AssertionError("a row of random cells is a task")


@settings(max_examples=300, deadline=None)
@given(_TASKS, st.integers(0, _COLUMNS - 1), _CELL)
def test_a_task_with_one_cell_changed(task: TaskSaved, column: int, cell: Any) -> None:
    row = _row_of(task)
    before = rows.kept(tuple(row))
    row[column] = cell
    try:
        after = rows.kept(tuple(row))
    except (ValueError, TypeError):
        return
    assert after == before
