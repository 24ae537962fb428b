'use strict';
// A flame chart of one trace: time runs to the right, callees stand below their callers, each thread has a lane.
(() => {
  const { names, threads, slices, whole } = JSON.parse(document.getElementById('data').textContent);
  const canvas = document.getElementById('flame'), told = document.getElementById('told');
  const context = canvas.getContext('2d'), find = document.getElementById('find');
  const ROW = 20, TITLE = 18, hint = told.textContent;
  // A slice is [thread, depth, start, duration, own, name], times in microseconds after the call began.
  const depths = threads.map(() => 0);
  for (const s of slices) depths[s[0]] = Math.max(depths[s[0]], s[1] + 1);
  const tops = [];
  let height = 0;
  for (const depth of depths) { tops.push(height + TITLE); height += TITLE + depth * ROW + 6; }
  let from = 0, to = whole, hovered = null, wanted = '';

  const colour = (name) => {
    let hash = 0;
    for (const c of name.slice(name.lastIndexOf('('))) hash = (hash * 31 + c.charCodeAt(0)) % 360;
    return `hsl(${hash} 55% 72%)`;
  };
  const colours = names.map(colour);
  const width = () => canvas.clientWidth;
  const x = (t) => (t - from) / (to - from) * width();
  const span = (us) => us >= 1e6 ? (us / 1e6).toFixed(3) + ' s' : us >= 1e3 ? (us / 1e3).toFixed(2) + ' ms' : us.toFixed(0) + ' µs';

  function draw() {
    const scale = window.devicePixelRatio || 1, style = getComputedStyle(document.body);
    canvas.width = width() * scale; canvas.height = height * scale; canvas.style.height = height + 'px';
    context.scale(scale, scale);
    context.font = '12px ' + style.fontFamily; context.textBaseline = 'middle';
    context.fillStyle = style.getPropertyValue('--soft');
    threads.forEach((name, lane) => context.fillText(name, 6, tops[lane] - TITLE / 2));
    for (const s of slices) {
      const left = Math.max(x(s[2]), 0), right = Math.min(x(s[2] + s[3]), width());
      if (right < 0 || left > width() || right - left < 0.2) continue;
      const top = tops[s[0]] + s[1] * ROW;
      const found = wanted && names[s[5]].toLowerCase().includes(wanted);
      context.globalAlpha = wanted && !found ? 0.25 : 1;
      context.fillStyle = s === hovered ? '#f0c04a' : colours[s[5]];
      context.fillRect(left, top, Math.max(right - left - 0.5, 0.5), ROW - 1);
      if (right - left > 30) {
        context.fillStyle = '#16202c';
        context.save(); context.beginPath(); context.rect(left, top, right - left - 4, ROW); context.clip();
        context.fillText(names[s[5]], left + 4, top + ROW / 2);
        context.restore();
      }
    }
    context.globalAlpha = 1;
  }
  function show(start, end) {
    const length = Math.min(Math.max(end - start, 1), whole);
    from = Math.min(Math.max(start, 0), whole - length); to = from + length; draw();
  }
  function at(event) {
    const box = canvas.getBoundingClientRect(), px = event.clientX - box.left, py = event.clientY - box.top;
    const t = from + px / width() * (to - from);
    return slices.find((s) => py >= tops[s[0]] + s[1] * ROW && py < tops[s[0]] + (s[1] + 1) * ROW
      && t >= s[2] && t <= s[2] + s[3]) || null;
  }
  function zoom(factor, middle) { show(middle - (middle - from) * factor, middle + (to - middle) * factor); }

  let held = null, moved = false;
  canvas.addEventListener('mousedown', (event) => { held = [event.clientX, from, to]; moved = false; });
  window.addEventListener('mouseup', () => { held = null; });
  canvas.addEventListener('mousemove', (event) => {
    if (held) {
      const by = (event.clientX - held[0]) / width() * (held[2] - held[1]);
      moved = moved || Math.abs(event.clientX - held[0]) > 3;
      if (moved) show(held[1] - by, held[2] - by);
      return;
    }
    const found = at(event);
    if (found === hovered) return;
    hovered = found;
    told.textContent = found ? `${names[found[5]]}: ${span(found[3])}, own ${span(found[4])}, at ${span(found[2])}` : hint;
    draw();
  });
  canvas.addEventListener('click', (event) => {
    const found = moved ? null : at(event);
    if (found) show(found[2], found[2] + found[3]);
  });
  canvas.addEventListener('wheel', (event) => {
    event.preventDefault();
    zoom(event.deltaY > 0 ? 1.25 : 0.8, from + (event.clientX - canvas.getBoundingClientRect().left) / width() * (to - from));
  }, { passive: false });
  canvas.addEventListener('keydown', (event) => {
    const step = (to - from) / 5, middle = (from + to) / 2;
    if (event.key === 'ArrowLeft') show(from - step, to - step);
    else if (event.key === 'ArrowRight') show(from + step, to + step);
    else if (event.key === '+') zoom(0.8, middle);
    else if (event.key === '-') zoom(1.25, middle);
    else if (event.key === 'Escape') show(0, whole);
    else return;
    event.preventDefault();
  });
  document.getElementById('whole').addEventListener('click', () => show(0, whole));
  find.addEventListener('input', () => { wanted = find.value.toLowerCase(); draw(); });
  window.addEventListener('resize', draw);
  draw();
})();
