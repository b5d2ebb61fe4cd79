package e2e

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// receipt is what the gateway tells a publisher of an event.
type receipt struct {
	ID   string `json:"id"`
	Room string `json:"room"`
	Type string `json:"type"`
	At   string `json:"at"`
}

// publisher publishes a number of events, one request after the other, each
// with a key of its own and as often as it takes until it is acknowledged.
type publisher struct {
	*trial
	name   string
	bases  []string // gateways: the first is asked until it fails, and then the next
	rooms  []string // in turn
	events int
	batch  int    // events in a request; 1 if zero
	pair   bool   // an event goes to two rooms at once
	kind   string // type of all events; of all kinds if empty

	requests int
}

// again is how many requests pass between two that are sent once more, to
// another gateway, though they were answered.
const again = 40

// run publishes everything, or until ctx ends.
func (p *publisher) run(ctx context.Context) {
	for done := 0; done < p.events && ctx.Err() == nil; {
		job := p.next(done)
		receipts, err := p.insist(ctx, job)
		if err == nil && p.requests%again == 0 {
			err = p.repeat(ctx, job, receipts)
		}
		if err != nil {
			p.verdict.wrong(strange, "publisher %s: %v", p.name, err)
			return
		}
		for i, r := range receipts {
			if err := p.ledger.acknowledge(r, job.messages[i%len(job.messages)]); err != nil {
				p.verdict.wrong(strange, "publisher %s: %v", p.name, err)
			}
		}
		done += len(receipts)
		p.tally.add("acknowledged", len(receipts))
	}
}

// job is one request, whatever it takes to have it answered.
type job struct {
	path, key, contentType string
	header                 http.Header
	body                   string
	rooms                  []string
	messages               []message // each of them goes to all rooms
	list                   bool      // the answer is a list
}

// next makes the next request; what was done before tells which.
func (p *publisher) next(done int) job {
	p.requests++
	left, n := p.events-done, max(1, p.batch)
	room := p.rooms[p.requests%len(p.rooms)]
	j := job{path: "/rooms/" + room + "/events", rooms: []string{room}, header: http.Header{}}
	j.key = fmt.Sprintf("%s-%d", p.name, p.requests)
	for i := range min(left, n) {
		m := messageOf(p.name, done+i)
		m.kind = cmp.Or(p.kind, m.kind)
		j.messages = append(j.messages, m)
	}
	if n > 1 {
		j.list, j.contentType, j.body = true, "application/x-ndjson", batchOf(j.messages)
		return j
	}
	m := j.messages[0]
	j.body, j.contentType = m.data, "text/plain; charset=utf-8"
	if m.json {
		j.contentType = "application/json"
	}
	j.header.Set("Event-Type", m.kind)
	if p.pair && left > 1 && len(p.rooms) > 1 {
		j.rooms = append(j.rooms, p.rooms[(p.requests+1)%len(p.rooms)])
		j.path, j.list = "/events?"+url.Values{"room": j.rooms}.Encode(), true
	}
	return j
}

// batchOf writes messages as NDJSON, where JSON cannot have line breaks: it is
// compacted, and so are the messages.
func batchOf(messages []message) string {
	var b strings.Builder
	for i := range messages {
		m := &messages[i]
		data := []byte(m.data)
		if m.json {
			var compact bytes.Buffer
			if err := json.Compact(&compact, data); err != nil {
				panic(err) // messageOf makes JSON
			}
			data, m.data = compact.Bytes(), compact.String()
		} else {
			data, _ = json.Marshal(m.data)
		}
		fmt.Fprintf(&b, "{\"data\":%s,\"type\":%q}\n", data, m.kind)
	}
	return b.String()
}

// insist sends a request until it is answered well. 502, 503 and 504, which
// a balancer or a gateway gives, and broken connections are worth another
// attempt; nothing else may happen.
func (p *publisher) insist(ctx context.Context, j job) ([]receipt, error) {
	for {
		receipts, _, wait, err := p.post(ctx, p.bases[0], j)
		if err == nil || wait < 0 {
			return receipts, err
		}
		p.tally.add("repeated", 1)
		p.bases = beginningWith(1, p.bases)
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("still trying to publish: %w", err)
		case <-time.After(wait):
		}
	}
}

// repeat sends again what was answered before: the answer must be the same.
func (p *publisher) repeat(ctx context.Context, j job, want []receipt) error {
	got, replayed, wait, err := p.post(ctx, p.bases[len(p.bases)-1], j)
	if err != nil && wait >= 0 {
		return nil // that gateway is not well now
	}
	if err != nil {
		return err
	}
	if fmt.Sprint(got) != fmt.Sprint(want) || !replayed {
		return fmt.Errorf("the key %s was answered by %v, and then by %v (replayed: %t)", j.key, want, got, replayed)
	}
	return nil
}

// post sends a request once. With an error it says after how long to try
// again; not at all if that is negative.
func (p *publisher) post(ctx context.Context, base string, j job) (receipts []receipt, replayed bool, wait time.Duration, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, base+j.path, strings.NewReader(j.body))
	if err != nil {
		return nil, false, -1, err
	}
	req.Header = j.header.Clone()
	req.Header.Set("Content-Type", j.contentType)
	req.Header.Set("Idempotency-Key", j.key)
	resp, err := p.client.Do(req)
	if err != nil {
		return nil, false, 20 * time.Millisecond, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, false, 20 * time.Millisecond, err
	}
	replayed = resp.Header.Get("Idempotency-Replayed") == "true"
	switch resp.StatusCode {
	case http.StatusOK, http.StatusCreated:
		receipts, err = j.read(body)
		if err == nil && replayed != (resp.StatusCode == http.StatusOK) {
			err = fmt.Errorf("%s with Idempotency-Replayed: %t", resp.Status, replayed)
		}
		return receipts, replayed, -1, err
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		wait, err = p.refused(resp, body)
		return nil, false, wait, err
	}
	return nil, false, -1, fmt.Errorf("%s: %s", resp.Status, body)
}

// refused reads an answer that asks to try again: it must say when, and be a
// problem that programs can read.
func (p *publisher) refused(resp *http.Response, body []byte) (wait time.Duration, err error) {
	seconds, err := strconv.Atoi(resp.Header.Get("Retry-After"))
	if err != nil || seconds < 1 || resp.Header.Get("Content-Type") != "application/problem+json" || !json.Valid(body) {
		return -1, fmt.Errorf("%s with Retry-After %q, %q: %s", resp.Status, resp.Header.Get("Retry-After"), resp.Header.Get("Content-Type"), body)
	}
	p.tally.add("refused", 1)
	return time.Duration(seconds) * time.Second, fmt.Errorf("%s: %s", resp.Status, body)
}

// read reads the answer to a request and checks that it is one.
func (j *job) read(body []byte) ([]receipt, error) {
	var answer struct {
		receipt
		Events []receipt `json:"events"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, fmt.Errorf("the answer %q: %w", body, err)
	}
	receipts := answer.Events
	if !j.list {
		receipts = []receipt{answer.receipt}
	}
	if len(receipts) != len(j.rooms)*len(j.messages) {
		return nil, fmt.Errorf("%d receipts for %d events: %s", len(receipts), len(j.rooms)*len(j.messages), body)
	}
	for i, r := range receipts {
		if m := j.messages[i%len(j.messages)]; r.Room != j.rooms[i/len(j.messages)] || r.Type != m.kind {
			return nil, fmt.Errorf("receipt %d of %v, %q is for another event: %s", i, j.rooms, m.kind, body)
		}
	}
	return receipts, nil
}
