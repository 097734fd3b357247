"""The page of a large sweep: seconds to write it, bytes by part, and seconds until a browser has it usable.

    CHROMIUM=/usr/bin/chromium python -m benchmarks.page /tmp/page --trials 1000 --reports 10

The sweep is that of `benchmarks.store fill`, with repeats, an ensemble and its predictions. A page is usable once its
scripts have run, the figures on the screen are drawn, and the table of errors has answered a filter. Seconds are those
on the clock; CPU seconds of the browser are those of the page's main thread.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.common import ROOT, markdown, python
from benchmarks.store.fill import fill
from benchmarks.store.finish import finish
from benchmarks.store.questions import NAME
from results.store import Store
from tests.hpo.report.browser import SEEN, Browser, browser, executable

LOADS = 3
"""How often the page is opened."""
FILTER = """(() => {
  const box = document.querySelector(".filter");
  box.querySelector("input").value = "sts";
  box.querySelector("input").dispatchEvent(new Event("input", { bubbles: true }));
  return box.querySelector("output").textContent;
})()"""
"""Types a word into the table of errors; its value is the table's answer."""


def write(store: Path, page: Path) -> tuple[float, float]:
    """Run `hpo report`; returns its seconds and its CPU seconds."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = python("hpo", "report", NAME, "--out", str(page), "--store", str(store.absolute()))
    subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - begun, cpu


def sizes(page: Path) -> Counter[str]:
    """Bytes of plotly.js, of the figures of each section, and of everything else."""
    text = page.read_text(encoding="utf-8")
    found = Counter[str]()
    for attributes, content in re.findall(r"<script([^>]*)>(.*?)</script>", text, re.DOTALL):
        figure = re.search(r'data-plot="s0-(\w+)', attributes)
        if figure:
            found[f"figures, {figure[1]}"] += len(content.encode())
        elif len(content) > 1_000_000:
            found["plotly.js"] += len(content.encode())
    found["tables, texts, style, own script"] = len(text.encode()) - found.total()
    return found


@contextmanager
def spent(window: Browser, row: list[str]) -> Iterator[None]:
    """Append the seconds and the page's CPU seconds that the block takes."""
    before, begun = _cpu(window), time.perf_counter()
    yield
    row += [f"{time.perf_counter() - begun:.2f}", f"{_cpu(window) - before:.2f}"]


def _cpu(window: Browser) -> float:
    metrics = {entry["name"]: entry["value"] for entry in window.call("Performance.getMetrics")["metrics"]}
    return float(metrics["TaskDuration"])


def look(window: Browser, page: Path) -> Iterator[list[str]]:
    """Open the page LOADS times, then scroll through its figures."""
    window.call("Performance.enable", timeDomain="threadTicks")
    for number in range(1, LOADS + 1):
        window.call("Page.navigate", url="about:blank")
        row = [f"usable, load {number}"]
        with spent(window, row):
            window.show(page.as_uri())
            window.run(SEEN)
            assert window.run(FILTER).endswith("rows")
        yield row
    keys = window.run("plots().map((box) => box.id)")
    row = [f"scroll through {len(keys)} figures"]
    with spent(window, row):
        for key in keys:
            window.run(f"document.getElementById({json.dumps(key)}).scrollIntoView()")
            window.run(SEEN)
    assert window.problems == []
    yield row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path)
    parser.add_argument("--trials", type=int, default=1_000)
    parser.add_argument("--reports", type=int, default=10)
    options = parser.parse_args()
    if NAME not in Store(options.store).sweeps():
        finish(fill(options.store, NAME, options.trials, options.reports), options.reports)
    page = options.store.absolute() / "page.html"
    wall, cpu = write(options.store, page)
    print(f"load {os.getloadavg()[0]:.0f}; `hpo report` took {wall:.1f} s, {cpu:.1f} CPU s")
    print(f"the page has {page.stat().st_size / 1e6:.2f} MB\n")
    print(markdown(["part", "MB"], [[name, f"{size / 1e6:.2f}"] for name, size in sizes(page).most_common()]), "\n")
    if program := executable():
        with tempfile.TemporaryDirectory() as profile, browser(program, Path(profile)) as window:
            print(markdown(["browser", "s", "CPU s"], look(window, page)))


if __name__ == "__main__":
    main()
