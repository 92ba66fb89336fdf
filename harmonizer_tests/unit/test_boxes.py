"""The one function that brings coordinates into shares of the image."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harmonizer_assets.core.records.boxes import SLIGHTLY, flat, normalise, rectangle, sized

SIDES = st.floats(1, 10_000)
SHARES = st.floats(0, 1)


@st.composite
def quads(draw: st.DrawFn) -> list[tuple[float, float]]:
    """A rectangle within the unit square, turned about its middle."""
    x, y = draw(st.floats(0.3, 0.7)), draw(st.floats(0.3, 0.7))
    width, height = draw(st.floats(0.05, 0.2)), draw(st.floats(0.05, 0.2))
    turn = draw(st.floats(-math.pi, math.pi))
    cos, sin = math.cos(turn), math.sin(turn)
    corners = [(-width, -height), (width, -height), (width, height), (-width, height)]
    return [(x + a * cos - b * sin, y + a * sin + b * cos) for a, b in corners]


@given(quads(), SIDES, SIDES, st.integers(0, 3), st.booleans())
def test_a_quad_is_the_same_from_whatever_corner_and_in_either_direction(
    quad, width, height, start, is_reversed
):
    pixels = [(x * width, y * height) for x, y in quad]
    turned = [*pixels[start:], *pixels[:start]]
    found = normalise(turned[::-1] if is_reversed else turned, width, height)
    wanted = normalise(pixels, width, height)
    assert found == wanted


PIXELS = st.integers(1, 5_000)


@given(PIXELS, PIXELS, st.data())
def test_a_box_is_the_same_to_the_last_digit_from_pixels_and_from_shares(across, down, data):
    slightly = [(-(side // 20), side + side // 20) for side in (across, down)]
    left, right, top, bottom = (
        edge for ends in slightly for edge in sorted(data.draw(st.integers(*ends)) for _ in "12")
    )
    pixels = rectangle(left, top, right, bottom)
    found = normalise(pixels, across, down)
    shares = left / across, top / down, (right - left) / across, (bottom - top) / down
    if found.is_clipped:
        assert found.box == normalise(sized(*shares), 1.0, 1.0).box
    else:
        assert tuple(vars(found.box).values()) == shares


@given(quads(), SIDES, SIDES)
def test_the_box_is_the_smallest_one_around_all_corners(quad, width, height):
    box = normalise([(x * width, y * height) for x, y in quad], width, height).box
    assert box.x == pytest.approx(min(x for x, _ in quad))
    assert box.y == pytest.approx(min(y for _, y in quad))
    assert box.x + box.width == pytest.approx(max(x for x, _ in quad))
    assert box.y + box.height == pytest.approx(max(y for _, y in quad))


@given(quads())
def test_a_turned_quad_keeps_its_corners_clockwise_from_the_top_left(quad):
    found = normalise(quad, 1, 1).quad
    if found is None:
        return
    corners = list(flat(found))
    assert all(min(math.dist(one, other) for other in quad) < 1e-9 for one in corners)
    area = sum(
        ax * by - bx * ay
        for (ax, ay), (bx, by) in zip(corners, [*corners[1:], corners[0]], strict=True)
    )
    assert area > 0  # clockwise, with y down
    assert sum(corners[0]) == min(x + y for x, y in corners)


@given(
    st.lists(st.tuples(*[st.floats(-SLIGHTLY, 1 + SLIGHTLY)] * 2), min_size=2, max_size=8),
    SIDES,
    SIDES,
)
def test_whatever_is_near_the_image_ends_within_it(points, width, height):
    found = normalise([(x * width, y * height) for x, y in points], width, height)
    box = found.box
    assert 0 <= box.x <= box.x + box.width <= 1 + 1e-12
    assert 0 <= box.y <= box.y + box.height <= 1 + 1e-12
    outside = any(not (0 <= value <= 1) for x, y in points for value in (x, y))
    if outside and all(abs(v) > 1e-9 and abs(v - 1) > 1e-9 for point in points for v in point):
        assert found.is_clipped


@given(SHARES, SHARES, SHARES, SHARES)
def test_two_opposite_corners_make_an_upright_box_whichever_they_are(a, b, c, d):
    boxes = {
        normalise(points, 1, 1).box
        for points in (((a, b), (c, d)), ((c, d), (a, b)), ((a, d), (c, b)), ((c, b), (a, d)))
    }
    assert len(boxes) == 1
    assert normalise(((a, b), (c, d)), 1, 1).quad is None


@pytest.mark.parametrize(
    ("points", "size", "said"),
    [
        (((None, 1), (2, 3)), (10, 10), "x of corner 1 is missing"),
        (((1, 1), (2, None)), (10, 10), "y of corner 2 is missing"),
        (((1, "a"), (2, 3)), (10, 10), "no number"),
        (((True, 1), (2, 3)), (10, 10), "no number"),
        (((1, float("nan")), (2, 3)), (10, 10), "not finite"),
        (((10**400, 1), (2, 3)), (10, 10), "no number"),
        (((50, 1), (60, 3)), (10, 10), "outside of the image"),
        (((1, 1),), (10, 10), "1 corners"),
        (((1, 1), (2, 3)), (0, 10), "width of the image is 0"),
        (((1, 1), (2, 3)), (10, None), "height of the image is missing"),
    ],
)
def test_what_is_wrong_with_a_box_is_said(points, size, said):
    with pytest.raises(ValueError, match=said):
        normalise(points, *size)


def test_boxes_may_be_given_in_any_of_the_usual_ways():
    ways = (rectangle(1, 2, 4, 6), sized(1, 2, 3, 4), flat([1, 2, 4, 2, 4, 6, 1, 6]))
    assert len({normalise(points, 10, 10) for points in ways}) == 1
