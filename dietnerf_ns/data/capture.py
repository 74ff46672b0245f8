"""What the training photos and their cameras say about a scene: the object that goes from the data to the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.data.datasets.base_dataset import InputDataset
from torch import Tensor

from dietnerf_ns.data.foreground import foreground_masks, has_transparent_background, uniform_background
from dietnerf_ns.geometry.cameras import shorter_side
from dietnerf_ns.geometry.visual_hull import VisualHull, visual_hull

CAPTURE = "capture"
"""Key of the capture in a dataset's metadata, the only thing that nerfstudio hands from a dataset to a model."""


@dataclass(frozen=True)
class Capture:
    """The kept training views of a scene.

    Made by the datamanager, taken by the model. The checkpoint keeps what rendering needs of it (`state`), because
    rendering opens no photos.
    """

    cameras: Cameras
    """Shape [n]; camera-to-world matrices with OpenGL axes, scene units."""
    background: Float[Tensor, "3"] | None = None
    """The uniform background of all photos, RGB in [0, 1]; None if they have none."""
    hull: VisualHull | None = None
    """Of the foreground; None without a uniform background or whole silhouettes."""
    foreground_masks: tuple[Bool[Tensor, "_height _width"], ...] = ()
    """One for each photo; empty without a uniform background."""
    photos_opened: bool = False
    """Whether the photos were looked at; rendering opens none."""
    is_transparent: bool = False
    """Whether the background is transparent in the photos that the model gets, so that it can have any colour."""

    @classmethod
    def of_photos(cls, dataset: InputDataset) -> Capture:
        """Look at the photos of a dataset."""
        background = uniform_background(dataset)
        if background is None:
            return cls(dataset.cameras, photos_opened=True)
        masks = foreground_masks(dataset, background)
        hull = visual_hull(dataset.cameras, masks, [path.name for path in dataset.image_filenames])
        is_transparent = has_transparent_background(dataset)
        return cls(dataset.cameras, background, hull, tuple(masks), photos_opened=True, is_transparent=is_transparent)

    @classmethod
    def in_metadata(cls, metadata: Mapping[str, Any]) -> Capture | None:
        """The capture that the datamanager put into a dataset's metadata, or None if there is none."""
        return metadata.get(CAPTURE)

    @property
    def shorter_side(self) -> int:
        """Of the smallest photo, in pixels."""
        return shorter_side(self.cameras)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps: plain numbers that `torch.load` reads safely."""
        return {"background": None if self.background is None else self.background.tolist()}

    def restored(self, state: Mapping[str, Any]) -> Capture:
        """This capture with what a checkpoint kept.

        Args:
            state: see `state`.
        """
        background = state["background"]
        return self if background is None else replace(self, background=torch.tensor(background))
