package fanout

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"
	"unicode/utf8"
)

// What is read from Redis as word of who is present is told to members as it
// is, so that nothing may get through that breaks a stream.
func FuzzMovement(f *testing.F) {
	for _, s := range []string{
		"e1|1|2|j|3|ann", `e1|17|2|l|3|ann{"name":"Ann"}`, "e1|5|2000|c|0|", "e1|1|2|j|3|an", "e1|1|2|j|4|ann\n", "e1|1|-2|j|3|ann",
		"e1|1|2|j|3|ann{\n}", "E1|1|2|j|3|ann", "e1|x|2|j|3|ann", "e1|1|2|c|3|ann", "||||",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		e, err := parseMovement("lobby", s)
		if err != nil {
			return
		}
		e.tell(time.Now())
		var told struct {
			Room, User string
			Info       json.RawMessage
			Count      int
		}
		if err := json.Unmarshal(e.Data, &told); err != nil {
			t.Fatalf("%q is told as %q: %v", s, e.Data, err)
		}
		if told.Room != "lobby" || told.User != e.movement.user || told.Count < 0 || bytes.ContainsAny(e.Data, "\r\n") || !utf8.Valid(e.Data) {
			t.Errorf("%q is told as %q", s, e.Data)
		}
	})
}

func FuzzAttendee(f *testing.F) {
	for _, s := range []string{"1|1700000000000|", `2|1700000000000|{"name":"Ann"}`, "-1|1|", "1|1", "x|1|", "1|1|{"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, ok := parseAttendee(s)
		if !ok {
			return
		}
		again, ok := parseAttendee(a.record())
		if !ok || again.Streams != a.Streams || again.At != a.At || !bytes.Equal(again.Info, a.Info) {
			t.Errorf("%q reads as %+v, whose record reads as %+v", s, a, again)
		}
	})
}
