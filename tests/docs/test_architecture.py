"""docs/architecture.md names files, functions and classes that exist."""

import ast
import re

import pytest

from tests.helpers.markdown import DOCS, ROOT, section

PACKAGE = ROOT / "dietnerf_ns"
PAGE = "architecture.md"
ROW = r"^\| [^|]+ \| `([\w/]+\.py)` \| ([^|]+) \|$"


def names_defined_in(path: str) -> set[str]:
    """Functions, classes, methods as Class.method, and module constants of a file of the package."""
    tree = ast.parse((PACKAGE / path).read_text())
    defined = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            defined.add(node.name)
        if isinstance(node, ast.ClassDef):
            defined |= {f"{node.name}.{part.name}" for part in node.body if isinstance(part, ast.FunctionDef)}
        if isinstance(node, ast.Assign):
            defined |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            defined.add(node.target.id)
    return defined


def places() -> list[tuple[str, str]]:
    rows = re.findall(ROW, section(PAGE, "Where to look"), re.MULTILINE)
    return [(path, name) for path, names in rows for name in re.findall(r"`([\w.]+)`", names)]


def test_the_table_has_places():
    assert len(places()) >= 8


@pytest.mark.parametrize("path, name", places())
def test_what_the_table_names_is_there(path, name):
    assert name in names_defined_in(path)


def test_constants_and_classes_are_where_the_page_says():
    stated = re.findall(r"`(\w+)`\s+in\s+`([\w/]+\.py)`", (DOCS / PAGE).read_text())
    assert len(stated) >= 4
    wrong = [(name, path) for name, path in stated if name not in names_defined_in(path)]
    assert not wrong


def test_files_exist():
    named = set(re.findall(r"\b[\w/]+\.py\b", (DOCS / PAGE).read_text()))
    folders = [ROOT, PACKAGE, *(path for path in PACKAGE.iterdir() if path.is_dir())]
    missing = [name for name in named if not any((folder / name).exists() for folder in folders)]
    assert not missing
