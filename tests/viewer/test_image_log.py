import pytest
from nerfstudio.utils import writer

from dietnerf_ns.semantic.consistency import SemanticConsistency, SemanticStep
from dietnerf_ns.semantic.schedule import SemanticSchedule
from dietnerf_ns.viewer.image_log import IMAGES_PER_RUN, NAME, SemanticImageLog
from dietnerf_ns.viewer.visualization import SemanticVisualization
from tests.helpers.commands import in_this_process
from tests.helpers.fakes import bare


@pytest.fixture
def logged_steps(monkeypatch):
    """Steps of the images that the writer gets, in order."""
    steps = []
    monkeypatch.setattr(writer, "put_image", lambda name, image, step: steps.append(step))
    return steps


def train(schedule, *, total_steps):
    """Run the log's callback after every step of a training that draws no images."""
    semantic = bare(SemanticConsistency, schedule=schedule)
    log = SemanticImageLog(semantic, bare(SemanticVisualization, side_by_side=lambda step: None))
    for step in range(total_steps):
        if schedule.is_due(step):
            semantic.last = bare(SemanticStep, step=step)
        log.after_step(step)


def test_images_are_spread_over_the_run(logged_steps):
    train(SemanticSchedule(first_step=0, end_step=400, every=1), total_steps=450)
    assert logged_steps == list(range(0, 400, 400 // IMAGES_PER_RUN))


def test_only_semantic_steps_are_logged(logged_steps):
    train(SemanticSchedule(first_step=100, end_step=180, every=20), total_steps=200)
    assert logged_steps == [100, 120, 140, 160]


@pytest.mark.slow
def test_tensorboard_gets_images_of_semantic_steps(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    training = ["ns-train", "dietnerf-tiny", "--vis", "tensorboard", "--max-num-iterations", 45, "--timestamp", "r"]
    in_this_process(*training, cwd=tmp_path)
    (folder,) = (tmp_path / "outputs").glob("*/dietnerf-tiny/r")
    events = EventAccumulator(str(folder), size_guidance={"images": 0}).Reload()
    assert events.Tags()["images"] == [NAME]
    assert [event.step for event in events.Images(NAME)] == [0, 20]
    assert (events.Images(NAME)[0].width, events.Images(NAME)[0].height) == (3 * 56 + 2 * 4, 56)
