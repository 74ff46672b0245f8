"""Finds keys that a YAML file has twice, of which PyYAML would take the last without a word."""

from __future__ import annotations

import yaml

MERGE = "tag:yaml.org,2002:merge"
"""Tag of the key `<<`. A mapping may have several, all of which count."""


def repeated_key(text: str) -> str | None:
    """A key that a mapping has more than once, and where; None if there is none.

    Raises:
        yaml.YAMLError: the text is not YAML.
    """
    return _repeated_key(yaml.compose(text, yaml.SafeLoader))


def _repeated_key(node: yaml.Node | None) -> str | None:
    children = []
    if isinstance(node, yaml.SequenceNode):
        children = node.value
    elif isinstance(node, yaml.MappingNode):
        lines: dict[str, int] = {}
        for key, value in node.value:
            children.append(value)
            if not isinstance(key, yaml.ScalarNode) or key.tag == MERGE:
                continue
            line = key.start_mark.line + 1
            if key.value in lines:
                return f"lines {lines[key.value]} and {line} both have the key {key.value}"
            lines[key.value] = line
    return next(filter(None, map(_repeated_key, children)), None)
