from __future__ import annotations

import sys

import pytest

from harmonizer_assets.core.base.errors import ConfigurationError
from harmonizer_assets.core.base.figure import png


def test_a_figure_is_a_png_image():
    assert png((1, 1), lambda figure: figure.add_subplot()).startswith(b"\x89PNG")


def test_without_matplotlib_the_error_names_the_extra(monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ConfigurationError, match=r"label-harmonizer\[plots\]"):
        png((1, 1), lambda figure: None)
