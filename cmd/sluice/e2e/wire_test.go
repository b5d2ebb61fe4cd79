package e2e

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"testing"
	"time"
)

// block is one event of a stream as a client gets it, from either wire.
type block struct {
	event string // "message" if the wire says nothing
	data  string
	id    string // "" if it has none
	retry time.Duration
}

// malformed says that a stream broke the rules of its wire.
type malformed struct{ what string }

func (m *malformed) Error() string { return "malformed stream: " + m.what }

// blocks reads a stream, one block at a time. What the connection's end cut off
// is no block, and is not returned.
type blocks interface {
	next() (block, error)
}

// eventStream reads SSE, more strictly than the standard does: the gateway ends
// lines with LF only, knows four fields, puts the id last, since some clients
// take it at its line, and gives data to every block that has anything, since
// some clients make an empty event of one without.
type eventStream struct{ r *bufio.Reader }

func (s eventStream) next() (block, error) {
	for {
		lines, err := s.lines()
		if err != nil {
			return block{}, err
		}
		if len(lines) == 0 {
			continue // it held comments only, or nothing
		}
		return assemble(lines)
	}
}

// lines are those of the next block that are not comments.
func (s eventStream) lines() ([]string, error) {
	var lines []string
	for {
		line, err := s.r.ReadString('\n')
		if err != nil {
			return nil, err
		}
		line = line[:len(line)-1]
		switch {
		case strings.Contains(line, "\r"):
			return nil, &malformed{fmt.Sprintf("a CR in the line %q", line)}
		case line == "":
			return lines, nil
		case !strings.HasPrefix(line, ":"):
			lines = append(lines, line)
		}
	}
}

func assemble(lines []string) (block, error) {
	b := block{event: "message"}
	data := false
	var text strings.Builder
	for i, line := range lines {
		field, value, ok := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case !ok:
			return b, &malformed{fmt.Sprintf("a field without a value: %q", line)}
		case field == "data":
			data = true
			text.WriteString(value + "\n")
		case field == "event" && !data:
			b.event = value
		case field == "retry":
			ms, err := strconv.ParseUint(value, 10, 31)
			if err != nil {
				return b, &malformed{fmt.Sprintf("retry is %q", value)}
			}
			b.retry = time.Duration(ms) * time.Millisecond
		case field == "id" && i == len(lines)-1 && value != "":
			b.id = value
		default:
			return b, &malformed{fmt.Sprintf("%q as line %d of %q", line, i, lines)}
		}
	}
	if !data {
		return b, &malformed{fmt.Sprintf("a block without data: %q", lines)}
	}
	b.data = strings.TrimSuffix(text.String(), "\n")
	return b, nil
}

// jsonLines reads NDJSON: an event a line.
type jsonLines struct{ r *bufio.Reader }

func (s jsonLines) next() (block, error) {
	line, err := s.r.ReadString('\n')
	if err != nil {
		return block{}, err
	}
	var e struct {
		ID, Type, Cursor string
		Data             json.RawMessage
		Retry            int
	}
	if err := json.Unmarshal([]byte(line), &e); err != nil {
		return block{}, &malformed{fmt.Sprintf("the line %q: %v", line, err)}
	}
	// With several rooms, id is the event's position and cursor the reader's.
	b := block{event: e.Type, data: line, id: cmp.Or(e.Cursor, e.ID), retry: time.Duration(e.Retry) * time.Millisecond}
	if strings.HasPrefix(e.Type, "sluice.") {
		b.data = string(e.Data)
	}
	return b, nil
}

// envelope is an event with everything about it.
type envelope struct {
	ID   string          `json:"id"`
	Room string          `json:"room"`
	Type string          `json:"type"`
	At   string          `json:"at"`
	Data json.RawMessage `json:"data"`
}

func TestTheParserForgivesNothing(t *testing.T) {
	for text, want := range map[string]struct {
		b   block
		bad bool
	}{
		": hello\n\ndata: a\n\n":                         {b: block{event: "message", data: "a"}},
		"event: x\ndata: a\ndata:  b\ndata: \nid: 7\n\n": {b: block{event: "x", data: "a\n b\n", id: "7"}},
		"retry: 5\nevent: sluice.bye\ndata: {}\n\n":      {b: block{event: "sluice.bye", data: "{}", retry: 5 * time.Millisecond}},
		"id: 7\ndata: a\n\n":                             {bad: true},
		"id: 7\n\n":                                      {bad: true},
		"retry: 5\n\n":                                   {bad: true},
		"retry: soon\ndata: a\n\n":                       {bad: true},
		"data: a\r\n\n":                                  {bad: true},
		"data\n\n":                                       {bad: true},
		"foo: a\ndata: a\n\n":                            {bad: true},
	} {
		b, err := eventStream{bufio.NewReader(strings.NewReader(text))}.next()
		var bad *malformed
		if errors.As(err, &bad) != want.bad || b != want.b && !want.bad {
			t.Errorf("%q: %+v, %v, want %+v", text, b, err, want)
		}
	}
	if _, err := (eventStream{bufio.NewReader(strings.NewReader("data: a\nid: 7\n"))}).next(); !errors.Is(err, io.EOF) {
		t.Errorf("half a block: %v, want %v", err, io.EOF)
	}
}
