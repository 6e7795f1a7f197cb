"""What `docs/send-news.md` says of verifying messages, and of what there is, is so."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

from heartlane.lanes.news import CHOICES, NEWS_TYPES, NOTICE_KINDS, TEST
from heartlane.server.sender import signatures
from heartlane.store.notices import RULES
from heartlane.wire.news import ChoiceName, NewsName, NoticeKindName, NoticeRulesBody

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "send-news.md").read_text("utf-8")
SECRET = "whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER = "whsec_" + "C2FVsBQIhrscChlQIMV+b5sSYspob7oD"


def test_the_code_of_the_page_tells_our_messages_from_others() -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(code, "send-news.md", "exec"), names)  # noqa: S102 - the page's own code
    read = names["read"]
    body = '{"type":"run.shipped","data":{}}'

    def headers(at: datetime, *secrets: str) -> dict[str, str]:
        signed = signatures("id-1", at, body, list(secrets))
        return {"webhook-id": "id-1", "webhook-timestamp": str(int(at.timestamp())), "webhook-signature": signed}

    now = datetime.now(UTC)
    assert read(SECRET, headers(now, SECRET), body.encode()) == json.loads(body)
    assert read(OTHER, headers(now, SECRET, OTHER), body.encode()) == json.loads(body), "while secrets change"
    assert read(OTHER, headers(now, SECRET), body.encode()) is None
    assert read(SECRET, headers(now, SECRET), body.replace("run", "ran").encode()) is None
    assert read(SECRET, headers(datetime.fromtimestamp(now.timestamp() - 600, UTC), SECRET), body.encode()) is None
    assert read(SECRET, {}, body.encode()) is None


def test_names_are_the_same_wherever_they_stand() -> None:
    assert set(get_args(NewsName)) == set(NEWS_TYPES) - {TEST}
    assert set(get_args(ChoiceName)) == set(CHOICES)
    assert set(get_args(NoticeKindName)) == set(NOTICE_KINDS) == set(RULES) == set(NoticeRulesBody.model_fields)


def test_every_kind_of_notice_has_a_row() -> None:
    section = PAGE.partition("\n## Notices\n")[2]
    rows = {
        name for cell in re.findall(r"^\|([^|]*)\|", section, re.MULTILINE) for name in re.findall(r"`(\w+)`", cell)
    }
    assert rows == set(NOTICE_KINDS)
