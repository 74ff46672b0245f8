"""nerfstudio's own methods with the semantic consistency loss, registered as `dietnerf-<name>`."""

from __future__ import annotations

from functools import cache

from nerfstudio.engine.trainer import TrainerConfig
from nerfstudio.plugins.types import MethodSpecification

from dietnerf_ns.semantic_method import semantic_method

METHODS = {
    "dietnerf_nerfacto": ("nerfacto", "nerfacto with CLIP's semantic consistency loss on unseen views."),
    "dietnerf_tensorf": ("tensorf", "TensoRF with CLIP's semantic consistency loss on unseen views."),
    "dietnerf_mipnerf": ("mipnerf", "mip-NeRF with CLIP's semantic consistency loss on unseen views; slow."),
    "dietnerf_ngp": ("instant-ngp", "Instant-NGP with CLIP's semantic consistency loss on unseen views; CUDA only."),
    "dietnerf_splat": ("splatfacto", "Splatfacto with CLIP's semantic consistency loss on unseen views; CUDA only."),
}
"""Attributes of this module: which of nerfstudio's methods each is made of, and its description."""


def __getattr__(name: str) -> MethodSpecification:
    """Make a method when it is asked for: nerfstudio's methods import this module before they are complete."""
    if name not in METHODS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _method(name)


@cache
def _method(name: str) -> MethodSpecification:
    from nerfstudio.configs.method_configs import method_configs

    original, description = METHODS[name]
    config = method_configs[original]
    assert isinstance(config, TrainerConfig)
    return semantic_method(config, name=name.replace("_", "-"), description=description)
