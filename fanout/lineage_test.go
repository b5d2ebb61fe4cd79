package fanout

import "testing"

func TestCursorsResolve(t *testing.T) {
	at := func(s string) Start {
		p, ok := ParsePosition(s)
		if !ok {
			t.Fatalf("%q is no position", s)
		}
		return At(p)
	}
	plain := Extent{Lineage: Lineage{{Epoch: "a", Start: 1}}, Head: 10, Oldest: 1}
	trimmed := Extent{Lineage: Lineage{{Epoch: "a", Start: 1}}, Head: 10, Oldest: 6}
	forked := Extent{Lineage: Lineage{{Epoch: "a", Start: 1}, {Epoch: "b", Start: 6}}, Head: 10, Oldest: 1}
	fenced := Extent{Lineage: Lineage{{Epoch: "a", Start: 1}}, Head: 5, Oldest: 1, Fenced: true}
	purged := Extent{Lineage: Lineage{{Epoch: "a", Start: 1}, {Epoch: "b", Start: 6, Purged: true}}, Head: 10, Oldest: 6}
	purgedTwice := Extent{Lineage: Lineage{{"a", 1, false}, {"b", 6, true}, {"c", 8, true}}, Head: 20, Oldest: 15}
	lostAndPurged := Extent{Lineage: Lineage{{"a", 1, false}, {"b", 6, false}, {"c", 9, true}}, Head: 9, Oldest: 9}
	nothing := Extent{Oldest: 1}
	for _, tt := range []struct {
		name   string
		x      Extent
		start  Start
		from   uint64
		own    string
		reason Reason
		missed int64
	}{
		{"head", plain, Head(), 10, "a-10", "", 0},
		{"earliest", plain, Earliest(), 0, "a-0", "", 0},
		{"earliest kept", trimmed, Earliest(), 5, "a-5", "", 0},
		{"last 3", plain, Last(3), 7, "a-7", "", 0},
		{"last 100", trimmed, Last(100), 5, "a-5", "", 0},
		{"last 0", plain, Last(0), 10, "a-10", "", 0},
		{"here", plain, at("a-4"), 4, "a-4", "", 0},
		{"at the head", plain, at("a-10"), 10, "a-10", "", 0},
		{"beyond the head", plain, at("a-11"), 10, "a-11", ReasonBadCursor, -1},
		{"unreadable", plain, badStart(), 10, "a-10", ReasonBadCursor, -1},
		{"another history", plain, at("z-4"), 0, "z-4", ReasonNewHistory, -1},
		{"another history, trimmed", trimmed, at("z-4"), 5, "z-4", ReasonNewHistory, -1},
		{"origin", plain, at("0-0"), 0, "0-0", "", 0},
		{"origin, trimmed", trimmed, at("0-0"), 5, "0-0", ReasonTrimmed, 5},
		{"trimmed", trimmed, at("a-2"), 5, "a-2", ReasonTrimmed, 3},
		{"just not trimmed", trimmed, at("a-5"), 5, "a-5", "", 0},
		{"old epoch, common part", forked, at("a-3"), 3, "a-3", "", 0},
		{"old epoch, at the fork", forked, at("a-5"), 5, "a-5", "", 0},
		{"old epoch, beyond the fork", forked, at("a-6"), 5, "a-6", ReasonTruncated, -1},
		{"new epoch", forked, at("b-7"), 7, "b-7", "", 0},
		{"lost, and nothing appended yet", fenced, at("a-7"), 5, "a-7", ReasonTruncated, -1},
		{"before a purge", purged, at("a-3"), 5, "a-3", ReasonPurged, 2},
		{"at a purge", purged, at("a-5"), 5, "a-5", ReasonPurged, 0},
		{"behind a purge", purged, at("b-5"), 5, "b-5", "", 0},
		{"origin, purged", purged, at("0-0"), 5, "0-0", ReasonPurged, 5},
		{"before two purges, and trimmed since", purgedTwice, at("a-3"), 14, "a-3", ReasonPurged, 11},
		{"between two purges", purgedTwice, at("b-6"), 14, "b-6", ReasonPurged, 8},
		{"behind two purges, trimmed since", purgedTwice, at("c-7"), 14, "c-7", ReasonTrimmed, 7},
		{"lost, and purged since", lostAndPurged, at("a-7"), 8, "a-7", ReasonPurged, -1},
		{"nothing: head", nothing, Head(), 0, "0-0", "", 0},
		{"nothing: earliest", nothing, Earliest(), 0, "0-0", "", 0},
		{"nothing: origin", nothing, at("0-0"), 0, "0-0", "", 0},
		{"nothing: a cursor", nothing, at("a-3"), 0, "a-3", ReasonNewHistory, -1},
	} {
		res := tt.x.Resolve(tt.start)
		missed := res.Missed
		if res.Reason == "" {
			missed = 0
		}
		if res.From != tt.from || res.Own.String() != tt.own || res.Reason != tt.reason || missed != tt.missed {
			t.Errorf("%s: from %d, own %v, %q, missed %d; want %d, %s, %q, %d", tt.name, res.From, res.Own, res.Reason, missed, tt.from, tt.own, tt.reason, tt.missed)
		}
	}
}

func TestPositionsBelongToTheirEpoch(t *testing.T) {
	l := Lineage{{"a", 1, false}, {"b", 6, false}, {"c", 9, true}, {"d", 9, true}}
	for seq, want := range map[uint64]string{0: "a-0", 1: "a-1", 5: "a-5", 6: "b-6", 7: "b-7", 8: "d-8", 9: "d-9"} {
		if got := l.Position(seq).String(); got != want {
			t.Errorf("%d is %s, want %s", seq, got, want)
		}
	}
	if got := (Lineage)(nil).Position(0); got != Origin {
		t.Errorf("no lineage: %v", got)
	}
}

func FuzzLineage(f *testing.F) {
	for _, s := range []string{"a:1", "a:1,b:6", "a:1,b:6p,c:6p", "a:0", "a:2,b:1", ":1", "a", "a:1p,", "A:1", "a:1pp"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		l, err := ParseLineage(s)
		if err != nil {
			return
		}
		again, err := ParseLineage(l.String())
		if err != nil || again.String() != l.String() {
			t.Fatalf("%q reads as %v, which reads as %v, %v", s, l, again, err)
		}
		x := Extent{Lineage: l, Head: l[len(l)-1].Start + 3, Oldest: 1}
		// Where epochs begin is where something can go wrong; there may be 2^63 positions between.
		for _, fork := range l {
			for seq := fork.Start - min(fork.Start, 3); seq < min(fork.Start+3, x.Head); seq++ {
				if res := x.Resolve(At(l.Position(seq))); res.Reason != "" && res.Reason != ReasonPurged {
					t.Fatalf("%q: its own position %v leads to %s", s, l.Position(seq), res.Reason)
				}
			}
		}
	})
}
