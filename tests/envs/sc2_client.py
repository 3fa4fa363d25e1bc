"""A client of StarCraft II's protocol, by itself: no pysc2, no websocket package."""

from __future__ import annotations

import base64
import hashlib
import os
import socket
import struct
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


class Server:
    """The installed ``SC2_x64``, started as pysc2 starts the game; ends with the ``with`` block."""

    def __init__(self, root: Path, *, prefix: tuple[str, ...] = ()) -> None:
        self.port = free_port()
        (binary,) = root.glob("Versions/Base*/SC2_x64")
        arguments = ["-listen", "127.0.0.1", "-port", str(self.port)]
        arguments += ["-dataDir", f"{root}/", "-tempDir", f"{root}/temp/"]
        self.process = subprocess.Popen([*prefix, str(binary), *arguments])

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.process.kill()
        self.process.wait()

    def connect(self, patience: float = 20.0) -> socket.socket:
        """A TCP connection, once the server listens."""
        deadline = time.monotonic() + patience
        while True:
            try:
                return socket.create_connection(("127.0.0.1", self.port), timeout=20.0)
            except ConnectionRefusedError:
                if time.monotonic() > deadline or self.process.poll() is not None:
                    raise
                time.sleep(0.02)


class Client:
    """Sends requests and reads responses."""

    def __init__(self, connection: socket.socket, path: str = "/sc2api") -> None:
        self.connection = connection
        key = base64.b64encode(os.urandom(16))
        connection.sendall(
            b"GET " + path.encode() + b" HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Key: " + key + b"\r\n"
            b"Sec-WebSocket-Version: 13\r\n\r\n"
        )
        head = b""
        while b"\r\n\r\n" not in head:
            head += connection.recv(1)
        self.status = int(head.split()[1])
        if self.status == 101:
            expected = base64.b64encode(hashlib.sha1(key + GUID).digest())
            assert b"Sec-WebSocket-Accept: " + expected in head

    def frame(self, payload: bytes, kind: int = 2, final: bool = True) -> None:
        """One masked frame."""
        mask = os.urandom(4)
        length = len(payload)
        first = (0x80 if final else 0) | kind
        if length < 126:
            head = struct.pack(">BB", first, 0x80 | length)
        elif length < 65536:
            head = struct.pack(">BBH", first, 0x80 | 126, length)
        else:
            head = struct.pack(">BBQ", first, 0x80 | 127, length)
        masked = bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))
        self.connection.sendall(head + mask + masked)

    def read(self) -> tuple[int, bytes]:
        """The next frame's kind and payload."""
        first, second = self._take(2)
        assert first & 0x80 and not second & 0x80, "whole frames without masks"
        length = second
        if length == 126:
            (length,) = struct.unpack(">H", self._take(2))
        elif length == 127:
            (length,) = struct.unpack(">Q", self._take(8))
        return first & 0x0F, self._take(length)

    def _take(self, count: int) -> bytes:
        taken = b""
        while len(taken) < count:
            part = self.connection.recv(count - len(taken))
            if not part:
                raise EOFError("the server closed the connection")
            taken += part
        return taken

    def send(self, **request: Any) -> Any:
        """One request, such as ``send(step=sc2api_pb2.RequestStep(count=8))``; its response."""
        from s2clientprotocol import sc2api_pb2

        self.frame(sc2api_pb2.Request(id=7, **request).SerializeToString())
        kind, payload = self.read()
        assert kind == 2
        response = sc2api_pb2.Response.FromString(payload)
        assert response.id == 7
        assert response.HasField("status")
        return response
