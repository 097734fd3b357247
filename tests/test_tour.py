"""The notebook `examples/tour.ipynb`, run on the sample corpus with a small encoder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.bridges import tool

ROOT = Path(__file__).resolve().parent.parent
TOUR = ROOT / "examples" / "tour.ipynb"


def code_cells() -> list[str]:
    """The code of each cell."""
    cells = json.loads(TOUR.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def smaller(code: str) -> str:
    """A cell with the tiny encoder and a smaller budget."""
    return code.replace('store="tour", ', 'store="tour", base="tiny", ').replace("2_000", "600")


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
        *before, last = smaller(cell).splitlines()
        exec(compile("\n".join([*before, f"shown = {last}"]), str(TOUR), "exec"), names)
        assert repr(names["shown"])
    assert names["sweep"].state == "done"
    assert len(names["sweep"].trials) >= 26
    assert names["record"]["members"]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_kernel_shows_the_progress_and_every_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat, nbclient = tool("nbformat"), tool("nbclient")
    tool("ipykernel")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(TOUR, as_version=4)
    for cell in notebook.cells:
        cell.source = smaller(cell.source)
    place = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=1500, kernel_name="python3", resources=place).execute()
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    shown = {cell.source: [output.data for output in cell.outputs if "data" in output] for cell in cells}
    figures = [code for code in shown if ".plot." in code.splitlines()[-1]]
    assert len(figures) >= 5
    for code in figures:
        assert shown[code][-1]["application/vnd.plotly.v1+json"]["data"], code
    progress, sweep = shown[cells[0].source]
    assert progress["text/html"].startswith("<pre") and "done" in progress["text/plain"], "the last picture stays"
    assert "trials ended" in sweep["text/html"]
