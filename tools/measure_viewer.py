"""How fast the viewer follows the theta slider while dietnerf-tiny trains, and what the panel costs a training step.

The browser is a stand-in that only has a camera and answers after 0.05 s; its own drawing is not measured.

    python -m tools.measure_viewer
"""

import copy
import os
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import torch

from dietnerf_ns.methods import dietnerf_tiny
from tests.helpers.viewer import CameraOnlyClient
from tests.helpers.viewer_browser import free_port

FIRST_STEP, MOVES, THERE_AND_BACK_SECONDS = 40, 10, 0.05


def main() -> None:
    """Train with the viewer on, and measure in a thread."""
    os.chdir(tempfile.mkdtemp())
    config = copy.deepcopy(dietnerf_tiny.config)
    config.vis, config.output_dir = "viewer", Path(".")
    config.viewer.websocket_port, config.viewer.websocket_host = free_port(), "127.0.0.1"
    config.set_timestamp()
    config.get_base_dir().mkdir(parents=True)
    trainer = config.setup(local_rank=0, world_size=1)
    trainer.setup()
    threading.Thread(target=measure, args=(trainer,), daemon=True).start()
    trainer.train()


def measure(trainer) -> None:
    """Measure beside the training, print, and end the process."""
    while trainer.step < FIRST_STEP:
        time.sleep(0.1)
    panel, seconds = trainer.pipeline.dietnerf, seconds_to_follow(trainer)
    print(f"\nslider to image: median {statistics.median(seconds):.2f} s, longest {max(seconds):.2f} s of {MOVES}")
    folder, clients = panel.semantic_consistency, trainer.viewer_state.viser_server._connected_clients
    mse = torch.tensor(0.01)
    start = time.perf_counter()
    folder.refresh(trainer.step)
    print(f"refresh for a connected browser: {1e3 * (time.perf_counter() - start):.0f} ms")
    clients.clear()
    start = time.perf_counter()
    for step in range(10_000):
        folder.after_step(step, mse=mse)
    print(f"panel per step without a browser: {1e2 * (time.perf_counter() - start):.1f} microseconds", flush=True)
    os._exit(0)


def seconds_to_follow(trainer) -> list[float]:
    """Seconds from a slider's new value until nerfstudio hands viser the next image."""
    viewer, panel = trainer.viewer_state, trainer.pipeline.dietnerf
    images, look = [], panel.browser_cameras.look
    client: Any = CameraOnlyClient()
    client.client_id = 0
    client.scene = type("Scene", (), {"set_background_image": lambda *_, **__: images.append(time.monotonic())})()
    viewer.viser_server._connected_clients[0] = client
    viewer.handle_new_client(client)

    def look_and_answer(*args, **kwargs) -> None:
        look(*args, **kwargs)
        time.sleep(THERE_AND_BACK_SECONDS)
        for callback in client.camera._state.camera_cb:
            callback(client.camera)

    panel.browser_cameras.look = look_and_answer
    seconds = []
    for move in range(MOVES):
        time.sleep(3)
        before, start = len(images), time.monotonic()
        panel.orbit.element_00.gui_handle.value = 30.0 * (move - 5)
        while len(images) == before:
            time.sleep(0.005)
        seconds.append(images[before] - start)
    return seconds


if __name__ == "__main__":
    main()
