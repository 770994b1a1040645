"""One compose project: a broker, workers, and clients in containers, for one run of the tests.

Rules of this file: the compose file is the one that users get. Every project has a name of its own,
and `close` removes what belongs to it and nothing else.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.engine import EngineError, compose, docker, inspect
from tests.support import ROOT, free_port, wait_until

_DRIVER = Path(__file__).with_name("driver.py")
_READY_S = 60


class Driver:
    """A client that runs `driver.py` in a container of the project's network."""

    def __init__(self, project: Project, folder: Path, tasks: int, lines: int) -> None:
        self.tasks = tasks
        self.name = f"{project.name}-driver-{secrets.token_hex(3)}"
        self._output = folder / f"{self.name}.out"
        self._errors = folder / f"{self.name}.err"
        with self._output.open("w") as output, self._errors.open("w") as errors:
            self._process = subprocess.Popen(
                [
                    "docker", "run", "--rm", "--init", "--name", self.name,
                    "--network", project.network, "--label", f"{_LABEL}={project.name}",
                    "--env", "EVENER_BROKER=tcp://broker:7450", "--entrypoint", "python",
                    project.image, "-c", _DRIVER.read_text(), str(tasks), str(lines),
                ],
                stdin=subprocess.DEVNULL, stdout=output, stderr=errors,
            )  # fmt: skip

    def done(self) -> int:
        """How many tasks have their result, in order."""
        return sum(event["event"] == "done" for event in self._events())

    def wait_for(self, done: int, seconds: float = 60) -> None:
        """Until this many tasks have their result."""
        wait_until(lambda: self.done() >= done or self._ended(), seconds, f"{done} results")
        assert self.done() >= done, self._text()

    def finish(self, seconds: float = 90) -> None:
        """Until every task has its result, each of them right."""
        try:
            code = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            pytest.fail(f"the client has {self.done()} of {self.tasks} results\n{self._text()}")
        assert code == 0, self._text()
        assert self.done() == self.tasks
        assert self._events()[-1] == {"event": "end", "wrong": {}}

    def close(self) -> None:
        """Remove the container if it still runs."""
        if self._process.poll() is None:
            docker("rm", "--force", self.name)
            self._process.wait(30)

    def _events(self) -> list[dict[str, Any]]:
        lines = self._output.read_text().split("\n")[:-1]
        return [json.loads(line) for line in lines]

    def _ended(self) -> bool:
        return self._process.poll() is not None

    def _text(self) -> str:
        return f"stdout: {self._output.read_text()[-4000:]}\nstderr: {self._errors.read_text()}"


_LABEL = "evener.test"


class Project:
    """A cluster made by `docker-compose.yml`; `folder` is for what its clients print."""

    def __init__(self, image: str, base: str, folder: Path) -> None:
        self.image = image
        self.name = f"evener-test-{os.getpid()}-{secrets.token_hex(3)}"
        self.network = f"{self.name}_default"
        self.folder = folder
        self._environment = {
            "EVENER_IMAGE": image,
            "EVENER_BASE": base,
            "EVENER_PORT": str(free_port()),
        }
        self._drivers: list[Driver] = []

    def compose(self, *arguments: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        """Run compose for this project alone."""
        return compose(
            "--project-name", self.name,
            "--project-directory", str(ROOT), "--file", str(ROOT / "docker-compose.yml"),
            *arguments, env=self._environment, timeout=timeout,
        )  # fmt: skip

    def up(self, workers: int) -> None:
        """Start what does not run, and wait until the broker knows exactly this many workers."""
        self.compose(
            "up", "--detach", "--no-build", "--no-recreate", "--scale", f"worker={workers}"
        )
        self.wait_for_workers(workers)

    def wait_for_workers(self, workers: int, seconds: float = _READY_S) -> None:
        """Until exactly this many worker containers are connected and ready."""
        try:
            wait_until(lambda: self.connected() == workers, seconds, f"{workers} workers")
        except pytest.fail.Exception:
            print(self.logs())
            raise

    def connected(self) -> int:
        """How many agents with a ready worker the broker counts; -1 when it does not answer."""
        status = self.status()
        if status is None:
            return -1
        return sum(host["connected"] and host["slots"] > 0 for host in status["hosts"])

    def status(self) -> dict[str, Any] | None:
        """What `evener status --json` says in the broker's container; None: it does not answer."""
        try:
            told: dict[str, Any] = json.loads(
                docker("exec", self.broker(), "evener", "status", "--json", timeout=30)
            )
        except EngineError:
            return None
        return told

    def broker(self) -> str:
        """The id of the broker's container."""
        (found,) = self.containers("broker", everything=True)
        return found

    def workers(self) -> list[str]:
        """The ids of the worker containers that run."""
        return self.containers("worker")

    def containers(self, service: str | None = None, *, everything: bool = False) -> list[str]:
        """Ids of the project's running containers; with `everything` of those that ended too."""
        filters = [f"--filter=label=com.docker.compose.project={self.name}"]
        if service:
            filters.append(f"--filter=label=com.docker.compose.service={service}")
        state = ["--all"] if everything else []
        return docker("ps", "--quiet", "--no-trunc", *state, *filters).split()

    def drive(self, tasks: int, lines: int) -> Driver:
        """A client that submits this many tasks of this many lines each."""
        driver = Driver(self, self.folder, tasks, lines)
        self._drivers.append(driver)
        return driver

    def wait_until_healthy(self, container: str, seconds: float = 40) -> None:
        """Until the health check of a container says so."""

        def is_healthy() -> bool:
            health: str = inspect(container)["State"]["Health"]["Status"]
            return health == "healthy"

        wait_until(is_healthy, seconds, f"the health of {container}")

    def logs(self) -> str:
        """What all containers of the project printed."""
        told = self.compose("logs", "--no-color", "--tail=100")
        return told.stdout + told.stderr

    def close_drivers(self) -> None:
        """End clients that a failed test left."""
        for driver in self._drivers:
            driver.close()
        self._drivers.clear()

    def close(self) -> None:
        """Remove the project's containers, networks and volumes, and see that they are gone."""
        self.close_drivers()
        self.compose("--profile", "demo", "down", "--volumes", "--remove-orphans", "--timeout", "2")
        own = docker("ps", "--all", "--quiet", f"--filter=label={_LABEL}={self.name}").split()
        if own:
            docker("rm", "--force", *own)
        assert self.containers(everything=True) == []
        assert docker("network", "ls", "--quiet", f"--filter=name={self.network}") == ""
