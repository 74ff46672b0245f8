"""Plans the probes of `dietnerf-bench speed`, runs each in its own process, and collects their measurements."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nerfstudio.configs.method_configs import all_methods
from tqdm import tqdm

from dietnerf_ns.bench.cells import short_hash
from dietnerf_ns.bench.experiment import check_installed, check_known
from dietnerf_ns.bench.machine import describe_machine
from dietnerf_ns.bench.processes import SECONDS_TO_END, end_processes
from dietnerf_ns.bench.scenes import SPLITS, SceneSplit, file_hash, transforms_file
from dietnerf_ns.bench.speed.candidate import NERFACTO_ON_BLENDER, WITHOUT_LSC, Candidate, Data
from dietnerf_ns.data.protocols import PROTOCOLS
from dietnerf_ns.models.nerfacto import DietNeRFModelConfig
from dietnerf_ns.pipeline import DietNeRFPipelineConfig
from dietnerf_ns.semantic.consistency import SemanticConfig
from dietnerf_ns.semantic.weights import load_open_clip
from dietnerf_ns.utils.errors import READ_ERRORS, UserError, check_limits, flags_under, in_one_line
from dietnerf_ns.utils.files import write_json

PROBES, RESULTS = "probes", "speed.json"
PHOTOS = "photos"
"""Key in the settings of speed.json: what tells scenes whose folders have one name apart."""
RAYS = "train_num_rays_per_batch"
PARTS = ("steps", "memory", "semantic-step", "floor", "job", "target")
MAX_SECONDS = 3600.0
"""Maximum of training time until the method itself reaches the target PSNR."""
SECONDS_BETWEEN = 2.0
"""Training time between two evaluations of the method's PSNR."""
EVALUATIONS_OF_OTHER = 10
"""Number of evaluations of the other method: with large networks an evaluation takes longer than a step."""
LOG_LINES_SHOWN = 3


@dataclass(frozen=True)
class SpeedSettings:
    """What `dietnerf-bench speed` measures; see the command's options."""

    method: str
    data: Data
    parts: tuple[str, ...]
    sizes: tuple[int, ...]
    rounds: int
    warmup_seconds: float
    psnr: float
    against: str
    patience: float

    def check(self) -> None:
        """Reject what cannot be measured.

        Raises:
            UserError: an unknown method or protocol, a method without a semantic loss, without rays or without a
                roofline, a scene or views that do not exist, or impossible numbers.
        """
        self._check_data()
        for flag, name in (("method", self.method), ("against", self.against)):
            _check_method(flag, name)
        if "floor" in self.parts and not isinstance(all_methods[self.method].pipeline.model, DietNeRFModelConfig):
            parts = " ".join(part for part in self.parts if part != "floor")
            raise UserError(
                f"--method {self.method}: the roofline of its model is not known; leave out the part `floor`: --parts "
                f"{parts}."
            )
        with flags_under("--"):
            check_limits(self.data, {"scale": (self.data.scale > 0, "above 0")})
            limits = {
                "sizes": (bool(self.sizes) and min(self.sizes) >= 8, "at least 8 pixels each"),
                "rounds": (self.rounds >= 2, "at least 2, because quartiles are reported"),
                "warmup_seconds": (self.warmup_seconds >= 0, "at least 0"),
                "patience": (self.patience > 0, "above 0"),
            }
            check_limits(self, limits)

    def _check_data(self) -> None:
        evaluates = self.data.protocol is not None or bool({"target", "job"} & set(self.parts))
        for split in ("train", *(("test",) if evaluates else ()), *(("val",) if "job" in self.parts else ())):
            file = transforms_file(Path(self.data.folder), split)
            if not file.is_file():
                raise UserError(f"--data {self.data.folder}: not a NeRF-Synthetic scene, {file.name} is missing.")
        if self.data.protocol is not None:
            check_known("protocol", self.data.protocol, PROTOCOLS)
            self._check_views(PROTOCOLS[self.data.protocol].train_indices)

    def _check_views(self, needed: Sequence[int]) -> None:
        available = len(SceneSplit.read(Path(self.data.folder), "train").frames)
        if max(needed) >= available:
            raise UserError(
                f"--protocol {self.data.protocol}: view {max(needed)} does not exist, --data has {available} training "
                "views; use --protocol all to train on all of them."
            )


def _check_method(flag: str, name: str) -> None:
    check_known("method", name, all_methods)
    check_installed(f"--{flag} {name}", name)
    pipeline = all_methods[name].pipeline
    if not isinstance(pipeline, DietNeRFPipelineConfig):
        raise UserError(f"--{flag} {name}: has no semantic loss; use a method such as dietnerf.")
    if not hasattr(pipeline.datamanager, RAYS):
        raise UserError(
            f"--{flag} {name}: trains on whole images, and methods are compared with the same number of rays; use a "
            "method that trains on rays, such as dietnerf."
        )


@dataclass(frozen=True)
class Probe:
    """A measurement in its own process."""

    name: str
    """Name in the results and of its files."""
    probe: str
    """Kind of the probe; see `measure`."""
    candidates: list[Candidate]
    options: dict[str, Any]
    """Keyword arguments of the function that measures."""


def run(settings: SpeedSettings, out: Path) -> dict:
    """Measure every part and write `speed.json`. Parts that were measured earlier in the same folder are kept.

    Args:
        settings: what to measure.
        out: folder of the results.

    Returns:
        The content of `speed.json`.

    Raises:
        UserError: the folder contains measurements of another machine, of other photos or with other settings.
    """
    described = json.loads(json.dumps(asdict(settings)))
    scene = Path(settings.data.folder)
    described["data"] |= {"folder": scene.name, PHOTOS: hash_of_photos(scene)}
    (out / PROBES).mkdir(parents=True, exist_ok=True)
    overrides, notes = encoder_settings(all_methods[settings.method].pipeline.semantic, out)
    content = {"machine": describe_machine(), "settings": described, "notes": notes}
    content["measured"] = read_earlier_measurements(out, content)
    ours = Candidate(settings.method, settings.method, rays_of(settings.method), overrides)
    probes = plan(settings, ours)
    bar = tqdm(total=len(probes) + 2 * ("target" in settings.parts), unit="probe")
    with bar:
        for probe in probes:
            measure_into(content, probe, settings.data, out, bar)
        if "target" in settings.parts:
            content["measured"].pop("target, against", None)  # an earlier one, should ours fail this time
            for probe in target_probes(settings, ours, content["measured"]):
                measure_into(content, probe, settings.data, out, bar)
    return content


def hash_of_photos(scene: Path) -> str:
    """Eight hexadecimal digits that depend on a scene's cameras and on the sizes of its training and test photos.

    Args:
        scene: folder of a NeRF-Synthetic scene.
    """
    files = {split: transforms_file(scene, split) for split in SPLITS}
    cameras = {split: file_hash(file) for split, file in files.items() if file.is_file()}
    used = (split for split in ("train", "test") if split in cameras)
    photos = [photo for split in used for photo in SceneSplit.read(scene, split).images]
    return short_hash(cameras, [photo.stat().st_size if photo.is_file() else None for photo in photos])


def read_earlier_measurements(out: Path, content: dict[str, Any]) -> dict[str, Any]:
    """Measurements that an earlier run wrote to the folder, by the name of the probe.

    Args:
        out: folder of the results.
        content: `machine`, `settings` and `notes` of this run, as in `speed.json`.

    Raises:
        UserError: they are of another machine, of other photos or were made with other settings, which one report must
            not mix, or the file cannot be read.
    """
    path = out / RESULTS
    if not path.is_file():
        return {}
    try:
        earlier = json.loads(path.read_text())
        measured, difference = earlier["measured"], _difference(earlier, content)
    except READ_ERRORS as error:
        raise UserError(f"{path}: cannot be read ({in_one_line(error)}); choose another --out.") from error
    if difference is not None:
        raise UserError(f"--out {out}: {difference}; choose another folder.")
    return measured


def _difference(earlier: dict[str, Any], content: dict[str, Any]) -> str | None:
    """Why earlier measurements do not belong in a report with new ones, or None if they do."""
    if PHOTOS not in earlier["settings"]["data"]:
        return "contains measurements of an older version of this command"
    if earlier["settings"]["data"][PHOTOS] != content["settings"]["data"][PHOTOS]:
        return "contains measurements of other photos than those of --data"
    if _decides(earlier) != _decides(content):
        return "contains measurements of another machine, or with other settings than now"
    return None


def _decides(content: dict[str, Any]) -> tuple:
    """What measurements of one report must have in common. A note says that CLIP's weights are random."""
    settings = {name: value for name, value in content["settings"].items() if name != "parts"}
    return content["machine"], settings, bool(content["notes"])


def encoder_settings(semantic: SemanticConfig, out: Path) -> tuple[dict[str, Any], list[str]]:
    """Settings with which the encoder can be loaded on this machine, and notes for the report.

    If CLIP's weights cannot be loaded, a network of the same shape with random weights takes their place.

    Args:
        semantic: settings of the method.
        out: folder to which random weights are written.
    """
    if semantic.encoder != "open-clip":
        return {}, []
    try:
        with flags_under("--pipeline.semantic."):
            load_open_clip(semantic.clip_model, semantic.clip_pretrained, "cpu")
    except UserError as error:
        import open_clip
        import torch

        weights = out / "random_clip.pt"
        torch.save(open_clip.create_model(semantic.clip_model).state_dict(), weights)
        note = f"CLIP has random weights. They change PSNR, but not time and memory. {error}"
        return {"pipeline.semantic.clip_pretrained": str(weights.resolve())}, [note]
    return {}, []


def rays_of(method: str) -> int:
    """Number of rays in a training batch of the registered method."""
    return getattr(all_methods[method].pipeline.datamanager, RAYS)


def plan(settings: SpeedSettings, ours: Candidate) -> list[Probe]:
    """The probes of all parts except `target`, whose second probe depends on the result of its first."""
    plain = Candidate(f"{ours.label} lambda 0", ours.method, ours.rays, WITHOUT_LSC)
    nerfacto = Candidate("nerfacto", "nerfacto", ours.rays, NERFACTO_ON_BLENDER)
    candidates = [nerfacto, plain, ours]
    timed = {"rounds": settings.rounds, "warmup_seconds": settings.warmup_seconds}
    split = {"sizes": settings.sizes, "repetitions": settings.rounds, "warmup_seconds": settings.warmup_seconds}
    size = all_methods[settings.method].pipeline.semantic.resolution
    by_part = {
        "steps": [Probe("steps", "steps", candidates, timed)],
        "memory": [Probe(f"memory of {c.label}", "memory", [c], {}) for c in candidates],
        "semantic-step": [
            Probe(f"semantic step, {what}", "semantic step", [ours], split | {"what": what})
            for what in ("time", "memory")
        ],
        "floor": [Probe("floor", "floor", [ours], {"size": size})],
        "job": [Probe("whole job", "job", [ours], {})],
    }
    return [probe for part in PARTS if part in settings.parts for probe in by_part.get(part, [])]


def target_probes(settings: SpeedSettings, ours: Candidate, measured: dict[str, Any]) -> Iterator[Probe]:
    """The probes of the part `target`: first the method, then the other one if the method reached the PSNR.

    Args:
        settings: what to measure.
        ours: the method.
        measured: the result of the first probe is read from here when the second is requested.
    """
    options: dict[str, Any] = {"psnr": settings.psnr, "max_seconds": MAX_SECONDS, "seconds_between": SECONDS_BETWEEN}
    yield Probe("target, ours", "target", [ours], options)
    seconds = next((entry["seconds"] for entry in measured["target, ours"]["entries"]), None)
    if seconds is not None:
        other = Candidate(f"{settings.against} lambda 0", settings.against, rays_of(settings.against), WITHOUT_LSC)
        most = settings.patience * seconds
        options = options | {"max_seconds": most, "seconds_between": most / EVALUATIONS_OF_OTHER}
        yield Probe("target, against", "target", [other], options)


def measure_into(content: dict, probe: Probe, data: Data, out: Path, bar: tqdm) -> None:
    """Run a probe, add its measurements to the content of `speed.json`, and write the file."""
    bar.set_description(probe.name)
    measured = run_probe(probe, data, out / PROBES)
    if "reason" in measured:
        bar.write(f"{probe.name}: {measured['reason']}", file=sys.stderr)
    content["measured"][probe.name] = measured
    write_json(out / RESULTS, content)
    bar.update()


def run_probe(probe: Probe, data: Data, folder: Path) -> dict[str, Any]:
    """Run a probe in its own process.

    Returns:
        `entries` that it wrote and, if it crashed, `reason`: its exit status and the last lines of its log.
    """
    specification, results, log = (folder / f"{probe.name}.{kind}" for kind in ("json", "jsonl", "log"))
    candidates = [asdict(candidate) for candidate in probe.candidates]
    write_json(specification, {"probe": probe.probe, "candidates": candidates, "data": asdict(data)} | probe.options)
    results.unlink(missing_ok=True)
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "dietnerf_ns.bench.speed.probe", specification, results],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        status = process.wait()
    finally:
        end_processes([process], 2 * SECONDS_TO_END)  # it may have a cell of its own to end
    entries = read_entries(results) if results.is_file() else []
    if status == 0:
        return {"entries": entries}
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return {"entries": entries, "reason": f"ended with {status}: {' '.join(lines[-LOG_LINES_SHOWN:])}"}


def read_entries(results: Path) -> list[dict]:
    """The entries that a probe wrote, without a last one that it could not write in full, as on a full disk."""
    lines = results.read_text().splitlines()
    entries = [json.loads(line) for line in lines[:-1]]
    with contextlib.suppress(json.JSONDecodeError):
        entries += [json.loads(line) for line in lines[-1:]]
    return entries
