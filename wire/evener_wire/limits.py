"""Every bound of the protocol and of the parts, each with its reason.

Rules of this file: integers only, units in the name, one comment per bound that says what raising
and lowering it costs. The assertions at the end relate the bounds to each other.
"""

KIB = 1024
MIB = 1024 * KIB
MILLISECOND_NS = 1_000_000
SECOND_NS = 1_000 * MILLISECOND_NS

# --- Protocol -------------------------------------------------------------------------------------

# The range of protocol versions this code speaks. A peer outside of it is refused by name.
PROTOCOL_MIN = 1
PROTOCOL_MAX = 1

# --- Messages -------------------------------------------------------------------------------------

# Ids of tasks and of peers: 128 random bits, so that nobody has to hand them out.
ID_BYTES = 16

# A payload up to this size lies inside the head. Larger: copying it with its batch costs more than
# a frame of its own (about 1 us). Smaller: a frame per task, and batching stops paying.
INLINE_BYTES_MAX = 64 * KIB

# A sender closes a batch at this many bytes. Larger: the receiver works longer before anybody else
# has a turn. Smaller: more messages per task.
BATCH_BYTES_TARGET = 256 * KIB

# A sender closes a batch at this many items, for the same reason.
BATCH_ITEMS_MAX = 2_048

# What a receiver accepts as head: a full batch, one last payload, and room for the fixed fields.
# msgpack can blow up 72-fold when decoded (empty maps), so this also bounds memory per message.
HEAD_BYTES_MAX = 1 * MIB

# Frames behind one head. Larger: one message may occupy the receiver's memory for longer.
FRAMES_MAX = 1_024

# Frames of one payload. Half of a message's, so that a batch closed at the other half has room.
BUFFERS_MAX = FRAMES_MAX // 2

# One frame, hence one large payload part. libzmq drops the connection above it (MAXMSGSIZE).
FRAME_BYTES_MAX = 1_024 * MIB

# All frames of one payload together.
PAYLOAD_BYTES_MAX = 2_048 * MIB

# Names of functions and queues: enough for `application.function`, small enough for log lines.
NAME_BYTES_MAX = 128

# Texts for people (errors, notes, tracebacks), so that a hostile or huge text stays harmless.
TEXT_CHARS_MAX = 10_000

# What one agent may offer. Larger: HELLO-time messages outgrow the head.
FUNCTIONS_MAX = 4_096
QUEUES_MAX = 64
SLOTS_MAX = 4_096

# Attempts an agent may still have when it opens a session. Larger: they outgrow the head.
HELD_MAX = 32_768

# Entries in one map of facts. Larger: one heartbeat of a host with many workers outgrows the head.
FACTS_MAX = 32

# Exception type names that `retry_on` is matched against, and the length of one (`module.Class`).
TYPE_NAMES_MAX = 32
TYPE_NAME_CHARS_MAX = 256

# --- Time -----------------------------------------------------------------------------------------

# How often an idle peer says that it lives. Shorter: 10 000 idle workers cost the broker more.
HEARTBEAT_NS = 1 * SECOND_NS

# Silence after which the broker gives its verdict, and after which a peer opens a new connection.
# Shorter: a busy machine is taken for a dead one. Longer: work waits longer for its second try.
SILENCE_NS = 4 * SECOND_NS

# An agent that has not heard the broker for this long starts nothing new, so that it has stopped
# before the broker hands its work to somebody else.
SELF_FENCE_NS = 3 * SECOND_NS

# How long a peer whose connection broke may take to come back before its work is given to others.
# Shorter: a reset connection costs a second run. Longer: a killed agent's work waits longer.
RECONNECT_GRACE_NS = 1_500 * MILLISECOND_NS

# Peers try to connect again after a random time within these bounds, so that not all come at once.
RECONNECT_MIN_NS = 100 * MILLISECOND_NS
RECONNECT_MAX_NS = 500 * MILLISECOND_NS

# How often the broker probes an agent that holds work; a vanished process shows as a failed send.
PROBE_NS = 250 * MILLISECOND_NS

# How long a received batch may wait for its acknowledgement. Longer: the sender keeps results
# longer. Shorter: more messages on the path of single tasks.
ACK_DELAY_NS = 50 * MILLISECOND_NS

# How long a broker that just started waits for agents to report what they still run, before it
# dispatches tasks that may already run somewhere.
RECOVERY_NS = 1_500 * MILLISECOND_NS

# --- Work -----------------------------------------------------------------------------------------

# How urgent a task is. More steps: more lines for the broker to look at, and none that people need.
PRIORITY_MIN = 0
PRIORITY_MAX = 9
PRIORITY_DEFAULT = 5

# A ready task of a lower priority goes first once it waited this long.
AGEING_NS = 60 * SECOND_NS

# How often a task may lose the worker that runs it before it counts as poison.
MAX_STARTS_DEFAULT = 3
MAX_STARTS_MAX = 1_000
RETRIES_MAX = 1_000

# Returns without blame (its agent vanished before anybody could tell whether it ran). Each block of
# this many counts as one start, so that even a task that kills whole hosts ends.
FREE_RETURNS_MAX = 10

# Unstarted work in hand per worker, in time. Larger: recalls more often. Smaller: workers of short
# tasks wait for the round trip to the broker.
LOOKAHEAD_NS = 10 * MILLISECOND_NS

# And in number, for functions that take next to no time.
LOOKAHEAD_TASKS_PER_SLOT = 512

# Open tasks (not yet ended) and their payload bytes: per client, and in the whole broker.
CLIENT_TASKS_MAX = 2_000_000
CLIENT_BYTES_MAX = 2_048 * MIB
BROKER_TASKS_MAX = 4_000_000
BROKER_BYTES_MAX = 4_096 * MIB

# How long the broker keeps results for a client that is not connected. They count as its tasks.
RETENTION_NS = 3_600 * SECOND_NS

# Queues that exist at the same time. Each turn of the broker looks at all of them.
BROKER_QUEUES_MAX = 1_024

# How long a restarted broker keeps what agents report of tasks that no client has claimed yet.
ORPHAN_NS = 60 * SECOND_NS
ORPHANS_MAX = 100_000

# Sessions the broker holds at most. Each costs about 30 KiB inside libzmq.
SESSIONS_MAX = 20_000

# A duration that a caller may ask for. One hundred years stand for "for ever".
DURATION_NS_MAX = 100 * 365 * 24 * 3_600 * SECOND_NS

assert PROTOCOL_MIN <= PROTOCOL_MAX
assert INLINE_BYTES_MAX < BATCH_BYTES_TARGET
assert HEAD_BYTES_MAX >= 2 * (BATCH_BYTES_TARGET + INLINE_BYTES_MAX)
assert HEAD_BYTES_MAX >= 32 * HELD_MAX  # an id, a fence, and their three headers are 28 bytes
assert 2 * BUFFERS_MAX <= FRAMES_MAX
assert PROBE_NS < HEARTBEAT_NS
assert 3 * HEARTBEAT_NS <= SELF_FENCE_NS < SILENCE_NS
assert RECONNECT_MAX_NS < RECONNECT_GRACE_NS < SILENCE_NS
assert RECONNECT_MAX_NS < RECOVERY_NS
assert ACK_DELAY_NS < HEARTBEAT_NS
assert PRIORITY_MIN <= PRIORITY_DEFAULT <= PRIORITY_MAX
assert CLIENT_TASKS_MAX <= BROKER_TASKS_MAX
assert CLIENT_BYTES_MAX <= BROKER_BYTES_MAX
