"""The client of a chat endpoint, against a local server that gives correct and faulty answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from minbert.augmentation.chat import ChatError, ask, completions_url, key_from, numbered, unquoted
from tests.minbert.chat_server import Server, client, lines, says, serve, slow, status


@pytest.fixture
def server() -> Iterator[Server]:
    with serve() as state:
        yield state


@pytest.mark.parametrize(
    ("base", "url"),
    [
        ("http://localhost:8000", "http://localhost:8000/v1/chat/completions"),
        ("http://localhost:8000/v1/", "http://localhost:8000/v1/chat/completions"),
        ("https://a.example/openai/v1", "https://a.example/openai/v1/chat/completions"),
        ("https://a.example/v1/chat/completions", "https://a.example/v1/chat/completions"),
        ("https://a.example/x?api-version=1", "https://a.example/x/chat/completions?api-version=1"),
        ("http://[::1]:8000/v1", "http://[::1]:8000/v1/chat/completions"),
    ],
)
def test_addresses_are_completed(base: str, url: str) -> None:
    assert completions_url(base) == url


@pytest.mark.parametrize(
    "base", ["localhost:8000", "file:///etc/passwd", "http://", "http://[::1", "http://a:b/v1", "http://a b/", ""]
)
def test_other_addresses_are_refused(base: str) -> None:
    with pytest.raises(ValueError, match="`--endpoint` must be an address such as"):
        completions_url(base)


def test_the_request_is_what_the_protocol_asks_for(server: Server) -> None:
    chat, _ = client(server, key="secret")
    server.script = [says("<think>1. hm</think>\nyes")]
    assert chat.complete("are you there?", 0.61234567).strip() == "yes"
    assert server.keys == ["Bearer secret"] and "secret" not in repr(chat)
    assert server.requests == [
        {"model": "llama", "messages": [{"role": "user", "content": "are you there?"}], "temperature": 0.6123}
    ]


@pytest.mark.parametrize(
    ("script", "waits"),
    [
        ([status(429), status(429)], [1, 2]),
        ([status(429, Retry_After="7")], [7]),
        ([status(503, Retry_After="9999")], [60]),
        ([status(429, Retry_After="Wed, 21 Oct 2099 07:28:00 GMT")], [1]),
        ([status(500), status(502), status(503)], [1, 2, 4]),
        ([status(200, b"{not json")], [1]),
        ([status(200, b'{"choices": []}'), status(200, b"[1]")], [1, 2]),
        ([says("  ")], [1]),
        ([slow(1.0)], [1]),
    ],
)
def test_a_temporary_failure_is_retried(server: Server, script: list[Callable[..., None]], waits: list[float]) -> None:
    chat, waited = client(server, timeout=0.3 if waits == [1] and len(script) == 1 else 20.0)
    server.script = [*script, says("at last")]
    assert chat.complete("?", 0.6) == "at last"
    assert waited == waits and len(server.requests) == len(script) + 1


@pytest.mark.parametrize(
    ("reply", "requests", "passing", "message"),
    [
        (status(500, b"out of  memory"), 3, True, "gave no answer in 3 tries; the last one: HTTP 500 .* out of memory"),
        (status(200, b"<html>"), 3, True, "no chat completion but '<html>'"),
        (slow(0.6), 3, True, "in 3 tries"),
        (status(404, b"no model llama"), 1, False, "refuses the request: HTTP 404 Not Found no model llama"),
        (status(401, b"bad key: secret"), 1, False, "refuses the request: HTTP 401 Unauthorized bad key: <key>"),
        (status(302, b"", Location="http://b.example/"), 1, False, "HTTP 302 Found to http://b.example/"),
    ],
)
def test_a_lasting_failure_is_one_error(
    server: Server, reply: Callable[..., None], requests: int, passing: bool, message: str
) -> None:
    chat, _ = client(server, timeout=0.3 if message == "in 3 tries" else 20.0, tries=3, key="secret")
    server.usual = reply
    with pytest.raises(ChatError, match=message) as caught:
        chat.complete("?", 0.6)
    assert caught.value.passing is passing and len(server.requests) == requests
    assert server.url in str(caught.value) and "secret" not in str(caught.value)


def test_keys_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MINBERT_ENDPOINT_KEY", raising=False)
    monkeypatch.setenv("MINE", " abc\n")
    assert key_from(None) == "" and key_from("MINE") == "abc"
    with pytest.raises(ValueError, match="`--key-variable` must name .*; NOTHING is not set or empty"):
        key_from("NOTHING")
    monkeypatch.setenv("MINE", "a\nsecret")
    with pytest.raises(ValueError, match="printable ASCII") as caught:
        key_from("MINE")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("answer", "texts"),
    [
        ("1. a b\n2. c", ["a b", "c"]),
        ("Sure:\n\n1) a  b \n**2.** c", None),
        ("1: a\n2] c\n", ["a", "c"]),
        ("1. a", None),
        ("1. a\n2. b\n3. c", None),
        ("2. a\n1. b", None),
        ("1. a\n1. b", None),
        ("1.\n2. b", None),
        ("1. a\u2028b\tc\x00d\n2. c", ["a b c d", "c"]),
        ("", None),
    ],
)
def test_numbered_lines_are_taken_whole_or_not_at_all(answer: str, texts: list[str] | None) -> None:
    assert numbered(answer, 2) == texts


def test_quotes_of_the_model_go_and_those_of_the_sentence_stay() -> None:
    assert unquoted('"It is good."', "It is fine.") == "It is good."
    assert unquoted('"Good" is "bad"', "x") == '"Good" is "bad"'
    assert unquoted('"It is good."', '"It is fine."') == '"It is good."'


def test_answers_with_other_lines_are_asked_for_again_in_pieces_and_then_given_up(server: Server) -> None:
    chat, _ = client(server)
    texts = [f"sentence {number}" for number in range(25)]
    server.script = [lines(drop=1), lines()]
    assert ask(chat, "Change.", texts, 0.6) == [f"{text} indeed" for text in texts]
    assert len(server.requests) == 2
    server.script = [lines(drop=1), says("no"), lines(), says("no"), lines(drop=2), lines()]
    answers = ask(chat, "Change.", texts, 0.6)
    assert answers == [
        *(f"{text} indeed" for text in texts[:10]),
        *[None] * 10,
        *(f"{text} indeed" for text in texts[20:]),
    ]
