// What events say, in words: any event, whoever made it.

const weekday = new Intl.DateTimeFormat('en', { weekday: 'long', day: 'numeric', month: 'long' });
const longAgo = new Intl.DateTimeFormat('en', { day: 'numeric', month: 'long', year: 'numeric' });
const clock = new Intl.DateTimeFormat(undefined, { hour: 'numeric', minute: '2-digit' });
const moment = new Intl.DateTimeFormat(undefined, { dateStyle: 'full', timeStyle: 'medium' });

export const timeOf = (date) => clock.format(date);
export const momentOf = (date) => moment.format(date);
export const midnight = (date) => new Date(date).setHours(0, 0, 0, 0);

export function dayName(date) {
  const days = Math.round((midnight(Date.now()) - midnight(date)) / 86_400_000);
  if (days === 0) return 'Today';
  if (days === 1) return 'Yesterday';
  return (days > 0 && days < 300 ? weekday : longAgo).format(date);
}

// position reads <epoch>-<seq>.
export function position(id) {
  const [, epoch, seq] = /^([0-9a-z]{1,16})-([0-9]{1,16})$/.exec(id ?? '') ?? [];
  return epoch === undefined ? null : { epoch, seq: Number(seq) };
}

// isBehind says that one position comes after another of the same history.
export function isBehind(id, other) {
  const [a, b] = [position(id), position(other)];
  return Boolean(a && b) && a.epoch === b.epoch && a.seq > b.seq;
}

const bytes = new TextEncoder();

// clean makes a name fit to stand in a line: no controls, nothing that turns the
// text around, and no longer than a member's name may be.
export function clean(name) {
  if (typeof name !== 'string') return '';
  const plain = name.replace(/[\s\p{Cc}\u200e\u200f\u2028-\u202e\u2066-\u2069]+/gu, ' ').trim();
  const chars = [...plain].slice(0, 40);
  while (bytes.encode(chars.join('')).length > 64) chars.pop();
  return chars.join('').trim();
}

// pretty writes JSON in one line where it fits a phone, else in many.
function pretty(data) {
  const line = JSON.stringify(data);
  return line.length <= 36 ? line : JSON.stringify(data, null, 2);
}

// tell reads an event of whatever make: ours, a line from curl, JSON, another type.
export function tell(ev) {
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
export function hue(name) {
  let hash = 2166136261;
  for (const char of name) hash = Math.imul(hash ^ char.codePointAt(0), 16777619);
  hash = Math.imul(hash ^ (hash >>> 16), 0x45d9f3b);
  return ((hash ^ (hash >>> 13)) >>> 0) % 12 * 30 + 10;
}

export function initials(name) {
  const words = name.split(/\s+/).filter(Boolean);
  const ends = words.length > 1 ? [words[0], words.at(-1)] : words;
  return ends.map((word) => [...word][0]).join('').toUpperCase();
}

// named lists names in a sentence, the last ones by their number where they are many.
export function named(names, most = 3) {
  if (names.length > most) return `${names.slice(0, most - 1).join(', ')} and ${names.length - most + 1} others`;
  return names.length < 2 ? names.join() : `${names.slice(0, -1).join(', ')} and ${names.at(-1)}`;
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

// gapText says how many messages are missing, where that is known, and why.
export function gapText({ reason, missed }) {
  const [any, one, many] = GAPS[reason] ?? ['Messages may be missing here'];
  if (!one || !(missed > 0)) return any;
  return missed === 1 ? `1 ${one}` : `${missed} ${many}`;
}
