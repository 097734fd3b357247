"""A live page on this machine: a small server on the loopback address makes the page anew when the store changes."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from hpo.driver.generations import active
from hpo.report.facts import facts_of
from hpo.report.page import Content, content_of, page

if TYPE_CHECKING:
    from results.store import SweepFolder

HOST = "127.0.0.1"
NAMES = (HOST, "localhost")
"""Names under which a browser may ask."""
PAUSE = 3.0
"""Least seconds between the end of making a page and the next."""
SHARE = 5.0
"""A page is made for at most one SHAREth of the time, so that a sweep on this machine keeps its cores."""
WATCHED = ("trials", "reports", "predictions", "ensembles", "quarantines")
"""Folders of a sweep whose files a page depends on."""


class Source:
    """The newest content, made from the store when somebody asks and something has changed."""

    def __init__(self, opened: Callable[[], Sequence[SweepFolder]]) -> None:
        self._opened = opened
        self._lock = threading.Lock()
        self._version = ""
        self._content: Content | None = None
        self._next = 0.0

    def newest(self) -> tuple[str, Content]:
        """The content and its version, a text that changes with it."""
        with self._lock:
            if self._content is None or time.monotonic() >= self._next:
                begun = time.monotonic()
                folders = self._opened()
                version = _version(folders)
                if version != self._version or self._content is None:
                    self._content = content_of([facts_of(folder) for folder in folders])
                    self._version = version
                spent = time.monotonic() - begun
                self._next = time.monotonic() + max(PAUSE, SHARE * spent)
            return self._version, self._content


def _version(folders: Sequence[SweepFolder]) -> str:
    """A digest of the names of all files that the content depends on, and of whether drivers are at work."""
    names = [
        (folder.name, active(folder.folder) is not None, [folder.folder.child(name).names() for name in WATCHED])
        for folder in folders
    ]
    return hashlib.sha256(json.dumps(names).encode()).hexdigest()[:16]


def server(source: Source, port: int) -> ThreadingHTTPServer:
    """A server of this source, not yet serving; port 0: a free one. Raises OSError."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # the name that http.server calls
            # A page elsewhere could reach this address under a name of its own; the answer is for this name alone.
            if self.headers.get("Host") not in {f"{name}:{running.server_port}" for name in NAMES}:
                self.send_error(HTTPStatus.FORBIDDEN)
                return
            path = urlsplit(self.path)
            if path.path not in ("/", "/content"):
                self.send_error(HTTPStatus.NOT_FOUND)
                return
            try:
                version, content = source.newest()
            except ValueError as error:  # a sweep is gone, or a file of it is damaged
                self.send_error(HTTPStatus.SERVICE_UNAVAILABLE, explain=str(error))
                return
            if path.path == "/":
                self._answer("text/html; charset=utf-8", page(content, version=version))
            elif parse_qs(path.query).get("since") == [version]:
                self.send_response(HTTPStatus.NO_CONTENT)
                self.end_headers()
            else:
                self._answer("application/json", json.dumps({"version": version, **asdict(content)}))

        def _answer(self, kind: str, text: str) -> None:
            body = text.encode()
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """No line for each request."""

    running = ThreadingHTTPServer((HOST, port), Handler)
    return running
