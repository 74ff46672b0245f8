"""Write docs/settings.md from the docstrings and defaults of the methods' configurations.

python -m tools.make_settings_page
"""

import dataclasses
import types
from collections.abc import Iterator, Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from docstring_parser import parse_from_object
from nerfstudio.configs.method_configs import method_configs

from dietnerf_ns.data.datamanager import FewShotDataManagerConfig
from dietnerf_ns.data.pixel_samplers import ForegroundPixelSamplerConfig, SinglePhotoPixelSamplerConfig
from dietnerf_ns.methods import dietnerf, dietnerf_tiny, dietnerf_vanilla
from dietnerf_ns.models.nerfacto import DietNeRFModelConfig
from dietnerf_ns.models.vanilla import DietVanillaModelConfig
from dietnerf_ns.pipeline import DietNeRFPipelineConfig
from dietnerf_ns.semantic.consistency import SemanticConfig

PAGE = Path(__file__).resolve().parents[1] / "docs" / "settings.md"
METHODS = {str(spec.config.method_name): spec.config for spec in (dietnerf, dietnerf_tiny, dietnerf_vanilla)}
OURS = (  # prefix of the flags, configuration class, title of the section
    ("pipeline.datamanager", FewShotDataManagerConfig, "Training views"),
    ("pipeline.semantic", SemanticConfig, "Semantic consistency loss"),
    ("pipeline.model", DietNeRFModelConfig, "Model of dietnerf and dietnerf-tiny"),
    ("pipeline.model", DietVanillaModelConfig, "Model of dietnerf-vanilla"),
    ("pipeline.datamanager.pixel-sampler", ForegroundPixelSamplerConfig, "Training rays"),
    ("pipeline.datamanager.pixel-sampler", SinglePhotoPixelSamplerConfig, "Training rays of dietnerf-vanilla"),
    ("pipeline", DietNeRFPipelineConfig, "Restarts"),
)
THEIRS = (("nerfacto", ("dietnerf", "dietnerf-tiny")), ("vanilla-nerf", ("dietnerf-vanilla",)))
NOT_COMPARED = ("method-name", "machine.", "pipeline.datamanager.dataparser.", "pipeline.datamanager.data")
HEAD = """\
# Settings

This page has every setting that this package adds to nerfstudio's, and the settings of nerfstudio's models, data,
optimizers and viewer whose default it changes. [training.md](training.md#settings-that-matter) has the ones to know
first. `python -m tools.make_settings_page` writes this page from the docstrings that `ns-train dietnerf --help` shows.

Give a setting after the method and before the dataparser, and always with a value:

```bash
ns-train dietnerf-tiny --pipeline.semantic.every 10 --pipeline.semantic.checkpoint-render False blender-data
```

A single default holds for all methods that have the setting. Where the methods differ, each default is given.
`not given` means that the program chooses the value, as the meaning says, or does without one.
"""
TYPES = {bool: "`True`, `False`", int: "whole number", float: "number", str: "text"}


def page() -> str:
    """The page's content."""
    return "\n".join([HEAD, *(_ours(*section) for section in OURS), _theirs()])


def _ours(prefix: str, config_class: type, title: str) -> str:
    configs = {name: attrgetter(_attribute(prefix))(config) for name, config in METHODS.items()}
    configs = {name: config for name, config in configs.items() if isinstance(config, config_class)}
    hints = get_type_hints(config_class)
    rows = []
    for name, meaning in _documented(config_class).items():
        values = {method: getattr(config, name) for method, config in configs.items()}
        if not any(dataclasses.is_dataclass(value) for value in values.values()):
            rows.append((f"`{_flag(name)}`", _type_words(hints[name]), _defaults(values), meaning))
    return f"## {title}\n\n`--{prefix}.`\n\n{_table(('setting', 'value', 'default', 'meaning'), rows)}"


def _documented(config_class: type) -> dict[str, str]:
    """Docstrings of the fields that this package's classes declare; the other inherited ones are nerfstudio's."""
    documented = {}
    for owner in config_class.__mro__:
        if owner.__module__.startswith("dietnerf_ns."):
            described = {p.arg_name: " ".join((p.description or "").split()) for p in parse_from_object(owner).params}
            own = [name for name in vars(owner).get("__annotations__", {}) if not name.startswith("_")]
            documented |= {name: described[name] for name in own if name not in documented}
    return documented


def _theirs() -> str:
    parts = [
        "## Settings of nerfstudio with other defaults\n\n"
        "The kind of data and of scene decide settings that are not given ([training.md](training.md#data)).\n"
        "`max-num-iterations` of `dietnerf-tiny` follows from the photos' size ([training.md](training.md#methods)).\n"
        "Learning rates fall exponentially from `lr` to `lr-final` over `max-steps`, by default the whole run.\n"
    ]
    for theirs, ours in THEIRS:
        reference = dict(leaves(method_configs[theirs]))
        settings = {method: dict(leaves(METHODS[method])) for method in ours}
        rows = []
        for flag, value in reference.items():
            values = [settings[method].get(flag, value) for method in ours]
            if not flag.startswith(NOT_COMPARED) and any(other != value for other in values):
                rows.append((f"`--{flag}`", *map(_value_words, values), _value_words(value)))
        parts.append(_table(("setting", *ours, theirs), rows))
    return "\n".join(parts)


def _own_values(config: Any) -> dict[str, Any]:
    return {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}


def leaves(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every setting below a configuration by its flag."""
    children = config if isinstance(config, Mapping) else _own_values(config)
    for name, value in children.items():
        if isinstance(value, Mapping) or (dataclasses.is_dataclass(value) and not isinstance(value, type)):
            yield from leaves(value, f"{prefix}{_flag(name)}.")
        elif not name.startswith("_"):
            yield prefix + _flag(name), value


def _flag(name: str) -> str:
    return name.replace("_", "-")


def _attribute(flag: str) -> str:
    return flag.replace("-", "_")


def _type_words(hint: Any) -> str:
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(_type_words(arg) for arg in get_args(hint) if arg is not types.NoneType)
    if get_origin(hint) is Literal:
        return ", ".join(f"`{arg}`" for arg in get_args(hint) if arg is not None)
    if get_origin(hint) is tuple:
        first, second = get_args(hint)
        return f"{TYPES[first]}s" if second is Ellipsis else f"two {TYPES[first]}s"
    return TYPES[hint]


def _value_words(value: Any) -> str:
    if value is None:
        return "not given"
    if isinstance(value, tuple | list):
        return f"`{' '.join(map(str, value))}`"
    return f"`{value:.4g}`" if isinstance(value, float) else f"`{value}`"


def _defaults(values: Mapping[str, Any]) -> str:
    words = {method: _value_words(value) for method, value in values.items()}
    first = next(iter(words))
    others = [f"{method.removeprefix('dietnerf-')}: {word}" for method, word in words.items() if word != words[first]]
    return f"{words[first]} ({', '.join(others)})" if others else words[first]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
