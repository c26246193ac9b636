"""To which names the page answers."""

import asyncio

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from ui.gate import Gate
from ui.limits import Limits


def status(host: str, limits: Limits) -> tuple[int, str]:
    """What a request for a name gets."""

    async def ask() -> httpx.Response:
        inner = Starlette(routes=[Route("/", lambda request: PlainTextResponse("the page"))])
        async with httpx.AsyncClient(transport=httpx.ASGITransport(Gate(inner, limits))) as client:
            return await client.get("http://here/", headers={"Host": host})

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
