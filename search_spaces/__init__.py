"""Search spaces by name: one module per question asked, each with `SPACE`, a tree of domains. Plain data.

A new space is a new file in this folder; `names()` lists the files, `load(name)` imports one when it is asked for.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path

from search_spaces.domains import Float, Int, Kind, Node, OneOf, PerTask, SpaceError

__all__ = ["Float", "Int", "Kind", "Node", "OneOf", "PerTask", "SpaceError", "describe", "load", "names"]


def names() -> tuple[str, ...]:
    """The spaces of this package, by file name."""
    files = (path.stem for path in Path(__file__).parent.glob("*.py"))
    return tuple(sorted(name for name in files if name != "domains" and not name.startswith("_")))


def load(name: str) -> Mapping[str, Node]:
    """The tree of the space called `name`."""
    space: Mapping[str, Node] = _module(name).SPACE
    return space


def describe(name: str) -> str:
    """What the space asks: its docstring."""
    return (_module(name).__doc__ or "").strip()


def _module(name: str):  # type: ignore[no-untyped-def]
    if name not in names():
        near = get_close_matches(name, names(), n=1)
        hint = f" Did you mean `{near[0]}`?" if near else ""
        raise SpaceError(f"Unknown search space `{name}`.{hint} Expected one of: {', '.join(names())}, "
                         "or the path of a .py file that holds SPACE = {...}.")
    return importlib.import_module(f"{__name__}.{name}")
