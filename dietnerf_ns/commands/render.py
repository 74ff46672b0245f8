"""dietnerf-render: images and videos of a trained run."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from dietnerf_ns.utils.ending import ends_in_one_line, noting_output
from dietnerf_ns.utils.openmp import wait_briefly

if TYPE_CHECKING:
    from collections.abc import Callable

    from nerfstudio.cameras.cameras import Cameras


@dataclass
class Orbit:
    """Render a turntable of a trained scene: the camera circles the scene once, and the video loops seamlessly.

    This works for the runs of every nerfstudio method. The camera keeps its elevation and looks at the point that the
    training cameras look at. If the training cameras do not surround the scene, the camera moves back and forth between
    the leftmost and the rightmost of them instead; in front of a scene that was photographed from one side, it moves
    along an ellipse within the training cameras. Start the command in the folder where you trained, because the paths
    in a run are relative.
    """

    # tyro keeps the line breaks of these texts in --help, so each line ends with a sentence.
    load_config: Path
    """Path of the run's config.yml."""
    output: Path
    """File or folder to write.
    A name that ends in .mp4 gives a video, which needs ffmpeg. A name that ends in .gif gives an animation.
    A name without a suffix gives a folder of PNG files.
    An existing output is replaced, but only after all frames have been rendered."""
    theta_range: tuple[float, float] | None = None
    """First and last azimuth in degrees around the scene's up axis.
    The default is the full circle, or the range of the training cameras if they do not surround the scene.
    Two angles that lie 360 degrees apart give a full circle, whose last frame is one step before the first."""
    there_and_back: bool = True
    """On an arc, the camera returns to its start and slows down at both ends.
    Without this setting it sweeps the arc once. A full circle is not affected."""
    phi: float | None = None
    """Elevation in degrees above the horizon, from -90 to 90.
    The default is the mean elevation of the training cameras, and all their elevations on an ellipse."""
    radius: float | None = None
    """Distance in scene units from the camera to the point it looks at.
    The default is the mean distance of the training cameras."""
    size: tuple[int, int] | None = None
    """Width and height of an image in pixels.
    The default is the size of the first training photo, scaled down to at most 1000 pixels on the longer side.
    The image contains the whole field of view of that photo."""
    frames: int = 120
    """Number of frames, at least 2."""
    fps: float = 30
    """Frames per second. A GIF shows at most 50. A folder of PNG files does not use the value."""
    outputs: Literal["rgb", "depth", "both"] = "rgb"
    """What a frame shows.
    The choice rgb is the colour.
    The choice depth is the depth from blue (near) to red (far), with the same limits in all frames.
    The choice both puts the depth to the right of the colour."""

    def main(self) -> None:
        """Check the settings, load the run, then render and write the frames."""
        from dietnerf_ns.orbit.files import check_holds_no_photos, check_output, write_frames

        self._check()
        check_output(self.output, self.fps, self.frames)

        from dietnerf_ns.orbit.frames import load_run, median_depth, render_frames

        pipeline = load_run(self.load_config)
        photos, evaluated = pipeline.datamanager.train_dataset, pipeline.datamanager.eval_dataset
        assert photos is not None, "the pipeline was loaded without its training photos"
        names = evaluated.image_filenames if evaluated is not None else []
        check_holds_no_photos(self.output, [*photos.image_filenames, *names])
        photographed = photos.cameras.to("cpu")
        cameras = self.cameras(photographed, depth=lambda: median_depth(pipeline.model, photographed))
        with noting_output(self.output):
            write_frames(render_frames(pipeline.model, cameras, self.outputs), self.output, self.fps)
            print(f"The orbit was written to {self.output}.")

    def _check(self) -> None:
        from dietnerf_ns.utils.errors import UserError, check_limits, flags_under

        start, end = self.theta_range or (0, 360)
        limits = {
            "theta_range": (start != end, "two different angles"),
            "phi": (self.phi is None or -90 <= self.phi <= 90, "from -90 to 90 degrees"),
            "radius": (self.radius is None or self.radius > 0, "above 0"),
            "size": (self.size is None or min(self.size) > 0, "at least 1 pixel each"),
            "frames": (self.frames >= 2, "at least 2"),
            "fps": (self.fps > 0, "above 0"),
        }
        with flags_under("--"):
            check_limits(self, limits)
        if not self.load_config.is_file():
            raise UserError(f"--load-config {self.load_config}: there is no such file; give a run's config.yml.")

    def cameras(self, training_cameras: Cameras, *, depth: Callable[[], float]) -> Cameras:
        """The cameras of the frames; prints what the turntable does.

        Args:
            training_cameras: on the CPU; camera-to-world matrices with OpenGL axes.
            depth: of what they see; see `fit_turntable`.
        """
        from nerfstudio.utils.rich_utils import CONSOLE

        from dietnerf_ns.orbit.turntable import (
            default_size,
            fit_turntable,
            is_full_circle,
            turntable_azimuths,
            turntable_cameras,
        )

        sphere = fit_turntable(
            training_cameras.camera_to_worlds,
            theta_range=self.theta_range,
            phi=self.phi,
            radius=self.radius,
            there_and_back=self.there_and_back,
            depth=depth,
        )
        size = self.size or default_size(training_cameras[:1])
        theta_range, (low, high), radius = sphere.azimuth_range, sphere.elevation_range, sphere.radius_range[0]
        phi = f"{low:.0f}" if low == high else f"{low:.0f} to {high:.0f}"
        if self.theta_range is None and not is_full_circle(theta_range):
            CONSOLE.print(
                "The training cameras do not surround the scene: theta stays between the outermost of them.",
                soft_wrap=True,
            )
        CONSOLE.print(
            f"Orbit: theta {theta_range[0]:.0f} to {theta_range[1]:.0f} degrees, phi {phi} degrees, "
            f"radius {radius:.2f}, {size[0]}x{size[1]} pixels, {self.frames} frames.",
            soft_wrap=True,
        )
        azimuths = turntable_azimuths(theta_range, self.frames, there_and_back=self.there_and_back)
        return turntable_cameras(sphere, azimuths, training_cameras[:1], size)


def main() -> None:
    """Entry point of dietnerf-render."""
    wait_briefly()
    # nerfstudio and torchmetrics warn about their own code when they are imported. A user cannot act on that.
    warnings.simplefilter("ignore", FutureWarning)
    with ends_in_one_line():
        tyro.extras.subcommand_cli_from_dict({"orbit": Orbit}, description=__doc__).main()


if __name__ == "__main__":
    main()
