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

# Tasks that one worker may run at once, of a function that allows it. More: a worker that dies
# takes more with it, and its agent looks at more. Fewer: waiting for others takes more processes.
SHARES_MAX = 256

# What a worker has to give, where tasks take only a part of it: each the whole divided by how many
# of its function run at once, rounded down. Fewer: what rounding leaves over has room for one more.
WORKER_UNITS = 1 << 16

# Schedules that one agent may offer, with a call each. Larger: OFFER outgrows the head.
SCHEDULES_MAX = 256
SCHEDULE_CALL_BYTES_MAX = 1 * KIB

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

# The upper one doubles with each connection that stays silent, up to these. An agent has to come
# while a broker that just started still waits for what it holds (RECOVERY_NS), and within its grace
# after a connection broke: later, its work runs a second time. A client may take longer: what it
# submitted before is waited for, however late it comes.
RECONNECT_AGENT_MAX_NS = 1_000 * MILLISECOND_NS
RECONNECT_CLIENT_MAX_NS = 2_000 * MILLISECOND_NS

# HELLOs that a broker answers with a session, of agents and of clients: at once, and per second
# from then on. More: a crowd that comes back takes the broker for itself (a HELLO with what follows
# it costs about 150 us). Fewer: the last of a crowd waits longer.
HELLOS_AT_ONCE = 500
HELLOS_PER_SECOND = 2_000

# What the others are told to wait before they say HELLO again. Longer: peers take the broker for
# silent. Shorter: a larger crowd than it can promise a turn asks more often.
RETRY_AFTER_MIN_NS = 5 * MILLISECOND_NS
RETRY_AFTER_MAX_NS = 2 * SECOND_NS

# HELLOs of one connection within a second, before it is told to wait whoever else does.
HELLOS_OF_PEER_MAX = 50

# A HELLO that comes this soon after its connection got a session, of which nothing was used yet, is
# the one before, repeated. Longer: whoever means it waits longer. Shorter: a busy broker that takes
# them in one after the other opens a session for each.
HELLO_REPEATED_NS = 500 * MILLISECOND_NS

# How often a connection that goes on without a session is told to say HELLO. Longer: it waits
# longer for one if it did not hear that. Shorter: who sends on and never reads is owed more.
RESYNC_AGAIN_NS = 250 * MILLISECOND_NS

# A session refused for a reason that may pass is asked for again after this: at first, doubling
# with each refusal, and at last. Shorter: whoever is refused keeps the broker busy with saying so.
REFUSED_AGAIN_MIN_NS = 1 * SECOND_NS
REFUSED_AGAIN_MAX_NS = 30 * SECOND_NS

# How often the broker probes an agent that holds work; a vanished process shows as a failed send.
PROBE_NS = 250 * MILLISECOND_NS

# How long a received batch may wait for its acknowledgement. Longer: the sender keeps results
# longer. Shorter: more messages on the path of single tasks.
ACK_DELAY_NS = 50 * MILLISECOND_NS

# How long a broker that just started waits for agents to report what they still run, before it
# dispatches tasks that may already run somewhere.
RECOVERY_NS = 1_500 * MILLISECOND_NS

# And at most, when it told agents to come later. Longer: a crowd that never stops coming keeps
# tasks from running.
RECOVERY_MAX_NS = 10 * SECOND_NS

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

# How long the broker keeps results: for a client that is not connected, where they count as its
# tasks, and of those that a client has taken already the last few, for whoever asks by id.
RETENTION_NS = 3_600 * SECOND_NS
RETAINED_TASKS_MAX = 10_000
RETAINED_BYTES_MAX = 64 * MIB

# With a journal more of them, since that is what people want one for. They take memory as well.
RETAINED_TASKS_DURABLE_MAX = 100_000
RETAINED_BYTES_DURABLE_MAX = 256 * MIB

# Dead letters: tasks that failed, got lost or expired, with their calls, for people to look at.
LETTERS_NS = 7 * 24 * RETENTION_NS
LETTERS_MAX = 10_000
LETTER_BYTES_MAX = 64 * MIB

# Queues that exist at the same time. Each turn of the broker looks at all of them.
BROKER_QUEUES_MAX = 1_024

# How long a restarted broker keeps what agents report of tasks that no client has claimed yet.
ORPHAN_NS = 60 * SECOND_NS
ORPHANS_MAX = 100_000

# Sessions the broker holds at most. Each costs about 30 KiB inside libzmq.
SESSIONS_MAX = 20_000

# Agents and clients the broker remembers, connected or not. More: who makes up instances, session
# after session, costs more memory. Fewer: clients that are away while their tasks run are refused.
AGENTS_MAX = 20_000
CLIENTS_MAX = 100_000

# What the broker keeps of the facts that a peer tells in HELLO. More: sessions times this is what
# peers may take of its memory. Fewer: names of hosts and programs are cut.
HELLO_FACTS_BYTES_MAX = 4 * KIB

# Functions the broker knows by name. More: peers that make up names cost more memory.
BROKER_FUNCTIONS_MAX = 100_000

# Schedules the broker knows by name. More: peers that make up names cost more memory.
BROKER_SCHEDULES_MAX = 1_000

# What one connection may send that is no protocol, before nothing of it is read for a while. More:
# each costs a parse and a line in the log. Fewer: two versions that differ shut each other out.
PROTOCOL_ERRORS_MAX = 20
PROTOCOL_ERRORS_NS = 60 * SECOND_NS
QUARANTINE_NS = 60 * SECOND_NS

# --- The broker's socket --------------------------------------------------------------------------

# Messages that ZeroMQ holds for one connection, on the way out and on the way in. It counts no
# bytes, so a connection holds up to this many of the largest messages there. Fewer: a peer that
# reads in bursts waits for turns of the broker. The rest waits where bytes are counted.
SEND_MESSAGES_MAX = 32
RECEIVE_MESSAGES_MAX = 64

# What waits for a peer that is full, beyond that: per peer, and for all together. More: a client
# that does not read costs more memory. Fewer: one that pauses for a moment, or that gets thousands
# of answers at once, loses its session.
PEER_PARKED_MAX = 16_384
PEER_PARKED_BYTES_MAX = 8 * MIB
PARKED_BYTES_MAX = 256 * MIB

# What the broker takes in before it decides and answers: messages, and bytes of heads. ZeroMQ takes
# one message of each peer in turn, so this bounds how long one peer's flood delays the others.
# More: better batches under load. Fewer: more turns, each of which costs some 50 us.
TURN_MESSAGES_MAX = 256
TURN_BYTES_MAX = 64 * KIB

# And for how long, while several peers want something. Longer: what is answered waits for what came
# after it. Shorter: more turns.
TURN_NS = 1 * MILLISECOND_NS

# Messages of one peer that the broker put off, as the peer has had more than its share of the
# broker's time while others wanted some, and their bytes; and those of all together. Peers that
# keep to the protocol have a few under way. More: who floods takes more memory. Fewer: a program
# that asks thousands of things at once loses its session.
PUT_OFF_MAX = 8_192
PUT_OFF_BYTES_MAX = 4 * MIB
PUT_OFF_TOTAL_BYTES_MAX = 64 * MIB

# Ends of tasks on the way to one client, not yet acknowledged: messages and bytes; one message may
# be larger. More: a client that does not read costs more. Fewer: a fast one waits for round trips.
FLIGHTS_MAX = 64
FLIGHT_BYTES_MAX = 8 * MIB

# What a task says beside the numbers of its progress, and how often an agent passes on what its
# tasks say. More: tasks that tell of every step cost more of everybody. Fewer: bars that jump.
PROGRESS_NOTE_CHARS_MAX = 200
PROGRESS_NS = 100 * MILLISECOND_NS

# What a task wrote, on its way to its client: code points of lines in one item, and how often an
# agent passes some on while the task runs. More: others wait behind it. Fewer: each line costs.
OUTPUT_CHARS_MAX = 32 * KIB
OUTPUT_NS = 50 * MILLISECOND_NS

# What of it waits at the broker for one client, is on the way to it (one item may be larger), and
# waits for all of them. More: clients that do not read cost more. Fewer: who pauses misses lines.
OUTPUT_CLIENT_BYTES_MAX = 256 * KIB
OUTPUT_FLIGHT_BYTES_MAX = 64 * KIB
OUTPUT_BYTES_MAX = 32 * MIB

# Values of a generator on the way to its client, not yet taken: in number and in bytes; one value
# may be larger. More: whoever does not read costs its agent more. Fewer: more round trips.
STREAM_VALUES_MAX = 256
STREAM_BYTES_MAX = 1 * MIB

# How long generators wait for a client that is away. Longer: the workers of one that died wait with
# them. Shorter: a client that was cut off for a while finds values dropped.
CLIENT_AWAY_NS = 30 * SECOND_NS

# How long what was sent last, GOODBYE, may take to leave a socket that is closed. Longer: who ends
# beside a broker that reads nothing waits longer. Shorter: a busy host's peers vanish unsaid.
GOODBYE_LINGER_NS = 500 * MILLISECOND_NS

# Questions (status, lists) that wait for their answers: of one session, and of all. One is answered
# in a turn. More: who asks without end takes more memory. Fewer: honest crowds are refused.
SESSION_QUESTIONS_MAX = 64
QUESTIONS_WAITING_MAX = 4_096

# How often the broker looks at the size of its process, and how often it may give free memory back
# to the system (about 30 ms for a gigabyte). Longer: it is above its limit for longer.
MEMORY_LOOK_NS = 250 * MILLISECOND_NS
MEMORY_TRIM_NS = 10 * SECOND_NS

# A process smaller than this gives nothing back: the next burst needs it again.
MEMORY_WASTE_MIN_BYTES = 256 * MIB

# A duration that a caller may ask for. One hundred years stand for "for ever".
DURATION_NS_MAX = 100 * 365 * 24 * 3_600 * SECOND_NS

assert PROTOCOL_MIN <= PROTOCOL_MAX
# What rounding leaves over of a worker is less than any share: N + 1 N-ths never fit.
assert SHARES_MAX * SHARES_MAX <= WORKER_UNITS
assert 4 * OUTPUT_CHARS_MAX < OUTPUT_CLIENT_BYTES_MAX <= BATCH_BYTES_TARGET < OUTPUT_BYTES_MAX
assert OUTPUT_FLIGHT_BYTES_MAX <= OUTPUT_CLIENT_BYTES_MAX
assert STREAM_VALUES_MAX <= BATCH_ITEMS_MAX
assert INLINE_BYTES_MAX < BATCH_BYTES_TARGET
assert HEAD_BYTES_MAX >= 2 * (BATCH_BYTES_TARGET + INLINE_BYTES_MAX)
assert HEAD_BYTES_MAX >= 32 * HELD_MAX  # an id, a fence, and their three headers are 28 bytes
assert 2 * BUFFERS_MAX <= FRAMES_MAX
assert PROBE_NS < HEARTBEAT_NS
assert 3 * HEARTBEAT_NS <= SELF_FENCE_NS < SILENCE_NS
assert RECONNECT_MAX_NS < RECONNECT_GRACE_NS < SILENCE_NS
assert RECONNECT_MIN_NS < RECONNECT_MAX_NS <= RECONNECT_AGENT_MAX_NS <= RECONNECT_CLIENT_MAX_NS
assert RECONNECT_AGENT_MAX_NS < RECONNECT_GRACE_NS
assert RECONNECT_AGENT_MAX_NS < RECOVERY_NS
assert RETRY_AFTER_MIN_NS < RETRY_AFTER_MAX_NS
assert RETRY_AFTER_MAX_NS * 5 // 4 < SELF_FENCE_NS  # peers wait up to a quarter longer
assert RECOVERY_NS + RETRY_AFTER_MAX_NS < RECOVERY_MAX_NS
assert RESYNC_AGAIN_NS < HEARTBEAT_NS  # an idle peer hears it with each of its heartbeats
assert HELLO_REPEATED_NS < HEARTBEAT_NS  # whoever says HELLO again within a second is heard
assert SILENCE_NS < QUARANTINE_NS
assert SILENCE_NS + RECONNECT_CLIENT_MAX_NS < CLIENT_AWAY_NS < RETENTION_NS
assert ACK_DELAY_NS < HEARTBEAT_NS
assert PRIORITY_MIN <= PRIORITY_DEFAULT <= PRIORITY_MAX
assert CLIENT_TASKS_MAX <= BROKER_TASKS_MAX
assert CLIENT_BYTES_MAX <= BROKER_BYTES_MAX
assert SESSIONS_MAX <= AGENTS_MAX
assert BATCH_BYTES_TARGET < FLIGHT_BYTES_MAX <= PEER_PARKED_BYTES_MAX <= PARKED_BYTES_MAX
