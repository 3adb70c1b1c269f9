"""The limit that is found out by trying: how it grows, when it is cut, what it never does."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rusty_agent.net.limits.adapt import START, AdaptiveLimit


def grow(limit: AdaptiveLimit, round_trips: int) -> None:
    """So many round trips in which all that is allowed is sent and answered."""
    for _ in range(round_trips):
        for _ in range(in_flight := limit.limit):
            limit.succeeded(limit.epoch, in_flight)


def refuse(limit: AdaptiveLimit, count: int, in_flight: int, *, sure: bool = True) -> None:
    """A round trip in which so many of those in flight are turned away."""
    epoch = limit.epoch
    for _ in range(count):
        limit.refused(epoch, in_flight, sure=sure)
    for _ in range(count):
        limit.judge(epoch)


def test_it_begins_small_and_doubles_every_round_trip_up_to_the_ceiling() -> None:
    limit = AdaptiveLimit(100)
    assert limit.limit == START == 16
    grow(limit, 1)
    assert limit.limit == 32
    grow(limit, 1)
    assert limit.limit == 64
    grow(limit, 5)
    assert limit.limit == 100


def test_a_ceiling_below_the_start_wins() -> None:
    limit = AdaptiveLimit(3)
    assert limit.limit == 3
    grow(limit, 5)
    assert limit.limit == 3


def test_a_success_while_little_is_used_says_nothing() -> None:
    limit = AdaptiveLimit(100)
    for _ in range(100):
        limit.succeeded(limit.epoch, 7)
    assert limit.limit == 16
    limit.succeeded(limit.epoch, 8)  # half of it
    assert limit.limit == 17


@pytest.mark.parametrize(
    ("round_trips", "in_flight", "left"),
    [(3, 128, 64), (4, 20, 10)],  # the latter where a pace has held it: what was never tried does not count
)
def test_the_first_refusal_halves_what_was_tried(round_trips: int, in_flight: int, left: int) -> None:
    limit = AdaptiveLimit(256)
    grow(limit, round_trips)
    refuse(limit, 1, in_flight)
    assert limit.limit == left


def test_where_most_were_refused_what_was_served_is_left() -> None:
    limit = AdaptiveLimit(256)
    grow(limit, 3)
    refuse(limit, 88, 128)
    assert limit.limit == 40
    grow(limit, 1)
    assert limit.limit <= 42  # it knows where it is, and probes from there


def test_a_refusal_below_the_mark_lowers_the_mark() -> None:
    """There is less room than there was, or somebody else wants some."""
    limit = AdaptiveLimit(256)
    grow(limit, 3)
    refuse(limit, 1, 100)  # cut to 50, the mark at 75
    refuse(limit, 1, 50)
    assert limit.limit == 42
    grow(limit, 1)
    assert limit.limit <= 44  # the mark is at 42.5 now


def test_a_refusal_beyond_the_mark_moves_it_there() -> None:
    """There is more room than there was."""
    limit = AdaptiveLimit(256)
    grow(limit, 3)
    refuse(limit, 1, 100)  # cut to 50, the mark at 75
    while limit.limit < 120:
        grow(limit, 1)
    refuse(limit, 1, 120)
    assert limit.limit == 102
    grow(limit, 3)
    assert 114 <= limit.limit < 120


def test_one_round_trip_cuts_once() -> None:
    limit = AdaptiveLimit(256)
    grow(limit, 2)
    old = limit.epoch
    refuse(limit, 1, 64)
    assert limit.limit == 32
    for _ in range(30):  # sent before the cut, refused after it
        limit.refused(old, 64)
        limit.judge(old)
    assert limit.limit == 32


def test_what_is_refused_again_and_again_at_one_place_is_tried_less_often() -> None:
    limit = AdaptiveLimit(256)
    grow(limit, 1)
    refuse(limit, 28, 32)
    gaps, since = [], 0
    for _ in range(100):
        grow(limit, 1)
        since += 1
        if limit.limit > 4:
            refuse(limit, 1, 5)
            gaps.append(since)
            since = 0
    assert gaps == sorted(gaps)
    assert gaps[0] <= 3
    assert 8 <= gaps[-1] <= 10


def test_what_was_refused_before_anything_was_answered_sets_no_mark() -> None:
    """It came in one burst."""
    limit = AdaptiveLimit(256)
    refuse(limit, 14, 16)
    assert limit.limit == 4
    grow(limit, 4)
    assert limit.limit == 64


def test_it_does_not_grow_while_refusals_come_in() -> None:
    limit = AdaptiveLimit(256)
    limit.refused(limit.epoch, 16)
    grow(limit, 3)
    assert limit.limit == 16


def test_it_climbs_back_quickly_and_then_by_one() -> None:
    limit = AdaptiveLimit(256)
    grow(limit, 3)
    refuse(limit, 1, 100)  # cut to 50, the mark at 75
    heights = []
    for _ in range(6):
        grow(limit, 1)
        heights.append(limit.limit)
    assert heights[0] >= 58  # half of the distance
    assert heights[-1] <= 80  # not far beyond the mark


@pytest.mark.parametrize(("sure", "share"), [(False, 1), (True, 0.5)])
def test_what_was_borne_before_an_absence_is_the_mark_after_it(sure: bool, share: float) -> None:
    """Its first cut looks like one for load: some of what was sent before is still answered."""
    limit = AdaptiveLimit(256)
    grow(limit, 3)
    refuse(limit, 1, 100)  # the mark at 75
    sent = limit.epoch
    grow(limit, 6)
    borne = limit.limit
    refuse(limit, 60, borne, sure=sure)
    assert limit.limit < borne / 2
    limit.succeeded(sent, borne)
    while limit.limit > 1:
        refuse(limit, limit.limit, limit.limit, sure=sure)
    limit.succeeded(limit.epoch, 1)
    assert 0.75 * borne * share <= limit.limit <= borne * share + 1


def test_it_finds_out_that_there_is_more_room_than_there_was() -> None:
    limit = AdaptiveLimit(1000)
    refuse(limit, 1, 16)
    grow(limit, 30)
    assert limit.limit > 200


def test_what_the_user_expects_is_believed_until_something_is_refused() -> None:
    limit = AdaptiveLimit(256)
    limit.begin_with(300, 300)
    assert (limit.limit, limit.ceiling) == (300, 300)
    refuse(limit, 1, 300)
    limit.begin_with(300, 300)
    assert limit.limit == 150


def test_what_was_expected_and_never_tried_is_no_finding() -> None:
    limit = AdaptiveLimit(256)
    limit.begin_with(200, 200)
    limit.succeeded(limit.epoch, 3)
    limit.end()
    assert limit.limit == START
    limit.begin_with(200, 200)
    limit.succeeded(limit.epoch, 80)
    limit.end()
    assert limit.limit == 160  # as slow start would allow by then
    refuse(limit, 1, 40)
    was = limit.limit
    limit.end()
    assert limit.limit == was


@given(st.lists(st.tuples(st.sampled_from("sr"), st.integers(0, 300), st.integers(1, 300)), max_size=200))
def test_it_stays_between_one_and_the_ceiling_whatever_happens(events: list[tuple[str, int, int]]) -> None:
    limit = AdaptiveLimit(200)
    for kind, back, in_flight in events:
        if kind == "s":
            limit.succeeded(limit.epoch, in_flight)
        else:
            epoch = max(0, limit.epoch - back)
            limit.refused(epoch, in_flight)
            limit.judge(epoch)
        assert 1 <= limit.limit <= 200


def test_it_climbs_no_further_where_answers_take_much_of_their_time() -> None:
    limit = AdaptiveLimit(256)
    for _ in range(100):
        limit.succeeded(limit.epoch, 16, strained=True)
    assert limit.limit == 16


def test_many_that_come_too_late_halve_it_once_a_round_trip() -> None:
    limit = AdaptiveLimit(256)
    grow(limit, 4)
    old = limit.epoch
    for _ in range(50):
        limit.late(old, 256)
    assert limit.limit == 128
    for _ in range(50):
        limit.late(limit.epoch, 128)
    assert 1 <= limit.limit < 64


def test_a_few_that_always_come_too_late_say_nothing() -> None:
    limit = AdaptiveLimit(256)
    for _ in range(3):  # the very first ones
        limit.late(0, 16)
    assert limit.limit == 16
    grow(limit, 4)
    for number in range(2000):
        if number % 20 == 7:
            limit.late(limit.epoch, 256)
        else:
            limit.succeeded(limit.epoch, 256)
    assert limit.limit == 256


def flaky(limit: AdaptiveLimit, share: float, round_trips: int, *, sure: bool = False) -> list[int]:
    """The limit after round trips in which a share of all is refused, however few are in flight: by a bad replica."""
    chance, limits = Random(1), []
    for _ in range(round_trips):
        epoch, refused = limit.epoch, 0
        for _ in range(in_flight := limit.limit):
            if chance.random() < share:
                refused += limit.refused(epoch, in_flight, sure=sure)
            else:
                limit.succeeded(limit.epoch, in_flight)
        for _ in range(refused):
            limit.judge(epoch)
        limits.append(limit.limit)
    return limits


@pytest.mark.parametrize("expected", [16, 64])
@pytest.mark.parametrize("share", [0.02, 0.05, 0.08])
def test_what_is_refused_however_few_are_in_flight_is_not_refused_for_load(share: float, expected: int) -> None:
    limit = AdaptiveLimit(64)
    limit.begin_with(expected, expected)
    late = flaky(limit, share, 200)[100:]
    assert sum(late) / len(late) > 50


def test_what_says_that_it_is_load_is_believed() -> None:
    limit = AdaptiveLimit(64)
    limit.begin_with(64, 64)
    flaky(limit, 0.05, 100, sure=True)
    assert limit.limit < 40


def test_doubts_end_where_more_than_a_few_are_refused() -> None:
    """Doubts end where more than a few are refused."""
    limit = AdaptiveLimit(64)
    limit.begin_with(64, 64)
    flaky(limit, 0.05, 100)
    flaky(limit, 0.5, 3)
    assert limit.limit < 40
