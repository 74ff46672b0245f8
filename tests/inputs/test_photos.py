"""Photos as phones, scanners and tools write them: the shipped scene's colours, or one line that names the file."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from dietnerf_ns.data.photos import orientations_of, photo_size, read_photo
from dietnerf_ns.similarity.photos import load_photo
from dietnerf_ns.utils.errors import UserError
from tests.helpers.inputs import (
    base_meta,
    base_photos,
    datamanager,
    difference_from_base,
    on_white,
    save_rgb,
    write_capture,
)


def converted(mode: str, **options):
    def save(rgba, path, number):
        Image.fromarray(on_white(rgba)).convert(mode).save(path, **options)

    return save


def adaptive_palette(rgba, path, number):
    Image.fromarray(on_white(rgba)).convert("P", palette=Image.Palette.ADAPTIVE).save(path)


def transparent_palette(rgba, path, number):
    image = Image.fromarray(rgba).convert("RGB").quantize(255)
    indices = np.array(image)
    indices[rgba[..., 3] < 128] = 255
    palette = Image.fromarray(indices, mode="P")
    palette.putpalette(image.getpalette()[: 255 * 3] + [0, 0, 0])
    palette.save(path, transparency=255)


def colour_key(rgba, path, number):
    """tRNS of an RGB file: one colour is transparent."""
    rgb = rgba[..., :3].copy()
    rgb[rgba[..., 3] < 128] = (1, 2, 3)
    Image.fromarray(rgb).save(path, transparency=(1, 2, 3))


def rgba_file(rgba, path, number):
    Image.fromarray(rgba).save(path)


def one_rgba(rgba, path, number):
    (rgba_file if number == 3 else save_rgb)(rgba, path, number)


def one_gray(rgba, path, number):
    (converted("L") if number == 3 else save_rgb)(rgba, path, number)


def deep_rgb(rgba, path, number):
    assert cv2.imwrite(str(path), on_white(rgba)[..., ::-1].astype(np.uint16) * 257)


def cut_at_the_border(rgba, path, number):
    """Transparent around the object, which reaches over the border of the photo."""
    visible = rgba.copy()
    visible[60:, :, 3] = 255
    Image.fromarray(visible).save(path)


def gray_of(rgba) -> np.ndarray:
    return np.array(Image.fromarray(on_white(rgba)).convert("L"))


def gray_16(rgba, path, number):
    Image.fromarray(gray_of(rgba).astype(np.uint16) * 257).save(path)


def gray_32(rgba, path, number):
    Image.fromarray(gray_of(rgba).astype(np.int32) * 257).save(path)


def gray_float(scale: float):
    def save(rgba, path, number):
        Image.fromarray((gray_of(rgba) / 255 * scale).astype(np.float32)).save(path)

    return save


COLOUR = {
    "rgb png": (save_rgb, ".png", 1e-6),
    "rgb bmp": (save_rgb, ".bmp", 1e-6),
    "rgb tif": (save_rgb, ".tif", 1e-6),
    "upper-case suffix": (save_rgb, ".PNG", 1e-6),
    "jpeg": (converted("RGB", quality=95), ".jpg", 0.012),
    "progressive jpeg": (converted("RGB", quality=95, progressive=True), ".jpeg", 0.012),
    "jpeg with png's suffix": (converted("RGB", format="JPEG", quality=95), ".png", 0.012),
    "webp": (converted("RGB", quality=95), ".webp", 0.01),
    "webp with alpha": (rgba_file, ".webp", 0.012),
    "gif": (adaptive_palette, ".gif", 0.02),
    "palette": (adaptive_palette, ".png", 0.02),
    "palette with transparency": (transparent_palette, ".png", 0.02),
    "transparent colour": (colour_key, ".png", 0.02),
    "cmyk jpeg": (converted("CMYK", quality=95), ".jpg", 0.012),
    "cmyk tif": (converted("CMYK"), ".tif", 1e-6),
    "ycbcr tif": (converted("YCbCr"), ".tif", 0.01),
    "16 bit rgb png": (deep_rgb, ".png", 0.003),
    "rgba png": (rgba_file, ".png", 0.004),
    "rgba tif": (rgba_file, ".tif", 0.004),
    "one rgba among rgb": (one_rgba, ".png", 0.004),
}


@pytest.mark.parametrize(("save", "suffix", "tolerance"), COLOUR.values(), ids=COLOUR)
@pytest.mark.parametrize("factor", [1.0, 0.5])
def test_colours_are_those_of_the_scene_at_every_scale_factor(tmp_path, save, suffix, tolerance, factor):
    manager = datamanager(write_capture(tmp_path, save=save, suffix=suffix), camera_res_scale_factor=factor)
    if factor == 1.0:
        assert difference_from_base(manager) <= tolerance
    means = [float(manager.train_dataset.get_image_float32(i)[..., :3].mean()) for i in range(5)]
    full = datamanager(tmp_path).train_dataset
    if full.get_numpy_image(0).shape[-1] == 3:
        expected = [float(full.get_image_float32(i).mean()) for i in range(5)]
        assert np.abs(np.array(means) - expected).max() < 0.004
    assert manager.capture.background is not None and manager.capture.background.min() > 0.95


def test_transparency_without_a_uniform_border_gets_a_word(tmp_path, capsys):
    datamanager(write_capture(tmp_path, save=cut_at_the_border))
    assert "Transparent pixels are trained on as black" in " ".join(capsys.readouterr().out.split())


def opaque_noise(rgba, path, number):
    pixels = np.random.default_rng(number).integers(0, 255, rgba.shape, np.uint8)
    pixels[..., 3] = 255
    Image.fromarray(pixels).save(path)


def test_nothing_is_said_of_transparency_where_none_is(tmp_path, capsys):
    manager = datamanager(write_capture(tmp_path, save=opaque_noise))
    assert manager.capture.background is None and manager.train_dataset.get_numpy_image(0).shape[-1] == 4
    assert "Transparent" not in capsys.readouterr().out


def test_photos_of_fewer_bits_than_their_files_get_a_word(tmp_path, capsys):
    def of_12_bits(rgba, path, number):
        Image.fromarray(gray_of(rgba).astype(np.uint16) * 16).save(path)

    datamanager(write_capture(tmp_path, save=of_12_bits))
    said = " ".join(capsys.readouterr().out.split())
    assert "All training photos are dark: no value is above 16 of 255. If values of 10, 12 or 14 bits" in said


GRAY = {
    "gray png": (converted("L"), ".png", 1e-6),
    "gray and alpha": (converted("LA"), ".png", 1e-6),
    "gray jpeg": (converted("L", quality=95), ".jpg", 0.012),
    "16 bit gray png": (gray_16, ".png", 1e-6),
    "16 bit gray tif": (gray_16, ".tif", 1e-6),
    "32 bit gray tif": (gray_32, ".tif", 1e-6),
    "float tif up to 1": (gray_float(1), ".tif", 1e-6),
    "float tif up to 255": (gray_float(255), ".tif", 1e-6),
    "float tif up to 65535": (gray_float(65535), ".tif", 1e-6),
}


@pytest.mark.parametrize(("save", "suffix", "tolerance"), GRAY.values(), ids=GRAY)
def test_gray_photos_have_their_brightness(tmp_path, save, suffix, tolerance):
    for number, photo in enumerate(base_photos()):
        path = tmp_path / f"{number}{suffix}"
        save(photo, path, number)
        values = read_photo(path)
        assert np.abs(values[..., :3] / 255 - gray_of(photo)[..., None] / 255).mean() <= tolerance
        assert np.abs(load_photo(path).permute(1, 2, 0).numpy() - values[..., :3] / 255).max() < 1e-6, (
            "same in similarity"
        )


def test_1_bit_photos_are_black_and_white(tmp_path):
    converted("1")(base_photos()[0], tmp_path / "a.png", 0)
    assert set(np.unique(read_photo(tmp_path / "a.png"))) == {0, 255}


def test_one_gray_photo_among_colour_is_repeated_over_the_channels(tmp_path):
    manager = datamanager(write_capture(tmp_path, save=one_gray))
    assert np.array_equal(manager.train_dataset.get_numpy_image(3)[..., 1], gray_of(base_photos()[3]))


def with_orientation(orientation: int, transpose: Image.Transpose | None, size=(90, 120)):
    """Stored pixels that a viewer turns upright by the EXIF tag; the upright photo has this size."""

    def save(rgba, path, number):
        image = Image.fromarray(on_white(rgba)).resize(size)
        exif = Image.Exif()
        exif[0x0112] = orientation
        (image if transpose is None else image.transpose(transpose)).save(path, exif=exif)

    return save


def portrait_meta(width: int, height: int) -> dict:
    return base_meta() | {"w": width, "h": height, "cx": width / 2, "cy": height / 2}


@pytest.mark.parametrize(
    ("orientation", "stored_by"),
    [(6, Image.Transpose.ROTATE_90), (8, Image.Transpose.ROTATE_270), (5, Image.Transpose.TRANSPOSE),
     (7, Image.Transpose.TRANSVERSE)],
)  # fmt: skip
def test_photos_are_turned_upright_if_only_that_fits_their_cameras(tmp_path, orientation, stored_by):
    folder = write_capture(tmp_path, save=with_orientation(orientation, stored_by), meta=portrait_meta(90, 120))
    dataset = datamanager(folder).train_dataset
    upright = np.asarray(Image.fromarray(on_white(base_photos()[0])).resize((90, 120)))
    assert np.array_equal(dataset.get_numpy_image(0), upright)
    assert np.array_equal(read_photo(folder / "images" / "0.png"), upright), "without a camera it is upright"


def test_photos_stay_as_stored_if_that_fits_their_cameras(tmp_path):
    save = with_orientation(6, Image.Transpose.ROTATE_90)
    dataset = datamanager(write_capture(tmp_path, save=save, meta=portrait_meta(120, 90))).train_dataset
    assert dataset.get_numpy_image(0).shape[:2] == (90, 120)


@pytest.mark.parametrize(("orientation", "size"), [(1, (90, 120)), (3, (90, 120)), (6, (120, 90)), (8, (120, 90))])
def test_orientation_of_tiffs_counts_as_in_other_formats(tmp_path, orientation, size):
    """Pillow turns TIFFs by itself."""
    with_orientation(orientation, None, size=size)(base_photos()[0], tmp_path / "a.tif", 0)
    with_orientation(orientation, None, size=size)(base_photos()[0], tmp_path / "a.png", 0)
    assert photo_size(tmp_path / "a.tif") == photo_size(tmp_path / "a.png") == (90, 120)
    for given in (None, (90, 120), (120, 90)):
        assert np.array_equal(read_photo(tmp_path / "a.tif", given), read_photo(tmp_path / "a.png", given)), given
    stored = read_photo(tmp_path / "a.tif", size)
    assert np.array_equal(stored, np.asarray(Image.fromarray(on_white(base_photos()[0])).resize(size)))


@pytest.mark.parametrize("orientation", [2, 3, 4, 6])
def test_photos_whose_size_does_not_tell_stay_as_stored_with_a_warning(tmp_path, orientation, capsys):
    save = with_orientation(orientation, None, size=(100, 100))
    assert difference_from_base(datamanager(write_capture(tmp_path, save=save))) < 1e-6
    assert "Orientation: 0.png, 1.png, " in capsys.readouterr().out


@pytest.mark.parametrize("has_size", [True, False])
def test_photos_whose_size_does_not_tell_are_treated_as_the_others(tmp_path, has_size, capsys):
    """Photo 1 upside down, and the others on their side, as a phone turned over stores them."""
    on_their_side = with_orientation(6, Image.Transpose.ROTATE_90)
    upside_down = with_orientation(3, Image.Transpose.ROTATE_180)
    upright = [np.asarray(Image.fromarray(on_white(photo)).resize((90, 120))) for photo in base_photos()]

    def save(rgba, path, number):
        (upside_down if number == 1 else on_their_side)(rgba, path, number)

    meta = portrait_meta(90, 120)
    if not has_size:
        del meta["w"], meta["h"]
    dataset = datamanager(write_capture(tmp_path / "upright", save=save, meta=meta)).train_dataset
    images = {path.name: dataset.get_numpy_image(index) for index, path in enumerate(dataset.image_filenames)}
    assert np.array_equal(images["0.png"], upright[0]) and np.array_equal(images["1.png"], upright[1])

    stored = write_capture(tmp_path / "stored", save=on_their_side, meta=portrait_meta(120, 90))
    with_orientation(3, Image.Transpose.ROTATE_180, (120, 90))(base_photos()[1], stored / "images" / "1.png", 1)
    dataset = datamanager(stored).train_dataset
    images = {path.name: dataset.get_numpy_image(index) for index, path in enumerate(dataset.image_filenames)}
    as_stored = Image.fromarray(on_white(base_photos()[1])).resize((120, 90)).transpose(Image.Transpose.ROTATE_180)
    assert np.array_equal(images["1.png"], np.asarray(as_stored))
    assert "Orientation:" not in capsys.readouterr().out


def test_photos_to_evaluate_on_tell_about_the_training_photos(tmp_path, capsys):
    """The training photos upside down, and the others on their side."""
    on_their_side = with_orientation(6, Image.Transpose.ROTATE_90)
    upside_down = with_orientation(3, Image.Transpose.ROTATE_180)
    meta = portrait_meta(90, 120)
    names = [frame["file_path"] for frame in meta["frames"]]
    meta |= {"train_filenames": names[:2], "val_filenames": names[2:], "test_filenames": names[2:]}

    def save(rgba, path, number):
        (upside_down if number < 2 else on_their_side)(rgba, path, number)

    dataset = datamanager(write_capture(tmp_path, save=save, meta=meta)).train_dataset
    upright = np.asarray(Image.fromarray(on_white(base_photos()[1])).resize((90, 120)))
    assert np.array_equal(dataset.get_numpy_image(1), upright)
    assert "Orientation:" not in capsys.readouterr().out


def test_sizes_that_contradict_each_other_are_told(tmp_path, capsys):
    def save(rgba, path, number):
        size = {0: (90, 120), 1: (120, 90)}.get(number, (90, 120))
        with_orientation(3 if number > 1 else 6, None, size)(rgba, path, number)

    datamanager(write_capture(tmp_path, save=save, meta=portrait_meta(90, 120)))
    assert "Orientation: 2.png, 3.png, 4.png: EXIF says" in capsys.readouterr().out


def test_pngs_have_their_orientation_in_several_places(tmp_path):
    """As an old ImageMagick and as tools of Adobe write it."""
    exif = Image.Exif()
    exif[0x0112] = 3
    block = exif.tobytes()
    written = {
        "Raw profile type exif": f"\nexif\n{len(block):8}\n{block.hex()}\n",
        "XML:com.adobe.xmp": '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="3"/></x:xmpmeta>',
    }
    for place, text in written.items():
        info = PngInfo()
        info.add_itxt(place, text) if place.startswith("XML") else info.add_text(place, text)
        Image.new("RGB", (4, 6)).save(tmp_path / "a.png", pnginfo=info)
        with Image.open(tmp_path / "a.png") as image:
            assert image.getexif().get(0x0112) == 3, place
        assert orientations_of([(tmp_path / "a.png", (4, 6))]).untold == [tmp_path / "a.png"], place


def broken_exif(block: bytes):
    def save(rgba, path, number):
        Image.fromarray(on_white(rgba)).save(path, **({"exif": b"Exif\0\0" + block} if number == 2 else {}))

    return save


def truncated(rgba, path, number):
    save_rgb(rgba, path, number)
    if number == 2:
        path.write_bytes(path.read_bytes()[:900])


def content(data: bytes):
    def save(rgba, path, number):
        path.write_bytes(data) if number == 2 else save_rgb(rgba, path, number)

    return save


def of_size(*size):
    def save(rgba, path, number):
        image = Image.fromarray(on_white(rgba))
        (image.resize(size) if number == 2 else image).save(path)

    return save


def float_of(value: float):
    def save(rgba, path, number):
        values = np.full((100, 100), value, np.float32) if number == 2 else gray_of(rgba).astype(np.float32)
        Image.fromarray(values).save(path)

    return save


BROKEN = {
    "truncated": (truncated, ".png", "2.png: this image cannot be read"),
    "truncated jpeg": (truncated, ".jpg", "2.jpg: this image cannot be read"),
    "exif that is no exif": (broken_exif(b"XX*\0\x08\0\0\0"), ".png", "2.png: this image cannot be read"),
    "exif cut in its header": (broken_exif(b"II*\0\x08"), ".png", "2.png: this image cannot be read"),
    "exif of webp cut in its header": (broken_exif(b"MM\0*\0"), ".webp", "2.webp: this image cannot be read"),
    "exif with 64-bit addresses": (broken_exif(b"II+\0\x08\0\0\0"), ".webp", "2.webp: this image cannot be read"),
    "empty": (content(b""), ".png", "2.png: this image file is empty"),
    "git lfs": (content(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"), ".png", "`git lfs pull`"),
    "heic": (content(b"\0\0\0\x18ftypheic" + b"\0" * 64), ".png", "AVIF photo"),
    "html": (content(b"<html>404</html>"), ".jpg", "2.jpg: this is no image in a known format"),
    "missing": (lambda a, p, n: None if n == 2 else save_rgb(a, p, n), ".png", "2.png: there is no such file"),
    "folder": (lambda a, p, n: p.mkdir() if n == 2 else save_rgb(a, p, n), ".png", "2.png: this image cannot be read"),
    "half size": (of_size(50, 50), ".png", "2.png is 50x50 (width x height), but its camera is 100x100"),
    "other shape": (of_size(120, 90), ".png", "2.png is 120x90 (width x height), but its camera is 100x100"),
    "larger": (of_size(200, 200), ".png", "2.png is 200x200"),
    "float nan": (float_of(float("nan")), ".tif", "Convert it to 8 bits"),
    "float below 0": (float_of(-1), ".tif", "its values range from -1 to 0"),
    "float above 65535": (float_of(1e6), ".tif", "its values range from 0 to 1e+06"),
}


@pytest.mark.parametrize(("save", "suffix", "message"), BROKEN.values(), ids=BROKEN)
def test_photos_that_cannot_be_used_are_named_before_training(tmp_path, save, suffix, message):
    with pytest.raises(UserError) as error:
        datamanager(write_capture(tmp_path, save=save, suffix=suffix))
    assert message in str(error.value) and "\n" not in str(error.value)
    assert str(tmp_path) in str(error.value) and "dataparser" not in str(error.value)


def test_the_first_photo_is_named_too(tmp_path):
    """Dataparsers open it themselves."""
    folder = write_capture(tmp_path)
    (folder / "images" / "0.png").write_bytes(b"\0\0\0\x18ftypheic" + b"\0" * 64)
    with pytest.raises(UserError, match="0.png: .*HEIC (and|or) AVIF photo.* convert"):
        datamanager(folder)


@pytest.mark.parametrize(("save", "suffix", "message"), BROKEN.values(), ids=BROKEN)
def test_photos_to_evaluate_on_are_checked_before_training(tmp_path, save, suffix, message):
    meta = base_meta(suffix)
    names = [frame["file_path"] for frame in meta["frames"]]
    meta |= {"train_filenames": [*names[:2], *names[3:]], "val_filenames": names[2:3], "test_filenames": names[2:3]}
    with pytest.raises(UserError) as error:
        datamanager(write_capture(tmp_path, save=save, suffix=suffix, meta=meta))
    assert f"2{suffix}" in str(error.value) and message in str(error.value)


def test_all_photos_of_another_size_than_the_cameras(tmp_path):
    with pytest.raises(UserError, match=r"0.png is 50x50 \(width x height\), but its camera is 100x100"):
        datamanager(write_capture(tmp_path, save=lambda a, p, n: Image.fromarray(on_white(a)).resize((50, 50)).save(p)))


def test_photos_reduced_by_other_tools_may_differ_by_a_pixel(tmp_path):
    folder = write_capture(tmp_path)
    (folder / "images_8").mkdir()
    for path in (folder / "images").iterdir():
        Image.open(path).resize((13, 13)).save(folder / "images_8" / path.name)
    dataset = datamanager(folder, NerfstudioDataParserConfig(downscale_factor=8)).train_dataset
    assert dataset.get_numpy_image(0).shape[:2] == (12, 12) and int(dataset.cameras.width[0]) == 12


def test_a_scale_factor_that_leaves_no_pixel(tmp_path):
    with pytest.raises(UserError, match="--pipeline.datamanager.camera-res-scale-factor 0.001: no pixel"):
        datamanager(write_capture(tmp_path), camera_res_scale_factor=0.001)


@pytest.mark.parametrize("factor", [0.29, 0.57, 0.58, 2.0])
def test_photos_and_cameras_have_one_size_at_odd_factors(tmp_path, factor):
    dataset = datamanager(write_capture(tmp_path), camera_res_scale_factor=factor).train_dataset
    size = (int(dataset.cameras.height[0]), int(dataset.cameras.width[0]))
    assert dataset.get_numpy_image(0).shape[:2] == size
    original = dataset._dataparser_outputs.cameras
    for one, other, side in (("fx", "cx", "width"), ("fy", "cy", "height")):
        for name in (one, other):
            part = getattr(original, name)[0] / getattr(original, side)[0]
            assert torch.allclose(getattr(dataset.cameras, name)[0] / getattr(dataset.cameras, side)[0], part), name


def capture_of_several_sizes(folder, narrow):
    """The photos with these numbers are 60 pixels wide, the others 100."""
    meta = base_meta()
    for number, frame in enumerate(meta["frames"]):
        width = 60 if number in narrow else 100
        frame |= {"w": width, "h": 100, "cx": width / 2}
    for key in ("w", "h", "cx"):
        meta.pop(key)

    def save(rgba, path, number):
        image = Image.fromarray(on_white(rgba))
        (image.crop((20, 0, 80, 100)) if number in narrow else image).save(path)

    return write_capture(folder, save=save, meta=meta)


def test_photos_of_several_sizes_train(tmp_path):
    manager = datamanager(capture_of_several_sizes(tmp_path, {0, 2, 4}))
    rays, batch = manager.next_train(0)
    assert len(rays) == 64 and batch["image"].shape == (64, 3)


def test_photos_of_several_sizes_are_evaluated_beside_those_of_one(tmp_path):
    manager = datamanager(capture_of_several_sizes(tmp_path, {4}), view_indices=(0, 1, 2))
    assert len(manager.eval_dataset) == 2
    assert manager.next_train(0)[1]["image"].shape == manager.next_eval(0)[1]["image"].shape == (64, 3)


def test_patches_need_photos_of_one_size(tmp_path):
    with pytest.raises(UserError, match="patch-size 4: needs photos of one size; leave it out"):
        datamanager(capture_of_several_sizes(tmp_path, {4}), patch_size=4)


@pytest.mark.parametrize("name", ["ein bild.png", "фото.png", "[bold]1.png", "a%20b.png", "-x.png", "#1.png"])
def test_names_of_photos_are_taken_and_printed_as_they_are(tmp_path, name, capsys):
    meta = base_meta()
    meta["frames"][0]["file_path"] = f"images/{name}"
    folder = write_capture(tmp_path, meta=meta)
    (folder / "images" / "0.png").rename(folder / "images" / name)
    manager = datamanager(folder)
    assert difference_from_base_by_name(manager, name) < 1e-6
    assert name.replace(" ", "") in "".join(capsys.readouterr().out.split())


def difference_from_base_by_name(manager, name: str) -> float:
    index = [path.name for path in manager.train_dataset.image_filenames].index(name)
    return float(
        np.abs(manager.train_dataset.get_image_float32(index).numpy() - on_white(base_photos()[0]) / 255).mean()
    )


def test_the_transparent_shade_of_a_16_bit_gray_png_is_transparent(tmp_path):
    values = np.array([[1000, 30000], [30001, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / "gray.png", transparency=30000)
    photo = read_photo(tmp_path / "gray.png")
    assert photo[..., 3].tolist() == [[255, 0], [255, 255]]
    assert photo[..., 0].tolist() == [[4, 117], [117, 255]]
