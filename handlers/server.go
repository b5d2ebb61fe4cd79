package handlers

import (
	"log/slog"
	"net/http"
	"time"
)

// NewServer gives h the bounds that keep slow or hostile clients from holding
// connections: time and size for the head here, for bodies and streams in the
// handlers, since a bound of the whole response would cut streams.
func NewServer(h http.Handler, logger *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    12 << 10, // 16 KiB, since net/http allows 4 KiB more
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: 100,
			SendPingTimeout:      30 * time.Second, // finds connections that are dead
			PingTimeout:          15 * time.Second,
			WriteByteTimeout:     30 * time.Second, // and those that take nothing
		},
		ErrorLog: slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
	}
}
