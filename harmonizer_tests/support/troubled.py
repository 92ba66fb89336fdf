"""Receipts on which everything is found that a run publishes: outliers, alarms, patterns."""

from __future__ import annotations

from typing import Final

from harmonizer_tests.support.receipts import Receipts, shop_receipts

SHOPS: Final = ("Alpha Mart", "Beta Cafe", "Gamma Bar")
SHIFTED: Final = "image-1-2"
"""The receipt whose columns have shifted."""
MISNAMED: Final = "image-2-3"
"""The receipt of the last shop that bears the first shop's name."""

_SWAPPED: Final = {"PRODUCT_NAME": "LINE_TOTAL", "LINE_TOTAL": "PRODUCT_NAME"}
_PRINTED_OTHERWISE: Final = {
    "12": "No.345",
    "High": "Lakeside",
    "Street": "Quarter",
    "2024-03-07": "7/Mar/24",
    "14:05": "02h05m",
    "Coffee": "BAGEL-XL",
    "Sandwich": "SALAD-XL",
    "TOTAL": "SUMME",
    "SUBTOTAL": "ZWISCHENSUMME",
}


def troubled_receipts() -> Receipts:
    """Six receipts of each shop, of which the last one prints everything in its own way."""
    receipts = shop_receipts(SHOPS, each=6)
    for word in receipts.words:
        if word["image_id"].startswith("image-2-"):
            text = str(word["text"])
            word["text"] = _PRINTED_OTHERWISE.get(text, text.replace(".", ",") + "kr")
    for label in receipts.labels:
        image, kind = label["image_id"], label["label"]
        if image == SHIFTED and kind in _SWAPPED:
            label.update(label=_SWAPPED[kind], validation_status="PENDING")
        if kind == "TIME" and image.endswith(("-0", "-1")):
            label.update(label="DATE", validation_status="PENDING")
        if image == MISNAMED:
            label["merchant_name"] = SHOPS[0]
    return receipts
