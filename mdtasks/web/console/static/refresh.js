// Parts of a page that go on by themselves: fetched anew every two seconds, from the address that the first names or else
// from the page's own, until the server says that they are over.
const EVERY_MS = 2000;

async function refresh() {
  const places = [...document.querySelectorAll('[data-refresh]')];
  if (!places.length) return;
  try {
    const answer = await fetch(places[0].dataset.refresh || location.href, { headers: { Accept: 'text/html' } });
    const page = new DOMParser().parseFromString(await answer.text(), 'text/html');
    for (const place of answer.ok ? places : []) {
      const news = page.getElementById(place.id);
      if (news) place.replaceWith(news);
    }
  } catch { /* the server is away: the next time, perhaps */ }
  setTimeout(refresh, EVERY_MS);
}

setTimeout(refresh, EVERY_MS);
