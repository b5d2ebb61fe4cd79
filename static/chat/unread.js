// What nobody has looked at yet.

import { el, say } from './dom.js';
import { isBehind } from './event.js';

// Unread knows what nobody has looked at: a line in the list, and a count in the title.
export class Unread {
  // `last` is the position read so far, from the visit before; remember(id) keeps a later one.
  constructor({ room, place, insert, last, remember }) {
    Object.assign(this, { room, place, insert, last, remember });
    this.count = 0;
    this.line = el('li', { className: 'note unread', dataset: { testid: 'unread' } }, el('span', {}, 'New'));
    document.addEventListener('visibilitychange', () => {
      if (document.hidden) this.line.dataset.old = 'true';
      else this.count = 0;
      this.#title();
    });
    this.#title();
  }

  // heard: somebody else said something.
  heard(ev, told, fresh) {
    const missed = fresh ? document.hidden : this.last && isBehind(ev.id, this.last);
    if (missed) this.#mark(fresh);
    if (!fresh) return;
    if (document.hidden) this.count += 1;
    this.place.passed();
    this.#title();
    say(`${told.sender}: ${(told.text ?? told.json).slice(0, 200)}`);
  }

  // read: what is shown up to here has been seen.
  read(id) {
    if (document.hidden || !this.place.pinned || !id || id === this.last) return;
    this.last = id;
    this.remember(id);
  }

  // answered: who writes has read.
  answered() { this.line.remove(); }

  #mark(fresh) {
    if (this.line.isConnected && !(fresh && this.line.dataset.old)) return;
    delete this.line.dataset.old;
    this.line.remove();
    this.insert(this.line);
  }

  #title() {
    document.title = `${this.count ? `(${this.count}) ` : ''}#${this.room} · Sluice`;
  }
}
