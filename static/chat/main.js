// The demo chat: a page that uses a gateway by its browser client, as any page can.
//
//	/sluice.js ─ events, gaps ─→ Conversation, the list ←─ messages written, until answered
//	           ─ presence ─────→ People
//	           ─ state ────────→ Status
//	older pages ─→ History ─────→ Conversation          Place: what is in view; Unread: what was not
//
// The client sees to it that each event comes once and in order, that what is
// written arrives once, and that all tabs share a stream. What it cannot have
// any more it tells as a gap, and that stands in the conversation.

import { pending, publish, subscribe } from '/sluice.js';
import { setUpComposer, setUpMine } from './compose.js';
import { Conversation } from './conversation.js';
import { browser } from './dom.js';
import { History } from './history.js';
import { People } from './people.js';
import { Place } from './place.js';
import { roomAsked, setUpName, setUpSide } from './side.js';
import { Status } from './status.js';
import { Unread } from './unread.js';

const LATELY = 50; // events of history to begin with

const room = roomAsked();
setUpSide(room);
const me = setUpName(room, () => listen());
const mine = setUpMine(me);
const place = new Place();
const status = new Status(() => subscription.retry());
const talk = new Conversation({
  place,
  isMine: mine.has,
  waiting: () => status.waiting(),
  heard(ev, told, fresh) {
    unread.heard(ev, told, fresh);
    people.silent(told.sender);
  },
  again: send,
});
const people = new People(room, me, (item) => talk.insert(item));
const unread = new Unread({
  room,
  place,
  insert: (item) => talk.insert(item),
  last: browser.get('read')?.[room],
  remember: (id) => browser.set('read', Object.fromEntries([...Object.entries(browser.get('read') ?? {}).filter(([name]) => name !== room).slice(-50), [room, id]])),
});
const past = new History(room, talk, place);
place.seen = () => unread.read(talk.newest);

let subscription;
let lived = false; // what comes before the first stream is open is history

// listen follows the room under our name, from where we are.
function listen() {
  const after = subscription?.cursor;
  subscription?.close();
  subscription = subscribe(room, {
    ...(after ? { after } : { last: LATELY }),
    presence: me.name,
    onEvent: event,
    onGap: (gap) => talk.gap(gap),
    onPresence: (change) => people.moved(change),
    onState: state,
  });
}

function event(ev) {
  if (!ev.id && ev.type === 'typing') {
    people.typing(ev.data?.name);
    return;
  }
  talk.event(ev, lived);
  if (!lived) past.limits();
}

function state(at) {
  if (at.state === 'closed') return; // to go on under another name
  const { state: was, stream } = status.at;
  status.show(at);
  talk.explain();
  if (at.state !== 'live') return;
  if (was !== 'live' || stream !== at.stream) people.live(at.way);
  if (lived) return;
  lived = true;
  talk.changed();
  past.limits();
  past.restore();
}

// send publishes what was written, and shows it until the room does.
function send(key, data) {
  mine.add(key);
  talk.draft(key, data, Date.now(), publish(room, data, { key }));
}

setUpComposer((text) => {
  unread.answered();
  people.sent();
  const key = crypto.getRandomValues(new Uint32Array(4)).join('-');
  send(key, { name: me.name, text, key });
  place.toEnd();
}, () => people.iWrite(subscription.stream));

// What a reload has interrupted goes on; show it in the order it was written.
for (const item of await pending()) {
  if (item.room !== room || item.data?.key !== item.key) continue;
  mine.add(item.key);
  talk.draft(item.key, item.data, item.at, item.answer);
}
listen();
