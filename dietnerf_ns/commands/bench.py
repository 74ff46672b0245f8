"""dietnerf-bench: compare methods on scenes, few views and seeds; measure speed and memory; report what came out."""

from __future__ import annotations

import signal
import sys
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import tyro

from dietnerf_ns.utils.errors import make_folder


@dataclass
class Run:
    """Train and evaluate every cell (scene x views x method x seed) that has no result yet, then write the report.

    Written under --out: scenes/ (few-shot copies that every method reads), cells/ID/ (log.txt, nerfstudio's run,
    photos/, renders/, result.json when finished), pooled.json (FID, KID), fidelity/ (features of the reference
    images), experiment.json, and what `report` writes. Finished cells are never run again: start the same command
    again to go on after Ctrl-C or a crash. Ends with status 1 if a cell crashed.
    """

    experiment: tyro.conf.Positional[Path]
    """YAML file that says what is compared, as in configs/."""
    out: Path
    """Folder of the results; in use with several machines they must all see it under this path."""
    data: Path | None = None
    """Folder that holds the scenes' folders; the scene `tiny` needs none."""
    jobs: int = 1
    """Cells at once on a machine; they share its processors and GPUs."""
    engine: Literal["local", "ray"] = "local"
    """local: processes on this machine. ray: on all machines of a Ray cluster."""
    ray_address: str | None = None
    """Address of the Ray cluster's head, as HOST:PORT; when not given this machine becomes a cluster of its own."""

    def main(self) -> None:
        """Check everything, run the missing cells, write the report."""
        from dietnerf_ns.bench.cells import plan_cells
        from dietnerf_ns.bench.experiment import read_experiment
        from dietnerf_ns.bench.fid_kid import POOLED, fid_kid_of_methods
        from dietnerf_ns.bench.report import write_report
        from dietnerf_ns.bench.runner import is_finished, run_missing
        from dietnerf_ns.bench.summary import EXPERIMENT
        from dietnerf_ns.utils.files import write_json

        experiment = read_experiment(self.experiment)
        engine = self._engine()
        make_folder(self.out, "--out")
        cells = plan_cells(experiment, self.data, self.out)
        description = {"name": self.experiment.stem, "experiment": asdict(experiment), "cells": [*map(asdict, cells)]}
        write_json(self.out / EXPERIMENT, description | {"baseline": experiment.baseline_title})
        try:
            crashed = run_missing(cells, self.out, engine)
            write_json(self.out / POOLED, fid_kid_of_methods(experiment, cells, self.data, self.out))
            print(f"Report: {write_report(self.out)}")
        except KeyboardInterrupt:
            done = sum(is_finished(cell, self.out) for cell in cells)
            print(
                f"Interrupted: {done} of {len(cells)} cells are finished and kept; the same command runs the rest.",
                file=sys.stderr,
            )
            sys.exit(130)
        if crashed:
            sys.exit(f"{len(crashed)} of {len(cells)} cells crashed; the same command tries them again.")

    def _engine(self):
        from dietnerf_ns.bench.ray_engine import RayEngine
        from dietnerf_ns.bench.runner import LocalEngine
        from dietnerf_ns.utils.errors import UserError

        if self.jobs < 1:
            raise UserError(f"--jobs {self.jobs}: must be at least 1.")
        return LocalEngine(self.jobs) if self.engine == "local" else RayEngine(self.jobs, self.ray_address)


@dataclass
class Report:
    """Write the report of the cells that are finished.

    Written: report.md with its plots/, results.json (everything, per image) and results.csv (a line per
    cell).
    """

    results: tyro.conf.Positional[Path]
    """Folder that `dietnerf-bench run` wrote."""
    to: Path | None = None
    """Folder that the report is written to, such as docs/benchmarks/NAME; that of the results when not given."""
    contact_sheet: bool = True
    """Show photos and renders; leave them out when the photos are not yours to pass on."""

    def main(self) -> None:
        """Write it and say where it is."""
        from dietnerf_ns.bench.report import write_report

        print(f"Report: {write_report(self.results, to=self.to, contact_sheet=self.contact_sheet)}")


@dataclass
class Speed:
    """Measure time and memory of training on this machine, side by side in one run.

    steps: a training step of nerfacto, of the method with lambda = 0 and of the method, same photos and rays; memory:
    their peaks; semantic-step: render and encoder, forward and backward, against the view's size, with and without
    recomputing; floor: how far all that is from the machine's limits; job: the method's training and evaluation from
    start to end; target: time to a PSNR on test views, of the method and of another.

    Written under --out: speed.json, speed.md, speed.png, probes/ (logs). Parts measured before in the same folder stay
    in the report. Minutes on a GPU, about half an hour on a CPU; leave the machine alone.
    """

    out: Path
    """Folder of the results."""
    data: Path | None = None
    """A NeRF-Synthetic scene, as nerf_synthetic/lego; the scene that comes with the package when not given."""
    protocol: str | None = None
    """Which photos are trained on, as --pipeline.datamanager.protocol, or `all`; blender-8 with --data, else all."""
    scale: float = 1.0
    """Factor on the images' width and height."""
    method: str | None = None
    """One of this package's methods; dietnerf with a CUDA GPU, dietnerf-tiny without."""
    parts: tuple[Literal["steps", "memory", "semantic-step", "floor", "job", "target"], ...] = (
        "steps",
        "memory",
        "semantic-step",
        "floor",
        "job",
        "target",
    )
    """What is measured."""
    sizes: tuple[int, ...] = (56, 112, 168, 224)
    """Shorter sides of the semantic view in pixels."""
    rounds: int = 7
    """How often everything timed is repeated, in turn."""
    warmup_seconds: float = 15.0
    """How long each method trains before it is timed."""
    psnr: float = 20.0
    """PSNR in dB that `target` trains to."""
    against: str = "dietnerf-vanilla"
    """The other method of `target`, one of this package's too, with lambda = 0."""
    patience: float = 20.0
    """It is stopped after this many times the method's time."""

    def main(self) -> None:
        """Measure and write the report."""
        import torch

        from dietnerf_ns.bench.speed.candidate import Data
        from dietnerf_ns.bench.speed.report import write_report
        from dietnerf_ns.bench.speed.run import Settings, run
        from dietnerf_ns.methods import TINY_SCENE

        protocol = self.protocol or ("blender-8" if self.data else "all")
        settings = Settings(
            method=self.method or ("dietnerf" if torch.cuda.is_available() else "dietnerf-tiny"),
            data=Data(str((self.data or TINY_SCENE).resolve()), None if protocol == "all" else protocol, self.scale),
            parts=self.parts,
            sizes=self.sizes,
            rounds=self.rounds,
            warmup_seconds=self.warmup_seconds,
            psnr=self.psnr,
            against=self.against,
            patience=self.patience,
        )
        settings.check()
        make_folder(self.out, "--out")
        content = run(settings, self.out)
        print(f"Report: {write_report(content, self.out)}")
        unmeasured = [name for name, result in content["measured"].items() if "reason" in result]
        if unmeasured:
            sys.exit(f"Not measured: {', '.join(unmeasured)}; the report and probes/ say why.")


def main() -> None:
    """Entry point of dietnerf-bench."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a batch system's end is a Ctrl-C
    # What nerfstudio and torchmetrics say about themselves when they are imported; a user can do nothing about it.
    warnings.simplefilter("ignore", FutureWarning)
    tyro.extras.subcommand_cli_from_dict({"run": Run, "report": Report, "speed": Speed}, description=__doc__).main()


if __name__ == "__main__":
    main()
