package auth

import (
	"strings"
	"testing"
	"time"
)

func TestPatternNamesRooms(t *testing.T) {
	for _, tt := range []struct {
		pattern, room string
		want          bool
	}{
		{"lobby", "lobby", true},
		{"lobby", "lobby2", false},
		{"lobby", "Lobby", false},
		{"chat:*", "chat:", true},
		{"chat:*", "chat:a:b", true},
		{"chat:*", "chat", false},
		{"chat:*", "xchat:a", false},
		{"*:public", "a:public", true},
		{"*:public", "a:public:b", false},
		{"a*a", "a", false},
		{"a*a", "aa", true},
		{"a*b*c", "a-c-b-c", true},
		{"a*b*c", "acb", false},
		{"*a*", "bab", true},
		{"**", "x", true},
		{"*", "", false},
		{"", "", false},
		{"", "x", false},
		{"*", "@internal", false},
		{"@*", "@internal", true},
		{"a.c", "abc", false},
	} {
		if got := Pattern(tt.pattern).Match(tt.room); got != tt.want {
			t.Errorf("%q matches %q: got %v, want %v", tt.pattern, tt.room, got, tt.want)
		}
	}
}

// TestPatternDoesNotBlowUp uses what makes backtracking matchers run for years.
func TestPatternDoesNotBlowUp(t *testing.T) {
	list := make([]string, maxPatterns)
	for i := range list {
		list[i] = strings.Repeat("a*", 127) + "b"
	}
	patterns, err := ParsePatterns(list)
	if err != nil {
		t.Fatal(err)
	}
	room := strings.Repeat("a", 128)
	start := time.Now()
	if patterns.Match(room) {
		t.Error("it matches")
	}
	if took := time.Since(start); took > time.Second {
		t.Errorf("matching took %v", took)
	}
}

// naiveMatch says what a pattern means, in the plainest way; its table keeps it from
// taking for ever.
func naiveMatch(pattern, room string) bool {
	if pattern == "" || room == "" || room[0] == '@' && pattern[0] != '@' {
		return false
	}
	// matches[j]: what was read of the pattern so far matches room[:j].
	matches := make([]bool, len(room)+1)
	matches[0] = true
	for i := range len(pattern) {
		next := make([]bool, len(room)+1)
		for j := range next {
			if pattern[i] == '*' {
				next[j] = matches[j] || j > 0 && next[j-1]
				continue
			}
			next[j] = j > 0 && matches[j-1] && room[j-1] == pattern[i]
		}
		matches = next
	}
	return matches[len(room)]
}

func FuzzPattern(f *testing.F) {
	for _, s := range [][2]string{{"chat:*", "chat:lobby"}, {"a*b*c", "abbc"}, {"*", "@x"}, {"@*", "@x"}, {"*a*a*", "ba"}, {"", ""}} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, pattern, room string) {
		if len(pattern) > 300 || len(room) > 300 {
			return
		}
		if got, want := Pattern(pattern).Match(room), naiveMatch(pattern, room); got != want {
			t.Errorf("%q matches %q: got %v, want %v", pattern, room, got, want)
		}
		list, err := ParsePatterns([]string{pattern})
		if err != nil {
			return
		}
		if len(list) != 1 || string(list[0]) != pattern || len(pattern) > maxPattern || strings.ContainsAny(pattern, "\r\n\x00 {}\"") {
			t.Errorf("%q was taken as %q", pattern, list)
		}
	})
}
