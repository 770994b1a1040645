"""Count the names in the Python files of a folder, with all CPUs of this machine.

    python examples/identifiers.py [FOLDER]        (default: the folder in which you are)

To use the workers of a cluster that runs somewhere, replace the LocalCluster by
`evener.Client("tcp://host:7450")`, and send the text of each file instead of its path.
"""

from __future__ import annotations

import ast
import sys
from collections import Counter
from pathlib import Path

import evener

app = evener.App("identifiers")


@app.task
def count_names(path: str) -> dict[str, int]:
    """How often each name stands in one file."""
    tree = ast.parse(Path(path).read_bytes())
    return dict(Counter(node.id for node in ast.walk(tree) if isinstance(node, ast.Name)))


folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve()
paths = [str(path) for path in sorted(folder.rglob("*.py"))]
total: Counter[str] = Counter()

with evener.LocalCluster(app) as cluster, cluster.client() as client:
    futures = [client.submit(count_names, path) for path in paths]
    for path, future in zip(paths, futures, strict=True):
        try:
            total.update(future.result())
        except SyntaxError as error:  # raised on a worker, caught here
            print(f"not counted: {path}: {error.msg}", file=sys.stderr)

for name, count in total.most_common(10):
    print(f"{count:>9,}  {name}")
