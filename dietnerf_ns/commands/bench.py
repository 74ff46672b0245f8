"""dietnerf-bench: compare methods on scenes, few views and seeds, measure speed and memory, and report the results."""

from __future__ import annotations

import contextlib
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from dietnerf_ns.utils.ending import ends_in_one_line
from dietnerf_ns.utils.errors import UserError, in_one_line, make_folder

if TYPE_CHECKING:
    from dietnerf_ns.bench.experiment import Experiment
    from dietnerf_ns.bench.runner import Engine
    from dietnerf_ns.bench.speed.run import SpeedSettings


@contextlib.contextmanager
def _saying_what_is_kept(kept: Callable[[], str]) -> Iterator[None]:
    """End with one line when a signal interrupts what is inside, or the system refuses to read or write a file.

    Args:
        kept: says what is kept and how to go on.
    """
    try:
        yield
    except KeyboardInterrupt as interrupt:
        print(f"Interrupted: {kept()}", file=sys.stderr)
        sys.exit(128 + (interrupt.args or (signal.SIGINT,))[0])
    except OSError as error:
        raise UserError(f"{in_one_line(error)}: {kept()}") from error


@dataclass
class Run:
    """Train and evaluate every cell (scene x views x method x seed) that has no result yet, then write the report.

    Written to --out: scenes/ (few-shot copies that all methods read), cells/ID/ (log.txt, nerfstudio's run, photos/,
    renders/, result.json when finished), pooled.json (FID and KID), fidelity/ (features of the reference images),
    experiment.json, and the files of `report`. Finished cells are never run again: to continue after Ctrl-C or a
    crash, start the same command again. The exit status is 1 if a cell crashed.
    """

    experiment: tyro.conf.Positional[Path]
    """YAML file that describes the comparison; examples are in configs/."""
    out: Path
    """Folder of the results. With several machines, all must see it under this path."""
    data: Path | None = None
    """Folder that contains the scenes' folders. The scene `tiny` needs none."""
    jobs: int = 1
    """Number of cells that run at the same time on one machine. They share its processors and GPUs."""
    engine: Literal["local", "ray"] = "local"
    """local: processes on this machine. ray: processes on all machines of a Ray cluster."""
    ray_address: str | None = None
    """Address of the Ray cluster's head, as HOST:PORT. When not given, that of the variable RAY_ADDRESS; without it,
    this machine becomes a cluster of its own, also where another one runs on it."""

    def main(self) -> None:
        """Check the input, run the missing cells and write the report."""
        with _saying_what_is_kept(self._kept):
            from dietnerf_ns.bench.experiment import read_experiment
            from dietnerf_ns.bench.runner import only_run_in

            experiment = read_experiment(self.experiment)
            engine = self._engine()
            make_folder(self.out, "--out")
            with only_run_in(self.out):
                self._run(experiment, engine)

    def _run(self, experiment: Experiment, engine: Engine) -> None:
        from dietnerf_ns.bench.cells import plan_cells
        from dietnerf_ns.bench.fid_kid import fid_kid_of_methods
        from dietnerf_ns.bench.report import write_report
        from dietnerf_ns.bench.runner import run_missing
        from dietnerf_ns.bench.summary import EXPERIMENT, FID_KID
        from dietnerf_ns.utils.files import write_json

        cells = plan_cells(experiment, self.data, self.out)
        description = {"name": self.experiment.stem, "experiment": asdict(experiment), "cells": [*map(asdict, cells)]}
        write_json(self.out / EXPERIMENT, description | {"baseline": experiment.baseline_title})
        crashed = run_missing(cells, self.out, engine)
        if len(crashed) < len(cells):
            write_json(self.out / FID_KID, fid_kid_of_methods(experiment, cells, self.data, self.out))
            print(f"Report: {write_report(self.out)}")
        if crashed:
            sys.exit(f"{len(crashed)} of {len(cells)} cells crashed. Run the same command to try them again.")

    def _kept(self) -> str:
        from dietnerf_ns.bench.cell import CELLS, RESULT

        finished = len(list(self.out.glob(f"{CELLS}/*/{RESULT}")))
        return f"finished cells are kept, of which {self.out} has {finished}. Run the same command for the rest."

    def _engine(self) -> Engine:
        from dietnerf_ns.bench.ray_engine import RayEngine
        from dietnerf_ns.bench.runner import LocalEngine

        if self.jobs < 1:
            raise UserError(f"--jobs {self.jobs}: must be at least 1.")
        if self.engine == "ray":
            return RayEngine(self.jobs, self.ray_address)
        if self.ray_address is not None:
            raise UserError(f"--ray-address {self.ray_address}: is for --engine ray; give both.")
        return LocalEngine(self.jobs)


@dataclass
class Report:
    """Write the report of the finished cells.

    Written: report.md with plots/, results.json (all results, per image) and results.csv (one line per cell). Several
    folders become one report: parts of an experiment that ran on different machines, or in different jobs of a cluster.
    """

    results: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of the results: the --out of `dietnerf-bench run`, or a folder with the results.json of a report."""
    to: Path | None = None
    """Folder that the report is written to, such as docs/benchmarks/NAME. When not given, the first of the folders."""
    contact_sheet: bool = True
    """Show photos and renders. Leave them out if you may not share the photos."""

    def main(self) -> None:
        """Write the report and print its path."""
        if not self.results:
            raise UserError("report: give the folder of the results, the --out of `dietnerf-bench run`.")
        with _saying_what_is_kept(lambda: "the cells' results are kept. Run the same command again for the report."):
            from dietnerf_ns.bench.report import write_report

            print(f"Report: {write_report(*self.results, to=self.to, contact_sheet=self.contact_sheet)}")


@dataclass
class Speed:
    """Measure time and memory of training on this machine.

    The part `steps` measures a training step of nerfacto, of the method with lambda = 0 and of the method, on the same
    photos and with the same number of rays. `memory` measures the peak memory of these steps. `semantic-step` measures
    render and encoder, forward and backward, for several sizes of the view, with and without checkpoint-render. `floor`
    compares these times with a roofline, the limits of the machine. `job` measures training and evaluation from
    start to end. `target` measures the time to a PSNR on test views, for the method and for another one.

    Written to --out: speed.json, speed.md, speed.png and probes/ (logs). Parts that were measured earlier in the same
    folder stay in the report. This takes minutes on a GPU and about half an hour on a CPU. Do not use the machine for
    anything else in the meantime.
    """

    out: Path
    """Folder of the results."""
    data: Path | None = None
    """A NeRF-Synthetic scene, such as nerf_synthetic/lego. When not given, the scene that comes with the package."""
    protocol: str | None = None
    """Photos to train on: a name as for --pipeline.datamanager.protocol, or `all`. When not given, blender-8 with
    --data and all without."""
    scale: float = 1.0
    """Factor on the images' width and height."""
    method: str | None = None
    """A method of this package. When not given, dietnerf with a CUDA GPU and dietnerf-tiny without."""
    parts: tuple[Literal["steps", "memory", "semantic-step", "floor", "job", "target"], ...] = (
        "steps",
        "memory",
        "semantic-step",
        "floor",
        "job",
        "target",
    )
    """Parts to measure."""
    sizes: tuple[int, ...] = (56, 112, 168, 224)
    """Shorter sides of the semantic view in pixels."""
    rounds: int = 7
    """Number of repetitions of everything that is timed."""
    warmup_seconds: float = 15.0
    """Seconds that each method trains before it is timed."""
    psnr: float = 20.0
    """PSNR in dB that `target` trains to."""
    against: str = "dietnerf-vanilla"
    """The other method of `target`, also a method of this package. It trains with lambda = 0."""
    patience: float = 20.0
    """The other method is stopped after this many times the time that the method needed."""

    def main(self) -> None:
        """Measure and write the report."""
        with _saying_what_is_kept(lambda: f"the parts that were measured are kept in {self.out}."):
            from dietnerf_ns.bench.speed.report import write_report
            from dietnerf_ns.bench.speed.run import run

            settings = self._settings()
            settings.check()
            make_folder(self.out, "--out")
            content = run(settings, self.out)
            print(f"Report: {write_report(content, self.out)}")
        unmeasured = [name for name, result in content["measured"].items() if "reason" in result]
        if unmeasured:
            sys.exit(f"Not measured: {', '.join(unmeasured)}. The reasons are in the report and in probes/.")

    def _settings(self) -> SpeedSettings:
        import torch

        from dietnerf_ns.bench.speed.candidate import Data
        from dietnerf_ns.bench.speed.run import SpeedSettings
        from dietnerf_ns.methods import TINY_SCENE

        protocol = self.protocol or ("blender-8" if self.data else "all")
        return SpeedSettings(
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


def main() -> None:
    """Entry point of dietnerf-bench."""
    # nerfstudio and torchmetrics warn about themselves when they are imported; a user cannot act on it.
    warnings.simplefilter("ignore", FutureWarning)
    with ends_in_one_line(nothing_kept=""):
        tyro.extras.subcommand_cli_from_dict({"run": Run, "report": Report, "speed": Speed}, description=__doc__).main()


if __name__ == "__main__":
    main()
