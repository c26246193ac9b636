"""The served app through gradio_client: the named endpoint, its errors, its manners under load."""

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError
from PIL import Image

from dit.pictures import read_settings
from tests.ui.waiting import SECONDS, client_of

GOOD = {
    "model": "small",
    "class": "cone",
    "steps": 6,
    "guidance_scale": 2.0,
    "seed": 5,
    "pictures": 2,
    "sampler": "ddim",
}
ORDER = [*GOOD, "guidance_interval", "cache_every"]
LONG = list((GOOD | {"steps": 1000, "model": "big", "pictures": 16}).values())  # far more than 20 s of work


@pytest.fixture(scope="module")
def client(address: str) -> Client:
    """One client for the module."""
    return client_of(address)


def call(client: Client, **change: object) -> tuple[list[Image.Image], dict]:
    """The endpoint with some arguments changed: pictures and what it says of them."""
    gallery, said = client.predict(*(GOOD | change).values(), api_name="/generate")
    return [Image.open(item["image"]) for item in gallery], said


def test_pictures_come_as_png_with_every_setting_inside(client: Client) -> None:
    images, said = call(client)
    assert [image.format for image in images] == ["PNG", "PNG"]
    assert [image.size for image in images] == [(32, 32), (32, 32)]
    for i, image in enumerate(images):
        settings = read_settings(image)
        assert settings == said["pictures"][i]
        assert {key: settings[key] for key in ("model", "class", "steps", "guidance_scale", "sampler")} == {
            key: GOOD[key] for key in ("model", "class", "steps", "guidance_scale", "sampler")
        }
        assert settings["seed"] == 5 + i
    assert said["gmacs"] > 0 and said["seconds"] > 0


def test_same_inputs_give_the_same_picture_and_another_seed_another(client: Client) -> None:
    (first, _), _ = call(client)
    (again, _), _ = call(client)
    (other, _), _ = call(client, seed=99)
    assert np.array_equal(np.asarray(first), np.asarray(again))
    assert not np.array_equal(np.asarray(first), np.asarray(other))


def test_the_settings_inside_a_picture_draw_it_again(client: Client) -> None:
    (_, second), _ = call(client)
    settings = read_settings(second)
    (again,), _ = call(client, seed=settings["seed"], pictures=1)
    difference = np.abs(np.asarray(again).astype(int) - np.asarray(second).astype(int))
    assert difference.max() <= 1  # another batch size may round a product differently


def test_guidance_doubles_the_cost(client: Client) -> None:
    _, guided = call(client)
    _, plain = call(client, guidance_scale=1.0)
    assert guided["gmacs"] == pytest.approx(2 * plain["gmacs"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"class": "5"}, "class is .*from 0 to 4"),
        ({"class": "banana"}, "no class is called 'banana'; small has classes 0 to 4: sphere"),
        ({"steps": 0}, "from 1 to 1000"),
        ({"steps": 10_000}, "from 1 to 1000"),
        ({"steps": "fifty"}, "steps is 'fifty'"),
        ({"guidance_scale": "nan"}, "guidance_scale is 'nan'; it must be a number from 0 to 20"),
        ({"guidance_scale": 1e9}, "from 0 to 20"),
        ({"seed": -3}, "seed is -3"),
        ({"pictures": 500}, "from 1 to 16"),
        ({"pictures": "two"}, "pictures is 'two'"),
        ({"sampler": "magic"}, "ddim, dpm-solver"),
        ({"model": "huge"}, "it must be one of"),
    ],
)
def test_bad_input_gets_a_message_that_names_the_limit(client: Client, change: dict, said: str) -> None:
    with pytest.raises(AppError, match=said):
        call(client, **change)
    assert len(call(client, pictures=1)[0]) == 1  # the server is still up


def test_a_bare_nan_in_the_request_is_answered(address: str, client: Client) -> None:
    body = json.dumps({"data": list((GOOD | {"guidance_scale": float("nan")}).values())}).encode()
    assert b"NaN" in body  # which JSON does not allow, but Python's parsers let through
    request = urllib.request.Request(
        f"{address}/gradio_api/call/generate", body, {"Content-Type": "application/json"}
    )
    event = json.load(urllib.request.urlopen(request, timeout=SECONDS))["event_id"]
    answer = (
        urllib.request.urlopen(f"{address}/gradio_api/call/generate/{event}", timeout=SECONDS).read().decode()
    )
    assert "event: error" in answer
    assert len(call(client, pictures=1)[0]) == 1


def test_a_cancelled_job_stops_and_the_next_one_runs(client: Client) -> None:
    job = client.submit(
        *(GOOD | {"steps": 1000, "model": "big", "pictures": 16}).values(), api_name="/generate"
    )
    while not job.outputs():
        time.sleep(0.05)
    job.cancel()
    started = time.monotonic()
    assert len(call(client, steps=1, pictures=1)[0]) == 1
    assert time.monotonic() - started < 20  # the cancelled job would have taken longer than that


def test_a_client_that_vanishes_frees_the_device(address: str, client: Client) -> None:
    code = (
        "import sys, time; from gradio_client import Client; "
        f"job = Client({address!r}, verbose=False).submit(*{LONG!r}, api_name='/generate')\n"
        "while not job.outputs(): time.sleep(0.05)\n"
        "print('drawing', flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as vanishing:
        assert vanishing.stdout.readline() == "drawing\n"
        vanishing.kill()
    started = time.monotonic()
    assert len(call(client, steps=1, pictures=1)[0]) == 1
    assert time.monotonic() - started < 20


def test_two_clients_at_once_are_served_in_turn(address: str, client: Client) -> None:
    alone, _ = call(client, pictures=1)
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda c: call(c, pictures=1)[0][0], [client, client_of(address)]))
    for image in both:
        apart = np.asarray(image).astype(int) - np.asarray(alone[0])
        assert np.abs(apart).max() <= 1  # drawn together they may be rounded otherwise


def test_the_endpoint_describes_itself(client: Client) -> None:
    described = client.view_api(return_format="dict")["named_endpoints"]
    assert list(described) == ["/generate"]
    assert [parameter["label"] for parameter in described["/generate"]["parameters"]] == ORDER


@pytest.mark.parametrize("path", ["/monitoring", "/gradio_api/file=/etc/passwd", "/gradio_api/file=app.py"])
def test_nothing_else_is_served(address: str, path: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(address + path, timeout=SECONDS)
    assert caught.value.code in (403, 404)


def test_large_uploads_are_refused(address: str) -> None:
    boundary, body = "b", b"x" * 3_000_000
    data = (
        b'--b\r\nContent-Disposition: form-data; name="files"; filename="x"\r\n\r\n' + body + b"\r\n--b--\r\n"
    )
    request = urllib.request.Request(
        f"{address}/gradio_api/upload",
        data,
        {"Content-Type": f"multipart/form-data; boundary={boundary}"},
    )
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=30)
    assert caught.value.code == 413


def test_the_api_is_open_about_its_schema(address: str) -> None:
    info = json.load(urllib.request.urlopen(f"{address}/gradio_api/info", timeout=SECONDS))
    assert "/generate" in info["named_endpoints"]


def test_an_edm_model_is_drawn_with_its_own_sampler(client: Client) -> None:
    (image,), said = call(client, model="edm", sampler="auto", pictures=1, steps=3)
    settings = read_settings(image)
    assert settings["sampler"] == "heun" and settings["guidance_schedule"] == "constant"
    _, said = client.predict("edm", "cone", 2, api_name="/generate")  # all else by default
    assert said["pictures"][0]["sampler"] == "heun" and said["pictures"][0]["guidance_scale"] == 2
    _, said = client.predict("free", "0", 2, api_name="/generate")
    assert said["pictures"][0]["guidance_scale"] == 1
    with pytest.raises(AppError, match="sampler is 'ddim'.*edm; use heun"):
        call(client, model="edm")
