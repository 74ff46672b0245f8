from dataclasses import replace

import pytest

from dietnerf_ns.bench.speed.candidate import NERFACTO_ON_BLENDER, Candidate, set_in, warm_up
from dietnerf_ns.bench.speed.meters import Stopwatch
from dietnerf_ns.bench.speed.steps import measure_memory, measure_steps
from dietnerf_ns.methods import dietnerf_tiny


def test_candidates_take_turns_and_semantic_steps_count_at_their_own_rate(
    small, small_without_lsc, data, tmp_path, monkeypatch
):
    from dietnerf_ns.bench.speed import steps

    taken, clock = [], [0.0]
    real_step = steps.train_step

    def noted_step(trainer, step):
        taken.append((trainer.pipeline.semantic is not None, step))
        real_step(trainer, step)
        clock[0] += 0.010 if trainer.pipeline.semantic is not None and step % 3 == 0 else 0.001

    monkeypatch.setattr(steps, "train_step", noted_step)
    monkeypatch.setattr(Stopwatch, "_now", lambda self: clock[0])
    plain, ours = measure_steps([small_without_lsc, small], data, tmp_path, rounds=2, warmup_seconds=0)
    first = taken[0][1]
    assert taken == [(who, first + r * 3 + i) for r in range(2) for who in (False, True) for i in range(3)]
    assert first % 3 == 0 and first > 0
    assert plain["plain"]["n"] == 6 and "semantic" not in plain
    assert ours["plain"]["n"] == 4 and ours["semantic"]["n"] == 2
    assert ours["semantic"]["median"] == pytest.approx(10) and ours["plain"]["median"] == pytest.approx(1)
    assert plain["milliseconds"]["median"] == pytest.approx(1)
    assert ours["milliseconds"]["median"] == pytest.approx(4), "two plain steps and a semantic one"
    assert ours["ratio"]["plain"]["median"] == pytest.approx(4) and list(ours["ratio"]) == ["plain"]


def test_warming_up_leaves_half_of_the_run(small, data, tmp_path):
    """Otherwise a short run on a fast machine would be over, with its semantic steps, before anything is timed."""
    trainer = replace(small, overrides=small.overrides | {"max_num_iterations": 20}).trainer(data, tmp_path)
    assert warm_up(trainer, 60, period=3) == 12


def test_memory_of_plain_and_semantic_steps(small, small_without_lsc, data, tmp_path):
    plain = measure_memory(small_without_lsc, data, tmp_path)
    ours = measure_memory(small, data, tmp_path)
    if "reason" in plain:
        pytest.skip(plain["reason"])
    assert plain["start"] > 100 and plain["plain"] > 0 and "semantic" not in plain
    assert ours["semantic"] > 50, "the encoder's activations alone"


def test_overrides_name_settings_that_exist(tiny_pipeline_config):
    set_in(tiny_pipeline_config, "semantic.weight", 0.5)
    assert tiny_pipeline_config.semantic.weight == 0.5
    with pytest.raises(AssertionError, match="has no wieght"):
        set_in(tiny_pipeline_config, "semantic.wieght", 0.5)


def test_nerfacto_trains_on_the_same_photos_with_what_blender_scenes_need(data, tmp_path):
    tiny_hash = {
        "log2_hashmap_size": 8,
        "num_levels": 2,
        "proposal_net_args_list": [{"num_levels": 2, "max_res": 16}] * 2,
    }
    overrides = NERFACTO_ON_BLENDER | {f"pipeline.model.{name}": value for name, value in tiny_hash.items()}
    trainer = Candidate("nerfacto", "nerfacto", 48, overrides).trainer(data, tmp_path)
    config = trainer.pipeline.model.config
    assert config.background_color == "white" and config.near_plane == 2.0 and config.disable_scene_contraction
    assert trainer.pipeline.datamanager.train_pixel_sampler.num_rays_per_batch == 48
    assert len(trainer.pipeline.datamanager.train_dataset) == 8
    assert dietnerf_tiny.config.pipeline.datamanager.train_num_rays_per_batch != 48, (
        "registered methods stay as they are"
    )
