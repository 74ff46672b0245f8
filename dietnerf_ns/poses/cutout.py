"""The object in each photo, by a segmentation network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool
from PIL import Image
from tqdm import tqdm

from dietnerf_ns.utils.errors import UserError

NETWORK = "u2net"
"""Named, because the default of rembg depends on its version, and the network of 2.0.86 is not for commercial use."""


def check_available() -> None:
    """Refuse `--cutout` before any work if nothing can cut out.

    Raises:
        UserError: the package is missing.
    """
    _network()


def foregrounds(images: Path, names: Sequence[str]) -> dict[str, Bool[np.ndarray, "height width"]]:
    """Where the object is in each photo, from rembg (U2-Net, Qin et al., Pattern Recognition 2020).

    Args:
        images: folder of the photos.
        names: of the photos.

    Raises:
        UserError: rembg is not installed, or its weights cannot be downloaded or read.
    """
    rembg, found = _network(), {}
    try:
        session = rembg.new_session(NETWORK)
    except Exception as error:  # pooch, requests and onnxruntime raise errors of their own
        raise UserError(
            f"--cutout: the weights of rembg could not be loaded ({type(error).__name__}). Without a network, copy "
            f"{NETWORK}.onnx from rembg's releases to ~/.u2net, or give --masks."
        ) from error
    for name in tqdm(names, "Cutting out", unit="photo"):
        with Image.open(images / name) as photo:
            mask = rembg.remove(photo.convert("RGB"), session=session, only_mask=True, post_process_mask=True)
        found[name] = np.asarray(mask) >= 128
    return found


def _network():
    try:
        import rembg  # pyright: ignore[reportMissingImports]
    # Without onnxruntime, importing rembg ends the program.
    except (ImportError, SystemExit) as error:
        raise UserError('--cutout: needs --masks, or the package rembg: pip install "dietnerf-ns[cutout]".') from error
    return rembg
