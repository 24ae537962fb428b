// Parts of a page that go on by themselves: fetched anew every two seconds, from the address that the first names or else
// from the page's own, until the server says that they are over.
import { fetched, put } from './parts.js';

const EVERY_MS = 2000;

async function refresh() {
  const places = [...document.querySelectorAll('[data-refresh]')];
  if (!places.length) return;
  const page = document.hidden ? null : await fetched(places[0].dataset.refresh || location.href);
  for (const place of page ? places : []) {
    const news = page.getElementById(place.id);
    if (news) put(place, news);
  }
  setTimeout(refresh, EVERY_MS);
}

setTimeout(refresh, EVERY_MS);
