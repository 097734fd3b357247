"""Loading a base encoder by its hub id, against a local server that speaks the Hugging Face hub's protocol.

`snapshot_download` asks /api/models/ID/revision/main for the commit, /api/models/ID/tree/COMMIT for the files, then
HEAD and GET of /ID/resolve/COMMIT/FILE with ETag and X-Repo-Commit.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from safetensors.torch import save_file

from minbert.encoder import base as module
from minbert.encoder.base import Base

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def files(tiny: Base, tmp_path: Path) -> Path:
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({**tiny.config.__dict__, "model_type": "bert"}))
    (folder / "vocab.txt").write_text("\n".join(tiny.vocabulary))
    (folder / "pytorch_model.bin").write_bytes(b"never wanted")
    names = module.tensor_names(tiny.config)
    tensors = {names[name]: value for name, value in tiny.load().state_dict().items()}
    save_file(tensors, folder / "model.safetensors")
    return folder


@pytest.fixture
def hub(files: Path) -> Iterator[tuple[str, list[str]]]:
    requests: list[str] = []

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(with_body=False)

        def do_GET(self) -> None:
            self.answer(with_body=True)

        def answer(self, with_body: bool) -> None:
            path = self.path.split("?")[0]
            requests.append(path)
            if path.startswith("/api/models/team/tiny-bert/revision/"):
                siblings = [{"rfilename": file.name} for file in sorted(files.iterdir())]
                self.send(
                    200, json.dumps({"id": "team/tiny-bert", "sha": COMMIT, "siblings": siblings}).encode(), with_body
                )
            elif path.startswith("/api/models/team/tiny-bert/tree/"):
                listing = [
                    {"type": "file", "path": file.name, "size": file.stat().st_size, "oid": "0" * 40}
                    for file in sorted(files.iterdir())
                ]
                self.send(200, json.dumps(listing).encode(), with_body)
            elif path.startswith("/team/tiny-bert/resolve/"):
                self.send(200, (files / path.rsplit("/", 1)[1]).read_bytes(), with_body)
            else:
                self.send(404, b"{}", with_body)

        def send(self, status: int, body: bytes, with_body: bool) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.end_headers()
            if with_body:
                self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", requests
    server.shutdown()
    server.server_close()


def load(name: str, endpoint: str, home: Path) -> subprocess.CompletedProcess[str]:
    """Load a base in a process of its own: huggingface_hub reads its environment once, on import."""
    program = (
        "import sys; from minbert.encoder.base import BaseEncoderError, find_base\n"
        "try:\n"
        "    base = find_base(sys.argv[1]); encoder = base.load()\n"
        "    print(base.sha256, float(encoder.embeddings.word.weight.double().sum()))\n"
        "except BaseEncoderError as error:\n"
        "    print('error:', error)\n"
    )
    environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1"}
    environment.pop("HF_HUB_OFFLINE", None)
    command = [sys.executable, "-c", program, name]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)


def test_a_hub_id_is_downloaded_verified_and_loaded(
    hub: tuple[str, list[str]], files: Path, tiny: Base, tmp_path: Path
) -> None:
    endpoint, requests = hub
    result = load("team/tiny-bert", endpoint, tmp_path / "home")
    digest, total = result.stdout.split()
    assert digest == hashlib.sha256((files / "model.safetensors").read_bytes()).hexdigest()
    assert float(total) == float(tiny.load().embeddings.word.weight.double().sum())
    assert not any("pytorch_model.bin" in path for path in requests)


def test_an_unknown_id_is_one_clear_error(hub: tuple[str, list[str]], tmp_path: Path) -> None:
    result = load("team/nothing", hub[0], tmp_path / "home")
    expected = "`base` team/nothing is no directory here and could not be downloaded from the Hugging Face hub"
    assert expected in result.stdout
    assert "Traceback" not in result.stderr
