// The overview, live: sections come as HTML from the server, which has escaped them, and take the places of the old ones.
import { tellAges } from './ages.js';

const told = document.getElementById('liveness');

function show(sections) {
  for (const [name, html] of Object.entries(sections)) {
    const place = document.getElementById(name);
    if (!place) continue;
    const focused = place.contains(document.activeElement) && document.activeElement.getAttribute('href');
    place.innerHTML = html;
    tellAges(place);
    // Whoever is on a link stays on it.
    if (focused) place.querySelector(`a[href="${CSS.escape(focused)}"]`)?.focus();
  }
  const title = document.querySelector('[data-title]')?.dataset.title;
  if (title) document.title = title;
}

const events = new EventSource(document.getElementById('live').dataset.events);
events.addEventListener('open', () => { told.textContent = 'Live.'; });
events.addEventListener('error', () => { told.textContent = 'No news: the web app does not answer. Trying again.'; });
events.addEventListener('sections', (event) => show(JSON.parse(event.data)));
