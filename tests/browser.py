"""A browser as far as a server can tell: it keeps cookies, and says where a change comes from."""

from __future__ import annotations

from http.cookies import SimpleCookie
from typing import Any

import httpx

from tests.harness import Harness


class Browser:
    """Visits the server at `base` and follows nothing by itself.

    cookies     name → value, as the server set them
    headers     what it sends with everything
    """

    def __init__(self, harness: Harness, base: str = "http://heartlane.test") -> None:
        self.base = base
        self.cookies: dict[str, str] = {}
        self.headers: dict[str, str] = {"user-agent": "Tests/1.0"}
        self._client = harness.client_with(None)

    async def request(
        self, method: str, path: str, *, headers: dict[str, str] | None = None, **sent: Any
    ) -> httpx.Response:
        """Send a request with the cookies, and keep those that come back. Nothing else is added."""
        cookies = (
            {"cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items())} if self.cookies else {}
        )
        answer = await self._client.request(
            method, f"{self.base}{path}", headers={**self.headers, **cookies, **(headers or {})}, **sent
        )
        for line in answer.headers.get_list("set-cookie"):
            for name, morsel in SimpleCookie(line).items():
                if morsel["max-age"] == "0":
                    self.cookies.pop(name, None)
                else:
                    self.cookies[name] = morsel.value
        self._client.cookies.clear()
        return answer

    async def get(self, path: str) -> httpx.Response:
        """Look at a page, or ask the API."""
        return await self.request("GET", path)

    async def post(self, path: str, *, headers: dict[str, str] | None = None, **sent: Any) -> httpx.Response:
        """Send a form as a page of this server's does."""
        return await self.request("POST", path, headers={"origin": self.base, **(headers or {})}, **sent)

    async def log_in(self, secret: str, next: str | None = None) -> httpx.Response:
        """Send the login's form."""
        fields = {"token": secret} if next is None else {"token": secret, "next": next}
        return await self.post("/login", data=fields)

    async def csrf(self) -> str:
        """What this session's changes carry."""
        token: str = (await self.get("/api/me")).json()["me"]["csrf_token"]
        return token

    async def change(self, method: str, path: str, **sent: Any) -> httpx.Response:
        """Change something as the board does."""
        headers = {"origin": self.base, "x-csrf-token": await self.csrf()}
        return await self.request(method, path, headers=headers, **sent)
