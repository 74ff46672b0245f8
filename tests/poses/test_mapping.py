"""Choice among attempts, and intrinsics that are refined as far as photos determine them."""

from pathlib import Path

import numpy as np
import pycolmap
import pytest

from dietnerf_ns.poses import mapping, report
from dietnerf_ns.poses.mapping import (
    Attempt,
    best_reconstruction,
    refine_intrinsics,
    uncertainties,
)
from dietnerf_ns.poses.matching import Matches, initial_camera, set_unknown_focal_lengths, verified_matches
from dietnerf_ns.poses.photos import Lens, Photo
from dietnerf_ns.poses.report import doubt, left_out
from dietnerf_ns.poses.scene import in_world_frame
from dietnerf_ns.poses.support import FEWEST_POINTS, Support, leave_out_doubtful, support


@pytest.fixture
def synthetic(tmp_path):
    """A model of five cameras with 200 points, and the database of its matches."""
    options = pycolmap.SyntheticDatasetOptions()
    options.num_rigs, options.num_cameras_per_rig, options.num_frames_per_rig, options.num_points3D = 1, 1, 5, 200
    pycolmap.set_random_seed(0)
    with pycolmap.Database.open(tmp_path / "database.db") as database:
        model = pycolmap.synthesize_dataset(options, database)
    photos = [Photo(image.name, (1024, 768), Lens("", None)) for image in model.images.values()]
    names = [photo.name for photo in photos]
    return model, Matches(tmp_path / "database.db", photos, verified_matches(tmp_path / "database.db", names))


def explained(model, matches):
    return support(model, matches).total


def test_true_poses_explain_all_matches_and_wrong_ones_few(synthetic):
    model, matches = synthetic
    total = matches.counts.sum() // 2
    assert total > 500 and explained(model, matches) == total
    frame = next(iter(model.frames.values()))
    pose = frame.rig_from_world
    frame.rig_from_world = pycolmap.Rigid3d(
        pose.rotation * pycolmap.Rotation3d(np.array([0, 0.2, 0])), pose.translation
    )
    assert explained(model, matches) < 0.8 * total


def without(model, names):
    """A copy of a model in which some photos have no pose."""
    copy = pycolmap.Reconstruction(model)
    for image in list(copy.images.values()):
        if image.name in names:
            copy.deregister_frame(image.frame_id)
    return copy


def with_wrong_pose(model):
    """A copy of a model with one pose so far off that bundle adjustment does not find back."""
    copy = pycolmap.Reconstruction(model)
    frame = next(iter(copy.frames.values()))
    pose = frame.rig_from_world
    turn = pycolmap.Rotation3d(np.array([0, 0, 2.5]))
    frame.rig_from_world = pycolmap.Rigid3d(turn * pose.rotation, pose.translation)
    return copy


def test_the_attempt_that_poses_most_and_explains_most_is_kept(synthetic, tmp_path, monkeypatch):
    model, matches = synthetic
    attempts = [
        Attempt("four photos", without(model, matches.names[:1])),
        Attempt("one wrong pose", with_wrong_pose(model)),
        Attempt("good", pycolmap.Reconstruction(model)),
        Attempt("two photos", without(model, matches.names[:3])),
    ]
    for order in (attempts, attempts[::-1]):
        monkeypatch.setattr(mapping, "_attempts", lambda *_, order=order: iter(order))
        best = best_reconstruction(matches, tmp_path, tmp_path, 0)
        assert best is not None and best.how == "good"
    monkeypatch.setattr(mapping, "_attempts", lambda *_: iter(attempts[3:]))
    assert best_reconstruction(matches, tmp_path, tmp_path, 0) is None


def test_the_rest_is_kept_and_refined_where_one_pose_is_wrong(synthetic, tmp_path, monkeypatch):
    model, matches = synthetic
    monkeypatch.setattr(mapping, "_attempts", lambda *_: iter([Attempt("one wrong pose", with_wrong_pose(model))]))
    best = best_reconstruction(matches, tmp_path, tmp_path, 0)
    assert best is not None and best.num_posed == 4
    assert doubt(best) is None
    assert in_world_frame(best.model).names == sorted(matches.names[1:])


def test_attempts_leave_no_copies_of_the_database(synthetic, tmp_path, monkeypatch):
    model, matches = synthetic
    monkeypatch.setattr(mapping, "_map_incrementally", lambda *_: {0: pycolmap.Reconstruction(model)})
    monkeypatch.setattr(mapping, "_map_globally", lambda *_: {})
    work = tmp_path / "work"
    work.mkdir()
    attempts = mapping._attempts(matches, tmp_path, work, 0)
    assert next(attempts).how.startswith("incremental") and not any(work.iterdir())
    assert sum(1 for _ in attempts) > 1 and not any(work.iterdir())


def test_attempts_agree_if_both_rotations_and_positions_do(synthetic):
    model, _ = synthetic
    good, moved = Attempt("good", model), Attempt("moved", pycolmap.Reconstruction(model))
    moved.model.transform(pycolmap.Sim3d(3, pycolmap.Rotation3d(np.array([0.2, 0, 1])), np.ones(3)))
    assert mapping._agree(good, moved)
    frame = next(iter(moved.model.frames.values()))
    pose = frame.rig_from_world
    frame.rig_from_world = pycolmap.Rigid3d(pose.rotation, pose.translation + 5)
    assert not mapping._agree(good, moved)
    assert not mapping._agree(good, Attempt("one photo less", without(model, [next(iter(model.images.values())).name])))


def test_of_attempts_with_as_many_photos_the_matches_decide_then_the_points(synthetic):
    model, matches = synthetic
    wrong, fewer = Attempt("wrong", with_wrong_pose(model)), Attempt("fewer points", pycolmap.Reconstruction(model))
    for point in list(fewer.model.points3D)[:20]:
        fewer.model.delete_point3D(point)
    good = Attempt("good", model)
    for order in ([wrong, fewer, good], [good, fewer, wrong]):
        assert mapping._best(order, matches).how == "good"
    assert mapping._best([wrong, fewer], matches).how == "fewer points"


def test_photos_that_see_too_few_points_lose_their_pose(synthetic):
    model, matches = synthetic
    weak, strong, *_ = model.images.values()
    for image, kept in ((weak, FEWEST_POINTS - 1), (strong, FEWEST_POINTS)):
        seen = [index for index, point in enumerate(image.points2D) if point.has_point3D()]
        for index in seen[kept:]:
            model.delete_observation(image.image_id, index)
    expected = {*matches.names} - {weak.name}
    leave_out_doubtful(model, matches)
    assert {image.name for image in model.images.values() if image.has_pose} == expected


def test_a_pose_that_the_matches_contradict_is_taken_away_and_only_this_one(synthetic):
    model, matches = synthetic
    wrong = with_wrong_pose(model)
    leave_out_doubtful(wrong, matches)
    assert {image.name for image in wrong.images.values() if image.has_pose} == {*matches.names} - {matches.names[0]}


def supported_by(explained, verified=None, points=None):
    explained = np.array(explained)
    names = [f"{i}.jpg" for i in range(len(explained))]
    seen = explained.max(axis=1) if points is None else np.array(points)
    return Support(names, seen, explained, explained if verified is None else np.array(verified))


def two_and_three(link):
    return [[0, 200, 90, link, 9], [200, 0, 99, link, 9], [90, 99, 0, 9, 0], [link, link, 9, 0, 500], [9, 9, 0, 500, 0]]


@pytest.mark.parametrize(
    ("found", "doubtful"),
    [
        (supported_by([[0, 200, 90], [200, 0, 40], [90, 40, 0]]), []),
        (supported_by([[0, 200, 30], [200, 0, 20], [30, 20, 0]]), ["2.jpg"]),  # too few
        (supported_by([[0, 200, 40], [200, 0, 30], [40, 30, 0]]), []),  # 70 are enough
        (supported_by([[0, 200, 90], [200, 0, 40], [90, 40, 0]], points=[99, 19, 99]), ["1.jpg"]),
        (
            supported_by([[0, 200, 60], [200, 0, 40], [60, 40, 0]], [[0, 200, 120], [200, 0, 80], [120, 80, 0]]),
            ["2.jpg"],  # half of its matches contradict the pose
        ),
        (
            supported_by(two_and_three(20)),
            ["3.jpg", "4.jpg"],  # two neighbours with 49 and 18 matches outside
        ),
        (
            supported_by(two_and_three(30)),
            [],  # one of them has 69
        ),
    ],
)  # fmt: skip
def test_which_poses_are_doubtful(found, doubtful):
    assert found.doubtful() == doubtful


@pytest.mark.parametrize(("largest_uncertainty", "factor"), [(0.03, 1), (0, 1.05)])
def test_a_known_focal_length_is_kept_where_photos_do_not_determine_it(
    synthetic, monkeypatch, largest_uncertainty, factor
):
    model, _ = synthetic
    (camera,) = model.cameras.values()
    true = camera.focal_length
    assert 0 < uncertainties(model, camera.camera_id)[0] < 0.01
    monkeypatch.setattr(mapping, "LARGEST_UNCERTAINTY", largest_uncertainty)
    refine_intrinsics(model, {camera.camera_id: 1.05 * true})
    assert model.cameras[camera.camera_id].focal_length == pytest.approx(factor * true, rel=0.002)


def test_only_focal_lengths_that_exif_does_not_tell_make_poses_doubtful(synthetic, monkeypatch):
    model, _ = synthetic
    (camera,) = model.cameras.values()
    monkeypatch.setattr(report, "DOUBTFUL_UNCERTAINTY", 0)
    for is_known in (False, True):
        camera.has_prior_focal_length = is_known
        assert (doubt(Attempt("good", model)) is None) == is_known


def test_unknown_focal_lengths_are_guessed_and_known_ones_kept(tmp_path):
    known, unknown = Photo("a.jpg", (640, 480), Lens("Phone", 0.6)), Photo("b.jpg", (400, 300), Lens("", None))
    path = tmp_path / "database.db"
    with pycolmap.Database.open(path) as database:
        identifiers = [database.write_camera(initial_camera(photo)) for photo in (known, unknown)]
    set_unknown_focal_lengths(path, 1.7)
    with pycolmap.Database.open(path) as database:
        focal = [database.read_camera(identifier).focal_length for identifier in identifiers]
    assert focal == pytest.approx([0.6 * 800, 1.7 * 400])


def test_a_photo_that_is_left_out_says_with_which_to_overlap():
    names = [f"{i}.jpg" for i in range(5)]
    counts = np.zeros((5, 5), dtype=int)
    counts[3, 1] = counts[1, 3] = 9
    counts[3, 2] = counts[2, 3] = 4
    photos = [Photo(name, (4, 3), Lens("", None)) for name in names]
    some, none = left_out(Matches(Path("none.db"), photos, counts), ["0.jpg", "1.jpg", "2.jpg"])
    assert some.name == "3.jpg"
    assert some.reason == "at most 9 matches with any other photo; overlap it more with 1.jpg and 2.jpg"
    assert none.reason == "no matches with any other photo; overlap it more with 2.jpg and 1.jpg"
