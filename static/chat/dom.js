// Small tools of the page. Whatever others wrote reaches it by textContent
// alone: there is no way from an event to markup.

export const byId = (id) => document.getElementById(id);
export const plural = (n, one, many = `${one}s`) => `${n} ${n === 1 ? one : many}`;

// el makes an element. Children that are strings become text nodes, never markup.
export function el(tag, { dataset = {}, attrs = {}, ...props } = {}, ...children) {
  const node = Object.assign(document.createElement(tag), props);
  Object.assign(node.dataset, dataset);
  for (const [name, value] of Object.entries(attrs)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

// store is localStorage or sessionStorage where the browser lets us, and forgets otherwise.
const store = (area) => ({
  get(name) {
    try { return JSON.parse(window[area].getItem(`sluice.${name}`)); } catch { return null; }
  },
  set(name, value) {
    try { window[area].setItem(`sluice.${name}`, JSON.stringify(value)); } catch { /* a private window, or full */ }
  },
});
export const browser = store('localStorage'); // shared by all tabs
export const tab = store('sessionStorage'); // this tab's, also after a reload

const spoken = [];
let saying;

// say tells screen readers, several things at once where they come at once.
export function say(text) {
  spoken.push(text);
  saying ??= setTimeout(() => {
    byId('said').textContent = spoken.length > 3 ? plural(spoken.length, 'new message') : spoken.join('\n');
    spoken.length = 0;
    saying = null;
  }, 400);
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

// copies makes a button that copies text() and says so.
export function copies(button, text) {
  button.addEventListener('click', async () => {
    const done = await copy(text());
    button.classList.toggle('done', done);
    say(done ? 'Copied' : 'It could not be copied');
    setTimeout(() => button.classList.remove('done'), 1500);
    button.focus();
  });
}
