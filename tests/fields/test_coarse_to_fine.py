import pytest
import torch
from nerfstudio.engine.callbacks import TrainingCallbackAttributes, TrainingCallbackLocation

from dietnerf_ns.fields.coarse_to_fine import level_weights
from dietnerf_ns.fields.level_mask import LevelMask
from tests.helpers.models import tiny_model


def test_levels_come_in_one_after_the_other():
    assert level_weights(0, 4).tolist() == [1, 0, 0, 0]
    assert level_weights(0.5, 4).tolist() == [1, 1, 0.5, 0]
    assert level_weights(0.75, 3).tolist() == [1, 1, 0.5], "the last one takes until the end"
    assert level_weights(1, 4).tolist() == level_weights(3, 4).tolist() == [1, 1, 1, 1]


def test_the_mask_weights_whole_levels():
    mask = LevelMask(3)
    mask.weights.copy_(torch.tensor([1.0, 0.5, 0.0]))
    assert mask(torch.ones(2, 6)).tolist() == [[1, 1, 0.5, 0.5, 0, 0]] * 2
    assert mask(torch.ones(2, 6, dtype=torch.half)).dtype == torch.half
    assert "weights" in mask.state_dict(), "a checkpoint looks as the run did"


class FakeTrainer:
    """Knows how long the run is, and that 40 of its steps were trained before it was resumed."""

    _start_step = 40

    class config:
        max_num_iterations = 60


def schedule_of(model):
    """The level weights in training, as a function of the step."""
    attributes = TrainingCallbackAttributes(optimizers=None, grad_scaler=None, pipeline=None, trainer=FakeTrainer())
    callbacks = model.get_training_callbacks(attributes)

    def weights_at(step):
        for callback in callbacks:
            callback.run_callback_at_location(step, TrainingCallbackLocation.BEFORE_TRAIN_ITERATION)
        return model.field.level_mask.weights.tolist()

    return weights_at


@pytest.mark.parametrize("field", ["free-planes", "generated-planes", "hash"])
def test_training_lets_levels_in_over_the_given_part_of_the_run(field):
    model = tiny_model(field=field, coarse_to_fine=0.5, num_levels=3, plane_levels=3)
    weights_at = schedule_of(model)
    assert weights_at(0) == [1, 0, 0]
    assert weights_at(25) == [1, 1, 0]
    assert weights_at(40) == pytest.approx([1, 1, 0.6])
    assert weights_at(50) == weights_at(99) == [1, 1, 1]
    model.begin_attempt(50)
    assert weights_at(50) == [1, 0, 0], "a new initialisation starts coarse again"


def test_a_run_that_is_resumed_after_its_schedule_has_all_levels():
    """The checkpoint's mask is that of the longer run."""
    model = tiny_model(coarse_to_fine=0.5, plane_levels=3)
    model.field.level_mask.weights.copy_(torch.tensor([1.0, 1.0, 0.2]))
    assert schedule_of(model)(60) == [1, 1, 1]


def test_by_default_planes_come_in_over_a_third_of_the_run_and_hash_levels_at_once():
    planes, grid = (
        schedule_of(tiny_model(field=field, num_levels=3, plane_levels=3)) for field in ("free-planes", "hash")
    )
    assert planes(0) == [1, 0, 0] and planes(30) != [1, 1, 1]
    assert planes(34) == [1, 1, 1]
    assert grid(0) == [1, 1, 1]
