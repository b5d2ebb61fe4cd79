// Charts of the last minutes, drawn as SVG by hand.
//
//	board.draw(chart, series) ─→ Chart: areas, lines or bars, its scale and its words
//	pointer or arrow keys     ─→ Board.pick: the same second is read in all charts
//
// A chart is told values only, one a second, null where there is none. It sizes
// itself, and says in words what it shows.

const SVG = 'http://www.w3.org/2000/svg';
const PAD = { top: 8, right: 6, bottom: 18, left: 50 };

/** el makes an element. Children that are strings become text, never markup. */
export function el(tag, { dataset = {}, attrs = {}, ...props } = {}, ...children) {
  const node = Object.assign(document.createElement(tag), props);
  Object.assign(node.dataset, dataset);
  for (const [name, value] of Object.entries(attrs)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

function shape(tag, attrs = {}, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attrs)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

// ---- numbers as people read them ----------------------------------------------------------

const whole = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat('en', { notation: 'compact', maximumFractionDigits: 1 });
const fine = (n) => (n === 0 || n >= 100 ? whole.format(n) : n >= 10 ? n.toFixed(1).replace('.0', '') : n.toFixed(n < 1 ? 2 : 1).replace(/\.?0+$/, ''));

export const count = (n) => (n < 100_000 ? whole.format(n) : short.format(n));
export const rate = (n) => (n < 1000 ? fine(n) : count(n));
export const millis = (n) => (n >= 1000 ? `${fine(n / 1000)} s` : `${fine(n)} ms`);
export function bytes(n) {
  const unit = ['B', 'kB', 'MB', 'GB', 'TB'];
  let i = 0;
  for (; n >= 1000 && i < 4; i++) n /= 1000;
  return `${fine(n)} ${unit[i]}`;
}

// nice gives a round number that is not below n: the top of a scale.
function nice(n) {
  if (n <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(n));
  return [1, 1.5, 2, 3, 4, 5, 6, 8, 10].find((step) => step * power >= n * 0.999) * power;
}

/** spark draws values as a small line without a scale; it is the same for the eye, and words stand beside it. */
export function spark(svg, values) {
  const w = 72;
  const h = 20;
  if (!svg.firstChild) {
    svg.setAttribute('viewBox', `0 0 ${w} ${h}`);
    svg.setAttribute('preserveAspectRatio', 'none');
    svg.append(shape('path', { class: 'wash' }), shape('path', { class: 'line' }));
  }
  const top = Math.max(1e-9, ...values.filter((v) => v !== null)) * 1.1;
  const at = (v, i) => `${(i / (values.length - 1) * w).toFixed(1)} ${(h - 1 - v / top * (h - 2)).toFixed(1)}`;
  const [wash, line] = svg.children;
  line.setAttribute('d', runs(values).map((run) => `M${run.map(([i, v]) => at(v, i)).join('L')}h0`).join(''));
  wash.setAttribute('d', runs(values).map((run) => `M${run.map(([i, v]) => at(v, i)).join('L')}L${at(0, run.at(-1)[0])}L${at(0, run[0][0])}Z`).join(''));
}

// runs gives the stretches of values without a hole, as pairs of place and value.
function runs(values) {
  const all = [];
  values.forEach((v, i) => {
    if (v === null || Number.isNaN(v)) return;
    if (i && values[i - 1] !== null && all.length) all.at(-1).push([i, v]);
    else all.push([[i, v]]);
  });
  return all;
}

// ---- a chart ------------------------------------------------------------------------------

class Chart {
  // kind is area (stacked), line or bar; format makes words of a value.
  constructor(board, { id, title, kind, format, unit = '', least = 0 }) {
    Object.assign(this, { board, title, kind, format, unit, least, series: [], bands: [] });
    this.now = el('b', { dataset: { testid: 'now' } });
    this.legend = el('p', { className: 'legend' });
    this.svg = shape('svg', { role: 'img', tabindex: 0 });
    this.grid = shape('g', { class: 'grid' });
    this.marks = shape('g');
    this.labels = shape('g', { class: 'labels' });
    this.cursor = shape('g', { class: 'cursor' });
    this.svg.append(this.grid, this.marks, this.labels, this.cursor);
    this.figure = el('figure', { className: 'chart card', dataset: { testid: `chart-${id}`, points: '0' } },
      el('figcaption', {}, el('span', { textContent: title }), this.now), this.legend, this.svg);
    new ResizeObserver(([box]) => {
      this.width = box.contentRect.width;
      this.height = box.contentRect.height;
      this.svg.setAttribute('viewBox', `0 0 ${this.width} ${this.height}`);
      this.render();
    }).observe(this.svg);
    this.svg.addEventListener('pointermove', (e) => board.pick(this.placeAt(e.offsetX)));
    this.svg.addEventListener('pointerleave', () => board.pick(null));
    this.svg.addEventListener('blur', () => board.pick(null));
    this.svg.addEventListener('keydown', (e) => {
      const step = { ArrowLeft: -1, ArrowRight: 1, PageUp: -30, PageDown: 30, Home: -board.length, End: board.length }[e.key];
      if (!step) return;
      e.preventDefault();
      board.pick(Math.min(board.length - 1, Math.max(0, (board.picked ?? board.length - 1) + step)), this);
    });
  }

  // draw takes series, each {name, tone, values}, and bands, each a list of seconds in trouble.
  draw(series, { bands = [], now } = {}) {
    this.series = series;
    this.bands = bands;
    this.current = now;
    this.figure.dataset.points = Math.max(0, ...series.map((s) => s.values.filter((v) => v !== null).length));
    this.render();
  }

  x(i) { return PAD.left + i / (this.board.length - 1) * (this.width - PAD.left - PAD.right); }

  y(v) { return this.height - PAD.bottom - v / this.top * (this.height - PAD.top - PAD.bottom); }

  placeAt(x) {
    const i = Math.round((x - PAD.left) / (this.width - PAD.left - PAD.right) * (this.board.length - 1));
    return Math.min(this.board.length - 1, Math.max(0, i));
  }

  render() {
    if (!this.width) return;
    const stacked = this.kind !== 'line';
    let base = new Array(this.board.length).fill(0);
    const layers = this.series.map((s) => {
      if (!stacked) return { ...s, low: null, high: s.values };
      const low = base;
      const high = s.values.map((v, i) => (v === null ? null : low[i] + v));
      base = high.map((v, i) => v ?? low[i]);
      return { ...s, low, high };
    });
    this.top = nice(Math.max(this.least, ...layers.flatMap((l) => l.high.filter((v) => v !== null))));
    this.scale();
    this.marks.replaceChildren(
      ...this.bands.map((b) => shape('path', { class: `band ${b.tone}`, d: this.bandPath(b.values) })),
      ...layers.flatMap((l) => this.layer(l)),
    );
    this.point();
  }

  scale() {
    const right = this.width - PAD.right;
    const lines = [0, 0.5, 1].map((part) => shape('path', { class: part ? '' : 'floor', d: `M${PAD.left} ${this.y(part * this.top)}H${right}` }));
    const words = [0.5, 1].map((part) => {
      const t = shape('text', { x: PAD.left - 6, y: this.y(part * this.top) + 4, class: 'end' });
      t.textContent = this.format(part * this.top);
      return t;
    });
    const minutes = Math.round(this.board.length / 60);
    for (let m = minutes; m >= 0; m--) {
      const t = shape('text', { x: this.x(this.board.length - 1 - Math.min(60 * m, this.board.length - 1)), y: this.height - 4, class: m === minutes ? '' : m ? 'mid' : 'end' });
      t.textContent = m ? `−${m} min` : 'now';
      if (m === minutes || m === 0 || this.width > 260) words.push(t);
    }
    this.grid.replaceChildren(...lines);
    this.labels.replaceChildren(...words);
  }

  layer({ tone, low, high }) {
    if (this.kind === 'bar') return [shape('path', { class: `bar ${tone}`, d: this.barPath(low, high) })];
    const line = shape('path', { class: `line ${tone}`, d: runs(high).map((run) => `M${run.map(([i, v]) => `${this.x(i).toFixed(1)} ${this.y(v).toFixed(1)}`).join('L')}h0`).join('') }); // h0: a value alone is a dot
    if (!low) return [line];
    const area = runs(high).map((run) => {
      const up = run.map(([i, v]) => `${this.x(i).toFixed(1)} ${this.y(v).toFixed(1)}`);
      const down = run.toReversed().map(([i]) => `${this.x(i).toFixed(1)} ${this.y(low[i]).toFixed(1)}`);
      return `M${up.join('L')}L${down.join('L')}Z`;
    });
    return [shape('path', { class: `area ${tone}`, d: area.join('') }), line];
  }

  barPath(low, high) {
    const half = Math.max(1, (this.x(1) - this.x(0)) * 0.4);
    return high.map((v, i) => (v === null || v === low[i] ? '' : `M${(this.x(i) - half).toFixed(1)} ${this.y(v).toFixed(1)}h${(2 * half).toFixed(1)}V${this.y(low[i]).toFixed(1)}h${(-2 * half).toFixed(1)}Z`)).join('');
  }

  bandPath(values) {
    const half = (this.x(1) - this.x(0)) / 2;
    return runs(values.map((v) => v || null)).map((run) => `M${this.x(run[0][0]) - half} ${PAD.top}H${this.x(run.at(-1)[0]) + half}V${this.height - PAD.bottom}H${this.x(run[0][0]) - half}Z`).join('');
  }

  // point shows what the series are at the second that is picked, or now.
  point() {
    const { picked } = this.board;
    const some = picked !== null;
    this.cursor.replaceChildren(...(some ? [shape('path', { d: `M${this.x(picked)} ${PAD.top}V${this.height - PAD.bottom}` })] : []));
    const values = this.series.map((s) => (some ? s.values[picked] : s.values.findLast((v) => v !== null)) ?? null);
    const sum = values.reduce((a, b) => a + (b ?? 0), 0);
    const main = this.kind === 'line' ? values.at(-1) : sum;
    this.now.textContent = !some && this.current !== undefined ? this.current : values.every((v) => v === null) ? '–' : this.format(main) + this.unit;
    this.legend.replaceChildren(
      ...(some ? [el('time', { textContent: this.board.timeOf(picked) })] : []),
      ...this.series.map((s, i) => el('span', { className: `key ${s.tone}`, textContent: values[i] === null ? s.name : `${s.name} ${this.format(values[i])}` })),
    );
  }

  // words is the chart for who cannot see it.
  words() {
    const seen = this.kind === 'line' ? this.series.at(-1)?.values ?? [] : this.series[0]?.values.map((_, i) => this.series.reduce((a, s) => a + (s.values[i] ?? 0), 0)) ?? [];
    const there = seen.filter((v) => v !== null);
    if (!there.length) return `${this.title}: nothing yet`;
    const f = (v) => this.format(v) + this.unit;
    return `${this.title}: now ${this.now.textContent}; in the last minutes from ${f(Math.min(...there))} to ${f(Math.max(...there))}. Arrow keys read single seconds.`;
  }
}

/** Board is charts that share one time: length seconds, of which the last one ends at end. */
export class Board {
  constructor(length, say) {
    Object.assign(this, { length, say, charts: [], picked: null, end: Date.now() });
  }

  chart(options) {
    const chart = new Chart(this, options);
    this.charts.push(chart);
    return chart;
  }

  // pick has all charts read the same second. A chart that was asked by keys says it aloud.
  pick(place, by) {
    this.picked = place;
    for (const chart of this.charts) if (chart.width) chart.point();
    if (by) this.say(`${this.timeOf(place)}: ${[...by.legend.querySelectorAll('.key')].map((k) => k.textContent).join(', ')}`);
  }

  timeOf(place) { return new Date(this.end - 1000 * (this.length - 1 - place)).toLocaleTimeString(); }

  // describe renews the words of all charts, seldom enough not to disturb who listens.
  describe() {
    for (const chart of this.charts) chart.svg.setAttribute('aria-label', chart.words());
  }
}
