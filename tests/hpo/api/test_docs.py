"""The examples of docs/python.md, run in their order with a trainer that needs no model."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from hpo.cluster.connection import Cluster

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_examples_run(ray_cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    short = 'base="tiny", budget=900, repeats=1, gpus_per_trial=0.0, trainer="tests.hpo.fakes"'
    names: dict[str, Any] = {}
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 6
    for block in blocks:
        if ".predict(" in block:
            continue  # it needs real weights: tests/hpo/commands/test_exports.py runs it
        code = block.replace("budget=2_000", short).replace("trials=25)", 'trials=25, trainer="tests.hpo.fakes")')
        exec(compile(code, "docs/python.md", "exec"), names)
    assert len(names["sweep"].trials) > 25, "24 trials, one more, and repeats"
    assert (tmp_path / "study.db").is_file()
    assert names["figure"].data
    assert names["found"].sides[1].sweep == "tracked"
