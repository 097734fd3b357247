"""The page in a headless Chromium: no error, every plot drawn, no script of the store, phone width, dark mode,
contrast, keyboard, and a page that follows its server."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpo.report import serve
from hpo.report.facts import facts_of
from hpo.report.page import content_of, page
from results.store import Store
from tests.hpo.report import sweeps
from tests.hpo.report.browser import SEEN, Browser, browser, executable

PROGRAM = executable()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PROGRAM is None, reason="no Chromium: none of its names is on the PATH, CHROMIUM is not set"),
    pytest.mark.timeout(600),
]

DRAW = "drawAll((box) => !box.dataset.drawn)"
"""Draws every plot that is not drawn yet, as printing does."""
CONTRAST = """(() => {
  const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = (rgb) => rgb.slice(0, 3).map((part) => part / 255)
    .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
    .reduce((sum, part, place) => sum + part * [0.2126, 0.7152, 0.0722][place], 0);
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = numbers(getComputedStyle(at).backgroundColor);
      if (colour.length < 4 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const element of document.querySelectorAll("body *")) {
    const drawn = element.closest("svg") !== null;
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!own || /SCRIPT|STYLE/.test(element.tagName) || element.closest(".bartext, .skip")) continue;
    const style = getComputedStyle(element);
    const [front, back] = [light(numbers(drawn ? style.fill : style.color)), light(behind(element))];
    const ratio = (Math.max(front, back) + 0.05) / (Math.min(front, back) + 0.05);
    if (ratio < 4.5) found.push([element.tagName, element.textContent.slice(0, 40), ratio]);
  }
  return found;
})()"""
"""Texts whose contrast against what is behind them is below 4.5:1 (WCAG 2.2, 1.4.3), in plots too. Texts on bars
are left out: what is behind them is drawn (`tests.results.plots` computes their contrast)."""


@pytest.fixture(scope="module")
def address(store: Path) -> str:
    """A page about two sweeps, one of them with markup for names."""
    facts = [facts_of(Store(store).open(name)) for name in ("small-1", "evil")]
    (store / "page.html").write_text(page(content_of(facts)), encoding="utf-8")
    return (store / "page.html").as_uri()


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    assert PROGRAM is not None
    with browser(PROGRAM, tmp_path_factory.mktemp("profile")) as found:
        yield found


def assert_whole(window: Browser) -> None:
    """Every plot is drawn, nothing went wrong, nothing was loaded, and no script of the store has run."""
    window.run(DRAW)
    empty = window.run("plots().filter((box) => !box.querySelector('.main-svg, canvas')).map((box) => box.id)")
    assert empty == []
    assert window.run("plots().length") > 20
    assert window.run("[...document.querySelectorAll('.plot')].every((box) => box.dataset.drawn === 'yes')")
    assert window.problems == []
    assert window.run("window.hit === undefined")
    assert window.run("document.images.length") == 0


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1200, 360])
def test_a_reader_sees_everything(window: Browser, address: str, width: int, dark: bool) -> None:
    window.requests.clear()
    window.show(address, width=width, dark=dark)
    assert_whole(window)
    assert [each for each in window.requests if not each.startswith(("file:", "data:", "blob:"))] == []
    assert window.run("document.documentElement.scrollWidth") <= width, "the page scrolls sideways"
    assert window.run(CONTRAST) == []
    narrow = "[...document.querySelectorAll('.texts td:nth-child(2)')].filter((cell) => cell.clientWidth < 250).length"
    assert window.run(narrow) == 0, "a column of texts is too narrow to read"
    stroke = "getComputedStyle(document.querySelector('.parcoords .axis path')).stroke"
    assert window.run(stroke) == ("rgb(163, 173, 185)" if dark else "rgb(82, 92, 105)")
    paper = window.run("getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(13, 15, 19)" if dark else "rgb(244, 246, 248)")


def test_a_change_to_dark_redraws_the_plots(window: Browser, address: str) -> None:
    window.show(address)
    window.run(DRAW)
    window.look(width=1200, dark=True)
    window.run("new Promise((done) => setTimeout(done, 500))")
    assert_whole(window)
    assert window.run(CONTRAST) == []
    window.run("document.querySelector('main p').style.color = 'rgb(90, 90, 90)'")
    assert [tag for tag, *_ in window.run(CONTRAST)] == ["P"], "what is hard to read would be found"


def test_the_table_of_errors_filters(window: Browser, address: str) -> None:
    window.show(address)
    shown = "[...document.querySelectorAll('.filter tbody tr')].filter((row) => !row.hidden)"
    rows = window.run(f"{shown}.length")
    assert rows > 3
    window.run("document.querySelector('.filter select').focus()")
    window.call("Input.insertText", text="sts")
    window.run("""(() => { const select = document.querySelector('.filter select'); select.value = 'sts';
        select.dispatchEvent(new Event('input', { bubbles: true })); })()""")
    assert set(window.run(f"{shown}.map((row) => row.cells[0].textContent)")) == {"sts"}
    identity = window.run(f"{shown}[0].lastChild.textContent")
    window.run("document.querySelector('.filter input').focus()")
    window.call("Input.insertText", text=identity)
    assert window.run(f"{shown}.map((row) => row.lastChild.textContent)") == [identity]
    assert window.run("document.querySelector('.filter output').textContent") == "1 rows"


def test_the_page_of_a_thousand_trials_is_usable(window: Browser, tmp_path: Path) -> None:
    """Figures are drawn as they come near the screen."""
    file = tmp_path / "page.html"
    many = facts_of(sweeps.many(tmp_path, "thousand", 1000, evil="text"))
    file.write_text(page(content_of([many])), encoding="utf-8")
    window.show(file.as_uri())
    window.run(SEEN)
    drawn = "plots().filter((box) => box.dataset.drawn).length"
    assert 0 < window.run(drawn) < window.run("plots().length"), "figures far below the screen wait"
    for key in window.run("plots().map((box) => box.id)"):
        window.run(f"document.getElementById('{key}').scrollIntoView()")
        window.run(SEEN)
        assert window.run(f"document.getElementById('{key}').dataset.drawn") == "yes"
    assert window.problems == []


KEYS = {"Tab": 9, "Enter": 13, "ArrowRight": 39, "ArrowDown": 40}
"""Key -> its code on Windows, which the protocol asks for."""


def press(window: Browser, key: str) -> None:
    text = {"text": "\r"} if key == "Enter" else {}
    for kind in ("keyDown", "keyUp"):
        window.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=KEYS[key], **text)


def tab_to(window: Browser, what: str) -> None:
    """Press Tab until the focused element, `at`, is of this kind: a JavaScript expression."""
    for _ in range(400):
        press(window, "Tab")
        if window.run(f"((at) => {what})(document.activeElement)"):
            return
    raise AssertionError(f"the keyboard does not reach {what}")


def until(window: Browser, what: str) -> None:
    """Wait until a JavaScript expression is true; the test's time limit ends it."""
    window.run(f"new Promise((done) => {{ const ask = () => ({what}) ? done() : setTimeout(ask, 20); ask(); }})")


def test_the_keyboard_does_what_a_mouse_does(window: Browser, address: str) -> None:
    """Leads past the links, scrolls a wide box, opens a traceback, chooses in the table of errors, writes words."""
    window.show(address, width=360)
    press(window, "Tab")
    assert window.run("document.activeElement.className") == "skip", "the first stop leads past the links"
    assert window.run("document.activeElement.getBoundingClientRect().top") >= 0, "it can be seen"
    press(window, "Enter")
    until(window, "location.hash === '#content'")
    press(window, "Tab")
    assert window.run("document.activeElement.closest('main') !== null")
    tab_to(window, "at.matches('.wide') && at.scrollWidth > at.clientWidth + 40")
    assert window.run("getComputedStyle(document.activeElement).outlineStyle") != "none", "the focus can be seen"
    press(window, "ArrowRight")
    until(window, "document.activeElement.scrollLeft > 0")
    tab_to(window, "at.matches('.filter select')")
    shown = "[...document.activeElement.closest('.filter').querySelectorAll('tbody tr')].filter((row) => !row.hidden)"
    every = window.run(f"{shown}.length")
    press(window, "ArrowDown")
    assert window.run("document.activeElement.value") != ""
    assert 0 < window.run(f"{shown}.length") < every
    assert window.run(f"{shown}.every((row) => row.cells[0].textContent === document.activeElement.value)")
    tab_to(window, "at.matches('.filter input')")
    window.call("Input.insertText", text="no row has these words")
    assert window.run(f"{shown}.length") == 0
    tab_to(window, "at.matches('summary')")
    assert not window.run("document.activeElement.parentElement.open")
    press(window, "Enter")
    assert window.run("document.activeElement.parentElement.open")
    assert window.problems == []


def test_a_live_page_takes_what_is_new(window: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "PAUSE", 0.0)
    monkeypatch.setattr(serve, "SHARE", 0.0)
    sweeps.many(tmp_path, "live", 6)
    running = serve.server(serve.Source(lambda: [Store(tmp_path).open("live")]), 0)
    thread = threading.Thread(target=running.serve_forever)
    thread.start()
    try:
        window.show(f"http://127.0.0.1:{running.server_port}/")
        window.run(DRAW)
        before = window.run("document.querySelector('main').textContent")
        window.run("document.querySelector('details').open = true")
        with Store(tmp_path).open("live").writer() as writer:
            writer.append("trials", {"trial": 77, "attempt": 0, "event": "start", "config": "{}", "params": "{}"})
        window.run("refresh('')")
        assert window.run("document.querySelector('main').textContent") != before
        assert window.run("document.querySelector('details').open"), "what the reader opened stays open"
        assert window.run("plots().every((box) => box.dataset.drawn === 'yes' && box.querySelector('.main-svg'))")
        assert window.problems == []
    finally:
        running.shutdown()
        thread.join()
        running.server_close()
