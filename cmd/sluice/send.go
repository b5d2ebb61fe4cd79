package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"time"
)

// sendCmd is `sluice send`: it publishes one event, or each line of stdin as one.
//
//	stdin -> reader -> batches -> one POST at a time -> ids
//
// Every event has an idempotency key that stays the same over all attempts, so that an
// answer that was lost on its way costs no second event. The key of a line is made of the
// key of the run and the line's number: the same input sent again with the same --key adds
// only what was missing, however it falls into batches.
type sendCmd struct {
	gatewayFlags `embed:""`

	Room string  `arg:"" help:"The room to publish to."`
	Text *string `arg:"" optional:"" help:"The event's data; - or nothing: each line of stdin is an event."`

	Type      string        `local:"" help:"Type of the events." placeholder:"TYPE"`
	Key       string        `local:"" help:"Idempotency key; within ten minutes the same key publishes nothing twice. By default a new one." placeholder:"KEY"`
	JSON      bool          `local:"" name:"json" help:"TEXT is JSON."`
	JSONLines bool          `name:"json-lines" help:"Each line of stdin is JSON; blank lines are skipped."`
	Ephemeral bool          `help:"Deliver to those who listen now, keep nothing."`
	PrintID   bool          `name:"print-id" help:"Print the id of each event, one a line."`
	Timeout   time.Duration `help:"Give up when an event could not be published for so long." default:"1m"`
}

// keyForm is what a gateway takes for a key; a line's number still has to fit behind it.
var keyForm = regexp.MustCompile(`^[A-Za-z0-9_-]{1,110}$`)

// Run publishes, and returns when all is acknowledged or cannot be.
func (c *sendCmd) Run(ctx context.Context, p *process) error {
	lines := c.Text == nil || *c.Text == "-"
	if err := c.check(lines, p); err != nil {
		return err
	}
	gw, err := c.open()
	if err != nil {
		return err
	}
	defer gw.close()
	s := &sender{cmd: c, gw: gw, process: p, key: c.Key}
	if s.key == "" {
		s.key = rand.Text()
	}
	if lines {
		return s.sendLines(ctx)
	}
	return s.sendText(ctx, *c.Text)
}

func (c *sendCmd) check(lines bool, p *process) error {
	switch {
	case c.Room == "":
		return usagef("a room has a name; an empty one was given")
	case c.Text == nil && isTerminal(p.stdin):
		return usagef("nothing to send: give TEXT, or - to type lines")
	case c.Key != "" && !keyForm.MatchString(c.Key):
		return usagef("--key is at most 110 letters, digits, - and _")
	case c.Timeout <= 0:
		return usagef("--timeout must be above 0")
	case lines && c.JSON:
		return usagef("--json is about TEXT; use --json-lines for stdin")
	case !lines && c.JSONLines:
		return usagef("--json-lines is about stdin; use --json for TEXT")
	case !lines && c.JSON && !json.Valid([]byte(*c.Text)):
		return usagef("TEXT is not JSON; without --json it is sent as text")
	}
	return nil
}

// sender is one run of sendCmd.
type sender struct {
	cmd     *sendCmd
	gw      *gateway
	process *process
	key     string
	sent    int // lines acknowledged
}

// published is the answer to a POST, for one event or for several.
type published struct {
	ID     string      `json:"id"`
	Events []published `json:"events"`
}

func (s *sender) sendText(ctx context.Context, text string) error {
	q := url.Values{}
	if s.cmd.Type != "" {
		q.Set("type", s.cmd.Type)
	}
	kind := "text/plain; charset=utf-8"
	if s.cmd.JSON {
		kind = "application/json"
	}
	answer, err := s.post(ctx, q, kind, []byte(text))
	if err != nil {
		return s.explain(ctx, err)
	}
	return s.printIDs([]published{answer})
}

// sendLines publishes stdin. Lines that come while a batch is under way go into the next
// one; there is never more than one, so that lines stay in order.
func (s *sender) sendLines(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	in := readLines(ctx, s.process.stdin)
	show := newProgress(s.process.stderr, isTerminal(s.process.stderr), time.Now())
	defer func() { show.end(s.sent, time.Now()) }()
	b := &batch{cmd: s.cmd, key: s.key}
	for {
		ended, err := b.fill(ctx, in)
		if b.lines > 0 && ctx.Err() == nil {
			if sendErr := s.sendBatch(ctx, b); sendErr != nil {
				return s.explain(ctx, sendErr)
			}
			show.update(s.sent, time.Now())
		}
		if err == nil && ctx.Err() != nil {
			err = ctx.Err()
		}
		if err != nil {
			return s.explain(ctx, err)
		}
		if ended {
			return nil
		}
	}
}

func (s *sender) sendBatch(ctx context.Context, b *batch) error {
	answer, err := s.post(ctx, url.Values{}, "application/x-ndjson", b.body.Bytes())
	if err != nil {
		return fmt.Errorf("lines %d to %d: %w", b.first, b.last, err)
	}
	if !s.cmd.Ephemeral && len(answer.Events) != b.lines {
		return fmt.Errorf("lines %d to %d: the gateway acknowledged %d of %d", b.first, b.last, len(answer.Events), b.lines)
	}
	s.sent += b.lines
	b.reset()
	return s.printIDs(answer.Events)
}

func (s *sender) printIDs(events []published) error {
	if !s.cmd.PrintID {
		return nil
	}
	var out bytes.Buffer
	for _, e := range events {
		if e.ID != "" { // ephemeral events have none
			fmt.Fprintln(&out, printable(e.ID))
		}
	}
	_, err := s.process.stdout.Write(out.Bytes())
	return err
}

// errUnsure marks failures after which nobody here knows whether the events were published.
var errUnsure = errors.New("it is not known whether it was published")

// explain adds to an error what was published before it and how to go on safely.
func (s *sender) explain(ctx context.Context, err error) error {
	unsure := errors.Is(err, errUnsure)
	if ctx.Err() != nil {
		err, unsure = errors.New("interrupted"), true
	}
	if s.sent > 0 {
		err = fmt.Errorf("%w; %d lines were sent before", err, s.sent)
	}
	if (unsure || s.sent > 0) && !s.cmd.Ephemeral {
		err = fmt.Errorf("%w; send the same again with --key %s within ten minutes and nothing is published twice", err, s.key)
	}
	return err
}

// post publishes a body, trying again with the same key until it is acknowledged, refused
// for good, or --timeout is over.
func (s *sender) post(ctx context.Context, q url.Values, kind string, body []byte) (published, error) {
	if s.cmd.Ephemeral {
		q.Set("ephemeral", "true")
	}
	deadline := time.Now().Add(s.cmd.Timeout)
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	unsure := false
	for failures := 0; ; failures++ {
		answer, err := s.try(ctx, q, kind, body)
		if err == nil {
			return answer, nil
		}
		unsure = unsure || mayHaveArrived(err)
		wait := backoff(failures, 250*time.Millisecond, 10*time.Second)
		var r *refusal
		if errors.As(err, &r) {
			wait = max(wait, r.retryAfter)
		}
		again := s.again(err)
		if again && ctx.Err() == nil && time.Until(deadline) > wait {
			s.process.notef("%v; trying again in %v", s.gw.plainly(err), wait.Round(time.Millisecond))
			if sleep(ctx, wait) == nil {
				continue
			}
		}
		err = s.gw.plainly(err)
		if again {
			err = fmt.Errorf("gave up after %d attempts: %w", failures+1, err)
		}
		if unsure {
			err = fmt.Errorf("%w; %w", err, errUnsure)
		}
		return published{}, err
	}
}

// again says whether to repeat an attempt. What is kept has a key and may be sent as often
// as it takes; an ephemeral event has none, so it is repeated only if it went nowhere.
func (s *sender) again(err error) bool {
	var r *refusal
	isRefusal := errors.As(err, &r)
	switch {
	case s.cmd.Ephemeral && isRefusal:
		return r.status == http.StatusServiceUnavailable || r.status == http.StatusTooManyRequests
	case s.cmd.Ephemeral:
		return notSent(err)
	case isRefusal:
		return r.temporary()
	}
	return !hopeless(err) && !errors.Is(err, errNotAnswer) && !errors.Is(err, errRedirected)
}

// mayHaveArrived says that an attempt failed in such a way that it may have worked.
func mayHaveArrived(err error) bool {
	var r *refusal
	if errors.As(err, &r) {
		return r.status >= 500
	}
	return !notSent(err) && !hopeless(err) && !errors.Is(err, errRedirected)
}

// errNotAnswer is a 2xx that no gateway gave.
var errNotAnswer = errors.New("what answered is not a gateway; is --url right?")

// try is one attempt.
func (s *sender) try(ctx context.Context, q url.Values, kind string, body []byte) (published, error) {
	r, err := s.gw.request(ctx, http.MethodPost, s.gw.at(q, "rooms", s.cmd.Room, "events"), body)
	if err != nil {
		return published{}, err
	}
	r.Header.Set("Content-Type", kind)
	if !s.cmd.Ephemeral && kind != "application/x-ndjson" {
		r.Header.Set("Idempotency-Key", s.key)
	}
	resp, err := s.gw.http.Do(r)
	if err != nil {
		return published{}, err
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		return published{}, refused(resp)
	}
	// The answer of a full batch is a list of ids; 8 MiB hold any of those.
	text, err := io.ReadAll(io.LimitReader(resp.Body, 8<<20))
	if err != nil {
		return published{}, err
	}
	var answer published
	if err := json.Unmarshal(text, &answer); err != nil && !s.cmd.Ephemeral ||
		!s.cmd.Ephemeral && answer.ID == "" && answer.Events == nil {
		return published{}, errNotAnswer
	}
	return answer, nil
}

// progress shows on a terminal how far a long input is.
type progress struct {
	out          io.Writer
	on           bool // a person looks
	begun, shown time.Time
	visible      bool
}

func newProgress(out io.Writer, on bool, now time.Time) *progress {
	return &progress{out: out, on: on, begun: now, shown: now}
}

// update shows the count, twice a second at most, so that a short input shows nothing.
func (p *progress) update(lines int, now time.Time) {
	if !p.on || now.Sub(p.shown) < 500*time.Millisecond {
		return
	}
	p.shown, p.visible = now, true
	fmt.Fprintf(p.out, "\r\x1b[K%d lines sent, %s", lines, p.rate(lines, now))
}

// end leaves the last count behind, if there was one.
func (p *progress) end(lines int, now time.Time) {
	if p.visible {
		fmt.Fprintf(p.out, "\r\x1b[K%d lines sent, %s\n", lines, p.rate(lines, now))
	}
}

func (p *progress) rate(lines int, now time.Time) string {
	return fmt.Sprintf("%.0f a second", float64(lines)/max(now.Sub(p.begun).Seconds(), 0.001))
}
