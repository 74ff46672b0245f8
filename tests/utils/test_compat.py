import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torchmetrics.image import lpip

import dietnerf_ns.methods  # registers the types
from dietnerf_ns.utils.compat import hide_known_warnings, lpips_replaced_by


def test_numpy_learning_rates_load_safely(tmp_path):
    torch.save({"lr": np.float64(0.25)}, tmp_path / "a.ckpt")
    assert torch.load(tmp_path / "a.ckpt")["lr"] == 0.25


def test_nothing_else_became_loadable(tmp_path):
    torch.save({"path": tmp_path}, tmp_path / "b.ckpt")
    with pytest.raises(Exception, match="Weights only load failed"):
        torch.load(tmp_path / "b.ckpt")


def test_lpips_is_replaced_inside_and_restored_even_after_an_error():
    original = lpip.LearnedPerceptualImagePatchSimilarity
    with pytest.raises(RuntimeError), lpips_replaced_by(dict):
        assert lpip.LearnedPerceptualImagePatchSimilarity is dict
        raise RuntimeError
    assert lpip.LearnedPerceptualImagePatchSimilarity is original


@pytest.mark.slow
def test_importing_the_methods_leaves_the_warnings_of_other_methods_alone():
    """Every ns-* command imports all plugins."""
    program = """
import sys, warnings
callers, original = [], warnings.filterwarnings
def spy(*arguments, **options):
    callers.append(sys._getframe(1).f_globals["__name__"])
    original(*arguments, **options)
warnings.filterwarnings = spy
import dietnerf_ns.methods
assert not [name for name in callers if name.startswith("dietnerf_ns")], callers
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_package_has_no_test_doubles():
    for source in Path(dietnerf_ns.__path__[0]).rglob("*.py"):
        assert "unittest" not in source.read_text(), source


def test_known_warnings_are_hidden_and_others_are_not():
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        hide_known_warnings()
        warnings.warn("This DataLoader will create 4 worker processes", stacklevel=1)
        warnings.warn("something else", stacklevel=1)
    assert [str(warning.message) for warning in seen] == ["something else"]
