"""`python -m tests.chaos`: run rows of faults, print the table, write the report."""

from __future__ import annotations

import sys

from tests.chaos.program import main

sys.exit(main(sys.argv[1:]))
