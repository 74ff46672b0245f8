"""Measures dietnerf-tiny on the shipped scene and on real ones, and makes the README's table and picture from it.

    python tools/measure.py [--data DIR] [--seeds 3] [--scenes tiny lego fern]

DIR holds `lego` (NeRF-Synthetic, 400x400, blender-data) and `fern` (LLFF, 504x378, nerfstudio-data); scenes that are
not there are left out. Every number comes from the real ns-train and ns-eval. Writes docs/measured/cpu.json and
docs/measured/cpu.md, where cells that are not measured again keep their last numbers, and docs/measured/cpu.png, which
shows the shipped scene alone: the other scenes' pictures are not the project's.
"""

import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import tyro
from PIL import Image, ImageDraw
from tqdm import tqdm

OUTPUT = Path(__file__).resolve().parents[1] / "docs" / "measured"
FEW_SHOT = "--pipeline.datamanager"
SCENES = {
    "tiny": ("shipped scene, 8 views, 100x100", None, []),
    "lego": (
        "NeRF-Synthetic lego, protocol blender-8, 100x100",
        "lego",
        [f"{FEW_SHOT}.protocol", "blender-8", f"{FEW_SHOT}.camera-res-scale-factor", "0.25", "blender-data"],
    ),
    "fern": (
        "LLFF fern, 6 of 17 views, 252x189",
        "fern",
        [f"{FEW_SHOT}.num-views", "6", f"{FEW_SHOT}.camera-res-scale-factor", "0.5", "nerfstudio-data"],
    ),
}
WEIGHTS = {"lambda = 0": ["--pipeline.semantic.weight", "0"], "default": []}
PICTURED_VIEWS = (3, 10, 18)


@dataclass
class Measure:
    """Train and evaluate dietnerf-tiny with and without the semantic loss."""

    data: Path = Path("data")
    """Folder with the scenes `lego` and `fern`."""
    seeds: int = 3
    """Runs per cell; seeds 0, 1, ..."""
    scenes: tuple[str, ...] = field(default_factory=lambda: tuple(SCENES))
    """Which scenes."""

    def main(self) -> None:
        """Run every cell and write the results."""
        scenes = [name for name in self.scenes if SCENES[name][1] is None or (self.data / SCENES[name][1]).exists()]
        for name in set(self.scenes) - set(scenes):
            print(f"{name} is left out: {self.data / SCENES[name][1]} does not exist.", file=sys.stderr)
        cells = [(scene, weight, seed) for scene in scenes for weight in WEIGHTS for seed in range(self.seeds)]
        OUTPUT.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            rows = [self._run(Path(folder), *cell) for cell in tqdm(cells, unit="run")]
            if "tiny" in scenes:
                draw_picture(Path(folder))
        rows = merged(rows)
        machine = f"{platform.machine()}, {platform.system()}, no GPU used, Python {platform.python_version()}"
        (OUTPUT / "cpu.json").write_text(json.dumps({"machine": machine, "runs": rows}, indent=1) + "\n")
        (OUTPUT / "cpu.md").write_text(table(rows))

    def _run(self, folder: Path, scene: str, weight: str, seed: int) -> dict:
        _, data, arguments = SCENES[scene]
        data_arguments = [] if data is None else ["--data", str((self.data / data).resolve())]
        name = f"{scene}-{weight}-{seed}".replace(" ", "")
        fixed = ["--experiment-name", name, "--timestamp", "run", "--vis", "tensorboard", "--machine.seed", str(seed)]
        started = time.monotonic()
        call(folder, "ns-train", "dietnerf-tiny", *fixed, *WEIGHTS[weight], *data_arguments, *arguments)
        trained = time.monotonic()
        config = f"outputs/{name}/dietnerf-tiny/run/config.yml"
        call(folder, "ns-eval", "--load-config", config, "--output-path", f"{name}.json", "--render-output-path", name)
        results = json.loads((folder / f"{name}.json").read_text())["results"]
        return {
            "scene": scene,
            "weight": weight,
            "seed": seed,
            "psnr": round(results["psnr"], 3),
            "ssim": round(results["ssim"], 4),
            "train_seconds": round(trained - started, 1),
            "eval_seconds": round(time.monotonic() - trained, 1),
        }


def call(folder: Path, command: str, *arguments: str) -> None:
    """Run one of this environment's commands in a folder; on failure show the end of what it said."""
    executable = Path(sys.executable).with_name(command)
    result = subprocess.run([executable, *arguments], cwd=folder, capture_output=True, text=True, check=False)
    if result.returncode:
        raise SystemExit(f"{command} {' '.join(arguments)} failed:\n{(result.stdout + result.stderr)[-3000:]}")


def merged(rows: list[dict]) -> list[dict]:
    """These rows, and those of other cells that were measured before."""
    before = json.loads((OUTPUT / "cpu.json").read_text())["runs"] if (OUTPUT / "cpu.json").exists() else []
    cells = {(row["scene"], row["weight"], row["seed"]): row for row in before + rows}
    order = list(SCENES), list(WEIGHTS)
    return sorted(
        cells.values(), key=lambda row: (order[0].index(row["scene"]), order[1].index(row["weight"]), row["seed"])
    )


def table(rows: list[dict]) -> str:
    """Markdown: mean and, over seeds, standard deviation."""
    lines = ["| scene | L_sc | PSNR (dB) | SSIM | train (s) | eval (s) |", "|---|---|---|---|---|---|"]
    for scene in dict.fromkeys(row["scene"] for row in rows):
        for weight in WEIGHTS:
            cell = [row for row in rows if (row["scene"], row["weight"]) == (scene, weight)]
            psnr, ssim = (spread([row[key] for row in cell], digits) for key, digits in (("psnr", 2), ("ssim", 3)))
            seconds = (f"{statistics.median(row[f'{k}_seconds'] for row in cell):.0f}" for k in ("train", "eval"))
            lines.append(f"| {SCENES[scene][0]} | {weight} | {psnr} | {ssim} | {' | '.join(seconds)} |")
    return "\n".join(lines) + "\n"


def spread(values: list[float], digits: int) -> str:
    """Mean +- standard deviation."""
    deviation = statistics.stdev(values) if len(values) > 1 else float("nan")
    return f"{statistics.mean(values):.{digits}f} ± {deviation:.{digits}f}"


def draw_picture(folder: Path) -> None:
    """Test views of the shipped scene in a column each: photo, render without and with the semantic loss, seed 0."""
    side, margin = 220, 130
    canvas = Image.new("RGB", (margin + side * len(PICTURED_VIEWS), 3 * side), "white")
    for row, title in enumerate(("photo (test view)", *WEIGHTS)):
        ImageDraw.Draw(canvas).text((8, row * side + side // 2), title, fill="black", font_size=14)
        weight = list(WEIGHTS)[max(0, row - 1)]
        for column, view in enumerate(PICTURED_VIEWS):
            pair = Image.open(folder / f"tiny-{weight}-0".replace(" ", "") / f"eval_img_{view:04d}.png")
            half = pair.width // 2  # photo on the left, render on the right
            left = 0 if row == 0 else half
            panel = pair.crop((left, 0, left + half, pair.height)).resize((side, side), Image.Resampling.LANCZOS)
            canvas.paste(panel, (margin + column * side, row * side))
    canvas.save(OUTPUT / "cpu.png")


if __name__ == "__main__":
    tyro.cli(Measure).main()
