"""Lists the cells of an experiment. A cell's id changes whenever anything that defines the cell changes."""

from __future__ import annotations

import copy
import functools
import hashlib
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import yaml
from nerfstudio.configs.base_config import MachineConfig
from nerfstudio.configs.dataparser_configs import all_dataparsers
from nerfstudio.configs.method_configs import all_methods
from tqdm import tqdm

from dietnerf_ns import __version__
from dietnerf_ns.bench.captures import TRANSFORMS, choose_frames, write_capture_copy
from dietnerf_ns.bench.cell import AS_IS, AS_IS_MEANS, CELLS, Cell, slug
from dietnerf_ns.bench.experiment import BLENDER_PARSER, BenchmarkScene, Experiment, Method, Views, as_flags
from dietnerf_ns.bench.scenes import (
    SPLITS,
    chosen_splits,
    describe_folder,
    file_hash,
    find_scene,
    transforms_file,
    write_few_shot_copy,
)
from dietnerf_ns.utils.errors import SettingError, UserError
from dietnerf_ns.utils.saved_runs import classes_in

FEW_SHOT_COPIES = "scenes"
LONGEST_READABLE_PART = 150
"""Characters of a folder's name before the hash; file systems allow 255."""
NO_PLUGINS = {"dietnerf_ns", "nerfstudio", "torch"}
"""Packages whose classes are in the configurations of nerfstudio's and this package's methods."""


def plan_cells(experiment: Experiment, data: Path | None, out: Path) -> list[Cell]:
    """Find the scenes, write their few-shot copies, and list the cells in the order of the report.

    Args:
        experiment: the scenes, views, methods and seeds to combine.
        data: folder that contains the scenes' folders; the scene `tiny` needs none.
        out: results folder; the copies go to `scenes/` in it.

    Raises:
        UserError: a scene or its views do not exist. Nothing has been trained by then.
    """
    folders = {scene.name: find_scene(scene, data) for scene in experiment.scenes}
    combinations = list(_scenes_with_views(experiment))
    for scene in (scene for scene, views in combinations if views is None):
        print(f"{scene.name} is read as it is by {scene.parser}. {AS_IS_MEANS}")
    prepared = [
        _prepare_data(experiment, scene, views, folders[scene.name], out)
        for scene, views in tqdm(combinations, "scenes", leave=False)
    ]
    return [
        _define_cell(experiment, scene, views, method, seed, prepared_data)
        for (scene, views), prepared_data in zip(combinations, prepared, strict=True)
        for method in experiment.methods
        for seed in experiment.seeds_of(method)
    ]


def _scenes_with_views(experiment: Experiment) -> Iterator[tuple[BenchmarkScene, Views | None]]:
    for scene in experiment.scenes:
        for views in experiment.views_of(scene) if experiment.copies(scene) else (None,):
            yield scene, views


@dataclass(frozen=True)
class _PreparedData:
    path: str
    content: str
    """Hash of the folder's content."""


def _prepare_data(
    experiment: Experiment, scene: BenchmarkScene, views: Views | None, folder: Path, out: Path
) -> _PreparedData:
    """Write a few-shot copy; without `views` the scene is used as it is."""
    if views is None:
        return _PreparedData(str(folder.resolve()), short_hash(describe_folder(folder)))
    try:
        plan = _plan_copy if scene.parser == BLENDER_PARSER else _plan_capture_copy
        content, write = plan(experiment, scene, views, folder)
        copy_path = Path(FEW_SHOT_COPIES, f"{_readable(scene.name, views.title)}-{content}")
        write(out / copy_path, experiment.resolution)
    except SettingError as error:
        raise UserError(f"Scene {scene.name}, {views.title}: {error.reason}") from error
    except UserError as error:
        raise UserError(f"Scene {scene.name}, {views.title}: {error}") from error
    return _PreparedData(str(copy_path), content)


Write = Callable[[Path, int | None], None]
"""Writes a few-shot copy to a folder, with images of a width in pixels."""


def _plan_copy(experiment: Experiment, scene: BenchmarkScene, views: Views, folder: Path) -> tuple[str, Write]:
    """Hash of the content of a NeRF-Synthetic scene's copy, and what writes it."""
    splits = chosen_splits(folder, views, experiment)
    frames = {name: split.frames_as_written for name, split in splits.items()}
    cameras = [transforms_file(folder, split).read_text(errors="replace") for split in SPLITS]
    images = [file_hash(path) for split in splits.values() for path in split.images]
    content = short_hash(__version__, frames, cameras, images, experiment.resolution)
    return content, partial(write_few_shot_copy, splits)


def _plan_capture_copy(experiment: Experiment, scene: BenchmarkScene, views: Views, folder: Path) -> tuple[str, Write]:
    """Hash of the content of a capture's copy, and what writes it."""
    capture = choose_frames(folder, scene, views, experiment)
    splits = {name: list(map(str, photos)) for name, photos in capture.splits.items()}
    files = {str(file): file_hash(folder / file) for file in capture.files}
    written = json.loads((folder / TRANSFORMS).read_bytes())
    # What frames have of their own was ignored at first: results of such copies must not count for these.
    own = sorted(key for key, value in written.items() if value is not None and key not in capture.meta)
    model = capture.meta.get("camera_model")
    own += [model] if model != written.get("camera_model") else []
    # So was which way up photos are whose size does not tell.
    orientations = capture.orientations
    own += ["upright"] if orientations.upright and orientations.untold and experiment.resolution is not None else []
    content = short_hash(__version__, splits, written, files, experiment.resolution, *own)
    return content, partial(write_capture_copy, capture)


def _define_cell(
    experiment: Experiment, scene: BenchmarkScene, views: Views | None, method: Method, seed: int, data: _PreparedData
) -> Cell:
    settings = experiment.overrides | method.overrides | {"machine.seed": seed}
    dataparser = [scene.parser, *as_flags(scene.arguments)]
    similarity = asdict(experiment.similarity)
    split = experiment.evaluate if views is None else "test"
    defaults = default_settings(method.name)
    limits = () if experiment.seconds is None else (experiment.seconds,)
    code = code_of_plugins(method.name, scene.parser)
    defining = short_hash(__version__, data.content, settings, dataparser, split, similarity, defaults, *limits, *code)
    label = AS_IS if views is None else views.title
    identity = f"{_readable(scene.name, label, method.title, f's{seed}')}-{defining}"
    paths = {"data": data.path, "output-dir": CELLS, "experiment-name": identity, "timestamp": "run"}
    arguments = [method.name, *as_flags({"vis": "tensorboard"} | paths | settings), *dataparser]
    return Cell(
        identity, scene.name, label, method.title, seed, tuple(arguments), split, similarity, experiment.seconds
    )


def _readable(*parts: str) -> str:
    name = slug(*parts)
    return name if len(name) <= LONGEST_READABLE_PART else f"{name[:LONGEST_READABLE_PART]}-{short_hash(name)}"


def default_settings(method: str) -> str:
    """All default settings of a registered method as YAML, without the path of its data and this machine's device."""
    config = copy.deepcopy(all_methods[method])
    config.pipeline.datamanager.dataparser.data = None
    config.machine.device_type = MachineConfig().device_type
    return yaml.dump(config)


def code_of_plugins(method: str, dataparser: str) -> list[str]:
    """Hashes of the Python files of the plugins that a method's and a dataparser's classes are from.

    Plugins are edited without a new version. The versions of nerfstudio and of this package say enough.
    """
    classes = classes_in(all_methods[method], all_dataparsers[dataparser])
    bases = {base for found in classes if isinstance(found, type) for base in found.__mro__}
    packages = {base.__module__.partition(".")[0] for base in bases} - NO_PLUGINS - sys.stdlib_module_names
    return [digest for package in sorted(packages) for digest in _hashes_of_sources(package)]


@functools.cache
def _hashes_of_sources(package: str) -> list[str]:
    module = sys.modules.get(package)
    folders = [Path(folder) for folder in getattr(module, "__path__", ())]
    found = [(folder, file) for folder in folders for file in sorted(folder.rglob("*.py"))]
    files = [file for folder, file in found if not any(part[0] == "." for part in file.relative_to(folder).parts)]
    if not folders:
        files = [Path(getattr(module, "__file__", None) or "")]
    return [file_hash(file) for file in files if file.is_file()]


def short_hash(*parts: object) -> str:
    """Eight hexadecimal digits that depend on all parts."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:8]
