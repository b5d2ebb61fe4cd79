// Counts visits while they happen. A visit is an event of the type `visit` in
// the room `visits`; its data is {"page": "/prices"}. This page makes one of its
// own when it is opened; whatever can POST makes others.
//
// The counts are drawn anew at each load, from what the room keeps, so nothing
// is stored here and every viewer sees the same.

// The gateway's address: the only thing to change.
import { publish, subscribe } from 'http://127.0.0.1:8080/sluice.js';

const room = 'visits';
const visits = new Map(); // by page
let forgotten = 0; // visits that the room keeps no more, or that nobody can name

subscribe(room, {
  after: 'earliest',
  types: ['visit'],
  onEvent: ({ data }) => {
    const page = typeof data?.page === 'string' ? data.page : 'elsewhere';
    visits.set(page, (visits.get(page) ?? 0) + 1);
    draw();
  },
  // Never in silence: where events can be had no more, the gateway says how many.
  onGap: ({ missed }) => {
    forgotten += missed ?? 0;
    draw();
  },
  onState: ({ state }) => {
    document.querySelector('#state').textContent = state;
  },
});

// A reload is no visit.
if (!sessionStorage.getItem('counted')) {
  await publish(room, { page: location.pathname }, { type: 'visit' });
  sessionStorage.setItem('counted', 'yes');
}

function draw() {
  let total = forgotten;
  const rows = [...visits].sort(([, a], [, b]) => b - a).map(([page, count]) => {
    total += count;
    const row = document.createElement('tr');
    row.append(cell(page), cell(count));
    return row;
  });
  document.querySelector('#pages').replaceChildren(...rows);
  document.querySelector('#total').textContent = total;
}

// cell makes text, never markup: strangers may POST what they like.
function cell(text) {
  const td = document.createElement('td');
  td.textContent = text;
  return td;
}
