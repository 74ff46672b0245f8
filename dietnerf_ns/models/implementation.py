"""Whether the fused CUDA kernels of tinycudann can be used."""

from __future__ import annotations

from typing import Literal

import torch
from nerfstudio.utils.external import TCNN_EXISTS
from nerfstudio.utils.rich_utils import CONSOLE

Implementation = Literal["tcnn", "torch"]


def usable_implementation(requested: Implementation, device: torch.device | str) -> Implementation:
    """The requested implementation, or torch with one line of explanation where tinycudann cannot run."""
    if requested == "torch":
        return "torch"
    on_cuda = torch.device(device).type == "cuda"
    if on_cuda and TCNN_EXISTS:
        return "tcnn"
    reason = "tinycudann is not installed (see the README)" if on_cuda else "this device is no CUDA GPU"
    CONSOLE.print(f"Networks: nerfstudio's torch implementation, because {reason}.")
    return "torch"
