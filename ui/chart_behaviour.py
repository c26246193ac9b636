"""What a chart looks like in the page, and what it does under mouse, finger and keys."""

COLOURS = {  # name -> on light, on dark; each at least 3:1 against the ground
    "blue": ("#0369a1", "#38bdf8"),
    "amber": ("#b45309", "#fbbf24"),
    "green": ("#047857", "#34d399"),
    "violet": ("#7c3aed", "#a78bfa"),
    "pink": ("#be185d", "#f472b6"),
    "slate": ("#475569", "#cbd5e1"),
    "red": ("#dc2626", "#f87171"),
    "ink": ("#0f172a", "#f8fafc"),
    "teal": ("#0f766e", "#2dd4bf"),
    "lime": ("#4d7c0f", "#a3e635"),
    "brown": ("#78350f", "#d6a273"),
}
# What is inside a drawing; also of one that stands alone.
DRAWING_CSS = """.dl-axes line { stroke: var(--border-color-primary); stroke-width: 1; }
.dl-axes text { fill: color-mix(in srgb, var(--body-text-color) 75%, transparent); }
.dl-mark { fill: var(--dl-ink); stroke: var(--background-fill-primary); stroke-width: 1; }
.dl-mark.dl-hollow { fill: var(--background-fill-primary); stroke: var(--dl-ink); stroke-width: 1.8; }
.dl-line { fill: none; stroke: var(--dl-ink); stroke-width: 1.8; stroke-linejoin: round; }
.dl-line.dl-faint { stroke-width: 1.5; opacity: .35; }
.dl-line.dl-dashed { stroke-width: 1.5; stroke-dasharray: 6 4; }
.dl-line.dl-dotted { stroke-width: 1.5; stroke-dasharray: 2 3; }
.dl-line.dl-whisker { stroke-width: 1.2; }
.dl-line.dl-band { stroke-width: 9; stroke-linecap: round; opacity: .3; }
.dl-key .dl-line.dl-band { stroke-width: 6; }
.dl-key .dl-line.dl-dashed { stroke-dasharray: 4 2; }
.dl-label text { fill: var(--body-text-color); stroke: var(--background-fill-primary); stroke-width: 3px;
  paint-order: stroke; stroke-linejoin: round; }
.dl-label.dl-own text { fill: var(--dl-ink); }
.dl-label line { stroke: var(--body-text-color-subdued); stroke-width: .8; }
.dl-point { cursor: pointer; outline: none; }
.dl-point.dl-shown .dl-mark, .dl-point:focus .dl-mark { stroke: var(--body-text-color); stroke-width: 2.5; }
"""
CSS = (
    DRAWING_CSS
    + """
.dl-chart { border: 1px solid var(--border-color-primary); border-radius: 10px; padding: 10px;
  background: var(--background-fill-primary); color: var(--body-text-color); max-width: 1216px; }
.dl-chart .dl-legend { display: flex; flex-wrap: wrap; gap: 6px; margin-bottom: 6px; }
.dl-chart .dl-legend .dl-key { display: inline-flex; align-items: center; gap: 5px; margin: 0; height: 26px;
  padding: 0 10px; border: 1px solid var(--border-color-primary); border-radius: 999px; background: none;
  box-shadow: none; color: var(--body-text-color); font-size: 12.5px; font-weight: 500; line-height: 1;
  cursor: pointer; }
.dl-chart .dl-legend .dl-key[aria-pressed=false] { opacity: .5; text-decoration: line-through; }
.dl-chart .dl-key:focus-visible { outline: 2px solid var(--color-accent); outline-offset: 2px; }
.dl-chart .dl-key svg { flex: none; overflow: visible; }
.dl-chart .dl-plot { position: relative; }
.dl-chart .dl-plot > svg { display: block; width: 100%; height: auto; touch-action: pan-y; }
.dl-chart .dl-plot > .dl-narrow { display: none; }
.dl-chart .dl-off { display: none; }
.dl-tip { position: absolute; z-index: 5; max-width: min(300px, calc(100% - 8px)); width: max-content;
  padding: 8px 10px; border-radius: 8px; font-size: 12.5px; line-height: 1.45; pointer-events: none;
  background: var(--background-fill-secondary); color: var(--body-text-color);
  border: 1px solid var(--border-color-primary); box-shadow: 0 4px 14px rgb(0 0 0 / .25); }
.dl-tip[hidden] { display: none; }
.dl-tip.dl-pinned { border-color: var(--color-accent); border-width: 2px; }
.dl-tip b, .dl-tip span { display: block; }
@media (max-width: 760px) {
  .dl-chart { padding: 8px 4px; }
  .dl-chart .dl-legend { gap: 5px; }
  .dl-chart .dl-legend .dl-key { font-size: 11.5px; padding: 0 8px; }
  .dl-chart .dl-plot > .dl-wide { display: none; }
  .dl-chart .dl-plot > .dl-narrow { display: block; }
}
"""
    + "".join(
        f".dl-chart .dl-{name} {{ --dl-ink: {light}; }} .dark .dl-chart .dl-{name} {{ --dl-ink: {dark}; }}\n"
        for name, (light, dark) in COLOURS.items()
    )
)

# Points lie close together: not the one that is hit is meant, but the nearest. Listens on the component,
# which stays when its contents are set anew; what is hidden then stays so, unless they are of something else.
SCRIPT = """
const NEAR = 26, hidden = new Set();
let pinned = null, of = null;
const all = (selector) => [...element.querySelectorAll(selector)];
const centre = (point) => {
  const box = point.querySelector('.dl-mark').getBoundingClientRect();
  return [box.left + box.width / 2, box.top + box.height / 2];
};
const visible = () => all('.dl-point').filter((point) => point.getClientRects().length)
  .map((point) => [point, centre(point)])
  .sort(([, one], [, two]) => one[0] - two[0] || one[1] - two[1]);
const nearest = (event) => {
  let best = null, least = NEAR;
  for (const [point, [x, y]] of visible()) {
    const distance = Math.hypot(x - event.clientX, y - event.clientY);
    if (distance < least) { best = point; least = distance; }
  }
  return best;
};
const show = (point) => {
  const tip = element.querySelector('.dl-tip');
  if (!tip) return;
  for (const other of all('.dl-shown')) other.classList.remove('dl-shown');
  tip.hidden = !point;
  if (!point) return;
  point.classList.add('dl-shown');
  tip.replaceChildren(...point.dataset.tip.split('\\n').map((line, i) => {
    const part = document.createElement(i ? 'span' : 'b');
    part.textContent = line;
    return part;
  }));
  tip.classList.toggle('dl-pinned', point === pinned);
  const frame = tip.parentElement.getBoundingClientRect(), [x, y] = centre(point);
  const left = x - frame.left - tip.offsetWidth / 2, above = y - frame.top - tip.offsetHeight - 14;
  tip.style.left = `${Math.max(2, Math.min(left, frame.width - tip.offsetWidth - 2))}px`;
  tip.style.top = `${above < 0 ? y - frame.top + 14 : above}px`;
};
const pin = (point) => {
  if (pinned) pinned.setAttribute('aria-pressed', 'false');
  pinned = point && point !== pinned ? point : null;
  if (pinned) pinned.setAttribute('aria-pressed', 'true');
  show(pinned);
  if (pinned && pinned.dataset.pick) trigger('pick', { pick: pinned.dataset.pick });
};
const rove = (point) => {  // one stop of the Tab key, from which arrows go on
  for (const other of all('.dl-point')) other.tabIndex = -1;
  if (point) point.tabIndex = 0;
};
const step = (point, key) => {  // where an arrow leads
  const points = visible(), last = points.length - 1, order = points.map(([one]) => one);
  if (key === 'Home' || key === 'End') return order[key === 'End' ? last : 0];
  const by = key === 'ArrowRight' || key === 'ArrowDown' ? 1 : -1;
  const level = key === 'ArrowRight' || key === 'ArrowLeft', series = point.dataset.series;
  const walked = point.closest('[data-walk]');
  if (walked && level) {
    const own = order.filter((one) => one.dataset.series === series);
    return own[Math.max(0, Math.min(own.length - 1, own.indexOf(point) + by))];
  }
  const [x, y] = centre(point);
  let best = point, least = Infinity;
  for (const [other, [u, v]] of points) {
    const ahead = by * (level ? u - x : v - y), aside = level ? v - y : u - x;
    const far = Math.hypot(ahead, 2 * aside);  // what lies aside is hardly in the arrow's direction
    if (ahead < 1 || far >= least || (walked && other.dataset.series === series)) continue;
    best = other;
    least = far;
  }
  return best;
};
const hide = (key) => {
  key.setAttribute('aria-pressed', String(!hidden.has(key.dataset.key)));
  for (const part of all(`[data-family~="${key.dataset.key}"]`)) {
    part.classList.toggle('dl-off', part.dataset.family.split(' ').some((one) => hidden.has(one)));
  }
};
element.addEventListener('pointermove', (event) => {
  if (!pinned && event.pointerType === 'mouse') show(event.target.closest('.dl-plot') && nearest(event));
});
element.addEventListener('pointerleave', () => { if (!pinned) show(null); });
element.addEventListener('focusin', (event) => {
  const point = event.target.closest('.dl-point');
  if (point && !pinned && point.matches(':focus-visible')) show(point);
});
element.addEventListener('focusout', () => { if (!pinned) show(null); });
element.addEventListener('keydown', (event) => {
  const point = event.target.closest('.dl-point');
  if (event.key === 'Escape') pin(null);
  if (!point) return;
  if (event.key === 'Enter' || event.key === ' ') { pin(point); if (!pinned) show(point); }
  else if (/^(Arrow|Home$|End$)/.test(event.key)) {
    const next = step(point, event.key);
    if (pinned) pin(null);
    rove(next);
    next.focus();
    show(next);
  } else return;
  event.preventDefault();
});
element.addEventListener('click', (event) => {
  const key = event.target.closest('.dl-key');
  if (event.target.closest('.dl-plot')) pin(nearest(event));
  if (!key) return;
  if (!hidden.delete(key.dataset.key)) hidden.add(key.dataset.key);
  hide(key);
  trigger('legend', { hidden: [...hidden] });
  if (pinned && !pinned.getClientRects().length) pin(null);
  rove(visible()[0]?.[0]);
});
new ResizeObserver(() => { if (pinned) show(pinned); rove(visible()[0]?.[0]); }).observe(element);
const begin = () => {  // what is hidden in a chart that has just come
  const chart = element.querySelector('.dl-chart')?.dataset;
  if (!chart || chart.of !== of || 'hidden' in chart) hidden.clear();
  of = chart ? chart.of : null;
  for (const key of (chart?.hidden || '').split(' ').filter(Boolean)) hidden.add(key);
  for (const key of all('.dl-key')) hide(key);
};
begin();
watch('value', () => {
  pinned = null;
  show(null);
  begin();
  rove(visible()[0]?.[0]);
});
"""
