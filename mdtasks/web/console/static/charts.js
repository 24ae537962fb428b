// Lines over time (charts.py): each takes the place of its picture, in the page's own colours, also when these change.
const dark = matchMedia('(prefers-color-scheme: dark)');
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

const axis = (more) => ({
  gridcolor: colour('line'), linecolor: colour('line'), zeroline: false, fixedrange: true, ...more,
});

function layout(told) {
  const bound = told.bound === null ? [] : [{
    type: 'line', xref: 'paper', x0: 0, x1: 1, y0: told.bound, y1: told.bound,
    line: { color: colour('warn'), width: 1, dash: 'dash' },
  }];
  const bands = told.bands.map(([x0, x1]) => ({
    type: 'rect', yref: 'paper', y0: 0, y1: 1, x0, x1, layer: 'below', line: { width: 0 }, fillcolor: colour('warn-back'),
  }));
  const days = (Date.parse(`${told.end.replace(' ', 'T')}Z`) - Date.parse(`${told.start.replace(' ', 'T')}Z`)) / 86400000;
  const top = told.share ? Math.max(0.001, told.bound ?? 0, ...told.y.map((y) => y ?? 0)) * 1.15 : 1.04;
  return {
    paper_bgcolor: 'transparent', plot_bgcolor: 'transparent',
    margin: { l: 44, r: 8, t: 8, b: 24 }, showlegend: false, hovermode: 'x', dragmode: false, shapes: [...bands, ...bound],
    font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: colour('soft') },
    hoverlabel: { bgcolor: colour('card'), bordercolor: colour('strong-line'), font: { color: colour('ink') } },
    xaxis: axis({ type: 'date', range: [told.start, told.end], hoverformat: '%Y-%m-%d %H:%M:%S UTC', nticks: 5, tickangle: 0, tickformat: days > 2 ? '%b %-d' : '%H:%M' }),
    yaxis: axis({ range: [told.share ? -top * 0.04 : -0.04, top], tickformat: told.share ? ',.3~%' : '.1f', nticks: 4 }),
  };
}

function line(told) {
  const alone = (y, at) => y !== null && (told.y[at - 1] ?? null) === null && (told.y[at + 1] ?? null) === null;
  return {
    x: told.x, y: told.y, type: 'scatter', mode: 'lines+markers', connectgaps: false, name: '',
    line: { color: colour('ink'), width: 1.5 },
    // No line leads to a point between two breaks.
    marker: { color: colour('ink'), size: told.y.map((y, at) => (alone(y, at) ? 5 : 0)), line: { width: 0 } },
    hovertemplate: told.share ? '%{y:,.3~%}' : '%{y:.3f}',
  };
}

function draw(place) {
  const told = JSON.parse(place.parentElement.querySelector('script').textContent);
  if (!told.x.length) return;
  place.querySelector('.spark')?.remove();
  Plotly.react(place, [line(told)], layout(told), { displayModeBar: false, responsive: true });
  place.setAttribute('role', 'img');
  place.setAttribute('aria-label', told.title);
}

const drawAll = () => document.querySelectorAll('[data-chart]').forEach(draw);
drawAll();
dark.addEventListener('change', drawAll);
