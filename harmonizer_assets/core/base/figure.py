"""Figures as PNG images, without a display."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from harmonizer_assets.core.base.extras import needs_extra

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DOTS_PER_INCH: Final = 100


def can_draw() -> bool:
    """Return whether pictures can be drawn: they need matplotlib."""
    return importlib.util.find_spec("matplotlib") is not None


def png(inches: tuple[float, float], paint: Callable[[Figure], None]) -> bytes:
    """Draw a figure of this width and height in inches; return the bytes of a PNG file.

    Raises:
        ConfigurationError: matplotlib is not installed.
    """
    # Importing matplotlib takes longer than most commands.
    with needs_extra("plots", "pictures"):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

    figure = Figure(figsize=inches, layout="constrained")
    FigureCanvasAgg(figure)
    paint(figure)
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=_DOTS_PER_INCH)
    return image.getvalue()
