from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dietnerf_ns.data.photos import read_photo
from dietnerf_ns.poses.masks import masks_in
from dietnerf_ns.poses.photos import Lens, Photo
from dietnerf_ns.utils.errors import UserError


def photo_of(file, name="a.jpg", size=(8, 6)):
    return Photo(name, size, Lens("", None), file)


def mask_of(photo, folder):
    return masks_in(folder, [photo.file]).of(photo)


def with_orientation(path, stored, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(path, exif=exif)
    return read_photo(path)[..., 0] > 0


def corner(height=30, width=40):
    stored = np.zeros((height, width), np.uint8)
    stored[:10, : width // 2 + 5] = 255
    return stored


def test_masks_are_found_by_names_with_spaces(tmp_path):
    Image.new("L", (4, 3), 255).save(tmp_path / "my photo #1.png")
    mask = mask_of(photo_of(Path("my photo #1.jpg")), tmp_path)
    assert mask.shape == (6, 8) and mask.all()


def test_masks_are_found_by_names_whose_accents_are_written_in_another_way(tmp_path):
    Image.new("L", (4, 3), 255).save(tmp_path / "caf\u00e9.png")
    assert mask_of(photo_of(Path("cafe\u0301.jpg")), tmp_path).all()


def test_masks_of_photos_that_differ_in_their_suffix_are_found_by_name(tmp_path):
    for name, value in (("a.png", 0), ("a.tif", 255)):
        Image.new("L", (8, 6), value).save(tmp_path / name)
    assert not mask_of(photo_of(Path("a.png"), "a_1.png"), tmp_path).any()
    assert mask_of(photo_of(Path("a.tif"), "a_2.jpg"), tmp_path).all()
    with pytest.raises(UserError, match=r"there is no mask of b\.jpg; each photo needs one with its name"):
        mask_of(photo_of(Path("b.jpg"), "b_1.jpg"), tmp_path)


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_a_mask_of_the_stored_pixels_is_turned_like_its_photo(tmp_path, orientation):
    upright = with_orientation(tmp_path / "a.png", corner(), orientation)
    photo = photo_of(tmp_path / "a.png", size=(30, 40))
    (tmp_path / "masks").mkdir()
    for mask in (corner(), upright.astype(np.uint8)):
        Image.fromarray(mask).save(tmp_path / "masks" / "a.png")
        assert (mask_of(photo, tmp_path / "masks") == upright).all()
        assert masks_in(tmp_path / "masks", [photo.file]).warning is None


@pytest.mark.parametrize("height, orientation", [(30, 2), (30, 3), (30, 4), (40, 6)])
@pytest.mark.parametrize("stored", [True, False])
def test_masks_of_other_photos_tell_how_one_is_turned_whose_size_does_not(tmp_path, height, orientation, stored):
    photos, masks = tmp_path / "photos", tmp_path / "masks"
    photos.mkdir(), masks.mkdir()
    untold = with_orientation(photos / "a.png", corner(height), orientation)
    told = with_orientation(photos / "b.png", corner(), 8)
    for name, upright, drawn in (("a", untold, corner(height)), ("b", told, corner())):
        Image.fromarray(drawn if stored else upright.astype(np.uint8)).save(masks / f"{name}.png")
    found = masks_in(masks, [photos / "a.png", photos / "b.png"])
    assert (found.of(photo_of(photos / "a.png", size=(40, height))) == untold).all()
    assert (found.of(photo_of(photos / "b.png", size=(30, 40))) == told).all()
    assert found.warning is None


def test_masks_of_which_nothing_tells_how_they_are_turned_are_named(tmp_path):
    photos, masks = tmp_path / "photos", tmp_path / "masks"
    photos.mkdir(), masks.mkdir()
    upright = with_orientation(photos / "a.png", corner(), 3)
    Image.fromarray(corner()).save(photos / "b.png")
    for name, drawn in (("a", upright), ("b", corner() > 0)):
        Image.fromarray(drawn).save(masks / f"{name}.png")
    found = masks_in(masks, [photos / "a.png", photos / "b.png"])
    assert found.warning.startswith("Orientation: a.png: EXIF says how to turn these photos")
    assert (found.of(photo_of(photos / "a.png", size=(40, 30))) == upright).all()


def test_a_mask_that_says_itself_how_it_is_turned_needs_nothing_else(tmp_path):
    photos, masks = tmp_path / "photos", tmp_path / "masks"
    photos.mkdir(), masks.mkdir()
    upright = with_orientation(photos / "a.png", corner(), 3)
    with_orientation(masks / "a.png", corner(), 3)
    found = masks_in(masks, [photos / "a.png"])
    assert found.warning is None
    assert (found.of(photo_of(photos / "a.png", size=(40, 30))) == upright).all()
