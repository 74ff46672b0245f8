"""What is compared: a short YAML file, read into an `Experiment`. Wrong input is refused before anything runs."""

from __future__ import annotations

import contextlib
import difflib
import io
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
import yaml
from nerfstudio.configs.dataparser_configs import all_dataparsers
from nerfstudio.configs.method_configs import AnnotatedBaseConfigUnion, all_methods
from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from dietnerf_ns.data.protocols import PROTOCOLS
from dietnerf_ns.semantic.consistency import SemanticConfig
from dietnerf_ns.utils.errors import UserError

AS_IS = "as is"
"""Label of the views of a scene that another dataparser reads."""
SET_BY_THE_BENCHMARK = ("data", "experiment-name", "machine.seed", "method-name", "output-dir", "timestamp", "vis")
NO_OTHER_KEYS = ConfigDict(extra="forbid")
Settings = dict[str, Any]
"""Settings of nerfstudio's command line without their dashes, such as `pipeline.model.near-plane: 2.0`."""


@dataclass(frozen=True)
class Scene:
    """One scene: a folder under --data, or `tiny`, which comes with the package."""

    __pydantic_config__ = NO_OTHER_KEYS
    name: str
    dataparser: str | None = None
    """Reads the folder as it is; `views` and `resolution` do not apply. When not given the scene is
    NeRF-Synthetic, and every method gets the same small copy of it."""
    arguments: Settings = field(default_factory=dict)
    """Settings of the dataparser."""

    @property
    def parser(self) -> str:
        """The dataparser that methods read the scene, or its copy, with."""
        return self.dataparser or "blender-data"


@dataclass(frozen=True)
class Views:
    """The training views: those of a protocol, a list, a number of them, or (nothing said) all."""

    __pydantic_config__ = NO_OTHER_KEYS
    protocol: Literal[tuple(PROTOCOLS)] | None = None
    indices: tuple[int, ...] | None = None
    count: int | None = None
    strategy: Literal["first", "random", "farthest"] = "farthest"
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0

    @property
    def label(self) -> str:
        """How tables and file names call this choice."""
        if self.protocol is not None:
            return self.protocol
        if self.indices is not None:
            return "views " + " ".join(map(str, self.indices))
        if self.count is None:
            return "all views"
        return f"{self.count} {self.strategy}" + (f" {self.seed}" if self.strategy == "random" else "")


@dataclass(frozen=True)
class Method:
    """A registered nerfstudio method and what is changed in it."""

    __pydantic_config__ = NO_OTHER_KEYS
    name: str
    label: str = ""
    """Its row in the tables; the method's name when not given."""
    overrides: Settings = field(default_factory=dict)
    against: str = ""
    """Label of a method that this one is compared with besides the baseline, such as the row that it adds a part to."""

    @property
    def title(self) -> str:
        """The label, or the name of the method without one."""
        return self.label or self.name


@dataclass(frozen=True)
class Similarity:
    """The encoder that compares renders with photos; as in `SemanticConfig`."""

    __pydantic_config__ = NO_OTHER_KEYS
    encoder: Literal["open-clip", "embedded"] = "embedded"
    clip_model: str = SemanticConfig.clip_model
    clip_pretrained: str = SemanticConfig.clip_pretrained
    embedding: Literal["projected", "class-token"] = "projected"


def _named(entry: Any) -> Any:
    return {"name": entry} if isinstance(entry, str) else entry


@dataclass(frozen=True)
class Experiment:
    """Scenes x views x methods x seeds."""

    __pydantic_config__ = NO_OTHER_KEYS
    scenes: Annotated[tuple[Annotated[Scene, BeforeValidator(_named)], ...], Field(min_length=1)]
    methods: Annotated[tuple[Annotated[Method, BeforeValidator(_named)], ...], Field(min_length=1)]
    views: Annotated[tuple[Views, ...], Field(min_length=1)] = (Views(),)
    seeds: Annotated[tuple[int, ...], Field(min_length=1)] = (0,)
    baseline: str = ""
    """Label of the method that the others are compared with; the first when not given."""
    overrides: Settings = field(default_factory=dict)
    """Settings of every method; a method's own come first."""
    resolution: Annotated[int, Field(ge=8)] | None = None
    """Width of the images in pixels; that of the files when not given."""
    evaluate: Literal["test", "val"] = "test"
    """test: the frames that a paper reports. val: frames of the validation split, for choosing settings."""
    test_stride: Annotated[int, Field(ge=1)] = 8
    """Every n-th test frame is evaluated; protocols bring their own."""
    val_frames: Annotated[int, Field(ge=1)] = 25
    """At most this many evenly spaced frames of the validation split are used."""
    similarity: Similarity = Similarity()

    @property
    def baseline_title(self) -> str:
        """Label of the baseline."""
        return self.baseline or self.methods[0].title


def read_experiment(path: Path) -> Experiment:
    """Read and check an experiment file.

    Raises:
        UserError: there is no such file, it is no YAML, or something in it is unknown; with what is allowed.
    """
    if not path.is_file():
        raise UserError(f"Experiment {path}: there is no such file.")
    try:
        experiment = TypeAdapter(Experiment).validate_python(yaml.safe_load(path.read_text()))
    except yaml.YAMLError as error:
        raise UserError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        raise UserError(f"{path}: {'; '.join(map(_in_words, error.errors()))}.") from error
    check_names(experiment)
    return experiment


def _in_words(error: Mapping[str, Any]) -> str:
    *parents, key = error["loc"] or ("the file",)
    where = ".".join(str(part) for part in error["loc"])
    if error["type"] == "unexpected_keyword_argument":
        owner = {"scenes": Scene, "views": Views, "methods": Method, "similarity": Similarity}
        allowed = fields(owner[parents[0]] if parents else Experiment)
        return f"{where}: unknown key {key}; allowed are {', '.join(f.name for f in allowed)}"
    given = error["input"]
    value = f" {given!r}" if isinstance(given, str | int | float) else ""
    return f"{where}{value}: {error['msg'][0].lower()}{error['msg'][1:]}"


def check_names(experiment: Experiment) -> None:
    """Refuse methods, settings, values, dataparsers and a baseline that do not exist, and what is given twice.

    Raises:
        UserError: with the value and what is allowed.
    """
    titles = [method.title for method in experiment.methods]
    _check_unique("methods", titles, "have the same label; give each its own `label`")
    _check_unique("scenes", [scene.name for scene in experiment.scenes], "have the same name; each can be given once")
    _check_unique("views", [views.label for views in experiment.views], "are the same choice; each can be given once")
    _check_unique("seeds", experiment.seeds, "are the same; each can be given once")
    check_known("baseline", experiment.baseline_title, titles)
    for method in experiment.methods:
        if method.against:
            check_known(f"`against` of {method.title}", method.against, titles)
        check_known("method", method.name, all_methods)
        for setting in experiment.overrides | method.overrides:
            _check_setting(setting, method.name)
    for scene in experiment.scenes:
        check_known("dataparser", scene.parser, all_dataparsers)
    read_by = dict.fromkeys((scene.parser, *as_flags(scene.arguments)) for scene in experiment.scenes)
    for method in experiment.methods:
        for dataparser in read_by:
            _check_arguments([method.name, *as_flags(experiment.overrides | method.overrides), *dataparser])


def as_flags(settings: Settings) -> list[str]:
    """Settings as nerfstudio's command line takes them: `--name value`, or `--name value value` for a list."""
    flags = []
    for name, value in settings.items():
        flags += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
    return flags


def check_known(kind: str, value: str, allowed: Iterable[str]) -> None:
    """Raise a `UserError` if the value is not one of those allowed; it names the near ones, or all."""
    allowed = sorted(allowed)
    if value not in allowed:
        near = difflib.get_close_matches(value, allowed, n=5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(allowed) or 'none'}."
        raise UserError(f"Unknown {kind} {value!r}: {hint}")


def _check_unique(key: str, values: Sequence[str | int], why: str) -> None:
    repeated = [str(value) for value, times in Counter(values).items() if times > 1]
    if repeated:
        raise UserError(f"{key}: {', '.join(repeated)}: two {why}.")


def _check_setting(setting: str, method: str) -> None:
    if setting.replace("_", "-") in SET_BY_THE_BENCHMARK:
        raise UserError(f"overrides: {setting} is set by the benchmark itself; leave it out.")
    node = all_methods[method]
    for part in setting.replace("-", "_").split("."):
        children = _children(node)
        check_known(f"setting of {method} in {setting}:", part, children)
        node = children[part]


def _check_arguments(arguments: Sequence[str]) -> None:
    """Let nerfstudio's own parser look at the arguments of ns-train."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            tyro.cli(AnnotatedBaseConfigUnion, args=arguments)
    except SystemExit as error:
        frames_and_rules = r"[\u2500-\u257f]|-{5,}"
        words = " ".join(re.sub(frames_and_rules, " ", said.getvalue()).split())
        reason = re.split("Argument helptext|For full helptext", words)[0].strip()
        raise UserError(f"ns-train {arguments[0]} refuses these settings: {reason}") from error


def _children(config: Any) -> Mapping[str, Any]:
    if is_dataclass(config):
        return {f.name: getattr(config, f.name) for f in fields(config)}
    return config if isinstance(config, dict) else {}
