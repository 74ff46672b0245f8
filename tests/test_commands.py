"""The main job through nerfstudio's real commands, as a user types them."""

import json
import subprocess
import sys

import open_clip
import pytest
import torch

from dietnerf_ns.commands import poses, render, similarity
from tests.helpers.commands import checkpoint, in_this_process, ns
from tests.helpers.scenes import as_transforms_json

SMALL = ["--pipeline.datamanager.camera-res-scale-factor", 0.25, "--pipeline.datamanager.train-num-rays-per-batch", 64]
SMALL_HASH = ["--pipeline.model.log2-hashmap-size", 10, "--vis", "tensorboard"]


def run_folder(folder, method):
    return folder / "outputs" / "unnamed" / method / "run"


def same(value, other):
    return torch.equal(value, other) if isinstance(value, torch.Tensor) else value == other


@pytest.mark.slow
def test_resuming_continues_bit_for_bit(tmp_path):
    """12 steps, stop, 12 more from the checkpoint: every weight and optimiser state as after 24 steps at once."""
    train = ["ns-train", "dietnerf-tiny", "--machine.device-type", "cpu", "--vis", "tensorboard", "--timestamp", "run"]
    train += [*SMALL, "--pipeline.semantic.every", 5, "--pipeline.semantic.resolution", 16]
    folders = {name: tmp_path / name for name in ("whole", "first", "second")}
    for folder in folders.values():
        folder.mkdir()
    # In each finer planes come in over 18 steps, and the last semantic view is at step 20: of 24 steps, also in the
    # resumed run, and written as of 12 in the one that ends there.
    of_24 = ["--pipeline.model.coarse-to-fine", 18 / 24, "--pipeline.semantic.stop", 21 / 24]
    of_12 = ["--pipeline.model.coarse-to-fine", 18 / 12, "--pipeline.semantic.stop", 21]
    for group in ("fields", "proposal-networks"):
        of_12 += [f"--optimizers.{group}.scheduler.max-steps", 24]
    ns(*train, "--max-num-iterations", 24, *of_24, cwd=folders["whole"])
    ns(*train, "--max-num-iterations", 12, *of_12, cwd=folders["first"])
    saved = run_folder(folders["first"], "dietnerf-tiny") / "nerfstudio_models"
    ns(*train, "--max-num-iterations", 12, *of_24, "--load-dir", saved, cwd=folders["second"])

    whole, resumed = (checkpoint(run_folder(folders[name], "dietnerf-tiny")) for name in ("whole", "second"))
    assert whole["step"] == resumed["step"] == 23
    assert whole["pipeline"].keys() == resumed["pipeline"].keys()
    different = [name for name, value in whole["pipeline"].items() if not same(value, resumed["pipeline"][name])]
    assert not different
    for group, state in whole["optimizers"].items():
        for index, moments in state["state"].items():
            assert torch.equal(moments["exp_avg_sq"], resumed["optimizers"][group]["state"][index]["exp_avg_sq"])
    not_resumed = checkpoint(run_folder(folders["first"], "dietnerf-tiny"))["pipeline"]
    assert any(
        not torch.equal(value, not_resumed[name]) for name, value in whole["pipeline"].items() if "features" in name
    )


@pytest.mark.slow
def test_dietnerf_with_a_local_clip_checkpoint(tiny_scene, tmp_path):
    """The main method end to end with a real open-clip file; its weights are random because none can be downloaded."""
    torch.manual_seed(0)
    torch.save(open_clip.create_model("ViT-S-32").state_dict(), tmp_path / "clip.pt")
    semantic = [
        "--pipeline.semantic.clip-model",
        "ViT-S-32",
        "--pipeline.semantic.clip-pretrained",
        tmp_path / "clip.pt",
    ]
    semantic += ["--pipeline.semantic.every", 2, "--pipeline.semantic.resolution", 16]
    short = ["--max-num-iterations", 5, "--timestamp", "run", "--machine.device-type", "cpu"]
    scene = ["--data", tiny_scene, "blender-data"]
    said = in_this_process("ns-train", "dietnerf", *short, *SMALL, *SMALL_HASH, *semantic, *scene, cwd=tmp_path).stdout
    assert "nerfstudio's torch implementation, because this device is no CUDA GPU" in said
    assert said.count("slow implementation") == 0 and "tiny-cuda-nn" not in said
    assert "near_plane 2.0, far_plane 6.0, background_color white" in said, "the Blender preset applies itself"
    run = tmp_path / "outputs" / "tiny_scene" / "dietnerf" / "run"
    assert not any("visual" in name or "semantic" in name for name in checkpoint(run)["pipeline"])


@pytest.mark.slow
def test_vanilla_trains_and_evaluates(tiny_scene, tmp_path):
    semantic = ["--pipeline.semantic.encoder", "embedded", "--pipeline.semantic.every", 2]
    semantic += ["--pipeline.semantic.resolution", 16]
    semantic += ["--pipeline.model.num-coarse-samples", 16, "--pipeline.model.num-importance-samples", 16]
    short = ["--max-num-iterations", 3, "--timestamp", "run", "--machine.device-type", "cpu", "--vis", "tensorboard"]
    scene = ["--data", tiny_scene, "blender-data"]
    in_this_process("ns-train", "dietnerf-vanilla", *short, *SMALL, *semantic, *scene, cwd=tmp_path)
    config = tmp_path / "outputs" / "tiny_scene" / "dietnerf-vanilla" / "run" / "config.yml"
    in_this_process("ns-eval", "--load-config", config, "--output-path", "m.json", cwd=tmp_path)
    results = json.loads((tmp_path / "m.json").read_text())["results"]
    assert results["psnr"] == results["fine_psnr"] and results["ssim"] == results["fine_ssim"]


@pytest.mark.parametrize(
    "arguments, words",
    [
        (
            ["--pipeline.semantic.encoder", "open-clip", "--pipeline.semantic.clip-pretrained", "broken.pt"],
            "Two ways out",
        ),
        (["--pipeline.datamanager.num-views", 9], "the training split has 8 views"),
        (["--data", "nowhere"], "no such file or folder"),
    ],
)
def test_wrong_input_ends_with_one_message_before_training(arguments, words, tmp_path):
    (tmp_path / "broken.pt").write_bytes(b"no checkpoint")
    result = in_this_process("ns-train", "dietnerf-tiny", *arguments, cwd=tmp_path, check=False)
    assert result.returncode == 1
    assert words in result.stdout.splitlines()[-1]
    assert "Step (% Done)" not in result.stdout


@pytest.mark.slow
def test_weights_that_cannot_be_downloaded_are_one_message_before_training(tmp_path):
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "empty")}
    clip = ["--pipeline.semantic.encoder", "open-clip"]
    result = ns("ns-train", "dietnerf-tiny", *clip, cwd=tmp_path, check=False, **offline)
    assert result.returncode == 1
    assert "Traceback" not in result.stdout
    assert "Two ways out" in result.stdout.splitlines()[-1]
    assert "Step (% Done)" not in result.stdout


@pytest.mark.slow
def test_photos_without_evaluation_images_render_but_are_not_evaluated(tiny_scene, tmp_path):
    scene = as_transforms_json(tiny_scene, tmp_path / "photos", count=5)
    short = ["--max-num-iterations", 2, "--timestamp", "run", "--vis", "tensorboard", *SMALL]
    short += ["--pipeline.semantic.weight", 0]
    in_this_process("ns-train", "dietnerf-tiny", *short, "--data", scene, "nerfstudio-data", cwd=tmp_path)
    config = tmp_path / "outputs" / "photos" / "dietnerf-tiny" / "run" / "config.yml"
    result = in_this_process("ns-eval", "--load-config", config, cwd=tmp_path, check=False)
    assert result.returncode == 1
    assert "--eval-mode filename" in result.stdout.splitlines()[-1]
    images = ["--output-format", "images", "--interpolation-steps", 1, "--output-path", "i"]
    in_this_process("ns-render", "interpolate", "--load-config", config, *images, cwd=tmp_path)
    assert len(list((tmp_path / "i").iterdir())) >= 3


@pytest.mark.slow
def test_nerfacto_still_trains_beside_the_plugin(tiny_scene, tmp_path):
    """nerfacto downloads AlexNet when it starts; a file of random weights lets it start without network."""
    import torchvision

    hub = tmp_path / "torch" / "hub" / "checkpoints"
    hub.mkdir(parents=True)
    torch.save(torchvision.models.alexnet().state_dict(), hub / "alexnet-owt-7be5be79.pth")
    short = ["--max-num-iterations", 2, "--machine.device-type", "cpu", "--pipeline.model.implementation", "torch"]
    small = ["--pipeline.datamanager.train-num-rays-per-batch", 64, *SMALL_HASH]
    arguments = [*short, *small, "--data", tiny_scene, "blender-data"]
    in_this_process("ns-train", "nerfacto", *arguments, cwd=tmp_path, TORCH_HOME=str(tmp_path / "torch"))


@pytest.mark.slow
@pytest.mark.parametrize("first", ["dietnerf_ns.methods", "nerfstudio.configs.method_configs"])
def test_methods_are_registered_beside_nerfstudios_whatever_is_imported_first(first):
    code = f"import {first}; from nerfstudio.configs.method_configs import all_methods; print(*all_methods)"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {"nerfacto", "splatfacto", "instant-ngp", "vanilla-nerf"} <= set(printed)
    assert {"dietnerf", "dietnerf-vanilla", "dietnerf-tiny"} <= set(printed)


@pytest.mark.parametrize(
    ("entry_point", "step", "said"),
    [
        (poses.main, "dietnerf_ns.poses.make.make_scene", "Interrupted. Nothing was written."),
        (render.main, "dietnerf_ns.orbit.files.check_output", "Interrupted. Nothing was written."),
        (similarity.main, "dietnerf_ns.commands.similarity.Similarity.main", "Interrupted."),
    ],
    ids=["poses", "render", "similarity"],
)
def test_ctrl_c_at_any_time_is_one_line(entry_point, step, said, tmp_path, monkeypatch, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    (tmp_path / "config.yml").touch()
    arguments = {
        poses.main: [tmp_path, "--output", tmp_path / "scene"],
        render.main: ["orbit", "--load-config", tmp_path / "config.yml", "--output", tmp_path / "o.gif"],
        similarity.main: [tmp_path, "--out", tmp_path / "out"],
    }
    monkeypatch.setattr(step, interrupted)
    monkeypatch.setattr("sys.argv", ["command", *map(str, arguments[entry_point])])
    with pytest.raises(SystemExit) as end:
        entry_point()
    assert end.value.code == 130 and capsys.readouterr().err.splitlines()[-1] == said
