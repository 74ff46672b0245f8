"""splatfacto, which rasterises whole images, as a model that can be trained with the semantic loss."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, cast

import torch
from jaxtyping import Float, Num
from torch import Tensor

from dietnerf_ns.models.base import SemanticModel
from dietnerf_ns.utils.compat import replaced
from dietnerf_ns.utils.errors import UserError

KEPT = ("info", "last_size")
"""What splatfacto keeps of its last render. Its densification goes by this after a training step."""


class RasterizedModel(SemanticModel):
    """To be put in front of nerfstudio's splatfacto or a model derived from it: `get_outputs` takes a camera.

    Raises:
        UserError: there is no CUDA GPU, without which nerfstudio's rasterisers do not run.
    """

    def populate_modules(self) -> None:
        """Build the model; see `SemanticModel`."""
        if not torch.cuda.is_available():
            raise UserError(
                f"{type(self).__name__} rasterises on CUDA GPUs only, and torch finds none here. Use a method that "
                "renders rays, such as dietnerf-tiny or dietnerf-tensorf."
            )
        super().populate_modules()
        self._background = cast(Tensor, self.background_color)

    @property
    def background(self) -> Float[Tensor, "3"]:
        """RGB in [0, 1] of pixels that no Gaussian reaches, in evaluation."""
        return self._background

    @contextlib.contextmanager
    def rendering_unseen_view(self) -> Iterator[None]:
        """Inside, a render does not show what the viewer has set, and training goes on with its own last render."""
        kept = {name: vars(self)[name] for name in KEPT if name in vars(self)}
        with replaced(self, "crop_box", None), replaced(self, "background_color", self._background):
            try:
                yield
            finally:
                vars(self).update(kept)

    def get_metrics_dict(self, outputs: dict[str, Tensor], batch: dict[str, Any]) -> dict[str, Tensor]:
        """The model's own metrics of a training image, among them `psnr` in dB."""
        metrics = super().get_metrics_dict(outputs, batch)
        self._mse = 10 ** (-metrics["psnr"].detach() / 10)
        return metrics

    def photometric_mse(self, losses: Mapping[str, Tensor]) -> Float[Tensor, ""]:
        """Mean squared error of the training image, RGB in [0, 1]; the loss itself is another one."""
        return self._mse

    def blend_background(self, image: Num[Tensor, "height width channels"]) -> Float[Tensor, "height width 3"]:
        """Compose an RGBA photo with the background of evaluation; RGB photos stay as they are.

        Args:
            image: in [0, 1], or from 0 to 255 as splatfacto's datamanager has it.
        """
        if image.shape[-1] == 3:
            return image
        image = image.float() / 255 if image.dtype == torch.uint8 else image
        colour, alpha = image[..., :3], image[..., 3:]
        return alpha * colour + (1 - alpha) * self._background.to(image)
