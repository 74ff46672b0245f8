"""Coverage-guided fuzzing of everything that parses a user's files: only a `UserError` may come out.

    python -m tools.fuzz TARGET --seconds 600

Inputs that end in another error are written to --findings, one for each place in the code, and fuzzing goes on. The
exit status is 1 if there are any. atheris mutates the inputs in tests/fuzz_corpus/TARGET, which a fast test runs as
well; add an input there when its error is corrected.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import tyro

from dietnerf_ns.utils.errors import UserError

CORPUS = Path(__file__).resolve().parents[1] / "tests" / "fuzz_corpus"
PART = b"\n---\n"
"""Separates the files of an input that stands for several."""
SLOWEST_SECONDS = 60
"""An input that takes longer is a finding."""
Parse = Callable[[bytes, Path], None]
"""Parses an input, with an empty folder for files."""


def experiment(data: bytes, folder: Path) -> None:
    """An experiment file of `dietnerf-bench run`."""
    from dietnerf_ns.bench.experiment import read_experiment

    read_experiment(_file(folder / "experiment.yaml", data))


def config(data: bytes, folder: Path) -> None:
    """A run's config.yml."""
    from dietnerf_ns.utils.saved_runs import read_config

    read_config(_file(folder / "config.yml", data))


def transforms(data: bytes, folder: Path) -> None:
    """A capture's transforms.json."""
    from dietnerf_ns.data.transforms_file import read_transforms

    read_transforms(_file(folder / "transforms.json", data))


def photo(data: bytes, folder: Path) -> None:
    """A photo."""
    from dietnerf_ns.data.photos import read_photo

    read_photo(_file(folder / "photo.png", data))


def mask(data: bytes, folder: Path) -> None:
    """A mask."""
    from dietnerf_ns.data.photos import read_mask

    read_mask(_file(folder / "mask.png", data))


def results(data: bytes, folder: Path) -> None:
    """experiment.json, the results of two cells and pooled.json, as `dietnerf-bench report` reads them; no plots."""
    from dietnerf_ns.bench.report import notes, progress, tables, write_csv
    from dietnerf_ns.bench.stored import as_json
    from dietnerf_ns.bench.summary import read_results

    names = ("experiment.json", "cells/a/result.json", "cells/b/result.json", "pooled.json")
    for name, content in zip(names, data.split(PART), strict=False):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        _file(folder / name, content)
    found = read_results(folder)
    json.dumps(as_json(found))
    write_csv(found, folder / "results.csv")
    "\n".join([progress(found), *tables(found), *notes(found)])


def _file(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


TARGETS: dict[str, Parse] = {
    target.__name__: target for target in (experiment, config, transforms, photo, mask, results)
}
TOKENS = {
    "experiment": ["scenes", "methods", "views", "seeds", "overrides", "label", "count", "tiny", "dietnerf-tiny", "- "],
    "config": ["!!python/name:", "!!python/object:", "!!python/object/apply:", "!!python/tuple", "&id001", "*id001"],
    "transforms": ["frames", "file_path", "transform_matrix", "fl_x", "camera_angle_x", "NaN", "Infinity", "null"],
    "photo": ["IHDR", "PLTE", "tRNS", "IDAT", "eXIf", "\\xff\\xd8\\xff\\xe1", "GIF89a", "RIFF", "BM", "II*\\x00"],
    "mask": ["IHDR", "PLTE", "tRNS", "IDAT", "GIF89a"],
    "results": ["cells", "metrics", "training", "images", "null", "NaN", "\\x0a---\\x0a", "id", "pools", "left_out"],
}
"""Words that atheris inserts, by target."""


@dataclass
class Fuzz:
    """Fuzz one target."""

    target: tyro.conf.Positional[str]
    """What is fuzzed: experiment, config, transforms, photo, mask or results."""
    seconds: int = 600
    """Time, without the start."""
    findings: Path = Path(tempfile.gettempdir(), "dietnerf_ns_findings")
    """Folder for inputs that end in another error than a `UserError`."""

    def main(self) -> None:
        """Fuzz in a process of its own, because atheris never returns."""
        if self.target not in TARGETS:
            raise UserError(f"{self.target}: no such target; known: {', '.join(TARGETS)}.")
        if find_spec("atheris") is None:
            raise UserError("atheris is not installed: pip install atheris (Linux, and macOS with an LLVM of its own).")
        found = self.findings / self.target
        found.mkdir(parents=True, exist_ok=True)
        before = {path.name for path in found.iterdir()}
        process = multiprocessing.get_context("fork").Process(target=_fuzz, args=(self.target, self.seconds, found))
        process.start()
        process.join()
        new = sorted(path for path in found.iterdir() if path.name not in before)
        print(f"{self.target}: {len(new)} findings.", *new, sep="\n")
        if process.exitcode:
            sys.exit(f"{self.target}: fuzzing ended early, see above.")
        if new:
            sys.exit(1)


def _fuzz(name: str, seconds: int, findings: Path) -> None:
    import atheris

    with atheris.instrument_imports(include=["dietnerf_ns", "yaml"]), tempfile.TemporaryDirectory() as folder:  # pyright: ignore[reportAttributeAccessIssue]
        check(name, b"", Path(folder))  # imports what the target needs
    places: set[str] = set()

    def one_input(data: bytes) -> None:
        with tempfile.TemporaryDirectory() as folder:
            error = check(name, data, Path(folder))
        if error is not None and (place := _place(error)) not in places:
            places.add(place)
            _keep(data, error, place, findings)

    with tempfile.TemporaryDirectory() as work:
        words = Path(work, "words")
        words.write_text("".join(f'"{word}"\n' for word in TOKENS[name]))
        inputs = Path(work, "inputs")
        inputs.mkdir()
        limits = [f"-max_total_time={seconds}", "-rss_limit_mb=8000", "-max_len=65536"]
        limits += [f"-timeout={SLOWEST_SECONDS}", f"-report_slow_units={SLOWEST_SECONDS}"]
        options = [f"-dict={words}", f"-artifact_prefix={findings}/", "-print_final_stats=1", *limits]
        atheris.Setup([sys.argv[0], *options, str(inputs), str(CORPUS / name)], one_input)
        atheris.Fuzz()


def check(name: str, data: bytes, folder: Path) -> Exception | None:
    """The error of a target that is not a `UserError`, or None.

    Args:
        name: of the target.
        data: the input.
        folder: an empty folder for its files.
    """
    try:
        TARGETS[name](data, folder)
    except UserError:
        return None
    except Exception as error:
        return error
    return None


def _place(error: Exception) -> str:
    """Where an error comes from: its type and the innermost line of this package."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "dietnerf_ns" in frame.filename]
    frame = (own or frames)[-1]
    return f"{type(error).__name__} in {Path(frame.filename).name}:{frame.lineno}"


def _keep(data: bytes, error: Exception, place: str, findings: Path) -> None:
    file = findings / hashlib.sha256(data).hexdigest()[:16]
    file.write_bytes(data)
    print(f"{time.strftime('%H:%M:%S')} {place}: {error!r:.200} -> {file}", flush=True)


if __name__ == "__main__":
    # tyro keeps the line breaks of the text above.
    tyro.cli(Fuzz, description=__doc__).main()
