"""The Hugging Face Hub: what of it is on this disk, how the rest gets here, and why it may not."""

import http.client
import os
import re
import shutil
import urllib.error
import urllib.request
import warnings
from pathlib import Path

from dit.diffusers_layout import diffusers_config, read_json
from dit.download import INCOMPLETE, HubError, download
from dit.hub_errors import explained, unreachable
from dit.published import PUBLISHED, command_name, size_of

FULL_COMMIT = re.compile(r"[0-9a-f]{40}")
WEIGHTS = (
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.bin",
)  # the first one that is there
SHA256 = r"[0-9a-f]{64}"  # the tag of a file in large file storage
LARGE = 10_000_000  # bytes from which a file is fetched in a way that can be continued
TIMEOUT = 10  # seconds to wait for the Hub's answer to a question; downloads have none


def is_offline() -> bool:
    """Whether HF_HUB_OFFLINE forbids any request."""
    from huggingface_hub import constants

    return constants.HF_HUB_OFFLINE


def is_reachable(timeout: float = 3.0) -> bool:
    """Whether the Hub answers at all, at the address that HF_ENDPOINT gives."""
    from huggingface_hub import constants

    if is_offline():
        return False
    try:
        urllib.request.urlopen(
            urllib.request.Request(constants.ENDPOINT, method="HEAD"), timeout=timeout
        ).close()
    except urllib.error.HTTPError:
        return True  # it answered
    except (OSError, ValueError, http.client.HTTPException):
        return False
    return True


# --- which files of a repository are needed ---


def _weights_in(names: list[str], folder: str) -> list[str]:
    for name in WEIGHTS:
        if (prefix := f"{folder}{name}") in names:
            return [prefix]
        if (index := f"{folder}{name}.index.json") in names:
            stem, _, ending = name.partition(".")
            shard = re.compile(re.escape(f"{folder}{stem}-") + r"\d+-of-\d+\." + ending)
            return [index, *(n for n in names if shard.fullmatch(n))]
    return []


def model_files(names: list[str]) -> list[str]:
    """What `dit.load` and a pipeline read of a repository with these files; empty if it holds no model.

    Our own file, or diffusers' parts in one format, never both of them.
    """
    needed = [name for name in ("weights.safetensors", "README.md") if name in names]
    if "model_index.json" in names:
        for folder in ("transformer/", "vae/"):
            found = _weights_in(names, folder)
            if folder == "transformer/" and "weights.safetensors" in names:
                continue
            if folder == "transformer/" and not found:
                return []
            needed += [f"{folder}config.json", *found] if found else []
        needed += [name for name in ("model_index.json", "scheduler/scheduler_config.json") if name in names]
    elif "config.json" in names and _weights_in(names, ""):
        needed += ["config.json", *_weights_in(names, "")]
    return [] if needed in ([], ["README.md"]) else needed


def autoencoder_files(names: list[str], folder: str) -> list[str]:
    """What an autoencoder in a folder of a repository needs."""
    prefix = f"{folder}/" if folder else ""
    found = _weights_in(names, prefix)
    return [f"{prefix}config.json", *found] if found and f"{prefix}config.json" in names else []


# --- what is here, and how it comes ---


def _home_of(repo_id: str) -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"models--{repo_id.replace('/', '--')}"


def snapshot(repo_id: str, revision: str | None = None) -> Path | None:
    """The folder of a repository in the cache, whole or not; None if there is none."""
    home = _home_of(repo_id)
    commit = revision or "main"
    if not FULL_COMMIT.fullmatch(commit):
        reference = home / "refs" / commit
        commit = reference.read_text().strip() if reference.is_file() else ""
    folder = home / "snapshots" / commit
    return folder if commit and folder.is_dir() else None


def cached(repo_id: str, revision: str | None = None, folder: str | None = None) -> Path | None:
    """The whole model, or the autoencoder in `folder`, in the cache; None if anything is missing.

    The Hub's library puts a file under its name only once it is complete.
    """
    home = snapshot(repo_id, revision)
    if home is None:
        return None
    names = [path.relative_to(home).as_posix() for path in home.rglob("*") if path.is_file()]
    needed = model_files(names) if folder is None else autoencoder_files(names, folder)
    for index in [name for name in needed if name.endswith(".index.json")]:
        parts = read_json(home / index).get("weight_map", {}).values()
        needed += [(Path(index).parent / part).as_posix() for part in set(parts)]
    if not needed or any(name not in names for name in needed):
        return None
    if folder is None and not _pipeline_is_whole(home, names, needed):
        return None
    return home


def _pipeline_is_whole(home: Path, names: list[str], needed: list[str]) -> bool:
    """Whether the parts that a pipeline's index lists are there; parts without the index are no pipeline."""
    if "model_index.json" not in needed:
        return not any(name.startswith(("transformer/", "vae/", "scheduler/")) for name in names)
    index = read_json(home / "model_index.json")
    first = {"vae": "vae/diffusion_pytorch_model", "scheduler": "scheduler/scheduler_config.json"}
    return all(
        part not in index or any(name.startswith(start) for name in needed) for part, start in first.items()
    )


def fetch(repo_id: str, revision: str | None = None, folder: str | None = None) -> Path:
    """Download what is needed of a repository, unless it is here; returns its folder in the cache.

    A commit that is in the cache is taken from there without asking. What a broken or cancelled download has
    brought is kept, and the next one goes on from it.
    folder: of an autoencoder in the repository; None: the model.

    Raises:
        HubError: no network, no such repository, revision or model in it, gated, or the disk is full.
    """
    here = cached(repo_id, revision, folder)
    if here and (is_offline() or (revision and FULL_COMMIT.fullmatch(revision))):
        return here
    if is_offline():
        raise HubError(
            f"{repo_id}: not on this disk, and HF_HUB_OFFLINE is set; unset it and run "
            f"`python -m dit.hub pull {command_name(repo_id)}` where there is a network"
        )
    from huggingface_hub import HfApi, errors, snapshot_download

    with explained(repo_id, revision):
        try:
            info = HfApi().model_info(repo_id, revision=revision, files_metadata=True, timeout=TIMEOUT)
        except (*unreachable(), errors.HfHubHTTPError) as error:
            answer = getattr(error, "response", None)
            if here is None or (answer is not None and answer.status_code < 500):
                raise
            warnings.warn(f"{repo_id}: the Hub does not answer; using the copy on this disk", stacklevel=2)
            return here
        sizes = {file.rfilename: file.size or 0 for file in info.siblings}
        needed = model_files(list(sizes)) if folder is None else autoencoder_files(list(sizes), folder)
        if not needed:
            kind = "autoencoder" if folder is not None else "model"
            expected = "weights.safetensors or a diffusers pipeline with a DiT"
            if folder is not None:
                expected = f"{f'{folder}/' if folder else ''}config.json and {WEIGHTS[0]}"
            raise HubError(
                f"{repo_id}: expected {expected}, found {', '.join(sorted(sizes)[:5]) or 'nothing'}; "
                f"this is no {kind} that can be loaded here"
            )
        home = snapshot(repo_id, info.sha)
        blobs = {file.rfilename: file.lfs.sha256 if file.lfs else file.blob_id for file in info.siblings}
        missing = [name for name in needed if not (home and (home / name).is_file())]
        _check_disk(repo_id, sum(sizes[name] - _kept(repo_id, blobs[name]) for name in missing))
        small = [name for name in needed if sizes[name] < LARGE]  # first: the index says what is to come
        if small:
            home = Path(snapshot_download(repo_id, revision=info.sha, allow_patterns=small))
            config = home / "transformer" / "config.json"
            if folder is None and config.is_file():  # gigabytes of another architecture need not come
                diffusers_config(config, read_json(config))
        for name in needed:
            if sizes[name] >= LARGE:
                _fetch_large(repo_id, info.sha, name)
        done = Path(snapshot_download(repo_id, revision=info.sha, allow_patterns=needed))
        if revision != info.sha:
            _note_reference(done, revision or "main")
        return done


def _kept(repo_id: str, etag: str) -> int:
    """Bytes of a file that have come."""
    blob = _home_of(repo_id) / "blobs" / etag
    return sum(path.stat().st_size for path in (blob, blob.with_name(etag + INCOMPLETE)) if path.is_file())


def _fetch_large(repo_id: str, commit: str, name: str) -> None:
    """One file into the Hub's cache, in the cache's published layout: a blob, and a link in the snapshot."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.utils import build_hf_headers

    home = _home_of(repo_id)
    link = home / "snapshots" / commit / name
    if link.is_file():
        return
    url = hf_hub_url(repo_id, name, revision=commit)
    about = get_hf_file_metadata(url, timeout=TIMEOUT)
    blob = home / "blobs" / about.etag
    if not blob.is_file():
        # From the Hub's address, not about.location: that of the storage service expires within the hour.
        download(url, blob, build_hf_headers(), about.etag if re.fullmatch(SHA256, about.etag) else None)
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)  # left dangling by a deleted blob
    try:
        link.symlink_to(os.path.relpath(blob, link.parent))
    except OSError:  # a file system without links
        os.replace(blob, link)


def _note_reference(folder: Path, name: str) -> None:
    """Let a branch or tag be found offline: the download asked for its commit."""
    reference = folder.parent.parent / "refs" / name
    reference.parent.mkdir(parents=True, exist_ok=True)
    reference.write_text(folder.name)


def _check_disk(repo_id: str, needed: int) -> None:
    from huggingface_hub import constants

    place = Path(constants.HF_HUB_CACHE)
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if needed > free:
        raise HubError(
            f"{repo_id}: {size_of(needed)} are to come, but {place} has {size_of(free)} free; free some, or "
            "let HF_HOME name a folder on a larger disk"
        )


def arrived(repo_id: str) -> int:
    """Bytes of a repository on this disk, what is still coming included."""
    total = 0
    for path in (_home_of(repo_id) / "blobs").glob("*"):
        try:
            total += path.stat().st_size
        except FileNotFoundError:  # renamed at this moment
            continue
    return total


# --- the authors' own files ---


def fetch_authors_file(name: str) -> Path:
    """The DiT authors' checkpoint of a published model, from their address, into this project's cache.

    Raises:
        HubError: no network, the address is gone, or the disk is full.
    """
    url = PUBLISHED[name].authors_file
    target = cache_dir() / url.rsplit("/", 1)[1]
    return target if target.is_file() else download(url, target)


def cache_dir() -> Path:
    """Where this project keeps what it draws and fetches: $DITLAB_CACHE, or ~/.cache/dit-lab."""
    return Path(os.environ.get("DITLAB_CACHE") or Path.home() / ".cache" / "dit-lab")
