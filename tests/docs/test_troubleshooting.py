"""docs/troubleshooting.md quotes messages as the package writes them."""

import ast
import re
from collections.abc import Iterator

import pytest

from tests.helpers.markdown import DOCS, ROOT

MESSAGE = r"``(.+?)``"
SETTING_AND_VALUE = re.compile(r"^--[^:]*:")  # put together when the error is shown; test_pages.py checks settings
RICH_TAG = re.compile(r"\[/?(?:bold )?(?:red|yellow)\]")
SHORTEST_FRAGMENT = 4


def strings_of_the_package() -> Iterator[str]:
    """Every string in the code, the parts of an f-string between its values on their own."""
    for path in sorted((ROOT / "dietnerf_ns").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield RICH_TAG.sub("", node.value)


def fragments(message: str) -> list[str]:
    """The parts of a quoted message that are always the same."""
    parts = (part.strip(" :.,") for part in SETTING_AND_VALUE.sub("", message).split("..."))
    return [part for part in parts if len(part) >= SHORTEST_FRAGMENT]


CODE = "\n".join(strings_of_the_package())
MESSAGES = re.findall(MESSAGE, (DOCS / "troubleshooting.md").read_text())


def test_some_messages_are_quoted():
    assert len(MESSAGES) > 30


@pytest.mark.parametrize("message", MESSAGES)
def test_quoted_messages_exist(message):
    assert fragments(message), "no words to look for"
    missing = [words for words in fragments(message) if words not in CODE]
    assert not missing, "the package does not say this"
