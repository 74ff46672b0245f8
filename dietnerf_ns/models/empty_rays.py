"""Rays that hit nothing get no samples, wherever an object in front of a uniform background is rendered."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, cast

import torch
from jaxtyping import Bool
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.models.nerfacto import NerfactoModel
from torch import Tensor

from dietnerf_ns.fields.encoded import EncodedField
from dietnerf_ns.fields.object_box import BoxCollider
from dietnerf_ns.fields.occupancy import OccupancyGrid, side_for
from dietnerf_ns.models.base import SemanticModel
from dietnerf_ns.utils.compat import replaced


class EmptyRaySkipping(SemanticModel, NerfactoModel):
    """nerfacto without samples on rays that hit nothing: their outputs are the background's.

    In training these are the rays that miss the object's box. In images, and in semantic views by way of `may_hit`,
    they are also those that pass only through space that the last proposal network leaves empty.
    """

    config: Any
    field: EncodedField
    _grid: tuple[tuple[int, ...], OccupancyGrid] | None = None

    def forward(self, ray_bundle: RayBundle) -> dict[str, Any]:
        """Render rays; those that miss the object's box get no samples.

        Args:
            ray_bundle: flat.

        Returns:
            nerfacto's outputs, [num_rays, channels]; `weights_list` and `ray_samples_list` of the rays with samples.
        """
        if not self._can_skip(ray_bundle):
            return super().forward(ray_bundle)
        rays = self.collider(ray_bundle)
        return self._render_those(_at_least_one(BoxCollider.hit_by(rays)), rays, self.get_outputs)

    @torch.no_grad()
    def get_outputs_for_camera_ray_bundle(self, camera_ray_bundle: RayBundle) -> dict[str, Tensor]:
        """Render an image; rays that hit nothing get no samples.

        Args:
            camera_ray_bundle: of shape [height, width].

        Returns:
            nerfacto's outputs, [height, width, channels].
        """
        render, rays = super().get_outputs_for_camera_ray_bundle, camera_ray_bundle.flatten().to(self.device)

        def render_flat(rays: RayBundle) -> dict[str, Any]:
            return {name: output.flatten(0, 1) for name, output in render(rays.reshape((1, len(rays)))).items()}

        hit = self.may_hit(rays)
        with self.only_visible_colors(), self.scaled_samples(self.config.image_sample_factor):
            outputs = render_flat(rays) if hit is None else self._render_those(hit, self.collider(rays), render_flat)
        shape, device = camera_ray_bundle.shape, camera_ray_bundle.origins.device
        return {name: output.view(*shape, -1).to(device) for name, output in outputs.items()}

    @contextlib.contextmanager
    def only_visible_colors(self) -> Iterator[None]:
        """Inside, colours that cannot be seen are not computed."""
        with replaced(self.field, "colors_visible_only", True):
            yield

    def _can_skip(self, rays: RayBundle) -> bool:
        """Whether a ray that misses the object's box has a colour that needs no sample.

        Rays that the viewer crops have near and far ends already, and the collider leaves them.
        """
        needs_sample = self.config.predict_normals or self.renderer_rgb.background_color == "last_sample"
        return isinstance(self.collider, BoxCollider) and not needs_sample and rays.nears is None

    @torch.no_grad()
    def may_hit(self, rays: RayBundle) -> Bool[Tensor, "num_rays"] | None:
        """Whether rays pass through space that the last proposal network does not leave empty."""
        if not self._can_skip(rays):
            return None
        grid = self._occupancy_grid(side_for(len(rays)))
        rays = self.collider(replace(rays))
        hit = BoxCollider.hit_by(rays)
        return _at_least_one(hit.index_put((hit,), grid.hit_by(rays[hit])))

    def _occupancy_grid(self, side: int) -> OccupancyGrid:
        """The grid of the present density; computed anew after each training step only."""
        state = side, *(parameter._version for parameter in self.proposal_networks[-1].parameters())
        if self._grid is None or self._grid[0] != state:
            box = cast(BoxCollider, self.collider).box
            self._grid = state, OccupancyGrid(box, self.density_fns[-1], side)
        return self._grid[1]

    def _render_those(
        self, hit: Bool[Tensor, "num_rays"], rays: RayBundle, render: Callable[[RayBundle], dict[str, Any]]
    ) -> dict[str, Any]:
        """Outputs of all rays, with samples on those that hit something only."""
        if bool(hit.all()):
            return render(rays)
        chosen = hit.nonzero()[:, 0]
        outputs = render(rays[chosen])
        empty = {"rgb": self.background.to(rays.origins), "accumulation": torch.zeros_like(rays.origins[:, :1])}
        assert rays.fars is not None
        for name, output in outputs.items():
            if isinstance(output, Tensor):
                of_all = empty.get(name, rays.fars).expand(len(rays), -1)
                outputs[name] = of_all.to(output).index_copy(0, chosen, output)
        return outputs


def _at_least_one(hit: Bool[Tensor, "num_rays"]) -> Bool[Tensor, "num_rays"]:
    """The same rays, or the first one if there are none, because nerfstudio cannot render nothing."""
    hit[0] |= ~hit.any()
    return hit
