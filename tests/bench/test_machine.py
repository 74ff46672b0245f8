import pytest
import torch

from dietnerf_ns.bench import machine


@pytest.mark.parametrize("installed", [True, False])
def test_a_gpu_s_machine_says_which_tinycudann_it_has(monkeypatch, installed):
    assert "tinycudann" not in machine.describe_machine() or torch.cuda.is_available()
    versions = {"tinycudann": "1.7"} if installed else {}

    def version(package):
        if package == "tinycudann" and not installed:
            raise machine.PackageNotFoundError
        return versions.get(package, "0")

    monkeypatch.setattr(machine, "version", version)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    assert machine.describe_machine()["tinycudann"] == ("1.7" if installed else "none")
