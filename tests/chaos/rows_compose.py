"""R21: the compose file that users get, on a real engine, with harm done to its containers.

Rules of this file: one project with a name of its own, removed at the end. The client runs outside;
histories go to a folder that all containers mount. Containers share the host's process numbers, so
that those in the histories are unique.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tests.chaos.cluster import Cluster
from tests.chaos.history import note_fact, now_ns
from tests.chaos.parts import RowError
from tests.chaos.run import RATE, Row, Run
from tests.cluster import base_image, images
from tests.cluster.engine import EngineError, compose, docker, inspect, why_missing
from tests.support import ROOT, descendants, free_port, is_worker

WORKERS = 3

_OVERRIDE = """
services:
  broker:
    pid: host
  worker:
    pid: host
    command: [worker, "tests.chaos.app:app", -n, "1", --insecure]
    environment: {{EVENER_BROKER: "tcp://broker:7450", CHAOS_FOLDER: /chaos}}
    mem_limit: 160m
    memswap_limit: 160m
    tmpfs: ["/tmp:size=1m,mode=1777"]
    volumes:
      - "{folder}:/chaos"
      - "{root}/tests/chaos:/app/tests/chaos:ro"
"""


def why_not() -> str | None:
    return why_missing() or base_image.why_impossible()


class Compose:
    """One project, and the cluster that its client and its histories belong to."""

    def __init__(self, cluster: Cluster, image: str) -> None:
        self.cluster = cluster
        self.name = f"evener-chaos-{os.getpid()}"
        self.network = f"{self.name}_default"
        folder = cluster.folder
        self._override = folder / "override.yml"
        self._override.write_text(_OVERRIDE.format(folder=folder, root=ROOT))
        port = free_port()
        self._environment = {"EVENER_IMAGE": image, "EVENER_PORT": str(port)}
        cluster.address = f"tcp://127.0.0.1:{port}"
        folder.chmod(0o777)
        folder.parent.chmod(0o755)
        (folder / "history").touch()
        (folder / "history").chmod(0o666)

    def run(self, *arguments: str) -> None:
        compose(
            "--project-name", self.name, "--project-directory", str(ROOT),
            "--file", str(ROOT / "docker-compose.yml"), "--file", str(self._override),
            *arguments, env=self._environment,
        )  # fmt: skip

    def scale(self, workers: int) -> None:
        self.run("up", "--detach", "--no-build", "--no-recreate", "--scale", f"worker={workers}")

    def containers(self, service: str) -> list[str]:
        return docker(
            "ps", "--quiet", "--no-trunc", f"--filter=label=com.docker.compose.project={self.name}",
            f"--filter=label=com.docker.compose.service={service}",
        ).split()  # fmt: skip

    def broker(self) -> str:
        (found,) = docker(
            "ps", "--all", "--quiet", "--no-trunc",
            f"--filter=label=com.docker.compose.project={self.name}",
            "--filter=label=com.docker.compose.service=broker",
        ).split()  # fmt: skip
        return found

    def know_workers(self) -> dict[str, str]:
        """Tell the checker whose worker processes these are; containers by their agents' names."""
        found: dict[str, str] = {}
        for container in self.containers("worker"):
            facts = inspect(container)
            agent = facts["Config"]["Hostname"]
            found[agent] = container
            for pid in descendants(facts["State"]["Pid"]):
                if is_worker(pid):
                    self.cluster.know(pid, agent)
        return found

    def owner(self, pid: int) -> tuple[str, str]:
        """The agent's name and the container of a worker process."""
        for container in self.containers("worker"):
            facts = inspect(container)
            if pid in descendants(facts["State"]["Pid"]):
                return facts["Config"]["Hostname"], container
        raise RowError(f"no container has the process {pid}")

    def keep_log(self) -> None:
        """The broker's log, of all its lives, where the checker looks for it."""
        with (self.cluster.folder / "broker.log").open("w") as log:
            command = ["docker", "logs", "--timestamps", self.broker()]
            subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=True)

    def close(self) -> None:
        self.run("down", "--volumes", "--remove-orphans", "--timeout", "2")


@contextmanager
def _project(cluster: Cluster) -> Iterator[Compose]:
    image = images.build(base_image.build(), cluster.folder / "context")
    made = Compose(cluster, image)
    try:
        made.scale(WORKERS)
        note_fact(cluster.folder, "clock", wall_ns=time.time_ns(), ns=now_ns())
        cluster.start_client("main")
        cluster.wait_for_slots(WORKERS, 60)
        made.know_workers()
        yield made
        cluster.finish(90)
        made.keep_log()
    finally:
        made.close()


# --- What is done to it ---------------------------------------------------------------------------

Harm = Callable[[Run, Compose, str, str], None]


def _pause(run: Run, project: Compose, agent: str, container: str) -> None:
    with project.cluster.fault("pause agent", [agent]):
        docker("pause", container)
        time.sleep(run.pick("pause", [2.0, 6.0]))
        docker("unpause", container)


def _kill(run: Run, project: Compose, agent: str, container: str) -> None:
    facts = inspect(container)
    pids = descendants(facts["State"]["Pid"])
    with project.cluster.fault("kill agent", [agent], pids):
        docker("kill", "--signal", "KILL", container)
        for pid in pids:
            note_fact(project.cluster.folder, "death", pid=pid, ns=now_ns())
        docker("start", container)


def _disconnect(run: Run, project: Compose, agent: str, container: str) -> None:
    with project.cluster.fault("partition", [agent]):
        docker("network", "disconnect", project.network, container)
        time.sleep(run.pick("disconnect", [2.0, 6.0]))
        docker("network", "connect", project.network, container)


def _restart_broker(run: Run, project: Compose, agent: str, container: str) -> None:
    broker = project.broker()
    with project.cluster.fault("kill broker"):
        if run.pick("broker", ["kill", "restart"]) == "restart":
            docker("restart", "--time", "5", broker)
        else:
            docker("kill", "--signal", "KILL", broker)
            docker("start", broker)


def _scale(run: Run, project: Compose, agent: str, container: str) -> None:
    project.cluster.release("everything.go")
    agents = list(project.know_workers())
    with project.cluster.fault("stop agent", agents):
        project.scale(0)
        project.scale(WORKERS)


def _out_of_memory(run: Run, project: Compose, agent: str, container: str) -> None:
    token = f"devour{now_ns()}"
    with project.cluster.fault("out of memory: body"):
        project.cluster.submit("devour", token, expect="poison", options={"max_starts": 2})
        project.cluster.wait_answered(token, 60)


def _tmpfs_full(run: Run, project: Compose, agent: str, container: str) -> None:
    script = "open('/tmp/ballast','wb',0).write(bytes(2 << 20))"
    with project.cluster.fault("tmpfs full"):
        docker("exec", container, "python", "-c", script)
        for n in range(20):
            project.cluster.submit("work", f"tmpfs{now_ns()}.{n}")
        docker("exec", container, "python", "-c", "import os; os.remove('/tmp/ballast')")


HARMS: tuple[Harm, ...] = (
    _pause, _kill, _disconnect, _restart_broker, _scale, _out_of_memory, _tmpfs_full,
)  # fmt: skip


def containers(run: Run) -> None:
    """pause, kill, disconnect, restart, scale to 0 and back, out of memory, full /tmp."""
    with run.cluster() as cluster:
        try:
            with _project(cluster) as project:
                _confined(run, project)
                cluster.start_client("load", run.load)
                for number in run.repetitions():
                    harm = run.pick("harm", HARMS)
                    token = f"victim{number}"
                    project.know_workers()
                    name = "everything.go" if harm is _scale else f"{token}.go"
                    cluster.submit("hold", token, name)
                    agent, container = project.owner(cluster.wait_started(token))
                    harm(run, project, agent, container)
                    cluster.release(name)
                    cluster.wait_answered(token, 60)
                    cluster.wait_for_slots(WORKERS, 60)
        except EngineError as error:
            raise RowError(str(error)) from error


def _confined(run: Run, project: Compose) -> None:
    """Whether the containers are what the compose file promises: read-only, and nobody's."""
    for container in (project.broker(), *project.containers("worker")):
        facts: dict[str, Any] = inspect(container)
        if not facts["HostConfig"]["ReadonlyRootfs"] or facts["Config"]["User"] in ("", "0"):
            run.tally.errors.append(f"{facts['Name']} is not read-only, or runs as root")
    run.note("R21: all containers had a read-only root and a user without rights")


ROWS = (Row("R21", "containers of the compose file", containers, (RATE,), 14, why_not),)
