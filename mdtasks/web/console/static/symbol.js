// A symbol's bars as candles, in trading time: a place for each interval that is expected, or has a bar. Bars that are
// stored while the page stands come from the live stream; what else stands on the page is fetched anew when they do.
// Without a stream it is fetched every few seconds.
import { fetched, put } from './parts.js';

const EVERY_MS = 5000, SOON_MS = 1500, MOST_TICKS = 8;
const VALUES = ['open', 'high', 'low', 'close', 'volume'];
const chart = document.getElementById('chart');
const label = chart.getAttribute('aria-label');
const told = document.getElementById('liveness');
const { replay, follows } = document.getElementById('live').dataset;
let series = read(document);

function read(page) {
  return JSON.parse(page.getElementById('bars').textContent);
}

const two = (number) => String(number).padStart(2, '0');
const day = (date) => `${date.getUTCFullYear()}-${two(date.getUTCMonth() + 1)}-${two(date.getUTCDate())}`;
const time = (date) => `${two(date.getUTCHours())}:${two(date.getUTCMinutes())}`;
const daily = () => series.step_s >= 86400;
const named = (date) => (daily() ? day(date) : `${day(date)} ${time(date)}`);

// Where a stretch of each kind begins, the finest kind first, and what is written there.
const KINDS = [
  [(at) => at.getUTCMinutes() % 15 === 0, time],
  [(at) => at.getUTCMinutes() === 0, time],
  [(at, before) => day(at) !== day(before), (at) => day(at).slice(5)],
  [(at, before) => at.getUTCMonth() !== before.getUTCMonth(), (at) => day(at).slice(0, 7)],
  [(at, before) => at.getUTCFullYear() !== before.getUTCFullYear(), (at) => String(at.getUTCFullYear())],
];

// Marks on the axis: of the coarsest kind that has some to show, as many as there is room for.
function ticks() {
  const dates = series.at.map((at) => new Date(at));
  const most = chart.clientWidth < 600 ? MOST_TICKS / 2 : MOST_TICKS;
  const kinds = (daily() ? KINDS.slice(2) : KINDS).map(([begins, words]) => [
    dates.flatMap((at, place) => (place && begins(at, dates[place - 1]) ? [place] : [])), words]);
  const [places, words] = kinds.findLast(([found]) => found.length >= 3) ?? [[0, dates.length - 1].filter((at) => at >= 0), named];
  const step = Math.ceil(places.length / most);
  const kept = places.filter((_, number) => number % step === 0);
  const dated = (place, before) => words === time && (before === undefined || day(dates[place]) !== day(dates[before]));
  return {
    tickvals: kept,
    ticktext: kept.map((place, number) => words(dates[place]) + (dated(place, kept[number - 1]) ? `<br>${day(dates[place]).slice(5)}` : '')),
  };
}

function hover(place) {
  const [open, high, low, close, volume] = VALUES.map((name) => series[name][place]?.toLocaleString('en', { maximumSignificantDigits: 10 }));
  const last = series.final[place] ? '' : ', provisional';
  return `${named(new Date(series.at[place]))} UTC<br>open ${open}  high ${high}<br>low ${low}  close ${close}<br>volume ${volume}<br>${series.provider[place]}${last}`;
}

function draw() {
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(`--${name}`).trim();
  const [ink, soft, line, card] = ['ink', 'soft', 'line', 'card'].map(colour);
  const x = series.at.map((_, place) => place);
  const text = x.map((place) => (series.close[place] === null ? '' : hover(place)));
  const none = series.close.every((close) => close === null);
  const axis = { showticklabels: !none, gridcolor: line, linecolor: line, zeroline: false, tickfont: { color: soft } };
  Plotly.react(chart, [
    { type: 'candlestick', x, open: series.open, high: series.high, low: series.low, close: series.close, text, hoverinfo: 'text',
      increasing: { line: { color: ink, width: 1 }, fillcolor: card }, decreasing: { line: { color: ink, width: 1 }, fillcolor: ink } },
    { type: 'bar', x, y: series.volume, yaxis: 'y2', marker: { color: colour('bar'), line: { width: 0 } }, hoverinfo: 'skip' },
  ], {
    paper_bgcolor: 'transparent', plot_bgcolor: 'transparent', showlegend: false, uirevision: 'kept', hovermode: 'x',
    font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: soft },
    hoverlabel: { bgcolor: card, bordercolor: line, font: { color: ink }, align: 'left' },
    margin: { l: 8, r: 64, t: 8, b: 44 }, bargap: 0.2,
    dragmode: matchMedia('(pointer: coarse)').matches ? false : 'zoom',  // a finger scrolls the page
    xaxis: { ...axis, ...ticks(), showticklabels: true, anchor: 'y2', rangeslider: { visible: false } },
    yaxis: { ...axis, side: 'right', domain: [0.24, 1], fixedrange: true },
    yaxis2: { ...axis, side: 'right', domain: [0, 0.18], fixedrange: true, nticks: 3, rangemode: 'tozero' },
  }, { displayModeBar: false, responsive: true });
  const newest = series.close.findLast((close) => close !== null);
  chart.setAttribute('aria-label', newest === undefined ? label : `${label}. The last close is ${newest}.`);
}

// Put a bar of the stream where it belongs; whether that changed anything.
function take(bar) {
  const at = Date.parse(bar.ts);
  if (!series.at.length || at < series.at[0]) return !series.at.length;
  let place = series.at.findLastIndex((each) => each <= at);
  if (series.at[place] !== at) {
    place += 1;
    series.at.splice(place, 0, at);
    for (const name of [...VALUES, 'final', 'provider']) series[name].splice(place, 0, null);
  }
  const known = VALUES.every((name) => series[name][place] === bar[name]) && Boolean(series.final[place]) === bar.final;
  for (const name of [...VALUES, 'final', 'provider']) series[name][place] = bar[name];
  return !known;
}

async function renew() {
  const page = document.hidden ? null : await fetched();
  if (!page) return;
  for (const place of document.querySelectorAll('[data-part]')) {
    const news = page.getElementById(place.id);
    if (news) put(place, news);
  }
  series = read(page);
  draw();
}

// Drawing takes tenths of a second where there are thousands of bars: those that come together are drawn together.
let drawing = 0;
function drawn() {
  drawing ||= requestAnimationFrame(() => { drawing = 0; draw(); });
}

let waiting = 0;
function soon() {
  waiting ||= setTimeout(() => { waiting = 0; renew(); }, SOON_MS);
}

function taken(bars) {
  const changed = bars.map(take).some(Boolean);
  if (!changed) return;
  drawn();
  soon();
}

async function poll() {
  told.textContent = 'Looked at every 5 s.';
  await renew();
  setTimeout(poll, EVERY_MS);
}

function follow() {
  const events = new EventSource(replay);
  const whole = (event) => taken(JSON.parse(event.data).entries.filter((entry) => entry.type === 'bar'));
  events.addEventListener('snapshot', whole);
  events.addEventListener('resync', whole);
  events.addEventListener('bar', (event) => taken([JSON.parse(event.data)]));
  events.addEventListener('interval_complete', soon);
  events.addEventListener('open', () => { told.textContent = 'Live.'; });
  events.addEventListener('error', () => {
    if (events.readyState === EventSource.CLOSED) poll();
    else told.textContent = 'No news: the web app does not answer. Trying again.';
  });
}

draw();
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', draw);
if (replay) follow();
else if (follows) setTimeout(poll, EVERY_MS);
