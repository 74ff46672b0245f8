"""Objects of the real classes without what their constructors need."""

from __future__ import annotations

from typing import Any, TypeVar

from torch import nn

T = TypeVar("T")


def bare(kind: type[T], **attributes: Any) -> T:
    """An instance whose constructor has not run and that has just these attributes."""
    instance = object.__new__(kind)
    if isinstance(instance, nn.Module):
        nn.Module.__init__(instance)
    for name, value in attributes.items():
        object.__setattr__(instance, name, value)
    return instance
