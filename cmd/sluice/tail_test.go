package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"
)

// publishNumbers publishes from to to-1 to a room.
func publishNumbers(g *testGateway, room string, from, to int) {
	for i := from; i < to; i++ {
		g.publish(room, fmt.Sprint(i))
	}
}

// shownNumbers reads the numbers out of what --json printed, by room.
func shownNumbers(t *testing.T, out string) map[string][]int {
	t.Helper()
	shown := map[string][]int{}
	for line := range strings.Lines(out) {
		var v struct {
			Room string
			Data int
		}
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			t.Fatalf("printed %q: %v", line, err)
		}
		shown[v.Room] = append(shown[v.Room], v.Data)
	}
	return shown
}

func numbers(from, to int) []int {
	var n []int
	for i := from; i < to; i++ {
		n = append(n, i)
	}
	return n
}

// cuts are streams that end inside a block, at every byte of it in turn, some by a clean
// end and some by a break.
func cuts(n, after int) []streamPlan {
	plans := make([]streamPlan, n)
	for i := range plans {
		plans[i] = streamPlan{cut: true, after: i % after, at: i, abort: i%2 == 0}
	}
	return plans
}

func TestTailShowsEachEventOnceAcrossCuts(t *testing.T) {
	t.Parallel() // it mostly waits
	g := newTestGateway(t)
	const blockBytes = 150 // about; more cuts than a block has bytes
	g.planStreams(cuts(blockBytes, 3)...)
	g.planStreams(streamPlan{status: 204})
	publishNumbers(g, "lobby", 0, 200)
	stdout, _ := sluice(t, 0, "tail", "lobby", "--after=earliest", "--json", "--url", g.URL)
	// Three streams in a row bring 0, 1 and 2 whole events.
	if got, want := shownNumbers(t, stdout)["lobby"], numbers(0, blockBytes); !slices.Equal(got, want) {
		t.Errorf("shown %v, want %v", got, want)
	}
	if n := len(g.seenStreams()); n != blockBytes+1 {
		t.Errorf("%d streams, want %d", n, blockBytes+1)
	}
}

func TestTailOfSeveralRoomsShowsEachEventOnceAcrossCuts(t *testing.T) {
	g := newTestGateway(t)
	g.planStreams(cuts(60, 4)...)
	p := start(t, nil, nil, "tail", "b", "a", "b", "--after=earliest", "--json", "--url", g.URL)
	for i := range 100 {
		g.publish("a", fmt.Sprint(i))
		g.publish("b", fmt.Sprint(i))
	}
	p.out.await(t, `"id":"e1-100","room":"a"`)
	p.out.await(t, `"id":"e1-100","room":"b"`)
	p.stop()
	p.wait(t, 0)
	shown := shownNumbers(t, p.out.String())
	for _, room := range []string{"a", "b"} {
		if !slices.Equal(shown[room], numbers(0, 100)) {
			t.Errorf("room %s: shown %v, want 0 to 99", room, shown[room])
		}
	}
	streams := g.seenStreams()
	last := streams[len(streams)-1]
	if last.path != "/events" || !slices.Equal(last.query["room"], []string{"a", "b"}) || !strings.Contains(last.cursor, "a=e1-") {
		t.Errorf("the last stream was %s of %v behind %q", last.path, last.query, last.cursor)
	}
	if got := last.query["after"]; !slices.Equal(got, []string{last.cursor}) {
		t.Errorf("the query says %q and the header %q", got, last.cursor)
	}
}

func TestTailPrintsEnvelopesAsTheyCame(t *testing.T) {
	g := newTestGateway(t)
	data := []string{`{"n":1.0e3,"big":12345678901234567890,"u":"\u00e9 \ud83d\ude00é"}`, `"a\nb\u001b[2J"`, `null`, `"\u2028"`}
	want := ""
	for _, d := range data {
		g.publish("lobby", d)
	}
	for _, e := range g.events("lobby") {
		want += e.envelope() + "\n"
	}
	p := start(t, nil, nil, "tail", "lobby", "--last=9", "--json", "--url", g.URL)
	p.out.await(t, "e1-4")
	if got := p.out.String(); got != want {
		t.Errorf("printed\n%swant\n%s", got, want)
	}
}

func TestTailPrintsALineForPeople(t *testing.T) {
	g := newTestGateway(t)
	at := time.Date(2026, 11, 21, 20, 39, 0, 0, time.UTC).Local().Format(time.TimeOnly)
	g.publish("lobby", `{"a": "\u001b"}`)
	g.publish("lobby", `"two\nlines \u001b[2J\u202e"`)
	g.change(func() {
		g.appendLocked(testEvent{room: "lobby", kind: "typing", data: json.RawMessage(`""`), ephemeral: true})
		g.appendLocked(testEvent{room: "lobby", kind: "note", data: json.RawMessage(`"end"`)})
	})
	p := start(t, nil, nil, "tail", "lobby", "--after=earliest", "--url", g.URL)
	p.out.await(t, "end")
	want := at + ` lobby message ann: {"a": "\u001b"}` + "\n" +
		at + ` lobby message ann: two\nlines \x1b[2J\u202e` + "\n" +
		at + ` lobby typing: ` + "\n" +
		at + ` lobby note: end` + "\n"
	if got := p.out.String(); got != want {
		t.Errorf("printed\n%swant\n%s", got, want)
	}
}

func TestColouredLinesHoldTheSameText(t *testing.T) {
	v := envelope{Room: "lobby", Type: "message", From: "ann", Data: json.RawMessage(`"hi"`)}
	coloured := humanLine(v, true)
	for _, code := range []string{"0", "1", "2", "33", "36"} {
		coloured = strings.ReplaceAll(coloured, "\x1b["+code+"m", "")
	}
	if plain := humanLine(v, false); coloured != plain {
		t.Errorf("%q without its colours, want %q", coloured, plain)
	}
}

// FuzzHumanLine: whatever an event holds, it is one line, and no control reaches the terminal.
func FuzzHumanLine(f *testing.F) {
	f.Add("lobby", "message", "ann", `"hi"`)
	f.Add("a\x1b", "b\n", "\u202e", `"\u001b[2J\u0000"`)
	f.Fuzz(func(t *testing.T, room, kind, from, data string) {
		line := humanLine(envelope{Room: room, Type: kind, From: from, Data: json.RawMessage(data)}, false)
		text, ok := strings.CutSuffix(line, "\n")
		if !ok || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("%q, %q, %q, %q make %q", room, kind, from, data, line)
		}
	})
}

func TestEventsWithoutIDAreShownAndMoveNoCursor(t *testing.T) {
	g := newTestGateway(t)
	g.planStreams(streamPlan{cut: true, after: 2, at: 30, abort: true})
	g.publish("lobby", "1")
	g.change(func() {
		g.appendLocked(testEvent{room: "lobby", kind: "typing", data: json.RawMessage("2"), ephemeral: true})
	})
	g.publish("lobby", "3")
	p := start(t, nil, nil, "tail", "lobby", "--after=earliest", "--json", "--url", g.URL)
	p.out.await(t, `"data":3`)
	if cursor := g.seenStreams()[1].cursor; cursor != "e1-1" {
		t.Errorf("went on behind %q, want behind the last event with an id, e1-1", cursor)
	}
}

func TestTailReportsGaps(t *testing.T) {
	gap := `{"room":"lobby","after":"e0-7","resumes_at":"e1-1","missed":12,"reason":"trimmed"}`
	for _, c := range []struct {
		args []string
		want string
	}{
		{nil, ""},
		{[]string{"--json"}, `{"id":"e1-0","room":"lobby","type":"sluice.gap","data":` + gap + "}\n"},
	} {
		g := newTestGateway(t)
		g.planStreams(streamPlan{raw: "event: sluice.gap\ndata: " + gap + "\nid: e1-0\n\nevent: sluice.degraded\ndata: {}\n\n"}, streamPlan{status: 204})
		stdout, stderr := sluice(t, 0, append([]string{"tail", "lobby", "--url", g.URL}, c.args...)...)
		if want := "sluice: gap in lobby: 12 events are missing behind \"e0-7\" (trimmed)\n"; stdout != c.want || stderr != want {
			t.Errorf("%v: stdout %q, stderr %q, want %q, %q", c.args, stdout, stderr, c.want, want)
		}
		if cursor := g.seenStreams()[1].cursor; cursor != "e1-0" {
			t.Errorf("%v: went on behind %q, want the gap's own id", c.args, cursor)
		}
	}
}

func TestVerboseTailTellsWhatTheGatewaySays(t *testing.T) {
	g := newTestGateway(t)
	g.planStreams(streamPlan{raw: "event: sluice.degraded\ndata: {\"since\":\"now\"}\n\nevent: sluice.beat\ndata: {}\nid: e1-0\n\n"}, streamPlan{status: 204})
	_, stderr := sluice(t, 0, "tail", "lobby", "-v", "--url", g.URL)
	for _, want := range []string{"sluice.open {", `sluice.degraded {"since":"now"}`, "the stream ended"} {
		if !strings.Contains(stderr, want) {
			t.Errorf("stderr %q lacks %q", stderr, want)
		}
	}
	if strings.Contains(stderr, "sluice.beat") {
		t.Errorf("stderr %q tells every heartbeat", stderr)
	}
}

func TestTailStopsWhereComingBackIsPointless(t *testing.T) {
	problem := func(status int, detail string) streamPlan {
		return streamPlan{status: status, kind: "application/problem+json", body: `{"detail":"` + detail + `"}`}
	}
	for _, c := range []struct {
		plans []streamPlan
		code  int
		want  string
	}{
		{[]streamPlan{{status: 204}}, 0, ""},
		{[]streamPlan{problem(401, "no token")}, 1, "401: no token; give a valid token"},
		{[]streamPlan{problem(403, "not yours")}, 1, "403: not yours"},
		{[]streamPlan{problem(400, "no such room name")}, 1, "no such room name"},
		{[]streamPlan{problem(404, "nothing here")}, 1, "is --url the address"},
		{[]streamPlan{{status: 200, kind: "text/html", body: "<html>"}}, 1, "not a gateway's stream"},
		{[]streamPlan{{cut: true}, problem(401, "expired")}, 1, "expired"},
		{[]streamPlan{{raw: "data: oops\n\n"}}, 1, "no envelope"},
	} {
		g := newTestGateway(t)
		g.planStreams(c.plans...)
		g.publish("lobby", "1")
		_, stderr := sluice(t, c.code, "tail", "lobby", "--after=earliest", "--token=t", "--url", g.URL)
		if !strings.Contains(stderr, c.want) {
			t.Errorf("%+v: stderr %q lacks %q", c.plans, stderr, c.want)
		}
		if streams := g.seenStreams(); len(streams) != len(c.plans) || streams[0].auth != "Bearer t" {
			t.Errorf("%+v: asked %d times with authorization %q", c.plans, len(streams), streams[0].auth)
		}
	}
}

func TestTailComesBackFromWhateverPasses(t *testing.T) {
	t.Parallel() // it mostly waits
	g := newTestGateway(t)
	publishNumbers(g, "lobby", 0, 5)
	page := func(status int) streamPlan { return streamPlan{status: status, kind: "text/html", body: "<html>"} }
	g.planStreams(
		page(502), // the gateway is starting
		streamPlan{cut: true, after: 1, abort: true},
		page(503),
		page(404), // a proxy without its gateway
		page(200), // a proxy's apology
		streamPlan{cut: true, after: 2, at: 40},
		streamPlan{drain: true},
		streamPlan{cut: true, after: 1},
		streamPlan{status: 204},
	)
	stdout, stderr := sluice(t, 0, "tail", "lobby", "--after=earliest", "--json", "--url", g.URL)
	if got := shownNumbers(t, stdout)["lobby"]; !slices.Equal(got, numbers(0, 4)) {
		t.Errorf("shown %v, want each of 0 to 3 once", got)
	}
	for _, want := range []string{"502", "503", "404", "not a gateway's stream", "connected again"} {
		if !strings.Contains(stderr, want) {
			t.Errorf("stderr %q lacks %q", stderr, want)
		}
	}
}

func TestTailWaitsAsLongAsTheGatewayAsks(t *testing.T) {
	t.Parallel() // it mostly waits
	for _, c := range []struct {
		plan  streamPlan
		least time.Duration
	}{
		{streamPlan{drain: true}, 300 * time.Millisecond}, // retry: 300
		{streamPlan{status: 503, kind: "text/plain", header: "Retry-After: 1"}, time.Second},
	} {
		g := newTestGateway(t)
		g.planStreams(c.plan, streamPlan{status: 204})
		sluice(t, 0, "tail", "lobby", "--url", g.URL)
		streams := g.seenStreams()
		if waited := streams[1].at.Sub(streams[0].at); waited < c.least || waited > c.least+3*time.Second {
			t.Errorf("%+v: waited %v, want at least %v and not much more", c.plan, waited, c.least)
		}
	}
}

func TestTailReopensASilentStream(t *testing.T) {
	g := newTestGateway(t)
	g.heartbeat = 0.05
	g.planStreams(streamPlan{silent: true})
	g.publish("lobby", `"after the silence"`)
	p := start(t, nil, nil, "tail", "lobby", "--after=earliest", "--url", g.URL)
	p.out.await(t, "after the silence")
	if !strings.Contains(p.err.String(), "no sign of life") {
		t.Errorf("stderr %q does not say why", p.err)
	}
	p.err.await(t, "connected again")
}

func TestTailKeepsWorkingWhileACommandIsSlow(t *testing.T) {
	t.Parallel() // it mostly waits
	g := newTestGateway(t)
	g.heartbeat = 0.05 // the command below takes longer than 2.5 of those
	publishNumbers(g, "lobby", 0, 3)
	g.planStreams(streamPlan{cut: true, after: 3, at: 0}, streamPlan{status: 204})
	p := start(t, nil, nil, "tail", "lobby", "--after=earliest", "--exec", "sleep 0.3; cat", "--url", g.URL)
	p.out.await(t, `"data":2`)
	g.publish("lobby", "3") // lets the planned cut happen
	p.wait(t, 0)
	if got := shownNumbers(t, p.out.String())["lobby"]; !slices.Equal(got, numbers(0, 3)) {
		t.Errorf("handled %v, want each of 0 to 2 once", got)
	}
}

func TestExecRunsOnceForEachEventInOrder(t *testing.T) {
	g := newTestGateway(t)
	g.change(func() {
		for i := range 5 {
			g.appendLocked(testEvent{room: "lobby", kind: "note", from: "an n'\n\x00", data: json.RawMessage(fmt.Sprint(i))})
		}
	})
	g.planStreams(cuts(4, 2)...)
	p := start(t, nil, nil, "tail", "lobby", "--after=earliest", "--exec", `echo "$SLUICE_ROOM $SLUICE_TYPE $SLUICE_ID <$SLUICE_FROM>"; cat`, "--url", g.URL)
	p.out.await(t, `"data":4`)
	want := ""
	for i, e := range g.events("lobby") {
		want += fmt.Sprintf("lobby note e1-%d <an n'\n>\n%s\n", i+1, e.envelope())
	}
	if !strings.HasPrefix(want, p.out.String()) { // the last line end may be under way
		t.Errorf("printed\n%swant\n%s", p.out, want)
	}
}

func TestTailStopsWhereACommandFails(t *testing.T) {
	g := newTestGateway(t)
	publishNumbers(g, "lobby", 0, 5)
	command := `read line; case "$line" in *'"data":3}'*) exit 7;; esac; echo "$line"`
	p := start(t, nil, nil, "tail", "lobby", "--after=earliest", "--exec", command, "--url", g.URL)
	p.wait(t, 1)
	if got := shownNumbers(t, p.out.String())["lobby"]; !slices.Equal(got, numbers(0, 3)) {
		t.Errorf("handled %v, want 0 to 2", got)
	}
	if want := "the command failed for event e1-4: exit status 7; go on with --after e1-3"; !strings.Contains(p.err.String(), want) {
		t.Errorf("stderr %q lacks %q", p.err, want)
	}

	p = start(t, nil, nil, "tail", "lobby", "--after=e1-2", "--exec", command, "--keep-going", "--url", g.URL)
	p.out.await(t, `"data":4`)
	if got := shownNumbers(t, strings.TrimSpace(p.out.String())+"\n")["lobby"]; !slices.Equal(got, []int{2, 4}) {
		t.Errorf("with --keep-going handled %v, want 2 and 4", got)
	}
	if !strings.Contains(p.err.String(), "event e1-4") {
		t.Errorf("with --keep-going stderr %q does not tell of the failure", p.err)
	}
}

func TestInterruptedTailLetsTheCommandFinish(t *testing.T) {
	for _, c := range []struct{ end, state, stderr string }{
		{"true", `"e1-1"`, ""},
		{"exit 3", `"e1-0"`, "interrupted: the command failed for event e1-1: exit status 3; the next run with this --state begins with it"},
	} {
		g := newTestGateway(t)
		publishNumbers(g, "lobby", 0, 2)
		state := filepath.Join(t.TempDir(), "state")
		gate := filepath.Join(t.TempDir(), "gate")
		p := start(t, nil, nil, "tail", "lobby", "--after=earliest", "--state", state, "--url", g.URL,
			"--exec", "echo begun; while ! test -e "+gate+"; do sleep 0.02; done; echo finished; "+c.end)
		p.out.await(t, "begun")
		p.stop()
		if err := os.WriteFile(gate, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		p.wait(t, 0)
		if got := p.out.String(); got != "begun\nfinished\n" {
			t.Errorf("%s: printed %q, want the first event handled in full and no second one", c.end, got)
		}
		if text, _ := os.ReadFile(state); !strings.Contains(string(text), c.state) {
			t.Errorf("%s: state %s, want %s", c.end, text, c.state)
		}
		if !strings.Contains(p.err.String(), c.stderr) {
			t.Errorf("%s: stderr %q lacks %q", c.end, p.err, c.stderr)
		}
	}
}

func TestStateGoesOnWhereTheLastRunEnded(t *testing.T) {
	g := newTestGateway(t)
	state := filepath.Join(t.TempDir(), "state")
	args := []string{"tail", "lobby", "--after=earliest", "--json", "--state", state, "--url", g.URL}
	for i := range 3 {
		g.publish("lobby", fmt.Sprint(i))
		p := start(t, nil, nil, args...)
		p.out.await(t, fmt.Sprintf(`"data":%d`, i))
		p.stop()
		p.wait(t, 0)
		if got := shownNumbers(t, p.out.String())["lobby"]; !slices.Equal(got, []int{i}) {
			t.Errorf("run %d: shown %v, want %d only", i, got, i)
		}
	}
	_, stderr := sluice(t, 2, "tail", "other", "--state", state, "--url", g.URL)
	if !strings.Contains(stderr, "other rooms (lobby)") {
		t.Errorf("with another room: stderr %q", stderr)
	}
	if err := os.WriteFile(state, []byte("oops"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, stderr = sluice(t, 1, args...)
	if !strings.Contains(stderr, "remove it to begin anew") {
		t.Errorf("with a broken file: stderr %q", stderr)
	}
}

func TestTailAsksForWhatItWasTold(t *testing.T) {
	for _, c := range []struct {
		args []string
		want map[string]string
	}{
		{nil, map[string]string{"envelope": "true"}},
		{[]string{"--types=a,b", "--types=c"}, map[string]string{"types": "a,b,c"}},
		{[]string{"--last=5"}, map[string]string{"last": "5"}},
		{[]string{"--after=latest"}, map[string]string{"after": "latest"}},
	} {
		g := newTestGateway(t)
		g.planStreams(streamPlan{status: 204})
		sluice(t, 0, append([]string{"tail", "chat:x", "--url", g.URL}, c.args...)...)
		seen := g.seenStreams()[0]
		for name, want := range c.want {
			if got := seen.query[name]; seen.path != "/rooms/chat:x/events" || !slices.Equal(got, []string{want}) {
				t.Errorf("%v: %s with %s=%q, want %q", c.args, seen.path, name, got, want)
			}
		}
	}
}
