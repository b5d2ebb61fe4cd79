// The browser client: rooms in, events out, each once and in order.
//
//	Source: one stream for all tabs ──┐ items: event, gap or step, with the position before it
//	  SSE → NDJSON → long poll        ├─→ Group ─→ Reader of a subscription ─→ onEvent, onGap
//	page of what a tab has missed ────┘ (leader)    (in each tab)
//	publish → Outbox: POST with one key until answered, kept in localStorage
//
// A Reader takes an item only at the place where it stands. Whatever does not
// fit, because the tab was away or the leader changed, it reads from the log
// first. Streams are read by fetch: an EventSource drops, unseen, events of
// types that nobody named, tells no status, gives up, and sends no token.

const HERE = import.meta.url;

const WAYS = ['sse', 'ndjson', 'poll'];
const KEPT = 540_000; // the gateway knows a key for 10 minutes; stay within
const PAGE = 500;
const QUEUE = 1000; // unanswered events of a tab

// Why a stream is ended from here: it is held back; it is to be opened again.
const MUTE = {};
const AGAIN = {};

const token = () => crypto.getRandomValues(new Uint32Array(4)).join('-');
const TAB = token();
const backoff = (tries) => Math.min(30_000, 1000 * 2 ** tries) * (0.5 + Math.random() / 2);
const attempt = (f) => { try { return f(); } catch { return undefined; } };
const call = (f, value) => { try { f?.(value); } catch (err) { reportError(err); } };

// Alarm is a timer that can be asked: timers of hidden tabs come late.
class Alarm {
  set(ms, then) {
    this.clear();
    this.due = Date.now() + ms;
    this.then = then;
    this.timer = setTimeout(() => this.ring(), ms);
  }

  ring() {
    const { then } = this;
    this.clear();
    then?.();
  }

  check() { if (Date.now() >= this.due) this.ring(); }

  clear() {
    clearTimeout(this.timer);
    this.then = null;
  }
}

// ---- requests -----------------------------------------------------------------------------

const eventsOf = (rooms) => `events?${new URLSearchParams(rooms.map((r) => ['room', r]))}`;
const pathOf = (room, what) => `rooms/${encodeURIComponent(room)}/${what}`;
const bearer = async (o) => (o.token?.call ? o.token() : o.token);

// ask sends a request; what is no success is thrown, with status, type and wait.
async function ask(o, path, query, init = {}) {
  const url = new URL(path, o.url);
  for (const [name, value] of Object.entries(query)) if (value) url.searchParams.set(name, value);
  const secret = await bearer(o);
  const headers = { ...init.headers, ...(secret && { Authorization: `Bearer ${secret}` }) };
  const answer = await fetch(url, { cache: 'no-store', credentials: 'include', ...init, headers });
  if (answer.ok && answer.status !== 204) return answer;
  const problem = await answer.json().catch(() => ({}));
  throw Object.assign(new Error(problem.detail || problem.title), {
    status: answer.status, type: problem.type, wait: answer.headers.get('Retry-After') * 1000 || 0,
  });
}

// hopeless says that trying again would change nothing; a 401 may have met a token that had just ended.
const hopeless = ({ status }, o, tries) => status === 204 || (status >= 400 && status < 500 && ![408, 429].includes(status)
  && (status !== 401 || tries || !o.token?.call));
const json = async (o, path, query, init) => (await ask(o, path, query, { signal: AbortSignal.timeout(15_000), ...init })).json();
const page = (o, rooms, query, signal = AbortSignal.timeout(15_000)) => json(o, eventsOf(rooms), query, { signal });
// sizeOf asks for less after each failure: a page may be more than what is on the way lets pass in time.
const sizeOf = (tries) => Math.ceil(PAGE / 4 ** tries);

// ---- positions ----------------------------------------------------------------------------

const cursorOf = (at) => {
  const rooms = Object.keys(at);
  return rooms.length === 1 ? at[rooms[0]] : rooms.map((r) => `${r}=${at[r]}`).join();
};
const placesOf = (cursor, rooms) => (cursor?.includes('=') ? Object.fromEntries(cursor.split(',').map((p) => p.split('='))) : cursor ? { [rooms[0]]: cursor } : {});
const split = (id) => {
  const [epoch, seq] = `${id}`.split('-');
  return [epoch, +seq];
};

// itemsOf makes of a page what a stream would have said.
function* itemsOf({ events, gap, gaps = gap ? [gap] : [], next }, rooms) {
  const places = placesOf(next, rooms);
  for (const g of gaps) {
    const [epoch, seq] = split(g.resumes_at);
    yield { room: g.room, id: g.resumes_at ? `${epoch}-${seq - 1}` : places[g.room], gap: g };
  }
  for (const ev of events) yield { room: ev.room, id: ev.id, ev };
  for (const room of rooms) yield { room, id: places[room] };
}

// ---- Source: the one stream ---------------------------------------------------------------

class Source {
  constructor(o, tell, show) {
    Object.assign(this, { o, tell, show, at: {}, way: 0, tries: 0, turn: 0, alarm: new Alarm() });
  }

  // follow takes rooms with the places to begin at, and goes on from where it is in the others.
  follow(rooms) {
    const at = Object.fromEntries(Object.keys(rooms).sort().map((r) => [r, this.at[r] ?? rooms[r]]));
    if (`${Object.keys(at)}` === `${this.rooms}`) return;
    this.at = at;
    this.go();
  }

  stop(soon = 0) {
    const { abort } = this;
    this.turn += 1;
    this.alarm.clear();
    if (soon) setTimeout(() => abort.abort(), soon);
    else abort?.abort();
  }

  async go() {
    this.stop();
    const { turn } = this;
    const abort = this.abort = new AbortController();
    this.rooms = Object.keys(this.at);
    if (!this.rooms.length) return;
    this.said('connecting');
    this.retry = this.opened = 0;
    let err;
    try {
      await (this.way === 2 ? this.poll(abort) : this.stream(abort));
    } catch (reason) {
      err = reason;
    }
    if (turn !== this.turn) return;
    if (this.opened && Date.now() - this.opened > 5000) this.tries = 0;
    let pause = 0;
    if (err === MUTE && navigator.onLine) {
      this.detour = Date.now() + this.o.detour;
      this.way += 1;
      this.polled = false;
    } else if (err && hopeless(err, this.o, this.tries)) {
      this.said('denied', { status: err.status, error: err.message });
      return;
    } else if (err !== AGAIN) {
      if (!this.polled) this.way %= 2;
      pause = Math.max(this.retry, err?.wait || 0, this.tries && backoff(this.tries));
      this.tries += 1;
    }
    this.said(navigator.onLine ? 'reconnecting' : 'offline', { until: Date.now() + pause });
    this.alarm.set(pause, () => this.go());
  }

  // nudge tries at once what would be tried later.
  nudge() {
    if (this.state === 'live') return;
    this.tries = 0;
    this.go();
  }

  said(state, more = {}) {
    this.state = state;
    this.show({ state, way: WAYS[this.way], ...more });
  }

  // stream counts as open at sluice.open: some proxies let the head pass and hold back the rest.
  async stream(abort) {
    const lines = this.way === 1;
    this.alarm.set(this.o.patience, () => abort.abort(MUTE));
    const answer = await ask(this.o, eventsOf(this.rooms), {
      envelope: 'true', heartbeat: 'event', after: cursorOf(this.at), presence: this.o.presence,
    }, { headers: { Accept: lines ? 'application/x-ndjson' : 'text/event-stream' }, signal: abort.signal });
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let rest = ''; ;) {
      const { value, done } = await reader.read();
      if (done || abort.signal.aborted) return;
      const parts = (rest + value).split(lines ? '\n' : '\n\n');
      rest = parts.pop();
      for (const part of parts) {
        const m = lines ? part && JSON.parse(part) : parse(part);
        if (m && !abort.signal.aborted) this.take(m);
      }
      if (this.opened) {
        this.alarm.set(this.silence, () => abort.abort(AGAIN));
        if (this.way && Date.now() > this.detour) { // is the usual way free again?
          this.way = 0;
          throw AGAIN;
        }
      }
    }
  }

  take(m) {
    const { type, data } = m;
    if (m.retry) this.retry = m.retry;
    if (type === 'sluice.open') {
      this.opened = Date.now();
      this.silence = 2500 * (data.heartbeat || 15);
      this.id = data.stream;
      this.said('live', { stream: this.id });
    } else if (type === 'sluice.gap') this.step(data.room, placesOf(m.id, this.rooms)[data.room], { gap: data });
    else if (type === 'sluice.beat') Object.entries(placesOf(m.id, this.rooms)).forEach(([r, id]) => this.step(r, id));
    else if (/^sluice.(join|leave)$/.test(type)) this.tell({ room: data.room, presence: { type: type.slice(7), ...data } });
    else if (/^sluice.(degraded|restored)$/.test(type)) this.said('live', { stream: this.id, degraded: type === 'sluice.degraded' });
    else if (m.id) this.step(m.room, m.id, { ev: m });
    else if (m.room) this.tell({ room: m.room, ev: m });
  }

  step(room, id, more) {
    const before = this.at[room];
    if (!id || (id === before && !more?.gap)) return;
    this.at[room] = id;
    this.tries = 0; // however soon the stream is cut: this way leads on
    this.tell({ room, id, before, ...more });
  }

  async poll(abort) {
    for (let first = true; first || Date.now() < this.detour; first = false) {
      this.alarm.set(40_000, () => abort.abort(AGAIN));
      const got = await page(this.o, this.rooms, {
        after: cursorOf(this.at), limit: sizeOf(this.tries), presence: this.o.presence, wait: !first && Math.ceil(Math.min(20_000, this.detour - Date.now()) / 1000),
      }, abort.signal);
      if (abort.signal.aborted) return;
      this.tries = 0;
      this.polled = true;
      if (first) this.said('live');
      for (const { room, id, ...more } of itemsOf(got, this.rooms)) this.step(room, id, more);
    }
    this.way = 0;
    throw AGAIN;
  }
}

// parse reads a block of SSE as the line of NDJSON that it is.
function parse(text) {
  const m = {};
  for (const line of text.split('\n')) {
    const i = line.indexOf(': ');
    if (i > 0) m[line.slice(0, i)] = line.slice(i + 2);
  }
  const data = m.data && JSON.parse(m.data);
  return data && m.event?.startsWith('sluice.') ? { type: m.event, id: m.id, retry: +m.retry, data } : data;
}

// ---- Group: the tabs that share a Source --------------------------------------------------

const groups = new Map();
let hold; // lets go of this tab's lock, which says to the others that it lives

const lock = (name, held) => navigator.locks.request(name, held).catch(() => {});
const live = () => {
  if (!hold && navigator.locks) lock(`sluice:tab:${TAB}`, () => new Promise((done) => { hold = done; }));
};

class Group {
  constructor(name, o) {
    Object.assign(this, { name, o, readers: new Set(), tabs: new Map(), timer: new Alarm(), state: { state: 'connecting' } });
    this.enter();
  }

  enter() {
    live();
    if (!this.o.share || !navigator.locks) {
      this.lead();
      return;
    }
    this.bus = new BroadcastChannel(this.name);
    this.bus.onmessage = ({ data }) => this.hear(data);
    this.gone = new AbortController();
    navigator.locks.request(this.name, { signal: this.gone.signal }, () => new Promise((done) => {
      this.release = done;
      this.lead();
    })).catch(() => {});
    this.want();
  }

  lead() {
    this.source = new Source(this.o, (item) => this.spread({ item }), (state) => this.spread({ state }));
    this.send({ who: true });
    this.want();
  }

  // leave ends this tab's part. The last one says so to the gateway.
  leave() {
    this.send({ bye: TAB });
    this.gone?.abort();
    this.timer.clear();
    const { source } = this;
    this.source = null;
    // Were the stream cut, the gateway would wait for its return rather than see the user leave.
    source?.stop(source.id && [...this.tabs.keys()].every((t) => t === TAB) && navigator.sendBeacon(new URL(`streams/${source.id}`, this.o.url)) && 2000);
    this.tabs.clear();
    this.release?.();
    this.release = null;
    this.bus?.close();
    this.bus = null;
  }

  send(m) { this.bus?.postMessage(m); }

  spread(m) {
    this.send(m);
    this.hear(m);
  }

  nudge() { this.spread({ nudge: true }); }

  hear({ item, state, at, who, want, bye, tick, nudge }) {
    if (state) this.state = state;
    if (state?.state === 'live') eachBox((alarm) => alarm.ring());
    for (const r of this.readers) {
      if (item) r.take(item);
      if (state) r.show();
      if (at) r.compare(at);
      if (tick) r.alarm.check();
      if (nudge) r.alarm.ring();
    }
    if (who) this.want();
    if (!this.source) return;
    if (tick) this.source.alarm.check();
    if (nudge) this.source.nudge(); // and with the stream comes what waits to be sent
    if (want) this.wanted(want);
    if (bye) this.lost(bye);
  }

  // want tells the leader what the readers of this tab are ready for.
  want() {
    const want = { tab: TAB, rooms: Object.assign({}, ...[...this.readers].filter((r) => r.ready).map((r) => r.at)) };
    if (this.source) this.wanted(want);
    else this.send({ want });
  }

  wanted(want) {
    const fresh = !this.tabs.has(want.tab);
    this.tabs.set(want.tab, want);
    this.soon(Object.keys(want.rooms).some((r) => !this.source.at[r]) ? 50 : 2000);
    if (want.tab === TAB) return;
    this.send({ state: this.state, at: this.source.at });
    if (fresh) lock(`sluice:tab:${want.tab}`, () => this.source && this.lost(want.tab)); // had when that tab is gone
  }

  lost(tab) {
    if (this.tabs.delete(tab)) this.soon(2000); // a reload brings it back at once
  }

  // soon has the Source follow what is wanted now. Who has just begun to lead hears the others first.
  soon(ms) {
    if (this.timer.then && this.timer.due <= Date.now() + ms) return;
    this.timer.set(ms, () => this.source?.follow(Object.assign({}, ...[...this.tabs.values()].map((w) => w.rooms))));
  }
}

function groupOf(o) {
  const name = `sluice:${o.url}|${o.presence}|${o.share || token()}`;
  return groups.get(name) ?? groups.set(name, new Group(name, o)).get(name);
}

// ---- Reader: what a subscription has seen -------------------------------------------------

class Reader {
  constructor(o, rooms) {
    Object.assign(this, { o, rooms, at: {}, seen: {}, alarm: new Alarm(), key: `sluice:at:${o.url}|${rooms}` });
    this.from = o.after ?? (o.last ? '' : attempt(() => sessionStorage.getItem(this.key)) || 'latest');
    this.join();
  }

  join() {
    this.group = groupOf(this.o);
    this.group.readers.add(this);
    this.show();
    this.fill();
  }

  part() {
    const { group } = this;
    group.readers.delete(this);
    group.want();
    if (group.readers.size) return;
    groups.delete(group.name);
    group.leave();
  }

  close() {
    if (this.closed) return;
    this.alarm.clear();
    this.part();
    this.closed = true;
    call(this.o.onState, { state: 'closed' });
  }

  // fill reads what is missing from the log; what comes meanwhile waits, and then fits.
  async fill(...items) {
    if (this.queue) return;
    this.queue = items;
    for (let tries = 0, more = true; more && !this.closed;) {
      const after = this.ready ? cursorOf(this.at) : this.from;
      const limit = sizeOf(tries);
      try {
        const got = await page(this.o, this.rooms, { after, last: this.o.last, limit });
        if (this.closed) return;
        for (const item of itemsOf(got, this.rooms)) this.accept(item);
        this.ready = true;
        if (tries) tries -= 1;
        more = got.events.length === limit || this.drain();
      } catch (err) {
        if (err.type === 'urn:sluice:bad-cursor' && after !== 'latest') {
          this.ready = false;
          this.from = 'latest';
          for (const room of this.rooms) call(this.o.onGap, { room, after: null, resumes_at: null, missed: null, reason: 'bad_cursor' });
        } else if (hopeless(err, this.o, tries)) {
          this.deny(err);
          return;
        } else {
          const pause = Math.max(err.wait || 0, backoff(tries++));
          if (!this.ready) call(this.o.onState, { state: navigator.onLine ? 'reconnecting' : 'offline', until: Date.now() + pause });
          await new Promise((done) => this.alarm.set(pause, done));
        }
      }
    }
    this.queue = null;
    if (this.closed) return;
    this.group.want();
    this.show();
  }

  // drain takes what waited; true if some of it does not fit, so that the log is to be read again.
  drain() {
    return this.queue.splice(0).filter((item) => !this.fits(item, true)).length;
  }

  take(item) {
    if (!this.rooms.includes(item.room)) return;
    if (this.queue) this.queue.push(item);
    else if (!this.fits(item)) this.fill(item);
  }

  // fits shows an item if it comes next, or has been shown; false if there may be a hole.
  fits(item, filled) {
    const { room, id, before, gap } = item;
    const at = this.at[room];
    if (id && at !== before) {
      if (gap) return filled; // then the log has told of it
      if (this.has(room, id)) return true;
      const [epoch, seq] = split(id);
      const [mine, last] = split(at);
      if (epoch !== mine || (!filled && seq !== last + 1)) return false;
    }
    this.accept(item);
    return true;
  }

  accept({ room, id, ev, gap, presence }) {
    if (id && !gap && this.has(room, id)) return;
    if (id) this.mark(room, id);
    const { o } = this;
    if (gap) call(o.onGap, gap);
    else if (presence) call(o.onPresence, presence);
    else if (ev && (!o.types || o.types.includes(ev.type))) call(o.onEvent, ev);
  }

  has(room, id) {
    const [epoch, seq] = split(id);
    return this.at[room] === id || seq <= (this.seen[room]?.[epoch] ?? -1);
  }

  mark(room, id) {
    const [epoch, seq] = split(id);
    this.at[room] = id;
    (this.seen[room] ??= {})[epoch] = seq;
    attempt(() => sessionStorage.setItem(this.key, cursorOf(this.at)));
  }

  // compare notices that the stream is further on than this tab.
  compare(at) {
    if (this.ready && !this.queue && this.rooms.some((r) => at[r] && !this.has(r, at[r]))) this.fill();
  }

  show() {
    const { state } = this.group;
    if (state.state === 'denied' && this.o.share) {
      this.part();
      this.o.share = false; // another tab's rooms may be the reason
      this.join();
    } else if (state.state === 'denied') this.deny(state);
    else if (state.state !== 'live' || (this.ready && !this.queue)) call(this.o.onState, { ...state, leader: !!this.group.source });
  }

  deny({ status, error, message }) {
    this.part();
    this.closed = true;
    call(this.o.onState, { state: 'denied', status, error: error ?? message });
  }
}

// ---- Outbox: what we say, until it is answered --------------------------------------------

const outboxes = new Map();
const OUT = 'sluice:out:';
const stored = (key, value) => attempt(() => (value ? localStorage.setItem(OUT + key, JSON.stringify(value)) : localStorage.removeItem(OUT + key)));

// promised gives an item the promise of its answer, which belongs to this tab and is not stored.
const promised = (item) => Object.assign(item, { answer: new Promise((done, fail) => Object.assign(item, { done, fail })) });

class Outbox {
  constructor(o) {
    Object.assign(this, { o, items: [], alarm: new Alarm() });
    live();
    this.adopted = this.adopt();
  }

  // adopt takes over what tabs that are gone have not had answered. Twice does no harm: the key is the same.
  async adopt() {
    const { held = [] } = await navigator.locks?.query() ?? {};
    const tabs = new Set(held.map((l) => l.name.slice(11)));
    const found = attempt(() => Object.entries(localStorage).filter(([k]) => k.startsWith(OUT)).map(([, v]) => JSON.parse(v))) ?? [];
    const left = found.filter((i) => i.url === this.o.url && i.tab !== TAB && !tabs.has(i.tab)).sort((a, b) => a.at - b.at);
    this.items.unshift(...left.map(promised));
    for (const { answer } of left) answer.catch(() => {}); // nobody may ask
    this.run();
  }

  async add(item) {
    if (this.items.length >= QUEUE) throw new Error('too many events wait');
    stored(item.key, item);
    this.items.push(promised(item));
    this.run();
    return item.answer;
  }

  async run() {
    if (this.running) return;
    this.running = true;
    for (let tries = 0; this.items.length;) {
      const wait = await this.deliver(this.items[0], tries);
      tries = wait ? tries + 1 : 0;
      if (wait) await new Promise((done) => this.alarm.set(wait, done));
    }
    this.running = false;
  }

  // deliver makes one attempt and returns how long to wait before the next.
  async deliver(item, tries) {
    const { done, fail, answer, ...plain } = item;
    const end = (settle, value) => {
      this.items.splice(this.items.indexOf(item), 1);
      stored(item.key);
      settle?.(value);
      return 0;
    };
    if (!navigator.onLine && ![...groups.values()].some((g) => g.state.state === 'live')) return 10_000;
    if (item.tried && Date.now() - item.tried > KEPT) return end(fail, new Error('no answer: it may have arrived'));
    if (!item.tried) stored(item.key, { ...plain, tried: item.tried = Date.now() });
    try {
      return end(done, await sent(this.o, item));
    } catch (err) {
      return hopeless(err, this.o, tries) ? end(fail, err) : Math.max(err.wait || 0, backoff(tries));
    }
  }
}

const sent = (o, { key, room, query, type, body }) => json(o, pathOf(room, 'events'), query, {
  method: 'POST', body, headers: { 'Content-Type': type, 'Idempotency-Key': key },
});

// ---- what a page calls --------------------------------------------------------------------

const options = (o) => ({ patience: 5000, detour: 300_000, share: !o?.token, ...o, url: new URL(o?.url ?? '/', HERE).href.replace(/\/?$/, '/') });
const outboxOf = (o) => {
  const box = outboxes.get(o.url) ?? outboxes.set(o.url, new Outbox(o)).get(o.url);
  if (o.token) box.o = o;
  return box;
};

/** subscribe follows one room or several until the handle is closed. */
export function subscribe(rooms, given) {
  const o = options(given);
  outboxOf(o);
  const reader = new Reader(o, [...new Set([rooms].flat())].sort());
  return {
    close: () => reader.close(),
    retry: () => reader.group.nudge(),
    get cursor() { return cursorOf(reader.at); },
    get stream() { return reader.group.state.stream; },
  };
}

let count = 0; // keeps in order what is published within a millisecond

/** publish sends data to a room, and goes on trying until there is an answer. */
export function publish(room, data, given = {}) {
  const o = options(given);
  const text = typeof data === 'string';
  const query = { type: o.type, ephemeral: o.ephemeral, exclude: o.exclude };
  const item = { key: o.key ?? token(), url: o.url, room, query, type: text ? 'text/plain' : 'application/json', body: text ? data : JSON.stringify(data), tab: TAB, at: Date.now() + count++ / 1000 };
  return o.ephemeral ? sent(o, item) : outboxOf(o).add(item);
}

/** pending gives what was published and is not answered yet, also before a reload. */
export const pending = async (given) => {
  const box = outboxOf(options(given));
  await box.adopted;
  return box.items.map(({ key, room, query, type, body, at, answer }) => ({
    key, room, type: query.type ?? 'message', data: type === 'text/plain' ? body : JSON.parse(body), at, answer,
  }));
};

/** members tells who is in a room. */
export const members = (room, given) => json(options(given), pathOf(room, 'members'), {});

// ---- coming and going ---------------------------------------------------------------------

const each = (f) => { for (const g of groups.values()) f(g); };
const eachBox = (f) => { for (const box of outboxes.values()) f(box.alarm); };
const wake = () => {
  if (document.visibilityState !== 'visible') return;
  each((g) => g.spread({ tick: true }));
  eachBox((alarm) => alarm.check());
};

setInterval(wake, 5000);
addEventListener('visibilitychange', wake, true);
addEventListener('online', () => {
  each((g) => g.nudge());
  eachBox((alarm) => alarm.ring());
});
addEventListener('offline', () => each((g) => g.source?.abort?.abort(AGAIN))); // rather than wait for silence
addEventListener('pagehide', () => {
  each((g) => g.leave());
  hold?.();
  hold = null;
});
addEventListener('pageshow', (e) => e.persisted && each((g) => g.enter()));
