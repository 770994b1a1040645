"""A program with a pool, as a user would write it, for tests that end it in all ways.

It is a script: its class stands in `__main__`, and nothing is under a guard. The first argument
says how it ends. Each worker starts a process of its own, which must not stay either.
"""

import os
import subprocess
import sys
import time

import evener
from evener_worker import WorkerPool


class Starter(evener.Worker[str, int]):
    """Starts a process of its own, and then is busy."""

    def run(self, item: str) -> int:
        if item == "start":
            return subprocess.Popen(["sleep", "600"]).pid
        time.sleep(600)
        return 0


def end(how: str) -> None:
    """Leave as the test wants it."""
    if how == "wait":
        time.sleep(600)
    elif how == "exit":
        os._exit(3)
    elif how == "exception":
        raise RuntimeError("the program failed")
    elif how == "sys.exit":
        sys.exit(4)
    # "return": the end of the script is reached


pool = WorkerPool(Starter, 2)
handles = pool.spawn_all()
started = [handle.execute("start") for handle in handles]
busy = [handle.submit("work") for handle in handles]
print("pids", *[handle.pid for handle in handles], *started, flush=True)
end(sys.argv[1])
