"""The chain of stages: keys, the cache, interruptions, and the death of the computing process."""

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
from minbert.stages import chain as chain_module
from minbert.stages.cache import CacheEntry
from minbert.stages.chain import Result, check, keys, staged
from minbert.stages.loop import StageLoop
from minbert.stages.stages import MLM, MNRL, NLI, Stages

CPU = torch.device("cpu")
SHORT: dict[str, Any] = {"batch_size": 4, "max_length": 16}
ALONE = {
    "mlm": Stages(mlm=MLM(epochs=0.07, lr=1e-3, **SHORT)),  # 480 texts: 8 steps
    "nli": Stages(nli=NLI(epochs=0.13, lr=1e-3, **SHORT)),  # 240 pairs: 8 steps
    "mnrl": Stages(mnrl=MNRL(epochs=0.4, lr=1e-3, **SHORT)),  # 80 pairs: 8 steps
}
"""Chains of a single stage, by its kind."""

ALL = Stages(ALONE["mlm"].mlm, ALONE["nli"].nli, ALONE["mnrl"].mnrl)


@pytest.fixture(scope="session")
def staging_data(data: Data, tmp_path_factory: pytest.TempPathFactory) -> Data:
    """The small corpus with the sample's NLI pairs beside it."""
    folder = shutil.copytree(data.folder, tmp_path_factory.mktemp("nli") / "corpus")
    shutil.copy(SAMPLE / "nli-train.tsv", folder)
    return replace(data, folder=folder)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of the steps that any stage takes from now on."""
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


def test_every_step_of_a_stage_reaches_the_progress_callback(staging_data: Data, tmp_path: Path) -> None:
    calls: list[tuple[str, int, int]] = []
    chain = Stages(mlm=ALONE["mlm"].mlm, mnrl=ALONE["mnrl"].mnrl)
    stops = iter([False] * 3 + [True])
    assert staged(chain, staging_data, cache=tmp_path, should_pause=lambda: next(stops),
                  on_stage=lambda *call: calls.append(call)) is None  # fmt: skip
    assert calls == [("mlm", done, 8) for done in range(4)]
    calls.clear()
    run(chain, staging_data, tmp_path, on_stage=lambda *call: calls.append(call))
    assert calls == [("mlm", done, 8) for done in range(3, 9)] + [("mnrl", done, 8) for done in range(9)]
    calls.clear()
    run(chain, staging_data, tmp_path, on_stage=lambda *call: calls.append(call))
    assert calls == [], "loaded from the cache, not computed"
    with CacheEntry(tmp_path / "stages", keys(ALONE["nli"], staging_data, torch.float32, CPU)[0][0]).lock():
        stops = iter([False, True])
        assert staged(ALONE["nli"], staging_data, cache=tmp_path, should_pause=lambda: next(stops),
                      on_stage=lambda *call: calls.append(call)) is None  # fmt: skip
    assert calls == [("nli", 0, 0)], "another process computes it"


def assert_same(first: Result, second: Result) -> None:
    assert first.tensors is not None and second.tensors is not None and first.tensors.keys() == second.tensors.keys()
    for name, tensor in first.tensors.items():
        assert torch.equal(tensor, second.tensors[name]), name
    assert (first.key, first.sha256, first.examples) == (second.key, second.sha256, second.examples)


def pause_after(polls: int) -> Callable[[], bool]:
    count = iter(range(10**9))
    return lambda: next(count) >= polls


def entry_of(stages: Stages, data: Data, cache: Path) -> CacheEntry:
    return CacheEntry(cache / "stages", keys(stages, data, torch.float32, CPU)[-1][0])


# Results and keys ----------------------------------------------------------------------------------------------------


def test_no_stage_leaves_the_base_as_it_is(staging_data: Data, tmp_path: Path) -> None:
    base = staging_data.base.sha256
    assert staged(Stages(), staging_data, cache=tmp_path) == Result(None, base, base)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ALONE)
def test_a_stage_is_computed_once_and_loads_into_an_encoder(
    name: str, staging_data: Data, tmp_path: Path, steps: list[int]
) -> None:
    torch.manual_seed(1)
    first = run(ALONE[name], staging_data, tmp_path)
    again = run(ALONE[name], staging_data, tmp_path)
    assert steps == list(range(8)) and (first.hits, again.hits) == (0, 1)
    assert_same(first, again)
    assert first.seconds == again.seconds > 0 and first.examples == 32
    encoder = staging_data.base.load()
    assert first.tensors is not None
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    encoder.load_state_dict(first.tensors)
    # Every tensor was trained, except key biases, whose gradient is 0 up to rounding.
    assert not [
        key for key, value in before.items() if torch.equal(value, first.tensors[key]) and "key.bias" not in key
    ]
    # Another cache and another global seed give the same result.
    torch.manual_seed(2)
    assert_same(run(ALONE[name], staging_data, tmp_path / "other"), first)


def test_the_chain_shares_its_beginnings(staging_data: Data, tmp_path: Path, steps: list[int]) -> None:
    first = run(Stages(mlm=ALL.mlm, nli=ALL.nli), staging_data, tmp_path)
    assert len(steps) == 16 and first.hits == 0 and first.examples == 64
    whole = run(ALL, staging_data, tmp_path)
    assert len(steps) == 24 and whole.hits == 2 and whole.examples == 96 and whole.seconds > first.seconds
    shutil.rmtree(entry_of(ALONE["mlm"], staging_data, tmp_path).path)  # a cached stage needs none before it
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
    def stage_keys(data: Data) -> list[str]:
        return [keys(stages, data, torch.float32, CPU)[0][0] for stages in (ALONE["mlm"], ALONE["mnrl"], ALONE["nli"])]

    plain = stage_keys(staging_data)
    dev = {**staging_data.parts, ("sst", "search"): np.array([0], np.int32), ("sst", "held"): np.array([1], np.int32)}
    assert stage_keys(replace(staging_data, parts=dev, fingerprint="other")) == plain
    fewer = {**staging_data.parts, ("sst", "train"): staging_data.parts["sst", "train"][:-1]}
    assert [a == b for a, b in zip(stage_keys(replace(staging_data, parts=fewer)), plain, strict=True)] == [
        False,
        True,
        True,
    ]
    pairs = {**staging_data.parts, ("qqp", "train"): staging_data.parts["qqp", "train"][:-1]}
    assert [a == b for a, b in zip(stage_keys(replace(staging_data, parts=pairs)), plain, strict=True)] == [
        False,
        False,
        True,
    ]


def test_a_missing_nli_file_is_found_before_any_compute(staging_data: Data, tmp_path: Path, steps: list[int]) -> None:
    corpus = read_corpus(staging_data.folder)
    check(ALL, corpus)
    check(Stages(mlm=ALL.mlm, mnrl=ALL.mnrl), replace(corpus, folder=tmp_path))
    expected = rf"neither {tmp_path}/data/nli-train.tsv nor {tmp_path}/nli/nli-train.tsv exists"
    with pytest.raises(DataError, match=expected):
        check(ALL, replace(corpus, folder=tmp_path / "data"))
    with pytest.raises(DataError, match=expected):
        staged(ALL, replace(staging_data, folder=tmp_path / "data"), cache=tmp_path)
    with pytest.raises(DataError, match=r"no usable rows for `stages/nli/source` mnli"):
        check(Stages(nli=NLI(source="mnli")), corpus)
    assert not steps


def test_pairs_that_mean_the_same_are_looked_for_before_any_compute(staging_data: Data) -> None:
    corpus, stages = read_corpus(staging_data.folder), Stages(mnrl=ALL.mnrl)
    alone = replace(corpus, tasks={name: task for name, task in corpus.tasks.items() if not task.is_pair})
    with pytest.raises(DataError, match=r"needs training pairs that mean the same; the tasks sst have none"):
        check(stages, alone)
    scored = replace(corpus, tasks={"sts": corpus.tasks["sts"]})
    check(stages, scored)
    with pytest.raises(DataError, match=r"`stages/mnrl/min_score` must be a label of sts, from 0 to 5, found 99"):
        check(Stages(mnrl=replace(ALL.mnrl, min_score=99.0)), scored)


# Interruption --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALONE)
@pytest.mark.parametrize("polls", [1, 5])
def test_interrupted_equals_unbroken(
    name: str, polls: int, staging_data: Data, tmp_path: Path, steps: list[int]
) -> None:
    whole = run(ALONE[name], staging_data, tmp_path / "a")
    steps.clear()
    rounds = 0
    while (result := staged(ALONE[name], staging_data, cache=tmp_path / "b", should_pause=pause_after(polls))) is None:
        rounds += 1
    assert rounds == {1: 7, 5: 1}[polls] and steps == list(range(8))
    assert_same(whole, result)
    names = sorted(path.name for path in (tmp_path / "b" / "stages").iterdir())
    assert names == [result.key, f"{result.key}.lock"]  # no partial result is left


def test_an_interrupted_chain_continues_where_it_stopped(staging_data: Data, tmp_path: Path, steps: list[int]) -> None:
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
    monkeypatch.setattr(CacheEntry, "save_partial", lambda self, partial: written.append(partial.position["step"]))
    run(ALONE["nli"], staging_data, tmp_path / "a")
    assert written == []
    monkeypatch.setattr(chain_module, "PARTIAL_SECONDS", 0.0)
    run(ALONE["nli"], staging_data, tmp_path / "b")
    assert written == list(range(1, 8))  # the last step writes the result instead


def test_a_damaged_partial_result_begins_anew(
    staging_data: Data, tmp_path: Path, steps: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    whole = run(ALONE["nli"], staging_data, tmp_path / "a")
    assert staged(ALONE["nli"], staging_data, cache=tmp_path / "b", should_pause=pause_after(4)) is None
    partial = entry_of(ALONE["nli"], staging_data, tmp_path / "b").partial
    partial.write_bytes(partial.read_bytes()[:-100])
    steps.clear()
    assert_same(run(ALONE["nli"], staging_data, tmp_path / "b"), whole)
    assert steps == list(range(8)) and "is damaged; the stage begins anew" in caplog.text


def test_a_diverged_stage_is_cached_as_diverged(
    staging_data: Data, tmp_path: Path, steps: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("minbert.stages.loop.CLIP_NORM", float("nan"))
    for hits in (0, 1):
        result = staged(ALL, staging_data, cache=tmp_path)
        assert result is not None and result.diverged and result.hits == hits
        assert result.key == entry_of(ALONE["mlm"], staging_data, tmp_path).key  # the later stages never ran
    assert len(steps) == 2


# Damage --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "damage", "message"),
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
    message: str,
    staging_data: Data,
    tmp_path: Path,
    steps: list[int],
    caplog: pytest.LogCaptureFixture,
) -> None:
    first = run(ALONE["nli"], staging_data, tmp_path)
    file = entry_of(ALONE["nli"], staging_data, tmp_path).path / name
    if damage is None:
        file.unlink()
    else:
        file.write_bytes(damage(file.read_bytes()))
    again = run(ALONE["nli"], staging_data, tmp_path)
    assert_same(first, again)
    assert len(steps) == 16 and again.hits == 0
    assert "is damaged and will be computed again" in caplog.text and message in caplog.text
    assert run(ALONE["nli"], staging_data, tmp_path).hits == 1


def test_an_unwritable_cache_is_a_clear_error(staging_data: Data, tmp_path: Path, steps: list[int]) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"`MINBERT_CACHE` .*file/cache/stages cannot be written: Not a directory"):
        staged(ALONE["nli"], staging_data, cache=tmp_path / "file" / "cache")
    assert not steps


def test_a_full_disk_loses_progress_with_a_warning(
    staging_data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*args: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(stage_cache, "save_file", full)
        assert staged(ALONE["nli"], staging_data, cache=tmp_path, should_pause=pause_after(2)) is None
        assert "cannot be saved" in caplog.text
        with pytest.raises(DataError, match="cannot be written: No space left on device"):
            staged(ALONE["nli"], staging_data, cache=tmp_path)
    run(ALONE["nli"], staging_data, tmp_path)


def test_a_result_is_there_whole_or_not_at_all(
    staging_data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = entry_of(ALONE["nli"], staging_data, tmp_path)
    seen: list[bool] = []
    sync = stage_cache.sync

    def watched(path: Path) -> None:
        seen.append(entry.path.exists())
        sync(path)

    monkeypatch.setattr(stage_cache, "sync", watched)
    run(ALONE["nli"], staging_data, tmp_path)
    assert seen == [False, False, False, True]  # weights, done.json and their folder before the rename, then its folder
    done = json.loads((entry.path / "done.json").read_text())
    assert done["examples"] == 32 and done["recipe"]["settings"]["kind"] == "nli" and done["seconds"] > 0


def test_a_half_written_result_of_a_dead_process_is_deleted(staging_data: Data, tmp_path: Path) -> None:
    entry = entry_of(ALONE["nli"], staging_data, tmp_path)
    entry._building.mkdir(parents=True)
    (entry._building / "encoder.safetensors").write_bytes(b"half")
    run(ALONE["nli"], staging_data, tmp_path)
    assert sorted(path.name for path in entry.folder.iterdir()) == [entry.key, f"{entry.key}.lock"]


# Several processes ---------------------------------------------------------------------------------------------------


def test_threads_compute_a_stage_once(staging_data: Data, tmp_path: Path, steps: list[int]) -> None:
    results: list[Result] = []
    threads = [
        threading.Thread(target=lambda: results.append(run(ALONE["nli"], staging_data, tmp_path))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert steps == list(range(8)) and sorted(result.hits for result in results) == [0, 1, 1, 1]
    assert len({result.sha256 for result in results}) == 1


def test_a_waiting_caller_can_be_paused(staging_data: Data, tmp_path: Path) -> None:
    entry = entry_of(ALONE["nli"], staging_data, tmp_path)
    begun = time.monotonic()
    with entry.lock() as held:
        assert held
        assert staged(ALONE["nli"], staging_data, cache=tmp_path, should_pause=pause_after(3)) is None
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
def test_two_processes_compute_a_stage_once(staging_data: Data, tmp_path: Path) -> None:
    command = [sys.executable, "-c", SCRIPT, str(tmp_path), str(staging_data.folder)]
    root = Path(__file__).resolve().parents[3]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) for _ in range(2)]
    outputs = [process.communicate(timeout=100)[0].splitlines() for process in processes]
    assert sorted(sum(line.startswith("step") for line in lines) for lines in outputs) == [0, 8]
    expected = f"sha256 {run(ALONE['nli'], staging_data, tmp_path / 'other').sha256}"
    assert outputs[0][-1] == outputs[1][-1] == expected


def hang_at_step_4(data: Data, cache: Path) -> None:
    """Compute until step 4, save after every step, then hang; runs in a process of its own."""
    step = StageLoop.step

    def hanging(self: StageLoop) -> None:
        if self.step_count == 4:
            time.sleep(300)
        step(self)

    StageLoop.step = hanging  # type: ignore[method-assign]
    chain_module.PARTIAL_SECONDS = 0.0
    staged(ALONE["nli"], data, cache=cache)


def test_a_waiting_process_takes_over_when_the_computing_one_dies(
    staging_data: Data, tmp_path: Path, steps: list[int]
) -> None:
    """kill -9 at step 4: the waiting process continues from the partial result and gets the same weights."""
    whole = run(ALONE["nli"], staging_data, tmp_path / "a")
    steps.clear()
    cache = tmp_path / "b"
    entry = entry_of(ALONE["nli"], staging_data, cache)
    first = multiprocessing.get_context("fork").Process(target=hang_at_step_4, args=(staging_data, cache))
    first.start()
    assert first.pid is not None
    polls = 0
    while (partial := entry.load_partial()) is None or partial.position["step"] < 4:
        assert first.is_alive()
        time.sleep(0.05)

    def watch() -> bool:
        """Kill the computing process at the third poll of the waiting one."""
        nonlocal polls
        polls += 1
        if polls == 3:
            assert not steps
            os.kill(first.pid or 0, signal.SIGKILL)
            first.join()
        return False

    result = run(ALONE["nli"], staging_data, cache, should_pause=watch)
    assert first.exitcode == -signal.SIGKILL
    assert steps == [4, 5, 6, 7]
    assert_same(whole, result)


def test_the_lock_is_a_flock_of_the_kernel(staging_data: Data, tmp_path: Path) -> None:
    """A `flock` on the same file, taken without this code, keeps others out."""
    entry = entry_of(ALONE["nli"], staging_data, tmp_path)
    entry.folder.mkdir(parents=True)
    with (entry.folder / f"{entry.key}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with entry.lock() as held:
            assert not held
