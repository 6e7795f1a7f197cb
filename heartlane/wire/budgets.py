"""Bodies and answers of budgets."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field

from heartlane.lanes import bounds
from heartlane.wire.answers import Answer
from heartlane.wire.names import Open
from heartlane.wire.requests import RequestBody

Usd = Annotated[float, Field(ge=0, le=bounds.USD_CEILING_MAX, allow_inf_nan=False)]
Tokens = Annotated[int, Field(ge=0, le=bounds.TOKENS_CEILING_MAX)]
WaiverHours = Annotated[float, Field(gt=0, le=bounds.WAIVER_HOURS_MAX, allow_inf_nan=False)]
OnExceededName = Literal["pause", "stop"]
BudgetStateName = Literal["none", "ok", "warned", "exceeded", "waived"]


class BudgetBody(RequestBody):
    """A project's budget, whole: a ceiling that is left out or null is none."""

    usd_per_day: Usd | None = None
    """Dollars a day (UTC)."""
    usd_total: Usd | None = None
    """Dollars in all."""
    tokens_per_day: Tokens | None = None
    """Input and output tokens a day (UTC)."""
    tokens_total: Tokens | None = None
    on_exceeded: OnExceededName = "pause"
    """What becomes of lanes that are being worked when a ceiling is reached: `pause` keeps their claims and has their
    workers stand still; `stop` tells them to give their lanes back, uncounted, to be gone on with later."""


class GoOnBody(RequestBody):
    """For how long a project may go on beyond its ceilings."""

    hours: WaiverHours | None = None
    """Left out: until the day (UTC) ends."""


class SpentObject(Answer):
    """What a project has spent."""

    usd_today: float
    usd_total: float
    tokens_today: int
    tokens_total: int


class BudgetObject(Answer):
    """A project's budget and where it stands."""

    project_id: UUID
    usd_per_day: float | None
    usd_total: float | None
    tokens_per_day: int | None
    tokens_total: int | None
    on_exceeded: Open[OnExceededName]
    state: Open[BudgetStateName]
    """`none`: no ceiling; `warned`: 80 percent of one are spent; `exceeded`: nothing of the project can be claimed;
    `waived`: a person lets it go on beyond a ceiling."""
    words: str | None
    """The same as a sentence, where all isn't well."""
    changes_at: datetime | None
    """When the state changes by itself, for a day ends or a person's word does."""
    waived_until: datetime | None
    spent: SpentObject


class BudgetAnswer(Answer):
    """A budget."""

    budget: BudgetObject
