"""Bad lines without `tc netem`, which not every kernel has: a forwarder of real packets.

The named host loses its cable and gets a tunnel device instead; a thread of the run carries every
packet between that tunnel and one in the hub's namespace, and loses, delays, swaps, doubles and
damages them on the way. TCP of the kernel sees what it would see on such a line.
"""

from __future__ import annotations

import ctypes
import fcntl
import heapq
import os
import random
import select
import struct
import threading
import time
from pathlib import Path

from tests.chaos import network
from tests.chaos.network import Network

_TUNSETIFF = 0x400454CA
_IFF_TUN_NO_PI = 0x0001 | 0x1000
_CLONE_NEWNET = 0x40000000
_QUEUE_MAX = 1_000
_REORDER_S = 0.01


def why_no_weather() -> str | None:
    """Why this cannot be had here, or None."""
    reason = network.why_missing()
    if reason is None and not Path("/dev/net/tun").exists():
        return "there is no /dev/net/tun"
    return reason


class Weather:
    """Between one host and all others; fair until `set` is called."""

    def __init__(self, net: Network, host: str, seed: int) -> None:
        self.passed = 0
        self.lost = 0
        self.doubled = 0
        self.damaged = 0
        self.overtook = 0
        self._net = net
        self._host = host
        self._rng = random.Random(seed)
        self._now: dict[str, float] = {}
        self._free_at = [0.0, 0.0]
        self._waiting: list[tuple[float, int, int, bytes]] = []
        self._count = 0
        self._ending, self._end = os.pipe()
        self._ends: list[int] = []
        self._thread = threading.Thread(target=self._carry, name="weather", daemon=True)

    def set(self, **weather: float) -> None:
        """From now on: loss, delay_s, jitter_s, reorder, duplicate, corrupt, bits_per_s."""
        self._now = weather

    def __enter__(self) -> Weather:
        node, hub = self._net.node(self._host), self._net.hub
        address = self._net.address(self._host)
        self._ends = [_tunnel(node, "tun0"), _tunnel(hub, "tun0")]
        # The host is reached through the hub, which answers for it to all others.
        self._net.run_in(node, "ip", "address", "flush", "dev", "eth0")
        self._net.run_in(node, "ip", "link", "set", "eth0", "down")
        self._net.run_in(node, "ip", "address", "add", f"{address}/32", "dev", "tun0")
        self._net.run_in(node, "ip", "link", "set", "tun0", "up", "mtu", "1400")
        self._net.run_in(node, "ip", "route", "add", "10.77.0.0/16", "dev", "tun0")
        self._net.run_in(hub, "ip", "address", "add", "10.77.0.240/16", "dev", "br0")
        self._net.run_in(hub, "ip", "link", "set", "tun0", "up", "mtu", "1400")
        self._net.run_in(hub, "ip", "route", "add", f"{address}/32", "dev", "tun0")
        for key in ("ip_forward", "conf/br0/proxy_arp"):
            self._net.run_in(hub, "sh", "-c", f"echo 1 >/proc/sys/net/ipv4/{key}")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        os.write(self._end, b"x")
        self._thread.join(5)
        for fd in (*self._ends, self._ending, self._end):
            os.close(fd)

    # --- The thread -------------------------------------------------------------------------------

    def _carry(self) -> None:
        poll = select.poll()
        for fd in (*self._ends, self._ending):
            poll.register(fd, select.POLLIN)
        while True:
            now = time.monotonic()
            while self._waiting and self._waiting[0][0] <= now:
                _, _, end, packet = heapq.heappop(self._waiting)
                self._deliver(end, packet)
            wait_ms = (self._waiting[0][0] - now) * 1000 if self._waiting else 1000.0
            for fd, _ in poll.poll(max(0.0, wait_ms)):
                if fd == self._ending:
                    return
                for _ in range(64):
                    try:
                        packet = os.read(fd, 65_536)
                    except BlockingIOError:
                        break
                    self._take(1 - self._ends.index(fd), packet)

    def _take(self, end: int, packet: bytes) -> None:
        now, rng, weather = time.monotonic(), self._rng, self._now
        if rng.random() < weather.get("loss", 0.0) or len(self._waiting) > _QUEUE_MAX:
            self.lost += 1
            return
        at = now
        if "bits_per_s" in weather:
            self._free_at[end] = (
                max(now, self._free_at[end]) + len(packet) * 8 / weather["bits_per_s"]
            )
            at = self._free_at[end]
        delay_s, jitter_s = weather.get("delay_s", 0.0), weather.get("jitter_s", 0.0)
        if rng.random() < weather.get("reorder", 0.0):
            delay_s = jitter_s = 0.0  # as netem does: it goes before those that wait
            self.overtook += len(self._waiting) > 0
        at += delay_s + rng.uniform(-jitter_s, jitter_s)
        if rng.random() < weather.get("corrupt", 0.0):
            self.damaged += 1
            damaged = bytearray(packet)
            damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
            packet = bytes(damaged)
        copies = 2 if rng.random() < weather.get("duplicate", 0.0) else 1
        self.doubled += copies - 1
        for _ in range(copies):
            self._count += 1
            if at <= now and not self._waiting:
                self._deliver(end, packet)
            else:
                heapq.heappush(self._waiting, (at, self._count, end, packet))

    def _deliver(self, end: int, packet: bytes) -> None:
        try:
            os.write(self._ends[end], packet)
            self.passed += 1
        except OSError:
            self.lost += 1  # damaged beyond being a packet, or no room


def _tunnel(node: str, name: str) -> int:
    """A tunnel device in a namespace; its descriptor. Only a thread of its own enters it."""
    made: list[int] = []

    def make() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        namespace = os.open(f"/run/netns/{node}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            if libc.setns(namespace, _CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "setns")
            fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH", name.encode(), _IFF_TUN_NO_PI))
            made.append(fd)
        finally:
            os.close(namespace)

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    if not made:
        raise network.NetworkError(f"no tunnel device in {node}")
    return made[0]
