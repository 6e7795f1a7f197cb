"""Who may call: tokens against the database of each engine, and what the cache and the brake make of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from heartlane.server import auth
from heartlane.server.auth import Authenticator, Principal, may, require
from heartlane.server.errors import ApiError
from heartlane.store import tokens
from heartlane.store.errors import StoreUnavailable
from heartlane.store.schema import tokens as tokens_table
from heartlane.store.store import Store
from heartlane.store.tokens import SCOPES, Scope, TokenError, new_secret

HERE = "192.0.2.1"
THERE = "192.0.2.2"


class Time:
    """The cache's clock, moved by hand."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


class LookUps:
    """Counts how often the database is asked; `answer` stands in for it where set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self.answer: Callable[[], Any] | None = None
        self._real = tokens.find_by_secret
        monkeypatch.setattr(tokens, "find_by_secret", self)

    async def __call__(self, store: Store, secret: str) -> Any:
        self.count += 1
        if self.answer is not None:
            return await self.answer()
        return await self._real(store, secret)


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def look_ups(monkeypatch: pytest.MonkeyPatch) -> LookUps:
    return LookUps(monkeypatch)


def header(secret: str) -> bytes:
    return f"Bearer {secret}".encode()


async def refusal(authenticator: Authenticator, sent: bytes | None, address: str = HERE) -> ApiError:
    with pytest.raises(ApiError) as caught:
        await authenticator.authenticate(sent, address)
    return caught.value


async def code(authenticator: Authenticator, sent: bytes | None, address: str = HERE) -> str:
    return (await refusal(authenticator, sent, address)).code


# --- good tokens --------------------------------------------------------------------------------------------------


async def test_a_token_names_its_caller(store: Store) -> None:
    token, secret = await tokens.create(store, "ci", "operator", account="acme")
    principal = await Authenticator(store).authenticate(header(secret), HERE)
    assert principal == Principal(token.id, "ci", token.account_id, None, "operator")


async def test_a_verified_token_is_known_for_a_second(store: Store, time: Time, look_ups: LookUps) -> None:
    _, secret = await tokens.create(store, "ci", "worker")
    authenticator = Authenticator(store, monotonic=time)
    assert authenticator.known(header(secret), HERE) is None
    principal = await authenticator.authenticate(header(secret), HERE)
    time.now += 0.999
    assert authenticator.known(header(secret), HERE) == principal
    time.now += 0.001
    assert authenticator.known(header(secret), HERE) is None
    assert await authenticator.authenticate(header(secret), HERE) == principal
    assert look_ups.count == 2


async def test_the_scheme_is_read_in_any_case(store: Store) -> None:
    _, secret = await tokens.create(store, "ci", "worker")
    for sent in (f"bearer {secret}", f"BEARER  {secret} "):
        assert await Authenticator(store).authenticate(sent.encode(), HERE)


async def test_many_requests_at_once_share_one_look_up(store: Store, time: Time, look_ups: LookUps) -> None:
    _, secret = await tokens.create(store, "ci", "worker")
    authenticator = Authenticator(store, monotonic=time)
    for expected in (1, 2):
        callers = await asyncio.gather(*(authenticator.authenticate(header(secret), HERE) for _ in range(100)))
        assert len(set(callers)) == 1
        assert look_ups.count == expected
        time.now += 1


async def test_a_request_that_goes_away_takes_nobody_with_it(store: Store) -> None:
    _, secret = await tokens.create(store, "ci", "worker")
    authenticator = Authenticator(store)
    first = asyncio.create_task(authenticator.authenticate(header(secret), HERE))
    second = asyncio.create_task(authenticator.authenticate(header(secret), HERE))
    await asyncio.sleep(0)
    first.cancel()
    assert (await second).name == "ci"


async def test_nothing_in_memory_is_the_token(store: Store) -> None:
    _, secret = await tokens.create(store, "ci", "worker")
    authenticator = Authenticator(store)
    await authenticator.authenticate(header(secret), HERE)
    for key in authenticator._known:
        assert secret.encode() not in key
        assert key.hex() != tokens.hash_of(secret)


async def test_the_cache_is_bounded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "KNOWN_MAX", 3)
    authenticator = Authenticator(store)
    sent = [header((await tokens.create(store, f"t{number}", "worker"))[1]) for number in range(5)]
    for one in sent:
        await authenticator.authenticate(one, HERE)
    assert [authenticator.known(one, HERE) is not None for one in sent] == [False, False, True, True, True]


# --- refused tokens -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sent",
    [
        None,
        b"",
        b"Bearer",
        b"Bearer ",
        b"Basic dXNlcjpwYXNz",
        b"Bearer hlt_short",
        b"Bearer \xff\xfe",
        b"Bearer " + b"x" * 100_000,
        b"hlt_" + b"x" * 49,
        header("hlt_" + "x" * 49),
        pytest.param(header(new_secret()[:-1] + "!"), id="another alphabet"),
    ],
)
async def test_what_can_be_no_token_is_refused_without_asking(
    sent: bytes | None, store: Store, look_ups: LookUps
) -> None:
    assert await code(Authenticator(store), sent) == "NOT_AUTHENTICATED"
    assert look_ups.count == 0


async def test_an_unknown_token_is_refused(store: Store) -> None:
    error = await refusal(Authenticator(store), header(new_secret()))
    assert (error.status, error.code) == (401, "NOT_AUTHENTICATED")


async def test_an_expired_token_is_refused_with_its_time(store: Store, time: Time) -> None:
    _, secret = await tokens.create(store, "ci", "worker", lifetime=timedelta(hours=1))
    authenticator = Authenticator(store, monotonic=time)
    await authenticator.authenticate(header(secret), HERE)
    store.clock.advance(3601)
    time.now += 1
    error = await refusal(authenticator, header(secret))
    assert error.code == "TOKEN_EXPIRED"
    assert "expired at 2" in error.error


async def test_trust_ends_with_the_token(store: Store, time: Time) -> None:
    _, secret = await tokens.create(store, "ci", "worker", lifetime=timedelta(seconds=60))
    authenticator = Authenticator(store, monotonic=time)
    store.clock.advance(59.5)
    await authenticator.authenticate(header(secret), HERE)
    time.now += 0.55
    assert authenticator.known(header(secret), HERE) is None


async def test_a_revoked_token_is_refused_on_every_server_within_the_trust(store: Store, time: Time) -> None:
    token, secret = await tokens.create(store, "ci", "worker")
    servers = [Authenticator(store, monotonic=time) for _ in range(2)]
    for server in servers:
        await server.authenticate(header(secret), HERE)
    assert await tokens.revoke(store, token.id)
    assert not await tokens.revoke(store, token.id)
    time.now += auth.TRUST_SECONDS
    for server in servers:
        assert await code(server, header(secret)) == "TOKEN_REVOKED"


async def test_trust_counts_from_before_the_database_was_asked(store: Store, time: Time, look_ups: LookUps) -> None:
    _, secret = await tokens.create(store, "ci", "worker")
    found = await tokens.find_by_secret(store, secret)

    async def slow() -> Any:
        time.now += 0.9
        return found

    look_ups.answer = slow
    authenticator = Authenticator(store, monotonic=time)
    await authenticator.authenticate(header(secret), HERE)
    time.now += 0.1
    assert authenticator.known(header(secret), HERE) is None


async def test_a_late_request_doesnt_join_a_look_up_that_began_long_before(
    store: Store, time: Time, look_ups: LookUps
) -> None:
    _, secret = await tokens.create(store, "ci", "worker")
    found = await tokens.find_by_secret(store, secret)
    answered = asyncio.Event()

    async def hanging() -> Any:
        await answered.wait()
        return found

    look_ups.answer, look_ups.count = hanging, 0
    authenticator = Authenticator(store, monotonic=time)
    early = asyncio.create_task(authenticator.authenticate(header(secret), HERE))
    await asyncio.sleep(0.01)
    time.now += 1
    late = asyncio.create_task(authenticator.authenticate(header(secret), HERE))
    await asyncio.sleep(0.01)
    assert look_ups.count == 2
    answered.set()
    await asyncio.gather(early, late)


async def test_a_refusal_is_remembered(store: Store, time: Time, look_ups: LookUps) -> None:
    token, secret = await tokens.create(store, "ci", "worker")
    await tokens.revoke(store, token.id)
    authenticator = Authenticator(store, monotonic=time)
    for _ in range(100):
        assert await code(authenticator, header(secret)) == "TOKEN_REVOKED"
    assert look_ups.count == 1
    assert authenticator.known(header(secret), HERE) is None


async def test_a_rotated_token_is_dead_and_its_successor_lives(store: Store) -> None:
    token, old = await tokens.create(store, "ci", "operator", account="acme", lifetime=timedelta(days=9))
    successor, new = await tokens.rotate(store, token.id)
    authenticator = Authenticator(store)
    assert await code(authenticator, header(old)) == "TOKEN_REVOKED"
    assert (await authenticator.authenticate(header(new), HERE)).token_id == successor.id
    assert (successor.name, successor.scope, successor.account) == ("ci", "operator", "acme")
    assert successor.expires_at is not None
    assert successor.expires_at - successor.created_at == timedelta(days=9)
    with pytest.raises(TokenError, match="revoked already"):
        await tokens.rotate(store, token.id)


# --- when the database is away ------------------------------------------------------------------------------------


async def test_nobody_is_let_in_past_the_trust_without_the_database(
    store: Store, time: Time, look_ups: LookUps
) -> None:
    _, secret = await tokens.create(store, "ci", "worker")
    authenticator = Authenticator(store, monotonic=time)
    principal = await authenticator.authenticate(header(secret), HERE)

    async def gone() -> Any:
        raise StoreUnavailable("gone")

    look_ups.answer = gone
    time.now += 0.9
    assert authenticator.known(header(secret), HERE) == principal
    time.now += 0.1
    for _ in range(3):
        with pytest.raises(StoreUnavailable):
            await authenticator.authenticate(header(secret), HERE)
    look_ups.answer = None
    assert await authenticator.authenticate(header(secret), HERE) == principal


async def test_a_database_that_hangs_is_given_up_on(
    store: Store, look_ups: LookUps, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth, "LOOK_UP_SECONDS", 0.05)
    look_ups.answer = asyncio.Event().wait
    with pytest.raises(StoreUnavailable):
        async with asyncio.timeout(5):
            await Authenticator(store).authenticate(header(new_secret()), HERE)


def test_the_promised_two_seconds_are_kept_by_construction() -> None:
    assert auth.TRUST_SECONDS + auth.LOOK_UP_SECONDS <= 2


# --- the brake ----------------------------------------------------------------------------------------------------


async def test_bad_tokens_slow_their_address_down_and_nobody_else(store: Store, time: Time, look_ups: LookUps) -> None:
    good = header((await tokens.create(store, "good", "worker"))[1])
    new = header((await tokens.create(store, "new", "worker"))[1])
    authenticator = Authenticator(store, monotonic=time)
    await authenticator.authenticate(good, HERE)
    for _ in range(auth.BAD_TOKENS_A_MINUTE):
        assert await code(authenticator, header(new_secret())) == "NOT_AUTHENTICATED"
    asked = look_ups.count
    for sent in (header(new_secret()), b"Bearer rubbish", new):
        error = await refusal(authenticator, sent)
        assert (error.status, error.code) == (429, "RATE_LIMITED")
        assert error.retry_after == 60
        assert (b"ratelimit-remaining", b"0") in error.headers
    assert look_ups.count == asked

    assert authenticator.known(good, HERE)
    time.now += 1
    assert await authenticator.authenticate(good, HERE)
    assert await authenticator.authenticate(new, THERE)
    assert await authenticator.authenticate(new, HERE)  # known to be good by now
    time.now += 59
    assert await code(authenticator, header(new_secret())) == "NOT_AUTHENTICATED"


async def test_a_token_that_was_good_once_is_told_so_and_not_counted(store: Store, time: Time) -> None:
    token, secret = await tokens.create(store, "ci", "worker")
    await tokens.revoke(store, token.id)
    authenticator = Authenticator(store, monotonic=time)
    for _ in range(auth.BAD_TOKENS_A_MINUTE * 2):
        assert await code(authenticator, header(secret)) == "TOKEN_REVOKED"
        time.now += 0.5
    assert await code(authenticator, header(new_secret())) == "NOT_AUTHENTICATED"


async def test_a_missing_header_is_no_bad_token(store: Store) -> None:
    authenticator = Authenticator(store)
    for _ in range(auth.BAD_TOKENS_A_MINUTE * 2):
        assert await code(authenticator, None) == "NOT_AUTHENTICATED"


async def test_bad_tokens_all_at_once_get_no_more_look_ups_than_one_by_one(store: Store, look_ups: LookUps) -> None:
    authenticator = Authenticator(store)
    codes = await asyncio.gather(*(code(authenticator, header(new_secret())) for _ in range(300)))
    assert set(codes) == {"NOT_AUTHENTICATED", "RATE_LIMITED"}
    assert look_ups.count < auth.BAD_TOKENS_A_MINUTE + auth.LOOK_UPS_AT_ONCE
    assert authenticator._places == {}


async def test_a_fleet_that_starts_behind_one_address_gets_in(store: Store) -> None:
    sent = [header((await tokens.create(store, f"w{number}", "worker"))[1]) for number in range(40)]
    authenticator = Authenticator(store)
    assert len(await asyncio.gather(*(authenticator.authenticate(one, HERE) for one in sent))) == 40


async def test_the_brakes_memory_is_bounded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "BRAKED_MAX", 50)
    authenticator = Authenticator(store)
    for number in range(500):
        assert await code(authenticator, b"Bearer rubbish", f"2001:db8::{number:x}") == "NOT_AUTHENTICATED"
    assert len(authenticator._bad_tokens.windows) <= 50


# --- last use -----------------------------------------------------------------------------------------------------


async def test_the_last_use_is_written_once_a_minute(store: Store, time: Time, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "LAST_USED_LINGER_SECONDS", 0)
    written: list[set[str]] = []
    touch = tokens.touch

    async def counted(store: Store, ids: Any) -> None:
        written.append(set(ids))
        await touch(store, ids)

    monkeypatch.setattr(tokens, "touch", counted)
    token, secret = await tokens.create(store, "ci", "worker")
    authenticator = Authenticator(store, monotonic=time)

    async def use_for(seconds: int) -> None:
        for _ in range(seconds):
            await authenticator.authenticate(header(secret), HERE)
            if authenticator._writing_used is not None:
                await authenticator._writing_used
            time.now += 1
            store.clock.advance(1)

    before = await store.now()
    await use_for(60)
    assert written == [{token.id}]
    last_used = (await tokens.find(store, "ci")).last_used_at
    assert last_used is not None
    assert timedelta(0) <= last_used - before < timedelta(seconds=30)
    await use_for(60)
    assert len(written) == 2


async def test_a_use_is_written_at_the_end_too(store: Store) -> None:
    _, secret = await tokens.create(store, "ci", "worker")
    authenticator = Authenticator(store)
    await authenticator.authenticate(header(secret), HERE)
    await authenticator.close()
    assert (await tokens.find(store, "ci")).last_used_at is not None


# --- scopes and reach ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("held", SCOPES)
@pytest.mark.parametrize("needed", SCOPES)
def test_scopes_nest(held: Scope, needed: Scope) -> None:
    principal = Principal("t", "ci", "a", None, held)
    allowed = ["viewer", "worker", "operator", "admin"].index(held) >= SCOPES.index(needed)
    assert may(principal, needed) is allowed
    if allowed:
        require(principal, needed)
        return
    with pytest.raises(ApiError) as caught:
        require(principal, needed)
    assert (caught.value.status, caught.value.code) == (403, "FORBIDDEN")
    assert needed in caught.value.error


def test_a_caller_sees_its_account_and_its_project_alone() -> None:
    whole, limited = Principal("t", "ci", "a", None, "admin"), Principal("t", "ci", "a", "p", "admin")
    assert whole.sees("a", "p")
    assert whole.sees("a", None)
    assert not whole.sees("b", "p")
    assert limited.sees("a", "p")
    assert not limited.sees("a", "q")
    assert not limited.sees("a", None)
    assert not limited.sees("b", "p")


# --- what is stored -----------------------------------------------------------------------------------------------


async def test_only_the_hash_is_stored(store: Store) -> None:
    token, secret = await tokens.create(store, "ci", "worker")
    async with store.reading() as conn:
        (row,) = await conn.execute(select(tokens_table))
    assert secret not in str(row)
    assert row.token_hash == tokens.hash_of(secret)
    assert secret.startswith(row.hint)
    assert len(row.hint) == 12
    assert token.hint == row.hint


def test_a_secret_has_its_prefix_and_enough_chance() -> None:
    made = {new_secret() for _ in range(1_000)}
    assert len(made) == 1_000
    for secret in made:
        assert tokens.is_well_formed(secret)
        assert secret.startswith("hlt_")
        assert len(secret) == 53
    some = next(iter(made))
    for place in range(len(some)):
        other = "A" if some[place] != "A" else "B"
        assert not tokens.is_well_formed(some[:place] + other + some[place + 1 :])


async def test_accounts_are_made_once(store: Store) -> None:
    ids = await asyncio.gather(*(tokens.account_named(store, "acme") for _ in range(20)))
    assert len(set(ids)) == 1
    assert await tokens.account_named(store) != ids[0]


async def test_a_name_that_several_tokens_have_needs_an_id(store: Store) -> None:
    first, _ = await tokens.create(store, "ci", "worker")
    second, _ = await tokens.create(store, "ci", "viewer", account="acme")
    with pytest.raises(TokenError, match=f"{first.id}, {second.id}"):
        await tokens.find(store, "ci")
    assert await tokens.find(store, "ci", account="acme") == second
    assert await tokens.find(store, first.id.upper()) == first
    await tokens.revoke(store, first.id)
    assert await tokens.find(store, "ci") == second


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": ""},
        {"name": "a\nb"},
        {"name": "x" * 201},
        {"scope": "root"},
        {"account": " "},
        {"project_id": "nope"},
        {"project_id": "01a20be7-1de3-7b10-af81-2ca4104bbdf0"},
        {"lifetime": timedelta(0)},
        {"lifetime": timedelta(days=40_000)},
    ],
)
async def test_a_token_that_cant_be_is_not_made(wrong: dict[str, Any], store: Store) -> None:
    with pytest.raises(TokenError):
        await tokens.create(store, **{"name": "ci", "scope": "worker", **wrong})
    assert await tokens.list_tokens(store) == []
