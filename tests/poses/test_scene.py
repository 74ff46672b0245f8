"""The world frame of a scene, and what is said about where its photos were taken."""

import json

import numpy as np
import pycolmap
import pytest
import torch
from nerfstudio.data.utils.data_utils import get_image_mask_tensor_from_path
from PIL import Image

from dietnerf_ns.poses import make
from dietnerf_ns.poses.matching import Matches
from dietnerf_ns.poses.photos import Lens, Photo
from dietnerf_ns.poses.report import advice, draw_report
from dietnerf_ns.poses.scene import PosedPhotos, _write_copies, camera_to_world, in_world_frame, write_scene
from dietnerf_ns.utils.errors import UserError
from dietnerf_ns.utils.files import hashes_of_files
from tests.helpers.cameras import arc_of_poses, ring_of_poses


def model_with(poses):
    """A model with one point in front of each of the given cameras, in a world of another scale, place and rotation."""
    options = pycolmap.SyntheticDatasetOptions()
    options.num_rigs, options.num_cameras_per_rig, options.num_frames_per_rig, options.num_points3D = (
        1,
        1,
        len(poses),
        50,
    )
    pycolmap.set_random_seed(0)
    model = pycolmap.synthesize_dataset(options)
    images = sorted(model.images.values(), key=lambda image: image.name)
    for image, pose in zip(images, poses.double().numpy(), strict=True):
        to_world = np.vstack([pose, [0, 0, 0, 1]]) @ np.diag([1.0, -1, -1, 1])
        image.frame.rig_from_world = pycolmap.Rigid3d(np.linalg.inv(to_world)[:3])
    model.transform(pycolmap.Sim3d(7, pycolmap.Rotation3d(np.array([0.4, -1, 0.3])), np.array([3, -5, 2])))
    return model


def distances_to_the_first(model):
    """Of the other points, as a measure of the world's scale."""
    points = np.stack([model.points3D[key].xyz for key in sorted(model.points3D)])
    return np.linalg.norm(points[1:] - points[0], axis=1)


@pytest.mark.parametrize("elevation", [0.0, 35.0])
def test_z_is_up_the_first_camera_in_front_and_the_cameras_look_at_the_origin(elevation):
    model = model_with(ring_of_poses(6, center=(1.0, 2.0, 3.0), elevation=elevation, radius=4))
    before = distances_to_the_first(model)
    posed = in_world_frame(model)
    poses = posed.camera_to_worlds
    assert posed.names == sorted(posed.names) and len(posed.names) == 6
    assert poses[0, 0, 3].abs() < 1e-4 and poses[0, 1, 3] < 0
    assert poses[:, 2, 3] == pytest.approx(np.sin(np.radians(elevation)), abs=1e-4)
    assert poses[:, :, 3].norm(dim=-1) == pytest.approx(1, abs=1e-4)
    assert -poses[:, :, 2] == pytest.approx(-poses[:, :, 3], abs=1e-4)
    assert distances_to_the_first(model) / before == pytest.approx(1 / 28, rel=1e-4)  # 7 times 4
    first = min(model.images.values(), key=lambda image: image.name)
    assert camera_to_world(first) == pytest.approx(poses[0].numpy(), abs=1e-5)


@pytest.mark.parametrize(
    ("poses", "said"),
    [
        (arc_of_poses([-20.0, -10.0, 0.0, 10.0]), "The photos look at the scene from one side"),
        (ring_of_poses(6)[:5], "Photograph next: between 4.jpg and 0.jpg, which are 120 degrees apart."),
        (ring_of_poses(8), "Photograph next: from above or below; all photos are 30 degrees up."),
        (
            torch.cat([ring_of_poses(8), ring_of_poses(4, elevation=70)]),
            "The largest gap is 45 degrees, between",
        ),
    ],
)
def test_the_advice_is_to_photograph_where_the_gap_is(poses, said):
    model = pycolmap.Reconstruction()
    text = advice(PosedPhotos([f"{number}.jpg" for number in range(len(poses))], poses, model))
    assert text.startswith("Direction coverage: ") and said in text


def test_nerfstudio_reads_masks_at_every_size_and_without_grey_edges(tmp_path):
    posed = in_world_frame(model_with(ring_of_poses(3)))
    mask = np.zeros((192, 256), bool)
    mask[:, :101] = True  # no edge of a pixel at any size
    for name in posed.names:
        Image.new("RGB", (256, 192)).save(tmp_path / name, format="PNG")
    scene = tmp_path / "scene"
    scene.mkdir()
    write_scene(scene, posed, tmp_path, longest=200, masks=dict.fromkeys(posed.names, mask), cut_out=False)
    frames = json.loads((scene / "transforms.json").read_text())["frames"]
    for folder, width in (("masks", 200), ("masks_2", 100)):
        for frame in frames:
            path = scene / frame["mask_path"].replace("masks", folder)
            read = get_image_mask_tensor_from_path(path)
            assert read.shape == (width * 3 // 4, width, 1)
            columns = int(read[0].sum())
            assert read[:, :columns].all() and columns == pytest.approx(101 / 256 * width, abs=0.6)
            assert set(np.unique(np.asarray(Image.open(path)))) == {0, 255}


def test_what_was_transparent_stays_so_under_a_mask(tmp_path):
    posed = in_world_frame(model_with(ring_of_poses(3)))
    pixels = np.full((192, 256, 4), 255, np.uint8)
    pixels[:, :100, 3] = 0
    for name in posed.names:
        Image.fromarray(pixels).save(tmp_path / name, format="PNG")
    mask = np.ones((192, 256), bool)
    mask[:, 200:] = False
    (tmp_path / "scene").mkdir()
    write_scene(tmp_path / "scene", posed, tmp_path, longest=256, masks=dict.fromkeys(posed.names, mask), cut_out=True)
    alpha = np.asarray(Image.open(next((tmp_path / "scene" / "images").iterdir())))[0, :, 3]
    assert (alpha[:100] == 0).all() and (alpha[100:200] == 255).all() and (alpha[200:] == 0).all()


def test_smaller_copies_have_exactly_the_scale_that_nerfstudio_gives_their_intrinsics(tmp_path):
    pixels = np.repeat(np.arange(427, dtype=np.float32)[:, None] / 2, 640, axis=1)
    photo = np.repeat(pixels[..., None], 3, axis=-1).round().astype(np.uint8)
    _write_copies(tmp_path, "images", "a.png", photo, [1, 2, 4])
    for factor in (1, 2, 4):
        copy = np.asarray(Image.open(tmp_path / (f"images_{factor}" if factor > 1 else "images") / "a.png"))
        rows = 427 // factor
        assert copy.shape == (rows, 640 // factor, 3)
        means = photo[: rows * factor, 0, 0].reshape(rows, factor).mean(axis=1)
        assert np.abs(copy[:, 0, 0] - means).max() <= 0.5


def test_names_with_dollar_signs_are_drawn(tmp_path):
    posed = in_world_frame(model_with(ring_of_poses(3)))
    names = [f"{name} $^_$" for name in posed.names]
    photos = [Photo(name, (4, 3), Lens("", None)) for name in names]
    matches = Matches(tmp_path / "none.db", photos, np.zeros((3, 3), dtype=int))
    draw_report(tmp_path / "poses.png", PosedPhotos(names, posed.camera_to_worlds, posed.model), matches)
    assert (tmp_path / "poses.png").is_file()


def test_all_photos_have_the_same_smaller_copies(tmp_path):
    posed = in_world_frame(model_with(ring_of_poses(3)))
    for name in posed.names:
        Image.new("RGB", (1024, 768)).save(tmp_path / name, format="PNG")
    narrow = next(image for image in posed.model.images.values() if image.name == posed.names[1]).camera
    narrow.width, narrow.height = 1024, 300
    Image.new("RGB", (1024, 300)).save(tmp_path / posed.names[1], format="PNG")
    scene = tmp_path / "scene"
    scene.mkdir()
    write_scene(scene, posed, tmp_path, longest=1024, masks={}, cut_out=False)
    copies = {path.name: sorted(file.name for file in path.iterdir()) for path in scene.glob("images*")}
    assert copies == {f"images{end}": posed.names for end in ("", "_2", "_4")}


def test_what_a_file_manager_leaves_keeps_no_scene_from_being_written_again(tmp_path):
    (tmp_path / ".DS_Store").touch()
    make._check_output(tmp_path, tmp_path.parent / "photos", None)
    (tmp_path / ".git").mkdir()
    with pytest.raises(UserError, match=r"holds other files, such as \.git"):
        make._check_output(tmp_path, tmp_path.parent / "photos", None)
    scene = tmp_path / "scene"
    (scene / "images").mkdir(parents=True)
    (scene / "transforms.json").write_text("{}")
    (scene / "poses.json").write_text(json.dumps({"files": hashes_of_files(scene)}))
    for folder in (scene, scene / "images"):
        (folder / "Thumbs.db").touch()
    make._check_output(scene, tmp_path / "photos", None)
    (scene / "images" / "notes.txt").touch()
    with pytest.raises(UserError, match="images/notes.txt was added or changed"):
        make._check_output(scene, tmp_path / "photos", None)
