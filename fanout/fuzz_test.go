package fanout

import (
	"bytes"
	"encoding/json"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"
)

// readStream reads an event stream as the standard has it, by nothing that the
// gateway uses: fields of the last block that is dispatched, and how many were.
func readStream(text string) (name, data, id string, blocks int) {
	text = strings.TrimPrefix(text, "\ufeff")
	text = strings.ReplaceAll(strings.ReplaceAll(text, "\r\n", "\n"), "\r", "\n")
	for block := range strings.SplitSeq(text, "\n\n") {
		var values []string
		event := ""
		for line := range strings.SplitSeq(block, "\n") {
			field, value, _ := strings.Cut(line, ":")
			value = strings.TrimPrefix(value, " ")
			switch field {
			case "event":
				event = value
			case "data":
				values = append(values, value)
			case "id":
				id = value
			}
		}
		if values != nil {
			name, data = event, strings.Join(values, "\n")
			blocks++
		}
	}
	return name, data, id, blocks
}

// FuzzSSEEncode: whatever is posted comes back as it was, but for line breaks,
// which are all \n, with the type and the position that it has, in one block.
func FuzzSSEEncode(f *testing.F) {
	for _, data := range []string{"", "hi", "a\nid: 9-9", "a\revent: x", "a\r\n\r\ndata: evil", "\n\n", "\ufeffx", "a\u2028b\u2029", "x\x00y", ":c", " lead", "trail\n", `{"a":"\n"}`} {
		f.Add(data, "message", "ann", uint64(7))
		f.Add(data, "chat.said", "b\nob", uint64(1))
	}
	f.Fuzz(func(t *testing.T, data, kind, from string, seq uint64) {
		if !utf8.ValidString(data) || !utf8.ValidString(from) || !ValidType(kind) || seq == 0 || seq > 1e15 {
			t.Skip()
		}
		e := Event{Position: Position{"e1", seq}, Room: "lobby", Type: kind, From: from, At: 1, Data: []byte(data), JSON: json.Valid([]byte(data))}
		raw := &frame{event: e, seq: seq}
		name, got, id, blocks := readStream(string(raw.encoded(Raw)))
		lines := strings.ReplaceAll(strings.ReplaceAll(data, "\r\n", "\n"), "\r", "\n")
		wantName := kind
		if kind == "message" {
			wantName = ""
		}
		if blocks != 1 || got != lines || id != e.Position.String() || name != wantName {
			t.Fatalf("%q came as %q, id %q, event %q in %d blocks", data, got, id, name, blocks)
		}
		_, envelope, id, blocks := readStream(string(raw.encoded(Envelope)))
		var back struct {
			ID, Room, Type, From string
			Data                 json.RawMessage
		}
		if err := json.Unmarshal([]byte(envelope), &back); err != nil || blocks != 1 || strings.ContainsAny(envelope, "\r\n") {
			t.Fatalf("the envelope of %q is %q in %d blocks: %v", data, envelope, blocks, err)
		}
		if back.ID != id || back.ID != e.Position.String() || back.Room != "lobby" || back.Type != kind || back.From != from {
			t.Fatalf("the envelope of %q is %q", data, envelope)
		}
		sameData(t, data, e.JSON, back.Data)
		line := raw.encoded(NDJSON)
		if bytes.Count(line, []byte("\n")) != 1 || line[len(line)-1] != '\n' || !json.Valid(line) {
			t.Fatalf("the line of %q is %q", data, line)
		}
	})
}

func sameData(t *testing.T, data string, isJSON bool, got json.RawMessage) {
	t.Helper()
	if isJSON {
		var want, have bytes.Buffer
		if json.Compact(&want, []byte(data)) != nil || json.Compact(&have, got) != nil || want.String() != have.String() {
			t.Fatalf("the JSON %q came as %q", data, got)
		}
		return
	}
	var text string
	if err := json.Unmarshal(got, &text); err != nil || text != data {
		t.Fatalf("the text %q came as %q: %v", data, got, err)
	}
}

// FuzzRecord: what a log keeps is read back as it was, and whatever else lies
// there is refused, or is an event that could have been published.
func FuzzRecord(f *testing.F) {
	f.Add([]byte("0|message|t||0|"), "ann", "hi")
	f.Add([]byte("lk|a.b|j|ABCDEFGHIJKLMNOPQRSTUVWXYZ|3|ann{}"), "a|b", "x|y\n")
	f.Add([]byte("1|e1|5|0|message|t||0|x"), "", "")
	f.Add([]byte("0|message|t."+aTrace+"||0|hi"), "", "")
	f.Add([]byte("-1|message|t||0|"), "", "")
	f.Add([]byte("1|message|t||99999999999999999999|"), "", "")
	f.Add([]byte("0|a|j||1|ğ"), "", "")
	f.Fuzz(func(t *testing.T, hostile []byte, from, data string) {
		for _, b := range [][]byte{hostile, append([]byte("0|"), hostile...), append([]byte("1|e1|5|"), hostile...)} {
			e, err := parseMessage("lobby", string(b))
			if err != nil {
				continue
			}
			if !ValidType(e.Type) || e.Room != "lobby" || !utf8.Valid(e.Data) || !utf8.ValidString(e.From) || e.Exclude != "" && !ValidStreamID(e.Exclude) || e.At < 0 || e.trace != nil && !ValidTrace(e.trace.parent) {
				t.Fatalf("%q was read as %+v", b, e)
			}
			if _, _, _, blocks := readStream(string((&frame{event: e, seq: 5}).encoded(Raw))); blocks != 1 {
				t.Fatalf("%q makes %d blocks", b, blocks)
			}
		}
		if !utf8.ValidString(from) || !utf8.ValidString(data) {
			return
		}
		d := Draft{Type: "message", From: from, Data: []byte(data)}
		e, err := parseRecord("lobby", appendRecord(nil, 5, &d))
		if err != nil || e.From != from || string(e.Data) != data || e.At != 5 {
			t.Fatalf("%q by %q came back as %+v: %v", data, from, e, err)
		}
	})
}

var (
	roomForm     = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.:@~-]{0,127}$`)
	typeForm     = regexp.MustCompile(`^[a-z][a-z0-9_.-]{0,63}$`)
	positionForm = regexp.MustCompile(`^[0-9a-z]{1,16}-(0|[1-9][0-9]{0,15})$`)
	streamForm   = regexp.MustCompile(`^[A-Z2-7]{26}$`)
)

// FuzzNames: what counts as a name is what the contract says, to the byte.
func FuzzNames(f *testing.F) {
	for _, s := range []string{"", "lobby", "a:b", "-a", "é", "a\n", "a\x00", "..", strings.Repeat("a", 129), "sluice.x", "e1-1", "e1-01", "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "a$", "a\r"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		whole := func(form *regexp.Regexp) bool { return form.FindString(s) == s && s != "" }
		if got, want := ValidRoom(s), whole(roomForm); got != want {
			t.Errorf("room %q: %v, want %v", s, got, want)
		}
		if got, want := ValidType(s), whole(typeForm) && !strings.HasPrefix(s, "sluice."); got != want {
			t.Errorf("type %q: %v, want %v", s, got, want)
		}
		if got, want := ValidStreamID(s), whole(streamForm); got != want {
			t.Errorf("stream %q: %v, want %v", s, got, want)
		}
		p, got := ParsePosition(s)
		if want := whole(positionForm); got != want || got && p.String() != s {
			t.Errorf("position %q: %v %v, want %v", s, p, got, want)
		}
	})
}

// FuzzCursor: a cursor leads to each room that is asked for, or behind a gap,
// and one that the gateway would write is read back.
func FuzzCursor(f *testing.F) {
	for _, s := range []string{"", "e1-1", "a=e1-1,b=e2-2", "a=e1-1,a=e1-2", "=,", "earliest", "latest", strings.Repeat("9", 9000), "@a=e1-1", "a=e1-1,"} {
		f.Add(s)
	}
	extent := Extent{Lineage: Lineage{{Epoch: "e1", Start: 1}}, Head: 10, Oldest: 3}
	f.Fuzz(func(t *testing.T, cursor string) {
		for _, rooms := range [][]string{{"a"}, {"a", "b"}} {
			starts, ok := ParseCursor(cursor, rooms)
			if len(starts) != len(rooms) {
				t.Fatalf("%q leads to %d rooms of %d", cursor, len(starts), len(rooms))
			}
			at := make([]Position, len(rooms))
			known := true
			for i, start := range starts {
				if (start.kind == fromBad) == ok {
					t.Fatalf("%q: %v, %v", cursor, start, ok)
				}
				res := extent.Resolve(start)
				if res.From > extent.Head || res.From+1 < extent.Oldest {
					t.Fatalf("%q goes on behind %d", cursor, res.From)
				}
				at[i] = start.at
				known = known && start.kind == fromPosition
			}
			if !known || len(cursor) > MaxCursor {
				continue
			}
			again, ok := ParseCursor(cursorOf(rooms, at), rooms)
			for i := range rooms {
				if !ok || again[i] != starts[i] {
					t.Fatalf("%q is written as %q, which is read otherwise", cursor, cursorOf(rooms, at))
				}
			}
		}
	})
}
