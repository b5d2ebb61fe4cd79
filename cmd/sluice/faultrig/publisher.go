package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// ledger is what publishers were told: which event stands where.
type ledger struct {
	mu    sync.Mutex // guards rooms
	rooms map[string][]event

	acked   atomic.Int64
	retried atomic.Int64 // requests that were sent again
	refused atomic.Int64 // answers that asked for it
}

func (l *ledger) write(room string, e event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rooms[room] = append(l.rooms[room], e)
	l.acked.Add(1)
}

// publisher sends events at a pace, each until it is acknowledged.
type publisher struct {
	r        *rig
	name     string
	bases    []string
	rooms    []string
	interval time.Duration
	size     int // bytes that the data is filled up to

	base, count int
}

// run publishes until stop is closed, and then sees its last event through.
func (p *publisher) run(ctx context.Context, stop <-chan struct{}) {
	tick := time.NewTicker(p.interval)
	defer tick.Stop()
	for i := 0; ; i++ {
		select {
		case <-stop:
			return
		case <-ctx.Done():
			return
		case <-tick.C:
			p.publish(ctx, p.rooms[i%len(p.rooms)])
		}
	}
}

// repeatEvery is how many events pass between two that are sent once more to
// another gateway, though they were acknowledged.
const repeatEvery = 50

// publish sends one event for as long as it takes.
func (p *publisher) publish(ctx context.Context, room string) {
	p.count++
	key := fmt.Sprintf("%s-%d", p.name, p.count)
	data := p.data(key)
	at, err := p.insist(ctx, room, key, data)
	if err != nil {
		p.r.verdict.wrong(other, "%s was never acknowledged: %v", key, err)
		return
	}
	p.r.ledger.write(room, event{at, sum([]byte(data))})
	if p.count%repeatEvery != 0 || p.r.scenario.lossy {
		return // Redis may have lost the key with its event, and then it is a new one
	}
	p.base++
	again, err := p.insist(ctx, room, key, data)
	if err != nil || again != at {
		p.r.verdict.wrong(doubled, "%s was acknowledged as %v and then as %v (%v)", key, at, again, err)
	}
}

// data is text that no other event has, with the time in it.
func (p *publisher) data(key string) string {
	data := fmt.Sprintf("%s %d ", key, time.Now().UnixNano())
	if p.count%7 == 0 {
		data += "\nid: 1-1\n\ndata: forged\n" // must arrive as text
	}
	return data + strings.Repeat("x", max(0, p.size-len(data)))
}

// insist sends a request until it is answered well. Broken connections and
// 429, 502, 503 and 504 are worth another attempt; nothing else may happen.
func (p *publisher) insist(ctx context.Context, room, key, data string) (place, error) {
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	for {
		at, again, err := p.r.post(ctx, p.bases[p.base%len(p.bases)], room, key, data)
		if err == nil || !again {
			return at, err
		}
		p.base++
		p.r.ledger.retried.Add(1)
		select {
		case <-ctx.Done():
			return place{}, fmt.Errorf("gave up: %w", err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// post sends one request, once; again says whether an error is worth another.
func (r *rig) post(ctx context.Context, base, room, key, data string) (at place, again bool, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+base+"/rooms/"+room+"/events", strings.NewReader(data))
	if err != nil {
		return place{}, false, err
	}
	req.Header.Set("Content-Type", "text/plain; charset=utf-8")
	req.Header.Set("Idempotency-Key", key)
	resp, err := r.client.Do(req)
	if err != nil {
		return place{}, ctx.Err() == nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return place{}, ctx.Err() == nil, err
	}
	switch resp.StatusCode {
	case http.StatusOK, http.StatusCreated:
		var receipt struct{ ID string }
		if err := json.Unmarshal(body, &receipt); err != nil {
			return place{}, false, fmt.Errorf("the answer %q: %w", body, err)
		}
		at, err := parsePlace(receipt.ID)
		return at, false, err
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		r.ledger.refused.Add(1)
		if resp.Header.Get("Retry-After") == "" {
			return place{}, false, fmt.Errorf("%s without Retry-After: %s", resp.Status, body)
		}
		return place{}, true, fmt.Errorf("%s: %s", resp.Status, body)
	}
	return place{}, false, fmt.Errorf("%s: %s", resp.Status, body)
}
