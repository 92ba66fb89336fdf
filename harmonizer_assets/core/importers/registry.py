"""Which formats there are: ours, and those that other packages register.

A package adds one through the entry point group `harmonizer_assets.importers`: its name is the name
of the format, its value a class derived from `Importer`.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Final

from harmonizer_assets.core.base.errors import ConfigurationError, InputError
from harmonizer_assets.core.importers.base import Importer

GROUP: Final = "harmonizer_assets.importers"


def format_names() -> tuple[str, ...]:
    """List the names of all formats."""
    return tuple(sorted(_found()))


def importer(name: str) -> Importer:
    """Make the importer of a format.

    Raises:
        InputError: there is no such format.
        ConfigurationError: the package that registers it cannot be used.
    """
    found = _found().get(name)
    if found is None:
        raise InputError(f"{name}: no such format: one of {', '.join(format_names())}")
    try:
        made = found.load()()
    except Exception as error:
        raise ConfigurationError(
            f"the format {name} cannot be used: {found.value} failed with {error}"
        ) from error
    if not isinstance(made, Importer):
        raise ConfigurationError(f"the format {name} cannot be used: {found.value} is no Importer")
    return made


def importers() -> tuple[Importer, ...]:
    """Make all importers, in the order of their names."""
    return tuple(importer(name) for name in format_names())


def _found() -> dict[str, EntryPoint]:
    """Find the formats; ours are there without an entry point, too, and are not replaced."""
    registered = {point.name: point for point in entry_points(group=GROUP)}
    own = {name: EntryPoint(name, f"{__package__}.{value}", GROUP) for name, value in _OWN.items()}
    return {**registered, **own}


_OWN: Final = {
    "argilla": "argilla:Argilla",
    "azure": "azure:Azure",
    "conll": "conll:Conll",
    "cord": "cord:Cord",
    "doccano": "doccano:Doccano",
    "doctr": "doctr:DocTr",
    "funsd": "funsd:Funsd",
    "google-vision": "google_vision:GoogleVision",
    "hocr": "hocr:Hocr",
    "hugging-face": "hugging_face:HuggingFace",
    "label-studio": "label_studio:LabelStudio",
    "paddleocr": "paddleocr:PaddleOcr",
    "prodigy": "prodigy:Prodigy",
    "spreadsheet": "spreadsheet:Spreadsheet",
    "sroie": "sroie:Sroie",
    "tesseract": "tesseract:Tesseract",
    "textract": "textract:Textract",
    "wildreceipt": "wildreceipt:WildReceipt",
}
