"""Search spaces by name: each module asks one question and holds `SPACE`, a tree of domains. Spaces are plain data.

A new file in this folder is a new space. `names()` lists the files; `load(name)` imports one of them.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType

from search_spaces.domains import Float, Int, Kind, Node, OneOf, PerTask, SpaceError

__all__ = ["Float", "Int", "Kind", "Node", "OneOf", "PerTask", "SpaceError", "describe", "load", "names"]


def names() -> tuple[str, ...]:
    """Names of the spaces in this package: their file names, sorted."""
    files = (path.stem for path in Path(__file__).parent.glob("*.py"))
    return tuple(sorted(name for name in files if name != "domains" and not name.startswith("_")))


def load(name: str) -> Mapping[str, Node]:
    """The tree of the space `name`. Raises SpaceError for an unknown name."""
    space: Mapping[str, Node] = _module(name).SPACE
    return space


def describe(name: str) -> str:
    """The docstring of the space `name`. Its first paragraph is `name: question`, the rest gives ranges and costs."""
    return (_module(name).__doc__ or "").strip()


def _module(name: str) -> ModuleType:
    if name not in names():
        near = get_close_matches(name, names(), n=1)
        hint = f" Did you mean `{near[0]}`?" if near else ""
        raise SpaceError(f"Unknown search space `{name}`.{hint} Expected one of: {', '.join(names())}, "
                         "or the path of a .py file that holds SPACE = {...}.")
    return importlib.import_module(f"{__name__}.{name}")
