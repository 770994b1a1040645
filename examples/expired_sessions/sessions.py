"""Sessions of a web shop in a database, and the job that deletes the expired ones, every 5 minutes.

    python examples/expired_sessions/sessions.py fill 1000       makes a database to clean up
    evener up examples/expired_sessions/sessions.py:app -n 2     cleans it up, as long as it runs
    python examples/expired_sessions/sessions.py show            what was done

SESSIONS_DB is the file of the database (sessions.db), SESSIONS_EVERY how often it is cleaned up.
However many hosts run this, the broker makes one run of each due time. See README.md beside this
file for PostgreSQL.
"""

from __future__ import annotations

import os
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import evener

DATABASE = os.environ.get("SESSIONS_DB", "sessions.db")
SCHEMA = """
CREATE TABLE IF NOT EXISTS sessions (
    token TEXT PRIMARY KEY, customer TEXT NOT NULL, expires_at REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS sessions_by_expiry ON sessions (expires_at);
CREATE TABLE IF NOT EXISTS clean_ups (at REAL NOT NULL, deleted INTEGER NOT NULL);
"""

app = evener.App("shop")


@contextmanager
def transaction() -> Iterator[sqlite3.Connection]:
    """All that happens within is in the database afterwards, or nothing of it."""
    with closing(sqlite3.connect(DATABASE, timeout=30, isolation_level=None)) as database:
        database.execute("BEGIN IMMEDIATE")
        try:
            yield database
        except BaseException:
            database.execute("ROLLBACK")
            raise
        database.execute("COMMIT")


# A run that takes longer than the interval is left alone, and one that fails is tried again. A run
# may happen twice, when its worker dies at a bad moment: it deletes what is there to be deleted.
@app.every(os.environ.get("SESSIONS_EVERY", "5m"), overlap="skip", late="once")
@app.task(retries=3, retry_delay="10s", timeout="2m")
def delete_expired() -> int:
    """Deletes the sessions that expired, and notes how many; in one transaction."""
    now = time.time()
    with transaction() as database:
        deleted = database.execute("DELETE FROM sessions WHERE expires_at <= ?", (now,)).rowcount
        database.execute("INSERT INTO clean_ups VALUES (?, ?)", (now, deleted))
    return deleted


def fill(count: int) -> None:
    """Makes sessions, half of which have expired."""
    with closing(sqlite3.connect(DATABASE)) as database:
        database.executescript("PRAGMA journal_mode=WAL;" + SCHEMA)
    now = time.time()
    with transaction() as database:
        rows = (
            (os.urandom(16).hex(), f"customer {n}", now + 3600 * (-1) ** n) for n in range(count)
        )
        database.executemany("INSERT INTO sessions VALUES (?, ?, ?)", rows)


def show() -> None:
    """Prints how many sessions there are, and what each clean-up deleted."""
    with transaction() as database:
        ((left,),) = database.execute("SELECT count(*) FROM sessions")
        print(f"{left} sessions")
        for at, deleted in database.execute("SELECT at, deleted FROM clean_ups ORDER BY at"):
            print(time.strftime("%H:%M:%S", time.localtime(at)), f"deleted {deleted}")


USAGE = "usage: python sessions.py fill NUMBER | show"


def main(words: list[str]) -> None:
    """What the words of the command line say."""
    if len(words) == 2 and words[0] == "fill" and words[1].isdecimal():
        fill(int(words[1]))
    elif words not in ([], ["show"]):
        sys.exit(USAGE)
    elif not os.path.exists(DATABASE):
        sys.exit(f"there is no database {DATABASE} yet: fill it first\n{USAGE}")
    else:
        try:
            show()
        except sqlite3.OperationalError as error:
            sys.exit(f"{DATABASE} holds no sessions ({error}): fill it first\n{USAGE}")


if __name__ == "__main__":
    main(sys.argv[1:])
