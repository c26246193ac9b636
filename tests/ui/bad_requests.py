"""Bad requests, as a fuzz draws them: for every listener of the page, and for every route of its server."""

import json
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

# --- what may stand in the place of a value ---

PASSWD = "/etc/passwd"
TEXTS = [
    "", " ", "\0", "\x1b[31m\r\n", "\ud800", "‮ﷺ", "<script>alert(1)</script>", "'\"; --", "{{7*7}}",
    "%s%n", "../../", "../" * 12 + "etc/passwd", "..\\..\\", PASSWD, "~/.ssh/id_rsa", "file:///etc/passwd",
    "app.py", "--run-dir=/tmp/x", "-1", "1e400", "NaN", "0x10", "all", "1-99999999999999999999", "auto",
    "null", "big", "mine/../mine", "a" * 70, "x" * 20_000, "😀" * 500, "1," * 3000,
]  # fmt: skip
NUMBERS = [
    -1, 0, 0.5, 2**31, 2**53, 2**63, 2**64, -(2**63), 1e308, 1e-320, 10**400, float("nan"), float("inf"),
    float("-inf"),
]  # fmt: skip


def files(paths: list[str], canary: str) -> st.SearchStrategy[Any]:
    """Files that nobody has uploaded: of the server's disk, of its own network, and half of one."""
    places = [PASSWD, "app.py", "/proc/self/environ", canary, "http://[::1]/", "", None, 3, *paths]
    marks = st.sampled_from([{"_type": "gradio.FileData"}, {"_type": "other"}, {}, None])
    whole = {"path": st.sampled_from(places), "meta": marks}
    more = {"url": st.sampled_from([canary, "file:///etc/passwd"]), "is_stream": st.booleans()}
    return st.fixed_dictionaries(whole, optional=more | {"orig_name": st.sampled_from(TEXTS)})


def values(paths: list[str], canary: str) -> st.SearchStrategy[Any]:
    """Anything that JSON can hold, and some that it cannot."""
    plain = st.one_of(
        st.none(),
        st.booleans(),
        st.sampled_from(NUMBERS),
        st.sampled_from([*TEXTS, *paths]),
        st.text(max_size=9),
    )
    update = st.fixed_dictionaries({"__type__": st.just("update"), "value": plain, "choices": plain})
    inside = st.one_of(plain, files(paths, canary), update)
    nested = st.one_of(st.lists(inside, max_size=3), st.dictionaries(st.text(max_size=4), inside, max_size=3))
    return st.one_of(plain, inside, nested, st.lists(nested, max_size=2))


# --- the page's listeners ---


@dataclass(frozen=True)
class Listener:
    """A listener of the page, as its own config tells it to anybody."""

    index: int
    name: str  # of what triggers it: run-push.click
    queued: bool
    good: tuple[Any, ...]  # values that it would take
    bounds: tuple[tuple[float, float] | None, ...]
    bad: tuple[int, Any] | None  # a place and what always stands there: what it begins would be dear


# Of these listeners one value is always wrong: a process would begin, or a download.
DEAR = {
    "train-check.click": (8, 0),  # pictures a batch
    "train-start.click": (8, 0),
    "run-resume.click": (0, "none of them"),
    "run-export.click": (0, "none of them"),
    "run-push.click": (0, "none of them"),
    "download.click": (0, "none of them"),
}
CHEAP = {
    "model": 0, "class": 0, "steps": 1, "pictures": 1, "guidance": 1, "lock": True, "grid-down": "steps",
    "grid-down-values": "1", "grid-across": "seed", "grid-across-values": "0, 1", "grid-model": "small",
    "grid-steps": 1, "budget-at": 0, "train-source": "folder", "train-folder": PASSWD,
    "train-images": 8, "train-batch": 8,
}  # fmt: skip


def listeners(config: dict[str, Any]) -> list[Listener]:
    """All of a page that reach the server."""
    components = {one["id"]: one["props"] for one in config["components"]}
    found = []
    for one in config["dependencies"]:
        if not one["backend_fn"]:
            continue
        place, event = one["targets"][0]
        name = f"{components.get(place, {}).get('elem_id') or one['api_name']}.{event}"
        props = [components[place] for place in one["inputs"]]
        found.append(
            Listener(
                one["id"],
                name,
                one["queue"],
                tuple(CHEAP.get(prop.get("elem_id"), prop.get("value")) for prop in props),
                tuple(
                    (prop["minimum"], prop["maximum"]) if prop.get("maximum") is not None else None
                    for prop in props
                ),
                DEAR.get(name),
            )
        )
    return found


@st.composite
def calls(draw: st.DrawFn, known: list[Listener], strange: st.SearchStrategy[Any]) -> tuple[Listener, dict]:
    """A listener, and a body for it with at least one thing wrong."""
    listener = draw(st.sampled_from(known))
    sent: Any = list(listener.good)
    for _ in range(draw(st.integers(1, 3)) if sent else 0):
        place = draw(st.integers(0, len(sent) - 1))
        bounds = listener.bounds[place]
        if bounds and draw(st.booleans()):
            low, high = bounds
            sent[place] = draw(
                st.sampled_from([low - 1, high + 1, low - 0.01, high + 0.01, str(low), low + 0.5])
            )
        else:
            sent[place] = draw(strange)
    if listener.bad and len(sent) > listener.bad[0]:  # another of that name may take nothing
        sent[listener.bad[0]] = listener.bad[1]
    how = draw(st.sampled_from(["as it is"] * 7 + ["fewer", "more", "none", "no list"]))
    if how == "no list":
        sent = draw(strange)
    elif how != "as it is":
        sent = {"fewer": sent[:-1], "more": [*sent, draw(strange)], "none": []}[how]
    body = {"data": sent, "fn_index": listener.index, "session_hash": draw(st.sampled_from(["a", "b", "c"]))}
    for field in (
        "event_data",
        "trigger_id",
        "event_id",
        "simple_format",
        "batched",
        "fn_index",
        "session_hash",
    ):
        if draw(st.integers(0, 39)) == 0:
            body[field] = draw(strange)
    if draw(st.booleans()):
        body["event_data"] = draw(
            st.sampled_from([{"pick": "0"}, {"pick": "99"}, {"picture": -1}, {"hidden": [[]]}])
        )
    return listener, body


def as_json(body: Any) -> bytes:
    """With bare NaN and Infinity, which JSON does not have and Python's parser takes."""
    return json.dumps(body).encode()


# --- the server's routes ---

ODD_PARTS = [
    "..", ".", "", "%2e%2e", "%252e%252e%252f", "..%2f..%2f..%2fetc%2fpasswd", "..%5c..%5c", "%00",
    "%ff%fe", "a" * 300, "9" * 30, "<script>", "{}", "generate", "predict", "s", "0", "-1", "x.png",
    "index.js", ";id", "&#x2f;", "%0d%0aX:1",
]  # fmt: skip
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"]
HEADERS = [
    {"Range": "bytes=5-2"}, {"Range": "bytes=0-99999999999999999999"}, {"Range": "bytes=²-³"},
    {"Range": "bytes=1-2-3"}, {"Range": "bytes=-"}, {"Range": "lines=1"},
    {"Content-Type": "multipart/form-data"}, {"Accept": "\xff"},
    {"Content-Type": "application/json; charset=utf-9"}, {"Content-Type": "multipart/form-data; boundary="},
    {"Cookie": "access-token-x=1; ;=;"}, {"Origin": "null"}, {"Origin": "http://evil.example"},
    {"Host": "evil.example"}, {"X-Forwarded-Host": "evil.example/<script>"}, {"X-Forwarded-Host": "["},
    {"X-Gradio-Server": "http://[::x"}, {"X-Forwarded-Proto": "gopher"}, {"Authorization": "Basic ÿ"},
    {"Accept-Encoding": "br;q=x"}, {"If-None-Match": "*"}, {"Content-Encoding": "gzip"},
    {"Accept-Language": "x" * 4000},
]  # fmt: skip


def _part(told: bytes) -> bytes:
    return b"--x\r\nContent-Disposition: form-data; " + told + b"\r\n\r\nx\r\n--x--\r\n"


BODIES = [
    b"", b"{", b"[]", b"null", b'{"data": ', b'{"data": [], "data": [1]}', b"\xff\xfe", b"[" * 3000,
    b'"' * 50, b'{"data": {}}', b'{"fn_index": 1e99, "data": []}', b"--x\r\n\r\n--x--",
    b'{"session_hash": "a", "fn_index": 5}',
    _part(b'name="files"; filename="../../../../tmp/evil"'),
    _part(b'filename="a"'), b"9" * 5000,
    _part(b'name="files"; filename="' + b"a" * 3000 + b'"'),
    _part(b'name="files"; filename="\0"'),
    _part(b'name="files"'), b"z=1&__proto__=2",
]  # fmt: skip
TYPES = [
    "application/json",
    "multipart/form-data; boundary=x",
    "text/plain",
    "application/x-www-form-urlencoded",
    None,
]
# Routes that the app's own description leaves out, and names that it has had.
BESIDE = [
    "/health", "/docs", "/redoc", "/openapi.json", "/gradio_api/mcp/sse", "/gradio_api/upload",
    "/file=app.py", "/queue", "/gradio_api/profiling/traces", "/gradio_api/run-history/records",
    "/.git/config", "/assets/{path}", "/app.py", "/static/{path}", "/runs/mine/weights.safetensors",
    "/gradio_api/heartbeat", "/?deep_link={path}", "/gradio_api/upload_progress?upload_id={path}",
    "/gradio_api/queue/data?session_hash={path}", "/?chart-pick={path}",
    "/gradio_api/deep_link?session_hash=a", "/?seed={path}&seed=1&model={path}", "/config?page={path}",
    "{path}",
]  # fmt: skip


@dataclass(frozen=True)
class Sent:
    """A request as it goes out."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes | None

    def text(self) -> str:
        """All that is in it."""
        return "\n".join(map(repr, (self.path, self.headers, self.body)))


@st.composite
def requests(draw: st.DrawFn, described: dict[str, Any], places: list[str]) -> Sent:
    """A request to some route. described: an OpenAPI document. places: paths that nobody may read."""
    path = draw(st.sampled_from([*described["paths"], *BESIDE]))
    odd = st.one_of(
        st.sampled_from([*ODD_PARTS, *places]),
        st.lists(st.sampled_from(ODD_PARTS), min_size=2, max_size=4).map("/".join),
        st.sampled_from(places).map(lambda place: "/." * 3 + place),
        st.sampled_from(places).map(lambda place: place.replace("/", "%2f")),
        st.sampled_from(places).map(lambda place: place.replace("/", "//")),
    )
    known = [method.upper() for method in described["paths"].get(path, {})]
    while "{" in path:
        begin, _, rest = path.partition("{")
        path = begin + draw(odd) + rest.partition("}")[2]
    method = draw(st.sampled_from(known if known and draw(st.integers(0, 4)) else METHODS))
    headers = dict(draw(st.sampled_from(HEADERS))) if draw(st.booleans()) else {}
    body = None
    if method in ("POST", "PUT", "PATCH"):
        body = draw(st.one_of(st.sampled_from(BODIES), st.binary(max_size=60)))
        kind = draw(st.sampled_from(TYPES))
        headers |= {"Content-Type": kind} if kind and "Content-Type" not in headers else {}
    return Sent(method, path if path.startswith("/") else f"/{path}", headers, body)
