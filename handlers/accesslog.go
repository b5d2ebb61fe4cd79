package handlers

import (
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"
)

// RequestLog says which requests have a line in the log. None has more than
// one, which is written when the handler is done: of a stream whose connection
// was taken over, when it has begun. Why streams end is counted, and not logged.
type RequestLog int

// The kinds of RequestLog.
const (
	LogNoRequests   RequestLog = iota
	LogSomeRequests            // one in a hundred, and all that failed on our side
	LogAllRequests             //
)

// someRequests is of how many requests one is logged.
const someRequests = 100

// accessLog writes the lines.
type accessLog struct{ seen atomic.Int64 }

// wants says whether a request is to have a line.
func (a *accessLog) wants(which RequestLog, status int) bool {
	switch which {
	case LogAllRequests:
		return true
	case LogSomeRequests:
		return a.seen.Add(1)%someRequests == 1 || status >= http.StatusInternalServerError
	}
	return false
}

// logRequest writes the line of a request that has been answered. It has
// nothing that the client made up but its address: no path, query or header, in
// which rooms, tickets and tokens stand.
func (g *Gateway) logRequest(c *countedWriter, took time.Duration) {
	if !g.accessLog.wants(g.cfg().LogRequests, c.status) {
		return
	}
	attrs := []slog.Attr{
		slog.String("method", methodOf(c.r)), slog.String("route", routeOf(c.r)), slog.Int("status", c.status),
		slog.Float64("seconds", took.Seconds()), slog.String("client", g.addressOf(c.r)),
	}
	if c.taken {
		attrs = append(attrs, slog.Bool("stream", true))
	}
	if c.problem != "" {
		attrs = append(attrs, slog.String("problem", c.problem))
	}
	g.cfg().Logger.LogAttrs(c.r.Context(), slog.LevelInfo, "request", attrs...)
}
