"""Small sets of pictures for tests, whose every picture can be told by its colours."""

import io
from pathlib import Path

import numpy as np
from PIL import Image


def picture(number: int, side: int = 8, mode: str = "RGB") -> Image.Image:
    """Noise that depends on the number alone."""
    shape = (side, side) if mode == "L" else (side, side, 3)
    return Image.fromarray(np.random.default_rng(number).integers(0, 256, shape, dtype=np.uint8))


def png(image: Image.Image) -> bytes:
    """A picture's file, without loss."""
    file = io.BytesIO()
    image.save(file, "png")
    return file.getvalue()


def picture_folder(folder: Path, per_class: int = 4, classes: str = "abc", mode: str = "RGB") -> Path:
    """classes/0.png ...; picture k of class c is number 100 * c + k. Without classes no sub-folders."""
    for label, name in enumerate(classes or "."):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for k in range(per_class):
            (folder / name / f"{k}.png").write_bytes(png(picture(100 * label + k, mode=mode)))
    return folder


def parquet_folder(
    folder: Path, rows: int = 60, files: int = 2, group: int = 10, split: str = "train", **columns: list
) -> Path:
    """Row i holds picture(i) and label i % 3 of a, b, c, in row groups of `group`. columns: others."""
    from datasets import ClassLabel, Dataset, Features, Value
    from datasets import Image as ImageFeature

    content = {
        "img": [{"bytes": png(picture(i)), "path": None} for i in range(rows)],
        "label": [i % 3 for i in range(rows)],
    }
    features = {"img": ImageFeature(), "label": ClassLabel(names=list("abc"))}
    for name, values in columns.items():
        if values is None:
            del content[name], features[name]
            continue
        kind = type(next(value for value in values if value is not None))
        content[name] = values
        features[name] = {
            int: Value("int64"), str: Value("string"), float: Value("float64"), dict: ImageFeature()
        }[kind]  # fmt: skip
        if name == "label" and kind is int and min(value or 0 for value in values) < 0:
            features[name] = ClassLabel(names=list("abc"))
    whole = Dataset.from_dict(content, features=Features(features))
    (folder / "data").mkdir(parents=True, exist_ok=True)
    for part in range(files):
        path = folder / "data" / f"{split}-{part:05d}-of-{files:05d}.parquet"
        whole.shard(files, part, contiguous=True).to_parquet(path, batch_size=group)
    return folder
