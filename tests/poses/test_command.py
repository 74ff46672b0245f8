"""dietnerf-poses as a user types it, on photos with known poses and on inputs that cannot work."""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from types import ModuleType

import numpy as np
import pytest
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from PIL import Image

from dietnerf_ns.data.photos import photo_size
from dietnerf_ns.geometry.alignment import cameras_extent, pose_errors
from dietnerf_ns.poses import make
from dietnerf_ns.poses.cutout import Network
from dietnerf_ns.poses.mapping import Attempt
from dietnerf_ns.poses.matching import Matches
from dietnerf_ns.poses.photos import Lens, Photo
from dietnerf_ns.poses.scene import in_world_frame
from dietnerf_ns.utils.errors import UserError
from tests.helpers.cameras import ring_of_poses
from tests.helpers.commands import in_this_process
from tests.helpers.corner import corner_photos
from tests.helpers.full_disk import files_of_at_most
from tests.helpers.scenes import shared_scene
from tests.poses.test_scene import model_with
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


REMBG = """
import numpy as np

def new_session(name):
    return None

def remove(photo, *, session, only_mask, post_process_mask):
    print("cut out")
    return np.tri(photo.height, photo.width, dtype=np.uint8) * 255
"""
"""Stands in for the package, which is not installed with the tests' extras: the lower left half is the object."""


@pytest.mark.slow
def test_a_network_cuts_out_the_photos_whose_alpha_says_nothing(scene, tmp_path, monkeypatch):
    package = ModuleType("rembg")
    exec(REMBG, vars(package))
    monkeypatch.setitem(sys.modules, "rembg", package)
    (tmp_path / "photos").mkdir()
    for number, alpha in enumerate([None, 255, 255, 0]):  # of the right half
        pixels = np.asarray(Image.open(scene[0].parent / "photos" / f"{number}.jpg"))
        if alpha is not None:
            opaque = np.full((240, 320, 1), 200 if alpha == 0 else 255, np.uint8)
            opaque[:, 160:] = alpha
            pixels = np.concatenate([pixels, opaque], axis=-1)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{number}.png")
    said = run("photos", "--output", "scene", "--cutout", "--size", 320, cwd=tmp_path).stdout
    alphas = [np.asarray(Image.open(tmp_path / "scene" / "images" / f"{n}.png"))[..., 3] for n in range(4)]
    assert said.count("cut out") == 3
    assert all((alpha == np.tri(240, 320, dtype=np.uint8) * 255).all() for alpha in alphas[:3])
    assert (alphas[3][:, :160] == 200).all() and (alphas[3][:, 160:] == 0).all(), "transparency stays as it is"


REMBG_WITHOUT_NETWORK = """
def new_session(name):
    raise OSError("no network")
"""
WITHOUT_NETWORK = "--cutout: the weights of rembg could not be loaded (OSError)."


def not_posed(*_, **__):
    raise UserError("Posing.")


@pytest.mark.parametrize(
    ("alpha", "is_said", "is_read"),
    [(None, True, False), (255, True, True), (0, False, True)],
    ids=["no alpha", "opaque alpha", "transparent"],
)
def test_weights_that_cannot_be_had_end_the_command_before_the_work(tmp_path, monkeypatch, alpha, is_said, is_read):
    package = ModuleType("rembg")
    exec(REMBG_WITHOUT_NETWORK, vars(package))
    monkeypatch.setitem(sys.modules, "rembg", package)
    monkeypatch.setattr(make, "find_poses", not_posed)
    corner_photos(tmp_path / "photos", 3)
    if alpha is not None:
        for path in (tmp_path / "photos").iterdir():
            photo = Image.open(path).convert("RGBA")
            photo.putalpha(alpha)
            photo.save(path.with_suffix(".png"))
            path.unlink()
    result = run("photos", "--output", "scene", "--cutout", cwd=tmp_path, check=False)
    assert result.returncode == 1 and ("Reading photos" in result.stdout) == is_read
    assert (WITHOUT_NETWORK if is_said else "Posing.") in result.stdout.splitlines()[-1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_a_signal_leaves_no_copies_of_the_photos(tmp_path, monkeypatch, number):
    def ended(*_, **__):
        assert any((tmp_path / "temporary").iterdir())
        os.kill(os.getpid(), number)

    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.setattr(make, "find_poses", ended)
    corner_photos(tmp_path / "photos", 3)
    result = run("photos", "--output", "scene", cwd=tmp_path, check=False)
    assert result.returncode == 1 and result.stdout.splitlines()[-1] == "Interrupted. Nothing was written."
    assert not any((tmp_path / "temporary").iterdir()) and not (tmp_path / "scene").exists()


SIGTERM_AFTER_PYCOLMAP = """
import os, signal, sys, types

class Make(types.ModuleType):
    def __getattr__(self, name):
        if name != "make_scene":
            raise AttributeError(name)
        import pycolmap
        return lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM)

sys.modules["dietnerf_ns.poses.make"] = Make("make")
sys.argv = ["dietnerf-poses", "photos", "--output", "scene"]
from dietnerf_ns.commands.poses import main
main()
"""
"""The command with nothing but the import of pycolmap, which takes SIGTERM over."""


def test_sigterm_is_one_line_although_pycolmap_takes_it_over(tmp_path):
    command = [sys.executable, "-c", SIGTERM_AFTER_PYCOLMAP]
    ended = subprocess.run(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (128 + signal.SIGTERM, "Interrupted. Nothing was written.\n")


def test_ctrl_c_in_the_report_says_that_the_scene_is_written(tmp_path, monkeypatch):
    def write_and_be_interrupted(_source, output, **_):
        output.mkdir()
        raise KeyboardInterrupt

    monkeypatch.setattr(make, "make_scene", write_and_be_interrupted)
    result = run("photos", "--output", "scene", cwd=tmp_path, check=False)
    assert result.returncode == 1 and result.stdout.splitlines()[-1] == "Interrupted. scene was already written."


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


def test_masks_do_not_uncover_what_is_transparent_in_photos(tmp_path):
    for folder in ("photos", "masks", "images"):
        (tmp_path / folder).mkdir()
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (30, 40, 4), np.uint8)
        pixels[..., 3] = 255 * (np.arange(40) >= 20)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{number}.png")
        Image.new("L", (40, 30), 255).save(tmp_path / "masks" / f"{number}.png")
    folders = tmp_path / "photos", tmp_path / "images"
    _, foregrounds = make._collect(*folders, frames=1, longest=100, masks=tmp_path / "masks")
    assert len(foregrounds) == 3
    for foreground in foregrounds.values():
        assert not foreground[:, :20].any() and foreground[:, 20:].all()


def test_a_mask_that_is_black_everywhere_is_named(tmp_path):
    for folder in ("photos", "masks", "images"):
        (tmp_path / folder).mkdir()
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (30, 40, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{number}.png")
        Image.new("L", (40, 30), 255 * (number != 1)).save(tmp_path / "masks" / f"{number}.png")
    folders = tmp_path / "photos", tmp_path / "images"
    with pytest.raises(UserError, match=r"the mask of 1\.png is black everywhere"):
        make._collect(*folders, frames=1, longest=100, masks=tmp_path / "masks")


def test_photos_in_which_nothing_is_found_to_cut_out_are_named(tmp_path, capsys, monkeypatch):
    found = {"a.jpg": np.ones((3, 4), bool), "b.jpg": np.zeros((3, 4), bool)}
    network = Network()
    monkeypatch.setattr(network, "foregrounds", lambda *_: found)
    assert make._cut_out(network, tmp_path, list(found)) == found
    assert "no object was found in b.jpg: transparent" in " ".join(capsys.readouterr().out.split())


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


def masks_in_output(folder):
    corner_photos(folder / "photos", 3)
    for name in ("my_masks/0.png", "masks/0.png", "poses.json"):
        (folder / "scene" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "scene" / name).touch()


def data_set_with_poses_json(folder):
    other_files_in_output(folder)
    (folder / "scene" / "poses.json").touch()


def scene_of_another_program(folder):
    corner_photos(folder / "photos", 3)
    (folder / "scene" / "images").mkdir(parents=True)
    (folder / "scene" / "transforms.json").touch()


HASH_OF_BRACES = hashlib.sha256(b"{}").hexdigest()[:16]


def scene_with_masks_that_were_drawn(folder):
    corner_photos(folder / "photos", 3)
    (folder / "scene" / "masks").mkdir(parents=True)
    (folder / "scene" / "transforms.json").write_text("{}")
    (folder / "scene" / "masks" / "0.png").touch()
    (folder / "scene" / "poses.json").write_text(json.dumps({"files": {"transforms.json": HASH_OF_BRACES}}))


def scene_that_was_edited(folder):
    scene_with_masks_that_were_drawn(folder)
    files = {"transforms.json": "0" * 16, "masks/0.png": hashlib.sha256().hexdigest()[:16]}
    (folder / "scene" / "poses.json").write_text(json.dumps({"files": files}))


def scene_without_its_numbers(folder):
    scene_with_masks_that_were_drawn(folder)
    (folder / "scene" / "poses.json").write_text("")


def masks_of_another_shape(folder):
    corner_photos(folder / "photos", 3)
    (folder / "masks").mkdir()
    for number in range(3):
        Image.new("L", (100, 100), 255).save(folder / "masks" / f"{number}.png")


def output_is_a_file(folder):
    corner_photos(folder / "photos", 3)
    (folder / "scene").touch()


NAME_ANOTHER = "name a new or empty folder."


@pytest.mark.parametrize(
    ("prepare", "arguments", "message"),
    [
        (two_photos, [], "photos: there are 2 different photos; at least 3 are needed to find poses."),
        (equal_photos, [], "photos: all photos are the same: take them from different places."),
        (no_photos, [], "photos: there are no photos in this folder"),
        (other_files_in_output, [], f"--output scene: holds other files, such as thesis.tex; {NAME_ANOTHER}"),
        (data_set_with_poses_json, [], f"--output scene: holds other files, such as thesis.tex; {NAME_ANOTHER}"),
        (scene_of_another_program, [], f"--output scene: holds other files, such as images; {NAME_ANOTHER}"),
        (masks_in_output, ["--masks", "scene/my_masks"], "--output scene: holds the masks; name a new folder."),
        (masks_in_output, ["--masks", "scene/masks"], "--output scene: holds the masks; name a new folder."),
        (masks_in_output, [], f"--output scene: holds other files, such as my_masks; {NAME_ANOTHER}"),
        (scene_with_masks_that_were_drawn, [], "--output scene: masks/0.png was added or changed after this scene"),
        (scene_that_was_edited, [], "--output scene: transforms.json was added or changed after this scene"),
        (scene_without_its_numbers, [], "--output scene: poses.json was added or changed after this scene"),
        (
            two_photos,
            ["--masks", "photos"],
            "--masks photos: holds the photos themselves; name the masks' folder.",
        ),
        (
            masks_of_another_shape,
            ["--masks", "masks"],
            "--masks masks: 0.png is 100x100 (width x height), which is not the shape of 0.jpg (320x240)",
        ),
        (output_is_a_file, [], "--output scene: is a file; name a new folder."),
        (two_photos, ["--masks", "nowhere"], "--masks nowhere: there is no such folder."),
        (two_photos, ["--size", 10], "--size 10: must be at least 64 pixels."),
        (two_photos, ["--frames", 2], "--frames 2: must be at least 3."),
        (two_photos, ["--seed", -1], "--seed -1: must be from 0 to 2147483647."),
        (two_photos, ["--seed", 2**31], "--seed 2147483648: must be from 0 to 2147483647."),
        (two_photos, ["--output", "o" * 300], "oo: cannot be read or written: File name too long."),
        (two_photos, ["--masks", "o" * 300], "oo: cannot be read or written: File name too long."),
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


def test_a_full_disk_for_temporary_files_ends_in_one_line(tmp_path):
    corner_photos(tmp_path / "photos", 3)
    for path in (tmp_path / "photos").iterdir():  # Pillow checks what it writes into a PNG file
        Image.open(path).convert("RGBA").save(path.with_suffix(".png"))
        path.unlink()
    with files_of_at_most(1000):
        result = run("photos", "--output", "scene", cwd=tmp_path, check=False)
    assert result.returncode == 1 and "Traceback" not in result.stdout
    assert re.search("Temporary files in .* TMPDIR .*: cannot be written: File too large.$", result.stdout.strip())
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def test_a_file_that_cannot_be_read_is_not_taken_for_a_temporary_one():
    with pytest.raises(UserError, match=r"^photos/1\.jpg: cannot be read: Permission denied\.$"):
        with make._temporary_folder():
            raise PermissionError(13, "Permission denied", "photos/1.jpg")
    with pytest.raises(UserError, match=r"^Temporary files in .* cannot be written: No space left on device\.$"):
        with make._temporary_folder() as work:
            raise OSError(28, "No space left on device", str(work / "images" / "1.jpg"))


def test_poses_are_not_looked_for_without_space_for_features(tmp_path, monkeypatch):
    corner_photos(tmp_path / "photos", 3)
    monkeypatch.setattr(make, "BYTES_PER_PHOTO", 10**18)
    result = run("photos", "--output", "scene", cwd=tmp_path, check=False)
    assert result.returncode == 1 and "Finding features" not in result.stdout
    assert re.search("MB are free, and 3000000000000 MB may be needed: ", result.stdout.splitlines()[-1])


def test_a_full_disk_for_the_scene_ends_in_one_line_and_leaves_nothing(tmp_path):
    model = model_with(ring_of_poses(3))
    names = sorted(image.name for image in model.images.values())
    (tmp_path / "images").mkdir()
    for name in names:
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (96, 128, 3), np.uint8)).save(
            tmp_path / "images" / name, format="PNG"
        )
    photos = [Photo(name, (128, 96), Lens("", None)) for name in names]
    matches = Matches(tmp_path / "database", photos, np.zeros((3, 3), int))
    found = make.Found(matches, Attempt("", model), in_world_frame(model), [])
    with files_of_at_most(1000), pytest.raises(UserError) as error:
        make._write(tmp_path / "scene", found, tmp_path / "images", longest=128, masks={}, cut_out=False)
    assert str(error.value) == f"--output {tmp_path / 'scene'}: cannot be written: File too large."
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


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
