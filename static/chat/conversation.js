// The list on screen, in order: what the room said, then what we said and the
// room has not shown yet. It groups messages by sender, parts days, and has
// lines for what is no message: gaps, people who come and go, what is new.

import { byId, el, say } from './dom.js';
import { dayName, gapText, isBehind, midnight, tell } from './event.js';
import { build, confirm, fail, wait } from './message.js';

const GROUPED = 300_000; // messages of one sender closer than this stand together
const KEPT = 600; // messages kept on screen while reading at the end; older ones are loaded again

export class Conversation {
  // It asks isMine(told) who wrote something, and waiting() what a message under way waits for. It
  // tells heard(ev, told, fresh) what others said, again(key, data) to send anew, and the place of
  // all that moves it.
  constructor({ place, isMine, waiting, heard, again }) {
    Object.assign(this, { place, isMine, waiting, heard, again });
    this.list = byId('messages');
    this.entries = new WeakMap(); // item of the list → what tell() read
    this.ids = new Map(); // event id → its item
    this.drafts = new Map(); // key → item of ours that the room has not shown yet, oldest first
    this.newest = ''; // id of the last event shown
  }

  // event shows what the room said; `fresh` if it was said just now, and is no history.
  event(ev, fresh) {
    const told = tell(ev);
    const own = this.isMine(told);
    let item = this.drafts.get(told.key) ?? this.ids.get(ev.id);
    if (item?.isConnected && !this.drafts.has(told.key)) return;
    if (!own) this.heard(ev, told, fresh);
    if (item) this.#shown(told.key, item, told.at);
    else item = this.#build(told, own);
    if (ev.id) this.#known(item, ev.id);
    this.newest = ev.id ?? this.newest;
    this.insert(item);
    this.#trim();
  }

  gap(gap) {
    const text = gapText(gap);
    this.insert(el('li', { className: 'note', dataset: { testid: 'gap', reason: gap.reason ?? '' } }, el('span', {}, text)));
    say(text);
  }

  // draft shows what we have said, and what becomes of it.
  draft(key, data, at, answer) {
    let item = this.drafts.get(key);
    if (!item) {
      item = this.#build(tell({ data, at: new Date(at).toISOString() }), true);
      item.dataset.key = key;
    }
    this.drafts.delete(key); // (again) the last
    this.drafts.set(key, item);
    wait(item, this.waiting());
    this.list.append(item);
    this.#settle(item);
    this.changed();
    answer.then((receipt) => this.#answered(key, receipt), (err) => this.#failed(key, data, err));
  }

  // explain says anew of each message under way what it waits for.
  explain() {
    for (const item of this.drafts.values()) if (item.dataset.state === 'sending') wait(item, this.waiting());
  }

  // insert puts an item behind all that the room said and before what it has not shown.
  insert(item) {
    const [first = null] = this.drafts.values();
    if (!item.isConnected || item.nextElementSibling !== first) this.list.insertBefore(item, first);
    this.#settle(item);
    this.changed();
  }

  // prepend puts older events before all others.
  prepend(events) {
    this.place.keep(() => {
      const first = this.list.querySelector('.message');
      if (this.list.firstElementChild?.className === 'day') this.list.firstElementChild.remove();
      const anchor = this.list.firstElementChild;
      for (const ev of events) {
        if (this.ids.has(ev.id)) continue;
        const told = tell(ev);
        const item = this.#build(told, this.isMine(told));
        this.#known(item, ev.id);
        this.list.insertBefore(item, anchor);
        this.#seam(item);
      }
      if (first) this.#seam(first);
    });
    this.changed();
  }

  get oldest() { return this.list.querySelector('.message[data-id]')?.dataset.id ?? ''; }

  // -- what becomes of our own

  #answered(key, { id, at }) {
    const item = this.drafts.get(key);
    if (!item) return; // the stream was faster
    confirm(item, new Date(at));
    this.#known(item, id);
    // An answer from long ago: the room will not show it again.
    if (id === this.newest || isBehind(this.newest, id)) this.drafts.delete(key);
  }

  #failed(key, data, err) {
    const item = this.drafts.get(key);
    if (!item) return;
    fail(item, err.message, () => this.again(key, data), () => {
      this.#remove(item);
      byId('composer').focus();
    });
    say(`Not sent: ${err.message}`);
  }

  // #shown: the room has said what we said.
  #shown(key, item, at) {
    this.drafts.delete(key);
    this.entries.get(item).at = at;
    confirm(item, at);
  }

  #known(item, id) {
    item.dataset.id = id;
    this.ids.set(id, item);
  }

  // -- order

  #build(told, own) {
    const item = build(told, own);
    this.entries.set(item, { ...told, own });
    return item;
  }

  #remove(item) {
    this.drafts.delete(item.dataset.key);
    const before = this.#above(item);
    const after = item.nextElementSibling;
    if (item.previousElementSibling?.className === 'day') item.previousElementSibling.remove();
    item.remove();
    before?.classList.add('tail');
    if (after) this.#settle(after);
    this.changed();
  }

  // #settle looks at the seams from an item to the end: few, since only drafts follow.
  #settle(item) {
    for (let next = item; next; next = next.nextElementSibling) this.#seam(next);
  }

  // #seam settles what stands above a message: a new day, the head of a group, or nothing.
  #seam(item) {
    const entry = this.entries.get(item);
    if (!entry) return;
    if (item.previousElementSibling?.className === 'day') item.previousElementSibling.remove();
    const above = this.#above(item);
    const last = this.entries.get(above);
    const sameDay = last && midnight(last.at) === midnight(entry.at);
    if (!sameDay) item.before(el('li', { className: 'day' }, el('span', {}, dayName(entry.at))));
    const joined = sameDay && above === item.previousElementSibling && last.own === entry.own
      && last.sender === entry.sender && last.type === entry.type && entry.at - last.at < GROUPED;
    item.classList.toggle('head', !joined);
    above?.classList.toggle('tail', !joined);
  }

  // #above is the message before an item, past days and notes.
  #above(item) {
    let above = item.previousElementSibling;
    while (above && !this.entries.has(above)) above = above.previousElementSibling;
    return above;
  }

  // #trim keeps the page small on a busy room, as long as nobody is reading further up.
  #trim() {
    if (!this.place.pinned || this.list.childElementCount <= KEPT + 100) return;
    while (this.list.childElementCount > KEPT) {
      const first = this.list.firstElementChild;
      this.ids.delete(first.dataset.id);
      first.remove();
    }
    const first = this.list.querySelector('.message');
    if (first) this.#seam(first);
  }

  // changed looks after what stands around the list.
  changed() {
    byId('empty').hidden = this.list.childElementCount > 0;
    this.place.follow();
  }
}
