"""How well names of merchants are put together, and how long it takes.

    python -m benchmarks.merchants --sroie ../shared/data/sroie_dev/labels.parquet
    python -m benchmarks.merchants --names 100000

The first lists every merge among real names, to be judged by eye, and measures the recall on
variants of them: each name written in each of the ways in which people and OCR write it. The second
measures the processor's time for that many names, a third of them variants of others.
"""

from __future__ import annotations

import argparse
import datetime as dt
import random
import resource
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import pyarrow.parquet as pq

from harmonizer_assets.core.measure.samples.lexicon import CITIES, STREETS
from harmonizer_assets.core.merchants.grouping import Rules, SeenName, group_names
from harmonizer_assets.core.merchants.near import near_names
from harmonizer_assets.core.merchants.overrides import MerchantOverrides

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
Variant = Callable[[str, random.Random], str]

DIGITS = {"O": "0", "I": "1", "L": "1", "S": "5", "B": "8", "G": "6", "Z": "2", "A": "4"}
SHAPES = {"E": "F", "C": "G", "O": "Q", "I": "L", "L": "I", "U": "V", "H": "B", "M": "RN"}


def _at_one(name: str, rnd: random.Random, changes: dict[str, str]) -> str:
    places = [place for place, letter in enumerate(name.upper()) if letter in changes]
    if not places:
        return name
    place = rnd.choice(places)
    return name[:place] + changes[name[place].upper()] + name[place + 1 :]


def _without_one(name: str, rnd: random.Random) -> str:
    places = [place for place, letter in enumerate(name) if letter.isalpha()]
    place = rnd.choice(places)
    return name[:place] + name[place + 1 :]


def _another_letter(name: str, rnd: random.Random) -> str:
    place = rnd.choice([place for place, letter in enumerate(name) if letter.isalpha()])
    return name[:place] + rnd.choice("ABDEKMNRSTXW") + name[place + 1 :]


VARIANTS: dict[str, Variant] = {
    "case": lambda name, _: name.title() if name != name.title() else name.upper(),
    "trailing blank": lambda name, _: f"{name} ",
    "doubled blanks": lambda name, _: name.replace(" ", "  "),
    "blanks left out": lambda name, _: name.replace(" ", ""),
    "curly apostrophes": lambda name, _: name.replace("'", "\u2019"),
    "no apostrophes": lambda name, _: name.replace("'", ""),
    "no punctuation": lambda name, _: name.replace(".", "").replace("-", " "),
    "# and number": lambda name, rnd: f"{name} #{rnd.randint(1, 9_999)}",
    "Store and number": lambda name, rnd: f"{name} Store {rnd.randint(1, 9_999)}",
    "No. and number": lambda name, rnd: f"{name} No. {rnd.randint(1, 9_999)}",
    "Inc.": lambda name, _: f"{name}, Inc.",
    "Sdn Bhd": lambda name, _: f"{name} SDN. BHD.",
    "slip: digit for letter": lambda name, rnd: _at_one(name, rnd, DIGITS),
    "slip: look-alike letter": lambda name, rnd: _at_one(name, rnd, SHAPES),
    "slip: letter left out": _without_one,
    "slip: any other letter": _another_letter,
}
"""Ways to write a name. The last two are not merged, but listed as alike."""


def _merchants(names: Iterable[str]) -> dict[str, str]:
    seen = [SeenName(name, NOW, labels) for name, labels in Counter(names).items()]
    found = group_names(seen, MerchantOverrides(), Rules())
    return {name: merchant.key for name, merchant in found.items()}


def real(path: Path) -> None:
    """List the merges among real names, and measure the recall on variants of each."""
    names = Counter(name for name in pq.read_table(path)["merchant_name"].to_pylist() if name)
    seen = [SeenName(name, NOW, labels) for name, labels in names.items()]
    found = group_names(seen, MerchantOverrides(), Rules())
    keys = {merchant.key for merchant in found.values()}
    print(f"{len(names)} names of {len(keys)} merchants")
    for name, merchant in sorted(found.items()):
        if name != merchant.name:
            print(f"  {name!r} is {merchant.name!r} ({merchant.how})")
    alike = near_names([(name, merchant.name) for name, merchant in found.items()])
    print(f"{len(alike)} pairs are alike and stay apart")
    for one in alike:
        print(f"  {one.merchant!r} | {one.other!r} ({one.edits})")
    print(f"{'way to write':26}{'written':>8}{'merged':>8}{'share':>8}{'wrong':>7}")
    for way, write in VARIANTS.items():
        _recall(way, write, sorted(names), {name: one.key for name, one in found.items()})


def _recall(way: str, write: Variant, names: list[str], before: dict[str, str]) -> None:
    """Write each name in one way; `wrong` counts merchants that became one by it."""
    rnd = random.Random(7)
    variants = {name: write(name, rnd) for name in names}
    variants = {name: variant for name, variant in variants.items() if variant != name}
    keys = _merchants([*names, *variants.values()])
    merged = sum(keys[name] == keys[variant] for name, variant in variants.items())
    wrong = len(set(before.values())) - len({keys[name] for name in names})
    share = merged / len(variants) if variants else 0.0
    print(f"{way:26}{len(variants):8}{merged:8}{share:8.3f}{wrong:7}")


def many(number: int) -> None:
    """Measure the processor's time for so many names, of which a third are variants of others."""
    rnd = random.Random(7)
    syllables = ["ka", "lo", "mi", "ren", "ta", "su", "bor", "el", "dan", "fi", "gar", "hu", "jo"]
    kinds = ["Market", "Trading", "Hardware", "Cafe", "Restaurant", "Pharmacy", "Motors", "Books"]
    places = [*CITIES, *STREETS]
    names: set[str] = set()
    while len(names) < number:
        word = "".join(rnd.choices(syllables, k=rnd.randint(2, 4))).title()
        name = f"{word} {rnd.choice(kinds)} {rnd.choice(places)}".upper()
        names.add(name)
        if rnd.random() < 0.5:
            names.add(rnd.choice(list(VARIANTS.values()))(name, rnd))
    began = time.process_time()
    keys = _merchants(sorted(names))
    seconds = time.process_time() - began
    began = time.process_time()
    alike = near_names(sorted(keys.items()))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{len(names):,} names, {len(set(keys.values())):,} merchants: {seconds:.1f} s; "
        f"{len(alike):,} alike pairs: {time.process_time() - began:.1f} s; {peak:.0f} MB"
    )


def main() -> None:
    """Run what the options name."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sroie", type=Path, help="a labels file with real merchants")
    parser.add_argument("--names", type=int, action="append", default=[], help="how many names")
    options = parser.parse_args()
    if options.sroie:
        real(options.sroie)
    for number in options.names:
        many(number)


if __name__ == "__main__":
    main()
