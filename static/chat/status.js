// How the connection is doing: a word always, a sentence when there is trouble.

import { byId, say } from './dom.js';

const REFUSED = {
  401: 'You may not read this room: sign in where you came from, then load this page again.',
  403: 'You may not read this room: sign in where you came from, then load this page again.',
  204: 'You were sent away from here.',
};

export class Status {
  constructor(retry) {
    this.at = { state: 'connecting' };
    byId('banner-go').onclick = retry;
  }

  // show takes what the subscription says of itself.
  show(at) {
    const was = this.at.state;
    this.at = at;
    if (was !== at.state && at.state === 'offline') say('Offline');
    if (was !== 'connecting' && was !== at.state && at.state === 'live') say('Connected again');
    clearInterval(this.ticking);
    if (at.until) this.ticking = setInterval(() => this.#draw(), 500);
    this.#draw();
  }

  // waiting says what a message waits for.
  waiting() { return this.at.state === 'live' ? 'Sending' : 'Waiting for the connection'; }

  #draw() {
    const { state, until, way } = this.at;
    const left = until ? Math.max(1, Math.ceil((until - Date.now()) / 1000)) : 0;
    const words = { connecting: 'Connecting', live: 'Live', offline: 'Offline', denied: 'Refused', reconnecting: left ? `Reconnecting in ${left} s` : 'Reconnecting' };
    const pill = byId('state');
    pill.dataset.state = state;
    pill.dataset.way = way ?? '';
    if (pill.textContent !== words[state]) pill.textContent = words[state];
    pill.title = way === 'poll' ? 'Streams do not get through here; going by long poll' : '';
    this.#banner();
  }

  #banner() {
    const text = this.#sentence();
    byId('banner').hidden = !text;
    if (byId('banner-text').textContent !== text) byId('banner-text').textContent = text;
    byId('banner-go').hidden = this.at.state !== 'reconnecting';
  }

  #sentence() {
    const { state, status, error, degraded } = this.at;
    if (state === 'denied') return REFUSED[status] ?? error ?? 'The gateway refuses.';
    if (state === 'offline') return 'You are offline. What you write is kept and sent later.';
    if (state === 'reconnecting') return 'The connection is lost. What you write is kept and sent later.';
    return degraded ? 'The gateway cannot reach its store. Messages may be late.' : '';
  }
}
