"""A client of any endpoint that speaks the OpenAI chat protocol: `POST <base>/chat/completions`, a message, an answer.

Standard library only. What may pass (429, 5xx, a timeout, a cut connection, an answer that is no JSON) is tried again
after 1, 2, 4, ... seconds, or after as many as `Retry-After` says; what will not pass (401, 404, ...) is an error at
once. The key comes from an environment variable, goes to the named host alone and stands in no message.

`ask` puts an instruction and numbered sentences into one message and takes as many numbered lines out of the answer.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit, urlunsplit

PATH = "/chat/completions"
MOST_BYTES = 16 * 2**20
"""Longest answer that is read; a hundred sentences take 30 kB."""
MOST_WAIT_SECONDS = 60.0
"""Longest wait before another try, whatever `Retry-After` says."""
ROUNDS = 2
"""Times that a request is made before an answer with the wrong lines is given up."""
PIECE = 10
"""Sentences in a request after a larger one has failed."""


class ChatError(RuntimeError):
    """A request that failed for good. `passing` says whether the same request may succeed later."""

    def __init__(self, message: str, *, passing: bool) -> None:
        super().__init__(message)
        self.passing = passing


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """urllib would carry the key along to wherever it is sent."""

    def redirect_request(self, *args: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirect)
_LOCAL_OPENER = urllib.request.build_opener(_NoRedirect, urllib.request.ProxyHandler({}))
"""No proxy that the environment names leads to this machine itself."""
LOCAL = ("localhost", "127.0.0.1", "::1")


def completions_url(base: str) -> str:
    """The address of chat completions from what people give: host, host/v1 or the whole of it. Raises ValueError."""
    try:
        parts = urlsplit(base)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    if not usable or any(not "!" <= sign <= "~" for sign in base):
        raise ValueError(f"`--endpoint` must be an address such as http://localhost:8000/v1, found {base!r}.")
    if parts.username is not None:
        raise ValueError("`--endpoint` must not carry a user or password; give the key by `--key-variable`.")
    path = parts.path.rstrip("/")
    if not path.endswith(PATH):
        path += PATH if path else "/v1" + PATH
    return urlunsplit(parts._replace(path=path, fragment=""))


def key_from(variable: str | None, default: str = "MINBERT_ENDPOINT_KEY") -> str:
    """The key in an environment variable; empty where none is named and the default is not set. Raises ValueError."""
    key = os.environ.get(variable or default, "").strip()
    if variable and not key:
        raise ValueError(f"`--key-variable` names {variable}, which is not set or empty.")
    if not (key.isascii() and key.isprintable()):
        raise ValueError(f"The key in {variable or default} must be printable ASCII; it holds other characters.")
    return key


@dataclass(frozen=True)
class Chat:
    """One model behind one endpoint."""

    url: str
    """Address of chat completions, see `completions_url`."""
    model: str
    key: str = field(default="", repr=False)
    timeout: float = 120.0
    """Seconds to wait for an answer."""
    tries: int = 5
    """Requests made for one answer before giving up."""
    wait: Callable[[float], None] = field(default=time.sleep, repr=False)

    def check(self) -> None:
        """Ask for the list of models, once: any HTTP answer but a refused key shows that someone is there.

        Raises ChatError.
        """
        parts = urlsplit(self.url)
        try:
            self._send(
                urlunsplit(parts._replace(path=parts.path.removesuffix(PATH) + "/models")),
                None,
                min(self.timeout, 30.0),
            )
        except urllib.error.HTTPError as error:
            if error.code in (401, 403):
                raise ChatError(f"{self.url} refuses the key: {self._reason(error)}.", passing=False) from error
        except (OSError, http.client.HTTPException) as error:
            raise ChatError(f"{self.url} cannot be reached: {self._reason(error)}.", passing=True) from error

    def complete(self, prompt: str, temperature: float) -> str:
        """The model's answer to one message. Raises ChatError."""
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": prompt}],
            "temperature": round(temperature, 4),
        }
        reason = ""
        for number in range(self.tries):
            delay = float(2**number)
            try:
                return _content(self._send(self.url, json.dumps(body).encode(), self.timeout))
            except urllib.error.HTTPError as error:
                reason = self._reason(error)
                if error.code not in (408, 409, 425, 429) and error.code < 500:
                    raise ChatError(f"{self.url} refuses the request: {reason}.", passing=False) from error
                delay = max(delay, _retry_after(error))
            except (OSError, http.client.HTTPException, ValueError) as error:
                reason = self._reason(error)
            if number + 1 < self.tries:
                self.wait(min(delay, MOST_WAIT_SECONDS))
        raise ChatError(f"{self.url} gave no answer in {self.tries} tries; the last one: {reason}.", passing=True)

    def _reason(self, error: Exception) -> str:
        """What went wrong, in one line, without the key, which some servers repeat."""
        reason = _reason(error)
        return reason.replace(self.key, "<key>") if self.key else reason

    def _send(self, url: str, body: bytes | None, timeout: float) -> bytes:
        headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "minbert"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        request = urllib.request.Request(url, data=body, headers=headers)
        opener = _LOCAL_OPENER if urlsplit(url).hostname in LOCAL else _OPENER
        with opener.open(request, timeout=timeout) as answer:
            content: bytes = answer.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise ValueError(f"an answer of more than {MOST_BYTES} bytes")
        return content


def _content(answer: bytes) -> str:
    """The text of the first choice; the thoughts that some models print before it are left out. Raises ValueError."""
    try:
        content = json.loads(answer)["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise ValueError(f"no chat completion but {answer[:120].decode(errors='replace')!r}") from error
    if not isinstance(content, str) or not content.strip():
        raise ValueError("an empty answer")
    return content.rpartition("</think>")[2]


def _retry_after(error: urllib.error.HTTPError) -> float:
    """Seconds that the server asks to wait; 0 where it gives none (or a date, which it seldom does)."""
    try:
        seconds = float(error.headers.get("Retry-After", "0"))
    except ValueError:
        return 0.0
    return seconds if 0 <= seconds < float("inf") else 0.0


def _reason(error: Exception) -> str:
    """What went wrong, in one line."""
    if isinstance(error, urllib.error.HTTPError):
        try:
            said = " ".join(error.read(2000).decode(errors="replace").split())[:200]
        except (OSError, http.client.HTTPException):
            said = ""
        target = error.headers.get("Location") if 300 <= error.code < 400 else ""
        return f"HTTP {error.code} {error.reason}" + (f" to {target}" if target else f" {said}" if said else "")
    if isinstance(error, urllib.error.URLError):
        inner = error.reason
        return (inner.strerror or str(inner)) if isinstance(inner, OSError) else str(inner)
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return str(error) or type(error).__name__


def ask(chat: Chat, instruction: str, sentences: Sequence[str], temperature: float) -> list[str | None]:
    """One new sentence for each; an answer with other lines is asked for again, then in pieces, then given up.

    Such an answer is never used in part: a line too few may have moved every later sentence to another one's label.
    """
    count = len(sentences)
    if not count:
        return []
    lines = "\n".join(f"{number}. {sentence}" for number, sentence in enumerate(sentences, start=1))
    prompt = (
        f"{instruction}\nAnswer with exactly {count} line{'s' * (count > 1)}, each beginning with the number of its "
        f"sentence, and nothing else.\n\n{lines}"
    )
    for _ in range(ROUNDS):
        answers = numbered(chat.complete(prompt, temperature), count)
        if answers is not None:
            return [unquoted(new, old) for new, old in zip(answers, sentences, strict=True)]
    if count <= PIECE:
        return [None] * count
    pieces = (sentences[start : start + PIECE] for start in range(0, count, PIECE))
    return [one for piece in pieces for one in ask(chat, instruction, piece, temperature)]


def numbered(answer: str, count: int) -> list[str] | None:
    """The lines `1. text` to `count. text` of an answer, other lines ignored; None unless all are there, in order."""
    found = [(int(number), text) for number, text in re.findall(r"^\W*(\d{1,6})[.):\]]\s+(.*\S)\s*$", answer, re.M)]
    if [number for number, _ in found] != list(range(1, count + 1)):
        return None
    clean = ["".join(sign if sign.isprintable() else " " for sign in text) for _, text in found]
    return [" ".join(text.split()) for text in clean]


def unquoted(new: str, old: str) -> str:
    """The sentence without the quotes that models like to put around it."""
    bare = new[1:-1]
    quoted = len(new) > 2 and (new[0], new[-1]) in (('"', '"'), ("“", "”")) and not set(bare) & set('"“”')
    return bare.strip() if quoted and not old.startswith(('"', "“")) else new
