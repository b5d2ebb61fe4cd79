// What was said before: older pages, loaded when the reader comes near the top.

import { byId, tab } from './dom.js';
import { position } from './event.js';

const PAGE = 50; // events asked for at a time
const FAR = 20; // pages that are loaded to come back to a place

async function pageBefore(room, before) {
  const query = new URLSearchParams({ before, limit: PAGE });
  const answer = await fetch(`/rooms/${room}/events?${query}`, {
    cache: 'no-store', headers: { Accept: 'application/json' }, signal: AbortSignal.timeout(15_000),
  });
  if (answer.status === 400) return []; // that history is no longer known
  if (!answer.ok) throw new Error(`the gateway answered ${answer.status}`);
  return (await answer.json()).events;
}

export class History {
  constructor(room, talk, place) {
    Object.assign(this, { room, talk, place });
    this.done = false; // nothing older is kept
    const button = byId('older');
    this.sight = new IntersectionObserver((seen) => seen.at(-1).isIntersecting && this.load(), { root: byId('scroll'), rootMargin: '500px 0px 0px' });
    button.onclick = () => this.load();
    addEventListener('pagehide', () => tab.set('place', { room, ...place.first() }));
  }

  // limits says at the top whether there may be more above.
  limits() {
    const { oldest } = this.talk;
    const isFirst = position(oldest)?.seq === 1;
    const more = Boolean(oldest) && !isFirst && !this.done;
    const [button, start] = [byId('older'), byId('start')];
    button.hidden = !more;
    button.textContent = 'Earlier messages';
    start.hidden = more || !oldest;
    start.textContent = isFirst ? `This is where #${this.room} begins` : 'What came before is no longer kept';
    this.sight.unobserve(button);
    if (more) this.sight.observe(button); // told anew, also when it stayed in sight
  }

  async load() {
    if (this.loading || byId('older').hidden) return;
    this.loading = true;
    byId('older').textContent = 'Loading';
    try {
      const events = await pageBefore(this.room, this.talk.oldest);
      this.done = events.length < PAGE;
      this.talk.prepend(events);
      this.limits();
    } catch {
      byId('older').textContent = 'Earlier messages could not be loaded. Try again';
    }
    this.loading = false;
  }

  // restore brings back the place that the reader had before a reload.
  async restore() {
    const { room, id, offset } = tab.get('place') ?? {};
    if (room !== this.room || !position(id)) return;
    const find = () => byId('messages').querySelector(`[data-id="${id}"]`);
    for (let pages = 0; !find() && pages < FAR && !byId('older').hidden; pages += 1) {
      const { oldest } = this.talk;
      await this.load();
      if (this.talk.oldest === oldest) break;
    }
    const item = find();
    if (item) this.place.show(item, offset);
  }
}
