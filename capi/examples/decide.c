/* Decides the packets of a capture in its own time, and prints a line for each frame: its number,
 * the verdict, the reason, the relation to the sessions, and the direction.
 *
 *   decide CAPTURE.pcap [portcullis.toml]
 *
 * The capture is a pcap file (not pcapng) of Ethernet or raw IP. Without a configuration every
 * session is allowed, so that only invalid packets are dropped.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <portcullis.h>

/* The greatest frame that the file may hold, as in libpcap. */
#define MAX_FRAME 262144

static const char DEFAULTS[] =
    "[engine]\nchecksums = \"trust\"\n"
    "[policy]\ndefault = \"allow\"\n"
    "[syn_challenge]\nmode = \"off\"\n";

struct capture {
  FILE *file;
  int swapped;
  uint64_t fraction_ns;
  uint32_t link;
  uint8_t frame[MAX_FRAME];
};

static uint32_t number(const struct capture *capture, const uint8_t *at) {
  uint32_t value;
  memcpy(&value, at, sizeof value);
  return capture->swapped ? __builtin_bswap32(value) : value;
}

static int open_capture(struct capture *capture, const char *path) {
  uint8_t header[24];
  uint32_t magic;
  capture->file = fopen(path, "rb");
  if (capture->file == NULL || fread(header, sizeof header, 1, capture->file) != 1) return -1;
  memcpy(&magic, header, sizeof magic);
  capture->swapped = magic == 0xd4c3b2a1 || magic == 0x4d3cb2a1;
  magic = number(capture, header);
  if (magic != 0xa1b2c3d4 && magic != 0xa1b23c4d) return -1;
  capture->fraction_ns = magic == 0xa1b2c3d4 ? 1000 : 1;
  capture->link = number(capture, header + 20) & 0xffff;
  return capture->link == 1 || capture->link == 101 ? 0 : -1;
}

/* Reads a frame at its length on the wire: bytes that the capture lacks are 0. Returns 1 for a
 * frame, 0 at the end of the file, and -1 for a broken one. */
static int next_frame(struct capture *capture, portcullis_packet *packet) {
  uint8_t header[16];
  size_t have = fread(header, 1, sizeof header, capture->file);
  if (have == 0) return 0;
  if (have != sizeof header) return -1;
  uint32_t captured = number(capture, header + 8), on_wire = number(capture, header + 12);
  if (captured > MAX_FRAME || on_wire > MAX_FRAME) return -1;
  if (fread(capture->frame, 1, captured, capture->file) != captured) return -1;
  if (captured < on_wire) memset(capture->frame + captured, 0, on_wire - captured);
  *packet = portcullis_packet_init();
  packet->bytes = capture->frame;
  packet->length = captured < on_wire ? on_wire : captured;
  packet->flags = captured < on_wire ? PORTCULLIS_PACKET_OFFLOADED : 0;
  packet->now_ns = number(capture, header) * UINT64_C(1000000000) +
                   number(capture, header + 4) * capture->fraction_ns;
  return 1;
}

/* Removes the Ethernet header and VLAN tags. Returns whether the frame holds an IP packet. */
static int is_ip(const struct capture *capture, portcullis_packet *packet) {
  size_t at = 12;
  if (capture->link == 101) return 1;
  while (at + 2 <= packet->length) {
    unsigned type = packet->bytes[at] << 8 | packet->bytes[at + 1];
    if (type == 0x0800 || type == 0x86dd) {
      packet->bytes += at + 2;
      packet->length -= at + 2;
      return 1;
    }
    if (type != 0x8100 && type != 0x88a8) return 0;
    at += 4;
  }
  return 0;
}

/* An appliance would send the packets, and log the sessions. */
static void count(void *context, const portcullis_event *event) {
  uint64_t *counts = context;
  if (event->kind == PORTCULLIS_EVENT_KIND_TRANSMIT) counts[0]++;
  if (event->kind == PORTCULLIS_EVENT_KIND_OPENED) counts[1]++;
}

static portcullis_status decide(const portcullis_engine *engine, portcullis_outbox *outbox,
                                const portcullis_packet *packet, unsigned long frame,
                                uint64_t counts[2]) {
  static const char *directions[] = {"-", "original", "reply"};
  portcullis_verdict verdict = portcullis_verdict_init();
  portcullis_status status;
  uint64_t next;
  do {
    status = portcullis_engine_expire(engine, outbox, packet->now_ns, &next);
    if (status == PORTCULLIS_STATUS_OK) status = portcullis_outbox_drain(outbox, count, counts);
    if (status != PORTCULLIS_STATUS_OK) return status;
  } while (next <= packet->now_ns);
  status = portcullis_engine_process(engine, outbox, packet, &verdict);
  if (status != PORTCULLIS_STATUS_OK) return status;
  const char *reason = portcullis_reason_name(verdict.reason);
  printf("%lu %s %s %s %s\n", frame, portcullis_verdict_name(verdict.kind), reason ? reason : "-",
         portcullis_class_name(verdict.class_of), directions[verdict.direction]);
  return portcullis_outbox_drain(outbox, count, counts);
}

int main(int argc, char **argv) {
  static struct capture capture;
  portcullis_config config = portcullis_config_init();
  portcullis_engine *engine = NULL;
  portcullis_outbox *outbox = NULL;
  portcullis_packet packet;
  portcullis_status status;
  char message[512];
  uint64_t counts[2] = {0, 0}, dropped = 0;
  unsigned long frame = 0;
  int more = 0;

  if (argc < 2 || argc > 3) {
    fprintf(stderr, "usage: decide CAPTURE.pcap [portcullis.toml]\n");
    return 2;
  }
  if (open_capture(&capture, argv[1]) != 0) {
    fprintf(stderr, "%s: no pcap file of Ethernet or raw IP\n", argv[1]);
    return 1;
  }
  if (argc == 3) {
    config.path = argv[2];
  } else {
    config.text = DEFAULTS;
    config.length = sizeof DEFAULTS - 1;
  }
  status = portcullis_engine_new(&config, 0, &engine, message, sizeof message);
  if (status != PORTCULLIS_STATUS_OK) {
    fprintf(stderr, "%s: %s\n", portcullis_status_text(status), message);
    return 1;
  }
  status = portcullis_outbox_new(engine, &outbox);
  while (status == PORTCULLIS_STATUS_OK && (more = next_frame(&capture, &packet)) != 0) {
    if (more < 0) {
      fprintf(stderr, "%s: frame %lu is broken\n", argv[1], frame + 1);
      break;
    }
    frame++;
    if (is_ip(&capture, &packet)) {
      status = decide(engine, outbox, &packet, frame, counts);
    } else {
      printf("%lu skip - - -\n", frame);
    }
  }
  if (status == PORTCULLIS_STATUS_OK) {
    status = portcullis_engine_counter(engine, "dropped.tcp_no_session", &dropped);
  }
  fprintf(stderr, "%lu frames, %" PRIu64 " sessions, %" PRIu64 " packets of the engine; %" PRIu64
          " without a session: %s\n", frame, counts[1], counts[0], dropped,
          portcullis_status_text(status));
  portcullis_outbox_free(outbox);
  portcullis_engine_free(engine);
  fclose(capture.file);
  return status == PORTCULLIS_STATUS_OK && more == 0 ? 0 : 1;
}
