"""Which pictures a visitor may name for training: lent folders of this machine, datasets on the Hub."""

from pathlib import Path
from typing import Any

from dit.published import is_repo_id
from train.dataset_name import split_name
from ui.limits import Limits
from ui.request import short
from ui.runs import ROOT


def folder_of(sent: Any, limits: Limits) -> Any:
    """The folder that was named. Where only some are lent, it is one of them, or below one, links followed.

    Raises:
        ValueError: it is not.
    """
    if limits.folders is None or not isinstance(sent, str) or not sent.strip():
        return sent  # what is none at all, the form says
    if not limits.folders:
        raise ValueError(
            "this server lends no folder of its own; upload a .zip, or name a dataset on the Hub"
        )
    try:
        place = (ROOT / Path(sent.strip()).expanduser()).resolve()
    except (OSError, RuntimeError, ValueError):  # nobody's home, links in a circle, no name
        place = None
    if place is None or not any(place.is_relative_to(folder) for folder in limits.folders):
        lent = ", ".join(map(str, limits.folders))
        raise ValueError(f"folder is {short(sent)}; this server lends {lent}, and what is in there")
    return str(place)


def dataset_of(sent: Any) -> Any:
    """The dataset that was named: on the Hub, and nothing of this machine that is called alike.

    Raises:
        ValueError: it cannot be one.
    """
    if not isinstance(sent, str) or not sent.strip():
        return sent
    name = sent.strip()
    source, _ = split_name(name)
    if not is_repo_id(source) or (ROOT / source).exists():
        raise ValueError(
            f"dataset is {short(sent)}; give OWNER/NAME of one on the Hub, or OWNER/NAME:label=fine_label"
        )
    return name
