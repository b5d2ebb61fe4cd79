package fanout

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"sluice/fanout/redistest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

// openLog gives a fresh log for a test; logs that share share what they keep.
type openLog func(t *testing.T, keep Retention) Log

// eachLog runs f against every log that there is.
func eachLog(t *testing.T, f func(t *testing.T, open openLog)) {
	t.Run("Memory", func(t *testing.T) {
		f(t, func(t *testing.T, keep Retention) Log { return NewMemory(keep) })
	})
	t.Run("Simulated", func(t *testing.T) {
		f(t, func(t *testing.T, keep Retention) Log {
			net := newSimNet(newSimServer(keep))
			net.auto = true
			return net.node()
		})
	})
	t.Run("Redis", func(t *testing.T) {
		server := redistest.Start(t)
		f(t, func(t *testing.T, keep Retention) Log {
			return openRedis(t, RedisOptions{URL: server.URL(), Prefix: "t" + newEpoch(), Keep: keep})
		})
	})
}

func openRedis(t *testing.T, opt RedisOptions) *Redis {
	t.Helper()
	opt.Logger = quiet
	if testing.Verbose() {
		opt.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	r, err := OpenRedis(opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

// runHub runs a hub for the length of a test.
func runHub(t *testing.T, log Log, opt Options) *Hub {
	t.Helper()
	opt.Logger = quiet
	if testing.Verbose() {
		opt.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	switch log := log.(type) {
	case *Memory:
		opt.Keep = log.keep
	case *Redis:
		opt.Keep = log.keep
	case *simLog:
		opt.Keep = log.net.server.keep
	}
	h := NewHub(log, opt)
	ctx, cancel := context.WithCancel(context.Background())
	var tasks sync.WaitGroup
	tasks.Go(func() { _ = h.Run(ctx) })
	t.Cleanup(func() { cancel(); tasks.Wait() })
	return h
}

func text(s string) Draft { return Draft{Type: "message", Data: []byte(s)} }

func mustAppend(t *testing.T, log Log, room string, drafts ...Draft) []Receipt {
	t.Helper()
	receipts, err := log.Append(t.Context(), room, drafts)
	if err != nil {
		t.Fatalf("appending to %s: %v", room, err)
	}
	return receipts
}

func mustRead(t *testing.T, log Log, room string, after int64, limit int) History {
	t.Helper()
	h, err := log.Read(t.Context(), room, after, limit)
	if err != nil {
		t.Fatalf("reading %s: %v", room, err)
	}
	return h
}

// eventually polls until f says yes; what it waits for crosses a network.
func eventually(t *testing.T, limit time.Duration, what string, f func() bool) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for !f() {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v", what, limit)
		}
		select {
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func numbered(n int) string { return fmt.Sprintf("event %d", n) }
