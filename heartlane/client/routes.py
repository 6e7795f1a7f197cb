"""Every route as a method of both clients, written once.

    class Routes:
        read_run = Method(calls.read_run)

makes `AsyncClient.read_run(run_id)` a coroutine and `Client.read_run(run_id)` a plain call, each with the parameters of
`calls.read_run`, and with the type of what it answers. A `Listing` does the same for lists: an iterator over all pages.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from functools import wraps
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, overload

from heartlane.client import budget_calls, calls, github_calls, news_calls, overview_calls, people_calls, project_calls
from heartlane.client.call import Call, Page

if TYPE_CHECKING:
    from heartlane.client.aio import AsyncClient
    from heartlane.client.sync import Client

P = ParamSpec("P")
T = TypeVar("T")


class Method(Generic[P, T]):
    """A call as a method of either client."""

    def __init__(self, build: Callable[P, Call[T]]) -> None:
        self._build = build
        self.__doc__ = build.__doc__

    @overload
    def __get__(self, client: None, owner: type) -> Callable[P, Call[T]]: ...
    @overload
    def __get__(self, client: AsyncClient, owner: type) -> Callable[P, Coroutine[Any, Any, T]]: ...
    @overload
    def __get__(self, client: Client, owner: type) -> Callable[P, T]: ...
    def __get__(self, client: Any, owner: type) -> Any:
        if client is None:
            return self._build
        build = self._build

        @wraps(build)
        def method(*args: P.args, **kwargs: P.kwargs) -> Any:
            return client.send(build(*args, **kwargs))

        return method


class Listing(Generic[P, T]):
    """A list as a method of either client: an iterator that asks for each page when it gets there."""

    def __init__(self, build: Callable[P, Call[Page[T]]]) -> None:
        self._build = build
        self.__doc__ = build.__doc__

    @overload
    def __get__(self, client: None, owner: type) -> Callable[P, Call[Page[T]]]: ...
    @overload
    def __get__(self, client: AsyncClient, owner: type) -> Callable[P, AsyncGenerator[T, None]]: ...
    @overload
    def __get__(self, client: Client, owner: type) -> Callable[P, Iterator[T]]: ...
    def __get__(self, client: Any, owner: type) -> Any:
        if client is None:
            return self._build
        build = self._build

        @wraps(build)
        def method(*args: P.args, **kwargs: P.kwargs) -> Any:
            return client.pages(build(*args, **kwargs))

        return method


class Routes:
    """What both clients can ask."""

    report = Method(calls.report)
    claim_next = Method(calls.claim_next)
    claim_run = Method(calls.claim_run)
    release_run = Method(calls.release_run)
    pause_run = Method(calls.pause_run)
    resume_run = Method(calls.resume_run)
    cancel_run = Method(calls.cancel_run)
    retry_run = Method(calls.retry_run)
    runs = Listing(calls.runs)
    read_run = Method(calls.read_run)
    events = Listing(calls.events)
    workers = Listing(calls.workers)

    create_plan = Method(calls.create_plan)
    plan_tickets = Method(calls.plan_tickets)
    plans = Listing(calls.plans)
    read_plan = Method(calls.read_plan)
    read_prompts = Method(calls.read_prompts)
    approve_plan = Method(calls.approve_plan)
    reject_plan = Method(calls.reject_plan)

    create_project = Method(project_calls.create_project)
    projects = Listing(project_calls.projects)
    read_project = Method(project_calls.read_project)
    patch_project = Method(project_calls.patch_project)
    create_milestone = Method(project_calls.create_milestone)
    milestones = Listing(project_calls.milestones)
    read_milestone = Method(project_calls.read_milestone)
    patch_milestone = Method(project_calls.patch_milestone)
    create_ticket = Method(project_calls.create_ticket)
    sync_tickets = Method(project_calls.sync_tickets)
    tickets = Listing(project_calls.tickets)
    read_ticket = Method(project_calls.read_ticket)
    patch_ticket = Method(project_calls.patch_ticket)
    change_tickets = Method(project_calls.change_tickets)

    read_github_link = Method(github_calls.read_github_link)
    put_github_link = Method(github_calls.put_github_link)
    delete_github_link = Method(github_calls.delete_github_link)
    import_github = Method(github_calls.import_github)

    me = Method(people_calls.me)
    create_login_link = Method(people_calls.create_login_link)
    sessions = Listing(people_calls.sessions)
    end_session = Method(people_calls.end_session)
    audit = Listing(people_calls.audit)

    create_webhook = Method(news_calls.create_webhook)
    webhooks = Listing(news_calls.webhooks)
    read_webhook = Method(news_calls.read_webhook)
    patch_webhook = Method(news_calls.patch_webhook)
    delete_webhook = Method(news_calls.delete_webhook)
    rotate_webhook_secret = Method(news_calls.rotate_webhook_secret)
    test_webhook = Method(news_calls.test_webhook)
    deliveries = Listing(news_calls.deliveries)
    read_delivery = Method(news_calls.read_delivery)
    resend_delivery = Method(news_calls.resend_delivery)
    read_budget = Method(budget_calls.read_budget)
    set_budget = Method(budget_calls.set_budget)
    let_go_on = Method(budget_calls.let_go_on)
    read_overview = Method(overview_calls.read_overview)
    notices = Listing(news_calls.notices)
    dismiss_notice = Method(news_calls.dismiss_notice)
    read_notice_rules = Method(news_calls.read_notice_rules)
    write_notice_rules = Method(news_calls.write_notice_rules)

    health = Method(calls.health)
    ready = Method(calls.ready)
    metrics = Method(calls.metrics)
    openapi = Method(calls.openapi)
