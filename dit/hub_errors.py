"""What the Hub's library raises, as errors of one line that say what to do."""

import importlib
import json
from collections.abc import Iterator
from contextlib import contextmanager

from dit.download import HubError, disk_trouble


def unreachable() -> tuple[type[Exception], ...]:
    """What the Hub's library raises without a network; its HTTP library differs between versions."""
    kinds: list[type[Exception]] = [ConnectionError, TimeoutError]
    for name in ("httpx", "httpx2"):
        try:
            kinds.append(importlib.import_module(name).TransportError)
        except ImportError:
            continue
    return tuple(kinds)


@contextmanager
def explained(repo_id: str, revision: str | None) -> Iterator[None]:
    """Turn what the Hub's library raises into a HubError of one line."""
    from huggingface_hub import constants, errors

    try:
        yield
    except HubError:
        raise
    except errors.HFValidationError as error:
        raise HubError(f"{repo_id}: expected OWNER/NAME of a repository on the Hub") from error
    except errors.GatedRepoError as error:
        raise HubError(
            f"{repo_id}: gated; accept its terms at {constants.ENDPOINT}/{repo_id}, then: hf auth login"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise HubError(
            f"{repo_id}: no such repository on the Hub; correct the name, or, if it is private, log in: "
            "hf auth login"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise HubError(
            f"{repo_id}: no revision {revision!r}; give a branch, tag or commit that it has"
        ) from error
    except errors.LocalTokenNotFoundError as error:
        raise HubError(f"{repo_id}: not logged in; log in first: hf auth login") from error
    except errors.HfHubHTTPError as error:
        answer = " ".join(str(error).split())[:200]
        if error.response.status_code in (401, 403):
            raise HubError(
                f"{repo_id}: the Hub does not accept the token ({error.response.status_code}); use one that "
                "may do this: hf auth login"
            ) from error
        raise HubError(f"{repo_id}: the Hub answers {answer}; try again later") from error
    except (*unreachable(), errors.LocalEntryNotFoundError) as error:
        reason = " ".join(str(error).split()).split(". ")[0][:120] or type(error).__name__
        raise HubError(
            f"{repo_id}: the Hub at {constants.ENDPOINT} cannot be reached ({reason}); check the network "
            "and try again; downloads go on where they stopped"
        ) from error
    except OSError as error:
        raise HubError(f"{repo_id}: {disk_trouble(error)}") from error
    except json.JSONDecodeError as error:
        raise HubError(
            f"{repo_id}: {constants.ENDPOINT} does not answer as a Hub does ({error}); correct HF_ENDPOINT"
        ) from error
