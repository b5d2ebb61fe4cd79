package doctor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"
)

// longPoll tries the fallback of clients that get no stream.
func (x *examination) longPoll(ctx context.Context) {
	if !x.mayPost {
		x.notDone("long poll", "we may not publish")
		return
	}
	x.tell("polling", 0, 0)
	f := Finding{Check: "long poll", Level: OK, Means: "clients without a stream still get events at once"}
	delay, err := x.pollOnce(ctx)
	switch {
	case err != nil:
		f.Level, f.Seen = Bad, err.Error()
		f.Means = "clients without a stream get nothing either"
		f.Do = "let the proxy pass /rooms/ on to the gateway, and wait half a minute for its answer"
	case delay-2*max(x.rtt, x.posting) > 5*x.pace.prompt:
		f.Level, f.Seen = Warn, fmt.Sprintf("answered %s after the event was published", ms(delay))
		f.Means = "the fallback works, but slowly"
		f.Do = "find what delays an answer that is short and complete: a filter that looks at it first, or a way that is overloaded"
	default:
		f.Seen = fmt.Sprintf("answered %s after the event was published", ms(delay))
	}
	if err == nil {
		f.Figures = map[string]any{"delay_ms": millis(delay)}
	}
	x.found(f)
}

// pollOnce publishes while a long poll waits, and returns the time from there
// to the answer.
func (x *examination) pollOnce(ctx context.Context) (time.Duration, error) {
	ctx, cancel := context.WithCancel(ctx)
	posted := make(chan time.Time, 1)
	defer func() {
		cancel()
		<-posted // closed when the poster has ended
	}()
	go func() {
		defer close(posted)
		sleep(ctx, x.pace.gap)
		if a, err := x.publish(ctx, x.room, x.text(len(x.ids)), nil); err == nil && a.status/100 == 2 {
			posted <- a.sent
		}
	}()
	query := url.Values{"after": {x.ids[len(x.ids)-1]}, "wait": {seconds(x.pace.patience)}}
	p, a, err := x.readPage(ctx, 2*x.pace.patience, query, nil)
	now := time.Now()
	if err != nil {
		return 0, fmt.Errorf("no answer: %s", reason(err))
	}
	if p == nil {
		return 0, errors.New(a.String())
	}
	if len(p.Events) != 1 {
		return 0, fmt.Errorf("the answer has %d events, not the one that was published", len(p.Events))
	}
	at, ok := <-posted
	if !ok {
		return 0, fmt.Errorf("the event was not taken")
	}
	return now.Sub(at), nil
}

func seconds(d time.Duration) string { return fmt.Sprintf("%gs", d.Seconds()) }

const (
	bigEvent   = 60 << 10
	bigBatch   = 15 // of them, just below 1 MiB
	smallEvent = 1 << 10
)

// body finds out how much a POST may carry.
func (x *examination) body(ctx context.Context) {
	if !x.mayPost {
		x.notDone("body", "we may not publish")
		return
	}
	x.tell("posting large bodies", 0, 0)
	f := Finding{Check: "body", Level: OK, Means: "clients may publish what the gateway takes", Figures: map[string]any{}}
	taken := 0
	for _, parts := range []int{0, 1, bigBatch} {
		size, a, err := x.postFiller(ctx, parts)
		if err == nil && a.status/100 == 2 {
			taken = size
			continue
		}
		f.Seen = fmt.Sprintf("%d KiB taken, %d KiB not: ", taken>>10, size>>10)
		if err != nil {
			f.Seen += reason(err)
		} else {
			f.Seen += a.String()
		}
		if err == nil && a.fromGateway() {
			f.Means = "that is the gateway's own limit (--max-body, --publish-rate), not the way's"
			break
		}
		f.Level = Bad
		f.Means = "the way takes less than the gateway"
		f.Do = x.product.advice(refuses)
		break
	}
	f.Figures["taken_bytes"] = taken
	if f.Seen == "" {
		f.Seen = fmt.Sprintf("%d KiB in one POST taken", taken>>10)
	}
	x.found(f)
}

// postFiller posts one small event, or a batch of so many large ones; nobody
// has to keep them.
func (x *examination) postFiller(ctx context.Context, parts int) (size int, a *answer, err error) {
	kind, body := "text/plain; charset=utf-8", bytes.Repeat([]byte("."), smallEvent)
	if parts == 1 {
		body = bytes.Repeat([]byte("."), bigEvent)
	}
	if parts > 1 {
		line, err := json.Marshal(map[string]string{"data": string(bytes.Repeat([]byte("."), bigEvent))})
		if err != nil {
			return 0, nil, err
		}
		kind, body = "application/x-ndjson", bytes.Repeat(append(line, '\n'), parts)
	}
	a, err = x.do(ctx, any1or2, 2*x.pace.patience, call{
		method: http.MethodPost, path: []string{"rooms", x.room, "events"}, query: ephemeral(),
		header: http.Header{"Content-Type": {kind}}, body: body,
	})
	return len(body), a, err
}
