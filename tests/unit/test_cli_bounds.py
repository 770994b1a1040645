"""How much a broker takes: both commands that start one have the same options for it."""

from __future__ import annotations

from typing import Any

import pytest
from click.testing import CliRunner

from evener.cli import broker, up
from evener_broker import server

GIVEN = {
    "--max-tasks": "1000",
    "--max-bytes": "512MiB",
    "--max-client-tasks": "100",
    "--max-client-bytes": "64MiB",
    "--memory-limit": "2GiB",
}
EXPECTED = {
    "max_tasks": 1_000,
    "max_bytes": 512 << 20,
    "max_client_tasks": 100,
    "max_client_bytes": 64 << 20,
    "memory_limit": 2 << 30,
}
NOT_GIVEN = dict.fromkeys(EXPECTED, 0)


class Starts:
    """What each command would start a broker with."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.configs: list[dict[str, Any]] = []
        monkeypatch.setattr(server, "serve", self._serve)
        monkeypatch.setattr(up, "Tree", self._tree)

    def _serve(self, config: server.BrokerConfig) -> int:
        self.configs.append({name: getattr(config, name) for name in EXPECTED})
        return 0

    def _tree(self, config: dict[str, Any], port: int | None, agent: dict[str, Any]) -> Any:
        self.configs.append({name: config[name] for name in EXPECTED})
        known = {
            name: value for name, value in config.items() if name not in ("part", "log_format")
        }
        server.BrokerConfig(**known)  # the child makes one of it
        raise SystemExit(0)

    def of(self, command: Any, *arguments: str, **variables: str) -> dict[str, Any]:
        done = CliRunner().invoke(
            command, ["--port", "0", *arguments], env=variables, auto_envvar_prefix="EVENER_BROKER"
        )
        assert done.exit_code == 0, done.output
        return self.configs.pop()


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> Starts:
    return Starts(monkeypatch)


@pytest.mark.parametrize("command", [broker.command, up.command], ids=["broker", "up"])
def test_what_is_given_is_what_the_broker_gets(starts: Starts, command: Any) -> None:
    assert starts.of(command) == NOT_GIVEN
    arguments = [part for pair in GIVEN.items() for part in pair]
    assert starts.of(command, *arguments) == EXPECTED
    for option, value in GIVEN.items():
        name = option.removeprefix("--").replace("-", "_")
        assert starts.of(command, option, value) == {**NOT_GIVEN, name: EXPECTED[name]}


@pytest.mark.parametrize("command", [broker.command, up.command], ids=["broker", "up"])
@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--max-tasks", "0"),
        ("--max-tasks", "many"),
        ("--max-client-tasks", "-1"),
        ("--max-bytes", "4GB"),
        ("--max-client-bytes", "-1"),
        ("--memory-limit", "1.5GiB"),
    ],
)
def test_what_is_no_bound_is_refused(command: Any, option: str, value: str) -> None:
    done = CliRunner().invoke(command, [option, value])
    assert done.exit_code == 2
    assert option in done.output
