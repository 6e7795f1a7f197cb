"""The arithmetic of holding a lease: what holds for every lease, clock and chance."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from heartlane.client.lease import CLAIM_CODES, Lease, Meaning, Standing, margin, meaning
from heartlane.wire.errors import CODES

LENGTHS = st.integers(1, 3600)
CHANCES = st.floats(0, 1)
NOW = st.floats(0, 1e9)
OUTAGES = st.floats(0, 86_400)


@given(LENGTHS, NOW, OUTAGES)
def test_it_ends_before_the_server_thinks_so(length: int, sent_at: float, outage: float) -> None:
    lease = Lease(length, sent_at, outage)
    # The server took the request after it was sent, and counts the whole length from then.
    assert sent_at < lease.ends_at < sent_at + length
    assert lease.ends_at <= lease.gone_at
    assert 0 < margin(length) <= length / 2


@given(LENGTHS, NOW, OUTAGES, st.floats(0, 1e5))
def test_it_goes_one_way_until_it_is_confirmed(length: int, sent_at: float, outage: float, later: float) -> None:
    lease = Lease(length, sent_at, outage)
    order = [Standing.HELD, Standing.UNCONFIRMED, Standing.GONE]
    assert lease.standing(sent_at) is Standing.HELD
    assert order.index(lease.standing(sent_at + later)) <= order.index(lease.standing(sent_at + 2 * later))
    assert lease.confirmed(sent_at + later, length).standing(sent_at + later) is Standing.HELD


@given(LENGTHS, NOW, st.floats(0, 1e6))
def test_a_late_answer_takes_nothing_away(length: int, sent_at: float, earlier: float) -> None:
    lease = Lease(length, sent_at)
    assert lease.confirmed(sent_at - earlier - 1, 1) == lease


@given(LENGTHS, NOW, CHANCES)
def test_it_is_renewed_within_a_third_and_never_at_once(length: int, sent_at: float, chance: float) -> None:
    wait = Lease(length, 0).renew_at(chance)
    assert length / 3 * 0.79 <= wait <= length / 3


def test_renewals_of_a_fleet_are_spread() -> None:
    times = {Lease(300, 0).renew_at(number / 10) for number in range(11)}
    assert (len(times), min(times), max(times)) == (11, 80, 100)


@given(LENGTHS, st.integers(1, 1000), CHANCES, st.none() | st.floats(0, 1e6), st.floats(0, 5000))
def test_retries_fit_into_what_is_left(
    length: int, tries: int, chance: float, retry_after: float | None, now: float
) -> None:
    lease = Lease(length, 0)
    wait = lease.retry_delay(tries, now, chance, retry_after)
    longest = min(5.0, length / 20)
    left = max(0.0, lease.ends_at - now)
    rounding = 1e-9
    assert 0 <= wait <= max(longest, left / 2) + rounding
    if retry_after is None:
        assert wait <= longest + rounding
    elif left / 2 >= max(retry_after, longest):
        assert wait >= retry_after - rounding


@given(LENGTHS, st.randoms(use_true_random=False), st.floats(0, 1))
def test_two_of_three_renewals_may_get_lost(length: int, random: object, latency: float) -> None:
    """A keeper that loses two of three requests keeps any lease, as long as answers take their ordinary time."""
    draw = random.random  # type: ignore[attr-defined]
    latency *= length / 100
    now, number = 0.0, 0
    lease = Lease(length, now)
    for _ in range(20):
        now = max(now, lease.renew_at(draw()))
        tries = 0
        while True:
            assert lease.standing(now) is Standing.HELD
            number += 1
            sent_at, now = now, now + latency
            if number % 3 == 0:
                lease = lease.confirmed(sent_at, length)
                break
            tries += 1
            now += lease.retry_delay(tries, now, draw())


def test_only_claim_codes_end_a_lane() -> None:
    for code, row in CODES.items():
        expected = Meaning.LOST if code in CLAIM_CODES else Meaning.RETRY
        if row.status in (400, 413, 415):
            expected = Meaning.REFUSED
        assert meaning(status=row.status, code=code) is expected, code
        # The same words from anything but a 409 are not the server's.
        assert meaning(status=502, code=code) is Meaning.RETRY
    assert set(CODES) >= CLAIM_CODES
    for status in (None, *range(100, 600)):
        assert meaning(status=status) is (Meaning.REFUSED if status == 413 else Meaning.RETRY)
        if status != 409:
            assert meaning(status=status, code="CLAIM_LOST") is not Meaning.LOST


def test_directives() -> None:
    assert [meaning(directive=name) for name in ("continue", "pause", "stop", "one that came later")] == [
        Meaning.KEEP,
        Meaning.PAUSE,
        Meaning.STOP,
        Meaning.KEEP,
    ]
