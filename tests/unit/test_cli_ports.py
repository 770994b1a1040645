"""Which port `evener up` takes, and what it says of an address that nobody can listen on."""

from __future__ import annotations

import socket

import click
import pytest

from evener.cli import exits, up
from evener.cli.ports import free_port, is_taken, who_listens
from evener.discovery import PORT_DEFAULT


@pytest.mark.parametrize("host", ["1.2.3.4", "nosuch.host.invalid"])
def test_an_address_that_is_not_ours_is_no_taken_port(host: str) -> None:
    assert not is_taken(host, 7450)
    assert free_port(host, 7450) == 7450


def test_a_taken_port_leads_to_the_next_and_its_owner_is_known() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        assert is_taken("127.0.0.1", port)
        assert free_port("127.0.0.1", port) != port
        assert "(pid " in who_listens(port)


def test_an_address_of_another_machine_is_refused_at_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    broker = {
        "part": "broker",
        "log_format": "plain",
        "host": "1.2.3.4",
        "insecure": True,
        "log_level": "warning",
    }
    tree = up.Tree(broker, None, {"app": "evener.no_functions:app"})
    with pytest.raises(click.exceptions.Exit) as raised:
        tree.start()
    tree.stop()
    assert raised.value.exit_code == exits.UNREACHABLE
    assert "this machine has no such address" in capsys.readouterr().err


def test_a_port_that_was_not_asked_for_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if not is_taken("127.0.0.1", PORT_DEFAULT):
            listener.bind(("127.0.0.1", PORT_DEFAULT))
            listener.listen()
        tree = up.Tree(
            {"part": "broker", "log_format": "plain", "host": "127.0.0.1", "log_level": "warning"},
            None,
            {},
        )
        address = tree.start_broker()
        tree.stop()
    port = address.rpartition(":")[2]
    told = capsys.readouterr().err
    assert f"port {PORT_DEFAULT} is taken by " in told
    assert f"using {port}" in told
