"""Kills trainings at random moments and resumes them, and watches the memory of long ones.

    python -m tools.soak --kills 30 --out DIR
    python -m tools.soak --kills 0 --memory-steps 20000 --out DIR

A run of dietnerf-tiny is killed with SIGKILL, half of the times while a checkpoint is written, and resumed with
`--load-dir` until it is complete. It must then equal a run that was never killed, bit for bit. Ends with status 1 if a
tensor differs, if a checkpoint cannot be read, or if memory or open files grow. For Linux: processes are forked.
"""

from __future__ import annotations

import multiprocessing
import random
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import psutil
import torch
import tyro
from nerfstudio.configs.method_configs import AnnotatedBaseConfigUnion
from nerfstudio.scripts import train
from tqdm import tqdm

from dietnerf_ns.training.saved import UNFINISHED, checkpoint_of, damage_of, steps_in

SETTINGS = {
    "--machine.device-type": "cpu",
    "--vis": "tensorboard",
    "--timestamp": "run",
    "--experiment-name": "soak",
    "--pipeline.datamanager.camera-res-scale-factor": "0.25",
    "--pipeline.semantic.every": "5",
    "--pipeline.semantic.resolution": "16",
}
PER_SAVE = 10
LONGEST_LIFE_SECONDS = 8.0
SAMPLE_SECONDS = 1.0
WARM_UP = 0.2
ALLOWED_GROWTH = 1.05


@dataclass
class Soak:
    """What is done and where."""

    out: Path
    """Folder of the runs; its content is deleted first."""
    kills: int = 30
    """Number of kills."""
    steps: int = 200
    """Steps of a run that is killed."""
    rays: int = 64
    """Rays of a training batch."""
    memory_steps: int = 0
    """Steps of the run whose memory is watched; 0: none."""
    seed: int = 0
    """Of the moments of the kills."""
    faults: list[str] = field(default_factory=list, init=False)
    counts: dict[str, int] = field(default_factory=dict, init=False)

    def main(self) -> int:
        """Run everything; returns the exit status."""
        shutil.rmtree(self.out, ignore_errors=True)
        self.out.mkdir(parents=True)
        if self.kills > 0:
            self.kill_and_compare()
        if self.memory_steps > 0:
            self.watch_memory()
        for fault in self.faults:
            print(f"FAULT: {fault}")
        return int(bool(self.faults))

    def kill_and_compare(self) -> None:
        """Kill runs until all kills are done, complete the last one, and compare each with one that was not killed."""
        whole = self.start("whole", self.steps)
        whole.join()
        expected = dict(tensors(self.final_state("whole")))
        moments, run, number = random.Random(self.seed), 0, 0
        with tqdm(total=self.kills, desc="kills") as bar:
            while bar.n < self.kills:
                self.complete_with_kills(f"killed-{run}", moments, bar)
                different = self.differences(f"killed-{run}", expected)
                self.faults += [f"killed-{run}: {name} differs" for name in different]
                number += len(different)
                run += 1
        known = ", ".join(f"{name} {count}" for name, count in sorted(self.counts.items()))
        print(f"Kills: {bar.n} in {run} runs of {self.steps} steps ({known}).")
        print(f"Compared: {len(expected)} tensors of each run; different: {number}.")

    def complete_with_kills(self, name: str, moments: random.Random, bar: tqdm) -> None:
        """Train a run to its end, with kills until there were enough of them."""
        folder = self.checkpoints(name)
        while True:
            done = max(steps_in(folder), default=-1) + 1
            if done == self.steps:  # killed after its last checkpoint
                return
            process = self.start(name, self.steps - done, load_dir=folder if done else None)
            if bar.n < self.kills:
                self.wait_for_moment(process, folder, moments)
            else:
                process.join()
            if not process.is_alive():
                if process.exitcode != 0:
                    self.faults.append(f"{name}: training ended with {process.exitcode} after step {done - 1}")
                return
            process.kill()
            process.join()
            bar.update()
            self.check_folder(name, folder, done)

    def wait_for_moment(self, process: BaseProcess, folder: Path, moments: random.Random) -> None:
        """Return at a random moment, half of the times while a checkpoint is written, or when the process has ended."""
        unfinished, at_write = folder / UNFINISHED, moments.random() < 0.5
        saves, delay = moments.randrange(1, 6), moments.uniform(0, 0.01)
        end = time.monotonic() + moments.uniform(0, LONGEST_LIFE_SECONDS)
        while process.is_alive():
            if at_write:
                if unfinished.exists():
                    saves -= 1
                    if saves == 0:
                        time.sleep(delay)
                        return
                    while unfinished.exists() and process.is_alive():
                        time.sleep(0.0005)
                time.sleep(0.0005)
            elif time.monotonic() > end:
                return
            else:
                time.sleep(0.01)

    def check_folder(self, name: str, folder: Path, done: int) -> None:
        """After a kill every checkpoint can be read, and no earlier progress is lost."""
        steps = steps_in(folder)
        self.count("while writing" if (folder / UNFINISHED).exists() else "elsewhere")
        if not steps:
            self.count("of them before the first checkpoint")
        for step in steps:
            if (damage := damage_of(checkpoint_of(folder, step))) is not None:
                self.faults.append(f"{name}: step {step} cannot be read: {damage}")
        if max(steps, default=-1) + 1 < done:
            self.faults.append(f"{name}: the checkpoint of step {done - 1} is lost")

    def differences(self, name: str, expected: dict[str, torch.Tensor]) -> list[str]:
        """Names of the tensors that differ from those of the run that was not killed."""
        found = dict(tensors(self.final_state(name)))
        names = expected.keys() | found.keys()
        return sorted(n for n in names if n not in found or n not in expected or not torch.equal(found[n], expected[n]))

    def watch_memory(self) -> None:
        """Train a long run; memory and open files after its first fifth must not grow."""
        process = self.start("memory", self.memory_steps, rays=16, per_save=400)
        samples: list[tuple[float, int]] = []
        with tqdm(desc="memory", unit="sample") as bar:
            while process.is_alive():
                try:
                    program = psutil.Process(process.pid)
                    samples.append((program.memory_info().rss / 2**20, program.num_fds()))
                except psutil.Error:
                    break
                bar.update()
                time.sleep(SAMPLE_SECONDS)
        process.join()
        samples = samples[:-1]  # the last one may be of a program that ends
        after = samples[int(len(samples) * WARM_UP) :]
        (first, files), (last, files_at_end) = after[0], after[-1]
        print(
            f"Memory over {self.memory_steps} steps, {len(samples)} samples: {first:.1f} MiB after the first fifth, "
            f"{last:.1f} MiB at the end, at most {max(m for m, _ in after):.1f} MiB; open files {files} and "
            f"{files_at_end}."
        )
        if process.exitcode != 0 or last > ALLOWED_GROWTH * first or files_at_end > files:
            self.faults.append(f"memory: exit status {process.exitcode}, {first:.1f} to {last:.1f} MiB")

    def start(
        self, name: str, steps: int, *, load_dir: Path | None = None, rays: int | None = None, per_save: int = PER_SAVE
    ) -> BaseProcess:
        """Start a training in a process of its own, with its output in a log."""
        settings = SETTINGS | {
            "--output-dir": str(self.out / name),
            "--max-num-iterations": str(steps),
            "--steps-per-save": str(per_save),
            "--pipeline.datamanager.train-num-rays-per-batch": str(rays or self.rays),
        }
        if load_dir is not None:
            settings["--load-dir"] = str(load_dir)
        arguments = ["dietnerf-tiny", *(part for setting in settings.items() for part in setting)]
        log = self.out / f"{name}.log"
        process = multiprocessing.get_context("fork").Process(target=_train, args=(arguments, log))
        process.start()
        return process

    def checkpoints(self, name: str) -> Path:
        """Folder of a run's checkpoints."""
        return self.out / name / "soak" / "dietnerf-tiny" / "run" / "nerfstudio_models"

    def final_state(self, name: str) -> dict[str, Any]:
        """The checkpoint at the end of a run."""
        return torch.load(checkpoint_of(self.checkpoints(name), self.steps - 1), weights_only=True)

    def count(self, name: str) -> None:
        """Count an event for the summary."""
        self.counts[name] = self.counts.get(name, 0) + 1


def _train(arguments: list[str], log: Path) -> None:
    with log.open("a") as file, redirect_stdout(file), redirect_stderr(file):
        train.main(tyro.cli(AnnotatedBaseConfigUnion, prog="ns-train", args=arguments))


def tensors(value: Any, name: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """All tensors in nested dictionaries and lists, with their paths."""
    if isinstance(value, torch.Tensor):
        yield name, value
    elif isinstance(value, dict | list | tuple):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from tensors(part, f"{name}/{key}")


if __name__ == "__main__":
    sys.exit(tyro.cli(Soak, description=__doc__).main())
