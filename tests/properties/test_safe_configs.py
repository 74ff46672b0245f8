"""Arbitrary files in the place of a run's configuration."""

import sys

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from dietnerf_ns.methods import dietnerf_tiny
from dietnerf_ns.utils.errors import UserError
from dietnerf_ns.utils.saved_runs import ConfigLoader, RefusedTag, known_classes, read_config

NAMES = [
    "os.system",
    "os.mkdir",
    "builtins.eval",
    "builtins.exec",
    "subprocess.Popen",
    "nerfstudio.utils.scripts.run_command",
    "nerfstudio.configs.external_methods.ExternalMethodDummyTrainerConfig",
    "nerfstudio.engine.trainer.TrainerConfig",
    "nerfstudio.engine.trainer.Trainer",
    "nerfstudio.utils.writer.EventName",
    "dietnerf_ns.pipeline.DietNeRFPipelineConfig",
    "torch.optim.adam.Adam",
    "pathlib.PosixPath",
    "collections.OrderedDict",
    "_operator.getitem",
    "builtins.type",
    "this",
]
KINDS = ["python/name:", "python/object:", "python/object/apply:", "python/object/new:", "python/module:"]
TAGS = st.builds("!!{}{}".format, st.sampled_from(KINDS), st.sampled_from(NAMES)) | st.sampled_from(
    ["", "!!python/tuple", "!!set", "!!omap", "!!pairs", "!!binary", "!!timestamp", "!!int", "!!float", "!!bool", "!x"]
)
SCALARS = st.sampled_from(["''", "1", "touch x", "a", "~", "1.5", "[]", "{}", "_target", "args", "state", "<<", "&a b"])
FORBIDDEN = {"os.system", "subprocess.Popen", "exec", "compile", "import", "open", "os.mkdir", "pickle.find_class"}


def nodes(children):
    lists = st.lists(children, max_size=3).map(lambda parts: f"[{', '.join(parts)}]")
    mappings = st.lists(st.tuples(children, children), max_size=3).map(
        lambda pairs: "{" + ", ".join(f"? {key} : {value}" for key, value in pairs) + "}"
    )
    return st.builds("{} {}".format, TAGS, lists | mappings | SCALARS)


documents = st.recursive(st.builds("{} {}".format, TAGS, SCALARS), nodes, max_leaves=6)


class Watch:
    """Records what Python's audit hooks report while it is active. A hook cannot be removed again."""

    active = False
    seen: list[str] = []

    @classmethod
    def hook(cls, event, arguments):
        if cls.active and event in FORBIDDEN:
            cls.seen.append(f"{event} {arguments}")

    def __enter__(self):
        Watch.seen, Watch.active = [], True
        return Watch.seen

    def __exit__(self, *_):
        Watch.active = False


@pytest.fixture(scope="module", autouse=True)
def audited():
    known_classes()
    sys.addaudithook(Watch.hook)


@settings(max_examples=150)
@given(documents)
def test_no_document_executes_anything(document):
    """Reading any document of Python's tags opens no file, imports no module, compiles and runs nothing; it ends with a
    value or with an error of one of the kinds that `read_config` turns into a line."""
    with Watch() as seen:
        try:
            value = yaml.load(document, ConfigLoader)
        except (RefusedTag, yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError):
            value = None
    assert not seen
    assert not callable(value) or value in known_classes()


def test_the_watch_sees_what_an_unsafe_loader_does(tmp_path):
    with Watch() as seen:
        yaml.load(f"!!python/object/apply:os.mkdir ['{tmp_path / 'x'}']", yaml.UnsafeLoader)
    assert any(event.startswith("os.mkdir") for event in seen)


@given(st.data())
def test_a_damaged_configuration_is_read_or_gives_one_line(tmp_path_factory, data):
    """A real config.yml in which a line is replaced, repeated or removed is read, or gives one line that names it."""
    lines = yaml.dump(dietnerf_tiny.config).splitlines()
    place = data.draw(st.integers(0, len(lines) - 1))
    other = data.draw(st.sampled_from(lines) | documents.map("a: {}".format) | st.just(""))
    lines[place : place + data.draw(st.integers(0, 2))] = [other]
    file = tmp_path_factory.mktemp("run") / "config.yml"
    file.write_text("\n".join(lines))
    try:
        read_config(file)
    except UserError as error:
        assert str(file) in str(error) and "\n" not in str(error)
