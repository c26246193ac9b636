"""To which names the page answers, and whose fault a failure is."""

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from ui.gate import Gate
from ui.limits import Limits
from ui.request import whole


def status(
    host: str, limits: Limits, answer: Callable[..., Any] = PlainTextResponse, **headers: str
) -> tuple[int, str]:
    """What a request for a name gets."""

    async def ask() -> httpx.Response:
        async def inner(scope: Scope, receive: Receive, send: Send) -> None:
            await answer("the page")(scope, receive, send)

        async with httpx.AsyncClient(transport=httpx.ASGITransport(Gate(inner, limits))) as client:
            return await client.get("http://here/", headers={"Host": host, **headers})

    answer = asyncio.run(ask())
    return answer.status_code, answer.text


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:7860", "127.0.0.1:7860", "[::1]:7860", "[::1]"])
def test_a_page_that_lends_all_folders_answers_to_its_own_machine(host: str) -> None:
    assert status(host, Limits()) == (200, "the page")


@pytest.mark.parametrize("host", ["evil.example", "evil.example:7860", "localhost.evil.example", ""])
def test_and_to_no_other_name(host: str) -> None:
    code, said = status(host, Limits())
    assert code == 421 and "behind a proxy start it with --folders, or --training off" in said


@pytest.mark.parametrize("limits", [Limits(folders=()), Limits(training=False)])
def test_one_that_lends_none_answers_to_all(limits: Limits) -> None:
    assert status("page.example", limits) == (200, "the page")


@pytest.mark.parametrize("name", ["X-Forwarded-For", "Forwarded", "Via"])
def test_what_came_through_a_proxy_is_not_from_its_own_machine(name: str) -> None:
    assert status("localhost", Limits(), **{name: "192.0.2.1"})[0] == 421
    assert status("localhost", Limits(folders=()), **{name: "192.0.2.1"})[0] == 200


def test_a_failure_of_this_projects_own_is_no_fault_of_the_sender() -> None:
    code, said = status("localhost", Limits(), lambda page: whole("steps", page, 0, 1))
    assert code == 500 and "the server failed" in said
    assert status("localhost", Limits(), int)[0] == 400  # as Gradio's routes raise it
