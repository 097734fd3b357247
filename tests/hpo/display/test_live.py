"""The live picture and the plain lines, drawn from snapshots and recorded."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from hpo.display import live, units
from hpo.display.live import LiveDisplay, picture
from hpo.display.plain import PlainDisplay
from hpo.search.judges import RungRow
from hpo.search.snapshot import Leader, RunningTrial, Snapshot, TaskLeader
from hpo.search.states import STATES as TRIAL_STATES
from hpo.worker.progress import StageProgress

BEST = [
    Leader(7, 0.6812, {"sst": 0.4512, "qqp": 0.8010, "sts": 0.8321}, 5000),
    Leader(3, 0.6712, {"sst": 0.4412, "qqp": 0.7910, "sts": 0.8221}, 5000),
    Leader(11, 0.6901, {"sst": 0.4502, "qqp": 0.8000, "sts": 0.8421}, 1666),
]
PER_TASK = {"sst": TaskLeader(3, 0.4712), "qqp": TaskLeader(7, 0.8010), "sts": TaskLeader(11, 0.8421)}
RUNNING = [RunningTrial(14, 1666, 1670, 0.6112), RunningTrial(15, 0, 0, None)]


def snapshot(**changes: Any) -> Snapshot:
    middle = Snapshot(
        name="quickstart-1",
        counts={"running": 2, "complete": 3, "pruned": 9, "diverged": 1, "failed": 4, "waiting": 0},
        trials_total=24,
        budget_examples_used=41_230,
        best=list(BEST),
        best_per_task=dict(PER_TASK),
        rungs=[RungRow(1666, 14, 9, 0.6011, 0.6412, 1, 1), RungRow(5000, 3, 0, None, 0.6812)],
        running=list(RUNNING),
        examples_per_second=412.3,
        started=0.0,
        elapsed=192.0,
        time_left=130.0,
        durable_rows=55,
        phase="searching",
        messages=("trial 5 diverged: non-finite loss",),
    )
    return replace(middle, **changes)


def waiting(trial: int) -> RunningTrial:
    """A running trial that has not reported yet."""
    return RunningTrial(trial, 0, 0, None)


def drawn(shown: Snapshot, width: int) -> str:
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(picture(shown, width), width=width)
    return console.export_text()


def empty() -> Snapshot:
    none = dict.fromkeys(("running", "complete", "pruned", "diverged", "failed", "waiting"), 0)
    rungs = [RungRow(step, 0, 0, None, None) for step in (1666, 5000)]
    changes: dict[str, Any] = {"counts": none, "best": [], "best_per_task": {}, "rungs": rungs, "running": []}
    changes |= {"budget_examples_used": 0, "examples_per_second": 0.0, "time_left": None, "messages": ()}
    return snapshot(phase="starting", durable_rows=0, **changes)


def test_further_objectives_are_shown() -> None:
    assert "objectives" not in drawn(snapshot(objectives=("overall",)), 80)
    shown = drawn(snapshot(objectives=("overall", "-trainable_parameters", "-seconds")), 80)
    assert "ranked by overall; further objectives: -trainable_parameters, -seconds" in shown


def test_repeats_are_shown_beside_the_trials() -> None:
    counts = {"running": 0, "complete": 6, "pruned": 16, "diverged": 1, "failed": 1, "waiting": 0}
    repeats = {"running": 1, "complete": 2, "pruned": 0, "diverged": 0, "failed": 0, "waiting": 0}
    again = RunningTrial(26, 1666, 1670, 0.6112, repeat_of=7)
    shown = snapshot(phase="repeating", counts=counts, repeats=repeats, repeats_total=5, running=[again])
    assert shown.search_ended
    assert not shown.ended
    text = " ".join(drawn(shown, 140).split())
    for words in ("repeating", "24 of 24 closed, 2 of 5 repeats", "26 (again 7)", "of at most 145.0k examples", "left"):
        assert words in text
    rest = shown.at_rest()
    assert (rest.repeats["waiting"], rest.repeats["running"], rest.repeats_ended) == (1, 0, 2)
    assert replace(shown, repeats=repeats | {"running": 0, "complete": 4, "diverged": 1}).ended
    out = io.StringIO()
    PlainDisplay(out)(shown)
    assert "closed=24 of=24 running=0 complete=6 pruned=16 diverged=1 failed=1 repeats=2/5 examples=" in out.getvalue()


@pytest.mark.parametrize("width", [80, 140])
def test_picture_shows_everything_asked_for(width: int) -> None:
    text = drawn(snapshot(), width)
    flat = " ".join(text.split())
    for words in (
        "quickstart-1 searching",
        "3m 12s passed, about 2m 10s left",
        "41.2k of at most 120.0k examples, 412/s",
        "17 of 24 closed",
        "2 running 3 finished 9 stopped 1 diverged 4 failed 5 to come",
        "best: furthest rung, then score on `search`",
        "7 5,000 0.6812 0.4512 0.8010 0.8321",
        "11 1,666 0.6901 0.4502 0.8000 0.8421",
        "any 0.4712 #3 0.8010 #7 0.8421 #11",
        "rungs (1 trial exempt)",
        "! trial 5 diverged: non-finite loss",
        "55 rows safe in the store",
    ):
        assert words in flat
    assert re.search(r"1,666 +14 +9 +0\.6011 +0\.6412", text)
    assert re.search(r"14 +1,670 .* 0\.6112", text)


@pytest.mark.parametrize("width", [80, 140])
@pytest.mark.parametrize(
    "shown", [snapshot(), empty(), snapshot(phase="done", running=[])], ids=["middle", "empty", "done"]
)
def test_picture_fits_the_terminal(width: int, shown: Snapshot) -> None:
    rows = drawn(shown, width).splitlines()
    assert max(map(len, rows)) <= width
    assert len(rows) <= 24
    assert "…" not in "".join(rows)


def test_the_rungs_show_the_columns_of_the_scheduler() -> None:
    rungs = [RungRow(1666, 14, 0, None, 0.6412)]
    text = drawn(snapshot(rung_columns=("reports", "best"), rungs=rungs), 80)
    assert re.search(r"1,666 +14 +0\.6412", text)
    assert "cutoff" not in text
    assert "exempt" not in text


def test_every_state_of_a_trial_has_its_word() -> None:
    assert {*live.STATE_WORDS, "waiting"} == set(TRIAL_STATES), "waiting trials are shown separately, if there are any"


def test_tables_stand_side_by_side_only_where_there_is_room() -> None:
    def together(width: int) -> bool:
        return any("best: furthest" in line and "rungs" in line for line in drawn(snapshot(), width).splitlines())

    assert together(140)
    assert not together(80)


def test_many_running_trials_do_not_push_the_rest_away() -> None:
    text = drawn(snapshot(running=[waiting(number) for number in range(40)]), 80)
    assert "32 more" in text
    assert "rows safe" in text


def test_best_table_marks_an_interrupted_sweep() -> None:
    counts = {**snapshot().counts, "running": 0, "waiting": 2}
    assert "2 interrupted" in drawn(snapshot(counts=counts, phase="stopped"), 80)


def test_clock_goes_on_between_snapshots_until_the_end() -> None:
    now = [100.0]
    shown = LiveDisplay(Console(file=io.StringIO(), width=80), clock=lambda: now[0])
    shown(snapshot())
    now[0] += 30
    moved = shown.now(snapshot())
    assert (moved.elapsed, moved.time_left) == (222.0, 100.0)
    assert shown.now(snapshot(phase="done")).elapsed == 192.0


def test_live_display_draws_and_leaves_the_terminal_clean() -> None:
    out = io.StringIO()
    with LiveDisplay(Console(file=out, width=80, force_terminal=True, force_interactive=True)) as shown:
        shown(snapshot())
        shown.live.refresh()
    assert "quickstart-1" in out.getvalue()
    assert out.getvalue().rstrip().endswith("\x1b[2K") or "\x1b[?25h" in out.getvalue()


def test_a_new_width_clears_the_screen_once() -> None:
    """Lines drawn at the old width are wrapped by the terminal: the cursor would go back too few of them."""
    out = io.StringIO()
    console = Console(file=out, width=120, height=30, force_terminal=True, force_interactive=True)
    cleared = "\x1b[H\x1b[2J"
    with LiveDisplay(console) as shown:
        shown(snapshot())
        shown.live.refresh()
        assert cleared not in out.getvalue()
        console.width = 80
        shown.live.refresh()
        shown.live.refresh()
        after = out.getvalue().split(cleared)
        assert len(after) == 2
        assert "quickstart-1" in after[1]


@pytest.mark.parametrize("width", [80, 140])
def test_the_picture_says_what_the_driver_does(width: int) -> None:
    joining = "joining the Ray cluster at auto"
    starting = drawn(snapshot(phase="starting", activity=joining), width)
    assert f"quickstart-1  starting: {joining}" in starting.splitlines()[0]
    predicted = drawn(snapshot(phase="finalising", activity="6 of 8 trials have predicted"), width)
    assert "quickstart-1  finalising: 6 of 8 trials have predicted" in predicted.splitlines()[0]
    assert "3m 12s passed" in predicted.splitlines()[0]


def test_before_the_first_snapshot_the_picture_says_what_happens() -> None:
    out = io.StringIO()
    with live.observer(Console(file=out, width=80, force_terminal=True, _environ={}), "loading Ray"):
        pass
    assert "starting: loading Ray ... 0s" in out.getvalue()


def test_plain_lines_say_what_the_driver_does_once() -> None:
    out = io.StringIO()
    with live.observer(Console(file=out), "loading Ray") as show:
        assert out.getvalue() == "", "what is refused before it begins prints nothing here"
        for _ in range(2):
            show(replace(empty(), activity="starting Ray"))
        for done in (0, 1, 1, 2):
            activity = f"{done} of 3 trials have predicted"
            show(replace(empty(), phase="finalising", activity=activity))
    lines = [line.split(maxsplit=1)[1] for line in out.getvalue().splitlines()]
    assert [line for line in lines if not line.startswith("progress")] == [
        "phase    starting",
        "activity starting Ray",
        "phase    finalising",
        *(f"activity {done} of 3 trials have predicted" for done in range(3)),
    ]


def test_the_observer_fits_its_output() -> None:
    assert isinstance(live.observer(Console(file=io.StringIO())), PlainDisplay)
    assert isinstance(live.observer(Console(file=io.StringIO(), force_terminal=True, _environ={})), LiveDisplay)


def test_plain_lines_are_one_per_event_and_rare() -> None:
    out, now = io.StringIO(), [0.0]
    show = PlainDisplay(out, every=5.0, clock=lambda: now[0])
    for second in range(20):
        now[0] = float(second)
        show(snapshot(budget_examples_used=second * 100))
    show(snapshot(phase="done", messages=("trial 5 diverged: non-finite loss", "trial 6\nfailed")))
    lines = out.getvalue().splitlines()
    events = [re.fullmatch(r"\d\d:\d\d:\d\d (\w+) +(.*)", line) for line in lines]
    assert all(events)
    pairs = [(event[1], event[2]) for event in events if event]
    assert [words for kind, words in pairs if kind == "phase"] == ["searching", "done"]
    assert [words for kind, words in pairs if kind == "best"] == [
        "trial=7 at=5000 overall=0.6812 sst=0.4512 qqp=0.8010 sts=0.8321"
    ]
    assert [words for kind, words in pairs if kind == "message"] == [
        "trial 5 diverged: non-finite loss",
        "trial 6 failed",
    ]
    progress = [words for kind, words in pairs if kind == "progress"]
    assert len(progress) == 5  # at 0, 5, 10, 15 s and at the end
    assert progress[0].startswith(
        "closed=17 of=24 running=2 complete=3 pruned=9 diverged=1 failed=4 examples=0 rate=412"
    )
    assert progress[0].endswith("elapsed=192s left=130s")


def lines_about_best(*leaders: list[Leader]) -> list[str]:
    """The lines about the best trial after snapshots with these leading trials, one after the other."""
    out = io.StringIO()
    show = PlainDisplay(out, every=1e9)
    for best in leaders:
        show(snapshot(best=best, messages=()))
    lines = [line.split(maxsplit=1)[1] for line in out.getvalue().splitlines()]
    return [line for line in lines if line.startswith(("best", "furthest"))]


def test_the_best_of_plain_lines_never_falls() -> None:
    low, high = Leader(1, 0.4599, {}, 100), Leader(2, 0.4700, {}, 100)
    further, better = Leader(1, 0.4522, {}, 300), Leader(2, 0.4612, {}, 300)
    lines = lines_about_best([], [low], [low], [high, low], [further, high], [further, high], [better, further])
    assert lines == [
        "best     trial=1 at=100 overall=0.4599",
        "best     trial=2 at=100 overall=0.4700",
        "furthest trial=1 at=300 overall=0.4522",
        "best     trial=2 at=300 overall=0.4612",
    ]


def test_plain_lines_say_which_trial_the_best_one_replaces() -> None:
    """The furthest trial diverged, or failed: the next best trial is written, though its score is lower."""
    failed, second, third = Leader(3, 0.6, {}, 300), Leader(5, 0.5, {}, 100), Leader(4, 0.5, {}, 100)
    assert lines_about_best([failed, second], [second], [third, second]) == [
        "best     trial=3 at=300 overall=0.6000",
        "best     trial=5 at=100 overall=0.5000 instead_of=3",
        "best     trial=4 at=100 overall=0.5000",
    ]


def test_an_attempt_that_repeats_earlier_reports_writes_no_line() -> None:
    first, again = Leader(3, 0.6, {}, 300), Leader(3, 0.5, {}, 100)
    assert len(lines_about_best([first], [again], [first])) == 1


STAGES = {15: StageProgress("mlm", 120, 900), 16: StageProgress("mnrl", 0, 0)}


@pytest.mark.parametrize("width", [80, 140])
def test_trials_in_stages_before_training_show_how_far_they_are(width: int) -> None:
    running = [*RUNNING, waiting(16)]
    text = drawn(snapshot(running=running, stages=STAGES), width)
    assert re.search(r"15  MLM 120/900", text)
    assert re.search(r"16  waits for another's MNRL", text)
    assert len(re.findall(r"^.* 15 ", text, re.MULTILINE)) == 1, "not among those that train"
    many = {trial: StageProgress("nli", 0, 0) for trial in range(20, 32)}
    crowd = drawn(snapshot(running=[*running[:1], *map(waiting, many)], stages=many), width)
    assert "8 more" in crowd
    assert max(map(len, crowd.splitlines())) <= width
    assert len(crowd.splitlines()) <= 24


def test_plain_lines_say_where_a_stage_begins_and_ends() -> None:
    out = io.StringIO()
    show = PlainDisplay(out, every=0.0)
    running = [waiting(15), waiting(16)]
    mlm, nli = StageProgress("mlm", 121, 900), StageProgress("nli", 0, 7)
    moments: list[dict[int, StageProgress]] = [STAGES, {**STAGES, 15: mlm}, {15: nli}, {}]
    for stages in moments:
        show(snapshot(running=running, stages=stages))
    show(snapshot(running=running, stages=STAGES))
    show(snapshot(running=[], stages={}))
    events = [line.split(maxsplit=2)[2] for line in out.getvalue().splitlines() if " stage " in line]
    begins = ["trial=15 stage=mlm begins steps=900", "trial=16 stage=mnrl waits"]
    assert events == [*begins, "trial=15 stage=mlm ends", "trial=15 stage=nli begins steps=7",
                    "trial=15 stage=nli ends", *begins]  # fmt: skip


def test_plain_display_says_nothing_twice() -> None:
    out = io.StringIO()
    show = PlainDisplay(out, every=0.0)
    for _ in range(5):
        show(snapshot())
    assert len(out.getvalue().splitlines()) == 4  # phase, best, message, progress


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (59.6, "1m 00s"),
        (192, "3m 12s"),
        (7500, "2h 05m"),
        (97_200, "1d 03h"),
        (None, "-"),
        (float("nan"), "-"),
    ],
)
def test_duration(seconds: float | None, text: str) -> None:
    assert units.duration(seconds) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (9_999, "9,999"), (12_345, "12.3k"), (999_949, "999.9k"), (1_250_000, "1.25M"), (None, "-")],
)
def test_amount(number: float | None, text: str) -> None:
    assert units.amount(number) == text


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("90s", 90), ("1.5m", 90), ("2h", 7200), ("1d", 86_400)])
def test_parse_duration(text: str, seconds: float) -> None:
    assert units.parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "h", "-3", "0", "5w", "nan", "1h30m"])
def test_parse_duration_names_what_it_accepts(text: str) -> None:
    with pytest.raises(ValueError, match="such as 90s, 15m, 2h"):
        units.parse_duration(text)
