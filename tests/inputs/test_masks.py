"""Masks as tools write them: the same pixels count, or one line names the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from nerfstudio.data.pixel_samplers import PixelSampler, PixelSamplerConfig
from PIL import Image

from dietnerf_ns.data.datamanager import FewShotDataManagerConfig
from dietnerf_ns.data.photos import read_mask
from dietnerf_ns.data.pixel_samplers import ForegroundPixelSamplerConfig
from dietnerf_ns.utils.errors import UserError
from tests.helpers.inputs import base_meta, base_photos, datamanager, on_white, write_capture


def inside(rgba: np.ndarray) -> np.ndarray:
    return rgba[..., 3] > 127


def values(rgba, low: int, high: int, dtype=np.uint8) -> np.ndarray:
    return np.where(inside(rgba), high, low).astype(dtype)


def palette(rgba) -> Image.Image:
    image = Image.fromarray(values(rgba, 0, 7), mode="P")
    image.putpalette([0, 0, 0] * 7 + [128, 0, 64])
    return image


def soft(rgba) -> Image.Image:
    return Image.fromarray(values(rgba, 40, 220))


FORMATS = {
    "gray": lambda a: Image.fromarray(values(a, 0, 255)),
    "0 and 1": lambda a: Image.fromarray(values(a, 0, 1)),
    "1 bit": lambda a: Image.fromarray(values(a, 0, 255)).convert("1"),
    "rgb": lambda a: Image.fromarray(values(a, 0, 255)).convert("RGB"),
    "one colour of rgb": lambda a: Image.fromarray(np.stack([values(a, 0, 200), *[values(a, 0, 0)] * 2], axis=-1)),
    "rgba": lambda a: Image.fromarray(values(a, 0, 255)).convert("RGBA"),
    "alpha": lambda a: Image.fromarray(np.stack([values(a, 255, 255)] * 3 + [values(a, 0, 255)], axis=-1)),
    "gray and alpha": lambda a: Image.fromarray(values(a, 0, 255)).convert("LA"),
    "palette": palette,
    "16 bit": lambda a: Image.fromarray(values(a, 0, 65535, np.uint16)),
    "16 bit labels": lambda a: Image.fromarray(values(a, 0, 3, np.uint16)),
    "32 bit": lambda a: Image.fromarray(values(a, 0, 9, np.int32)),
    "soft": soft,
}


@pytest.mark.parametrize("write", FORMATS.values(), ids=FORMATS)
def test_every_format_marks_the_same_pixels(tmp_path, write):
    photo = base_photos()[0]
    suffix = ".tif" if write(photo).mode.startswith(("I", "F")) else ".png"
    write(photo).save(tmp_path / f"mask{suffix}")
    assert np.array_equal(read_mask(tmp_path / f"mask{suffix}"), inside(photo))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_all_labels_count(tmp_path, dtype):
    labels = np.arange(6).repeat(4).reshape(4, 6).astype(dtype)
    Image.fromarray(labels).save(tmp_path / "mask.png")
    assert np.array_equal(read_mask(tmp_path / "mask.png"), labels > 0)


COLOURS = {"labels": ((0, 0, 0, 64, 0, 0, 0, 192, 0), [1, 2]), "gray": ((0, 0, 0, 64, 64, 64, 192, 192, 192), [2])}


@pytest.mark.parametrize(("palette", "counted"), COLOURS.values(), ids=COLOURS)
def test_all_colours_of_a_palette_count_unless_they_are_gray(tmp_path, palette, counted):
    """Palettes of labels, as VOC's, are of any brightness; a gray one is a soft mask."""
    indices = np.arange(24).reshape(4, 6).astype(np.uint8) % 3
    image = Image.new("P", (6, 4))
    image.putdata(indices.flatten().tolist())
    image.putpalette(palette)
    image.save(tmp_path / "mask.png")
    assert np.array_equal(read_mask(tmp_path / "mask.png"), np.isin(indices, counted))


def test_ringing_of_jpeg_does_not_count(tmp_path):
    Image.fromarray(values(base_photos()[0], 0, 255)).save(tmp_path / "mask.jpg", quality=50)
    assert (read_mask(tmp_path / "mask.jpg") != inside(base_photos()[0])).mean() < 0.01


def test_of_a_cut_out_photo_the_transparency_counts(tmp_path):
    photo = np.zeros((20, 30, 4), np.uint8)
    photo[4:16, 5:25] = (200, 120, 40, 255)
    photo[4:16, 5:15, :3] = 40  # the dark half of the object
    Image.fromarray(photo).save(tmp_path / "cut.png")
    assert (read_mask(tmp_path / "cut.png") == (photo[..., 3] > 0)).all()


def test_a_black_mask_marks_nothing(tmp_path):
    Image.new("L", (4, 4)).save(tmp_path / "mask.png")
    assert not read_mask(tmp_path / "mask.png").any()


def masked_capture(folder: Path, write=FORMATS["gray"], *, numbers=range(5), broken=None) -> Path:
    meta = base_meta()
    (folder / "masks").mkdir(parents=True)
    for number, (photo, frame) in enumerate(zip(base_photos(), meta["frames"], strict=True)):
        if number in numbers:
            frame["mask_path"] = f"masks/{number}.png"
            write(photo).save(folder / "masks" / f"{number}.png")

    if broken is not None:
        broken(folder / "masks" / "2.png")
    return write_capture(folder, meta=meta)


@pytest.mark.parametrize("name", ["rgb", "palette", "0 and 1", "alpha"])
@pytest.mark.parametrize("factor", [1.0, 0.5])
def test_rays_are_sampled_inside(tmp_path, name, factor):
    manager = datamanager(masked_capture(tmp_path, FORMATS[name]), camera_res_scale_factor=factor)
    masks = [manager.train_dataset.get_data(i)["mask"] for i in range(5)]
    for step in range(3):
        _, batch = manager.next_train(step)
        assert all(masks[photo][row, column] for photo, row, column in batch["indices"].long().tolist())


@pytest.mark.parametrize("views", [(0,), (0, 1, 2, 3)], ids=["one is trained on", "one is evaluated"])
def test_nerfstudios_own_sampler_has_rays_inside_the_mask_of_a_single_photo(tmp_path, views):
    """As dietnerf-nerfacto has it."""
    manager = datamanager(masked_capture(tmp_path), pixel_sampler=PixelSamplerConfig(), view_indices=views)
    for dataset, (_, batch) in (
        (manager.train_dataset, manager.next_train(0)),
        (manager.eval_dataset, manager.next_eval(0)),
    ):
        masks = [dataset.get_data(i)["mask"] for i in range(len(dataset))]
        assert all(masks[photo][row, column] for photo, row, column in batch["indices"].long().tolist())
    assert manager.config.pixel_sampler._target is PixelSampler, "as it was asked for"


@pytest.mark.parametrize("sampler", [PixelSamplerConfig, ForegroundPixelSamplerConfig])
def test_patches_pass_over_masks_that_are_to_be_ignored(tmp_path, sampler):
    def narrow(photo):
        mask = np.zeros((100, 100), np.uint8)
        mask[50:52, 50:52] = 255
        return Image.fromarray(mask)

    folder = masked_capture(tmp_path, narrow)
    given = {"patch_size": 8, "train_num_rays_per_batch": 64, "eval_num_rays_per_batch": 64}
    manager = FewShotDataManagerConfig(
        dataparser=NerfstudioDataParserConfig(data=folder), pixel_sampler=sampler(ignore_mask=True), **given
    ).setup(device="cpu", test_mode="val")
    assert len(manager.next_train(0)[1]["image"]) == 64


def test_reduced_pixels_count_if_all_of_their_area_is_inside(tmp_path):
    manager = datamanager(masked_capture(tmp_path), camera_res_scale_factor=0.5)
    expected = inside(base_photos()[0]).reshape(50, 2, 50, 2).all(axis=(1, 3))
    assert np.array_equal(manager.train_dataset.get_data(0)["mask"][..., 0].numpy(), expected)


BROKEN = {
    "missing": (lambda path: path.unlink(), "2.png: there is no such file"),
    "empty": (lambda path: path.write_bytes(b""), "2.png: this image file is empty"),
    "other size": (lambda path: Image.new("L", (50, 50), 255).save(path), "2.png is 50x50 (width x height)"),
}


@pytest.mark.parametrize(("broken", "message"), BROKEN.values(), ids=BROKEN)
def test_a_mask_that_cannot_be_used_is_named(tmp_path, broken, message):
    with pytest.raises(UserError) as error:
        datamanager(masked_capture(tmp_path, broken=broken))
    assert message in str(error.value) and "masks" in str(error.value)


def test_masks_for_some_photos_only(tmp_path):
    with pytest.raises(UserError, match="mask_path is specified for every frame"):
        datamanager(masked_capture(tmp_path, numbers=[0, 1]))


@pytest.mark.parametrize("black", [set(), {1}, {1, 2}], ids=str)
def test_masks_of_several_sizes(tmp_path, black):
    meta = base_meta()
    (tmp_path / "masks").mkdir()
    for number, frame in enumerate(meta["frames"]):
        width = 60 if number % 2 else 100
        frame |= {"w": width, "h": 100, "cx": width / 2, "mask_path": f"masks/{number}.png"}
        mask = FORMATS["gray"](base_photos()[number]).crop((50 - width // 2, 0, 50 + width // 2, 100))
        (Image.new("L", mask.size) if number in black else mask).save(tmp_path / "masks" / f"{number}.png")
    for key in ("w", "h", "cx"):
        del meta[key]

    def save(rgba, path, number):
        width = 60 if number % 2 else 100
        Image.fromarray(on_white(rgba)).crop((50 - width // 2, 0, 50 + width // 2, 100)).save(path)

    manager = datamanager(write_capture(tmp_path, save=save, meta=meta))
    masks = [manager.train_dataset.get_data(i)["mask"] for i in range(5)]
    _, batch = manager.next_train(0)
    assert all(masks[photo][row, column] for photo, row, column in batch["indices"].long().tolist())
    assert len(batch["indices"]) == 64 and set(batch["indices"][:, 0].tolist()) == set(range(5)) - black


@pytest.mark.parametrize("drawn_on", ["upright photo", "stored pixels"])
def test_masks_of_photos_that_are_turned_upright(tmp_path, drawn_on):
    """Photos of 100x60 stored pixels that EXIF turns, with the cameras of the upright ones."""
    meta = base_meta(".jpg") | {"w": 60, "h": 100, "cx": 30.0, "cy": 50.0}
    stored = np.zeros((60, 100), np.uint8)
    stored[:20, :70] = 255
    upright = np.rot90(stored, -1)
    for number, frame in enumerate(meta["frames"]):
        frame["mask_path"] = f"masks/{number}.png"

    def turned(rgba, path, number):
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.fromarray(rgba[20:80, :, :3]).save(path, exif=exif)
        (tmp_path / "masks").mkdir(exist_ok=True)
        mask = stored if drawn_on == "stored pixels" else upright
        Image.fromarray(mask).save(tmp_path / "masks" / f"{number}.png")

    manager = datamanager(write_capture(tmp_path, save=turned, suffix=".jpg", meta=meta))
    assert np.array_equal(manager.train_dataset.get_data(0)["mask"][..., 0].numpy(), upright == 255)
