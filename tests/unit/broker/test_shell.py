"""The shell on a real socket, turn by turn."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterable, Iterator

import pytest
import zmq

from evener_broker.core import BrokerCore
from evener_broker.effects import Effect
from evener_broker.events import Event
from evener_broker.shell import Shell, router
from evener_wire import codec
from evener_wire import messages as m
from tests.support import wait_until


class Interrupted(BrokerCore):
    """A core while which something happens, after it took in messages and before it answers."""

    def __init__(self) -> None:
        super().__init__(os.urandom(16), 1, random.Random(1))
        self.meanwhile: Callable[[], None] | None = None

    def step(self, now_ns: int, events: Iterable[Event]) -> list[Effect]:
        """As always."""
        effects = super().step(now_ns, events)
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            meanwhile()
        return effects


@pytest.fixture
def context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    yield context
    context.destroy(linger=0)


def client_hello() -> m.Hello:
    return m.Hello(1, 1, "client", os.urandom(16), "leaver", 0, bytes(16), {})


def test_who_says_goodbye_and_is_gone_has_left(context: zmq.Context[zmq.Socket[bytes]]) -> None:
    """An answer cannot be sent any more, and GOODBYE is not read yet."""
    core = Interrupted()
    socket = router(context)
    port = socket.bind_to_random_port("tcp://127.0.0.1")
    monitor = socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
    shell = Shell(core, socket, {})
    dealer = context.socket(zmq.DEALER)
    dealer.connect(f"tcp://127.0.0.1:{port}")
    dealer.send_multipart(codec.encode(client_hello(), 0, 0))

    def has_welcome() -> bool:
        shell.turn()
        return bool(dealer.poll(0))

    wait_until(has_welcome, why="WELCOME")
    session = codec.decode(dealer.recv_multipart()).session
    task = b"t" * 16, "no.body", b"x", None
    dealer.send_multipart(codec.encode(m.Submit([task]), session, 1))

    def leave() -> None:
        dealer.send_multipart(codec.encode(m.Goodbye("closed"), session, 2))
        dealer.close(linger=5_000)
        assert monitor.poll(10_000)

    # ACCEPTED is to be sent after the turn that takes the task, when nobody is there.
    assert socket.poll(10_000)
    core.meanwhile = leave
    shell.turn()
    shell.turn()
    (client,) = core.tables.clients.values()
    assert client.session is None
    assert client.closed
    assert core.tables.counters["messages_unknown_peer"] == 0
    socket.disable_monitor()
    monitor.close(0)
    socket.close(0)
