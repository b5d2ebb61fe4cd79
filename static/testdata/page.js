import { subscribe, publish, pending, members } from '/sluice.js';

// What the subscription is told, as text of the page, for tests to read.
const asked = new URLSearchParams(location.search);
const log = [];
const show = (line) => {
  log.push(line);
  document.body.textContent = JSON.stringify(log);
};
const options = Object.fromEntries(['after', 'presence', 'token'].filter((name) => asked.has(name)).map((name) => [name, asked.get(name)]));
for (const name of ['patience', 'detour', 'last']) if (asked.has(name)) options[name] = Number(asked.get(name));

window.sluice = { subscribe, publish, pending, members };
window.handle = subscribe(asked.get('room').split(','), {
  ...options,
  onEvent: (e) => show(e.type === 'message' ? e.data : `${e.type}: ${e.data}`),
  onGap: (g) => show(`gap: ${g.reason}, ${g.missed} missed`),
  onPresence: (p) => show(`${p.type}: ${p.user}`),
  onState: (s) => {
    document.body.dataset.state = s.state;
    document.body.dataset.way = s.way;
    document.body.dataset.leader = s.leader;
  },
});
