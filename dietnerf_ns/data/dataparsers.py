"""nerfstudio's dataparsers, with errors that name the data and poses that a single camera position cannot break."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from nerfstudio.data.dataparsers.base_dataparser import DataParser, DataParserConfig, DataparserOutputs
from nerfstudio.utils.rich_utils import CONSOLE

from dietnerf_ns.utils.errors import READ_ERRORS, UserError, in_one_line

LARGEST_SCALE = 1e6
"""Dataparsers divide positions by the largest one. For cameras at one position that is rounding error, or zero."""


def checked(config: DataParserConfig) -> DataParserConfig:
    """The same dataparser, whose failures are `UserError`s.

    Args:
        config: of any of nerfstudio's dataparsers; left as it is.
    """
    parser = config._target
    return replace(config, _target=type(parser.__name__, (_CheckedDataParser, parser), {}))


@contextlib.contextmanager
def _translated(config: DataParserConfig) -> Iterator[None]:
    try:
        yield
    except (UserError, torch.OutOfMemoryError):
        raise
    except READ_ERRORS as error:
        raise UserError(f"The dataparser cannot read {config.data}: {in_one_line(error)}") from error


class _CheckedDataParser(DataParser if TYPE_CHECKING else object):
    def __init__(self, config: DataParserConfig):
        with _translated(config):
            super().__init__(config)

    def get_dataparser_outputs(self, split: str = "train", **kwargs) -> DataparserOutputs:
        """Images and cameras of a split.

        Raises:
            UserError: the dataparser cannot read its data; the dataparser's error is the cause.
        """
        with _translated(self.config):
            return self._with_usable_scale(split, **kwargs)

    def _with_usable_scale(self, split: str, **kwargs) -> DataparserOutputs:
        if not getattr(self.config, "auto_scale_poses", False):
            return super().get_dataparser_outputs(split, **kwargs)
        try:
            outputs = super().get_dataparser_outputs(split, **kwargs)
            if outputs.dataparser_scale < LARGEST_SCALE:
                return outputs
        except ZeroDivisionError:
            pass
        CONSOLE.print(
            "[yellow]All cameras are at one position, which says nothing about the scene's size: the poses keep their "
            "scale. Depth is not determined by such photos; take some from other positions.[/yellow]"
        )
        self.config = replace(self.config, auto_scale_poses=False)
        return super().get_dataparser_outputs(split, **kwargs)
