"""The display of a sweep in a notebook: the picture of `hpo.display.live` in the cell's output, replaced as it changes.

IPython is there where a notebook runs, so nothing has to be installed, ipywidgets neither.
"""

from __future__ import annotations

from collections.abc import Callable
from io import StringIO
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.console import Console, RenderableType

if TYPE_CHECKING:
    from hpo.search.snapshot import Snapshot

WIDTH = 110
"""Width of the picture in columns."""
FRAME = '<pre style="line-height: normal; font-family: monospace">{code}</pre>'


class NotebookDisplay:
    """Observer of a sweep that draws the picture in a notebook. `activity`: what the driver does before the first
    snapshot, in words."""

    def __init__(self, picture: Callable[[Snapshot, int], RenderableType], activity: str = "") -> None:
        """`picture`: the drawing of a snapshot, for a width in columns."""
        self.picture = picture
        self.activity = activity
        self._handle: Any = None
        """IPython's handle of the output."""

    def __enter__(self) -> NotebookDisplay:
        from IPython.display import display

        words = f"starting: {self.activity} ..."
        self._handle = display({"text/plain": words}, raw=True, display_id=True)
        return self

    def __call__(self, snapshot: Snapshot) -> None:
        self._handle.update(as_html(self.picture(snapshot, WIDTH)), raw=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """The last picture stays."""


def as_html(picture: RenderableType) -> dict[str, str]:
    """The picture as a notebook takes it: MIME type -> content."""
    console = Console(record=True, width=WIDTH, file=StringIO(), force_jupyter=False)
    console.print(picture)
    html = console.export_html(inline_styles=True, code_format=FRAME, clear=False)
    return {"text/html": html, "text/plain": console.export_text()}
