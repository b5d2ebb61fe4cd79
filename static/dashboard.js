// The dashboard: all nodes of a gateway, from one stream.
//
//	/sluice.js: room @stats ─→ Node.take (dashboard-nodes.js)
//	each second             ─→ Node.cells ─→ charts (dashboard-charts.js), tables, totals
//	a click on a room       ─→ Inspector (dashboard-room.js)
//
// Nothing is asked for again and again: each node says once a second how it
// does, while somebody looks. A node that says nothing for five seconds is
// silent; for a minute, it is gone.

import { subscribe } from '/sluice.js';
import { Board, bytes, count, el, millis, rate, spark } from '/dashboard-charts.js';
import { byId, clock, judge, most, nameOf, Node, nodeOf, nodes, put, say, SILENT, span, sum, WINDOW } from '/dashboard-nodes.js';
import { Inspector } from '/dashboard-room.js';

const TOP = 10; // rooms listed

// tab is sessionStorage, where the browser lets us: a token and the charts outlive a reload, and nothing else.
const tab = {
  get(name) {
    try { return JSON.parse(sessionStorage.getItem(`sluice.dashboard.${name}`)); } catch { return null; }
  },
  set(name, value) {
    try { sessionStorage.setItem(`sluice.dashboard.${name}`, JSON.stringify(value)); } catch { /* full, or forbidden */ }
  },
};

// ---- charts and totals --------------------------------------------------------------------

const board = new Board(WINDOW, say);
const charts = {
  streams: board.chart({ id: 'streams', title: 'Streams', kind: 'area', format: count, least: 4 }),
  in: board.chart({ id: 'in', title: 'Events in', kind: 'area', format: rate, unit: '/s', least: 4 }),
  out: board.chart({ id: 'out', title: 'Events out', kind: 'area', format: rate, unit: '/s', least: 4 }),
  bytes: board.chart({ id: 'bytes', title: 'Bytes out', kind: 'area', format: bytes, unit: '/s', least: 1000 }),
  publish: board.chart({ id: 'publish', title: 'Publish latency', kind: 'line', format: millis, least: 1 }),
  delivery: board.chart({ id: 'delivery', title: 'Delivery latency', kind: 'line', format: millis, least: 1 }),
  redis: board.chart({ id: 'redis', title: 'Redis lag', kind: 'line', format: millis, least: 1 }),
  trouble: board.chart({ id: 'trouble', title: 'Gaps, limits, catch-ups', kind: 'bar', format: count, least: 4 }),
};
byId('charts').append(...Object.values(charts).map((c) => c.figure));

// latency joins what nodes say: half by how much each had to do, the slowest hundredth by the slowest node.
function latency(all, name) {
  const half = [];
  const tail = [];
  for (let i = 0; i < WINDOW; i++) {
    const there = all.map((n) => n.cell[i]?.[name]).filter((l) => l?.[0]);
    const n = sum(there.map((l) => l[0]));
    half.push(n ? sum(there.map((l) => l[0] * l[1])) / n : null);
    tail.push(most(there.map((l) => l[2])));
  }
  return [{ name: 'p50', tone: 't1', values: half }, { name: 'p99', tone: 't0', values: tail }];
}

function drawCharts(all) {
  const stack = (name) => all.map((n) => ({ name: nameOf(n), tone: `t${n.tone}`, values: n.values(name) }));
  for (const name of ['streams', 'in', 'out', 'bytes']) charts[name].draw(stack(name));
  charts.publish.draw(latency(all, 'p'));
  charts.delivery.draw(latency(all, 'd'));
  const seconds = Array.from({ length: WINDOW }, (_, i) => i);
  const lags = seconds.map((i) => most(all.map((n) => n.cell[i]?.lag ?? null).filter((v) => v !== null)));
  const down = seconds.map((i) => (all.some((n) => n.cell[i]?.down) ? 1 : 0));
  const linked = all.some((n) => n.report.redis);
  const now = !linked ? 'rooms are in memory' : down.at(-1) ? 'out of reach' : undefined;
  charts.redis.draw(linked ? [{ name: 'slowest node', tone: 't0', values: lags }] : [], { bands: [{ tone: 'bad', values: down }], now });
  const fresh = (k) => seconds.map((i) => (all.some((n) => n.cell[i]) ? sum(all.map((n) => n.more[i][k])) : null));
  const trouble = [['gaps', 'bad'], ['limits', 'warn'], ['catch-ups', 'calm']].map(([name, tone], k) => ({ name, tone, values: fresh(k) }));
  charts.trouble.draw(trouble, { now: count(sum(trouble.slice(0, 2).flatMap((s) => s.values))) });
}

const tiles = [
  ['nodes', 'Nodes'], ['streams', 'Streams'], ['rooms', 'Rooms'], ['members', 'Members'],
  ['in', 'Events in', '/s'], ['out', 'Events out', '/s'], ['p99', 'Delivery p99'], ['waiting', 'Streams waiting'],
].map(([id, title, unit = '']) => {
  const value = el('dd', { dataset: { testid: `total-${id}` } }, el('b', { textContent: '–' }), el('span', { textContent: unit }));
  const note = value.lastChild;
  byId('totals').append(el('div', {}, el('dt', { textContent: title }), value));
  return { id, unit, value: value.firstChild, note };
});

function drawTotals(listed) {
  const there = listed.map((n) => n.cell.at(-1)).filter(Boolean);
  const add = (name) => sum(there.map((s) => s[name]));
  const tail = most(charts.delivery.series.at(-1)?.values.slice(-5).filter((v) => v !== null) ?? []);
  const silent = listed.filter((n) => n.state === 'silent').length;
  const values = {
    nodes: listed.length - silent, streams: count(add('streams')), rooms: count(most(there.map((s) => s.rooms)) ?? 0), members: count(add('members')),
    in: rate(add('in')), out: rate(add('out')), p99: tail === null ? '–' : millis(tail), waiting: count(add('waiting')),
  };
  for (const { id, value, note, unit } of tiles) {
    put(value, there.length || id === 'nodes' ? values[id] : '–');
    if (id === 'nodes') put(note, silent ? `${silent} silent` : unit);
    if (id === 'nodes') note.className = silent ? 'bad' : '';
  }
}

// ---- tables -------------------------------------------------------------------------------

const columns = [
  ['Node', null], ['State', null],
  ['Streams', (s) => count(s.streams), (n) => n.values('streams')],
  ['In/s', (s) => rate(s.in), (n) => n.values('in')],
  ['Out/s', (s) => rate(s.out), (n) => n.values('out')],
  ['Delivery p99', (s) => (s.d[0] ? millis(s.d[2]) : '–'), (n) => n.cell.map((c) => (c?.d[0] ? c.d[2] : null))],
  ['Redis lag', (s) => (s.lag === null ? '–' : millis(s.lag))],
  ['Waiting', (s) => count(s.waiting)],
  ['Gaps', (s) => count(s.all[0])],
  ['Memory', (s, n) => bytes(n.report.memory)],
];
byId('nodes-head').append(...columns.map(([title]) => el('th', { textContent: title, scope: 'col', attrs: { role: 'columnheader' } })));

function newNodeRow(node) {
  const cells = columns.slice(2).map(([title, , line]) => {
    const value = el('span', { className: 'value' });
    const cell = el('td', { dataset: { title }, attrs: { role: 'cell' } }, value);
    if (line) {
      const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
      svg.setAttribute('class', `spark t${node.tone}`);
      svg.setAttribute('aria-hidden', 'true');
      cell.append(svg);
    }
    return cell;
  });
  const name = el('bdi');
  const about = el('small');
  const state = el('span', { className: 'badge', dataset: { testid: 'node-state' } });
  const row = el('tr', { dataset: { testid: 'node', id: node.id }, attrs: { role: 'row' } },
    el('th', { scope: 'row', className: `key t${node.tone}`, attrs: { role: 'rowheader' } }, name, about),
    el('td', { dataset: { title: 'State' }, attrs: { role: 'cell' } }, state), ...cells);
  node.row = { row, name, about, state, cells };
  return node.row;
}

function drawNodes(listed, now) {
  listed.sort((a, b) => nameOf(a).localeCompare(nameOf(b), undefined, { numeric: true }));
  for (const node of listed) {
    const { row, name, about, state, cells } = node.row ?? newNodeRow(node);
    row.dataset.state = node.state;
    row.dataset.name = node.report.node.name;
    put(name, nameOf(node));
    put(about, `up ${span(now - Date.parse(node.report.node.started))}${/^v/.test(node.report.node.version) ? `, ${node.report.node.version.split(' ')[0]}` : ''}`);
    put(state, node.state === 'silent' ? `silent for ${span(now - node.last)}` : node.state);
    const sample = node.samples.at(-1);
    columns.slice(2).forEach(([, value, line], i) => {
      put(cells[i].firstChild, value(sample, node));
      if (line) spark(cells[i].lastChild, line(node));
    });
  }
  arrange(byId('nodes'), listed.map((n) => n.row.row));
  byId('nodes-none').hidden = listed.length > 0;
}

// arrange brings rows into order, and moves none that stands right: a row that moves loses the focus.
function arrange(body, rows) {
  for (const row of [...body.children]) if (!rows.includes(row)) row.remove();
  rows.forEach((row, i) => { if (body.children[i] !== row) body.insertBefore(row, body.children[i] ?? null); });
}

const rooms = new Map(); // by name: {rate, streams, members, row}
let sortBy = 'rate';

// hearRooms takes the busiest rooms of all nodes together. Each node sees all events of a room, but its own streams only.
function hearRooms(listed, end) {
  const seen = new Map();
  for (const node of listed) {
    if (end - node.last > SILENT) continue;
    for (const { room, rate: r, streams, members } of node.report.busiest) {
      const s = seen.get(room) ?? { rate: 0, streams: 0, members: 0 };
      seen.set(room, { rate: Math.max(s.rate, r), streams: s.streams + streams, members: s.members + members });
    }
  }
  for (const name of seen.keys()) if (!rooms.has(name)) rooms.set(name, { name, rate: 0, ...newRoomRow(name) });
  for (const [name, room] of rooms) {
    const { rate: r = 0, ...rest } = seen.get(name) ?? { streams: 0, members: 0 };
    Object.assign(room, rest, { rate: room.rate + (r - room.rate) * 0.3 }); // so that the order does not jump
    if (room.rate < 0.05) room.rate = 0;
    if (!seen.has(name) && !room.rate) {
      room.row.remove();
      rooms.delete(name);
    }
  }
}

function newRoomRow(name) {
  const row = el('tr', { dataset: { testid: 'room', room: name }, attrs: { role: 'row' } },
    el('th', { scope: 'row', attrs: { role: 'rowheader' } }, el('button', { type: 'button', className: 'room', dataset: { testid: 'inspect' } }, el('bdi', { textContent: name }))),
    ...['Events/s', 'Streams', 'Members'].map((title) => el('td', { dataset: { title }, attrs: { role: 'cell' } })));
  row.querySelector('button').addEventListener('click', () => inspector.open(name));
  return { row };
}

function drawRooms() {
  const body = byId('rooms');
  const order = [...rooms.values()].sort((a, b) => b[sortBy] - a[sortBy] || b.rate - a.rate || b.streams - a.streams || (a.name < b.name ? -1 : 1)).slice(0, TOP);
  const top = Math.max(1e-9, ...order.map((r) => r[sortBy]));
  for (const room of order) {
    const [, r, streams, members] = room.row.children;
    put(r, rate(room.rate < 10 ? Math.round(room.rate * 10) / 10 : Math.round(room.rate)));
    put(streams, count(room.streams));
    put(members, count(room.members));
    room.row.style.setProperty('--part', `${100 * room[sortBy] / top}%`);
  }
  // Under a hand or the focus nothing moves.
  const held = body.matches(':hover') || body.contains(document.activeElement);
  if (!held || order.some((r) => !r.row.isConnected)) arrange(body, order.map((r) => r.row));
  byId('rooms-none').hidden = order.length > 0;
}

for (const by of ['rate', 'streams']) {
  byId(`by-${by}`).addEventListener('click', () => {
    sortBy = by;
    for (const other of ['rate', 'streams']) byId(`by-${other}-head`).toggleAttribute('aria-sort', false);
    byId(`by-${by}-head`).setAttribute('aria-sort', 'descending');
    drawRooms();
  });
}

// ---- each second --------------------------------------------------------------------------

function tick() {
  const now = Date.now();
  const end = board.end = now - now % 1000;
  for (const [id, node] of nodes) {
    if (node.report) judge(node, now, liveSince);
    if (end - node.last > 1000 * WINDOW && node.state === 'gone') nodes.delete(id);
  }
  if (document.hidden) return;
  const all = [...nodes.values()].filter((n) => n.report);
  const listed = all.filter((n) => n.state !== 'gone');
  for (const node of all) node.cells(end);
  hearRooms(listed, now);
  drawCharts(all);
  drawTotals(listed);
  drawNodes(listed, now);
  drawRooms();
  warn(listed);
}

function warn(listed) {
  const banner = byId('banner');
  const cut = listed.filter((n) => n.state === 'no Redis');
  banner.hidden = !cut.length && !degraded && !held;
  if (banner.hidden) return;
  if (held) {
    put(banner, 'Something between this browser and the gateway holds streams back, and reports come over streams only. See: sluice doctor.');
    return;
  }
  const since = cut.length ? ` since ${clock(Math.min(...cut.map((n) => Date.parse(n.report.redis.down_since))))}` : '';
  const who = cut.length ? ` of ${cut.map((n) => nameOf(n)).join(', ')}` : '';
  put(banner, `Redis is out of reach${who}${since}. Publications are refused and streams stand still; nodes that report through it are silent.`);
}

const beat = () => {
  setTimeout(beat, 1000 - Date.now() % 1000 + 20);
  tick();
};

// ---- the stream ---------------------------------------------------------------------------

let token = tab.get('token') || undefined;
let stream;
let liveSince = 0;
let degraded = false;
let held = false; // a proxy holds streams back, so that the client polls

const inspector = new Inspector(() => token);

function hear({ type, data }) {
  if (type !== 'stats' || !data?.node?.id) return;
  const node = nodeOf(data.node.id);
  const first = !node.report;
  node.take(data, Date.now());
  if (first) tick();
}

function listen() {
  stream?.close();
  stream = subscribe('@stats', { after: 'latest', share: false, token, onEvent: hear, onState: stands });
}

const names = { live: 'Live', connecting: 'Connecting', reconnecting: 'Reconnecting', offline: 'Offline', denied: 'Not allowed' };

function stands(s) {
  if (s.state === 'closed') return;
  if (s.state !== 'live') liveSince = 0;
  else liveSince ||= Date.now();
  degraded = !!s.degraded;
  held = s.way === 'poll';
  const pill = byId('state');
  pill.dataset.state = s.state;
  put(pill, names[s.state]);
  const denied = s.state === 'denied';
  if (denied) ask(s);
  else if (s.state === 'live') byId('gate').hidden = true;
  byId('board').hidden = !byId('gate').hidden;
  byId('forget').hidden = !token;
}

// ask says why the reports cannot be read, and takes a token.
function ask({ status, error }) {
  const why = status === 401 && !token ? 'It shows what all nodes and rooms do, and needs a token with the right to administer.'
    : status === 401 ? 'The token is not valid, or has ended.'
      : token ? 'The token has not the right to read the reports of the nodes.'
        : error || 'You may not read the reports of the nodes.';
  put(byId('gate-why'), why);
  byId('gate').hidden = false;
  byId('token').focus();
}

byId('gate').addEventListener('submit', (e) => {
  e.preventDefault();
  token = byId('token').value.trim();
  byId('token').value = '';
  tab.set('token', token);
  listen();
});

byId('forget').addEventListener('click', () => {
  token = undefined;
  tab.set('token', null);
  tab.set('nodes', null);
  nodes.clear();
  rooms.clear();
  listen();
});

byId('find').addEventListener('submit', (e) => {
  e.preventDefault();
  inspector.open(byId('find-room').value);
  byId('find').reset();
});

// The charts outlive a reload.
addEventListener('pagehide', () => tab.set('nodes', [...nodes.values()].map(({ id, tone, samples, report }) => ({ id, tone, samples, report }))));
for (const { id, tone, samples, report } of tab.get('nodes') ?? []) {
  if (report && samples.length && Date.now() - samples.at(-1).t < 1000 * WINDOW) {
    nodes.set(id, Object.assign(new Node(id, tone, samples), { report }));
  }
}

addEventListener('visibilitychange', tick);
setInterval(() => board.describe(), 10_000);
listen();
beat();
board.describe();
const asked = new URLSearchParams(location.hash.slice(1)).get('room');
if (asked) inspector.open(asked);
