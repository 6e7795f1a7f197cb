"""Bodies, queries and answers of what goes out: webhooks, their deliveries, notices and their rules."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from pydantic import Field

from heartlane.wire.answers import Answer
from heartlane.wire.fields import Id, Name, Opt, Url
from heartlane.wire.names import Open
from heartlane.wire.queries import Flag, PageQuery
from heartlane.wire.requests import RequestBody

FormatName = Literal["standard", "slack", "discord"]
NewsName = Literal[
    "run.claimed",
    "run.waiting",
    "run.released",
    "run.lease_expired",
    "run.paused",
    "run.resumed",
    "run.retried",
    "run.cancelled",
    "run.shipped",
    "run.failed",
    "plan.created",
    "plan.approved",
    "plan.rejected",
    "notice.lane_failed",
    "notice.attempts_used_up",
    "notice.lane_waiting",
    "notice.lane_stalled",
    "notice.worker_silent",
    "notice.plan_waiting",
    "notice.budget_80",
    "notice.budget_100",
    "notice.webhook_disabled",
]
GroupName = Literal["*", "run.*", "plan.*", "notice.*"]
ChoiceName = Literal[GroupName, NewsName]
NoticeKindName = Literal[
    "lane_failed",
    "attempts_used_up",
    "lane_waiting",
    "lane_stalled",
    "worker_silent",
    "plan_waiting",
    "budget_80",
    "budget_100",
    "webhook_disabled",
]
DeliveryStateName = Literal["pending", "delivered", "failed", "dropped"]
DisabledReasonName = Literal["by_hand", "gone", "failing"]
ClosedByName = Literal["progress", "dismissed"]

OVERLAP_SECONDS_MAX: Final = 7 * 86_400
OVERLAP_SECONDS_DEFAULT: Final = 86_400
AFTER_SECONDS_MIN: Final = 60
AFTER_SECONDS_MAX: Final = 30 * 86_400

Choices = Annotated[list[ChoiceName], Field(min_length=1, max_length=50)]


# --- requests -----------------------------------------------------------------------------------------------------


class CreateWebhookBody(RequestBody):
    """A new webhook."""

    url: Url
    """Where the news goes. It may hold a secret, as Slack's and Discord's do, so that only its host is shown again."""
    events: Choices = Field(["*"])
    """What it hears of: types of news, or groups of them such as `run.*`; left out: everything."""
    format: FormatName = "standard"
    """`standard`: JSON, signed by Standard Webhooks; `slack`, `discord`: as their incoming webhooks take it."""
    name: Name | None = None
    """What people call it."""
    enabled: bool = True


class PatchWebhookBody(RequestBody):
    """Changes of a webhook; what is left out stays."""

    url: Opt[Url] = None
    events: Opt[Choices] = None
    name: Name | None = None
    enabled: Opt[bool] = None
    """`false` drops what waits for it; `true` lets it begin anew."""


class RotateSecretBody(RequestBody):
    """A new secret for a webhook."""

    overlap_seconds: Annotated[int, Field(ge=0, le=OVERLAP_SECONDS_MAX)] = OVERLAP_SECONDS_DEFAULT
    """How long each message is signed with the old secret, too."""


class RuleBody(RequestBody):
    """What holds for one kind of notice."""

    enabled: bool = True


class PlanWaitingRuleBody(RuleBody):
    """What holds for plans that wait."""

    after_seconds: Opt[Annotated[int, Field(ge=AFTER_SECONDS_MIN, le=AFTER_SECONDS_MAX)]] = None
    """How long a plan waits for approval before it is told; left out: an hour."""


class NoticeRulesBody(RequestBody):
    """The rules of a project, whole: a kind that is left out is as by default."""

    lane_failed: RuleBody = RuleBody()
    attempts_used_up: RuleBody = RuleBody()
    lane_waiting: RuleBody = RuleBody()
    lane_stalled: RuleBody = RuleBody()
    worker_silent: RuleBody = RuleBody()
    plan_waiting: PlanWaitingRuleBody = PlanWaitingRuleBody()
    budget_80: RuleBody = RuleBody()
    budget_100: RuleBody = RuleBody()
    webhook_disabled: RuleBody = RuleBody()


class DeliveryQuery(PageQuery):
    """Which deliveries."""

    state: Opt[DeliveryStateName] = None


class NoticeQuery(PageQuery):
    """Which notices."""

    project_id: Opt[Id] = None
    open: Opt[Flag] = None
    """`true`: only those that still hold; `false`: only those that were dismissed or settled by progress."""
    kind: Opt[NoticeKindName] = None


# --- answers ------------------------------------------------------------------------------------------------------


class WebhookObject(Answer):
    """A webhook: where a project's news goes."""

    id: UUID
    project_id: UUID
    name: str | None
    url: str
    """Its scheme and host; `***` stands for the rest, which may be secret."""
    events: list[Open[ChoiceName]]
    format: Open[FormatName]
    enabled: bool
    disabled_reason: Open[DisabledReasonName] | None
    """`gone`: it answered 410; `failing`: nothing has reached it for a day."""
    disabled_at: datetime | None
    failures: int
    """Attempts in a row that failed."""
    failing_since: datetime | None
    old_secret_until: datetime | None
    """Until then each message is signed with the secret before the present one, too."""
    created_at: datetime
    updated_at: datetime


class WebhookAnswer(Answer):
    """One webhook."""

    webhook: WebhookObject


class WebhookWithSecret(Answer):
    """A webhook, and the secret that it signs with, which is never answered again."""

    webhook: WebhookObject
    secret: str | None
    """`whsec_…`, to verify signatures with; null but for the format `standard`."""


class WebhookList(Answer):
    """Webhooks, newest first."""

    webhooks: list[WebhookObject]
    next_cursor: str | None


class AttemptObject(Answer):
    """One attempt to deliver."""

    attempt: int
    at: datetime
    status: int | None
    """The answer's HTTP status; null where there was none."""
    milliseconds: int
    error: str | None
    """Why it counts as failed; null for a success."""
    answer: str | None
    """How the answer's body begins, as plain text."""


class DeliveryObject(Answer):
    """One piece of news for one webhook, and how it went so far."""

    id: UUID
    """The message's `webhook-id` too, the same in each attempt."""
    webhook_id: UUID
    type: Open[Literal[NewsName, "webhook.test"]]
    state: Open[DeliveryStateName]
    """`failed`: given up after 24 h; `dropped`: the webhook was disabled before."""
    next_attempt_at: datetime | None
    """While `pending`: when it is sent next or, while it is being sent, when that counts as lost."""
    created_at: datetime
    finished_at: datetime | None
    attempts: list[AttemptObject]
    """Oldest first."""


class DeliveryDetail(DeliveryObject):
    """A delivery read alone."""

    body: dict[str, Any]
    """What is sent in the format `standard`; the others are made of it."""


class DeliveryAnswer(Answer):
    """One delivery."""

    delivery: DeliveryDetail


class DeliveryList(Answer):
    """Deliveries, newest first. What is finished stays for seven days."""

    deliveries: list[DeliveryObject]
    next_cursor: str | None


class NoticeObject(Answer):
    """Something that a person should know, told once."""

    id: UUID
    project_id: UUID
    kind: Open[NoticeKindName]
    text: str
    """A sentence or two. It may quote what agents said: show it as plain text."""
    run_id: UUID | None
    plan_id: UUID | None
    webhook_id: UUID | None
    worker_id: str | None
    details: dict[str, Any]
    raised_at: datetime
    closed_at: datetime | None
    """Null while it holds."""
    closed_by: Open[ClosedByName] | None
    """`progress`: what it was about is over; `dismissed`: by a person."""
    dismissed_by: str | None


class NoticeAnswer(Answer):
    """One notice."""

    notice: NoticeObject


class NoticeList(Answer):
    """Notices, newest first."""

    notices: list[NoticeObject]
    next_cursor: str | None


class RuleObject(Answer):
    """What holds for one kind of notice."""

    enabled: bool
    """Whether it is told at all."""


class PlanWaitingRule(RuleObject):
    """What holds for plans that wait."""

    after_seconds: int
    """How long a plan waits for approval before it is told."""


class NoticeRulesObject(Answer):
    """What is told about a project."""

    lane_failed: RuleObject
    attempts_used_up: RuleObject
    lane_waiting: RuleObject
    lane_stalled: RuleObject
    worker_silent: RuleObject
    plan_waiting: PlanWaitingRule
    budget_80: RuleObject
    budget_100: RuleObject
    webhook_disabled: RuleObject


class NoticeRulesAnswer(Answer):
    """The rules of a project, defaults included."""

    notice_rules: NoticeRulesObject
