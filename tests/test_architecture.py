"""The shape of the code, read from its syntax trees: who may import whom, no cycles, and a tree of files that is true.

Three libraries that do not know each other and one driver that knows all three. An import counts as lazy when it stands
inside a function (or under TYPE_CHECKING): it costs nothing until that function runs. So does every import of a
`__main__.py`, which is run and never imported.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("hpo", "minbert", "search_spaces", "results")


@dataclass(frozen=True)
class May:
    """What a package may import beside the standard library and itself."""

    import_: frozenset[str] = frozenset()
    """Anywhere."""
    import_lazily: frozenset[str] = frozenset()
    """Inside functions only."""


TABLE: Mapping[str, May] = {
    "search_spaces": May(),
    "minbert": May(
        frozenset({"torch", "numpy", "scipy", "tokenizers", "safetensors"}),
        frozenset({"huggingface_hub", "pyarrow", "rich"}),
    ),
    "results": May(frozenset({"numpy", "scipy", "pyarrow", "pandas", "duckdb", "plotly"})),
    "hpo": May(
        frozenset({"ray", "optuna", "typer", "rich", "minbert", "results", "search_spaces"})
        # what its three libraries stand on, and click, on which typer stands
        | {"torch", "numpy", "scipy", "tokenizers", "safetensors", "huggingface_hub"}
        | {"pyarrow", "pandas", "duckdb", "plotly", "click"}
    ),
}

ONLY: Mapping[str, frozenset[str]] = {
    "minbert/__init__.py": frozenset(),
    "minbert/metrics.py": frozenset({"numpy"}),
    "hpo/search/sweep.py": frozenset({"optuna", "search_spaces"}),
}
"""Files with a narrower rule: all they may import, eagerly or not, beside the standard library and their package."""


ROOMS: Mapping[str, tuple[frozenset[str], ...]] = {
    "hpo": (
        frozenset({"__main__", "hpo"}),
        frozenset({"commands"}),
        frozenset({"display", "exports"}),
        frozenset({"driver"}),
        frozenset({"launch"}),
        frozenset({"search", "worker"}),
        frozenset({"space", "cluster"}),
    ),
    "minbert": (
        frozenset({"__main__"}),
        frozenset({"requirements"}),
        frozenset({"training"}),
        frozenset({"config"}),
        frozenset({"stages"}),
        frozenset({"techniques", "augmentation"}),
        frozenset({"data"}),
        frozenset({"encoder", "metrics"}),
        frozenset({"tasks", "migrations"}),
        frozenset({"fields", "randomness", "disk", "minbert"}),
    ),
}
"""Folders of a package, and files beside them, from the top down. Each may import what stands below it."""


@dataclass(frozen=True)
class Import:
    """One imported module, as an absolute dotted name."""

    module: str
    line: int
    lazy: bool

    @property
    def top(self) -> str:
        return self.module.split(".")[0]


def module_name(path: Path) -> str:
    """`minbert/bert.py` is `minbert.encoder.bert`, `minbert/__init__.py` is `minbert`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(source: str, module: str = "", is_package: bool = False) -> Iterator[Import]:
    """Every import of a file. `from a import b` gives `a.b` (b may be a module), relative ones are resolved."""

    def visit(node: ast.AST, lazy: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            inside = lazy or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                inside = True
            if isinstance(child, ast.Import):
                for alias in child.names:
                    yield Import(alias.name, child.lineno, lazy)
            elif isinstance(child, ast.ImportFrom):
                base = child.module or ""
                if child.level:
                    up = module.split(".") if is_package else module.split(".")[:-1]
                    up = up[: len(up) - child.level + 1]
                    base = ".".join([*up, base]) if base else ".".join(up)
                for alias in child.names:
                    yield Import(f"{base}.{alias.name}", child.lineno, lazy)
            else:
                yield from visit(child, inside)

    yield from visit(ast.parse(source), lazy=False)


def read(path: Path) -> list[Import]:
    return list(imports(path.read_text(encoding="utf-8"), module_name(path), path.name == "__init__.py"))


def files(package: str) -> list[Path]:
    return sorted(path for path in (ROOT / package).rglob("*.py") if "__pycache__" not in path.parts)


def foreign(found: list[Import], package: str) -> list[Import]:
    return [one for one in found if one.top not in sys.stdlib_module_names and one.top != package]


def cycle(graph: Mapping[str, set[str]]) -> list[str]:
    """Some cycle of a directed graph as a path that ends where it began; empty if there is none."""
    done: set[str] = set()

    def walk(node: str, path: list[str]) -> list[str]:
        if node in path:
            return [*path[path.index(node) :], node]
        if node in done:
            return []
        for target in sorted(graph.get(node, ())):
            if circle := walk(target, [*path, node]):
                return circle
        done.add(node)
        return []

    return next((circle for node in sorted(graph) if (circle := walk(node, []))), [])


def module_graph(package: str, *, lazy: bool) -> dict[str, set[str]]:
    """Which module of a package imports which other; `lazy` counts imports inside functions too."""
    paths = {module_name(path): path for path in files(package)}
    graph: dict[str, set[str]] = {}
    for name, path in paths.items():
        targets = set()
        for one in read(path):
            if one.lazy and not lazy:
                continue
            # `a.b.name`: the longest prefix that is a file, so that `from . import x` names x, not the package itself.
            prefixes = [".".join(one.module.split(".")[:n]) for n in range(one.module.count(".") + 1, 0, -1)]
            target = next((prefix for prefix in prefixes if prefix in paths), None)
            if target is not None and target != name:
                targets.add(target)
        graph[name] = targets
    return graph


@pytest.mark.parametrize("package", PACKAGES)
def test_package_imports_what_it_may(package: str) -> None:
    may = TABLE[package]
    wrong = []
    for path in files(package):
        for one in foreign(read(path), package):
            lazy = one.lazy or path.name == "__main__.py"
            if one.top in may.import_ or (lazy and one.top in may.import_lazily):
                continue
            how = "at its top; only lazily, inside a function" if one.top in may.import_lazily else "which it may not"
            wrong.append(f"{path.relative_to(ROOT)}:{one.line} imports {one.module}, {how}")
    assert files(package), f"the package {package} has no files"
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", ONLY)
def test_file_imports_nothing_else(name: str) -> None:
    package = name.split("/")[0]
    path = ROOT / name
    wrong = [
        f"{name}:{one.line} imports {one.module}" for one in foreign(read(path), package) if one.top not in ONLY[name]
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("package", PACKAGES)
def test_no_import_cycles(package: str) -> None:
    assert not (circle := cycle(module_graph(package, lazy=True))), " -> ".join(circle)


def room(module: str) -> str:
    """`hpo.search.sweep` is in `search`, `minbert.config` is `config`, `hpo` is `hpo`."""
    return ".".join(module.split(".")[:2]).rpartition(".")[2]


@pytest.mark.parametrize("package", ROOMS)
def test_folders_import_downwards_only(package: str) -> None:
    floor = {name: number for number, names in enumerate(ROOMS[package]) for name in names}
    graph = module_graph(package, lazy=True)
    unknown = sorted({room(module) for module in graph} - floor.keys())
    gone = sorted(floor.keys() - {room(module) for module in graph})
    assert not unknown, f"no line of ROOMS names {', '.join(unknown)}"
    assert not gone, f"ROOMS names what is not there: {', '.join(gone)}"
    wrong = [
        f"{module} imports {target}: {room(target)} does not stand below {room(module)}"
        for module, targets in sorted(graph.items())
        for target in sorted(targets)
        if room(module) != room(target) and floor[room(target)] <= floor[room(module)]
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("package", ROOMS)
def test_folders_say_their_purpose(package: str) -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in files(package)
        if path.name == "__init__.py" and not (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "")
    ]
    assert not silent, f"no docstring in: {', '.join(silent)}"


@pytest.mark.parametrize("package", ROOMS)
def test_tests_mirror_the_folders(package: str) -> None:
    rooms = {path.parent.relative_to(ROOT / package) for path in files(package)}
    base = ROOT / "tests" / package
    tests = {path.parent.relative_to(base) for path in base.rglob("test_*.py")}
    assert tests <= rooms, f"no folder of {package}: {', '.join(map(str, sorted(tests - rooms)))}"


HEAVY = {
    "minbert": {"torch", "numpy", "scipy", "pyarrow", "tokenizers", "safetensors", "huggingface_hub", "rich"},
    "minbert.metrics": {"torch", "scipy", "pyarrow", "tokenizers", "safetensors", "huggingface_hub", "rich"},
    "search_spaces": {"torch", "numpy", "optuna", "ray", "minbert", "results", "hpo"},
    "results": {"torch", "ray", "optuna", "minbert", "hpo"},
}
"""What an import must not drag in, seen from outside: the imports of imports count too."""


@pytest.mark.parametrize("module", HEAVY)
def test_import_stays_light(module: str) -> None:
    code = f"import sys, {module}; print(*sorted(set(sys.modules) & {HEAVY[module]!r}))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""


def tracked(package: str) -> list[str]:
    """The files of a package that git tracks or would track, relative to the root."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", package]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        pytest.skip("not a git checkout")
    return [name for name in done.stdout.splitlines() if (ROOT / name).is_file()]


TREE_LINE = re.compile(r"^(?P<indent>[ │├└─|`+-]*)(?P<name>[\w.*{},-]+/?)(?:\s{1,}(?P<text>\S.*))?$")


def tree_paths(page: str) -> dict[str, str]:
    """Path -> description of every line of a page's tree: the fenced block in which all four packages stand.

    A line is `indent name  description`, a folder's name ends in `/`, deeper lines are indented further.
    """
    blocks = re.findall(r"^```[^\n]*\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)
    block = next((b for b in blocks if all(re.search(rf"(^|[^\w]){p}/(\s|$)", b, re.MULTILINE) for p in PACKAGES)), "")
    found: dict[str, str] = {}
    folders: list[tuple[int, str]] = []
    for line in block.splitlines():
        match = TREE_LINE.match(line)
        if match is None:
            continue
        indent, name = len(match["indent"]), match["name"]
        while folders and folders[-1][0] >= indent:
            folders.pop()
        path = (folders[-1][1] if folders else "") + name
        if name.endswith("/"):
            folders.append((indent, path))
        found[path] = (match["text"] or "").strip()
    return found


@pytest.mark.parametrize("package", PACKAGES)
def test_the_tree_is_true(package: str) -> None:
    described = tree_paths((ROOT / "docs" / "architecture.md").read_text(encoding="utf-8"))
    # One line for each folder, one for each file of code; the line of a folder is that of its __init__.py.
    needed = set()
    for name in tracked(package):
        path = Path(name)
        if path.suffix != ".py" or path.name == "__init__.py":
            needed.add(f"{path.parent}/")
        else:
            needed.add(name)
    missing = sorted(name for name in needed if not described.get(name))
    gone = sorted(name for name in described if name.startswith(f"{package}/") and not (ROOT / name).exists())
    assert not missing, f"docs/architecture.md has no line (or no words) for: {', '.join(missing)}"
    assert not gone, f"docs/architecture.md names what is not there: {', '.join(gone)}"


def test_imports_are_found_wherever_they_stand() -> None:
    source = "import a.b\nfrom . import c\nfrom ..d import e\ndef f():\n    import g\nif True:\n    from h import i\n"
    found = {(one.module, one.lazy) for one in imports(source, "p.q.r")}
    assert found == {("a.b", False), ("p.q.c", False), ("p.d.e", False), ("g", True), ("h.i", False)}
    assert {one.module for one in imports("from .x import y", "p", is_package=True)} == {"p.x.y"}


def test_cycles_are_found() -> None:
    assert cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert cycle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_tree_is_read() -> None:
    tree = ["hpo/  driver", "├── a.py  does a", "minbert/  core", "  sample/  corpus", "  b.py  does b"]
    text = "\n".join(["```", *tree, "results/  r", "search_spaces/  s", "```", ""])
    found = tree_paths(text)
    assert found["hpo/a.py"] == "does a"
    assert found["minbert/sample/"] == "corpus"
    assert found["minbert/b.py"] == "does b"
