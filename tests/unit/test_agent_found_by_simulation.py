"""What the simulation found in the agent's core, each as the shortest story that shows it."""

from __future__ import annotations

import msgpack

from evener_wire import messages as m
from evener_wire.codec import Envelope
from evener_worker import channel as c
from evener_worker import effects as f
from evener_worker import events as e
from tests.agent_harness import Bench, item, key, only, results


def test_another_broker_hears_what_is_held_before_what_became_of_it() -> None:
    """I19: a RESULT that comes before the OFFER is of no attempt that the broker knows."""
    bench = Bench(2).open()
    bench.core.handout.estimates.observe("t.f", 1)
    bench.say(m.Run([item(1), item(2), item(3), item(4)]))
    (first, second) = (bench.slot_of(1), bench.slot_of(3))
    bench.start(first, 1)
    bench.start(second, 1)
    bench.step(e.Received(Envelope(0, 0, m.Resync(""))))
    bench.finish(first, 1)
    # The second worker is still asked what it did not start, while a result waits to be told.
    effects = bench.welcome(broker=b"c" * 16, session=12)
    offers = [n for n, effect in enumerate(effects) if _is_offer(effect)]
    told = [n for n, effect in enumerate(effects) if isinstance(effect, f.SendResults)]
    assert len(offers) == 1
    assert told
    assert offers[0] < min(told)


def _is_offer(effect: f.Effect) -> bool:
    return isinstance(effect, f.Send) and isinstance(effect.message, m.Offer)


def test_trying_again_does_not_lift_the_fence() -> None:
    """I7: nothing starts until the broker is there again, however often we look for it."""
    bench = Bench(1).open()
    bench.say(m.Run([item(1), item(2)]))
    bench.start(1, 1)
    assert only(bench.tick(4_001), f.Reconnect)
    assert not only(bench.finish(1, 1), f.Hand)
    assert [attempt.key for attempt in bench.core.ledger.waiting] == [key(2)]
    assert not only(bench.welcome(session=12), f.Hand)
    assert only(bench.say(m.Heartbeat()), f.Hand)
    assert results(bench.finish(1, 2)) == [(2, m.DONE)]


def test_a_refusal_does_not_lift_the_fence() -> None:
    """I7: the broker gives the work to others while this agent waits to be let in again."""
    bench = Bench(1).open()
    bench.say(m.Run([item(1), item(2)]))
    bench.start(1, 1)
    bench.step(e.Received(Envelope(0, 0, m.Refused("violation", "no message"))))
    bench.tick(5_000)
    assert not only(bench.finish(1, 1), f.Hand)


def test_a_worker_that_ends_what_is_to_be_taken_back_gets_work_again() -> None:
    """I19: both came in one step, so nothing was asked for and no answer could end the wait."""
    bench = Bench(1).open()
    bench.say(m.Run([item(1)]))
    bench.start(1, 1)
    attempt = bench.core.ledger.open[key(1)]
    body = msgpack.packb((*key(1), m.DONE, b"r", 10, None))
    frame = c.Frame(c.RESULT, attempt.sequence, m.DONE, 10, body)
    assert bench.sequence is not None
    number = bench.sequence.next_number()
    bench.step(
        e.Received(Envelope(bench.sequence.session, number, m.Cancel([key(1)]))),
        e.Finished(1, [frame]),
    )
    assert only(bench.say(m.Run([item(2)])), f.Hand)
