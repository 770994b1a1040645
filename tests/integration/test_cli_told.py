"""What commands tell of what did not go well: which limit, which broker, which task."""

from __future__ import annotations

from tests.integration.cli_cluster import Up


def columns(table: str, function: str) -> dict[str, str]:
    """The row of a function, by the titles of the table."""
    lines = table.splitlines()
    (head,) = (line.split() for line in lines if line.startswith("FUNCTION"))
    (row,) = (line.split() for line in lines if line.split()[:1] == [function])
    return dict(zip(head, row, strict=False))


def test_tasks_that_ended_otherwise_are_in_the_tables(up: Up) -> None:
    assert "EXPIRED" not in up.evener("ls", "functions").stdout
    flag = str(up.folder / "never")
    late = up.evener("submit", "demo.hold", flag, "--timeout", "200ms", "--wait")
    assert late.returncode == 75, late.stderr
    for table in (up.evener("status").stdout, up.evener("ls", "functions").stdout):
        row = columns(table, "demo.hold")
        assert (row["DONE"], row["FAILED"], row["EXPIRED"]) == ("0", "0", "1")
        assert "LOST" not in row
    assert up.evener("submit", "demo.crash", "--wait").returncode == 1
    row = columns(up.evener("ls", "functions").stdout, "demo.crash")
    assert (row["EXPIRED"], row["LOST"]) == ("0", "1")
