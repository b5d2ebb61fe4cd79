package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"sluice/cmd/sluice/internal/child"
)

var (
	program string // sluice, built for these tests
	seed    = flag.Uint64("seed", 0, "what the faults are drawn from; a new one if 0")
)

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(testAll(m))
}

func testAll(m *testing.M) int {
	dir, err := workspace()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	program = filepath.Join(dir, "sluice")
	if err := child.Build(context.Background(), program); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if code := m.Run(); code != 0 {
		return code
	}
	if err := goleak.Find(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// TestShortForm runs the scenarios that together stand for all, for seconds
// each. A failure is had again with the command's -run, -seed and -scale.
func TestShortForm(t *testing.T) {
	if testing.Short() {
		t.Skip("takes about a minute")
	}
	cfg := config{binary: program, seed: *seed, scale: 0.1, say: t.Logf}
	if cfg.seed == 0 {
		cfg.seed = uint64(rand.Uint32())
	}
	t.Logf("seed %d", cfg.seed)
	for _, s := range scenarios() {
		if !s.short {
			continue
		}
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			res, own := &result{}, cfg
			own.say = t.Logf
			play(t, own, s, res)
			t.Log(res.line())
			if !res.passed() {
				t.Errorf("seed %d", own.seed)
			}
		})
	}
}

func TestNamesAndNumbersAreSound(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range scenarios() {
		if seen[s.name] || s.name == "" || s.row == "" || s.fault == "" || s.on == "" || s.run == nil {
			t.Errorf("%q is there twice, or lacks something", s.name)
		}
		seen[s.name] = true
	}
	if _, err := choose("no such thing"); err == nil {
		t.Error("a name that is none was taken")
	}
}

// TestAChaosCanBeHadAgain: the seed alone says what happens, and when.
func TestAChaosCanBeHadAgain(t *testing.T) {
	draw := func(seed uint64) string {
		r := &rig{rng: newRNG(seed, "chaos-single")}
		return fmt.Sprint(r.schedule(1e11, nodeFaults))
	}
	first := draw(7)
	if again := draw(7); again != first {
		t.Errorf("one seed gave two schedules:\n%s\n%s", first, again)
	}
	if draw(8) == first {
		t.Error("two seeds gave one schedule")
	}
}
