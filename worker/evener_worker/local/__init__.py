"""A pool of worker processes inside a program: no broker, no network, gone when the program is.

Rules of this folder: `machine.py` and what it names decide without I/O; one thread (`loop.py`)
performs; the faces (`pool.py`, `async_pool.py`) turn calls into events and wait for the outcome.
"""
