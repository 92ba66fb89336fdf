"""Label Studio: exports JSON and JSON_MIN of projects made from the OCR template.

A region is a word: its rectangle or polygon, its text and its labels are results that share an id,
or a place where they have none. Several annotators of a task label the same words; what they say
stands side by side. Words come from predictions, too; labels do with `--predictions` only.

Format: https://labelstud.io/guide/export
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from harmonizer_assets.core.base.errors import InputError
from harmonizer_assets.core.importers.base import (
    ImportOptions,
    Place,
    Problem,
    Read,
    RoundTrip,
    SourceFile,
    SourceLabel,
    SourceReceipt,
    SourceWord,
    WrittenBack,
)
from harmonizer_assets.core.importers.files import as_list, as_object, json_array, starts_with
from harmonizer_assets.core.importers.ids import of_path
from harmonizer_assets.core.importers.json_text import written
from harmonizer_assets.core.importers.label_studio_results import (
    LABEL_KINDS,
    annotator_of,
    corners_of,
)
from harmonizer_assets.core.importers.malformed import MALFORMED, not_as
from harmonizer_assets.core.records.boxes import Points

_IMAGE: Final = ("image", "ocr", "img", "image_url", "url", "captioning")
_DECIMALS: Final = 4
_TEXTS: Final = ("transcription", "text")
_ANNOTATED: Final = ("annotations", "completions")


class LabelStudio(RoundTrip):
    """Tasks with annotations and predictions."""

    name = "label-studio"
    suffixes = (".json",)
    describes = "Label Studio: exports JSON and JSON_MIN of the OCR template"

    def read(self, source: SourceFile, options: ImportOptions) -> Iterator[Read]:
        """Read the tasks of a file."""
        path = source.path
        if not starts_with(path, b"["):
            raise InputError(f"{path}: not an export of Label Studio: it is no array of tasks")
        for number, task in enumerate(json_array(path)):
            row = f"task {number + 1}"
            try:
                yield from [*_read(source, row, number, as_object(task, "the task"), options)]
            except MALFORMED as error:
                yield not_as("Label Studio", path, row, error)

    def write_back(
        self, source: SourceFile, changes: Mapping[Place, str | None], options: ImportOptions
    ) -> WrittenBack:
        """Replace labels in the lists of regions."""
        del options
        by_task: dict[int, dict[Place, dict[int, str | None]]] = defaultdict(dict)
        for (task, *path, place), name in changes.items():
            by_task[task].setdefault((task, *path), {})[place] = name
        values: dict[Place, Any] = {}
        for number, task in enumerate(json_array(source.path)):
            for where, names in by_task.get(number, {}).items():
                values[where] = _changed(_at(task, where[1:]), names)
        return WrittenBack(written(source.path, values))


def _at(task: Any, path: Place) -> Any:
    for part in path:
        task = task[part]
    return task


def _changed(labels: Sequence[str], names: Mapping[int, str | None]) -> list[str]:
    new = [names.get(place, label) for place, label in enumerate(labels)]
    return [name for name in new if name is not None]


@dataclass
class _Region:
    """A word while it is put together from results of several annotations."""

    points: Points | None = None
    text: Any = None
    problem: str | None = None
    labels: list[SourceLabel] = field(default_factory=list)


def _read(
    source: SourceFile, row: str, number: int, task: Mapping[str, Any], options: ImportOptions
) -> Iterator[Read]:
    is_min = not any(name in task for name in (*_ANNOTATED, "predictions", "data"))
    data = task if is_min else as_object(task.get("data") or {}, "data")
    image = next((data[name] for name in _IMAGE if isinstance(data.get(name), str)), None)
    regions: dict[Any, _Region] = {}
    skipped = 0
    if is_min:
        _collect_min(regions, task, options)
    else:
        skipped = _collect(regions, number, task, options)
    if skipped:
        yield Problem(
            source.path,
            row,
            f"{skipped} labels that a model has proposed are not taken",
            "--predictions takes them",
            is_left_out=False,
        )
    words = []
    for place, region in enumerate(regions.values()):
        where = f"{row}, region {place + 1}"
        if region.problem:
            yield Problem(
                source.path,
                where,
                f"its position is left out: {region.problem}",
                is_left_out=False,
            )
        words.append(SourceWord(region.text, region.points, labels=region.labels, row=where))
    own = task.get("id")
    name = of_path(image) if image else str(own) if own is not None else f"{source.name}/{number}"
    merchant = data.get("merchant")
    yield SourceReceipt(
        name,
        source.path,
        words,
        row,
        unit="share",
        image=image,
        merchant_name=merchant if isinstance(merchant, str) and merchant else None,
    )


def _collect(
    regions: dict[Any, _Region], number: int, task: Mapping[str, Any], options: ImportOptions
) -> int:
    """Collect the regions of all annotations and predictions of a task.

    Returns:
        How many labels of predictions were not taken.
    """
    skipped = 0
    for member in (*_ANNOTATED, "predictions"):
        is_prediction = member == "predictions"
        for place, annotation in enumerate(as_list(task.get(member), member)):
            one = as_object(annotation, member)
            if one.get("was_cancelled"):
                continue
            by = one.get("model_version") if is_prediction else one.get("completed_by")
            label = SourceLabel(
                "",
                status="VALID" if one.get("ground_truth") else None,
                annotator=annotator_of(by) if not is_prediction else None,
                origin=f"prediction {by or ''}".strip() if is_prediction else "annotation",
            )
            found = _results(regions, one, (number, member, place, "result"), label)
            if is_prediction and not options.predictions:
                skipped += sum(1 for _ in found)
            else:
                for region, labels in found:
                    region.labels += labels
    return skipped


def _results(
    regions: dict[Any, _Region], annotation: Mapping[str, Any], path: Place, label: SourceLabel
) -> list[tuple[_Region, list[SourceLabel]]]:
    """Add the results of an annotation to the regions; return what labels it gives to them."""
    found = []
    ids: dict[Any, Any] = {}
    for place, result in enumerate(as_list(annotation.get("result"), "result")):
        one = as_object(result, "a result")
        value = one.get("value")
        if not isinstance(value, Mapping) or one.get("type") in ("relation", "choices"):
            continue
        key = _key(one, value, ids)
        region = regions.setdefault(key, _Region())
        _place_region(region, one)
        if region.text is None and "text" in value:
            region.text = _text(value["text"])
        labels = []
        for kind in LABEL_KINDS:
            for number, name in enumerate(as_list(value.get(kind), kind)):
                where = (*path, place, "value", kind, number)
                labels.append(
                    SourceLabel(
                        str(name),
                        label.status,
                        label.annotator,
                        label.origin,
                        _score(one),
                        where,
                    )
                )
        if labels:
            found.append((region, labels))
    return found


def _score(result: Mapping[str, Any]) -> float | None:
    score = result.get("score")
    return float(score) if isinstance(score, int | float) else None


def _key(result: Mapping[str, Any], value: Mapping[str, Any], ids: dict[Any, Any]) -> Any:
    """Return what tells a region from others: its place; by its id where a result has no place."""
    identity = result.get("id")
    identity = str(identity).partition("#")[0] if identity not in (None, "") else None
    place = _geometry(value)
    if place is None:
        return ids.get(identity, identity)
    if identity is not None:
        return ids.setdefault(identity, place)
    return place


def _geometry(value: Mapping[str, Any]) -> Any:
    if "points" in value:
        return json.dumps(value["points"])
    if "width" not in value:
        return None
    sides = (value.get(side) or 0 for side in ("x", "y", "width", "height", "rotation"))
    return tuple(round(float(side), _DECIMALS) for side in sides)


def _place_region(region: _Region, result: Mapping[str, Any]) -> None:
    if region.points is not None or region.problem is not None:
        return
    if _geometry(result["value"]) is None:
        return
    try:
        region.points = corners_of([result])
    except MALFORMED as error:
        region.problem = str(error)


def _text(text: Any) -> Any:
    return " ".join(map(str, text)) if isinstance(text, list) else text


# JSON_MIN


def _collect_min(
    regions: dict[Any, _Region], task: Mapping[str, Any], options: ImportOptions
) -> None:
    """Collect the regions of a task of JSON_MIN, whose results stand in a list for each tag."""
    del options
    by = annotator_of(task.get("annotator"))
    for values in task.values():
        if not isinstance(values, list):
            continue
        for value in values:
            if not isinstance(value, Mapping) or _geometry(value) is None:
                continue
            region = regions.setdefault(_geometry(value), _Region())
            _place_region(region, {**value, "value": value})
            region.labels += [
                SourceLabel(str(name), annotator=by, origin="annotation")
                for kind in LABEL_KINDS
                for name in as_list(value.get(kind), kind)
            ]
    texts = next((task[name] for name in _TEXTS if name in task), None)
    texts = [texts] if isinstance(texts, str) else as_list(texts, "transcription")
    if len(texts) != len(regions):
        raise ValueError(f"{len(regions)} regions and {len(texts)} texts")
    for region, text in zip(regions.values(), texts, strict=True):
        region.text = _text(text)
