package static

import (
	"fmt"
	"strings"
	"testing"

	"sluice/static/browsertest"
)

// reader is a tab with the page of testdata, which shows what its subscription is told.
type reader struct {
	*browsertest.Tab
	t *testing.T
}

func openTab(t *testing.T, browser *browsertest.Browser, s *site, page string) *reader {
	t.Helper()
	return &reader{browser.Open(t, page, s.url+page, s.url), t}
}

func (b *reader) awaitState(state string) {
	b.t.Helper()
	b.Await("document.body.dataset.state === '" + state + "'")
}

func (b *reader) awaitWay(way string) {
	b.t.Helper()
	b.Await("document.body.dataset.state === 'live' && document.body.dataset.way === '" + way + "'")
}

// awaitLog waits until the page has been told so many things, and compares them.
func (b *reader) awaitLog(want ...string) {
	b.t.Helper()
	b.Await(fmt.Sprintf("JSON.parse(document.body.textContent || '[]').length >= %d", len(want)))
	b.hasLog(want...)
}

func (b *reader) hasLog(want ...string) {
	b.t.Helper()
	got := browsertest.Evaluate[[]string](b.Tab, "JSON.parse(document.body.textContent || '[]')")
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		b.t.Fatalf("the page was told %q, want %q", got, want)
	}
}
