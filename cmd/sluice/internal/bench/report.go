package bench

import (
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"
	"time"
)

// Report is what a run saw. Times in figures ending in _ms are milliseconds.
type Report struct {
	Subscribe string `json:"subscribe"`
	Publish   string `json:"publish,omitempty"`

	Rooms       int     `json:"rooms"`
	Publishers  int     `json:"publishers"`
	Payload     int     `json:"payload"`
	Rate        float64 `json:"rate"` // 0: flat out
	Interrupted bool    `json:"interrupted"`

	Streams   Streams   `json:"streams"`
	Published Published `json:"published"`
	Delivered Delivered `json:"delivered"`
	Latency   Quantiles `json:"latency_ms"` // message due to message read
	Verdict   Verdict   `json:"verdict"`

	Errors    map[string]int64 `json:"errors"` // by kind
	ClientCPU float64          `json:"client_cpu_seconds"`
}

// Streams is what became of the subscriptions.
type Streams struct {
	Wanted  int       `json:"wanted"`
	Opened  int64     `json:"opened"`  // before publishing began
	Resumed int64     `json:"resumed"` // reconnects while publishing
	Seconds float64   `json:"seconds"` // until the last one was open
	Connect Quantiles `json:"connect_ms"`
}

// Published is what publishers did in the measured part.
type Published struct {
	Count     int64     `json:"count"`    // accepted
	Refused   int64     `json:"refused"`  // certainly not taken, warm-up included
	InDoubt   int64     `json:"in_doubt"` // without a clear answer, warm-up included
	Seconds   float64   `json:"seconds"`
	PerSecond float64   `json:"per_second"`
	Answer    Quantiles `json:"answer_ms"` // request to answer
	Behind    float64   `json:"behind_ms"` // schedule, at worst; not flat out
}

// Delivered is what subscribers got of the measured part.
type Delivered struct {
	Count     int64   `json:"count"`
	Due       int64   `json:"due"` // by the messages accepted
	Seconds   float64 `json:"seconds"`
	PerSecond float64 `json:"per_second"`
}

// Quantiles of a duration, in milliseconds.
type Quantiles struct {
	P50 float64 `json:"p50"`
	P95 float64 `json:"p95"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

// Verdict counts the faults of the whole run, warm-up included, over all
// streams.
type Verdict struct {
	Lost      int64 `json:"lost"`      // accepted, and never delivered
	Announced int64 `json:"announced"` // by sluice.gap: lost, but not in silence
	Doubled   int64 `json:"doubled"`
	Reordered int64 `json:"reordered"` // came behind a later one of the same publisher
	Corrupt   int64 `json:"corrupt"`   // not as it was sent, or in another room
	Foreign   int64 `json:"foreign"`   // events of others; no fault
}

// Faultless says that nothing was lost, doubled, reordered or corrupt.
func (v Verdict) Faultless() bool {
	return v.Lost == 0 && v.Doubled == 0 && v.Reordered == 0 && v.Corrupt == 0
}

// OK says that the run measured what it was asked to, and found no fault.
func (r *Report) OK() bool {
	return r.Verdict.Faultless() && r.Streams.Opened == int64(r.Streams.Wanted) &&
		(r.Publish == "" || r.Published.Count > 0 || r.Interrupted)
}

// report puts the run's results together, after all its goroutines have ended.
func (r *run) report() *Report {
	rep := &Report{
		Subscribe: r.Config.Subscribe, Publish: r.Config.Publish,
		Rooms: r.Rooms, Publishers: r.Publishers, Payload: r.Payload, Rate: r.Rate, Interrupted: r.cut,
		Errors: r.errors, ClientCPU: round(r.cpu.Seconds()),
	}
	var all tally
	for _, in := range r.intakes {
		all.merge(&in.tally)
	}
	rep.Streams = Streams{Wanted: r.Streams, Resumed: r.resumed, Seconds: round(r.connected.Seconds()), Connect: millis(&all.connects)}
	for _, n := range r.subscribed {
		rep.Streams.Opened += n
	}
	rep.Latency = millis(&all.latency)
	rep.Verdict = Verdict{
		Lost: r.lost(), Announced: all.announced, Doubled: all.doubled,
		Reordered: all.reordered, Corrupt: all.corrupt, Foreign: all.foreign,
	}
	r.count(rep, &all)
	return rep
}

// count fills in what was published and delivered.
func (r *run) count(rep *Report, all *tally) {
	var answers histogram
	p, d := &rep.Published, &rep.Delivered
	for _, pub := range r.publishers {
		p.Count += pub.accepted
		p.Refused += pub.refused
		p.Behind = max(p.Behind, round(float64(pub.behind)/float64(time.Millisecond)))
		d.Due += pub.owed
		answers.merge(&pub.answers)
		for _, doubt := range pub.doubt {
			p.InDoubt += int64(len(doubt))
		}
	}
	p.Answer = millis(&answers)
	p.Seconds = round((r.end - r.begin).Seconds())
	p.PerSecond = rate(p.Count, r.end-r.begin)
	d.Count = all.delivered
	if all.last > 0 {
		d.Seconds = round((all.last - r.begin).Seconds())
		d.PerSecond = rate(d.Count, all.last-r.begin)
	}
}

func (t *tally) merge(o *tally) {
	t.latency.merge(&o.latency)
	t.connects.merge(&o.connects)
	t.delivered += o.delivered
	t.reordered += o.reordered
	t.doubled += o.doubled
	t.corrupt += o.corrupt
	t.foreign += o.foreign
	t.announced += o.announced
	t.last = max(t.last, o.last)
}

// lost adds up what the streams that were open from the beginning never got.
func (r *run) lost() (n int64) {
	for _, s := range r.streams {
		if s.opens == 0 {
			continue
		}
		for _, p := range r.publishers {
			n += s.ledger.lost(p.id, p.seq[s.room], p.doubt[s.room])
		}
	}
	return n
}

func millis(h *histogram) Quantiles {
	ms := func(d time.Duration) float64 { return round(float64(d) / float64(time.Millisecond)) }
	return Quantiles{ms(h.quantile(.5)), ms(h.quantile(.95)), ms(h.quantile(.99)), ms(h.max)}
}

func rate(n int64, d time.Duration) float64 {
	if d <= 0 {
		return 0
	}
	return math.Round(float64(n)/d.Seconds()*10) / 10
}

func round(v float64) float64 { return math.Round(v*1000) / 1000 }

// WriteText prints the report for people.
func (r *Report) WriteText(w io.Writer) error {
	var b strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "%-11s"+format+"\n", append([]any{name}, args...)...)
	}
	s, p, d := r.Streams, r.Published, r.Delivered
	line("streams", "%d of %d open after %.2f s; response head after %s", s.Opened, s.Wanted, s.Seconds, s.Connect)
	if s.Resumed > 0 {
		line("", "%d reconnects while publishing", s.Resumed)
	}
	if r.Publish != "" {
		line("published", "%d in %.2f s: %.1f/s; answered after %s", p.Count, p.Seconds, p.PerSecond, p.Answer)
		if p.Refused+p.InDoubt > 0 {
			line("", "%d refused, %d without a clear answer", p.Refused, p.InDoubt)
		}
		if r.Rate > 0 && p.Behind >= 10 {
			line("", "up to %.0f ms behind the schedule of %g/s", p.Behind, r.Rate)
		}
		line("delivered", "%d of %d due in %.2f s: %.1f/s", d.Count, d.Due, d.Seconds, d.PerSecond)
		line("latency", "%s", r.Latency)
	}
	for _, k := range slices.Sorted(maps.Keys(r.Errors)) {
		line("error", "%d x %s", r.Errors[k], k)
	}
	if hint := r.hint(); hint != "" {
		line("hint", "%s", hint)
	}
	line("verdict", "%s", r.sentence())
	_, err := io.WriteString(w, b.String())
	return err
}

// String says the quantiles in one line.
func (q Quantiles) String() string {
	return fmt.Sprintf("p50 %.2f, p95 %.2f, p99 %.2f, max %.2f ms", q.P50, q.P95, q.P99, q.Max)
}

// sentence is the verdict in words.
func (r *Report) sentence() string {
	v := r.Verdict
	var faults []string
	if missing := int64(r.Streams.Wanted) - r.Streams.Opened; missing > 0 {
		faults = append(faults, fmt.Sprintf("%d streams could not be opened", missing))
	}
	if v.Lost > 0 {
		faults = append(faults, fmt.Sprintf("%d deliveries lost (the gateway announced %d by sluice.gap)", v.Lost, v.Announced))
	}
	for _, f := range []struct {
		n    int64
		what string
	}{{v.Doubled, "doubled"}, {v.Reordered, "reordered"}, {v.Corrupt, "corrupt"}} {
		if f.n > 0 {
			faults = append(faults, fmt.Sprintf("%d %s", f.n, f.what))
		}
	}
	switch {
	case r.Publish != "" && r.Published.Count == 0:
		faults = append(faults, "no message was accepted")
	case len(faults) == 0 && r.Publish == "":
		return "good: all streams opened"
	case len(faults) == 0:
		return "good: nothing lost, doubled, reordered or corrupt"
	}
	return "BAD: " + strings.Join(faults, "; ")
}

// hint says what to do about the errors that have a usual reason.
func (r *Report) hint() string {
	for k := range r.Errors {
		switch {
		case strings.Contains(k, "429"):
			return "the gateway limits what one address may publish; for measuring, start it with --publish-rate=0"
		case strings.Contains(k, "sluice.bye, overload"):
			return "the gateway refuses more streams; see its --max-streams, --max-streams-per-ip and --new-rooms-rate"
		case strings.Contains(k, "not allowed"):
			return "the gateway wants a token that may subscribe and publish: --token"
		}
	}
	return ""
}
