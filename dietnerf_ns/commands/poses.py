"""dietnerf-poses: from photos or a video to a scene that can be trained on."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import tyro

from dietnerf_ns.utils.ending import ends_in_one_line, noting_output, signals_interrupt
from dietnerf_ns.utils.openmp import wait_briefly

LARGEST_SEED = 2**31 - 1
"""COLMAP has seeds that are an int, and seeds that are an unsigned int."""


@dataclass
class Poses:
    """Find out where photos were taken, and write a scene that ns-train reads (nerfstudio-data).

    Matches between all photos give the camera poses (structure from motion with pycolmap), with limits for few photos.
    It says which photos were posed, why others were not, and what to photograph next. Then train with:
    ns-train dietnerf --data SCENE (on a CPU: ns-train dietnerf-tiny --data SCENE nerfstudio-data).

    Photos stay as they are. The scene has transforms.json with poses and intrinsics, copies of the photos in several
    sizes, the sparse points (sparse_pc.ply), poses.png (cameras and points from above and from the front, and how many
    matches the photos have with each other), and poses.json with all numbers.
    """

    # tyro keeps the line breaks of these texts in --help, so each line ends with a sentence.
    photos: tyro.conf.Positional[Path]
    """Folder of photos, as phones and cameras write them, or a video.
    EXIF orientation and focal length are used.
    HEIC photos need the package pillow-heif."""
    output: Path
    """Folder of the scene.
    It must be new or empty, or be a scene that this command wrote, which is replaced when all is done.
    With other files in it, it is refused."""
    size: int = 640
    """Pixels along the longer side of the photos in the scene.
    Copies of a half, a quarter and an eighth of the size are written beside them, as nerfstudio names them, as long as
    all have at least 64 pixels along the shorter side."""
    frames: int = 24
    """Number of frames that are taken from a video: the sharpest of as many equal parts of it."""
    masks: Path | None = None
    """Folder of masks, one for each photo, with its name (the suffix may differ), white where a pixel counts.
    They are drawn on the upright photos; masks of the pixels as they are stored, without EXIF, are recognized by the
    shapes of photos that EXIF turns by a quarter.
    People who walk through the photos can be left out in this way, for example."""
    cutout: bool = False
    """Cut the object out: the photos in the scene become transparent around it.
    --masks says what is cut out. Without masks the package rembg decides for each photo that is not transparent
    already. It downloads its network when it is first used (pip install "dietnerf-ns[cutout]").
    Poses are found with the whole photos."""
    separate_cameras: bool = False
    """Give each photo its own focal length.
    Otherwise photos of the same size share theirs, unless their EXIF names different cameras or lenses."""
    seed: int = 0
    """Seed of the random choices, from 0 to 2147483647."""

    def main(self) -> None:
        """Check the settings, find the poses, write the scene, say what was found."""
        from dietnerf_ns.poses.make import make_scene
        from dietnerf_ns.utils.errors import check_limits, flags_under

        limits = {
            "size": (self.size >= 64, "at least 64 pixels"),
            "frames": (self.frames >= 3, "at least 3"),
            "seed": (0 <= self.seed <= LARGEST_SEED, f"from 0 to {LARGEST_SEED}"),
        }
        with flags_under("--"):
            check_limits(self, limits)
        # Once more: pycolmap, which has just been imported, took SIGTERM over, and would print a stack of calls.
        with signals_interrupt(), noting_output(self.output):
            make_scene(
                self.photos,
                self.output,
                size=self.size,
                frames=self.frames,
                masks=self.masks,
                cutout=self.cutout,
                separate_cameras=self.separate_cameras,
                seed=self.seed,
            )


def main() -> None:
    """Entry point of dietnerf-poses."""
    wait_briefly()
    warnings.simplefilter("ignore", FutureWarning)
    with ends_in_one_line():
        tyro.cli(Poses).main()


if __name__ == "__main__":
    main()
