"""Query and answer of the overview."""

from __future__ import annotations

from datetime import date
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from heartlane.lanes import bounds
from heartlane.wire.answers import Answer
from heartlane.wire.fields import Id, Opt
from heartlane.wire.names import Open, RoleName, StateName
from heartlane.wire.queries import Digits


class OverviewQuery(BaseModel):
    """What the overview is of."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    project_id: Opt[Id] = None
    days: Annotated[int, Field(ge=1, le=bounds.OVERVIEW_DAYS_MAX), Digits()] = bounds.OVERVIEW_DAYS_DEFAULT
    """So many days (UTC), today the last of them."""


class UsageObject(Answer):
    """Attempts that ended, how, and what was used. A lane that is tried three times has three attempts."""

    attempts: int
    shipped: int
    failed: int
    """Those that counted as a failure; what is neither was given back."""
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    cost_usd: float


class UsageOfDay(UsageObject):
    """Of a day (UTC)."""

    day: date


class UsageOfProject(UsageObject):
    """Of a project."""

    project_id: UUID
    name: str


class UsageOfRole(UsageObject):
    """Of a role."""

    role: Open[RoleName]


class UsageOfAgent(UsageObject):
    """Of an agent and its model, null where nobody said."""

    agent: str | None
    model: str | None


class PhaseObject(Answer):
    """How long a phase took, over all times that it ended. Read from a scale of steps, within 10 percent."""

    phase: str
    count: int
    median_seconds: float
    p90_seconds: float


class FailureObject(Answer):
    """How many attempts failed for a reason: the agent's own word, `lease_expired` or `cancelled`."""

    reason: str
    count: int


class OverviewObject(Answer):
    """How the work goes, of one project or of all that the token can see."""

    project_id: UUID | None
    since: date
    until: date
    lanes: dict[Open[StateName], int]
    """How many there are now, by state."""
    shipped_per_day: float
    """The mean of the whole days; of today alone where there are none."""
    days: list[UsageOfDay]
    """Every day of them, the oldest first."""
    total: UsageObject
    """Of all these days."""
    projects: list[UsageOfProject]
    """The hundred that cost most, as in `agents`."""
    roles: list[UsageOfRole]
    agents: list[UsageOfAgent]
    phases: list[PhaseObject]
    """The fifty that ended most often."""
    failures: list[FailureObject]
    """The fifty most frequent reasons."""


class OverviewAnswer(Answer):
    """The overview."""

    overview: OverviewObject
