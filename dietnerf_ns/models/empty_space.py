"""Empty-space skipping: an object in front of a uniform background has samples only where something is."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, cast

import torch
from jaxtyping import Bool
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackAttributes, TrainingCallbackLocation
from nerfstudio.fields.base_field import Field
from nerfstudio.models.nerfacto import NerfactoModel
from torch import Tensor

from dietnerf_ns.fields.density_grid import DensityGrid, side_for
from dietnerf_ns.fields.encoded import EncodedField, at_least_one
from dietnerf_ns.fields.object_box import BoxCollider
from dietnerf_ns.models.base import SemanticModel, proposal_updates_kept
from dietnerf_ns.utils.compat import replaced
from dietnerf_ns.utils.threads import in_parts

PLACED_BY_GRID = 0.75
"""Number of samples along a ray of an image relative to a training ray, where a grid of the field places them."""
MOST_RAYS_OF_A_THREAD = 4096
"""Rays of an image that a thread of the CPU renders at once, unless `eval-num-rays-per-chunk` is less."""


class EmptySpaceSkipping(SemanticModel, NerfactoModel):
    """nerfacto without samples on rays that hit nothing: their outputs are the background's.

    In training these are the rays that miss the object's box. In semantic views, by way of `may_hit`, they are also
    those that pass only through space that the last proposal network leaves empty. Images look at the field itself, by
    way of a grid of its density: rays whose optical depth is too small to be seen have no samples. The grid places the
    samples of the others, in place of the proposal networks, which overlook thin parts; where it is empty, the field is
    not evaluated.
    """

    config: Any
    field: EncodedField
    _proposal_grid: DensityGrid | None = None
    _field_grid: DensityGrid | None = None

    def get_training_callbacks(
        self, training_callback_attributes: TrainingCallbackAttributes
    ) -> list[TrainingCallback]:
        """nerfacto's callbacks; the grids of the density end with the step that changes it."""
        callbacks = super().get_training_callbacks(training_callback_attributes)
        after_step = [TrainingCallbackLocation.AFTER_TRAIN_ITERATION]
        return [*callbacks, TrainingCallback(after_step, self._forget_grids, 1)]

    def _forget_grids(self, step: int) -> None:
        # The versions of the parameters do not tell: torch's fused Adam leaves them as they are.
        self._proposal_grid = self._field_grid = None

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
        return self._render_those(at_least_one(BoxCollider.hit_by(rays)), rays, self.get_outputs)

    @torch.no_grad()
    def get_outputs_for_camera_ray_bundle(self, camera_ray_bundle: RayBundle) -> dict[str, Tensor]:
        """Render an image; rays that hit nothing get no samples.

        Args:
            camera_ray_bundle: of shape [height, width].

        Returns:
            nerfacto's outputs, [height, width, channels]. `prop_depth_0` and the like are those of the field's grid.
        """
        render, rays = super().get_outputs_for_camera_ray_bundle, camera_ray_bundle.flatten().to(self.device)

        def render_flat(rays: RayBundle) -> dict[str, Any]:
            return {name: output.flatten(0, 1) for name, output in render(rays.reshape((1, len(rays)))).items()}

        factor = self.config.image_sample_factor
        with proposal_updates_kept(self), self.sampled_for_image(rays) as hit:
            if hit is None:
                with self.scaled_samples(factor or 1.0):
                    outputs = render_flat(rays)
            else:
                with self.scaled_samples(factor or PLACED_BY_GRID, proposals=False):
                    size = min(self.config.eval_num_rays_per_chunk, MOST_RAYS_OF_A_THREAD)
                    render_hit = partial(_in_threads, render_flat, size) if self.device.type == "cpu" else render_flat
                    outputs = self._render_those(at_least_one(hit), self.collider(rays), render_hit)
            if isinstance(self.collider, BoxCollider):
                self._put_behind_box(outputs, rays)
        shape, device = camera_ray_bundle.shape, camera_ray_bundle.origins.device
        return {name: output.view(*shape, -1).to(device) for name, output in outputs.items()}

    def _put_behind_box(self, outputs: dict[str, Tensor], rays: RayBundle) -> None:
        """Give pixels that show the background a depth behind the scene, where the viewer and `tsdf` take it to be.

        Not nearer than the box of `tsdf` reaches, and not much further, so that colours of depths still differ.
        """
        box = cast(BoxCollider, self.collider).box
        distance = (rays.origins - box.center.to(rays.origins.device)).norm(dim=-1, keepdim=True)
        behind = 2 * (distance + box.half_sizes.to(distance.device).norm())
        for name in (name for name in outputs if "depth" in name):
            outputs[name] = torch.where(outputs["accumulation"] < 0.5, behind, outputs[name])

    @contextlib.contextmanager
    def sampled_for_image(self, rays: RayBundle) -> Iterator[Bool[Tensor, "num_rays"] | None]:
        """Inside, a grid of the field's density places the samples, and what cannot be seen is not computed.

        Args:
            rays: of the image, flat.

        Yields:
            Whether rays hit something, or None if this is not known. Then the proposal networks place the samples.
        """
        with replaced(self.field, "colors_visible_only", True):
            if not self._can_skip(rays):
                yield None
                return
            self._field_grid = grid = self._present(self._field_grid, self.field, side_for(len(rays), 1))
            density_fns = [grid.density] * len(self.density_fns)
            with replaced(self, "density_fns", density_fns), replaced(self.field, "occupied_in", grid):
                yield grid.hit_by(self.collider(replace(rays)))

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
        side = side_for(len(rays), pixels_per_cell=2)
        self._proposal_grid = self._present(self._proposal_grid, cast(Field, self.proposal_networks[-1]), side)
        return at_least_one(self._proposal_grid.may_be_hit_by(self.collider(replace(rays))))

    def _present(self, grid: DensityGrid | None, network: Field, side: int) -> DensityGrid:
        """The grid of a network's present density; computed anew after a training step or other weights only."""
        state = tuple(parameter._version for parameter in network.parameters())
        if grid is not None and grid.is_of(side, state):
            return grid
        return DensityGrid(cast(BoxCollider, self.collider).box, network.density_fn, side, state)

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


def _in_threads(render: Callable[[RayBundle], dict[str, Tensor]], size: int, rays: RayBundle) -> dict[str, Tensor]:
    """Outputs of flat rays that are rendered in chunks of this size, several at the same time."""
    outputs = in_parts(render, [rays[start : start + size] for start in range(0, len(rays), size)])
    return {name: torch.cat([of_chunk[name] for of_chunk in outputs]) for name in outputs[0]}
