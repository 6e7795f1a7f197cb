"""The page's nginx settings, in a real nginx before a real server: they let through, wait and keep in what they should.

Needs nginx, which nothing else does; a machine without it says so.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from docs.generate.pages import ROOT
from tests.cli.command import here, served

PAGE = ROOT / "docs" / "behind-a-proxy.md"
READ_TIMEOUT_SECONDS = 60


def settings_of(page: str) -> str:
    """The one block of nginx settings."""
    (block,) = re.findall(r"^```nginx\n(.*?)^```\n", page, re.MULTILINE | re.DOTALL)
    return str(block)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@contextmanager
def nginx(folder: Path, settings: str) -> Iterator[None]:
    """A running nginx with these settings and everything it writes in `folder`."""
    temporary = "".join(
        f"{name}_temp_path {folder}/{name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    file = folder / "nginx.conf"
    # Started by root, nginx would go on as a user that may not write into the folder.
    user = "user root root;" if os.geteuid() == 0 else ""
    file.write_text(
        f"{user} daemon off; pid {folder}/pid; error_log {folder}/error.log;\n"
        f"events {{}}\nhttp {{\naccess_log off;\n{temporary}{settings}\n}}\n",
        "utf-8",
    )
    command = ["nginx", "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(file)]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(10)


def test_the_nginx_settings_do_what_the_page_says(tmp_path: Path) -> None:
    if shutil.which("nginx") is None:
        pytest.skip("the nginx settings can't be tried here: install nginx")
    database = f"sqlite:///{tmp_path / 'heartlane.sqlite3'}"
    limits = "default=5/minute"
    with served(database, tmp_path, "--trusted-proxies", "127.0.0.1", "--rate-limits", limits) as server:
        token = here("token", "create", "me", "--scope", "admin", HEARTLANE_DATABASE=database).out.strip()
        port = free_port()
        settings = settings_of(PAGE.read_text("utf-8"))
        settings = settings.replace("127.0.0.1:8484", server.url.removeprefix("http://"))
        settings = settings.replace("listen 443 ssl", f"listen 127.0.0.1:{port}")
        settings = re.sub(r"ssl_certificate\S* [^;]+;", "", settings)
        # From an address of its own: at the proxy's, which the server trusts, it would be believed itself.
        transport = httpx.HTTPTransport(local_address="127.0.0.2")
        url = f"http://127.0.0.1:{port}"
        with nginx(tmp_path, settings), httpx.Client(base_url=url, timeout=50, transport=transport) as client:
            until = time.monotonic() + 10
            while time.monotonic() < until:
                try:
                    client.get("/healthz").raise_for_status()
                    break
                except httpx.HTTPError:
                    time.sleep(0.05)
            client.headers["Authorization"] = f"Bearer {token}"
            assert client.get("/metrics").status_code == 403
            assert client.get("/readyz").json() == {"status": "ready"}

            # What the caller itself wrote into X-Forwarded-For doesn't count.
            left = [
                client.get("/api/projects", headers={"X-Forwarded-For": f"192.0.2.{number}"}).headers[
                    "ratelimit-remaining"
                ]
                for number in range(3)
            ]
            assert left == ["4", "3", "2"]

            # What the server takes comes through, and what it doesn't take nginx refuses itself.
            large = client.post("/api/agents/runs/claim", json={"worker_id": "w", "labels": {"x": "x" * 4_100_000}})
            assert large.status_code == 400
            assert large.json()["code"] == "INVALID_REQUEST"
            larger = client.post("/api/agents/runs/claim", json={"worker_id": "w", "labels": {"x": "x" * 4_200_000}})
            assert larger.status_code == 413

            # Nothing is sent while a claim waits.
            claim = client.post("/api/agents/runs/claim", json={"worker_id": "w", "wait_seconds": 2})
            assert claim.status_code == 200
            assert claim.json()["run"] is None
    assert f"proxy_read_timeout {READ_TIMEOUT_SECONDS}s" in settings


def test_the_page_gives_one_set_of_settings_that_waits_longer_than_a_claim() -> None:
    from heartlane.lanes.bounds import WAIT_SECONDS_MAX

    settings = settings_of(PAGE.read_text("utf-8"))
    (seconds,) = re.findall(r"proxy_read_timeout (\d+)s;", settings)
    assert int(seconds) == READ_TIMEOUT_SECONDS > WAIT_SECONDS_MAX
