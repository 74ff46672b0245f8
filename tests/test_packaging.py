"""What pyproject.toml promises: everything that is imported gets installed because somebody asked for it."""

from __future__ import annotations

import ast
import sys
from importlib.metadata import packages_distributions, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import dietnerf_ns

FROM_AN_EXTRA = {"torch_fidelity"}  # of torchmetrics[image], which nerfstudio asks for
PACKAGE = Path(dietnerf_ns.__file__).parent


def required_by(distribution: str, extras: tuple[str, ...] = ("",)) -> set[str]:
    requirements = map(Requirement, requires(distribution))
    return {
        canonicalize_name(r.name)
        for r in requirements
        if r.marker is None or any(r.marker.evaluate({"extra": extra}) for extra in extras)
    }


def imported_modules() -> set[str]:
    modules = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                modules.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                modules.add(node.module)
    return {module.partition(".")[0] for module in modules}


def test_every_imported_package_is_a_dependency_of_this_one_or_of_nerfstudio():
    declared = required_by("dietnerf-ns", extras=("", "ray")) | required_by("nerfstudio")
    providers = packages_distributions()
    others = imported_modules() - set(sys.stdlib_module_names) - {"dietnerf_ns"}
    assert len(others) > 10
    undeclared = {m for m in others if not {canonicalize_name(d) for d in providers.get(m, ())} & declared}
    assert undeclared == FROM_AN_EXTRA
