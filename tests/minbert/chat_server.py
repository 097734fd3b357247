"""A local server of the OpenAI chat protocol, whose answers, correct or faulty, a test chooses."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from minbert.augmentation.chat import Chat, completions_url

Reply = Callable[[BaseHTTPRequestHandler, dict[str, Any]], None]


def sentences(body: dict[str, Any]) -> list[str]:
    """The numbered sentences of a request."""
    return [text for _, text in re.findall(r"^(\d+)\. (.*)$", body["messages"][0]["content"], re.M)]


def send(handler: BaseHTTPRequestHandler, code: int, content: bytes, **headers: str) -> None:
    handler.send_response(code)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content)


def status(code: int, content: bytes = b'{"error": "no"}', **headers: str) -> Reply:
    return lambda handler, body: send(handler, code, content, **headers)


def says(text: str) -> Reply:
    """A chat completion with this text."""
    content = json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]}).encode()
    return status(200, content)


def lines(change: Callable[[str], str] = lambda text: f"{text} indeed", drop: int = 0) -> Reply:
    """A reply with every sentence changed and numbered, without the last `drop` of them."""

    def reply(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        changed = [change(text) for text in sentences(body)]
        numbered = [f"{number}. {text}" for number, text in enumerate(changed, start=1)]
        says("Here you are:\n" + "\n".join(numbered[: len(changed) - drop]))(handler, body)

    return reply


def slow(seconds: float) -> Reply:
    """A closed connection after some seconds, without an answer."""
    def reply(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        time.sleep(seconds)
        handler.close_connection = True

    return reply


@dataclass
class Server:
    """Requests that the server received, and its next replies."""

    url: str = ""
    script: list[Reply] = field(default_factory=list)
    """Replies to the next requests, in order."""
    usual: Reply = field(default_factory=lines)
    """Reply to every request after the script."""
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    models: Reply = field(default_factory=lambda: status(404))


@contextmanager
def serve() -> Iterator[Server]:
    """Run a server on a free port of this machine."""
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.models(self, {})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with state.lock:
                state.requests.append(body)
                state.keys.append(self.headers.get("Authorization", ""))
                reply = state.script.pop(0) if state.script else state.usual
            if self.path == "/v1/chat/completions":
                with suppress(OSError):  # the client has gone
                    reply(self, body)
            else:
                send(self, 404, b"no such path")

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()


def client(server: Server, **more: object) -> tuple[Chat, list[float]]:
    """A client of the server, and the seconds it would have waited between tries."""
    waits: list[float] = []
    return Chat(completions_url(server.url), "llama", wait=waits.append, **more), waits  # type: ignore[arg-type]
