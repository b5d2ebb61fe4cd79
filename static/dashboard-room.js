// The inspector of one room: what happens in it, what has, who is there, and a
// form to publish.
//
//	a page of history ─┐
//	/sluice.js, live  ─┼─→ Inspector.show: one row an event, oldest first
//	"Earlier events"  ─┘
//
// It uses what every client may use, with the rights of whoever looks. What was
// published reaches the page as text alone.

import { subscribe } from '/sluice.js';
import { el } from '/dashboard-charts.js';

const PAGE = 50;
const KEPT = 400; // rows; older ones can be asked for again

const byId = (id) => document.getElementById(id);
const key = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, '0')).join('');

// looksJSON says whether text is an object or array in JSON; all else is sent as text.
function looksJSON(text) {
  try {
    return /^\s*[[{]/.test(text) && typeof JSON.parse(text) === 'object';
  } catch {
    return false;
  }
}

function wordsOf(data) {
  if (typeof data === 'string') return data;
  const line = JSON.stringify(data);
  return line.length > 72 ? JSON.stringify(data, null, 2) : line;
}

/** Inspector looks at one room at a time. token gives the token to use, if there is one. */
export class Inspector {
  constructor(token) {
    this.token = token;
    this.dialog = byId('inspector');
    this.list = byId('events');
    this.scroll = byId('events-scroll');
    this.dialog.addEventListener('close', () => this.leave());
    this.dialog.addEventListener('click', (e) => e.target === this.dialog && this.dialog.close()); // beside it
    byId('close').addEventListener('click', () => this.dialog.close());
    byId('refresh').addEventListener('click', () => this.learn());
    byId('earlier').addEventListener('click', () => this.earlier());
    byId('publish').addEventListener('submit', (e) => this.publish(e));
    byId('data').addEventListener('input', () => { this.key = null; });
    byId('data').addEventListener('keydown', (e) => e.key === 'Enter' && (e.ctrlKey || e.metaKey) && byId('publish').requestSubmit());
  }

  open(room) {
    this.leave();
    this.room = room;
    byId('inspected').textContent = room;
    this.list.replaceChildren();
    byId('facts').replaceChildren();
    byId('members').replaceChildren();
    byId('members-count').textContent = '';
    byId('published').textContent = '';
    byId('earlier').hidden = byId('begin').hidden = true;
    this.none('Reading the room');
    this.state('connecting');
    if (!this.dialog.open) this.dialog.showModal();
    history.replaceState(null, '', `#room=${encodeURIComponent(room)}`);
    this.learn();
    this.begin();
  }

  leave() {
    this.turn = (this.turn ?? 0) + 1; // what was asked for another room is not shown
    this.live?.close();
    this.live = null;
    this.key = this.newest = null;
    if (location.hash) history.replaceState(null, '', location.pathname + location.search);
  }

  async ask(what, init = {}) {
    const token = this.token();
    const headers = { Accept: 'application/json', ...init.headers, ...(token && { Authorization: `Bearer ${token}` }) };
    const answer = await fetch(`/rooms/${encodeURIComponent(this.room)}${what}`, { cache: 'no-store', signal: AbortSignal.timeout(15_000), ...init, headers });
    const body = await answer.json().catch(() => ({}));
    if (answer.ok) return body;
    throw Object.assign(new Error(body.detail || body.title || `The gateway answered ${answer.status}.`), { status: answer.status });
  }

  state(state) {
    const pill = byId('room-state');
    pill.dataset.state = state;
    pill.textContent = { live: 'Live', connecting: 'Connecting', reconnecting: 'Reconnecting', offline: 'Offline', denied: 'Not allowed' }[state] ?? state;
  }

  none(text) {
    byId('events-none').textContent = text;
    byId('events-none').hidden = !text || this.list.children.length > 0;
  }

  // begin shows the end of the history, and goes on behind it.
  async begin() {
    const { turn } = this;
    let page;
    try {
      page = await this.ask(`/events?limit=${PAGE}`);
    } catch (err) {
      if (turn !== this.turn) return;
      this.state(err.status ? 'denied' : 'offline');
      this.none(err.status ? err.message : 'The gateway cannot be reached. Close, and try again.');
      return;
    }
    if (turn !== this.turn) return;
    this.list.append(...page.events.map((ev) => this.row(ev)));
    this.reach(page);
    this.none('Nothing yet');
    this.scroll.scrollTop = this.scroll.scrollHeight;
    this.live = subscribe(this.room, {
      after: page.next, share: false, token: this.token(),
      onEvent: (ev) => {
        this.show(this.row(ev));
        this.grew(ev.id);
      },
      onGap: (gap) => this.show(this.gap(gap)),
      onState: ({ state }) => state !== 'closed' && this.state(state),
    });
  }

  // reach says whether there is more before what is shown.
  reach({ prev, events }) {
    const more = !!prev && events.length > 0;
    byId('earlier').hidden = !more;
    byId('begin').hidden = more || !this.list.querySelector('[data-id]');
  }

  async earlier() {
    const first = this.list.querySelector('[data-id]');
    const { turn } = this;
    if (!first) return;
    try {
      const page = await this.ask(`/events?limit=${PAGE}&before=${encodeURIComponent(first.dataset.id)}`);
      if (turn !== this.turn) return;
      const below = this.scroll.scrollHeight - this.scroll.scrollTop;
      this.list.prepend(...page.events.map((ev) => this.row(ev)));
      this.scroll.scrollTop = this.scroll.scrollHeight - below;
      this.reach(page);
    } catch (err) {
      if (turn === this.turn) byId('published').textContent = err.message;
    }
  }

  show(row) {
    const atEnd = this.scroll.scrollHeight - this.scroll.scrollTop - this.scroll.clientHeight < 40;
    this.list.append(row);
    this.none('');
    while (atEnd && this.list.children.length > KEPT) {
      this.list.firstChild.remove();
      byId('earlier').hidden = false;
      byId('begin').hidden = true;
    }
    if (atEnd) this.scroll.scrollTop = this.scroll.scrollHeight;
  }

  row({ id, type, from, at, data }) {
    const time = new Date(at);
    return el('li', { dataset: { testid: 'event', ...(id && { id }) } },
      el('time', { dateTime: at, title: at, textContent: time.toLocaleTimeString() }),
      el('div', {},
        el('p', { className: 'line' }, ...type === 'message' ? [] : [el('span', { className: 'tag', textContent: type })], ...from ? [el('bdi', { textContent: from })] : []),
        el('pre', { dataset: { testid: 'event-data' }, textContent: wordsOf(data) || '(empty)' })),
      el('span', { className: 'number', title: id ?? 'kept nowhere', textContent: id ? split(id) : 'ephemeral' }));
  }

  gap({ missed, reason }) {
    return el('li', { className: 'gap', dataset: { testid: 'event-gap' }, textContent: `${missed ?? 'Some'} events are missing: ${reason}` });
  }

  // learn asks who is here, and how the room stands.
  async learn() {
    const { turn } = this;
    const [about, who] = await Promise.allSettled([this.ask(''), this.ask('/members')]);
    if (turn !== this.turn) return;
    const { streams, head, oldest } = about.value ?? {};
    const kept = about.value ? Math.max(0, split(head) - split(oldest) + 1) : '–';
    const facts = [['Streams', streams ?? '–'], ['Newest event', about.value ? split(head) : '–'], ['Kept', kept]];
    byId('facts').replaceChildren(...facts.map(([name, value]) => el('div', {}, el('dt', { textContent: name }), el('dd', { textContent: value }))));
    this.newest = byId('facts').children[1].lastChild;
    byId('members-count').textContent = who.value?.count ?? '–';
    const list = who.value?.members ?? [];
    byId('members').replaceChildren(...list.map(({ user, streams: n, since }) => el('li', { title: `since ${new Date(since).toLocaleString()}` },
      el('bdi', { textContent: user }), el('span', { textContent: n === 1 ? '1 stream' : `${n} streams` }))));
    if (!list.length) byId('members').append(el('li', { className: 'none', textContent: who.value?.count ? 'Too many to name' : 'Nobody is present' }));
  }

  // grew counts on what learn has asked for.
  grew(id) { if (id && this.newest) this.newest.textContent = Math.max(split(id), Number(this.newest.textContent) || 0); }

  // publish sends once. After a failure the same key goes again, so that it is there once.
  async publish(e) {
    e.preventDefault();
    const { turn } = this;
    const said = byId('published');
    const text = byId('data').value;
    const query = new URLSearchParams({ type: byId('type').value });
    if (byId('ephemeral').checked) query.set('ephemeral', 'true');
    this.key ??= key();
    said.textContent = 'Publishing';
    said.classList.remove('bad');
    try {
      const receipt = await this.ask(`/events?${query}`, {
        method: 'POST', body: text,
        headers: { 'Content-Type': looksJSON(text) ? 'application/json' : 'text/plain; charset=utf-8', 'Idempotency-Key': this.key },
      });
      if (turn !== this.turn) return;
      said.textContent = receipt.id ? `Published as event ${split(receipt.id)}` : 'Sent to those who listen';
      byId('data').value = '';
      this.key = null;
    } catch (err) {
      if (turn !== this.turn) return;
      said.classList.add('bad');
      said.textContent = err.status ? err.message : 'No answer. Publish again: it will be there once.';
    }
  }
}

const split = (id) => Number(id?.split('-')[1] ?? 0);
