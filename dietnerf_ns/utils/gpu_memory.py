"""Errors of a GPU's memory."""

from __future__ import annotations

import torch

OTHER_LIBRARIES = ("CUDA_ERROR_OUT_OF_MEMORY", "CUBLAS_STATUS_ALLOC_FAILED")
"""What tinycudann and cuBLAS say, whose errors are no `torch.OutOfMemoryError`."""


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether an error says that a GPU has no memory left for torch, tinycudann or cuBLAS."""
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in OTHER_LIBRARIES)
