"""Rows about processes that die, stand still, hang, or take too much: R1, R2, R3, R5, R6, R7.

Rules of this file: a row decides what to do from its own random numbers, fires faults through the
cluster, and judges nothing: that is the checker's.
"""

from __future__ import annotations

import signal
import time

import zmq

from tests.chaos.cluster import Cluster
from tests.chaos.groups import Group
from tests.chaos.history import now_ns
from tests.chaos.parts import RowError, await_true, send_signal, stop_process
from tests.chaos.run import IDLE, RATE, Row, Run

SILENCE_S = 4.0
LARGE = 48 << 20
WORKERS = 4


# --- R1: killed -----------------------------------------------------------------------------------


def kill_workers(run: Run) -> None:
    """Idle, running, just before and just after the result."""
    with run.cluster() as cluster:
        cluster.start(run.load, ordered=True)
        for number in run.repetitions():
            run.moment(0.1)
            token = f"victim{number}"
            act = run.pick("act", ["idle", "running", "running", "running", "edge", "edge"])
            if act == "idle":
                pids = [pid for agent in cluster.agents.values() for pid in agent.workers()]
                cluster.kill_worker(run.rng.choice(pids))
            elif act == "edge":
                after_us = run.pick("edge", [0, 0, 200, 1_000, 5_000])
                after_us = run.rng.randint(min(1, after_us), after_us)
                with cluster.fault("kill worker at its result"):
                    cluster.submit("edge", token, after_us)
                    cluster.wait_answered(token)
            else:
                cluster.submit("hold", token, f"{token}.go")
                cluster.kill_worker(cluster.wait_started(token))
                cluster.wait_started(token, 2)
                cluster.release(f"{token}.go")
                cluster.wait_answered(token)
            cluster.wait_for_slots(WORKERS + 1)


def kill_agents(run: Run) -> None:
    """The parent alone; its workers die with it, and the broker finds out by itself."""
    with run.cluster() as cluster:
        cluster.start(run.load, ordered=True)
        for number in run.repetitions():
            run.moment(0.1)
            token = f"victim{number}"
            cluster.submit("hold", token, f"{token}.go")
            pid = cluster.wait_started(token)
            name = next(n for n, agent in cluster.agents.items() if pid in agent.workers())
            cluster.kill_agent(name)
            cluster.wait_started(token, 2)
            cluster.release(f"{token}.go")
            cluster.wait_answered(token)
            cluster.begin_agent(name)
            cluster.wait_for_slots(WORKERS + 1)


# --- R2: stopped ----------------------------------------------------------------------------------


def pause(run: Run) -> None:
    """One agent, all agents, the broker, or a worker alone, for parts of the time of silence."""
    with run.cluster() as cluster:
        cluster.start(run.load, agents=2)
        for number in run.repetitions():
            run.moment(0.3)
            what = run.pick("what", ["one", "one", "all", "broker", "worker"])
            parts = [0.5, 0.9, 1.1, 3.0] if what == "one" else [0.25, 0.5, 1.1]
            seconds = SILENCE_S * run.pick(f"seconds {what}", parts)
            token = f"victim{number}"
            cluster.submit("hold", token, f"{token}.go")
            pid = cluster.wait_started(token)
            _stand_still(run, cluster, what, seconds, pid)
            cluster.release(f"{token}.go")
            cluster.wait_answered(token)
            cluster.wait_for_slots(WORKERS)


def _stand_still(run: Run, cluster: Cluster, what: str, seconds: float, pid: int) -> None:
    if what == "broker":
        with cluster.fault("pause broker"):
            cluster.broker.stop()
            time.sleep(seconds)
            cluster.broker.go_on()
    elif what == "worker":
        with cluster.fault("pause worker"):
            stop_process(pid)
            time.sleep(seconds)
            send_signal(pid, signal.SIGCONT)
    else:
        own = [name for name, agent in cluster.agents.items() if pid in agent.workers()]
        names = own if what == "one" else list(cluster.agents)
        with cluster.fault("pause agent", names):
            for name in names:
                cluster.agents[name].stop()
            time.sleep(seconds)
            for name in names:
                cluster.agents[name].go_on()


# --- R3: hung -------------------------------------------------------------------------------------

HANGS = ("deadlock", "spin", "hog", "pipe", "flood", "deaf")


def hang(run: Run) -> None:
    """Tasks that never end, with a time limit: the worker is freed, the others work on."""
    with run.cluster() as cluster:
        cluster.start(run.load)
        for number in run.repetitions():
            how = HANGS[number % len(HANGS)]
            token, limit_s = f"victim{number}", run.rng.uniform(1.0, 2.0)
            with cluster.fault(f"hang: {how}"):
                cluster.submit("hang", token, how, expect="timeout", options={"timeout": limit_s})
                cluster.wait_started(token)
                began_ns = cluster.lines(token)[0][1]
                others = [f"other{number}.{n}" for n in range(WORKERS - 1)]
                for other in others:
                    cluster.submit("work", other)
                for other in (*others, token):
                    cluster.wait_answered(other)
            (_, ended_ns), *_ = cluster.lines(token, what="fail") or [(0, now_ns())]
            answers = {other: cluster.lines(other, what="ok") for other in others}
            late = [other for other, lines in answers.items() if lines and lines[0][1] > ended_ns]
            if late:
                run.tally.errors.append(f"{late} waited for the task that hung ({how})")
            run.tally.detection_s.append((ended_ns - began_ns) / 1e9 - limit_s)
            cluster.wait_for_slots(WORKERS)
            run.tally.recovery_s.append((now_ns() - began_ns) / 1e9 - limit_s)
    run.note("R3: detection is from a task's limit to its end at the caller, recovery to its slot")


# --- R5: out of memory ----------------------------------------------------------------------------


def out_of_memory(run: Run) -> None:
    """The body of a task, an agent, or the broker takes more than its control group has."""
    with run.cluster() as cluster:
        cluster.start(run.load)
        for number in run.repetitions():
            what = ("body", "agent", "broker")[number % 3]
            token = f"victim{number}"
            with Group(f"{number}", memory=LARGE // 2) as group:
                if what == "body":
                    with cluster.fault("out of memory: body"):
                        cluster.submit("hoard", token, str(group.path), expect="poison",
                                       options={"max_starts": 2})  # fmt: skip
                        cluster.wait_answered(token)
                else:
                    _starve(run, cluster, group, what, number)
            cluster.wait_for_slots(WORKERS)


def _starve(run: Run, cluster: Cluster, group: Group, what: str, number: int) -> None:
    """A process that has no memory to spare from now on, and results too large for it."""
    name = run.rng.choice(sorted(cluster.agents))
    part = cluster.agents[name] if what == "agent" else cluster.broker
    kind, agents = ("kill agent", [name]) if what == "agent" else ("kill broker", [])
    with cluster.fault(kind, agents):
        group.take(part.pid)
        for n in range(50):
            cluster.submit("large", f"large{number}.{n}", LARGE)
            try:
                await_true(lambda: part.process.poll() is not None, 1.0, "the kernel to kill")
                break
            except RowError:
                continue
        else:
            raise RowError(f"the {what} was not killed")
        if what == "broker":
            cluster.start_broker()
        else:
            cluster.agents.pop(name)
            cluster.begin_agent(name)
    run.note("R5: times count from when memory becomes scarce, not from when the kernel kills")
    run.note(f"R5: the {what} ended with exit code {part.process.returncode}")


# --- R6: a client that comes again ----------------------------------------------------------------


def client_comes_again(run: Run) -> None:
    """A client is killed with open tasks; another asks for their results by their ids."""
    with run.cluster() as cluster:
        cluster.start(run.load)
        for number in run.repetitions():
            asker = cluster.start_client(f"asker{number}")
            tokens = [f"victim{number}.{n}" for n in range(4)]
            ids = {}
            for token in tokens:
                ids[token] = asker.order(
                    do="submit", function="hold", token=token, args=[f"{number}.go"]
                )
            cluster.wait_started(tokens[-1])
            if run.rng.random() < 0.5:
                cluster.release(f"{number}.go")
                run.moment(0.02)
            with cluster.fault("kill client", pids=[asker.pid]):
                asker.kill()
            cluster.clients.remove(asker)
            cluster.release(f"{number}.go")
            answered = [token for token in tokens if cluster.lines(token, what="ok")]
            for token in tokens:
                if token not in answered:
                    cluster.clients[0].order(do="fetch", task_id=ids[token], token=token)


# --- R7: the same name twice ----------------------------------------------------------------------


def same_name(run: Run) -> None:
    """Two agents and two clients of one name, a fork after connecting, one routing id for two."""
    with run.cluster() as cluster, zmq.Context() as context:
        cluster.start(run.load)
        for number in run.repetitions():
            token = f"victim{number}"
            with cluster.fault("same name", ["host1"]):
                cluster.begin_agent("host1", 1, alias="twin")
                double = cluster.start_client("main", alias=f"double{number}")
                _same_routing_id(run, cluster, context)
                cluster.wait_for_slots(WORKERS + 1)
                for client in (double, cluster.clients[0]):
                    client.order(do="flood", count=20)
                told = cluster.clients[0].order(do="fork")
                if told != "closed":
                    run.tally.errors.append(f"the child of a fork could submit: {told!r}")
            cluster.submit("hold", token, f"{token}.go")
            cluster.wait_started(token)
            cluster.kill_agent(run.rng.choice(["host1", "twin"]))
            cluster.release(f"{token}.go")
            cluster.wait_answered(token)
            if "twin" in cluster.agents:
                cluster.kill_agent("twin")
                cluster.begin_agent("host1")
            cluster.wait_for_slots(WORKERS)


def _same_routing_id(run: Run, cluster: Cluster, context: zmq.Context[zmq.Socket[bytes]]) -> None:
    """Two sockets that claim to be one, and one that claims to be nobody else."""
    sockets = [context.socket(zmq.DEALER) for _ in range(2)]
    for socket in sockets:
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.ROUTING_ID, b"the-same")
        socket.connect(cluster.address)
        socket.send_multipart([b"no head", run.rng.randbytes(20)])
    run.moment(0.02)
    for socket in sockets:
        socket.close(0)


ROWS = (
    Row("R1", "kill -9 of workers", kill_workers),
    Row("R1p", "kill -9 of agents", kill_agents, repeat=10),
    Row("R2", "SIGSTOP of agents, workers, broker", pause, repeat=10),
    Row("R3", "tasks that hang", hang, repeat=12),
    Row("R5", "out of memory", out_of_memory, (IDLE, RATE), 9, lambda: Group.why_missing("memory")),
    Row("R6", "client killed, asks again by id", client_comes_again, (IDLE, RATE), 10),
    Row("R7", "same name twice, fork", same_name, (IDLE, RATE), 10),
)
