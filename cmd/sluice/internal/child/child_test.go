package child

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestATailKeepsTheEnd(t *testing.T) {
	var tail Tail
	all := ""
	for i := range 5000 {
		line := fmt.Sprintf("line %d\n", i)
		all += line
		if n, err := tail.Write([]byte(line)); n != len(line) || err != nil {
			t.Fatalf("writing gave %d, %v", n, err)
		}
	}
	if got, want := tail.String(), all[len(all)-kept:]; got != want {
		t.Errorf("it keeps %d bytes from %.20q on, want the last %d", len(got), got, kept)
	}
	if _, err := tail.Write([]byte(all)); err != nil || tail.String() != all[len(all)-kept:] {
		t.Errorf("of %d bytes at once it keeps %d (%v), want the last %d", len(all), len(tail.String()), err, kept)
	}
}

func TestSettingsOfAGatewayAreLeftOut(t *testing.T) {
	t.Setenv("SLUICE_LISTEN", "nowhere")
	t.Setenv("UNRELATED", "kept")
	env := Environ()
	if slices.ContainsFunc(env, func(e string) bool { return strings.HasPrefix(e, "SLUICE_") }) || !slices.Contains(env, "UNRELATED=kept") {
		t.Errorf("the environment is %q", env)
	}
}
