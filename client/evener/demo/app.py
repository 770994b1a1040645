"""The app that the demo's workers serve: one function, `demo.index`.

Rules of this file: what `evener worker evener.demo.app:app` needs, and no more.
"""

from __future__ import annotations

import evener
from evener.demo.identifiers import index as _index

app = evener.App("demo")

index = app.task(_index)
