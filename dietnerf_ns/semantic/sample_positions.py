"""Where the samples of a view lie: noted when it is rendered, and used again when it is rendered for its gradient."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from jaxtyping import Float
from nerfstudio.cameras.rays import RayBundle, RaySamples
from nerfstudio.model_components.ray_samplers import ProposalNetworkSampler
from nerfstudio.models.base_model import Model
from torch import Tensor

RAY_NUMBER = "ray_number"
"""Key in a ray bundle's metadata: which ray of the view each ray is, [num_rays, 1]."""

Samples = tuple[RaySamples, list[Tensor], list[RaySamples]]
"""What a proposal sampler returns: the final samples, and weights and samples of each proposal."""


class SamplePositions:
    """The final samples that a model's proposal samplers have placed along the rays of a view.

    They are constants to the gradient. With them, proposal networks need not be evaluated a second time; in nerfacto
    they have most of the samples. Models without proposal samplers are rendered as without this.

    Args:
        model: with any number of proposal samplers.
        num_rays: of the view.
    """

    def __init__(self, model: Model, num_rays: int):
        self._samplers = [module for module in model.modules() if isinstance(module, ProposalNetworkSampler)]
        self._num_rays = num_rays
        self._edges: dict[ProposalNetworkSampler, Float[Tensor, "num_rays num_samples+1 1"]] = {}

    def numbered(self, rays: RayBundle) -> RayBundle:
        """The same rays with their numbers, which models keep when they leave out some of the rays.

        Args:
            rays: all rays of the view, flat.
        """
        numbers = torch.arange(self._num_rays, device=rays.origins.device)[:, None]
        numbered = rays[:]
        numbered.metadata = {**rays.metadata, RAY_NUMBER: numbers}
        return numbered

    @contextlib.contextmanager
    def noted(self) -> Iterator[None]:
        """Inside, the samples that are placed along numbered rays are noted."""

        def noting(sampler: ProposalNetworkSampler, place: Callable[..., Samples]) -> Callable[..., Samples]:
            def forward(ray_bundle: RayBundle, **arguments: Any) -> Samples:
                placed = place(ray_bundle, **arguments)
                self._note(sampler, ray_bundle, placed[0])
                return placed

            return forward

        with self._in_place_of_sampling(noting):
            yield

    @contextlib.contextmanager
    def used(self) -> Iterator[None]:
        """Inside, the noted samples are used, and no proposal network is evaluated."""

        def using(sampler: ProposalNetworkSampler, place: Callable[..., Samples]) -> Callable[..., Samples]:
            return lambda ray_bundle, **_: self._placed(sampler, ray_bundle)

        with self._in_place_of_sampling(using):
            yield

    @contextlib.contextmanager
    def _in_place_of_sampling(
        self, replacement: Callable[[ProposalNetworkSampler, Callable[..., Samples]], Callable[..., Samples]]
    ) -> Iterator[None]:
        for sampler in self._samplers:
            vars(sampler)["forward"] = replacement(sampler, sampler.forward)
        try:
            yield
        finally:
            for sampler in self._samplers:
                del vars(sampler)["forward"]

    def _note(self, sampler: ProposalNetworkSampler, rays: RayBundle, samples: RaySamples) -> None:
        edges = torch.cat([samples.frustums.starts[:, :1], samples.frustums.ends], dim=1).detach()
        if sampler not in self._edges:
            self._edges[sampler] = edges.new_zeros(self._num_rays, *edges.shape[1:])
        self._edges[sampler][rays.metadata[RAY_NUMBER][:, 0]] = edges

    def _placed(self, sampler: ProposalNetworkSampler, rays: RayBundle) -> Samples:
        edges = self._edges[sampler][rays.metadata[RAY_NUMBER][:, 0]]
        samples = rays.get_ray_samples(bin_starts=edges[:, :-1], bin_ends=edges[:, 1:])
        # nerfacto also renders the depth of each proposal, which nobody looks at here: of one sample without weight.
        proposals = sampler.num_proposal_network_iterations
        return samples, [torch.zeros_like(edges[:, :1])] * proposals, [samples[:, :1]] * proposals
