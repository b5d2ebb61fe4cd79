package handlers

import (
	"cmp"
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"sluice/fanout"
	"sluice/handlers/auth"
	"sluice/handlers/limit"
	"sluice/handlers/tracing"
)

// Config of a Gateway. The zero value works.
type Config struct {
	MaxBody      int64         // bytes of one event's data; 64 KiB if zero
	MaxRooms     int           // rooms of one stream or publication; 50 if zero
	Heartbeat    time.Duration // 15 s if zero
	Retry        time.Duration // after which clients come back, about; 2 s if zero
	Padding      int           // bytes of comment that a stream begins with; 2 KiB if zero, none if negative
	MaxAge       time.Duration // after which a stream ends by itself, about; never if zero
	CloseFraming bool          // streams end with their connection rather than being chunked
	WriteTimeout time.Duration // of one write to a stream; 30 s if zero
	BodyTimeout  time.Duration // to receive a body; 10 s if zero
	Origins      []string      // other origins whose pages may use the gateway
	Logger       *slog.Logger  // slog.Default() if nil
	Version      string        // of the program, for its metrics
	LogRequests  RequestLog    // requests that have a line in the log; none if zero

	Tracer *tracing.Tracer // of publications; nil if that is off

	Verifier        *auth.Verifier // judges tokens; without one the gateway is open
	PublicSubscribe auth.Patterns  // rooms that everybody may read although there are tokens
	PublicPublish   auth.Patterns  // likewise, and write to
	StrictTickets   bool           // a ticket opens one stream and never reopens it
	TrustedProxies  []netip.Prefix // whose X-Forwarded-For counts
	Limits          Limits

	Namespaces map[string]Namespace // settings of rooms by what stands before the first colon of their names

	Pages     http.Handler // what is served besides, at PagePaths; nothing if nil
	PagePaths []string     //
}

// Gateway is the HTTP side of a node.
type Gateway struct {
	hub      *fanout.Hub
	config   atomic.Pointer[Config] // see cfg
	terms    fanout.Terms           // of the connections that streams take over
	draining atomic.Bool

	accessLog accessLog
	problems  problemCounts
	metrics   *metrics
	limits    *limiter
	revoked   *revocations
	tickets   *tickets
	refused   atomic.Pointer[limit.Descriptors] // of the public listener
}

func (cfg Config) withDefaults() Config {
	cfg.MaxBody = cmp.Or(cfg.MaxBody, 64<<10)
	cfg.MaxRooms = cmp.Or(cfg.MaxRooms, 50)
	cfg.Heartbeat = cmp.Or(cfg.Heartbeat, 15*time.Second)
	cfg.Retry = cmp.Or(cfg.Retry, 2*time.Second)
	cfg.Padding = max(0, cmp.Or(cfg.Padding, 2<<10))
	cfg.WriteTimeout = cmp.Or(cfg.WriteTimeout, 30*time.Second)
	cfg.BodyTimeout = cmp.Or(cfg.BodyTimeout, 10*time.Second)
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	return cfg
}

// NewGateway gives the HTTP side of hub.
func NewGateway(hub *fanout.Hub, cfg Config) *Gateway {
	cfg = cfg.withDefaults()
	g := &Gateway{
		hub: hub, problems: problemCounts{n: map[string]int64{}},
		terms:  fanout.Terms{Chunked: !cfg.CloseFraming, Timeout: cfg.WriteTimeout},
		limits: newLimiter(cfg.Limits), metrics: newMetrics(hub.Stats()),
		revoked: newRevocations(hub.Log(), func(subject string, until time.Time) {
			hub.EndOwned(subject, until, fanout.ByeRevoked)
		}),
		tickets: &tickets{hub: hub, open: map[*heldTicket]struct{}{}},
	}
	g.config.Store(&cfg)
	return g
}

// cfg is what holds now.
func (g *Gateway) cfg() *Config { return g.config.Load() }

// Reload has another Config hold from now on, for requests and for streams that
// begin; what is under way is left alone, and no stream ends. Only what a
// request is measured by changes: limits, namespaces, who may do what without a
// token, how streams are kept, and which requests are logged. How the gateway is joined to the rest of the
// process (Verifier, Origins, WriteTimeout and so on) stays. It is not called
// by two at a time.
func (g *Gateway) Reload(cfg Config) {
	cfg, next := cfg.withDefaults(), *g.cfg()
	next.MaxBody, next.MaxRooms, next.LogRequests = cfg.MaxBody, cfg.MaxRooms, cfg.LogRequests
	next.Heartbeat, next.Retry, next.Padding, next.MaxAge = cfg.Heartbeat, cfg.Retry, cfg.Padding, cfg.MaxAge
	next.PublicSubscribe, next.PublicPublish, next.StrictTickets = cfg.PublicSubscribe, cfg.PublicPublish, cfg.StrictTickets
	next.TrustedProxies, next.Limits, next.Namespaces = cfg.TrustedProxies, cfg.Limits, cfg.Namespaces
	g.limits.set(cfg.Limits)
	g.config.Store(&next)
}

// Reloaded counts an attempt to change what holds.
func (g *Gateway) Reloaded(ok bool) { g.metrics.reloaded(ok) }

// pollEvery is how often a node looks who was revoked on another one.
const pollEvery = time.Second

// Run keeps the gateway in step with the other nodes, until ctx ends: what was
// published is added up, revocations are learnt, tickets outlive their streams
// as long as they should. It is called once, while the log can still be used.
func (g *Gateway) Run(ctx context.Context) {
	var tasks sync.WaitGroup
	defer tasks.Wait()
	tasks.Go(func() { g.limits.run(ctx, g.hub.Log()) })
	if g.cfg().Verifier == nil {
		return
	}
	tasks.Go(func() { g.tickets.run(ctx) })
	tasks.Go(func() {
		ticker := time.NewTicker(pollEvery)
		defer ticker.Stop()
		for {
			_ = g.revoked.poll(ctx) // a log that is out of reach is reported elsewhere
			select {
			case <-ticker.C:
			case <-ctx.Done():
				return
			}
		}
	})
}

// Guard gives the public listener a bound: connections that would take the
// last of so many file descriptors are turned away at once. 0 is no bound.
func (g *Gateway) Guard(ln net.Listener, descriptors int) net.Listener {
	guarded := limit.NewDescriptors(ln, descriptors)
	g.refused.Store(guarded)
	return guarded
}

// Drain makes the gateway say that it is not ready, and turn streams away.
func (g *Gateway) Drain() { g.draining.Store(true) }

// problemCounts counts what clients were told, by kind.
type problemCounts struct {
	mu sync.Mutex
	n  map[string]int64
}

func (c *problemCounts) count(kind string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n[kind]++
}

func (c *problemCounts) each(f func(kind string, n int64)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for kind, n := range c.n {
		f(kind, n)
	}
}
