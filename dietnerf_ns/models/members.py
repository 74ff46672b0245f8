"""Several independently initialised members whose renders are averaged.

Members agree where the photos decide, and differ where each has guessed. Their mean is nearer to the truth than one of
them is on average, and depends less on the seed (deep ensembles, Lakshminarayanan et al., NeurIPS 2017).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from jaxtyping import Bool, Float
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackAttributes, TrainingCallbackLocation
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor, nn

from dietnerf_ns.models.empty_space import EmptySpaceSkipping
from dietnerf_ns.utils.compat import replaced
from dietnerf_ns.utils.distributed import average_scalars

OF_MEMBERS = "of_members"
"""Key of the outputs of each member, which the losses need."""
ERROR_SMOOTHING = 0.01
"""Weight of a step in the running mean of a member's error."""
LARGEST_ERROR_RATIO = 1.5
"""Error of a member relative to the least one, above which it does not count. Of six runs of ship, one member filled
space with fog: its error was 2.5 times that of the other, and the mean of both was worse than the other alone."""


class AveragedMembers(EmptySpaceSkipping):
    """A model that is the first of several members, and renders the mean of them all. To be put in front of its class.

    Each member has its own photometric loss, so that they stay independent; the semantic loss compares the mean. A
    member that explains the photos much worse than another is trained on, but left out of the mean. With one member,
    this is the model itself.
    """

    other_members: nn.ModuleList
    """Complete models with the same settings and other random numbers."""
    _largest_mse: Tensor | None = None
    _errors: Float[Tensor, "members"] | None = None
    """Running means of the members' photometric losses, RGB in [0, 1]."""

    def add_members(self, count: int) -> None:
        """Build the other members. To be called when the model is complete.

        Args:
            count: number of members with this one, at least 1.
        """
        settings = replace(self.given_config, members=1)
        with replaced(CONSOLE, "quiet", True):  # the first one has said everything
            self.other_members = nn.ModuleList(
                settings.setup(scene_box=self.scene_box, num_train_data=self.num_train_data, **self.kwargs)
                for _ in range(count - 1)
            )

    @property
    def _others(self) -> Sequence[AveragedMembers]:
        return cast(Sequence[AveragedMembers], self.other_members)

    def get_param_groups(self) -> dict[str, list[nn.Parameter]]:
        """The parameters of all members by the names of nerfacto's groups."""
        groups = super().get_param_groups()
        for member in self._others:
            for name, parameters in member.get_param_groups().items():
                groups[name] = [*groups.get(name, []), *parameters]
        return groups

    def gradient_inputs(self) -> list[Tensor]:
        """What the gradients of all members are taken with respect to."""
        others = {id(parameter) for parameter in self.other_members.parameters()}
        own = [parameter for parameter in super().gradient_inputs() if id(parameter) not in others]
        return own + [tensor for member in self._others for tensor in member.gradient_inputs()]

    def get_training_callbacks(
        self, training_callback_attributes: TrainingCallbackAttributes
    ) -> list[TrainingCallback]:
        """The callbacks of all members."""
        callbacks = super().get_training_callbacks(training_callback_attributes)
        with replaced(CONSOLE, "quiet", True):
            for member in self._others:
                callbacks += member.get_training_callbacks(training_callback_attributes)
        return [*callbacks, TrainingCallback([TrainingCallbackLocation.AFTER_TRAIN], self._report_left_out)]

    def _report_left_out(self, step: int) -> None:
        counted = self._counted()
        if not all(counted):
            CONSOLE.print(
                f"[yellow]Members: {counted.count(False)} of {len(counted)} left out of images, because of a much "
                "larger error in the photos than the best one has.[/yellow]"
            )

    def _counted(self) -> list[bool]:
        """Which members explain the photos nearly as well as the best one."""
        if self._errors is None or not self._errors.isfinite().all():
            return [True] * (1 + len(self._others))
        return (self._errors <= LARGEST_ERROR_RATIO * self._errors.min()).tolist()

    def begin_attempt(self, step: int) -> None:
        """Schedules that depend on how long the present initialisation has trained start at this step."""
        super().begin_attempt(step)
        for member in self._others:
            member.begin_attempt(step)

    def may_hit(self, rays: RayBundle) -> Bool[Tensor, "num_rays"] | None:
        """Whether rays may hit something that a member sees."""
        own, *others = self._counted()
        hits = [super().may_hit(rays)] if own else []
        hits += [member.may_hit(rays) for member, counts in zip(self._others, others, strict=True) if counts]
        return _any(hits)

    @contextlib.contextmanager
    def sampled_for_image(self, rays: RayBundle) -> Iterator[Bool[Tensor, "num_rays"] | None]:
        """Inside, each member's samples are placed by a grid of its own density.

        Args:
            rays: of the image, flat.

        Yields:
            Whether rays hit something that a member sees, or None if this is not known.
        """
        own, *others = self._counted()
        with contextlib.ExitStack() as stack:
            hits = [stack.enter_context(super().sampled_for_image(rays))] if own else []
            for member, counts in zip(self._others, others, strict=True):
                if counts:
                    hits.append(stack.enter_context(member.sampled_for_image(rays)))
            yield _any(hits)

    def forward(self, ray_bundle: RayBundle) -> dict[str, Any]:
        """Render rays with all members.

        Args:
            ray_bundle: flat.

        Returns:
            The mean of the outputs of the members that count, [num_rays, channels]; depths are weighted by the members'
            accumulation. In training of all, and the outputs of each.
        """
        if len(self.other_members) == 0:
            return super().forward(ray_bundle)
        own, *others = [True] * (1 + len(self._others)) if self.training else self._counted()
        rendered = [super().forward(replace(ray_bundle))] if own else []
        rendered += [member(replace(ray_bundle)) for member, counts in zip(self._others, others, strict=True) if counts]
        outputs: dict[str, Any] = {
            name: _mean_output(name, rendered) for name, output in rendered[0].items() if isinstance(output, Tensor)
        }
        return outputs | {OF_MEMBERS: rendered} if self.training else outputs

    def get_metrics_dict(self, outputs, batch):
        """The means of the members' metrics of training rays.

        Args:
            outputs: of the rays, as from `forward`.
            batch: `image`, the photos' colours of the same rays, [num_rays, 3 or 4] in [0, 1].
        """
        if OF_MEMBERS not in outputs:
            return super().get_metrics_dict(outputs, batch)
        own, *others = outputs[OF_MEMBERS]
        members = [super().get_metrics_dict(own, batch)]
        members += [m.get_metrics_dict(of_one, batch) for m, of_one in zip(self._others, others, strict=True)]
        return _mean(members) | {OF_MEMBERS: members}

    def get_loss_dict(self, outputs, batch, metrics_dict=None):
        """The means of the members' losses, already weighted.

        Args:
            outputs: of the rays, as from `forward`.
            batch: `image`, the photos' colours of the same rays, [num_rays, 3 or 4] in [0, 1].
            metrics_dict: what `get_metrics_dict` computed for them; the members' own metrics are taken out of it.
        """
        if OF_MEMBERS not in outputs:
            return super().get_loss_dict(outputs, batch, metrics_dict)
        own, *others = outputs[OF_MEMBERS]
        assert metrics_dict is not None, "the members' own metrics are in it"
        metrics = metrics_dict.pop(OF_MEMBERS)
        members = [super().get_loss_dict(own, batch, metrics[0])]
        for member, of_one, of_metrics in zip(self._others, others, metrics[1:], strict=True):
            members.append(member.get_loss_dict(of_one, batch, of_metrics))
        of_own, *of_others = members
        mse = [super().photometric_mse(of_own)]
        mse += [member.photometric_mse(losses) for member, losses in zip(self._others, of_others, strict=True)]
        self._largest_mse = torch.stack(mse).detach().amax()
        # In front of random backgrounds, if there are any: fog of the background's colour is an error there.
        # Means over the processes of a run, so that all of them leave out the same members.
        errors = torch.stack(average_scalars(*(losses["rgb_loss"].detach() for losses in members)))
        before = errors if self._errors is None else torch.where(self._errors.isfinite(), self._errors, errors)
        # A step that is not finite changes nothing, unless it is the first. A GPU is not waited for.
        self._errors = torch.where(errors.isfinite().all(), torch.lerp(before, errors, ERROR_SMOOTHING), before)
        return _mean(members)

    def get_extra_state(self) -> dict[str, Any]:
        """The members' errors beside what one member saves."""
        return super().get_extra_state() | {"errors": self._errors}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restore what `get_extra_state` saved; without errors, or with those of other members, all members count."""
        super().set_extra_state(state)
        errors = state.get("errors")
        fits = errors is not None and len(errors) == 1 + len(self._others)
        self._errors = torch.as_tensor(errors, device=self.device) if fits else None

    def photometric_mse(self, losses: Mapping[str, Tensor]) -> Float[Tensor, ""]:
        """`DietNeRFMember.photometric_mse` of the worst member: one that collapses is noticed.

        Args:
            losses: what `get_loss_dict` returned.
        """
        return super().photometric_mse(losses) if self._largest_mse is None else self._largest_mse

    def mean_opacity(self, outputs: Mapping[str, Any]) -> Float[Tensor, ""]:
        """Mean accumulation of the training rays in the emptiest member, in [0, 1].

        Args:
            outputs: of the model for the training rays.
        """
        opacities = [super(AveragedMembers, self).mean_opacity(one) for one in outputs.get(OF_MEMBERS, [outputs])]
        return torch.stack(opacities).amin()


def _any(hits: Sequence[Bool[Tensor, "num_rays"] | None]) -> Bool[Tensor, "num_rays"] | None:
    known = [hit for hit in hits if hit is not None]
    return torch.stack(known).any(dim=0) if len(known) == len(hits) else None


def _mean_output(name: str, rendered: Sequence[Mapping[str, Tensor]]) -> Float[Tensor, "num_rays channels"]:
    """Mean of an output over members. The depth of one that sees nothing is that of no surface, and hardly counts."""
    values = torch.stack([outputs[name] for outputs in rendered])
    if "depth" not in name:
        return values.mean(dim=0)
    weights = torch.stack([outputs["accumulation"] for outputs in rendered]).clamp_min(torch.finfo(torch.float32).tiny)
    return (values * weights / weights.sum(dim=0)).sum(dim=0)


def _mean(members: Sequence[Mapping[str, Tensor]]) -> dict[str, Any]:
    return {name: torch.stack([torch.as_tensor(one[name]) for one in members]).mean(dim=0) for name in members[0]}
