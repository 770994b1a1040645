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

# The same while attempts run side by side: there are more of them to look at, and limits of time
# that are known are kept to the moment anyway.
WATCH_SHARED_NS = 20 * MILLISECOND_NS

# An attempt that a busy event loop has not begun for so long is taken back, if another worker has
# room. Shorter: loops that are slow for a moment pass work to and fro.
SHARE_STUCK_NS = 250 * MILLISECOND_NS

# Values of a generator that runs beside others, on the way to its client and not taken, in bytes;
# one value may be larger. In number: see `STREAM_VALUES_MAX`. More: a worker with as many of them
# as there can be costs its agent more than 16 MiB. Fewer: more round trips.
SHARED_STREAM_BYTES_MAX = 64 * 1_024

# Results that the broker has not acknowledged: beyond it nothing new is started. Larger: an agent
# whose broker is slow takes more memory. Smaller: large results wait for round trips.
RESULT_BYTES_MAX = 256 << 20

# Functions whose run time is remembered. Beyond it all are forgotten and measured anew.
ESTIMATES_MAX = 8_192

# An attempt that runs this long is told to the broker as started. Shorter: a message for each task.
STARTED_NS = 50 * MILLISECOND_NS

# --- Stopping an attempt --------------------------------------------------------------------------

# From the flag that user code may read to SIGTERM, unless the function has a grace of its own; and
# from there to SIGKILL.
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

# How long an idle worker may take for its stop hooks.
LEAVE_NS = 5 * SECOND_NS

# --- Care of workers ------------------------------------------------------------------------------

# A limit of tasks or age is shortened by up to this part of it, at random for each process, so that
# workers that started together do not end together.
STAGGER_PERCENT = 20

# Workers away at a time because they are replaced: one, or this part of them all. More: capacity
# drops. Fewer: a host with many workers takes long to get through.
AWAY_DIVISOR = 10

# A worker that is to leave and runs on for so long has no turn to itself: the next one begins.
# Longer: a long task holds up the others. Shorter: more is away or doubled at a time.
TURN_NS = 1 * SECOND_NS

# A worker with nothing to do is pinged, and has so many rounds to answer: the timeout is divided by
# them.
PING_ROUNDS = 3

# How long whoever asks for a ping waits. Longer: the broker gives up first.
PING_ANSWER_NS = 2 * SECOND_NS

# --- Output of workers ----------------------------------------------------------------------------

# Lines kept for the death certificate, and characters of each.
LINES_KEPT = 20
LINE_CHARS_KEPT = 400

# Of these, the head of what a crash dumps. More: less of what the process said itself. Fewer: where
# it was is cut.
DUMP_LINES_KEPT = 12

# A line longer than this is shown in pieces.
LINE_BYTES_MAX = 16_384

# Output that waits for a terminal which does not take it. Beyond it the workers' pipes are not
# read, so their prints wait, as they would without an agent.
OUTPUT_BYTES_MAX = 256 * 1_024

# Lines of workers' output that are kept for people who ask, and bytes of them. More: memory of the
# agent. Fewer: what a worker said before it died is pushed out sooner by those that talk much.
LOG_LINES_MAX = 10_000
LOG_BYTES_MAX = 4 << 20

# Of these, bytes in one answer; the rest is asked for next. Larger: heartbeats wait behind it.
LOG_ANSWER_BYTES_MAX = 256 * 1_024

# How long somebody who follows waits here for something new before the answer is that there is
# none. It must be shorter than the broker waits for an answer.
LOG_WAIT_NS = 2 * SECOND_NS

# How long a new line waits for others that are told with it.
LOG_LOOK_NS = 50 * MILLISECOND_NS

# What an attempt wrote for its client, and all attempts together, that is not on its way yet. More:
# memory. Fewer: of a burst, the older lines are left out sooner.
FORWARD_ATTEMPT_BYTES_MAX = 256 * 1_024
FORWARD_BYTES_MAX = 4 << 20

# What goes of that to the broker: at once, and in a second. More: tasks that write without end cost
# the broker more. Fewer: more lines are left out.
FORWARD_BURST_BYTES = 512 * 1_024
FORWARD_BYTES_PER_SECOND = 1 << 20

# --- A pool inside a program ----------------------------------------------------------------------

# Calls (items, messages, requests) that one worker may have open, and bytes of them. Beyond it who
# calls waits. More: memory. Fewer: who sends in bursts waits where it would not have to.
POOL_CALLS_MAX = 1_024
POOL_BYTES_MAX = 64 << 20

# Of these, messages and requests that lie in the process before it came to them. More: more of it
# is lost with a process that dies. Fewer: a turn of the pool between small messages.
POOL_HANDED_MAX = 64

# Events of processes that wait for handlers which are slow. Beyond it they are dropped and counted.
POOL_EVENTS_MAX = 10_000

# Old processes of one worker that finish their work after they were replaced.
POOL_DRAINING_MAX = 4

# How long the end of the program waits for the pool's thread, which only has to kill.
POOL_EXIT_NS = 1 * SECOND_NS

# --- What others want to know -----------------------------------------------------------------

# Questions of the broker that wait for something here. More: a worker's stacks, 256 KiB each, are
# kept for more who asked. Fewer: somebody who watches many workers is refused.
QUESTIONS_MAX = 64

# Workers that a heartbeat describes, busy ones first. More: on a host with more of them, long names
# make it outgrow the head of a message.
TOLD_WORKERS_MAX = 2_048

# Of tasks that workers run at once, ids in one heartbeat, divided among the workers. More: `evener
# why` names the worker of more of them. Fewer: heartbeats of large hosts are shorter.
TOLD_TASKS_MAX = 4_096

# --- The connection -------------------------------------------------------------------------------

# A HELLO without an answer is repeated after this.
HELLO_AGAIN_NS = 1 * SECOND_NS

# Facts of workers that did not change are told again after this. Shorter: idle agents with many
# workers cost the broker more. Longer: a broker that dropped them lacks them longer.
FACTS_AGAIN_NS = 30 * SECOND_NS

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
assert DUMP_LINES_KEPT < LINES_KEPT
assert 6 * LINE_BYTES_MAX < FORWARD_ATTEMPT_BYTES_MAX <= FORWARD_BURST_BYTES <= FORWARD_BYTES_MAX
assert WATCH_BEHIND_NS <= WATCH_NS < WATCH_SHARED_NS < STARTED_NS < SHARE_STUCK_NS
