"""Training from poses that dietnerf-poses found, against training from known poses of the same photos.

python -m tools.compare_poses --data DIR --out DIR

For each scene, photos are drawn at random and posed. Then there are two scenes of the posed photos, NAME-found and
NAME-known, with the same photos for training and the same for tests, and `dietnerf-bench` compares them. Test photos
are posed together with the others.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
import yaml

from dietnerf_ns.utils.files import write_json
from tools.measure_poses import draw_photos, frames_in

TEST_EVERY = 3
"""One photo of so many is for tests."""
CORRECTED = {
    "name": "dietnerf-tiny",
    "label": "pose correction",
    "overrides": {"pipeline.model.camera-optimizer.mode": "SO3xR3"},
}


@dataclass
class Comparison:
    """Make the pairs of scenes, train on them, and write the report."""

    data: Path
    """Folder of the scenes, each with transforms.json."""
    out: Path
    """Folder for the scenes and for the benchmark's results."""
    scenes: tuple[str, ...] = ("fern:9", "captures/gladiator:12", "captures/flowerpot:12")
    """Scenes, each with the number of photos to draw."""
    draw: int = 0
    """Which draw of the photos."""
    resolution: int = 128
    """Width of the photos in pixels."""
    seeds: tuple[int, ...] = (0, 1)
    """Seeds of the trainings."""

    def main(self) -> None:
        """Pose, write the scenes that are missing, run the benchmark."""
        names: list[str] = []
        (self.out / "scenes").mkdir(parents=True, exist_ok=True)
        for scene in self.scenes:
            folder, count = scene.split(":")
            name = f"{Path(folder).name}-{count}-{self.draw}"
            if not (self.out / "scenes" / f"{name}-known").exists():
                write_pair(self.data / folder, int(count), self.draw, self.out / "scenes")
            names += [f"{name}-found", f"{name}-known"]
        experiment = {
            "scenes": [{"name": name, "dataparser": "nerfstudio-data"} for name in names],
            "resolution": self.resolution,
            "seeds": [*self.seeds],
            "methods": [{"name": "dietnerf-tiny"}, CORRECTED],
        }
        file = self.out / "experiment.yaml"
        file.write_text(yaml.safe_dump(experiment, sort_keys=False))
        command = ["dietnerf-bench", "run", file, "--data", self.out / "scenes", "--out", self.out / "results"]
        subprocess.run([str(part) for part in command], check=True)


def write_pair(scene: Path, count: int, draw: int, scenes: Path) -> None:
    """Pose photos of a scene, and write NAME-found and NAME-known with those that have a pose."""
    found, known = scenes / f"{scene.name}-found", scenes / f"{scene.name}-known"
    with tempfile.TemporaryDirectory() as temporary:
        photos = draw_photos(scene, count, draw, Path(temporary, "photos"))
        subprocess.run(["dietnerf-poses", *map(str, (photos, "--output", found))], check=True)
    transforms = json.loads((found / "transforms.json").read_text())
    files = sorted(frame["file_path"] for frame in transforms["frames"])
    split = {"test_filenames": files[::TEST_EVERY], "val_filenames": files[::TEST_EVERY]}
    split["train_filenames"] = [file for file in files if file not in split["test_filenames"]]
    write_json(found / "transforms.json", transforms | split)
    shutil.copytree(found / "images", known / "images")
    poses = {Path(frame["file_path"]).name: frame["transform_matrix"] for frame in frames_in(scene)}
    frames = [{"file_path": file, "transform_matrix": poses[Path(file).name]} for file in files]
    write_json(known / "transforms.json", _intrinsics(scene, transforms) | split | {"frames": frames})


def _intrinsics(scene: Path, found: dict[str, Any]) -> dict[str, Any]:
    """A scene's known intrinsics, for photos of the size that the found scene has."""
    known = json.loads((scene / "transforms.json").read_text())
    size = found if "w" in found else found["frames"][0]
    scale = {"w": size["w"] / known["w"], "h": size["h"] / known["h"]}
    scaled = {key: known[key] * scale["w"] for key in ("fl_x", "cx")}
    scaled |= {key: known[key] * scale["h"] for key in ("fl_y", "cy")}
    kept = {key: known[key] for key in ("camera_model", "k1", "k2", "p1", "p2") if key in known}
    return kept | scaled | {"w": size["w"], "h": size["h"]}


if __name__ == "__main__":
    tyro.cli(Comparison).main()
