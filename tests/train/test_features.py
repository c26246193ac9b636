"""What the extractors see, and what is said where the standard Inception is not here."""

import hashlib
import http.server
import importlib.util
import threading

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from dit.classifier import DEFAULT, Classifier, ClassifierConfig, load, save
from dit.download import HubError
from dit.pipeline import from_pictures
from train import inception, solids
from train.features import ClassifierFeatures
from train.inception import InceptionFeatures, fetch_weights

HERE = importlib.util.find_spec("torch_fidelity") is not None


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    return solids.render(range(60), seed=5, side=32)[0]


# --- the classifier ---


def test_the_classifiers_features_are_what_its_layers_give(pictures):
    judge, found = load(), ClassifierFeatures().of(pictures)
    with torch.inference_mode():
        x = from_pictures(pictures)
        inner = judge.stages[:-3](x)
        expected = judge.features(x), inner[:, :7], judge(x).softmax(1)
    np.testing.assert_allclose(found.pool, expected[0], atol=1e-5)
    spatial = found.spatial.reshape(60, 8, 8, 7)  # places first, as in TensorFlow
    np.testing.assert_allclose(spatial, expected[1].permute(0, 2, 3, 1), atol=1e-5)
    np.testing.assert_allclose(found.probabilities, expected[2], atol=1e-5)
    assert found.probabilities.argmax(1).tolist() == judge.classify(pictures).tolist()
    assert len(found) == 60 and found.pool.dtype == np.float32


def test_it_tells_its_sizes_and_its_digest(pictures):
    extractor = ClassifierFeatures()
    assert (
        extractor.dimensions
        == (128, 448)
        == tuple(ClassifierFeatures().of(pictures[:2]).pool.shape[1:])
        + (ClassifierFeatures().of(pictures[:2]).spatial.shape[1],)
    )
    digest = hashlib.sha256(DEFAULT.read_bytes()).hexdigest()
    assert extractor.told() == {"name": "classifier", "file": DEFAULT.name, "sha256": digest}
    assert extractor.classes == solids.CLASSES and extractor.side == 32


def test_the_map_has_some_hundred_features_whatever_the_classifier(tmp_path):
    for channels, side in (((8, 8), 64), ((8,), 32), ((8, 8, 8, 8), 16)):
        model = Classifier(ClassifierConfig(channels=channels, side=side, classes=("a", "b"))).eval()
        save(tmp_path / "c.safetensors", model, {})
        extractor = ClassifierFeatures(tmp_path / "c.safetensors")
        seen = extractor.of(np.zeros((2, side, side, 3), np.uint8))
        assert extractor.dimensions == (seen.pool.shape[1], seen.spatial.shape[1])
        assert seen.spatial.shape[1] <= max(512, (side // 2 ** (len(channels) - 1)) ** 2)


def test_pictures_of_another_size_are_refused(pictures):
    for wrong in (pictures[:, :16], pictures.astype(np.float32)):
        with pytest.raises(ValueError, match=r"takes uint8 \(N, 32, 32, 3\).*--classifier FILE"):
            ClassifierFeatures().of(wrong)


# --- Inception ---


@pytest.fixture
def server(monkeypatch, cache):
    """An address that answers as told, in place of torch-fidelity's; the real download goes there."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(answer["status"])
            self.send_header("Content-Length", str(len(answer["body"])))
            self.end_headers()
            self.wfile.write(answer["body"])

        def log_message(self, *_):
            pass

    answer = {"status": 404, "body": b""}
    one = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=one.serve_forever, daemon=True).start()
    monkeypatch.setattr(inception, "URL", f"http://127.0.0.1:{one.server_port}/weights.pth")
    yield answer
    one.shutdown()
    one.server_close()


@pytest.mark.skipif(HERE, reason="torch-fidelity is installed")
def test_without_torch_fidelity_it_says_what_to_do():
    with pytest.raises(ValueError, match="pip install torch-fidelity, or use --features classifier"):
        InceptionFeatures()


def test_weights_that_cannot_be_fetched_are_told_of(server, cache):
    with pytest.raises(
        HubError, match=r"weights cannot be fetched.*404.*put the file.*--features classifier"
    ):
        fetch_weights()


def test_weights_that_are_not_they_are_refused(server, cache):
    server |= {"status": 200, "body": b"something else"}
    with pytest.raises(HubError, match="weights.pth: its SHA-256 begins with .* instead of 6726825d"):
        fetch_weights()


def test_weights_are_fetched_once(server, cache, monkeypatch):
    server |= {"status": 200, "body": b"weights"}
    monkeypatch.setattr(inception, "DIGEST_BEGINS", hashlib.sha256(b"weights").hexdigest()[:8])
    assert fetch_weights().read_bytes() == b"weights"
    server["status"] = 404
    assert fetch_weights() == cache / "inception" / "weights.pth"


@pytest.mark.skipif(not HERE, reason="needs torch-fidelity, an optional extra")
def test_inceptions_features_are_those_of_the_network(tmp_path, monkeypatch, pictures):
    """With random weights: what comes out where, and in what order."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3 as Network

    monkeypatch.setattr(Network, "load_state_dict", lambda *_: None)
    torch.manual_seed(0)
    empty = tmp_path / "none.pth"
    torch.save({}, empty)
    drawn = Network("x", ["2048"], feature_extractor_weights_path=str(empty))
    monkeypatch.undo()
    torch.save(drawn.state_dict(), tmp_path / "weights.pth")
    extractor = InceptionFeatures(weights=tmp_path / "weights.pth")
    found = extractor.of(pictures[:3])
    assert extractor.dimensions == (found.pool.shape[1], found.spatial.shape[1]) == (2048, 2023)
    assert found.probabilities.shape == (3, 1008)
    np.testing.assert_allclose(found.probabilities.sum(1), 1, rtol=1e-4)
    logits = torch.from_numpy(found.pool) @ drawn.fc.weight.T  # without the bias
    np.testing.assert_allclose(found.probabilities, F.softmax(logits, 1), rtol=1e-3)
    kept = []
    drawn.Mixed_6d.branch1x1.register_forward_hook(lambda module, inputs, output: kept.append(output))
    pool = drawn(torch.from_numpy(pictures[:3]).permute(0, 3, 1, 2))[0]
    np.testing.assert_allclose(found.pool, pool, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(
        found.spatial.reshape(3, 17, 17, 7), kept[0][:, :7].permute(0, 2, 3, 1), rtol=1e-3
    )
    assert extractor.told()["sha256"] == hashlib.sha256((tmp_path / "weights.pth").read_bytes()).hexdigest()
