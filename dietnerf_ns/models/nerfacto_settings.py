"""Which settings of the main model are possible, and which count."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from nerfstudio.utils.rich_utils import CONSOLE

from dietnerf_ns.models.agreement import Planes
from dietnerf_ns.utils.errors import check_limits
from dietnerf_ns.utils.settings import changed_fields

if TYPE_CHECKING:
    from dietnerf_ns.models.nerfacto import DietNeRFModelConfig

Limits = dict[str, tuple[bool, str]]
"""For settings by name whether a value is allowed, and which ones are, in words; see `check_limits`."""
FLAGS = "--pipeline.model."
LARGEST_PLANE_RESOLUTION = 4096
"""The finest planes of 16 channels then take 13 GB with their gradient and Adam's moments."""
COUNTS = (
    "num_nerf_samples_per_ray",
    "hidden_dim",
    "hidden_dim_color",
    "num_levels",
    "features_per_level",
    "base_res",
    "log2_hashmap_size",
)
OF_PLANES = ("plane_resolution", "plane_levels", "plane_channels", "plane_initial_scale", "plane_smoothness")
OF_HASH_GRID = (
    *("num_levels", "base_res", "max_res", "log2_hashmap_size", "features_per_level"),
    "proposal_net_args_list",
)


def check_settings(config: DietNeRFModelConfig) -> None:
    """Refuse what cannot work with any scene.

    Raises:
        SettingError: for the first such setting.
    """
    density, annealing = config.average_init_density, config.proposal_weights_anneal_max_num_iters
    limits = {name: (getattr(config, name) >= 1, "at least 1") for name in COUNTS} | {
        "image_sample_factor": (config.image_sample_factor is None or config.image_sample_factor > 0, "above 0"),
        "members": (config.members == "auto" or config.members >= 1, "at least 1"),
        "coarse_to_fine": (config.coarse_to_fine is None or config.coarse_to_fine >= 0, "at least 0"),
        "space_annealing": (0 <= config.space_annealing <= 1, "at least 0 and at most 1"),
        "num_proposal_iterations": (config.num_proposal_iterations >= 1, "at least 1"),
        "num_proposal_samples_per_ray": (
            len(config.num_proposal_samples_per_ray) >= config.num_proposal_iterations
            and all(count >= 1 for count in config.num_proposal_samples_per_ray),
            "one number for each of the proposal iterations, at least 1",
        ),
        "proposal_weights_anneal_max_num_iters": (
            annealing >= 1 or not config.use_proposal_weight_anneal,
            "at least 1",
        ),
        "average_init_density": (density is None or density > 0, "above 0"),
    }
    of_field = _limits_of_hash_grid if config.field == "hash" else _limits_of_planes
    check_limits(config, limits | of_field(config))


def _limits_of_hash_grid(config: DietNeRFModelConfig) -> Limits:
    return {"max_res": (config.max_res >= config.base_res, f"at least base-res, {config.base_res}")}


def _limits_of_planes(config: DietNeRFModelConfig) -> Limits:
    resolution = config.plane_resolution
    return {
        "plane_resolution": (
            resolution is None or 2 <= resolution <= LARGEST_PLANE_RESOLUTION,
            f"at least 2 and at most {LARGEST_PLANE_RESOLUTION}",
        ),
        "plane_levels": (config.plane_levels >= 1, "at least 1"),
        "plane_channels": (config.plane_channels >= 1, "at least 1"),
        "plane_initial_scale": (config.plane_initial_scale >= 0, "at least 0"),
        "plane_smoothness": (config.plane_smoothness >= 0, "at least 0"),
    }


def check_planes_in_order(config: DietNeRFModelConfig) -> None:
    """Refuse planes between which there is nothing. One of them may be a default.

    Args:
        config: complete.

    Raises:
        SettingError: a negative near plane, or a far plane that is not behind it.
    """
    near, far = cast(Planes, (config.near_plane, config.far_plane))
    limits = {
        "near_plane": (near >= 0, "at least 0"),
        "far_plane": (far > near, f"behind the near plane, {near:g}"),
    }
    check_limits(config, limits)


def say_what_is_ignored(config: DietNeRFModelConfig) -> None:
    """Say which settings were changed that belong to another kind of scene or representation than the chosen one."""
    unused = OF_PLANES if config.field == "hash" else OF_HASH_GRID
    flags = [f"{FLAGS}{name.replace('_', '-')}" for name in changed_fields(config, unused)]
    if flags:
        CONSOLE.print(f"[yellow]Ignored with {FLAGS}field {config.field}: {', '.join(flags)}.[/yellow]", soft_wrap=True)
    if config.disable_scene_contraction and config.scene not in ("auto", "object"):
        CONSOLE.print(
            f"[yellow]Ignored with {FLAGS}disable-scene-contraction True, which blender-data sets: {FLAGS}scene "
            f"{config.scene}.[/yellow]",
            soft_wrap=True,
        )
