"""The page: sections of one or several sweeps in a template, with style sheet and scripts inside.

The page loads nothing. Its policy lets only its own scripts run, named by their SHA-256, so a script in a name or a
traceback would not run even if it were markup.
"""

from __future__ import annotations

import base64
import hashlib
import string
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from hpo.display import compared, ensemble
from hpo.display.units import score
from hpo.driver.compare import compare
from hpo.report import html
from hpo.report.facts import Facts
from hpo.report.sections import SECTIONS
from results.objectives import SCORE
from results.plots import trials

SELF, NOTHING = "'self'", "'none'"
"""Sources of a content security policy."""
GENERATOR = "minbert-hpo report"
"""Name by which a page of ours is known."""


@dataclass(frozen=True)
class Content:
    """What changes between two pages of the same sweeps."""

    title: str
    navigation: str
    main: str
    made: str
    """When the store was read."""


def content_of(sweeps: Sequence[Facts]) -> Content:
    """The sections of these sweeps; several are compared first."""
    names, made = [facts.record.name for facts in sweeps], time.strftime("%Y-%m-%d %H:%M:%S")
    links, articles = [], []
    if len(sweeps) > 1:
        links.append('<a href="#compare">Compare</a>')
        articles.append(f'<article id="compare"><h2>Compare</h2><section>{comparison(sweeps)}</section></article>')
    for number, facts in enumerate(sweeps):
        key = f"s{number}"
        if len(sweeps) > 1:
            links.append(f'<a href="#{key}"><b>{html.text(facts.record.name)}</b></a>')
        title = f"<h2>{html.text(facts.record.name)}</h2>"
        bodies = []
        for section in SECTIONS:
            place = html.identifier(key, section.title.lower())
            if body := section.body(facts, place):
                links.append(f'<a href="#{place}">{html.text(section.title)}</a>')
                bodies.append(f'<section id="{place}"><h3>{html.text(section.title)}</h3>{body}</section>')
        articles.append(f'<article id="{key}">{title}{"".join(bodies)}</article>')
    return Content(f"Sweep {', '.join(names)}", "".join(links), "".join(articles), made)


def comparison(sweeps: Sequence[Facts]) -> str:
    """One row a sweep, their best configurations on `held` as `hpo compare` does, or why they cannot be compared, and
    the best scores of all in one figure."""
    tables = {facts.record.name: facts.reports for facts in sweeps}
    history = trials.sweeps_history
    return "".join(
        [
            html.table([_row(facts) for facts in sweeps], "answer, best single trial, ensemble and default, held out",
                       "scores"),
            *_paired(sweeps),
            html.plot("compare-used", "Best score over the examples used.", history(tables)),
            html.plot("compare-time", "Best score over time.", history(tables, by="elapsed")),
        ]
    )  # fmt: skip


def _paired(sweeps: Sequence[Facts]) -> Iterator[str]:
    """What `hpo compare` shows, the differences on `held` first, and which sweeps cannot be compared."""
    try:
        found = compare([facts.folder for facts in sweeps])
    except ValueError as error:  # nothing in common, or a sweep without a score
        yield html.paragraph(str(error), "warning")
        return
    for name, reason in found.left_out.items():
        yield html.paragraph(f"{name} cannot be compared with {found.sides[0].sweep}: {reason}.", "warning")
    yield from (html.paragraph(compared.sentence(found, pair)) for pair in found.pairs)
    yield html.table(compared.side_rows(found), "best configurations (overall: mean of their runs on `search`)")
    title = "best overall on `search` at full budget, after as many examples of all trials"
    yield html.table(compared.course_rows(found), title)
    settings = compared.setting_rows(found)
    yield html.table(settings, "settings of the best configurations that differ")
    yield "" if settings else html.paragraph("The best configurations have equal settings.")


def _row(facts: Facts) -> dict[str, object]:
    first: Mapping[str, Any] = next(iter(facts.ensembles.values()), {})
    held = {role: parts["held"] for role, parts in first.get("estimates", {}).items() if "held" in parts}
    if facts.answer is not None:
        held["answer"] = facts.answer
    best = facts.snapshot.best[0] if facts.snapshot.best else None
    return {
        "sweep": facts.record.name,
        "state": facts.snapshot.phase,
        "trials": facts.snapshot.trials_total,
        f"best {SCORE} on `search`": score(best.overall if best else None),
        **{name: score(held[role]["overall"]["value"] if role in held else None) for role, name in HELD.items()},
    }


HELD = {"answer": "answer"} | {role: ensemble.PREDICTORS[role] for role in ("best_single", "ensemble", "default")}
"""Predictor with scores on `held` -> its column in the comparison."""


def page(content: Content, *, version: str = "") -> str:
    """The whole page. With the version of its content it is live: it asks the server that it came from for a newer
    one."""
    import plotly.offline

    scripts = [plotly.offline.get_plotlyjs(), _asset("page.js")]
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    # plotly's parallel coordinates compile functions, hence unsafe-eval; plotly also sets styles of elements.
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    policy = (
        f"default-src 'none'; script-src {allowed} 'unsafe-eval'; style-src 'unsafe-inline'; img-src data: blob:; "
        f"connect-src {SELF if version else NOTHING}; base-uri {NOTHING}; form-action {NOTHING}"
    )
    return string.Template(_asset("page.html")).substitute(
        policy=policy,
        generator=GENERATOR,
        title=html.text(content.title),
        style=_asset("page.css"),
        navigation=content.navigation,
        main=content.main,
        made=content.made,
        version=html.text(version),
        plotly=scripts[0],
        script=scripts[1],
    )


def _asset(name: str) -> str:
    return resources.files("hpo.report").joinpath(name).read_text(encoding="utf-8")
