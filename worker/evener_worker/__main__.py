"""`python -m evener_worker '<json>'`: run an agent. The keys stand in `config.py`."""

import sys

from evener_worker.server import main

sys.exit(main(sys.argv))
