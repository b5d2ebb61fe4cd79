// Package tracing tells a collector of traces what becomes of publications,
// over OTLP, from the request to the streams of every node.
//
//	traceparent -> Request (POST) ─ Step (append)
//	                    └ Carried, with the event, to each node -> FannedOut
//
// A span has times, the route, the answer's status and, where that is wanted,
// the room. It never has a header, a query, a token, a user or an event's data.
//
// A nil *Tracer is tracing that is off, and costs nothing: its methods do
// nothing, no context is made, and events carry no trace.
package tracing

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"sluice/fanout"
)

// Options of a Tracer.
type Options struct {
	Endpoint string  // base URL of a collector; what OTEL_EXPORTER_OTLP_ENDPOINT and so on say if empty
	Sample   float64 // part of the publications without a trace of their own that are traced; what OTEL_TRACES_SAMPLER says if negative
	Rooms    bool    // spans name the room
	Version  string  // of the program
}

// Tracer makes spans. Its methods may be called by many, and do not block: what
// the collector does not take in time is dropped.
type Tracer struct {
	provider *sdk.TracerProvider
	tracer   trace.Tracer
	rooms    bool
}

// headers reads and writes what travels between processes.
var headers = propagation.TraceContext{}

// Open gives a Tracer. It does not ask the collector for anything; the caller
// owes a Close.
func Open(ctx context.Context, opt Options) (*Tracer, error) {
	var to []otlptracehttp.Option
	if opt.Endpoint != "" {
		u, err := url.Parse(opt.Endpoint)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" {
			return nil, errors.New("it is not the URL of a collector, like http://127.0.0.1:4318")
		}
		to = append(to, otlptracehttp.WithEndpointURL(u.JoinPath("v1/traces").String()))
	}
	exporter, err := otlptracehttp.New(ctx, to...)
	if err != nil {
		return nil, fmt.Errorf("tracing: %w", err)
	}
	host, _ := os.Hostname() // is left out if unknown
	about, err := resource.New(ctx,
		resource.WithAttributes(
			attribute.String("service.name", "sluice"), attribute.String("service.version", opt.Version),
			attribute.String("service.instance.id", rand.Text()), attribute.String("host.name", host),
		),
		resource.WithFromEnv(), // counts more
	)
	if err != nil {
		return nil, fmt.Errorf("tracing: OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	with := []sdk.TracerProviderOption{sdk.WithBatcher(exporter), sdk.WithResource(about)}
	if opt.Sample >= 0 {
		with = append(with, sdk.WithSampler(sdk.ParentBased(sdk.TraceIDRatioBased(opt.Sample))))
	}
	t := &Tracer{provider: sdk.NewTracerProvider(with...), rooms: opt.Rooms}
	t.tracer = t.provider.Tracer("sluice")
	return t, nil
}

// flushWait is how long the end of a node waits for the collector.
const flushWait = 2 * time.Second

// Close sends what is left, for which it takes two seconds at most.
func (t *Tracer) Close() error {
	if t == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), flushWait)
	defer cancel()
	return t.provider.Shutdown(ctx)
}

// Request begins the span of a publication, as a child of the trace that the
// request names, if it names one.
func (t *Tracer) Request(r *http.Request, route string) (*http.Request, *Span) {
	if t == nil {
		return r, nil
	}
	ctx := headers.Extract(r.Context(), propagation.HeaderCarrier(r.Header))
	ctx, span := t.tracer.Start(ctx, r.Method+" "+route, trace.WithSpanKind(trace.SpanKindServer),
		trace.WithAttributes(attribute.String("http.request.method", r.Method), attribute.String("http.route", route)))
	return r.WithContext(ctx), &Span{span}
}

// Step begins a span within the one of ctx. Its end is told to done.
func (t *Tracer) Step(ctx context.Context, name, room string) (_ context.Context, done func(error)) {
	if t == nil || !trace.SpanContextFromContext(ctx).IsSampled() {
		return ctx, func(error) {}
	}
	ctx, span := t.tracer.Start(ctx, name, t.room(room))
	return ctx, func(err error) {
		if err != nil {
			span.SetStatus(codes.Error, "") // its text may name what is nobody's business
		}
		span.End()
	}
}

func (t *Tracer) room(name string) trace.SpanStartOption {
	if !t.rooms {
		return trace.WithAttributes()
	}
	return trace.WithAttributes(attribute.String("sluice.room", name))
}

// Span is that of a request. A nil Span does nothing.
type Span struct{ span trace.Span }

// Ended ends the span, with the status and the kind of problem that the client
// was told; "" if there was none.
func (s *Span) Ended(status int, problem string) {
	if s == nil {
		return
	}
	if status != 0 {
		s.span.SetAttributes(attribute.Int("http.response.status_code", status))
	}
	if problem != "" {
		s.span.SetAttributes(attribute.String("error.type", problem))
	}
	if status >= http.StatusInternalServerError {
		s.span.SetStatus(codes.Error, "")
	}
	s.span.End()
}

// Carried is what an event takes along of the trace that ctx belongs to: "" for
// one that is not recorded.
func (t *Tracer) Carried(ctx context.Context) string {
	if t == nil || !trace.SpanContextFromContext(ctx).IsSampled() {
		return ""
	}
	carrier := propagation.MapCarrier{}
	headers.Inject(ctx, carrier)
	return carrier["traceparent"]
}

// FannedOut records how long an event took from its arrival at this node to the
// streams. It is for fanout.Options.Traced.
func (t *Tracer) FannedOut(e fanout.Traced) {
	ctx := headers.Extract(context.Background(), propagation.MapCarrier{"traceparent": e.Parent})
	_, span := t.tracer.Start(ctx, "fan out", trace.WithSpanKind(trace.SpanKindConsumer), trace.WithTimestamp(e.Came), t.room(e.Event.Room))
	span.End(trace.WithTimestamp(e.Written))
}
