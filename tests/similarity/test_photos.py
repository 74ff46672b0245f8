import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dietnerf_ns.data.photos import heif_and_large_photos
from dietnerf_ns.similarity.photos import (
    PhotoSet,
    check_out,
    embed_photo_sets,
    evenly_chosen,
    load_photo,
    read_photo_sets,
)
from dietnerf_ns.utils.errors import UserError
from tests.helpers.encoders import FakeEncoder
from tests.helpers.scenes import as_transforms_json, folder_of_images


def names(photo_set):
    return [photo.name for photo in photo_set.photos]


def test_blender_and_nerfstudio_scenes_and_folders_of_images(tiny_scene, tmp_path):
    transforms = as_transforms_json(tiny_scene, tmp_path / "photos", count=8)
    listed = json.loads((transforms / "transforms.json").read_text())
    listed["frames"] *= 2
    (transforms / "transforms.json").write_text(json.dumps(listed))
    images = folder_of_images(tmp_path / "plain", ["red", "green", "blue"])
    (images / "notes.txt").write_text("not a photo")
    (images / "._0.png").write_text("what macOS writes beside a photo on other file systems")
    (images / "folder.png").mkdir()
    blender, nerfstudio, plain = read_photo_sets([tiny_scene, transforms, images], max_images=20)
    assert [photo_set.name for photo_set in (blender, nerfstudio, plain)] == ["tiny_scene", "photos", "plain"]
    assert names(blender) == [f"r_{i}.png" for i in range(8)], "the training split"
    assert len(nerfstudio.photos) == 16, "all photos, including those that nerfstudio would use for evaluation"
    assert names(plain) == ["0.png", "1.png", "2.png"]


def test_photos_are_chosen_evenly():
    items = [Path(str(i)) for i in range(10)]
    assert [int(item.name) for item in evenly_chosen(items, 4)] == [0, 3, 6, 9]
    assert evenly_chosen(items, 99) == items


def test_folders_of_the_same_name_are_named_by_their_path(tmp_path):
    folders = [folder_of_images(tmp_path / owner / "images", ["red"] * 3) for owner in ("chair", "ship")]
    assert [photo_set.name for photo_set in read_photo_sets(folders, 20)] == [str(folder) for folder in folders]


def test_names_that_are_not_utf8_can_be_drawn(tmp_path):
    folder = folder_of_images(tmp_path / os.fsdecode(b"caf\xe9"), ["red"] * 3)
    assert read_photo_sets([folder], 20)[0].name == "caf\\xe9"


def test_results_do_not_lie_among_photos(tiny_scene, tmp_path):
    transforms = as_transforms_json(tiny_scene, tmp_path / "chair", count=3)
    plain = folder_of_images(tmp_path / "plain", ["red"] * 3)
    (tmp_path / "link").symlink_to(plain)
    photo_sets = read_photo_sets([transforms, plain], 20)
    for out, name in (("chair", "chair"), ("chair/images", "chair"), ("plain", "plain"), ("link", "plain")):
        with pytest.raises(UserError, match=f"^--out .*{out}: holds the photos of {name}; name another folder.$"):
            check_out(tmp_path / out, photo_sets)
    for out in ("", "new", "plain/similarity", "chair/similarity"):
        check_out(tmp_path / out, photo_sets)


def test_transparent_photos_are_blended_with_white(tmp_path):
    Image.new("RGBA", (2, 2), (255, 0, 0, 51)).save(tmp_path / "a.png")
    expected = torch.tensor([1.0, 0.8, 0.8])[:, None, None].expand(3, 2, 2)
    assert torch.allclose(load_photo(tmp_path / "a.png"), expected)
    Image.new("L", (2, 2), 51).save(tmp_path / "grey.png")
    assert torch.allclose(load_photo(tmp_path / "grey.png"), torch.tensor(0.2))


def test_embeddings_are_those_of_the_photos_in_order(tmp_path):
    folder = folder_of_images(tmp_path / "plain", ["red", "lime", "blue"])
    photo_set = PhotoSet("plain", folder, tuple(sorted(folder.iterdir())))
    embeddings = embed_photo_sets(FakeEncoder(), [photo_set, photo_set], torch.device("cpu"))
    expected = np.array([[1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) / np.sqrt(3)
    assert np.allclose(embeddings, np.concatenate([expected, expected]), atol=1e-6)


def test_heic_photos_are_read_like_the_others(tmp_path):
    folder = folder_of_images(tmp_path / "phone", ["red"] * 2)
    with heif_and_large_photos():
        Image.new("RGB", (64, 48), "blue").save(folder / "IMG_1.HEIC")
    (photo_set,) = read_photo_sets([folder], 20)
    assert names(photo_set) == ["0.png", "1.png", "IMG_1.HEIC"]
    embeddings = embed_photo_sets(FakeEncoder(), [photo_set], torch.device("cpu"))
    assert np.allclose(embeddings[2], np.array([-1, -1, 1]) / np.sqrt(3), atol=0.05)


def test_heic_photos_without_their_package_are_named_with_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    folder = folder_of_images(tmp_path / "phone", ["red"] * 3)
    for name in ("IMG_1.HEIC", "IMG_2.heif"):
        (folder / name).touch()
    with pytest.raises(UserError) as error:
        read_photo_sets([folder], 20)
    assert str(error.value) == (
        f"{folder}: IMG_1.HEIC, IMG_2.heif: HEIC photos need the package pillow-heif: "
        'pip install "dietnerf-ns[heic]", or convert them to JPEG.'
    )


def test_folders_that_cannot_be_compared_are_refused(tiny_scene, tmp_path):
    two = folder_of_images(tmp_path / "two", ["red", "green"])
    broken = folder_of_images(tmp_path / "broken", ["red"] * 3)
    (broken / "1.png").write_bytes(b"not an image")
    incomplete = tmp_path / "incomplete"
    shutil.copytree(tiny_scene, incomplete)
    (incomplete / "transforms_train.json").write_text('{"frames": []}')
    for folders, words in (
        ([tmp_path / "nowhere"], "there is no such folder"),
        ([two], "2 photos; at least 3"),
        ([tiny_scene, tiny_scene / ".." / tiny_scene.name], "are the same folder"),
        ([incomplete], "`frames` must be a list"),
    ):
        with pytest.raises(UserError, match=words):
            read_photo_sets(folders, 20)
    with pytest.raises(UserError, match="1.png: this is no image in a known format"):
        load_photo(broken / "1.png")
