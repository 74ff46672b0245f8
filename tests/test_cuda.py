"""What only a CUDA GPU can show; with tinycudann where it is installed, and with torch alone where it is not."""

import importlib
import subprocess
import sys

import pytest
import torch
from nerfstudio.field_components.mlp import MLP
from nerfstudio.utils.external import TCNN_EXISTS

from dietnerf_ns.bench.speed.candidate import Candidate, Data, train_step
from dietnerf_ns.bench.speed.semantic_step import PARTS, split_semantic_step
from dietnerf_ns.methods import TINY_SCENE
from tests.helpers.commands import checkpoint, in_this_process

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
]
needs_two = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA GPUs")
needs_tinycudann = pytest.mark.skipif(not TCNN_EXISTS, reason="needs tinycudann")

EMBEDDED = {"pipeline.semantic.encoder": "embedded"}
HALF_PRECISION = 1e-2
"""Relative error; float16 keeps three digits, and a product of 64 of them somewhat less."""


@pytest.fixture(params=["free-planes", "hash"])
def trainer(request, tmp_path):
    overrides = EMBEDDED | {"pipeline.model.field": request.param}
    return Candidate("ours", "dietnerf", 1024, overrides).trainer(Data(str(TINY_SCENE)), tmp_path)


def same_network(fused: MLP) -> MLP:
    """nerfstudio's torch network with the weights of a fused one: row-major layers, sides padded to 16."""
    network = MLP(
        fused.in_dim,
        fused.num_layers,
        fused.layer_width,
        fused.out_dim,
        activation=fused.activation,
        out_activation=fused.out_activation,
        implementation="torch",
    ).cuda()
    rest = fused.tcnn_encoding.params.detach()
    for layer in network.layers:
        rows, columns = (-(-side // 16) * 16 for side in layer.weight.shape)
        weights, rest = rest[: rows * columns].reshape(rows, columns), rest[rows * columns :]
        weights[:, layer.in_features :] = 0  # tinycudann fills inputs up with ones
        layer.weight.data = weights[: layer.out_features, : layer.in_features].clone()
        torch.nn.init.zeros_(layer.bias)
    assert not len(rest)
    return network


def relative_error(value, reference):
    return float((value.float() - reference).norm() / reference.norm())


@needs_tinycudann
def test_fused_networks_equal_torch_ones_with_the_same_weights(trainer):
    model = trainer.pipeline.model
    networks = [module for module in model.modules() if isinstance(module, MLP)]
    assert networks and all(network.tcnn_encoding is not None for network in networks)
    for fused in networks:
        reference = same_network(fused)
        inputs = torch.rand(4096, fused.in_dim, device="cuda", requires_grad=True)
        outputs, expected = fused(inputs), reference(inputs)
        assert relative_error(outputs, expected) < HALF_PRECISION
        weights = torch.rand_like(expected)
        (gradient,) = torch.autograd.grad((outputs.float() * weights).sum(), inputs)
        (expected_gradient,) = torch.autograd.grad((expected * weights).sum(), inputs)
        assert relative_error(gradient, expected_gradient) < 3 * HALF_PRECISION


def test_semantic_steps_train_in_mixed_precision(trainer):
    before = {name: parameter.detach().clone() for name, parameter in trainer.pipeline.model.named_parameters()}
    for step in range(21):
        train_step(trainer, step)
    assert 0 < float(trainer.pipeline.semantic.last.similarity) <= 1
    moved = [name for name, p in trainer.pipeline.model.named_parameters() if not torch.equal(p, before[name])]
    assert any(name.startswith("field") for name in moved)
    assert all(torch.isfinite(parameter).all() for parameter in trainer.pipeline.model.parameters())


def test_memory_of_a_semantic_view_does_not_grow_with_its_size(tmp_path):
    candidate = Candidate("ours", "dietnerf", 4096, EMBEDDED | {"pipeline.semantic.rays_per_chunk": 4096})
    how = {"sizes": [112, 224], "repetitions": 1, "warmup_seconds": 0, "what": "memory"}
    small, large, *_ = split_semantic_step(candidate, Data(str(TINY_SCENE)), tmp_path, **how)
    for part in PARTS:
        assert large["start"] + large[part] < 1.05 * (small["start"] + small[part]), part


SHORT = ["--max-num-iterations", 5, "--vis", "tensorboard", "--timestamp", "run", "--experiment-name", "e"]
SHORT += ["--pipeline.semantic.encoder", "embedded", "--pipeline.semantic.every", 2, "--pipeline.semantic.stop", 1]
DATA = ["blender-data", "--data", TINY_SCENE]


def trained_weights(folder, method):
    content = checkpoint(folder / f"outputs/e/{method}/run")
    assert content["step"] == 4
    return {name: value for name, value in content["pipeline"].items() if isinstance(value, torch.Tensor)}


@pytest.mark.parametrize(
    ("method", "kernels"),
    [
        ("dietnerf-nerfacto", None),
        ("dietnerf-tensorf", None),
        ("dietnerf-ngp", "nerfacc.cuda._backend"),
        ("dietnerf-splat", "gsplat.cuda._backend"),
    ],
)
def test_nerfstudios_methods_train_and_are_evaluated(method, kernels, tmp_path):
    if kernels is not None and importlib.import_module(kernels)._C is None:
        pytest.skip(f"{kernels} could not be built: it needs nvcc")
    said = in_this_process("ns-train", method, *SHORT, *DATA, cwd=tmp_path).stdout
    assert "were left out" not in said, "numbers that are not finite"
    assert all(value.isfinite().all() for value in trained_weights(tmp_path, method).values())
    config = f"outputs/e/{method}/run/config.yml"
    said = in_this_process("ns-eval", "--load-config", config, "--output-path", "metrics.json", cwd=tmp_path).stdout
    assert "PSNR" in said


def train_on(gpus, method, folder):
    """ns-train as a program, also where the package and its commands are not installed."""
    flags = [method, *SHORT, "--machine.num-devices", gpus, *DATA]
    command = [sys.executable, "-W", "ignore", "-m", "nerfstudio.scripts.train", *map(str, flags)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@needs_two
@pytest.mark.parametrize("method", ["dietnerf", "dietnerf-tensorf"])
def test_two_gpus_train_one_run(method, tmp_path):
    run = train_on(2, method, tmp_path)
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("Training views: 8") == 1, "the main process alone speaks"
    assert all(value.isfinite().all() for value in trained_weights(tmp_path, method).values())


def test_more_gpus_than_there_are_are_refused(tmp_path):
    run = train_on(99, "dietnerf", tmp_path)
    assert run.returncode == 1 and "99: torch finds" in run.stderr.splitlines()[-1]
