// Package browsertest drives a real Chromium for tests of the pages.
//
//	Start ─ a headless browser with a profile of its own
//	Open  ─ a tab in it, which listens for what goes wrong unseen   tab.go
//	        the chat on it, in the words of its readers             chat.go
//	        whether everybody can use it, by axe-core               axe.go
//
// Waiting is for the page itself: an expression is looked at after each change,
// so that nothing here sleeps. Whoever opens a tab verifies it in the end: the
// page has kept its own policy, and the console has nothing to say.
package browsertest

import (
	"context"
	"os/exec"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// Patience is how long is waited for what must come. It is long because the
// machine may be busy.
const Patience = 40 * time.Second

// Browser is a running Chromium. It ends with the test.
type Browser struct{ ctx context.Context }

// Start runs a headless Chromium with a profile of its own.
func Start(t *testing.T) *Browser {
	t.Helper()
	options := append(chromedp.DefaultExecAllocatorOptions[:], // headless, no first run, no talk to the outside
		chromedp.ExecPath(program(t)),
		chromedp.UserDataDir(t.TempDir()),
		chromedp.NoSandbox, // as root there is none
		chromedp.DisableGPU,
		chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-component-update", true),
	)
	ctx, cancelAllocator := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, cancel := chromedp.NewContext(ctx)
	t.Cleanup(func() {
		if err := chromedp.Cancel(ctx); err != nil {
			t.Errorf("closing Chromium: %v", err)
		}
		cancel()
		cancelAllocator()
	})
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("starting Chromium: %v", err)
	}
	return &Browser{ctx}
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
