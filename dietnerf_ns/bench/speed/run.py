"""Plans the probes of `dietnerf-bench speed`, runs each in its own process, and collects what they measured."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nerfstudio.configs.method_configs import all_methods
from tqdm import tqdm

from dietnerf_ns.bench.experiment import check_known
from dietnerf_ns.bench.machine import describe_machine
from dietnerf_ns.bench.processes import end_process
from dietnerf_ns.bench.scenes import SceneSplit, transforms_file
from dietnerf_ns.bench.speed.candidate import NERFACTO_ON_BLENDER, WITHOUT_LSC, Candidate, Data
from dietnerf_ns.data.protocols import PROTOCOLS
from dietnerf_ns.models.nerfacto import DietNeRFModelConfig
from dietnerf_ns.pipeline import DietNeRFPipelineConfig
from dietnerf_ns.semantic.consistency import SemanticConfig
from dietnerf_ns.semantic.weights import load_open_clip
from dietnerf_ns.utils.errors import UserError, check_limits
from dietnerf_ns.utils.files import write_json

PROBES, RESULTS = "probes", "speed.json"
PARTS = ("steps", "memory", "semantic-step", "floor", "job", "target")
LOOKS_AT_OURS = 2.0
"""Seconds of training between looks at PSNR."""
LOOKS_AT_OTHER = 10
"""How often the other method is looked at: with large networks a look takes longer than a step."""
LOG_LINES_SHOWN = 3


@dataclass(frozen=True)
class Settings:
    """What `dietnerf-bench speed` measures."""

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
        """Refuse what cannot be measured.

        Raises:
            UserError: an unknown method or protocol, a method without a semantic loss or without a known floor, no such
                scene or views, or numbers that make no sense.
        """
        if not transforms_file(Path(self.data.folder), "train").is_file():
            raise UserError(
                f"--data {self.data.folder}: is no NeRF-Synthetic scene, for it has no transforms_train.json."
            )
        if self.data.protocol is not None:
            check_known("protocol", self.data.protocol, PROTOCOLS)
            self._check_views(PROTOCOLS[self.data.protocol].train_indices)
        for flag, name in (("method", self.method), ("against", self.against)):
            check_known("method", name, all_methods)
            if not isinstance(all_methods[name].pipeline, DietNeRFPipelineConfig):
                raise UserError(f"--{flag} {name}: has no semantic loss; take one of ours, as dietnerf.")
        if "floor" in self.parts and not isinstance(all_methods[self.method].pipeline.model, DietNeRFModelConfig):
            parts = " ".join(part for part in self.parts if part != "floor")
            raise UserError(f"--method {self.method}: its floor is not known; name the other parts, --parts {parts}.")
        check_limits(self.data, {"scale": (self.data.scale > 0, "above 0")})
        limits = {
            "sizes": (bool(self.sizes) and min(self.sizes) >= 8, "at least 8 pixels each"),
            "rounds": (self.rounds >= 2, "at least 2, for a spread"),
            "warmup_seconds": (self.warmup_seconds >= 0, "at least 0"),
            "patience": (self.patience > 0, "above 0"),
        }
        check_limits(self, limits)

    def _check_views(self, needed: Sequence[int]) -> None:
        available = len(SceneSplit.read(Path(self.data.folder), "train").frames)
        if max(needed) >= available:
            raise UserError(
                f"--protocol {self.data.protocol}: view {max(needed)} does not exist, --data has {available} training "
                "views; --protocol all takes them all."
            )


@dataclass(frozen=True)
class Probe:
    """A measurement in its own process; `how` are the keyword arguments of what measures it."""

    name: str
    probe: str
    candidates: list[Candidate]
    how: dict[str, Any]


def run(settings: Settings, out: Path) -> dict:
    """Measure every part, write `speed.json`; parts of an earlier run in the same folder are kept.

    Returns:
        What is in `speed.json`.

    Raises:
        UserError: the folder holds measurements of something else.
    """
    described = asdict(settings)
    described["data"]["folder"] = Path(settings.data.folder).name
    measured = measured_before(out, described)
    (out / PROBES).mkdir(parents=True, exist_ok=True)
    overrides, notes = encoder_settings(all_methods[settings.method].pipeline.semantic, out)
    ours = Candidate(settings.method, settings.method, rays_of(settings.method), overrides)
    content = {"machine": describe_machine(), "settings": described, "notes": notes, "measured": measured}
    probes = plan(settings, ours)
    bar = tqdm(total=len(probes) + 2 * ("target" in settings.parts), unit="probe")
    with bar:
        for probe in probes:
            measure_into(content, probe, settings.data, out, bar)
        if "target" in settings.parts:
            for probe in race(settings, ours, content["measured"]):
                measure_into(content, probe, settings.data, out, bar)
    return content


def measured_before(out: Path, described: dict[str, Any]) -> dict[str, Any]:
    """What an earlier run left in the folder.

    Raises:
        UserError: it is of another machine, method or photos; one report must not mix them.
    """
    path = out / RESULTS
    if not path.is_file():
        return {}
    earlier = json.loads(path.read_text())
    same = all(earlier["settings"][name] == described[name] for name in ("method", "data"))
    if not same or earlier["machine"] != describe_machine():
        raise UserError(f"--out {out}: holds measurements of another machine, method or photos; name another folder.")
    return earlier["measured"]


def encoder_settings(semantic: SemanticConfig, out: Path) -> tuple[dict[str, Any], list[str]]:
    """Settings that let the encoder load here: without CLIP's weights, a network of the same shape with random ones."""
    if semantic.encoder != "open-clip":
        return {}, []
    try:
        load_open_clip(semantic.clip_model, semantic.clip_pretrained, "cpu")
    except UserError as error:
        import open_clip
        import torch

        weights = out / "random_clip.pt"
        torch.save(open_clip.create_model(semantic.clip_model).state_dict(), weights)
        note = f"CLIP with random weights: time and memory are those of the real ones, PSNR is not. {error}"
        return {"pipeline.semantic.clip_pretrained": str(weights.resolve())}, [note]
    return {}, []


def rays_of(method: str) -> int:
    """Rays of the method's training batch."""
    return all_methods[method].pipeline.datamanager.train_num_rays_per_batch


def plan(settings: Settings, ours: Candidate) -> list[Probe]:
    """The probes of all parts but the race to a PSNR, whose second half depends on its first."""
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


def race(settings: Settings, ours: Candidate, measured: dict[str, Any]):
    """Ours until the PSNR is reached, then the other method, with `patience` times as long."""
    yield Probe("target, ours", "target", [ours], _until(settings, 3600.0, LOOKS_AT_OURS))
    seconds = next((entry["seconds"] for entry in measured["target, ours"]["entries"]), None)
    if seconds is not None:
        other = Candidate(f"{settings.against} lambda 0", settings.against, rays_of(settings.against), WITHOUT_LSC)
        most = settings.patience * seconds
        yield Probe("target, against", "target", [other], _until(settings, most, most / LOOKS_AT_OTHER))


def _until(settings: Settings, most_seconds: float, between_looks: float) -> dict[str, float]:
    return {"psnr": settings.psnr, "most_seconds": most_seconds, "between_looks": between_looks}


def measure_into(content: dict, probe: Probe, data: Data, out: Path, bar: tqdm) -> None:
    """Run a probe and write what it measured, and why it ended early if it did."""
    bar.set_description(probe.name)
    measured = run_probe(probe, data, out / PROBES)
    if "reason" in measured:
        bar.write(f"{probe.name}: {measured['reason']}", file=sys.stderr)
    content["measured"][probe.name] = measured
    write_json(out / RESULTS, content)
    bar.update()


def run_probe(probe: Probe, data: Data, folder: Path) -> dict[str, Any]:
    """The entries that a probe's process wrote, and if it crashed the last lines of its log as the reason."""
    specification, results, log = (folder / f"{probe.name}.{kind}" for kind in ("json", "jsonl", "log"))
    candidates = [asdict(candidate) for candidate in probe.candidates]
    write_json(specification, {"probe": probe.probe, "candidates": candidates, "data": asdict(data)} | probe.how)
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
        end_process(process)
    entries = [json.loads(line) for line in results.read_text().splitlines()] if results.is_file() else []
    if status == 0:
        return {"entries": entries}
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return {"entries": entries, "reason": f"ended with {status}: {' '.join(lines[-LOG_LINES_SHOWN:])}"}
