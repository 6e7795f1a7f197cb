"""The code of `docs/python-client.md` does what the page says it prints."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path
from typing import Any

import pytest

from tests.cli.command import heartlane, served
from tests.docs.transcripts import agrees

PAGE = Path(__file__).resolve().parents[2] / "docs" / "python-client.md"
BLOCK = re.compile(r"^```python\n(?P<code>.*?)^```\n(?:\n```text\n(?P<printed>.*?)^```\n)?", re.MULTILINE | re.DOTALL)


def test_the_page_says_what_its_code_prints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = PAGE.read_text("utf-8")
    blocks = list(BLOCK.finditer(page))
    assert len(blocks) >= 8
    database = f"sqlite:///{tmp_path / 'heartlane.db'}"
    with served(database, tmp_path) as server:
        token = heartlane("token", "create", "docs", "--scope", "admin", HEARTLANE_DATABASE=database).out.strip()
        monkeypatch.setenv("HEARTLANE_URL", server.url)
        monkeypatch.setenv("HEARTLANE_TOKEN", token)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        names: dict[str, Any] = {}
        for block in blocks:
            code = block["code"].replace("http://127.0.0.1:8484", server.url).replace("hlt_…", token)
            line = page.count("\n", 0, block.start("code")) + 1
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(compile("\n" * (line - 1) + code, PAGE.name, "exec"), names)  # noqa: S102 - the page's own code
            shown = block["printed"] or ""
            assert agrees(shown, printed.getvalue()), (
                f"line {line}\n--- shown\n{shown}--- printed\n{printed.getvalue()}"
            )


def test_every_way_to_fail_is_named() -> None:
    page = PAGE.read_text("utf-8")
    from heartlane import client

    for name in client.__all__:
        if isinstance(each := getattr(client, name), type) and issubclass(each, Exception):
            assert f"`{name}`" in page or f"{name}`s" in page, name
