"""The architecture, checked on syntax trees: allowed imports, no cycles, and a true tree of files in the docs.

Three libraries do not import each other; one driver imports all three. An import is lazy if it is inside a function (or
under TYPE_CHECKING): it costs nothing until that function runs. All imports of a `__main__.py` count as lazy, because
it is run and never imported.
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
    """Imports that a package may have beside the standard library and itself."""

    import_: frozenset[str] = frozenset()
    """Allowed anywhere."""
    import_lazily: frozenset[str] = frozenset()
    """Allowed only inside functions."""


TABLE: Mapping[str, May] = {
    "search_spaces": May(),
    "minbert": May(
        frozenset({"torch", "numpy", "scipy", "tokenizers", "safetensors"}),
        frozenset({"huggingface_hub", "pyarrow", "rich"}),
    ),
    "results": May(frozenset({"numpy", "scipy", "pyarrow", "pandas", "duckdb", "plotly", "obstore"})),
    "hpo": May(
        frozenset({"ray", "optuna", "typer", "rich", "minbert", "results", "search_spaces"})
        # dependencies of its three libraries, and click, a dependency of typer
        | {"torch", "numpy", "scipy", "tokenizers", "safetensors", "huggingface_hub"}
        | {"pyarrow", "pandas", "duckdb", "plotly", "click"},
        frozenset({"yaml", "IPython", "tensorboardX", "wandb", "mlflow", "optuna_dashboard"}),
    ),
}

ONLY: Mapping[str, frozenset[str]] = {
    "minbert/__init__.py": frozenset(),
    "minbert/metrics.py": frozenset({"numpy"}),
    "hpo/search/sweep.py": frozenset({"optuna", "search_spaces"}),
}
"""Files with a narrower rule: file -> all that it may import, lazily or not, beside standard library and package."""


ROOMS: Mapping[str, tuple[frozenset[str], ...]] = {
    "hpo": (
        frozenset({"__main__", "hpo"}),
        frozenset({"commands", "api"}),
        frozenset({"report"}),
        frozenset({"display", "exports", "submission"}),
        frozenset({"driver"}),
        frozenset({"launch"}),
        frozenset({"search", "worker"}),
        frozenset({"samplers"}),
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
        frozenset({"caches"}),
        frozenset({"fields", "randomness", "disk", "minbert"}),
    ),
}
"""Package -> its folders and top-level files, from the top down. Each may only import what is below it."""


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
    """Dotted name of a file: `minbert.encoder.bert` of `minbert/encoder/bert.py`, `minbert` of its `__init__.py`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(source: str, module: str = "", is_package: bool = False) -> Iterator[Import]:
    """All imports of a file. `from a import b` gives `a.b` (b may be a module); relative imports are resolved."""

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
    """All imports of the file at `path`."""
    return list(imports(path.read_text(encoding="utf-8"), module_name(path), path.name == "__init__.py"))


def files(package: str) -> list[Path]:
    return sorted(path for path in (ROOT / package).rglob("*.py") if "__pycache__" not in path.parts)


def foreign(listed: list[Import], package: str) -> list[Import]:
    """The imports from outside the standard library and the package."""
    return [imported for imported in listed if imported.top not in sys.stdlib_module_names and imported.top != package]


def cycle(graph: Mapping[str, set[str]]) -> list[str]:
    """A cycle of a directed graph, as a path that ends where it began; empty if there is none."""
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
    """Module -> modules of the same package that it imports; `lazy` includes lazy imports."""
    paths = {module_name(path): path for path in files(package)}
    graph: dict[str, set[str]] = {}
    for name, path in paths.items():
        targets = set()
        for imported in read(path):
            if imported.lazy and not lazy:
                continue
            # Of `a.b.name` the longest prefix that is a file counts, so `from . import x` imports x, not the package.
            prefixes = [".".join(imported.module.split(".")[:n]) for n in range(imported.module.count(".") + 1, 0, -1)]
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
        for imported in foreign(read(path), package):
            lazy = imported.lazy or path.name == "__main__.py"
            if imported.top in may.import_ or (lazy and imported.top in may.import_lazily):
                continue
            rule = "must do so inside a function" if imported.top in may.import_lazily else "must not do so"
            wrong.append(f"{path.relative_to(ROOT)}:{imported.line} imports {imported.module}, but {rule}")
    assert files(package), f"the package {package} has no files"
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", ONLY)
def test_file_imports_nothing_else(name: str) -> None:
    package = name.split("/")[0]
    path = ROOT / name
    wrong = [
        f"{name}:{imported.line} imports {imported.module}"
        for imported in foreign(read(path), package)
        if imported.top not in ONLY[name]
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("package", PACKAGES)
def test_no_import_cycles(package: str) -> None:
    assert not (circle := cycle(module_graph(package, lazy=True))), " -> ".join(circle)


def room(module: str) -> str:
    """Folder or top-level file of a module: `search` of `hpo.search.sweep`, `config` of `minbert.config`."""
    return ".".join(module.split(".")[:2]).rpartition(".")[2]


@pytest.mark.parametrize("package", ROOMS)
def test_folders_import_downwards_only(package: str) -> None:
    floor = {name: number for number, names in enumerate(ROOMS[package]) for name in names}
    graph = module_graph(package, lazy=True)
    missing = sorted({room(module) for module in graph} - floor.keys())
    obsolete = sorted(floor.keys() - {room(module) for module in graph})
    assert not missing, f"ROOMS does not name {', '.join(missing)}"
    assert not obsolete, f"ROOMS names what does not exist: {', '.join(obsolete)}"
    wrong = [
        f"{module} imports {target}: {room(target)} is not below {room(module)}"
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
    "hpo": {"torch", "ray", "optuna", "numpy", "pandas", "pyarrow", "plotly", "typer", "rich", "minbert", "results"},
    "minbert": {"torch", "numpy", "scipy", "pyarrow", "tokenizers", "safetensors", "huggingface_hub", "rich"},
    "minbert.metrics": {"torch", "scipy", "pyarrow", "tokenizers", "safetensors", "huggingface_hub", "rich"},
    "search_spaces": {"torch", "numpy", "optuna", "ray", "minbert", "results", "hpo"},
    "results": {"torch", "ray", "optuna", "minbert", "hpo"},
    "hpo.driver.session": {"torch", "ray", "scipy", "pandas", "pyarrow", "duckdb", "plotly"},
    "hpo.worker.worker": {"torch", "scipy", "optuna", "duckdb", "plotly"},
}
"""Module -> packages that its import must not load, directly or through other imports."""


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
    """Path -> description of each line of a page's tree: the fenced block that names all four packages.

    A line is `indent name  description`. A folder's name ends in `/`; deeper lines are indented further. Raises
    ValueError for a path that is named twice.
    """
    blocks = re.findall(r"^```[^\n]*\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)
    block = next((b for b in blocks if all(re.search(rf"(^|[^\w]){p}/(\s|$)", b, re.MULTILINE) for p in PACKAGES)), "")
    described: dict[str, str] = {}
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
        if path in described:
            raise ValueError(f"the tree names {path} twice")
        described[path] = (match["text"] or "").strip()
    return described


@pytest.mark.parametrize("package", PACKAGES)
def test_the_tree_is_true(package: str) -> None:
    described = tree_paths((ROOT / "docs" / "architecture.md").read_text(encoding="utf-8"))
    # One line for each folder and each file of code; a folder's line stands for its __init__.py.
    needed = set()
    for name in tracked(package):
        path = Path(name)
        if path.suffix != ".py" or path.name == "__init__.py":
            needed.add(f"{path.parent}/")
        else:
            needed.add(name)
    missing = sorted(name for name in needed if not described.get(name))
    obsolete = sorted(name for name in described if name.startswith(f"{package}/") and not (ROOT / name).exists())
    assert not missing, f"docs/architecture.md has no line (or no words) for: {', '.join(missing)}"
    assert not obsolete, f"docs/architecture.md names what does not exist: {', '.join(obsolete)}"


def test_imports_are_found_inside_functions_too() -> None:
    source = "import a.b\nfrom . import c\nfrom ..d import e\ndef f():\n    import g\nif True:\n    from h import i\n"
    names = {(imported.module, imported.lazy) for imported in imports(source, "p.q.r")}
    assert names == {("a.b", False), ("p.q.c", False), ("p.d.e", False), ("g", True), ("h.i", False)}
    assert {imported.module for imported in imports("from .x import y", "p", is_package=True)} == {"p.x.y"}


def test_cycles_are_found() -> None:
    assert cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert cycle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_tree_is_read() -> None:
    tree = ["hpo/  driver", "├── a.py  does a", "minbert/  core", "  sample/  corpus", "  b.py  does b"]
    text = "\n".join(["```", *tree, "results/  r", "search_spaces/  s", "```", ""])
    described = tree_paths(text)
    assert described["hpo/a.py"] == "does a"
    assert described["minbert/sample/"] == "corpus"
    assert described["minbert/b.py"] == "does b"
    with pytest.raises(ValueError, match=r"names hpo/a\.py twice"):
        tree_paths(text.replace("├── a.py  does a", "├── a.py  does a\n├── a.py  does b"))


@pytest.mark.parametrize("page", ["techniques.md", "security.md"])
def test_the_tests_that_the_docs_name_exist(page: str) -> None:
    """`test_heads.py::test_cosine`, and file names without a test."""
    tests: dict[str, str] = {}
    for path in (ROOT / "tests").rglob("test_*.py"):
        tests[path.name] = tests.get(path.name, "") + path.read_text(encoding="utf-8")
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    named = re.findall(r"(test_\w+\.py)(?:::(test_\w+))?", text)
    assert named
    gone = [f"{file}::{test}" for file, test in named if f"def {test}" not in tests.get(file, "")]
    assert not gone, f"docs/{page} names what is not there: {', '.join(gone)}"


UNSAFE_MODULES = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
UNSAFE_CALLS = {"eval", "exec", "torch.load", "yaml.load", "yaml.unsafe_load"}


def unsafe(source: str) -> Iterator[str]:
    """What in a file could run code that the data hold."""
    yield from (imported.module for imported in imports(source) if imported.top in UNSAFE_MODULES)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            if (name := ast.unparse(node.func)) in UNSAFE_CALLS or name.endswith("read_pickle"):
                yield name
            yield from (keyword.arg for keyword in node.keywords if keyword.arg == "allow_pickle")


@pytest.mark.parametrize("package", PACKAGES)
def test_nothing_is_unpickled(package: str) -> None:
    wrong = [f"{path.relative_to(ROOT)}: {name}" for path in files(package) for name in unsafe(path.read_text())]
    assert not wrong, wrong


def test_what_could_run_foreign_code_is_found() -> None:
    source = "from pickle import load\ntorch.load(x)\nnp.load(x, allow_pickle=True)\ndef f():\n    pd.read_pickle(x)\n"
    assert sorted(unsafe(source)) == ["allow_pickle", "pd.read_pickle", "pickle.load", "torch.load"]
