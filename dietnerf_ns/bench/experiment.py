"""Experiment files: a short YAML file is read into an `Experiment`. Wrong input is rejected before anything runs."""

from __future__ import annotations

import contextlib
import difflib
import io
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
import yaml
from nerfstudio.configs.dataparser_configs import all_dataparsers
from nerfstudio.configs.method_configs import AnnotatedBaseConfigUnion, all_methods
from nerfstudio.engine.trainer import TrainerConfig
from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from dietnerf_ns.bench.yaml_keys import repeated_key
from dietnerf_ns.data.protocols import PROTOCOLS
from dietnerf_ns.pipeline import DietNeRFPipelineConfig
from dietnerf_ns.semantic.consistency import SemanticConfig
from dietnerf_ns.semantic.encoders import EncoderConfig, EncoderName
from dietnerf_ns.semantic.weights import check_open_clip_pair
from dietnerf_ns.utils.errors import READ_ERRORS, SettingError, UserError, flags_under, in_one_line

BLENDER_PARSER = "blender-data"
CAPTURE_PARSER = "nerfstudio-data"
"""The dataparser of real captures, of which few-shot copies can be made."""
SET_BY_THE_BENCHMARK = {
    "data",
    "experiment-name",
    "load-checkpoint",
    "load-config",  # nerfstudio executes what the file names
    "load-dir",
    "load-step",
    "logging.relative-log-dir",
    "machine.dist-url",
    "machine.machine-rank",
    "machine.num-devices",  # a cell has one GPU
    "machine.num-machines",
    "machine.seed",
    "method-name",
    "output-dir",
    "relative-model-dir",
    "timestamp",
    "viewer.relative-log-filename",
    "vis",
}
NO_OTHER_KEYS = ConfigDict(extra="forbid")
Seed = Annotated[int, Field(ge=0, lt=2**32)]
"""What NumPy takes as a seed."""
Settings = dict[str, Any]
"""Settings as on nerfstudio's command line, without dashes in front, such as `pipeline.model.near-plane: 2.0`."""


@dataclass(frozen=True)
class Views:
    """The training views: those of a protocol, a list of indices, a number of views, or all (the default)."""

    __pydantic_config__ = NO_OTHER_KEYS
    protocol: str | None = None
    """A name in `PROTOCOLS`."""
    indices: tuple[int, ...] | None = None
    count: int | None = None
    strategy: Literal["first", "random", "farthest"] = "farthest"
    seed: Seed = 0
    label: str = ""
    """Name in tables and files. Default: what was chosen. A protocol keeps its own, by which published numbers are
    found."""

    @property
    def title(self) -> str:
        """The choice as tables and file names show it."""
        if self.label:
            return self.label
        if self.protocol is not None:
            return self.protocol
        if self.indices is not None:
            return "views " + " ".join(map(str, self.indices))
        if self.count is None:
            return "all views"
        return f"{self.count} {self.strategy}" + (f" {self.seed}" if self.strategy == "random" else "")


@dataclass(frozen=True)
class BenchmarkScene:
    """One scene: a folder under `--data`, or `tiny`, which comes with the package."""

    __pydantic_config__ = NO_OTHER_KEYS
    name: str
    dataparser: str | None = None
    """Name of the dataparser that reads the folder, see `Experiment.copies`. Default: NeRF-Synthetic's."""
    arguments: Settings = field(default_factory=dict)
    """Settings of the dataparser."""
    views: Annotated[tuple[Views, ...], Field(min_length=1)] | None = None
    """The scene's own choices of views. Default: those of the experiment."""

    @property
    def parser(self) -> str:
        """Name of the dataparser that reads the scene or its copy."""
        return self.dataparser or BLENDER_PARSER


@dataclass(frozen=True)
class Method:
    """A registered nerfstudio method with some of its settings changed."""

    __pydantic_config__ = NO_OTHER_KEYS
    name: str
    label: str = ""
    """Label of its row in the tables. Default: the method's name."""
    overrides: Settings = field(default_factory=dict)
    against: str = ""
    """Label of a method that this one is compared with in addition to the baseline. In an ablation this is the row that
    the method adds one component to."""
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] | None = None
    """The method's own seeds, some of the experiment's. Default: all of them."""

    @property
    def title(self) -> str:
        """The label if there is one, otherwise the method's name."""
        return self.label or self.name


@dataclass
class SimilarityEncoderConfig(EncoderConfig):
    """The encoder of the similarity metric. By default it is the one that needs no download."""

    __pydantic_config__ = NO_OTHER_KEYS
    encoder: EncoderName = "embedded"


def _named(entry: Any) -> Any:
    return {"name": entry} if isinstance(entry, str) else entry


@dataclass(frozen=True)
class Experiment:
    """Every combination of the scenes, views, methods and seeds is one cell. Scenes may have views and methods may have
    seeds of their own."""

    __pydantic_config__ = NO_OTHER_KEYS
    scenes: Annotated[tuple[Annotated[BenchmarkScene, BeforeValidator(_named)], ...], Field(min_length=1)]
    methods: Annotated[tuple[Annotated[Method, BeforeValidator(_named)], ...], Field(min_length=1)]
    views: Annotated[tuple[Views, ...], Field(min_length=1)] = (Views(),)
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (0,)
    baseline: str = ""
    """Label of the method that the others are compared with. Default: the first method."""
    overrides: Settings = field(default_factory=dict)
    """Settings of all methods. A method's own overrides take precedence."""
    resolution: Annotated[int, Field(ge=8)] | None = None
    """Width of the images in pixels. Default: that of the files."""
    evaluate: Literal["test", "val"] = "test"
    """test: the frames that papers report. val: frames of the validation split, for choosing settings."""
    test_stride: Annotated[int, Field(ge=1)] = 8
    """Every n-th test frame of a NeRF-Synthetic scene is evaluated. A protocol has a stride of its own."""
    val_frames: Annotated[int, Field(ge=1)] = 25
    """At most this many evenly spaced frames of the validation split are used. Captures: see `choose_frames`."""
    seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Wall-clock time of the training steps of a cell. A cell ends earlier if it has done `max-num-iterations` steps.
    Default: no limit."""
    similarity: SimilarityEncoderConfig = field(default_factory=SimilarityEncoderConfig)
    unseen_from: Annotated[float, Field(gt=0, le=180)] | None = None
    """The report has a table of the evaluated views whose viewing directions are at least so many degrees away from
    those of all training views. Default: no such table."""

    @property
    def baseline_title(self) -> str:
        """Label of the baseline, also when the file names none."""
        return self.baseline or self.methods[0].title

    def views_of(self, scene: BenchmarkScene) -> tuple[Views, ...]:
        """The scene's choices of views."""
        return self.views if scene.views is None else scene.views

    def seeds_of(self, method: Method) -> tuple[int, ...]:
        """The method's seeds."""
        return self.seeds if method.seeds is None else method.seeds

    def copies(self, scene: BenchmarkScene) -> bool:
        """Whether all methods read the same few-shot copy of the scene; otherwise its folder is read as it is.

        NeRF-Synthetic scenes are always copied. Captures in nerfstudio's format are copied if `views` or `resolution`
        is given, scenes of other dataparsers never.
        """
        if scene.parser == CAPTURE_PARSER:
            return self.views_of(scene) != (Views(),) or self.resolution is not None
        return scene.parser == BLENDER_PARSER


def read_experiment(path: Path) -> Experiment:
    """Read and check an experiment file.

    Raises:
        UserError: the file does not exist, is not YAML, or has an unknown key, name or value. The message says what is
            allowed.
    """
    if not path.is_file():
        raise UserError(f"Experiment {path}: there is no such file.")
    try:
        text = path.read_text()
        repeated = repeated_key(text)
        content = yaml.safe_load(text)
    # PyYAML also raises what Python raises for bytes that are no text, impossible dates and files nested too deeply.
    except (yaml.YAMLError, *READ_ERRORS, AttributeError) as error:
        raise UserError(f"{path} is not valid YAML: {in_one_line(error)}") from error
    if repeated is not None:
        raise UserError(f"{path}: {repeated}; only the last would count.")
    try:
        experiment = TypeAdapter(Experiment).validate_python(content)
    except ValidationError as error:
        raise UserError(f"{path}: {'; '.join(map(_describe_error, error.errors()))}.") from error
    check_names(experiment)
    return replace(experiment, similarity=_checked_weights(experiment.similarity))


def _checked_weights(similarity: SimilarityEncoderConfig) -> SimilarityEncoderConfig:
    """The encoder with the absolute path of its weights, because cells run in the results folder.

    Raises:
        UserError: open-clip-torch has no such model or weights.
    """
    if similarity.encoder != "open-clip":
        return similarity
    with flags_under("similarity: ", separator="_"):
        check_open_clip_pair(similarity.clip_model, similarity.clip_pretrained)
    file = Path(similarity.clip_pretrained)
    return replace(similarity, clip_pretrained=str(file.resolve())) if file.is_file() else similarity


def _describe_error(error: Mapping[str, Any]) -> str:
    """One of pydantic's errors as a part of a sentence, with the place in the file."""
    *parents, key = error["loc"] or ("the file",)
    where = ".".join(str(part) for part in error["loc"] or ("the file",))
    if error["type"] == "unexpected_keyword_argument":
        owners = {
            "scenes": BenchmarkScene,
            "views": Views,
            "methods": Method,
            "similarity": SimilarityEncoderConfig,
        }
        owner = next((owners[parent] for parent in reversed(parents) if parent in owners), Experiment)
        allowed = fields(owner)
        return f"{where}: unknown key {key}; allowed keys: {', '.join(f.name for f in allowed)}"
    given = error["input"]
    value = f" {given!r}" if isinstance(given, str | int | float) else ""
    return f"{where}{value}: {error['msg'][0].lower()}{error['msg'][1:]}"


def check_names(experiment: Experiment) -> None:
    """Check that methods, settings, dataparsers, protocols and the baseline exist, and that nothing is listed twice.

    Raises:
        UserError: the message has the value and what is allowed.
    """
    titles = [method.title for method in experiment.methods]
    _check_unique("methods", titles, "; give each its own `label`")
    _check_unique("scenes", [scene.name for scene in experiment.scenes])
    _check_unique("seeds", experiment.seeds)
    for scene in experiment.scenes:
        _check_views(experiment.views_of(scene))
        if scene.views is not None and not experiment.copies(scene):
            raise UserError(
                f"views of {scene.name}: with {scene.dataparser} the folder is used as it is; leave them out."
            )
    check_known("baseline", experiment.baseline_title, titles)
    for method in experiment.methods:
        if method.against:
            check_known(f"`against` of {method.title}", method.against, titles)
        check_known("method", method.name, all_methods)
        check_installed(f"method {method.name}", method.name)
        _check_unique(f"seeds of {method.title}", experiment.seeds_of(method))
        for seed in experiment.seeds_of(method):
            check_known(f"seed of {method.title}", str(seed), map(str, experiment.seeds))
        for overrides in (experiment.overrides, method.overrides):
            _check_spellings("overrides", overrides)
            for setting, value in overrides.items():
                _check_setting(setting, method.name)
                _check_value(f"overrides: {setting}", value)
    for scene in experiment.scenes:
        check_known("dataparser", scene.parser, all_dataparsers)
        if "data" in scene.arguments:
            raise UserError(f"arguments of {scene.name}: data is set by the benchmark itself; leave it out.")
        _check_spellings(f"arguments of {scene.name}", scene.arguments)
        for setting, value in scene.arguments.items():
            _check_value(f"arguments of {scene.name}: {setting}", value)
    dataparsers = dict.fromkeys((scene.parser, *as_flags(scene.arguments)) for scene in experiment.scenes)
    for method in experiment.methods:
        for dataparser in dataparsers:
            config = _parsed([method.name, *as_flags(experiment.overrides | method.overrides), *dataparser])
            if isinstance(config.pipeline, DietNeRFPipelineConfig):
                _check_encoder(config.pipeline.semantic)


def _check_views(choices: Sequence[Views]) -> None:
    _check_unique("views", [views.title for views in choices])
    for views in choices:
        if views.protocol is not None:
            check_known("protocol", views.protocol, PROTOCOLS)
        given = [name for name in ("protocol", "indices", "count") if getattr(views, name) is not None]
        if len(given) > 1:
            raise UserError(f"views: {' and '.join(given)} contradict each other; choose the views in one way only.")
        if views.count is None and views.strategy != Views.strategy:
            raise UserError(f"views: strategy {views.strategy} chooses a number of views; give `count` with it.")
        if views.seed != Views.seed and (views.count is None or views.strategy != "random"):
            raise UserError(f"views: seed {views.seed} is for a `count` with the strategy random; give both.")
        # Published numbers are found by the label.
        if views.label and (views.protocol is not None or views.label in PROTOCOLS):
            raise UserError(f"views: label {views.label}: a protocol's name is for its own views and their only label.")


def as_flags(settings: Settings) -> list[str]:
    """Settings as arguments of nerfstudio's commands: `--name value`, or `--name value value` for a list."""
    flags: list[str] = []
    for name, value in settings.items():
        flags += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
    return flags


def check_known(kind: str, value: str, allowed: Iterable[str]) -> None:
    """Check that a name exists.

    Args:
        kind: what the value names, such as `method`.
        value: the name.
        allowed: all names that exist.

    Raises:
        UserError: the message has the similar names, or all if none is similar.
    """
    allowed = sorted(allowed)
    if value not in allowed:
        near = difflib.get_close_matches(value, allowed, n=5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(allowed) or 'none'}."
        raise UserError(f"Unknown {kind} {value!r}: {hint}")


def check_installed(what: str, method: str) -> None:
    """Check that a method of `all_methods` is installed: nerfstudio also lists others, which it offers to install.

    Args:
        what: names the method in the message, such as `--method kplanes`.
        method: the method's name.

    Raises:
        UserError: it is not.
    """
    if not isinstance(all_methods[method], TrainerConfig):
        raise UserError(f"{what}: nerfstudio knows this method, but it is not installed; `ns-train {method}` says how.")


def _check_value(where: str, value: Any) -> None:
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(each, str | int | float | None) for each in values):
        raise UserError(f"{where} {value}: a setting is a text, a number, true, false or a list of them; quote a text.")


def _check_unique(key: str, values: Sequence[str | int], advice: str = "") -> None:
    repeated = [str(value) for value, times in Counter(values).items() if times > 1]
    if repeated:
        raise UserError(f"{key}: {', '.join(repeated)} listed more than once{advice}.")


def _check_spellings(where: str, settings: Settings) -> None:
    """Refuse a setting with hyphens beside the same one with underscores, of which the last would count."""
    spellings: dict[str, str] = {}
    for setting in settings:
        other = spellings.setdefault(setting.replace("_", "-"), setting)
        if other != setting:
            raise UserError(f"{where}: {other} and {setting} are the same setting; give it once.")


def _check_setting(setting: str, method: str) -> None:
    if setting.replace("_", "-") in SET_BY_THE_BENCHMARK:
        raise UserError(f"overrides: {setting} is set by the benchmark itself; leave it out.")
    node = all_methods[method]
    for part in setting.replace("-", "_").split("."):
        children = _children(node)
        check_known(f"setting of {method} in {setting}:", part, children)
        node = children[part]


def _check_encoder(semantic: SemanticConfig) -> None:
    """Check the weights of a method's encoder, as its cells would hours later."""
    if semantic.encoder != "open-clip" or semantic.weight == 0:
        return
    file = Path(semantic.clip_pretrained)
    with flags_under("overrides: pipeline.semantic."):
        if file.is_file() and not file.is_absolute():
            reason = "must be an absolute path, because cells run in the results folder."
            raise SettingError("clip_pretrained", semantic.clip_pretrained, reason)
        check_open_clip_pair(semantic.clip_model, semantic.clip_pretrained)


def _parsed(arguments: Sequence[str]) -> TrainerConfig:
    """Parse arguments of `ns-train` with nerfstudio's own parser."""
    output = io.StringIO()
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            return tyro.cli(AnnotatedBaseConfigUnion, args=arguments)
    except SystemExit as error:
        frames_and_rules = r"[\u2500-\u257f]|-{5,}"
        text = " ".join(re.sub(frames_and_rules, " ", output.getvalue()).split())
        reason = re.split("Argument helptext|For full helptext", text)[0].strip()
        raise UserError(f"ns-train {arguments[0]} rejects these settings: {reason}") from error


def _children(config: Any) -> Mapping[str, Any]:
    if is_dataclass(config):
        return {f.name: getattr(config, f.name) for f in fields(config)}
    if isinstance(config, list | tuple):
        return {str(position): each for position, each in enumerate(config)}
    return config if isinstance(config, dict) else {}
