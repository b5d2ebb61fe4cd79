package main

import (
	"strings"
	"testing"
)

// shown makes a story of words: "e-1=a" is an event, "truncated@e-2>e-1" a gap.
func shown(t *testing.T, words string) (story []note) {
	t.Helper()
	for word := range strings.FieldsSeq(words) {
		n := note{}
		id, data, isEvent := strings.Cut(word, "=")
		if isEvent {
			n.sum = sum([]byte(data))
		} else {
			reason, rest, _ := strings.Cut(word, "@")
			after, to, _ := strings.Cut(rest, ">")
			id, n.gap = to, &gap{Room: "a", After: &after, Reason: reason}
		}
		at, err := parsePlace(id)
		if err != nil {
			t.Fatal(err)
		}
		n.at = at
		story = append(story, n)
	}
	return story
}

// logOf makes a log of events in the same words.
func logOf(t *testing.T, words string) *history {
	t.Helper()
	h := &history{oldest: 1}
	for i, n := range shown(t, words) {
		if i == 0 {
			h.oldest = n.at.seq
		}
		h.events = append(h.events, n.event)
	}
	return h
}

// TestTheJudgeFindsWhatIsWrong: a judge that cannot condemn proves nothing.
func TestTheJudgeFindsWhatIsWrong(t *testing.T) {
	const log = "e-1=m1 e-2=m2 e-3=m3"
	const forked = "e-1=m1 e-2=m2 f-3=n3 f-4=n4"
	for name, c := range map[string]struct {
		log, begun, story string
		lossy, trimming   bool
		fault             fault
		n                 int
	}{
		"nothing wrong":              {log: log, begun: "0-0", story: log},
		"joined later":               {log: log, begun: "e-2", story: "e-3=m3"},
		"lost":                       {log: log, begun: "0-0", story: "e-1=m1 e-3=m3", fault: lost, n: 1},
		"lost the last":              {log: log, begun: "0-0", story: "e-1=m1", fault: lost, n: 2},
		"altered":                    {log: log, begun: "0-0", story: "e-1=m1 e-2=x e-3=m3", fault: altered, n: 1},
		"told of a fork":             {log: forked, begun: "0-0", lossy: true, story: "e-1=m1 e-2=m2 e-3=m3 truncated@e-3>e-2 f-3=n3 f-4=n4"},
		"not told of a fork":         {log: forked, begun: "0-0", lossy: true, story: "e-1=m1 e-2=m2 e-3=m3 f-4=n4", fault: lost, n: 1},
		"beyond the log, not told":   {log: log, begun: "0-0", lossy: true, story: log + " e-4=m4", fault: lost, n: 1},
		"told of nothing":            {log: forked, begun: "0-0", lossy: true, story: "e-1=m1 e-2=m2 truncated@e-2>e-1 e-2=m2 f-3=n3 f-4=n4", fault: unexplained, n: 1},
		"told to go back too far":    {log: forked, begun: "0-0", lossy: true, story: "e-1=m1 e-2=m2 e-3=m3 truncated@e-3>e-1 e-2=m2 f-3=n3 f-4=n4", fault: unexplained, n: 1},
		"told of another place":      {log: forked, begun: "0-0", lossy: true, story: "e-1=m1 e-2=m2 e-3=m3 truncated@e-9>e-2 f-3=n3 f-4=n4", fault: unexplained, n: 1},
		"told where nothing is lost": {log: forked, begun: "0-0", story: "e-1=m1 e-2=m2 e-3=m3 truncated@e-3>e-2 f-3=n3 f-4=n4", fault: unexplained, n: 1},
		"a new history":              {log: "f-1=n1", begun: "0-0", lossy: true, story: "e-1=m1 new_history@e-1>f-0 f-1=n1"},
		"a new history, not told":    {log: "f-1=n1 f-2=n2", begun: "0-0", lossy: true, story: "e-1=m1 f-2=n2", fault: lost, n: 1},
		"trimmed":                    {log: "e-3=m3", begun: "e-0", trimming: true, story: "trimmed@e-0>e-2 e-3=m3"},
		"trimmed, though it is kept": {log: log, begun: "e-0", story: "trimmed@e-0>e-2 e-3=m3", fault: unexplained, n: 1},
		"one position, two events":   {log: "f-1=n1", begun: "0-0", lossy: true, story: "e-1=m1 e-1=m2 new_history@e-1>f-0 f-1=n1", fault: altered, n: 1},
	} {
		v := &verdict{}
		j := newJudge(v, &scenario{lossy: c.lossy, trimming: c.trimming}, map[string]*history{"a": logOf(t, c.log)})
		begun, err := parsePlace(c.begun)
		if err != nil {
			t.Fatal(err)
		}
		j.checker(&checker{name: name, room: "a", begun: begun, story: shown(t, c.story)})
		if v.count[c.fault] != c.n || c.n == 0 && v.bad() {
			t.Errorf("%s: counted %v, want %d of kind %d; %q", name, v.count, c.n, c.fault, v.words)
		}
	}
}

func TestTheJudgeComparesWhatWasAcknowledged(t *testing.T) {
	events := func(words string) (list []event) {
		for _, n := range shown(t, words) {
			list = append(list, n.event)
		}
		return list
	}
	for name, c := range map[string]struct {
		log, told string
		lossy     bool
		fault     fault
		n, redis  int
	}{
		"nothing wrong":        {log: "e-1=a e-2=b", told: "e-1=a e-2=b"},
		"lost":                 {log: "e-1=a", told: "e-1=a e-2=b", fault: lost, n: 1},
		"lost by Redis":        {log: "e-1=a", told: "e-1=a e-2=b", lossy: true, redis: 1},
		"appended twice":       {log: "e-1=a e-2=a", told: "e-1=a", fault: doubled, n: 1},
		"acknowledged falsely": {log: "e-1=a", told: "e-1=b", fault: altered, n: 1},
		"by nobody":            {log: "e-1=a e-2=b", told: "e-1=a", fault: other, n: 1},
		"trimmed unasked":      {log: "e-2=b", told: "e-1=a e-2=b", fault: other, n: 1},
	} {
		v := &verdict{}
		j := newJudge(v, &scenario{lossy: c.lossy}, map[string]*history{"a": logOf(t, c.log)})
		j.acknowledged(map[string][]event{"a": events(c.told)})
		if v.count[c.fault] != c.n || c.n == 0 && v.bad() || j.lostByRedis != c.redis {
			t.Errorf("%s: counted %v and %d by Redis, want %d of kind %d; %q", name, v.count, j.lostByRedis, c.n, c.fault, v.words)
		}
	}
}
