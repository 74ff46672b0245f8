"""A real training with its viewer, and a real browser that looks at it."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tests.helpers.waiting import wait_until

FLAGS = (
    "--headless --no-sandbox --disable-quic --no-first-run --disable-background-networking --disable-component-update "
    "--disable-sync --use-gl=angle --use-angle=swiftshader --enable-unsafe-swiftshader"
).split()
# What a browser shows of the 3D scene, small and grey; the control panel is no part of the canvas.
READ_CANVAS = """
const shown = document.querySelector('canvas[data-engine]');
const small = document.createElement('canvas');
small.width = 64; small.height = 48;
const context = small.getContext('2d');
context.drawImage(shown, 0, 0, 64, 48);
return Array.from(context.getImageData(0, 0, 64, 48).data);
"""
FIND_BY_LABEL = """
const label = [...document.querySelectorAll('label')].find(label => label.textContent == arguments[0]);
const element = label && document.getElementById(label.htmlFor);
if (element) element.scrollIntoView({block: 'center'});
return element;
"""


def missing_programs() -> list[str]:
    """What of the browser is not installed here."""
    return [program for program in ("chromium", "chromedriver") if shutil.which(program) is None]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def training_with_viewer(folder: Path, *arguments: object) -> Iterator[str]:
    """`ns-train dietnerf-tiny` with a viewer, until the end of the block; gives the viewer's address."""
    port = free_port()
    command = [Path(sys.executable).with_name("ns-train"), "dietnerf-tiny", "--vis", "viewer", *arguments]
    command += ["--viewer.websocket-port", port, "--viewer.websocket-host", "127.0.0.1"]
    log, url = folder / "train.log", f"http://127.0.0.1:{port}"
    with log.open("w") as output:
        process = subprocess.Popen(
            [str(word) for word in command],
            cwd=folder,
            env=os.environ | {"COLUMNS": "200"},
            stdout=output,
            stderr=subprocess.STDOUT,
        )

    def answers() -> bool:
        assert process.poll() is None, f"the training ended:\n{log.read_text()[-4000:]}"
        with contextlib.suppress(OSError):
            return urllib.request.urlopen(url, timeout=1).status == 200
        return False

    try:
        wait_until(answers, "the viewer's web server")
        yield url
    finally:
        process.terminate()
        process.wait(timeout=60)


class ViewerPage:
    """The viewer in headless Chromium.

    Args:
        url: of the viewer.
        profile: a folder that does not exist yet, for the browser's own files.
        size: of the window in pixels.
    """

    def __init__(self, url: str, profile: Path, *, size: tuple[int, int] = (1400, 900)):
        from selenium import webdriver

        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium")
        for flag in (*FLAGS, f"--user-data-dir={profile}", f"--window-size={size[0]},{size[1]}"):
            options.add_argument(flag)
        service = webdriver.ChromeService(executable_path=shutil.which("chromedriver"))
        self.driver = webdriver.Chrome(options=options, service=service)
        self.driver.set_script_timeout(120)  # a machine without a GPU draws in software
        self.driver.get(url)

    def __enter__(self) -> ViewerPage:
        return self

    def __exit__(self, *_) -> None:
        self.driver.quit()

    def text(self) -> str:
        """All text that the page shows."""
        return self.driver.execute_script("return document.body.innerText")

    def control(self, label: str):
        """The control with this label, scrolled into sight; None when there is none."""
        return self.driver.execute_script(FIND_BY_LABEL, label)

    def move_slider(self, label: str, fraction: float) -> None:
        """Press the mouse on a slider's track, this far from its left end to its right end."""
        from selenium.webdriver import ActionChains

        track = self.control(label).find_element("css selector", "[class*=trackContainer]")
        across = round((fraction - 0.5) * track.rect["width"])
        mouse = ActionChains(self.driver, duration=0).move_to_element_with_offset(track, across, 0)
        mouse.click_and_hold().pause(0.05).release().perform()

    def press_button(self, text: str) -> None:
        """Press the button with this text."""
        script = "[...document.querySelectorAll('button')].find(b => b.innerText.trim() == arguments[0]).click()"
        self.driver.execute_script(script, text)

    def canvas(self) -> np.ndarray:
        """The 3D scene as the browser shows it, RGB in [0, 255], 64 x 48 pixels."""
        return np.array(self.driver.execute_script(READ_CANVAS), dtype=float).reshape(48, 64, 4)[..., :3]

    def seconds_until_canvas_differs(self, before: np.ndarray, *, by: float, since: float) -> float:
        """How long after `since` (time.monotonic) the scene first looked different by this mean absolute difference."""
        wait_until(lambda: np.abs(self.canvas() - before).mean() > by, "another picture of the scene", seconds=60)
        return time.monotonic() - since

    def screenshot(self, path: Path) -> None:
        """Save what the window shows as PNG."""
        self.driver.save_screenshot(str(path))
