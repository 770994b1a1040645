"""`--journal-size` as people write it, and where `--journal` may stand instead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from evener.cli import broker
from evener.cli.journal import SizeType
from evener_broker import server


@pytest.mark.parametrize(
    ("text", "size"),
    [("1048576", 1 << 20), ("512MiB", 512 << 20), ("4GiB", 4 << 30), ("2 TiB", 2 << 40)],
)
def test_sizes(text: str, size: int) -> None:
    assert SizeType().convert(text, None, None) == size


@pytest.mark.parametrize("text", ["", "4G", "4GB", "-1", "1.5GiB", "1023KiB", "9TiB", "9" * 30])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(click.BadParameter):
        SizeType().convert(text, None, None)


def test_the_default_is_the_brokers_own() -> None:
    assert SizeType().convert("4GiB", None, None) == server.BrokerConfig().journal_size


def test_both_may_stand_in_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configs: list[server.BrokerConfig] = []

    def serve(config: server.BrokerConfig) -> int:
        configs.append(config)
        return 0

    monkeypatch.setattr(server, "serve", serve)
    path = str(tmp_path / "j")
    settings: dict[str, Any] = {
        "EVENER_BROKER_JOURNAL": path,
        "EVENER_BROKER_JOURNAL_SIZE": "1GiB",
    }
    done = CliRunner().invoke(
        broker.command, ["--port", "0"], env=settings, auto_envvar_prefix="EVENER_BROKER"
    )
    assert done.exception is None, done.output
    (config,) = configs
    assert (config.journal, config.journal_size) == (path, 1 << 30)
