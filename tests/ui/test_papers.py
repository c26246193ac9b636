"""The table of published results."""

import json
import re
from dataclasses import replace

import pytest

from benchmarks.counts import counted
from dit import papers as records
from dit.flops import macs
from dit.memory import _pretended, forward_peak, sampling_bytes
from dit.presets import MODELS
from ui import papers
from ui.sortable import Column, table_html


def test_the_tables_numbers_are_numbers():
    rows = papers.rows()
    assert len(rows) == len(records.RESULTS) + 3  # and the U-Nets here
    for row in rows:
        for value, column in zip(row, papers.COLUMNS, strict=True):
            number = value is None or isinstance(value, int | float)
            assert isinstance(value, str) if column.decimals is None else number
    assert rows[2] == [
        *(
            "DiT-S/2",
            256,
            6.06,
            6.055673856,
            33,
            32.865056,
            256,
            131.853440,
            4.336132,
            68.4,
            "no",
            400,
            "250 DDPM steps",
            "DiT, Table 4",
        ),
    ]
    diffit = next(row for row in rows if row[0] == "DiffiT")
    assert diffit[:5] == ["DiffiT", 256, 114, 118.507290624, 561] and diffit[9:11] == [1.73, "yes"]
    adm = next(row for row in rows if row[0] == "ADM")
    assert adm[3] is None and adm[5] is None  # not built here


def cells(shown: str) -> list[tuple[str, str]]:
    return re.findall(r'<td(?: class="dl-number")?(?: data-value="([^"]*)")?>([^<]*)</td>', shown)


def test_cells_show_rounded_numbers_and_sort_by_whole_ones():
    columns = (Column("a", "text"), Column("b", "number", 2))
    shown = table_html(columns, [["x", 1.239], ["y", 1234], ["z", None], ["w", 19.7]])
    expected = [("", "x"), ("1.239", "1.24"), ("", "y"), ("1234", "1,234")]
    expected += [("", "z"), ("", ""), ("", "w"), ("19.7", "19.70")]
    assert cells(shown) == expected


def test_every_head_has_a_tooltip_and_text_stays_text():
    shown = table_html(papers.COLUMNS, papers.rows())
    assert len(re.findall(r'<th scope="col"[^>]*><button type="button" title="[^"]+">', shown)) == 14
    escaped = table_html([Column("<b>", '"><i>')], [["<script>"]])
    assert not re.search(r"<(b|i|script)>", escaped)


@pytest.mark.parametrize("name", ["DiT-S/8", "DiT-XL/2-cross-attention", "DiffiT-CIFAR-32", "UNet-C"])
def test_the_stored_counts_are_those_of_the_code(name):
    """If not: python -m benchmarks.counts."""
    stored = json.loads(papers.COUNTS.read_text())
    assert stored[name] == counted(MODELS[name])


def test_compute_is_stored_of_all_and_of_no_others():
    """If not: python -m benchmarks.counts."""
    stored, models = json.loads(papers.COUNTS.read_text()), records.models()
    assert list(stored) == list(models)
    for name, config in models.items():
        assert (stored[name]["macs"], stored[name]["tokens"]) == (macs(config), config.tokens)


def test_a_model_that_was_not_counted_is_named(tmp_path, monkeypatch):
    stored = json.loads(papers.COUNTS.read_text())
    del stored["UNet-C"]
    (tmp_path / "counts.json").write_text(json.dumps(stored))
    monkeypatch.setattr(papers, "COUNTS", tmp_path / "counts.json")
    with pytest.raises(ValueError, match=r"has not \['UNet-C'\]; make it anew: python -m benchmarks.counts"):
        papers.rows()


def test_activations_do_not_depend_on_depth():
    for name in ("DiT-N/8", "DiT-N/8-adaln", "DiT-N/8-cross-attention", "DiT-N/8-in-context", "DiffiT-N/8"):
        config = MODELS[name]
        assert _pretended(forward_peak, replace(config, depth=5)) == sampling_bytes(config)
