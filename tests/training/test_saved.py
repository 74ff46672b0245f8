"""Checkpoints are complete or absent, and a damaged one is passed over."""

import os

import numpy as np
import pytest
import torch

import dietnerf_ns.methods  # noqa: F401  numpy's scalars become loadable
from dietnerf_ns.training import atomic, saved
from dietnerf_ns.utils.errors import UserError


def state(step):
    return {"step": step, "pipeline": {"weight": torch.rand(2000)}, "optimizers": {"lr": np.float64(1)}, "scalers": {}}


@pytest.fixture
def folder(tmp_path):
    """Checkpoints of the steps 9 and 19."""
    for step in (9, 19):
        saved.write(state(step), saved.checkpoint_of(tmp_path, step))
    return tmp_path


def truncated(path):
    path.write_bytes(path.read_bytes()[:-100])


def emptied(path):
    path.write_bytes(b"")


def zeroed(path):
    path.write_bytes(bytes(path.stat().st_size))


def flipped(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def replaced_by_weights(path):
    torch.save({"weight": torch.zeros(2)}, path)


@pytest.mark.parametrize(
    "damage, words",
    [
        (truncated, "cut off"),
        (emptied, "it is empty"),
        (zeroed, "cut off, or no checkpoint"),
        (flipped, "damaged"),
        (replaced_by_weights, "lacks optimizers, pipeline, scalers, step"),
    ],
)
def test_an_older_checkpoint_is_taken_if_the_newest_is_damaged(folder, damage, words, capsys):
    assert saved.newest_readable(folder) == 19 and capsys.readouterr().out == ""
    damage(saved.checkpoint_of(folder, 19))
    assert saved.newest_readable(folder) == 9
    (line,) = capsys.readouterr().out.splitlines()
    assert "step-000000019.ckpt cannot be read" in line and words in line
    assert "The older step-000000009.ckpt is loaded instead" in line
    damage(saved.checkpoint_of(folder, 9))
    with pytest.raises(UserError, match="there is no checkpoint that can be read: step-000000019.*; step-000000009"):
        saved.newest_readable(folder)


def test_an_unfinished_file_is_no_step_to_nerfstudio(folder):
    (folder / saved.UNFINISHED).touch()
    names = os.listdir(folder)
    assert len(names) == 3
    assert max(int(name[name.find("-") + 1 : name.find(".")]) for name in names) == 19, "as nerfstudio reads them"
    assert saved.steps_in(folder) == [19, 9]
    saved.remove_unfinished(folder)
    assert not (folder / saved.UNFINISHED).exists() and saved.steps_in(folder) == [19, 9]


def test_a_failed_write_leaves_what_was_there(folder, monkeypatch):
    path = saved.checkpoint_of(folder, 19)
    before = path.read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(saved.NotWritten, match="^No space left on device$"):
        saved.write(state(19), path)
    assert path.read_bytes() == before and not (folder / saved.UNFINISHED).exists()


def test_a_file_is_on_the_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    order = []
    real_fsync, real_replace = os.fsync, type(tmp_path).replace
    monkeypatch.setattr(os, "fsync", lambda descriptor: order.append("fsync") or real_fsync(descriptor))
    monkeypatch.setattr(type(tmp_path), "replace", lambda a, b: order.append("replace") or real_replace(a, b))
    atomic.write_text(tmp_path / "config.yml", "grün")
    assert (tmp_path / "config.yml").read_text("utf8") == "grün" and os.listdir(tmp_path) == ["config.yml"]
    assert order[:2] == ["fsync", "replace"]


def test_what_cannot_be_resumed_from_is_refused(folder, tmp_path):
    run = tmp_path / "run"
    inside = run / "nerfstudio_models"
    inside.mkdir(parents=True)
    saved.write(state(9), saved.checkpoint_of(inside, 9))
    (run / "events.out.tfevents.1").touch()
    saved.check_resumable(folder, 9)
    for load_dir, step, words in (
        (tmp_path / "nowhere", None, "--load-dir .*nowhere: there is no such folder"),
        (run, None, "no checkpoint .* in this folder; use --load-dir .*run/nerfstudio_models"),
        (folder, 999, "--load-step 999: there is no such checkpoint in .*; it has the steps 9, 19"),
    ):
        with pytest.raises(UserError, match=words):
            saved.check_resumable(load_dir, step)
    (run / "config.yml").write_text("text")
    with pytest.raises(UserError, match="--load-checkpoint .*config.yml: this is no checkpoint"):
        saved.check_checkpoint(run / "config.yml", "--load-checkpoint")
    with pytest.raises(UserError, match="--load-checkpoint .*gone: there is no such file"):
        saved.check_checkpoint(run / "gone", "--load-checkpoint")
