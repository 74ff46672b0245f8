"""Write frames as a video, an animation or a folder of PNG files, either completely or not at all."""

from __future__ import annotations

import contextlib
import itertools
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8

from dietnerf_ns.data.photos import IMAGE_ERRORS
from dietnerf_ns.utils.errors import UserError, writing
from dietnerf_ns.utils.files import OF_FILE_MANAGERS, atomic_output, check_writable

if TYPE_CHECKING:
    from mediapy import VideoWriter

Frames = Iterator[UInt8[np.ndarray, "height width 3"]]
FASTEST_GIF_FPS = 50
"""Durations in a GIF are whole hundredths of a second, and viewers slow down frames that are shorter than two."""
LONGEST_GIF_SECONDS = 655
"""Of frames that are equal: the format has 16 bits for their duration in hundredths of a second."""
FRAME_NAME = re.compile(r"\d{5}\.png")
ORIGINALS = "images"
REDUCED = re.compile(ORIGINALS + r"_\d+")
"""As nerfstudio names folders of smaller copies of the photos in `ORIGINALS`."""
SOFTWARE, PROGRAM = "Software", "dietnerf-render"
"""PNG's keyword for the program that wrote a file, and its value in frames: only such files are replaced."""


def check_output(output: Path, fps: float, frames: int = 1) -> None:
    """Check before rendering that the frames can be written, and make the folder that contains the output.

    Args:
        output: file or folder to write; see `write_frames`.
        fps: frames per second.
        frames: number of frames.

    Raises:
        UserError: the suffix is unknown, ffmpeg is missing, a GIF cannot be that fast or slow, the output cannot be
            written, or it is a folder that holds other files, which would be lost.
    """
    if _is_folder(output):
        if output.is_file():
            raise UserError(f"--output {output}: is a file; end it in .mp4 or .gif, or name a folder for PNG files.")
        files = sorted(path for path in output.glob("*") if path.name not in OF_FILE_MANAGERS)
        other = next((path for path in files if not _is_frame(path)), None)
        if other is not None:
            raise UserError(
                f"--output {output}: holds other files than frames that this command marked as its own, such as "
                f"{other.name}; name a new or empty folder."
            )
    elif output.suffix.lower() not in (".mp4", ".gif"):
        raise UserError(f"--output {output}: must end in .mp4 or .gif, or have no suffix for a folder of PNG files.")
    if output.suffix.lower() == ".mp4" and shutil.which("ffmpeg") is None:
        raise UserError(
            f"--output {output}: mp4 needs ffmpeg, which is not installed (apt-get install ffmpeg); .gif does not."
        )
    if output.suffix.lower() == ".gif" and fps > FASTEST_GIF_FPS:
        raise UserError(f"--fps {fps:g}: a GIF shows at most {FASTEST_GIF_FPS} frames per second.")
    if output.suffix.lower() == ".gif" and frames / fps > LONGEST_GIF_SECONDS:
        raise UserError(
            f"--fps {fps:g}: with {frames} frames a GIF needs at least {frames / LONGEST_GIF_SECONDS:.2g} frames per "
            "second."
        )
    check_writable(output, "--output")


def check_holds_no_photos(output: Path, photos: Iterable[Path]) -> None:
    """Refuse the folder of a run's photos, and that of the originals they were reduced from, also if they were frames
    of this command once.

    Raises:
        UserError: a photo is in it.
    """
    folders = {photo.parent.resolve() for photo in photos}
    originals = {folder.with_name(ORIGINALS) for folder in folders if REDUCED.fullmatch(folder.name)}
    if output.resolve() in folders | originals:
        raise UserError(f"--output {output}: holds the photos of this run; name another folder.")


def write_frames(frames: Frames, output: Path, fps: float) -> None:
    """Write all frames. An existing output is replaced when the last frame has been written.

    Args:
        frames: RGB images of the same size.
        output: name.mp4, name.gif, or a folder, which gets 00000.png, 00001.png and so on.
        fps: frames per second; not used for a folder.

    Raises:
        UserError: the output cannot be written, for example because the disk is full.
    """
    write = _write_folder if _is_folder(output) else _write_mp4 if output.suffix.lower() == ".mp4" else _write_gif
    with writing(f"--output {output}"), atomic_output(output) as unfinished:
        write(frames, unfinished, fps)


def _is_folder(output: Path) -> bool:
    return output.is_dir() or not output.suffix


def _is_frame(path: Path) -> bool:
    from PIL import Image

    if not FRAME_NAME.fullmatch(path.name):
        return False
    with contextlib.suppress(*IMAGE_ERRORS, Image.DecompressionBombError), Image.open(path) as image:
        return image.info.get(SOFTWARE) == PROGRAM
    return False


def _write_mp4(frames: Frames, path: Path, fps: float) -> None:
    import mediapy

    # The pixel format that every player supports needs even sides, so an odd last row or column is cropped.
    even = (frame[: frame.shape[0] // 2 * 2, : frame.shape[1] // 2 * 2] for frame in frames)
    first = next(even)
    height, width, _ = first.shape
    # Not in a with statement: Ctrl-C ends ffmpeg too, and its error would replace the KeyboardInterrupt.
    video = mediapy.VideoWriter(path, (height, width), fps=fps).__enter__()
    try:
        for frame in itertools.chain([first], even):
            video.add_image(frame)
    except BrokenPipeError as error:
        raise OSError(_close(video) or str(error)) from error
    except BaseException:
        _close(video)
        raise
    if reason := _close(video):
        raise OSError(reason)


def _close(video: VideoWriter) -> str:
    """Finish a video; returns ffmpeg's error in one line, or an empty string."""
    try:
        with contextlib.suppress(BrokenPipeError):  # if ffmpeg has ended; a second call says why
            video.close()
        video.close()
    except RuntimeError as error:
        return " ".join(str(error).split())
    return ""


def _write_gif(frames: Frames, path: Path, fps: float) -> None:
    from PIL import Image

    images = [Image.fromarray(frame).quantize() for frame in frames]
    # The ends are rounded, not the durations, to keep the total: 30 frames per second take 30, 40, 30, 30, 40, ... ms.
    ends_ms = [round(100 * i / fps) * 10 for i in range(len(images) + 1)]
    durations_ms = [end - start for start, end in itertools.pairwise(ends_ms)]
    images[0].save(
        path, format="GIF", save_all=True, append_images=images[1:], duration=durations_ms, loop=0, optimize=False
    )


def _write_folder(frames: Frames, path: Path, fps: float) -> None:
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    mark = PngInfo()
    mark.add_text(SOFTWARE, PROGRAM)
    path.mkdir()
    for i, frame in enumerate(frames):
        Image.fromarray(frame).save(path / f"{i:05d}.png", pnginfo=mark)
