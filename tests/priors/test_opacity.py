import math

import pytest
import torch

from dietnerf_ns.priors.opacity import opacity_entropy


def test_entropy_by_hand():
    assert float(opacity_entropy(torch.full((3, 1), 0.5))) == pytest.approx(math.log(2))
    assert float(opacity_entropy(torch.tensor([[0.0], [1.0]]))) == pytest.approx(0, abs=2e-3)


def test_its_gradient_drives_opacity_away_from_the_middle_and_stays_finite():
    accumulation = torch.tensor([[0.0], [0.2], [0.8], [1.0]], requires_grad=True)
    opacity_entropy(accumulation).backward()
    gradient = accumulation.grad[:, 0]
    assert torch.isfinite(gradient).all()
    assert gradient[1] > 0 > gradient[2], "descending makes 0.2 smaller and 0.8 larger"
