// A message on screen: an item of the list, made of what an event says.

import { el } from './dom.js';
import { hue, initials, momentOf, timeOf } from './event.js';

// paint makes of an element the round picture of a name.
export function paint(avatar, name, shell = false) {
  avatar.textContent = shell ? '>_' : initials(name);
  avatar.classList.toggle('shell', shell);
  avatar.style.setProperty('--hue', hue(name));
  return avatar;
}

export const avatarOf = (name, shell) => paint(el('span', { className: 'avatar', attrs: { 'aria-hidden': 'true' } }), name, shell);

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

function wordsOf(told) {
  const words = told.text === null
    ? el('pre', { textContent: told.json })
    : el('p', { className: 'words', dir: 'auto' }, ...linked(told.text));
  words.dataset.testid = 'text';
  if ((told.text ?? told.json).length > 1500) {
    words.classList.add('long');
    words.tabIndex = 0; // it scrolls
  }
  return words;
}

// build makes the item of what tell() read.
export function build(told, own) {
  const who = el('p', { className: 'who' }, el('bdi', { textContent: own ? 'You' : told.sender, dataset: { testid: 'sender' } }));
  if (told.subject) who.append(el('bdi', { className: 'tag', textContent: told.subject, title: 'Authenticated as' }));
  if (told.type) who.append(el('span', { className: 'tag', textContent: told.type, title: 'Type of the event' }));
  who.append(el('time', { dateTime: told.at.toISOString(), textContent: timeOf(told.at) }));
  const bubble = el('div', { className: 'bubble', title: momentOf(told.at) }, wordsOf(told));
  const item = el('li', { className: 'message tail', dataset: { testid: 'message', own } },
    avatarOf(told.sender, told.shell), who, bubble, el('p', { className: 'fate' }));
  item.style.setProperty('--hue', hue(told.sender));
  item.classList.toggle('own', own);
  item.classList.toggle('quiet', told.text?.trim() === '');
  return item;
}

// confirm takes from an item of ours that it was still under way.
export function confirm(item, at) {
  delete item.dataset.state;
  item.querySelector('.fate').replaceChildren();
  const time = item.querySelector('time');
  time.dateTime = at.toISOString();
  time.textContent = timeOf(at);
}

// wait shows that an item of ours is under way.
export function wait(item, text) {
  item.dataset.state = 'sending';
  item.querySelector('.fate').replaceChildren(text);
}

// fail shows why an item of ours did not arrive, and what can be done.
export function fail(item, why, again, drop) {
  const button = (testid, textContent, onclick) => el('button', { type: 'button', className: 'plain', dataset: { testid }, textContent, onclick });
  item.dataset.state = 'failed';
  item.querySelector('.fate').replaceChildren(
    el('span', { textContent: `Not sent: ${why}` }), button('retry', 'Try again', again), button('discard', 'Discard', drop));
}
