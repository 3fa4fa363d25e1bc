"""The server's half of a websocket (RFC 6455), as much of it as one client needs."""

from __future__ import annotations

import base64
import hashlib
import socket
import struct

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0, 1, 2, 8, 9, 10
LARGEST = 1 << 26
"""Bytes of a message at most; a map is half a megabyte."""
MOST_HEADERS = 1 << 16


class ClosedError(Exception):
    """The client is gone, or does not speak the protocol."""


class Connection:
    """A client's connection, from its handshake on.

    Args:
        client: an accepted socket.
        path: that the client must ask for.

    Raises:
        ClosedError: it is not a websocket's handshake, or one for another path.
    """

    def __init__(self, client: socket.socket, path: str) -> None:
        self._socket = client
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = bytearray()
        self._handshake(path)

    def _handshake(self, path: str) -> None:
        while b"\r\n\r\n" not in self._buffer:
            if len(self._buffer) > MOST_HEADERS:
                raise ClosedError("no end to the request's headers")
            self._fill()
        head, _, rest = bytes(self._buffer).partition(b"\r\n\r\n")
        self._buffer = bytearray(rest)
        first, *lines = head.split(b"\r\n")
        headers = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(b":") for line in lines)
        }
        key = headers.get(b"sec-websocket-key")
        words = first.split()
        if key is None or len(words) != 3 or words[1] != path.encode():
            self._socket.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            raise ClosedError(f"not a websocket for {path}: {first.decode(errors='replace')}")
        accept = base64.b64encode(hashlib.sha1(key + _GUID).digest())
        self._socket.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        )

    def receive(self) -> bytes:
        """The next message, put together from its fragments.

        Raises:
            ClosedError: the connection ended.
        """
        message = b""
        while True:
            final, kind, payload = self._frame()
            if kind == _PING:
                self._send(_PONG, payload)
            elif kind == _CLOSE:
                self._send(_CLOSE, payload[:2])
                raise ClosedError("closed by the client")
            elif kind in (_CONTINUATION, _TEXT, _BINARY):
                message += payload
                if len(message) > LARGEST:
                    raise ClosedError(f"a message of more than {LARGEST} bytes")
                if final:
                    return message
            elif kind != _PONG:
                raise ClosedError(f"unknown frame {kind}")

    def send(self, message: bytes) -> None:
        """Sends a message in one binary frame."""
        self._send(_BINARY, message)

    def _frame(self) -> tuple[bool, int, bytes]:
        first, second = self._take(2)
        length = second & 0x7F
        if length == 126:
            (length,) = struct.unpack(">H", self._take(2))
        elif length == 127:
            (length,) = struct.unpack(">Q", self._take(8))
        if length > LARGEST:
            raise ClosedError(f"a frame of {length} bytes, at most {LARGEST}")
        if not second & 0x80:
            raise ClosedError("a client's frame without a mask")
        mask = self._take(4)
        return bool(first & 0x80), first & 0x0F, _unmask(self._take(length), mask)

    def _send(self, kind: int, payload: bytes) -> None:
        length = len(payload)
        if length < 126:
            head = struct.pack(">BB", 0x80 | kind, length)
        elif length < 1 << 16:
            head = struct.pack(">BBH", 0x80 | kind, 126, length)
        else:
            head = struct.pack(">BBQ", 0x80 | kind, 127, length)
        try:
            self._socket.sendall(head + payload)
        except OSError as error:
            raise ClosedError(str(error)) from error

    def _take(self, count: int) -> bytes:
        while len(self._buffer) < count:
            self._fill()
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken

    def _fill(self) -> None:
        try:
            received = self._socket.recv(1 << 16)
        except OSError as error:
            raise ClosedError(str(error)) from error
        if not received:
            raise ClosedError("the connection ended")
        self._buffer += received


def _unmask(payload: bytes, mask: bytes) -> bytes:
    length = len(payload)
    stream = (mask * (length // 4 + 1))[:length]
    return (int.from_bytes(payload) ^ int.from_bytes(stream)).to_bytes(length)
