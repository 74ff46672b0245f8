"""Everything worth knowing about this package on a GPU, in one command and within a time limit.

python -m tools.measure_on_gpu --data nerf_synthetic --out results/gpu --minutes 60

Parts, in this order: what the machine is; tests/test_cuda.py; `dietnerf-bench speed`; each scene at 400x400 with the
eight views of the protocol: dietnerf with the embedded encoder, with CLIP if its weights can be loaded, without the
semantic loss, and nerfacto. DIR has folders of NeRF-Synthetic scenes. Results are written to OUT/gpu.json as they come.
Started again, the command goes on with what is missing; finished parts and finished trainings are not repeated.

Needs torch with a GPU that it sees. The package need not be installed: the commands run from the source tree. On a
machine without a network, --wheels names a folder of the wheels that are missing there. tinycudann is used if it can be
imported, and gpu.json says whether it was.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

# This module starts before anything is installed: it imports the standard library alone.
ROOT = Path(__file__).parent.parent
SCENES = ("lego", "chair", "drums", "ficus", "hotdog", "materials", "mic", "ship")
SECONDS_TO_END = 60
"""After SIGINT, before a part that is out of time is killed."""
MACHINE = """
import importlib, json, platform, torch
from importlib.metadata import PackageNotFoundError, version
def version_of(name):
    try:
        return version(name)
    except PackageNotFoundError:
        return None
def import_error(name):
    try:
        importlib.import_module(name)
    except Exception as error:
        return f"{type(error).__name__}: {error}".splitlines()[0]
gpu = torch.cuda.get_device_properties(0) if torch.cuda.is_available() else None
print(json.dumps({
    "gpu": gpu and gpu.name,
    "gpu_memory_mib": gpu and gpu.total_memory // 2**20,
    "compute_capability": gpu and f"{gpu.major}.{gpu.minor}",
    "cuda": torch.version.cuda,
    "python": platform.python_version(),
    "packages": {name: version_of(name) for name in ("torch", "torchvision", "nerfstudio", "open-clip-torch", "numpy")},
    "tinycudann": import_error("tinycudann"),
}))
"""
CLIP = """
from dietnerf_ns.semantic.encoders import EncoderConfig
try:
    EncoderConfig().load_encoder("cpu")
except BaseException as error:
    print(str(error).splitlines()[0])
"""
SAME_MACHINE = ("gpu", "cuda", "python", "packages", "tinycudann", "data", "rehearsal")
"""What parts of one result must have in common."""
METHODS: tuple[dict[str, Any], ...] = (
    {"name": "dietnerf", "label": "embedded encoder", "overrides": {"pipeline.semantic.encoder": "embedded"}},
    {"name": "dietnerf", "label": "CLIP"},
    {"name": "dietnerf", "label": "lambda 0", "overrides": {"pipeline.semantic.weight": 0}},
    {
        "name": "nerfacto",
        "overrides": {
            "pipeline.model.near-plane": 2,
            "pipeline.model.far-plane": 6,
            "pipeline.model.background-color": "white",
            "pipeline.model.disable-scene-contraction": True,
            "pipeline.model.camera-optimizer.mode": "off",
            "pipeline.model.use-appearance-embedding": False,
            "pipeline.model.proposal-initial-sampler": "uniform",
            "pipeline.model.distortion-loss-mult": 0,
            "pipeline.model.average-init-density": 1,
        },
    },
)
"""As in configs/blender_8view.yaml."""
REHEARSAL = {
    "resolution": 50,
    "test_stride": 10,
    "overrides": {"max-num-iterations": 20, "pipeline.datamanager.train-num-rays-per-batch": 128},
}
"""What makes the scenes small enough for a CPU. The numbers mean nothing."""


@dataclass
class Budget:
    """The time that is left."""

    seconds: float
    started: float

    def left(self) -> float:
        """Seconds until the end; 0 after it."""
        return max(0.0, self.started + self.seconds - time.monotonic())


class Parts:
    """Runs the parts one after the other, and keeps what came of them in OUT/gpu.json.

    Args:
        out: folder of the results.
        budget: no part runs longer than this.
        environment: of the programs that are started.
    """

    def __init__(self, out: Path, budget: Budget, environment: dict[str, str]):
        self.out, self.budget, self.environment = out, budget, environment
        self.file = out / "gpu.json"
        self.results: dict[str, Any] = json.loads(self.file.read_text()) if self.file.exists() else {}

    def run(self, name: str, *arguments: object) -> None:
        """Run one part as a Python program, unless it is finished; its output goes to OUT/NAME.log.

        Args:
            name: of the part.
            arguments: of Python.
        """
        if self.results.get(name, {}).get("state") == "finished":
            return print(f"{name}: finished before")
        if self.budget.left() == 0:
            return self.keep(name, {"state": "out of time", "seconds": 0.0})
        started = time.monotonic()
        with (self.out / f"{name}.log").open("ab") as log:
            command = [sys.executable, "-W", "ignore", *map(str, arguments)]
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=self.environment, cwd=ROOT)
            state = self._wait(process)
        self.keep(name, {"state": state, "seconds": round(time.monotonic() - started, 1)})
        print(f"{name}: {state}", flush=True)

    def _wait(self, process: subprocess.Popen) -> str:
        try:
            status = process.wait(self.budget.left())
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)  # dietnerf-bench keeps what is finished
            try:
                process.wait(SECONDS_TO_END)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            return "out of time"
        return "finished" if status == 0 else f"failed with status {status}"

    def keep(self, name: str, result: dict[str, Any]) -> None:
        """Write the result of a part, at once."""
        self.results[name] = result
        unfinished = self.file.with_suffix(".unfinished")
        unfinished.write_text(json.dumps(self.results, indent=1))
        unfinished.replace(self.file)

    def add_files(self, name: str, *files: Path) -> None:
        """Put what a part has written as JSON into its result, so that gpu.json is all that has to be kept."""
        contents = {file.stem: json.loads(file.read_text()) for file in files if file.exists()}
        self.keep(name, self.results[name] | contents)


def environment_of_parts(wheels: Path | None, out: Path) -> dict[str, str]:
    """The environment in which this source tree's commands work without being installed."""
    paths = [str(ROOT)]
    if wheels is not None:
        site = out / "site"
        if not site.exists():
            install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target"]
            unfinished = out / "site.unfinished"
            shutil.rmtree(unfinished, ignore_errors=True)
            subprocess.run([*install, str(unfinished), *map(str, sorted(wheels.glob("*.whl")))], check=True)
            unfinished.rename(site)
        paths.append(str(site))
    paths += filter(None, [os.environ.get("PYTHONPATH")])
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    methods = project["entry-points"]["nerfstudio.method_configs"]
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(paths),
        "NERFSTUDIO_METHOD_CONFIGS": ",".join(f"{name}={place}" for name, place in methods.items()),
    }


def machine(parts: Parts, data: Path, *, rehearsal: bool) -> dict[str, Any]:
    """What the machine is and has; ends the program if it has no GPU, or if OUT has results of another machine."""
    command = [sys.executable, "-W", "ignore", "-c", MACHINE]
    result = subprocess.run(command, capture_output=True, text=True, env=parts.environment, cwd=ROOT, check=False)
    if result.returncode != 0:
        sys.exit(f"The package cannot be imported here: {result.stderr.strip().splitlines()[-1]} See --wheels.")
    found = json.loads(result.stdout.strip().splitlines()[-1]) | {"data": str(data), "rehearsal": rehearsal}
    earlier = parts.results.get("machine", found)
    if any(earlier.get(key) != found[key] for key in SAME_MACHINE):
        sys.exit(
            f"{parts.file} is of another machine, of other packages, of other data or of a rehearsal; choose another "
            "--out."
        )
    found["clip"] = clip_error(parts)
    parts.keep("machine", found)
    print(json.dumps(found, indent=1))
    if found["gpu"] is None and not rehearsal:
        sys.exit("torch sees no GPU here. --rehearse runs everything on the CPU, small; its numbers mean nothing.")
    return found


def clip_error(parts: Parts) -> str | None:
    """Why CLIP's weights cannot be loaded, which downloads them at first; None if they can."""
    command = [sys.executable, "-W", "ignore", "-c", CLIP]
    try:
        result = subprocess.run(
            command,
            capture_output=True,
            text=True,
            env=parts.environment,
            cwd=ROOT,
            check=False,
            timeout=parts.budget.left(),
        )
    except subprocess.TimeoutExpired:
        return "out of time"
    said = result.stdout.strip().splitlines()
    return said[-1] if said else None


def experiment(scene: str, *, clip: bool, rehearsal: bool) -> dict[str, Any]:
    """The comparison on one scene; JSON, which is YAML as well."""
    methods = [method for method in METHODS if clip or method.get("label") != "CLIP"]
    content = {"scenes": [scene], "views": [{"protocol": "blender-8"}], "resolution": 400, "methods": methods}
    return content | (REHEARSAL if rehearsal else {})


def counts_of(junit_xml: Path) -> dict[str, int]:
    """How many tests there were, and how many of them failed or were skipped: what is skipped was not tried."""
    suite = ElementTree.parse(junit_xml).getroot().find("testsuite")
    assert suite is not None
    return {name: int(suite.attrib[name]) for name in ("tests", "failures", "errors", "skipped")}


def main() -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of NeRF-Synthetic scenes")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--minutes", type=float, default=60, help="time limit; a part that exceeds it is ended (60)")
    parser.add_argument("--wheels", type=Path, help="folder of wheels to install into OUT/site, without a network")
    parser.add_argument("--rehearse", action="store_true", help="on the CPU, with few steps and small images")
    given = parser.parse_args()
    scenes = [scene for scene in SCENES if (given.data / scene / "transforms_train.json").exists()]
    if not scenes:
        parser.error(f"--data {given.data}: there is none of the folders {', '.join(SCENES)}.")
    if given.wheels is not None and not any(given.wheels.glob("*.whl")):
        parser.error(f"--wheels {given.wheels}: there are no wheels in it.")
    budget = Budget(60 * given.minutes, time.monotonic())
    out, data = given.out.resolve(), given.data.resolve()
    out.mkdir(parents=True, exist_ok=True)
    parts = Parts(out, budget, environment_of_parts(given.wheels, out))
    found = machine(parts, data, rehearsal=given.rehearse)
    counts = out / "tests.xml"
    parts.run(
        "tests", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-rs", f"--junitxml={counts}", "tests/test_cuda.py"
    )
    if counts.exists():
        parts.keep("tests", parts.results["tests"] | counts_of(counts))
    measured = ["--parts", "steps", "--rounds", 2, "--warmup-seconds", 1] if given.rehearse else []
    scene = ["--data", data / scenes[0]]
    parts.run("speed", "-m", "dietnerf_ns.commands.bench", "speed", "--out", out / "speed", *scene, *measured)
    parts.add_files("speed", out / "speed" / "speed.json")
    for scene in scenes:
        file, results = out / f"{scene}.yaml", out / scene
        file.write_text(json.dumps(experiment(scene, clip=found["clip"] is None, rehearsal=given.rehearse), indent=1))
        parts.run(scene, "-m", "dietnerf_ns.commands.bench", "run", file, "--data", data, "--out", results)
        parts.add_files(scene, results / "results.json")
    print(f"Results: {parts.file}")
    states = [result["state"] for name, result in parts.results.items() if name != "machine"]
    sys.exit(0 if all(state == "finished" for state in states) else 1)


if __name__ == "__main__":
    main()
