/* Wrong calls get an error and harm nothing; threads share an engine; sessions are listed, ended,
 * saved and restored; a gateway answers in the tunnel. Prints a line and returns 0. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <portcullis.h>

#define REQUIRE(condition)                                                  \
  do {                                                                      \
    if (!(condition)) {                                                     \
      fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);       \
      exit(1);                                                              \
    }                                                                       \
  } while (0)
#define OK PORTCULLIS_STATUS_OK
#define INVALID PORTCULLIS_STATUS_INVALID
#define IS_NULL PORTCULLIS_STATUS_NULL

static const char ALLOW[] =
    "[table]\nmax_sessions = 20000\n[zones]\nblue = 7\n"
    "[[policy.rule]]\nname = \"dns\"\naction = \"allow\"\nprotocol = \"udp\"\n"
    "[[policy.rule]]\nname = \"no-web\"\naction = \"reject\"\nprotocol = \"tcp\"\n";
static const char DENY[] = "[table]\nmax_sessions = 20000\n[policy]\non_reload = \"end\"\n";

#define SECOND UINT64_C(1000000000)
#define PACKETS 20000

/* An IPv4 UDP packet whose checksums are not set. */
static void make_udp(uint8_t packet[32], unsigned host, unsigned port) {
  static const uint8_t begin[28] = {0x45, 0, 0, 32, 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 1,
                                    198, 51, 100, 1, 0, 0, 0, 53, 0, 12, 0, 0};
  memset(packet, 0, 32);
  memcpy(packet, begin, sizeof begin);
  packet[15] = (uint8_t)host;
  packet[20] = (uint8_t)(port >> 8);
  packet[21] = (uint8_t)port;
}

static portcullis_config text_of(const char *text) {
  portcullis_config config = portcullis_config_init();
  config.text = text;
  config.length = strlen(text);
  return config;
}

static portcullis_engine *engine_of(const char *text) {
  portcullis_config config = text_of(text);
  portcullis_engine *engine;
  char message[256];
  if (portcullis_engine_new(&config, 0, &engine, message, sizeof message) != OK) {
    fprintf(stderr, "%s\n", message);
    exit(1);
  }
  return engine;
}

static portcullis_packet packet_of(const uint8_t *bytes, size_t length, uint64_t now_ns) {
  portcullis_packet packet = portcullis_packet_init();
  packet.bytes = bytes;
  packet.length = length;
  packet.now_ns = now_ns;
  packet.flags = PORTCULLIS_PACKET_OFFLOADED;
  return packet;
}

static void wrong_configurations(void) {
  portcullis_config config = text_of("[policy]\ndefault = \"perhaps\"\n");
  portcullis_engine *engine = (portcullis_engine *)&config;
  char message[64];
  memset(message, 'x', sizeof message);
  config.name = "its.toml";
  REQUIRE(portcullis_engine_new(&config, 0, &engine, message, 0) == PORTCULLIS_STATUS_CONFIG);
  REQUIRE(engine == NULL && message[0] == 'x');
  REQUIRE(portcullis_engine_new(&config, 0, &engine, message, 12) == PORTCULLIS_STATUS_CONFIG);
  REQUIRE(strcmp(message, "its.toml:2:") == 0 && message[12] == 'x');
  REQUIRE(portcullis_engine_new(&config, 0, &engine, NULL, 12) == PORTCULLIS_STATUS_CONFIG);
  REQUIRE(portcullis_engine_new(NULL, 0, &engine, message, 64) == IS_NULL && message[0] == '\0');
  memset(message, 'x', sizeof message);
  REQUIRE(portcullis_engine_new(&config, 0, NULL, message, 64) == IS_NULL && message[0] == '\0');
  config.text = "\xff";
  config.length = 1;
  REQUIRE(portcullis_engine_new(&config, 0, &engine, message, 64) == INVALID);
  config.length = (size_t)-1;
  REQUIRE(portcullis_engine_new(&config, 0, &engine, message, 64) == INVALID);
  config.path = "/nonexistent/portcullis.toml";
  REQUIRE(portcullis_engine_new(&config, 0, &engine, message, 64) == INVALID);
  config.text = NULL;
  REQUIRE(portcullis_engine_new(&config, 0, &engine, message, 64) == PORTCULLIS_STATUS_IO);
  REQUIRE(strncmp(message, "/nonexistent/portcullis.toml: ", 30) == 0);
  config.path = "/dev/zero";
  REQUIRE(portcullis_engine_new(&config, 0, &engine, message, 64) == PORTCULLIS_STATUS_IO);
  config.size = 4;
  REQUIRE(portcullis_engine_new(&config, 0, &engine, message, 64) == INVALID);
  config = text_of("[continuity]\nenabled = true\n");
  REQUIRE(portcullis_engine_new(&config, 0, &engine, message, 64) == PORTCULLIS_STATUS_CONFIG);
  config = text_of("[address_sets]\nfeed = { file = \"feed.txt\" }\n");
  REQUIRE(portcullis_engine_new(&config, 0, &engine, message, 64) == PORTCULLIS_STATUS_CONFIG);
  REQUIRE(engine == NULL);
}

static void wrong_packets(portcullis_engine *engine, portcullis_engine *other) {
  portcullis_outbox *outbox, *foreign, *none;
  const portcullis_engine *misaligned = (const void *)((const char *)engine + 1);
  portcullis_verdict verdict = portcullis_verdict_init();
  portcullis_verdict verdicts[2] = {portcullis_verdict_init(), portcullis_verdict_init()};
  uint8_t bytes[32];
  make_udp(bytes, 1, 1000);
  portcullis_packet packet = packet_of(bytes, sizeof bytes, SECOND);
  portcullis_packet packets[2] = {packet, packet};
  uint64_t sessions = 99;
  REQUIRE(portcullis_outbox_new(engine, &outbox) == OK);
  REQUIRE(portcullis_outbox_new(other, &foreign) == OK);
  none = foreign;
  REQUIRE(portcullis_outbox_new(NULL, &none) == IS_NULL && none == NULL);
  none = foreign;
  REQUIRE(portcullis_outbox_new(misaligned, &none) == INVALID && none == NULL);
  REQUIRE(portcullis_engine_process(misaligned, outbox, &packet, &verdict) == INVALID);
  REQUIRE(portcullis_engine_counter(misaligned, "sessions", &sessions) == INVALID);
  REQUIRE(portcullis_outbox_new(engine, NULL) == IS_NULL);
  REQUIRE(portcullis_engine_process(NULL, outbox, &packet, &verdict) == IS_NULL);
  REQUIRE(portcullis_engine_process(engine, NULL, &packet, &verdict) == IS_NULL);
  REQUIRE(portcullis_engine_process(engine, outbox, NULL, &verdict) == IS_NULL);
  REQUIRE(portcullis_engine_process(engine, outbox, &packet, NULL) == IS_NULL);
  REQUIRE(portcullis_engine_process(engine, foreign, &packet, &verdict) == INVALID);
  packet.length = PORTCULLIS_MAX_PACKET + 1;
  REQUIRE(portcullis_engine_process(engine, outbox, &packet, &verdict) == INVALID);
  packet.length = (size_t)-1;
  REQUIRE(portcullis_engine_process(engine, outbox, &packet, &verdict) == INVALID);
  packet.length = 1;
  packet.bytes = NULL;
  REQUIRE(portcullis_engine_process(engine, outbox, &packet, &verdict) == IS_NULL);
  packet = packets[0];
  packet.flags = 1u << 31;
  REQUIRE(portcullis_engine_process(engine, outbox, &packet, &verdict) == INVALID);
  packet = packets[0];
  packet.size -= 8;
  REQUIRE(portcullis_engine_process(engine, outbox, &packet, &verdict) == INVALID);
  packet = packets[0];
  packet.reserved[2] = 1;
  REQUIRE(portcullis_engine_process(engine, outbox, &packet, &verdict) == INVALID);
  packet = packets[0];
  verdict.size = 0;
  REQUIRE(portcullis_engine_process(engine, outbox, &packet, &verdict) == INVALID);
  verdict = portcullis_verdict_init();
  REQUIRE(portcullis_engine_process_batch(engine, outbox, packets, verdicts,
                                          PORTCULLIS_MAX_BATCH + 1) == INVALID);
  REQUIRE(portcullis_engine_process_batch(engine, outbox, packets, verdicts, (size_t)-1) ==
          INVALID);
  REQUIRE(portcullis_engine_process_batch(engine, outbox, NULL, NULL, 0) == OK);
  packets[1].length = (size_t)-1;
  REQUIRE(portcullis_engine_process_batch(engine, outbox, packets, verdicts, 2) == INVALID);
  packets[1] = packets[0];
  verdicts[1].size += 8;
  REQUIRE(portcullis_engine_process_batch(engine, outbox, packets, verdicts, 2) == INVALID);
  REQUIRE(portcullis_engine_process_batch(engine, outbox, (const void *)((const char *)packets + 1),
                                          verdicts, 1) == INVALID);
  REQUIRE(portcullis_engine_process_batch(engine, outbox, packets,
                                          (void *)((char *)verdicts + 4), 1) == INVALID);
  REQUIRE(portcullis_engine_counter(engine, "sessions", &sessions) == OK && sessions == 0);
  REQUIRE(portcullis_engine_counter(engine, "none", &sessions) == PORTCULLIS_STATUS_NOT_FOUND);
  REQUIRE(portcullis_engine_counter(engine, NULL, &sessions) == IS_NULL);

  /* What is valid works beside it. An empty packet is malformed, and no error. */
  packet.length = 0;
  packet.bytes = NULL;
  REQUIRE(portcullis_engine_process(engine, outbox, &packet, &verdict) == OK);
  REQUIRE(verdict.kind == PORTCULLIS_VERDICT_KIND_DROP && verdict.reason != 0);
  REQUIRE(portcullis_reason_text(verdict.reason) != NULL);
  REQUIRE(portcullis_outbox_drain(outbox, NULL, NULL) == IS_NULL);
  REQUIRE(portcullis_outbox_drain(NULL, NULL, NULL) == IS_NULL);
  REQUIRE(portcullis_outbox_lost(outbox, NULL, NULL, NULL) == OK);
  REQUIRE(portcullis_engine_expire(engine, outbox, SECOND, NULL) == OK);
  REQUIRE(portcullis_outbox_free(NULL) == OK);
  REQUIRE(portcullis_outbox_free(outbox) == OK && portcullis_outbox_free(foreign) == OK);
  portcullis_engine_free(NULL);
  portcullis_gateway_free(NULL);
}

/* Structs of a later version: the library reads what it knows, if the rest is 0, and leaves the
 * rest of what it writes as it is. */
struct later_packet {
  portcullis_packet known;
  uint64_t added;
};
struct later_verdict {
  portcullis_verdict known;
  uint64_t added;
};

static void later_versions(void) {
  portcullis_engine *engine = engine_of(ALLOW);
  portcullis_outbox *outbox;
  struct later_packet packets[3];
  struct later_verdict verdicts[3];
  uint8_t bytes[3][32];
  uint64_t sessions;
  REQUIRE(portcullis_outbox_new(engine, &outbox) == OK);
  for (unsigned each = 0; each < 3; each++) {
    make_udp(bytes[each], 1, 1000 + each);
    packets[each].known = packet_of(bytes[each], 32, SECOND);
    packets[each].known.size = sizeof packets[each];
    packets[each].added = 0;
    verdicts[each].known = portcullis_verdict_init();
    verdicts[each].known.size = sizeof verdicts[each];
    verdicts[each].added = 1000 + each;
  }
  packets[2].added = 1;
  REQUIRE(portcullis_engine_process_batch(engine, outbox, &packets[0].known, &verdicts[0].known,
                                          3) == INVALID);
  REQUIRE(portcullis_engine_process(engine, outbox, &packets[2].known, &verdicts[2].known) ==
          INVALID);
  REQUIRE(portcullis_engine_counter(engine, "sessions", &sessions) == OK && sessions == 0);
  packets[2].added = 0;
  REQUIRE(portcullis_engine_process_batch(engine, outbox, &packets[0].known, &verdicts[0].known,
                                          3) == OK);
  for (unsigned each = 0; each < 3; each++) {
    REQUIRE(verdicts[each].known.kind == PORTCULLIS_VERDICT_KIND_FORWARD);
    REQUIRE(verdicts[each].known.size == sizeof verdicts[each]);
    REQUIRE(verdicts[each].known.session != 0 && verdicts[each].added == 1000 + each);
  }
  REQUIRE(portcullis_outbox_free(outbox) == OK);
  portcullis_engine_free(engine);
}

/* Rules with `expires` are judged when a configuration is put in force. */
static void expiring_rules(void) {
  portcullis_config config = text_of(
      "[table]\nmax_sessions = 20000\n[[policy.rule]]\nname = \"guest\"\naction = \"allow\"\n"
      "expires = 2027-01-31\n");
  portcullis_reload reload = portcullis_reload_init();
  portcullis_engine *engine;
  portcullis_outbox *outbox;
  uint64_t next = 0;
  REQUIRE(portcullis_engine_new(&config, 0, &engine, NULL, 0) == OK);
  REQUIRE(portcullis_outbox_new(engine, &outbox) == OK);
  REQUIRE(portcullis_engine_next_rule_expiry(engine, NULL) == IS_NULL);
  REQUIRE(portcullis_engine_next_rule_expiry(engine, &next) == OK);
  REQUIRE(next == 1801353600 * SECOND);
  config.wall_ns = next;
  REQUIRE(portcullis_engine_reload(engine, outbox, &config, SECOND, &reload) == OK);
  REQUIRE(portcullis_engine_next_rule_expiry(engine, &next) == OK && next == UINT64_MAX);
  REQUIRE(portcullis_outbox_free(outbox) == OK);
  portcullis_engine_free(engine);
}

struct seen {
  const portcullis_engine *engine;
  portcullis_outbox *outbox;
  unsigned kinds[16];
  unsigned busy;
};

static void look(void *context, const portcullis_event *event) {
  struct seen *seen = context;
  seen->kinds[event->kind]++;
  if (event->kind == PORTCULLIS_EVENT_KIND_TRANSMIT) REQUIRE(event->bytes[0] == 0x45);
  if (event->kind == PORTCULLIS_EVENT_KIND_ENDED) {
    REQUIRE(portcullis_end_reason_name(event->end_reason) != NULL);
    REQUIRE(event->session->source.family == 4);
  }
  /* The outbox of a callback is in use; the engine is not. */
  REQUIRE(portcullis_engine_expire(seen->engine, seen->outbox, 0, NULL) ==
          PORTCULLIS_STATUS_BUSY);
  REQUIRE(portcullis_outbox_free(seen->outbox) == PORTCULLIS_STATUS_BUSY);
  seen->busy++;
}

static int list(void *context, const portcullis_session *session) {
  unsigned *left = context;
  REQUIRE(session->id != 0 && strlen(session->state) > 0);
  return --*left == 0;
}

struct stream {
  uint8_t *bytes;
  size_t length, room;
};

static int32_t save(void *context, const uint8_t *bytes, size_t length) {
  struct stream *stream = context;
  if (length > stream->room - stream->length) return -1;
  memcpy(stream->bytes + stream->length, bytes, length);
  stream->length += length;
  return 0;
}

static int64_t load(void *context, uint64_t offset, uint8_t *buffer, size_t length) {
  struct stream *stream = context;
  if (offset >= stream->length) return 0;
  if (length > stream->length - offset) length = stream->length - offset;
  memcpy(buffer, stream->bytes + offset, length);
  return (int64_t)length;
}

static int64_t load_too_much(void *context, uint64_t offset, uint8_t *buffer, size_t length) {
  (void)context, (void)offset, (void)buffer;
  return (int64_t)length + 1;
}

static int32_t print(void *context, const uint8_t *bytes, size_t length) {
  size_t *lines = context;
  REQUIRE(length > 0 && bytes[length - 1] == '\n');
  ++*lines;
  return 0;
}

static void sessions_of(portcullis_engine *engine) {
  uint8_t bytes[32];
  portcullis_outbox *outbox;
  portcullis_verdict verdict = portcullis_verdict_init();
  portcullis_session session = portcullis_session_init();
  portcullis_filter filter = portcullis_filter_init();
  uint64_t ended = 0, value;
  unsigned left = 3;
  size_t lines = 0;
  uint16_t zone;
  char name[8];
  REQUIRE(portcullis_outbox_new(engine, &outbox) == OK);
  struct seen seen = {engine, outbox, {0}, 0};
  for (unsigned port = 1; port <= 10; port++) {
    make_udp(bytes, 1, port);
    portcullis_packet packet = packet_of(bytes, sizeof bytes, SECOND);
    REQUIRE(portcullis_engine_process(engine, outbox, &packet, &verdict) == OK);
    REQUIRE(verdict.kind == PORTCULLIS_VERDICT_KIND_FORWARD && verdict.session != 0);
  }
  REQUIRE(portcullis_engine_session(engine, verdict.session, SECOND, &session) == OK);
  REQUIRE(session.source_port == 10 && session.destination_port == 53 && session.protocol == 17);
  REQUIRE(session.packets[0] == 1 && session.start_ns / 1000 == SECOND / 1000);
  REQUIRE(portcullis_engine_rule_name(engine, session.rule, name, sizeof name) == OK);
  REQUIRE(strcmp(name, "dns") == 0);
  REQUIRE(portcullis_engine_rule_name(engine, session.rule, name, 3) ==
          PORTCULLIS_STATUS_TOO_SMALL);
  REQUIRE(portcullis_engine_zone(engine, "blue", &zone) == OK && zone == 7);
  REQUIRE(portcullis_engine_zone(engine, "red", &zone) == PORTCULLIS_STATUS_NOT_FOUND);
  REQUIRE(portcullis_engine_session(engine, 0, SECOND, &session) == PORTCULLIS_STATUS_NOT_FOUND);
  REQUIRE(portcullis_engine_sessions(engine, NULL, SECOND, list, &left) == OK && left == 0);
  REQUIRE(portcullis_engine_sessions(engine, NULL, SECOND, NULL, &left) == IS_NULL);
  REQUIRE(portcullis_engine_end_sessions(engine, outbox, &filter, SECOND, &ended) == INVALID);
  filter.fields = PORTCULLIS_FILTER_SOURCE;
  REQUIRE(portcullis_engine_end_sessions(engine, outbox, &filter, SECOND, &ended) == INVALID);
  filter.fields = PORTCULLIS_FILTER_ID;
  filter.id = verdict.session;
  REQUIRE(portcullis_engine_end_sessions(engine, outbox, &filter, SECOND, &ended) == OK);
  REQUIRE(ended == 1);

  /* A SYN is rejected: its sender gets a RST. */
  static const uint8_t syn[40] = {0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0, 192, 0, 2, 9, 198, 51,
                                  100, 1, 15, 160, 0, 80, 0, 0, 0, 100, 0, 0, 0, 0, 0x50, 2,
                                  255, 255, 0, 0, 0, 0};
  portcullis_packet packet = packet_of(syn, sizeof syn, SECOND);
  REQUIRE(portcullis_engine_process(engine, outbox, &packet, &verdict) == OK);
  REQUIRE(verdict.kind == PORTCULLIS_VERDICT_KIND_REJECT);
  REQUIRE(verdict.reason == portcullis_reason_find("policy_reject"));
  REQUIRE(portcullis_engine_explain(engine, outbox, &packet, NULL, NULL, NULL) == IS_NULL);
  REQUIRE(portcullis_engine_explain(engine, outbox, &packet, print, &lines, &verdict) == OK);
  REQUIRE(lines > 3 && verdict.kind == PORTCULLIS_VERDICT_KIND_REJECT);
  /* A call that fails discards no event. */
  REQUIRE(portcullis_outbox_drain(outbox, NULL, NULL) == IS_NULL);
  REQUIRE(portcullis_outbox_drain(outbox, look, &seen) == OK);
  REQUIRE(seen.kinds[PORTCULLIS_EVENT_KIND_OPENED] == 10);
  REQUIRE(seen.kinds[PORTCULLIS_EVENT_KIND_ENDED] == 1);
  REQUIRE(seen.kinds[PORTCULLIS_EVENT_KIND_TRANSMIT] == 1);
  REQUIRE(seen.kinds[PORTCULLIS_EVENT_KIND_DENIED] == 2 && seen.busy == 14);

  /* Another engine goes on with the nine sessions. */
  struct stream stream = {malloc(1 << 20), 0, 1 << 20};
  portcullis_engine *next = engine_of(ALLOW);
  portcullis_restored restored = portcullis_restored_init();
  REQUIRE(portcullis_engine_save(engine, SECOND, 1000 * SECOND, save, &stream, &value) == OK);
  REQUIRE(value == 9);
  stream.room = stream.length;
  REQUIRE(portcullis_engine_save(engine, SECOND, 1000 * SECOND, save, &stream, NULL) ==
          PORTCULLIS_STATUS_IO);
  REQUIRE(portcullis_engine_save(engine, SECOND, 1000 * SECOND, save, &stream, &value) ==
          PORTCULLIS_STATUS_IO);
  REQUIRE(value == 0);
  restored.now_ns = SECOND;
  restored.wall_ns = 1001 * SECOND;
  REQUIRE(portcullis_engine_restore(next, NULL, NULL, &restored) == IS_NULL);
  REQUIRE(portcullis_engine_restore(next, load_too_much, NULL, &restored) ==
          PORTCULLIS_STATUS_IO);
  stream.length -= 1;
  REQUIRE(portcullis_engine_restore(next, load, &stream, &restored) == PORTCULLIS_STATUS_STREAM);
  REQUIRE(strlen(restored.message) > 0);
  stream.length += 1;
  REQUIRE(portcullis_engine_restore(next, load, &stream, &restored) == OK);
  REQUIRE(restored.sessions == 9 && restored.age_ns == SECOND && restored.message[0] == '\0');
  /* Results of an earlier call are cleared, whatever fails. */
  REQUIRE(portcullis_engine_restore(next, NULL, NULL, &restored) == IS_NULL);
  REQUIRE(restored.sessions == 0 && restored.age_ns == 0 && restored.now_ns == SECOND);
  REQUIRE(portcullis_engine_restore(next, load, &stream, &restored) == OK);
  REQUIRE(restored.sessions == 0 && restored.present == 9);
  REQUIRE(portcullis_engine_restore(next, load_too_much, NULL, &restored) ==
          PORTCULLIS_STATUS_IO);
  REQUIRE(restored.present == 0 && restored.message[0] != '\0');
  portcullis_engine_free(next);
  free(stream.bytes);

  /* A policy that denies them ends them; a wrong one changes nothing. */
  portcullis_reload reload = portcullis_reload_init();
  portcullis_config config = text_of("[policy]\ndefault = 3\n");
  REQUIRE(portcullis_engine_reload(engine, outbox, &config, SECOND, &reload) ==
          PORTCULLIS_STATUS_CONFIG);
  REQUIRE(strlen(reload.message) > 0);
  config = text_of(DENY);
  REQUIRE(portcullis_engine_reload(engine, outbox, &config, SECOND, NULL) == IS_NULL);
  REQUIRE(portcullis_engine_reload(engine, outbox, &config, SECOND, &reload) == OK);
  REQUIRE(reload.revoked == 9 && reload.needs_restart == 0 && reload.message[0] == '\0');
  config = text_of("[table]\nmax_sessions = 5000\n");
  REQUIRE(portcullis_engine_reload(engine, outbox, &config, SECOND, &reload) == OK);
  REQUIRE(reload.needs_restart == 1);
  REQUIRE(strcmp(reload.message, "table.max_sessions") == 0);
  config = text_of(ALLOW);
  REQUIRE(portcullis_engine_reload(engine, outbox, &config, SECOND, &reload) == OK);
  portcullis_outbox_free(outbox);
}

struct shared {
  portcullis_engine *engine;
  unsigned host;
  uint64_t forwarded, events;
};

static atomic_int running;

static void tally(void *context, const portcullis_event *event) {
  struct shared *shared = context;
  if (event->kind == PORTCULLIS_EVENT_KIND_OPENED) shared->events++;
  if (event->kind == PORTCULLIS_EVENT_KIND_ENDED) shared->events += UINT64_C(1) << 32;
}

static void *process(void *context) {
  struct shared *shared = context;
  static _Thread_local uint8_t bytes[64][32];
  portcullis_packet packets[64];
  portcullis_verdict verdicts[64];
  portcullis_outbox *outbox;
  REQUIRE(portcullis_outbox_new(shared->engine, &outbox) == OK);
  for (unsigned first = 1; first <= PACKETS; first += 64) {
    size_t count = PACKETS - first + 1 < 64 ? PACKETS - first + 1 : 64;
    for (size_t each = 0; each < count; each++) {
      make_udp(bytes[each], shared->host, first % 5000 + (unsigned)each);
      /* Sessions expire while others open. */
      packets[each] = packet_of(bytes[each], 32, SECOND * (10 + first / 50));
      verdicts[each] = portcullis_verdict_init();
    }
    REQUIRE(portcullis_engine_process_batch(shared->engine, outbox, packets, verdicts, count) ==
            OK);
    for (size_t each = 0; each < count; each++) {
      shared->forwarded += verdicts[each].kind == PORTCULLIS_VERDICT_KIND_FORWARD;
    }
    REQUIRE(portcullis_outbox_drain(outbox, tally, shared) == OK);
  }
  REQUIRE(portcullis_outbox_free(outbox) == OK);
  running--;
  return NULL;
}

static void *expire(void *context) {
  struct shared *shared = context;
  portcullis_outbox *outbox;
  uint64_t next, now = 10 * SECOND;
  REQUIRE(portcullis_outbox_new(shared->engine, &outbox) == OK);
  do {
    REQUIRE(portcullis_engine_expire(shared->engine, outbox, now, &next) == OK);
    REQUIRE(portcullis_outbox_drain(outbox, tally, shared) == OK);
    if (next > now) now += SECOND / 10;
  } while (running > 0);
  REQUIRE(portcullis_outbox_free(outbox) == OK);
  return NULL;
}

static void threads(void) {
  portcullis_engine *engine = engine_of(ALLOW);
  struct shared shared[3] = {{engine, 1, 0, 0}, {engine, 2, 0, 0}, {engine, 3, 0, 0}};
  pthread_t thread[3];
  uint64_t opened, forwarded, live, ended = 0;
  running = 2;
  for (int each = 0; each < 3; each++) {
    void *(*work)(void *) = each < 2 ? process : expire;
    REQUIRE(pthread_create(&thread[each], NULL, work, &shared[each]) == 0);
  }
  for (int each = 0; each < 3; each++) REQUIRE(pthread_join(thread[each], NULL) == 0);
  REQUIRE(shared[0].forwarded == PACKETS && shared[1].forwarded == PACKETS);
  REQUIRE(portcullis_engine_counter(engine, "sessions_opened", &opened) == OK);
  REQUIRE(portcullis_engine_counter(engine, "forwarded.new", &forwarded) == OK);
  REQUIRE(portcullis_engine_counter(engine, "sessions", &live) == OK);
  REQUIRE(forwarded == 2 * PACKETS);
  uint64_t told = 0;
  for (int each = 0; each < 3; each++) {
    told += shared[each].events & UINT32_MAX;
    ended += shared[each].events >> 32;
  }
  REQUIRE(told == opened && opened == ended + live && ended > 0);
  portcullis_engine_free(engine);
}

struct sent {
  portcullis_worker *worker;
  unsigned count;
  uint8_t last[128];
  size_t length;
};

static void send_out(void *context, const portcullis_outgoing *out) {
  struct sent *sent = context;
  REQUIRE(out->length <= sizeof sent->last);
  memcpy(sent->last, out->payload, out->length);
  sent->length = out->length;
  sent->count++;
  REQUIRE(out->source[3] == 2 && out->destination[3] == 1 && out->source_port == 60001);
  REQUIRE(portcullis_worker_free(sent->worker) == PORTCULLIS_STATUS_BUSY);
}

static void gateway(void) {
  /* Version 0 with the options of AWS: endpoint, attachment, flow cookie. */
  static const uint8_t header[] = {0x08, 0, 8, 0, 0, 0, 0, 0,
                                   1, 8, 1, 2, 0, 0, 0, 0, 0, 0, 0, 5,
                                   1, 8, 2, 2, 0, 0, 0, 0, 0, 0, 0, 9,
                                   1, 8, 3, 1, 0, 0, 0, 77};
  portcullis_config config = text_of(
      "[table]\nmax_sessions = 2000\n[geneve]\nsources = [\"10.0.0.0/24\"]\n"
      "[engine]\nchecksums = \"trust\"\n[[policy.rule]]\nname = \"dns\"\naction = \"allow\"\n"
      "protocol = \"udp\"\n");
  portcullis_datagram datagrams[4];
  portcullis_gateway *gateway;
  portcullis_worker *worker;
  uint8_t bytes[sizeof header + 32];
  char message[256];
  uint64_t value, next;
  portcullis_status status =
      portcullis_gateway_new(&config, 0, &gateway, message, sizeof message);
  if (status != OK) fprintf(stderr, "%s\n", message);
  REQUIRE(status == OK);
  const portcullis_engine *engine = portcullis_gateway_engine(gateway);
  REQUIRE(engine != NULL && portcullis_gateway_engine(NULL) == NULL);
  REQUIRE(portcullis_worker_new(gateway, 0, &worker) == OK);
  portcullis_worker *none = worker;
  REQUIRE(portcullis_worker_new(NULL, 0, &none) == IS_NULL && none == NULL);
  none = worker;
  REQUIRE(portcullis_worker_new((const void *)((const char *)gateway + 1), 0, &none) == INVALID);
  REQUIRE(none == NULL && portcullis_worker_new(gateway, 0, NULL) == IS_NULL);
  struct sent sent = {worker, 0, {0}, 0};
  memcpy(bytes, header, sizeof header);
  make_udp(bytes + sizeof header, 1, 4000);
  for (int each = 0; each < 4; each++) {
    datagrams[each] = portcullis_datagram_init();
    datagrams[each].payload = bytes;
    datagrams[each].length = sizeof bytes;
    memcpy(datagrams[each].source, "\x0a\0\0\1", 4);
    memcpy(datagrams[each].destination, "\x0a\0\0\2", 4);
    datagrams[each].source_port = 60001;
    datagrams[each].destination_port = 6081;
  }
  REQUIRE(portcullis_worker_handle(worker, datagrams, 4, SECOND, NULL, NULL) == IS_NULL);
  REQUIRE(portcullis_worker_handle(NULL, datagrams, 4, SECOND, send_out, &sent) == IS_NULL);
  datagrams[3].length = PORTCULLIS_MAX_DATAGRAM + 1;
  REQUIRE(portcullis_worker_handle(worker, datagrams, 4, SECOND, send_out, &sent) == INVALID);
  datagrams[3].length = 3;
  datagrams[2].waited = 3;
  REQUIRE(portcullis_worker_handle(worker, datagrams, 4, SECOND, send_out, &sent) == INVALID);
  datagrams[2].waited = 2;
  REQUIRE(sent.count == 0);
  REQUIRE(portcullis_worker_handle(worker, datagrams, 4, SECOND, send_out, &sent) == OK);
  REQUIRE(sent.count == 2 && sent.length == sizeof bytes);
  REQUIRE(memcmp(sent.last, bytes, sizeof bytes) == 0);
  REQUIRE(portcullis_engine_counter(engine, "datagrams.received", &value) == OK && value == 4);
  REQUIRE(portcullis_engine_counter(engine, "datagrams.refused.queue_delay", &value) == OK);
  REQUIRE(value == 1);
  REQUIRE(portcullis_worker_poll(worker, SECOND, send_out, &sent, &next) == OK && next > SECOND);
  portcullis_outbox *outbox;
  REQUIRE(portcullis_outbox_new(engine, &outbox) == INVALID && outbox == NULL);
  portcullis_filter filter = portcullis_filter_init();
  filter.fields = PORTCULLIS_FILTER_ALL;
  REQUIRE(portcullis_worker_end_sessions(worker, &filter, SECOND, send_out, &sent, &value) == OK);
  REQUIRE(value == 1 && sent.count == 2);
  portcullis_reload reload = portcullis_reload_init();
  config = text_of("[geneve]\nsources = [\"10.0.0.0/24\"]\n");
  REQUIRE(portcullis_worker_reload(worker, &config, SECOND, send_out, &sent, &reload) == OK);
  REQUIRE(reload.needs_restart == 1);
  REQUIRE(portcullis_worker_release_held(worker, SECOND, send_out, &sent) == OK);
  struct shared tallied = {NULL, 0, 0, 0};
  REQUIRE(portcullis_worker_events(worker, NULL, &tallied) == IS_NULL);
  REQUIRE(portcullis_worker_events(worker, tally, &tallied) == OK);
  REQUIRE(tallied.events == (UINT64_C(1) << 32) + 1);
  REQUIRE(portcullis_worker_lost(worker, &value) == OK && value == 0);
  /* A worker outlives its gateway. */
  portcullis_gateway_free(gateway);
  REQUIRE(portcullis_worker_handle(worker, datagrams, 1, 2 * SECOND, send_out, &sent) == OK);
  REQUIRE(sent.count == 2 && portcullis_worker_free(worker) == OK);
  REQUIRE(portcullis_worker_free(NULL) == OK);
}

int main(void) {
  portcullis_engine *engine = engine_of(ALLOW), *other = engine_of(DENY);
  REQUIRE(portcullis_abi_version() == PORTCULLIS_ABI_VERSION);
  REQUIRE(strcmp(portcullis_status_text(PORTCULLIS_STATUS_OK), "success") == 0);
  REQUIRE(strcmp(portcullis_status_text(-5), "unknown status") == 0);
  REQUIRE(portcullis_verdict_name(9) == NULL && portcullis_class_name(9) == NULL);
  wrong_configurations();
  wrong_packets(engine, other);
  later_versions();
  expiring_rules();
  sessions_of(engine);
  portcullis_engine_free(engine);
  portcullis_engine_free(other);
  threads();
  gateway();
  printf("wrong calls, threads, sessions and a gateway: as documented\n");
  return 0;
}
