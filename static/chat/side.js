// The side of the page: the rooms, who we are, and how to join from a terminal.

import { browser, byId, copies, el, tab } from './dom.js';
import { clean } from './event.js';
import { paint } from './message.js';

const ROOM_NAME = /^[A-Za-z0-9][A-Za-z0-9_.:@~-]{0,127}$/;

// roomAsked reads the room from the address, and puts right an address without one.
export function roomAsked() {
  const asked = new URLSearchParams(location.search).get('room') ?? '';
  if (ROOM_NAME.test(asked)) return asked;
  history.replaceState(null, '', '/?room=lobby');
  return 'lobby';
}

function showRooms(room) {
  const known = [browser.get('rooms') ?? []].flat().filter((name) => ROOM_NAME.test(name) && name !== room);
  const recent = [room, ...known].slice(0, 8);
  browser.set('rooms', recent);
  const shown = recent.includes('lobby') ? recent : [...recent, 'lobby'];
  for (const name of shown.sort()) {
    const link = el('a', { href: `/?room=${name}` }, el('span', { className: 'hash', attrs: { 'aria-hidden': 'true' } }, '#'), el('bdi', {}, name));
    if (name === room) link.setAttribute('aria-current', 'page');
    byId('rooms').append(el('li', {}, link));
  }
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

// setUpSide fills what does not depend on the connection.
export function setUpSide(room) {
  byId('room').textContent = room;
  showRooms(room);
  showHints(room);
  copies(byId('share'), () => `${location.origin}/?room=${room}`);
  matchMedia('(min-width: 45rem)').addEventListener('change', () => byId('side').hidePopover());
}

// ownName is who we are: in this tab, else in this browser, else somebody friendly.
function ownName() {
  const kinds = 'Amber Brave Bright Calm Clever Curious Gentle Golden Happy Jolly Kind Lucky Merry Mellow Nimble Patient Quiet Silver Sunny Swift'.split(' ');
  const beings = 'Badger Beaver Crane Curlew Dipper Dolphin Egret Frog Heron Kingfisher Loon Newt Otter Pelican Plover Puffin Salmon Seal Swan Teal'.split(' ');
  const any = (list) => list[Math.floor(Math.random() * list.length)];
  return clean(tab.get('name')) || clean(browser.get('name')) || `${any(kinds)} ${any(beings)}`;
}

function keepName(name) {
  tab.set('name', name);
  browser.set('name', name);
}

// setUpName makes the name editable, and gives back who is writing at any time.
// renamed() is called when a name has been decided on.
export function setUpName(room, renamed) {
  const field = byId('name');
  const me = { name: ownName() };
  const show = () => {
    paint(byId('face'), me.name);
    byId('composer').placeholder = `Message #${room} as ${me.name}`;
  };
  keepName(me.name);
  field.value = me.name;
  field.addEventListener('input', () => paint(byId('face'), clean(field.value) || me.name));
  field.addEventListener('change', () => {
    const name = clean(field.value) || me.name;
    field.value = name;
    if (name === me.name) return;
    me.name = name;
    keepName(name);
    show();
    renamed();
  });
  field.addEventListener('keydown', (e) => {
    if (e.key !== 'Enter' || e.isComposing) return;
    field.dispatchEvent(new Event('change'));
    byId('composer').focus();
  });
  show();
  return me;
}
