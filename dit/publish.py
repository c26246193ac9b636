"""A model on its way to the Hub: weights, a diffusers folder where there can be one, and a card."""

import json
import tempfile
import warnings
from pathlib import Path
from typing import Any

from dit.backbone import Backbone
from dit.classes import class_names, titles
from dit.download import HubError
from dit.export import check_exportable, export_diffusers
from dit.flops import macs
from dit.hub_errors import explained
from dit.pictures import contact_sheet, png
from dit.pipeline import Pipeline, usual_guidance
from dit.published import PUBLISHED, is_repo_id, published
from dit.samplers import OF_FORMULATION
from dit.settings import SampleSettings
from dit.weights import WeightsError, locate, save

SHOWN_CLASSES, SHOWN_SEEDS = 10, 6  # of the card's grid: rows, columns
PROJECT = "DiT Lab"
NETWORKS = {  # backbone -> what it is, with its paper
    "dit": "A diffusion transformer (DiT, [2212.09748](https://arxiv.org/abs/2212.09748))",
    "diffit": "A diffusion vision transformer (DiffiT, [2312.02139](https://arxiv.org/abs/2312.02139))",
    "diffit-image": "A U-shaped diffusion vision transformer (DiffiT in image space, "
    "[2312.02139](https://arxiv.org/abs/2312.02139))",
    "unet": "A U-Net (diffusers' UNet2DModel)",
}


def publish(
    source: str,
    repo_id: str,
    private: bool = False,
    steps: int = 50,
    guidance: float | None = None,
    autoencoder: str | None = None,
    licence: str | None = None,
) -> str:
    """Upload a model to OWNER/NAME; returns its address there.

    What goes: weights.safetensors, which `dit.load` takes; for a model of latents a diffusers pipeline beside
    it; README.md, the card; samples.png, drawn now. All in one commit: no half of it can be there.
    source: weights file, run folder, bundled name. licence: of the weights; None: what their provenance says.

    Raises:
        WeightsError: no such model, a published one (not ours to upload), or the Hub does not take it.
    """
    if not is_repo_id(repo_id) or "--" in repo_id or ".." in repo_id:
        raise WeightsError(f"{repo_id}: expected OWNER/NAME of a repository on the Hub")
    owned = next((name for name, model in PUBLISHED.items() if model.repo_id == source), None)
    if name := published(source) or owned:
        raise WeightsError(
            f"{name}: published already, under {PUBLISHED[name].licence}; push models of your own"
        )
    from huggingface_hub import HfApi

    api = HfApi()
    with explained(repo_id, None):
        owner = api.whoami()["name"]  # before the work: without a login all of it would be in vain
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(source, folder, repo_id, steps, guidance, autoencoder, licence)
        with explained(repo_id, None):
            api.create_repo(repo_id, private=private, exist_ok=True)
            if private and not api.repo_info(repo_id).private:  # create_repo leaves what is there as it is
                raise HubError(f"{repo_id}: exists and is public; give another name, or leave --private out")
            commit = api.upload_folder(
                repo_id=repo_id, folder_path=folder, commit_message=f"{Path(source).stem}, by {owner}"
            )
    return str(commit.commit_url)


def prepare(
    source: str,
    folder: Path,
    repo_id: str,
    steps: int = 50,
    guidance: float | None = None,
    autoencoder: str | None = None,
    licence: str | None = None,
) -> None:
    """Write all that will be uploaded into a folder. Raises WeightsError where the model cannot be loaded."""
    pipeline = Pipeline.load(locate(source), autoencoder=autoencoder)
    model = pipeline.model
    scale = usual_guidance(model) if guidance is None else guidance
    autoencoder = autoencoder or model.provenance.get("autoencoder")
    model.provenance = portable(model.provenance) | ({"licence": licence} if licence else {})
    exported = True
    try:
        check_exportable(model.config)
    except WeightsError as error:
        exported = False
        if pipeline.autoencoder:
            warnings.warn(f"without a diffusers folder: {error}", stacklevel=2)
    if exported:
        export_diffusers(model, folder, autoencoder)  # first: it wants a folder of its own
    save(folder / "weights.safetensors", model, model.provenance)
    (folder / "samples.png").write_bytes(grid(pipeline, steps, scale))
    (folder / "README.md").write_text(card(model, repo_id, steps, scale, exported))


def portable(provenance: dict[str, Any]) -> dict[str, Any]:
    """Provenance without what only this machine knows: a folder of an autoencoder."""
    local = Path(str(provenance.get("autoencoder", ""))).is_absolute()
    return {key: value for key, value in provenance.items() if not (local and key == "autoencoder")}


def grid(pipeline: Pipeline, steps: int, scale: float) -> bytes:
    """Samples as a PNG with their settings inside: one row a class, the same seeds in each."""
    config = pipeline.model.config
    rows = min(config.num_classes, SHOWN_CLASSES) or 1
    settings = SampleSettings(
        classes=[y for y in range(rows) for _ in range(SHOWN_SEEDS)],
        seeds=list(range(SHOWN_SEEDS)) * rows,
        steps=steps,
        guidance_scale=scale,
    ).resolved(config)
    pictures = pipeline.generate(settings).x0
    sheet = contact_sheet(
        pictures.reshape(rows, SHOWN_SEEDS, *pictures.shape[1:]), scale=max(1, 64 // pictures.shape[1])
    )
    return png(sheet, {"pictures": [settings.describe(i) for i in range(len(settings.seeds))]})


def card(model: Backbone, repo_id: str, steps: int, scale: float, exported: bool) -> str:
    """README.md of the repository, from the model's provenance alone: nothing in it is typed by hand."""
    config, said = model.config, model.provenance
    count = sum(parameter.numel() for parameter in model.parameters())
    names = titles(class_names(said, config.num_classes))
    sampler = OF_FORMULATION[config.formulation][0]
    front = {
        **({"license": "-".join(said["licence"].lower().split())} if "licence" in said else {}),
        "library_name": "diffusers" if exported else "pytorch",
        "pipeline_tag": "unconditional-image-generation",
        "tags": ["diffusion", "dit", "class-conditional" if config.num_classes else "unconditional"],
    }
    lines = ["---", *(f"{key}: {json.dumps(value)}" for key, value in front.items()), "---", ""]
    lines += [
        f"# {said.get('name', repo_id.split('/')[1])}",
        "",
        f"{NETWORKS[config.backbone]}, trained with {PROJECT}: {count / 1e6:,.2f} M parameters, "
        f"{macs(config) / 1e9:,.3f} GMACs a forward pass, "
        + (f"{len(names)} classes." if names else "unconditional."),
        "",
        "![Samples, one row a class](samples.png)",
        "",
        f"Drawn with {steps} {sampler} steps, guidance scale {scale:g}, seeds 0 to {SHOWN_SEEDS - 1} in each "
        "row" + (f": {', '.join(names[:SHOWN_CLASSES])}." if names else "."),
        "",
        "## Use",
        "",
        "```python",
        "import dit",
        "",
        f'pipeline = dit.Pipeline.load("{repo_id}")',
        f"settings = dit.SampleSettings(classes=[0], seeds=[0], steps={steps}, guidance_scale={scale:g})",
        "pictures = pipeline.generate(settings).x0",
        "```",
        "",
    ]
    if exported:
        null = f", guidance_scale={scale:g}" if config.has_null_class else ", guidance_scale=1"
        lines += [
            "```python",
            "from diffusers import DiTPipeline",
            "",
            f'images = DiTPipeline.from_pretrained("{repo_id}")(class_labels=[0]{null}).images',
            "```",
            "",
            "diffusers computes the timestep embedding by slightly other frequencies than DiT's authors. The "
            "first timestep layer in `transformer/` was refitted to them, so its pictures nearly equal those "
            "of `weights.safetensors`."
            if config.frequency_shift == 0
            else "",
            "",
        ]
    lines += ["## Licence", "", str(said.get("licence", "None is stated: ask before use.")), ""]
    lines += ["## Results", "", *_results(said.get("results", {})), "", "## Recipe", ""]
    facts = {
        "dataset": said.get("dataset"),
        "images seen": said.get("images_seen"),
        "hardware": said.get("hardware"),
        "commit": said.get("commit"),
        **(said.get("recipe") or {}),
        "changes on the way": said.get("changes") or None,
    }
    lines += ["| | |", "|---|---|", *(f"| {k} | {_cell(v)} |" for k, v in facts.items() if v is not None)]
    lines += ["", "## Architecture", "", "| | |", "|---|---|"]
    lines += [f"| {key} | {_cell(value)} |" for key, value in config.to_dict().items()]
    return "\n".join(lines) + "\n"


def _cell(value: Any) -> str:
    text = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")


def _reference(results: dict[str, Any]) -> str:
    """What a model's pictures were compared with, and in whose features."""
    pictures, named = results["frechet"]["reference_pictures"], results.get("reference", {}).get("name")
    number = f"{pictures:,} " if pictures else ""
    kind = f"real pictures of {named}" if named and named != "solids" else "held-out real pictures"
    inception = results.get("extractor", {}).get("name") == "inception"
    return f"{number}{kind} in {'Inception' if inception else 'a small classifier'}'s features"


def pictures_of(results: dict[str, Any]) -> str:
    """How many pictures a model's results are of, in words."""
    if "pictures_per_class" in results:
        return f"{results['pictures_per_class']:,} pictures a class"
    return f"{results['pictures']:,} pictures" if "pictures" in results else "an unknown number of pictures"


def _results(results: dict[str, Any]) -> list[str]:
    lines, distance = [], results.get("frechet")
    if accuracy := results.get("accuracy"):
        lines += [
            f"Accuracy {accuracy['overall']:.1%}: the share of {pictures_of(results)} that a small "
            f"classifier recognises as the class asked for; {results['steps']} {results['sampler']} steps, "
            f"guidance scale {results['guidance_scale']:g}, "
            f"first seed {results.get('seed', '?')}.",
            "",
            f"| {' | '.join(accuracy['per_class'])} |",
            "|---" * len(accuracy["per_class"]) + "|",
            f"| {' | '.join(f'{share:.1%}' for share in accuracy['per_class'].values())} |",
            "",
        ]
    if distance:
        real = f"; other real ones come to {distance['real']:.3f}" if "real" in distance else ""
        lines.append(
            f"Frechet distance {distance['distance']:.3f} to {_reference(results)}; {results['steps']} "
            f"{results['sampler']} steps, guidance scale {results['guidance_scale']:g}{real}."
        )
    return lines or ["Not evaluated."]
