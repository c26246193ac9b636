"""The architecture, as rules: who imports whom, what an import may do, how long a module may be."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

MAX_LINES = 330

# Each module of dit/, and all that it may import of dit/:
# config <- layers <- {dit, diffit, ...} <- weights <- pipeline.
# The mathematics (diffusion, samplers, guidance) stand on their own: models are handed to them.
DIT = {
    "config": set(),
    "tensors": set(),
    "published": set(),
    "command": set(),
    "files": set(),
    "pictures": set(),
    "classes": set(),
    "diffusion": set(),
    "flops": {"config"},
    "presets": {"config"},
    "backbone": {"config"},
    "layers": {"config"},
    "blocks": {"config", "layers"},
    "dit": {"backbone", "blocks", "config", "layers"},
    "diffit": {"config", "dit", "layers"},
    "diffit_image": {"backbone", "config", "diffit", "layers"},
    "unet": {"backbone", "config", "layers"},
    "models": {"backbone", "config", "diffit", "diffit_image", "dit", "unet"},
    "memory": {"config", "models"},
    "measured": {"files"},
    "digest": {"backbone"},
    "papers": {"config", "presets"},
    "counts": {"config", "flops", "models"},
    "samplers": {"diffusion"},
    "edm": set(),
    "flow": set(),
    "step_cache": set(),
    "guidance": {"diffusion", "edm", "flow", "step_cache"},
    "settings": {"config", "diffusion", "edm", "flops", "flow", "guidance", "samplers"},
    "download": {"published", "tensors"},
    "hub_errors": {"download", "published"},
    "remote": {"diffusers_layout", "download", "hub_errors", "published"},
    "diffusers_layout": {"authors_layout", "config", "tensors"},
    "authors_layout": {"config", "diffit", "presets", "tensors"},
    "layouts": {"authors_layout", "config", "diffusers_layout", "tensors"},
    "weights": {
        "authors_layout",
        "backbone",
        "config",
        "diffusers_layout",
        "files",
        "layers",
        "layouts",
        "models",
        "presets",
        "published",
        "remote",
        "tensors",
    },
    "autoencoder": {"published", "remote", "tensors"},
    "pipeline": {
        "autoencoder",
        "backbone",
        "config",
        "flops",
        "guidance",
        "settings",
        "step_cache",
        "weights",
    },
    "export": {
        "authors_layout",
        "autoencoder",
        "backbone",
        "classes",
        "config",
        "diffusers_layout",
        "files",
        "layers",
        "layouts",
        "tensors",
        "weights",
    },  # fmt: skip
    "publish": {
        "backbone",
        "classes",
        "download",
        "export",
        "flops",
        "hub_errors",
        "pictures",
        "pipeline",
        "published",
        "samplers",
        "settings",
        "weights",
    },
    "speed": {"pipeline"},
    "classifier": {"pipeline", "weights"},
    # commands
    "sample": {"classes", "command", "files", "pictures", "pipeline", "settings", "weights"},
    "info": {
        "command",
        "config",
        "counts",
        "flops",
        "memory",
        "papers",
        "presets",
        "published",
        "weights",
    },
    "hub": {"command", "export", "publish", "published", "remote", "tensors", "weights"},
}


SHARED = {
    "train.history",
    "train.curves",
    "train.report",
    "train.dataset_name",
    "train.run_files",
}  # of the trainer, for the page
NEEDS_TORCH_XLA = "train.xla"  # which these tests do without; tests/tpu imports it


def modules(project: Path, package: str) -> list[Path]:
    return sorted((project / package).rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Every module that a file imports, anywhere in it, in full: `from dit import x` counts as dit.x."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the direction"
            found |= {f"{node.module}.{name.name}" for name in node.names}
    return found


def roots(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imports(path)}


def test_modules_of_dit_import_only_what_lies_below_them(project):
    known = {path.stem for path in modules(project, "dit")} - {"__init__"}
    for path in modules(project, "dit"):
        if path.stem == "__init__":
            continue
        assert path.stem in DIT, f"{path.name} is new: say in DIT what it may import"
        used = {name.split(".")[1] for name in imports(path) if name.startswith("dit.")} & known
        assert "dit" not in imports(path), f"{path.name} imports the whole package"
        assert used <= DIT[path.stem], f"{path.name} imports {sorted(used - DIT[path.stem])}"


def test_packages_import_only_what_lies_below_them(project):
    above = {
        "dit": {"train", "ui", "app", "gradio"},
        "train": {"ui", "app", "gradio"},
        "ui": {"app"},
    }
    for package, forbidden in above.items():
        for path in modules(project, package):
            assert not (wrong := roots(path) & forbidden), f"{path} imports {sorted(wrong)}"
    # The page starts runs as processes of their own, and reads what they leave, without the trainer.
    for path in modules(project, "ui"):
        used = {".".join(name.split(".")[:2]) for name in imports(path) if name.split(".")[0] == "train"}
        assert used <= SHARED, f"{path} imports {sorted(used - SHARED)}"


def test_only_the_page_imports_gradio(project):
    for path in (path for path in project.glob("[!.]*/**/*.py") if "gradio" in path.read_text()):
        if "gradio" in roots(path):
            assert path.relative_to(project).parts[0] in ("ui", "tests"), path


def test_no_module_is_too_long_to_read_in_one_go(project):
    for path in (path for package in ("dit", "train", "ui") for path in modules(project, package)):
        lines = len(path.read_text().splitlines())
        assert lines <= MAX_LINES, f"{path} has {lines} lines; the limit is {MAX_LINES}"


def test_nothing_is_unpickled_that_could_run_code(project):
    """torch.load only with weights_only=True, and no pickle besides."""
    calls = 0
    for package in ("dit", "train", "ui"):
        for path in modules(project, package):
            assert not roots(path) & {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}, path
            for node in ast.walk(ast.parse(path.read_text())):
                if not isinstance(node, ast.Call):
                    continue
                called = ast.unparse(node.func)
                assert called not in ("torch.hub.load", "eval", "exec"), f"{path}:{node.lineno}"
                keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                assert keywords.get("allow_pickle", "False") == "False", f"{path}:{node.lineno}"
                if called == "torch.load":
                    calls += 1
                    assert keywords.get("weights_only") == "True", f"{path}:{node.lineno}"
    assert calls, "no torch.load found: does this test still look in the right place?"


# Imports each module in a fork of a process that has only the libraries, and notes what it does meanwhile.
PROBE = """
import importlib, json, os, sys, traceback
sys.dont_write_bytecode = True
noted = []
TOUCHING = ("socket.", "subprocess.", "tempfile.", "shutil.", "urllib.", "http.", "os.mkdir", "os.rename",
            "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.system", "os.posix_spawn")

def note(event, arguments):
    writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
    if writes or event.startswith(TOUCHING):
        noted.append(f"{event} {str(arguments)[:200]}")

def probe(module):
    reader, writer = os.pipe()
    if os.fork() == 0:
        error = ""
        noted.clear()
        try:
            importlib.import_module(module)
        except BaseException:
            error = traceback.format_exc()
        result = {"did": noted, "error": error, "gradio": "gradio" in sys.modules}
        os.write(writer, json.dumps(result).encode())
        os._exit(0)
    os.close(writer)
    with open(reader) as file:
        result = json.load(file)
    os.wait()
    return result

import filelock, numpy, PIL.Image, PIL.ImageOps, safetensors.torch, statistics, tqdm, tyro
import torch.distributed.checkpoint, torch.distributed.fsdp, torch.profiler, torch.utils.data
sys.addaudithook(note)
results = {module: probe(module) for module in sys.argv[1].split()}
import gradio
results |= {module: probe(module) for module in sys.argv[2].split()}
print(json.dumps(results))
"""


@pytest.fixture(scope="module")
def imported(project):
    """What importing each module alone did: module -> {did, error, gradio}."""

    def names(*packages: str) -> str:
        paths = [path.relative_to(project) for package in packages for path in modules(project, package)]
        return " ".join(".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in paths)

    command = [sys.executable, "-c", PROBE, names("dit", "train"), names("ui")]
    run = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


def test_each_module_imports_alone(imported):
    assert {"dit.config", "train.loop", "ui"} <= set(imported)
    for module, result in imported.items():
        if module != NEEDS_TORCH_XLA:
            assert not result["error"], f"{module}: {result['error']}"
    assert "requirements-tpu.txt" in imported[NEEDS_TORCH_XLA]["error"]  # says so, and what to do


def test_an_import_makes_no_files_and_touches_no_network(imported):
    for module, result in imported.items():
        assert not result["did"], f"import {module}: {result['did']}"


def test_the_library_and_the_trainer_do_without_gradio(imported):
    for module, result in imported.items():
        assert not result["gradio"] or module.startswith("ui"), module
