"""docs/troubleshooting.md has every error and every warning of the package."""

import ast
import re
from collections.abc import Iterator

import pytest

from tests.docs.markdown import DOCS, ROOT

PAGE = " ".join((DOCS / "troubleshooting.md").read_text().split())
FRAGMENT_LENGTH = 40
SHORTEST_FRAGMENT = 8  # "{path}: {reason}" has no words of its own
RICH_TAG = r"\[/?(?:bold )?(?:red|yellow)\]"


def fragment(message: ast.expr) -> str:
    """The start of the longest part of a message that is always the same."""
    parts = message.values if isinstance(message, ast.JoinedStr) else [message]
    fixed = [re.sub(RICH_TAG, "", part.value).strip() for part in parts if isinstance(part, ast.Constant)]
    return max(fixed, key=len, default="")[:FRAGMENT_LENGTH].strip()


def said_to_users() -> Iterator[tuple[str, str]]:
    for path in sorted((ROOT / "dietnerf_ns").rglob("*.py")):
        for call in ast.walk(ast.parse(path.read_text())):
            if not isinstance(call, ast.Call) or not call.args:
                continue
            name, message = ast.unparse(call.func), call.args[0]
            is_warning = name == "CONSOLE.print" and re.search(RICH_TAG, ast.unparse(message))
            if (name == "UserError" or is_warning) and len(fragment(message)) >= SHORTEST_FRAGMENT:
                yield f"{path.relative_to(ROOT)}:{call.lineno}", fragment(message)


def test_some_are_found():
    assert len(list(said_to_users())) > 50


@pytest.mark.parametrize("where, words", list(said_to_users()))
def test_every_message_has_its_way_out(where, words):
    assert words in PAGE, f"{where} says {words!r}: add it to docs/troubleshooting.md"
