// Parts of a page that are replaced by what the server gives now.
import { tellAges } from './ages.js';

// Put a new element into the place of an old one; whoever is on a link of it stays there.
export function put(place, news) {
  const focused = place.contains(document.activeElement) && document.activeElement.getAttribute('href');
  place.replaceWith(news);
  tellAges(news);
  if (focused) news.querySelector(`a[href="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
}

// A page, this one by default, as the server gives it now; null while it does not.
export async function fetched(address = location.href) {
  try {
    const answer = await fetch(address, { headers: { Accept: 'text/html' } });
    return answer.ok ? new DOMParser().parseFromString(await answer.text(), 'text/html') : null;
  } catch {
    return null; // the server is away: the next time, perhaps
  }
}
