"""An agent in the simulation: the shipped core, and what its shell does, with simulated workers.

Rules of this file: it does what `evener_worker/server.py`, `link.py` and `crew.py` do, in the same
order: what comes of an effect at once is told to the core before anything else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from evener_wire import codec
from evener_wire import messages as m
from evener_wire.errors import PeerError
from evener_worker import effects as f
from evener_worker import events as e
from evener_worker.config import AgentConfig
from evener_worker.core import AgentCore
from evener_worker.limits import RECEIVE_MESSAGES_MAX
from evener_worker.link import encode_results
from evener_worker.slots import SlotState
from tests.simulation.network import Network, Socket
from tests.simulation.node import Node
from tests.simulation.tending import Tending, limits, memory_of
from tests.simulation.truth import Truth
from tests.simulation.worker import SimWorker
from tests.simulation.world import MS, SECOND, World

Functions = Sequence[tuple[str, "m.Options | None"]]


class AgentNode(Node):
    """The place of one host with workers."""

    def __init__(
        self,
        world: World,
        network: Network,
        truth: Truth,
        name: str,
        *,
        workers: int,
        queues: tuple[str, ...],
        functions: Functions,
        check_every: int,
        care_s: float = 0.0,
        schedules: Sequence[m.Schedule] = (),
    ) -> None:
        super().__init__(world, name)
        self.truth: Final = truth
        self._network = network
        self.workers_count: Final = workers
        self._care_s = care_s
        self.schedules: Final = schedules
        self.tending: Final = Tending(world, self)
        self.config: AgentConfig | None = None
        self.stopping = False  # somebody wants it to end
        self.queues: Final = queues
        self.functions: Final = functions
        self._check_every = check_every
        self._turns = 0
        self.shares: dict[str, int] = {}  # of functions: how many run at once in a worker
        self.start_deaths = 0.0  # chance that a worker dies before it is ready
        self.exited = False  # it ended on purpose
        self.heard_broker_ns = 0
        self.workers: dict[int, SimWorker] = {}
        self._events: list[e.Event] = []
        self._unwritable = False
        self._measure_at_ns = 0
        self._wake_at_ns: int | None = None  # what the core wants, by the clock of its host
        self._perform: dict[type, Callable[[Any], None]] = {
            f.Send: self._send,
            f.SendResults: self._send_results,
            f.Reconnect: self._reconnect,
            f.Hand: self._hand,
            f.TakeBack: self._take_back,
            f.Flag: self._flag,
            f.Take: self._take,
            f.Terminate: self._terminate,
            f.Interrupt: self._interrupt,
            f.Kill: self._kill,
            f.StartWorker: self._start_worker,
            f.Leave: self._leave,
            f.Dump: self._dump,
            f.ReadLog: lambda effect: self._events.append(e.LogRead(effect.number, {})),
            f.Ping: self._ping,
            f.Tell: lambda _: None,
            f.Log: self._log,
            f.Exit: self._exit,
        }
        self.core: AgentCore | None = None
        self.socket: Socket | None = None

    # --- The process ------------------------------------------------------------------------------

    def start(self) -> None:
        """A new agent process: another instance, other workers."""
        super().start()
        self.exited = self.stopping = False
        self.tending.begin()
        self.workers.clear()
        self._events.clear()
        self._unwritable = False
        rng = self.world.stream(f"agent/{self.who}")
        config = self.config = AgentConfig(
            app="sim:app",
            broker="tcp://broker:1",
            workers=self.workers_count,
            queues=self.queues,
            name=self.who,
            drain_seconds=rng.choice((1, 5, 30)),
            **limits(self.world.stream(f"care/{self.who}"), self._care_s),
        )
        self.socket = Socket(self._network, self)
        self.core = AgentCore(config, rng.randbytes(16), rng, {})
        self.heard_broker_ns = self.world.now
        self._measure_at_ns = self.local()
        self._apply(self.core.begin(self.local()))
        self._wake_at_ns = self.core.wake_at()

    def crash(self, *, host: bool) -> None:
        """The agent is gone, and its workers with it."""
        super().crash(host=host)
        for worker in self.workers.values():
            worker.vanish()
        self.workers.clear()
        self._leave_network(host=host)

    def _leave_network(self, *, host: bool) -> None:
        assert self.socket is not None
        conn = self.socket.conn
        self.socket.conn = None
        if conn is not None:
            conn.closed = True
            conn.dealer_open = False
            delay = 30 * SECOND if host else self._network.link(self.name).latency_ns()
            self._network.cut(conn, router_ns=delay, tail=host)

    def stop(self, why: str, code: int = 143, *, at_once: bool = False) -> None:
        """A signal."""
        if self.alive:
            self.stopping = True
            self._events.append(e.StopAsked(why, code, at_once))
            self.wake(self.world.now)

    def restart_workers(self, why: str) -> None:
        """They import their code anew, one after the other."""
        self.tending.rolls()
        self._events.append(e.RestartAsked(why))
        self.wake(self.world.now)

    # --- The loop ---------------------------------------------------------------------------------

    def turn(self) -> None:
        """As `Agent._turn` does."""
        core, socket = self.core, self.socket
        assert core is not None
        assert socket is not None
        if self._unwritable and socket.writable():
            self._unwritable = False
            self._events.append(e.Writable())
        for frames in socket.receive(RECEIVE_MESSAGES_MAX):
            self.heard_broker_ns = self.world.now
            try:
                self._events.append(e.Received(codec.decode(frames)))
            except PeerError as error:
                self.world.hit("agent gets bytes that are no message")
                self._events.append(e.Malformed(str(error)))
        now_ns = self.local()
        wake_at = self._wake_at_ns
        if wake_at is not None and wake_at <= now_ns:
            lanes = core.pool.lanes()
            pages = {
                w.slot: e.Page(w.started, w.started_ns, None, w.beside.pages(lanes.get(w.slot, ())))
                for w in self.workers.values()
            }
            self._events.append(e.Tick(pages))
        if now_ns >= self._measure_at_ns:
            self._measure_at_ns = now_ns + SECOND
            usage = {slot: memory_of(worker) for slot, worker in self.workers.items()}
            self._events.append(e.Measured(usage))
        if self._events:
            events, self._events = self._events, []
            self._apply(core.step(now_ns, events))
        self._turns += 1
        if self._turns % self._check_every == 0:
            core.check()
        if not self.alive:
            return
        if socket.inbox or self._events:
            self.wake(self.world.now)
        # Measuring has a turn of its own only where nothing else has one for another second.
        wake_at = self._wake_at_ns = core.wake_at()
        late_ns = self._measure_at_ns + SECOND
        self.wake_local(late_ns if wake_at is None else min(wake_at, late_ns))

    def _apply(self, effects: Sequence[f.Effect]) -> None:
        assert self.core is not None
        while effects:
            for effect in effects:
                self.boundary()
                self._perform[type(effect)](effect)
                if not self.alive:
                    return
            if not self._events:
                return
            events, self._events = self._events, []
            effects = self.core.step(self.local(), events)

    def heard(self, worker: SimWorker, event: e.Event) -> None:
        """A worker wrote something, or died."""
        if not self.alive or self.workers.get(worker.slot) is not worker:
            return
        if isinstance(event, e.Died):
            del self.workers[worker.slot]
        self._events.append(event)
        self.wake(self.world.now)

    # --- Effects ----------------------------------------------------------------------------------

    def _send(self, effect: f.Send) -> None:
        if isinstance(effect.message, m.Started):
            self.world.hit("agent tells that an attempt started")
        kind = type(effect.message).__name__
        self._send_frames(kind, codec.encode(effect.message, effect.session, effect.number))

    def _send_results(self, effect: f.SendResults) -> None:
        self._send_frames("Result", encode_results(effect))

    def _send_frames(self, kind: str, frames: list[m.Buffer]) -> None:
        assert self.socket is not None
        copied = [bytes(frame) for frame in frames]
        self.world.note(self.who, kind, copied[0])
        if not self.socket.send(copied):
            self._unwritable = True
            self._events.append(e.SendFailed())

    def _reconnect(self, effect: f.Reconnect) -> None:
        assert self.socket is not None
        self.world.hit("agent opens a new connection after silence")
        self.socket.reopen()
        self._unwritable = False

    def _hand(self, effect: f.Hand) -> None:
        worker = self.workers.get(effect.slot)
        if worker is not None and worker.alive:
            if effect.lanes:
                worker.share(effect.first, effect.attempts, effect.lanes)
            else:
                worker.hand(effect.first, effect.attempts)
            if len(effect.attempts) > 1:
                self.world.hit("worker gets several attempts at once")

    def _take_back(self, effect: f.TakeBack) -> None:
        worker = self.workers.get(effect.slot)
        count = worker.take_back(effect.count) if worker is not None else 0
        self._events.append(e.TakenBack(effect.slot, count))
        if count:
            self.world.hit("agent takes back what has not started")

    def _flag(self, effect: f.Flag) -> None:
        worker = self.workers.get(effect.slot)
        if worker is None:
            return
        if effect.lane:
            worker.beside.flag(effect.slot, effect.sequence, effect.outcome)
        else:
            worker.flag(effect.sequence, effect.outcome)

    def _interrupt(self, effect: f.Interrupt) -> None:
        worker = self.workers.get(effect.slot)
        if worker is not None:
            worker.beside.interrupt(effect.slot, effect.sequence)

    def _take(self, effect: f.Take) -> None:
        worker = self.workers.get(effect.slot)
        if worker is not None:
            worker.taken(effect.sequence, effect.upto)

    def _terminate(self, effect: f.Terminate) -> None:
        worker = self.workers.get(effect.slot)
        if worker is not None:
            worker.terminate()

    def _kill(self, effect: f.Kill) -> None:
        worker = self.workers.get(effect.slot)
        if worker is not None:
            self.tending.on_kill(worker)
            if worker.run is not None or worker.beside.running:
                self.world.hit("agent kills a worker that runs something")
            worker.die(signal=9)

    def _start_worker(self, effect: f.StartWorker) -> None:
        worker = self.workers[effect.slot] = SimWorker(self, effect.slot)
        self._events.append(e.Spawned(effect.slot, 1_000 + effect.slot))
        delay_ns = self.rng.randint(40, 400) * MS * self.slow
        if self.rng.random() < self.start_deaths:
            self.world.fault("worker dies at its start", self.who)
            self.world.after(delay_ns, self.name, lambda _: worker.die(signal=None, code=1))
        else:
            self.world.after(
                delay_ns, self.name, lambda _: worker.on_ready(self.functions, self.schedules)
            )

    def _leave(self, effect: f.Leave) -> None:
        worker = self.workers.get(effect.slot)
        if worker is not None:
            self.tending.on_leave(worker)
            worker.leave()

    def _ping(self, effect: f.Ping) -> None:
        worker = self.workers.get(effect.slot)
        if worker is not None and worker.alive and worker.run is None:
            self._events.append(e.Ponged(effect.slot, effect.number))

    def _dump(self, effect: f.Dump) -> None:
        worker = self.workers.get(effect.slot)
        stack = f"stack of {worker.slot}" if worker is not None else ""
        self._events.append(e.Dumped(effect.number, stack, "" if stack else "it ended", {}))

    def _log(self, effect: f.Log) -> None:
        if "sent what it was not asked for" in effect.text:
            raise AssertionError(f"{self.who}: {effect.text}")

    def _exit(self, effect: f.Exit) -> None:
        self.world.hit("agent ends in order")
        self.exited = True
        super().crash(host=False)
        for worker in self.workers.values():
            worker.vanish()
        self.workers.clear()
        self._leave_network(host=False)

    def has_given_up(self) -> bool:
        """Whether a worker of it died so often at its start that it is not started again."""
        assert self.core is not None
        slots = self.core.pool.slots.values()
        return any(slot.state is SlotState.STOPPED for slot in slots)

    # --- For checkers -----------------------------------------------------------------------------

    def undisturbed_since(self) -> int:
        """Since when its way to the broker is in order."""
        link = self._network.link(self.name)
        if link.blocked_up or link.blocked_down or self.slow > 1:
            return 1 << 62
        return max(link.since_ns, self.paused_until)
