"""FID and KID: which images are compared, and that a missing network is no failure."""

import json
import os

import numpy as np
import pytest
import torch
from PIL import Image

from dietnerf_ns.bench import fid_kid
from dietnerf_ns.bench.fid_kid import ImagesOnWhite, fid_kid_of_methods
from tests.helpers.bench import cell, experiment


def finished_cell(out, identity, renders=2, **values):
    for kind in ("photos", "renders"):
        (out / "cells" / identity / kind).mkdir(parents=True)
        for index in range(renders):
            Image.new("RGB", (8, 8)).save(out / "cells" / identity / kind / f"r_{index}.png")
    (out / "cells" / identity / "result.json").write_text("{}")
    return cell(identity, **values)


def test_images_are_put_on_white(tmp_path):
    half_transparent_black = np.zeros((2, 2, 4), np.uint8)
    half_transparent_black[..., 3] = 128
    Image.fromarray(half_transparent_black).save(tmp_path / "a.png")
    image = ImagesOnWhite({tmp_path / "a.png": None})[0]
    assert image.shape == (3, 2, 2) and image.dtype == torch.uint8 and int(image[0, 0, 0]) == 127


def test_renders_of_a_seed_against_every_image_of_the_scene(tmp_path, monkeypatch):
    cells = [finished_cell(tmp_path, f"a{seed}", seed=seed) for seed in (0, 1)]
    cells += [finished_cell(tmp_path, "b", method="b"), cell("not finished", method="c")]
    monkeypatch.setattr(fid_kid, "fid_and_kid", lambda renders, photos, features: {"paper/fid": float(len(renders))})
    result = fid_kid_of_methods(experiment(tmp_path, resolution=8), cells, None, tmp_path)
    assert [len(entry.pop("content")) for entry in result["pools"]] == [8, 8, 8]
    every_image = 8 + 4 + 25
    assert result["pools"] == [
        {"views": "all views", "method": method, "seed": seed, "cells": [name], "renders": 2, "references": every_image}
        | {"paper/fid": 2.0}
        for method, seed, name in (("a", 0, "a0"), ("a", 1, "a1"), ("b", 0, "b"))
    ]


def test_scenes_used_as_they_are_are_compared_with_their_evaluated_photos(tmp_path, monkeypatch):
    read = experiment(tmp_path, scenes=[{"name": "fern", "dataparser": "colmap"}], resolution=100)
    shapes = []
    monkeypatch.setattr(fid_kid, "fid_and_kid", lambda renders, photos, features: shapes.append(photos[0].shape) or {})
    cells = [finished_cell(tmp_path, "a", scene="fern", renders=3)]
    (entry,) = fid_kid_of_methods(read, cells, None, tmp_path)["pools"]
    assert entry["renders"] == 3 and entry["references"] == 3
    assert shapes == [(3, 8, 8)], "in their own size, although the experiment has a larger resolution"


def test_without_the_network_both_are_left_out(tmp_path, monkeypatch):
    def offline(*_):
        raise OSError("no network")

    monkeypatch.setattr(fid_kid, "fid_and_kid", offline)
    result = fid_kid_of_methods(experiment(tmp_path), [finished_cell(tmp_path, "a")], None, tmp_path)
    assert result == {"pools": [], "left_out": dict.fromkeys(["paper/fid", "paper/kid"], "OSError: no network")}


def test_what_was_computed_earlier_is_kept_without_the_network(tmp_path, monkeypatch):
    scores = {"paper/fid": 1.0, "paper/kid": 2.0}

    def online_for_the_second(renders, photos, features):
        if renders.files[0][0].parts[-3] != "b":
            raise OSError("no network")
        return scores

    cells = [finished_cell(tmp_path, name, method=name) for name in "ab"]
    known = {"views": "all views", "method": "a", "seed": 0, "cells": ["a"], "renders": 2, "references": 37} | scores
    (tmp_path / "pooled.json").write_text(json.dumps({"pools": [known], "left_out": {}}))
    monkeypatch.setattr(fid_kid, "fid_and_kid", online_for_the_second)
    result = fid_kid_of_methods(experiment(tmp_path), cells, None, tmp_path)
    content = result["pools"][1].pop("content")
    assert result == {"pools": [known, known | {"method": "b", "cells": ["b"]}], "left_out": {}}
    for hashed, kept in [(content, 2), ("of other renders, made again since", 1)]:
        (tmp_path / "pooled.json").write_text(json.dumps({"pools": [known | {"content": hashed}], "left_out": {}}))
        assert len(fid_kid_of_methods(experiment(tmp_path), cells, None, tmp_path)["pools"]) == kept
    (tmp_path / "pooled.json").write_text(json.dumps({"pools": [known], "left_out": {}}))
    os.utime(tmp_path / "pooled.json", (0, 0))  # by an earlier version, and the renders were made again
    assert [entry["method"] for entry in fid_kid_of_methods(experiment(tmp_path), cells, None, tmp_path)["pools"]] == [
        "b"
    ]
    (tmp_path / "pooled.json").write_text("{")
    result = fid_kid_of_methods(experiment(tmp_path), cells, None, tmp_path)
    assert [entry["method"] for entry in result["pools"]] == ["b"] and result["left_out"], "a damaged file has nothing"


def keep_magnitudes(network, state):
    """Random weights that keep the magnitude of features from layer to layer."""
    for parameter in network.parameters():
        if parameter.ndim > 1:
            torch.nn.init.kaiming_normal_(parameter)


@pytest.mark.slow
def test_fid_and_kid_with_a_random_inception_network(tmp_path, monkeypatch):
    """Whatever the network's weights are, equal images have FID 0 and other images have not."""
    from torch_fidelity import feature_extractor_inceptionv3 as inception

    monkeypatch.setattr(inception, "load_state_dict_from_url", lambda *_, **__: {})
    monkeypatch.setattr(inception.FeatureExtractorInceptionV3, "load_state_dict", keep_magnitudes)
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    for index in range(3):
        Image.fromarray(random.integers(0, 255, (16, 16, 3), np.uint8)).save(tmp_path / f"{index}.png")
    files = dict.fromkeys(tmp_path / f"{index}.png" for index in range(3))
    photos = ImagesOnWhite(files)
    same = fid_kid.fid_and_kid(photos, photos, tmp_path / "features")
    Image.new("RGB", (16, 20)).save(tmp_path / "portrait.png")
    mixed = ImagesOnWhite({**files, tmp_path / "portrait.png": None})
    assert fid_kid.fid_and_kid(mixed, mixed, tmp_path / "features")["paper/fid"] == pytest.approx(0, abs=1e-3)
    assert fid_kid.fid_and_kid(photos, mixed, tmp_path / "features")["paper/fid"] > 0.01
    assert set(same) == {"paper/fid", "paper/kid"}
    assert same["paper/fid"] == pytest.approx(0, abs=1e-3)
    assert [path for path in (tmp_path / "features").rglob("*") if path.is_file()], "kept for the next method"
    for path in files:
        Image.fromarray(random.integers(0, 100, (16, 16, 3), np.uint8)).save(path)
    exported_again = fid_kid.fid_and_kid(photos, photos, tmp_path / "features")
    assert exported_again["paper/fid"] == pytest.approx(0, abs=1e-3), "not those of the old images"
