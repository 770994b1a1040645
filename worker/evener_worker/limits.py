"""The bounds of the agent and its workers, each with its reason.

Rules of this file: integers only, units in the name. Bounds that peers must know stand in
`evener_wire.limits`.
"""

from __future__ import annotations

from evener_wire.limits import MILLISECOND_NS, SECOND_NS

# --- Handing out work -----------------------------------------------------------------------------

# Estimated work handed to one worker at a time. Larger: more is taken back when an estimate was
# wrong. Smaller: more messages between agent and worker.
HANDOUT_NS = 1 * MILLISECOND_NS

# And in number, for functions that take next to no time.
HANDOUT_TASKS_MAX = 64

# Payload bytes handed to one worker at a time; one attempt may be larger.
HANDOUT_BYTES_MAX = 1 << 20

# A worker whose first attempt takes longer than this gives back what waits behind it.
STUCK_NS = 2 * MILLISECOND_NS

# How often the pages of busy workers are looked at: while work waits behind a running attempt, and
# otherwise. The second bounds how late a run timeout is noticed.
WATCH_BEHIND_NS = 2 * MILLISECOND_NS
WATCH_NS = 5 * MILLISECOND_NS

# Functions whose run time is remembered. Beyond it all are forgotten and measured anew.
ESTIMATES_MAX = 8_192

# An attempt that runs this long is told to the broker as started. Shorter: a message for each task.
STARTED_NS = 50 * MILLISECOND_NS

# --- Stopping an attempt --------------------------------------------------------------------------

# From the flag that user code may read to SIGTERM, and from there to SIGKILL.
TERMINATE_AFTER_NS = 100 * MILLISECOND_NS
KILL_AFTER_NS = 2 * SECOND_NS

# --- Worker processes -----------------------------------------------------------------------------

# Back-off between restarts: the first at once, then from here doubling up to the bound.
RESTART_NS = 100 * MILLISECOND_NS
RESTART_MAX_NS = 30 * SECOND_NS

# A worker that lived this long starts its back-off anew.
RESTART_FORGET_NS = 10 * SECOND_NS

# A worker that dies this often in a row before it was ready is not started again.
START_FAILURES_MAX = 5

# How long an idle worker may take for its stop hooks when the agent stops.
LEAVE_NS = 2 * SECOND_NS

# --- Output of workers ----------------------------------------------------------------------------

# Lines kept for the death certificate, and characters of each.
LINES_KEPT = 20
LINE_CHARS_KEPT = 400

# A line longer than this is shown in pieces.
LINE_BYTES_MAX = 16_384

# Output that waits for a terminal which does not take it. Beyond it the workers' pipes are not
# read, so their prints wait, as they would without an agent.
OUTPUT_BYTES_MAX = 256 * 1_024

# --- The connection -------------------------------------------------------------------------------

# A HELLO without an answer is repeated after this.
HELLO_AGAIN_NS = 1 * SECOND_NS

# A session refused for a reason that may pass is asked for again after this.
REFUSED_AGAIN_NS = 30 * SECOND_NS

# How long a stopping agent waits for the broker to take its last results.
GOODBYE_NS = 1 * SECOND_NS

# Messages taken from the broker, and bytes from one worker, before others have their turn.
RECEIVE_MESSAGES_MAX = 64
RECEIVE_BYTES_MAX = 256 * 1_024

# Two signals within this count as one: a double tap is no second thought.
SECOND_SIGNAL_NS = 300 * MILLISECOND_NS

# Transitions kept for the story of an attempt.
LOG_ENTRIES_MAX = 4_096

assert STUCK_NS >= HANDOUT_NS
assert WATCH_BEHIND_NS <= WATCH_NS < STARTED_NS
