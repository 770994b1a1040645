"""The life of a task from its submission to its end: acceptance, results, retries, limits, cancel.

Changes: tasks, clients' sums, queues' lines. The state changes through `Tables.move` alone,
attempts close through `Placing.close` alone, and a task ends through `_end` alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, cast

from evener_broker.digest import digest_of
from evener_broker.facts import kept
from evener_broker.placing import Placing
from evener_broker.records import UNTRIED, Task
from evener_broker.tables import Tables
from evener_broker.transitions import LETTERS, OPEN, TERMINAL, TERMINAL_CODES, Cause, State
from evener_broker.wording import failure_text, loss_text
from evener_wire import messages as m
from evener_wire.limits import FREE_RETURNS_MAX, MILLISECOND_NS, SECOND_NS

# Back-off after the second loss of a worker; four times as long after each further one.
_LOSS_DELAY_NS: Final = 100 * MILLISECOND_NS
_DELAY_MAX_NS: Final = 300 * SECOND_NS

# What is kept of the facts of a failure; the rest is in its payload.
_TOLD: Final = ("type", "message", "worker")


class Lifecycle:
    """Caller: the broker core."""

    def __init__(self, tables: Tables, placing: Placing) -> None:
        self._tables = tables
        self._placing = placing
        # Holds a task of an earlier broker that came back, if others may have it: recovery's.
        self.may_be_elsewhere: Callable[[Task], bool] = lambda _: False

    # --- Limits of time ---------------------------------------------------------------------------

    def limit(self, task: Task) -> None:
        """A task is new here, and may have limits: they begin now."""
        tables, options = self._tables, task.options
        if options.expires_ms:
            at_ns = tables.now_ns + options.expires_ms * MILLISECOND_NS
            task.own_tries().expires_ns = at_ns
            tables.timers.set(at_ns, self._on_expiry, task)
        if options.deadline_ms:
            at_ns = tables.now_ns + options.deadline_ms * MILLISECOND_NS
            task.own_tries().deadline_ns = at_ns
            tables.timers.set(at_ns, self._on_deadline, task)

    def _on_expiry(self, task: Task) -> None:
        # A task that is held or assigned may have started: if not, it expires when it comes back.
        if task.state is State.QUEUED and task.tries.expires_ns:
            self._expire(task, "queue", task.options.expires_ms)

    def _line_up(self, task: Task, cause: Cause) -> None:
        """Put a task that waited elsewhere into its place in line, if it may still wait."""
        tables = self._tables
        expires_ns = task.tries.expires_ns
        if expires_ns and tables.now_ns >= expires_ns and task.state is not State.RUNNING:
            self._expire(task, "queue", task.options.expires_ms)
            return
        tables.move(task, cause)
        self._renumber(task)
        tables.queue(task.options.queue).add(task)

    def _is_overdue(self, task: Task) -> bool:
        deadline_ns = task.tries.deadline_ns
        return deadline_ns != 0 and self._tables.now_ns >= deadline_ns

    def _on_deadline(self, task: Task) -> None:
        if task.state in OPEN and not self._call_back(task):
            self._stop(task)
        elif task.state not in TERMINAL:
            self._expire(task, "total", task.options.deadline_ms)

    def _call_back(self, task: Task) -> bool:
        """Close an assigned attempt whose RUN still waits for the journal; False if it left."""
        agent = task.agent
        if agent is None or not self._tables.commits.is_unsent(task):
            return False
        self._placing.close(task)
        self._placing.refresh(agent)
        return True

    def _expire(self, task: Task, limit: str, limit_ms: int) -> None:
        task.own_tries().facts = {"limit": limit, "ms": limit_ms}
        self._end(task, Cause.EXPIRE, b"")

    # --- Results ----------------------------------------------------------------------------------

    def finish(self, task: Task, payload: m.Payload) -> None:
        """The open attempt returned a value."""
        self._placing.close(task)
        self._end(task, Cause.FINISH, payload)

    def settle(
        self, task: Task, outcome: int, payload: m.Payload, run_us: int, facts: m.Facts | None
    ) -> None:
        """The open attempt ended in any way."""
        if outcome == m.DONE:
            self.finish(task, payload)
            return
        self._placing.close(task)
        if task.tries.cancelling and outcome != m.FAILED:
            self._end(task, Cause.CANCEL, b"")
        elif self._is_overdue(task) and outcome != m.FAILED:
            self._expire(task, "total", task.options.deadline_ms)
        elif outcome == m.RETURNED:
            self._put_back(task)
        elif outcome == m.LOST:
            self._after_loss(task, facts or {})
        elif outcome == m.CANCELLED and task.options.deadline_ms:
            self._expire(task, "total", task.options.deadline_ms)
        elif outcome == m.CANCELLED:
            # Stopped for an earlier broker, which gave it to somebody else. Nobody here wants that.
            self._put_back(task)
        elif outcome == m.TIMED_OUT:
            self._after_timeout(task)
        else:
            task.function.observe(1, run_us, run_us)
            self._after_exception(task, payload, facts or {})

    def _after_exception(self, task: Task, payload: m.Payload, facts: m.Facts) -> None:
        tries = task.own_tries()
        tries.failures += 1
        tries.last = failure_text(facts)
        if self._may_retry(task, facts.get("types", ())):
            self._hold_for_retry(task)
            return
        told = kept({name: facts[name] for name in _TOLD if name in facts})
        tries.facts = {"attempt": tries.failures, "attempts": task.options.retries + 1, **told}
        self._end(task, Cause.FAIL, payload)

    def _after_timeout(self, task: Task) -> None:
        tries = task.own_tries()
        tries.failures += 1
        tries.last = "it ran longer than it may"
        if tries.deadline_ns and not task.options.timeout_ms:
            # The agent's clock was a little ahead of ours.
            self._expire(task, "total", task.options.deadline_ms)
        elif self._may_retry(task, ("TimeoutError",)):
            self._hold_for_retry(task)
        else:
            self._expire(task, "run", task.options.timeout_ms)

    def _may_retry(self, task: Task, types: object) -> bool:
        options = task.options
        if task.tries.failures > options.retries or options.at_most_once:
            return False
        if task.tries.cancelling or self._is_overdue(task):
            return False
        if not options.retry_on:
            return True
        names = cast("tuple[object, ...]", types) if isinstance(types, tuple) else ()
        return not frozenset(options.retry_on).isdisjoint(names)

    def _hold_for_retry(self, task: Task) -> None:
        delay_ns = task.options.retry_delay_ms * MILLISECOND_NS << min(task.tries.failures - 1, 32)
        self._hold(task, delay_ns)

    def _hold(self, task: Task, delay_ns: int) -> None:
        """Hold a task for a delay with jitter: what failed together does not come together."""
        delay_ns = min(delay_ns, _DELAY_MAX_NS)
        delay_ns = delay_ns // 2 + self._tables.rng.randrange(delay_ns // 2 + 1)
        tries = task.own_tries()
        tries.expires_ns = 0
        tries.again_ns = self._tables.now_ns + delay_ns
        if self._waits_for_others(task):
            return
        self._tables.move(task, Cause.RETRY)
        self._note_tries(task)
        self._renumber(task)
        self._tables.timers.set(tries.again_ns, self.release, task)

    def release(self, task: Task) -> None:
        """The moment came for which a task was held: it goes to its place in line."""
        if task.state is not State.HELD:
            return
        again_ns = task.tries.again_ns
        if self._tables.now_ns < again_ns:
            self._tables.timers.set(again_ns, self.release, task)  # it waited for others, too
        else:
            self._line_up(task, Cause.RELEASE)

    def _put_back(self, task: Task) -> None:
        if task.options.at_most_once and not self._tables.commits.is_unsent(task):
            self._lose(task, "unknown", {}, "its worker is gone, and it may be dispatched once")
        elif m.attempt_of(task.fence) >= m.ATTEMPTS_MAX:
            self._lose(task, "attempts", {}, f"{m.ATTEMPTS_MAX} attempts led to nothing")
        elif not self._waits_for_others(task):
            self._line_up(task, Cause.RETURN)

    def _waits_for_others(self, task: Task) -> bool:
        """Whether a task may run elsewhere although an attempt of an earlier broker is over.

        That broker may have heard what we heard now, and nobody wrote it down; or it gave the agent
        up. Then it began another attempt, with somebody who did not tell yet.
        """
        return m.epoch_of(task.fence) < self._tables.epoch and self.may_be_elsewhere(task)

    def _note_tries(self, task: Task) -> None:
        """Its counts changed: they must outlive the broker before it runs again."""
        if task.state not in TERMINAL:
            tries = task.own_tries()
            tries.settled = max(tries.settled, task.fence)
            self._tables.commits.tried(task)

    def _renumber(self, task: Task) -> None:
        """After what an earlier broker did with it, its next attempt counts in our epoch."""
        task.fence = max(task.fence, self._tables.first_fence)

    # --- Losses -----------------------------------------------------------------------------------

    def vanish(self, task: Task) -> None:
        """The agent of an open attempt is lost, and nobody can say how far the attempt came."""
        started = task.state is State.RUNNING
        self._placing.close(task)
        if task.tries.cancelling:
            self._end(task, Cause.CANCEL, b"")
            return
        if self._is_overdue(task):
            self._expire(task, "total", task.options.deadline_ms)
            return
        if not started:
            tries = task.own_tries()
            tries.returns += 1
            if tries.returns % FREE_RETURNS_MAX:
                self._put_back(task)
                self._note_tries(task)
                return
        self._after_loss(task, {})

    def _after_loss(self, task: Task, certificate: m.Facts) -> None:
        """An attempt took its worker down with it, and is charged for that."""
        tries = task.own_tries()
        tries.starts += 1
        tries.last = loss_text(certificate)
        tries.expires_ns = 0
        starts = tries.starts
        if task.options.at_most_once:
            self._lose(task, "unknown", certificate, "its worker died, and it may run only once")
        elif starts >= task.options.max_starts or m.attempt_of(task.fence) >= m.ATTEMPTS_MAX:
            who = "1 worker died while it" if starts == 1 else f"{starts} workers died while they"
            self._lose(task, "poison", certificate, f"{who} ran it")
        elif starts == 1:
            # The first loss is most often not the task's fault: it runs again at once.
            self._put_back(task)
            self._note_tries(task)
        else:
            self._hold(task, _LOSS_DELAY_NS << min(2 * (starts - 2), 32))

    def _lose(self, task: Task, reason: str, certificate: m.Facts, text: str) -> None:
        tries = task.own_tries()
        tries.facts = {**kept(certificate), "reason": reason, "text": text, "starts": tries.starts}
        self._end(task, Cause.LOSE, b"")

    def lose_unknown(self, task: Task, text: str) -> None:
        """Nobody can say whether a task that may run only once has run."""
        self._lose(task, "unknown", {}, text)

    def conclude(self, task: Task, outcome: int, payload: m.Payload, facts: m.Facts | None) -> None:
        """An attempt of an earlier broker ended before its client claimed it here."""
        if outcome == m.DONE:
            self._end(task, Cause.FINISH, payload)
        else:
            self._after_exception(task, payload, facts or {})

    # --- Cancel -----------------------------------------------------------------------------------

    def cancel(self, task: Task) -> None:
        """The client wants no result any more. An open attempt ends when its agent says so."""
        if task.state in TERMINAL or task.tries.cancelling:
            return  # once is enough: clients may ask a thousand times, and agents would hear each
        if task.state in OPEN and not self._call_back(task):
            task.own_tries().cancel(self._tables.now_ns)
            self._stop(task)
        elif is_awaited(task):
            # Whoever reports that it runs is told to stop it; were it forgotten, nobody would be.
            task.own_tries().cancel(self._tables.now_ns)
        else:
            self._end(task, Cause.CANCEL, b"")

    def end_cancelled(self, task: Task) -> None:
        """Nobody reported an attempt of this task, so there is nothing to stop."""
        self._end(task, Cause.CANCEL, b"")

    def _stop(self, task: Task) -> None:
        agent = task.agent
        assert agent is not None
        # An agent that did not tell yet what it holds hears of it when it does.
        if agent.session is not None and agent.offered:
            self._tables.outbox.cancel(agent.session, (task.id, task.fence))

    def is_unwanted(self, task: Task) -> bool:
        """Whether the open attempt of a task is to be stopped."""
        return task.tries.cancelling or self._is_overdue(task)

    # --- The end ----------------------------------------------------------------------------------

    def fail_unknown(self, task: Task, facts: m.Facts) -> None:
        """Nobody offers the function of a waiting task."""
        task.own_tries().facts = facts
        self._end(task, Cause.FAIL, b"")

    def _end(self, task: Task, cause: Cause, payload: m.Payload) -> None:
        tables, client = self._tables, task.client
        if task.state is State.QUEUED:
            tables.queue(task.options.queue).forget(task)
        tables.move(task, cause)
        growth = len(payload) - len(task.payload)
        if not task.digest:
            task.digest = digest_of(task.payload)
        if task.state in LETTERS:
            # People may want to try it anew.
            task.own_tries().call = task.payload
            growth = len(payload)
        client.open_tasks -= 1
        tables.open_tasks -= 1
        client.bytes += growth
        tables.bytes += growth
        if growth > 0 and tables.is_over(client):
            client.paused = True
        task.payload = payload
        client.ended_tasks += 1
        task.function.ended += 1
        if cause is not Cause.FINISH:
            task.function.note_end(cause)
        if tables.commits.durable:
            if task.state in LETTERS:
                tables.commits.tried(task)  # for people who look at it later
            tables.commits.end(task, TERMINAL_CODES[task.state])
        else:
            tables.outbox.terminal(task)
        if task.tries is not UNTRIED and (task.options.expires_ms or task.options.deadline_ms):
            # Its timers, set for much later perhaps, would keep it in memory until then.
            tables.timers.outlived(2, _is_ended)


def is_awaited(task: Task) -> bool:
    """Whether we wait to hear what an earlier broker did with a task."""
    return task.state is State.HELD and not task.fence


def _is_ended(subject: object) -> bool:
    return type(subject) is Task and subject.state in TERMINAL
