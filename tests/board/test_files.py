"""What the board serves: one frame, its own files, compressed, kept for ever, and nothing of anybody else's."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import httpx
import pytest

from heartlane.board.assets import POLICY, load_assets
from heartlane.board.pages import pages_there
from tests.harness import Harness, assert_error

WIRE_BYTES_MAX = 250_000
PATHS = [page.path.replace("{id}", "0198c9a0-0000-7000-8000-000000000000") for page in pages_there()]


@pytest.fixture
def database_url(sqlite_template: Path, tmp_path: Path) -> str:
    """Files are the same on every engine."""
    shutil.copyfile(sqlite_template, tmp_path / "heartlane.db")
    return f"sqlite:///{tmp_path / 'heartlane.db'}"


async def files_of(client: httpx.AsyncClient, path: str) -> dict[str, httpx.Response]:
    """A page and everything that it names."""
    page = await client.get(path)
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    named = dict.fromkeys(re.findall(r'<(?:link|script)[^>]*(?:href|src)="([^"]+)"', page.text))
    assert len(named) > 10
    return {path: page, **{address: await client.get(address) for address in named}}


@pytest.mark.parametrize("path", PATHS)
async def test_pages_load_only_this_servers_files(harness: Harness, path: str) -> None:
    nobody = harness.client_with(None)
    files = await files_of(nobody, path)
    html = files.pop(path)
    assert html.headers["cache-control"] == "no-cache"
    assert not re.search(r"<script(?![^>]*\ssrc=)|\son\w+=|<style|\sstyle=|javascript:|https?://", html.text)
    for address, answer in {path: html, **files}.items():
        assert answer.status_code == 200, address
        assert answer.headers["content-security-policy"] == POLICY
        assert answer.headers["x-content-type-options"] == "nosniff"
    for address, answer in files.items():
        assert address.startswith(f"/static/{load_assets().version}/")
        assert "immutable" in answer.headers["cache-control"]


def test_the_policy_lets_nothing_in() -> None:
    assert "unsafe" not in POLICY
    assert "default-src 'none'" in POLICY
    assert "require-trusted-types-for 'script'" in POLICY


def test_no_file_makes_markup_of_text_or_names_another_host() -> None:
    sinks = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|setAttribute\(\"style\""
    for name, file in load_assets().files.items():
        text = file.body.decode()
        assert not re.search(sinks, text), name
        assert not re.findall(r"https?://(?!www\.w3\.org/2000/svg)|@import", text), name


def test_modules_import_only_what_is_there() -> None:
    files = load_assets().files
    for name, file in files.items():
        for imported in re.findall(r'(?:from|import\() ?"\./([^"]+)"', file.body.decode()):
            if name != "app.js":  # which names every page, and loads those that there are
                assert imported in files, f"{name} imports {imported}"


async def test_a_first_visit_is_small(harness: Harness) -> None:
    nobody = harness.client_with(None)
    files = await files_of(nobody, "/")
    sizes = {}
    for address, answer in files.items():
        assert answer.headers["content-encoding"] == "gzip", address
        sizes[address] = int(answer.headers["content-length"])
    assert sum(sizes.values()) < WIRE_BYTES_MAX / 2, sizes


async def test_who_takes_no_compression_gets_none(harness: Harness) -> None:
    answer = await harness.client_with(None).get("/", headers={"accept-encoding": "identity"})
    assert "content-encoding" not in answer.headers
    assert answer.text.startswith("<!doctype html>")


async def test_a_browser_that_has_it_already_is_told_so(harness: Harness) -> None:
    nobody = harness.client_with(None)
    tag = (await nobody.get("/")).headers["etag"]
    again = await nobody.get("/", headers={"if-none-match": tag})
    assert (again.status_code, again.content) == (304, b"")


async def test_files_of_another_version_are_served_and_never_kept(harness: Harness) -> None:
    nobody = harness.client_with(None)
    answer = await nobody.get("/static/0123456789ab/app.js")
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")


@pytest.mark.parametrize("name", ["nothing.js", "..%2Fpages.py", "page.html", "__init__.py"])
async def test_other_files_are_not_served(harness: Harness, name: str) -> None:
    nobody = harness.client_with(None)
    assert_error(await nobody.get(f"/static/{load_assets().version}/{name}"), 404, "NOT_FOUND")
