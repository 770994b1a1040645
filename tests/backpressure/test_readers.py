"""Peers that do not read, or slowly: nothing is lost, nobody else waits, the broker stays small."""

from __future__ import annotations

import os
import time

from evener_wire import messages as m
from evener_wire.limits import KIB, MIB
from tests.backpressure.peer import RawPeer, call
from tests.backpressure.stage import CEILING, IDLE_BYTES, Stage
from tests.integration.fault_cluster import READY_S
from tests.support import wait_until

# Ends owed to a client that never reads. More take longer, and show nothing else.
OWED = int(os.environ.get("BACKPRESSURE_OWED", "20000"))
BATCH = 2_000


def take_all(peer: RawPeer, wanted: int, seconds: float = 60.0) -> dict[bytes, m.Payload]:
    """Read until so many tasks ended, acknowledging as a client does; each ends once."""
    ends: dict[bytes, m.Payload] = {}
    deadline = time.monotonic() + seconds
    while len(ends) < wanted and time.monotonic() < deadline:
        message = peer.receive()
        if isinstance(message, m.Terminal):
            for task_id, _, payload, _ in message.items:
                assert task_id not in ends, "an end came twice"
                ends[task_id] = payload
            peer.acknowledge()
    assert peer.out_of_step == 0
    return ends


def test_a_client_that_never_reads_is_owed_everything_when_it_comes_back(stage: Stage) -> None:
    stage.start(max_tasks=2 * OWED, max_client_tasks=2 * OWED)
    alone = stage.round_trips()
    with RawPeer(stage.address, "client", window=4_096) as mute:
        mute.hello()
        stage.keep_alive(mute)
        ids = [i for _ in range(OWED // BATCH) for i in mute.submit("w.noop", BATCH)]
        wait_until(lambda: stage.unfetched() == OWED, 60, "all its tasks to end")
        beside = stage.round_trips()
        rss = stage.rss()
        stage.tell(f"never reads, {OWED} owed", alone, beside, rss)
        assert rss < IDLE_BYTES + 2 * OWED * KIB
        stage.alive.clear()
    with RawPeer(stage.address, "client", instance=mute.instance) as back:
        back.hello()
        assert take_all(back, OWED).keys() == set(ids)
        # Of two connections nobody says in which order they are heard.
        stage.keep_alive(back)
        wait_until(lambda: stage.unfetched() == 0, 30, "all of them to be taken")
        stage.alive.clear()


def test_a_slow_reader_catches_up_and_has_lost_nothing(stage: Stage) -> None:
    stage.start()
    count = 2_000
    with RawPeer(stage.address, "client", window=4_096) as slow:
        slow.hello()
        stage.keep_alive(slow)
        ids: dict[bytes, int] = {}
        for start in range(0, count, 100):
            numbers = range(start, start + 100)
            items = [(os.urandom(16), "w.blob", call(n, 10_000), None) for n in numbers]
            slow.send(m.Submit(items))
            ids.update((item[0], n) for item, n in zip(items, numbers, strict=True))
        # It reads a little while results come in much faster.
        wait_until(lambda: stage.unfetched() > count // 2, 30, "results to pile up")
        rss = stage.rss()
        ends = take_all(slow, count)
        stage.alive.clear()
    stage.tell("slow reader, afterwards", stage.round_trips(), stage.round_trips(), rss)
    assert ends.keys() == ids.keys()
    for task_id, payload in ends.items():
        assert ids[task_id].to_bytes(8, "big") in bytes(payload)  # type: ignore[arg-type]
    assert rss < CEILING


def test_a_client_whose_results_outgrow_its_bound_holds_up_only_itself(stage: Stage) -> None:
    """2 000 results of 50 KB are owed to it, and it may have 32 MiB here."""
    stage.start()
    alone = stage.round_trips()
    with RawPeer(stage.address, "client", window=4_096) as hoarder:
        hoarder.hello()
        stage.keep_alive(hoarder)
        ids = hoarder.submit("w.blob", 2_000, 1, 50_000)
        wait_until(lambda: stage.unfetched() * 50_000 > 32 * MIB, 30, "its bound to be reached")
        beside = stage.round_trips()
        rss = stage.rss()
        stage.tell("results beyond the bound", alone, beside, rss)
        assert stage.unfetched() < 2_000, "the rest waits until it takes some"
        assert rss < CEILING
        assert take_all(hoarder, 2_000).keys() == set(ids)


def test_an_agent_that_never_reads_holds_up_only_what_only_it_can_run(stage: Stage) -> None:
    stage.start()
    alone = stage.round_trips()
    with (
        RawPeer(stage.address, "client") as client,
        RawPeer(stage.address, "agent", window=4_096) as hole,
    ):
        client.hello()
        hole.hello()
        hole.offer(64, "x.hole")
        stage.keep_alive(client, hole)
        ids: list[bytes] = []
        for _ in range(25):
            ids += client.submit("x.hole", 16, bytes(60_000))
            client.expect(m.Accepted)  # who sends on and on is taken for a flooder
        beside = stage.round_trips()
        rss = stage.rss()
        stage.tell("an agent that never reads", alone, beside, rss)
        assert rss < CEILING
        stage.alive.clear()
        hole.close()
        client.send(m.Cancel([(task_id, 0) for task_id in ids]))
        ends: set[bytes] = set()
        while len(ends) < len(ids):
            terminal = client.expect(m.Terminal)
            assert {item[1] for item in terminal.items} == {m.TERMINAL_CANCELLED}
            ends.update(item[0] for item in terminal.items)
            client.acknowledge()
    assert ends == set(ids)


def test_a_client_goes_on_as_soon_as_there_is_room(stage: Stage) -> None:
    """No wake-up is lost: a client that waits for a full broker is done soon after the broker."""
    good = stage.start(max_client_tasks=8, max_tasks=16)
    futures = [good.submit("w.noop") for _ in range(300)]
    assert [future.result(READY_S) for future in futures] == [None] * 300
    with RawPeer(stage.address, "client") as greedy:
        greedy.hello()
        greedy.submit("w.noop", 20)
        refused = greedy.expect(m.Rejected)
        assert {code for _, code, _ in refused.items} == {"queue_full"}
        assert len(refused.items) == 12


def test_a_process_above_its_limit_takes_on_nothing_new(stage: Stage) -> None:
    limit = 100 * MIB
    stage.start(max_bytes=1_024 * MIB, max_client_bytes=1_024 * MIB, memory_limit=limit)
    with RawPeer(stage.address, "client") as hoarder:
        hoarder.hello()
        # One message under way at a time, and no word that anything of it was taken.
        while not (stage.counter("memory_short") and stage.counter("tasks_rejected")):
            hoarder.submit("w.blob", 256, 1, 10_000)
            hoarder.expect(m.Accepted)
        rss = stage.rss()
    print(f"\nlimit of {limit / MIB:.0f} MiB: broker {rss / MIB:.0f} MiB")
    # What it had accepted before goes on, with results of 10 KB for calls of ten bytes.
    assert rss < limit + CEILING
