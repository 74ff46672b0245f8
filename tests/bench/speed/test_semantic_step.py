import itertools
import json
import subprocess
import sys
import weakref
from dataclasses import asdict, replace
from types import SimpleNamespace

import pytest
import torch

from dietnerf_ns.bench.speed import semantic_step
from dietnerf_ns.bench.speed.candidate import Candidate, Data
from dietnerf_ns.bench.speed.meters import PeakMeter
from dietnerf_ns.bench.speed.semantic_step import PARTS, split_semantic_step
from dietnerf_ns.fields.density_grid import DensityGrid
from dietnerf_ns.methods import TINY_SCENE
from dietnerf_ns.models import empty_space
from dietnerf_ns.models.nerfacto import DietNeRFModel
from dietnerf_ns.semantic.consistency import SemanticConsistency
from dietnerf_ns.utils import gpu_memory

needs_peaks = pytest.mark.skipif(
    not PeakMeter.works_on(torch.device("cpu")), reason="peaks of the resident set can only be reset on Linux"
)


def measured(candidate, data, folder, *, sizes, repetitions=1, what="time"):
    options = {"sizes": sizes, "repetitions": repetitions, "warmup_seconds": 0, "what": what}
    return split_semantic_step(candidate, data, folder, **options)


def test_every_part_is_timed_for_every_size_with_and_without_recomputing(small, data, tmp_path):
    entries = list(measured(small, data, tmp_path, sizes=[12, 64], repetitions=3))
    assert [(e["size"], e["recompute"]) for e in entries] == [(12, True), (64, True), (12, False), (64, False)]
    assert all(entry[part]["n"] == 3 and entry[part]["median"] > 0 for entry in entries for part in PARTS)
    small_view, large_view = entries[:2]
    # The quartile, because another program slows a few of them.
    assert large_view["render forward"]["low"] > small_view["render forward"]["low"]


def test_views_are_not_cropped_even_if_the_methods_are(small, data, tmp_path, monkeypatch):
    sizes, render = [], SemanticConsistency.render
    monkeypatch.setattr(
        SemanticConsistency, "render", lambda self, model, view: sizes.append(view.size) or render(self, model, view)
    )
    cropped = replace(small, overrides=small.overrides | {"pipeline.semantic.crop": 0.5})
    list(measured(cropped, data, tmp_path, sizes=[12]))
    assert sizes[-1] == (12, 12)


def test_each_repetition_has_the_time_of_the_grid_and_of_the_view(small, data, tmp_path, monkeypatch):
    """Training computes both anew for each view."""
    clock, sample = [0.0], SemanticConsistency.sample_view

    def slow_grid(*arguments):
        clock[0] += 3.0
        return DensityGrid(*arguments)

    def slow_sample(self, step):
        clock[0] += 0.5
        return sample(self, step)

    monkeypatch.setattr(empty_space, "DensityGrid", slow_grid)
    monkeypatch.setattr(SemanticConsistency, "sample_view", slow_sample)
    monkeypatch.setattr(semantic_step.Stopwatch, "_now", lambda self: clock[0])
    for entry in measured(small, data, tmp_path, sizes=[12], repetitions=2):
        assert entry["render forward"] == {"median": 3500.0, "low": 3500.0, "high": 3500.0, "n": 2}
        assert all(entry[part]["high"] == 0 for part in PARTS[1:])


@needs_peaks
def test_memory_is_measured_with_the_grid(small, data, tmp_path, monkeypatch):
    built, built_in, run_parts = [], [], semantic_step._run_parts

    def counted_grid(*arguments):
        built.append(arguments)
        return DensityGrid(*arguments)

    def counted_run(*arguments, **options):
        before = len(built)
        rendered = run_parts(*arguments, **options)
        built_in.append(len(built) - before)
        return rendered

    monkeypatch.setattr(empty_space, "DensityGrid", counted_grid)
    monkeypatch.setattr(semantic_step, "_run_parts", counted_run)
    list(measured(small, data, tmp_path, sizes=[12], what="memory"))
    assert built_in == [1] * 4, "a run that fills caches and a measured one, for both settings"


def test_what_was_rendered_is_counted(small, data, tmp_path, monkeypatch):
    """A view is rendered again only if more of its rays may hit something than fit in a chunk."""
    few, many = 90, 310

    def some_may_hit(self, rays):
        return torch.arange(len(rays)) < (few if len(rays) < 500 else many)

    monkeypatch.setattr(DietNeRFModel, "may_hit", some_may_hit)
    chunked = replace(small, overrides=small.overrides | {"pipeline.semantic.rays_per_chunk": 300})
    entries = list(measured(chunked, data, tmp_path, sizes=[16, 32], repetitions=2))
    by_setting = {(entry["size"], entry["recompute"]): entry["renders"] for entry in entries}
    kept = {"again": 0, "kept": True}
    assert by_setting[16, True] == by_setting[16, False] == [{"rays": few} | kept] * 2
    assert by_setting[32, False] == [{"rays": many} | kept] * 2
    for render in by_setting[32, True]:
        assert render["rays"] == many and 0 < render["again"] <= many and not render["kept"]


OUT_OF_MEMORY = {
    30: RuntimeError("CUDA_ERROR_OUT_OF_MEMORY out of memory"),
    31: RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    32: torch.OutOfMemoryError("CUDA out of memory."),
}
"""Errors of tinycudann, cuBLAS and torch, by the size of the view."""


def test_a_view_that_does_not_fit_frees_its_memory_before_the_next(small, data, tmp_path, monkeypatch):
    activations, freed, render = [], [], SemanticConsistency.render

    def render_small_views(self, model, view):
        kept = torch.ones(view.size)
        activations.append(weakref.ref(kept))
        if (error := OUT_OF_MEMORY.get(view.size[0])) is not None:
            raise type(error)(*error.args)
        return render(self, model, view)

    monkeypatch.setattr(SemanticConsistency, "render", render_small_views)
    monkeypatch.setattr(gpu_memory, "TCNN_EXISTS", True)
    tinycudann = SimpleNamespace(free_temporary_memory=lambda: freed.append(activations[-1]()))
    monkeypatch.setattr(gpu_memory, "tcnn", tinycudann)
    *too_large, fits = itertools.islice(measured(small, data, tmp_path, sizes=[*OUT_OF_MEMORY, 12]), 4)
    reasons = {size: f"{type(error).__name__}: {error}" for size, error in OUT_OF_MEMORY.items()}
    assert {entry["size"]: entry["reason"] for entry in too_large} == reasons
    assert freed == [None] * 3, "the activations were gone when tinycudann's memory was freed"
    assert fits["size"] == 12 and all(part in fits for part in PARTS)


def test_other_errors_are_not_taken_for_a_lack_of_memory(small, data, tmp_path, monkeypatch):
    def broken(self, model, view):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    not_due = replace(small, overrides=small.overrides | {"pipeline.semantic.start": 100})
    monkeypatch.setattr(SemanticConsistency, "render", broken)
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        list(measured(not_due, data, tmp_path, sizes=[12]))


@needs_peaks
@pytest.mark.slow
def test_memory_of_a_semantic_view_does_not_grow_with_its_size(tmp_path):
    """dietnerf-tiny in a process of its own, from 80 to 160 pixels, which is four times as many rays."""
    specification, results = tmp_path / "probe.json", tmp_path / "probe.jsonl"
    options = {"sizes": [80, 160], "repetitions": 1, "warmup_seconds": 0, "what": "memory"}
    candidate = Candidate("ours", "dietnerf-tiny", 640, {"pipeline.semantic.rays_per_chunk": 640})
    described = {"candidates": [asdict(candidate)], "data": asdict(Data(str(TINY_SCENE)))}
    specification.write_text(json.dumps({"probe": "semantic step"} | described | options))
    command = [sys.executable, "-m", "dietnerf_ns.bench.speed.probe", specification, results]
    subprocess.run(command, check=True, capture_output=True)
    small, large, small_kept, large_kept = map(json.loads, results.read_text().splitlines())
    activations = large_kept["render forward"] - small_kept["render forward"]
    assert large_kept["render forward"] > 3 * small_kept["render forward"] > 3 * small["render forward"]
    for part in PARTS:
        # The grid of the density has more points for a larger view, but not above a limit.
        assert large["start"] + large[part] < 1.05 * (small["start"] + small[part]), part
        assert large[part] - small[part] < 0.1 * activations, f"{part}: rays, colours and a grid, but no activations"
