"""Which pages of a listing need no request, and which keys belong to it."""

from __future__ import annotations

from kappa_core.resources import AccountId, Region
from kappa_gateway.kubernetes.store_listings import Asked, Listings, is_behind
from store_samples import ACCOUNT, REGION, function

ALL = Asked("Function", ACCOUNT, REGION, None)


def test_a_listing_goes_on_for_a_while_after_it_began_and_only_that_one() -> None:
    now = 100.0
    listings = Listings(seconds=60, now=lambda: now)
    assert not listings.goes_on(ALL)
    listings.began(ALL)
    now = 159.9
    assert listings.goes_on(ALL)
    assert not listings.goes_on(ALL._replace(region=Region("eu-west-1")))
    now = 160.0
    assert not listings.goes_on(ALL)


def test_listings_that_nobody_goes_on_with_are_forgotten() -> None:
    listings = Listings(seconds=60, now=lambda: 0.0)
    for number in range(5_000):
        listings.began(ALL._replace(name=str(number)))
    assert not listings.goes_on(ALL._replace(name="0"))
    assert listings.goes_on(ALL._replace(name="4999"))


def test_a_key_belongs_to_what_was_asked_for_in_every_part() -> None:
    key = function("f").key
    assert ALL.covers(key)
    assert Asked("Function", None, None, None).covers(key)
    assert not ALL._replace(kind="Alias").covers(key)
    assert not ALL._replace(account=AccountId("111111111111")).covers(key)
    assert not ALL._replace(region=Region("eu-west-1")).covers(key)
    assert not ALL._replace(name="g").covers(key)


def test_pages_begin_behind_the_last_key_of_the_page_before() -> None:
    first, second = function("a").key, function("b").key
    assert is_behind(second, first)
    assert not is_behind(first, first)
    assert not is_behind(first, second)
    assert is_behind(first, None)
