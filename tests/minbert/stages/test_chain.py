"""The chain of stages: keys, the cache, interruption, and whoever computes dying at it."""

from __future__ import annotations

import errno
import fcntl
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from minbert.data.files import SAMPLE, DataError, read_corpus
from minbert.data.tokens import Data
from minbert.stages import cache as stage_cache
from minbert.stages import chain as staging
from minbert.stages.cache import Entry
from minbert.stages.chain import Result, keys, needs, staged
from minbert.stages.loop import StageLoop
from minbert.stages.stages import MLM, MNRL, NLI, Stages

CPU = torch.device("cpu")
SHORT: dict[str, Any] = {"batch_size": 4, "max_length": 16}
ONE = {
    "mlm": Stages(mlm=MLM(epochs=0.07, lr=1e-3, **SHORT)),  # 480 texts: 8 steps
    "nli": Stages(nli=NLI(epochs=0.13, lr=1e-3, **SHORT)),  # 240 pairs: 8 steps
    "mnrl": Stages(mnrl=MNRL(epochs=0.4, lr=1e-3, **SHORT)),  # 80 pairs: 8 steps
}
ALL = Stages(ONE["mlm"].mlm, ONE["nli"].nli, ONE["mnrl"].mnrl)


@pytest.fixture(scope="session")
def staging_data(data: Data, tmp_path_factory: pytest.TempPathFactory) -> Data:
    """The small corpus with the sample's NLI pairs beside it."""
    folder = shutil.copytree(data.folder, tmp_path_factory.mktemp("nli") / "corpus")
    shutil.copy(SAMPLE / "nli-train.tsv", folder)
    return replace(data, folder=folder)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Every step that any stage takes from now on."""
    taken: list[int] = []
    step = StageLoop.step

    def counted(self: StageLoop) -> None:
        taken.append(self.step_count)
        step(self)

    monkeypatch.setattr(StageLoop, "step", counted)
    return taken


def run(stages: Stages, data: Data, cache: Path, **options: Any) -> Result:
    result = staged(stages, data, cache=cache, **options)
    assert result is not None and result.tensors is not None
    return result


def test_every_step_of_a_stage_is_told(staging_data: Data, tmp_path: Path) -> None:
    heard: list[tuple[str, int, int]] = []
    chain = Stages(mlm=ONE["mlm"].mlm, mnrl=ONE["mnrl"].mnrl)
    stops = iter([False] * 3 + [True])
    assert staged(chain, staging_data, cache=tmp_path, should_pause=lambda: next(stops),
                  on_stage=lambda *told: heard.append(told)) is None  # fmt: skip
    assert heard == [("mlm", done, 8) for done in range(4)]
    heard.clear()
    run(chain, staging_data, tmp_path, on_stage=lambda *told: heard.append(told))
    assert heard == [("mlm", done, 8) for done in range(3, 9)] + [("mnrl", done, 8) for done in range(9)]
    heard.clear()
    run(chain, staging_data, tmp_path, on_stage=lambda *told: heard.append(told))
    assert heard == [], "found, not computed"
    with Entry(tmp_path / "stages", keys(ONE["nli"], staging_data, torch.float32, CPU)[0][0]).lock():
        stops = iter([False, True])
        assert staged(ONE["nli"], staging_data, cache=tmp_path, should_pause=lambda: next(stops),
                      on_stage=lambda *told: heard.append(told)) is None  # fmt: skip
    assert heard == [("nli", 0, 0)], "another one computes it"


def assert_same(one: Result, two: Result) -> None:
    assert one.tensors is not None and two.tensors is not None and one.tensors.keys() == two.tensors.keys()
    for name, tensor in one.tensors.items():
        assert torch.equal(tensor, two.tensors[name]), name
    assert (one.key, one.sha256, one.examples) == (two.key, two.sha256, two.examples)


def pause_after(polls: int) -> Callable[[], bool]:
    count = iter(range(10**9))
    return lambda: next(count) >= polls


def entry_of(stages: Stages, data: Data, cache: Path) -> Entry:
    return Entry(cache / "stages", keys(stages, data, torch.float32, CPU)[-1][0])


# Results and keys ----------------------------------------------------------------------------------------------------


def test_no_stage_leaves_the_base_as_it_is(staging_data: Data, tmp_path: Path) -> None:
    base = staging_data.base.sha256
    assert staged(Stages(), staging_data, cache=tmp_path) == Result(None, base, base)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ONE)
def test_a_stage_is_computed_once_and_loads_into_an_encoder(
    name: str, staging_data: Data, tmp_path: Path, steps: list[int]
) -> None:
    torch.manual_seed(1)
    first = run(ONE[name], staging_data, tmp_path)
    again = run(ONE[name], staging_data, tmp_path)
    assert steps == list(range(8)) and (first.hits, again.hits) == (0, 1)
    assert_same(first, again)
    assert first.seconds == again.seconds > 0 and first.examples == 32
    encoder = staging_data.base.load()
    assert first.tensors is not None
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    encoder.load_state_dict(first.tensors)
    # All of it was trained, but for key biases, whose gradient is 0 but for rounding, and rows never looked up.
    assert not [
        key for key, value in before.items() if torch.equal(value, first.tensors[key]) and "key.bias" not in key
    ]
    # Elsewhere, with other global randomness, it comes out the same.
    torch.manual_seed(2)
    assert_same(run(ONE[name], staging_data, tmp_path / "other"), first)


def test_the_chain_shares_its_beginnings(staging_data: Data, tmp_path: Path, steps: list[int]) -> None:
    first = run(Stages(mlm=ALL.mlm, nli=ALL.nli), staging_data, tmp_path)
    assert len(steps) == 16 and first.hits == 0 and first.examples == 64
    whole = run(ALL, staging_data, tmp_path)
    assert len(steps) == 24 and whole.hits == 2 and whole.examples == 96 and whole.seconds > first.seconds
    shutil.rmtree(entry_of(ONE["mlm"], staging_data, tmp_path).path)  # what is there needs nothing before it
    again = run(ALL, staging_data, tmp_path)
    assert len(steps) == 24 and again.hits == 3
    assert_same(whole, again)
    assert again.seconds == whole.seconds


def test_keys_hold_all_that_decides_a_result(staging_data: Data, tmp_path: Path) -> None:
    float32 = torch.float32

    def key(stages: Stages, data: Data = staging_data, dtype: torch.dtype = float32, device: str = "cpu") -> str:
        return keys(stages, data, dtype, torch.device(device))[-1][0]

    nli, mlm = NLI(epochs=5.0), MLM()
    plain = key(Stages(nli=nli))
    assert key(Stages(nli=NLI(epochs=5))) == plain
    base = staging_data.base
    others = [
        key(Stages(nli=replace(nli, lr=6e-6))),
        key(Stages(nli=replace(nli, source="mnli"))),
        key(Stages(nli=nli, mlm=mlm)),
        key(Stages(nli=nli, mlm=replace(mlm, mask_rate=0.2))),
        key(Stages(nli=nli), dtype=torch.bfloat16),
        key(Stages(nli=nli), device="cuda"),
        key(Stages(nli=nli), replace(staging_data, base=replace(base, sha256="other"))),
        key(Stages(nli=nli), replace(staging_data, base=replace(base, lowercase=False))),
    ]
    folder = tmp_path / "nli"
    folder.mkdir()
    (folder / "nli-train.tsv").write_text((SAMPLE / "nli-train.tsv").read_text() + "A\tB\tneutral\tx\n")
    others.append(key(Stages(nli=nli), replace(staging_data, folder=tmp_path / "data")))
    assert len({plain, *others}) == len(others) + 1


def test_only_the_rows_that_a_stage_reads_enter_its_key(staging_data: Data) -> None:
    def found(data: Data) -> list[str]:
        return [keys(stages, data, torch.float32, CPU)[0][0] for stages in (ONE["mlm"], ONE["mnrl"], ONE["nli"])]

    plain = found(staging_data)
    dev = {**staging_data.parts, ("sst", "search"): np.array([0], np.int32), ("sst", "held"): np.array([1], np.int32)}
    assert found(replace(staging_data, parts=dev, fingerprint="other")) == plain
    fewer = {**staging_data.parts, ("sst", "train"): staging_data.parts["sst", "train"][:-1]}
    assert [a == b for a, b in zip(found(replace(staging_data, parts=fewer)), plain, strict=True)] == [
        False,
        True,
        True,
    ]
    pairs = {**staging_data.parts, ("qqp", "train"): staging_data.parts["qqp", "train"][:-1]}
    assert [a == b for a, b in zip(found(replace(staging_data, parts=pairs)), plain, strict=True)] == [
        False,
        False,
        True,
    ]


def test_a_missing_nli_file_is_found_before_any_compute(staging_data: Data, tmp_path: Path, steps: list[int]) -> None:
    corpus = read_corpus(staging_data.folder)
    needs(ALL, corpus)
    needs(Stages(mlm=ALL.mlm, mnrl=ALL.mnrl), replace(corpus, folder=tmp_path))
    expected = rf"neither {tmp_path}/data/nli-train.tsv nor {tmp_path}/nli/nli-train.tsv is there"
    with pytest.raises(DataError, match=expected):
        needs(ALL, replace(corpus, folder=tmp_path / "data"))
    with pytest.raises(DataError, match=expected):
        staged(ALL, replace(staging_data, folder=tmp_path / "data"), cache=tmp_path)
    with pytest.raises(DataError, match=r"no usable rows for `stages/nli/source` mnli"):
        needs(Stages(nli=NLI(source="mnli")), corpus)
    assert not steps


def test_pairs_that_mean_the_same_are_looked_for_before_any_compute(staging_data: Data) -> None:
    corpus, stages = read_corpus(staging_data.folder), Stages(mnrl=ALL.mnrl)
    alone = replace(corpus, tasks={name: task for name, task in corpus.tasks.items() if not task.is_pair})
    with pytest.raises(DataError, match=r"needs pairs that mean the same, and the tasks sst have none"):
        needs(stages, alone)
    scored = replace(corpus, tasks={"sts": corpus.tasks["sts"]})
    needs(stages, scored)
    with pytest.raises(DataError, match=r"`stages/mnrl/min_score` must be a label of sts, from 0 to 5, found 99"):
        needs(Stages(mnrl=replace(ALL.mnrl, min_score=99.0)), scored)


# Interruption --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ONE)
@pytest.mark.parametrize("polls", [1, 5])
def test_interrupted_equals_unbroken(
    name: str, polls: int, staging_data: Data, tmp_path: Path, steps: list[int]
) -> None:
    whole = run(ONE[name], staging_data, tmp_path / "a")
    steps.clear()
    rounds = 0
    while (result := staged(ONE[name], staging_data, cache=tmp_path / "b", should_pause=pause_after(polls))) is None:
        rounds += 1
    assert rounds == {1: 7, 5: 1}[polls] and steps == list(range(8))
    assert_same(whole, result)
    names = sorted(path.name for path in (tmp_path / "b" / "stages").iterdir())
    assert names == [result.key, f"{result.key}.lock"]  # no partial result is left


def test_an_interrupted_chain_goes_on_where_it_stood(staging_data: Data, tmp_path: Path, steps: list[int]) -> None:
    whole = run(ALL, staging_data, tmp_path / "a")
    steps.clear()
    while (result := staged(ALL, staging_data, cache=tmp_path / "b", should_pause=pause_after(3))) is None:
        pass
    assert steps == [*range(8)] * 3
    assert_same(whole, result)
    assert 0 < result.seconds < 60 and result.examples == 96


def test_partial_results_are_written_at_most_once_a_minute(
    staging_data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    monkeypatch.setattr(Entry, "save_partial", lambda self, partial: written.append(partial.position["step"]))
    run(ONE["nli"], staging_data, tmp_path / "a")
    assert written == []
    monkeypatch.setattr(staging, "PARTIAL_SECONDS", 0.0)
    run(ONE["nli"], staging_data, tmp_path / "b")
    assert written == list(range(1, 8))  # the end writes the result itself


def test_a_damaged_partial_result_begins_anew(
    staging_data: Data, tmp_path: Path, steps: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    whole = run(ONE["nli"], staging_data, tmp_path / "a")
    assert staged(ONE["nli"], staging_data, cache=tmp_path / "b", should_pause=pause_after(4)) is None
    partial = entry_of(ONE["nli"], staging_data, tmp_path / "b").partial
    partial.write_bytes(partial.read_bytes()[:-100])
    steps.clear()
    assert_same(run(ONE["nli"], staging_data, tmp_path / "b"), whole)
    assert steps == list(range(8)) and "is damaged and begins anew" in caplog.text


def test_a_stage_that_diverges_is_kept_as_such(
    staging_data: Data, tmp_path: Path, steps: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("minbert.stages.loop.CLIP_NORM", float("nan"))
    for hits in (0, 1):
        result = staged(ALL, staging_data, cache=tmp_path)
        assert result is not None and result.diverged and result.hits == hits
        assert result.key == entry_of(ONE["mlm"], staging_data, tmp_path).key  # the later stages never ran
    assert len(steps) == 2


# Damage --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "damage", "said"),
    [
        ("encoder.safetensors", lambda content: content[: len(content) // 2], "has SHA-256"),
        ("encoder.safetensors", lambda content: content[:-1] + bytes([content[-1] ^ 1]), "has SHA-256"),
        ("encoder.safetensors", None, "encoder.safetensors is missing"),
        ("done.json", lambda content: content[:20], "char"),
        ("done.json", lambda content: b"{}", "missing"),
        ("done.json", None, "done.json is missing"),
    ],
)
def test_a_damaged_result_is_computed_again_with_a_warning(
    name: str,
    damage: Callable[[bytes], bytes] | None,
    said: str,
    staging_data: Data,
    tmp_path: Path,
    steps: list[int],
    caplog: pytest.LogCaptureFixture,
) -> None:
    first = run(ONE["nli"], staging_data, tmp_path)
    file = entry_of(ONE["nli"], staging_data, tmp_path).path / name
    if damage is None:
        file.unlink()
    else:
        file.write_bytes(damage(file.read_bytes()))
    again = run(ONE["nli"], staging_data, tmp_path)
    assert_same(first, again)
    assert len(steps) == 16 and again.hits == 0
    assert "is damaged and will be computed again" in caplog.text and said in caplog.text
    assert run(ONE["nli"], staging_data, tmp_path).hits == 1


def test_an_unwritable_cache_is_a_clear_error(staging_data: Data, tmp_path: Path, steps: list[int]) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"`MINBERT_CACHE` .*file/cache/stages cannot be written: Not a directory"):
        staged(ONE["nli"], staging_data, cache=tmp_path / "file" / "cache")
    assert not steps


def test_a_full_disk_loses_progress_but_tells(
    staging_data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*args: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(stage_cache, "save_file", full)
        assert staged(ONE["nli"], staging_data, cache=tmp_path, should_pause=pause_after(2)) is None
        assert "cannot be kept" in caplog.text
        with pytest.raises(DataError, match="cannot be written: No space left on device"):
            staged(ONE["nli"], staging_data, cache=tmp_path)
    run(ONE["nli"], staging_data, tmp_path)


def test_a_result_is_there_whole_or_not_at_all(
    staging_data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = entry_of(ONE["nli"], staging_data, tmp_path)
    seen: list[bool] = []
    sync = stage_cache.sync

    def watched(path: Path) -> None:
        seen.append(entry.path.exists())
        sync(path)

    monkeypatch.setattr(stage_cache, "sync", watched)
    run(ONE["nli"], staging_data, tmp_path)
    assert seen == [False, False, False, True]  # weights, done.json and their folder before the rename, then its folder
    done = json.loads((entry.path / "done.json").read_text())
    assert done["examples"] == 32 and done["recipe"]["settings"]["kind"] == "nli" and done["seconds"] > 0


def test_what_a_dead_process_left_half_written_is_cleared(staging_data: Data, tmp_path: Path) -> None:
    entry = entry_of(ONE["nli"], staging_data, tmp_path)
    entry._building.mkdir(parents=True)
    (entry._building / "encoder.safetensors").write_bytes(b"half")
    run(ONE["nli"], staging_data, tmp_path)
    assert sorted(path.name for path in entry.folder.iterdir()) == [entry.key, f"{entry.key}.lock"]


# Several at once -----------------------------------------------------------------------------------------------------


def test_threads_compute_it_once(staging_data: Data, tmp_path: Path, steps: list[int]) -> None:
    results: list[Result] = []
    threads = [
        threading.Thread(target=lambda: results.append(run(ONE["nli"], staging_data, tmp_path))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert steps == list(range(8)) and sorted(result.hits for result in results) == [0, 1, 1, 1]
    assert len({result.sha256 for result in results}) == 1


def test_one_who_waits_can_be_paused(staging_data: Data, tmp_path: Path) -> None:
    entry = entry_of(ONE["nli"], staging_data, tmp_path)
    begun = time.monotonic()
    with entry.lock() as held:
        assert held
        assert staged(ONE["nli"], staging_data, cache=tmp_path, should_pause=pause_after(3)) is None
    assert 0.7 < time.monotonic() - begun < 10
    with entry.lock() as held:
        assert held


SCRIPT = """
import sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
from minbert.encoder.base import find_base
from minbert.data.tokens import open_data
from minbert.stages.loop import StageLoop
from minbert.stages.stages import NLI, Stages
from minbert.stages.chain import staged

cache, folder = Path(sys.argv[1]), Path(sys.argv[2])
step = StageLoop.step
def slow(self):
    print("step", self.step_count)
    time.sleep(0.2)
    step(self)
StageLoop.step = slow
data = open_data(folder, find_base("tiny"), cache=cache)
result = staged(Stages(nli=NLI(epochs=0.13, lr=1e-3, batch_size=4, max_length=16)), data, cache=cache)
print("sha256", result.sha256)
"""


@pytest.mark.slow  # two cold starts
def test_two_processes_compute_it_once(staging_data: Data, tmp_path: Path) -> None:
    command = [sys.executable, "-c", SCRIPT, str(tmp_path), str(staging_data.folder)]
    root = Path(__file__).resolve().parents[3]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) for _ in range(2)]
    lines = [process.communicate(timeout=100)[0].splitlines() for process in processes]
    assert sorted(sum(line.startswith("step") for line in one) for one in lines) == [0, 8]
    expected = f"sha256 {run(ONE['nli'], staging_data, tmp_path / 'other').sha256}"
    assert lines[0][-1] == lines[1][-1] == expected


def hang_at_step_4(data: Data, cache: Path) -> None:
    """In a process of its own: compute until step 4, keeping every step, and stay there."""
    step = StageLoop.step

    def hanging(self: StageLoop) -> None:
        if self.step_count == 4:
            time.sleep(300)
        step(self)

    StageLoop.step = hanging  # type: ignore[method-assign]
    staging.PARTIAL_SECONDS = 0.0
    staged(ONE["nli"], data, cache=cache)


def test_the_death_of_the_one_who_computes_hands_over(staging_data: Data, tmp_path: Path, steps: list[int]) -> None:
    """kill -9 at step 4 while another waits: that one goes on from the partial result, to the same weights."""
    whole = run(ONE["nli"], staging_data, tmp_path / "a")
    steps.clear()
    cache = tmp_path / "b"
    entry = entry_of(ONE["nli"], staging_data, cache)
    first = multiprocessing.get_context("fork").Process(target=hang_at_step_4, args=(staging_data, cache))
    first.start()
    assert first.pid is not None
    polls = 0
    while (partial := entry.load_partial()) is None or partial.position["step"] < 4:
        assert first.is_alive()
        time.sleep(0.05)

    def watch() -> bool:
        """After the waiting one has asked three times, the other dies."""
        nonlocal polls
        polls += 1
        if polls == 3:
            assert not steps
            os.kill(first.pid or 0, signal.SIGKILL)
            first.join()
        return False

    result = run(ONE["nli"], staging_data, cache, should_pause=watch)
    assert first.exitcode == -signal.SIGKILL
    assert steps == [4, 5, 6, 7]
    assert_same(whole, result)


def test_the_lock_is_the_kernels(staging_data: Data, tmp_path: Path) -> None:
    """Whoever holds it elsewhere, by `flock` on the same file, keeps others out."""
    entry = entry_of(ONE["nli"], staging_data, tmp_path)
    entry.folder.mkdir(parents=True)
    with (entry.folder / f"{entry.key}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with entry.lock() as held:
            assert not held
