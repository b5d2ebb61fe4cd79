// The nodes that have reported, and how each of them stands.
//
//	a report ─→ Node.take: samples ─→ Node.cells: which sample counts in which second
//	each second ─→ judge: serving, silent, gone; what changes is noted

import { count, el } from '/dashboard-charts.js';

const minutes = Number(new URLSearchParams(location.search).get('minutes')) || 5;
export const WINDOW = 60 * Math.min(15, Math.max(1, Math.round(minutes))); // seconds on screen
export const SILENT = 5_000; // a sample counts until the next one comes, but no longer
const GONE = 60_000;
const TONES = 8;

export const byId = (id) => document.getElementById(id);
export const clock = (t) => new Date(t).toLocaleTimeString();
export const sum = (list) => list.reduce((a, b) => a + b, 0);
export const most = (list) => (list.length ? Math.max(...list) : null);

export function say(text) { byId('said').textContent = text; }

export function span(ms) {
  const s = Math.max(0, Math.floor(ms / 1000));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  return s < 172_800 ? `${Math.floor(s / 3600)} h` : `${Math.floor(s / 86_400)} d`;
}

// note writes into the list of what happened, and says it to who listens.
export function note(text, tone) {
  const item = el('li', { className: tone }, el('time', { textContent: clock(Date.now()) }), el('span', { textContent: text }));
  byId('log').prepend(item);
  while (byId('log').children.length > 50) byId('log').lastChild.remove();
  byId('log-none').hidden = true;
  say(text);
  return item;
}

// put changes a text only if it is another, so that nothing is drawn or read again for nothing.
export function put(node, text) { if (node.textContent !== String(text)) node.textContent = text; }

// ---- nodes --------------------------------------------------------------------------------

export class Node {
  constructor(id, tone, samples = []) {
    Object.assign(this, { id, tone, samples, report: null, state: '', notes: {} });
  }

  // take keeps what a report says, by when it came: clocks of nodes may differ.
  take(report, t) {
    const before = this.samples.at(-1);
    const near = before && t - before.t < 10_000 ? before : null;
    const total = (counts) => sum(Object.values(counts));
    const { redis, publish_ms: publish, delivery_ms: delivery } = report;
    const s = {
      t, streams: report.streams, waiting: report.waiting, rooms: report.rooms, members: report.members,
      in: report.published.rate, out: report.delivered.rate, bytes: report.bytes.rate,
      p: [publish.count, publish.p50, publish.p99], d: [delivery.count, delivery.p50, delivery.p99],
      lag: redis && !redis.down_since ? redis.lag_ms : null, down: redis && (redis.down_since || redis.up < redis.servers) ? 1 : 0,
      all: [total(report.gaps), total(report.limits), report.catch_ups],
    };
    s.more = s.all.map((n, i) => Math.max(0, n - (near?.all[i] ?? n)));
    this.samples.push(s);
    if (s.more[0]) this.tell('gaps', s.more[0], 'bad', (n) => `told streams of ${n === 1 ? 'a gap' : `${count(n)} gaps`}: ${grown(this.report?.gaps, report.gaps)}`, report, t);
    if (s.more[1]) this.tell('limits', s.more[1], 'warn', (n) => `refused ${n === 1 ? 'a request' : `${count(n)} requests`}: ${grown(this.report?.limits, report.limits)}`, report, t);
    while (this.samples[0].t < t - 1000 * (WINDOW + 5)) this.samples.shift();
    this.report = report;
  }

  // tell notes what goes on for a while once a minute, and counts in that note.
  tell(kind, n, tone, words, report, t) {
    const told = this.notes[kind];
    if (!told?.item.isConnected || t - told.t > 60_000) {
      this.notes[kind] = { t, n, item: note(`${nameOf(this, report)} ${words(n)}`, tone) };
      return;
    }
    told.n += n;
    put(told.item.lastChild, `${nameOf(this, report)} ${words(told.n)}`);
  }

  get last() { return this.samples.at(-1)?.t ?? 0; }

  // cells gives, for each second up to end, the sample that counts then, and what is new in it.
  cells(end) {
    this.cell = new Array(WINDOW).fill(null);
    this.more = this.cell.map(() => [0, 0, 0]);
    let next = 0;
    let at = null;
    for (let i = 0; i < WINDOW; i++) {
      const t = end - 1000 * (WINDOW - 1 - i);
      for (; next < this.samples.length && this.samples[next].t <= t; next++) {
        at = this.samples[next];
        if (t - at.t < 1000) this.more[i] = this.more[i].map((n, k) => n + at.more[k]);
      }
      if (at && t - at.t < SILENT) this.cell[i] = at;
    }
  }

  values(name) { return this.cell.map((s) => s && s[name]); }
}

export const nodes = new Map(); // by id, also those that are gone, as long as the charts show them

export function nodeOf(id) {
  if (!nodes.has(id)) {
    const taken = new Set([...nodes.values()].map((n) => n.tone));
    let tone = 0;
    while (taken.has(tone) && tone < TONES - 1) tone++;
    nodes.set(id, new Node(id, taken.has(tone) ? nodes.size % TONES : tone));
  }
  return nodes.get(id);
}

// judge says how a node stands, to who has listened since liveSince; 0 while nobody does.
export function judge(node, now, liveSince) {
  const quiet = now - Math.max(node.last, liveSince || now);
  let { state } = node.report;
  if (state === 'ended' || quiet > GONE || (quiet > SILENT && succeeded(node))) state = 'gone';
  else if (quiet > SILENT) state = 'silent';
  else if (node.report.redis?.down_since) state = 'no Redis';
  if (state === node.state) return;
  if (state === 'gone' && !node.state) { // before the page was loaded anew
    node.state = state;
    return;
  }
  const what = {
    serving: node.state ? 'is back' : 'is there', draining: 'is shutting down', silent: 'is silent', 'no Redis': 'cannot reach Redis',
    gone: node.report.state === 'ended' ? 'has ended' : succeeded(node) ? 'runs anew' : 'is gone',
  }[state];
  note(`${nameOf(node)} ${what}`, { serving: 'good', silent: 'bad', 'no Redis': 'bad' }[state] ?? 'warn');
  node.state = state;
}

// succeeded says that a younger process has a node's name, as after a restart.
function succeeded({ last, report: { node } }) {
  return [...nodes.values()].some((n) => n.last > last && n.report?.node.name === node.name && n.report.node.started > node.started);
}

// grown names the counts that have.
const grown = (before, after) => Object.keys(after).filter((k) => after[k] > (before?.[k] ?? 0)).join(', ');

export function nameOf(node, report = node.report) {
  const { name, id } = report.node;
  const twice = [...nodes.values()].some((n) => n !== node && n.state !== 'gone' && n.report?.node.name === name);
  return twice || !name ? `${name || 'node'} ${id.slice(0, 4).toLowerCase()}` : name;
}
