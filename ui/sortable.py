"""A table that sorts by a click on a head, and shows the rows that hold what is typed."""

import html
from collections.abc import Sequence
from dataclasses import dataclass

Value = str | float | None


@dataclass(frozen=True)
class Column:
    """A head, and what it means for a reader who has not met it."""

    head: str
    tip: str
    decimals: int | None = None  # of its numbers; None: a column of text


def table_html(columns: Sequence[Column], rows: Sequence[Sequence[Value]]) -> str:
    """The table with its search box. Wants `CSS` and, on loading, `SCRIPT`. None: an empty cell."""
    heads = "".join(
        f'<th scope="col" aria-sort="none"{_kind(column)}><button type="button" '
        f'title="{html.escape(column.tip, quote=True)}">{_head(column)}</button></th>'
        for column in columns
    )
    lines = "".join(
        f"<tr>{''.join(_cell(*pair) for pair in zip(columns, row, strict=True))}</tr>" for row in rows
    )
    return (
        '<div class="dl-sortable">'
        '<input type="search" placeholder="Search" aria-label="Show rows that hold"/>'
        f'<div class="dl-scroll" tabindex="0"><table><thead><tr>{heads}</tr></thead>'
        f'<tbody>{lines}</tbody></table></div><p class="dl-nothing" role="status"></p></div>'
    )


def _head(column: Column) -> str:
    """Broken at its comma, and only there."""
    return html.escape(column.head).replace(", ", ", <br>")


def _kind(column: Column) -> str:
    return "" if column.decimals is None else ' class="dl-number"'


def _cell(column: Column, value: Value) -> str:
    if value is None:
        return f"<td{_kind(column)}></td>"
    if column.decimals is None:
        return f"<td>{html.escape(str(value))}</td>"
    whole = value == int(value) and isinstance(value, int)  # as a paper prints it
    text = f"{value:,}" if whole else f"{value:,.{column.decimals}f}"
    return f'<td class="dl-number" data-value="{value}">{text}</td>'


CSS = """
.dl-sortable { max-width: 1216px; }
.dl-sortable input { display: block; width: 220px; max-width: 100%; margin: 0 0 8px; padding: 5px 10px;
  font-size: 13px; border: 1px solid var(--border-color-primary); border-radius: 8px;
  background: var(--input-background-fill); color: var(--body-text-color); }
.dl-sortable .dl-scroll { overflow: auto; max-height: 520px; border-radius: 10px;
  border: 1px solid var(--border-color-primary); background: var(--background-fill-primary); }
.dl-sortable table { width: 100%; margin: 0; border: 0; border-collapse: separate; border-spacing: 0;
  font-size: 13px; }
.dl-sortable tr, .dl-sortable th, .dl-sortable td { border: 0; }
.dl-sortable th, .dl-sortable td { text-align: left; padding: 5px 10px; background: inherit;
  border-bottom: 1px solid var(--border-color-primary); }
.dl-sortable tr { background: var(--background-fill-primary); }
.dl-sortable tbody tr:nth-child(even) { background: var(--background-fill-secondary); }
.dl-sortable td:not(:nth-last-child(2)) { white-space: nowrap; }
.dl-sortable td:nth-last-child(2) { min-width: 190px; }
.dl-sortable td.dl-number { text-align: right; font-variant-numeric: tabular-nums; }
.dl-sortable th { position: sticky; top: 0; z-index: 2; padding: 0; vertical-align: bottom; }
.dl-sortable th:first-child, .dl-sortable td:first-child { position: sticky; left: 0; z-index: 1;
  font-weight: 600; }
.dl-sortable th:first-child { z-index: 3; }
.dl-sortable th button { display: block; width: 100%; margin: 0; padding: 8px 10px; border: 0;
  background: none; box-shadow: none; color: inherit; font: inherit; font-weight: 600; line-height: 1.3;
  text-align: inherit; white-space: nowrap; cursor: pointer; text-decoration: underline dotted;
  text-decoration-color: var(--body-text-color-subdued); text-underline-offset: 3px; }
.dl-sortable th.dl-number button { text-align: right; }
.dl-sortable th button:hover { color: var(--color-accent); }
.dl-sortable th button:focus-visible { outline: 2px solid var(--color-accent); outline-offset: -2px; }
.dl-sortable th[aria-sort=ascending] button::after { content: " ▲"; }
.dl-sortable th[aria-sort=descending] button::after { content: " ▼"; }
.dl-sortable .dl-nothing:not(:empty) { margin: 8px 2px; }
@media (max-width: 760px) {
  .dl-sortable th:first-child, .dl-sortable td:first-child { min-width: 108px; max-width: 132px;
    white-space: normal; }
}
"""

# Listens on the component, which stays when its contents are set anew. Empty cells come last either way.
SCRIPT = """
const valueOf = (row, at) => {
  const cell = row.cells[at];
  return 'value' in cell.dataset ? Number(cell.dataset.value) : cell.textContent;
};
element.addEventListener('click', (event) => {
  const head = event.target.closest('.dl-sortable th');
  if (!head) return;
  const down = head.getAttribute('aria-sort') === 'ascending', body = head.closest('table').tBodies[0];
  for (const other of head.parentNode.cells) other.setAttribute('aria-sort', 'none');
  head.setAttribute('aria-sort', down ? 'descending' : 'ascending');
  const rows = [...body.rows].map((row) => [valueOf(row, head.cellIndex), row]);
  rows.sort(([a], [b]) => {
    if (a === '' || b === '') return (a === '') - (b === '');
    const order = typeof a === 'number' ? a - b : a.localeCompare(b, 'en', { numeric: true });
    return down ? -order : order;
  });
  body.append(...rows.map(([, row]) => row));
});
element.addEventListener('input', (event) => {
  const plain = (text) => text.toLowerCase().replaceAll('-', '');  // so that U-Net finds UNet
  const words = plain(event.target.value).split(/\\s+/);
  let found = 0;
  for (const row of element.querySelectorAll('.dl-sortable tbody tr')) {
    row.hidden = !words.every((word) => plain(row.textContent).includes(word));
    found += !row.hidden;
  }
  const said = found ? '' : `No row holds “${event.target.value.trim()}”.`;
  element.querySelector('.dl-nothing').textContent = said;
});
"""
