"""Small experiments, made-up result files, and the program that stands in for the training of a cell."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from dietnerf_ns.bench.cell import Cell
from dietnerf_ns.bench.experiment import Experiment, read_experiment

MACHINE = {"platform": "Linux x86_64", "cpu_cores": 2, "gpu": "none", "torch": "2.9.0"}
FAKE_CELL = """
import json, pathlib, signal, sys, time
if "slow" in sys.argv[1]:
    signal.signal(signal.SIGTERM, lambda *_: (time.sleep(1), sys.exit(0)))
folder = pathlib.Path(sys.argv[1])
with open("started.txt", "a") as log:
    log.write(folder.name + "\\n")
if "crash" in folder.name:
    print("no such luck")
    sys.exit(3)
if "sleep" in folder.name:
    time.sleep(60)
(folder / "result.json").write_text(json.dumps({"threads": __import__("os").environ["OMP_NUM_THREADS"]}))
"""


def cell(identity: str, **values) -> Cell:
    defaults = {"scene": "tiny", "views": "all views", "method": "a", "seed": 0}
    return Cell(**{"id": identity, "train_arguments": ("a",), "split": "test", "similarity": {}} | defaults | values)


def started(out: Path) -> list[str]:
    """Ids of the fake cells that were started, in order."""
    log = out / "started.txt"
    return log.read_text().split() if log.exists() else []


def experiment(tmp_path: Path, **content) -> Experiment:
    """Through a file, as a user writes it."""
    path = tmp_path / "experiment.yaml"
    path.write_text(yaml.safe_dump({"scenes": ["tiny"], "methods": ["dietnerf-tiny"]} | content))
    return read_experiment(path)


def write_fake_results(
    out: Path,
    psnr: dict[tuple[str, str, str, int], float],
    *,
    missing=(),
    size=(4, 4),
    evaluate="test",
    seconds: float | None = None,
    unseen_from: float | None = None,
    training_views: dict[str, int] | None = None,
    degrees: tuple[float, ...] = (),
    frames: Iterable[int] = (0,),
    ids: str = "cell",
) -> Path:
    """Result files with these PSNRs by (scene, views, method, seed); other metrics follow from it.

    Without `degrees` a cell has the images of these frames, and neither their angles nor the number of training views,
    as results of old versions. Otherwise it has an image for each angle, whose PSNR is by the angle lower than the
    given one. The cells' ids are `ids` with a number.
    """
    cells = []
    for index, (place, value) in enumerate(psnr.items()):
        scene, views, method, seed = place
        identity = f"{ids}{index}"
        cells.append({"id": identity, "scene": scene, "views": views, "method": method, "seed": seed})
        if place in missing:
            continue
        folder = out / "cells" / identity
        for kind in ("photos", "renders"):
            (folder / kind).mkdir(parents=True)
            for number in range(max(1, len(degrees))):
                Image.fromarray(np.full((4, 4, 3), index, np.uint8)).save(folder / kind / f"r_{number}.png")
        scores = {"nerfstudio/psnr": value, "nerfstudio/ssim": value / 100}
        scores |= {"paper/psnr": value, "paper/ssim": value / 200}
        result = {
            "resolution": size,
            "images": [
                {"name": f"r_{number}", "degrees_to_nearest_photo": angle}
                | scores
                | {"nerfstudio/psnr": value - angle, "paper/psnr": value - angle}
                for number, angle in enumerate(degrees)
            ]
            or [{"name": f"r_{frame}"} | scores for frame in frames],
            "metrics": scores,
            "left_out": {"paper/lpips": "URLError: no network"},
            "training": {"seconds": 10.0, "steps": 100, "steps_per_second": 10.0}
            | {"peak_memory_mib": 900.0, "peak_gpu_memory_mib": 700.0}
            | ({} if seconds is None else {"step_seconds": seconds, "configured_steps": 400}),
            "curves": {"photos": [[0, 10.0], [10, 20.0]], "unseen views": [[0, 9.0], [10, 15.0]]},
            "machine": MACHINE,
        }
        result |= {} if training_views is None else {"training_views": training_views[views]}
        (folder / "result.json").write_text(json.dumps(result))
    baseline = cells[0]["method"]
    labels = list(dict.fromkeys(method for _, _, method, _ in psnr))
    methods = [
        {"name": "dietnerf", "label": label, "overrides": {}, "against": previous}
        for label, previous in zip(labels, ["", *labels], strict=False)
    ]
    methods[0]["overrides"] = {"pipeline.semantic.clip-pretrained": "/somewhere/clip.pt"}
    described = {"evaluate": evaluate, "methods": methods, "overrides": {"max-num-iterations": 5}}
    described |= {"scenes": [{"name": "s"}], "seeds": [0]}  # the report reads a part of what the benchmark writes
    described |= {} if seconds is None else {"seconds": seconds}
    described |= {} if unseen_from is None else {"unseen_from": unseen_from}
    content = {"name": "made up", "baseline": baseline, "experiment": described, "cells": cells}
    (out / "experiment.json").write_text(json.dumps(content))
    return out
