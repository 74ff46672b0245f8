"""dietnerf-render: pictures of a trained run."""

from __future__ import annotations

import os
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro


@dataclass
class Orbit:
    """Turn once around a trained scene, of any nerfstudio method, as a video that loops without a jump.

    The camera keeps its elevation and looks at the point that the training cameras look at. Where these all face one
    way, it swings there and back between the leftmost and the rightmost of them instead. Start it in the folder where
    you trained: the paths in a run are relative.
    """

    load_config: Path
    """config.yml of the run."""
    output: Path
    """What is written, by its suffix: orbit.mp4 (needs ffmpeg), orbit.gif, or without one a folder of PNG files. It is
    replaced if it exists, once all frames are there."""
    theta_range: tuple[float, float] | None = None
    """First and last azimuth in degrees around the scene's up axis. When not given: the full circle, or the range of
    the training cameras if they do not surround the scene. 360 degrees apart they make a circle whose last frame is
    one step before the first."""
    there_and_back: bool = True
    """Over an arc, come back to its start, slowing down at both ends; without it the arc is swept once. No matter for
    a full circle."""
    phi: float | None = None
    """Elevation in degrees above the horizon, -90 to 90; the mean of the training cameras' when not given."""
    radius: float | None = None
    """Distance to what the camera looks at, in scene units; the mean of the training cameras' when not given."""
    size: tuple[int, int] | None = None
    """Width and height in pixels, of one picture; the training photos', at most 1000 on the longer side, when not
    given. The field of view of the first training photo fits into it."""
    frames: int = 120
    """Number of frames, at least 2."""
    fps: float = 30
    """Frames per second; for a GIF at most 50, for a folder without effect."""
    outputs: Literal["rgb", "depth", "both"] = "rgb"
    """rgb: colours. depth: near is blue, far is red, with the same limits in all frames. both: side by side."""

    def main(self) -> None:
        """Check everything, load the run, render, write."""
        from dietnerf_ns.orbit.files import check_output, write_frames

        self._check()
        check_output(self.output, self.fps)

        from dietnerf_ns.orbit.frames import load_run, render_frames

        pipeline = load_run(self.load_config)
        cameras = self._cameras(pipeline.datamanager.train_dataset.cameras.to("cpu"))
        try:
            write_frames(render_frames(pipeline.model, cameras, self.outputs), self.output, self.fps)
        except KeyboardInterrupt:
            print("Interrupted: nothing was written.", file=sys.stderr)
            sys.exit(130)
        print(f"Orbit: {self.output}")

    def _check(self) -> None:
        from dietnerf_ns.utils.errors import UserError

        start, end = self.theta_range or (0, 360)
        limits = {
            "theta-range": (start != end, "two different angles"),
            "phi": (self.phi is None or -90 <= self.phi <= 90, "from -90 to 90 degrees"),
            "radius": (self.radius is None or self.radius > 0, "above 0"),
            "size": (self.size is None or min(self.size) > 0, "at least 1 pixel each"),
            "frames": (self.frames >= 2, "at least 2"),
            "fps": (self.fps > 0, "above 0"),
        }
        for flag, (fine, allowed) in limits.items():
            if not fine:
                raise UserError(f"--{flag} {getattr(self, flag.replace('-', '_'))}: must be {allowed}.")
        if not self.load_config.is_file():
            raise UserError(f"--load-config {self.load_config}: there is no such file; give a run's config.yml.")

    def _cameras(self, training_cameras):
        from nerfstudio.utils.rich_utils import CONSOLE

        from dietnerf_ns.orbit.turntable import (
            default_size,
            fit_turntable,
            is_full_circle,
            turntable_azimuths,
            turntable_cameras,
        )

        given = {"theta_range": self.theta_range, "phi": self.phi, "radius": self.radius}
        sphere = fit_turntable(training_cameras.camera_to_worlds, **given)
        size = self.size or default_size(training_cameras[:1])
        (start, end), phi, radius = sphere.azimuth_range, sphere.elevation_range[0], sphere.radius_range[0]
        why = (
            ""
            if self.theta_range or is_full_circle((start, end))
            else ("The training cameras do not surround the scene: theta swings between the outermost of them. ")
        )
        CONSOLE.print(
            f"{why}theta {start:.0f} to {end:.0f} degrees, phi {phi:.0f} degrees, radius {radius:.2f}, "
            f"{size[0]}x{size[1]} pixels, {self.frames} frames.",
            soft_wrap=True,
        )
        azimuths = turntable_azimuths((start, end), self.frames, there_and_back=self.there_and_back)
        return turntable_cameras(sphere, azimuths, training_cameras[:1], size)


def main() -> None:
    """Entry point of dietnerf-render."""
    # Threads that spin while they wait make rendering many times slower when another program wants a processor, too.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # What nerfstudio and torchmetrics say about themselves when they are imported; a user can do nothing about it.
    warnings.simplefilter("ignore", FutureWarning)
    tyro.extras.subcommand_cli_from_dict({"orbit": Orbit}, description=__doc__).main()


if __name__ == "__main__":
    main()
