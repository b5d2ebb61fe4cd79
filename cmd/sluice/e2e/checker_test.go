package e2e

import (
	"bufio"
	"strings"
	"testing"
)

// TestTheCheckerFindsWhatIsWrong: a checker that cannot fail proves nothing.
func TestTheCheckerFindsWhatIsWrong(t *testing.T) {
	opened := "event: sluice.open\ndata: {}\nid: e-0\n\n"
	one, two, three := "data: m1\nid: e-1\n\n", "data: m2\nid: e-2\n\n", "event: the-end\ndata: m3\nid: e-3\n\n"
	for name, c := range map[string]struct {
		stream string
		fault  fault
		n      int64
	}{
		"nothing wrong":    {opened + one + two + three, lost, 0},
		"lost":             {opened + one + three, lost, 1},
		"lost the first":   {opened + three, lost, 2},
		"doubled":          {opened + one + two + two + three, doubled, 1},
		"reordered":        {opened + two + one + three, reordered, 1},
		"altered":          {opened + one + "data: m5\nid: e-2\n\n" + three, altered, 1},
		"another type":     {opened + one + "event: note\ndata: m2\nid: e-2\n\n" + three, altered, 1},
		"another epoch":    {opened + one + "data: m2\nid: f-2\n\n" + three, altered, 1},
		"a gap":            {opened + one + two + "event: sluice.gap\ndata: {}\nid: e-2\n\n" + three, strange, 1},
		"one too many":     {opened + one + two + "data: m3\nid: e-3\n\nevent: the-end\ndata: m4\nid: e-4\n\n", strange, 1},
		"begins elsewhere": {opened + one + opened + two + three, strange, 1},
		"never ends":       {opened + one + two, strange, 1},
	} {
		tr := &trial{t: t, ledger: newLedger(), verdict: newVerdict(), tally: newTally()}
		for id, m := range map[string]message{
			"e-1": {kind: "message", data: "m1"}, "e-2": {kind: "message", data: "m2"}, "e-3": {kind: last, data: "m3"},
		} {
			if err := tr.ledger.acknowledge(receipt{ID: id, Room: "a"}, m); err != nil {
				t.Fatal(err)
			}
		}
		r := newReader(tr, &reader{name: name, rooms: []string{"a"}})
		if err := r.readAll(eventStream{bufio.NewReader(strings.NewReader(c.stream))}); err != nil && len(r.ended) == 1 {
			tr.verdict.wrong(strange, "%v", err)
		}
		r.audit()
		if got := tr.verdict.count[c.fault]; c.n == 0 && len(tr.verdict.words) > 0 || c.n > 0 && got < c.n {
			t.Errorf("%s: counted %v, want %d of kind %d; %q", name, tr.verdict.count, c.n, c.fault, tr.verdict.words)
		}
	}
}

func TestTheLedgerFindsWhatIsWrong(t *testing.T) {
	l, v := newLedger(), newVerdict()
	m := message{kind: "message", data: "x"}
	first := receipt{ID: "e-1", Room: "a"}
	for _, r := range []receipt{first, first, {ID: "e-3", Room: "a"}} {
		if err := l.acknowledge(r, m); err != nil {
			t.Errorf("%v: %v", r, err)
		}
	}
	if err := l.acknowledge(first, message{kind: "message", data: "y"}); err == nil {
		t.Errorf("two events at %s of one room were accepted", first.ID)
	}
	if events := l.check(v); events != 2 || v.count[strange] != 1 {
		t.Errorf("%d events, %q; want 2, and that number 2 is missing", events, v.words)
	}
}
