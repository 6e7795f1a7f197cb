"""Secrets by their shape: found wherever they stand, nothing else touched, in time that grows with the text alone."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartlane.wire.secrets import MASK, Redactor

LETTERS = "abcDEF0123456789ghiJKLmnoPQRstuVWXyz"


def masked(text: str, *known: str) -> str:
    redactor = Redactor()
    redactor.add(known)
    return redactor.text(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("token hlt_abcdef-12.", "token hlt_***."),
        ("Authorization: Bearer abc.def-ghi, x", "Authorization: Bearer ***, x"),
        ("authorization=Basic dXNlcjpwYXNz==\nnext", "authorization=***\nnext"),
        ('{"Authorization": "Token a b c", "x": 1}', '{"Authorization": "***", "x": 1}'),
        ("curl -H 'authorization: Digest a, b' http://x", "curl -H 'authorization: ***' http://x"),
        ("/x?a=bearer%20abcdef&b", "/x?a=bearer%20***"),
        ("postgresql://me:p@ss/w@db.example/x?y", "postgresql://me:***@db.example/x?y"),
        ("redis://:secret@cache", "redis://:***@cache"),
        ("host=x password=hunter2&b PASSWORD=x", "host=x password=***&b PASSWORD=***"),
        (
            f"https://x.example/cli-login?authToken={LETTERS}&client_secret={LETTERS}#a https://y/?api_key={LETTERS}",
            "https://x.example/cli-login?authToken=***&client_secret=***#a https://y/?api_key=***",
        ),
        (f"sk-ant-api03-{LETTERS}!", "sk-***!"),
        (f"OPENAI=sk-proj-{LETTERS}", "OPENAI=sk-***"),
        (f"ghp_{LETTERS} gho_{LETTERS}", "ghp_*** gho_***"),
        (f"github_pat_11ABC_{LETTERS}", "github_pat_***"),
        (f"glpat-{LETTERS}", "glpat-***"),
        ("xoxb-123456789012-abcdef xapp-1-A0123456789", "xoxb-*** xapp-***"),
        (f"npm_{LETTERS} hf_{LETTERS}", "npm_*** hf_***"),
        (f"sk_live_{LETTERS}", "sk_live_***"),
        ("AKIAIOSFODNN7EXAMPLE and ASIAIOSFODNN7EXAMPLE", "AKIA*** and ASIA***"),
        (f"AIzaSy{LETTERS}", "AIza***"),
        (f"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0abc.{LETTERS}", "eyJ***"),
        ('export STRIPE_SECRET="whsec_12345678"', 'export STRIPE_SECRET="***"'),
        ("MY_API_KEY=abcdefgh DB_PASSWD=12345678", "MY_API_KEY=*** DB_PASSWD=***"),
        (
            "-----BEGIN RSA PRIVATE KEY-----\nMIIE\nabc\n-----END RSA PRIVATE KEY----- on",
            "-----BEGIN RSA PRIVATE KEY-----***-----END RSA PRIVATE KEY----- on",
        ),
        (r"-----BEGIN PRIVATE KEY-----\nMIIE\nabc", "-----BEGIN PRIVATE KEY-----***"),
        ("-----BEGIN PGP PRIVATE KEY BLOCK-----\nxx", "-----BEGIN PGP PRIVATE KEY BLOCK-----***"),
    ],
)
def test_a_secret_is_masked_and_its_kind_kept(text: str, expected: str) -> None:
    assert masked(text) == expected
    assert masked(expected) == expected


@pytest.mark.parametrize(
    "text",
    [
        "http://localhost:5173/@fs/src/main.ts",
        "see https://example.org/@user and git@github.com:a/b.git",
        "risk-averse task-runner-1234567890123456 sk-learn-contrib-examples",
        "a bearer",
        "authorization",
        "MAKIA12345678901234567 XAIza is no key",
        "TOKEN=$GITHUB_TOKEN API_KEY=${KEY} SECRET=<yours here>",
        "-----BEGIN CERTIFICATE-----\nMIIE\n-----END CERTIFICATE-----",
        "input_tokens: 1234567890",
    ],
)
def test_plain_text_is_left_alone(text: str) -> None:
    assert masked(text) == text


def test_known_values_are_masked_wherever_they_stand_the_longest_first() -> None:
    assert masked("xs3cret-longx s3cret s3cre", "s3cret", "s3cret-long") == f"x{MASK}x {MASK} s3cre"
    assert masked("a.b a+b", "a.b") == f"{MASK} a+b"
    redactor = Redactor()
    redactor.add(["s3cret"])
    redactor.add([""])
    redactor.add(["other"])
    assert redactor.text("s3cret other") == f"{MASK} {MASK}"
    redactor.forget()
    assert redactor.text("s3cret other hlt_abcdef") == "s3cret other hlt_***"


@given(st.text(), st.text())
def test_a_token_in_any_text_is_masked(before: str, after: str) -> None:
    secret = "hlt_q8Zr7Yp2Wn5Xk1Vm"
    assert secret not in masked(f"{before}{secret} {after}")


@pytest.mark.parametrize(
    "piece",
    [
        "://a:", "://", "://:", "sk-", "sk-a", "eyJ", "eyJ-", "eyJaaaaaaaaaa.", "bearer ", "bearer%20", "password=",
        "authorization:", "authorization ", "TOKEN=", "-----BEGIN ", "-----BEGIN A ", "-----BEGIN PRIVATE KEY-----",
        "AKIA", "AIza", "xoxb-", "ghp_", "hf_", " ", "\\", "a", "-", "\n", "'", "=",
    ],
)  # fmt: skip
def test_no_text_takes_more_time_than_its_length_asks_for(piece: str) -> None:
    redactor = Redactor()
    redactor.add(["known-value", "another one"])
    text = piece * (200_000 // len(piece))
    started = time.process_time()
    redactor.text(text)
    redactor.text("bearer" + text)
    redactor.text("x://y:" + text)
    # Some 25 ms where each letter is looked at once; hours where the time grows with the square.
    assert time.process_time() - started < 10.0
