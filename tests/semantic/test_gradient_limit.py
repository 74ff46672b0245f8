import pytest
import torch

from dietnerf_ns.semantic.gradient_limit import add_gradients, gradients_of, limit_norm, with_gradients


def plain(gradients):
    return [None if gradient is None else gradient.tolist() for gradient in gradients]


@pytest.fixture
def tensors():
    return [torch.nn.Parameter(torch.tensor([1.0, 2.0])), torch.nn.Parameter(torch.tensor([3.0]))]


def test_gradients_of_a_loss_and_none_where_it_does_not_reach(tensors):
    a, b = tensors
    assert plain(gradients_of((a * a).sum(), tensors)) == [[2.0, 4.0], None]
    assert gradients_of(torch.tensor(2.0), tensors) == [None, None], "of a view in which nothing can be trained"


def test_a_long_gradient_is_shortened_and_keeps_its_direction():
    gradients = [torch.tensor([30.0, 40.0]), torch.tensor([0.0])]  # norm 50
    reference = [torch.tensor([3.0, 0.0]), torch.tensor([4.0])]  # norm 5
    (on_a, on_b) = limit_norm(gradients, reference, ratio=0.3)
    assert on_a.tolist() == pytest.approx([0.9, 1.2])  # norm 1.5 = 0.3 * 5, direction (3, 4)
    assert on_b.tolist() == [0.0]


def test_a_short_gradient_is_left_alone():
    gradients = [torch.tensor([0.1, 0.1]), None]
    assert plain(limit_norm(gradients, [torch.tensor([5.0, 0.0]), None], ratio=0.3)) == plain(gradients)


def test_what_a_loss_does_not_reach_is_not_compared():
    gradients = [torch.tensor([1.0]), None]
    assert plain(limit_norm(gradients, [torch.tensor([1.0]), torch.tensor([100.0])], ratio=0.5)) == [[0.5], None]
    assert plain(limit_norm(gradients, [None, torch.tensor([100.0])], ratio=0.5)) == [[0.0], None]
    assert plain(limit_norm([None, None], [None, torch.tensor([100.0])], ratio=0.5)) == [None, None]


def test_ratio_0_is_no_limit():
    gradients = [torch.tensor([1e6])]
    assert plain(limit_norm(gradients, [torch.tensor([1.0])], ratio=0)) == [[1e6]]


def test_known_gradients_are_handed_out_and_the_value_is_kept(tensors):
    known = add_gradients([torch.tensor([1.0, 2.0]), None], [torch.tensor([10.0, 20.0]), torch.tensor([5.0])])
    loss = with_gradients(torch.tensor(0.25), known, tensors)
    (2 * loss).backward()
    assert float(loss.detach()) == 0.25
    assert plain([tensor.grad for tensor in tensors]) == [[22.0, 44.0], [10.0]]


def test_known_gradients_of_a_generated_tensor_go_on_to_its_generator(tensors):
    a, _ = tensors
    generated = a.exp()  # as planes that a network puts out
    loss = with_gradients(torch.tensor(0.0), [torch.tensor([1.0, 3.0])], [generated])
    assert gradients_of(loss, [a])[0].tolist() == pytest.approx((torch.tensor([1.0, 3.0]) * a.exp()).tolist())


def test_gradients_too_small_for_half_precision_survive_with_a_scale(tensors):
    a, _ = tensors

    def gradient(**scale):
        loss = a.half().float().sum() * 1e-9  # its gradient passes through half precision
        return gradients_of(loss, [a], **scale)[0].tolist()

    assert gradient() == [0, 0]
    assert gradient(loss_scale=2.0**16) == pytest.approx([1e-9, 1e-9], rel=0.01)


def test_gradients_are_taken_outside_of_autocast(tensors):
    class Seen(torch.autograd.Function):
        @staticmethod
        def forward(ctx, value):
            return value.clone()

        @staticmethod
        def backward(ctx, gradient):
            assert not torch.is_autocast_enabled("cpu")
            return gradient

    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert plain(gradients_of(Seen.apply(tensors[1]).sum(), tensors)) == [None, [1.0]]
