"""The public names of the package `hpo`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_each_public_name_is_one_object_whatever_was_imported() -> None:
    """Python would replace a function by a submodule of the same name once that is imported."""
    code = (
        "import importlib, pkgutil, hpo\n"
        "first = {name: getattr(hpo, name) for name in hpo.__all__}\n"
        "modules = [m.name for m in pkgutil.walk_packages(hpo.__path__, 'hpo.') if not m.name.endswith('__main__')]\n"
        "for name in modules: importlib.import_module(name)\n"
        "assert len(modules) > 40, modules\n"
        "for name in hpo.__all__:\n"
        "    assert getattr(hpo, name) is first[name] is getattr(hpo, name), name\n"
        "    assert callable(first[name]), name\n"
        "assert not set(hpo.__all__) & {name.split('.')[1] for name in modules}\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
