"""Which names are one merchant: by rules, and by what people say."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harmonizer_assets.core.base.config_files import parse_yaml
from harmonizer_assets.core.base.errors import ConfigurationError
from harmonizer_assets.core.merchants.grouping import (
    Merchant,
    Rules,
    SeenName,
    group_names,
)
from harmonizer_assets.core.merchants.near import near_names
from harmonizer_assets.core.merchants.overrides import MerchantOverrides

START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
NOTHING_SAID = MerchantOverrides()


def grouped(
    names: Iterable[str], overrides: MerchantOverrides = NOTHING_SAID, rules: Rules | None = None
) -> dict[str, Merchant]:
    """Group names that came one a day, in this order."""
    seen = [SeenName(name, START + dt.timedelta(days=day), 1) for day, name in enumerate(names)]
    return group_names(seen, overrides, rules or Rules())


def are_one(*names: str, overrides: MerchantOverrides = NOTHING_SAID) -> bool:
    return len({merchant.key for merchant in grouped(names, overrides).values()}) == 1


def said(yaml: str) -> MerchantOverrides:
    return parse_yaml(yaml, "merchants.yaml", MerchantOverrides)


@pytest.mark.parametrize(
    ("one", "other", "how"),
    [
        ("SPROUTS FARMERS MARKET", "Sprouts Farmers Market", "spelling"),
        ("Sprouts Farmers Market", "Sprouts  Farmers Market ", "spelling"),
        ("Trader Joe's", "TRADER JOE’S", "spelling"),  # noqa: RUF001
        ("Trader Joe's", "Trader Joes", "spelling"),
        ("7-Eleven", "7 ELEVEN", "spelling"),
        ("Café Central", "CAFE CENTRAL", "spelling"),
        ("A & W", "A and W", "spelling"),
        ("MR. D.I.Y. (M) SDN BHD", "MR.D.I.Y(M)SDN BHD", "spelling"),
        ("7-ELEVEN", "7-ELEVEN #123", "store number"),
        ("7-ELEVEN #123", "7-Eleven #124", "store number"),
        ("7-ELEVEN", "7-Eleven Store 123", "store number"),
        ("7-ELEVEN", "7-Eleven Store No. 123", "store number"),
        ("7-ELEVEN", "7-Eleven No. 12", "store number"),
        ("Apple Store", "Apple Store 12", "store number"),
        ("Sprouts", "Sprouts, Inc.", "legal form"),
        ("Popular Book", "Popular Book Sdn. Bhd.", "legal form"),
        ("Yong Soon Fatt", "YONG SOON FATT S/B", "legal form"),
        ("Popular Book Sdn. Bhd.", "POPULARBOOKSDNBHD", "spelling"),
        ("Popular Book", "Popular Book S/B, Inc.", "legal form"),
        ("Acme Ltd", "ACME L.T.D.", "spelling"),
        ("7-ELEVEN", "7-Eleven, Inc. #123", "legal form, store number"),
        ("SPROUTS FARMERS MARKET", "SPR0UTS FARMERS MARKET", "look-alike letters"),
        ("SPROUTS FARMERS MARKET", "SPROUTS FARMER5 MARKET", "look-alike letters"),
        ("SPROUTS FARMERS MARKET", "SPROUTS FARMERS MARKFT", "look-alike letters"),
        ("SPROUTS FARMERS MARKET", "SPROUTS FARRNERS MARKET", "look-alike letters"),
        ("GL HANDICRAFT & TAILORING", "GL HANDICRAFT & TAIIORING", "look-alike letters"),
        ("99 SPEED MART", "99 5PEED MART", "look-alike letters"),
        ("TESCO", "TESC0", "look-alike letters"),
    ],
)
def test_ways_to_write_a_merchant(one, other, how):
    found = grouped([one, other])
    assert found[one].key == found[other].key
    assert found[one] == Merchant(one.strip(), found[one].key, "itself")
    assert found[other].how == how


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("SHELL NORTH", "SHELL SOUTH"),
        ("99 SPEED MART", "98 SPEED MART"),
        ("KFC", "KFC EXPRESS"),
        ("Shell 12", "Shell 13"),
        ("Shell", "Shell 12"),
        ("BHPETROL PERMAS JAYA", "BHPETROL PERMAS JAYA 2"),
        ("STORE 24", "STORE 25"),
        ("No. 1 Noodle House", "No. 8 Noodle House"),
        ("Route No. 66 Diner", "Route No. 65 Diner"),
        ("24 7 Mart", "247 Mart"),
        ("Heavenly", "Heavenly Spa"),
        ("Bread", "Bread Company"),
        ("Restoran", "Restoran S.K.A."),
        ("Nadeje Platinum", "Nadeje Prestige"),
        ("MR D.I.Y. (M) SDN BHD", "MR D.I.Y. (JOHOR) SDN BHD"),
        ("Chang Hardware", "Cheng Hardware"),
        ("Clover Cafe", "Glover Cafe"),
        ("East Food", "Fast Food"),
        ("Raging Bull Grill", "Racing Bull Grill"),
        ("Philips", "Phillips"),
        ("Johnson Controls", "Johnston Controls"),
        ("Shops", "Shop5"),
        ("S8 Mart", "SB Mart"),
        ("A1 Car", "AL Car"),
        ("101 Cafe", "1O1 Cafe"),
        ("Canal+", "Canal"),
        ("C#", "C"),
        ("***", "---"),
        ("が", "か"),
        ("हिन्दी", "हन्दी"),
    ],
)
def test_a_meaningful_difference_is_never_merged(one, other):
    assert not are_one(one, other)


def test_the_word_store_belongs_to_a_name_that_is_also_written_without_a_number():
    found = grouped(["Dollar", "Dollar Store", "Dollar Store 12"])
    assert found["Dollar Store 12"].name == "Dollar Store"
    assert found["Dollar"].key != found["Dollar Store"].key


def test_a_slip_that_fits_two_merchants_is_neither():
    assert len({merchant.key for merchant in grouped(["MAIL", "MALL", "MA1L"]).values()}) == 3


def test_slips_do_not_add_up():
    chain = ["SPROUTS FARMERS MARKET", "SPROUTS FARMERS MARKFT", "SPROUTS FARMFRS MARKFT"]
    found = grouped([*chain, "SPRQUTS FARMFRS MARKFT"])
    assert len({merchant.key for merchant in found.values()}) == 2
    assert found[chain[0]].key != found["SPRQUTS FARMFRS MARKFT"].key


def test_many_slips_of_one_name_are_that_name():
    name = "SPROUTS FARMERS MARKET"
    slips = ["SPR0UTS FARMERS MARKET", "SPROUTS FARMFRS MARKET", "SPROUTS FARMERS MARKFT"]
    assert are_one(*slips, name)
    assert are_one(name, "SPROUTS FARMERS MARKFT", "SPR0UTS FARMERS MARKFT", slips[0])


def test_words_that_other_names_use_too_are_no_slips_of_each_other():
    names = ["Golden Charms Cafe", "Golden Eharms Cafe"]
    assert not are_one(*names)
    words = ["Marion Foods", "Marlon Foods"]
    assert are_one(*words)
    found = grouped([*words, "Marion Books", "Marlon Shoes"])
    assert found["Marion Foods"].key != found["Marlon Foods"].key


def test_the_key_is_that_of_the_name_seen_first_and_does_not_change_when_more_arrive():
    first = grouped(["7-ELEVEN #12"])
    more = grouped(["7-ELEVEN #12", "7-Eleven", "7 eleven", "7-ELEVEN Inc."])
    assert {merchant.key for merchant in more.values()} == {first["7-ELEVEN #12"].key}


def test_of_names_that_came_together_the_most_frequent_gives_the_key():
    seen = [SeenName("SPROUTS", START, 5), SeenName("Sprouts", START, 7)]
    assert group_names(seen, NOTHING_SAID, Rules())["SPROUTS"].name == "Sprouts"


def test_rules_can_be_switched_off():
    names = ["Sprouts", "SPROUTS", "SPR0UTS"]
    spellings = grouped(names, rules=Rules(look_alikes=False))
    assert spellings["Sprouts"].key == spellings["SPROUTS"].key != spellings["SPR0UTS"].key
    nothing = grouped(names, rules=Rules(spellings=False))
    assert len({merchant.key for merchant in nothing.values()}) == 3


def test_a_file_puts_names_together_and_their_spellings_follow():
    overrides = said("merchants: {Sprouts Farmers Market: [SFM, Sprts Mkt]}")
    names = ["SPROUTS FARMERS MARKET", "SFM", "sfm", "Sprts Mkt", "SFM Express"]
    found = grouped(names, overrides)
    assert {found[name].name for name in names[:4]} == {"Sprouts Farmers Market"}
    assert len({found[name].key for name in names}) == 2
    assert [found[name].how for name in names] == [
        "spelling", "merchants.yaml", "merchants.yaml", "merchants.yaml", "itself",
    ]  # fmt: skip


def test_a_file_keeps_names_apart_and_the_others_stay_together():
    overrides = said("apart: ['7-ELEVEN #123']")
    names = ["7-ELEVEN", "7-Eleven #7", "7-ELEVEN #123", "7-eleven  #123"]
    found = grouped(names, overrides)
    assert found["7-ELEVEN"].key == found["7-Eleven #7"].key
    assert found["7-ELEVEN #123"].key == found["7-eleven  #123"].key
    assert found["7-ELEVEN"].key != found["7-ELEVEN #123"].key


def test_a_file_may_tell_spellings_apart():
    overrides = said("apart: [Sprouts, SPROUTS]")
    found = grouped(["Sprouts", "SPROUTS", "sprouts"], overrides)
    assert len({merchant.key for merchant in found.values()}) == 3


@pytest.mark.parametrize(
    ("yaml", "problem"),
    [
        ("merchant: {A: [B]}", "merchants.yaml: merchant: "),
        ("merchants: [A]", "merchants.yaml: merchants: "),
        ("merchants: {A: B}", "merchants.yaml: merchants.A: "),
        ("merchants: {A: [B], C: [B]}", "'B' stands in merchants.A and in merchants.C: keep one"),
        ("{merchants: {A: }, apart: [A]}", "'A' stands in merchants.A and in apart"),
        ("apart: ['  ']", "apart: a name is empty"),
        ("{merchants: {A: [B], A: [C]}}", "'A' stands twice"),
    ],
)
def test_a_mistake_in_the_file_is_an_error_that_names_file_and_field(yaml, problem):
    with pytest.raises(ConfigurationError) as raised:
        said(yaml)
    assert problem in str(raised.value)


def test_names_that_are_alike_and_stay_apart_are_listed():
    names = ["Philips", "Phillips", "TED HENG BOOKS", "TEO HENG BOOKS", "Shell 12", "Shell 13"]
    found = near_names([(name, name) for name in names])
    assert [(one.merchant, one.other) for one in found] == [
        ("Philips", "Phillips"),
        ("TED HENG BOOKS", "TEO HENG BOOKS"),
    ]
    found = near_names([("FARMRS MARKET", "A"), ("FARMERS MARKET", "B"), ("FARMERS", "C")])
    assert [tuple(one) for one in found] == [("A", "B", 1)]


WORDS = st.text("ABCDEFGHIKLMNOPRSTUVWYZ", min_size=2, max_size=9)
NAMES = st.lists(WORDS, min_size=1, max_size=4).map(" ".join)
VARIANTS = st.sampled_from(
    [
        str.lower,
        str.title,
        lambda name: f" {name} ",
        lambda name: name.replace(" ", "  "),
        lambda name: name.replace(" ", "-"),
        lambda name: f"{name}.",
        lambda name: f"{name[:-1]}'{name[-1]}",
        lambda name: f"{name[:-1]}’{name[-1]}",  # noqa: RUF001
    ]
)


@given(NAMES, VARIANTS, VARIANTS)
def test_case_blanks_and_apostrophes_never_make_another_merchant(name, one, other):
    assert are_one(name, one(name), other(name))
    assert are_one(name, other(one(name)))


@given(st.lists(WORDS, min_size=1, max_size=4, unique=True), WORDS, st.data())
def test_another_word_is_another_merchant(words, word, data):
    place = data.draw(st.integers(0, len(words) - 1))
    # Slips are of one letter, or of two for one: two words this different are not slips.
    if (
        abs(len(words[place]) - len(word)) > 1
        or sum(left != right for left, right in zip(words[place], word, strict=False)) > 2
    ):
        changed = [*words[:place], word, *words[place + 1 :]]
        if "".join(changed) != "".join(words):
            assert not are_one(" ".join(words), " ".join(changed))


@given(NAMES, st.integers(1, 9_999), st.integers(1, 9_999))
def test_a_number_in_a_name_is_meaningful(name, one, other):
    assert are_one(f"{name} {one}", f"{name} {other}") == (one == other)
    assert are_one(f"{one} {name}", f"{other} {name}") == (one == other)


@given(st.lists(NAMES, min_size=1, max_size=12, unique=True), st.lists(VARIANTS, max_size=4))
def test_the_result_depends_on_neither_order_nor_repetition(names, variants):
    written = list(dict.fromkeys([*names, *(how(name) for name in names for how in variants)]))
    seen = [SeenName(name, START, 1) for name in written]
    found = group_names(seen, NOTHING_SAID, Rules())
    shuffled = random.Random(len(seen)).sample(seen, len(seen))
    assert group_names(shuffled, NOTHING_SAID, Rules()) == found
    assert group_names(seen, NOTHING_SAID, Rules()) == found
    # A merchant's key is that of a name it has.
    assert all(
        found[name].how == "itself" or found[name].name in {one.strip() for one in written}
        for name in written
    )


@given(st.lists(NAMES, min_size=2, max_size=8, unique=True), st.data())
def test_what_people_say_wins(names, data):
    title, *others = names
    listed = data.draw(st.lists(st.sampled_from(others), unique=True))
    apart = [name for name in others if name not in listed]
    overrides = MerchantOverrides(merchants={title: tuple(listed)}, apart=tuple(apart))
    found = grouped(names, overrides)
    assert len({found[name].key for name in [title, *listed]}) == 1
    assert len({found[name].key for name in [title, *apart]}) == 1 + len(apart)


@given(st.text(max_size=300), st.text(max_size=300))
def test_any_text_can_be_a_name(one, other):
    names = [name for name in dict.fromkeys([one, other]) if name.strip()]
    found = grouped(names)
    assert set(found) == set(names)
    near_names([(name, found[name].name) for name in names])
