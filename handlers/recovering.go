package handlers

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"runtime"
	"strconv"
)

// recovering makes a panic the failure of one request. What was thrown may
// hold anything that the request did, so the log gets its type and where it
// came from, and the client nothing but that it happened.
func (g *Gateway) recovering(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			thrown := recover()
			if thrown == nil {
				return
			}
			if thrown == http.ErrAbortHandler {
				panic(thrown) // which is how a handler breaks a connection
			}
			g.problems.count("panic")
			g.cfg().Logger.LogAttrs(context.WithoutCancel(r.Context()), slog.LevelError, "a handler panicked",
				slog.String("panic", describe(thrown)), slog.Any("at", callers()))
			if w.Header().Get("Content-Type") != "" {
				panic(http.ErrAbortHandler) // an answer was begun, and its end would look like a whole one
			}
			g.answering(func(http.ResponseWriter, *http.Request) error { return errInternal })(w, r)
		}()
		next.ServeHTTP(w, r)
	})
}

// describe tells what was thrown: the runtime's own errors name no data but
// indexes and types.
func describe(thrown any) string {
	if err, ok := thrown.(runtime.Error); ok {
		return err.Error()
	}
	return fmt.Sprintf("%T", thrown)
}

// callers lists the functions that led to the panic, the innermost first.
func callers() []string {
	const most = 12
	pcs := make([]uintptr, 64)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(3, pcs)])
	var list []string
	for {
		frame, more := frames.Next()
		if frame.Function != "runtime.gopanic" && frame.Function != "" {
			list = append(list, frame.Function+":"+strconv.Itoa(frame.Line))
		}
		if !more || len(list) == most {
			return list
		}
	}
}
