"""The notebook `examples/tour.ipynb`, run on the sample corpus with a small encoder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

TOUR = Path(__file__).resolve().parent.parent / "examples" / "tour.ipynb"


def code_cells() -> list[str]:
    """The code of each cell."""
    cells = json.loads(TOUR.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def test_the_notebook_has_no_outputs() -> None:
    """Outputs would show a machine's paths, and scores of the sample that mean nothing."""
    cells = json.loads(TOUR.read_text(encoding="utf-8"))["cells"]
    assert all(cell["outputs"] == [] for cell in cells if cell["cell_type"] == "code")


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its cells in order, with the tiny encoder; the value of each cell's last line can be shown."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for cell in code_cells():
        code = cell.replace('store="tour", ', 'store="tour", base="tiny", ').replace("2_000", "600")
        *before, last = code.splitlines()
        exec(compile("\n".join([*before, f"shown = {last}"]), str(TOUR), "exec"), names)
        assert repr(names["shown"])
    assert names["sweep"].state == "done"
    assert len(names["sweep"].trials) >= 26
    assert names["record"]["members"]
