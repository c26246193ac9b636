"""The table of published results."""

import re

from dit import papers as records
from ui import papers
from ui.sortable import Column, table_html


def test_the_tables_numbers_are_numbers():
    rows = papers.rows()
    assert len(rows) == len(records.RESULTS)
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
            68.4,
            "no",
            400,
            "250 DDPM steps",
            "DiT, Table 4",
        ),
    ]
    diffit = next(row for row in rows if row[0] == "DiffiT")
    assert diffit[:5] == ["DiffiT", 256, 114, 118.507290624, 561] and diffit[6:8] == [1.73, "yes"]
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
    assert len(re.findall(r'<th scope="col"[^>]*><button type="button" title="[^"]+">', shown)) == 11
    escaped = table_html([Column("<b>", '"><i>')], [["<script>"]])
    assert not re.search(r"<(b|i|script)>", escaped)
