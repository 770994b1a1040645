"""Commands about tasks that have ended: show, result, ls lost, retry, purge."""

from __future__ import annotations

import json
from typing import Any

from tests.integration.cli_cluster import Up
from tests.support import wait_until


def as_json(up: Up, *arguments: str) -> dict[str, Any]:
    done = up.evener(*arguments, "--json")
    assert done.stdout, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    assert told["schema"] == 1
    return told


def submitted(up: Up, *arguments: str) -> str:
    """The id of a task that has ended, and whose client has been told how."""
    done = up.evener("submit", *arguments, "--wait", "--json")
    return str(json.loads(done.stdout)["id"])


def test_a_result_is_there_for_whoever_has_the_id(up: Up) -> None:
    task_id = submitted(up, "demo.add", "1", "2")
    assert up.evener("result", task_id).stdout == "3\n"
    assert as_json(up, "result", task_id[:8])["result"] == 3
    shown = up.evener("show", task_id[:8]).stdout
    assert shown.startswith(f"task {task_id}\n  function    demo.add\n  state       done, ")
    assert "\n  result      3\n" in shown
    told = as_json(up, "show", task_id)
    assert (told["state"], told["result"], told["result_is"]) == ("done", 3, "plain")


def test_pickles_are_described_and_not_opened(up: Up) -> None:
    task_id = submitted(up, "demo.pair")
    assert "  result      pickle of " in up.evener("show", task_id).stdout
    told = as_json(up, "show", task_id)
    assert told["result"] is None
    assert told["result_is"].endswith(", of type builtins.complex")
    assert up.evener("result", task_id).stdout == "{(1+2j)}\n"


def test_result_waits_if_told_to(up: Up) -> None:
    task_id = up.start_held_task()
    early = up.evener("result", task_id)
    assert early.returncode == 75
    assert f"task demo.hold[{task_id[:8]}] has not ended: it is running (--wait)" in early.stderr
    short = up.evener("result", task_id, "--wait", "--timeout", "50ms")
    assert short.returncode == 75
    assert "within its caller's timeout of 0.05 s" in short.stderr
    up.release()
    assert up.evener("result", task_id, "--wait").stdout == "held\n"
    assert up.evener("result", task_id, "--timeout", "1s").returncode == 2
    assert up.evener("result", "00000000").returncode == 1


def test_failures_with_their_traceback(up: Up) -> None:
    task_id = submitted(up, "demo.boom")
    shown = up.evener("show", task_id).stdout
    assert "\n  error       ValueError: boom\n" in shown
    assert '    raise ValueError("boom")\n' in shown
    told = as_json(up, "show", task_id)["error"]
    assert (told["type"], told["message"]) == ("ValueError", "boom")
    assert "raise ValueError" in told["traceback"]
    failed = up.evener("result", task_id)
    assert failed.returncode == 1
    assert "evener result: task" in failed.stderr
    (row,) = as_json(up, "ls", "failed")["rows"]
    assert (row["id"], row["facts"]["message"]) == (task_id, "boom")
    table = up.evener("ls", "failed", "--function", "demo.boom").stdout
    assert f"\n{task_id[:8]}  demo.boom  ValueError: boom" in table
    assert row["facts"]["worker"] in table
    assert len(up.evener("ls", "failed", "--function", "demo.add").stdout.splitlines()) == 1


def test_the_death_certificate_of_a_lost_task(up: Up) -> None:
    task_id = submitted(up, "demo.crash")
    shown = up.evener("show", task_id[:6]).stdout
    assert "\n  reason      poison: 1 worker died while it ran it\n" in shown
    assert "\n  death       SIGSEGV, after the task ran for " in shown
    assert "(1 start that took the worker down)" in shown
    assert "\n    last words\n" in shown
    assert "\n  memory      " in shown
    assert as_json(up, "show", task_id)["facts"]["signal"] == 11
    assert f"\n{task_id[:8]}  demo.crash  poison, SIGSEGV" in up.evener("ls", "lost").stdout


def test_retry_by_id_and_by_kind(up: Up) -> None:
    boom, crash = submitted(up, "demo.boom"), submitted(up, "demo.crash")
    only = as_json(up, "retry", "--lost", "--failed", "--function", "demo.boom", "--dry-run")
    assert [row["old"] for row in only["retried"]] == [boom]
    again = as_json(up, "retry", "--failed")
    (entry,) = again["retried"]
    assert entry["old"] == boom != entry["id"]
    wait_until(lambda: _ids(up, "failed") == [entry["id"]])
    kept = up.evener("retry", crash[:8], "--keep")
    assert f"{crash[:8]}  demo.crash  again as " in kept.stdout
    wait_until(lambda: len(_ids(up, "lost")) == 2)
    assert crash in _ids(up, "lost")
    done = submitted(up, "demo.add", "1", "2")
    no = up.evener("retry", done, "deadbeef")
    assert no.returncode == 1
    assert "is done: only what failed, got lost or expired is retried" in no.stderr
    assert 'no task whose id begins with "deadbeef"' in no.stderr
    assert up.evener("retry").returncode == 2
    assert up.evener("retry", "--failed", boom).returncode == 2


def test_what_nobody_waited_for_is_retried_and_forgotten_too(up: Up) -> None:
    flag = up.folder / "flag"
    # It ends after whoever submits it has gone.
    done = up.evener("submit", "demo.hold", str(flag), "--timeout", "2s")
    assert done.returncode == 0, done.stderr
    old = done.stdout.strip()
    wait_until(lambda: _ids(up, "expired") == [old], 20)
    (entry,) = as_json(up, "retry", old)["retried"]
    assert "kept" not in entry
    wait_until(lambda: _ids(up, "expired") == [entry["id"]], 20)


def _ids(up: Up, kind: str) -> list[str]:
    return [row["id"] for row in as_json(up, "ls", kind)["rows"]]


def test_purge_asks_or_is_told_yes(up: Up) -> None:
    boom, crash = submitted(up, "demo.boom"), submitted(up, "demo.crash")
    asked = up.evener("purge", "lost", "failed")
    assert asked.returncode == 2
    assert "give --yes, or --dry-run" in asked.stderr
    assert as_json(up, "purge", "lost", "failed", "--dry-run")["purged"] == 2
    assert as_json(up, "purge", boom, "--dry-run")["purged"] == 1
    assert up.evener("purge", boom[:8], "--yes").stdout == "forgot 1 task\n"
    assert up.evener("purge", "lost", "--older-than", "1h", "--yes").stdout == "forgot 0 tasks\n"
    assert _ids(up, "lost") == [crash]
    assert up.evener("purge", "lost", "--yes").stdout == "forgot 1 task\n"
    assert _ids(up, "lost") == []
    done = submitted(up, "demo.add", "1", "2")
    no = up.evener("purge", done, "--yes")
    assert no.returncode == 1
    assert "only dead letters are purged" in no.stderr
    assert up.evener("purge", "lost", done, "--yes").returncode == 2


def test_cancel_says_what_it_cannot_stop(up: Up) -> None:
    done = submitted(up, "demo.add", "1", "2")
    told = up.evener("cancel", done[:8], "00000000")
    assert told.returncode == 1
    assert f"task demo.add[{done[:8]}] has ended already: done" in told.stderr
    assert 'no task whose id begins with "00000000"' in told.stderr
    body = as_json(up, "cancel", done, "00000000")
    assert body["cancelled"] == []
    assert body["ended"] == {done: "done"}
    assert body["unknown"] == ["00000000"]
