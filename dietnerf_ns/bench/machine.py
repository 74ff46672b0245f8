"""A description of the machine for reports, without its name and paths."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

import torch

from dietnerf_ns.bench.processes import usable_cpus


def _version_or_none(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def describe_machine() -> dict[str, str | int]:
    """What readers need to compare times: platform, processors, GPU and versions.

    tinycudann decides on the implementation of fields where there is a GPU.
    """
    return {
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu_cores": usable_cpus(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "python": platform.python_version(),
        "torch": version("torch"),
        "nerfstudio": version("nerfstudio"),
        "dietnerf_ns": version("dietnerf_ns"),
        **({"tinycudann": _version_or_none("tinycudann")} if torch.cuda.is_available() else {}),
    }
