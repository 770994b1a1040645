"""A broker that begins with what a journal has: what runs, what ended, what was noted."""

from __future__ import annotations

from evener_wire import messages as m
from tests.unit.broker.test_durable import kinds, world_of
from tests.unit.broker.world import task_id


def test_open_tasks_survive_the_broker_and_their_client() -> None:
    """I5, I23."""
    world, _, client = world_of(auto=True)
    client.submit(1, 2, 3)
    world.restart()
    agent = world.agent("other", slots=3)
    world.pass_ms(1_600)
    assert sorted(agent.hand) == [task_id(1), task_id(2), task_id(3)]


def test_what_still_runs_is_adopted_and_does_not_run_twice() -> None:
    """I7, I23."""
    world, agent, client = world_of(auto=True)
    client.submit(1, 2, 3)
    world.restart()
    agent.come_back()
    # It is the only agent that the journal knows, and it has told: nothing needs to wait.
    assert world.state(3) == "queued"
    assert [world.state(1), world.state(2)] == ["running", "running"]
    agent.done(1)
    assert world.state(3) == "assigned"


def test_all_agents_of_the_journal_are_waited_for() -> None:
    world, agent, client = world_of(auto=True)
    other = world.agent("other")
    client.submit(1, 2, 3)
    (elsewhere,) = other.numbers()
    world.restart()
    agent.come_back()
    assert world.state(elsewhere) == "held"
    other.come_back()
    assert [world.state(n) for n in (1, 2, 3)] == ["running"] * 3


def test_what_an_agent_gives_back_waits_for_the_others_that_the_journal_knows() -> None:
    """I7: the earlier broker may have given it to one of them, and nobody wrote that down."""
    world, agent, client = world_of(auto=True)
    other = world.agent("other")
    client.submit(1, 2, 3)
    number = agent.numbers()[0]
    subject, fence, name, call, timeout_ms, deadline_ms = agent.hand[task_id(number)]
    other.hand[subject] = (subject, fence + 1, name, call, timeout_ms, deadline_ms)
    world.restart()
    agent.come_back()
    agent.ends(number, m.RETURNED)
    assert world.state(number) == "held"
    assert world.journal is not None
    assert world.journal.tasks[number].settled == fence, "the journal knows what is over (I29)"
    other.come_back()
    assert world.state(number) == "running"
    assert world.task(number).fence == fence + 1


def test_what_was_given_back_is_over_for_every_broker_that_follows() -> None:
    """I29. Found by simulation: it was noted in memory, and neither written nor read."""
    world, agent, client = world_of(auto=True)
    other = world.agent("other")
    client.submit(1, 2, 3)
    number = agent.numbers()[0]
    item = agent.hand[task_id(number)]
    world.restart()
    agent.come_back()
    agent.ends(number, m.RETURNED)
    world.restart()
    agent.hand[task_id(number)] = item
    agent.come_back()
    assert world.task(number).tries.settled == item[1]
    assert world.state(number) == "held"
    assert (task_id(number), item[1]) in agent.got(m.Cancel)[-1].items
    other.come_back()
    assert world.state(number) == "assigned"


def test_an_agent_that_is_gone_is_waited_for_no_longer_than_the_window() -> None:
    world, agent, client = world_of(auto=True)
    gone = world.agent("gone")
    client.submit(1, 2, 3)
    (elsewhere,) = gone.numbers()
    world.restart()
    gone.sequence = None
    agent.come_back()
    assert world.state(elsewhere) == "held"
    world.pass_ms(1_600)
    assert world.state(elsewhere) == "queued"
    assert world.journal is not None
    assert list(world.journal.agents.values()) == ["agent"]


def test_what_comes_after_a_restart_does_not_overtake_what_is_held() -> None:
    """I13: it waits in its line, and in no other, until the agents have told."""
    world, agent, client = world_of(auto=True)
    other = world.agent("other")
    client.submit(*range(1, 8))
    world.restart()
    agent.come_back()
    client.hello()
    client.submit(8)
    client.submit(9, again=True)  # the journal would know it, had it been sent to anybody
    client.submit(10, priority=3)
    assert [world.state(n) for n in (7, 8, 9, 10)] == ["held", "held", "held", "queued"]
    other.come_back()
    assert [world.state(n) for n in (7, 8, 9)] == ["queued"] * 3
    client.submit(11)
    assert world.state(11) == "queued"


def test_what_runs_once_and_was_not_sent_keeps_its_place_behind_what_is_held() -> None:
    """I13. Found by simulation: nobody can have it, but that is no reason to go first."""
    world, agent, client = world_of(auto=True)
    client.submit(1, 2, 3)
    client.submit(4, at_most_once=True)
    client.submit(5, at_most_once=True, priority=3)
    world.agent("other")
    world.restart()
    agent.come_back()
    assert [world.state(n) for n in (3, 4, 5)] == ["held", "held", "queued"]
    world.pass_ms(1_600)
    assert world.state(4) == "queued"


def test_ends_survive_and_are_told_to_the_client_that_comes_back() -> None:
    """I23: what is recorded never runs again."""
    world, agent, client = world_of(auto=True)
    client.submit(1)
    agent.done(1)
    world.restart()
    client.ends.clear()
    client.hello()
    assert client.end(1) == "done"
    client.submit(1, again=True)
    world.pass_ms(2_000)
    assert agent.hand == {}


def test_the_end_of_a_task_that_was_taken_is_told_again_to_who_submits_it_again() -> None:
    """I4."""
    _, agent, client = world_of(auto=True)
    client.submit(1)
    agent.done(1)
    client.acknowledge()
    client.inbox.clear()
    assert kinds(client.submit(1)) == [m.Terminal, m.Accepted]


def test_the_same_id_with_another_call_is_a_conflict_also_after_a_restart() -> None:
    """I4."""
    world, agent, client = world_of(auto=True)
    client.submit(1)
    agent.done(1)
    world.restart()
    client.hello()
    client.submit(1, payload=b"\x92\x91\x07\xc0", again=True)
    assert client.got(m.Rejected)[-1].items[0][1] == "conflict"


def test_counts_of_lost_workers_survive() -> None:
    """I12: a task that kills its workers does so three times in all."""
    world, agent, client = world_of(auto=True)
    client.submit(1)
    for _ in range(2):
        agent.ends(1, m.LOST)
        world.pass_ms(500)
    world.restart()
    client.hello()
    agent.come_back()
    agent.ends(1, m.LOST)
    assert client.end(1) == "lost"


def test_a_loss_is_on_disk_before_the_task_runs_again() -> None:
    """I12."""
    world, agent, client = world_of()
    client.submit(1)
    world.commit()
    assert m.Run not in kinds(agent.ends(1, m.LOST))
    assert m.Run in kinds(world.commit())


def test_a_task_that_runs_once_is_noted_before_it_is_sent() -> None:
    """I15."""
    world, _, client = world_of()
    client.submit(1, at_most_once=True)
    told = world.commit()
    assert m.Run in kinds(told)
    assert world.journal is not None
    assert world.journal.tasks[1].dispatched
    world.journal.auto = True
    world.restart()
    world.agent("other")
    world.pass_ms(1_600)
    client.hello()
    assert client.end(1) == "lost"


def test_a_task_that_runs_once_and_was_not_sent_runs_after_a_restart() -> None:
    world, _, client = world_of(auto=True)
    client.submit(1, 2, 3, at_most_once=True)
    world.restart()
    agent = world.agent("other", slots=3)
    world.pass_ms(1_600)
    assert list(agent.hand) == [task_id(3)]


def test_a_dispatch_that_is_written_and_never_left_holds_up_nobody() -> None:
    """I13, I15: the broker died between the commit and the RUN, and nobody can know that. So the
    task is lost once the agents have told, and what came behind it goes, but not before."""
    world, agent, client = world_of()
    other = world.agent("other")
    assert world.journal is not None
    world.commit()
    client.submit(1, 2, 3, 4, 5, at_most_once=True)
    assert [world.state(n) for n in (1, 2, 3, 4)] == [*["assigned"] * 3, "queued"]
    world.journal.commit()  # and it died before it heard of that
    world.journal.auto = True
    world.restart()
    agent.come_back()
    assert [world.state(n) for n in (1, 2, 3, 4, 5)] == ["held"] * 5
    assert agent.hand == {}
    other.come_back()
    client.hello()
    assert [client.end(n) for n in (1, 2, 3)] == ["lost"] * 3
    assert sorted([*agent.hand, *other.hand]) == [task_id(4), task_id(5)]


def test_nothing_is_sent_to_an_agent_that_the_journal_does_not_know() -> None:
    """A broker that comes after us would not ask it what it runs."""
    world, _, client = world_of(auto=True)
    client.submit(1, 2, 3)
    assert world.journal is not None
    world.journal.auto = False
    other = world.agent("other")
    assert world.state(3) == "assigned"
    assert other.hand == {}
    assert m.Run in kinds(world.commit())


def test_numbers_go_on_after_a_restart() -> None:
    """I9, I13: the order of acceptance is kept."""
    world, _, client = world_of(auto=True)
    client.submit(*range(5))
    world.restart()
    client.hello()
    client.submit(*range(5, 8))
    assert [world.task(n).number for n in range(8)] == [1, 2, 3, 4, 5, 6, 7, 8]


def test_what_is_forgotten_leaves_the_journal() -> None:
    world, agent, client = world_of(auto=True)
    client.submit(1)
    agent.done(1)
    client.acknowledge()
    assert world.journal is not None
    assert list(world.journal.tasks) == [1]
    world.pass_ms(3_700_000, silent=())
    assert world.journal.tasks == {}
    assert world.state(1) == "forgotten"


def test_dead_letters_of_an_earlier_broker_tell_all_and_may_be_purged() -> None:
    world, agent, client = world_of(auto=True)
    client.submit(1)
    for _ in range(3):
        agent.ends(1, m.LOST)
        world.pass_ms(1_000)
    client.acknowledge()
    world.restart()
    other = world.client("other")
    assert world.task(1).tries.starts == 3
    other.say(m.Query(1, "purge", {"state": "lost"}))
    world.turn()
    assert world.state(1) == "forgotten"
    assert world.journal is not None
    assert world.journal.tasks == {}


def test_what_the_journal_would_know_goes_at_once_when_it_is_submitted_again() -> None:
    """I13: it was never sent to anybody, so that nobody needs to be asked."""
    world, _, client = world_of()
    client.submit(1)
    assert world.journal is not None
    world.journal.auto = True
    world.restart()
    client.hello()
    client.submit(1, again=True)
    assert world.state(1) == "queued"


def test_what_an_older_broker_may_have_sent_waits_for_the_agents() -> None:
    """I7: between that broker and the journal there was another."""
    world, _, client = world_of(auto=True)
    world.agent("other")
    world.restart()
    world.restart()
    client.hello()
    client.submit(1, again=True)
    assert world.state(1) == "held"


def test_a_run_waits_for_its_own_task_and_for_nothing_later() -> None:
    """I13: or it would be overtaken by tasks that came behind it, and are on disk by then. I16: a
    cancel comes behind it."""
    world, agent, client = world_of()
    client.submit(1, 2)
    world.commit()
    client.submit(3)
    agent.done(1)
    assert world.state(3) == "assigned"
    told = world.commit(1)  # the third task is on disk, the end of the first is not
    assert m.Run in kinds(told)
    assert agent.numbers() == [2, 3]
    assert m.Cancel in kinds(client.cancel(3))
    assert client.end(3) == "open"
