"""dietnerf-similarity as a user types it."""

import dataclasses
import json
import shutil

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from dietnerf_ns import methods
from dietnerf_ns.commands.similarity import Similarity
from dietnerf_ns.methods import TINY_SCENE
from dietnerf_ns.semantic.consistency import SemanticConfig
from dietnerf_ns.similarity.plots import draw_histogram, draw_matrix
from dietnerf_ns.utils.errors import UserError
from tests.helpers.commands import in_this_process, ns
from tests.helpers.full_disk import files_of_at_most
from tests.helpers.scenes import folder_of_images

EMBEDDED = ["--encoder", "embedded"]


@pytest.fixture
def striped_scene(tmp_path):
    """A scene that differs from the shipped one: stripes in several directions."""
    folder = tmp_path / "stripes"
    folder.mkdir()
    y, x = np.mgrid[:64, :64]
    for i, angle in enumerate(np.linspace(0, 1.2, 5)):
        wave = np.sin((x * np.cos(angle) + y * np.sin(angle)) * 0.6)
        Image.fromarray(np.uint8(127 + 120 * wave)).convert("RGB").save(folder / f"{i}.png")
    return folder


def read_json(out):
    return json.loads((out / "similarity.json").read_text())


@pytest.mark.slow
def test_two_scenes_give_plots_numbers_and_verdicts(striped_scene, tmp_path):
    out = tmp_path / "new" / "out"
    scenes = [striped_scene, TINY_SCENE]
    output = ns("dietnerf-similarity", *scenes, "--out", out, *EMBEDDED, "--max-images", 4, cwd=tmp_path).stdout
    report = read_json(out)
    assert report["encoder"] == {"encoder": "embedded"}
    assert [scene["name"] for scene in report["scenes"]] == ["stripes", "tiny_scene"]
    assert report["scenes"][1]["photos"] == ["r_0.png", "r_2.png", "r_5.png", "r_7.png"]
    matrix = np.array(report["similarities"])
    assert matrix.shape == (8, 8) and np.allclose(matrix, matrix.T) and np.allclose(np.diag(matrix), 1)
    tiny = report["scenes"][1]
    assert tiny["within"]["mean"] == pytest.approx(matrix[4:, 4:][np.triu_indices(4, 1)].mean(), abs=1e-4)
    assert tiny["across"]["mean"] == pytest.approx(matrix[:4, 4:].mean(), abs=1e-4)
    assert tiny["within"]["pairs"] == 6 and tiny["across"]["pairs"] == 16
    assert tiny["auc"] > 0.95 and tiny["verdict"] == "well"
    assert tiny["in_words"] in output and report["thresholds"] in output and "Embedding photos" in output
    for plot in ("histogram.png", "matrix.png"):
        assert np.asarray(Image.open(out / plot).convert("L")).std() > 5


def test_photos_of_the_same_scene_are_not_separated(tmp_path):
    """The shipped scene's photos in two folders: AUC is at chance, whatever the encoder."""
    for i in range(25):
        half = tmp_path / ("even", "odd")[i % 2]
        half.mkdir(exist_ok=True)
        shutil.copy(TINY_SCENE / "test" / f"r_{i}.png", half)
    Similarity(scenes=(tmp_path / "even", tmp_path / "odd"), out=tmp_path / "out", encoder="embedded").main()
    for scene in read_json(tmp_path / "out")["scenes"]:
        assert scene["verdict"] == "hardly" and scene["auc"] == pytest.approx(0.5, abs=0.1)


def test_a_single_scene_is_compared_with_the_shipped_one(striped_scene, tmp_path, capsys):
    Similarity(scenes=(striped_scene,), out=tmp_path / "out", encoder="embedded").main()
    assert "compared with the one that comes with this package, tiny_scene" in capsys.readouterr().out
    assert [scene["name"] for scene in read_json(tmp_path / "out")["scenes"]] == ["stripes", "tiny_scene"]


def test_the_shipped_scene_by_itself_has_no_verdict(tmp_path, capsys):
    Similarity(scenes=(TINY_SCENE,), out=tmp_path / "out", max_images=3, encoder="embedded").main()
    (scene,) = read_json(tmp_path / "out")["scenes"]
    assert scene["within"]["pairs"] == 3 and scene["auc"] is None
    assert "name a second scene" in capsys.readouterr().out


def test_the_shipped_scene_is_recognised_behind_a_link(tmp_path, monkeypatch):
    link = tmp_path / "package"
    link.symlink_to(TINY_SCENE)
    monkeypatch.setattr(methods, "TINY_SCENE", link)
    assert Similarity(scenes=(link,), out=tmp_path / "out")._folders() == [link]


def test_names_with_dollar_signs_are_drawn(tmp_path):
    name, values = "$^_$", np.array([0.1, 0.9])
    draw_histogram(tmp_path / "histogram.png", values, values, name)
    draw_matrix(tmp_path / "matrix.png", np.array([[1, 0.1], [0.1, 1]]), [name, name], np.array([1, 1]), name)
    assert (tmp_path / "histogram.png").is_file() and (tmp_path / "matrix.png").is_file()


def test_clip_checkpoint_and_embedding_are_used(striped_scene, tmp_path):
    torch.manual_seed(0)
    torch.save(open_clip.create_model("ViT-S-32").state_dict(), tmp_path / "clip.pt")
    clip = {"clip_model": "ViT-S-32", "clip_pretrained": str(tmp_path / "clip.pt")}
    matrices = []
    for embedding in ("projected", "class-token"):
        out = tmp_path / embedding
        Similarity(scenes=(striped_scene,), out=out, max_images=3, embedding=embedding, **clip).main()
        assert read_json(out)["encoder"] == {"encoder": "open-clip", **clip, "embedding": embedding}
        matrices.append(np.array(read_json(out)["similarities"]))
    assert not np.allclose(*matrices, atol=1e-3)


def test_encoder_settings_are_those_of_the_semantic_loss():
    ours = {field.name: field.default for field in dataclasses.fields(Similarity)}
    for field in ("encoder", "clip_model", "clip_pretrained", "embedding"):
        assert ours[field] == getattr(SemanticConfig(), field)


def test_missing_weights_name_this_commands_settings(striped_scene, tmp_path):
    with pytest.raises(UserError, match="Two ways out") as caught:
        Similarity(scenes=(striped_scene,), out=tmp_path / "out", clip_pretrained="nowhere.pt").main()
    assert str(caught.value).startswith("--clip-pretrained nowhere.pt: ") and "pipeline" not in str(caught.value)


def test_a_full_disk_ends_with_one_line(striped_scene, tmp_path):
    arguments = [striped_scene, "--out", "out", *EMBEDDED, "--max-images", 3]
    with files_of_at_most(5000):
        result = in_this_process("dietnerf-similarity", *arguments, cwd=tmp_path, check=False)
    assert result.returncode == 1 and "Traceback" not in result.stdout
    assert result.stdout.splitlines()[-1] == "--out out: cannot be written: File too large."


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["nowhere", "--out", "out"], "nowhere: there is no such folder"),
        (["plain", "--out", "plain/0.png/out"], "cannot be written"),
        (["plain", "--out", "out", "--max-images", 2], "--max-images 2: must be at least 3"),
        (["--out", "out"], "Name at least one folder"),
        (["plain", "other", "--out", "other"], "--out other: holds the photos of other; name another folder."),
        (["o" * 300, "--out", "out"], "oo: cannot be read or written: File name too long."),
        (["plain", "--out", "o" * 300], "oo: cannot be written: File name too long."),
    ],
)
def test_wrong_input_ends_with_one_line(arguments, words, tmp_path):
    for name in ("plain", "other"):
        folder_of_images(tmp_path / name, ["red"] * 3)
    result = in_this_process("dietnerf-similarity", *arguments, *EMBEDDED, cwd=tmp_path, check=False)
    assert result.returncode == 1 and "Traceback" not in result.stdout
    assert words in result.stdout.splitlines()[-1]
    assert "Embedding" not in result.stdout
