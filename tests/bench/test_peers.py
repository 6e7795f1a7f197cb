"""The bench against the peers, without the peers: pins, tables, the chart, and what happens when one can't be there."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from bench.load import Job, Lane, LaneJob
from bench.peers import environments
from bench.peers.chart import chart
from bench.peers.environments import CannotInstall, Environment, NotPinned, last_errors, parse_pins
from bench.peers.measure import PEERS, install
from bench.peers.mlflow import FIRST_STEP, batch
from bench.peers.peer import Outcome
from bench.peers.tables import markdown_table, number, rows, tables


def found(*extra: dict[str, Any]) -> dict[str, Any]:
    """What a measurement of Heartlane and one peer wrote, two rounds each."""
    return {
        "measured": "2026-01-05",
        "machine": {"processor": "Some CPU", "cores": 2, "memory_gib": 24, "python": "3.11.7 (cpython)"},
        "pace": {"connections": 64, "rounds": 3, "seconds": 5.0},
        "load_before": 0.4,
        "postgresql": {
            "server_version": "18.4",
            "fsync": "on",
            "synchronous_commit": "on",
            "shared_buffers": "128MB",
        },
        "contestants": [
            contestant("Heartlane", "1.2", [6_000, 9_000, 7_500]),
            contestant("Slow & <steady>", "3.3.2", [100, 100, 250]),
            *extra,
        ],
    }


def contestant(name: str, version: str, rates: list[float]) -> dict[str, Any]:
    """One contestant's heartbeats."""
    results = [
        {"rate": rate, "p50_ms": 6.4, "p99_ms": 31.0, "machine_load": 1.5 + place} for place, rate in enumerate(rates)
    ]
    return {
        "name": name,
        "version": version,
        "settings": ["its own defaults"],
        "not_comparable": ["it asks for no credentials"],
        "calls": {"heartbeat": "`PUT /beat`"},
        "rounds": {"heartbeat": results},
        "written": {"heartbeat": {"calls": 12_345, "found": 12_345, "expected": 12_345}},
        "absent": "",
    }


def test_a_ratio_is_the_median_of_the_rounds_that_alternated() -> None:
    ours, peer = rows(found(), "heartbeat")
    assert (ours.rate, ours.times) == (7_500, 1)
    assert (peer.rate, peer.least, peer.most) == (100, 100, 250)
    assert peer.times == 60  # of 60, 90 and 30; not the ratio of the medians, 75
    assert rows(found(), "events") == []


def test_the_tables_say_all_that_belongs_beside_a_figure() -> None:
    text = tables(found())
    row = next(line for line in text.splitlines() if line.startswith("| Slow"))
    assert "3.3.2" in row
    assert "| 60 × |" in row
    assert "12,345" in row
    assert "6.4 ms, 31 ms" in row
    for said in (
        "2 cores",
        "64 connections",
        "fsync on",
        "0.4 before it began",
        "1.5 to 3.5",
        "not comparable: it asks",
    ):
        assert said in text
    assert "Left out" not in text


def test_who_took_no_part_is_named_with_the_reason() -> None:
    gone = {**contestant("prefect", "3.9.1", []), "rounds": {}, "absent": "can't be installed: no network"}
    text = tables(found(gone))
    assert "### Left out\n\n- prefect 3.9.1: it can't be installed: no network\n" in text


def test_nothing_is_divided_by_what_was_not_measured() -> None:
    nothing = found()
    nothing["contestants"] = nothing["contestants"][1:]
    assert rows(nothing, "heartbeat") == []
    assert "Slow & <steady>" in tables(nothing)
    ET.fromstring(chart(nothing))  # noqa: S314 - ours


def test_the_chart_is_one_document_with_bars_in_scale_in_both_schemes() -> None:
    svg = chart(found())
    root = ET.fromstring(svg)  # noqa: S314 - ours
    bars = {
        bar.get("class"): float(bar.get("width", "0"))
        for bar in root.iter("{http://www.w3.org/2000/svg}rect")
        if bar.get("class") in ("ours", "peer")
    }
    assert bars["peer"] / bars["ours"] == pytest.approx(100 / 7_500, rel=0.05)
    assert "prefers-color-scheme: dark" in svg
    assert "Slow & <steady> 3.3.2" in "".join(root.itertext())


@pytest.mark.parametrize("name", [*PEERS, "pg_trgm"])
def test_each_peer_is_pinned_by_plain_lines(name: str) -> None:
    assert Environment(name).pins


@pytest.mark.parametrize("line", ["prefect>=3", "prefect", "prefect==3.*", "-r other.txt", "x @ file:///x", "a==1 ; y"])
def test_what_is_not_a_plain_pin_is_refused(line: str) -> None:
    with pytest.raises(NotPinned, match="line 2"):
        parse_pins(f"a-b==1.0\n{line}\n")


def test_one_package_is_pinned_once_however_it_is_spelt() -> None:
    with pytest.raises(NotPinned, match="a-b is pinned twice"):
        parse_pins("a-b==1.0\nA_b==1.1\n")


async def test_a_peer_that_cannot_be_installed_is_told_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def make(environment: Environment, _: Any) -> None:
        if environment.folder.name == "airflow":
            raise CannotInstall("ERROR: No matching distribution found for apache-airflow==3.3.2")

    monkeypatch.setattr(Environment, "make", make)
    outcomes: list[Outcome] = []
    told: list[str] = []
    made = await install(["airflow", "procrastinate"], outcomes, told.append)
    assert [one.name for one in made] == ["Procrastinate"]
    assert outcomes[0].version == "3.3.2"
    assert "No matching distribution" in outcomes[0].absent
    assert "airflow is left out" in told[0]


async def test_an_environment_is_made_once_and_anew_when_its_pins_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[tuple[str, ...]] = []

    async def run(*command: str) -> None:
        ran.append(command)
        (tmp_path / "cache" / "one").mkdir(parents=True, exist_ok=True)

    monkeypatch.setattr(environments, "REQUIREMENTS", tmp_path)
    monkeypatch.setattr(environments, "_run", run)
    (tmp_path / "one.txt").write_text("pip==26.0\n")
    for _ in range(2):
        await Environment("one", tmp_path / "cache").make(lambda _: None)
    assert len(ran) == 2
    assert ran[0][:3] == (sys.executable, "-m", "venv")
    (tmp_path / "one.txt").write_text("pip==26.1\n")
    await Environment("one", tmp_path / "cache").make(lambda _: None)
    assert len(ran) == 4


async def test_the_last_errors_of_what_failed_are_told() -> None:
    with pytest.raises(CannotInstall, match=r"^ERROR: three$"):
        await environments._run(
            sys.executable, "-c", "import sys; print('WARNING: one\\nERROR: three\\nmore'); sys.exit(3)"
        )
    assert last_errors("first\nlast\n") == "first\nlast"
    assert last_errors("") == "it said nothing"


def test_every_metric_of_a_batch_has_the_step_of_its_request() -> None:
    lane = batch("run-1", "m-", 3)
    job = Job(
        host="127.0.0.1",
        port=1,
        token="",
        connections=1,
        warmup_seconds=0,
        seconds=1,
        check_every=0,
        lanes=[lane],
    )
    made = Lane(job, lane)
    sent = (b"%d" % made.seq).join(made.pieces)
    head, body = sent.split(b"\r\n\r\n")
    assert body.count(str(FIRST_STEP).encode()) == 3
    assert f"Content-Length: {len(body)}".encode() in head
    assert head.startswith(b"POST /api/2.0/mlflow/runs/log-batch HTTP/1.1\r\n")


def test_a_lane_may_have_its_own_request_and_credentials() -> None:
    job = Job(
        host="127.0.0.1",
        port=1,
        token="shared",
        connections=1,
        warmup_seconds=0,
        seconds=1,
        check_every=0,
        lanes=[],
    )
    shared = Lane(job, LaneJob(run_id="r", body=["{", "}"], seq=7))
    own = Lane(job, LaneJob(run_id="r", body=["{}"], seq=0, request="PUT /beat", authorization="Bearer own"))
    assert b"Authorization: Bearer shared\r\n" in shared.pieces[0]
    assert len(shared.pieces) == 2
    assert own.pieces[0].startswith(b"PUT /beat HTTP/1.1\r\n")
    assert b"Authorization: Bearer own\r\n" in own.pieces[0]


def test_figures_are_rounded_as_their_size_asks_for() -> None:
    assert [number(value) for value in (7_500.4, 99.6, 3.04, 0.126)] == ["7,500", "100", "3.0", "0.13"]
    assert markdown_table(["a"], [["x|y"]]).splitlines()[-1] == "| x\\|y |"
