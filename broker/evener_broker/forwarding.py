"""What attempts wrote, on its way to the clients that want to see it.

Rules of this file: nobody waits for it, and nothing rests on it. Of each client some lines wait
here and some are on the way to it; what is too much is dropped, the oldest first, and of all
clients that of the one whose lines wait longest. Lines bear numbers, so a client sees what it
missed. What was on the way when a session ended is not told again.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import Final, TypeAlias

from evener_broker.records import Client, Session
from evener_wire import messages as m
from evener_wire.limits import OUTPUT_BYTES_MAX, OUTPUT_CLIENT_BYTES_MAX, OUTPUT_FLIGHT_BYTES_MAX

Item: TypeAlias = tuple[bytes, int, int, int, str, str]

# What an item takes beside its text.
_ITEM_BYTES: Final = 128


class Written:
    """Of one client: items that wait, and how much of each message is on the way to it."""

    __slots__ = ("bytes", "flight_bytes", "flights", "waiting")

    def __init__(self) -> None:
        self.waiting: deque[Item] = deque()
        self.bytes = 0  # of those
        self.flights: deque[tuple[int, int]] = deque()  # number and bytes
        self.flight_bytes = 0


class Forwarding:
    """Caller: the outbox."""

    def __init__(self, send: Callable[[Session, m.Message], int], counters: Counter[str]) -> None:
        self._send = send
        self._counters: Final = counters
        self._bytes = 0
        # Of clients that have lines waiting or on the way; and of those, who may get some now.
        self._written: dict[Client, Written] = {}
        self._due: dict[Client, None] = {}
        # Those that have lines waiting; who has had some for longest stands first.
        self._behind: dict[Client, None] = {}

    def take(self, client: Client, item: Item) -> None:
        """An attempt wrote lines."""
        if client.gone:
            self._dropped(item)
            return
        written = self._written.get(client)
        if written is None:
            written = self._written[client] = Written()
        self._wait(client, written, item)
        self._due[client] = None
        while written.bytes > OUTPUT_CLIENT_BYTES_MAX:
            self._dropped(self._oldest(client, written))
        while self._bytes > OUTPUT_BYTES_MAX:
            slowest = next(iter(self._behind))
            self._dropped(self._oldest(slowest, self._written[slowest]))

    def _wait(self, client: Client, written: Written, item: Item) -> None:
        size = _size(item)
        written.waiting.append(item)
        written.bytes += size
        self._bytes += size
        self._behind[client] = None

    def _oldest(self, client: Client, written: Written) -> Item:
        item = written.waiting.popleft()
        size = _size(item)
        written.bytes -= size
        self._bytes -= size
        if not written.waiting:
            del self._behind[client]
        return item

    def _dropped(self, item: Item) -> None:
        self._counters["output_lines_dropped"] += item[5].count("\n")

    # --- To clients -------------------------------------------------------------------------------

    def due(self, client: Client) -> None:
        """It has a new session."""
        if client in self._written:
            self._due[client] = None

    def taken(self, client: Client, upto: int) -> None:
        """The client acknowledged its messages up to this number."""
        written = self._written.get(client)
        if written is None:
            return
        flights = written.flights
        while flights and flights[0][0] <= upto:
            written.flight_bytes -= flights.popleft()[1]
        self._due[client] = None

    def lost(self, client: Client) -> None:
        """Its session ended."""
        written = self._written.get(client)
        if written is not None:
            written.flights.clear()
            written.flight_bytes = 0
        self._due.pop(client, None)

    def forget(self, client: Client) -> None:
        """It does not come back."""
        self._due.pop(client, None)
        written = self._written.pop(client, None)
        while written is not None and written.waiting:
            self._dropped(self._oldest(client, written))

    def flush(self) -> None:
        """At the end of a step, before the ends of tasks are told: what there is room for."""
        for client in self._due:
            session, written = client.session, self._written[client]
            if session is not None:
                self._tell(session, client, written, OUTPUT_FLIGHT_BYTES_MAX)
            if not written.waiting and not written.flights:
                del self._written[client]
        self._due.clear()

    def finish(self, session: Session, client: Client, ended: Iterable[bytes]) -> None:
        """These tasks are about to be told as ended: what waits of them goes first, or is dropped.

        More may be on the way for that. How many lines there were goes in any case: it is as small
        as the end itself.
        """
        written = self._written.get(client)
        if written is None or not written.waiting:
            return
        self._tell(session, client, written, OUTPUT_CLIENT_BYTES_MAX)
        if not written.waiting:
            return
        tasks = set(ended)
        counts: list[Item] = []
        for _ in range(len(written.waiting)):
            item = self._oldest(client, written)
            if item[0] not in tasks:
                self._wait(client, written, item)
            elif item[5]:
                self._dropped(item)
            else:
                counts.append(item)
        if counts:
            self._send_items(session, written, counts)

    def _tell(self, session: Session, client: Client, written: Written, most: int) -> None:
        while written.waiting and written.flight_bytes < most:
            room = min(most - written.flight_bytes, OUTPUT_FLIGHT_BYTES_MAX)
            items: list[Item] = []
            while written.waiting and room > 0:
                items.append(self._oldest(client, written))
                room -= _size(items[-1])
            self._send_items(session, written, items)

    def _send_items(self, session: Session, written: Written, items: list[Item]) -> None:
        size = sum(map(_size, items))
        written.flight_bytes += size
        written.flights.append((self._send(session, m.Output(items)), size))

    # --- For tests --------------------------------------------------------------------------------

    def check(self, clients: Iterable[Client]) -> None:
        """Recount all redundant state. Raises AssertionError with the difference."""
        assert self._written.keys() <= set(clients)
        assert self._due.keys() <= self._written.keys()
        assert self._behind.keys() == {c for c, w in self._written.items() if w.waiting}
        for client, written in self._written.items():
            assert written.bytes == sum(map(_size, written.waiting)), client
            assert written.bytes <= OUTPUT_CLIENT_BYTES_MAX, client
            assert written.flight_bytes == sum(size for _, size in written.flights), client
        assert self._bytes == sum(written.bytes for written in self._written.values())
        assert self._bytes <= OUTPUT_BYTES_MAX


def _size(item: Item) -> int:
    text = item[5]
    return _ITEM_BYTES + (len(text) if text.isascii() else 4 * len(text))
