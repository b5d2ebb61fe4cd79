package browsertest

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/cdproto/browser"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
)

// Tab is a page in a browser.
type Tab struct {
	t    *testing.T
	name string
	ctx  context.Context
	stop func()

	mayFail []string // addresses of which the console may complain

	mu         sync.Mutex // guards the field below
	complaints []string   // what the console said that nobody wants to see there
}

// watch collects what a page does not say aloud: the policy is broken in
// silence where a page catches the error.
const watch = `
	window.faults = [];
	addEventListener('securitypolicyviolation', (e) => faults.push('policy: ' + e.violatedDirective + ' ' + e.blockedURI));
	addEventListener('error', (e) => faults.push(String(e.message)));
	addEventListener('unhandledrejection', (e) => faults.push(String(e.reason)));`

// Open opens a page. What its console says of requests to addresses that begin
// with one of mayFail is no complaint.
func (b *Browser) Open(t *testing.T, name, url string, mayFail ...string) *Tab {
	t.Helper()
	tab := b.open(t, name, watch, mayFail)
	tab.Visit(url)
	return tab
}

// open opens a tab in which each page begins with a script.
func (b *Browser) open(t *testing.T, name, script string, mayFail []string) *Tab {
	t.Helper()
	ctx, cancel := chromedp.NewContext(b.ctx)
	tab := &Tab{t: t, name: name, ctx: ctx, mayFail: mayFail}
	var listening sync.WaitGroup
	tab.stop = sync.OnceFunc(func() {
		cancel()
		listening.Wait()
	})
	t.Cleanup(tab.stop)
	if _, err := chromedp.Call(ctx, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{Source: script}); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	console := chromedp.Console(ctx)
	listening.Go(func() {
		for m, err := range console {
			if err != nil {
				return
			}
			tab.heard(m)
		}
	})
	return tab
}

// heard judges what the console said.
func (b *Tab) heard(m chromedp.ConsoleMessage) {
	switch m.Type {
	case chromedp.ConsoleLog, chromedp.ConsoleDebug, chromedp.ConsoleInfo:
		return
	}
	for _, prefix := range b.mayFail {
		if m.Source == "network" && strings.HasPrefix(m.URL, prefix) {
			return
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.complaints = append(b.complaints, fmt.Sprintf("%s %s: %s (%s)", m.Source, m.Type, m.Text, m.URL))
}

// Visit leaves the page for another one.
func (b *Tab) Visit(url string) {
	b.t.Helper()
	b.do(chromedp.Navigate(url))
}

// Reload loads the page anew.
func (b *Tab) Reload() {
	b.t.Helper()
	b.do(chromedp.Reload())
}

// Close closes the tab, as its reader does.
func (b *Tab) Close() {
	b.t.Helper()
	b.stop()
}

// Hide puts the tab out of sight, as who minimizes its window does.
func (b *Tab) Hide() {
	b.t.Helper()
	b.window(browser.WindowStateMinimized)
	b.Await("document.hidden")
}

// Show ends Hide.
func (b *Tab) Show() {
	b.t.Helper()
	b.window(browser.WindowStateNormal)
	b.Await("!document.hidden")
}

func (b *Tab) window(state browser.WindowState) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, Patience)
	defer cancel()
	of := browser.GetWindowForTargetParams{TargetID: chromedp.FromContext(b.ctx).Target.TargetID}
	window, err := chromedp.CallBrowser(ctx, browser.GetWindowForTarget, of)
	if err == nil {
		to := browser.SetWindowBoundsParams{WindowID: window.WindowID, Bounds: &browser.Bounds{WindowState: state}}
		_, err = chromedp.CallBrowser(ctx, browser.SetWindowBounds, to)
	}
	if err != nil {
		b.t.Fatalf("%s: %v", b.name, err)
	}
}

// Press types into the element with a test id; a line break is the key Enter.
func (b *Tab) Press(testid, keys string) {
	b.t.Helper()
	text, enter := strings.CutSuffix(keys, "\n")
	b.do(chromedp.SendKeys(chromedp.CSS(`[data-testid="`+testid+`"]`), text))
	if !enter {
		return
	}
	// One event, as a keyboard makes it: what a page prevents when the key goes down
	// is not typed. Of chromedp's two the second would be.
	key := input.DispatchKeyEventParams{Key: "Enter", Code: "Enter", Text: "\r", WindowsVirtualKeyCode: 13}
	for _, key.Type = range []input.DispatchKeyEventType{input.DispatchKeyEventTypeKeyDown, input.DispatchKeyEventTypeKeyUp} {
		if _, err := chromedp.Call(b.ctx, input.DispatchKeyEvent, key); err != nil {
			b.t.Fatalf("%s: %v", b.name, err)
		}
		key.Text = ""
	}
}

// Offline takes the network from the page, or gives it back.
func (b *Tab) Offline(off bool) {
	b.t.Helper()
	conditions := network.EmulateNetworkConditionsByRuleParams{
		MatchedNetworkConditions: []*network.Conditions{{DownloadThroughput: -1, UploadThroughput: -1, Offline: off}},
	}
	if _, err := chromedp.Call(b.ctx, network.EmulateNetworkConditionsByRule, conditions); err != nil {
		b.t.Fatalf("%s: %v", b.name, err)
	}
	state := network.OverrideNetworkStateParams{DownloadThroughput: -1, UploadThroughput: -1, Offline: off}
	if _, err := chromedp.Call(b.ctx, network.OverrideNetworkState, state); err != nil {
		b.t.Fatalf("%s: %v", b.name, err)
	}
}

// Click clicks on the element with a test id, or on what a selector finds from
// there, which is appended to its.
func (b *Tab) Click(testid string, more ...string) {
	b.t.Helper()
	b.do(chromedp.Click(chromedp.CSS(`[data-testid="` + testid + `"]` + strings.Join(more, ""))))
}

// Look shows the page as a device does.
func (b *Tab) Look(width, height int64, phone, dark bool) {
	b.t.Helper()
	var viewport []chromedp.EmulateViewportOption
	if phone {
		viewport = append(viewport, chromedp.EmulateMobile, chromedp.EmulateTouch, chromedp.EmulatePortrait)
	}
	b.do(chromedp.EmulateViewport(width, height, viewport...))
	media := emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{
		{Name: "prefers-color-scheme", Value: "light"},
		{Name: "prefers-reduced-motion", Value: "reduce"},
	}}
	if dark {
		media.Features[0].Value = "dark"
	}
	if _, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, media); err != nil {
		b.t.Fatalf("%s: %v", b.name, err)
	}
}

func (b *Tab) do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, Patience)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		b.t.Fatalf("%s: %v", b.name, err)
	}
}

// Await waits until an expression is true in the page. The page's policy forbids
// what chromedp.Poll does, so a promise waits, which looks after each change.
func (b *Tab) Await(expression string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, Patience)
	defer cancel()
	promise := `new Promise((done) => {
		const look = () => {
			if (!(` + expression + `)) return;
			watch.disconnect();
			removeEventListener('scroll', look, true);
			removeEventListener('visibilitychange', look, true);
			done(true);
		};
		const watch = new MutationObserver(look);
		watch.observe(document, { subtree: true, childList: true, attributes: true, characterData: true });
		addEventListener('scroll', look, true);
		addEventListener('visibilitychange', look, true);
		look();
	})`
	if _, err := chromedp.Run(ctx, chromedp.Evaluate[bool](promise, chromedp.EvalAwaitPromise)); err != nil {
		b.t.Fatalf("%s: waiting for %s: %v; it shows:\n%s\n%q", b.name, expression, err,
			Evaluate[string](b, "JSON.stringify({...document.body.dataset}) + document.body.innerText"), b.wrong())
	}
}

// Evaluate gives the value of an expression, or of its promise.
func Evaluate[T any](b *Tab, expression string) T {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, Patience)
	defer cancel()
	value, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		b.t.Fatalf("%s: %s: %v", b.name, expression, err)
	}
	return value
}

// Verify checks that nothing went wrong unseen: the page has kept its policy,
// no script failed, and the console does not complain.
func (b *Tab) Verify() {
	b.t.Helper()
	for _, fault := range b.wrong() {
		b.t.Errorf("%s: %s", b.name, fault)
	}
}

func (b *Tab) wrong() []string {
	b.t.Helper()
	faults := Evaluate[[]string](b, "window.faults ?? []")
	b.mu.Lock()
	defer b.mu.Unlock()
	return append(faults, b.complaints...)
}
