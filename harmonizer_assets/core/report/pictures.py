"""Pictures of what was found, as PNG images: similarity, the heat map, cost against finds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from harmonizer_assets.core.base.figure import can_draw, png
from harmonizer_assets.core.decide.explain import printable
from harmonizer_assets.core.records.label import WORD_COLUMNS
from harmonizer_assets.core.records.partition import PartitionKey
from harmonizer_assets.core.stages.stage import partition_table
from harmonizer_assets.core.store.warehouse import Connection, Warehouse

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BINS: Final = 25
_MERCHANTS: Final = 25
_MAX_NAME: Final = 28
_LETTERS: Final = 0x0530
"""End of Latin, Greek and Cyrillic, which matplotlib's own font covers."""
_VALID, _WRONG, _OPEN = "#1f5fa8", "#c0392b", "#d9a441"

_SIMILARITY: Final = f"""
SELECT least(floor(s.best_similarity * {_BINS}), {_BINS - 1})::INTEGER AS bin,
    count(*) FILTER (WHERE d.is_outlier IS FALSE) AS valid,
    count(*) FILTER (WHERE d.is_outlier) AS wrong,
    count(*) FILTER (WHERE d.is_outlier IS NULL) AS undecided
FROM similarity_matches s
JOIN standing_decisions d USING ({WORD_COLUMNS}, label_type, merchant_key)
{{where}}
GROUP BY bin ORDER BY bin
"""

_HEAT: Final = f"""
WITH busiest AS (
    SELECT merchant_key, coalesce(min(n.merchant), min(merchant_name), 'unknown') AS merchant_name,
        count(*) FILTER (WHERE is_outlier) AS wrong
    FROM standing_decisions
    LEFT JOIN (SELECT DISTINCT merchant_key, merchant FROM merchant_names) n USING (merchant_key)
    GROUP BY merchant_key
    ORDER BY wrong DESC, merchant_key LIMIT {_MERCHANTS}
)
SELECT d.label_type, b.merchant_key, b.merchant_name, b.wrong,
    count(*) FILTER (WHERE d.is_outlier) / count(*) AS share
FROM standing_decisions d JOIN busiest b USING (merchant_key)
GROUP BY ALL ORDER BY b.wrong DESC, b.merchant_key, d.label_type
"""

_COST: Final = """
SELECT d.label_type, d.wrong, d.judged, coalesce(u.cost_usd, 0) AS cost_usd
FROM (
    SELECT label_type, count(*) FILTER (WHERE is_outlier) AS wrong,
        count(*) FILTER (WHERE decided_by <> 'similarity') AS judged
    FROM standing_decisions GROUP BY label_type
) d
LEFT JOIN (SELECT label_type, sum(cost_usd) AS cost_usd FROM llm_usage GROUP BY label_type) u
    USING (label_type)
ORDER BY d.label_type
"""


def pictures(warehouse: Warehouse) -> dict[str, bytes]:
    """Draw similarity, the heat map and cost against finds, by name; none without matplotlib."""
    if not can_draw():
        return {}
    return {
        "similarity_distribution": similarity_distribution(warehouse),
        "heat_map": heat_map(warehouse),
        "cost_against_finds": cost_against_finds(warehouse),
    }


def similarity_distribution(warehouse: Warehouse, partition: PartitionKey | None = None) -> bytes:
    """Draw how similar labels are to the nearest of their type, by what was decided about them.

    Args:
        warehouse: holds the tables.
        partition: only the labels of this partition; None means all.
    """

    def read(con: Connection) -> list[tuple[int, int, int, int]]:
        where = ""
        if partition is not None:
            con.register("pictured", partition_table([partition]))
            where = "SEMI JOIN pictured USING (label_type, merchant_key)"
        return con.execute(_SIMILARITY.format(where=where)).fetchall()

    rows = warehouse.read(read)

    def paint(axes: Axes) -> None:
        counts = np.zeros((3, _BINS))
        for place, *found in rows:
            counts[:, max(place, 0)] = found
        edges = np.arange(_BINS) / _BINS
        bottom = np.zeros(_BINS)
        for row, name, color in zip(
            counts, ("valid", "outlier", "unresolved"), (_VALID, _WRONG, _OPEN), strict=True
        ):
            axes.bar(edges, row, 1 / _BINS, bottom, align="edge", color=color, label=name)
            bottom += row
        axes.set_yscale("symlog", linthresh=10)
        axes.set_xlim(0, 1)
        axes.set_xlabel("similarity to the nearest label of the same type")
        axes.set_ylabel("labels")
        axes.legend(frameon=False, fontsize=8)
        axes.set_title("How alike labels of one type are", fontsize=10)

    return png((4.8, 3.2), lambda figure: paint(figure.add_subplot()))


def heat_map(warehouse: Warehouse) -> bytes:
    """Draw the share of wrong labels, label type x merchant, of the merchants with most."""
    rows = warehouse.query(_HEAT).to_pylist()
    types = sorted({row["label_type"] for row in rows})
    merchants = list({row["merchant_key"]: row["merchant_name"] for row in rows}.items())
    places = {key: place for place, (key, _) in enumerate(merchants)}
    shares = np.full((max(len(merchants), 1), max(len(types), 1)), np.nan)
    for row in rows:
        shares[places[row["merchant_key"]], types.index(row["label_type"])] = row["share"]

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        image = axes.imshow(shares, cmap="Reds", vmin=0, vmax=1, aspect="auto")
        axes.set_xticks(range(len(types)), types, rotation=90, fontsize=7)
        names = [_name(name, key) for key, name in merchants]
        # Merchants' names are text, never mathematics.
        axes.set_yticks(range(len(names)), names, fontsize=7, parse_math=False)
        axes.set_title("Share of wrong labels (blank: no such labels)", fontsize=10)
        figure.colorbar(image, ax=axes, shrink=0.6)

    return png((7.0, 1.6 + 0.2 * len(merchants)), paint)


def cost_against_finds(warehouse: Warehouse) -> bytes:
    """Draw what each label type cost, and how many wrong labels were found for it.

    Where no model has been paid, the cost is the number of labels that had to be judged.
    """
    rows = warehouse.query(_COST).to_pylist()
    paid = any(row["cost_usd"] for row in rows)

    def paint(axes: Axes) -> None:
        for row in rows:
            cost = row["cost_usd"] if paid else row["judged"]
            axes.plot([cost], [row["wrong"]], "o", color=_VALID)
            axes.annotate(
                row["label_type"],
                (cost, row["wrong"]),
                fontsize=7,
                xytext=(4, 3),
                textcoords="offset points",
                parse_math=False,
            )
        axes.set_xlabel("cost in USD" if paid else "labels judged (no model was paid)")
        axes.set_ylabel("wrong labels found")
        axes.margins(x=0.2)
        axes.grid(alpha=0.25)
        axes.set_title("Cost against finds, per label type", fontsize=10)

    return png((5.6, 3.6), lambda figure: paint(figure.add_subplot()))


def _name(name: str, key: str) -> str:
    """Choose the name of a merchant if the plot's font has its letters, else its key."""
    shown = printable(name)
    if not all(ord(character) < _LETTERS for character in shown):
        shown = key.encode("ascii", "ignore").decode().strip("-")
    return shown if len(shown) <= _MAX_NAME else f"{shown[: _MAX_NAME - 1]}…"
