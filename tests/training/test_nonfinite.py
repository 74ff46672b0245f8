"""What is counted, what is left out, and when training stops."""

import pytest
import torch
from nerfstudio.engine.optimizers import AdamOptimizerConfig, Optimizers

from dietnerf_ns.training.nonfinite import BadSteps, all_finite, is_searching, leave_out_bad_steps, restart_search

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_one_bad_number_is_found(bad):
    tensors = [torch.full((3, 4), 1e30), None, torch.zeros(5)]
    assert all_finite(tensors) and all_finite([None]) and all_finite([])
    tensors[2][3] = bad
    assert not all_finite(tensors)


def test_the_limit_counts_steps_in_a_row_of_each_part(capsys):
    bad = BadSteps()
    for step in range(3 * BadSteps.LIMIT):
        bad.begin(step)
        if step % 2:
            bad.note("photometric", "gradient")
        else:
            bad.has_stepped()
        bad.end()
    assert bad.at_limit is None and bad.counts == {"photometric": 30, "semantic": 0}
    for step in range(BadSteps.LIMIT):
        assert bad.at_limit is None
        bad.begin(step)
        bad.note("semantic", "loss")
        bad.note("photometric", "loss")  # the total, which contains the other
        bad.end()
    assert bad.at_limit == "semantic" and bad.counts == {"photometric": 30, "semantic": 20}
    assert "photometric part of 30 steps and the semantic part of 20" in bad.summary()
    (line,) = capsys.readouterr().out.splitlines()
    assert "Step 1: the photometric gradient is not finite" in line
    assert "after 20 such steps in a row training stops" in line


def test_steps_that_only_accumulate_gradients_do_not_end_a_row(capsys):
    parameter, bad = torch.nn.Parameter(torch.ones(3)), BadSteps()
    optimizers = Optimizers(
        {"fields": {"optimizer": AdamOptimizerConfig(), "scheduler": None}}, {"fields": [parameter]}
    )
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    leave_out_bad_steps(optimizers, scaler, bad)
    for step in range(4 * BadSteps.LIMIT):
        bad.begin(step)
        parameter.grad = torch.full_like(parameter, NAN)
        optimizers.optimizer_scaler_step_some(scaler, ["fields"] if step % 4 == 3 else [])
        bad.end()
    assert bad.at_limit == "photometric" and bad.counts["photometric"] == BadSteps.LIMIT
    assert torch.equal(parameter, torch.ones(3))


def test_nothing_is_said_of_a_run_without_faults():
    assert BadSteps().summary() is None


def test_a_scaler_searches_until_its_factor_is_below_1():
    class Scaler(torch.amp.GradScaler):
        def is_enabled(self):
            return self.enabled

        def get_scale(self):
            return self.scale_now

    scaler = Scaler("cpu")
    for enabled, scale, searches in ((True, 65536.0, True), (True, 0.5, False), (False, 1.0, False)):
        scaler.enabled, scaler.scale_now = enabled, scale
        assert is_searching(scaler) is searches


@pytest.mark.parametrize("gradient", [NAN, None], ids=["not finite", "left out"])
def test_a_step_that_is_left_out_leaves_the_scaler_as_it_is(gradient):
    parameter, bad = torch.nn.Parameter(torch.ones(3)), BadSteps()
    # Gradients that are clipped are unscaled first, which torch does once between two updates of the scaler.
    config = {"fields": {"optimizer": AdamOptimizerConfig(lr=0.1, max_norm=9.0), "scheduler": None}}
    optimizers = Optimizers(config, {"fields": [parameter]})
    scaler = torch.amp.GradScaler("cpu", init_scale=0.5)
    leave_out_bad_steps(optimizers, scaler, bad)

    def step(gradient):
        """As nerfstudio's trainer takes it."""
        scaler.scale(parameter.sum()).backward()
        parameter.grad = None if gradient is None else torch.full_like(parameter, gradient)
        optimizers.optimizer_scaler_step_some(scaler, ["fields"])
        scaler.update()
        return parameter.detach().clone()

    bad.begin(0)
    assert torch.equal(step(gradient), torch.ones(3)) and scaler.get_scale() == 0.5
    assert bad.photometric_left_out == (gradient is not None), "a missing loss was noted with the loss"
    assert (step(0.5) < 1).all() and scaler.get_scale() == 0.5


def test_a_scaler_can_search_anew():
    optimizers, scaler = Optimizers({}, {}), torch.amp.GradScaler("cpu", init_scale=0.5)
    leave_out_bad_steps(optimizers, scaler, BadSteps())
    scaler.scale(torch.ones(()))
    restart_search(scaler)
    assert scaler.get_scale() == 65536.0 and is_searching(scaler)
    restart_search(torch.amp.GradScaler("cpu", enabled=False))


def test_a_scaler_that_searches_still_sees_what_is_not_finite():
    parameter = torch.nn.Parameter(torch.ones(3))
    config = {"fields": {"optimizer": AdamOptimizerConfig(lr=0.1), "scheduler": None}}
    optimizers, scaler = Optimizers(config, {"fields": [parameter]}), torch.amp.GradScaler("cpu", init_scale=8.0)
    leave_out_bad_steps(optimizers, scaler, BadSteps())
    scaler.scale(parameter.sum()).backward()
    parameter.grad.fill_(INF)
    optimizers.optimizer_scaler_step_some(scaler, ["fields"])
    scaler.update()
    assert scaler.get_scale() == 4.0 and torch.equal(parameter.detach(), torch.ones(3))
