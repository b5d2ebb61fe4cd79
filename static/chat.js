// The demo chat: one module that uses a gateway as any other client does.
//
//	GET a page of history ──┐
//	EventSource, resumed  ──┼─→ Feed: in order, once each ─→ Conversation: the list on screen
//	long poll, if need be ──┘                                     ↑
//	composer ─→ Outbox: POST with one key until answered ─────────┘
//
// The Feed never shows an event twice and never passes over one in silence: it
// counts positions itself, and a hole is either filled or said. The Outbox
// tries again with the same Idempotency-Key, so a message is there once,
// however often it had to be sent. Whatever others wrote reaches the page by
// textContent alone: there is no way from an event to markup.

const ROOM_NAME = /^[A-Za-z0-9][A-Za-z0-9_.:@~-]{0,127}$/;
const PAGE = 50; // events of history asked for at a time
const KEPT = 600; // messages kept on screen while reading at the end; older ones are loaded again
const OPENING = 6_000; // a stream that has not said sluice.open by then is stuck in some proxy
const NATIVE = 15_000; // the browser's own reconnect gets this long, since it honours the gateway's retry
const POLLING = 300_000; // how long to go by long poll before a stream is tried again
const KEY_LIFE = 540_000; // the gateway knows an Idempotency-Key for 10 minutes; stay within
const GROUPED = 300_000; // messages of one sender closer than this stand together

// ---- small tools ------------------------------------------------------------------------

const byId = (id) => document.getElementById(id);
const plural = (n, one, many = `${one}s`) => `${n} ${n === 1 ? one : many}`;

// el makes an element. Children that are strings become text nodes, never markup.
function el(tag, { dataset = {}, attrs = {}, ...props } = {}, ...children) {
  const node = Object.assign(document.createElement(tag), props);
  Object.assign(node.dataset, dataset);
  for (const [name, value] of Object.entries(attrs)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

// parsed gives the object that a string of JSON holds, or null.
function parsed(text) {
  try {
    const value = JSON.parse(text);
    return typeof value === 'object' ? value : null;
  } catch {
    return null;
  }
}

// store is localStorage or sessionStorage where the browser lets us, and forgets otherwise.
const store = (area) => ({
  get(name) {
    try { return parsed(window[area].getItem(`sluice.${name}`)); } catch { return null; }
  },
  set(name, value) {
    try { window[area].setItem(`sluice.${name}`, JSON.stringify(value)); } catch { /* a private window, or full */ }
  },
});
const browser = store('localStorage'); // shared by all tabs
const tab = store('sessionStorage'); // this tab's, also after a reload

// token is unguessable and fits an Idempotency-Key. crypto.randomUUID is missing on plain http.
function token() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (b) => b.toString(16).padStart(2, '0')).join('');
}

// backoff grows from one second to thirty, with jitter, so that a crowd does not return at once.
const backoff = (attempt) => Math.min(30_000, 1000 * 2 ** attempt) * (0.5 + Math.random() / 2);

// Refusal is an answer other than 2xx.
class Refusal extends Error {
  constructor(status, retryAfter, detail) {
    super(detail || `the gateway answered ${status}`);
    this.status = status;
    this.wait = retryAfter * 1000 || 0;
  }
}

async function request(url, init = {}, patience = 15_000) {
  const answer = await fetch(url, { cache: 'no-store', ...init, signal: AbortSignal.timeout(patience) });
  if (answer.ok) return answer.json();
  const problem = parsed(await answer.text()) ?? {};
  throw new Refusal(answer.status, Number(answer.headers.get('Retry-After')), problem.detail || problem.title);
}

// place reads a position, <epoch>-<seq>.
function place(id) {
  const [, epoch, seq] = /^([0-9a-z]{1,16})-([0-9]{1,16})$/.exec(id ?? '') ?? [];
  return epoch === undefined ? null : { epoch, seq: Number(seq) };
}

// ---- Feed: what the room says, in order and once ----------------------------------------

// Feed keeps a room's events coming. It tells `view`: history(events), event(ev), gap(data),
// store(isOut) and status({state, until, note, by}). It never gives up, except where the gateway
// says that the room is not for us.
class Feed {
  constructor(room, view) {
    this.path = `/rooms/${room}/events`;
    this.view = view;
    this.cursor = ''; // the last position shown
    this.seen = new Map(); // epoch → highest seq shown
    this.types = new Set(); // event types beside "message", learnt from pages
    this.attempt = 0; // own reconnects since the feed was last live
    this.failures = 0; // errors of the present EventSource since it was last live
    this.mutes = 0; // streams in a row that opened without a word
    this.pollUntil = 0;
    this.turn = 0; // grows when the way of reading changes; who waited over that stops
    this.liveSince = 0; // when it became live, 0 while it is not
    this.lived = false; // whether it ever was
    this.waiting = false; // for the time of the next attempt, or to be told
  }

  start() { this.#resume(); }

  // nudge tries at once what would be tried later.
  nudge() {
    if (!this.waiting) return;
    this.attempt = 0;
    this.#resume();
  }

  // doubt asks whether the gateway is still there, where silence alone would take long to tell.
  async doubt() {
    if (!this.liveSince) return;
    const { turn } = this;
    try {
      await this.read({ limit: 1 }, 5_000);
    } catch {
      if (turn === this.turn) this.#retry();
    }
  }

  // rest ends the stream until the next nudge.
  rest() {
    this.#drop();
    this.liveSince = 0;
    this.waiting = true;
  }

  // has says whether the room has come past this position.
  has(id) {
    const at = place(id);
    return at !== null && at.seq <= (this.seen.get(at.epoch) ?? -1);
  }

  read(query, patience) {
    const headers = { Accept: 'application/json' };
    return request(`${this.path}?${new URLSearchParams(query)}`, { headers }, patience);
  }

  // -- the ways of reading

  #resume() {
    if (!this.cursor) return this.#load();
    return Date.now() < this.pollUntil ? this.#poll() : this.#open();
  }

  // #load shows the last page of history; its `next` is where the stream goes on.
  async #load() {
    const turn = this.#drop();
    this.#status(this.lived || this.attempt ? 'reconnecting' : 'connecting');
    try {
      const page = await this.read({ limit: PAGE });
      if (turn !== this.turn) return;
      this.view.history(page.events);
      for (const ev of page.events) this.#learn(ev);
      for (const ev of page.events) this.#mark(ev.id);
      this.#mark(page.next);
      this.#open();
    } catch (err) {
      if (turn === this.turn) this.#trouble(err);
    }
  }

  #open() {
    this.#drop();
    this.failures = 0;
    this.bye = false;
    if (!this.liveSince) this.#status(this.lived ? 'reconnecting' : 'connecting'); // else a trial while polling
    const query = new URLSearchParams({ envelope: 'true', heartbeat: 'event', after: this.cursor });
    this.source = new EventSource(`${this.path}?${query}`);
    this.#listen('sluice.open', (e) => this.#opened(e));
    this.#listen('sluice.beat', (e) => this.#compare(e.lastEventId));
    this.#listen('sluice.gap', (e) => this.#gap(parsed(e.data), e.lastEventId));
    this.#listen('sluice.degraded', () => this.view.store(true));
    this.#listen('sluice.restored', () => this.view.store(false));
    this.#listen('sluice.bye', () => {
      this.bye = true;
      this.#expect(NATIVE, () => this.#retry());
    });
    for (const type of ['message', ...this.types]) this.#listen(type, (e) => this.#take(e));
    this.source.onerror = (e) => {
      if (!(e instanceof MessageEvent)) this.#broken(); // an event may have the type "error"
    };
    this.#expect(OPENING, () => this.#mute());
  }

  #listen(type, then) {
    this.source.addEventListener(type, (e) => {
      if (!(e instanceof MessageEvent)) return;
      this.#heard();
      then(e);
    });
  }

  // #opened: only this event proves that the way is clear; onopen comes with the headers,
  // which some proxies let pass while they hold back the rest.
  #opened(e) {
    const beat = Number(parsed(e.data)?.heartbeat ?? 15);
    this.silence = beat > 0 ? 2500 * beat : 0;
    this.#live();
    this.mutes = 0;
    this.#heard();
    this.view.store(false);
    this.#compare(e.lastEventId);
  }

  #live(by) {
    this.attempt = 0;
    this.failures = 0;
    this.lived = true;
    this.liveSince ||= Date.now();
    this.#status('live', { by });
  }

  // #heard: anything said proves life; a stream silent for two and a half heartbeats is dead,
  // although no error ever came.
  #heard() {
    if (!this.liveSince || this.bye) return;
    if (this.silence) this.#expect(this.silence, () => this.#retry());
    else clearTimeout(this.timer);
  }

  // #broken: the browser comes back by itself, with Last-Event-ID and after the gateway's own
  // retry, unless it closed the source, as it does for any status but 200. A second failure
  // in a row is ours to handle, with growing pauses.
  #broken() {
    const closed = this.source.readyState === EventSource.CLOSED;
    const told = this.bye;
    this.bye = false;
    if (closed || (!told && ++this.failures > 1)) return this.#retry(closed);
    this.#status('reconnecting');
    // After a bye the gateway may ask for a long pause: it knows how crowded it is.
    return this.#expect(told ? 120_000 : NATIVE, () => this.#retry());
  }

  #mute() {
    this.mutes += 1;
    if (this.mutes < 2 || !navigator.onLine) return this.#retry();
    this.mutes = 1;
    this.pollUntil = Date.now() + POLLING;
    return this.#poll();
  }

  // #poll reads by long poll, for ways on which no stream gets through.
  async #poll() {
    const turn = this.#drop();
    if (!this.liveSince) this.#status('reconnecting');
    try {
      while (Date.now() < this.pollUntil) {
        const page = await this.read({ after: this.cursor, limit: 100, ...(this.liveSince && { wait: '20s' }) }, 40_000);
        if (turn !== this.turn) return;
        this.#admit(page);
        this.#live('long poll');
      }
      this.#open();
    } catch (err) {
      if (turn === this.turn) this.#trouble(err);
    }
  }

  // #fill reads what the stream passed over: a native EventSource drops, unseen, every event
  // of a type that nobody listens for. Once learnt, a type is listened for.
  async #fill() {
    this.again = true;
    if (this.filling) return;
    this.filling = true;
    const turn = this.turn;
    try {
      while (this.again && turn === this.turn) {
        this.again = false;
        const page = await this.read({ after: this.cursor, limit: 100 });
        if (turn === this.turn) this.#admit(page);
        this.again ||= page.events.length === 100;
      }
    } catch (err) {
      if (turn === this.turn) this.#trouble(err);
    } finally {
      this.filling = false;
    }
  }

  // -- what was read

  // #take shows an event of the stream if it is the next one.
  #take(e) {
    const ev = parsed(e.data);
    if (!ev) return;
    if (!ev.id) {
      this.view.event(ev); // ephemeral: said once, kept nowhere
      return;
    }
    const last = place(this.cursor);
    const next = place(ev.id);
    if (next && last?.epoch === next.epoch && next.seq > last.seq + 1) {
      this.#fill();
      return;
    }
    this.#show(ev);
  }

  #admit(page) {
    if (page.gap) this.#gap(page.gap);
    for (const ev of page.events) {
      this.#learn(ev);
      this.#show(ev);
    }
    this.#mark(page.next);
  }

  #show(ev) {
    if (this.has(ev.id)) return;
    this.#mark(ev.id);
    this.view.event(ev);
  }

  #gap(gap, id) {
    this.#mark(id);
    this.view.gap(gap ?? {});
  }

  // #compare notices on a quiet stream that its id stands beyond what was shown.
  #compare(id) {
    if (!id || this.has(id)) return;
    if (place(id)?.seq === 0) this.#mark(id);
    else this.#fill();
  }

  #learn({ type = 'message' }) {
    if (type === 'message' || type.startsWith('sluice.') || this.types.has(type) || this.types.size > 200) return;
    this.types.add(type);
    if (this.source) this.#listen(type, (e) => this.#take(e));
  }

  #mark(id) {
    if (!id || this.has(id)) return;
    const at = place(id);
    if (at) this.seen.set(at.epoch, at.seq);
    this.cursor = id;
  }

  // -- trouble

  // #retry waits, longer each time, and resumes. `closed` says that the browser was given a
  // status it does not tell: a page asks for it.
  #retry(closed = false, atLeast = 0) {
    this.#drop();
    const wait = Math.max(atLeast, backoff(this.attempt));
    this.attempt += 1;
    this.waiting = true;
    this.#status('reconnecting', { until: Date.now() + wait });
    this.#expect(wait, () => (closed ? this.#probe() : this.#resume()));
  }

  async #probe() {
    const turn = this.#drop();
    this.#status('reconnecting');
    try {
      await this.read({ limit: 1 });
      if (turn === this.turn) this.#resume();
    } catch (err) {
      if (turn === this.turn) this.#trouble(err);
    }
  }

  #trouble(err) {
    const status = err.status ?? 0;
    if (status === 401 || status === 403) return this.#halt('You may not read this room: sign in where you came from, then try again.');
    if (status === 400 && this.cursor) {
      this.cursor = '';
      this.view.gap({ reason: 'bad_cursor' });
    } else if (status === 400) {
      return this.#halt(err.message);
    }
    return this.#retry(false, err.wait);
  }

  #halt(note) {
    this.#drop();
    this.waiting = true;
    this.#status('offline', { note });
  }

  #drop() {
    this.source?.close();
    this.source = null;
    this.waiting = false;
    clearTimeout(this.timer);
    this.turn += 1;
    return this.turn;
  }

  #expect(ms, then) {
    clearTimeout(this.timer);
    this.timer = setTimeout(then, ms);
  }

  #status(state, more = {}) {
    if (state !== 'live') this.liveSince = 0;
    const off = state === 'reconnecting' && !navigator.onLine;
    this.view.status({ state: off ? 'offline' : state, ...more });
  }
}

// ---- Outbox: what we say, until it is answered ------------------------------------------

// Outbox posts one message at a time, in the order they were written, for as long as it takes.
// It tells `report(item)` when an item's state changes: sending, then sent (with its id) or
// failed (with the reason). What is unanswered survives a reload. `liveFor(room)` says for how
// many milliseconds that room's stream has been live, undefined for a room we are not in.
class Outbox {
  constructor(report, liveFor) {
    this.report = report;
    this.liveFor = liveFor;
    this.items = tab.get('outbox') ?? [];
    this.wake = () => {};
  }

  add(room, data) {
    const item = { key: data.key, room, body: JSON.stringify(data), state: 'sending', tried: 0 };
    this.items.push(item);
    this.#save();
    this.run();
    return item;
  }

  again(key) {
    const item = this.items.find((i) => i.key === key);
    if (!item) return;
    this.items = [...this.items.filter((i) => i !== item), item];
    Object.assign(item, { state: 'sending', why: '', tried: 0 });
    this.#save();
    this.report(item);
    this.run();
  }

  // forget ends the matter: the stream has brought the message, or its writer gave it up.
  forget(key) {
    if (!this.items.some((i) => i.key === key)) return;
    this.items = this.items.filter((i) => i.key !== key);
    this.#save();
  }

  // run delivers what is waiting; while it is running already, it wakes it from its pause.
  async run() {
    this.wake();
    if (this.running) return;
    this.running = true;
    try {
      for (let tries = 0, item; (item = this.items.find((i) => i.state === 'sending')); ) {
        const wait = await this.#deliver(item, tries);
        tries = wait ? tries + 1 : 0;
        if (wait) await this.#pause(wait);
      }
    } finally {
      this.running = false;
    }
  }

  // #deliver makes one attempt and returns how long to wait before the next, 0 when it is done.
  async #deliver(item, tries) {
    const live = this.liveFor(item.room);
    if (!navigator.onLine && !live) return 10_000;
    if (item.tried && Date.now() - item.tried > KEY_LIFE && !(live > 5_000)) {
      // The gateway may have taken it and forgotten the key since: let the stream speak first.
      if (live !== undefined) return 2_000;
      Object.assign(item, { state: 'failed', why: 'it may have arrived, look before you try again' });
      this.#save();
      return 0;
    }
    item.tried ||= Date.now();
    this.#save();
    try {
      const { id } = await request(`/rooms/${item.room}/events`, {
        method: 'POST',
        headers: { 'Content-Type': 'application/json', 'Idempotency-Key': item.key },
        body: item.body,
      });
      Object.assign(item, { state: 'sent', id });
    } catch (err) {
      const final = err.status >= 400 && err.status < 500 && ![408, 425, 429].includes(err.status);
      if (!final) return Math.max(err.wait ?? 0, backoff(Math.min(tries, 4)));
      Object.assign(item, { state: 'failed', why: err.message });
    }
    // Meanwhile the stream may have brought it, and it is forgotten: then there is nothing to report.
    if (this.items.includes(item)) this.report(item);
    if (item.state === 'sent') this.forget(item.key);
    else this.#save();
    return 0;
  }

  #pause(ms) {
    return new Promise((done) => {
      const timer = setTimeout(done, ms);
      this.wake = () => {
        clearTimeout(timer);
        done();
      };
    });
  }

  #save() { tab.set('outbox', this.items); }
}

// ---- from an event to something to look at ----------------------------------------------

const clock = new Intl.DateTimeFormat(undefined, { hour: 'numeric', minute: '2-digit' });
const moment = new Intl.DateTimeFormat(undefined, { dateStyle: 'full', timeStyle: 'medium' });
const weekday = new Intl.DateTimeFormat('en', { weekday: 'long', day: 'numeric', month: 'long' });
const longAgo = new Intl.DateTimeFormat('en', { day: 'numeric', month: 'long', year: 'numeric' });

const midnight = (date) => new Date(date).setHours(0, 0, 0, 0);

function dayName(date) {
  const days = Math.round((midnight(Date.now()) - midnight(date)) / 86_400_000);
  if (days === 0) return 'Today';
  if (days === 1) return 'Yesterday';
  return (days > 0 && days < 300 ? weekday : longAgo).format(date);
}

// clean makes a name fit to stand in a line: no controls, nothing that turns the text around.
function clean(name) {
  if (typeof name !== 'string') return '';
  const plain = name.replace(/[\s\p{Cc}\u200e\u200f\u2028-\u202e\u2066-\u2069]+/gu, ' ').trim();
  return [...plain].slice(0, 40).join('');
}

// pretty writes JSON in one line where it fits a phone, else in many.
function pretty(data) {
  const line = JSON.stringify(data);
  return line.length <= 36 ? line : JSON.stringify(data, null, 2);
}

// tell reads an event of whatever make: ours, a line from curl, JSON, another type.
function tell(ev) {
  const type = ev.type ?? 'message';
  const { data } = ev;
  const from = clean(ev.from);
  const spoken = type === 'message' && typeof data?.text === 'string';
  const name = spoken ? clean(data.name) : '';
  const text = spoken ? data.text : data;
  return {
    key: spoken && typeof data.key === 'string' ? data.key : '',
    sender: name || from || 'curl',
    subject: name && from && from !== name ? from : '',
    shell: !name && !from,
    type: type === 'message' ? '' : type,
    text: typeof text === 'string' ? text : null,
    json: typeof text === 'string' ? '' : pretty(data ?? null),
    at: new Date(Date.parse(ev.at) || Date.now()),
  };
}

// hue is a name's colour, one of twelve that can be told apart.
function hue(name) {
  let hash = 2166136261;
  for (const char of name) hash = Math.imul(hash ^ char.codePointAt(0), 16777619);
  hash = Math.imul(hash ^ (hash >>> 16), 0x45d9f3b);
  return ((hash ^ (hash >>> 13)) >>> 0) % 12 * 30 + 10;
}

function initials(name) {
  const words = name.split(/\s+/).filter(Boolean);
  const ends = words.length > 1 ? [words[0], words.at(-1)] : words;
  return ends.map((word) => [...word][0]).join('').toUpperCase();
}

function paint(avatar, name, shell = false) {
  avatar.textContent = shell ? '>_' : initials(name);
  avatar.classList.toggle('shell', shell);
  avatar.style.setProperty('--hue', hue(name));
  return avatar;
}

// trimmedEnd takes off what belongs to the sentence around an address rather than to it.
function trimmedEnd(address) {
  const count = (char) => address.split(char).length - 1;
  let surplus = count(')') - count('(');
  let end = address.length;
  for (; end > 0; end -= 1) {
    const last = address[end - 1];
    if (last === ')' && surplus > 0) surplus -= 1;
    else if (!/[.,:;!?']/.test(last)) break;
  }
  return address.slice(0, end);
}

// linked cuts a text into strings and links; only http and https become links.
function linked(text) {
  const parts = [];
  let done = 0;
  for (const { 0: found, index } of text.matchAll(/https?:\/\/[^\s<>"`\u200e\u200f\u2028-\u202e\u2066-\u2069]{1,2000}/gi)) {
    const shown = trimmedEnd(found);
    if (!URL.canParse(shown) || !/^https?:$/.test(new URL(shown).protocol)) continue;
    parts.push(text.slice(done, index));
    parts.push(el('a', { href: shown, target: '_blank', rel: 'noopener noreferrer nofollow ugc', textContent: shown }));
    done = index + shown.length;
  }
  parts.push(text.slice(done));
  return parts;
}

const GAPS = {
  trimmed: ['Messages here are no longer kept', 'message here is no longer kept', 'messages here are no longer kept'],
  truncated: ['Messages here were lost when the store failed over', 'message here was lost when the store failed over', 'messages here were lost when the store failed over'],
  new_history: ['The room has begun a new history'],
  bad_cursor: ['The place in the room was lost; it goes on from the newest message'],
  purged: ['The room was cleared'],
  slow: ['This connection fell behind; messages here were skipped', 'message here was skipped: this connection fell behind', 'messages here were skipped: this connection fell behind'],
  outage: ['Messages here were missed in an outage', 'message here was missed in an outage', 'messages here were missed in an outage'],
};

function gapText({ reason, missed }) {
  const [any, one, many] = GAPS[reason] ?? ['Messages may be missing here'];
  return one && missed > 0 ? plural(missed, one, many) : any;
}

// ---- Conversation: the list on screen ---------------------------------------------------

// Conversation keeps the list in order: what the room said, then what we said and the room
// has not confirmed. It groups by sender, parts days, follows the end while it is in view,
// and loads older pages at the top.
class Conversation {
  constructor({ room, isMine, isPast, older, outbox }) {
    Object.assign(this, { room, isMine, isPast, older, outbox });
    this.list = byId('messages');
    this.scroller = byId('scroll');
    this.entries = new WeakMap(); // item of the list → what tell() read
    this.ids = new Map(); // event id → its item
    this.drafts = new Map(); // key → item of ours that the room has not shown yet, oldest first
    this.pinned = true; // whether the end is in view and shall stay there
    this.unread = 0;
    this.unseen = 0; // arrived below the part in view
    this.spoken = [];
    this.#watch();
  }

  // -- what the feed and the outbox tell

  history(events) {
    for (const ev of events) this.event(ev, false);
    this.scroller.scrollTop = this.scroller.scrollHeight;
    this.#limits(events.length);
    this.#emptiness();
  }

  event(ev, fresh = true) {
    const told = tell(ev);
    const own = this.isMine(told);
    let item = this.drafts.get(told.key) ?? this.ids.get(ev.id);
    if (own) this.outbox.forget(told.key);
    if (item && !item.dataset.state) return;
    if (item) this.#confirm(item, told.at);
    else item = this.#build(told, own);
    item.dataset.id = ev.id ?? '';
    if (ev.id) this.ids.set(ev.id, item);
    this.#insert(item);
    if (fresh && !own) this.#tellOf(told);
    this.#trim();
  }

  gap(gap) {
    const text = gapText(gap);
    const note = el('li', { className: 'note', dataset: { testid: 'gap', reason: gap.reason ?? '' } }, el('span', {}, text));
    this.#insert(note);
    this.#say(text);
  }

  // draft shows an item of the outbox, or its new state.
  draft(out) {
    if (out.room !== this.room) return;
    let item = this.drafts.get(out.key);
    if (!item) {
      item = this.#build(tell({ data: JSON.parse(out.body) }), true);
      item.dataset.key = out.key;
    }
    if (out.state === 'sending' || !item.isConnected) {
      this.drafts.delete(out.key); // (again) the last
      this.drafts.set(out.key, item);
      this.list.append(item);
      this.#settle(item);
    }
    item.dataset.state = out.state;
    item.querySelector('.fate').replaceChildren(...this.#fate(out));
    if (out.id) {
      item.dataset.id = out.id;
      this.ids.set(out.id, item);
      if (this.isPast(out.id)) this.#confirm(item); // an answer from long ago: the room will not show it again
    }
    this.#follow();
    this.#emptiness();
  }

  // toEnd brings the newest message into view.
  toEnd() {
    this.pinned = true;
    this.#follow();
  }

  // -- building

  #build(told, own) {
    const fate = el('p', { className: 'fate' });
    const words = told.text === null
      ? el('pre', { textContent: told.json })
      : el('p', { className: 'words', dir: 'auto' }, ...linked(told.text));
    words.dataset.testid = 'text';
    if ((told.text ?? told.json).length > 1500) {
      words.classList.add('long');
      words.tabIndex = 0; // it scrolls
    }
    const who = el('p', { className: 'who' }, el('bdi', { textContent: own ? 'You' : told.sender, dataset: { testid: 'sender' } }));
    if (told.subject) who.append(el('bdi', { className: 'tag', textContent: told.subject, title: 'Authenticated as' }));
    if (told.type) who.append(el('span', { className: 'tag', textContent: told.type, title: 'Type of the event' }));
    who.append(el('time', { dateTime: told.at.toISOString(), textContent: clock.format(told.at) }));
    const bubble = el('div', { className: 'bubble', title: moment.format(told.at) }, words);
    const avatar = paint(el('span', { className: 'avatar', attrs: { 'aria-hidden': 'true' } }), told.sender, told.shell);
    const item = el('li', { className: 'message tail', dataset: { testid: 'message', own } }, avatar, who, bubble, fate);
    item.style.setProperty('--hue', hue(told.sender));
    item.classList.toggle('own', own);
    item.classList.toggle('quiet', told.text?.trim() === '');
    this.entries.set(item, { ...told, own });
    return item;
  }

  #fate({ state, key, why }) {
    if (state === 'sending') return ['Sending'];
    if (state !== 'failed') return [];
    const again = el('button', { type: 'button', className: 'plain', dataset: { testid: 'retry' }, textContent: 'Try again' });
    again.onclick = () => this.outbox.again(key);
    const drop = el('button', { type: 'button', className: 'plain', dataset: { testid: 'discard' }, textContent: 'Discard' });
    drop.onclick = () => {
      this.outbox.forget(key);
      this.#remove(this.drafts.get(key));
      byId('composer').focus();
    };
    return [el('span', { textContent: `Not sent: ${why}` }), again, drop];
  }

  // #confirm turns a draft into what the room says it is.
  #confirm(item, at = this.entries.get(item).at) {
    this.drafts.delete(item.dataset.key);
    delete item.dataset.state;
    this.entries.get(item).at = at;
    item.querySelector('.fate').replaceChildren();
    const time = item.querySelector('time');
    time.dateTime = at.toISOString();
    time.textContent = clock.format(at);
  }

  // -- order

  // #insert puts an item behind all that the room said and before what it has not confirmed.
  #insert(item) {
    const [first = null] = this.drafts.values();
    if (!item.isConnected || item.nextElementSibling !== first) this.list.insertBefore(item, first);
    this.#settle(item);
    this.#follow();
    this.#emptiness();
  }

  #remove(item) {
    this.drafts.delete(item.dataset.key);
    const before = this.#above(item);
    const after = item.nextElementSibling;
    if (item.previousElementSibling?.className === 'day') item.previousElementSibling.remove();
    item.remove();
    before?.classList.add('tail');
    if (after) this.#settle(after);
    this.#emptiness();
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
    if (!this.pinned || this.list.childElementCount <= KEPT + 100) return;
    while (this.list.childElementCount > KEPT) {
      const first = this.list.firstElementChild;
      this.ids.delete(first.dataset.id);
      first.remove();
    }
    const first = this.list.querySelector('.message');
    if (first) this.#seam(first);
    this.#limits(PAGE);
    this.#follow();
  }

  // -- older messages

  // #limits says at the top whether there may be more above.
  #limits(got) {
    const oldest = place(this.#oldest());
    const more = got >= PAGE && oldest?.seq !== 1;
    const [button, start] = [byId('older'), byId('start')];
    button.hidden = !more;
    button.textContent = 'Earlier messages';
    start.hidden = more || !oldest;
    start.textContent = oldest?.seq === 1 ? `This is where #${this.room} begins` : 'What came before is no longer kept';
    this.sight.unobserve(button);
    if (more) this.sight.observe(button); // told anew, also when it stayed in sight
  }

  #oldest() {
    return this.list.querySelector('.message[data-id]:not([data-id=""], [data-state])')?.dataset.id ?? '';
  }

  async loadOlder() {
    if (this.loading || byId('older').hidden) return;
    this.loading = true;
    byId('older').textContent = 'Loading';
    try {
      const { events } = await this.older(this.#oldest());
      this.#prepend(events);
      this.#limits(events.length);
    } catch {
      byId('older').textContent = 'Earlier messages could not be loaded. Try again';
    }
    this.loading = false;
  }

  #prepend(events) {
    const { scrollHeight, scrollTop } = this.scroller;
    const first = this.list.querySelector('.message');
    if (this.list.firstElementChild?.className === 'day') this.list.firstElementChild.remove();
    const anchor = this.list.firstElementChild;
    for (const ev of events.filter(({ id }) => !this.ids.has(id))) {
      const told = tell(ev);
      const item = this.#build(told, this.isMine(told));
      item.dataset.id = ev.id;
      this.ids.set(ev.id, item);
      this.list.insertBefore(item, anchor);
      this.#seam(item);
    }
    if (first) this.#seam(first);
    this.scroller.scrollTop = scrollTop + this.scroller.scrollHeight - scrollHeight;
  }

  // -- the end in view, and what came while it was not

  #watch() {
    let top = 0;
    this.scroller.addEventListener('scroll', () => {
      const { scrollTop, scrollHeight, clientHeight } = this.scroller;
      const near = scrollHeight - scrollTop - clientHeight < 80;
      // Only the reader scrolls up; new messages alone never unpin.
      if (near) this.pinned = true;
      else if (scrollTop < top - 2) this.pinned = false;
      top = scrollTop;
      this.#jump();
    }, { passive: true });
    new ResizeObserver(() => this.pinned && this.#follow()).observe(this.scroller);
    this.sight = new IntersectionObserver(([seen]) => seen.isIntersecting && this.loadOlder(), { root: this.scroller, rootMargin: '500px 0px 0px' });
    byId('older').onclick = () => this.loadOlder();
    byId('jump').onclick = () => this.toEnd();
    document.addEventListener('visibilitychange', () => {
      if (!document.hidden) this.unread = 0;
      this.#title();
    });
    this.#title();
  }

  // #follow keeps the end in view, once a frame however much arrived.
  #follow() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      if (this.pinned) this.scroller.scrollTop = this.scroller.scrollHeight;
      this.#jump();
    });
  }

  #jump() {
    if (this.pinned) this.unseen = 0;
    byId('jump').hidden = this.pinned;
    byId('jump').textContent = this.unseen ? plural(this.unseen, 'new message') : 'Newest messages';
  }

  #tellOf(told) {
    if (!this.pinned) this.unseen += 1;
    if (document.hidden) this.unread += 1;
    this.#title();
    this.#say(`${told.sender}: ${(told.text ?? told.json).slice(0, 200)}`);
  }

  #title() {
    document.title = `${this.unread ? `(${this.unread}) ` : ''}#${this.room} · Sluice`;
  }

  // #say tells screen readers, several at once where they come at once.
  #say(text) {
    this.spoken.push(text);
    this.saying ??= setTimeout(() => {
      const many = this.spoken.length > 3;
      byId('said').textContent = many ? plural(this.spoken.length, 'new message') : this.spoken.join('\n');
      this.spoken = [];
      this.saying = null;
    }, 400);
  }

  #emptiness() {
    byId('empty').hidden = this.list.childElementCount > 0;
  }
}

// ---- the page around it -----------------------------------------------------------------

// Bar shows how the connection is doing: a word always, a sentence when there is trouble.
class Bar {
  constructor(retry) {
    this.at = { state: 'connecting' };
    this.storeOut = false;
    byId('banner-go').onclick = retry;
  }

  status(at) {
    const was = this.at.state;
    this.at = at;
    if (was !== at.state && at.state === 'offline') byId('said').textContent = 'Offline';
    if (was !== 'connecting' && was !== at.state && at.state === 'live') byId('said').textContent = 'Connected again';
    clearInterval(this.ticking);
    if (at.until) this.ticking = setInterval(() => this.#draw(), 500);
    this.#draw();
  }

  store(isOut) {
    this.storeOut = isOut;
    this.#draw();
  }

  #draw() {
    const { state, until, note, by } = this.at;
    const left = until ? Math.max(1, Math.ceil((until - Date.now()) / 1000)) : 0;
    const words = { connecting: 'Connecting', live: 'Live', offline: 'Offline', reconnecting: left ? `Reconnecting in ${left} s` : 'Reconnecting' };
    const pill = byId('state');
    pill.dataset.state = state;
    if (pill.textContent !== words[state]) pill.textContent = words[state];
    pill.title = by ? `Streams do not get through here; going by ${by}` : '';
    this.#banner(note ?? this.#sentence(state), Boolean(until || note));
  }

  #sentence(state) {
    if (state === 'offline') return 'You are offline. What you write is kept and sent later.';
    if (state === 'reconnecting') return 'The connection is lost. What you write is kept and sent later.';
    if (this.storeOut) return 'The gateway cannot reach its store. Messages may be late.';
    return '';
  }

  #banner(text, canTry) {
    byId('banner').hidden = !text;
    byId('banner').classList.toggle('soft', this.at.state === 'live');
    if (byId('banner-text').textContent !== text) byId('banner-text').textContent = text;
    byId('banner-go').hidden = !canTry;
  }
}

// ownName is who we are: in this tab, else in this browser, else somebody friendly.
function ownName() {
  const kinds = 'Amber Brave Bright Calm Clever Curious Gentle Golden Happy Jolly Kind Lucky Merry Mellow Nimble Patient Quiet Silver Sunny Swift'.split(' ');
  const beings = 'Badger Beaver Crane Curlew Dipper Dolphin Egret Frog Heron Kingfisher Loon Newt Otter Pelican Plover Puffin Salmon Seal Swan Teal'.split(' ');
  const any = (list) => list[Math.floor(Math.random() * list.length)];
  return clean(tab.get('name')?.is) || clean(browser.get('name')?.is) || `${any(kinds)} ${any(beings)}`;
}

function keepName(name) {
  tab.set('name', { is: name });
  browser.set('name', { is: name });
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text); // not there on plain http
    return true;
  } catch {
    const area = el('textarea', { value: text, className: 'unseen' });
    document.body.append(area);
    area.select();
    const done = document.execCommand('copy');
    area.remove();
    return done;
  }
}

function copies(button, text) {
  button.addEventListener('click', async () => {
    const done = await copy(text());
    button.classList.toggle('done', done);
    byId('said').textContent = done ? 'Copied' : 'It could not be copied';
    setTimeout(() => button.classList.remove('done'), 1500);
    button.focus();
  });
}

function showHints(room) {
  const url = `${location.origin}/rooms/${room}/events`;
  const commands = { Listen: `curl -N ${url}`, Speak: `curl -d hello ${url}` };
  for (const [what, command] of Object.entries(commands)) {
    const button = el('button', { type: 'button', className: 'plain copy', textContent: 'Copy', attrs: { 'aria-label': `Copy: ${what}` }, dataset: { testid: 'copy' } });
    copies(button, () => command);
    byId('hints').append(el('dt', {}, what, button), el('dd', {}, el('code', { textContent: command })));
  }
  byId('empty-command').textContent = commands.Speak;
}

function showRooms(room) {
  const known = (browser.get('rooms') ?? []).filter((name) => ROOM_NAME.test(name) && name !== room);
  const recent = [room, ...known].slice(0, 8);
  browser.set('rooms', recent);
  const shown = recent.includes('lobby') ? recent : [...recent, 'lobby'];
  for (const name of shown.sort()) {
    const link = el('a', { href: `/?room=${name}` }, el('span', { className: 'hash', attrs: { 'aria-hidden': 'true' } }, '#'), el('bdi', {}, name));
    if (name === room) link.setAttribute('aria-current', 'page');
    byId('rooms').append(el('li', {}, link));
  }
}

// roomAsked reads the room from the address, and puts right an address without one.
function roomAsked() {
  const asked = new URLSearchParams(location.search).get('room') ?? '';
  if (ROOM_NAME.test(asked)) return asked;
  history.replaceState(null, '', '/?room=lobby');
  return 'lobby';
}

// setUpName makes the name editable, and gives back who is writing at any time.
function setUpName(room) {
  const field = byId('name');
  const me = { name: ownName() };
  const show = () => {
    paint(byId('face'), me.name);
    byId('composer').placeholder = `Message #${room} as ${me.name}`;
  };
  keepName(me.name);
  field.value = me.name;
  field.addEventListener('input', () => {
    me.name = clean(field.value) || me.name;
    keepName(me.name);
    show();
  });
  field.addEventListener('change', () => { field.value = me.name; });
  field.addEventListener('keydown', (e) => e.key === 'Enter' && !e.isComposing && byId('composer').focus());
  show();
  return me;
}

// setUpComposer calls say(text) for each message written.
function setUpComposer(say) {
  const field = byId('composer');
  const fit = () => {
    field.style.height = 'auto';
    field.style.height = `${field.scrollHeight}px`;
    byId('send').disabled = !field.value.trim();
  };
  const submit = () => {
    const text = field.value.trim();
    if (!text) return;
    field.value = '';
    fit();
    say(text);
  };
  byId('compose').addEventListener('submit', (e) => {
    e.preventDefault();
    submit();
    field.focus();
  });
  field.addEventListener('keydown', (e) => {
    if (e.key !== 'Enter' || e.shiftKey || e.isComposing) return;
    e.preventDefault();
    submit();
  });
  field.addEventListener('input', fit);
  fit();
  if (matchMedia('(hover: hover)').matches) field.focus(); // on a phone it would raise the keyboard
}

// setUpMine knows which messages were written here: by their keys, which nobody can know
// before we sent them. Two tabs under two names are two people.
function setUpMine(me) {
  const here = new Set();
  let mine = new Set(browser.get('sent') ?? []);
  window.addEventListener('storage', () => { mine = new Set(browser.get('sent') ?? []); });
  return {
    add(key) {
      here.add(key);
      mine.add(key);
      browser.set('sent', [...mine].slice(-500));
    },
    has: ({ key, sender }) => here.has(key) || (mine.has(key) && sender === me.name),
  };
}

function main() {
  const room = roomAsked();
  byId('room').textContent = room;
  showRooms(room);
  showHints(room);
  copies(byId('share'), () => `${location.origin}/?room=${room}`);
  const me = setUpName(room);
  const mine = setUpMine(me);

  const liveFor = (name) => {
    if (name !== room) return undefined;
    return feed.liveSince && Date.now() - feed.liveSince;
  };
  const outbox = new Outbox((item) => talk.draft(item), liveFor);
  const bar = new Bar(() => feed.nudge());
  const talk = new Conversation({ room, outbox, isMine: mine.has, isPast: (id) => feed.has(id), older: (before) => feed.read({ before, limit: PAGE }) });
  const feed = new Feed(room, {
    history(events) {
      talk.history(events);
      outbox.items.forEach((item) => talk.draft(item));
    },
    event: (ev) => talk.event(ev),
    gap: (gap) => talk.gap(gap),
    store: (isOut) => bar.store(isOut),
    status(at) {
      bar.status(at);
      if (at.state === 'live') outbox.run();
    },
  });

  setUpComposer((text) => {
    const key = token();
    mine.add(key);
    talk.draft(outbox.add(room, { name: me.name, text, key }));
    talk.toEnd();
  });

  window.addEventListener('online', () => {
    feed.nudge();
    outbox.run();
  });
  window.addEventListener('offline', () => feed.doubt());
  window.addEventListener('pagehide', () => feed.rest());
  window.addEventListener('pageshow', (e) => e.persisted && feed.nudge());
  document.addEventListener('visibilitychange', () => !document.hidden && feed.nudge());
  matchMedia('(min-width: 45rem)').addEventListener('change', () => byId('side').hidePopover());
  feed.start();
  outbox.run();
}

main();
