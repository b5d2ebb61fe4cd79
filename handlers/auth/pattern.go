package auth

import (
	"fmt"
	"strings"
)

const (
	maxPatterns = 100
	maxPattern  = 256 // bytes
)

// Pattern names rooms: itself, where `*` stands for any run of characters, also of
// none. Rooms of the gateway's own, which begin with `@`, must be named as such: a
// leading `*` does not reach them. ParsePatterns makes them; the empty one matches
// nothing.
type Pattern string

// Patterns match what any one of them matches; none match nothing.
type Patterns []Pattern

// ParsePatterns checks patterns: at most 100, each of 1 to 256 characters that a room's
// name can have, or `*`.
func ParsePatterns(list []string) (Patterns, error) {
	if len(list) == 0 {
		return nil, nil
	}
	if len(list) > maxPatterns {
		return nil, fmt.Errorf("more than %d room patterns", maxPatterns)
	}
	patterns := make(Patterns, 0, len(list))
	for _, s := range list {
		if !validPattern(s) {
			return nil, fmt.Errorf("%s is no room pattern: use the characters of room names, and * for any run of them", quote(s))
		}
		patterns = append(patterns, Pattern(s))
	}
	return patterns, nil
}

func validPattern(s string) bool {
	if s == "" || len(s) > maxPattern {
		return false
	}
	for i := range len(s) {
		if !isAlnum(s[i]) && !strings.ContainsRune("_.:@~-*", rune(s[i])) {
			return false
		}
	}
	return true
}

// Match reports whether any of the patterns names the room.
func (p Patterns) Match(room string) bool {
	for _, pattern := range p {
		if pattern.Match(room) {
			return true
		}
	}
	return false
}

// Match reports whether the pattern names the room. What stands between two stars is
// looked for once, from left to right, and never again: with stars alone the first
// place is as good as any, so there is nothing to try twice and nothing to blow up.
func (p Pattern) Match(room string) bool {
	if p == "" || room == "" || room[0] == '@' && p[0] != '@' {
		return false
	}
	literal, rest, star := strings.Cut(string(p), "*")
	if !star {
		return literal == room
	}
	room, ok := strings.CutPrefix(room, literal)
	if !ok {
		return false
	}
	for {
		literal, rest, star = strings.Cut(rest, "*")
		if !star {
			return strings.HasSuffix(room, literal)
		}
		at := strings.Index(room, literal)
		if at < 0 {
			return false
		}
		room = room[at+len(literal):]
	}
}
