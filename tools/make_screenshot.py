"""Takes docs/images/viewer_panel.png: a real training of the shipped scene, seen in headless Chromium.

Needs Chromium and its driver (Debian: chromium, chromium-driver) and the `test` extra. Also prints how long the scene
takes to follow the theta slider, while training goes on and while it is paused.

    python -m tools.make_screenshot [--output FILE] [--steps N]
"""

import re
import tempfile
import time
from pathlib import Path

import tyro

from tests.helpers.viewer_browser import ViewerPage, training_with_viewer
from tests.helpers.waiting import wait_until

DEFAULT_OUTPUT = Path(__file__).resolve().parents[1] / "docs" / "images" / "viewer_panel.png"


def main(output: Path = DEFAULT_OUTPUT, steps: int = 250, moves: int = 4) -> None:
    """Train, look, measure.

    Args:
        output: PNG file to write.
        steps: training steps before the screenshot.
        moves: slider movements that are timed.
    """
    with tempfile.TemporaryDirectory() as folder:
        arguments = ["--max-num-iterations", 1200]
        with training_with_viewer(Path(folder), *arguments) as url:
            with ViewerPage(url, Path(folder) / "profile", size=(1400, 1300)) as page:
                wait_until(lambda: "Last semantic step" in page.text(), "the panel")
                page.press_button("Hide Train Cams")
                page.control("Show semantic poses").click()
                page.press_button("Go to training view")
                wait_until(lambda: training_step(page) >= steps, "the training", seconds=1200)
                print("while training:", seconds_to_follow(page, moves))
                page.press_button("Pause Training")
                print("training paused:", seconds_to_follow(page, moves))
                page.press_button("Show Train Cams")
                page.control("Show semantic poses").click()
                time.sleep(5)  # until the scene is there in full resolution
                page.control("lambda")
                page.screenshot(output)


def training_step(page: ViewerPage) -> int:
    """The training step that the panel shows."""
    found = re.search(r"Step (\d+)\.", page.text())
    return int(found.group(1)) if found else 0


def seconds_to_follow(page: ViewerPage, moves: int) -> list[float]:
    """From pressing the mouse on the theta slider until the browser shows another image."""
    seconds = []
    for move in range(moves):
        before, since = page.canvas(), time.monotonic()
        page.move_slider("theta", (0.1, 0.6)[move % 2])
        seconds.append(round(page.seconds_until_canvas_differs(before, by=5, since=since), 2))
        time.sleep(4)
    return seconds


if __name__ == "__main__":
    tyro.cli(main)
