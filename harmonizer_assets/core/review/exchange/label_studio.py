"""Label Studio: a task for each receipt, with a region for each label under review.

A region is a rectangle, its labels and its text, which share an id. The regions that are shown are
a prediction: who submits an annotation made from it agrees with what they leave as it is. What is
needed to find the labels again is in the task's data, by the ids of the regions; offsets and places
are not used for it. A region that a person has drawn is compared with the words by its corners.

Formats: https://labelstud.io/guide/predictions and https://labelstud.io/guide/task_format
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, Final
from xml.sax.saxutils import quoteattr

from harmonizer_assets.core.importers.label_studio_results import (
    annotator_of,
    corners_of,
    labels_of,
)
from harmonizer_assets.core.records.box import Box
from harmonizer_assets.core.records.label import LabelKey
from harmonizer_assets.core.review.exchange.base import (
    Drawn,
    Format,
    Opinion,
    Returned,
    Unusable,
)
from harmonizer_assets.core.review.exchange.json_files import (
    MALFORMED,
    MEMBER,
    read_array,
    write_array,
)
from harmonizer_assets.core.review.exchange.records import (
    ExchangeRecord,
    packed,
    unpacked_text,
)

_CONFIG: Final = """\
<View>
  <Image name="image" value="$image" zoom="true"/>
  <Labels name="label" toName="image">
{labels}
  </Labels>
  <Rectangle name="bbox" toName="image" strokeWidth="2"/>
  <Polygon name="poly" toName="image" strokeWidth="2"/>
  <TextArea name="transcription" toName="image" editable="true" perRegion="true"
            displayMode="region-list" rows="1" required="false"/>
</View>
"""
_MODEL: Final = "label-harmonizer"


class LabelStudio(Format):
    """Tasks with predictions for OCR, and the export `JSON` of Label Studio."""

    name = "label-studio"
    suffix = ".json"

    def write(
        self, path: Path, records: Sequence[ExchangeRecord], label_types: Sequence[str]
    ) -> None:
        """Write a task for each receipt."""
        del label_types
        receipts: dict[tuple[str, int], list[ExchangeRecord]] = defaultdict(list)
        for record in records:
            receipts[record.key[:2]].append(record)
        write_array(path, map(_task, receipts.values()))

    def config(self, label_types: Sequence[str]) -> tuple[str, str]:
        """Write the labelling configuration."""
        labels = "\n".join(f"    <Label value={quoteattr(name)}/>" for name in label_types)
        return ".config.xml", _CONFIG.format(labels=labels)

    def read(self, path: Path) -> Iterator[Returned | Drawn | Unusable]:
        """Read the tasks with the annotations of everybody."""
        for place, task in read_array(path, "task"):
            try:
                yield from [*_returned(place, task)]
            except MALFORMED as error:
                yield Unusable(place, f"not as Label Studio writes it ({error})")


def _task(records: Sequence[ExchangeRecord]) -> dict[str, Any]:
    shown = [record for record in records if record.box is not None]
    scores = [record.confidence for record in shown if record.confidence is not None]
    return {
        "data": {
            "image": next((one.image_uri for one in records if one.image_uri), ""),
            "merchant": records[0].merchant_name or "",
            MEMBER: {_region_id(record.key): packed(record) for record in records},
        },
        "predictions": [
            {
                "model_version": _MODEL,
                **({"score": round(fmean(scores), 6)} if scores else {}),
                "result": [part for record in shown for part in _region(record, record.box)],
            }
        ],
    }


def _region_id(key: LabelKey) -> str:
    return hashlib.sha256("\x1f".join(map(str, key)).encode()).hexdigest()[:16]


def _region(record: ExchangeRecord, box: Box | None) -> Iterator[dict[str, Any]]:
    """Write the results that make up a region."""
    if box is None:
        return
    place = _place(box)
    labels = record.proposed_labels
    yield _result(record, "rectangle", "bbox", place)
    if labels:
        yield _result(record, "labels", "label", {**place, "labels": labels})
    yield _result(record, "textarea", "transcription", {**place, "text": [record.text]})


def _place(box: Box) -> dict[str, float]:
    """Return the part of a box that is on the image, in percent of it."""
    left, right = _percent(box.x), _percent(box.x + box.width)
    top, bottom = _percent(box.y), _percent(box.y + box.height)
    return {"x": left, "y": top, "width": right - left, "height": bottom - top, "rotation": 0}


def _percent(share: float) -> float:
    return 100 * min(max(share, 0.0), 1.0)


def _result(
    record: ExchangeRecord, kind: str, name: str, value: Mapping[str, Any]
) -> dict[str, Any]:
    reasoning = record.proposal.reasoning if record.proposal else None
    return {
        "id": _region_id(record.key),
        "type": kind,
        "from_name": name,
        "to_name": "image",
        "value": value,
        **({} if record.confidence is None else {"score": record.confidence}),
        **({"meta": {"text": [reasoning]}} if reasoning else {}),
    }


def _returned(place: str, task: Mapping[str, Any]) -> Iterator[Returned | Drawn | Unusable]:
    carried = (task.get("data") or {}).get(MEMBER)
    if not isinstance(carried, Mapping):
        yield Unusable(place, "data.harmonizer is missing: it says which labels the task is about")
        return
    records: dict[str, ExchangeRecord] = {}
    for region_id, row in carried.items():
        try:
            records[region_id] = unpacked_text(row)
        except ValueError as error:
            yield Unusable(f"{place}, region {region_id}", str(error))
    opinions: dict[str, list[Opinion]] = defaultdict(list)
    for annotation in task.get("annotations") or ():
        annotated = _Annotation(place, annotation, records)
        for region_id, opinion in annotated.opinions():
            opinions[region_id].append(opinion)
        yield from annotated.others()
    for region_id, record in records.items():
        yield Returned(place, record, tuple(opinions[region_id]))


class _Annotation:
    """What one person has submitted for a task."""

    def __init__(
        self, place: str, annotation: Mapping[str, Any], records: Mapping[str, ExchangeRecord]
    ) -> None:
        self._place = f"{place}, annotation {annotation.get('id', '')}".rstrip()
        self._records = records
        self._by = annotator_of(annotation.get("completed_by"))
        self._version = str(annotation.get("updated_at") or annotation.get("id") or "")
        self._is_skipped = bool(annotation.get("was_cancelled"))
        self._results: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
        for result in annotation.get("result") or ():
            self._results[str(result.get("id", "")).partition("#")[0]].append(result)

    @property
    def _is_from_prediction(self) -> bool:
        return not self._results.keys().isdisjoint(self._records)

    def opinions(self) -> Iterator[tuple[str, Opinion]]:
        """Return what is said about the regions that were exported, by their ids."""
        if not (self._is_skipped or self._is_from_prediction):
            return
        for region_id, record in self._records.items():
            if record.box is not None:
                labels = None if self._is_skipped else labels_of(self._results.get(region_id, ()))
                yield region_id, Opinion(labels, self._by, version=self._version)

    def others(self) -> Iterator[Drawn | Unusable]:
        """Return the regions that were not exported, and what cannot be used."""
        if self._is_skipped:
            return
        if not self._is_from_prediction:
            yield Unusable(
                self._place,
                "it has none of the regions that were exported: annotate what the prediction "
                "shows, or all its labels would be taken for deleted",
            )
            return
        for region_id, results in self._results.items():
            record = self._records.get(region_id)
            if record is None:
                yield from self._drawn(results)
            elif (text := _changed_text(results, record)) is not None:
                yield Unusable(
                    self._place,
                    f"the text {record.text!r} was changed to {text!r}: only labels are imported",
                )

    def _drawn(self, results: Sequence[Mapping[str, Any]]) -> Iterator[Drawn | Unusable]:
        try:
            corners = corners_of(results)
        except MALFORMED as error:
            yield Unusable(self._place, f"a new region cannot be placed: {error}")
            return
        near = next(iter(self._records.values()))
        for label in labels_of(results):
            opinion = Opinion((label,), self._by, version=self._version)
            yield Drawn(self._place, near, label, corners, opinion)


def _changed_text(results: Sequence[Mapping[str, Any]], record: ExchangeRecord) -> str | None:
    """Return the text that a person has given the word; None where it is as it was.

    Tools may compose or decompose letters, which is no change.
    """
    for result in results:
        text = (result.get("value") or {}).get("text")
        if isinstance(text, list):
            text = "\n".join(map(str, text))
        if text is not None and _composed(text) != _composed(record.text):
            return str(text)
    return None


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text).strip()
