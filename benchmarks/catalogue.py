"""What is measured: the comparisons with their sizes, rounds and goals, and nothing else.

Goals are those of the design. A goal that is missed is shown and fails nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final, TypeAlias

from benchmarks import brokers, clusters, core, durable, echo, pools, waiting, work
from benchmarks.measure import Comparison, Goal, Subject

WORKERS: Final = 4

Size: TypeAlias = Callable[[int], int]
"""How many to take in this run, for what a full run takes. A sample takes a second or so."""


def comparisons(quick: bool) -> list[Comparison]:
    """Everything that is measured, in the order of the page."""

    def size(full: int) -> int:
        return max(20, full // 50) if quick else full

    rounds = 1 if quick else 5
    depths = [10_000] if quick else [10_000, 100_000, 1_000_000]
    return [
        *of_calls(size, rounds),
        *of_the_broker(size, rounds, depths),
        *of_the_journal(size, rounds),
        *of_processes(size, rounds),
    ]


def of_calls(size: Size, rounds: int) -> list[Comparison]:
    """What a program sees: latency and rates."""
    return [
        Comparison(
            "round-trip",
            "submit(...).result(), one at a time",
            [
                Subject("evener", partial(clusters.round_trip, WORKERS, size(3_000))),
                Subject("C proxy echo", partial(echo.round_trip, size(3_000))),
                Subject("ProcessPool", partial(pools.round_trip, WORKERS, size(3_000))),
            ],
            rounds,
            [Goal("p50_us", "evener", at_most=1.2, relative_to="C proxy echo")],
        ),
        Comparison(
            "submits",
            "a Future for each no-op task, then all results",
            [
                Subject("evener", partial(clusters.submits, WORKERS, size(50_000))),
                Subject("ProcessPool, 2", partial(pools.submits, 2, size(10_000))),
                Subject("ProcessPool, 4", partial(pools.submits, 4, size(10_000))),
            ],
            rounds,
            [
                Goal("tasks_per_s", "evener", at_least=60_000),
                Goal("broker_cpu_us_per_task", "evener", at_most=4.0),
            ],
        ),
        Comparison(
            "map",
            "map of a tiny function",
            [
                Subject("evener", partial(clusters.mapped, WORKERS, size(1_000_000))),
                Subject("ProcessPool, chunks of 1", partial(pools.mapped, 4, size(10_000), 1)),
                Subject("ProcessPool, chunks of 256", partial(pools.mapped, 4, size(500_000), 256)),
            ],
            rounds,
            [Goal("items_per_s", "evener", at_least=500_000)],
        ),
        Comparison(
            "raw",
            "raw ZeroMQ through the C proxy and back",
            [
                Subject("1 item a message", partial(echo.rate, size(50_000), 1)),
                Subject("64 items a message", partial(echo.rate, size(1_000_000), 64)),
            ],
            rounds,
        ),
        Comparison(
            "waiting",
            "tasks that wait for 10 ms, with one worker",
            [
                Subject("plain", partial(waiting.waits, work.wait, size(200))),
                Subject("concurrency=100", partial(waiting.waits, work.wait_async, size(20_000))),
                Subject("threads=32", partial(waiting.waits, work.wait_in_thread, size(6_000))),
            ],
            rounds,
        ),
    ]


def of_the_broker(size: Size, rounds: int, depths: list[int]) -> list[Comparison]:
    """What the broker takes, in time and memory."""
    return [
        Comparison(
            "broker",
            "the broker's process, client and agent that only speak the wire",
            [
                Subject("4000 tasks at a time", partial(brokers.lives, size(200_000), 4_000)),
                Subject("64 tasks at a time", partial(brokers.lives, size(50_000), 64)),
            ],
            rounds,
            [Goal("cpu_us_per_task", "4000 tasks at a time", at_most=4.0)],
        ),
        Comparison(
            "queued",
            "tasks submitted to a broker that no worker serves",
            [Subject(f"{depth} queued", partial(brokers.queued, depth)) for depth in depths],
            min(rounds, 3),
            [
                Goal("bytes_per_task", f"{depths[-1]} queued", at_most=700),
                Goal(
                    "cpu_us_per_task",
                    f"{depths[-1]} queued",
                    at_most=1.2,
                    relative_to=f"{depths[0]} queued",
                ),
            ],
        ),
        Comparison(
            "core",
            "the broker's deciding part alone, time in step()",
            [
                Subject("short queue", partial(core.sample, "life", size(100_000))),
                *(
                    Subject(f"{depth} queued", partial(core.sample, "queued", depth))
                    for depth in depths
                ),
            ],
            min(rounds, 3),
        ),
    ]


def of_the_journal(size: Size, rounds: int) -> list[Comparison]:
    """What it costs that the broker keeps its word over its own death."""
    count = size(100_000)
    return [
        Comparison(
            "durable",
            "tasks accepted, each on disk before the broker says so",
            [
                Subject("journal", partial(durable.submits, count, True)),
                Subject("no journal", partial(durable.submits, count, False)),
                Subject("bare SQLite", partial(durable.bare, count)),
            ],
            rounds,
            [Goal("submits_per_s", "journal", at_least=40_000)],
        ),
        Comparison(
            "durable-lives",
            "whole lives of no-op tasks, 4 000 under way",
            [
                Subject("journal", partial(durable.lives, count, 4_000, True)),
                Subject("no journal", partial(durable.lives, count, 4_000, False)),
            ],
            rounds,
        ),
        Comparison(
            "restart",
            "a broker is killed with open tasks in its journal, and the next one starts",
            [
                Subject("10 000 tasks", partial(durable.restarts, size(10_000))),
                Subject("100 000 tasks", partial(durable.restarts, size(100_000))),
            ],
            rounds,
            [Goal("first_run_s", "10 000 tasks", at_most=2.0)],
        ),
    ]


def of_processes(size: Size, rounds: int) -> list[Comparison]:
    """What takes the start, and the death, of a process."""
    return [
        Comparison(
            "kill",
            "SIGKILL to a worker that runs a task, until the task runs again",
            [Subject("evener", partial(clusters.killed, WORKERS, 5))],
            rounds,
            [Goal("p50_ms", "evener", at_most=10)],
        ),
        Comparison(
            "start",
            "from nothing to the first result",
            [
                Subject("evener up", partial(clusters.first_result, WORKERS)),
                Subject("ProcessPool", partial(pools.first_result, WORKERS)),
                Subject("python -c", clusters.python_start),
            ],
            rounds,
            [Goal("first_s", "evener up", at_most=0.5)],
        ),
    ]
