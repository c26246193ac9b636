"""A run's weights on their way out of the page: to diffusers, or to the Hub."""

import tempfile
import zipfile
from pathlib import Path

from dit.files import filling
from ui.child import answer
from ui.run import TrainingRun

UPLOAD = 3600.0  # seconds that an upload may take
MAX_TOKEN = 200  # letters


def _ready(run: TrainingRun) -> str:
    """The run's folder. Raises ValueError where there are no weights yet."""
    if run.weights is None:
        raise ValueError(f"{run.name} has no weights yet; wait for its first checkpoint")
    return str(run.folder)


async def export(run: TrainingRun, target: Path) -> Path:
    """Write a folder for diffusers' DiTPipeline as a .zip, which is returned.

    target: folder of the zip.

    Raises:
        ValueError: no weights yet, or a model that diffusers cannot open.
        OSError: it cannot be written.
    """
    source = _ready(run)
    with tempfile.TemporaryDirectory(prefix="dit-lab-") as made:
        folder = Path(made) / run.name
        await answer(["dit.hub", "export", source, str(folder)])
        archive = target / f"{run.name}-diffusers.zip"
        stored = zipfile.ZIP_STORED  # weights do not compress
        with filling(archive), zipfile.ZipFile(archive, "w", stored) as opened:
            for path in sorted(folder.rglob("*")):
                opened.write(path, path.relative_to(folder.parent))
    return archive


async def push(run: TrainingRun, repo_id: str, token: str, private: bool) -> str:
    """Upload a run's weights to the Hub, with a card; returns their address.

    token: the visitor's own. It goes to the upload's process by its environment, which no list of processes
    shows, and is kept nowhere.

    Raises:
        ValueError: no weights, name or token, or the Hub does not take it; the message is the Hub's.
    """
    source, name, token = _ready(run), str(repo_id or "").strip(), str(token or "").strip()
    if not name or name.startswith("-"):
        raise ValueError("the repository has no name; give OWNER/NAME, such as me/my-first-run")
    if not token or len(token) > MAX_TOKEN or not token.isprintable():
        raise ValueError(
            f"a token of your account is needed, of at most {MAX_TOKEN} letters; make one that may write at "
            "huggingface.co/settings/tokens"
        )
    options = ["--private"] if private else []
    said = await answer(["dit.hub", "push", source, name, *options], {"HF_TOKEN": token}, UPLOAD)
    return said.strip().splitlines()[-1]
