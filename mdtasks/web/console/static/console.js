// On every page: ages that go on, and keys.
import { tellAges } from './ages.js';
import { listen } from './keys.js';

tellAges();
setInterval(tellAges, 1000);
listen();
