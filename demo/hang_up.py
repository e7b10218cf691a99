#!/usr/bin/env python3
"""An HTTP client that hangs up: it asks for PATH and closes its socket with most of the answer unread.

Its kernel then sends RST instead of FIN (RFC 2525 section 2.17), in the middle of an established connection.
"""

import socket
import sys
import time


def main() -> int:
    if len(sys.argv) != 6:
        print(f"usage: {sys.argv[0]} OWN_ADDRESS OWN_PORT ADDRESS PORT PATH", file=sys.stderr)
        return 2
    own, server, path = (sys.argv[1], int(sys.argv[2])), (sys.argv[3], int(sys.argv[4])), sys.argv[5]
    with socket.create_connection(server, timeout=5.0, source_address=own) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {server[0]}\r\n\r\n".encode())
        connection.recv(100)
        time.sleep(0.3)  # the rest of the answer arrives and stays unread
    return 0


if __name__ == "__main__":
    sys.exit(main())
