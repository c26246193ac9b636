"""From pictures to samples through the SD autoencoder at its full size, with random weights."""

import shutil

import numpy as np
from safetensors.torch import load_file

import dit
from benchmarks.full_size import random_autoencoder
from dit.autoencoder import load_autoencoder
from dit.pipeline import from_pictures
from tests.latents import CLASSES, SIDE, run, shards, solids_folder
from train.__main__ import main
from train.decode import pixels
from train.folder import FolderPictures


def test_pictures_become_latents_latents_a_model_and_its_samples_pictures(tmp_path):
    network = random_autoencoder()
    assert sum(weight.numel() for weight in network.parameters()) == 83_653_863
    network.save_pretrained(tmp_path / "vae")
    data, out = solids_folder(tmp_path / "pictures", 6), tmp_path / "latents"
    status, said = run(data, out, tmp_path / "vae")
    assert status == 0, said

    autoencoder, pictures = load_autoencoder(tmp_path / "vae"), FolderPictures(data)
    (name,) = shards(out)
    posterior = load_file(out / name)["posterior"].float()
    assert posterior.shape == (6, 2, 2, 4, SIDE // 8, SIDE // 8)
    x = from_pictures(pixels(pictures.picture(0), SIDE, 3)[None])
    direct = autoencoder.decode(autoencoder.posterior(x)[0])
    again = autoencoder.decode(posterior[:1, 0, 0])
    assert (again - direct).square().mean() < 1e-4 * direct.var()

    run_dir = tmp_path / "run"
    settings = ["smoke", f"--data={out}", f"--image-size={SIDE}", "--model=DiT-S/2", "--depth=2"]
    settings += ["--num-pictures=0", "--batch-size=4", "--total-steps=2", "--sample-every=2", "--device=cpu"]
    assert main([*settings, "--tracker=none", "--compile=no", f"--run-dir={run_dir}"]) == 0
    shutil.rmtree(out)  # what draws needs no data
    pipeline = dit.Pipeline.load(run_dir / "weights.safetensors")
    assert pipeline.model.provenance["classes"] == list(CLASSES)
    *_, last = pipeline.stream(dit.SampleSettings(classes=[0, 2], seeds=[0, 1], steps=2))
    assert last.x0.shape == (2, SIDE, SIDE, 3) and last.x0.dtype == np.uint8
    assert last.x0.std() > 0
