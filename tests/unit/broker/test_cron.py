"""When cron expressions are due: calendars, time zones, and the hours that come twice or not."""

from __future__ import annotations

import sys
from datetime import datetime
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from evener_broker.cron import CronError, last_due_ns, next_due_ns

SECOND_NS = 1_000_000_000


def due(expression: str, after: str, zone: str = "UTC") -> str:
    """The next due time after a moment, both as text; `after` names its offset to UTC."""
    moment = int(datetime.fromisoformat(after).timestamp()) * SECOND_NS
    found = next_due_ns(expression, zone, moment)
    assert found is not None
    assert found > moment
    return datetime.fromtimestamp(found // SECOND_NS, ZoneInfo(zone)).isoformat()


@pytest.mark.parametrize(
    ("expression", "after", "expected"),
    [
        ("*/5 * * * *", "2030-05-01T12:01:00+00:00", "2030-05-01T12:05:00+00:00"),
        ("*/5 * * * *", "2030-05-01T12:05:00+00:00", "2030-05-01T12:10:00+00:00"),
        ("*/10 * * * * *", "2030-05-01T12:05:03+00:00", "2030-05-01T12:05:10+00:00"),
        ("0 0 29 2 *", "2030-05-01T12:00:00+00:00", "2032-02-29T00:00:00+00:00"),
    ],
)
def test_the_next_due_time(expression: str, after: str, expected: str) -> None:
    assert due(expression, after) == expected


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        # 2030-03-31: 02:00 to 03:00 does not exist.
        ("2030-03-31T00:00:00+01:00", "2030-03-31T03:00:00+02:00"),
        ("2030-03-31T03:00:00+02:00", "2030-04-01T02:30:00+02:00"),
        # 2030-10-27: 02:00 to 03:00 exists twice.
        ("2030-10-27T00:00:00+02:00", "2030-10-27T02:30:00+02:00"),
        ("2030-10-27T02:30:00+02:00", "2030-10-28T02:30:00+01:00"),
        ("2030-10-27T02:10:00+01:00", "2030-10-28T02:30:00+01:00"),
    ],
)
def test_where_the_clocks_change(after: str, expected: str) -> None:
    assert due("30 2 * * *", after, "Europe/Vienna") == expected


def test_each_quarter_of_an_hour_comes_also_in_the_hour_that_comes_twice() -> None:
    moments = ["2030-10-27T01:50:00+02:00"]
    for _ in range(9):
        moments.append(due("*/15 * * * *", moments[-1], "Europe/Vienna"))
    times = [datetime.fromisoformat(moment).timestamp() for moment in moments[1:]]
    assert {after - before for before, after in pairwise(times)} == {900.0}


def test_the_last_due_time_is_that_of_the_moment_or_before() -> None:
    noon = int(datetime.fromisoformat("2030-05-01T12:00:00+00:00").timestamp()) * SECOND_NS
    assert last_due_ns("0 * * * *", "UTC", noon) == noon
    assert last_due_ns("0 * * * *", "UTC", noon + 59 * 60 * SECOND_NS) == noon
    assert last_due_ns("0 * * * *", "UTC", noon - SECOND_NS) == noon - 3600 * SECOND_NS


@pytest.mark.parametrize("expression", ["", "* * *", "61 * * * *", "a b c d e", "*/0 * * * *"])
def test_what_is_no_expression_is_an_error(expression: str) -> None:
    with pytest.raises(CronError, match="cron expression"):
        next_due_ns(expression, "UTC", 0)


def test_a_broker_without_the_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cronsim", None)
    with pytest.raises(CronError, match=r"pip install 'evener\[cron\]'"):
        next_due_ns("* * * * *", "UTC", 0)
