package handlers

import (
	"cmp"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"sluice/fanout"
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
	Pages        http.Handler  // what is served besides, at PagePaths; nothing if nil
	PagePaths    []string      //
}

// Gateway is the HTTP side of a node.
type Gateway struct {
	hub      *fanout.Hub
	cfg      Config
	terms    fanout.Terms // of the connections that streams take over
	draining atomic.Bool
	problems problemCounts
}

// NewGateway gives the HTTP side of hub.
func NewGateway(hub *fanout.Hub, cfg Config) *Gateway {
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
	return &Gateway{
		hub:      hub,
		cfg:      cfg,
		terms:    fanout.Terms{Chunked: !cfg.CloseFraming, Timeout: cfg.WriteTimeout},
		problems: problemCounts{n: map[string]int64{}},
	}
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
