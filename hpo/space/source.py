"""Sources of search spaces: loaded from a name, a Python file or a tree; stored as JSON with a hash.

`load_space` takes a name from `search_spaces/`, a Python file with `SPACE = {...}`, or the tree itself. A sweep stores
the tree as JSON. The tree that `from_json` makes gives the same draws, even if the Python file has changed since.
"""

from __future__ import annotations

import hashlib
import json
import runpy
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import search_spaces
from hpo.space.shape import refuse_endless
from search_spaces.domains import Float, Int, Kind, Node, OneOf, PerTask, SpaceError


def load_space(source: str | Path | Mapping[str, Node]) -> Mapping[str, Node]:
    """The tree of a name, of a Python file's path, or the tree itself. Raises SpaceError."""
    if isinstance(source, Mapping):
        return _tree(source, "the given space")
    if isinstance(source, Path) or source.endswith(".py") or "/" in source:
        return _from_file(Path(source).expanduser())
    return search_spaces.load(source)


def _from_file(path: Path) -> Mapping[str, Node]:
    if not path.is_file():
        raise SpaceError(f"No search space at {path}: expected a Python file that holds SPACE = {{...}}.")
    try:
        module = runpy.run_path(str(path))
    except SpaceError as error:
        raise SpaceError(f"{_line_in(path, error)}: {error}") from error
    except (Exception, SystemExit) as error:  # the user's code may raise anything
        raise SpaceError(f"{_line_in(path, error)}: {type(error).__name__}: {error}") from error
    if "SPACE" not in module:
        raise SpaceError(f"{path} defines no SPACE. Expected SPACE = {{...}}, a dict of domains such as "
                         '{"dropout": {"hidden": Float(0.0, 0.3)}}.')
    return _tree(module["SPACE"], f"SPACE in {path}")


def _line_in(path: Path, error: BaseException) -> str:
    """`file:line` of the line in the user's file that raised."""
    if isinstance(error, SyntaxError):
        return f"{path}:{error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return f"{path}:{lines[-1]}" if lines else str(path)


def _tree(space: Any, name: str) -> Mapping[str, Node]:
    """The space, if it is a finite dictionary; `name` names it in errors."""
    if not isinstance(space, Mapping):
        raise SpaceError(f"{name} must be a dict of domains, not {type(space).__name__} {space!r}.")
    refuse_endless(space)
    return space


def to_json(node: Node) -> Any:
    """A tree as JSON. Choices are lists of pairs, because their order matters; the order of keys does not.

    A choice with weights is a list of triples: label or branch, value or tree, weight.
    """
    if isinstance(node, Float):
        return {"$float": {"low": node.low, "high": node.high, "log": node.log, **_prior(node)}}
    if isinstance(node, Int):
        return {"$int": {"low": node.low, "high": node.high, "step": node.step, "log": node.log, **_prior(node)}}
    if isinstance(node, OneOf):
        pairs = [[label, value] for label, value in zip(node.labels, node.values, strict=True)]
        return {"$one_of": _with_weights(pairs, node)}
    if isinstance(node, Kind):
        pairs = [[name, to_json(branch)] for name, branch in node.branches.items()]
        return {"$kind": _with_weights(pairs, node.choice)}
    if isinstance(node, PerTask):
        raise SpaceError("PerTask is written out over the tasks before a space is stored: expand(space, tasks).")
    return {key: to_json(child) for key, child in node.items()}


def _prior(node: Float | Int) -> dict[str, float]:
    """The fields of a numeric prior that are set. A tree without priors is stored as before there were any."""
    return {name: value for name in ("prior", "sigma") if (value := getattr(node, name)) is not None}


def _with_weights(pairs: list[list[Any]], choice: OneOf) -> list[list[Any]]:
    """The pairs of a choice, each with its weight if the choice has weights."""
    if choice.share is not None:
        raise SpaceError(f"{choice}: priors are resolved before a space is stored: Space.resolved(complete).")
    if choice.weights is None:
        return pairs
    return [[*pair, weight] for pair, weight in zip(pairs, choice.weights, strict=True)]


def from_json(tree: Any) -> Any:
    """The tree from which `to_json` made this JSON."""
    if not isinstance(tree, Mapping):
        raise SpaceError(f"A stored search space must be a dict, not {tree!r}.")
    if len(tree) == 1:
        [(key, content)] = tree.items()
        if key in _DOMAINS:
            return _DOMAINS[key](content)
    return {key: from_json(child) for key, child in tree.items()}


def _weights(content: Sequence[Sequence[Any]]) -> list[tuple[str, float]]:
    """The labels of a stored choice with their weights; empty if it has no weights."""
    return [(item[0], item[2]) for item in content if len(item) == 3]


_DOMAINS: Mapping[str, Callable[[Any], Node]] = {
    "$float": lambda content: Float(**content),
    "$int": lambda content: Int(**content),
    "$one_of": lambda content: OneOf(
        labels={label: value for label, value, *_ in content},
        weights=[weight for _, weight in weights] if (weights := _weights(content)) else None,
    ),
    "$kind": lambda content: Kind(
        weights=dict(weights) if (weights := _weights(content)) else None,
        **{name: from_json(branch) for name, branch, *_ in content},
    ),
}


def space_hash(space: Mapping[str, Node]) -> str:
    """SHA-256 of the canonical JSON form: equal hashes draw equal configurations from equal results."""
    text = json.dumps(to_json(space), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
