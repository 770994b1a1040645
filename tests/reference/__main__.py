"""Writes the pages of the reference anew: `make reference`."""

from __future__ import annotations

from tests.reference.pages import FOLDER, pages, stale

made = pages()
FOLDER.mkdir(exist_ok=True)
for path in stale():
    if path.name in made:
        path.write_text(made[path.name], encoding="utf-8")
    else:
        path.unlink()
