package fanout

import (
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestLogsKeepTheStoresPromises(t *testing.T) {
	eachLog(t, func(t *testing.T, open openLog) { testStore(t, open(t, Retention{})) })
}

func testStore(t *testing.T, s Store) {
	t.Run("SwapNeedsWhatIsThere", func(t *testing.T) { testSwap(t, s) })
	t.Run("OneOfManySwapsWins", func(t *testing.T) { testSwapRace(t, s) })
	t.Run("ValuesExpire", func(t *testing.T) { testValuesExpire(t, s) })
	t.Run("MarksAreListedByTime", func(t *testing.T) { testMarks(t, s) })
	t.Run("BucketsAreShared", func(t *testing.T) { testSpend(t, s) })
}

func swap(t *testing.T, s Store, key, old, value string, ttl time.Duration) bool {
	t.Helper()
	ok, err := s.Swap(t.Context(), key, orNothing(old), orNothing(value), ttl)
	if err != nil {
		t.Fatal(err)
	}
	return ok
}

func orNothing(s string) []byte {
	if s == "" {
		return nil
	}
	return []byte(s)
}

func load(t *testing.T, s Store, key string) string {
	t.Helper()
	value, err := s.Load(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	return string(value)
}

func testSwap(t *testing.T, s Store) {
	for _, step := range []struct {
		old, value string
		want       bool
		then       string
	}{
		{"x", "a", false, ""},
		{"", "a", true, "a"},
		{"", "b", false, "a"},
		{"b", "c", false, "a"},
		{"a", "b\x00\r\n", true, "b\x00\r\n"},
		{"b\x00\r\n", "", true, ""},
		{"", "", true, ""},
		{"", "z", true, "z"},
	} {
		if got := swap(t, s, "k", step.old, step.value, time.Minute); got != step.want {
			t.Fatalf("swapping %q for %q: %v, want %v", step.old, step.value, got, step.want)
		}
		if got := load(t, s, "k"); got != step.then {
			t.Fatalf("after swapping %q for %q there is %q, want %q", step.old, step.value, got, step.then)
		}
	}
}

func testSwapRace(t *testing.T, s Store) {
	swap(t, s, "race", "", "start", time.Minute)
	var won atomic.Int32
	var tasks sync.WaitGroup
	for i := range 20 {
		tasks.Go(func() {
			ok, err := s.Swap(t.Context(), "race", []byte("start"), []byte(strconv.Itoa(i)), time.Minute)
			if err != nil {
				t.Error(err)
			}
			if ok {
				won.Add(1)
			}
		})
	}
	tasks.Wait()
	if won.Load() != 1 {
		t.Errorf("%d of 20 swaps won, want 1", won.Load())
	}
}

func testValuesExpire(t *testing.T, s Store) {
	swap(t, s, "short", "", "a", 30*time.Millisecond)
	for deadline := time.Now().Add(5 * time.Second); load(t, s, "short") != ""; {
		if time.Now().After(deadline) {
			t.Fatal("after 5 s a value of 30 ms is still there")
		}
	}
	if !swap(t, s, "short", "", "b", time.Minute) || !swap(t, s, "short", "b", "c", 0) {
		t.Fatal("swaps after the end failed")
	}
	if got := load(t, s, "short"); got != "" {
		t.Errorf("a value without time is kept: %q", got)
	}
}

func testMarks(t *testing.T, s Store) {
	var at []time.Time
	for i := range 3 {
		when, err := s.Mark(t.Context(), "l", fmt.Sprint("m", i), time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		at = append(at, when)
	}
	again, err := s.Mark(t.Context(), "l", "m0", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if d := time.Since(again).Abs(); d > time.Minute {
		t.Errorf("the mark's time is %v off", d)
	}
	marks, err := s.Marks(t.Context(), "l", time.Time{})
	if err != nil || len(marks) != 3 {
		t.Fatalf("marks are %v, %v; want three", marks, err)
	}
	for i, m := range marks {
		if i > 0 && m.At.Before(marks[i-1].At) {
			t.Errorf("%v is listed before %v", marks[i-1], m)
		}
		if m.Member == "m0" && !m.At.Equal(again) {
			t.Errorf("m0 is at %v, want its second time %v", m.At, again)
		}
	}
	for since, want := range map[time.Time]int{again: 1, again.Add(time.Millisecond): 0, at[0]: 3} {
		some, err := s.Marks(t.Context(), "l", since)
		if err != nil || len(some) < want {
			t.Errorf("since %v: %v, %v; want at least %d", since, some, err, want)
		}
	}
	if none, err := s.Marks(t.Context(), "another", time.Time{}); err != nil || len(none) != 0 {
		t.Errorf("another list has %v, %v", none, err)
	}
}

func testSpend(t *testing.T, s Store) {
	spend := func(list ...Spending) []time.Duration {
		t.Helper()
		full, err := s.Spend(t.Context(), list)
		if err != nil || len(full) != len(list) {
			t.Fatalf("spending %v: %v, %v", list, full, err)
		}
		return full
	}
	near := func(got, want time.Duration) bool { return got <= want && got > want-5*time.Second }
	full := spend(
		Spending{Key: "b", Cost: 20 * time.Second, Most: time.Minute},
		Spending{Key: "c", Cost: time.Hour, Most: time.Minute},
		Spending{Key: "b", Cost: 20 * time.Second, Most: time.Minute},
	)
	if !near(full[0], 20*time.Second) || !near(full[1], time.Minute) || !near(full[2], 40*time.Second) {
		t.Errorf("full in %v, want 20 s, 1 min, 40 s", full)
	}
	if full := spend(Spending{Key: "b", Most: time.Minute}); !near(full[0], 40*time.Second) {
		t.Errorf("spending nothing: full in %v, want 40 s", full)
	}
	if full := spend(); len(full) != 0 {
		t.Errorf("an empty list: %v", full)
	}
}
