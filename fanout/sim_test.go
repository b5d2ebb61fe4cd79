package fanout

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// The simulation drives nodes, streams and publishers through hundreds of
// steps, among them every fault that a log can have, and holds what each client
// is shown against what really happened.
//
// What happens is decided by the seed: which step comes next, what it does to
// whom, in which order calls are served and messages come. Two things are not.
// Goroutines that one step wakes run side by side until all of them wait; and a
// catch-up that failed tries again after a time with jitter, which may fall to
// either side of a step. Neither may matter to a verdict; but a seed that fails
// may need a few runs to fail again.

const (
	simSteps = 300
	simSeeds = 2000             // unless SLUICE_SIM_SEEDS says otherwise
	simTime  = 30 * time.Second // beside other tests, after which those that are left are for another time
)

// simulate runs one seed and gives what was wrong, and how it came about.
func simulate(t *testing.T, seed uint64, mutate func(*simWorld)) (w *simWorld) {
	defer func() {
		if p := recover(); p != nil {
			t.Errorf("seed %d: panic: %v%s", seed, p, replay(seed))
			panic(p)
		}
	}()
	synctest.Test(t, func(*testing.T) {
		w = newSimWorld(seed, mutate)
		w.run(simSteps)
		w.stop()
	})
	return w
}

func replay(seed uint64) string {
	return fmt.Sprintf("\n\nreplay it with\n\tSLUICE_SIM_SEED=%d go test ./fanout -run '^TestSimulation$' -v -count 1\n", seed)
}

func (w *simWorld) report(last int) string {
	lines := w.lines[max(0, len(w.lines)-last):]
	return strings.Join(w.truth.wrong, "\n") + "\n\nthe last steps:\n" + strings.Join(lines, "\n")
}

func seedFrom(t *testing.T, name string) (seed uint64, given bool) {
	text := os.Getenv(name)
	if text == "" {
		return 0, false
	}
	seed, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return seed, true
}

func TestSimulation(t *testing.T) {
	t.Parallel() // beside tests that mostly wait
	if seed, given := seedFrom(t, "SLUICE_SIM_SEED"); given {
		w := simulate(t, seed, nil)
		t.Log("\n" + strings.Join(w.lines, "\n"))
		for _, wrong := range w.truth.wrong {
			t.Error(wrong)
		}
		return
	}
	seeds, given := seedFrom(t, "SLUICE_SIM_SEEDS")
	if !given {
		seeds = simSeeds
	}
	begun, failed := time.Now(), 0
	for seed := range seeds {
		if w := simulate(t, seed+1, nil); len(w.truth.wrong) > 0 {
			t.Errorf("seed %d: %s%s", seed+1, w.report(40), replay(seed+1))
			failed++
		}
		if failed == 5 || !given && time.Since(begun) > simTime {
			t.Logf("%d of %d seeds in %v", seed+1, seeds, time.Since(begun))
			return
		}
	}
}

// catches says that the simulation complains of a world that is broken on
// purpose, and in which words.
func catches(t *testing.T, words string, mutate func(*simWorld)) {
	t.Helper()
	for seed := uint64(1); seed <= 300; seed++ {
		w := simulate(t, seed, mutate)
		if i := slices.IndexFunc(w.truth.wrong, func(s string) bool { return strings.Contains(s, words) }); i >= 0 {
			t.Logf("seed %d: %s", seed, w.truth.wrong[i])
			return
		}
	}
	t.Errorf("no seed of 300 complains of %q", words)
}

func TestSimulationCatchesAnEpochThatIsUsedAgainAfterALoss(t *testing.T) {
	catches(t, "has given", func(w *simWorld) { w.server.reuseEpoch = true })
}

func TestSimulationCatchesASubscriptionThatIsRenewedInSilence(t *testing.T) {
	catches(t, "in the end", func(w *simWorld) { w.net.mute = true })
}

func TestSimulationCatchesKeysThatAreForgotten(t *testing.T) {
	catches(t, "is both", func(w *simWorld) { w.server.keep.Keys = -time.Hour })
}
