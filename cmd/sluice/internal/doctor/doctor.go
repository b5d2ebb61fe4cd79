// Package doctor finds out what the way from here to a gateway does to a
// stream.
//
//	reach      -> is there an answer; TLS, HTTP version, clock
//	streams    -> opened the ways clients do; events published, their delay
//	resume     -> does Last-Event-ID arrive, does the cursor in the query
//	poll, body -> does the fallback work, what may a POST carry
//	patience   -> is a silent stream cut, does the gateway notice who left
//
// Each step adds findings to the report: what was seen, what it means, what to
// do. Nothing is concluded from what a proxy says of itself; its headers only
// choose the advice. All events go to rooms of the run's own, doctor-<random>,
// and what can be is published as ephemeral.
package doctor

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"net/http"
	"net/url"
	"time"
)

// Level says how good a finding is.
type Level string

const (
	OK   Level = "ok"
	Warn Level = "warn" // works, and could be better
	Bad  Level = "bad"  // clients will suffer
)

// Finding is one thing that was looked at.
type Finding struct {
	Check   string         `json:"check"`
	Level   Level          `json:"level"`
	Seen    string         `json:"seen"`
	Means   string         `json:"means"`
	Do      string         `json:"do,omitempty"`
	Figures map[string]any `json:"figures,omitempty"`
}

// Report is all that was found.
type Report struct {
	URL      string          `json:"url"`
	Proxy    string          `json:"proxy,omitempty"` // that requests went through, as far as we know it
	Room     string          `json:"room"`
	Good     bool            `json:"good"` // no finding is bad
	Seconds  float64         `json:"seconds"`
	Findings []Finding       `json:"findings"`
	Streams  []StreamFigures `json:"streams"`
	NotDone  []string        `json:"not_done,omitempty"` // checks left out, with the reason
}

// StreamFigures is what one way of opening a stream gave.
type StreamFigures struct {
	Way      string            `json:"way"`
	Status   int               `json:"status"`
	HTTP     string            `json:"http"`
	HeadMS   *float64          `json:"head_ms"`    // null: never came
	OpenMS   *float64          `json:"opening_ms"` // null: never came
	DelaysMS []*float64        `json:"delays_ms"`  // of each published event; null: never came
	Padding  int               `json:"padding"`
	Headers  map[string]string `json:"headers"`
	Error    string            `json:"error,omitempty"`
}

// Progress says what is going on.
type Progress struct {
	Stage   string
	Elapsed time.Duration
	Total   time.Duration // zero: until it is done
}

// Options says whom to examine, and how.
type Options struct {
	URL      *url.URL      // of the gateway, as a client knows it
	Token    string        // to present; empty for an open gateway
	Proxy    *url.URL      // to go through; nil: as the environment says
	Insecure bool          // do not check certificates
	Quick    bool          // leave out what takes longer than a few seconds
	Idle     time.Duration // how long to hold silent streams, and to wait for anything at most; two minutes if zero

	Tell  func(Progress) // if not nil; from one goroutine at a time
	Found func(Finding)  // if not nil, called for each finding as soon as it is made

	pace pace
}

// pace is how patient an examination is; tests are in a hurry.
type pace struct {
	opening  time.Duration // for an opening event, before clients give up
	soon     time.Duration // the same, to be as it should
	patience time.Duration // for anything that may still come
	events   int           // to publish
	gap      time.Duration // between two of them
	prompt   time.Duration // what an event may take on top of the round trip
	leaving  time.Duration // for the gateway to notice who left, with events flowing
	silent   time.Duration // the same, with heartbeats only
	poll     time.Duration // the longest long poll
}

func (p pace) withDefaults() pace {
	p.opening = cmp.Or(p.opening, 5*time.Second)
	p.soon = cmp.Or(p.soon, 500*time.Millisecond)
	p.patience = cmp.Or(p.patience, 10*time.Second)
	p.events = cmp.Or(p.events, 6)
	p.gap = cmp.Or(p.gap, 300*time.Millisecond)
	p.prompt = cmp.Or(p.prompt, 100*time.Millisecond)
	p.leaving = cmp.Or(p.leaving, 10*time.Second)
	p.silent = cmp.Or(p.silent, time.Minute)
	p.poll = cmp.Or(p.poll, 25*time.Second)
	return p
}

// examination is one run.
type examination struct {
	Options
	began  time.Time
	tag    string // random: what we publish begins with it
	room   string
	client map[protocol]*http.Client
	report Report

	// What the steps leave to later ones.
	rtt     time.Duration
	posting time.Duration // what a POST took, by the median
	http2   bool
	product product  // what the way says of itself
	streams []*probe // of the step of that name
	ids     []string // of the events published in it
	mayPost bool     // we are allowed to publish
	best    *variant // the way of opening a stream that worked best; nil: none did
}

// Run examines the way to o.URL. It blocks for some seconds, and for o.Idle on
// top of that unless o.Quick. When ctx ends it returns what was found until
// then, and ctx's error.
func Run(ctx context.Context, o Options) (*Report, error) {
	o.Idle = cmp.Or(o.Idle, 2*time.Minute)
	o.pace = o.pace.withDefaults()
	for _, limit := range []*time.Duration{&o.pace.opening, &o.pace.patience, &o.pace.leaving, &o.pace.silent, &o.pace.poll} {
		*limit = min(*limit, o.Idle)
	}
	var tag [6]byte
	rand.Read(tag[:]) // never fails
	x := &examination{Options: o, began: time.Now(), tag: hex.EncodeToString(tag[:])}
	x.room = "doctor-" + x.tag
	x.report = Report{URL: o.URL.Redacted(), Room: x.room, Findings: []Finding{}, Streams: []StreamFigures{}}
	x.connect()
	defer x.hangUp()

	x.examine(ctx)

	x.report.Seconds = round(time.Since(x.began).Seconds())
	x.report.Good = len(x.report.Findings) > 0 && ctx.Err() == nil
	for _, f := range x.report.Findings {
		x.report.Good = x.report.Good && f.Level != Bad
	}
	return &x.report, ctx.Err()
}

// examine takes the steps, as far as each one leaves something to the next.
func (x *examination) examine(ctx context.Context) {
	if !x.reach(ctx) || !x.watch(ctx) {
		return
	}
	for _, step := range []func(context.Context){x.resume, x.longPoll, x.body, x.wait} {
		if ctx.Err() != nil {
			return
		}
		step(ctx)
	}
}

// found adds a finding.
func (x *examination) found(f Finding) {
	x.report.Findings = append(x.report.Findings, f)
	if x.Found != nil {
		x.Found(f)
	}
}

// notDone notes that a check was left out.
func (x *examination) notDone(check, why string) {
	x.report.NotDone = append(x.report.NotDone, check+": "+why)
}

func (x *examination) tell(stage string, elapsed, total time.Duration) {
	if x.Tell != nil {
		x.Tell(Progress{stage, elapsed, total})
	}
}

// sleep waits for d, or less if ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
