// Keys: j and k go through the links of a list, / to the page's search field, Escape out of a field.
const ROWS = '[data-rows] a[data-row]';

function step(by) {
  const rows = [...document.querySelectorAll(ROWS)];
  const at = rows.indexOf(document.activeElement);
  const next = at < 0 ? (by > 0 ? 0 : rows.length - 1) : Math.min(Math.max(at + by, 0), rows.length - 1);
  rows[next]?.focus();
}

const ACTIONS = {
  j: () => step(1),
  k: () => step(-1),
  '/': () => document.querySelector('[data-search]')?.focus(),
};

export function listen() {
  document.addEventListener('keydown', (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = event.target.matches('input:not([type=checkbox]), select, textarea');
    if (typing && event.key === 'Escape') event.target.blur();
    if (typing || !(event.key in ACTIONS)) return;
    event.preventDefault();
    ACTIONS[event.key]();
  });
}
