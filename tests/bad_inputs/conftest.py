"""Fixtures: a live cluster per file, and how long good tasks took beside bad peers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bad_inputs.live import Live

_reports: list[tuple[str, str]] = []


@pytest.fixture(scope="module")
def _cluster(
    tmp_path_factory: pytest.TempPathFactory, _adopt_orphans: None, _start_zmq_collector: None
) -> Iterator[Live]:
    live = Live(tmp_path_factory.mktemp("live"))
    try:
        live.start()
        yield live
    finally:
        live.close()


@pytest.fixture
def live(_cluster: Live, request: pytest.FixtureRequest) -> Iterator[Live]:
    """The live cluster, with a good client at work; all that must hold is checked at the end."""
    yield from _observed(_cluster, request)


@pytest.fixture
def own(tmp_path: Path, request: pytest.FixtureRequest, runtime_dir: Path) -> Iterator[Live]:
    """A live cluster of this test alone, for what others would feel."""
    live = Live(tmp_path)
    try:
        live.start()
        yield from _observed(live, request)
    finally:
        live.close()


def _observed(live: Live, request: pytest.FixtureRequest) -> Iterator[Live]:
    live.reports.clear()
    live.work()
    try:
        yield live
        live.check()
    finally:
        if live.flow is not None:
            live.flow.stop()
            live.reports.append(live.flow.latencies())
            live.flow = None
        _reports.append((request.node.name, "; ".join(live.reports[-2:])))


@pytest.hookimpl
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How long the tasks of a good client took beside each attack."""
    if _reports and terminalreporter.verbosity > 0:
        terminalreporter.section("good tasks beside bad peers")
        for name, text in _reports:
            terminalreporter.line(f"{name}: {text}")
