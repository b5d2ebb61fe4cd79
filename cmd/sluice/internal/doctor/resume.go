package doctor

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
)

// resume finds out which ways of handing back a cursor arrive.
func (x *examination) resume(ctx context.Context) {
	if len(x.ids) < 2 {
		x.resumeUnknown(ctx)
		return
	}
	x.tell("resuming", 0, 0)
	cursor := x.ids[0]
	header := x.resumes(ctx, nil, http.Header{"Last-Event-Id": {cursor}})
	last := x.resumes(ctx, url.Values{"lastEventId": {cursor}}, nil)
	after := x.resumes(ctx, url.Values{"after": {cursor}}, nil)
	x.judgeResume(header, last && after, fmt.Sprintf("%d events published before it", len(x.ids)-1))
}

// resumes says whether a stream that is given the cursor of our first event
// brings the others. Where streams do not work, a page of history is asked.
func (x *examination) resumes(ctx context.Context, query url.Values, header http.Header) bool {
	if x.best == nil {
		q := url.Values{"limit": {"100"}}
		for name, values := range query {
			if name == "lastEventId" {
				continue // a name that only streams know
			}
			q[name] = values
		}
		if query.Has("lastEventId") {
			q["after"] = query["lastEventId"]
		}
		p, _, err := x.readPage(ctx, x.pace.patience, q, header)
		return err == nil && p != nil && len(p.Events) == len(x.ids)-1
	}
	p := x.listen(ctx, x.best, x.room, query, header)
	defer p.close()
	// Whether a cursor was understood shows in the opening event; what it is
	// good for, in the events that follow.
	p.await(ctx, x.pace.patience, func(o *observed) bool {
		return o.opening > 0 && (o.id != x.ids[0] || o.arrival(len(x.ids)-1) != nil)
	})
	o := p.look()
	return o.arrival(len(x.ids)-1) != nil && o.arrival(0) == nil
}

// resumeUnknown looks for the cursor without events: the gateway answers to
// one that leads nowhere with a gap, if it gets to see it.
func (x *examination) resumeUnknown(ctx context.Context) {
	if x.best == nil {
		x.notDone("resume", "there is neither a stream nor an event")
		return
	}
	nowhere := "doctor"
	gap := func(query url.Values, header http.Header) bool {
		p := x.listen(ctx, x.best, x.room, query, header)
		defer p.close()
		// The gap comes right behind the opening event.
		p.await(ctx, x.pace.patience, opened)
		return p.await(ctx, x.pace.soon, func(o *observed) bool { return o.gap != "" })
	}
	x.judgeResume(
		gap(nil, http.Header{"Last-Event-Id": {nowhere}}),
		gap(url.Values{"lastEventId": {nowhere}}, nil) && gap(url.Values{"after": {nowhere}}, nil),
		"by the gateway's answer to a cursor that leads nowhere",
	)
}

func (x *examination) judgeResume(header, query bool, how string) {
	arrives := map[bool]string{true: "arrives", false: "does not arrive"}
	f := Finding{
		Check: "resume", Level: OK,
		Seen:    fmt.Sprintf("the header Last-Event-ID %s, the cursor in the query %s (%s)", arrives[header], arrives[query], how),
		Means:   "a client that comes back misses nothing",
		Figures: map[string]any{"header": header, "query": query},
	}
	switch {
	case header && query:
	case query:
		f.Level = Bad
		f.Means = "something on the way drops the header: a plain EventSource that reconnects loses, without a word, what happened meanwhile"
		f.Do = "let the proxy pass Last-Event-ID; or use the gateway's own client, which also puts the cursor into the query"
	case header:
		f.Level = Warn
		f.Means = "clients that begin anew with a cursor in the query, as after a refused reconnect, start at the head"
		f.Do = "let the proxy pass the query on as it is"
	default:
		f.Level = Bad
		f.Means = "no client can resume: each reconnect loses what happened meanwhile"
		f.Do = "let the proxy pass Last-Event-ID and the query on"
	}
	x.found(f)
}

// jsonString returns a member of a JSON object, or nothing.
func jsonString(body []byte, name string) string {
	var v map[string]json.RawMessage
	var s string
	if json.Unmarshal(body, &v) != nil || json.Unmarshal(v[name], &s) != nil {
		return ""
	}
	return s
}
