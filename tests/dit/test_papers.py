"""What the papers print, against what is counted here."""

import pytest

from dit import papers
from dit.counts import count
from dit.papers import PaperResult
from dit.presets import preset

OURS = [result for result in papers.RESULTS if result.preset]
COUNTED = [result for result in OURS if result.gflops]
PRINTED = [result for result in OURS if result.parameters]
WITHOUT_ATTENTION_PRODUCTS = ("DiffiT",)  # whose printed Gflops leave them out


def title(result: PaperResult) -> str:
    return f"{result.name}-{result.resolution}-{result.fid}"


@pytest.mark.parametrize("result", PRINTED, ids=title)
def test_our_parameters_round_to_the_papers(result):
    assert round(count(result.config).trainable / 1e6) == result.parameters


@pytest.mark.parametrize("result", COUNTED, ids=title)
def test_our_macs_are_the_papers_gflops(result):
    counted = count(result.config)
    macs = (
        counted.macs_without_attention_matmuls if result.name in WITHOUT_ATTENTION_PRODUCTS else counted.macs
    )
    # 0.36 of DiT-S/8 is rounded by more than half a percent.
    assert macs / 1e9 == pytest.approx(result.gflops, rel=0.005) or round(macs / 1e9, 2) == result.gflops


def test_diffit_is_printed_without_attention_products_and_dit_with_them():
    diffit, dit = count(preset("DiffiT-XL/2")), count(preset("DiT-XL/2"))
    assert diffit.macs_without_attention_matmuls / 1e9 == pytest.approx(114.279, abs=5e-4)
    assert dit.macs_without_attention_matmuls / 1e9 == pytest.approx(114.394, abs=5e-4)
    assert diffit.macs / 1e9 == pytest.approx(118.507, abs=5e-4)
    assert 1 - diffit.macs / dit.macs == pytest.approx(0.001, abs=5e-4)


def test_every_row_is_there_once():
    """Twelve models, three other designs, four longer runs, seven U-Nets, four guided; relatives."""
    assert len(papers.RESULTS) == len(set(papers.RESULTS)) == 12 + 3 + 4 + 7 + 4 + 4 + 2
    assert [r.fid for r in papers.RESULTS if r.name == "DiT-XL/2"] == [19.47, 10.67, 9.62, 13.78, 11.93]
    assert (
        papers.DESIGNS[3].config == papers.SCALING[-1].config
    )  # one row of the paper, in two of its figures
    designs = {r.config.conditioning: (r.gflops, r.parameters, r.fid) for r in papers.DESIGNS}
    assert designs == {
        "in-context": (119.37, 449, 35.24),
        "cross-attention": (137.62, 598, 26.14),
        "adaln": (118.56, 600, 25.21),
        "adaln-zero": (118.64, 675, 19.47),
    }


@pytest.mark.parametrize("result", papers.RESULTS, ids=title)
def test_resolutions_and_guidance_are_consistent(result):
    if config := result.config:
        assert config.input_size * (8 if config.is_latent else 1) == result.resolution
    assert ("guidance" in result.settings) == result.guided
    assert any(result.source.startswith(f"{paper}, ") for paper in papers.ARXIV)


def test_what_is_printed_of_a_config():
    at_512 = papers.of_config(preset("DiT-XL/2", input_size=64))
    assert {result.resolution for result in at_512} == {512} and len(at_512) == 4
    assert papers.of_config(preset("DiT-XL/2"))[0] == papers.SCALING[-1]
    assert papers.of_config(preset("DiT-T/4")) == []


def test_more_compute_goes_with_a_lower_fid():
    """Fig. 8 of the DiT paper: -0.93."""
    assert papers.correlation(papers.SCALING) == pytest.approx(-0.9298, abs=5e-5)


def test_correlation_needs_two_points():
    with pytest.raises(ValueError, match="1 results have Gflops and FID; a correlation needs at least 2"):
        papers.correlation([papers.SCALING[0], papers.IMAGE_DIFFIT[0]])
