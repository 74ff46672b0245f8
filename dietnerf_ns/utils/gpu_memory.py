"""A GPU that has no memory left."""

from __future__ import annotations

import torch
from nerfstudio.utils.external import TCNN_EXISTS, tcnn

OTHER_LIBRARIES = ("CUDA_ERROR_OUT_OF_MEMORY", "CUBLAS_STATUS_ALLOC_FAILED")
"""What tinycudann and cuBLAS say, whose errors are no `torch.OutOfMemoryError`."""


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether an error says that a GPU has no memory left for torch, tinycudann or cuBLAS."""
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in OTHER_LIBRARIES)


def free_unused_memory(device: torch.device) -> None:
    """Give back what torch and tinycudann keep of a GPU's memory without using it.

    To be called after the block that handles an error: while it runs, the error's traceback keeps the tensors alive.
    """
    if device.type == "cuda":
        torch.cuda.empty_cache()
    if TCNN_EXISTS:
        tcnn.free_temporary_memory()
