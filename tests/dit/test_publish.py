"""Pushing a model: what arrives on the Hub, what the card says of it, and that it comes back as it went."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import dit
from dit.autoencoder import load_autoencoder
from dit.download import HubError
from dit.pictures import read_settings
from dit.pipeline import Pipeline
from dit.publish import prepare, publish
from dit.published import PUBLISHED
from dit.settings import SampleSettings
from dit.tensors import WeightsError
from dit.weights import describe, save
from tests.dit.conftest import PINNED, connect, one_line
from tests.hub import read_card, serve

PIXELS, LATENTS = "loopback/pixels", "loopback/latents"
CLASSES = ["tench", "great white shark", *(f"fish {i}" for i in range(8))]
PROVENANCE = {
    "name": "DiT-Tiny-fish",
    "licence": "MIT",
    "dataset": "fish",
    "classes": CLASSES,
    "images_seen": 640_000,
    "hardware": "cpu, 2 threads",
    "commit": "abc1234",
    "recipe": {"lr": 0.001, "total_steps": 5000, "flip": True, "model": "DiT-N/4"},
    "changes": [{"after": "step_00000010", "set": {"lr": 0.01}}],
    "results": {
        "sampler": "ddim",
        "steps": 50,
        "guidance_scale": 1.5,
        "seed": 7,
        "pictures_per_class": 100,
        "accuracy": {"overall": 0.898, "per_class": {name: 0.8 + i / 100 for i, name in enumerate(CLASSES)}},
    },
}


@pytest.fixture(scope="module")
def latent_file(tmp_path_factory, random_model, vae) -> Path:
    """A model of latents of ten classes, whose autoencoder is a folder on this machine."""
    path = tmp_path_factory.mktemp("latents") / "fish.safetensors"
    model = random_model(in_channels=4, num_classes=10, learn_sigma=False)
    save(path, model, PROVENANCE | {"autoencoder": str(vae)})
    return path


@pytest.fixture(scope="module")
def own_hub(tmp_path_factory):
    """A Hub for what all tests only look at."""
    home = tmp_path_factory.mktemp("pushed")
    with pytest.MonkeyPatch.context() as patch, serve(home / "store") as hub:
        connect(patch, hub.endpoint, home / "home")
        patch.setenv("HF_TOKEN", hub.token)
        yield hub


@pytest.fixture(scope="module")
def pixels(own_hub):
    """The Hub after a model of pixels was pushed."""
    url = publish("DiT-N-4-solids", PIXELS, steps=2)
    assert url == f"{own_hub.endpoint}/{PIXELS}/commit/{own_hub.repos[PIXELS].main}"
    return own_hub


@pytest.fixture(scope="module")
def latents(own_hub, latent_file):
    """The Hub after a model of latents was pushed."""
    publish(str(latent_file), LATENTS, steps=2)
    return own_hub


@pytest.fixture(params=["pixels", "latents"])
def pushed(request, latent_file):
    """One after the other: the Hub, the repository, and what was pushed to it."""
    hub = request.getfixturevalue(request.param)
    return hub, *{"pixels": (PIXELS, "DiT-N-4-solids"), "latents": (LATENTS, latent_file)}[request.param]


@pytest.fixture
def logged_in(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", hub.token)
    return hub


def card_of(hub, repo_id: str) -> str:
    return hub.files(repo_id)["README.md"].read_text()


def table(text: str, head: str) -> dict[str, str]:
    """The rows of the table under a heading of a card."""
    part = text.split(f"## {head}\n")[1].split("\n## ")[0]
    rows = [re.fullmatch(r"\| (.*?) \| (.*) \|", line) for line in part.splitlines()]
    return {row[1]: row[2] for row in rows if row}


# --- what arrives ---


def test_the_files_arrive_in_one_commit(pushed):
    hub, repo_id, _ = pushed
    created, commit = hub.repos[repo_id].commits.values()
    assert set(created) == {".gitattributes"} and not hub.repos[repo_id].private
    names = {*created, "README.md", "samples.png", "weights.safetensors"}
    if repo_id == LATENTS:
        names |= {f"{name}/diffusion_pytorch_model.safetensors" for name in ("transformer", "vae")}
        names |= {"transformer/config.json", "vae/config.json", "scheduler/scheduler_config.json"}
        names |= {"model_index.json"}
    assert set(commit) == names


def test_the_samples_are_pictures_with_their_settings(pixels):
    with Image.open(pixels.files(PIXELS)["samples.png"]) as image:
        sheet, said = np.array(image), read_settings(image)["pictures"]
    assert [(s["label"], s["seed"]) for s in said] == [(y, seed) for y in range(10) for seed in range(6)]
    assert {(s["steps"], s["guidance_scale"]) for s in said} == {(2, 2.0)}  # as it was evaluated
    settings = SampleSettings(classes=[0, 9], seeds=[0, 5], steps=2, guidance_scale=2.0)
    first, last = Pipeline(dit.load("DiT-N-4-solids")).generate(settings).x0.astype(int)
    corners = sheet[:64, :64][::2, ::2], sheet[-64:, -64:][::2, ::2]
    assert abs(corners[0] - first).max() <= 1 and abs(corners[1] - last).max() <= 1  # of another batch
    assert first.std() > 10 and abs(first - last).max() > 50


def test_the_samples_of_latents_are_decoded(latents):
    with Image.open(latents.files(LATENTS)["samples.png"]) as image:
        assert image.size == (6 * 65 - 1, 10 * 65 - 1)  # 16 x 16, four times as large, and lines between
        assert np.array(image).std() > 5
        assert {s["guidance_scale"] for s in read_settings(image)["pictures"]} == {1.5}


def test_what_was_pushed_comes_back(pushed):
    _, repo_id, source = pushed
    before, after = dit.load(source), dit.load(repo_id)
    assert after.config == before.config
    for provenance in (before.provenance, after.provenance):
        provenance.pop("autoencoder", None)  # a folder: now another one
    assert after.provenance == before.provenance
    for name, tensor in before.state_dict().items():
        assert torch.equal(after.state_dict()[name], tensor), name


def test_latents_come_back_with_their_autoencoder(latents, latent_file):
    """The one in the repository: nobody else has it."""
    settings = SampleSettings(classes=[0, 9], seeds=[1, 2], steps=2)
    pipeline = Pipeline.load(LATENTS)
    assert (pipeline.generate(settings).x0 == Pipeline.load(latent_file).generate(settings).x0).all()


def test_stock_diffusers_opens_what_was_pushed(latents, vae):
    from diffusers import DiTPipeline

    pipeline = DiTPipeline.from_pretrained(LATENTS)
    pipeline.set_progress_bar_config(disable=True)
    assert pipeline.get_label_ids(["tench", "fish 7"]) == [0, 9]
    one, other = (
        pipeline([0], guidance_scale=2, generator=torch.Generator().manual_seed(seed), num_inference_steps=2)
        for seed in (1, 2)
    )
    assert one.images[0].size == (16, 16) and np.array(one.images[0]).std() > 5
    assert (np.array(one.images[0]) != np.array(other.images[0])).any()
    x = torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(pipeline.vae.decode(x / 0.18215).sample, load_autoencoder(vae).decode(x))


def test_no_path_of_this_machine_leaves_it(latents, latent_file, vae):
    assert str(vae).encode() in latent_file.read_bytes()
    private = [str(vae.parent), str(latent_file.parent), str(Path.home() / ".cache"), "/tmp/"]
    for name, path in latents.files(LATENTS).items():
        content = path.read_bytes()
        for text in private:
            assert text.encode() not in content, f"{name} says {text}"


# --- the card ---


def test_the_card_has_what_the_hub_wants(pushed):
    hub, repo_id, _ = pushed
    card = read_card(card_of(hub, repo_id))
    assert card["library_name"] == ("diffusers" if repo_id == LATENTS else "pytorch")
    assert card["pipeline_tag"] == "unconditional-image-generation"
    assert {"diffusion", "dit", "class-conditional"} <= set(card["tags"])


def test_the_card_shows_name_licence_samples_results_and_use(latents):
    text = card_of(latents, LATENTS)
    assert read_card(text)["license"] == "mit"
    assert "# DiT-Tiny-fish\n" in text and "](samples.png)" in text
    assert "2 ddim steps, guidance scale 1.5, seeds 0 to 5 in each row: tench, great white shark, " in text
    assert (
        "Accuracy 89.8%: the share of 100 pictures a class that a small classifier recognises as the class "
        "asked for; 50 ddim steps, guidance scale 1.5, first seed 7." in text
    )
    assert f"| {' | '.join(CLASSES)} |" in text and "| 80.0% | 81.0% |" in text
    assert f'Pipeline.load("{LATENTS}")' in text and f'DiTPipeline.from_pretrained("{LATENTS}")' in text


def test_a_card_of_pixels_does_not_mention_diffusers_pipeline(pixels):
    text = card_of(pixels, PIXELS)
    assert f'Pipeline.load("{PIXELS}")' in text and "DiTPipeline" not in text


def test_the_cards_tables_are_the_provenance_and_nothing_else(pushed):
    hub, repo_id, source = pushed
    config, said = describe(source)
    facts = {"dataset": said["dataset"], "images seen": f"{said['images_seen']:,}"}
    facts |= {name: said[name] for name in ("hardware", "commit")} | said["recipe"]
    if said["changes"]:
        facts["changes on the way"] = said["changes"]
    rows = table(card_of(hub, repo_id), "Recipe")
    assert rows.keys() == facts.keys()
    for name, value in facts.items():
        number = isinstance(value, int) and not isinstance(value, bool)
        assert rows[name] == (f"{value:,}" if number else str(value)), name
    assert table(card_of(hub, repo_id), "Architecture").keys() == config.to_dict().keys()
    counted = sum(parameter.numel() for parameter in dit.load(source).parameters())
    assert f"{counted / 1e6:,.2f} M parameters" in card_of(hub, repo_id)


def card_without_a_hub(folder: Path, model, provenance=None, **settings) -> str:
    source, out = folder / "model.safetensors", folder / "out"
    save(source, model, provenance)
    prepare(str(source), out, "me/model", steps=1, **settings)
    return (out / "README.md").read_text()


def test_of_a_model_without_provenance_nothing_is_claimed(random_model, tmp_path):
    """No results, no recipe; and above all no licence, which is for its owner to give."""
    text = card_without_a_hub(tmp_path, random_model())
    assert "Not evaluated." in text and "Accuracy" not in text and table(text, "Recipe") == {}
    assert "# model\n" in text
    assert "license" not in read_card(text)


@pytest.mark.parametrize(
    ("said", "license"), [("MIT", "mit"), ("Apache-2.0", "apache-2.0"), ("CC-BY-NC 4.0", "cc-by-nc-4.0")]
)
def test_a_licence_is_one_that_the_hub_takes(said, license, random_model, tmp_path):
    """The last one is what dit.load says of the published models, and so of what is derived from them."""
    text = card_without_a_hub(tmp_path, random_model(), {"licence": said})
    assert read_card(text)["license"] == license


def test_text_of_the_provenance_does_not_break_the_card(random_model, tmp_path):
    said = {
        "name": "a: b # c",
        "licence": "mit",
        "dataset": "x | y\nz",
        "recipe": {"note": "---\nlicense: isc"},
    }
    text = card_without_a_hub(tmp_path, random_model(), said)
    assert read_card(text)["license"] == "mit"
    assert table(text, "Recipe") == {"dataset": "x \\| y z", "note": "--- license: isc"}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"num_classes": 0}, "unconditional."),
        ({"num_classes": 3, "class_dropout_prob": 0.0}, "3 classes."),
        ({"num_classes": 1000}, "1000 classes."),
        ({"in_channels": 1}, "10 classes."),
        ({"backbone": "diffit"}, "A diffusion vision transformer (DiffiT, "),
        ({"formulation": "edm", "learn_sigma": False}, " heun steps, guidance scale 2"),
        (
            {"formulation": "flow", "prediction": "velocity", "learn_sigma": False, "qk_norm": True},
            " euler steps, guidance scale 2",
        ),
    ],
    ids=str,
)
def test_every_kind_of_model_has_a_card_and_samples(fields, said, random_model, tmp_path):
    text = card_without_a_hub(tmp_path, random_model(**fields))
    assert said in text and read_card(text) is not None
    guided = not {"num_classes": 0, "class_dropout_prob": 0.0}.items() & fields.items()
    assert f"guidance scale {2 if guided else 1}," in text
    with Image.open(tmp_path / "out" / "samples.png") as image:
        rows = min(10, fields.get("num_classes", 10)) or 1
        assert image.size == (6 * 65 - 1, rows * 65 - 1) and np.array(image).std() > 5


def test_a_distance_stands_on_the_card_with_what_it_was_measured_with(random_model, tmp_path):
    """Of an unconditional model too, which has no accuracy."""
    frechet = {"distance": 1.25, "real": 0.02, "reference_pictures": 5000, "reference_seed": 1}
    results = {"steps": 20, "sampler": "heun", "guidance_scale": 1.0, "frechet": frechet}
    text = card_without_a_hub(tmp_path, random_model(num_classes=0), {"results": results})
    assert "Frechet distance 1.250 to 5,000 held-out real pictures" in text and "Accuracy" not in text
    assert "20 heun steps, guidance scale 1; other real ones come to 0.020." in text
    results["frechet"] = {"distance": 1.25, "reference_pictures": 300}
    results |= {"reference": {"name": "fish"}, "extractor": {"name": "inception"}}
    text = card_without_a_hub(tmp_path / "2", random_model(num_classes=0), {"results": results})
    assert "to 300 real pictures of fish in Inception's features; 20 heun steps, guidance scale 1." in text


def test_latents_that_diffusers_has_no_place_for_go_without_its_folder(random_model, tmp_path, vae):
    model = random_model(in_channels=4, mlp_ratio=2)
    with pytest.warns(UserWarning, match="without a diffusers folder.*mlp_ratio is 2"):
        text = card_without_a_hub(tmp_path, model, autoencoder=str(vae))
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"README.md", "samples.png", "weights.safetensors"} and "DiTPipeline" not in text


def test_the_code_on_the_card_runs(pixels):
    code = card_of(pixels, PIXELS).split("```python\n")[1].split("```")[0]
    names: dict = {}
    exec(code, names)
    assert names["pictures"].shape == (1, 32, 32, 3)


# --- what cannot be pushed ---


def fails(said: str, source: str = "DiT-N-4-solids", repo_id: str = "loopback/new", **settings) -> str:
    with pytest.raises(WeightsError, match=said) as error:
        publish(source, repo_id, steps=1, **settings)
    return one_line(error)


def test_without_a_login_it_is_asked_for_at_once(hub):
    fails("loopback/new: not logged in; log in first: hf auth login")
    assert hub.repos == {}


def test_a_wrong_token_is_asked_for_anew(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert "try again later" not in fails("loopback/new: .*token.*hf auth login")
    assert hub.repos == {}


def test_somebody_elses_repository_is_not_written(hub, own_folder, monkeypatch):
    hub.add("other/model", own_folder, PINNED)
    monkeypatch.setenv("HF_TOKEN", hub.stranger)
    assert "try again later" not in fails("other/model: .*403", repo_id="other/model")
    assert list(hub.repos["other/model"].commits) == [PINNED]


def test_without_a_network_nothing_is_drawn(hub, unplug, monkeypatch):
    unplug()
    monkeypatch.setenv("HF_TOKEN", hub.token)
    monkeypatch.setattr("dit.publish.prepare", lambda *arguments: pytest.fail("work in vain"))
    fails("loopback/new: the Hub at http://127.0.0.1:9 cannot be reached.*check the network")


@pytest.mark.parametrize("repo_id", ["new", "a/b/c", "", "-a/b", "loopback/ä", "a--b/c", "loopback/x..y"])
def test_a_bad_name_for_a_repository_is_refused(repo_id, logged_in):
    fails(f"^{re.escape(repo_id)}: expected OWNER/NAME", repo_id=repo_id)
    assert logged_in.repos == {} and logged_in.count("", "POST") == 0


@pytest.mark.parametrize("source", ["DiT-XL/2-256", "DiT-XL-2-256", "facebook/DiT-XL-2-256"])
def test_a_published_model_is_not_ours_to_push(source, logged_in, diffusers_folder):
    model = PUBLISHED["DiT-XL/2-256"]
    logged_in.add(model.repo_id, diffusers_folder, model.revision)
    fails("DiT-XL/2-256: published already, under CC-BY-NC 4.0; push models of your own", source=source)
    assert list(logged_in.repos) == [model.repo_id]


@pytest.mark.parametrize("kind", ["missing", "truncated", "folder", "unknown"])
def test_a_broken_source_is_named_and_creates_nothing(kind, logged_in, tmp_path, own_folder):
    source = tmp_path / "broken.safetensors"
    if kind == "truncated":
        source.write_bytes((own_folder / "weights.safetensors").read_bytes()[:5000])
    elif kind == "folder":
        source.mkdir()
    fails("DiT-Q/3" if kind == "unknown" else f"{source}: ", "DiT-Q/3" if kind == "unknown" else str(source))
    assert logged_in.repos == {}


def test_an_autoencoder_that_is_not_there_creates_nothing(logged_in, latent_file):
    fails("no-such-autoencoder: no such folder", str(latent_file), autoencoder="no-such-autoencoder")
    assert logged_in.repos == {}


def test_pushing_again_replaces_what_was_there(logged_in, random_model, tmp_path):
    for seed in (0, 1):
        save(tmp_path / "model.safetensors", random_model(seed), {"licence": "mit", "name": f"seed {seed}"})
        publish(str(tmp_path / "model.safetensors"), "loopback/model", steps=1)
    assert len(logged_in.repos["loopback/model"].commits) == 3
    assert "# seed 1\n" in card_of(logged_in, "loopback/model")
    assert dit.load("loopback/model").provenance["name"] == "seed 1"


def test_a_push_that_breaks_off_changes_nothing(logged_in, random_model, tmp_path, monkeypatch):
    from tests import hub as imitation

    save(tmp_path / "model.safetensors", random_model(), {"licence": "mit"})
    publish(str(tmp_path / "model.safetensors"), "loopback/model", steps=1)
    before = dict(logged_in.repos["loopback/model"].commits)

    def refuse(handler, *names):
        raise imitation.Refused(500, "Internal error")

    monkeypatch.setattr(imitation._Handler, "write_commit", refuse)
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    fails("loopback/model: the Hub answers .*500.*try again later", str(tmp_path / "model.safetensors"),
          "loopback/model")  # fmt: skip
    assert logged_in.repos["loopback/model"].commits == before


def test_a_private_push_does_not_go_to_a_public_repository(logged_in):
    """create_repo leaves what is there as it is, and says nothing."""
    publish("DiT-N-4-solids", "loopback/open", steps=1)
    before = logged_in.repos["loopback/open"].main
    with pytest.raises(HubError, match="loopback/open: exists and is public"):
        publish("DiT-N-4-solids", "loopback/open", private=True, steps=1)
    assert logged_in.repos["loopback/open"].main == before


def test_a_run_folder_can_be_pushed(logged_in, random_model, tmp_path):
    save(tmp_path / "runs" / "fish" / "weights.safetensors", random_model(), {"licence": "mit"})
    (tmp_path / "runs" / "fish" / "log.jsonl").write_text("{}")
    publish(str(tmp_path / "runs" / "fish"), "loopback/fish", steps=1, guidance=3.0)
    assert "log.jsonl" not in logged_in.files("loopback/fish")
    text = card_of(logged_in, "loopback/fish")
    assert "guidance scale 3," in text and "# fish\n" in text


def test_the_index_names_the_classes(latents):
    index = json.loads(latents.files(LATENTS)["model_index.json"].read_text())
    assert index["id2label"] == {str(y): name for y, name in enumerate(CLASSES)}
