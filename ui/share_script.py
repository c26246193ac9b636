"""What the browser does to keep the page's address in step with its controls."""

# %s: keys, defaults, words, tabs. Writes only what differs from the defaults, a moment after the last change,
# and nothing before the address was read. What others put there (names beginning with __) stays.
SETUP = """
() => {
  const config = %s;
  const asked = new URLSearchParams(location.search);
  const open = {};
  for (const [key, ids] of Object.entries(config.tabs))
    open[key] = ids.includes(asked.get(key)) ? asked.get(key) : ids[0];
  let values = null, timer = null;
  const text = (key, value) => {
    const words = config.words[key];
    if (words && words[value] !== undefined) return words[value];
    if (value === null || value === undefined) return '';
    if (typeof value === 'boolean') return value ? '1' : '0';
    return Array.isArray(value) ? value.join(',') : String(value);
  };
  const write = () => {
    clearTimeout(timer);
    timer = null;
    const query = new URLSearchParams();
    for (const [key, value] of new URLSearchParams(location.search))
      if (key.startsWith('__')) query.append(key, value);
    for (const [key, ids] of Object.entries(config.tabs)) if (open[key] !== ids[0]) query.set(key, open[key]);
    config.keys.forEach((key, i) => {
      const now = text(key, values[i]);
      if (now !== text(key, config.defaults[i])) query.set(key, now);
    });
    const search = query.toString().replaceAll('%%2C', ',');
    const address = location.pathname + (search ? '?' + search : '') + location.hash;
    if (address !== location.pathname + location.search + location.hash)
      history.replaceState(history.state, '', address);
  };
  const later = () => {
    if (values === null) return;
    clearTimeout(timer);
    timer = setTimeout(write, 250);
  };
  window.ditlabAddress = {
    ready(now) { values = now; write(); },
    change(now) { if (values !== null) { values = now; later(); } },
    name(key, words) { config.words[key] = words; later(); },
    tab(key, id) { open[key] = id; later(); },
    async copy(now) {
      values = now;
      write();
      try {
        await navigator.clipboard.writeText(location.href);
      } catch {  // a page without https has no clipboard of its own
        const box = document.createElement('textarea');
        box.value = location.href;
        document.body.append(box);
        box.select();
        const copied = document.execCommand('copy');
        box.remove();
        if (!copied) { window.prompt('The address of this view:', location.href); return; }
      }
      for (const button of document.querySelectorAll('.dl-copy')) {
        const label = button.textContent;
        if (label === 'Copied') continue;
        button.textContent = 'Copied';
        setTimeout(() => { button.textContent = label; }, 1500);
      }
    },
  };
}
"""
READY = "(...values) => { window.ditlabAddress?.ready(values); }"
WRITE = "(...values) => { window.ditlabAddress?.change(values); }"
COPY = "async (...values) => { await window.ditlabAddress?.copy(values); }"
NAMES = "(names) => { window.ditlabAddress?.name('%s', JSON.parse(names)); }"  # %s: key
TAB = "() => { window.ditlabAddress?.tab(...%s); }"  # %s: key and id
