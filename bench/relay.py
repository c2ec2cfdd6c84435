"""python -m bench.relay near UNIX_SOCKET ADDRESS PORT | far UNIX_SOCKET ADDRESS: the plainest relay there is.

`near` takes one connection on the UNIX socket and copies it to TCP; `far` prints its port, takes one TCP connection and
copies it to the UNIX socket. Blocking calls with one buffer of 1 MiB: as cheap as the same in C.
"""

from __future__ import annotations

import socket
import sys


def copy(source: socket.socket, sink: socket.socket) -> None:
    """All bytes, then the end."""
    buffer = memoryview(bytearray(1 << 20))
    while size := source.recv_into(buffer):
        sink.sendall(buffer[:size])
    sink.shutdown(socket.SHUT_WR)


def main(words: list[str]) -> None:
    side, path, address = words[:3]
    unix = socket.socket(socket.AF_UNIX)
    if side == "near":
        unix.bind(path)
        unix.listen(1)
        with socket.create_connection((address, int(words[3]))) as tcp:
            print("ready", flush=True)
            accepted, _ = unix.accept()
            copy(accepted, tcp)
            return
    with socket.create_server((address, 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        tcp, _ = listener.accept()
        unix.connect(path)
        copy(tcp, unix)


if __name__ == "__main__":
    main(sys.argv[1:])
