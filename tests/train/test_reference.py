"""What pictures are compared with: solids, folders, ADM's files; looked at once; what is none is refused."""

import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from tests.train.picture_files import parquet_folder, picture_folder
from train import solids
from train.adm import read_batch, write_samples
from train.decode import pixels
from train.features import ClassifierFeatures, Features
from train.folder import FolderPictures
from train.frechet import Gaussian
from train.measures import measure
from train.reference import RealPictures, open_reference
from train.resampling import Resampling


class Corners:
    """A real, if simple, extractor: mean colours, the colours of two corners, and how bright it is."""

    classes, side, dimensions, device = (), None, (3, 6), torch.device("cpu")

    def __init__(self, name: str = "corners") -> None:
        self.name, self.looked = name, 0

    def told(self):
        return {"name": self.name}

    def of(self, pictures: np.ndarray) -> Features:
        self.looked += len(pictures)
        pool = pictures.mean((1, 2), dtype=np.float32) / 255
        corners = pictures[:, [0, -1], [0, -1]].reshape(len(pictures), -1).astype(np.float32) / 255
        bright = pool.mean(1)
        return Features(pool, corners, np.stack([bright, 1 - bright], 1))


def noise(seed: int, n: int = 30, side: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, side, side, 3), dtype=np.uint8)


def moments_of(pictures: np.ndarray) -> dict[str, np.ndarray]:
    """As ADM's files have them, by numpy."""
    seen = Corners().of(pictures)
    return {
        "mu": seen.pool.mean(0, dtype=np.float64),
        "sigma": np.cov(seen.pool.astype(np.float64), rowvar=False),
        "mu_s": seen.spatial.mean(0, dtype=np.float64),
        "sigma_s": np.cov(seen.spatial.astype(np.float64), rowvar=False),
    }


def same(a: Gaussian, b: Gaussian) -> bool:
    return np.allclose(a.mean, b.mean, rtol=1e-5) and np.allclose(a.covariance, b.covariance, rtol=1e-4)


# --- solids ---


def test_solids_are_held_out_ones_and_others_beside_them():
    extractor = Corners()
    found = open_reference(RealPictures(pictures=40), extractor)
    held_out = solids.render(range(80), seed=1, side=32)[0]
    np.testing.assert_array_equal(found.features, Corners().of(held_out[:40]).pool)
    np.testing.assert_array_equal(found.further, Corners().of(held_out[40:]).pool)
    assert same(found.spatial, Gaussian.of(Corners().of(held_out[:40]).spatial))
    assert found.told == {"name": "solids", "pictures": 40, "seed": 1, "version": solids.VERSION}
    assert found.pictures == 40 and found.radii.shape == (40,) and extractor.looked == 80


def test_what_has_been_looked_at_is_not_looked_at_again():
    first, second, other = Corners("a"), Corners("a"), Corners("b")
    kept = [open_reference(RealPictures(pictures=20, side=16), one) for one in (first, second, other)]
    assert (first.looked, second.looked, other.looked) == (40, 0, 40)  # another extractor must look itself
    np.testing.assert_array_equal(kept[0].features, kept[1].features)
    assert same(kept[0].pool, kept[1].pool) and same(kept[0].spatial, kept[1].spatial)
    np.testing.assert_array_equal(kept[0].radii, kept[1].radii)
    for changed in (RealPictures(pictures=21, side=16), RealPictures(pictures=20, side=8)):
        open_reference(changed, second)
    assert second.looked == 42 + 40


def test_a_damaged_cache_is_named(cache):
    open_reference(RealPictures(pictures=20, side=8), Corners())
    (path,) = (cache / "references").iterdir()
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match="damaged.*remove it, and it is made again"):
        open_reference(RealPictures(pictures=20, side=8), Corners())


# --- folders and data sets ---


def test_a_folder_is_cropped_as_in_training(tmp_path):
    folder = picture_folder(tmp_path / "set", per_class=4)
    large = Image.fromarray(noise(9, 1, 21)[0]).resize((40, 21))
    large.save(folder / "a" / "0.png")
    found = open_reference(RealPictures(name=str(folder), side=8), Corners())
    files = sorted(folder.rglob("*.png"))
    squares = np.stack([pixels(Image.open(path), 8, 3) for path in files])
    np.testing.assert_allclose(np.sort(found.features, 0), np.sort(Corners().of(squares).pool, 0))
    print_of = FolderPictures(str(folder)).fingerprint()
    told = {"name": "set", "split": "train", "pictures": 12, "of": 12, "fingerprint": print_of}
    assert found.told == told
    assert found.further is None and found.pictures == 12


def test_fewer_pictures_are_taken_from_all_over_the_set(tmp_path):
    folder = picture_folder(tmp_path / "set", per_class=4)
    found = open_reference(RealPictures(name=str(folder), side=8, pictures=3), Corners())
    each = np.stack([np.asarray(Image.open(folder / name)) for name in ("a/0.png", "b/1.png", "c/2.png")])
    np.testing.assert_allclose(found.features, Corners().of(each).pool)
    assert (found.told["pictures"], found.told["of"]) == (3, 12)


def test_pictures_that_change_are_looked_at_again(tmp_path):
    folder = picture_folder(tmp_path / "set")
    real = RealPictures(name=str(folder), side=8)
    first = open_reference(real, Corners())
    Image.fromarray(noise(5, 1)[0]).save(folder / "a" / "extra.png")
    assert open_reference(real, Corners()).pictures == first.pictures + 1
    smaller = open_reference(RealPictures(name=str(folder), side=4), Corners())
    assert not np.array_equal(smaller.features, open_reference(real, Corners()).features)


def test_a_data_set_and_its_split(tmp_path):
    folder = parquet_folder(tmp_path / "set", rows=12, files=1, split="test")
    found = open_reference(RealPictures(name=str(folder), side=8, split="test"), Corners())
    assert found.pictures == 12 and found.told["split"] == "test"
    with pytest.raises(ValueError, match="no such split; choose one of test"):
        open_reference(RealPictures(name=str(folder), side=8), Corners())


def test_grey_models_are_compared_in_grey(tmp_path):
    folder = picture_folder(tmp_path / "set")
    found = open_reference(RealPictures(name=str(folder), side=8, channels=1), Corners())
    assert np.ptp(found.features, axis=1).max() == 0  # all channels alike
    coloured = open_reference(RealPictures(name=str(folder), side=8), Corners())
    assert np.ptp(coloured.features, axis=1).max() > 0


def test_empty_and_missing_sets_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="there are no pictures in it"):
        open_reference(RealPictures(name=str(tmp_path / "empty")), Corners())
    lone = picture_folder(tmp_path / "lone", per_class=1, classes="")
    with pytest.raises(ValueError, match="lone: has 1 pictures; a reference needs at least 2"):
        open_reference(RealPictures(name=str(lone), side=8), Corners())
    with pytest.raises(ValueError, match="none.npz: no such file"):
        open_reference(RealPictures(name=str(tmp_path / "none.npz")), Corners())
    with pytest.raises(ValueError, match="reference_pictures is 1; give at least 2, or 0 for all"):
        RealPictures(pictures=1)
    write_samples(tmp_path / "empty.npz", noise(0, 0))
    with pytest.raises(ValueError, match="empty.npz: has 0 pictures"):
        open_reference(RealPictures(name=str(tmp_path / "empty.npz"), side=8), Corners())


# --- ADM's files ---


def test_samples_go_round_as_the_suite_has_them(tmp_path):
    pictures, labels = noise(0), np.arange(30) % 7
    write_samples(tmp_path / "new" / "samples", pictures, labels)  # no ending is added to the name
    with np.load(tmp_path / "new" / "samples") as file:
        assert file.files == ["arr_0", "arr_1"] and file["arr_0"].dtype == np.uint8
        np.testing.assert_array_equal(file["arr_0"], pictures)
        np.testing.assert_array_equal(file["arr_1"], labels)
    batch = read_batch(tmp_path / "new" / "samples")
    np.testing.assert_array_equal(batch.pictures, pictures)
    assert batch.moments is None
    write_samples(tmp_path / "free.npz", pictures)
    with np.load(tmp_path / "free.npz") as file:
        assert file.files == ["arr_0"]


def test_a_reference_of_pictures_is_looked_at(tmp_path):
    write_samples(tmp_path / "real.npz", noise(1, 40))
    found = open_reference(RealPictures(name=str(tmp_path / "real.npz"), side=8), Corners())
    np.testing.assert_array_equal(found.features, Corners().of(noise(1, 40)).pool)
    assert (
        found.told["name"] == "real.npz" and found.told["pictures"] == 40 and len(found.told["sha256"]) == 64
    )
    few = open_reference(RealPictures(name=str(tmp_path / "real.npz"), side=8, pictures=4), Corners())
    np.testing.assert_array_equal(few.features, Corners().of(noise(1, 40)[::10]).pool)
    with pytest.raises(ValueError, match="its pictures are 8 x 8, but the model's are 32 x 32"):
        open_reference(RealPictures(name=str(tmp_path / "real.npz")), Corners())


def test_a_reference_of_moments_serves_the_standard_inception(tmp_path):
    """Moments are compared with as they are; what needs pictures is left out, and that is said."""
    real, generated = noise(1, 60), noise(2, 50) // 2
    np.savez(tmp_path / "moments.npz", **moments_of(real))
    found = open_reference(RealPictures(name=str(tmp_path / "moments.npz"), side=8), Corners("inception"))
    assert found.features is None and found.pictures == 0
    measured = measure(generated, None, Corners("inception"), found, Resampling(20))
    assert sorted(measured["left_out"]) == ["kernel", "precision", "recall"]
    write_samples(tmp_path / "pictures.npz", real)
    looked = open_reference(RealPictures(name=str(tmp_path / "pictures.npz"), side=8), Corners("inception"))
    direct = measure(generated, None, Corners("inception"), looked, Resampling(20))
    assert direct["left_out"] == {} and direct["kernel"]["distance"] > 0
    for name in ("frechet", "spatial"):
        assert measured[name]["distance"] == pytest.approx(direct[name]["distance"], rel=1e-3)
        assert measured[name]["distance"] > 0.1


def test_moments_come_first_where_a_reference_has_both(tmp_path):
    """As in ADM's evaluator: they are of all of ImageNet, of which the pictures are a sample."""
    path = tmp_path / "both.npz"
    np.savez(path, arr_0=noise(1, 20), **moments_of(noise(3, 60)))
    found = open_reference(RealPictures(name=str(path), side=8), Corners("inception"))
    assert same(found.pool, Gaussian.of(Corners().of(noise(3, 60)).pool))
    assert same(found.spatial, Gaussian.of(Corners().of(noise(3, 60)).spatial))
    np.testing.assert_array_equal(found.features, Corners().of(noise(1, 20)).pool)
    other = open_reference(
        RealPictures(name=str(path), side=8), Corners()
    )  # to whom Inception's moments mean nothing
    assert same(other.pool, Gaussian.of(Corners().of(noise(1, 20)).pool))


def test_moments_of_another_network_are_refused(tmp_path):
    np.savez(tmp_path / "moments.npz", **moments_of(noise(0)))
    with pytest.raises(ValueError, match="3 and 6 of Inception's features.*use --features inception"):
        open_reference(RealPictures(name=str(tmp_path / "moments.npz")), ClassifierFeatures())


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"other": np.zeros(3)}, "holds other; a reference has arr_0"),
        ({}, "holds nothing; a reference has arr_0"),
        ({"mu": np.zeros(3), "sigma": np.eye(3)}, "holds mu, sigma; a reference has arr_0"),
        ({"arr_0": noise(0), "mu": np.zeros(3)}, "holds mu alone of mu, sigma, mu_s, sigma_s"),
        ({"arr_0": noise(0).astype(np.float32)}, r"arr_0 is float32 \(30, 8, 8, 3\); pictures are uint8"),
        ({"arr_0": noise(0)[..., :1]}, r"arr_0 is uint8 \(30, 8, 8, 1\); pictures are uint8 \(N, H, W, 3\)"),
        (moments_of(noise(0)) | {"sigma": np.eye(4)}, r"mu is \(3,\) and sigma \(4, 4\)"),
        (moments_of(noise(0)) | {"mu_s": np.full(6, np.nan)}, "mu_s and sigma_s must be finite"),
        (moments_of(noise(0)) | {"mu": np.array(["a", "b", "c"])}, "mu holds no numbers"),
    ],
)
def test_wrong_contents_are_named(tmp_path, arrays, said):
    np.savez(tmp_path / "wrong.npz", **arrays)
    with pytest.raises(ValueError, match=f"wrong.npz: {said}"):
        read_batch(tmp_path / "wrong.npz")


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 cut off"])
def test_what_is_no_such_file_is_refused(tmp_path, content):
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"x.npz: cannot be read as .npz.*give a file of ADM's suite"):
        read_batch(tmp_path / "x.npz")


def test_damage_inside_an_archive_is_named(tmp_path):
    np.savez_compressed(tmp_path / "x.npz", arr_0=noise(0))
    content = bytearray((tmp_path / "x.npz").read_bytes())
    middle = len(content) // 2
    content[middle : middle + 64] = b"\xff" * 64
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"x.npz: cannot be read as .npz"):
        read_batch(tmp_path / "x.npz")
    with zipfile.ZipFile(tmp_path / "y.npz", "w") as archive:
        archive.writestr("arr_0", b"no array")
    with pytest.raises(ValueError, match="y.npz: arr_0 holds no numbers"):
        read_batch(tmp_path / "y.npz")


def test_a_lone_array_is_no_archive(tmp_path):
    with (tmp_path / "x.npz").open("wb") as file:
        np.save(file, noise(0))
    with pytest.raises(ValueError, match="cannot be read as .npz"):
        read_batch(tmp_path / "x.npz")
