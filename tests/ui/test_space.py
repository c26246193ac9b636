"""What would fail on a Space is found, and this repository passes."""

import subprocess
from pathlib import Path

import pytest

import app
from ui import space
from ui.space import Finding, front_matter, main, sizes, tracked, versions

FRONT = {
    "title": "A", "emoji": "🧊", "colorFrom": "red", "colorTo": "blue", "sdk": "gradio",
    "sdk_version": "6.31.0", "python_version": '"3.12"', "app_file": "app.py", "license": "mit",
    "short_description": "short",
}  # fmt: skip


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A small repository that would run."""
    write(tmp_path)
    (tmp_path / "app.py").write_text("")
    (tmp_path / "requirements.txt").write_text("# why\ngradio==6.31.0\n")
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    subprocess.run(["git", "add", "."], cwd=tmp_path, check=True)
    return tmp_path


def write(root: Path, **changed: str) -> None:
    lines = [f"{key}: {value}" for key, value in (FRONT | changed).items() if value]
    (root / "README.md").write_text("\n".join(["---", *lines, "---", "# A"]))


def said(found: list[Finding], level: str = "fails") -> str:
    return " | ".join(one.said for one in found if one.level == level)


def test_this_repository_would_run(capsys: pytest.CaptureFixture) -> None:
    assert main(check=True) == 0
    told = capsys.readouterr().out
    assert "front matter: ok" in told and "page: ok" in told and "fails:" not in told


def test_a_good_one_has_nothing_to_be_said(root: Path) -> None:
    assert [*front_matter(root), *versions(root), *sizes(root)] == []


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"emoji": ""}, "says no emoji"),
        ({"sdk": "streamlit"}, "sdk is 'streamlit'; it must be gradio"),
        ({"colorTo": "mauve"}, "colorTo is 'mauve'; choose one of red"),
        ({"short_description": "x" * 61}, "has 61 letters; at most 60"),
        ({"app_file": "main.py"}, "there is no such file"),
        ({"python_version": "3.10"}, "is the number 3.1; write it in quotes"),
    ],
)
def test_front_matter_that_a_space_refuses(root: Path, changed: dict[str, str], told: str) -> None:
    write(root, **changed)
    assert told in said(list(front_matter(root)))


@pytest.mark.parametrize("text", ["# no front matter", "---\n: : [\n---\n", None])
def test_a_readme_without_settings_is_told(root: Path, text: str | None) -> None:
    if text is None:
        (root / "README.md").unlink()
    else:
        (root / "README.md").write_text(text)
    assert "README.md" in said(list(front_matter(root)))
    assert "sdk_version is None" in said(list(versions(root)))


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ("gradio==6.30.0", "sdk_version is 6.31.0, but requirements.txt pins gradio 6.30.0"),
        ("gradio>=6", "pin one version with =="),
        ("gradio==", "which is no requirement"),
        ("numpy==1.0.0", "on the Space; make demo installs the pins"),
        ("not-a-package-at-all==1.0", "is not installed here"),
    ],
)
def test_versions_that_were_not_tried(root: Path, lines: str, told: str) -> None:
    (root / "requirements.txt").write_text(lines)
    assert told in said(list(versions(root)))


def test_a_pin_for_another_python_is_not_that_of_the_space(root: Path) -> None:
    text = 'gradio==6.31.0\ngradio==5.0.0; python_version < "3.10"\n'
    (root / "requirements.txt").write_text(text)
    assert not list(versions(root))


def test_torch_must_be_one_that_zero_gpu_has(root: Path) -> None:
    import torch

    (root / "requirements.txt").write_text(f"torch=={torch.__version__.split('+')[0]}")
    assert "ZeroGPU has 2.8.0" in said(list(versions(root)), "note")
    write(root, suggested_hardware="zero-a10g")
    assert "ZeroGPU has 2.8.0" in said(list(versions(root)))


def test_sizes_are_those_of_what_is_tracked(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "large.bin").write_bytes(bytes(11_000_000))
    assert not list(sizes(root))
    subprocess.run(["git", "add", "."], cwd=root, check=True)
    assert "large.bin (11" in said(list(sizes(root)), "note")
    monkeypatch.setattr(space, "REPOSITORY", 10_000_000)
    assert "all files have 11" in said(list(sizes(root)))


def test_only_a_repository_can_be_checked(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is no git repository"):
        tracked(tmp_path)


def test_a_page_that_cannot_be_built_fails(root: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(check=True, root=root) == 1
    assert "fails: the page cannot be built: ModuleNotFoundError" in capsys.readouterr().out


def test_flags_of_a_space_are_those_of_its_variable_and_the_command_lines_count_more() -> None:
    own = app.parse([], {"DITLAB_FLAGS": "--training on --max-gmacs 5 --weights 'my model.safetensors'"})
    assert (own.training, own.max_gmacs, own.weights) == ("on", 5, ("my model.safetensors",))
    assert app.parse(["--training", "off"], {"DITLAB_FLAGS": "--training on"}).training == "off"
    assert app.parse([], {}) == app.App()


def test_a_flag_that_is_none_ends_the_program(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        app.parse([], {"DITLAB_FLAGS": "--trainin on"})
    assert "--trainin" in capsys.readouterr().err
