"""Imports are declared and go down only, the version has one source, entry points load, data files are shipped."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Iterator
from importlib.metadata import distributions, packages_distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import dietnerf_ns
from tests.helpers.markdown import ROOT, code_blocks

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
PACKAGE = ROOT / "dietnerf_ns"
# As installed: a folder *.egg-info in the checkout can be older.
(INSTALLED,) = distributions(name=PROJECT["name"], path=[sysconfig.get_path("purelib")])
LAYERS = [  # from the bottom up: a module imports from its own layer and from those before it
    {"utils"},
    {"geometry"},
    {"data"},
    {"fields"},
    {"models"},
    {"semantic"},
    {"training"},
    {"orbit", "poses", "viewer"},
    {"pipeline", "semantic_method", "methods", "nerfstudio_methods"},
    {"similarity", "bench", "commands"},
]
CREATED_BY_THE_PAGES = [  # by the commands in README.md and docs/
    "outputs/unnamed/dietnerf-tiny/run/config.yml",
    "metrics.json",
    "video.mp4",
    "points/point_cloud.ply",
    "results/smoke/report.md",
    "renders/test/rgb/00000.png",
    "similarity/matrix.png",
    "site/index.html",
]
needs_git = pytest.mark.skipif(
    shutil.which("git") is None or not (ROOT / ".git").exists(), reason="this is not a git checkout"
)


def names(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(requirement).name) for requirement in requirements}


def extra(name: str) -> set[str]:
    """The distributions that an extra asks for, those of the extras named in it included."""
    requirements = PROJECT["optional-dependencies"][name]
    own = [Requirement(r).extras for r in requirements if canonicalize_name(Requirement(r).name) == PROJECT["name"]]
    return (names(requirements) - {PROJECT["name"]}).union(*(extra(inner) for extras in own for inner in extras))


def imported_by(*folders: str) -> set[str]:
    """Top-level modules that are neither Python's nor this repository's."""
    modules = set()
    for path in (path for folder in folders for path in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                modules.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                modules.add(node.module)
    return (
        {module.partition(".")[0] for module in modules}
        - set(sys.stdlib_module_names)
        - {
            "dietnerf_ns",
            "tests",
            "tools",
        }
    )


def layer(module: str) -> int:
    """Position in LAYERS of a module of the package, such as `dietnerf_ns.data.capture`."""
    part = module.split(".")[1]
    return next(position for position, parts in enumerate(LAYERS) if part in parts)


def own_imports() -> Iterator[tuple[str, str]]:
    """Pairs of modules of the package: which one imports, and what."""
    for path in PACKAGE.rglob("*.py"):
        importing = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module.startswith("dietnerf_ns."):
                yield importing, node.module


def providers(modules: set[str]) -> dict[str, set[str]]:
    """The distributions that bring each module; one that is not installed here counts by the module's own name."""
    installed = packages_distributions()
    return {module: {canonicalize_name(name) for name in installed.get(module, [module])} for module in modules}


def undeclared(modules: set[str], declared: set[str]) -> set[str]:
    return {module for module, provided_by in providers(modules).items() if not provided_by & declared}


def git(*arguments: str) -> list[str]:
    command = ["git", "-c", "safe.directory=*", *arguments]  # in a container the checkout belongs to another user
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()


def shipped_files() -> Iterator[Path]:
    patterns = PYPROJECT["tool"]["setuptools"]["package-data"]["dietnerf_ns"]
    return (path for pattern in patterns for path in PACKAGE.glob(pattern))


def test_every_imported_package_is_declared():
    modules = imported_by("dietnerf_ns")
    assert len(modules) > 20
    assert not undeclared(
        modules,
        names(PROJECT["dependencies"])
        | extra("ray")
        | extra("perceptual")
        | extra("learned")
        | extra("heic")
        | extra("cutout"),
    )


def test_every_package_that_the_tests_and_tools_import_is_declared():
    declared = names(PROJECT["dependencies"]) | extra("dev")
    assert not undeclared(imported_by("tests", "tools"), declared)


def test_every_declared_dependency_is_imported():
    used = set().union(*providers(imported_by("dietnerf_ns")).values())
    assert names(PROJECT["dependencies"]) | extra("ray") <= used


def test_imports_go_down_only():
    pairs = list(own_imports())
    assert len(pairs) > 100
    assert not {(importing, imported) for importing, imported in pairs if layer(imported) > layer(importing)}


def test_the_version_has_one_source():
    assert "version" not in PROJECT and PROJECT["dynamic"] == ["version"]
    assert PYPROJECT["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "dietnerf_ns.__version__"}
    reinstall = "the installed metadata is older: pip install --no-deps --editable ."
    assert INSTALLED.version == dietnerf_ns.__version__, reinstall


def test_the_changelog_starts_with_this_version():
    releases = re.findall(r"^## \[?(\d[^\]\s]*)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert releases[0] == dietnerf_ns.__version__


def test_entry_points_load():
    declared = {("console_scripts", name, target) for name, target in PROJECT["scripts"].items()} | {
        (group, name, target) for group, points in PROJECT["entry-points"].items() for name, target in points.items()
    }
    installed = INSTALLED.entry_points
    assert {(point.group, point.name, point.value) for point in installed} == declared
    for point in installed:
        loaded = point.load()
        assert callable(loaded) if point.group == "console_scripts" else loaded.config.method_name == point.name


def test_every_data_file_of_the_package_is_shipped():
    files = {path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert {path for path in files if path.suffix != ".py"} == set(shipped_files())
    assert PACKAGE / "py.typed" in files


def test_every_folder_with_modules_is_a_package():
    folders = {path.parent for path in PACKAGE.rglob("*.py")}
    assert not {folder for folder in folders if not (folder / "__init__.py").exists()}


def test_the_citation_is_the_paper_that_the_readme_names():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0" and citation["license"] == PROJECT["license"]
    paper = citation["preferred-citation"]
    (bibtex,) = code_blocks((ROOT / "README.md").read_text(), "bibtex")
    fields = dict(re.findall(r"(\w+)\s*= \{(.*)\}", bibtex))
    authors = [f"{author['family-names']}, {author['given-names']}" for author in paper["authors"]]
    assert paper["title"] == fields["title"]
    assert " and ".join(authors) == fields["author"]
    assert str(paper["year"]) == fields["year"]
    assert f"{paper['start']}--{paper['end']}" == fields["pages"]


def test_every_part_of_the_library_has_a_page_in_the_reference():
    pages = "".join(page.read_text() for page in (ROOT / "docs" / "reference").glob("*.md"))
    documented = set(re.findall(r"^::: dietnerf_ns\.(\w+)$", pages, re.MULTILINE))
    assert documented == set().union(*LAYERS) - {"orbit", "similarity", "bench", "commands"}


@needs_git
def test_no_tracked_file_is_ignored():
    assert git("ls-files", "--cached", "--ignored", "--exclude-standard") == []


@needs_git
@pytest.mark.parametrize("path", CREATED_BY_THE_PAGES)
def test_what_the_pages_commands_write_is_ignored(path):
    assert git("check-ignore", path) == [path]
