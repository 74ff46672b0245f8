"""transforms.json as people and tools write it: the same cameras, or one line that names file, frame and remedy."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from nerfstudio.cameras.cameras import CameraType
from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig
from nerfstudio.data.dataparsers.colmap_dataparser import ColmapDataParserConfig
from nerfstudio.data.dataparsers.instant_ngp_dataparser import InstantNGPDataParserConfig
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from PIL import Image

from dietnerf_ns.geometry.cameras import surround_one_object
from dietnerf_ns.methods import TINY_SCENE
from dietnerf_ns.utils.errors import UserError
from tests.helpers.inputs import (
    Meta,
    base_meta,
    base_photos,
    cameras_agree,
    datamanager,
    difference_from_base,
    save_rgb,
    write_capture,
)


def each(change):
    """Change every frame."""

    def edit(meta: Meta) -> None:
        for frame in meta["frames"]:
            change(frame)

    return edit


def poses(change):
    """Change every pose, a 4x4 array."""
    return each(lambda frame: frame.update(transform_matrix=change(np.array(frame["transform_matrix"]))))


def pose_of_2(change):
    def edit(meta: Meta) -> None:
        frame = meta["frames"][2]
        frame["transform_matrix"] = change(np.array(frame["transform_matrix"]))

    return edit


def intrinsics_per_frame(meta: Meta) -> None:
    for key in ("w", "h", "fl_x", "fl_y", "cx", "cy"):
        value = meta.pop(key)
        each(lambda frame, key=key, value=value: frame.update({key: value}))(meta)


def without(*keys: str):
    return lambda meta: [meta.pop(key) for key in keys]


def angle_instead_of_focal_length(meta: Meta) -> None:
    meta["camera_angle_x"] = 2 * math.atan(50 / meta.pop("fl_x"))
    del meta["fl_y"]


def scaled(factor: float):
    def change(pose):
        pose[:3, :3] *= factor
        return pose.tolist()

    return change


def with_column(column: int, factor: float):
    def change(pose):
        pose[:3, column] *= factor
        return pose.tolist()

    return change


def moved(*offset: float):
    def change(pose):
        pose[:3, 3] += offset
        return pose.tolist()

    return change


SAME_CAMERAS = {
    "as it is": lambda meta: None,
    "3x4": poses(lambda pose: pose[:3].tolist()),
    "one 3x4": pose_of_2(lambda pose: pose[:3].tolist()),
    "flat 16": poses(lambda pose: pose.flatten().tolist()),
    "flat 12": poses(lambda pose: pose[:3].flatten().tolist()),
    "numbers as strings": poses(lambda pose: [[str(v) for v in row] for row in pose.tolist()]),
    "intrinsics as strings": lambda meta: meta.update(
        {k: str(meta[k]) for k in ("fl_x", "fl_y", "cx", "cy", "w", "h")}
    ),
    "w and h as floats": lambda meta: meta.update(w=100.0, h=100.0),
    "intrinsics in every frame": intrinsics_per_frame,
    "no w and h": without("w", "h"),
    "no cx and cy": without("cx", "cy"),
    "no fl_y": without("fl_y"),
    "no fl_x": without("fl_x"),
    "angle of view": angle_instead_of_focal_length,
    "null keys": lambda meta: meta.update(k1=None, ply_file_path=None, camera_model=None, train_filenames=None),
    "null in frames": each(lambda frame: frame.update(mask_path=None, depth_file_path=None, fl_x=None)),
    "backslashes": each(lambda frame: frame.update(file_path=frame["file_path"].replace("/", "\\"))),
    "leading ./": each(lambda frame: frame.update(file_path="./" + frame["file_path"])),
    "no suffix": each(lambda frame: frame.update(file_path=frame["file_path"].removesuffix(".png"))),
    "suffix of another type": each(lambda frame: frame.update(file_path=frame["file_path"].replace(".png", ".jpg"))),
    "photos that were HEIC": each(lambda frame: frame.update(file_path=frame["file_path"].replace(".png", ".HEIC"))),
    "photos that were raw": each(lambda frame: frame.update(file_path=frame["file_path"].replace(".png", ".CR2"))),
    "suffix in upper case": each(lambda frame: frame.update(file_path=frame["file_path"].replace(".png", ".PNG"))),
    "model of every frame": each(lambda frame: frame.update(camera_model="PINHOLE")),
    "model in lower case": lambda meta: meta.update(camera_model="opencv"),
    "distortion of a lens": lambda meta: meta.update(k1=-0.3, k2=0.1),
    "distortion of 0": lambda meta: meta.update(k1=0, k2=0, p1=0, p2=0, distortion_params=[0] * 6),
    "integers": lambda meta: meta.update(cx=50, cy=50),
    "keys of other tools": lambda meta: meta.update(aabb_scale=4, colmap={}, note="made by hand"),
}


@pytest.mark.parametrize("edit", SAME_CAMERAS.values(), ids=SAME_CAMERAS)
def test_what_is_meant_is_plain(tmp_path, edit):
    meta = base_meta()
    edit(meta)
    manager = datamanager(write_capture(tmp_path / "given", meta=meta))
    assert cameras_agree(manager, datamanager(write_capture(tmp_path / "base")))
    assert difference_from_base(manager) < 1e-6


def test_a_dot_in_a_name_begins_no_suffix(tmp_path):
    meta = base_meta()
    meta["frames"][1]["file_path"] = "images/1.0"
    write_capture(tmp_path, meta=meta)
    save_rgb(base_photos()[1], tmp_path / "images" / "1.0.png", 1)
    save_rgb(base_photos()[0], tmp_path / "images" / "1.png", 0)
    assert difference_from_base(datamanager(tmp_path)) < 1e-6


def test_a_stated_angle_of_view_may_be_wide(tmp_path):
    meta = base_meta() | {"camera_angle_x": 2.6}
    del meta["fl_x"], meta["fl_y"]
    cameras = datamanager(write_capture(tmp_path, meta=meta)).train_dataset.cameras
    assert 2 * math.atan(50 / float(cameras.fx[0])) == pytest.approx(2.6)
    meta |= {"fl_x": 7.0, "fl_y": 7.0, "camera_angle_x": 0.69}  # in millimetres beside an angle
    with pytest.raises(UserError, match="fl_x is 7 for w 100, a view of over 140 degrees"):
        datamanager(write_capture(tmp_path, meta=meta))


ENCODED = {
    "byte order mark": lambda text: b"\xef\xbb\xbf" + text.encode(),
    "utf-16": lambda text: text.encode("utf-16"),
    "dos lines": lambda text: json.dumps(json.loads(text), indent=1).replace("\n", "\r\n").encode(),
}


@pytest.mark.parametrize("encode", ENCODED.values(), ids=ENCODED)
def test_encodings_of_the_file(tmp_path, encode):
    write_capture(tmp_path)
    file = tmp_path / "transforms.json"
    file.write_bytes(encode(file.read_text()))
    assert difference_from_base(datamanager(tmp_path)) < 1e-6


def nan_in(pose):
    pose[0, 3] = float("nan")
    return pose.tolist()


def singular(pose):
    pose[:3, 1] = pose[:3, 0]
    return pose.tolist()


def sheared(pose):
    pose[:3, 1] = 0.8 * pose[:3, 1] + 0.6 * pose[:3, 0]
    return pose.tolist()


FRAME_2 = "transforms.json: frame images/2.png"
REFUSED = {
    "nan": (pose_of_2(nan_in), f"{FRAME_2}: transform_matrix has a number that is not finite"),
    "all zero": (pose_of_2(lambda p: (0 * p).tolist()), f"{FRAME_2}: transform_matrix must end with the row 0 0 0 1"),
    "zero rotation": (pose_of_2(scaled(0)), f"{FRAME_2}: transform_matrix has no rotation"),
    "singular": (pose_of_2(singular), f"{FRAME_2}: transform_matrix has no rotation"),
    "sheared": (pose_of_2(sheared), "first three columns are not perpendicular"),
    "stretched": (pose_of_2(with_column(2, 2)), "have the lengths 1, 1, 2"),
    "mirrored": (poses(with_column(0, -1)), "images/0.png: transform_matrix mirrors (determinant below 0)"),
    "transposed": (poses(lambda p: p.T.tolist()), "is transposed: its translation stands in the last row"),
    "2x2": (pose_of_2(lambda p: p[:2, :2].tolist()), f"{FRAME_2}: transform_matrix must be 4x4 or 3x4 or 16 or 12"),
    "ragged": (pose_of_2(lambda p: [[1, 2], [3]]), f"{FRAME_2}: transform_matrix must be 4x4"),
    "words": (pose_of_2(lambda p: "identity"), f"{FRAME_2}: transform_matrix must be 4x4"),
    "no pose": (lambda m: m["frames"][2].pop("transform_matrix"), f"{FRAME_2} has no `transform_matrix`"),
    "null pose": (pose_of_2(lambda p: None), f"{FRAME_2} has no `transform_matrix`"),
    "no file_path": (lambda m: m["frames"][2].pop("file_path"), "transforms.json: frame 2 has no `file_path`"),
    "number as file_path": (lambda m: m["frames"][2].update(file_path=3), "frame 2 has no `file_path`"),
    "frames missing": (without("frames"), "transforms.json: `frames` must be a list"),
    "no frames": (lambda m: m.update(frames=[]), "transforms.json: `frames` must be a list"),
    "frames as object": (lambda m: m.update(frames={"0": m["frames"][0]}), "`frames` must be a list"),
    "list as frame": (lambda m: m["frames"].append([1]), "transforms.json: frame 5 must be an object"),
    "focal length 0": (lambda m: m.update(fl_x=0), "transforms.json: fl_x is 0; it must be a finite number above 0"),
    "negative focal length": (lambda m: m.update(fl_y=-138), "fl_y is -138; it must be a finite number above 0"),
    "infinite focal length": (lambda m: m.update(fl_x=float("inf")), "fl_x is inf; it must be a finite number"),
    "nan as principal point": (lambda m: m.update(cx=float("nan")), "cx is nan; it must be a finite number"),
    "words as focal length": (lambda m: m.update(fl_x="wide"), "transforms.json: fl_x must be a number, not 'wide'"),
    "list as focal length": (lambda m: m.update(fl_x=[1, 2]), "fl_x must be a number, not [1, 2]"),
    "width 0": (lambda m: m.update(w=0), "w is 0; it must be a finite number above 0"),
    "focal length of a frame": (each(lambda f: f.update(fl_x=0)), "images/0.png: fl_x is 0"),
    "normalised": (lambda m: m.update(fl_x=1.39, fl_y=1.39, cx=0.5, cy=0.5), "Intrinsics must be in pixels"),
    "no focal length": (without("fl_x", "fl_y"), "images/0.png has no fl_x, the focal length in pixels"),
    "degrees": (lambda m: [m.update(camera_angle_x=40), m.pop("fl_x")], "camera_angle_x is 40; it must be in radians"),
    "unknown model": (lambda m: m.update(camera_model="FOO"), "camera_model FOO is not one of SIMPLE_PINHOLE"),
    "several models": (
        lambda m: [m["frames"][0].update(camera_model="OPENCV"), m["frames"][1].update(camera_model="OPENCV_FISHEYE")],
        "several camera models (OPENCV, OPENCV_FISHEYE)",
    ),
    "short distortion": (lambda m: m.update(distortion_params=[0.1]), "distortion_params must be 6 or 12 numbers"),
    "wild distortion": (lambda m: m.update(k1=-44.8, k2=1017.4), "moves the corner outwards by a factor of 2.1"),
    "folding distortion": (lambda m: m.update(k1=-9), "folds the image at 25% of the distance to its corner"),
    "word as distortion": (lambda m: m.update(k1="none"), "k1 must be a number"),
    "far away": (poses(moved(412345.678, 5312345.678, 120)), "Subtract the same offset"),
    "orientation": (lambda m: m.update(orientation_override="north"), "must be one of pca, up, vertical, none"),
    "applied_transform": (lambda m: m.update(applied_transform=[1]), "applied_transform must be 3x4 or 4x4"),
    "names as a word": (lambda m: m.update(train_filenames="all"), "train_filenames must be a list"),
    "unknown names": (lambda m: m.update(train_filenames=["images/9.png"]), "images/9.png"),
    "path with a null character": (lambda m: m["frames"][2].update(file_path="a\0b"), "must be the path of a file"),
    "path that is too long": (lambda m: m["frames"][2].update(file_path="a" * 5000), "is no path of a file"),
    "number that is too long": (lambda m: m.update(fl_x=10**400), "fl_x must be a number"),
    "missing photo": (lambda m: m["frames"][2].update(file_path="images/9.png"), "images/9.png"),
    "missing photos": (each(lambda f: f.update(file_path=f["file_path"].replace("images", "img"))), "img/0.png"),
}


@pytest.mark.parametrize(("edit", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_is_refused_in_one_line(tmp_path, edit, message):
    meta = base_meta()
    edit(meta)
    with pytest.raises(UserError) as error:
        datamanager(write_capture(tmp_path, meta=meta))
    assert message in str(error.value) and "\n" not in str(error.value)


TEXTS = {
    "comment": ('{\n// ours\n"frames": []}', "line 2, column 1"),
    "trailing comma": ('{"frames": [1,]}', "line 1, column 15"),
    "truncated": ('{"frames": [{"file_path": "a', "line 1"),
    "empty": ("", "line 1, column 1"),
    "a list": ("[]", "must contain an object with `frames`, not a list"),
    "deep": ("[" * 100_000, "no valid JSON"),
    "digits": ("[" + "1" * 5000 + "]", "no valid JSON"),
    "latin-1": (b'{"frames": "\xe4"}', "not text in UTF-8"),
}


@pytest.mark.parametrize(("text", "message"), TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize(
    ("parser", "file"),
    [
        (NerfstudioDataParserConfig(), "transforms.json"),
        (InstantNGPDataParserConfig(), "transforms.json"),
        (BlenderDataParserConfig(), "transforms_train.json"),
    ],
    ids=["nerfstudio-data", "instant-ngp-data", "blender-data"],
)
def test_no_json_is_refused_with_its_place(tmp_path, text, message, parser, file):
    (tmp_path / file).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError) as error:
        datamanager(tmp_path, parser)
    assert message in str(error.value) and str(tmp_path / file) in str(error.value)


WORDS = {
    "opencv axes": (poses(lambda p: (p * [1, -1, -1, 1]).tolist()), "negate the second and the third column"),
    "principal point": (lambda m: m.update(cx=0.5, cy=0.5), "cx, cy = 0.5, 0.5 is not inside the photo of 100x100"),
    "equal poses": (
        lambda m: m["frames"][1].update(transform_matrix=m["frames"][0]["transform_matrix"]),
        "2 photos have the same pose (0.png, 1.png)",
    ),
    "world to camera": (poses(lambda p: np.linalg.inv(p).tolist()), "World-to-camera matrices, which may look so"),
    "one pose": (
        lambda m: each(lambda f: f.update(transform_matrix=m["frames"][0]["transform_matrix"]))(m),
        "5 photos have the same pose",
    ),
}


@pytest.mark.parametrize(("edit", "word"), WORDS.values(), ids=WORDS)
def test_what_is_suspicious_gets_a_word(tmp_path, edit, word, capsys):
    meta = base_meta()
    edit(meta)
    datamanager(write_capture(tmp_path, meta=meta))
    assert word in " ".join(capsys.readouterr().out.split())


def test_world_to_camera_matrices_surround_nothing(tmp_path):
    meta = base_meta()
    poses(lambda pose: np.linalg.inv(pose).tolist())(meta)
    cameras = datamanager(write_capture(tmp_path, meta=meta)).train_dataset.cameras
    assert not surround_one_object(cameras)


def test_a_proper_capture_gets_no_word(tmp_path, capsys):
    datamanager(write_capture(tmp_path))
    said = " ".join(capsys.readouterr().out.split())
    assert said and not [word for word in ("same pose", "principal", "negate", "same photo") if word in said]


def test_what_instant_ngps_tools_call_a_fisheye_is_one(tmp_path):
    manager = datamanager(write_capture(tmp_path, meta=base_meta() | {"is_fisheye": True, "k1": 0.01}))
    assert set(manager.train_dataset.cameras.camera_type.flatten().tolist()) == {CameraType.FISHEYE.value}


@pytest.mark.parametrize("factor", [0.01, 1000])
def test_scaled_rotations_have_the_same_rays(tmp_path, factor):
    meta = base_meta()
    poses(scaled(factor))(meta)
    manager = datamanager(write_capture(tmp_path / "given", meta=meta))
    rays = manager.train_dataset.cameras.generate_rays(0)
    expected = datamanager(write_capture(tmp_path / "base")).train_dataset.cameras.generate_rays(0)
    assert (rays.directions - expected.directions).abs().max() < 1e-5


def blender(folder: Path, edit=lambda meta: None, *, suffix=".png") -> Path:
    """The shipped scene with five training photos."""
    (folder / "train").mkdir(parents=True)
    meta = json.loads((TINY_SCENE / "transforms_train.json").read_text())
    meta["frames"] = meta["frames"][:5]
    for photo, frame in zip(base_photos(), meta["frames"], strict=True):
        save_rgb(photo, folder / f"{frame['file_path']}{suffix}", 0)
    edit(meta)
    (folder / "transforms_train.json").write_text(json.dumps(meta))
    return folder


BLENDER = {
    "as it is": lambda meta: None,
    "with suffix": each(lambda frame: frame.update(file_path=frame["file_path"] + ".png")),
    "with ./": each(lambda frame: frame.update(file_path="./" + frame["file_path"].removeprefix("./"))),
    "backslashes": each(lambda frame: frame.update(file_path=frame["file_path"].replace("/", "\\"))),
    "3x4": poses(lambda pose: pose[:3].tolist()),
    "model of each frame": each(lambda frame: frame.update(camera_model="opencv")),
    "beside the folder": each(lambda frame: frame.update(file_path=f"train/../{frame['file_path']}")),
}


@pytest.mark.parametrize(
    ("intrinsics", "ignored"),
    [
        ({"k1": 0.1, "p2": 0}, "k1"),
        ({"w": 100, "h": 100, "cx": 40.0, "cy": 50.0}, "cx"),
        ({"w": 100, "fl_x": 70.0, "fl_y": 90.0}, "fl_x, fl_y"),
        ({"w": 100, "h": 100, "cx": 50.2, "cy": 50.0, "k1": 0.0}, ""),
        ({"distortion_params": [0.1, 0, 0, 0, 0, 0]}, "distortion_params"),
        ({"camera_model": "OPENCV_FISHEYE"}, "camera_model"),
        ({"is_fisheye": True}, "is_fisheye"),
        ({"camera_model": "OPENCV", "is_fisheye": False, "distortion_params": [0] * 6}, ""),
    ],
)
def test_blender_data_with_intrinsics_that_it_ignores(tmp_path, intrinsics, ignored, capsys):
    datamanager(blender(tmp_path, lambda meta: meta.update(intrinsics)), BlenderDataParserConfig())
    said = " ".join(capsys.readouterr().out.split())
    assert (f"blender-data ignores {ignored}: all its photos" in said) == bool(ignored)


def test_blender_data_with_an_angle_of_view_for_each_photo(tmp_path, capsys):
    datamanager(blender(tmp_path, each(lambda frame: frame.update(camera_angle_x=0.5))), BlenderDataParserConfig())
    assert "blender-data ignores camera_angle_x: all" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("edit", BLENDER.values(), ids=BLENDER)
def test_blender_data(tmp_path, edit):
    assert difference_from_base(datamanager(blender(tmp_path, edit), BlenderDataParserConfig())) < 1e-6


BLENDER_REFUSED = {
    "no angle": (without("camera_angle_x"), "has no camera_angle_x, which blender-data needs"),
    "degrees": (lambda m: m.update(camera_angle_x=39.6), "must be in radians"),
    "nan": (pose_of_2(nan_in), "transform_matrix has a number that is not finite"),
    "missing": (lambda m: m["frames"][0].update(file_path="train/none"), "train/none.png"),
}


@pytest.mark.parametrize(("edit", "message"), BLENDER_REFUSED.values(), ids=BLENDER_REFUSED)
def test_blender_data_that_cannot_be(tmp_path, edit, message):
    with pytest.raises(UserError) as error:
        datamanager(blender(tmp_path, edit), BlenderDataParserConfig())
    assert message in str(error.value)


def test_blender_data_of_other_files_than_png(tmp_path):
    add_suffix = each(lambda frame: frame.update(file_path=frame["file_path"] + ".jpg"))
    with pytest.raises(UserError, match="r_0.jpg is no PNG file, which blender-data needs"):
        datamanager(blender(tmp_path, add_suffix, suffix=".jpg"), BlenderDataParserConfig())


def test_png_files_in_capital_letters(tmp_path):
    add_suffix = each(lambda frame: frame.update(file_path=frame["file_path"] + ".PNG"))
    with pytest.raises(UserError, match="r_0.PNG: blender-data needs the suffix .png in small letters"):
        datamanager(blender(tmp_path, add_suffix, suffix=".PNG"), BlenderDataParserConfig())


def test_the_other_format_is_named(tmp_path):
    with pytest.raises(UserError, match="end with nerfstudio-data"):
        datamanager(write_capture(tmp_path / "one"), BlenderDataParserConfig())
    with pytest.raises(UserError, match="end with blender-data"):
        datamanager(blender(tmp_path / "two"), NerfstudioDataParserConfig())
    with pytest.raises(UserError, match=f"give --data {tmp_path}/one and end with nerfstudio-data"):
        datamanager(tmp_path / "one" / "images", NerfstudioDataParserConfig())


@pytest.mark.parametrize("parser", [NerfstudioDataParserConfig(), BlenderDataParserConfig()])
def test_photos_without_poses(tmp_path, parser):
    save_rgb(base_photos()[0], tmp_path / "1.jpg", 0)
    with pytest.raises(UserError, match="These are photos without poses: `dietnerf-poses` finds the poses."):
        datamanager(tmp_path, parser)


def test_instant_ngp_data_takes_fl_y(tmp_path):
    meta = base_meta()
    meta["fl_y"] = 2 * meta["fl_x"]
    cameras = datamanager(write_capture(tmp_path, meta=meta), InstantNGPDataParserConfig()).train_dataset.cameras
    assert float(cameras.fy[0] / cameras.fx[0]) == pytest.approx(2)


def test_what_a_frame_has_of_its_own_counts(tmp_path):
    meta = base_meta() | {"k1": 0.01, "k2": 0.02}
    meta["frames"][1] |= {"fl_x": 200.0, "cx": 40.0, "k1": 0.03}
    cameras = datamanager(write_capture(tmp_path, meta=meta)).train_dataset.cameras
    focal = base_meta()["fl_x"]
    assert np.allclose(cameras.fx[:, 0], [focal, 200, focal, focal, focal])
    assert cameras.cx[:, 0].tolist() == [50, 40, 50, 50, 50] and np.allclose(cameras.fy, focal)
    assert np.allclose(cameras.distortion_params[:, :2], [[0.03 if i == 1 else 0.01, 0.02] for i in range(5)])


LIST = [0.03, 0.02, 0, 0, 0, 0]


@pytest.mark.parametrize(
    ("top", "frame", "others"),
    [
        ({"k1": 0.01, "k2": 0.0}, {"distortion_params": LIST}, [0.01, 0]),
        ({"distortion_params": [0.01, 0.02, 0, 0, 0, 0]}, {"k1": 0.03}, [0.01, 0.02]),
        ({}, {"distortion_params": LIST}, [0, 0]),
    ],
)
def test_a_frame_s_own_distortion_counts_in_both_spellings(tmp_path, top, frame, others):
    meta = base_meta() | top
    meta["frames"][1] |= frame
    cameras = datamanager(write_capture(tmp_path, meta=meta)).train_dataset.cameras
    assert np.allclose(cameras.distortion_params[:, :2], [[0.03, 0.02] if i == 1 else others for i in range(5)])


def test_instant_ngp_data_has_the_lens_that_nerfstudio_data_has(tmp_path):
    lens = {"camera_model": "OPENCV_FISHEYE", "distortion_params": [0.01, 0.02, 0, 0, 0.003, 0]}
    capture = write_capture(tmp_path, meta=base_meta() | lens)
    taken, expected = (
        datamanager(capture, parser).train_dataset.cameras
        for parser in (InstantNGPDataParserConfig(), NerfstudioDataParserConfig())
    )
    assert taken.camera_type[0] == expected.camera_type[0] == CameraType.FISHEYE.value
    assert torch.equal(taken.distortion_params[0], expected.distortion_params[0])


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            lambda m: m.update(camera_model="EQUIRECTANGULAR"),
            "has no camera_model EQUIRECTANGULAR; end with nerfstudio",
        ),
        (lambda m: m["frames"][0].update(mask_path="images/0.png"), "1.png has no mask_path, and others do"),
    ],
)
def test_instant_ngp_data_that_cannot_be(tmp_path, edit, message):
    meta = base_meta()
    edit(meta)
    with pytest.raises(UserError, match=message):
        datamanager(write_capture(tmp_path, meta=meta), InstantNGPDataParserConfig())


def test_a_fisheye_s_circle_is_reduced_by_the_dataparser_s_factor(tmp_path):
    meta = base_meta() | {"camera_model": "OPENCV_FISHEYE", "fisheye_crop_radius": 48.0}
    folder = write_capture(tmp_path, meta=meta)
    for photo in (folder / "images").iterdir():
        (folder / "images_4").mkdir(exist_ok=True)
        Image.open(photo).resize((25, 25)).save(folder / "images_4" / photo.name)
    cameras = datamanager(folder, NerfstudioDataParserConfig(downscale_factor=4)).train_dataset.cameras
    assert int(cameras.width[0]) == 25 and cameras.metadata["fisheye_crop_radius"] == 12.0


def test_photos_of_one_name_in_different_folders_have_different_poses(tmp_path, capsys):
    meta = base_meta()
    folder = write_capture(tmp_path, meta=meta)
    (folder / "right").mkdir()
    (folder / meta["frames"][1]["file_path"]).rename(folder / "right" / "0.png")
    meta["frames"][1] |= {"file_path": "right/0.png", "transform_matrix": meta["frames"][0]["transform_matrix"]}
    (folder / "transforms.json").write_text(json.dumps(meta))
    datamanager(folder)
    assert "2 photos have the same pose (images/0.png, right/0.png)" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("place", "ending"), [("colmap/sparse/0", "colmap"), ("sparse/0", "colmap --colmap-path sparse/0")]
)
def test_a_colmap_model_is_named_with_its_place(tmp_path, place, ending):
    (tmp_path / place).mkdir(parents=True)
    with pytest.raises(UserError) as error:
        datamanager(tmp_path, NerfstudioDataParserConfig())
    assert str(error.value).endswith(f"There is {tmp_path / place}: give --data {tmp_path} and end with {ending}.")


def test_a_colmap_model_that_was_cut_off_is_refused_in_one_line(tmp_path):
    (tmp_path / "sparse").mkdir()
    for name in ("cameras", "images", "points3D"):
        (tmp_path / "sparse" / f"{name}.bin").write_bytes(b"\1\0\0")
    with pytest.raises(UserError, match="The dataparser cannot read"):
        datamanager(tmp_path, ColmapDataParserConfig(colmap_path=Path("sparse")))


def test_a_dataparser_that_asks_without_a_terminal_is_ended_in_one_line(tmp_path, monkeypatch):
    def ask(self, split, **kwargs):
        raise EOFError

    folder = write_capture(tmp_path)
    for parser, answer in [
        (NerfstudioDataParserConfig(), "convert the points .* end the command with nerfstudio-data --load-3D-points F"),
        (ColmapDataParserConfig(), "reduce the photos .* end the command with .* --downscale-factor 1"),
    ]:
        monkeypatch.setattr(parser._target, "_generate_dataparser_outputs", ask)
        with pytest.raises(UserError, match=answer):
            datamanager(folder, parser)


def test_instant_ngp_data_refuses_intrinsics_of_single_frames(tmp_path):
    meta = base_meta()
    meta["frames"][1]["fl_x"] = 200.0
    with pytest.raises(UserError, match="put nerfstudio-data at the end"):
        datamanager(write_capture(tmp_path, meta=meta), InstantNGPDataParserConfig())


def test_instant_ngp_data_without_intrinsics_at_the_top(tmp_path):
    meta = base_meta()
    intrinsics_per_frame(meta)
    with pytest.raises(UserError, match="put nerfstudio-data at the end"):
        datamanager(write_capture(tmp_path, meta=meta), InstantNGPDataParserConfig())


def with_a_wide_photo(tmp_path, meta):
    """The capture with photo 1 cut to its middle 60 rows."""
    folder = write_capture(tmp_path, meta=meta)
    with Image.open(folder / "images" / "1.png") as photo:
        cut = photo.crop((0, 20, 100, 80))
    cut.save(folder / "images" / "1.png")
    return folder


@pytest.mark.parametrize("sizes", ["of frames", "of photos"])
def test_the_principal_point_of_another_size_is_not_taken(tmp_path, sizes):
    meta = base_meta()
    if sizes == "of frames":
        meta["frames"][1] |= {"w": 100, "h": 60}
    else:
        del meta["w"], meta["h"]
    cameras = datamanager(with_a_wide_photo(tmp_path, meta)).train_dataset.cameras
    assert cameras.cy[:, 0].tolist() == [50, 30, 50, 50, 50] and cameras.cx[:, 0].tolist() == [50] * 5
    assert cameras.height[:, 0].tolist() == [100, 60, 100, 100, 100]


def test_a_principal_point_beside_the_middle_of_another_size_is_refused(tmp_path):
    meta = base_meta() | {"cy": 45.0}
    meta["frames"][1] |= {"w": 100, "h": 60}
    with pytest.raises(UserError, match=r"1\.png has h 60, and cy 45 at the top of the file is for h 100: give this"):
        datamanager(with_a_wide_photo(tmp_path, meta))


@pytest.mark.parametrize(("centre", "size"), [((50, 30), (100, 60)), ((30, 50), (60, 100)), (None, (60, 100))])
def test_the_principal_point_tells_which_of_two_sizes_is_meant(tmp_path, centre, size):
    """Photos of 100x60 stored pixels, which EXIF turns."""
    meta = base_meta(".jpg")
    for key in ("w", "h", "cx", "cy"):
        del meta[key]
    if centre is not None:
        meta |= {"cx": centre[0], "cy": centre[1]}

    def turned(rgba, path, number):
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.fromarray(rgba[20:80, :, :3]).save(path, exif=exif)

    cameras = datamanager(write_capture(tmp_path, save=turned, suffix=".jpg", meta=meta)).train_dataset.cameras
    assert (int(cameras.width[0]), int(cameras.height[0])) == size
    assert (float(cameras.cx[0]), float(cameras.cy[0])) == (size[0] / 2, size[1] / 2)


def test_instant_ngp_data_with_normalised_focal_lengths_and_no_size(tmp_path):
    meta = base_meta() | {"fl_x": 1.4, "fl_y": 1.4, "cx": 0.5, "cy": 0.5}
    del meta["w"], meta["h"]
    with pytest.raises(UserError, match="Intrinsics must be in pixels"):
        datamanager(write_capture(tmp_path, meta=meta), InstantNGPDataParserConfig())


def test_cameras_whose_up_axes_cancel_out(tmp_path):
    meta = base_meta()
    meta["frames"] = meta["frames"][:4]
    for number, frame in enumerate(meta["frames"]):
        x, y = [(1, 0), (0, 1), (-1, 0), (0, -1)][number]
        frame["transform_matrix"] = [[x, -y, 0, 2 * x], [y, x, 0, 2 * y], [0, 0, 1, 4], [0, 0, 0, 1]]
    folder = write_capture(tmp_path, meta=meta)
    with pytest.raises(UserError, match="up axes cancel out.*--orientation-method none at the end"):
        datamanager(folder)
    cameras = datamanager(folder, NerfstudioDataParserConfig(orientation_method="none")).train_dataset.cameras
    assert len(cameras) == 4 and bool(cameras.camera_to_worlds.isfinite().all())


def test_names_whose_accents_are_written_in_another_way(tmp_path):
    meta = base_meta()
    folder = write_capture(tmp_path, meta=meta)
    (folder / "images" / "1.png").rename(folder / "images" / "cafe\u0301.png")
    meta["frames"][1]["file_path"] = "images/caf\u00e9.png"
    (folder / "transforms.json").write_text(json.dumps(meta))
    names = [path.name for path in datamanager(folder).train_dataset.image_filenames]
    assert sorted(names) == ["0.png", "2.png", "3.png", "4.png", "cafe\u0301.png"]
