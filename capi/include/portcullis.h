/* The C interface of portcullis, a stateful session firewall engine: a packet goes in, a verdict
 * comes out. The guide is docs/C.md.
 *
 * - Structs that a program passes begin with their size: use the functions ..._init() at the end of
 *   this file, and fill the rest in.
 * - Times are monotonic nanoseconds of the program, with any beginning. Ports are in the order of
 *   the host, addresses in that of the network.
 * - A call that fails has no effect, unless its comment says so.
 * - Callbacks return normally: they neither throw exceptions nor jump.
 *
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */

#ifndef PORTCULLIS_H
#define PORTCULLIS_H

/* Generated from the sources of portcullis: change those, not this file. */

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/**
 * Number of this interface. Functions, fields at the end of structs and numbers of enumerations
 * may be added without a change; anything else changes the number and the name of the library.
 */
#define PORTCULLIS_ABI_VERSION 1

/**
 * The greatest number of bytes of a configuration.
 */
#define PORTCULLIS_MAX_CONFIG 134217728

/**
 * Mark of a session: the handshake was completed, or both ends have sent packets.
 */
#define PORTCULLIS_SESSION_ASSURED 1

/**
 * Mark of a session: the session was adopted midstream.
 */
#define PORTCULLIS_SESSION_ADOPTED 2

/**
 * Mark of a session: the session continues one that had ended.
 */
#define PORTCULLIS_SESSION_RESUMED 4

/**
 * Mark of a session: half of the session is missing, and its packets are allowed nevertheless.
 */
#define PORTCULLIS_SESSION_BYPASSED 8

/**
 * Mark of a session: the policy of a reload would not admit the session, which is kept.
 */
#define PORTCULLIS_SESSION_NO_LONGER_ADMITTED 16

/**
 * The greatest number of bytes of a packet.
 */
#define PORTCULLIS_MAX_PACKET 1048576

/**
 * The greatest number of packets in a batch. With this bound an outbox that is drained after each
 * batch keeps every reply.
 */
#define PORTCULLIS_MAX_BATCH 1024

/**
 * Flag of a packet: the packet's checksums are not verified, since an interface has not computed
 * them yet.
 */
#define PORTCULLIS_PACKET_OFFLOADED 1

/**
 * Flag of a packet: the packet comes from a layer-3 tunnel, where link-local traffic is not valid.
 */
#define PORTCULLIS_PACKET_TUNNELED 2

/**
 * Flag of a packet: the caller is overloaded, so the packet is dropped if it would open a session.
 */
#define PORTCULLIS_PACKET_SHEDDABLE 4

/**
 * Field of a filter: every session matches, whatever the other fields are.
 */
#define PORTCULLIS_FILTER_ALL 1

/**
 * Field of a filter: `id` is the session's.
 */
#define PORTCULLIS_FILTER_ID 2

/**
 * Field of a filter: `zone` is the session's.
 */
#define PORTCULLIS_FILTER_ZONE 4

/**
 * Field of a filter: `protocol` is the session's.
 */
#define PORTCULLIS_FILTER_PROTOCOL 8

/**
 * Field of a filter: `source` and `source_prefix` contain the initiator.
 */
#define PORTCULLIS_FILTER_SOURCE 16

/**
 * Field of a filter: `destination` and `destination_prefix` contain the responder.
 */
#define PORTCULLIS_FILTER_DESTINATION 32

/**
 * Field of a filter: `port` is that of either end.
 */
#define PORTCULLIS_FILTER_PORT 64

/**
 * Option of a restore: the references to paths mean the same as when the sessions were saved.
 */
#define PORTCULLIS_RESTORE_TUNNELS 1

/**
 * Option of a restore: packets of the sessions have passed since the save, as after a crash.
 */
#define PORTCULLIS_RESTORE_MOVED_ON 2

/**
 * The greatest number of bytes of a datagram's payload.
 */
#define PORTCULLIS_MAX_DATAGRAM 65535

/**
 * The outcome of a call.
 */
enum portcullis_status
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * The call has done its work.
   */
  PORTCULLIS_STATUS_OK = 0,
  /**
   * A pointer that must not be NULL is NULL.
   */
  PORTCULLIS_STATUS_NULL = 1,
  /**
   * An argument is invalid: a length, the `size` of a struct, a flag, a misaligned pointer, text
   * that is not UTF-8, a reserved field that is not 0, or a handle that belongs to another one.
   */
  PORTCULLIS_STATUS_INVALID = 2,
  /**
   * The configuration is invalid, or cannot be put in force. The message has the reason.
   */
  PORTCULLIS_STATUS_CONFIG = 3,
  /**
   * The caller's buffer is too small. Nothing was written to it.
   */
  PORTCULLIS_STATUS_TOO_SMALL = 4,
  /**
   * Nothing has this name or number.
   */
  PORTCULLIS_STATUS_NOT_FOUND = 5,
  /**
   * The outbox or worker is in use, by another thread or by the call whose callback made this
   * call. Nothing was done.
   */
  PORTCULLIS_STATUS_BUSY = 6,
  /**
   * A file could not be read, or a callback has reported a failure.
   */
  PORTCULLIS_STATUS_IO = 7,
  /**
   * The stream of saved sessions cannot be used. The message has the reason.
   */
  PORTCULLIS_STATUS_STREAM = 8,
  /**
   * The library has met a defect of its own. The engine or gateway, with everything that was
   * made from it, returns this status from now on; release it and create another one.
   */
  PORTCULLIS_STATUS_PANIC = 9,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum portcullis_status portcullis_status;
#else
typedef int32_t portcullis_status;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * The kind of an event.
 */
enum portcullis_event_kind
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint8_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * Send the packet in `bytes`: a reply, or a RST at the end of a session.
   */
  PORTCULLIS_EVENT_KIND_TRANSMIT = 1,
  /**
   * A session was opened.
   */
  PORTCULLIS_EVENT_KIND_OPENED = 2,
  /**
   * A session has ended.
   */
  PORTCULLIS_EVENT_KIND_ENDED = 3,
  /**
   * The policy has denied or rejected a session.
   */
  PORTCULLIS_EVENT_KIND_DENIED = 4,
  /**
   * The policy has admitted a session that `audit` reports.
   */
  PORTCULLIS_EVENT_KIND_AUDITED = 5,
  /**
   * A new session would have exceeded the limit that `name` states.
   */
  PORTCULLIS_EVENT_KIND_LIMIT = 6,
  /**
   * A helper has found something in a control session; `name` states it.
   */
  PORTCULLIS_EVENT_KIND_HELPER = 7,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum portcullis_event_kind portcullis_event_kind;
#else
typedef uint8_t portcullis_event_kind;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * The path on which a packet of the engine leaves.
 */
enum portcullis_egress
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint8_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * Back on the path of a packet with this `tunnel`.
   */
  PORTCULLIS_EGRESS_BACK = 0,
  /**
   * Onward on the path of a packet with this `tunnel`; 0 is an unknown path.
   */
  PORTCULLIS_EGRESS_ONWARD = 1,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum portcullis_egress portcullis_egress;
#else
typedef uint8_t portcullis_egress;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * A direction in a session.
 */
enum portcullis_direction
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint8_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * No direction: the packet belongs to no session.
   */
  PORTCULLIS_DIRECTION_NONE = 0,
  /**
   * From the initiator to the responder.
   */
  PORTCULLIS_DIRECTION_ORIGINAL = 1,
  /**
   * From the responder to the initiator.
   */
  PORTCULLIS_DIRECTION_REPLY = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum portcullis_direction portcullis_direction;
#else
typedef uint8_t portcullis_direction;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * A verdict: the first question of a caller.
 */
enum portcullis_verdict_kind
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint8_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * Send the packet on, byte for byte.
   */
  PORTCULLIS_VERDICT_KIND_FORWARD = 0,
  /**
   * Discard the packet.
   */
  PORTCULLIS_VERDICT_KIND_DROP = 1,
  /**
   * Discard the packet. The reply, within its budget, is in the outbox.
   */
  PORTCULLIS_VERDICT_KIND_REJECT = 2,
  /**
   * Not returned by this version, which holds no packets of an engine.
   */
  PORTCULLIS_VERDICT_KIND_HOLD = 3,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum portcullis_verdict_kind portcullis_verdict_kind;
#else
typedef uint8_t portcullis_verdict_kind;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * The relation of a packet to the sessions.
 */
enum portcullis_class
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint8_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * The packet opens a session, or belongs to one that has not been answered yet.
   */
  PORTCULLIS_CLASS_NEW = 0,
  /**
   * The packet belongs to a session with traffic in both directions, or is the first answer.
   */
  PORTCULLIS_CLASS_ESTABLISHED = 1,
  /**
   * The packet is an ICMP error about a session, or belongs to the child of one.
   */
  PORTCULLIS_CLASS_RELATED = 2,
  /**
   * The packet fits no session in its current state, and cannot open one.
   */
  PORTCULLIS_CLASS_INVALID = 3,
  /**
   * The packet is never tracked.
   */
  PORTCULLIS_CLASS_UNTRACKED = 4,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum portcullis_class portcullis_class;
#else
typedef uint8_t portcullis_class;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * A stateful session firewall engine. Threads share it.
 */
typedef struct portcullis_engine portcullis_engine;

/**
 * An engine behind a load balancer that uses GENEVE. Threads share it, each with a worker.
 */
typedef struct portcullis_gateway portcullis_gateway;

/**
 * A bounded queue of packets to send and of events, for one thread at a time.
 */
typedef struct portcullis_outbox portcullis_outbox;

/**
 * The state of one thread of a gateway. One thread at a time uses it.
 */
typedef struct portcullis_worker portcullis_worker;

/**
 * A configuration in TOML: either `text` or `path`.
 */
typedef struct portcullis_config {
  /**
   * `sizeof(portcullis_config)`.
   */
  uint32_t size;
  /**
   * 0.
   */
  uint32_t reserved;
  /**
   * The text, in UTF-8, or NULL. It needs no NUL at its end.
   */
  const char *text;
  /**
   * The number of bytes of the text.
   */
  size_t length;
  /**
   * A name of the text for messages, or NULL.
   */
  const char *name;
  /**
   * The path of a regular file, or NULL. Files of address sets are relative to its folder.
   */
  const char *path;
  /**
   * The wall-clock time in nanoseconds since 1970, as of which rules with `expires` are judged;
   * 0 judges none of them as expired. They are judged at this call only: reload at the time of
   * `portcullis_engine_next_rule_expiry`.
   */
  uint64_t wall_ns;
} portcullis_config;

/**
 * An IP address.
 */
typedef struct portcullis_address {
  /**
   * 4 or 6; 0 for no address.
   */
  uint8_t family;
  /**
   * The address in the order of the network, in the first 4 bytes or in all 16.
   */
  uint8_t bytes[16];
} portcullis_address;

/**
 * The state of a session at one moment.
 */
typedef struct portcullis_session {
  /**
   * `sizeof(portcullis_session)`, set by the caller of `portcullis_engine_session`.
   */
  uint32_t size;
  /**
   * `PORTCULLIS_SESSION_` marks.
   */
  uint32_t marks;
  /**
   * The identifier while the session lives.
   */
  uint64_t id;
  /**
   * The identifier in logs: the number of the engine that opened the session, and the
   * identifier there.
   */
  uint64_t uid[2];
  /**
   * The identifier of the session that announced this one; 0 for none.
   */
  uint64_t parent;
  /**
   * Packets from the initiator, and from the responder.
   */
  uint64_t packets[2];
  /**
   * IP bytes from the initiator, and from the responder.
   */
  uint64_t bytes[2];
  /**
   * The time of the first packet.
   */
  uint64_t start_ns;
  /**
   * The time of the last packet that counted.
   */
  uint64_t last_ns;
  /**
   * The time at which the session ends if no further packet arrives.
   */
  uint64_t expires_ns;
  /**
   * The caller's references to the path of the newest packet of each direction, if the engine
   * keeps them (`engine.tunnel_references`).
   */
  uint64_t tunnels[2];
  /**
   * The zone.
   */
  uint16_t zone;
  /**
   * The number of the rule that admitted the session (`portcullis_engine_rule_name`).
   */
  uint16_t rule;
  /**
   * The initiator's port, or the identifier of an ICMP query.
   */
  uint16_t source_port;
  /**
   * The responder's port, or the identifier of an ICMP query.
   */
  uint16_t destination_port;
  /**
   * The IP protocol number.
   */
  uint8_t protocol;
  /**
   * The initiator's address.
   */
  struct portcullis_address source;
  /**
   * The responder's address.
   */
  struct portcullis_address destination;
  /**
   * The name of the state, as in `conntrack -L`.
   */
  char state[32];
  /**
   * The letters of the session's history, as in Zeek's `conn.log`.
   */
  char history[32];
  /**
   * 0.
   */
  uint8_t reserved[5];
} portcullis_session;

/**
 * A session that was not opened, or only for audit.
 */
typedef struct portcullis_attempt {
  /**
   * `sizeof(portcullis_attempt)` of the library.
   */
  uint32_t size;
  /**
   * The zone.
   */
  uint16_t zone;
  /**
   * The number of the rule that decided, or that would have admitted the session.
   */
  uint16_t rule;
  /**
   * The time of the packet.
   */
  uint64_t now_ns;
  /**
   * The caller's reference to the path of the packet.
   */
  uint64_t tunnel;
  /**
   * For a limit, its value; otherwise 0.
   */
  uint32_t limit;
  /**
   * For a limit, the count that would exceed it; otherwise 0.
   */
  uint32_t count;
  /**
   * The initiator's port, or the identifier of an ICMP query.
   */
  uint16_t source_port;
  /**
   * The responder's port, or the identifier of an ICMP query.
   */
  uint16_t destination_port;
  /**
   * The IP protocol number; 0 for a limit.
   */
  uint8_t protocol;
  /**
   * 1 if the decision is to be logged.
   */
  uint8_t log;
  /**
   * 1 if the packet is rejected rather than dropped.
   */
  uint8_t rejected;
  /**
   * The initiator's address.
   */
  struct portcullis_address source;
  /**
   * The responder's address.
   */
  struct portcullis_address destination;
  /**
   * 0.
   */
  uint8_t reserved[7];
} portcullis_attempt;

/**
 * An event. Pointers are valid during the callback.
 */
typedef struct portcullis_event {
  /**
   * `sizeof(portcullis_event)` of the library.
   */
  uint32_t size;
  /**
   * The zone; 0 for a helper.
   */
  uint16_t zone;
  /**
   * The kind: it states which of the fields have values. Others are 0 or NULL. Ignore kinds that
   * the program does not know.
   */
  portcullis_event_kind kind;
  /**
   * The path of a packet to send.
   */
  portcullis_egress egress;
  /**
   * The bytes of a packet to send, from the IP header on, complete with checksums.
   */
  const uint8_t *bytes;
  /**
   * The number of these bytes.
   */
  size_t length;
  /**
   * The caller's reference to the path of a packet to send.
   */
  uint64_t tunnel;
  /**
   * The identifier of the session: of a RST at its end, or of a control session.
   */
  uint64_t session_id;
  /**
   * The record of the session that was opened or has ended.
   */
  const struct portcullis_session *session;
  /**
   * The session that was not opened, or only for audit.
   */
  const struct portcullis_attempt *attempt;
  /**
   * The stable name of a limit, or of a helper's finding. The text is never released.
   */
  const char *name;
  /**
   * The time of a helper's finding.
   */
  uint64_t now_ns;
  /**
   * The number of the reason for which the session has ended.
   */
  uint8_t end_reason;
  /**
   * The direction of a RST, or of a helper's finding.
   */
  portcullis_direction direction;
  /**
   * 0.
   */
  uint8_t reserved[6];
} portcullis_event;

/**
 * Receives an event. `context` is the caller's. The function returns normally: it neither throws
 * nor jumps.
 */
typedef void (*portcullis_event_fn)(void *context, const struct portcullis_event *event);

/**
 * An IP packet as received.
 */
typedef struct portcullis_packet {
  /**
   * `sizeof(portcullis_packet)`.
   */
  uint32_t size;
  /**
   * `PORTCULLIS_PACKET_` flags; 0 for none.
   */
  uint32_t flags;
  /**
   * The bytes, from the IP header on. Bytes after the IP length are padding.
   */
  const uint8_t *bytes;
  /**
   * The number of bytes.
   */
  size_t length;
  /**
   * The time of arrival, in monotonic nanoseconds of the caller.
   */
  uint64_t now_ns;
  /**
   * The caller's reference to the path of the packet: an interface, a tunnel; 0 for none.
   */
  uint64_t tunnel;
  /**
   * Bits of `tunnel` that identify the sender's flow; 0 for none.
   */
  uint64_t flow_bits;
  /**
   * The number of the packet's zone.
   */
  uint16_t zone;
  /**
   * 0.
   */
  uint16_t reserved[3];
} portcullis_packet;

/**
 * The verdict on a packet.
 */
typedef struct portcullis_verdict {
  /**
   * `sizeof(portcullis_verdict)`, set by the caller.
   */
  uint32_t size;
  /**
   * The verdict.
   */
  portcullis_verdict_kind kind;
  /**
   * The relation of the packet to the sessions.
   */
  portcullis_class class_of;
  /**
   * The packet's direction in its session.
   */
  portcullis_direction direction;
  /**
   * For a late packet, the number of the reason for which its session ended; 0 for none.
   */
  uint8_t late;
  /**
   * The number of the reason why the packet is not forwarded; 0 if it is.
   */
  uint16_t reason;
  /**
   * The number of the reason for which the packet would have been dropped, if it was tolerated;
   * 0 for none.
   */
  uint16_t tolerated;
  /**
   * 0.
   */
  uint32_t reserved;
  /**
   * The identifier of the packet's session; 0 for none.
   */
  uint64_t session;
  /**
   * For a late packet, the nanoseconds since the end of its session.
   */
  uint64_t late_ns;
} portcullis_verdict;

/**
 * Receives bytes, and returns 0; any other value is a failure and ends the call. `context` is the
 * caller's. The function returns normally: it neither throws nor jumps.
 */
typedef int32_t (*portcullis_write_fn)(void *context, const uint8_t *bytes, size_t length);

/**
 * The result of a reload.
 */
typedef struct portcullis_reload {
  /**
   * `sizeof(portcullis_reload)`, set by the caller.
   */
  uint32_t size;
  /**
   * The number of keys whose new values need a restart. Their running values stay in force.
   */
  uint32_t needs_restart;
  /**
   * Sessions that were judged again.
   */
  uint64_t judged;
  /**
   * Sessions that ended because the new policy does not admit them.
   */
  uint64_t revoked;
  /**
   * Sessions that ended because their new lifetime is over.
   */
  uint64_t expired;
  /**
   * Sessions that go on although the new policy would not admit them (`policy.on_reload`).
   */
  uint64_t kept;
  /**
   * Sessions whose deadline has changed.
   */
  uint64_t retimed;
  /**
   * On failure, the reason. On success, the keys that need a restart, separated by commas. What
   * is too long is cut.
   */
  char message[1024];
} portcullis_reload;

/**
 * Selects the sessions that match all of the stated fields.
 */
typedef struct portcullis_filter {
  /**
   * `sizeof(portcullis_filter)`.
   */
  uint32_t size;
  /**
   * `PORTCULLIS_FILTER_` fields. 0 is invalid, so that a filter of zeros ends no sessions.
   */
  uint32_t fields;
  /**
   * The identifier of a session.
   */
  uint64_t id;
  /**
   * The number of a zone.
   */
  uint16_t zone;
  /**
   * A port.
   */
  uint16_t port;
  /**
   * An IP protocol number.
   */
  uint8_t protocol;
  /**
   * The length of the prefix of `source`.
   */
  uint8_t source_prefix;
  /**
   * The length of the prefix of `destination`.
   */
  uint8_t destination_prefix;
  /**
   * An address in the initiator's prefix.
   */
  struct portcullis_address source;
  /**
   * An address in the responder's prefix.
   */
  struct portcullis_address destination;
  /**
   * 0.
   */
  uint8_t reserved[7];
} portcullis_filter;

/**
 * Receives the record of a session, and returns 0; any other value ends the listing. `context` is
 * the caller's. The function returns normally: it neither throws nor jumps.
 */
typedef int32_t (*portcullis_session_fn)(void *context, const struct portcullis_session *session);

/**
 * Receives a counter. `context` is the caller's; `name` is valid during the call. The function
 * returns normally: it neither throws nor jumps.
 */
typedef void (*portcullis_counter_fn)(void *context, const char *name, uint64_t value);

/**
 * Reads up to `length` bytes of a stream from `offset` on into `buffer`, like `pread`, and returns
 * their number: 0 at the end of the stream, and a negative number for a failure. `context` is the
 * caller's. The function returns normally: it neither throws nor jumps.
 */
typedef int64_t (*portcullis_read_fn)(void *context, uint64_t offset, uint8_t *buffer, size_t length);

/**
 * A restore, and its result.
 */
typedef struct portcullis_restored {
  /**
   * `sizeof(portcullis_restored)`, set by the caller.
   */
  uint32_t size;
  /**
   * `PORTCULLIS_RESTORE_` options, set by the caller; 0 for none.
   */
  uint32_t options;
  /**
   * The monotonic time, set by the caller.
   */
  uint64_t now_ns;
  /**
   * The wall-clock time in nanoseconds since 1970, set by the caller.
   */
  uint64_t wall_ns;
  /**
   * The greatest age of a stream, set by the caller; 0 takes any.
   */
  uint64_t max_age_ns;
  /**
   * The time since the save.
   */
  uint64_t age_ns;
  /**
   * Sessions that go on.
   */
  uint64_t sessions;
  /**
   * Sessions whose lifetime has passed since the save.
   */
  uint64_t expired;
  /**
   * Sessions that the policy does not admit.
   */
  uint64_t refused;
  /**
   * Sessions that the engine has already.
   */
  uint64_t present;
  /**
   * Sessions that found no room.
   */
  uint64_t no_room;
  /**
   * On failure, the reason. What is too long is cut.
   */
  char message[256];
} portcullis_restored;

/**
 * A UDP datagram to the GENEVE port, as received.
 */
typedef struct portcullis_datagram {
  /**
   * `sizeof(portcullis_datagram)`.
   */
  uint32_t size;
  /**
   * The waiting time before this call: 0 not long; 1 long, so that it may open no session; 2 too
   * long, so that it is refused unread.
   */
  uint32_t waited;
  /**
   * The UDP payload: a GENEVE header and the inner packet.
   */
  const uint8_t *payload;
  /**
   * The number of bytes of the payload.
   */
  size_t length;
  /**
   * The outer source address, in the order of the network.
   */
  uint8_t source[4];
  /**
   * The outer destination address, in the order of the network.
   */
  uint8_t destination[4];
  /**
   * The UDP source port.
   */
  uint16_t source_port;
  /**
   * The UDP destination port.
   */
  uint16_t destination_port;
  /**
   * 0.
   */
  uint32_t reserved;
} portcullis_datagram;

/**
 * A UDP datagram to send.
 */
typedef struct portcullis_outgoing {
  /**
   * `sizeof(portcullis_outgoing)` of the library.
   */
  uint32_t size;
  /**
   * The UDP source port: that of the load balancer.
   */
  uint16_t source_port;
  /**
   * The UDP destination port.
   */
  uint16_t destination_port;
  /**
   * The UDP payload, valid during the callback. For a packet that is forwarded unchanged, these
   * are the bytes of the received datagram.
   */
  const uint8_t *payload;
  /**
   * The number of bytes of the payload.
   */
  size_t length;
  /**
   * The source address, which is the local one, in the order of the network.
   */
  uint8_t source[4];
  /**
   * The destination address, which is the load balancer's, in the order of the network.
   */
  uint8_t destination[4];
} portcullis_outgoing;

/**
 * Receives a datagram to send. `context` is the caller's. The function returns normally: it
 * neither throws nor jumps.
 */
typedef void (*portcullis_send_fn)(void *context, const struct portcullis_outgoing *datagram);

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * Returns the text of a status in one line, or "unknown status". The text is never released.
 *
 * Any thread may call this at any time.
 */
const char *portcullis_status_text(int32_t status);

/**
 * Returns `PORTCULLIS_ABI_VERSION` of the library that is linked.
 *
 * Any thread may call this at any time.
 */
uint32_t portcullis_abi_version(void);

/**
 * Returns the version of the library that is linked, such as "0.1.0". The text is never released.
 *
 * Any thread may call this at any time.
 */
const char *portcullis_version(void);

/**
 * Returns the number of drop reasons. They are numbered from 1.
 *
 * Any thread may call this at any time.
 */
uint16_t portcullis_reason_count(void);

/**
 * Returns the stable name of a drop reason, such as "policy_deny", or NULL for a number that is
 * none. The text is never released.
 *
 * Names are stable; numbers may differ between versions of the library. Any thread may call this
 * at any time.
 */
const char *portcullis_reason_name(uint16_t reason);

/**
 * Returns a description of a drop reason in one or more sentences, or NULL for a number that is
 * none. The text is never released.
 *
 * Any thread may call this at any time.
 */
const char *portcullis_reason_text(uint16_t reason);

/**
 * Returns the number of the drop reason of a name, or 0 if there is none.
 *
 * Any thread may call this at any time.
 *
 * # Safety
 * A `name` that is not NULL is a text with a NUL at its end.
 */
uint16_t portcullis_reason_find(const char *name);

/**
 * Returns the stable name of the reason for a session's end, such as "timeout", or NULL for a
 * number that is none. The text is never released.
 *
 * Any thread may call this at any time.
 */
const char *portcullis_end_reason_name(uint8_t reason);

/**
 * Returns the stable name of a verdict's `kind`, such as "forward", or NULL for a number that is
 * none. The text is never released.
 *
 * Any thread may call this at any time.
 */
const char *portcullis_verdict_name(uint8_t kind);

/**
 * Returns the stable name of a verdict's `class_of`, such as "established", or NULL for a number
 * that is none. The text is never released.
 *
 * Any thread may call this at any time.
 */
const char *portcullis_class_name(uint8_t class_of);

/**
 * Creates an engine.
 *
 * `now_ns` is the caller's monotonic time. On success, `*engine` is the engine, which
 * `portcullis_engine_free` releases; otherwise it is NULL, and `message`, a buffer of
 * `message_size` bytes, gets the reason. A message that is too long is cut. `message` may be NULL.
 *
 * Any thread may call this at any time.
 *
 * # Safety
 * Pointers are NULL or valid; `config` is as its fields say.
 */
portcullis_status portcullis_engine_new(const struct portcullis_config *config,
                                        uint64_t now_ns,
                                        struct portcullis_engine **engine,
                                        char *message,
                                        size_t message_size);

/**
 * Releases an engine. NULL is ignored.
 *
 * Its outboxes stay valid and are released on their own, before or after. No other thread may be
 * in a call with `engine`, and no callback of such a call may release it.
 *
 * # Safety
 * `engine` is NULL or an engine of `portcullis_engine_new` that was not released before.
 */
void portcullis_engine_free(struct portcullis_engine *engine);

/**
 * Creates an outbox of an engine. Each thread that decides packets has one of its own.
 *
 * An outbox keeps at most 1024 replies, 1024 RSTs and 1024 events, of which half may be denied and
 * audited sessions, until it is drained. Others are lost and counted. When the caller ends
 * sessions, or reloads, there is room for all records and RSTs.
 *
 * On success, `*outbox` is the outbox, which `portcullis_outbox_free` releases; otherwise it is
 * NULL. Any thread may call this at any time.
 *
 * # Safety
 * Pointers are NULL or valid.
 */
portcullis_status portcullis_outbox_new(const struct portcullis_engine *engine,
                                        struct portcullis_outbox **outbox);

/**
 * Removes all entries of an outbox and passes them to `each`, oldest first.
 *
 * No lock of the engine is held during `each`, which may call the engine with any other outbox; a
 * call with this one returns `PORTCULLIS_STATUS_BUSY`. One thread at a time uses an outbox.
 *
 * # Safety
 * `outbox` is NULL or an outbox that was not released, and `each` is NULL or a function that
 * returns normally.
 */
portcullis_status portcullis_outbox_drain(const struct portcullis_outbox *outbox,
                                          portcullis_event_fn each,
                                          void *context);

/**
 * Reads the counts of entries that an outbox did not keep since it was created: packets and events
 * without room, and replies beyond the budget of `[resets]`. Each pointer may be NULL.
 *
 * One thread at a time uses an outbox.
 *
 * # Safety
 * Pointers are NULL or valid.
 */
portcullis_status portcullis_outbox_lost(const struct portcullis_outbox *outbox,
                                         uint64_t *packets,
                                         uint64_t *events,
                                         uint64_t *over_budget);

/**
 * Releases an outbox with all its entries. NULL is ignored.
 *
 * Returns `PORTCULLIS_STATUS_BUSY`, and releases nothing, in a callback of this outbox.
 *
 * # Safety
 * `outbox` is NULL or an outbox that was not released before, and no other thread uses it.
 */
portcullis_status portcullis_outbox_free(struct portcullis_outbox *outbox);

/**
 * Decides a packet.
 *
 * Packets that the engine makes, and events, are in `outbox` afterwards: drain it after each
 * packet or batch. The call allocates nothing once the outbox has grown, except for control
 * sessions of FTP, for addresses of SCTP associations, and for new lines of the report of
 * asymmetric paths.
 *
 * Any threads may call this at once, each with an outbox of its own.
 *
 * # Safety
 * Pointers are NULL or valid; `packet->bytes` has `packet->length` readable bytes.
 */
portcullis_status portcullis_engine_process(const struct portcullis_engine *engine,
                                            const struct portcullis_outbox *outbox,
                                            const struct portcullis_packet *packet,
                                            struct portcullis_verdict *verdict);

/**
 * Decides up to `PORTCULLIS_MAX_BATCH` packets, in order, with the verdicts of
 * `portcullis_engine_process`. This takes about half the time if there are many sessions.
 *
 * All packets and verdicts are checked first: if one of them is invalid, nothing is decided. The
 * structs of an array have the `size` of its first one.
 *
 * Any threads may call this at once, each with an outbox of its own.
 *
 * # Safety
 * Pointers are NULL or valid; `packets` and `verdicts` have `count` structs each, and the bytes of
 * each packet are readable.
 */
portcullis_status portcullis_engine_process_batch(const struct portcullis_engine *engine,
                                                  const struct portcullis_outbox *outbox,
                                                  const struct portcullis_packet *packets,
                                                  struct portcullis_verdict *verdicts,
                                                  size_t count);

/**
 * Decides a packet as `portcullis_engine_process` does, with all effects, and passes the steps of
 * the decision to `write`, a line each. The reply to a rejected packet is not made.
 *
 * `verdict` may be NULL. If `write` fails, the packet is decided nevertheless. The call
 * allocates; it is meant for single packets. No lock is held during `write`. Any threads may
 * call this at once, each with an outbox of its own.
 *
 * # Safety
 * Pointers are NULL or valid; `packet->bytes` has `packet->length` readable bytes, and `write` is
 * NULL or a function that returns normally.
 */
portcullis_status portcullis_engine_explain(const struct portcullis_engine *engine,
                                            const struct portcullis_outbox *outbox,
                                            const struct portcullis_packet *packet,
                                            portcullis_write_fn write,
                                            void *context,
                                            struct portcullis_verdict *verdict);

/**
 * Ends sessions whose lifetime has passed by `now_ns`, a few hundred at a time. Their records and
 * RSTs are in `outbox` afterwards.
 *
 * `*next_ns` is the time of the next call: `now_ns` if there is more to do, and `UINT64_MAX` if
 * there are no sessions. It may be NULL. Call this after each packet or batch as well; a call with
 * nothing to do costs little. Other threads may open sessions that end earlier, so sleep for 100
 * ms at most.
 *
 * Any threads may call this at once, each with an outbox of its own; one is enough.
 *
 * # Safety
 * Pointers are NULL or valid.
 */
portcullis_status portcullis_engine_expire(const struct portcullis_engine *engine,
                                           const struct portcullis_outbox *outbox,
                                           uint64_t now_ns,
                                           uint64_t *next_ns);

/**
 * Replaces the configuration of an engine, or changes nothing. `*reload` gets the result, or the
 * reason of a failure. Sessions that end are in `outbox` afterwards, with their RSTs.
 *
 * Keys that only a new engine can change keep their running values. Any thread may call this,
 * with an outbox of its own, while others decide packets.
 *
 * # Safety
 * Pointers are NULL or valid; `config` is as its fields say.
 */
portcullis_status portcullis_engine_reload(const struct portcullis_engine *engine,
                                           const struct portcullis_outbox *outbox,
                                           const struct portcullis_config *config,
                                           uint64_t now_ns,
                                           struct portcullis_reload *reload);

/**
 * Passes the record of each session that matches `filter` to `each`; NULL matches every session.
 *
 * The records are of different moments, while packets are decided. A session that lives during the
 * whole listing is listed exactly once. No lock is held during `each`, which may call the engine,
 * but not release it. Any threads may call this at once.
 *
 * # Safety
 * Pointers are NULL or valid, and `each` is NULL or a function that returns normally.
 */
portcullis_status portcullis_engine_sessions(const struct portcullis_engine *engine,
                                             const struct portcullis_filter *filter,
                                             uint64_t now_ns,
                                             portcullis_session_fn each,
                                             void *context);

/**
 * Reads the record of a live session, or returns `PORTCULLIS_STATUS_NOT_FOUND`.
 *
 * Any threads may call this at once.
 *
 * # Safety
 * Pointers are NULL or valid.
 */
portcullis_status portcullis_engine_session(const struct portcullis_engine *engine,
                                            uint64_t id,
                                            uint64_t now_ns,
                                            struct portcullis_session *session);

/**
 * Ends the sessions that match `filter`. Their records are in `outbox` afterwards, with RSTs to
 * both ends of established TCP sessions. `*ended` is their number; it may be NULL.
 *
 * Any thread may call this, with an outbox of its own, while others decide packets.
 *
 * # Safety
 * Pointers are NULL or valid.
 */
portcullis_status portcullis_engine_end_sessions(const struct portcullis_engine *engine,
                                                 const struct portcullis_outbox *outbox,
                                                 const struct portcullis_filter *filter,
                                                 uint64_t now_ns,
                                                 uint64_t *ended);

/**
 * Writes the name of a rule of the policy in force, with a NUL at its end: "default" for the
 * default action.
 *
 * Any threads may call this at once.
 *
 * # Safety
 * Pointers are NULL or valid; `buffer` has `size` bytes.
 */
portcullis_status portcullis_engine_rule_name(const struct portcullis_engine *engine,
                                              uint16_t rule,
                                              char *buffer,
                                              size_t size);

/**
 * Reads the number of the zone of a name in the configuration in force, or returns
 * `PORTCULLIS_STATUS_NOT_FOUND`. The zones of a group have the number that records state.
 *
 * Any threads may call this at once. The call does not wait for a reload.
 *
 * # Safety
 * Pointers are NULL or valid; `name` ends with a NUL.
 */
portcullis_status portcullis_engine_zone(const struct portcullis_engine *engine,
                                         const char *name,
                                         uint16_t *zone);

/**
 * Reads the wall-clock time, in nanoseconds since 1970, at which the next rule in force expires;
 * `UINT64_MAX` if none does. Then reload the configuration, with that time or a later one in its
 * `wall_ns`: rules expire only at a reload.
 *
 * Any threads may call this at once. The call does not wait for a reload.
 *
 * # Safety
 * Pointers are NULL or valid.
 */
portcullis_status portcullis_engine_next_rule_expiry(const struct portcullis_engine *engine,
                                                     uint64_t *wall_ns);

/**
 * Passes every counter and gauge of an engine to `each`: "sessions", "dropped.policy_deny",
 * "sessions_ended.timeout". For the engine of a gateway, those of its datagrams follow
 * ("datagrams.received").
 *
 * The values are not of one instant while packets are decided, but no count is lost. No lock is
 * held during `each`. Any threads may call this at once.
 *
 * # Safety
 * Pointers are NULL or valid, and `each` is NULL or a function that returns normally.
 */
portcullis_status portcullis_engine_counters(const struct portcullis_engine *engine,
                                             portcullis_counter_fn each,
                                             void *context);

/**
 * Reads the counter or gauge of a name, or returns `PORTCULLIS_STATUS_NOT_FOUND`.
 *
 * A call reads all counters: use `portcullis_engine_counters` for more than a few. Any threads may
 * call this at once.
 *
 * # Safety
 * Pointers are NULL or valid; `name` ends with a NUL.
 */
portcullis_status portcullis_engine_counter(const struct portcullis_engine *engine,
                                            const char *name,
                                            uint64_t *value);

/**
 * Passes all sessions, as one stream, to `write`, in pieces of about 32 KiB. `*sessions` is their
 * number; it may be NULL. If the call fails, `*sessions` is 0, and `write` has received no
 * complete stream.
 *
 * `wall_ns` is the wall-clock time of `now_ns`, in nanoseconds since 1970. Packets may be decided
 * meanwhile; for a complete stream, stop them first. **Reloads, saves and restores of the engine
 * wait**, so `write` must not call those. Any thread may call this.
 *
 * # Safety
 * Pointers are NULL or valid, and `write` is NULL or a function that returns normally.
 */
portcullis_status portcullis_engine_save(const struct portcullis_engine *engine,
                                         uint64_t now_ns,
                                         uint64_t wall_ns,
                                         portcullis_write_fn write,
                                         void *context,
                                         uint64_t *sessions);

/**
 * Restores the sessions of a stream, which `read` reads two or three times. `restored` has the
 * options, and gets the result or the reason of a failure. Results of an earlier call are cleared.
 *
 * A session is judged by the policy of this engine, and its lifetime goes on. If the stream
 * cannot be used, nothing has changed, unless it became unreadable after it was read once.
 * **Reloads, saves and restores of the engine wait**, so `read` must not call those. Any
 * thread may call this, usually before the first packet.
 *
 * # Safety
 * Pointers are NULL or valid, and `read` is NULL or a function that writes within its buffer and
 * returns normally.
 */
portcullis_status portcullis_engine_restore(const struct portcullis_engine *engine,
                                            portcullis_read_fn read,
                                            void *context,
                                            struct portcullis_restored *restored);

/**
 * Creates a gateway. Parameters and result are as for `portcullis_engine_new`. The gateway keeps
 * references to tunnels, as if `engine.tunnel_references` were set.
 *
 * Any thread may call this at any time.
 *
 * # Safety
 * Pointers are NULL or valid; `config` is as its fields say.
 */
portcullis_status portcullis_gateway_new(const struct portcullis_config *config,
                                         uint64_t now_ns,
                                         struct portcullis_gateway **gateway,
                                         char *message,
                                         size_t message_size);

/**
 * Returns the engine of a gateway, for its sessions and counters, to save and to restore; NULL for
 * NULL. The engine is a part of the gateway: it is not released.
 *
 * Calls that would decide packets, end sessions or reload return `PORTCULLIS_STATUS_INVALID`: the
 * workers do that, since they send what follows. Any threads may call this at once.
 *
 * # Safety
 * `gateway` is NULL or a gateway that was not released.
 */
const struct portcullis_engine *portcullis_gateway_engine(const struct portcullis_gateway *gateway);

/**
 * Releases a gateway. NULL is ignored.
 *
 * Its workers stay valid and are released on their own, before or after; its engine does not. No
 * other thread may be in a call with `gateway` or its engine, and no callback of such a call may
 * release it.
 *
 * # Safety
 * `gateway` is NULL or a gateway of `portcullis_gateway_new` that was not released before.
 */
void portcullis_gateway_free(struct portcullis_gateway *gateway);

/**
 * Creates a worker, which keeps up to `event_limit` events until they are read; 0 is 1024.
 *
 * On success, `*worker` is the worker, which `portcullis_worker_free` releases; otherwise it is
 * NULL. Any threads may call this at once.
 *
 * # Safety
 * Pointers are NULL or valid.
 */
portcullis_status portcullis_worker_new(const struct portcullis_gateway *gateway,
                                        size_t event_limit,
                                        struct portcullis_worker **worker);

/**
 * Decides up to `PORTCULLIS_MAX_BATCH` datagrams that came at `now_ns`, in order, and passes
 * everything that is to be sent to `send`: forwarded datagrams, replies, RSTs, and fragments that
 * were held.
 *
 * All datagrams are checked first: if one of them is invalid, nothing is decided. No lock of the
 * engine is held during `send`, in which a call with this worker returns
 * `PORTCULLIS_STATUS_BUSY`. One thread at a time uses a worker.
 *
 * # Safety
 * Pointers are NULL or valid; `datagrams` has `count` structs, the payload of each is readable,
 * and `send` is NULL or a function that returns normally.
 */
portcullis_status portcullis_worker_handle(const struct portcullis_worker *worker,
                                           const struct portcullis_datagram *datagrams,
                                           size_t count,
                                           uint64_t now_ns,
                                           portcullis_send_fn send,
                                           void *context);

/**
 * Lets time pass: ends sessions whose lifetime is over, a few hundred at a time, and decides
 * fragments that were held for long enough. Everything to send is passed to `send`.
 *
 * `*next_ns` is the time of the next call, if no datagram comes before: `now_ns` if there is more
 * to do, and `UINT64_MAX` if there is nothing to wait for. It may be NULL. Call this after each
 * batch as well. One thread at a time uses a worker.
 *
 * # Safety
 * Pointers are NULL or valid, and `send` is NULL or a function that returns normally.
 */
portcullis_status portcullis_worker_poll(const struct portcullis_worker *worker,
                                         uint64_t now_ns,
                                         portcullis_send_fn send,
                                         void *context,
                                         uint64_t *next_ns);

/**
 * Decides everything that is held at once, before a thread ends.
 *
 * One thread at a time uses a worker.
 *
 * # Safety
 * Pointers are NULL or valid, and `send` is NULL or a function that returns normally.
 */
portcullis_status portcullis_worker_release_held(const struct portcullis_worker *worker,
                                                 uint64_t now_ns,
                                                 portcullis_send_fn send,
                                                 void *context);

/**
 * Replaces the configuration of a gateway, or changes nothing, as `portcullis_engine_reload` does.
 * RSTs of sessions that end are passed to `send`, and their records are events of the worker, as
 * far as its limit goes.
 *
 * One thread at a time uses a worker; others may decide datagrams meanwhile.
 *
 * # Safety
 * Pointers are NULL or valid; `config` is as its fields say, and `send` is NULL or a function that
 * returns normally.
 */
portcullis_status portcullis_worker_reload(const struct portcullis_worker *worker,
                                           const struct portcullis_config *config,
                                           uint64_t now_ns,
                                           portcullis_send_fn send,
                                           void *context,
                                           struct portcullis_reload *reload);

/**
 * Ends the sessions of a gateway that match `filter`. RSTs are passed to `send`, and the records
 * are events of the worker, as far as its limit goes. `*ended` is the number of sessions; it may
 * be NULL.
 *
 * One thread at a time uses a worker; others may decide datagrams meanwhile.
 *
 * # Safety
 * Pointers are NULL or valid, and `send` is NULL or a function that returns normally.
 */
portcullis_status portcullis_worker_end_sessions(const struct portcullis_worker *worker,
                                                 const struct portcullis_filter *filter,
                                                 uint64_t now_ns,
                                                 portcullis_send_fn send,
                                                 void *context,
                                                 uint64_t *ended);

/**
 * Removes all events of a worker and passes them to `each`, oldest first. None of them is a packet
 * to send.
 *
 * No lock of the engine is held during `each`, in which a call with this worker returns
 * `PORTCULLIS_STATUS_BUSY`. One thread at a time uses a worker.
 *
 * # Safety
 * Pointers are NULL or valid, and `each` is NULL or a function that returns normally.
 */
portcullis_status portcullis_worker_events(const struct portcullis_worker *worker,
                                           portcullis_event_fn each,
                                           void *context);

/**
 * Reads the number of events that a worker did not keep since it was created.
 *
 * One thread at a time uses a worker.
 *
 * # Safety
 * Pointers are NULL or valid.
 */
portcullis_status portcullis_worker_lost(const struct portcullis_worker *worker, uint64_t *events);

/**
 * Releases a worker with all its events. NULL is ignored.
 *
 * Returns `PORTCULLIS_STATUS_BUSY`, and releases nothing, in a callback of this worker.
 *
 * # Safety
 * `worker` is NULL or a worker that was not released before, and no other thread uses it.
 */
portcullis_status portcullis_worker_free(struct portcullis_worker *worker);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* PORTCULLIS_H */

#ifndef PORTCULLIS_INIT_H
#define PORTCULLIS_INIT_H
/* Functions that return a struct of zeros with its size. */
#define PORTCULLIS_INIT(name) \
  static inline portcullis_##name portcullis_##name##_init(void) { \
    portcullis_##name value; \
    memset(&value, 0, sizeof value); \
    value.size = (uint32_t)sizeof value; \
    return value; \
  }
PORTCULLIS_INIT(config)
PORTCULLIS_INIT(packet)
PORTCULLIS_INIT(verdict)
PORTCULLIS_INIT(session)
PORTCULLIS_INIT(filter)
PORTCULLIS_INIT(reload)
PORTCULLIS_INIT(restored)
PORTCULLIS_INIT(datagram)
#undef PORTCULLIS_INIT
#endif
