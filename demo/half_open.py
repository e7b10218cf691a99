#!/usr/bin/env python3
"""A server that forgets one conversation, as a machine does that lost its power.

Listens on ADDRESS PORT, takes one connection, answers its first line, and then removes the socket without a FIN or
an RST (Linux: a socket closed in TCP_REPAIR mode says nothing to its peer). The listener is closed first, so that the
kernel answers the peer's next segment as it answers any segment of a connection it does not know: with an RST.
Needs CAP_NET_ADMIN.
"""

import socket
import sys
import time

TCP_REPAIR = 19  # linux/tcp.h; absent from Python's socket module
WAIT_SECONDS = 30.0


def main() -> int:
    if len(sys.argv) != 3:
        print(f"usage: {sys.argv[0]} ADDRESS PORT", file=sys.stderr)
        return 2
    address, port = sys.argv[1], int(sys.argv[2])
    with socket.create_server((address, port), backlog=1) as listener:
        listener.settimeout(WAIT_SECONDS)
        connection, _ = listener.accept()
    connection.settimeout(WAIT_SECONDS)
    line = connection.recv(1024)
    connection.sendall(b"you said: " + line)
    # The peer's next line says that ours has arrived; then the kernel has time to acknowledge that line (delayed ACK:
    # 40 ms), so that the socket goes with nothing under way in either direction.
    connection.recv(1024)
    time.sleep(0.2)
    connection.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
    connection.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
