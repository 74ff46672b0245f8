"""dietnerf-poses as a user types it, on photos with known poses and on inputs that cannot work."""

import json
import re
import shutil

import numpy as np
import pytest
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from PIL import Image

from dietnerf_ns.data.photos import photo_size
from dietnerf_ns.geometry.alignment import cameras_extent, pose_errors
from dietnerf_ns.poses.make import _mask_of
from dietnerf_ns.poses.photos import Lens, Photo
from tests.helpers.commands import in_this_process
from tests.helpers.corner import corner_photos
from tests.helpers.scenes import shared_scene
from tools.measure_poses import poses_in


def run(*arguments, cwd, check=True):
    return in_this_process("dietnerf-poses", *arguments, cwd=cwd, check=check)


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    folder = tmp_path_factory.mktemp("poses")
    known = corner_photos(folder / "photos", 4)
    shutil.copy(folder / "photos" / "1.jpg", folder / "photos" / "copy of 1.jpg")
    (folder / "photos" / "broken.jpg").write_bytes(b"no photo")
    output = run("photos", "--output", "scene", "--size", 256, cwd=folder).stdout
    return folder / "scene", known, output


@pytest.mark.slow
def test_poses_and_focal_length_are_found(scene):
    folder, known, output = scene
    found = poses_in(folder)
    assert found.keys() == known.keys()
    angle, distance = pose_errors(found, known)
    assert angle < 0.2 and distance < 0.01 * cameras_extent(known.values())
    meta = json.loads((folder / "transforms.json").read_text())
    assert meta["fl_x"] == pytest.approx(240, rel=0.02) and (meta["w"], meta["h"]) == (256, 192)
    assert "Posed 4 of 4 photos" in output


@pytest.mark.slow
def test_what_is_left_out_is_said(scene):
    _, _, output = scene
    assert "Left out: copy_of_1.jpg: the same photo as 1.jpg." in output
    assert "broken.jpg: this is no image in a known format" in output


@pytest.mark.slow
def test_nerfstudio_reads_the_scene_at_every_size(scene):
    folder, _, _ = scene
    for factor in (1, 2):
        config = NerfstudioDataParserConfig(data=folder, downscale_factor=factor, eval_mode="all", load_3D_points=True)
        outputs = config.setup().get_dataparser_outputs("train")
        camera = outputs.cameras[0]
        assert (int(camera.width), int(camera.height)) == (256 // factor, 192 // factor)
        assert photo_size(outputs.image_filenames[0]) == (256 // factor, 192 // factor)
    assert len(outputs.metadata["points3D_xyz"]) > 500
    assert photo_size(folder / "poses.png")[0] == 1600
    numbers = json.loads((folder / "poses.json").read_text())
    assert all(photo["reprojection_error"] < 0.5 for photo in numbers["posed"].values())


@pytest.mark.slow
def test_the_scene_has_z_up_and_the_first_camera_in_front(scene):
    folder, _, _ = scene
    poses = poses_in(folder)
    assert np.abs([pose[2, 0] for pose in poses.values()]).max() < 0.01  # level horizons
    assert poses["0.jpg"][1, 3] < 0 and abs(poses["0.jpg"][0, 3]) < 1e-3
    distances = [np.linalg.norm(pose[:, 3]) for pose in poses.values()]
    assert np.mean(distances) == pytest.approx(1)


@pytest.mark.slow
def test_masks_cut_out_and_an_older_scene_is_replaced(scene, tmp_path):
    folder, known, _ = scene
    shutil.copytree(folder.parent / "photos", tmp_path / "photos", ignore=shutil.ignore_patterns("*o*"))
    shutil.copytree(folder, tmp_path / "scene")
    mask = np.zeros((240, 320), np.uint8)
    mask[:, :160] = 255
    (tmp_path / "masks").mkdir()
    for name in known:
        Image.fromarray(mask).save(tmp_path / "masks" / name.replace("jpg", "png"))
    run("photos", "--output", "scene", "--masks", "masks", "--cutout", "--size", 160, cwd=tmp_path)
    assert sorted(path.name for path in (tmp_path / "scene" / "images").iterdir()) == [f"{i}.png" for i in range(4)]
    alpha = np.asarray(Image.open(tmp_path / "scene" / "images" / "0.png"))[..., 3]
    assert (alpha[:, :79] == 255).all() and (alpha[:, 81:] == 0).all()


@pytest.mark.slow
def test_photos_without_overlap_end_in_one_line_and_leave_nothing(tmp_path):
    (tmp_path / "photos").mkdir()
    for seed in range(3):
        noise = np.random.default_rng(seed).integers(0, 255, (120, 160, 3), np.uint8)
        Image.fromarray(noise).resize((320, 240)).save(tmp_path / "photos" / f"{seed}.png")
    result = run("photos", "--output", "scene", cwd=tmp_path, check=False)
    assert result.returncode == 1
    # The second message with learned matches, if their package is installed.
    assert re.search("No two of the 3 photos show the same points|Fewer than 3 of the 3 photos could be", result.stdout)
    assert "Photograph with more overlap" in result.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def test_masks_are_found_by_names_with_spaces(tmp_path):
    Image.new("L", (4, 3), 255).save(tmp_path / "my photo #1.png")
    mask = _mask_of(Photo("my_photo_1.jpg", (8, 6), Lens("", None)), tmp_path)
    assert mask.shape == (6, 8) and mask.all()


def two_photos(folder):
    corner_photos(folder / "photos", 2)


def equal_photos(folder):
    corner_photos(folder / "photos", 1)
    for name in ("1.jpg", "2.jpg"):
        shutil.copy(folder / "photos" / "0.jpg", folder / "photos" / name)


def no_photos(folder):
    (folder / "photos").mkdir()


def other_files_in_output(folder):
    corner_photos(folder / "photos", 3)
    (folder / "scene").mkdir()
    (folder / "scene" / "thesis.tex").touch()


def output_is_a_file(folder):
    corner_photos(folder / "photos", 3)
    (folder / "scene").touch()


@pytest.mark.parametrize(
    ("prepare", "arguments", "message"),
    [
        (two_photos, [], "photos: there are 2 different photos; at least 3 are needed to find poses."),
        (equal_photos, [], "photos: all photos are the same: take them from different places."),
        (no_photos, [], "photos: there are no photos in this folder"),
        (other_files_in_output, [], "--output scene: holds other files; name a new or empty folder."),
        (output_is_a_file, [], "--output scene: is a file; name a new folder."),
        (two_photos, ["--masks", "nowhere"], "--masks nowhere: there is no such folder."),
        (two_photos, ["--size", 10], "--size 10: must be at least 64 pixels."),
        (two_photos, ["--frames", 2], "--frames 2: must be at least 3."),
        (two_photos, ["--masks", "photos/.."], "--masks photos/..: there is no mask of 0.jpg"),
    ],
)
def test_inputs_that_cannot_work_get_one_line(tmp_path, prepare, arguments, message):
    prepare(tmp_path)
    before = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*"))
    result = run("photos", "--output", "scene", *arguments, cwd=tmp_path, check=False)
    assert result.returncode == 1 and message in result.stdout.replace("\n", " ")
    assert "Traceback" not in result.stdout
    assert sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*")) == before


def test_the_folder_of_the_photos_is_no_output(tmp_path):
    corner_photos(tmp_path / "photos", 3)
    result = run("photos", "--output", "photos", cwd=tmp_path, check=False)
    assert result.returncode == 1 and "--output photos: holds the photos; name a new folder." in result.stdout


@pytest.mark.slow
def test_six_photos_of_fern_have_the_known_poses(tmp_path):
    source = shared_scene("fern")
    frames = json.loads((source / "transforms.json").read_text())["frames"][::3][:6]
    (tmp_path / "photos").mkdir()
    for frame in frames:
        shutil.copy(source / frame["file_path"], tmp_path / "photos")
    run("photos", "--output", "scene", cwd=tmp_path)
    known = {frame["file_path"].split("/")[-1]: np.array(frame["transform_matrix"])[:3] for frame in frames}
    angle, distance = pose_errors(poses_in(tmp_path / "scene"), known)
    assert angle < 0.5 and distance < 0.02 * cameras_extent(known.values())
