// On every page: ages that go on, keys, and on a phone the tabs from where this page's is.
import { tellAges } from './ages.js';
import { listen } from './keys.js';

tellAges();
setInterval(tellAges, 1000);
listen();
document.querySelector('nav [aria-current="page"]')?.scrollIntoView({ block: 'nearest', inline: 'center' });
