"""Client of a chat endpoint that speaks the OpenAI protocol: `POST <base>/chat/completions`, one message, one answer.

Standard library only. Temporary failures (429, 5xx, a timeout, a cut connection, an answer that is not JSON) are
retried after 1, 2, 4, ... seconds, or after the seconds of `Retry-After`. Permanent failures (401, 404, ...) are errors
at once. The key comes from an environment variable; it is sent to the named host alone and appears in no message.

`ask` puts an instruction and numbered sentences into one message and reads the same number of lines from the answer.
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
"""Largest answer in bytes; a hundred sentences take 30 kB."""
MOST_WAIT_SECONDS = 60.0
"""Longest wait before a retry; it limits `Retry-After` too."""
ROUNDS = 2
"""Requests for one message while the answers have the wrong lines."""
PIECE = 10
"""Sentences in a request after a larger request has failed."""


class ChatError(RuntimeError):
    """A failed request. `passing` says whether the same request may succeed later."""

    def __init__(self, message: str, *, passing: bool) -> None:
        super().__init__(message)
        self.passing = passing


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: urllib would send the key to the new host."""

    def redirect_request(self, *args: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirect)
_LOCAL_OPENER = urllib.request.build_opener(_NoRedirect, urllib.request.ProxyHandler({}))
"""Opener without a proxy, for endpoints on this machine."""
LOCAL = ("localhost", "127.0.0.1", "::1")
"""Host names of this machine."""


def completions_url(base: str) -> str:
    """Complete an address of the form host, host/v1 or host/v1/chat/completions. Raises ValueError."""
    try:
        parts = urlsplit(base)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    if not usable or any(not "!" <= character <= "~" for character in base):
        raise ValueError(f"`--endpoint` must be an address such as http://localhost:8000/v1, found {base!r}.")
    if parts.username is not None:
        raise ValueError("`--endpoint` must not hold a user or password; give the key by `--key-variable`.")
    path = parts.path.rstrip("/")
    if not path.endswith(PATH):
        path += PATH if path else "/v1" + PATH
    return urlunsplit(parts._replace(path=path, fragment=""))


def key_from(variable: str | None, default: str = "MINBERT_ENDPOINT_KEY") -> str:
    """Read the key from an environment variable; empty if the default is not set. Raises ValueError."""
    key = os.environ.get(variable or default, "").strip()
    if variable and not key:
        raise ValueError(f"`--key-variable` must name a variable that holds the key; {variable} is not set or empty.")
    if not (key.isascii() and key.isprintable()):
        raise ValueError(f"The key in {variable or default} must be printable ASCII; found other characters.")
    return key


@dataclass(frozen=True)
class Chat:
    """Client of one model behind one endpoint."""

    url: str
    """Address of chat completions, see `completions_url`."""
    model: str
    """Name of the model in requests."""
    key: str = field(default="", repr=False)
    """Sent as a bearer token; empty: none is sent."""
    timeout: float = 120.0
    """Seconds to wait for an answer."""
    tries: int = 5
    """Requests for one answer before the client gives up."""
    wait: Callable[[float], None] = field(default=time.sleep, repr=False)
    """Waits the given seconds between tries."""

    def check(self) -> None:
        """Request the list of models once, to see that the endpoint answers and takes the key.

        Any HTTP answer other than a refused key is good enough. Raises ChatError.
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
        for attempt in range(self.tries):
            delay = float(2**attempt)
            try:
                return _content(self._send(self.url, json.dumps(body).encode(), self.timeout))
            except urllib.error.HTTPError as error:
                reason = self._reason(error)
                if error.code not in (408, 409, 425, 429) and error.code < 500:
                    raise ChatError(f"{self.url} refuses the request: {reason}.", passing=False) from error
                delay = max(delay, _retry_after(error))
            except (OSError, http.client.HTTPException, ValueError) as error:
                reason = self._reason(error)
            if attempt + 1 < self.tries:
                self.wait(min(delay, MOST_WAIT_SECONDS))
        raise ChatError(f"{self.url} gave no answer in {self.tries} tries; the last one: {reason}.", passing=True)

    def _reason(self, error: Exception) -> str:
        """Description of an error in one line; the key, which some servers repeat, is masked."""
        reason = _reason(error)
        return reason.replace(self.key, "<key>") if self.key else reason

    def _send(self, url: str, body: bytes | None, timeout: float) -> bytes:
        """POST a body, or GET without one; returns the content. Raises OSError, HTTPException or ValueError."""
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
    """Text of the first choice, without the `<think>` part of reasoning models. Raises ValueError."""
    try:
        content = json.loads(answer)["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise ValueError(f"no chat completion but {answer[:120].decode(errors='replace')!r}") from error
    if not isinstance(content, str) or not content.strip():
        raise ValueError("an empty answer")
    return content.rpartition("</think>")[2]


def _retry_after(error: urllib.error.HTTPError) -> float:
    """Seconds in the `Retry-After` header; 0 where it is absent or a date."""
    try:
        seconds = float(error.headers.get("Retry-After", "0"))
    except ValueError:
        return 0.0
    return seconds if 0 <= seconds < float("inf") else 0.0


def _reason(error: Exception) -> str:
    """Description of an error in one line."""
    if isinstance(error, urllib.error.HTTPError):
        try:
            body = " ".join(error.read(2000).decode(errors="replace").split())[:200]
        except (OSError, http.client.HTTPException):
            body = ""
        target = error.headers.get("Location") if 300 <= error.code < 400 else ""
        return f"HTTP {error.code} {error.reason}" + (f" to {target}" if target else f" {body}" if body else "")
    if isinstance(error, urllib.error.URLError):
        inner = error.reason
        return (inner.strerror or str(inner)) if isinstance(inner, OSError) else str(inner)
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return str(error) or type(error).__name__


def ask(chat: Chat, instruction: str, sentences: Sequence[str], temperature: float) -> list[str | None]:
    """Get one new sentence for each sentence; None for those that the model does not answer as asked.

    An answer with the wrong lines is requested again, then in requests of PIECE sentences, then given up. It is never
    used in part: a missing line may shift every later sentence to the label of another. Raises ChatError.
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
    return [answer for piece in pieces for answer in ask(chat, instruction, piece, temperature)]


def numbered(answer: str, count: int) -> list[str] | None:
    """Texts of the lines `1. text` to `count. text` of an answer; None unless all are there in order.

    Lines without a number are ignored.
    """
    lines = [(int(number), text) for number, text in re.findall(r"^\W*(\d{1,6})[.):\]]\s+(.*\S)\s*$", answer, re.M)]
    if [number for number, _ in lines] != list(range(1, count + 1)):
        return None
    clean = ["".join(sign if sign.isprintable() else " " for sign in text) for _, text in lines]
    return [" ".join(text.split()) for text in clean]


def unquoted(new: str, old: str) -> str:
    """Remove quotes that a model put around a sentence whose original has none."""
    bare = new[1:-1]
    quoted = len(new) > 2 and (new[0], new[-1]) in (('"', '"'), ("“", "”")) and not set(bare) & set('"“”')
    return bare.strip() if quoted and not old.startswith(('"', "“")) else new
