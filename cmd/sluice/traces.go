package main

import (
	"context"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel"

	"sluice/handlers/tracing"
)

// tracer is what publications are traced with; nil if nobody has said where
// traces go. OpenTelemetry's own variables count, as for any program.
func (c *serveCmd) tracer(ctx context.Context, p *process, logger *slog.Logger) (*tracing.Tracer, error) {
	named := c.OTLPEndpoint != "" || p.getenv("OTEL_EXPORTER_OTLP_ENDPOINT") != "" || p.getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") != ""
	if !named || strings.EqualFold(p.getenv("OTEL_SDK_DISABLED"), "true") || p.getenv("OTEL_TRACES_EXPORTER") == "none" {
		return nil, nil
	}
	opt := tracing.Options{Endpoint: c.OTLPEndpoint, Sample: c.TraceSample, Rooms: c.TraceRooms, Version: version()}
	if p.getenv("OTEL_TRACES_SAMPLER") != "" {
		opt.Sample = -1
	}
	t, err := tracing.Open(ctx, opt)
	if err != nil {
		return nil, usagef("--otlp-endpoint: %v", err)
	}
	otel.SetErrorHandler(&traceErrors{logger: logger})
	return t, nil
}

// traceErrors logs what goes wrong with the collector, once a minute at most.
type traceErrors struct {
	logger *slog.Logger
	last   atomic.Int64
}

// Handle implements otel.ErrorHandler. The error may hold the answer of
// whatever is at the endpoint, so that little of it is logged.
func (e *traceErrors) Handle(err error) {
	now := time.Now().Unix()
	if last := e.last.Load(); now-last < 60 || !e.last.CompareAndSwap(last, now) {
		return
	}
	text := oneLine(err.Error())
	e.logger.Warn("traces are lost", "error", text[:min(len(text), 200)])
}
