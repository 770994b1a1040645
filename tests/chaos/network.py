"""Network namespaces of a chaos run: one for each host, joined by a bridge in one of their own.

Rules of this file: everything has the run's pid in its name and is removed with it; what runs that
were killed left behind is removed by the next one. The machine's own network is not touched.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

PREFIX = "evc"
_NAME = re.compile(rf"{PREFIX}(\d+)-")

Direction = Literal["both", "in", "out"]


def why_missing() -> str | None:
    """Why no namespaces can be made here, or None."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    missing = [tool for tool in ("ip", "iptables") if shutil.which(tool) is None]
    if missing:
        return f"{' and '.join(missing)} not installed"
    probe = f"{PREFIX}{os.getpid()}-probe"
    try:
        run("ip", "netns", "add", probe)
    except NetworkError as error:
        return f"network namespaces are not allowed here: {error}"
    try:
        run("ip", "netns", "exec", probe, "ip", "link", "add", "br0", "type", "bridge")
        run("ip", "netns", "exec", probe, "iptables", "-L", "-n")
    except NetworkError as error:
        return str(error)
    finally:
        run("ip", "netns", "delete", probe)
    return None


class NetworkError(Exception):
    """Raised when a network command fails; the text has the command and its output."""


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        raise NetworkError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


def remove_leftovers() -> None:
    """Namespaces of runs whose process is gone."""
    for line in run("ip", "netns", "list").splitlines():
        found = _NAME.match(line)
        if found is not None and not Path(f"/proc/{found[1]}").exists():
            _delete(line.split()[0])


def _delete(name: str) -> None:
    try:
        run("ip", "netns", "delete", name)
    except NetworkError:
        if (Path("/run/netns") / name).exists():
            raise
    shutil.rmtree(Path("/etc/netns") / name, ignore_errors=True)


class Network:
    """Hosts by name, each with one address in 10.77.0.0/16; `with Network([...])` removes them."""

    _made = 0

    def __init__(self, names: Sequence[str]) -> None:
        Network._made += 1
        self._prefix = f"{PREFIX}{os.getpid()}-{Network._made}"
        self.hub = f"{self._prefix}-hub"
        self._names = list(names)

    def __enter__(self) -> Network:
        try:
            self._make()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _make(self) -> None:
        run("ip", "netns", "add", self.hub)
        self.run_in(self.hub, "ip", "link", "add", "br0", "type", "bridge")
        self.run_in(self.hub, "ip", "link", "set", "br0", "up")
        for number, name in enumerate(self._names, 1):
            node, port = self.node(name), f"p{number}"
            run("ip", "netns", "add", node)
            self.run_in(self.hub, "ip", "link", "add", port, "type", "veth",
                        "peer", "name", "eth0", "netns", node)  # fmt: skip
            self.run_in(self.hub, "ip", "link", "set", port, "master", "br0", "up")
            self.run_in(node, "ip", "address", "add", f"{self.address(name)}/16", "dev", "eth0")
            self.run_in(node, "ip", "link", "set", "eth0", "up")
            self.run_in(node, "ip", "link", "set", "lo", "up")

    def close(self) -> None:
        for name in (*map(self.node, self._names), self.hub):
            if (Path("/run/netns") / name).exists():
                _delete(name)

    def node(self, name: str) -> str:
        """The namespace of a host."""
        return f"{self._prefix}-{name}"

    def address(self, name: str, extra: int = 0) -> str:
        return f"10.77.{extra}.{self._names.index(name) + 1}"

    @staticmethod
    def run_in(node: str, *command: str) -> str:
        return run("ip", "netns", "exec", node, *command)

    # --- Partitions -------------------------------------------------------------------------------

    @contextmanager
    def partition(self, name: str, direction: Direction = "both") -> Iterator[None]:
        """Nothing passes to ("in"), from ("out") this host, or both."""
        chains = {"both": ("INPUT", "OUTPUT"), "in": ("INPUT",), "out": ("OUTPUT",)}[direction]
        node = self.node(name)
        try:
            for chain in chains:
                self.run_in(node, "iptables", "-A", chain, "!", "-i" if chain == "INPUT" else "-o",
                            "lo", "-j", "DROP")  # fmt: skip
            yield
        finally:
            self.run_in(node, "iptables", "-F")

    @contextmanager
    def unplugged(self, name: str) -> Iterator[None]:
        """The cable of this host is pulled at the other end: it sees no carrier."""
        port = f"p{self._names.index(name) + 1}"
        self.run_in(self.hub, "ip", "link", "set", port, "down")
        try:
            yield
        finally:
            self.run_in(self.hub, "ip", "link", "set", port, "up")

    # --- Names ------------------------------------------------------------------------------------

    def set_hosts(self, entries: dict[str, str]) -> None:
        """What /etc/hosts says in all of these namespaces, for processes that start and that run.

        `ip netns exec` mounts the file when a process starts; it is rewritten in place, so those
        that run see it too.
        """
        for name in self._names:
            folder = Path("/etc/netns") / self.node(name)
            folder.mkdir(parents=True, exist_ok=True)
            lines = ["127.0.0.1 localhost", *(f"{a} {host}" for host, a in entries.items())]
            with (folder / "hosts").open("w") as file:
                file.write("\n".join(lines) + "\n")

    def set_resolver(self, address: str) -> None:
        """Who is asked for other names."""
        for name in self._names:
            folder = Path("/etc/netns") / self.node(name)
            folder.mkdir(parents=True, exist_ok=True)
            with (folder / "resolv.conf").open("w") as file:
                file.write(f"nameserver {address}\noptions timeout:2 attempts:2\n")
