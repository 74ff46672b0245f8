"""Faults of a real training in this process: full disks, signals, numbers that are not finite, and wrong flags."""

import os
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from nerfstudio.configs.base_config import MachineConfig
from nerfstudio.data.datamanagers.base_datamanager import VanillaDataManager
from nerfstudio.engine.trainer import Trainer
from nerfstudio.models.tensorf import TensoRFModel

from dietnerf_ns.methods import TINY_SCENE, dietnerf_tiny
from dietnerf_ns.models.nerfacto import DietNeRFModel
from dietnerf_ns.semantic.consistency import SemanticConsistency
from dietnerf_ns.training import saved, trainer
from dietnerf_ns.training.nonfinite import BadSteps
from dietnerf_ns.training.trainer import SafeTrainer
from dietnerf_ns.utils.errors import UserError
from tests.helpers.cameras import pinhole_cameras, ring_of_poses
from tests.helpers.commands import checkpoint, in_this_process

SMALL = ["--machine.device-type", "cpu", "--vis", "tensorboard", "--timestamp", "run", "--experiment-name", "e"]
SMALL += ["--pipeline.datamanager.camera-res-scale-factor", 0.25, "--pipeline.datamanager.train-num-rays-per-batch", 16]
SMALL += ["--pipeline.semantic.every", 2, "--pipeline.semantic.resolution", 8, "--pipeline.semantic.stop", 1]
RUN = "outputs/e/dietnerf-tiny/run"


def train(folder, *flags, steps=6, semantic=False, check=True):
    """A short training, without the semantic loss unless it is asked for."""
    weight = [] if semantic else ["--pipeline.semantic.weight", 0]
    return in_this_process(
        "ns-train", "dietnerf-tiny", "--max-num-iterations", steps, *SMALL, *weight, *flags, cwd=folder, check=check
    )


def checkpoints(folder):
    return saved.steps_in(folder / RUN / "nerfstudio_models")


def failing_writes(monkeypatch, *steps):
    """The disk is full when these steps are saved."""
    write = saved.write

    def write_or_fail(state, path):
        if state["step"] in steps:
            raise saved.NotWritten("No space left on device")
        write(state, path)

    monkeypatch.setattr(saved, "write", write_or_fail)


def signalling(iteration, at, number):
    """An iteration of training that sends this process a signal at one step."""

    def interrupted(self, step):
        if step == at:
            os.kill(os.getpid(), number)
        return iteration(self, step)

    return interrupted


def learning_rates(monkeypatch):
    """Learning rates of the field at the steps that are trained, by step."""
    rates, iterate = {}, Trainer.train_iteration

    def noting(self, step):
        rates[step] = self.optimizers.optimizers["fields"].param_groups[0]["lr"]
        return iterate(self, step)

    monkeypatch.setattr(Trainer, "train_iteration", noting)
    return rates


def test_schedules_last_as_long_as_the_run_also_when_it_is_resumed(tmp_path, monkeypatch):
    rates = learning_rates(monkeypatch)
    train(tmp_path, steps=8)
    first = [rates[step] for step in range(8)]
    assert first == pytest.approx([0.04 * (1.2e-3 / 0.04) ** (step / 8) for step in range(8)])
    train(tmp_path, "--steps-per-save", 3, "--timestamp", "b", "--save-only-latest-checkpoint", "False", steps=8)
    rates.clear()
    train(
        tmp_path,
        "--load-dir",
        "outputs/e/dietnerf-tiny/b/nerfstudio_models",
        "--load-step",
        3,
        "--timestamp",
        "c",
        steps=4,
    )
    assert [rates[step] for step in range(4, 8)] == pytest.approx(first[4:])


def test_a_resumed_run_has_the_learning_rates_that_it_is_given(tmp_path, monkeypatch):
    rates = learning_rates(monkeypatch)
    train(tmp_path, "--timestamp", "b", steps=4)
    resume = ["--load-dir", "outputs/e/dietnerf-tiny/b/nerfstudio_models", "--timestamp", "c"]
    resume += ["--optimizers.fields.optimizer.lr", 0.004, "--optimizers.fields.optimizer.eps", 1e-9]
    rates.clear()
    train(tmp_path, *resume, steps=4)
    assert [rates[step] for step in range(4, 8)] == pytest.approx([0.004 * 0.3 ** (step / 8) for step in range(4, 8)])
    rates.clear()
    train(tmp_path, *resume, "--timestamp", "d", "--load-scheduler", "False", steps=4)
    assert [rates[step] for step in range(4, 8)] == pytest.approx([0.004 * 0.3 ** (step / 4) for step in range(4)])


@pytest.mark.parametrize(("side", "steps"), [(50, 1200), (128, 1536), (400, 4800), (1080, 6000)])
def test_larger_photos_get_more_steps_unless_a_number_is_given(side, steps, capsys):
    cameras = pinhole_cameras(ring_of_poses(2), width=2 * side, height=side)
    assert trainer.steps_for(cameras) == steps
    assert f"Steps: {steps}, for photos of {side} pixels." in capsys.readouterr().out


def test_a_schedule_that_is_given_is_kept(tmp_path, monkeypatch):
    rates = learning_rates(monkeypatch)
    train(tmp_path, "--optimizers.fields.scheduler.max-steps", 2, steps=4)
    assert rates[3] == pytest.approx(1.2e-3) and rates[1] == pytest.approx(0.04 * (1.2e-3 / 0.04) ** 0.5)


@pytest.mark.parametrize(("several", "state", "stops"), [(False, "paused", True), (True, "training", False)])
def test_a_signal_ends_a_pause_of_the_viewer(several, state, stops, monkeypatch):
    """Processes that train together take one more step, in which all agree to stop."""
    monkeypatch.setattr(trainer, "is_one_of_several", lambda: several)
    paused = SimpleNamespace(training_state="paused", stop_training=False)
    SafeTrainer._stop(paused)
    assert (paused.training_state, paused.stop_training) == (state, stops)


def test_an_earlier_checkpoint_that_cannot_be_deleted_is_no_failure(tmp_path, monkeypatch):
    unlink = Path.unlink

    def refuse_checkpoints(path, missing_ok=False):
        if path.suffix == ".ckpt" and path.name.startswith("step-"):
            raise PermissionError(1, "Operation not permitted", str(path))
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", refuse_checkpoints)
    result = train(tmp_path, "--steps-per-save", 2)
    assert "An earlier checkpoint is kept: PermissionError" in result.stdout
    assert "no checkpoint could be saved" not in result.stdout and checkpoints(tmp_path)[0] == 5


def test_a_full_disk_loses_no_earlier_checkpoint(tmp_path, monkeypatch):
    failing_writes(monkeypatch, 4)
    result = train(tmp_path, "--steps-per-save", 2)
    assert result.stdout.count("Step 4: no checkpoint could be saved") == 1
    assert "No space left on device. Earlier checkpoints are kept, and training goes on" in result.stdout
    assert checkpoints(tmp_path) == [5]
    failing_writes(monkeypatch, 4, 5)
    shutil.rmtree(tmp_path / RUN)
    failed = train(tmp_path, "--steps-per-save", 2, check=False)
    assert failed.returncode == 1 and checkpoints(tmp_path) == [2]
    assert failed.stdout.splitlines()[-1] == (
        "The checkpoint at the end of training could not be saved: No space left on device."
    )


@pytest.mark.parametrize("number, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_keeps_the_finished_step(number, status, tmp_path, monkeypatch):
    iteration, ends = Trainer.train_iteration, []
    monkeypatch.setattr(Trainer, "train_iteration", signalling(iteration, 3, number))
    monkeypatch.setattr(trainer, "status_of", lambda number: ends.append(128 + number) or 128 + number)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler), signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        said = train(tmp_path, check=False).stdout
    finally:
        signal.signal(signal.SIGTERM, before[0])
        signal.signal(signal.SIGINT, before[1])
    assert ends == [status] and checkpoints(tmp_path) == [3]
    assert f"Interrupted after step 3. Go on with: ns-train dietnerf-tiny --load-dir {RUN}/nerfstudio_models" in said
    assert "--max-num-iterations 2 " in said and "Training Finished" not in said
    monkeypatch.setattr(Trainer, "train_iteration", iteration)
    longer = train(tmp_path, "--load-dir", f"{RUN}/nerfstudio_models").stdout
    assert "was to end after 6 steps; this one ends after 10. With --max-num-iterations 2 it" in longer
    assert "draws its photos anew" not in longer
    few = ("--pipeline.datamanager.train-num-images-to-sample-from", 2)
    said = train(tmp_path, *few, "--timestamp", "few", "--load-dir", f"{RUN}/nerfstudio_models", steps=2).stdout
    assert "train-num-images-to-sample-from 2: the resumed run draws its photos anew" in " ".join(said.split())


def test_steps_that_are_not_finite_change_nothing_and_training_stops_at_the_limit(tmp_path, monkeypatch):
    loss = DietNeRFModel.get_loss_dict
    bad = set(range(3, 6))
    weights = {}

    def with_nan(self, *arguments):
        step = len(weights)
        weights[step] = self.field.mlp_base[0].levels[0].features.detach().clone()
        losses = loss(self, *arguments)
        return losses | {"rgb_loss": losses["rgb_loss"] * float("nan")} if step in bad else losses

    monkeypatch.setattr(DietNeRFModel, "get_loss_dict", with_nan)
    result = train(tmp_path, "--steps-per-eval-batch", 10_000, steps=8)
    assert result.stdout.count("is not finite") == 1 and "Step 3: the photometric gradient" in result.stdout
    assert "the photometric part of 3 steps and the semantic part of 0 were left out" in result.stdout
    assert torch.equal(weights[3], weights[6]) and not torch.equal(weights[6], weights[7])
    bad.update(range(8, 100))
    monkeypatch.setattr(BadSteps, "LIMIT", 4)
    weights.clear()
    shutil.rmtree(tmp_path / RUN)
    stopped = train(tmp_path, "--steps-per-eval-batch", 10_000, "--steps-per-save", 2, steps=50, check=False)
    assert stopped.returncode == 1 and checkpoints(tmp_path) == [10]
    last = stopped.stdout.splitlines()[-1]
    assert "Training stopped at step 11: the photometric loss or its gradient was not finite 4 times in a row" in last
    assert "step-000000010.ckpt is kept" in last


def test_a_semantic_part_that_is_not_finite_leaves_the_photometric_part(tmp_path, monkeypatch):
    similarity = SemanticConsistency.similarity
    monkeypatch.setattr(SemanticConsistency, "similarity", lambda *given: similarity(*given) * float("nan"))
    result = train(tmp_path, semantic=True)
    assert "Step 0: the semantic loss is not finite" in result.stdout
    assert "the photometric part of 0 steps and the semantic part of 3 were left out" in result.stdout
    weights = torch.load(tmp_path / RUN / "nerfstudio_models" / "step-000000005.ckpt")["pipeline"]
    assert all(value.isfinite().all() for value in weights.values() if isinstance(value, torch.Tensor))
    train(tmp_path, "--timestamp", "plain")
    plain = torch.load(tmp_path / "outputs/e/dietnerf-tiny/plain/nerfstudio_models/step-000000005.ckpt")["pipeline"]
    different = [name for name, value in plain.items() if not _same(value, weights[name])]
    assert not different, "as without the semantic loss"
    monkeypatch.setattr(BadSteps, "LIMIT", 2)
    said = train(tmp_path, "--timestamp", "off", semantic=True).stdout
    assert "after 2 such steps in a row the semantic loss is switched off" in said
    assert said.count("the semantic loss is switched off, because its gradient was not finite 2 times in a row") == 1
    assert "the semantic part of 2 were left out" in said
    folder = tmp_path / "outputs/e/dietnerf-tiny/off/nerfstudio_models"
    resumed = train(tmp_path, "--timestamp", "resumed", "--load-dir", folder, semantic=True, steps=4).stdout
    said = " ".join(resumed.split())
    assert said.count("The semantic loss stays switched off, because its gradient was not finite 2 times in a row") == 1
    assert "is not finite" not in said, "it is not computed"
    other = ("--pipeline.semantic.max-gradient-ratio", 0.02)
    again = train(tmp_path, "--timestamp", "again", "--load-dir", folder, *other, semantic=True, steps=4).stdout
    assert "stays switched off" not in again and "the semantic loss is not finite" in again


def test_parameters_that_a_method_has_replaced_are_kept_from_what_is_not_finite(tmp_path, monkeypatch):
    """TensoRF's planes are other parameters after step 1, which nerfstudio's list of them does not show."""
    loss_dict = TensoRFModel.get_loss_dict

    def with_a_bad_step(self, outputs, batch, metrics_dict=None):
        losses = loss_dict(self, outputs, batch, metrics_dict)
        with_a_bad_step.calls += 1
        if with_a_bad_step.calls == 4:  # zero, with a gradient that is not finite, of the planes alone
            losses["planes"] = (0 * self.field.color_encoding.plane_coef).sqrt().sum()
        return losses

    with_a_bad_step.calls = 0
    monkeypatch.setattr(TensoRFModel, "get_loss_dict", with_a_bad_step)
    model = ["init-resolution", 8, "final-resolution", 12, "upsampling-iters", 1, "num-samples", 8]
    model += ["num-uniform-samples", 8, "num-den-components", 2, "num-color-components", 2]
    flags = [f"--pipeline.model.{one}" if isinstance(one, str) else one for one in model]
    small = [flag for flag in SMALL if flag not in ("--pipeline.semantic.stop", 1)]
    result = in_this_process(
        *("ns-train", "dietnerf-tensorf", "--max-num-iterations", 6, *small, *flags),
        *("--pipeline.semantic.weight", 0, "blender-data", "--data", TINY_SCENE),
        cwd=tmp_path,
    )
    assert "the photometric part of 1 steps and the semantic part of 0 were left out" in result.stdout
    weights = checkpoint(tmp_path / "outputs/e/dietnerf-tensorf/run")["pipeline"]
    assert all(value.isfinite().all() for value in weights.values() if isinstance(value, torch.Tensor))
    assert any(12 in value.shape for value in weights.values() if isinstance(value, torch.Tensor))


def _same(value, other):
    return torch.allclose(value, other, atol=1e-5) if isinstance(value, torch.Tensor) else True


def test_wrong_flags_are_refused_before_anything_is_loaded(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("data were loaded")

    monkeypatch.setattr(VanillaDataManager, "__init__", refuse)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    (tmp_path / "file").touch()
    for flags, words in (
        (["--max-num-iterations", 0], "--max-num-iterations 0: must be at least 1."),
        (["--load-dir", "nowhere"], "--load-dir nowhere: there is no such folder"),
        (["--load-checkpoint", "file"], "--load-checkpoint file: this is no checkpoint that can be read: it is empty."),
        (["--output-dir", "file"], "cannot be written: Not a directory."),
        (["--machine.device-type", "cuda"], "--machine.device-type cuda: torch finds no CUDA GPU here"),
        (["--machine.device-type", "mps"], "--machine.device-type mps: torch finds no Apple GPU here"),
        (["--machine.num-devices", 0], "--machine.num-devices 0: must be at least 1."),
        (["--machine.num-machines", 2, "--machine.machine-rank", 2], "machine-rank 2: must be at least 0 and below"),
        (["--machine.num-devices", 2], "several processes train on CUDA GPUs only; with --machine.device-type cpu"),
    ):
        result = train(tmp_path, *flags, check=False)
        assert result.returncode == 1 and words in result.stdout.splitlines()[-1]
    assert not (tmp_path / "outputs").exists()


def test_more_processes_than_gpus_and_machines_without_an_address_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)

    def machine(**settings):
        return MachineConfig(device_type="cuda", **settings)

    for settings, words in (
        (machine(num_devices=3), "--machine.num-devices 3: torch finds 2 CUDA GPUs here."),
        (machine(num_devices=2, num_machines=2), "--machine.dist-url auto: several machines need an address"),
    ):
        with pytest.raises(UserError, match=words):
            replace(dietnerf_tiny.config, machine=settings).set_timestamp()
    trained = replace(dietnerf_tiny.config, machine=machine(num_devices=2, num_machines=2, dist_url="tcp://a:1"))
    trained.set_timestamp()


def test_a_second_run_does_not_delete_the_model_of_the_first(tmp_path):
    train(tmp_path, steps=2)
    content = {path: path.read_bytes() for path in (tmp_path / RUN).rglob("*") if path.is_file()}
    folder = Path(RUN, "nerfstudio_models")
    elsewhere = shutil.copytree(tmp_path / folder, tmp_path / "elsewhere")
    for flags in ([], ["--load-dir", elsewhere]):
        refused = train(tmp_path, *flags, steps=2, check=False)
        assert refused.returncode == 1
        assert refused.stdout.splitlines()[-1] == (
            f"--timestamp run: {RUN} has a model already (step 1), which would be deleted. Give another --timestamp, "
            "or none (with --load-config: write another one into the file); "
            f"go on with --load-dir {folder}; or delete the folder."
        )
        assert {path: path.read_bytes() for path in (tmp_path / RUN).rglob("*") if path.is_file()} == content
    train(tmp_path, "--timestamp", "second", steps=1)
    (tmp_path / "latest.ckpt").symlink_to(folder / "step-000000001.ckpt")
    train(tmp_path, "--load-checkpoint", "latest.ckpt", steps=1)
    assert checkpoints(tmp_path) == [2]
    long = train(tmp_path, "--experiment-name", "a" * 300, steps=1, check=False)
    assert long.returncode == 1 and "cannot be" in long.stdout.splitlines()[-1]


def test_a_resumed_run_passes_over_a_damaged_checkpoint_and_knows_its_photos(tmp_path):
    train(tmp_path)
    folder = tmp_path / RUN / "nerfstudio_models"
    (folder / "step-000000099.ckpt").write_bytes(b"half")
    (folder / saved.UNFINISHED).write_bytes(b"half")
    load = ["--load-dir", folder]
    result = train(tmp_path, *load, steps=4)
    assert "step-000000099.ckpt cannot be read" in result.stdout and "other photos" not in result.stdout
    assert "was to end after 6 steps; this one ends after 10. Learning rates, finer levels" in result.stdout
    assert os.listdir(folder) == ["step-000000009.ckpt"]
    other = train(tmp_path, *load, "--pipeline.datamanager.num-views", 3, "--timestamp", "b", steps=1)
    assert "The checkpoint was trained on other photos than these (8 photos, now 3)." in other.stdout
    assert "The checkpoint's box counts, " in other.stdout
    larger = train(tmp_path, *load, "--pipeline.model.plane-resolution", 30, "--timestamp", "c", steps=1)
    assert "parts of the model have the checkpoint's size" in larger.stdout
    assert "features: (3, 25, 25, 16) instead of (3, 30, 30, 16)." in larger.stdout
    wider = train(tmp_path, *load, "--pipeline.model.hidden-dim", 24, "--timestamp", "d", check=False)
    assert wider.returncode == 1 and "differ in size, such as " in wider.stdout.splitlines()[-1]


def test_a_resumed_run_has_its_own_kernel_of_adam(tmp_path):
    train(tmp_path, "--optimizers.fields.optimizer.fused", False, steps=2)
    folder = tmp_path / RUN / "nerfstudio_models"
    train(tmp_path, "--load-dir", folder, steps=1)
    state = torch.load(saved.checkpoint_of(folder, 2), map_location="cpu", weights_only=True)
    assert state["optimizers"]["fields"]["param_groups"][0]["fused"]


def test_members_are_trained_and_resumed_together(tmp_path):
    train(tmp_path, "--pipeline.model.members", 2, semantic=True, steps=6)
    file = saved.checkpoint_of(tmp_path / RUN / "nerfstudio_models", 5)
    state = torch.load(file, map_location="cpu", weights_only=True)
    name = "field.mlp_base.1.weights"
    weights = [state["pipeline"][f"_model.{place}{name}"] for place in ("", "other_members.0.")]
    assert torch.equal(*weights) and weights[0][0] == 1, "one schedule for both"
    moments = state["optimizers"]["fields"]["state"]
    assert len(moments) == len(state["optimizers"]["fields"]["param_groups"][0]["params"])
    assert all(float(moment["exp_avg"].abs().sum()) > 0 for moment in moments.values()), "all of them get gradients"
    resumed = train(tmp_path, "--pipeline.model.members", 2, "--load-dir", file.parent, steps=2)
    assert "Steps" not in resumed.stdout and checkpoints(tmp_path) == [7]
    refused = train(tmp_path, "--pipeline.model.members", 0, "--timestamp", "b", check=False)
    assert refused.returncode == 1 and "--pipeline.model.members 0: must be at least 1." in refused.stdout


def test_a_model_whose_parameters_were_replaced_is_not_resumed():
    old, new = torch.nn.Parameter(torch.zeros(2)), torch.nn.Parameter(torch.zeros(3))
    optimizers = SimpleNamespace(optimizers={"encodings": torch.optim.Adam([old])})
    of_model = {"encodings": [old], "without an optimizer": [new]}
    resumed = SimpleNamespace(
        optimizers=optimizers,
        pipeline=SimpleNamespace(get_param_groups=lambda: of_model),
        config=SimpleNamespace(method_name="dietnerf-tensorf"),
    )
    SafeTrainer._check_optimizers_have_the_parameters(resumed)
    of_model["encodings"] = [new]
    with pytest.raises(UserError, match="dietnerf-tensorf cannot be resumed"):
        SafeTrainer._check_optimizers_have_the_parameters(resumed)


def test_a_resume_in_place_that_does_not_fit_leaves_the_settings_of_the_model(tmp_path):
    train(tmp_path)
    run, before = tmp_path / RUN, (tmp_path / RUN / "config.yml").read_text()
    resume = ("--load-dir", run / "nerfstudio_models")
    refused = train(tmp_path, *resume, "--pipeline.model.hidden-dim", 24, check=False)
    assert refused.returncode == 1 and "the settings of the first run" in " ".join(refused.stdout.split())
    assert (run / "config.yml").read_text() == before
    refused = train(tmp_path, *resume, "--pipeline.model.members", 2, check=False)
    said = " ".join(refused.stdout.split())
    assert "Members: the checkpoint has 1, this run 2. Resume it with --pipeline.model.members 1." in said
    assert refused.returncode == 1 and (run / "config.yml").read_text() == before
    train(tmp_path, *resume, "--pipeline.model.eval-num-rays-per-chunk", 123)
    assert "eval_num_rays_per_chunk: 123" in (run / "config.yml").read_text()
    assert [path.name for path in run.iterdir() if path.name.startswith(".")] == []


def test_settings_that_a_killed_run_left_do_not_replace_those_of_the_next_run(tmp_path):
    run = tmp_path / RUN
    run.mkdir(parents=True)
    (run / ".config-of-resumed-run.yml").write_text("left by a run that was killed while it started")
    train(tmp_path)
    assert "method_name: dietnerf-tiny" in (run / "config.yml").read_text()


def test_a_run_resumed_from_an_earlier_step_names_what_is_newer(tmp_path):
    each_step = ("--save-only-latest-checkpoint", "False", "--steps-per-save", 2)
    train(tmp_path, *each_step)
    resume = ("--load-dir", tmp_path / RUN / "nerfstudio_models", "--load-step", 2)
    said = " ".join(train(tmp_path, *each_step, *resume, steps=2).stdout.split())
    assert checkpoints(tmp_path)[0] == 5 and "has checkpoints of later steps, up to 5." in said


def test_a_method_whose_parameters_change_their_number_says_that_it_cannot_be_resumed(tmp_path, monkeypatch):
    """As TensoRF's do when it refines its grid; nerfstudio's optimizers would go on training the first ones."""

    def refine(self, step):
        if step == 3:
            self.pipeline.model.refined = torch.nn.Parameter(torch.zeros(2))
        return iteration(self, step)

    iteration = signalling(Trainer.train_iteration, 3, signal.SIGTERM)
    monkeypatch.setattr(Trainer, "train_iteration", refine)
    monkeypatch.setattr(trainer, "status_of", lambda number: 128 + number)
    said = " ".join(train(tmp_path, check=False).stdout.split())
    assert "Interrupted after step 3. dietnerf-tiny cannot be resumed, but" in said and "Go on with" not in said


def test_a_run_resumed_from_an_earlier_step_goes_on_from_its_own_checkpoint(tmp_path, monkeypatch):
    keeps = ("--save-only-latest-checkpoint", "False", "--steps-per-save", 2)
    train(tmp_path, *keeps)
    resume = ("--load-dir", f"{RUN}/nerfstudio_models", "--load-step", 2)
    monkeypatch.setattr(Trainer, "train_iteration", signalling(Trainer.train_iteration, 3, signal.SIGTERM))
    monkeypatch.setattr(trainer, "status_of", lambda number: 128 + number)
    said = train(tmp_path, *keeps, *resume, steps=3, check=False).stdout
    assert checkpoints(tmp_path)[:2] == [5, 4], said
    assert f"Interrupted after step 3. Go on with: ns-train dietnerf-tiny --load-dir {RUN}/nerfstudio_models " in said
    assert "--max-num-iterations 2 --load-step 3 " in said
    failing_writes(monkeypatch, 3)
    said = train(tmp_path, *keeps, *resume, steps=3, check=False).stdout
    assert "Interrupted after step 2." in said and "--max-num-iterations 3 --load-step 2 " in said


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--optimizers.fields.scheduler.lr-final", 0], "fields.scheduler.lr-final 0.0: must be above 0."),
        (["--optimizers.fields.optimizer.lr", 0], "fields.optimizer.lr 0.0: must be above 0, because its schedule"),
        (["--optimizers.proposal-networks.scheduler.max-steps", 0], "scheduler.max-steps 0: must be"),
        (
            ["--optimizers.fields.scheduler.warmup-steps", 6],
            "warmup-steps 6: must be at least 0 and not max-steps, 6",
        ),
        (["--machine.seed", -1], "--machine.seed -1: must be at least 0 and at most 4294967295."),
    ],
)
def test_numbers_that_would_end_in_nan_or_in_a_traceback_are_refused(tmp_path, flags, words):
    result = train(tmp_path, *flags, check=False)
    assert result.returncode == 1 and words in " ".join(result.stdout.split())
