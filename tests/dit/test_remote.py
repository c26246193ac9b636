"""The Hub: which files are fetched, when it is asked at all, and what is said where they cannot be had."""

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import dit
from dit import remote
from dit.autoencoder import load_autoencoder
from dit.dit import DiT
from dit.published import AUTOENCODERS, PUBLISHED, Published
from dit.remote import HubError, arrived, autoencoder_files, cached, fetch, is_reachable, model_files
from tests.dit.conftest import PINNED, answering, connect, one_line

OTHER = PINNED[::-1]  # another commit
KL, SHARDS = "diffusion_pytorch_model", ["-00001-of-00002", "-00002-of-00002"]
XL = PUBLISHED["DiT-XL/2-256"]


@pytest.fixture(autouse=True)
def all_weights_are_large(monkeypatch):
    """Or the small ones of these tests would all come by the Hub's own library."""
    monkeypatch.setattr(remote, "LARGE", 1000)


@pytest.fixture
def interrupt(monkeypatch):
    """Ctrl-C when a connection breaks off, instead of another try."""

    def stop(seconds: float) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("dit.download.time", SimpleNamespace(sleep=stop))
        yield patch


def asked_for_content(hub) -> bool:
    """Whether any file has been asked for; questions about it do not count."""
    return hub.count("/resolve/") + hub.count("/storage/") > 0


# --- which files ---


def parts(folder: str, ending: str, sharded: bool = False) -> list[str]:
    """A module's weights in one format, as diffusers names them."""
    if not sharded:
        return [f"{folder}{KL}.{ending}"]
    return [f"{folder}{KL}.{ending}.index.json", *(f"{folder}{KL}{shard}.{ending}" for shard in SHARDS)]


PIPELINE = [
    "model_index.json",
    "scheduler/scheduler_config.json",
    "transformer/config.json",
    "vae/config.json",
]
BOTH = parts("vae/", "bin") + parts("vae/", "safetensors")


@pytest.mark.parametrize(
    ("names", "needed"),
    [
        ([], []),
        (["README.md"], []),
        (["README.md", "model.safetensors", "config.json"], []),  # somebody's language model
        (["weights.safetensors", "run.log", "step_1/checkpoint.pt"], ["weights.safetensors"]),
        (["weights.safetensors", "README.md", "samples.png"], ["README.md", "weights.safetensors"]),
        (["config.json", f"{KL}.bin"], ["config.json", f"{KL}.bin"]),  # a transformer alone
        (
            [*PIPELINE, *parts("transformer/", "safetensors"), *parts("transformer/", "bin"), *BOTH, "a.png"],
            [*PIPELINE, *parts("transformer/", "safetensors"), *parts("vae/", "safetensors")],
        ),
        (
            [*PIPELINE, *parts("transformer/", "bin"), *parts("vae/", "bin")],
            [*PIPELINE, *parts("transformer/", "bin"), *parts("vae/", "bin")],
        ),
        (
            [*PIPELINE, *parts("transformer/", "safetensors", True), *BOTH],
            [*PIPELINE, *parts("transformer/", "safetensors", True), *parts("vae/", "safetensors")],
        ),
        (
            [*PIPELINE, *parts("transformer/", "bin", True), *parts("transformer/", "safetensors", True)]
            + parts("vae/", "bin"),
            [*PIPELINE, *parts("transformer/", "safetensors", True), *parts("vae/", "bin")],
        ),
        (  # ours, as dit.hub push uploads a model of latents: diffusers' copy of the transformer is not read
            ["weights.safetensors", *PIPELINE, *parts("transformer/", "safetensors"), *BOTH],
            ["weights.safetensors", *sorted({*PIPELINE} - {"transformer/config.json"})]
            + parts("vae/", "safetensors"),
        ),
        ([*PIPELINE, *parts("unet/", "safetensors"), *BOTH], []),  # Stable Diffusion
    ],
)
def test_what_a_model_needs_of_a_repository(names, needed):
    assert sorted(model_files(names)) == sorted(needed)


@pytest.mark.parametrize("folder", ["", "vae"])
def test_what_an_autoencoder_needs_of_a_repository(folder):
    prefix = f"{folder}/" if folder else ""
    names = ["README.md", *PIPELINE, "config.json", *BOTH, *parts("", "bin"), *parts("", "safetensors")]
    assert sorted(autoencoder_files(names, folder)) == [f"{prefix}config.json", f"{prefix}{KL}.safetensors"]
    assert autoencoder_files([name for name in names if not name.endswith("config.json")], folder) == []
    assert autoencoder_files([name for name in names if KL not in name], folder) == []


@pytest.mark.parametrize("sharded", [False, True], ids=["whole", "sharded"])
@pytest.mark.parametrize("ending", ["safetensors", "bin"])
def test_what_is_fetched_can_be_loaded(ending, sharded, hub, diffusers_folder, tmp_path):
    from diffusers import DiTTransformer2DModel

    model = DiTTransformer2DModel.from_pretrained(diffusers_folder / "transformer")
    model.save_pretrained(
        tmp_path / "model",
        safe_serialization=ending == "safetensors",
        max_shard_size="100KB" if sharded else "10GB",
    )
    assert ((tmp_path / "model" / f"{KL}.{ending}.index.json").exists()) == sharded
    hub.add("me/model", tmp_path / "model", PINNED)
    assert dit.load("me/model").state_dict().keys() == dit.load(diffusers_folder).state_dict().keys()


# --- what is here ---


@pytest.fixture
def latent_folder(diffusers_folder, own_folder, tmp_path) -> Path:
    """Our weights, and a pipeline of diffusers around them."""
    shutil.copytree(diffusers_folder, tmp_path / "latent")
    shutil.copytree(own_folder, tmp_path / "latent", dirs_exist_ok=True)
    return tmp_path / "latent"


@pytest.fixture
def sharded_folder(diffusers_folder, tmp_path) -> Path:
    """A pipeline of diffusers whose transformer lies in two files."""
    from diffusers import DiTTransformer2DModel

    shutil.copytree(diffusers_folder, tmp_path / "sharded")
    (tmp_path / "sharded" / "transformer" / f"{KL}.safetensors").unlink()
    model = DiTTransformer2DModel.from_pretrained(diffusers_folder / "transformer")
    model.save_pretrained(tmp_path / "sharded" / "transformer", max_shard_size="100KB")
    return tmp_path / "sharded"


@pytest.mark.parametrize("kind", ["own_folder", "diffusers_folder", "latent_folder", "sharded_folder"])
def test_a_model_is_here_only_when_it_is_whole(kind, hub, request):
    hub.add("me/model", request.getfixturevalue(kind), PINNED)
    assert cached("me/model") is None and cached("me/model", PINNED) is None
    home = fetch("me/model")
    assert cached("me/model") == cached("me/model", "main") == cached("me/model", PINNED) == home
    assert cached("me/model", OTHER) is None and cached("me/model", "dev") is None
    assert cached("me/other") is None
    for path in [path for path in home.rglob("*") if path.is_file() and path.name != "README.md"]:
        content = path.read_bytes()
        path.unlink()  # the link: what the Hub's library makes when a file is whole
        name = path.relative_to(home)
        assert cached("me/model") is None, f"{name} is missing"
        path.write_bytes(content)
        assert cached("me/model") == home


@pytest.mark.parametrize("folder", ["vae", ""])
def test_an_autoencoder_is_here_only_when_it_is_whole(folder, hub, diffusers_folder):
    hub.add("me/model", diffusers_folder if folder else diffusers_folder / "vae", PINNED)
    assert cached("me/model", folder=folder) is None
    home = fetch("me/model", folder=folder)
    assert cached("me/model", PINNED, folder) == home
    assert {path.name for path in home.rglob("*") if path.is_file()} == {"config.json", f"{KL}.safetensors"}
    for name in ("config.json", f"{KL}.safetensors"):
        path = home / folder / name
        path.rename(path.with_suffix(".away"))
        assert cached("me/model", folder=folder) is None
        path.with_suffix(".away").rename(path)


def test_a_link_to_a_deleted_blob_is_no_file(hub, own_folder):
    hub.add("me/model", own_folder, PINNED)
    home = fetch("me/model", PINNED)
    (home / "weights.safetensors").resolve().unlink()
    assert cached("me/model", PINNED) is None
    assert fetch("me/model", PINNED) == home and dit.load("me/model", revision=PINNED).provenance


@pytest.mark.parametrize("kind", ["diffusers_folder", "latent_folder", "sharded_folder"])
def test_a_broken_download_leaves_no_model_and_the_next_goes_on(kind, hub, request, monkeypatch):
    """Ctrl-C before each of the weights in turn."""
    folder = request.getfixturevalue(kind)
    hub.add("me/model", folder, PINNED)
    blobs = hub.repos["me/model"].commits[PINNED]
    needed = model_files([path.relative_to(folder).as_posix() for path in folder.rglob("*")])
    weights = [name for name in needed if name.endswith(".safetensors")]
    assert len(weights) >= 2
    download, refused = remote.download, ""

    def unless_refused(url, target, *rest):
        if target.name == refused:
            raise KeyboardInterrupt
        return download(url, target, *rest)

    for name in weights:
        refused = blobs[name].sha256
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(remote, "download", unless_refused)
            fetch("me/model", PINNED)
        assert cached("me/model", PINNED) is None, f"{name} is not here, and it counts as whole"
    hub.requests.clear()
    fetch("me/model", PINNED)
    assert cached("me/model", PINNED) and hub.count("/storage/") == 1  # the others are here


# --- fetching ---


def test_a_commit_in_the_cache_is_taken_without_any_request(hub, diffusers_folder):
    hub.add("me/model", diffusers_folder, PINNED)
    home = fetch("me/model", PINNED)
    assert asked_for_content(hub)
    assert {path.relative_to(home).as_posix() for path in home.rglob("*") if path.is_file()} == set(
        model_files([path.relative_to(diffusers_folder).as_posix() for path in diffusers_folder.rglob("*")])
    )
    for path in home.rglob("*"):
        assert path.is_dir() or path.read_bytes() == (diffusers_folder / path.relative_to(home)).read_bytes()
    hub.requests.clear()
    assert fetch("me/model", PINNED) == home
    assert hub.requests == []


@pytest.mark.parametrize("branch", [None, "main"])
def test_a_branch_is_asked_for_again_and_followed(branch, hub, own_folder, random_model, tmp_path):
    hub.add("me/model", own_folder, PINNED)
    old = fetch("me/model", branch)
    hub.requests.clear()
    assert fetch("me/model", branch) == old
    assert hub.requests and not asked_for_content(hub)
    dit.weights.save(tmp_path / "new" / "weights.safetensors", random_model(seed=1))
    hub.add("me/model", tmp_path / "new", OTHER)
    new = fetch("me/model", branch)
    assert asked_for_content(hub) and (old.name, new.name) == (PINNED, OTHER)
    assert cached("me/model") == new and cached("me/model", PINNED) == old


def test_what_two_commits_share_comes_once(hub, diffusers_folder, tmp_path):
    hub.add("me/model", diffusers_folder, PINNED)
    fetch("me/model")
    shutil.copytree(diffusers_folder, tmp_path / "new")
    (tmp_path / "new" / "README.md").write_text("# New\n")
    hub.add("me/model", tmp_path / "new", OTHER)
    hub.requests.clear()
    assert fetch("me/model").name == OTHER
    assert hub.count("/storage/") == 0


def test_only_what_is_needed_comes(hub, diffusers_folder, tmp_path):
    folder = shutil.copytree(diffusers_folder, tmp_path / "more")
    for name in ("samples.png", "transformer/more.bin", f"transformer/{KL}.bin", "safety/model.safetensors"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(bytes(30_000))
    hub.add("me/model", folder, PINNED)
    home = fetch("me/model")
    assert {path.name for path in home.rglob("*")} == {path.name for path in diffusers_folder.rglob("*")}


@pytest.mark.filterwarnings("ignore:.*uses symlinks by default")
def test_a_file_system_without_links_will_do(hub, own_folder, monkeypatch):
    def refuse(*paths, **settings):
        raise OSError("no links here")

    monkeypatch.setattr("os.symlink", refuse)
    hub.add("me/model", own_folder, PINNED)
    home = fetch("me/model", PINNED)
    assert cached("me/model", PINNED) == home
    assert (home / "weights.safetensors").read_bytes() == (own_folder / "weights.safetensors").read_bytes()


def test_a_private_repository_needs_the_token(hub, own_folder, monkeypatch):
    """Which goes to the Hub, and not to the storage service: that refuses it."""
    hub.add("me/model", own_folder, PINNED, private=True)
    monkeypatch.setenv("HF_TOKEN", hub.token)
    assert cached("me/model") is None
    fetch("me/model")
    assert cached("me/model")


def test_a_signed_address_that_expires_on_the_way_is_asked_for_anew(hub, own_folder, monkeypatch):
    """The Hub's are good for an hour; three gigabytes may take longer."""
    monkeypatch.setattr("dit.download.time.sleep", lambda seconds: setattr(hub, "signature", "new"))
    hub.add("me/model", own_folder, PINNED)
    hub.break_after = 30_000
    fetch("me/model")
    assert cached("me/model") and hub.ranges


def test_an_error_names_the_file_and_no_signed_address(hub, own_folder):
    """Which is a page long on the real Hub, says nothing of the file, and opens it to all."""
    hub.add("me/model", own_folder, PINNED)
    hub.files("me/model")["weights.safetensors"].unlink()
    with pytest.raises(HubError, match="me/model.*weights.safetensors.*404") as error:
        fetch("me/model")
    assert "signature" not in one_line(error)


def test_the_cache_is_one_that_the_hubs_own_library_reads(hub, diffusers_folder, offline):
    from diffusers import DiTPipeline
    from huggingface_hub import hf_hub_download, scan_cache_dir, snapshot_download

    hub.add("me/model", diffusers_folder, PINNED)
    home = fetch("me/model")
    offline()
    assert Path(snapshot_download("me/model", allow_patterns=["transformer/*"])) == home
    assert Path(hf_hub_download("me/model", f"transformer/{KL}.safetensors")) == (
        home / "transformer" / f"{KL}.safetensors"
    )
    report = scan_cache_dir()
    ((repo,), (revision,)) = report.repos, next(iter(report.repos)).revisions
    assert repo.repo_id == "me/model" and not report.warnings
    assert revision.commit_hash == PINNED and set(revision.refs) == {"main"}
    assert len(revision.files) == sum(path.is_file() for path in diffusers_folder.rglob("*"))
    stock = DiTPipeline.from_pretrained("me/model")
    x, t, y = torch.randn(2, 4, 8, 8), torch.tensor([3, 900]), torch.tensor([1, 1000])
    with torch.no_grad():
        theirs = stock.transformer(x, t, y).sample
        torch.testing.assert_close(dit.load("me/model")(x, t, y), theirs, atol=1e-5, rtol=0)


def test_what_the_hubs_own_library_has_fetched_is_not_fetched_again(hub, diffusers_folder):
    from huggingface_hub import snapshot_download

    hub.add("me/model", diffusers_folder, PINNED)
    home = Path(snapshot_download("me/model"))
    hub.requests.clear()
    assert fetch("me/model", PINNED) == home and hub.requests == []


def test_what_has_arrived_is_counted_while_it_comes(hub, own_folder, interrupt):
    assert arrived("me/model") == 0
    hub.add("me/model", own_folder, PINNED)
    hub.break_after = 50_000
    with pytest.raises(KeyboardInterrupt):
        fetch("me/model")
    assert 50_000 <= arrived("me/model") < 51_000  # and the card, perhaps
    assert cached("me/model") is None


def test_all_that_has_arrived_is_counted(hub, diffusers_folder):
    hub.add("me/model", diffusers_folder, PINNED)
    fetch("me/model")
    whole = sum(path.stat().st_size for path in diffusers_folder.rglob("*") if path.is_file())
    assert arrived("me/model") == whole


# --- without a network ---


@pytest.mark.parametrize("revision", [None, "main", PINNED])
def test_offline_a_warm_cache_is_enough(revision, hub, own_folder, offline):
    hub.add("me/model", own_folder, PINNED)
    home = fetch("me/model", revision)
    offline()
    hub.requests.clear()
    assert fetch("me/model", revision) == home and hub.requests == []
    assert dit.load("me/model", revision=revision).provenance == {"name": "tiny"}


@pytest.mark.parametrize("revision", [None, PINNED])
def test_offline_a_cold_cache_is_named_with_the_remedy(revision, hub, own_folder, offline):
    hub.add("me/model", own_folder, PINNED)
    offline()
    said = "me/model: not on this disk.*HF_HUB_OFFLINE.*unset.*python -m dit.hub pull me/model"
    with pytest.raises(HubError, match=said) as error:
        fetch("me/model", revision)
    one_line(error)
    assert hub.requests == []


def test_offline_a_published_model_goes_by_its_name(hub, offline):
    offline()
    with pytest.raises(HubError, match="`python -m dit.hub pull DiT-XL/2-256`"):
        fetch(XL.repo_id, XL.revision)


@pytest.mark.parametrize("trouble", ["nobody there", "503"])
def test_a_cached_branch_is_used_with_a_warning_where_the_hub_does_not_answer(
    trouble, hub, own_folder, unplug
):
    hub.add("me/model", own_folder, PINNED)
    home = fetch("me/model")
    unplug() if trouble == "nobody there" else hub.failures.extend([503] * 50)
    with pytest.warns(UserWarning, match="me/model: the Hub does not answer.*copy on this disk"):
        assert fetch("me/model") == home


def test_the_hub_is_reachable_or_not(hub, unplug, offline):
    assert is_reachable(200)
    hub.failures = [503]
    assert is_reachable(200)  # it answers
    offline()
    hub.requests.clear()
    assert not is_reachable() and hub.requests == []
    unplug()
    assert not is_reachable()


# --- what is said ---


def test_no_network_is_named_with_the_remedy(hub, unplug):
    unplug()
    with pytest.raises(HubError) as error:
        fetch("me/model")
    said = one_line(error)
    assert "me/model: the Hub at http://127.0.0.1:9 cannot be reached" in said and "refused" in said
    assert "check the network and try again; downloads go on where they stopped" in said


@pytest.mark.parametrize(
    ("token", "settings", "revision", "said"),
    [
        ("", None, None, "no such repository.*correct the name.*if it is private.*hf auth login"),
        ("stranger", None, None, "no such repository.*correct the name"),
        ("", {"private": True}, None, "no such repository.*if it is private.*hf auth login"),
        ("stranger", {"private": True}, PINNED, "no such repository"),
        ("", {"gated": True}, None, "gated; accept its terms at http://127.0.0.1:.*/me/model.*hf auth login"),
        ("stranger", {"gated": True}, PINNED, "gated; accept its terms at .*/me/model"),
        ("", {}, "dev", "no revision 'dev'; give a branch, tag or commit"),
        ("", {}, OTHER, f"no revision '{OTHER}'"),
        ("wrong", {}, None, "401.*hf auth login"),
    ],
)
def test_a_refusal_is_named_with_the_remedy(token, settings, revision, said, hub, own_folder, monkeypatch):
    if token:
        monkeypatch.setenv("HF_TOKEN", getattr(hub, token, "hf_wrong"))
    if settings is not None:
        hub.add("me/model", own_folder, PINNED, **settings)
    with pytest.raises(HubError, match=f"me/model: .*{said}") as error:
        fetch("me/model", revision)
    one_line(error)
    assert cached("me/model", revision) is None


def test_a_gated_model_of_small_files_is_named_too(hub, own_folder, monkeypatch):
    monkeypatch.setattr(remote, "LARGE", 10**9)
    hub.add("me/model", own_folder, PINNED, gated=True)
    with pytest.raises(HubError, match="me/model: gated; accept its terms") as error:
        fetch("me/model")
    one_line(error)


@pytest.mark.parametrize("repo_id", ["a--b/c", "a/b..c", "a/b.git", "a/" + "b" * 200, "a/b-"])
def test_a_name_that_no_repository_can_have_is_named(repo_id, hub):
    with pytest.raises(HubError) as error:
        fetch(repo_id)
    assert repo_id in one_line(error)


@pytest.mark.parametrize(
    "files", [["README.md", "model.safetensors", "config.json"], []], ids=["other", "empty"]
)
def test_what_is_no_model_is_named(files, hub, tmp_path):
    (tmp_path / "other").mkdir()
    for name in files:
        (tmp_path / "other" / name).write_text("{}")
    hub.add("me/other", tmp_path / "other", PINNED)
    found = "README.md, config.json, model.safetensors" if files else "nothing"
    with pytest.raises(
        HubError, match=f"expected weights.safetensors or .*, found {found}; .*no model"
    ) as error:
        fetch("me/other")
    one_line(error)
    assert not asked_for_content(hub)


def test_what_is_no_autoencoder_is_not_called_a_model(hub, own_folder):
    hub.add("me/model", own_folder, PINNED)
    with pytest.raises(HubError, match="me/model: .*autoencoder") as error:
        fetch("me/model", folder="")
    one_line(error)


def test_a_server_that_is_no_hub_is_named(hub, tmp_path, monkeypatch):
    with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n<html></html>") as address:
        connect(monkeypatch, address, tmp_path / "home")
        with pytest.raises(HubError, match=f"me/model: .*{address}") as error:
            fetch("me/model")
        one_line(error)


def test_a_hub_in_trouble_is_named(hub, own_folder):
    hub.add("me/model", own_folder, PINNED)
    hub.failures = [503] * 50
    with pytest.raises(HubError, match="me/model: the Hub answers .*503.*try again later") as error:
        fetch("me/model")
    one_line(error)


def test_a_full_disk_is_named_before_anything_comes(hub, own_folder, monkeypatch):
    monkeypatch.setattr(remote.shutil, "disk_usage", lambda place: shutil._ntuple_diskusage(0, 0, 1000))
    hub.add("me/model", own_folder, PINNED)
    with pytest.raises(
        HubError, match=r"me/model: \d+ kB are to come, but /.* has 1 kB free.*HF_HOME"
    ) as error:
        fetch("me/model")
    one_line(error)
    assert not asked_for_content(hub)


def test_what_has_come_needs_no_room_again(hub, own_folder, interrupt, monkeypatch):
    hub.add("me/model", own_folder, PINNED)
    hub.break_after = size = 100_000
    with pytest.raises(KeyboardInterrupt):
        fetch("me/model")
    interrupt.undo()
    assert size <= arrived("me/model") < size + 1000
    whole = sum(path.stat().st_size for path in own_folder.iterdir())
    room = shutil._ntuple_diskusage(0, 0, whole - size + 1000)
    monkeypatch.setattr(remote.shutil, "disk_usage", lambda place: room)
    fetch("me/model")
    assert cached("me/model")


@pytest.mark.parametrize("large", [True, False], ids=["large", "small"])
def test_a_disk_that_fills_meanwhile_is_named(large, hub, own_folder, tmp_path, monkeypatch):
    home = tmp_path / "home"
    home.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=60k", "tmpfs", str(home)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        monkeypatch.setattr(remote.shutil, "disk_usage", lambda place: shutil._ntuple_diskusage(0, 0, 10**9))
        monkeypatch.setattr(remote, "LARGE", 20_000 if large else 10**9)
        hub.add("me/model", own_folder, PINNED)
        with pytest.raises(HubError, match="the disk is full; free some space.*HF_HOME") as error:
            fetch("me/model")
        one_line(error)
        assert cached("me/model") is None and arrived("me/model") < 10_000
    finally:
        subprocess.run(["umount", str(home)], check=True)


# --- models and autoencoders by name ---


@pytest.mark.parametrize("name", AUTOENCODERS)
def test_an_autoencoder_goes_by_its_name(name, hub, vae, tiny_vae, tmp_path, offline):
    repo_id, revision, folder = AUTOENCODERS[name]
    own = tiny_vae if name == "taesd" else vae
    shutil.copytree(own, tmp_path / "published" / folder)
    hub.add(repo_id, tmp_path / "published", revision)
    hub.add(repo_id, own.parent, OTHER)  # main has moved on
    autoencoder = load_autoencoder(name)
    assert autoencoder.source == name and autoencoder.tiny == (name == "taesd")
    latents = torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        pixels = autoencoder.decode(latents)
        assert pixels.shape == (1, 3, 8, 8)
        assert torch.equal(pixels, load_autoencoder(own).decode(latents))
    offline()
    hub.requests.clear()
    load_autoencoder(name)
    assert hub.requests == []


def test_an_autoencoder_of_any_repository(hub, vae):
    hub.add("me/vae", vae, PINNED)
    assert load_autoencoder("me/vae").scale == 0.18215


def outputs(model: DiT) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    x, t, y = torch.randn(3, 4, 8, 8, generator=generator), [0, 250, 999], [0, 999, 1000]
    with torch.no_grad():
        return model(x, torch.tensor(t), torch.tensor(y))


@pytest.fixture
def xl(hub, diffusers_folder) -> Published:
    """The smaller of the published models, in name."""
    hub.add(XL.repo_id, diffusers_folder, XL.revision)
    return XL


def test_a_published_model_by_its_repository_computes_as_diffusers_does(xl, hub, diffusers_folder):
    from diffusers import DiTTransformer2DModel

    theirs = DiTTransformer2DModel.from_pretrained(diffusers_folder / "transformer")
    model = dit.load(xl.repo_id)
    assert (model.config.frequency_shift, model.config.mlp_norm_eps) == (1, theirs.config.norm_eps)
    assert model.config.mlp_norm_eps == 1e-5 and not model.config.block_embedders
    called = outputs(lambda x, t, y: theirs(x, t, y).sample)
    torch.testing.assert_close(outputs(model), called, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["DiT-XL/2-256", "DiT-XL-2-256"])
def test_a_published_model_by_its_name_computes_as_the_authors_do(name, xl, hub):
    model = dit.load(name)
    assert (model.config.frequency_shift, model.config.mlp_norm_eps) == (0, 1e-6)
    assert model.provenance | xl.provenance() == model.provenance
    assert model.provenance["licence"] == "CC-BY-NC 4.0" and xl.revision in model.provenance["source"]
    hub.requests.clear()
    other = dit.load(xl.repo_id)
    assert not asked_for_content(hub)  # one download serves both
    assert (outputs(model) - outputs(other)).abs().max() > 1e-3
    same = DiT(replace(other.config, frequency_shift=0, mlp_norm_eps=1e-6)).eval()
    same.load_state_dict(other.state_dict())
    assert torch.equal(outputs(model), outputs(same))


def test_a_published_model_is_pinned(xl, hub, own_folder):
    hub.add(xl.repo_id, own_folder, OTHER)  # main has moved on
    assert dit.load(xl.name).provenance["name"] == xl.name
    assert dit.load(xl.repo_id).provenance["name"] == "tiny"


def test_the_files_of_a_published_model_decode_its_latents(xl, vae):
    """Its own autoencoder comes with it: nothing else is asked for."""
    pipeline = dit.Pipeline.load(xl.name)
    latents = torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    expected = load_autoencoder(vae).decode(latents)
    assert torch.equal(pipeline.autoencoder.decode(latents), expected)


def test_an_unknown_repository_names_the_models_there_are(hub):
    with pytest.raises(
        HubError.__base__, match="me/none: no such repository.*no model.*DiT-XL/2-256"
    ) as error:
        dit.load("me/none")
    one_line(error)


# --- the authors' files ---


def test_the_authors_file_comes_to_this_projects_cache(hub, cache, random_model, tmp_path, monkeypatch):
    model = random_model(hidden_size=128, depth=4, in_channels=4)  # the sizes of a preset
    (tmp_path / "files").mkdir()
    torch.save(model.state_dict(), tmp_path / "files" / "DiT.pt")
    hub.add("authors/files", tmp_path / "files", PINNED)
    address = f"{hub.endpoint}/authors/files/resolve/main/DiT.pt"
    monkeypatch.setitem(PUBLISHED, XL.name, replace(XL, authors_file=address))
    path = remote.fetch_authors_file(XL.name)
    assert path == cache / "DiT.pt" and path.read_bytes() == (tmp_path / "files" / "DiT.pt").read_bytes()
    hub.requests.clear()
    assert remote.fetch_authors_file(XL.name) == path and hub.requests == []
    loaded = dit.load(path)
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in loaded.state_dict().items())


def test_what_the_tests_publish_is_like_the_real_thing(diffusers_folder):
    """The files of facebook/DiT-XL-2-256, but for README and licence."""
    names = {path.relative_to(diffusers_folder).as_posix() for path in diffusers_folder.rglob("*")}
    assert {*PIPELINE, *parts("transformer/", "safetensors"), *parts("vae/", "safetensors")} <= names
    index = json.loads((diffusers_folder / "model_index.json").read_text())
    assert index["_class_name"] == "DiTPipeline"
