// A part of a page that goes on by itself: fetched anew every two seconds, until the server says that it is over.
import { fetched, put } from './parts.js';

const EVERY_MS = 2000;

async function refresh() {
  const place = document.querySelector('[data-refresh]');
  if (!place) return;
  const page = document.hidden ? null : await fetched();
  const news = page?.getElementById(place.id);
  if (news) put(place, news);
  setTimeout(refresh, EVERY_MS);
}

setTimeout(refresh, EVERY_MS);
