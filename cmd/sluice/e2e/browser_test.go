package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"

	"sluice/fanout/redistest"
)

// startBrowser runs a headless Chromium with a profile of its own.
func startBrowser(t *testing.T) context.Context {
	t.Helper()
	path := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "chrome"} {
		if found, err := exec.LookPath(name); err == nil {
			path = found
			break
		}
	}
	if path == "" {
		t.Fatal("chromium is not installed, and nothing stands in for it here; install it: sudo apt-get update && sudo apt-get install -y chromium")
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], // headless, no first run, no talk to the outside
		chromedp.ExecPath(path),
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
	return ctx
}

// tab is a page in the browser.
type tab struct {
	t    *testing.T
	name string
	ctx  context.Context

	mu         sync.Mutex // guards the field below
	complaints []string   // what the console said that nobody wants to see there
}

// openTab opens a page. What its console says of requests to one of the
// addresses in mayFail is no complaint.
func openTab(t *testing.T, browser context.Context, name, url string, mayFail ...string) *tab {
	t.Helper()
	ctx, cancel := chromedp.NewContext(browser)
	b := &tab{t: t, name: name, ctx: ctx}
	var listening sync.WaitGroup
	t.Cleanup(func() {
		cancel()
		listening.Wait()
	})
	// The policy is broken in silence where a page catches the error.
	watch := page.AddScriptToEvaluateOnNewDocumentParams{Source: `
		window.violations = [];
		addEventListener('securitypolicyviolation', (e) => violations.push(e.violatedDirective + ': ' + e.blockedURI));`}
	if _, err := chromedp.Call(ctx, page.AddScriptToEvaluateOnNewDocument, watch); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	console := chromedp.Console(ctx)
	listening.Go(func() {
		for m, err := range console {
			if err != nil {
				return
			}
			b.heard(m, mayFail)
		}
	})
	if err := chromedp.Do(ctx, chromedp.Navigate(url)); err != nil {
		t.Fatalf("%s: opening %s: %v", name, url, err)
	}
	return b
}

// heard judges what the console said.
func (b *tab) heard(m chromedp.ConsoleMessage, mayFail []string) {
	switch m.Type {
	case chromedp.ConsoleLog, chromedp.ConsoleDebug, chromedp.ConsoleInfo:
		return
	}
	for _, prefix := range mayFail {
		if m.Source == "network" && strings.HasPrefix(m.URL, prefix) {
			return
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.complaints = append(b.complaints, fmt.Sprintf("%s %s: %s (%s)", m.Source, m.Type, m.Text, m.URL))
}

// await waits until an expression is true in the page. The page's policy forbids
// what chromedp.Poll does, so a promise waits, which looks after each change.
func (b *tab) await(what, expression string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	promise := `new Promise((done) => {
		const look = () => {
			if (!(` + expression + `)) return;
			watch.disconnect();
			done(true);
		};
		const watch = new MutationObserver(look);
		watch.observe(document, { subtree: true, childList: true, attributes: true, characterData: true });
		look();
	})`
	if _, err := chromedp.Run(ctx, chromedp.Evaluate[bool](promise, chromedp.EvalAwaitPromise)); err != nil {
		b.t.Fatalf("%s: waiting until %s: %v; it shows:\n%s", b.name, what, err, b.evaluate("document.body.innerText"))
	}
}

// evaluate gives the value of an expression as JSON.
func (b *tab) evaluate(expression string) string {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	value, err := chromedp.Run(ctx, chromedp.Evaluate[[]byte](expression))
	if err != nil {
		b.t.Errorf("%s: %s: %v", b.name, expression, err)
	}
	return string(value)
}

// say writes a message and sends it, as people do.
func (b *tab) say(text string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, chromedp.SendKeys(chromedp.CSS(`[data-testid="composer"]`), text+"\n")); err != nil {
		b.t.Fatalf("%s: writing %q: %v", b.name, text, err)
	}
}

// shown gives the messages in the list, each with what it still waits for.
const shown = `[...document.querySelectorAll('[data-testid="message"]')]
	.map((m) => m.querySelector('[data-testid="text"]').textContent + (m.dataset.state ? ' (' + m.dataset.state + ')' : ''))`

// awaitMessages waits until the list shows exactly these, in this order.
func (b *tab) awaitMessages(want ...string) {
	b.t.Helper()
	list, err := json.Marshal(want)
	if err != nil {
		b.t.Fatal(err)
	}
	b.await(fmt.Sprintf("it shows %s", list), "JSON.stringify("+shown+") === JSON.stringify("+string(list)+")")
}

// awaitState waits until the state that the page shows compares with one.
func (b *tab) awaitState(operator, state string) {
	b.t.Helper()
	b.await("its state "+operator+" "+state, `document.querySelector('[data-testid="state"]')?.dataset.state `+operator+` '`+state+`'`)
}

// verify checks that all went well behind the scenes.
func (b *tab) verify() {
	b.t.Helper()
	if got := b.evaluate("window.violations"); got != "[]" {
		b.t.Errorf("%s: the page broke its own policy: %s", b.name, got)
	}
	if got := b.evaluate(`document.querySelectorAll('[data-testid="gap"]').length`); got != "0" {
		b.t.Errorf("%s: it tells of %s gaps", b.name, got)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.complaints) > 0 {
		b.t.Errorf("%s: the console says:\n%s", b.name, strings.Join(b.complaints, "\n"))
	}
}

// TestTwoTabsChatAcrossANodesDeath: what a person sees of it is a word in the
// corner for a moment.
func TestTwoTabsChatAcrossANodesDeath(t *testing.T) {
	redis := redistest.Start(t)
	first, second := startNode(t, redis.URL()), startNode(t, redis.URL())
	browser := startBrowser(t)
	a := openTab(t, browser, "tab A", first.url+"/?room=lobby", first.url)
	b := openTab(t, browser, "tab B", second.url+"/?room=lobby")
	a.awaitState("===", "live")
	b.awaitState("===", "live")

	const markup = "<img src=x onerror=alert(1)> is text"
	a.say("hello from A")
	b.awaitMessages("hello from A")
	b.say(markup)
	a.awaitMessages("hello from A", markup)

	first.kill()
	a.awaitState("!==", "live")
	b.say("are you there?")
	b.awaitMessages("hello from A", markup, "are you there?")
	a.say("back soon")
	a.awaitMessages("hello from A", markup, "back soon (sending)")
	first.start()
	a.awaitState("===", "live")

	all := []string{"hello from A", markup, "are you there?", "back soon"}
	a.awaitMessages(all...)
	b.awaitMessages(all...)
	b.say("welcome back")
	a.awaitMessages(append(all, "welcome back")...)
	a.verify()
	b.verify()
	if err := chromedp.Do(a.ctx, chromedp.Reload()); err != nil {
		t.Fatal(err)
	}
	a.awaitState("===", "live")
	a.awaitMessages(append(all, "welcome back")...)
	a.verify()
}
