// Ages that stay true while the page stands, in the words of words.py: `4 s`, `3 min`, `2 h`, `5 d`.
const UNITS = [['d', 86400], ['h', 3600], ['min', 60]];

export function span(seconds) {
  const [unit, length] = UNITS.find(([, length]) => seconds >= 2 * length) ?? ['s', 1];
  return `${Math.round(Math.max(seconds, 0) / length)} ${unit}`;
}

export function tellAges(within = document) {
  for (const each of within.querySelectorAll('time.age')) {
    const told = span((Date.now() - Date.parse(each.dateTime)) / 1000);
    if (each.textContent !== told) each.textContent = told;
  }
}
