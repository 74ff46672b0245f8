"""Loading a trained run without running code from its files.

nerfstudio reads config.yml with `yaml.Loader`, which calls whatever the file names. Here a file can name only what the
configurations of the installed methods are made of, and a checkpoint can hold only tensors and plain values.
"""

from __future__ import annotations

import functools
import pickle
import re
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from types import FunctionType
from typing import Any, Literal, cast, get_args, get_origin

import torch
import yaml
from nerfstudio.engine.trainer import TrainerConfig
from nerfstudio.pipelines.base_pipeline import Pipeline

from dietnerf_ns.utils.errors import READ_ERRORS, UserError, in_one_line

TAGS = "tag:yaml.org,2002:"
PATHS = {f"pathlib{private}.{kind}Path" for private in ("", "._local") for kind in ("Posix", "Windows", "")}
UNSAFE_MODULES = {
    "nerfstudio.configs.external_methods",  # its objects install packages
    "nerfstudio.data.dataparsers.minimal_dataparser",  # reads its data with pickle
}
CHECKPOINT_NAME = re.compile(r"step-(\d+)\.ckpt")
LOAD_ERRORS = (*READ_ERRORS, AttributeError, EOFError, pickle.PickleError)
"""What torch raises for files that are no checkpoints, and pipelines for checkpoints that are not theirs."""


def load_pipeline(
    config_file: Path,
    *,
    test_mode: Literal["test", "val", "inference"] = "test",
    prepare: Callable[[TrainerConfig], TrainerConfig] = lambda config: config,
) -> Pipeline:
    """Load a trained pipeline as nerfstudio's `eval_setup` does, but from a file that need not be trusted.

    Args:
        config_file: the config.yml that ns-train wrote.
        test_mode: which splits are loaded; see nerfstudio's `VanillaPipeline`.
        prepare: may change the configuration before the pipeline is built.

    Returns:
        The pipeline in evaluation mode with the weights of the last checkpoint that can be read; of other packages'
        methods, that of the configuration's `load_step`, if there is one.

    Raises:
        UserError: the file is refused (see `read_config`), its method is not installed, or there is no checkpoint that
            can be read.
    """
    from nerfstudio.configs.method_configs import all_methods

    config = read_config(config_file)
    method = all_methods.get(config.method_name)
    if not isinstance(method, TrainerConfig):
        raise UserError(f"{config_file}: the method {config.method_name!r} is not installed.")
    config.pipeline.datamanager._target = method.pipeline.datamanager._target
    config = prepare(config)
    folder = config.get_checkpoint_dir()  # trainers of this package choose `load_step` here
    # A missing one is found before photos are opened.
    file = newest_checkpoint(folder) if config.load_step is None else folder / f"step-{config.load_step:09d}.ckpt"
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    pipeline = config.pipeline.setup(device=device, test_mode=test_mode)
    pipeline.eval()
    checkpoint = read_checkpoint(file)
    pipeline.load_pipeline(checkpoint["pipeline"], checkpoint["step"])
    return pipeline


def newest_checkpoint(folder: Path) -> Path:
    """The checkpoint of the last step in a folder.

    Raises:
        UserError: there is none.
    """
    steps = {int(match[1]): path for path in folder.glob("*.ckpt") if (match := CHECKPOINT_NAME.fullmatch(path.name))}
    if not steps:
        raise UserError(
            f"No checkpoint in {folder}. The paths in a run are relative: start the command in the folder where you "
            "trained."
        )
    return steps[max(steps)]


def read_checkpoint(file: Path) -> dict[str, Any]:
    """Read a checkpoint that nerfstudio's trainer wrote, on the CPU.

    Raises:
        UserError: the file is damaged, or it holds objects other than tensors and plain values.
    """
    try:
        # Given explicitly: TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD in the environment then has no effect.
        return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL (\S+)", str(error))
        what = f"it names {named[1]}" if named else in_one_line(error)
        raise UserError(f"{file}: this checkpoint holds more than tensors and is not loaded: {what}.") from error
    except LOAD_ERRORS as error:
        raise UserError(f"{file}: this checkpoint cannot be read: {in_one_line(error)}") from error


def read_config(file: Path) -> TrainerConfig:
    """Read a config.yml that ns-train wrote, without calling anything that it names.

    The classes of the methods and dataparsers that are registered with nerfstudio are known, those of installed plugins
    included. Objects get their attributes directly, those of a `MigratedConfig` in their present form: no constructor
    and no `__setstate__` runs.

    Raises:
        UserError: the file is not the configuration of a run, or names something else.
    """
    try:
        config = yaml.load(file.read_text(), Loader=ConfigLoader)
    except RefusedTag as error:
        raise UserError(f"{file}, {error}") from error
    except (*READ_ERRORS, AttributeError, yaml.YAMLError) as error:
        raise UserError(f"{file}: not a config.yml that ns-train wrote: {in_one_line(error)}") from error
    if not isinstance(config, TrainerConfig):
        raise UserError(f"{file}: not a config.yml that ns-train wrote: it holds no TrainerConfig.")
    return config


class MigratedConfig:
    """A configuration that is also read as earlier versions of it were written."""

    @classmethod
    def migrated(cls, settings: dict[str, Any]) -> dict[str, Any]:
        """The present form of settings that this or an earlier version wrote. Runs nothing that they name.

        Args:
            settings: values by the names of the version that wrote them.
        """
        raise NotImplementedError

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Read what pickle or nerfstudio's YAML loader found."""
        self.__dict__.update(self.migrated(state))


class RefusedTag(Exception):
    """A tag of a YAML file that is not constructed; the message has its line.

    Args:
        node: the node with the tag.
        reason: why it is refused, as the end of a sentence.
    """

    def __init__(self, node: yaml.Node, reason: str):
        tag = node.tag.replace(TAGS, "!!")
        super().__init__(f"line {node.start_mark.line + 1}: {tag} is refused: {reason}")


@functools.cache
def known_classes() -> frozenset[Any]:
    """The classes and functions that the configurations of the registered methods and dataparsers consist of."""
    from nerfstudio.configs.dataparser_configs import all_dataparsers
    from nerfstudio.configs.method_configs import all_methods

    found = classes_in(*all_methods.values(), *all_dataparsers.values())
    return frozenset(value for value in found if value.__module__ not in UNSAFE_MODULES)


def classes_in(*configs: Any) -> set[Any]:
    """The classes and functions that configurations consist of, without Python's own."""
    found: set[Any] = set()
    waiting: list[Any] = list(configs)
    seen: dict[int, Any] = {}
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen[id(value)] = value
        if isinstance(value, type | FunctionType):
            found.add(value)
        elif isinstance(value, Enum) or is_dataclass(value):
            found.add(type(value))
            waiting += vars(value).values() if is_dataclass(value) else ()
        elif isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, list | tuple | set):
            waiting += value
        elif get_origin(value) is not None:
            waiting += [get_origin(value), *get_args(value)]
    return {value for value in found if value.__module__ != "builtins"}


class ConfigLoader(yaml.SafeLoader):
    """PyYAML's safe loader with the tags of nerfstudio's configurations, for `known_classes` only.

    No module is imported: a name counts if a module that is already loaded has it and it is one of the known classes.
    """

    def known(self, name: str, node: yaml.Node) -> Any:
        """The class or function of a qualified name.

        Raises:
            RefusedTag: it is not one of the known ones.
        """
        module, _, attribute = name.rpartition(".")
        value = getattr(sys.modules.get(module), "__dict__", {}).get(attribute)
        if not isinstance(value, type | FunctionType) or value not in known_classes():
            raise RefusedTag(
                node,
                "no configuration of an installed method uses it, and it might run code. Install the plugin whose "
                "method this is, or do not open the file.",
            )
        return value

    def construct_name(self, suffix: str, node: yaml.Node) -> Any:
        """`!!python/name:`, a class such as `_target`."""
        return self.known(suffix, node)

    def construct_config(self, suffix: str, node: yaml.Node) -> Iterator[Any]:
        """`!!python/object:`, a configuration with its settings."""
        kind = self.known(suffix, node)
        if not (isinstance(kind, type) and is_dataclass(kind) and isinstance(node, yaml.MappingNode)):
            raise RefusedTag(node, "this is no configuration with settings.")
        config = object.__new__(kind)
        yield config
        settings = cast(dict[str, Any], self.construct_mapping(node, deep=True))
        names = {setting.name for setting in fields(kind)}
        for name in settings:
            # Settings of earlier versions may be unknown; a value in the place of a method may not.
            if not isinstance(name, str) or (name not in names and hasattr(kind, name)):
                raise RefusedTag(node, f"{name!r} is not a setting of it.")
        if issubclass(kind, MigratedConfig):
            settings = kind.migrated(settings)
        for name, value in settings.items():
            object.__setattr__(config, name, value)

    def construct_applied(self, suffix: str, node: yaml.Node) -> Any:
        """`!!python/object/apply:`, a path, an enumeration's member, an ordered mapping or a generic class."""
        if isinstance(node, yaml.SequenceNode):
            arguments = self.construct_sequence(node, deep=True)
            if suffix in PATHS and all(isinstance(part, str) for part in arguments):
                return Path(*arguments)
            if suffix == "collections.OrderedDict" and len(arguments) <= 1:
                return OrderedDict(*arguments)
            if suffix == "_operator.getitem" and len(arguments) == 2:
                return self._generic(arguments[0], arguments[1], node)
            if len(arguments) == 1:
                return self._member(self.known(suffix, node), arguments[0], node)
        raise RefusedTag(node, "it might run code.")

    def _generic(self, origin: Any, parameter: Any, node: yaml.Node) -> Any:
        if not all(isinstance(part, type) and part in known_classes() for part in (origin, parameter)):
            raise RefusedTag(node, "it might run code.")
        return origin[parameter]

    def _member(self, kind: Any, value: Any, node: yaml.Node) -> Enum:
        if not (isinstance(kind, type) and issubclass(kind, Enum)):
            raise RefusedTag(node, "it might run code.")
        return kind(value)

    def construct_python_tuple(self, node: Any) -> tuple[Any, ...]:
        """`!!python/tuple`."""
        return tuple(self.construct_sequence(node, deep=True))

    def refuse(self, node: yaml.Node) -> None:
        """Every other tag."""
        raise RefusedTag(node, "a run's configuration has no such values.")


ConfigLoader.add_constructor(f"{TAGS}python/tuple", ConfigLoader.construct_python_tuple)
ConfigLoader.add_multi_constructor(f"{TAGS}python/name:", ConfigLoader.construct_name)
ConfigLoader.add_multi_constructor(f"{TAGS}python/object:", ConfigLoader.construct_config)
ConfigLoader.add_multi_constructor(f"{TAGS}python/object/apply:", ConfigLoader.construct_applied)
ConfigLoader.add_constructor(None, ConfigLoader.refuse)  # pyright: ignore[reportArgumentType]
