"""Peers that flood, each in a process: `python -m tests.backpressure.attacker KIND ADDRESS`.

Rules of this file: each attack goes on until its process is killed, as fast as the broker lets it,
and reads only what it says. A line on stdout tells that it has begun.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from evener_wire import messages as m
from tests.backpressure.peer import RawPeer, call

BATCH = 2_048


def _begun() -> None:
    print("begun", flush=True)


def _client(address: str) -> RawPeer:
    peer = RawPeer(address, "client")
    peer.hello()
    return peer


def _read_all(peer: RawPeer) -> None:
    """Take what came, and acknowledge it, without waiting."""
    taken = 0
    while peer.receive(0) is not None:
        taken += 1
    if taken:
        peer.acknowledge()


def _again(peer: RawPeer) -> None:
    """Whatever the broker thought of it: a session again, if it has none."""
    while (message := peer.receive(0)) is not None:
        if isinstance(message, m.Resync | m.Refused):
            peer.hello()
            return


def burn(address: str) -> None:
    """Nothing but what each of these takes of the machine: a processor."""
    _begun()
    while address:
        pass


def submits(address: str) -> None:
    """Tasks without end, whose results are taken."""
    peer = _client(address)
    _begun()
    while True:
        peer.submit("w.noop", BATCH)
        peer.expect(m.Accepted)
        _read_all(peer)


def unread(address: str) -> None:
    """Tasks without end, whose results nobody reads."""
    peer = RawPeer(address, "client", window=4_096)
    peer.hello()
    _begun()
    while True:
        peer.submit("w.blob", 256, 1, 10_000)


def large(address: str) -> None:
    """Calls of the largest payload that lies in a head, four to a message."""
    peer = _client(address)
    _begun()
    while True:
        peer.submit("w.swallow", 4, bytes(60_000))
        _read_all(peer)


def frames(address: str) -> None:
    """Calls of 8 MB."""
    peer = _client(address)
    _begun()
    while True:
        peer.submit("w.swallow", 1, bytes(8_000_000))
        _read_all(peer)


def cancels(address: str) -> None:
    """Cancels of tasks that nobody submitted."""
    peer = _client(address)
    items = [(os.urandom(16), 0) for _ in range(BATCH)]
    _begun()
    while True:
        peer.send(m.Cancel(items))
        _read_all(peer)


def queries(address: str) -> None:
    """Questions, as many as the connection takes."""
    peer = _client(address)
    _begun()
    number = 0
    while True:
        number += 1
        peer.send(m.Query(number, "ls", {"kind": "tasks", "id": "zz", "limit": 1}))
        peer.send(m.Query(number, "status", {}))
        _read_all(peer)


def unread_queries(address: str) -> None:
    """Questions whose answers nobody reads."""
    peer = RawPeer(address, "client", window=4_096)
    peer.hello()
    _begun()
    number = 0
    while True:
        number += 1
        peer.send(m.Query(number, "status", {}))


def heartbeats(address: str) -> None:
    """Signs of life, as fast as it goes."""
    peer = _client(address)
    _begun()
    while True:
        peer.send(m.Heartbeat())
        _read_all(peer)


def duplicates(address: str) -> None:
    """The same tasks again and again."""
    peer = _client(address)
    payload = call()
    items = [(os.urandom(16), "w.noop", payload, None) for _ in range(BATCH)]
    _begun()
    while True:
        peer.send(m.Submit(items))
        while peer.receive(0) is not None:
            pass


def garbage(address: str) -> None:
    """What is no message, and what is none of its session."""
    peer = _client(address)
    _begun()
    parts = [os.urandom(40_000), b"", b"\x93" * 1_000, bytes(100_000), b"\xdd\xff\xff\xff\xff"]
    while True:
        for part in parts:
            peer.send_bytes(part, b"more")
        _again(peer)


def hellos(address: str) -> None:
    """One connection, a new instance each time."""
    peer = RawPeer(address, "client")
    _begun()
    while True:
        peer.instance = os.urandom(16)
        if peer.ask() is None:
            peer.send(m.Goodbye("next"))


def agents(address: str) -> None:
    """Agents that come, offer names of their own, and are gone."""
    peer = RawPeer(address, "agent")
    _begun()
    while True:
        peer.instance = os.urandom(16)
        if peer.ask() is not None:
            continue
        names = [os.urandom(8).hex() for _ in range(64)]
        peer.send(m.Offer(1, False, names[:16], [(name, None) for name in names], ()))


def churn(address: str) -> None:
    """Connections that come, leave what fills them, and go: each a new one, none read."""
    _begun()
    while True:
        with RawPeer(address, "client", window=4_096) as peer:
            if peer.ask() is None:
                peer.submit("w.blob", 16, 1, 60_000)
                peer.send(m.Query(1, "status", {}))
                peer.expect(m.Accepted)


KINDS: dict[str, Callable[[str], None]] = {
    function.__name__: function
    for function in (
        burn,
        submits,
        unread,
        large,
        frames,
        cancels,
        queries,
        unread_queries,
        heartbeats,
        duplicates,
        garbage,
        hellos,
        agents,
        churn,
    )
}

if __name__ == "__main__":
    KINDS[sys.argv[1]](sys.argv[2])
