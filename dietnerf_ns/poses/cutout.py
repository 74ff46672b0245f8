"""The object in each photo, by a segmentation network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from jaxtyping import Bool
from PIL import Image
from tqdm import tqdm

from dietnerf_ns.utils.errors import UserError

NETWORK = "u2net"
"""Named, because the default of rembg depends on its version, and the network of 2.0.86 is not for commercial use."""


class Network:
    """rembg with its weights (U2-Net, Qin et al., Pattern Recognition 2020), which are loaded when they are needed."""

    @cached_property
    def _cut(self) -> Callable[[Image.Image], Image.Image]:
        rembg = _package()
        try:
            session = rembg.new_session(NETWORK)
        except Exception as error:  # pooch, requests and onnxruntime raise errors of their own
            raise UserError(
                f"--cutout: the weights of rembg could not be loaded ({type(error).__name__}). Without a network, copy "
                f"{NETWORK}.onnx from rembg's releases to ~/.u2net, or give --masks."
            ) from error
        return partial(rembg.remove, session=session, only_mask=True, post_process_mask=True)

    def load(self) -> None:
        """Load the weights, which are downloaded if they are not there yet.

        Raises:
            UserError: rembg is not installed, or its weights cannot be downloaded or read.
        """
        _ = self._cut

    def foregrounds(self, images: Path, names: Sequence[str]) -> dict[str, Bool[np.ndarray, "height width"]]:
        """Where the object is in each photo.

        Args:
            images: folder of the photos.
            names: of the photos.

        Raises:
            UserError: as `load`.
        """
        found = {}
        for name in tqdm(names, "Cutting out", unit="photo"):
            with Image.open(images / name) as photo:
                found[name] = np.asarray(self._cut(photo.convert("RGB"))) >= 128
        return found


def _package():
    try:
        import rembg  # pyright: ignore[reportMissingImports]
    # Without onnxruntime, importing rembg ends the program.
    except (ImportError, SystemExit) as error:
        raise UserError('--cutout: needs --masks, or the package rembg: pip install "dietnerf-ns[cutout]".') from error
    return rembg
