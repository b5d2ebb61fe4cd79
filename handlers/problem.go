package handlers

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"net/http"
	"strconv"
	"time"

	"sluice/fanout"
)

// problem is an error that a client is told, as RFC 9457 has it. Its texts are
// ours alone: never an address, a stack, or what the client sent.
type problem struct {
	kind   string // the last part of its type, which never changes
	title  string
	status int
	detail string         // what to do about it
	retry  time.Duration  // Retry-After, if positive
	more   map[string]any // members of its own
}

func (p *problem) Error() string { return p.kind + ": " + p.detail }

// with gives the same problem with what to do this time.
func (p *problem) with(detail string) *problem {
	q := *p
	q.detail = detail
	return &q
}

// and gives the same problem with a member of its own.
func (p *problem) and(name string, value any) *problem {
	q := *p
	q.more = maps.Clone(p.more)
	if q.more == nil {
		q.more = map[string]any{}
	}
	q.more[name] = value
	return &q
}

// after gives the same problem with when to try again.
func (p *problem) after(wait time.Duration) *problem {
	q := *p
	q.retry = max(wait, time.Millisecond)
	return &q
}

// The problems that there are. Their types are documented in docs/protocol.md.
var (
	errBadRoom      = &problem{kind: "bad-room", status: 400, title: "Not a room's name", detail: "A room's name has 1 to 128 characters: letters, digits and _ . : @ ~ -, and begins with a letter or digit."}
	errBadType      = &problem{kind: "bad-type", status: 400, title: "Not an event's type", detail: "A type has 1 to 64 characters: a-z, 0-9 and _ . -, begins with a letter, and not with sluice."}
	errBadKey       = &problem{kind: "bad-key", status: 400, title: "Not an idempotency key", detail: "Send one Idempotency-Key of 1 to 128 characters: letters, digits, _ and -."}
	errBadQuery     = &problem{kind: "bad-query", status: 400, title: "The query cannot be read"}
	errBadCursor    = &problem{kind: "bad-cursor", status: 400, title: "The cursor leads nowhere", detail: "Use a cursor that a page or a stream of these rooms gave, earliest or latest."}
	errBadBody      = &problem{kind: "bad-body", status: 400, title: "The body cannot be read"}
	errUnwantedBody = &problem{kind: "unwanted-body", status: 400, title: "This request takes no body", detail: "Send GET and DELETE without a body."}
	errBadRooms     = &problem{kind: "too-many-rooms", status: 400, title: "Too many rooms at a time"}
	errUnauthorized = &problem{kind: "unauthorized", status: 401, title: "No valid token", detail: "Send a token that is valid here: Authorization: Bearer, the cookie, or a ticket for a stream."}
	errRevoked      = errUnauthorized.with(errUnauthorized.detail) // looks the same, except to streams
	errForbidden    = &problem{kind: "forbidden", status: 403, title: "Not allowed", detail: "You have no right to do this here."}
	errNotFound     = &problem{kind: "not-found", status: 404, title: "There is nothing here", detail: "See docs/protocol.md for what there is."}
	errMethod       = &problem{kind: "method-not-allowed", status: 405, title: "Not with this method", detail: "See docs/protocol.md for what can be done here."}
	errTooLarge     = &problem{kind: "too-large", status: 413, title: "The body is too large"}
	errMediaType    = &problem{kind: "unsupported-media-type", status: 415, title: "Not a kind of body we take", detail: "Send text/plain, application/json or application/x-ndjson, in UTF-8 and not compressed."}
	errKeyReused    = &problem{kind: "key-reused", status: 422, title: "The idempotency key was used before", detail: "The key came with another body, which is kept; nothing was written now. Use a new key for a new event."}
	errPublishRate  = &problem{kind: "publish-rate", status: 429, title: "Too many events", detail: "Publish less at a time, or wait as long as Retry-After says."}
	errRoomRate     = &problem{kind: "room-rate", status: 429, title: "Too many events in this room", detail: "All who publish here share a rate; wait as long as Retry-After says."}
	errNewRooms     = &problem{kind: "new-rooms-rate", status: 429, title: "Too many rooms that are new", detail: "Use the rooms that there are, or wait as long as Retry-After says."}

	errStreams        = &problem{kind: "too-many-streams", status: 429, title: "This node has as many streams as it takes", detail: "Try again later.", retry: overloadWait}
	errStreamsAddress = &problem{kind: "too-many-streams-of-address", status: 429, title: "Too many streams from this address", detail: "Close streams that are not needed, and try again later.", retry: overloadWait}
	errStreamsSubject = &problem{kind: "too-many-streams-of-subject", status: 429, title: "Too many streams with this token's subject", detail: "Close streams that are not needed, and try again later.", retry: overloadWait}

	errInternal    = &problem{kind: "internal", status: 500, title: "Internal error", detail: "Try again; if it stays, the gateway's log says more."}
	errUnavailable = &problem{kind: "unavailable", status: 503, title: "The log is out of reach", detail: "Try again soon, with the same Idempotency-Key.", retry: time.Second}
	errNoKeys      = &problem{kind: "no-keys", status: 503, title: "Tokens cannot be judged now", detail: "The keys for tokens are out of reach; try again soon.", retry: time.Second}
	errDraining    = &problem{kind: "draining", status: 503, title: "This node is shutting down", detail: "Try again: another node will answer.", retry: time.Second}
)

// statuses is the table from what package fanout says to what a client is told.
var statuses = []struct {
	err     error
	problem *problem
}{
	{fanout.ErrBadCursor, errBadCursor},
	{fanout.ErrUnavailable, errUnavailable},
	{fanout.ErrClosed, errDraining},
}

// problemOf finds what to tell a client of err.
func problemOf(err error) *problem {
	var p *problem
	var tooLarge *http.MaxBytesError
	var reused *fanout.KeyReusedError
	switch {
	case errors.As(err, &p):
		return p
	case errors.As(err, &tooLarge):
		return errTooLarge.with("The body may have " + strconv.FormatInt(tooLarge.Limit, 10) + " bytes here.")
	case errors.As(err, &reused):
		return errKeyReused
	}
	for _, s := range statuses {
		if errors.Is(err, s.err) {
			return s.problem
		}
	}
	return errInternal
}

// handler is a handler that returns an error rather than answering it.
type handler func(w http.ResponseWriter, r *http.Request) error

// answering is the one adapter that turns errors into answers.
func (g *Gateway) answering(h handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		err := h(w, r)
		if err == nil {
			return
		}
		p := problemOf(err)
		g.report(r.Context(), p, err)
		if c, ok := w.(*countedWriter); ok {
			c.problem = p.kind
		}
		writeProblem(w, p)
	}
}

// report counts a problem, and logs it where it is ours.
func (g *Gateway) report(ctx context.Context, p *problem, err error) {
	g.problems.count(p.kind)
	if p.status >= 500 && p != errDraining && !errors.Is(err, context.Canceled) {
		g.cfg().Logger.LogAttrs(ctx, slog.LevelWarn, "request failed", slog.String("problem", p.kind), slog.Any("error", err))
	}
}

func writeProblem(w http.ResponseWriter, p *problem) {
	body := map[string]any{"type": "urn:sluice:" + p.kind, "title": p.title, "status": p.status}
	if p.detail != "" {
		body["detail"] = p.detail
	}
	maps.Copy(body, p.more)
	header := w.Header()
	if p.retry > 0 {
		header.Set("Retry-After", strconv.Itoa(max(1, int((p.retry+time.Second-1)/time.Second))))
	}
	if p.status == http.StatusUnauthorized {
		header.Set("WWW-Authenticate", `Bearer error="invalid_token"`)
	}
	if p.status == http.StatusRequestEntityTooLarge || p == errUnwantedBody {
		header.Set("Connection", "close") // what is left of the body is not worth reading
	}
	writeJSON(w, "application/problem+json", p.status, body)
}

func writeJSON(w http.ResponseWriter, contentType string, status int, v any) {
	header := w.Header()
	header.Set("Content-Type", contentType)
	header.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(v) // a client that is gone needs no answer
}
