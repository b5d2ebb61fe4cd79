package browsertest

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// axeFile is the checker in the cache that test.sh fills.
var axeFile = filepath.Join("sluice", "npm", "node_modules", "axe-core", "axe.min.js")

// Axe is axe-core, which finds what keeps people from using a page.
type Axe struct{ source string }

// LoadAxe reads axe-core from the cache. Where it is missing the test is
// skipped, except in CI.
func LoadAxe(t *testing.T) *Axe {
	t.Helper()
	cache := os.Getenv("XDG_CACHE_HOME")
	if cache == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			t.Fatal(err)
		}
		cache = filepath.Join(home, ".cache")
	}
	source, err := os.ReadFile(filepath.Join(cache, axeFile))
	if err == nil {
		return &Axe{string(source)}
	}
	const advice = "axe-core is missing (%v); install it: npm install --prefix %s axe-core"
	folder := filepath.Join(cache, "sluice", "npm")
	if os.Getenv("CI") != "" {
		t.Fatalf(advice, err, folder)
	}
	t.Skipf(advice, err, folder)
	return nil
}

// Check fails the test for each violation in the page that is serious or critical.
func (a *Axe) Check(b *Tab) {
	b.t.Helper()
	if !Evaluate[bool](b, "'axe' in window") {
		Evaluate[bool](b, a.source+";\ntrue")
	}
	// Half faded in, things have half their colour.
	Evaluate[bool](b, `Promise.allSettled(document.getAnimations()
		.filter((a) => a.effect.getComputedTiming().endTime < Infinity).map((a) => a.finished)).then(() => true)`)
	found := Evaluate[[]string](b, `axe.run(document, { resultTypes: ['violations'] }).then(({ violations }) => violations
		.filter(({ impact }) => impact === 'serious' || impact === 'critical')
		.map(({ id, impact, help, nodes }) => impact + ' ' + id + ': ' + help + nodes.map((n) => '\n    ' + n.html + ' ' + n.failureSummary).join('')))`)
	for _, violation := range found {
		b.t.Errorf("%s: %s", b.name, violation)
	}
}

// looks are the ways in which people look at a page.
var looks = []struct {
	name          string
	width, height int64
	phone, dark   bool
}{
	{"desktop, light", 1200, 812, false, false},
	{"desktop, dark", 1200, 812, false, true},
	{"phone, light", 390, 774, true, false},
	{"phone, dark", 390, 774, true, true},
}

// CheckAll checks the page light and dark, on a phone and on a desktop. On a
// phone it then calls open, if there is one, for what is not open there from the
// start, and checks once more.
func (a *Axe) CheckAll(b *Tab, open func()) {
	b.t.Helper()
	name := b.name
	defer func() { b.name = name }()
	for _, look := range looks {
		b.name = fmt.Sprintf("%s, %s", name, look.name)
		b.Look(look.width, look.height, look.phone, look.dark)
		a.Check(b)
		if look.phone && open != nil {
			open()
			a.Check(b)
		}
	}
}
