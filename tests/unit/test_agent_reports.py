"""Progress at the agent: what stands in a worker's page, and when the broker is told."""

from __future__ import annotations

import pytest

from evener_wire import messages as m
from evener_worker import events as e
from evener_worker import page as p
from tests.agent_harness import MS, Bench, item, key, sent


def look(bench: Bench, after_ms: int, **said: p.Said) -> list[m.Message]:
    """Time passes, and the pages of workers `w1`, `w2` have these reports. What is sent."""
    bench.now_ns += after_ms * MS
    pages = {
        slot.number: e.Page(
            bench.started.get(slot.number, 0), slot.head_since_ns, said.get(f"w{slot.number}")
        )
        for slot in bench.core.pool.slots.values()
    }
    messages = sent(bench.step(e.Tick(pages)))
    return [message for message in messages if type(message) is m.Progress]


def busy(workers: int = 1) -> Bench:
    bench = Bench(workers).open()
    bench.say(m.Run([item(number) for number in range(1, workers + 1)]))
    for slot in range(1, workers + 1):
        bench.start(slot, 1)
    return bench


def test_the_last_of_each_goes_in_one_message_and_not_too_often() -> None:
    bench = busy(2)
    one, two = (bench.core.pool.slots[slot].handed[0].key for slot in (1, 2))
    assert look(bench, 5, w1=p.Said(1, 1, 10, "a")) == [m.Progress([(*one, 1, 10, "a")])]
    assert look(bench, 50, w1=p.Said(1, 2, 10, "b")) == []
    assert look(bench, 45, w1=p.Said(1, 3, 10, "c"), w2=p.Said(1, 0.5, None, "")) == []
    assert look(bench, 5) == [m.Progress([(*one, 3, 10, "c"), (*two, 0.5, None, "")])]
    assert look(bench, 200) == []


def test_what_an_earlier_attempt_said_is_not_taken_for_the_next_one() -> None:
    bench = busy()
    bench.finish(1, 1)
    bench.say(m.Run([item(2)]))
    bench.start(1, 2)
    assert look(bench, 5, w1=p.Said(1, 9, 10, "late")) == []
    assert look(bench, 5, w1=p.Said(2, 1, 10, "")) == [m.Progress([(*key(2), 1, 10, "")])]


def test_nothing_is_told_of_what_ended_meanwhile() -> None:
    bench = busy()
    look(bench, 5, w1=p.Said(1, 1, 10, ""))
    look(bench, 5, w1=p.Said(1, 2, 10, ""))
    bench.finish(1, 1)
    bench.say(m.Run([item(2)]))
    bench.start(1, 2)
    assert look(bench, 200) == []


def test_without_a_session_it_waits_and_the_last_one_goes() -> None:
    bench = busy()
    bench.step(e.SendFailed())
    assert look(bench, 5, w1=p.Said(1, 1, 10, "")) == []
    bench.step(e.Writable())
    bench.welcome(session=12)
    assert look(bench, 5, w1=p.Said(1, 2, 10, "")) == [m.Progress([(*key(1), 2, 10, "")])]


# --- The page -------------------------------------------------------------------------------------


@pytest.fixture
def page() -> memoryview:
    return memoryview(bytearray(p.PAGE_BYTES)).cast("Q")


@pytest.mark.parametrize(
    "said",
    [p.Said(1, 7, 20, "page 7"), p.Said(2, 0.25, None, ""), p.Said(3, 0, 0, "\U0001f600" * 200)],
)
def test_a_report_is_read_as_it_was_written(page: memoryview, said: p.Said) -> None:
    assert page[p.REPORT] == 0
    p.write_report(page, said)
    assert p.read_report(page, page[p.REPORT]) == said


def test_a_report_that_is_being_replaced_is_none(page: memoryview) -> None:
    p.write_report(page, p.Said(1, 7, 20, "page 7"))
    before = page[p.REPORT]
    p.write_report(page, p.Said(1, 8, 20, "page 8"))
    assert p.read_report(page, before) is None


@pytest.mark.parametrize("cell", [0, 1, (1 << 64) - 1, 0xFFFF, 1 << 16])
def test_rubbish_in_the_page_is_none(page: memoryview, cell: int) -> None:
    page[p.REPORT] = cell
    assert p.read_report(page, cell) is None


@pytest.mark.parametrize(
    "wrong",
    [("a", 1, None, ""), (1, -1, None, ""), (1, 1, "x", ""), (1, 1, None, "x" * 201), (1, 1)],
)
def test_user_code_that_forges_a_report_is_not_believed(
    page: memoryview, wrong: tuple[object, ...]
) -> None:
    p.write_report(page, wrong)  # type: ignore[arg-type]
    assert p.read_report(page, page[p.REPORT]) is None


def test_the_report_does_not_lie_in_the_cells() -> None:
    assert max(p.STARTED, p.STARTED_NS, p.ITEM, p.REPORT, p.STOP, p.STOP_OUTCOME) * 8 < 1_024
