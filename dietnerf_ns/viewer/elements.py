"""Viewer elements that nerfstudio lacks: controls with immediate callbacks, Markdown with images, and a plot."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nerfstudio.viewer.viewer_elements import (
    ViewerButton,
    ViewerCheckbox,
    ViewerDropdown,
    ViewerElement,
    ViewerSlider,
)
from torch import nn
from viser import GuiButtonHandle, GuiInputHandle, ViserServer

if TYPE_CHECKING:
    import plotly.graph_objects as go


class Folder(nn.Module):
    """A folder of the control panel.

    nerfstudio's viewer collects the elements among a module's public attributes in alphabetical order, whatever the
    order in which they were set.
    """

    def show(self, *elements: ViewerElement) -> None:
        """Show at most 100 elements in the given order."""
        for index, element in enumerate(elements):
            setattr(self, f"element_{index:02d}", element)


class _Immediate(ViewerElement):
    """A control whose callback does not wait for the train lock.

    nerfstudio wraps `cb_hook` in that lock once an element is installed. A render at full resolution holds the lock for
    seconds, and only the camera movement that the callback is about to make would interrupt that render.
    """

    def install(self, viser_server: ViserServer) -> None:
        callback = self.cb_hook
        self._create_gui_handle(viser_server)
        handle = self.gui_handle
        if isinstance(handle, GuiButtonHandle):
            handle.on_click(lambda _: callback(self))
        elif isinstance(handle, GuiInputHandle):
            handle.on_update(lambda _: callback(self))


class Slider(_Immediate, ViewerSlider):
    """nerfstudio's slider with an immediate callback."""


class Checkbox(_Immediate, ViewerCheckbox):
    """nerfstudio's checkbox with an immediate callback."""


class Dropdown(_Immediate, ViewerDropdown):
    """nerfstudio's dropdown with an immediate callback."""


class Button(_Immediate, ViewerButton):
    """nerfstudio's button with an immediate callback."""


class Markdown(ViewerElement[str]):
    """Text in Markdown; images can be embedded as data URLs.

    Args:
        content: Markdown that is shown first.
    """

    gui_handle: Any  # a GuiMarkdownHandle, which the base class does not declare

    def __init__(self, content: str = ""):
        super().__init__(name="")
        self.content = content

    def install(self, viser_server: ViserServer) -> None:
        # Without a folder for relative addresses viser warns about every image, even about data URLs.
        self.gui_handle = viser_server.gui.add_markdown(self.content, image_root=Path("."))

    def update(self, content: str) -> None:
        """Replace the text."""
        self.content = content
        if self.gui_handle is not None:
            self.gui_handle.content = content


def escaped(text: str) -> str:
    """Escape text from a file for `Markdown`: viser reads it as MDX and would run what is in braces as code."""
    return re.sub(r"[^\w .-]", lambda character: f"&#{ord(character[0])};", text)


class Plot(ViewerElement):
    """A plotly figure. Every browser that connects downloads plotly's drawing code once, 5 MB.

    Args:
        draw: function that makes the figure.
        aspect: height over width.
    """

    gui_handle: Any  # a GuiPlotlyHandle, which the base class does not declare

    def __init__(self, draw: Callable[[], go.Figure], *, aspect: float):
        super().__init__(name="")
        self._draw, self._aspect = draw, aspect

    def install(self, viser_server: ViserServer) -> None:
        self.gui_handle = viser_server.gui.add_plotly(self._draw(), aspect=self._aspect)

    def redraw(self) -> None:
        """Draw the figure again. The plot must be installed in a viewer."""
        self.gui_handle.figure = self._draw()
