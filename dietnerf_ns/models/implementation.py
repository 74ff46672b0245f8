"""Which implementation of the networks is used: the fused CUDA kernels of tinycudann, or torch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
from nerfstudio.utils.external import TCNN_EXISTS
from nerfstudio.utils.rich_utils import CONSOLE
from torch import nn

Implementation = Literal["tcnn", "torch"]


def usable_implementation(requested: Implementation, device: torch.device | str) -> Implementation:
    """The requested implementation, or torch with one line of explanation where tinycudann cannot run."""
    if requested == "torch":
        return "torch"
    on_cuda = torch.device(device).type == "cuda"
    if on_cuda and TCNN_EXISTS:
        return "tcnn"
    reason = "tinycudann is not installed (see docs/install.md)" if on_cuda else "this device is no CUDA GPU"
    CONSOLE.print(f"Networks: nerfstudio's torch implementation, because {reason}.")
    return "torch"


def implementation_of(checkpoint: Iterable[str]) -> Implementation:
    """Which implementation the parameters of a checkpoint, given by their names, belong to."""
    return "tcnn" if any("tcnn_encoding" in name for name in checkpoint) else "torch"


def draw_tcnn_parameters(model: nn.Module) -> None:
    """Initialise tinycudann's modules from torch's random numbers.

    nerfstudio leaves tinycudann's own constant seed in place: every seed of a run, and every restart, would begin with
    the same networks and hash grids.
    """
    for module in model.modules():
        native = getattr(module, "native_tcnn_module", None)
        if native is not None:
            seed = int(torch.randint(2**31, ()))
            module.params.data = native.initial_params(seed).to(module.params)
