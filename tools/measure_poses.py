"""Poses that dietnerf-poses finds from few photos of scenes whose poses are known.

python -m tools.measure_poses --data DIR --out docs/benchmarks/poses

DIR has the folders named with --scenes, each with transforms.json. Photos are drawn at random. With --colmap the same
photos are also given to `ns-process-data images`, which needs the program colmap. Results are written as they come, and
the command goes on where it was stopped.
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from tqdm import tqdm

from dietnerf_ns.geometry.alignment import Poses, cameras_extent, pose_errors
from dietnerf_ns.utils.files import write_json

COMMANDS = {
    "dietnerf-poses": ["dietnerf-poses", "{photos}", "--output", "{output}"],
    "ns-process-data": [
        "ns-process-data", "images", "--data", "{photos}", "--output-dir", "{output}", "--matching-method",
        "exhaustive", "--no-gpu", "--num-downscales", "0",
    ],
}  # fmt: skip


@dataclass
class Measurement:
    """Pose few photos of known scenes, and compare."""

    data: Path
    """Folder of the scenes."""
    out: Path
    """Folder for poses.json and poses.md."""
    scenes: tuple[str, ...] = ("fern:4,6,9", "captures/gladiator:6,8,12", "captures/flowerpot:6,8,12")
    """Scenes, each with the numbers of photos to draw."""
    draws: int = 3
    """Draws of each number of photos."""
    colmap: bool = False
    """Also measure ns-process-data on the same photos."""

    def main(self) -> None:
        """Run what is missing, write the tables."""
        self.out.mkdir(parents=True, exist_ok=True)
        file = self.out / "poses.json"
        results: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
        programs = ["dietnerf-poses", *(["ns-process-data"] if self.colmap else [])]
        cases = [
            (program, scene.split(":")[0], int(count), draw)
            for scene in self.scenes
            for count in scene.split(":")[1].split(",")
            for draw in range(self.draws)
            for program in programs
        ]
        for program, scene, count, draw in tqdm(cases, unit="draw"):
            key = f"{program} {scene} {count} {draw}"
            if key not in results:
                results[key] = measured(program, self.data / scene, count, draw)
                write_json(file, results)
        (self.out / "poses.md").write_text(table(results))


def measured(program: str, scene: Path, count: int, draw: int) -> dict[str, Any]:
    """Pose `count` photos of a scene, which `draw` determines, and compare with the known poses."""
    known = poses_in(scene)
    with tempfile.TemporaryDirectory() as temporary:
        photos, output = draw_photos(scene, count, draw, Path(temporary, "photos")), Path(temporary, "scene")
        names = sorted(photo.name for photo in photos.iterdir())
        command = [part.format(photos=photos, output=output) for part in COMMANDS[program]]
        start = time.perf_counter()
        result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        seconds = time.perf_counter() - start
        found = _by_photo(poses_in(output), names) if (output / "transforms.json").exists() else {}
    if len(found) < 3:
        return {"photos": names, "posed": len(found), "said": result.stdout[-300:], "seconds": seconds}
    size = cameras_extent(known.values())
    angle, distance = pose_errors(found, known)
    return {"photos": names, "posed": len(found), "degrees": angle, "distance": distance / size, "seconds": seconds}


def draw_photos(scene: Path, count: int, draw: int, folder: Path) -> Path:
    """Copy `count` photos of a scene, which `draw` determines, to a new folder."""
    files = {Path(frame["file_path"]).name: scene / frame["file_path"] for frame in frames_in(scene)}
    folder.mkdir()
    for name in random.Random(draw).sample(sorted(files), count):
        shutil.copy(files[name], folder)
    return folder


def _by_photo(poses: Poses, names: list[str]) -> Poses:
    """Poses by the name of the photo; ns-process-data numbers its copies in the order of the names."""
    if set(poses) <= set(names):
        return poses
    return {names[int("".join(filter(str.isdigit, Path(name).stem))) - 1]: pose for name, pose in poses.items()}


def frames_in(scene: Path) -> list[dict[str, Any]]:
    """The frames of a scene's transforms.json."""
    return json.loads((scene / "transforms.json").read_text())["frames"]


def poses_in(scene: Path) -> Poses:
    """The poses of a scene."""
    return {Path(frame["file_path"]).name: np.array(frame["transform_matrix"])[:3] for frame in frames_in(scene)}


def table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """The results as a Markdown table, the draws of a row side by side."""
    rows: dict[str, list[str]] = {}
    for key, result in results.items():
        program, scene, count, _ = key.split()
        posed = f"{result['posed']}/{count}"
        errors = f" {result['degrees']:.2f} deg, {100 * result['distance']:.2f} %" if "degrees" in result else ""
        rows.setdefault(f"| {Path(scene).name} | {count} | {program} |", []).append(f"{posed}{errors}")
    longest = max((len(draws) for draws in rows.values()), default=0)
    head = "| scene | photos | program |" + "".join(f" draw {number} |" for number in range(longest))
    lines = [head, "|---" * (3 + longest) + "|", *(f"{row} {' | '.join(draws)} |" for row, draws in rows.items())]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    tyro.cli(Measurement).main()
