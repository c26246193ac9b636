"""How a dataset in the Hub's layout is named: OWNER/NAME or a folder, and choices that may follow."""

KEYS = ("subset", "image", "label", "revision")  # the choices: OWNER/NAME:image=img,label=none


def split_name(name: str) -> tuple[str, dict[str, str]]:
    """OWNER/NAME or a folder, and the choices behind it.

    Raises:
        ValueError: there is no such choice, or what is chosen cannot be one.
    """
    source, _, rest = name.rpartition(":") if "=" in name.rpartition(":")[2] else (name, "", "")
    keys = dict(part.partition("=")[::2] for part in rest.split(",") if part)
    for key, value in keys.items():
        if key not in KEYS:
            raise ValueError(f"{name}: there is no {key!r} to choose; choose of {', '.join(KEYS)}")
        if not value or not value.isprintable() or ".." in value.split("/"):
            raise ValueError(f"{name}: {key} is {value!r}; give the name of one, or leave it out")
    return source, keys
