// Where we write, and how what we wrote is known again as ours.

import { browser, byId } from './dom.js';

// setUpComposer calls said(text) for each message written, and writing() while one is.
export function setUpComposer(said, writing) {
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
    said(text);
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
  field.addEventListener('input', () => {
    fit();
    if (field.value.trim()) writing();
  });
  fit();
  if (matchMedia('(hover: hover)').matches) field.focus(); // on a phone it would raise the keyboard
}

// setUpMine knows which messages were written here: by their keys, which nobody can know
// before we sent them. Two tabs under two names are two people.
export function setUpMine(me) {
  const kept = () => new Set([browser.get('sent') ?? []].flat());
  const here = new Set();
  let mine = kept();
  addEventListener('storage', () => { mine = kept(); });
  return {
    add(key) {
      here.add(key);
      mine.add(key);
      browser.set('sent', [...mine].slice(-500));
    },
    has: ({ key, sender }) => here.has(key) || (mine.has(key) && sender === me.name),
  };
}
