"""Viewer elements that nerfstudio does not have: controls that never wait, text with pictures, a plot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from nerfstudio.viewer.viewer_elements import (
    ViewerButton,
    ViewerCheckbox,
    ViewerDropdown,
    ViewerElement,
    ViewerSlider,
)
from torch import nn
from viser import ViserServer

if TYPE_CHECKING:
    import plotly.graph_objects as go


class Folder(nn.Module):
    """A folder of the control panel, shown in this order.

    nerfstudio finds elements by walking through modules' public attributes in alphabetical order.
    """

    def show(self, *elements: ViewerElement) -> None:
        """Put the elements, at most 100, where nerfstudio finds them in the order given."""
        for index, element in enumerate(elements):
            setattr(self, f"element_{index:02d}", element)


class _Immediate:
    """A control whose callback does not wait for the train lock.

    nerfstudio wraps `cb_hook` in that lock once an element is installed. A render in full resolution holds it for
    seconds, and only the camera movement that the callback is about to make would interrupt that render.
    """

    def install(self, viser_server: ViserServer) -> None:
        callback = self.cb_hook
        self._create_gui_handle(viser_server)
        register = self.gui_handle.on_click if isinstance(self, ViewerButton) else self.gui_handle.on_update
        register(lambda _: callback(self))


class Slider(_Immediate, ViewerSlider):
    """nerfstudio's slider with an immediate callback."""


class Checkbox(_Immediate, ViewerCheckbox):
    """nerfstudio's checkbox with an immediate callback."""


class Dropdown(_Immediate, ViewerDropdown):
    """nerfstudio's dropdown with an immediate callback."""


class Button(_Immediate, ViewerButton):
    """nerfstudio's button with an immediate callback."""


class Markdown(ViewerElement[str]):
    """Text, with pictures as data URLs.

    Args:
        content: Markdown to start with.
    """

    def __init__(self, content: str = ""):
        super().__init__(name="")
        self.content = content

    def install(self, viser_server: ViserServer) -> None:
        # Without a folder for relative addresses viser warns about every picture, data URLs too.
        self.gui_handle = viser_server.gui.add_markdown(self.content, image_root=Path("."))

    def update(self, content: str) -> None:
        """Show other text."""
        self.content = content
        if self.gui_handle is not None:
            self.gui_handle.content = content


class Plot(ViewerElement):
    """A plotly figure; plotly's drawing code goes to every browser once, 5 MB.

    Args:
        draw: makes the figure.
        aspect: height over width.
    """

    def __init__(self, draw: Callable[[], go.Figure], *, aspect: float):
        super().__init__(name="")
        self._draw, self._aspect = draw, aspect

    def install(self, viser_server: ViserServer) -> None:
        self.gui_handle = viser_server.gui.add_plotly(self._draw(), aspect=self._aspect)

    def redraw(self) -> None:
        """Show the figure as it is now."""
        self.gui_handle.figure = self._draw()
