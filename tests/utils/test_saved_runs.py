"""Files of a run that need not be trusted."""

import copy
import os
import pickle
import sys
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
import yaml
from nerfstudio.configs.method_configs import all_methods
from nerfstudio.data.datamanagers.base_datamanager import VanillaDataManager
from nerfstudio.data.datasets.depth_dataset import DepthDataset
from nerfstudio.engine.trainer import TrainerConfig

from dietnerf_ns.data.datamanager import FewShotDataManagerConfig
from dietnerf_ns.data.pixel_samplers import ForegroundPixelSampler, ForegroundPixelSamplerConfig
from dietnerf_ns.methods import dietnerf_tiny
from dietnerf_ns.models.nerfacto import DEFAULTS
from dietnerf_ns.utils import saved_runs
from dietnerf_ns.utils.errors import UserError
from dietnerf_ns.utils.saved_runs import known_classes, newest_checkpoint, read_checkpoint, read_config

INSTALLED = sorted(name for name, config in all_methods.items() if isinstance(config, TrainerConfig))
ATTACKS = {
    "apply": "!!python/object/apply:os.system ['touch {trace}']",
    "apply with keywords": "!!python/object/apply:os.system {{args: ['touch {trace}']}}",
    "apply of nerfstudio's shell": "!!python/object/apply:nerfstudio.utils.scripts.run_command ['touch {trace}']",
    "apply of a method": (
        "!!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.PosixPath ['{trace}']]"
    ),
    "apply of a known class": "!!python/object/apply:nerfstudio.engine.trainer.TrainerConfig ['{trace}']",
    "apply of a known function": (
        "!!python/object/apply:nerfstudio.data.utils.nerfstudio_collate.nerfstudio_collate [[1, 2]]"
    ),
    "new": "!!python/object/new:subprocess.Popen [['touch', '{trace}']]",
    "new with state": "!!python/object/new:type {{args: [x, !!python/tuple [], {{}}], state: {{a: 1}}}}",
    "evaluated by a list": (
        "!!python/object/new:tuple [!!python/object/new:map [!!python/name:eval '', [\"open('{trace}', 'w')\"]]]"
    ),
    "name": "!!python/name:os.system ''",
    "name of a builtin": "!!python/name:builtins.eval ''",
    "name of nerfstudio's shell": "!!python/name:nerfstudio.utils.scripts.run_command ''",
    "name of a module in nerfstudio": "!!python/name:nerfstudio.utils.scripts.subprocess ''",
    "module": "!!python/module:os ''",
    "module that would be imported": "!!python/name:antigravity.webbrowser ''",
    "object": "!!python/object:subprocess.Popen {{args: ['touch', '{trace}']}}",
    "object with __setstate__": "!!python/object:tests.utils.test_saved_runs.Armed {{path: '{trace}'}}",
    "object that installs": "!!python/object:nerfstudio.configs.external_methods.ExternalMethodDummyTrainerConfig {{}}",
    "dataparser that unpickles": (
        "!!python/object:nerfstudio.data.dataparsers.minimal_dataparser.MinimalDataParserConfig {{data: '{trace}'}}"
    ),
    "directive": "%TAG ! tag:yaml.org,2002:python/object/apply:\n---\n!os.system ['touch {trace}']",
    "verbatim tag": "!<tag:yaml.org,2002:python/object/apply:os.system> ['touch {trace}']",
    "getitem of data": "!!python/object/apply:_operator.getitem [[1], 0]",
    "path from a name": "!!python/object/apply:pathlib.PosixPath [!!python/name:os.system '']",
    "enumeration": "!!python/object/apply:nerfstudio.utils.writer.EventName [a, b]",
    "own tag": "!os.system ['touch {trace}']",
}


@dataclass
class Armed:
    """Would leave a trace if it were restored as pickle and nerfstudio do."""

    path: str = ""

    def __setstate__(self, state):
        Path(state["path"]).touch()


def saved(tmp_path, config: object) -> Path:
    """As nerfstudio saves a configuration."""
    file = tmp_path / "config.yml"
    file.write_text(config if isinstance(config, str) else yaml.dump(config))
    return file


@pytest.fixture
def trace(tmp_path) -> Path:
    """What an attack creates. The loader of nerfstudio would let it."""
    return tmp_path / "trace"


@pytest.mark.parametrize("method", INSTALLED)
def test_every_installed_methods_configuration_is_read_as_nerfstudio_reads_it(method, tmp_path):
    file = saved(tmp_path, all_methods[method])
    config = read_config(file)
    assert config == yaml.load(file.read_text(), Loader=yaml.Loader)
    assert yaml.dump(config) == file.read_text()


def test_the_settings_of_a_run_are_read(tmp_path):
    config = copy.deepcopy(dietnerf_tiny.config)
    config.pipeline.datamanager.data = Path("/photos/of the cat")
    config.pipeline.semantic.theta_range = (-10.0, 45.0)
    config.optimizers = OrderedDict(config.optimizers)
    read = read_config(saved(tmp_path, config))
    assert read.pipeline.datamanager.data == Path("/photos/of the cat")
    assert read.pipeline.semantic.theta_range == (-10.0, 45.0)
    assert isinstance(read.optimizers, OrderedDict) and list(read.optimizers) == list(config.optimizers)
    assert read.optimizers["fields"]["optimizer"]._target is torch.optim.Adam


def test_class_paths_of_version_0_1_are_read(tmp_path):
    text = yaml.dump(dietnerf_tiny.config)
    for new, old in {
        "dietnerf_ns.data.datamanager.FewShot": "dietnerf_ns.datamanager.FewShot",
        "dietnerf_ns.data.pixel_samplers.Foreground": "dietnerf_ns.pixels.Subject",
    }.items():
        assert text.count(new) == 2
        text = text.replace(new, old)
    datamanager = read_config(saved(tmp_path, text)).pipeline.datamanager
    assert type(datamanager) is FewShotDataManagerConfig
    assert type(datamanager.pixel_sampler) is ForegroundPixelSamplerConfig
    assert datamanager.pixel_sampler._target is ForegroundPixelSampler


@pytest.mark.parametrize("version", ["0.1", "0.2"])
def test_settings_of_earlier_versions_are_migrated_as_by_nerfstudio(version, tmp_path):
    config = copy.deepcopy(dietnerf_tiny.config)
    settings = vars(config.pipeline.model)
    del settings["space_annealing"], settings["random_background"]
    settings |= {"scene": "around"} if version == "0.2" else DEFAULTS | {"proposal_plane_resolution": 32}
    file = saved(tmp_path, config)
    assert ("proposal_plane_resolution: 32" in file.read_text()) == (version == "0.1")
    read = read_config(file).pipeline.model
    assert vars(read) == vars(yaml.load(file.read_text(), Loader=yaml.Loader).pipeline.model)
    assert (read.scene, read.near_plane) == ("inside-out" if version == "0.2" else "auto", None)
    assert read.random_background is False, "a resumed run keeps its loss"


def test_a_generic_datamanager_is_read(tmp_path):
    read = read_config(saved(tmp_path, all_methods["depth-nerfacto"]))
    assert read.pipeline.datamanager._target == VanillaDataManager[DepthDataset]


@pytest.mark.parametrize("place", ["top", "setting", "_target", "key", "tuple"])
@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_what_might_run_code_is_refused_and_does_not_run(attack, place, tmp_path, trace):
    attack = attack.format(trace=trace)
    directive, separator, attack = attack.rpartition("---\n")
    run = "!!python/object:nerfstudio.engine.trainer.TrainerConfig"
    text = {
        "top": attack,
        "setting": f"{run} {{pipeline: {{a: [{attack}]}}}}",
        "_target": f"{run} {{_target: {attack}}}",
        "key": f"{run}\n  ? {attack}\n  : 1",
        "tuple": f"{run} {{data: !!python/tuple [1, {attack}]}}",
    }[place]
    modules = set(sys.modules)
    with pytest.raises(UserError, match=r"config.yml, line \d+: !\S+ is refused: ") as caught:
        read_config(saved(tmp_path, directive + separator + text))
    assert "\n" not in str(caught.value)
    assert not trace.exists()
    assert set(sys.modules) == modules, "a name in the file imports nothing"


def test_the_attacks_work_with_nerfstudios_loader(tmp_path, trace):
    for name in ("apply", "evaluated by a list", "directive", "object with __setstate__"):
        yaml.load(saved(tmp_path, ATTACKS[name].format(trace=trace)).read_text(), Loader=yaml.Loader)
        assert trace.exists(), name
        trace.unlink()


@pytest.mark.parametrize("name", ["setup", "get_checkpoint_dir", "__class__", "__dict__", "1"])
def test_a_method_cannot_be_replaced_by_a_setting(name, tmp_path):
    text = f"!!python/object:nerfstudio.engine.trainer.TrainerConfig {{{name}: 1}}"
    with pytest.raises(UserError, match="is not a setting of it"):
        read_config(saved(tmp_path, text))


@pytest.mark.parametrize(
    "content",
    ["", "a: [", "a: *b", "- !!timestamp x", "- !!bool x", "- !!int ''", "? [a]\n: b", "\x00", "[" * 2000, "no: run"],
)
def test_a_file_that_is_no_configuration_gives_one_line(content, tmp_path):
    with pytest.raises(UserError, match="config.yml: not a config.yml that ns-train wrote") as caught:
        read_config(saved(tmp_path, content))
    assert "\n" not in str(caught.value)


def test_bytes_that_are_no_text_and_a_missing_file_give_one_line(tmp_path):
    (tmp_path / "config.yml").write_bytes(b"\xff\xfe\xfa")
    for name in ("config.yml", "nowhere.yml"):
        with pytest.raises(UserError, match=f"{name}: not a config.yml that ns-train wrote"):
            read_config(tmp_path / name)


@dataclass
class ModelOfAPlugin:
    """Stands for a configuration of another plugin."""

    setting: int = 3
    _target: type = field(default_factory=lambda: Armed)


def test_a_plugins_run_is_read_only_if_the_plugin_is_installed(tmp_path, monkeypatch):
    config = copy.deepcopy(dietnerf_tiny.config)
    config.method_name, config.pipeline.model = "of-a-plugin", ModelOfAPlugin(setting=5)
    file = saved(tmp_path, config)
    with pytest.raises(UserError, match="ModelOfAPlugin is refused: .*Install the plugin whose method this is"):
        read_config(file)
    monkeypatch.setitem(all_methods, "of-a-plugin", copy.deepcopy(config))
    monkeypatch.setattr(saved_runs, "known_classes", known_classes.__wrapped__)
    model = read_config(file).pipeline.model
    assert model == ModelOfAPlugin(setting=5) and model._target is Armed


def test_modules_of_any_kind_in_sys_modules_do_no_harm(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "empty_entry", None)
    monkeypatch.setitem(sys.modules, "other_module", ModuleType("other_module"))
    for name in ("empty_entry.x", "other_module.x", "nerfstudio", "."):
        with pytest.raises(UserError, match="is refused"):
            read_config(saved(tmp_path, f"!!python/name:{name} ''"))


class Executed:
    """Unpickling it makes a folder."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize("allowed_by_the_environment", ["0", "1"])
def test_a_checkpoint_with_code_is_refused(allowed_by_the_environment, tmp_path, trace, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", allowed_by_the_environment)
    file = tmp_path / "step-000000001.ckpt"
    torch.save({"pipeline": Executed(trace)}, tmp_path / "archive")
    for content in ((tmp_path / "archive").read_bytes(), pickle.dumps(Executed(trace), protocol=2)):
        file.write_bytes(content)
        with pytest.raises(UserError, match=r"ckpt: this checkpoint holds more than tensors and is not loaded: "):
            read_checkpoint(file)
        assert not trace.exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"not a checkpoint", b"\x80\x02."])
def test_a_damaged_checkpoint_gives_one_line(content, tmp_path):
    file = tmp_path / "step-000000001.ckpt"
    file.write_bytes(content)
    with pytest.raises(UserError, match="step-000000001.ckpt: this checkpoint") as caught:
        read_checkpoint(file)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_with_nerfstudios_learning_rates_is_read(tmp_path):
    file = tmp_path / "step-000000001.ckpt"
    torch.save({"step": 1, "pipeline": {"a": torch.ones(2)}, "lr": np.float64(0.5)}, file)
    assert read_checkpoint(file)["lr"] == 0.5


def test_the_newest_checkpoint_counts_by_its_step_and_other_files_do_not(tmp_path):
    with pytest.raises(UserError, match="No checkpoint in .*start the command in the folder where you trained"):
        newest_checkpoint(tmp_path)
    for name in (
        "step-000000400.ckpt",
        "step-000001200.ckpt",
        "step-99.ckpt",
        "best.ckpt",
        "step-x.ckpt",
        "step-9999.txt",
    ):
        (tmp_path / name).touch()
    assert newest_checkpoint(tmp_path).name == "step-000001200.ckpt"
