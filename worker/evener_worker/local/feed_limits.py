"""The bounds of sources and of programs over pipes, each with its reason.

Rules of this file: integers only, units in the name.
"""

from __future__ import annotations

from evener_wire.limits import KIB, MIB, SECOND_NS

# --- Sources --------------------------------------------------------------------------------------

# Items in a source that is filled by hand. Larger: a pool that is too slow is noticed later, and
# more is lost with the program. Smaller: whoever fills it in bursts waits.
SOURCE_ITEMS_MAX = 1_000

# How often an item is given to another worker after one that failed with it. More: an item that
# kills its worker kills more of them. Fewer: it pays for a worker that would have died anyway.
ITEM_RETRIES = 2

# --- Programs over pipes --------------------------------------------------------------------------

# One message, as the line that it is. Larger: a program that writes no line end takes more memory.
LINE_MESSAGE_BYTES_MAX = 16 * MIB

# What a program sent and nobody listened for yet. Beyond it its output is not read, so it waits.
INBOX_MESSAGES_MAX = 1_024
INBOX_BYTES_MAX = 32 * MIB

# How many of them a listener looks at, at a time. More: who takes the first one pays for all.
LOOK_MESSAGES = 32

# What waits for a program that does not read. Beyond it `send` waits.
OUTBOX_BYTES_MAX = 32 * MIB

# Requests that a program has not answered, those included whose caller waits no more.
REQUESTS_MAX = 1_024

# How long a program may take until it says that it is ready.
READY_NS = 10 * SECOND_NS

# From SIGTERM to SIGKILL, when a program is destroyed.
DESTROY_NS = 2 * SECOND_NS

# From the end of a program's output to its own end: longer, and it is destroyed.
SILENT_NS = 1 * SECOND_NS

# Read at a time, and at most after its end.
PIPE_BYTES = 64 * KIB
LAST_BYTES_MAX = 32 * MIB

# How long a terminal that takes nothing holds up the end of a program for its last lines.
LAST_LINES_MS = 200

# Characters of a line that an error shows.
LINE_CHARS_SHOWN = 200

assert LINE_MESSAGE_BYTES_MAX <= INBOX_BYTES_MAX
assert LINE_MESSAGE_BYTES_MAX <= OUTBOX_BYTES_MAX
