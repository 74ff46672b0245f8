"""`ns-train` with several processes on a CPU, as a program: nerfstudio's launcher starts them only where GPUs are.

What asks torch for GPUs before training is replaced by what says yes; the processes then talk through gloo. Each of
them leaves `process-RANK.pt` in the present folder with what it drew, computed and has in the end. RESTART_AT, in the
environment, is a step after which training counts as collapsed; SECONDS_A_STEP and SECONDS_TO_SAVE make steps and the
writing of checkpoints last longer.
"""

from __future__ import annotations

import os
import time
from types import SimpleNamespace

import torch
from nerfstudio.scripts import train
from nerfstudio.utils import comms

from dietnerf_ns.data.datamanager import FewShotDataManager
from dietnerf_ns.training import saved, trainer
from dietnerf_ns.training.collapse import CollapseDetector
from dietnerf_ns.training.trainer import SafeTrainer


class TorchWithGPUs:
    """torch as the launcher sees it: with two GPUs."""

    cuda = SimpleNamespace(is_available=lambda: True, device_count=lambda: 2)

    def __getattr__(self, name):
        return getattr(torch, name)


def record() -> None:
    """Keep what the tests compare between the processes."""
    seen = {"pixels": [], "mse": []}
    next_train, update, run = FewShotDataManager.next_train, CollapseDetector.update, SafeTrainer._train
    write = saved.write
    restart_at = int(os.environ.get("RESTART_AT", "-1"))

    def note_pixels(self, step):
        rays, batch = next_train(self, step)
        seen["pixels"].append(batch["indices"])
        time.sleep(float(os.environ.get("SECONDS_A_STEP", "0")))
        return rays, batch

    def note_fit(self, step, *, mse, **others):
        seen["mse"].append(mse)
        found = update(self, step, mse=mse, **others)
        return "as the test asks" if step == restart_at else found

    def note_checkpoint(state, path):
        time.sleep(float(os.environ.get("SECONDS_TO_SAVE", "0")))
        write(state, path)
        seen["saved"] = time.time()

    def note_end(self):
        torch.manual_seed(comms.get_rank())  # so that a new initialisation would differ
        try:
            run(self)
        finally:
            seen["ended"] = time.time()
            last = self.pipeline.semantic and self.pipeline.semantic.last
            seen["views"] = last and last.view.camera_to_world
            seen["parameters"] = {name: value.detach() for name, value in self.pipeline.named_parameters()}
            torch.save(seen | {"restarts": self.pipeline.collapse_detector.restarts}, f"process-{comms.get_rank()}.pt")

    CollapseDetector.can_restart = lambda *_, **__: True  # the tests' runs are short
    FewShotDataManager.next_train, CollapseDetector.update, SafeTrainer._train = note_pixels, note_fit, note_end
    saved.write = note_checkpoint


if __name__ in ("__main__", "__mp_main__"):  # the latter in the processes that the launcher starts
    train.torch = TorchWithGPUs()
    trainer._check_several_processes = lambda machine: None
    record()

if __name__ == "__main__":
    train.entrypoint()
