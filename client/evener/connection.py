"""The connection of a client: performs what its session decides. One socket, one I/O thread.

Rules of this file, on which the safety of all threads rests:

1. The socket and the session belong to whoever has `_lock`. Nobody waits for anything under it but
   for `_MAKING` (see `future.py`) and for conditions whose holders let go at once.
2. Whoever has the lock does a whole turn: takes in what came, lets the session decide, performs it,
   and goes on until the socket has nothing more to read. So when the lock is free, whatever comes
   later makes the descriptor readable.
3. `submit` appends to `_inbox` without a lock. If the session is idle, or many tasks gathered, the
   submitting thread does a turn itself. If another thread has the lock, that one looks at the inbox
   once more after it let go. If the session is not idle, the broker's ACCEPTED brings a turn.
4. A thread that waits for a result reads the socket itself where it can (see `watch.py`): no
   hand-over between threads lies on a round trip. When another thread's turn may have ended its
   future, that thread wakes it.
5. Timers and callbacks of futures are the I/O thread's alone; others wake it for them.
6. The main thread holds signals back during a turn (see `signals.py`). If a turn breaks all the
   same the connection is dead: every future ends with `ClientClosed`, none is left waiting.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

from evener import session_records as r
from evener.deadlines import NEVER
from evener.future import Future
from evener.questions import Question, Questions
from evener.room import Room
from evener.session import ClientSession
from evener.settling import (
    abandon,
    break_off,
    ended_error,
    reject,
    report,
    resolve,
    say_what_runs,
    valued,
    write_line,
)
from evener.signals import SignalHold, deliver
from evener.standing import Wishes
from evener.transport import POLLIN, Transport, connection_events
from evener.watch import Reader, Watch, seconds_left
from evener_wire.limits import SECOND_NS

log = logging.getLogger("evener.client")

# So many submitted tasks gather before the submitting thread does a turn although the session is
# busy. Larger: the broker waits for work. Smaller: more turns per task.
_GATHER: Final = 128

_LOOK_S: Final = 1.0  # how long the I/O thread sleeps at most
_SLICE_S: Final = 0.05  # and in a callback that blocks


def now_ns() -> int:
    """Monotonic, and going on while the machine sleeps."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class Connection(Wishes):
    """Caller: any thread, for every method without an underscore."""

    def __init__(self, session: ClientSession, transport: Transport, *, trusted: bool) -> None:
        self.trusted = trusted
        self.changed = threading.Condition()
        """Notified when the session's state changes."""
        self._inbox: deque[Future[Any]] = deque()
        super().__init__(session, self._inbox)
        self._transport = transport
        self._watch = Watch(transport.fd)
        self._lock = threading.Lock()
        self._hold = SignalHold()
        self._idle = False
        self._crowded = False
        self._over = False
        self._broken: str | None = None
        self._wake_ns = NEVER  # when the I/O thread will come by itself
        self._room = Room(session)
        self._logs: deque[r.Log] = deque()
        self._callbacks: deque[Future[Any]] = deque()
        self._state_changed = False
        self._took: list[r.Event] = []
        self._questions = Questions()
        self._thread = threading.Thread(target=self._serve, name="evener-client", daemon=True)
        self._thread_ident = 0

    def start(self) -> None:
        """Begins to connect."""
        self._thread.start()

    # --- What a program asks ----------------------------------------------------------------------

    def try_submit(self, future: Future[Any]) -> bool:
        """As `submit`; False where that would block."""
        waits = self._crowded and not self._over and self._session.hold_when_full
        if waits and self._room.is_full(len(future.item[2]), len(self._inbox)):
            return False
        self.submit(future)
        return True

    def flush(self, timeout: float | None) -> bool:
        """Waits until everything submitted is accepted or rejected; whether it is by now."""
        self.refuse_after_fork()
        return self._room.flush(self.is_delivered, timeout)

    def submit(self, future: Future[Any]) -> None:
        """Sends a task; may block. Raises `ClientClosed`, `BrokerRefused`, `QueueFull`."""
        if self._over:
            raise self._ended_error()
        if self._crowded:
            self._wait_for_room(len(future.item[2]))
        inbox = self._inbox
        inbox.append(future)
        if self._idle or len(inbox) >= _GATHER:
            self._turn_if_free()
        elif self._over:
            self._turn([])  # it ended since we looked

    def ask(self, question: Question, arguments: Mapping[str, Any], timeout: float | None) -> None:
        """Asks the broker a question. It ends with the answer, or without one after `timeout`."""
        self.refuse_after_fork()
        number = self._questions.add(question)
        timeout_ns = None if timeout is None else int(timeout * SECOND_NS)
        self._turn([r.Asked(number, question.function, arguments, timeout_ns)])

    def open_future(self, task_id: bytes) -> Future[Any] | None:
        """The future of a task that this client submitted, while the task is open."""
        self.refuse_after_fork()
        self._turn([])  # what other threads just submitted is then known
        return cast("Future[Any] | None", self._session.tasks.get(task_id))

    def close(self, timeout: float) -> None:
        """Hands over what was submitted, for `timeout` seconds at most, and leaves."""
        if self._pid != os.getpid():
            return  # a fork: socket and thread are the parent's
        if not self._over:
            self._turn([r.CloseAsked(int(timeout * SECOND_NS))])
        self._watch.wake_io()
        if threading.get_ident() != self._thread_ident and self._thread.is_alive():
            self._thread.join(timeout + 5.0)

    def forget_after_fork(self) -> None:
        """In the child of a fork: nothing here works any more."""
        self._over = True

    def wait(self, future: Future[Any], timeout: float | None) -> bool:
        """Blocks until a future is done. Reads the socket itself if no other thread does so."""
        self.refuse_after_fork()
        deadline = None if timeout is None else time.monotonic() + timeout
        me = Reader(future.done)
        try:
            if threading.get_ident() == self._thread_ident:
                self._wait_in_callback(future, deadline)
            elif self._watch.take(me):
                self._read_for(future, deadline)
            else:
                future.wait_until_done(timeout)
        except KeyboardInterrupt:
            say_what_runs(future, self.open_tasks())
            raise
        finally:
            me.left = True  # before any call, so that no signal handler comes first
            self._watch.give_back(me)
        return future.done()

    def _read_for(self, future: Future[Any], deadline: float | None) -> None:
        """Caller: the reader."""
        while not future.done():
            left = seconds_left(deadline)
            if left == 0.0:
                return
            if self._watch.wait_readable(left) or self._over:
                self._turn([])

    def _wait_in_callback(self, future: Future[Any], deadline: float | None) -> None:
        """Caller: the I/O thread, in a callback that blocks. Goes on with what is its to do."""
        while not future.done() and seconds_left(deadline) != 0.0:
            self._sleep(_SLICE_S)
            self._turn([], tick=True)

    def _ended_error(self) -> Exception:
        self.refuse_after_fork()
        return ended_error(self._session.state, self._session.refusal, self._broken)

    def _wait_for_room(self, size: int) -> None:
        # A callback must not wait: nobody else could make room.
        if threading.get_ident() != self._thread_ident:
            self._room.wait(size, self._inbox.__len__, lambda: self._over)

    # --- Turns ------------------------------------------------------------------------------------

    def _turn_if_free(self) -> None:
        """A turn, unless another thread is in one: that one will see what there is to do."""
        came: list[int] = []
        try:
            self._hold.hold()
            while self._lock.acquire(blocking=False):
                try:
                    self._work([], tick=False)
                finally:
                    self._lock.release()
                self._after_turn()
                if not (self._inbox and self._idle):
                    break
        finally:
            came = self._hold.release()
        if came:
            deliver(came)

    def _turn(self, events: list[r.Event], *, tick: bool = False) -> None:
        """A turn with these events; `tick`: timers, too."""
        came: list[int] = []
        try:
            self._hold.hold()
            with self._lock:
                self._work(events, tick=tick)
            self._after_turn()
        finally:
            came = self._hold.release()
        if came:
            deliver(came)
        if self._inbox and self._idle:
            self._turn_if_free()

    def _work(self, events: list[r.Event], *, tick: bool) -> None:
        """Caller: holder of the lock, with signals held back."""
        try:
            self._work_until_done(events, tick)
        except BaseException as error:
            self._break(error)
            raise

    def _work_until_done(self, events: list[r.Event], tick: bool) -> None:
        session, inbox = self._session, self._inbox
        while True:
            if events or inbox or tick:
                self._step(events)
                tick = False
            if self._over:
                self._step([])
                return
            events = []
            flags = self._transport.receive(events)
            events += connection_events(flags, session.state is r.State.CONNECTING)
            if not events and not flags & POLLIN:
                # In this order: a task that comes after we looked finds us idle.
                self._idle = session.idle()
                if not (inbox and self._idle):
                    break
        self._crowded = self._room.is_crowded()

    def _step(self, events: list[r.Event]) -> None:
        inbox = self._inbox
        if inbox:
            # In front, as a cancel may be of one of them. No `list(inbox)`: others append to it.
            events.insert(0, r.Submitted([inbox.popleft() for _ in range(len(inbox))]))
        if self._broken is not None:
            for event in events:
                if type(event) is r.Submitted:
                    self._callbacks.extend(break_off(event.tickets, self._broken))
            self._callbacks.extend(self._questions.end())
            return
        at_ns = now_ns()
        if at_ns >= self._session.wake_at() and not self._over:
            # We may have slept, or been stopped: what waits in the socket counts before the time.
            self._transport.receive(events)
        failed: list[r.Event] = []
        self._perform(self._session.step(at_ns, events), failed)
        while failed:
            events, failed = failed, []
            self._perform(self._session.step(at_ns, events), failed)

    def _perform(self, effects: Sequence[r.Effect], failed: list[r.Event]) -> None:
        """Does what the session wants; a send that fails is reported through `failed`."""
        for effect in effects:
            if type(effect) is r.Send:
                if not failed and not self._transport.send(
                    effect.message, effect.session, effect.number
                ):
                    failed.append(r.Disconnected("connection closed"))
            elif type(effect) is r.Resolve:
                self._callbacks.extend(resolve(effect))
            else:
                self._perform_rarely(effect)
        if self._took:
            failed += self._took
            self._took = []

    def _perform_rarely(self, effect: r.Effect) -> None:
        match effect:
            case r.Reject():
                self._callbacks.extend(reject(effect))
            case r.Reported():
                self._callbacks.extend(report(effect))
            case r.Valued():
                self._took += valued(effect)
            case r.Wrote():
                self.outputs.tell(effect)
            case r.Abandon():
                self._callbacks.extend(abandon(effect))
            case r.Answered():
                done = self._questions.answered(effect.number, effect.ok, effect.body)
                self._callbacks.extend(done)
            case r.Reopen():
                self._watch.release_fd()
                self._transport.reopen(effect.window_ns)
                self._watch.watch_fd(self._transport.fd)
            case r.Log():
                self._logs.append(effect)
            case r.StateChanged():
                self._over = effect.state in (r.State.CLOSED, r.State.REFUSED)
                self._idle = False
                self._state_changed = True
            case _:  # r.Send and r.Resolve are performed by the caller
                raise AssertionError(effect)

    def _break(self, error: BaseException) -> None:
        """A turn ended where it must not: nothing can be relied on, so nobody may wait for it."""
        self._broken = (
            f"the client ended because of an internal error: {type(error).__name__}: {error}"
        )
        self._over = True
        self._idle = False
        self._state_changed = True
        self._logs.append(r.Log("error", self._broken))
        self._callbacks.extend(break_off(self._session.tasks.abandon(), self._broken))
        self._callbacks.extend(self._questions.end())

    # --- After a turn, without the lock -----------------------------------------------------------

    def _after_turn(self) -> None:
        ident = threading.get_ident()
        reader = self._watch.reader()
        if reader is not None and reader.thread != ident and reader.done():
            self._watch.wake_reader()
        self._room.made()
        if self._state_changed:
            self._state_changed = False
            with self.changed:
                self.changed.notify_all()
        if ident != self._thread_ident:
            at_ns = self._session.wake_at()
            if at_ns < self._wake_ns or self._callbacks or self._over:
                self._wake_ns = at_ns
                self._watch.wake_io()
        while self._logs:
            try:
                line = self._logs.popleft()
            except IndexError:  # another thread was faster
                return
            write_line(log, line)

    # --- The I/O thread ---------------------------------------------------------------------------

    def _serve(self) -> None:
        self._thread_ident = threading.get_ident()
        try:
            while not self._over:
                self._turn([], tick=True)
                self._run_callbacks()
                if not self._over:
                    self._sleep(_LOOK_S)
                    self._watch.heal()
        except Exception:
            log.exception("the client's thread ended because of an error in evener")
        finally:
            self._shut()

    def _sleep(self, most_s: float) -> None:
        at_ns = self._session.wake_at()
        self._wake_ns = at_ns
        if not self._callbacks:
            self._watch.sleep(min(most_s, max(0.0, (at_ns - now_ns()) / 1e9)))

    def _run_callbacks(self) -> None:
        callbacks = self._callbacks
        while callbacks:
            callbacks.popleft().run_callbacks()

    def _shut(self) -> None:
        """Everything goes; whoever still reads is told first, and has its time."""
        self._over = True
        deadline = time.monotonic() + 2.0
        while self._watch.reader() is not None and time.monotonic() < deadline:
            self._watch.wake_reader()
            time.sleep(0.001)
        self._run_callbacks()
        self.outputs.close()
        with self._lock:
            self._transport.close()
            self._watch.close()
