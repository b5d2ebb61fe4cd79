// Who is here: the list with its number, quiet lines where somebody came or
// went, and who is writing just now.

import { members, publish } from '/sluice.js';
import { byId, el, plural } from './dom.js';
import { clean, named } from './event.js';
import { avatarOf } from './message.js';

const LINGER = 3_000; // who reloads a page leaves and comes back: no word of that
const WRITING = 3_000; // how often we say that we are writing
const FADE = 5_000; // how long that holds
const POLLING = 20_000; // how often the list is read where no stream tells of it

export class People {
  // me.name is who we are; insert(item) puts a line into the conversation.
  constructor(room, me, insert) {
    Object.assign(this, { room, me, insert });
    this.here = new Set();
    this.leaving = new Map(); // name → timer after which it is said that they left
    this.writing = new Map(); // name → timer after which they no longer write
    this.news = new Map(); // what the line at the end says: name → joined or left
    this.mine = new Set(); // names that this tab has had
    this.count = 0;
  }

  // live: the stream is open, so that what the list lacks will be told.
  async live(way) {
    clearTimeout(this.again);
    this.way = way;
    if (way === 'poll') this.again = setTimeout(() => this.live(way), POLLING);
    this.mine.add(this.me.name);
    this.missed = [];
    const { missed } = this;
    const list = await members(this.room).catch(() => null); // not known here, or out of reach
    if (missed !== this.missed) return;
    this.missed = null;
    if (!list) return;
    this.#compare(list);
    for (const change of missed) this.#apply(change);
    this.known = true;
    this.#draw();
  }

  // moved takes what the stream tells.
  moved(change) {
    if (this.missed) this.missed.push(change);
    else if (this.crowd && change.user) this.live(this.way); // they have names again
    else this.#apply(change);
    this.#draw();
  }

  // typing: somebody says that they are writing.
  typing(name) {
    const who = clean(name);
    if (!who || this.mine.has(who)) return;
    clearTimeout(this.writing.get(who));
    this.writing.set(who, setTimeout(() => this.silent(who), FADE));
    this.#drawWriting();
  }

  // silent: somebody has sent what they wrote, or does not go on.
  silent(name) {
    clearTimeout(this.writing.get(name));
    if (this.writing.delete(name)) this.#drawWriting();
  }

  // iWrite tells the others, now and then, and everybody but our own tabs.
  iWrite(stream) {
    if (!stream || Date.now() - this.told < WRITING) return;
    this.told = Date.now();
    publish(this.room, { name: this.me.name }, { type: 'typing', ephemeral: true, exclude: stream }).catch(() => {}); // it does not matter
  }

  // sent: we no longer write.
  sent() { this.told = 0; }

  // -- who is here

  #compare({ count, members: list }) {
    this.count = count;
    this.crowd = !list; // too many for names
    const now = new Set(list?.map(({ user }) => user));
    for (const user of now) this.#came(user);
    for (const user of this.here) if (!now.has(user)) this.#goes(user);
  }

  #apply({ type, user, count }) {
    this.count = count;
    if (!user) this.crowd = true;
    else if (type === 'join') this.#came(user);
    else this.#goes(user);
  }

  #came(user) {
    clearTimeout(this.leaving.get(user));
    this.leaving.delete(user);
    if (this.here.has(user)) return;
    this.here.add(user);
    if (this.known) this.#tell(user, 'joined');
  }

  #goes(user) {
    if (!this.here.has(user) || this.leaving.has(user)) return;
    this.leaving.set(user, setTimeout(() => {
      this.leaving.delete(user);
      this.here.delete(user);
      this.silent(user);
      this.#tell(user, 'left');
      this.#draw();
    }, LINGER));
  }

  // #tell says it in the line at the end, if nothing has been said since, else in a new one.
  #tell(user, what) {
    if (this.mine.has(user) || this.crowd) return;
    const list = byId('messages');
    if (!this.line?.isConnected || [...list.querySelectorAll(':scope > li:not([data-state])')].at(-1) !== this.line) {
      this.news = new Map();
      this.line = el('li', { className: 'coming', dataset: { testid: 'coming' } }, el('span'));
      this.insert(this.line);
    }
    this.news.delete(user);
    this.news.set(user, what);
    const parts = ['joined', 'left'].map((verb) => [named([...this.news].filter(([, v]) => v === verb).map(([name]) => name)), verb]);
    this.line.firstElementChild.textContent = parts.filter(([names]) => names).map((part) => part.join(' ')).join(', ');
  }

  // -- on screen

  #draw() {
    const total = this.crowd ? this.count : this.here.size;
    const others = [...this.here].filter((name) => name !== this.me.name).sort((a, b) => a.localeCompare(b));
    const names = this.here.has(this.me.name) ? [this.me.name, ...others] : others;
    byId('people-block').hidden = !total;
    byId('count').textContent = total;
    byId('here').textContent = total ? `${plural(total, 'person', 'people')} here` : '';
    const known = new Map([...byId('people').children].map((item) => [item.dataset.name, item]));
    const items = (this.crowd ? [] : names).map((name) => known.get(name) ?? el('li', { dataset: { name, testid: 'person' } }, avatarOf(name), el('bdi', {}, name)));
    items.forEach((item) => item.classList.toggle('me', item.dataset.name === this.me.name));
    byId('people').replaceChildren(...items);
  }

  #drawWriting() {
    const names = [...this.writing.keys()];
    byId('typing-text').textContent = names.length ? `${named(names, 2)} ${names.length === 1 ? 'is' : 'are'} writing` : '';
    byId('typing').hidden = !names.length;
  }
}
