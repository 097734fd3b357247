"""`hpo top`, `hpo show` and `hpo query` on a stored sweep."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from hpo.commands.ask import query
from tests.hpo import stored
from tests.hpo.cli import SWEEP, answer, hpo, refused
from tests.hpo.stored import TASKS


@pytest.fixture(scope="module")
def kept_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that tests only read, or add ensembles to."""
    path = tmp_path_factory.mktemp("store")
    stored.make(path)
    return path


def test_top(kept_store: Path) -> None:
    rows = answer("top", SWEEP, "-n", "3", store=kept_store)
    assert [row["trial"] for row in rows] == [3, 2, 1]
    assert rows[0]["overall"] == pytest.approx(stored.overall(stored.scores(3, 300)))
    text = hpo("top", SWEEP, "-n", "3", store=kept_store).stdout
    assert [line.split()[0] for line in text.splitlines()[3:6]] == ["3", "2", "1"]
    for words in ("overall", *TASKS, "0.7583", "adapter/rank", "furthest rung first, then score"):
        assert words in text


def test_costs_are_shown_as_text_and_as_json(kept_store: Path) -> None:
    """The stored trials train 10 of 100 parameters in `step` - 1 seconds and report `step` + 2 examples."""
    [row] = answer("top", SWEEP, "-n", "1", store=kept_store)
    assert (row["trainable_parameters"], row["trainable_share"], row["peak_memory_bytes"]) == (10, 0.1, 2**20)
    assert row["seconds_per_1000"] == pytest.approx(1000 * 299 / 302)
    assert [row[f"examples_{task}"] for task in TASKS] == [100, 100, 100]
    assert answer("top", SWEEP, "--where", "trainable_share > 0.2", store=kept_store) == []
    text = hpo("top", SWEEP, "-n", "1", store=kept_store).stdout
    for words in ("of model", "10 %", "s/1k", "990", "1 MiB", "sst used"):
        assert words in text
    facts = answer("show", SWEEP, "4", store=kept_store)
    assert facts["reports"][0]["cost"]["seconds_per_1000"] == pytest.approx(1000 * 99 / 102)
    assert facts["reports"][0]["cost"]["examples_per_task"] == dict.fromkeys(TASKS, 33)
    text = hpo("show", SWEEP, "4", store=kept_store).stdout
    costs = ("10, 10 % of the model", "971 s of training, evaluation left out", "33 sst, 33 qqp, 33 sts", "1m 15s")
    for words in costs:
        assert words in text
    assert "trained parameters" in hpo("show", SWEEP, "5", store=kept_store).stdout, "a trial without a report"


def test_top_where(kept_store: Path) -> None:
    rows = answer("top", SWEEP, "--where", "overall < 0.7 AND state = 'complete'", store=kept_store)
    assert [row["trial"] for row in rows] == [1, 0]
    assert "nosuch" in refused(hpo("top", SWEEP, "--where", "nosuch > 1", store=kept_store))
    rows = answer("top", SWEEP, "--where", "adapter/rank in (2, 4)", store=kept_store)
    assert [row["trial"] for row in rows] == [1, 0], "a name needs no quotes"


def test_top_pareto(kept_store: Path) -> None:
    """All trials of the stored sweep cost the same: the best beats all. With equal scores none beats another."""
    given = ("--pareto", "--objective", "overall,-seconds,-trainable_parameters")
    rows = answer("top", SWEEP, *given, store=kept_store)
    assert rows == answer("top", SWEEP, "-n", "1", store=kept_store)
    equal = ("--pareto", "--objective", "-trainable_parameters,-seconds")
    assert [row["trial"] for row in answer("top", SWEEP, *equal, store=kept_store)] == [0, 1, 2, 3]
    assert [row["trial"] for row in answer("top", SWEEP, *equal, "-n", "2", store=kept_store)] == [0, 1]
    rows = answer("top", SWEEP, *equal, "--where", "adapter/rank > 4", store=kept_store)
    assert [row["trial"] for row in rows] == [2, 3]
    text = hpo("top", SWEEP, *given, store=kept_store).stdout
    for words in ("trials that no other beats in all objectives", "-seconds", "5m 00s", "their scores", "adapter/rank"):
        assert words in text


def test_top_pareto_takes_the_sweeps_objectives(tmp_path: Path) -> None:
    folder = stored.make(tmp_path)
    assert "one, `overall`. Give some of: overall, sst" in refused(hpo("top", SWEEP, "--pareto", store=tmp_path))
    meta = json.loads((folder.path / "sweep.json").read_text())
    (folder.path / "sweep.json").write_text(json.dumps({**meta, "objectives": ["overall", "-seconds"]}))
    assert [row["trial"] for row in answer("top", SWEEP, "--pareto", store=tmp_path)] == [3]
    assert "further objectives: -seconds" in hpo("status", SWEEP, store=tmp_path).stdout


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--objective", "overall"), "--objective names the objectives of --pareto"),
        (("--pareto", "--objective", "sst"), "--objective names one, `sst`"),
        (("--pareto", "--objective", "sst,seconds"), "write `-seconds`"),
        (("--pareto", "--objective", "sst,cfimdb"), "Unknown objective `cfimdb`"),
    ],
)
def test_top_refuses_other_objectives(kept_store: Path, options: tuple[str, ...], words: str) -> None:
    assert words in refused(hpo("top", SWEEP, *options, store=kept_store))


def test_a_parameter_has_one_name_wherever_it_is_asked_for(kept_store: Path) -> None:
    """The store's column says `adapter.lora/rank`; nobody has to read or type that."""
    [best] = answer("top", SWEEP, "-n", "1", store=kept_store)
    assert (best["adapter/rank"], best["params"]) == (16, {"adapter/rank": 16})
    assert answer("show", SWEEP, "3", store=kept_store)["params"] == {"adapter/rank": 16}
    [row] = answer("query", "SELECT adapter/rank FROM trials WHERE trial = 3", store=kept_store)
    assert row == {"adapter/rank": 16}
    for command in (("top", SWEEP), ("show", SWEEP, "3"), ("query", "SELECT * FROM trials")):
        assert "adapter.lora" not in hpo(*command, store=kept_store).stdout


@pytest.mark.parametrize("command", [("top", SWEEP, "--where"), ("query",)])
def test_a_failed_condition_says_how_a_parameter_is_called(kept_store: Path, command: tuple[str, ...]) -> None:
    def message(condition: str) -> str:
        statement = condition if command[0] == "top" else f"SELECT trial FROM trials WHERE {condition}"
        return refused(hpo(*command, statement, store=kept_store))

    refusal = message("adapter.lora/rank > 2 and dropout/hidden > 0.1 and seconds/examples > 1 and state <> 'a/b'")
    assert "`adapter.lora/rank`: it is called `adapter/rank`" in refusal
    assert "`dropout/hidden`: no trial drew it; drawn parameters: adapter/rank" in refusal
    assert "a/b`" not in refusal, "a text literal is no name"
    assert "seconds/examples" not in refusal.split("Binder Error")[0], "nor is a quotient of two columns"
    assert "Binder Error" in refusal, "the database's own message stays"
    assert "is called" not in message("adapter/rank >")


def test_show(kept_store: Path) -> None:
    facts = answer("show", SWEEP, "3", store=kept_store)
    assert facts["trial"] == 3
    assert facts["config"]["adapter"]["rank"] == 16
    assert [report["step"] for report in facts["reports"]] == [100, 300]
    text = hpo("show", SWEEP, "3", store=kept_store).stdout
    for words in ("adapter/rank", "16", "complete", "300", "0.7583"):
        assert words in text


def test_show_leaves_out_what_an_old_configuration_says_of_other_tasks(
    kept_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoding = {"cfimdb": {"kind": "single"}, "sts": {"kind": "bi"}}
    whole = {"config_version": 4, "max_length": {"sst": 64, "cfimdb": 512}, "encoding": encoding}
    monkeypatch.setattr(stored, "config", lambda trial: whole)
    store = kept_store.parent / "whole"
    stored.make(store)
    text = hpo("show", SWEEP, "3", store=store).stdout
    assert "max_length/sst" in text
    assert "encoding/sts/kind" in text
    assert "cfimdb" not in text
    assert answer("show", SWEEP, "3", store=store)["config"] == whole, "a program gets all: `--start` takes it"


def test_show_prints_a_workers_traceback(kept_store: Path) -> None:
    text = hpo("show", SWEEP, "5", store=kept_store).stdout
    assert stored.ERROR in text
    assert "failed" in text


def test_show_of_an_unknown_trial(kept_store: Path) -> None:
    assert "99" in refused(hpo("show", SWEEP, "99", store=kept_store))


def test_query(kept_store: Path) -> None:
    sql = "SELECT trial, max(overall) AS best FROM reports GROUP BY trial ORDER BY best DESC LIMIT 2"
    rows = answer("query", sql, store=kept_store)
    assert [row["trial"] for row in rows] == [3, 2]
    text = hpo("query", sql, store=kept_store).stdout
    assert text.split()[:2] == ["trial", "best"]
    assert answer("query", sql, "--sweep", SWEEP, store=kept_store) == rows


def test_query_of_many_columns_fits_the_terminal(kept_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = Console(file=StringIO(), width=80)
    monkeypatch.setattr("hpo.commands.ask.console", lambda: out)
    assert isinstance(out.file, StringIO)
    query("SELECT * FROM trials WHERE trial < 3", store=str(kept_store))
    lines = out.file.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert len(lines) < 150, "a configuration does not fill the screen"
    assert "--json prints them whole" in lines[-1]
    words = set(out.file.getvalue().split())
    assert {"overall", "config", "params", "adapter/rank"} <= words


@pytest.mark.parametrize(
    "sql", ["SELEC 1", "SELECT nosuch FROM reports", "DELETE FROM reports", "SELECT * FROM 'x.csv'"]
)
def test_query_refuses_what_is_no_read(kept_store: Path, sql: str) -> None:
    refused(hpo("query", sql, store=kept_store))


def test_query_says_what_to_type_where_its_tables_are_too_large(
    kept_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("results.sql.MEMORY", 1000)
    message = refused(hpo("query", "SELECT * FROM trials", store=kept_store))
    assert message.startswith("hpo: The statement reads more than")
    assert message.endswith("instead of `*`, or ask fewer sweeps. --sweep reads one sweep only.")
