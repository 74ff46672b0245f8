import pytest
import torch

from dietnerf_ns.semantic.balance import limit_gradient


def gradients(loss, parameters):
    return torch.autograd.grad(loss, parameters, allow_unused=True)


@pytest.fixture
def parameters():
    return [torch.nn.Parameter(torch.tensor([1.0, 2.0])), torch.nn.Parameter(torch.tensor([3.0]))]


def test_a_long_gradient_is_shortened_and_keeps_its_direction(parameters):
    a, b = parameters
    loss, reference = 10 * (a * torch.tensor([3.0, 4.0])).sum(), 5 * b.sum()  # norms 50 and 5
    limited = limit_gradient(loss, reference, parameters, ratio=0.3)
    on_a, on_b = gradients(limited, parameters)
    assert on_a.tolist() == pytest.approx([0.9, 1.2])  # norm 1.5 = 0.3 * 5, direction (3, 4)
    assert on_b is None or float(on_b) == 0
    assert float(limited) == pytest.approx(float(loss)), "the value that is logged stays the loss itself"


def test_a_short_gradient_is_left_alone(parameters):
    a, b = parameters
    limited = limit_gradient(0.1 * a.sum(), 5 * b.sum(), parameters, ratio=0.3)
    assert gradients(limited, parameters)[0].tolist() == pytest.approx([0.1, 0.1])


def test_the_reference_can_still_be_differentiated_through_a_shared_graph(parameters):
    a, b = parameters
    shared = (a * a).exp()  # generated planes are shared like this
    loss, reference = shared.sum(), (shared * b).sum()
    total = reference + limit_gradient(loss, reference, parameters, ratio=100)
    together = gradients(total, parameters)
    shared = (a * a).exp()
    expected = gradients((shared * b).sum() + shared.sum(), parameters)
    assert all(torch.allclose(x, y) for x, y in zip(together, expected, strict=True))


def test_gradients_too_small_for_half_precision_survive_with_a_scale(parameters):
    a, b = parameters

    def limited(**scale):
        loss = a.half().float().sum() * 1e-9  # its gradient passes through half precision
        return gradients(limit_gradient(loss, b.sum(), parameters, ratio=1, **scale), parameters)[0].tolist()

    assert limited() == [0, 0]
    assert limited(loss_scale=2.0**16) == pytest.approx([1e-9, 1e-9], rel=0.01)
