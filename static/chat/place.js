// Where in the conversation the reader is: at the end, which then stays in
// view, or further up, where nothing may move.

import { byId, plural } from './dom.js';

export class Place {
  constructor() {
    this.scroller = byId('scroll');
    this.pinned = true; // whether the end is in view and shall stay there
    this.below = 0; // messages that arrived below the part in view
    this.seen = () => {}; // told when the end is in view
    this.#watch();
  }

  // follow keeps the end in view, once a frame however much arrived.
  follow() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      this.#settle();
    });
  }

  // toEnd brings the newest message into view.
  toEnd() {
    this.pinned = true;
    this.follow();
  }

  // passed: a message arrived at the end.
  passed() {
    if (!this.pinned) this.below += 1;
    this.#jump();
  }

  // keep leaves in view what is in view, whatever `change` puts above it.
  keep(change) {
    const { scrollHeight, scrollTop } = this.scroller;
    change();
    this.scroller.scrollTop = this.top = scrollTop + this.scroller.scrollHeight - scrollHeight;
  }

  // first is the message at the upper edge of the view, and how far above it stands; null at the end.
  first() {
    if (this.pinned) return null;
    const edge = this.scroller.getBoundingClientRect().top;
    for (const item of this.scroller.querySelectorAll('.message[data-id]')) {
      const { top, bottom } = item.getBoundingClientRect();
      if (bottom > edge) return { id: item.dataset.id, offset: Math.round(top - edge) };
    }
    return null;
  }

  // show brings a message to where it was.
  show(item, offset) {
    this.pinned = false;
    const { top } = item.getBoundingClientRect();
    this.scroller.scrollTop += top - this.scroller.getBoundingClientRect().top - offset;
    this.top = this.scroller.scrollTop;
    this.#jump();
  }

  #watch() {
    this.top = 0;
    this.scroller.addEventListener('scroll', () => {
      const { scrollTop, scrollHeight, clientHeight } = this.scroller;
      const near = scrollHeight - scrollTop - clientHeight < 80;
      // Only the reader scrolls up; new messages alone never unpin.
      if (scrollTop < this.top - 2 && !near) this.pinned = false;
      else if (near && !this.pinned) this.toEnd();
      this.top = scrollTop;
      this.#jump();
    }, { passive: true });
    new ResizeObserver(() => this.follow()).observe(this.scroller);
    document.addEventListener('visibilitychange', () => this.#settle());
    byId('jump').onclick = () => {
      this.toEnd();
      byId('composer').focus(); // the button is gone
    };
  }

  #settle() {
    if (this.pinned) {
      this.scroller.scrollTop = this.scroller.scrollHeight;
      this.top = this.scroller.scrollTop; // so that a reader who scrolls up before the event is noticed
    }
    if (this.pinned && !document.hidden) this.seen();
    this.#jump();
  }

  #jump() {
    if (this.pinned) this.below = 0;
    byId('jump').hidden = this.pinned;
    byId('jump').textContent = this.below ? plural(this.below, 'new message') : 'Newest messages';
  }
}
