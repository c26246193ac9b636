"""`python -m dit.info`, and what it says."""

import re

import pytest

from dit import info, memory, papers
from dit.counts import count
from dit.info import Info
from dit.presets import MODELS, preset
from dit.published import size_of

SPACES = re.compile(r"\s+")


def flat(text: str) -> str:
    return SPACES.sub(" ", text)


@pytest.fixture(scope="module")
def table() -> str:
    return info.table()


def cells(table: str, name: str) -> list[str]:
    line = next(line for line in table.splitlines() if line.startswith(f"{name} "))
    return re.split(r"\s{2,}", line)


def test_the_table_has_ours_beside_the_papers(table):
    assert cells(table, "DiT-S/2")[:5] == ["DiT-S/2", "32,963,360", "6.056", "256", "132 MB"]
    assert cells(table, "DiT-S/2")[5] == size_of(memory.sampling_bytes(preset("DiT-S/2")))
    assert cells(table, "DiT-S/2")[6:] == ["6.06", "33 M", "68.40 (400K)"]
    assert cells(table, "DiT-XL/2 at 512 px")[-3:] == ["524.60", "675 M", "13.78 (1,301K)"]
    assert cells(table, "DiffiT-XL/2")[-3:] == ["114", "561 M", "1.73 (guided)"]
    assert cells(table, "DiffiT-CIFAR-32")[-3:] == ["-", "-", "1.95 (200K)"]
    assert cells(table, "UNet-C")[-3:] == ["-", "-", "-"]
    assert cells(table, "ADM at 512 px*")[1:] == ["-"] * 5 + ["1,983", "-", "23.24"]


def test_the_table_has_every_model_that_the_papers_print(table):
    configs = [result.config for result in papers.RESULTS if result.config]
    unets = [name for name, config in MODELS.items() if config.backbone == "unet"]
    others = [result for result in papers.RESULTS if not result.config]
    body = table.split("\n\n")[0].splitlines()
    assert len(body) == 1 + len(set(configs)) + len(unets) + len(others)
    assert len({len(line.rstrip()) for line in body}) == 1  # the last column ends at one place


def test_a_block_has_memory_and_the_papers_values():
    config = preset("DiT-S/2")
    said = flat(info.block("DiT-S/2", config))
    assert "parameters 32,963,360, of them trained 32,865,056" in said
    assert "6.056 GMACs = 12.111 GFLOPs" in said
    assert (
        f"{count(config).macs_without_attention_matmuls / 1e9:.3f} GMACs without attention's two products"
        in said
    )
    assert f"{size_of(memory.sampling_bytes(config))} of activations a picture" in said
    assert f"{size_of(memory.training_bytes(config))} kept a picture for the backward pass" in said
    assert "DiT-S/2: 6.06 Gflops, 33 M, FID-50K 68.40 (400K), 250 DDPM steps DiT, Table 4" in said


def test_a_model_that_no_paper_prints():
    assert "papers -" in flat(info.block("DiT-N/8", preset("DiT-N/8")))


def test_the_notes_say_how_diffit_was_counted():
    said = flat(info.notes())
    assert "DiffiT is printed with 114 Gflops, and counts 118.507 GMACs. 114.279 is what is left" in said
    assert "DiT-XL/2 has 114.394, not 118.621. Like for like, DiffiT saves 0.1%" in said
    assert "1 MAC = 2 FLOPs" in said and "leave out the fixed position table" in said


def test_published_and_bundled_names_mean_their_configs(cache, offline):
    offline()
    assert info.config_of("DiT-XL/2-512") == preset("DiT-XL/2", input_size=64)
    assert info.config_of("DiT-T-4-solids").in_channels == 3
    assert info.config_of("DiT-XL/2", input_size=64) == preset("DiT-XL/2", input_size=64)


def test_a_weights_file_is_described(ladder_files):
    assert info.config_of(str(ladder_files[0])).patch_size == 8


@pytest.mark.parametrize(
    "command, message",
    [
        (Info("DiT-Q/2"), "no model is called 'DiT-Q/2'; did you mean"),
        (Info("nothing"), "no model is called 'nothing'; there are"),
        (Info("nowhere.safetensors"), "no model is called 'nowhere.safetensors'"),
        (Info("DiT-S/2", input_size=33), "input_size 33 is not a multiple of patch_size 2"),
        (Info("DiT-S/2", input_size=0), "input_size is 0; it must be at least 1"),
        (Info(input_size=32), "input_size is 32, but no model is named"),
    ],
)
def test_errors_say_what_is_wrong(command, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        info.info(command)


def test_the_command(commands):
    status, out, _ = commands("dit.info", "DiT-N/8", "--input-size", "16")
    assert status == 0 and out.startswith("DiT-N/8\n") and "latent of 16 x 16 x 4, 1,000 classes" in out
    status, _, err = commands("dit.info", "DiT-N/9")
    assert status == 1 and err.startswith("error: no model is called 'DiT-N/9'")
