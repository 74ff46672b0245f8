"""One run in two processes: real trainings through nerfstudio's launcher, on a CPU, with gloo in place of NCCL."""

import copy
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from nerfstudio.utils import comms
from torch import distributed, multiprocessing

from dietnerf_ns.methods import dietnerf_tiny
from dietnerf_ns.training import saved
from dietnerf_ns.utils.distributed import average, average_gradients, average_scalars, maximum
from tests.helpers.commands import WIDTH
from tests.helpers.training import start_training

ROOT = Path(__file__).parents[2]
SMALL = ["--machine.num-devices", 2, "--machine.device-type", "cpu", "--vis", "tensorboard", "--timestamp", "run"]
SMALL += ["--pipeline.datamanager.camera-res-scale-factor", 0.25, "--pipeline.datamanager.train-num-rays-per-batch", 16]
SMALL += ["--pipeline.semantic.every", 2, "--pipeline.semantic.resolution", 8, "--experiment-name", "e"]
RUN = Path("outputs/e/dietnerf-tiny/run")


def start(folder, *flags, **environment):
    """`ns-train dietnerf-tiny` in two processes, in a process group of its own, as a terminal would start it."""
    command = [sys.executable, "-m", "tests.helpers.train_in_processes", "dietnerf-tiny", *SMALL, *flags]
    paths = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*map(str, command)],
        cwd=folder,
        env=os.environ | WIDTH | paths | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def output_of(process):
    """What it says until it ends; processes that wait for each other are ended."""
    try:
        return process.communicate(timeout=300)[0]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise


def workers_of(process):
    """Process numbers of those that the launcher has started."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(child) for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


def in_two_processes(function, folder):
    """Call a function of this module with a rank and a folder in two processes that can talk."""
    multiprocessing.spawn(_connected, args=(function, folder), nprocs=2)


def _connected(rank, function, folder):
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    comms.LOCAL_PROCESS_GROUP = distributed.new_group([0, 1])
    function(rank, folder)
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of twelve steps that is restarted after the fourth."""
    folder = tmp_path_factory.mktemp("two")
    process = start(folder, "--max-num-iterations", 12, RESTART_AT="4")
    output = output_of(process)
    assert process.returncode == 0, output[-4000:]
    return folder, output, [torch.load(folder / f"process-{rank}.pt", weights_only=False) for rank in (0, 1)]


@pytest.mark.slow
def test_both_processes_have_the_same_weights_after_semantic_steps_and_a_restart(trained):
    _, _, (first, second) = trained
    assert first["restarts"] == second["restarts"] == 1
    assert first["parameters"].keys() == second["parameters"].keys()
    for name, value in first["parameters"].items():
        assert torch.equal(value, second["parameters"][name]), name


@pytest.mark.slow
def test_the_processes_draw_different_pixels_and_views_and_see_the_same_fit(trained):
    _, _, (first, second) = trained
    assert len(first["pixels"]) == 12
    assert not any(torch.equal(*pixels) for pixels in zip(first["pixels"], second["pixels"], strict=True))
    assert not torch.equal(first["views"], second["views"])
    assert first["mse"] == second["mse"] and len(first["mse"]) > 4


@pytest.mark.slow
def test_what_the_main_process_says_and_saves_is_there_once(trained):
    folder, output, _ = trained
    assert output.count("Training views: 8") == output.count("Training collapsed at step 4: as the test asks") == 1
    assert saved.steps_in(folder / RUN / "nerfstudio_models") == [11]


@pytest.mark.slow
def test_one_process_loads_what_two_have_trained(trained):
    folder, _, (first, _) = trained
    config = copy.deepcopy(dietnerf_tiny.config.pipeline)
    config.datamanager.camera_res_scale_factor = 0.25
    pipeline = config.setup(device="cpu", test_mode="test")
    state = torch.load(saved.checkpoint_of(folder / RUN / "nerfstudio_models", 11), weights_only=True)
    pipeline.load_pipeline(state["pipeline"], 11)
    for name, value in pipeline.named_parameters():
        assert torch.equal(value, first["parameters"][name]), name


@pytest.mark.slow
@pytest.mark.parametrize(
    "number, whom, status",
    [
        (signal.SIGINT, "all", 130),  # Ctrl-C in a terminal
        (signal.SIGTERM, "all", 143),  # batch systems
        (signal.SIGINT, "one worker", 1),
    ],
)
def test_a_signal_stops_both_after_the_same_step(tmp_path, number, whom, status):
    process = start(tmp_path, "--max-num-iterations", 5000, SECONDS_A_STEP="0.02", SECONDS_TO_SAVE="1")
    while "Step (% Done)" not in process.stdout.readline():
        assert process.poll() is None
    time.sleep(1)
    if whom == "all":
        os.killpg(process.pid, number)
    else:
        os.kill(workers_of(process)[1], number)
    output = output_of(process)
    assert process.returncode == status, output
    said = output.count("Interrupted: the step is finished and a checkpoint is saved.")
    assert said == (whom == "all"), "only the main process says it"
    assert output.count("Go on with: ") == 1 and "Error" not in output, output
    first, second = (torch.load(tmp_path / f"process-{rank}.pt", weights_only=False) for rank in (0, 1))
    assert len(first["pixels"]) == len(second["pixels"])
    assert saved.steps_in(tmp_path / RUN / "nerfstudio_models") == [len(first["pixels"]) - 1]
    assert second["ended"] >= first["saved"], "the launcher ends the others when one has ended"


@pytest.mark.slow
def test_a_second_signal_ends_both_at_once(tmp_path):
    process = start(tmp_path, "--max-num-iterations", 5000, SECONDS_A_STEP="0.02", SECONDS_TO_SAVE="60")
    while "Step (% Done)" not in process.stdout.readline():
        assert process.poll() is None
    for _ in range(2):
        time.sleep(1)
        os.killpg(process.pid, signal.SIGTERM)
    assert process.wait(timeout=20) == 143
    assert not saved.steps_in(tmp_path / RUN / "nerfstudio_models")


@pytest.mark.slow
def test_wrong_input_is_one_line_and_no_traceback(tmp_path):
    process = start(tmp_path, "--max-num-iterations", 5, "--pipeline.datamanager.num-views", 99)
    output = output_of(process)
    assert process.returncode == 1 and "Traceback" not in output
    assert output.count("num-views 99") == 1, output


def deterministic_pipeline(**arguments):
    """dietnerf-tiny with samples in the middle of their intervals, and on every ray, before the photos' background.

    The proposals' loss is a mean over the rays that have samples, of which each process has a number of its own.
    """
    config = copy.deepcopy(dietnerf_tiny.config.pipeline)
    config.datamanager.camera_res_scale_factor = 0.25
    config.datamanager.train_num_rays_per_batch = 32
    config.semantic.resolution, config.semantic.max_gradient_ratio = 12, 0.3
    config.model.members = 1
    config.model.coarse_to_fine = 0
    config.model.random_background = False
    pipeline = config.setup(device="cpu", test_mode="val", **arguments)
    for module in pipeline.modules():
        if hasattr(module, "train_stratified"):
            module.train_stratified = False
    pipeline.model._can_skip = lambda rays: False
    return pipeline


def gradients_after_backward(pipeline):
    losses = pipeline.get_train_loss_dict(0)[1]
    assert "semantic_loss" in losses
    sum(losses.values()).backward()
    parameters = dict(pipeline.named_parameters())
    average_gradients(list(parameters.values()))
    return {name: parameter.grad for name, parameter in parameters.items()}


def check_means(rank):
    """What is missing in one process counts as zero, and what is not finite in one is so in both."""
    like = [torch.zeros(2, 2), torch.zeros(3), torch.zeros(1, dtype=torch.float64)]
    mine = [torch.full((2, 2), float(rank)), None, torch.tensor([4.0], dtype=torch.float64) if rank else None]
    (mean, missing, half) = average(mine, like=like)
    assert torch.equal(mean, torch.full((2, 2), 0.5)) and missing is None
    assert half.item() == 2 and half.dtype == torch.float64
    assert average([torch.tensor([float("nan") if rank else 1.0])], like=[torch.zeros(1)])[0].isnan()
    assert average_scalars(torch.tensor(3.0 * rank)) == [1.5]
    assert maximum(5 * rank, "cpu") == 5


def save_one_step(rank, folder):
    check_means(rank)
    torch.manual_seed(rank)
    pipeline = deterministic_pipeline(world_size=2, local_rank=rank)
    start_training(pipeline)
    batches, next_train = [], pipeline.datamanager.next_train
    pipeline.datamanager.next_train = lambda step: batches.append(next_train(step)) or batches[-1]
    state = copy.deepcopy(pipeline.state_dict())
    torch.save((state, batches, gradients_after_backward(pipeline)), folder / f"{rank}.pt")


@pytest.mark.slow
def test_two_processes_take_the_gradient_of_one_with_the_joint_batch(tmp_path):
    in_two_processes(save_one_step, tmp_path)
    saved_by = [torch.load(tmp_path / f"{rank}.pt", weights_only=False) for rank in (0, 1)]
    (state, ((rays, batch),), gradients), (_, ((more_rays, more),), same_gradients) = saved_by
    pipeline = deterministic_pipeline()
    pipeline.load_state_dict(state)
    start_training(pipeline)
    joint = type(rays)(
        **{
            name: torch.cat([getattr(rays, name), getattr(more_rays, name)])
            for name in ("origins", "directions", "pixel_area", "camera_indices")
        },
        metadata={name: torch.cat([value, more_rays.metadata[name]]) for name, value in rays.metadata.items()},
    )
    both = {name: torch.cat([value, more[name]]) for name, value in batch.items()}
    pipeline.datamanager.next_train = lambda step: (joint, both)
    semantic = pipeline.semantic
    of_one = semantic.loss_and_gradients

    def of_both(model, step, tensors, **scale):
        (loss, first), (other, second) = (of_one(model, number, tensors, **scale) for number in (0, 1))
        return (loss + other) / 2, [None if a is None else (a + b) / 2 for a, b in zip(first, second, strict=True)]

    semantic.loss_and_gradients = of_both
    expected = gradients_after_backward(pipeline)
    assert any(gradient is None for gradient in expected.values()) == any(g is None for g in gradients.values())
    for name, gradient in expected.items():
        if gradient is None:
            assert gradients[name] is None and same_gradients[name] is None, name
            continue
        assert torch.equal(gradients[name], same_gradients[name]), name
        error = (gradients[name] - gradient).norm() / gradient.norm().clamp_min(1e-12)
        # One sample whose ReLU rounding takes to the other side of zero is 2e-4, a semantic view left out 1e-1.
        assert error < 1e-2, (name, error)


def test_one_process_alone_keeps_its_gradients():
    gradient = torch.ones(2)
    assert average([gradient, None], like=[gradient, gradient])[0] is gradient
    assert maximum(3, "cpu") == 3
