"""The places where a store may lie, for tests that hold in all of them: a disk, NFS, and S3 (moto's server)."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from results.files import Disk
from results.store import Store

KINDS = ("disk", "nfs", "s3")
BUCKET = "bucket"


@dataclass(frozen=True)
class Remembering(Disk):
    """An NFS client at its worst: once it has listed a folder, or has looked for a file, it answers from memory until
    it changes that folder."""

    memory: dict[str, list[str]] = field(default_factory=dict, compare=False)
    missing: dict[str, set[str]] = field(default_factory=dict, compare=False)
    """Folder -> the files that it did not have."""

    def exists(self, name: str) -> bool:
        missing = self.missing.setdefault(self.path, set())
        if name in missing or not super().exists(name):
            missing.add(name)
            return False
        return True

    def _forget(self) -> None:
        self.memory.pop(self.path, None)
        self.missing.pop(self.path, None)

    def names(self) -> list[str]:
        if self.path not in self.memory:
            self.memory[self.path] = super().names()
        return list(self.memory[self.path])

    def refresh(self) -> None:
        super().refresh()
        self._forget()

    def write(self, name: str, content: bytes, *, new: bool = False) -> None:
        super().write(name, content, new=new)
        self._forget()

    def delete(self, name: str) -> None:
        super().delete(name)
        self._forget()

    def remove(self) -> None:
        super().remove()
        self.memory.clear()
        self.missing.clear()


@dataclass(frozen=True)
class Place:
    """An empty place of one kind."""

    kind: str
    uri: str

    def store(self) -> Store:
        """The store there, as a process sees it that has not looked at it before."""
        return Store(Remembering(self.uri) if self.kind == "nfs" else self.uri)


@dataclass
class Fault:
    """What happens to the next `times` requests that `hits` selects (method and path)."""

    hits: Callable[[str, str], bool]
    forward: bool = True
    """Whether the request reaches the store before the fault."""
    status: int | None = None
    """Status of the answer; None: the connection is closed without an answer, after `wait` seconds."""
    wait: float = 0.0
    times: int = 1


class Proxy(ThreadingHTTPServer):
    """A network between client and store: counts requests, and makes faults."""

    daemon_threads = True

    def __init__(self, host: str, port: int, bind: str = "127.0.0.1") -> None:
        self.target = host, port
        self.delay = 0.0
        """Seconds that every request takes longer."""
        self.faults: list[Fault] = []
        self.requests: list[tuple[str, str]] = []
        self.guard = threading.Lock()
        super().__init__((bind, 0), _Handler)
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://{self.server_address[0]}:{self.server_address[1]}"

    def fault(self, method: str, path: str) -> Fault | None:
        with self.guard:
            self.requests.append((method, path))
            found = next((fault for fault in self.faults if fault.times and fault.hits(method, path)), None)
            if found is not None:
                found.times -= 1
            return found

    def handle_error(self, *_: Any) -> None:
        """Say nothing of connections that a client gave up."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Proxy

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.server.fault(self.command, self.path)
        time.sleep(self.server.delay)
        status, headers, content = 200, [], b""
        if fault is None or fault.forward:
            connection = http.client.HTTPConnection(*self.server.target, timeout=60)
            connection.request(self.command, self.path, body, dict(self.headers))
            answer = connection.getresponse()
            status, headers, content = answer.status, answer.getheaders(), answer.read()
            connection.close()
        if fault is not None:
            time.sleep(fault.wait)
            if fault.status is None:
                self.close_connection = True
                return
            status, headers, content = fault.status, [], b""
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                self.send_header(name, value)
        length = dict(headers).get("Content-Length") if self.command == "HEAD" else None
        self.send_header("Content-Length", length or str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _handle  # noqa: N815  names of http.server


def upload(folder: Path, store: Store) -> None:
    """Copy a local store to another place, as a copying tool does: file by file."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            place = store._folder
            for part in path.parent.relative_to(folder).parts:
                place = place.child(part)
            place.make()
            place.write(path.name, path.read_bytes())
