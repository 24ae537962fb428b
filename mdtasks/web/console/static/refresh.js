// A part of a page that goes on by itself: fetched anew every two seconds, until the server says that it is over.
const EVERY_MS = 2000;

async function refresh() {
  const place = document.querySelector('[data-refresh]');
  if (!place) return;
  try {
    const answer = await fetch(location.href, { headers: { Accept: 'text/html' } });
    const page = new DOMParser().parseFromString(await answer.text(), 'text/html');
    const news = answer.ok && page.getElementById(place.id);
    if (news) place.replaceWith(news);
  } catch { /* the server is away: the next time, perhaps */ }
  setTimeout(refresh, EVERY_MS);
}

setTimeout(refresh, EVERY_MS);
