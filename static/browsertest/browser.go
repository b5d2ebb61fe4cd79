// Package browsertest drives a real Chromium for tests of the pages.
//
//	Chromium ─ a headless browser for many tests
//	Profile  ─ what one of them has of it, its own storage
//	Open     ─ a tab in it, which listens for what goes wrong unseen   tab.go
//	           the chat on it, in the words of its readers             chat.go
//	           whether everybody can use it, by axe-core               axe.go
//
// Waiting is for the page itself: an expression is looked at after each change,
// so that nothing here sleeps. Whoever opens a tab verifies it in the end: the
// page has kept its own policy, and the console has nothing to say.
package browsertest

import (
	"context"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// Patience is how long is waited for what must come. It is long because the
// machine may be busy.
const Patience = 40 * time.Second

// Chromium is a browser that many tests may share. It starts when the first of
// them needs it.
type Chromium struct {
	mu   sync.Mutex // guards the fields below
	ctx  context.Context
	stop func() error
}

// Browser is a profile in a Chromium: what others have stored is not seen here.
type Browser struct{ ctx context.Context }

// Profile gives a test a fresh profile. It ends with the test.
func (c *Chromium) Profile(t *testing.T) *Browser {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ctx == nil {
		c.start(t)
	}
	ctx, cancel := chromedp.NewContext(c.ctx, chromedp.WithNewBrowserContext())
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("a profile in Chromium: %v", err)
	}
	return &Browser{ctx}
}

func (c *Chromium) start(t *testing.T) {
	t.Helper()
	options := append(chromedp.DefaultExecAllocatorOptions[:], // headless, no first run, no talk to the outside
		chromedp.ExecPath(program(t)),
		chromedp.NoSandbox, // as root there is none
		chromedp.DisableGPU,
		chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-component-update", true),
	)
	ctx, cancelAllocator := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, cancel := chromedp.NewContext(ctx)
	c.ctx, c.stop = ctx, func() error {
		defer cancelAllocator()
		defer cancel()
		return chromedp.Cancel(ctx)
	}
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("starting Chromium: %v", err)
	}
}

// Stop ends the browser, if it was ever started, and waits for its end.
func (c *Chromium) Stop() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ctx == nil {
		return nil
	}
	c.ctx = nil
	return c.stop()
}

func program(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Fatal("chromium is not installed, and nothing stands in for it here; install it: sudo apt-get update && sudo apt-get install -y chromium")
	return ""
}
