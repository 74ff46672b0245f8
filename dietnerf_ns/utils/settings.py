"""Which settings of a configuration were changed."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import MISSING, fields
from typing import Any


def changed_fields(config: Any, names: Collection[str]) -> list[str]:
    """Those of the named fields whose values are not the defaults of the configuration's class.

    Args:
        config: a dataclass whose named fields have defaults.
        names: of the fields.
    """
    changed = []
    for field in fields(config):
        if field.name in names:
            default = field.default if field.default_factory is MISSING else field.default_factory()
            if getattr(config, field.name) != default:
                changed.append(field.name)
    return changed
